"""What does a latent action know of the motion of the hand: trained alone, and together with a policy?

wmzoo study latent_actions
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study


def study(scale: Scale = "small") -> Study:
    return Study(
        question="What does a latent action know of the motion, and does training it with a policy change that?",
        rows={name: Row(name) for name in ("lam", "lara", "lara_off", "lara_align", "lara_current", "lara_shuffled")},
        baseline="lam",
        measures=("probe",),
    )
