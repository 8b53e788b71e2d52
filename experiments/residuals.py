"""Does a small latent of what changes hold the future, in one pass, and in the order of time?

wmzoo study residuals
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study


def study(scale: Scale = "small") -> Study:
    """The autoencoder, told the future through its latent, beside its decoder trained without one."""
    return Study(
        question="How much of the future does a small latent of the change hold, and how much does the present alone?",
        rows={name: Row(name) for name in ("rla", "rla_no_latent")},
        baseline="rla",
        measures=("foresee",),
    )
