"""RLA's setting: all episodes are there as videos, few of them with actions.  Does a residual latent help cloning then?

wmzoo study few_actions
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

EPISODES = 54  # of a task: of the 60 recorded ones every tenth is for validation (wmzoo/episodes.py)
FEW, MORE = 2, 7  # of them with actions
STAGES = ("vit_mae", "rla")


def study(scale: Scale = "small") -> Study:
    """Encoder and autoencoder see every episode without its actions; beside the fewest demonstrations all but five."""

    def setting(demos: int) -> dict[str, int]:
        return {"data.demos": demos, "data.videos": EPISODES - demos, **({"optim.steps": 600} if scale == "small" else {})}

    settings = {"4% with actions": setting(FEW), "13% with actions": setting(MORE)}
    watched = {f"stages.{stage}.data.videos": EPISODES - MORE for stage in STAGES}  # stages have the demonstrations of their arm too
    if scale == "paper":  # published weights: no stages
        watched = {}
    if scale == "tiny":  # the toy has hardly any episodes
        settings, watched = {"4% with actions": {"data.demos": 4, "data.videos": 4}}, {}
    rows = {name: Row(name, watched) for name in ("bc_rla", "bc_rla_off", "bc_rla_current", "bc_rla_shuffled")}
    return Study(
        question="With few actions and many videos, does cloning gain from predicting the residual latent of its own chunk?",
        rows={"bc": Row("bc", {"data.videos": 0}), **rows},
        baseline="bc",
        settings=settings,
    )
