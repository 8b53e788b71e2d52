"""What does a latent action know of the motion of the hand: trained alone, and together with a policy?

wmzoo study latent_actions
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study


def study(scale: Scale = "small") -> Study:
    """At small scale LARA's cells are those of implicit_vs_explicit; `lara_off` has the plain model, with as many steps."""
    joint = {"data.demos": 40, "optim.steps": 1000} if scale == "small" else {}
    return Study(
        question="What does a latent action know of the motion, and does training it with a policy change that?",
        rows={
            "lam": Row("lam"),
            **{name: Row(name, joint) for name in ("lara", "lara_off", "lara_align", "lara_current", "lara_shuffled")},
        },
        baseline="lara_off",
        measures=("probe",),
    )
