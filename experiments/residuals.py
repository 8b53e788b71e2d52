"""Does a small latent of what changes hold the future, in one pass, in the order of time, and on tasks that it has never seen?

wmzoo study residuals
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

UNSEEN = ("door-open", "window-open", "drawer-close")


def study(scale: Scale = "small") -> Study:
    """The autoencoder, told the future through its latent, beside its decoder trained without one."""
    tasks, unseen = ({"data.tasks": ("toy-red",)}, ("toy-blue",)) if scale == "tiny" else ({}, UNSEEN)
    return Study(
        question="How much of the future does a small latent of the change hold, and how much does the present alone?",
        rows={name: Row(name, tasks) for name in ("rla", "rla_no_latent")},
        baseline="rla",
        measures=("foresee", "transfer"),
        elsewhere=unseen,
    )
