"""RLA's setting: all episodes are there as videos, few of them with actions.  Does a residual latent help cloning then?

wmzoo study few_actions
"""

from wmzoo.config import Scale
from wmzoo.study import Row, Study

EPISODES = 48  # of a task, validation left out
STAGES = ("vit_mae", "pixels", "rla")


def study(scale: Scale = "small") -> Study:
    """The encoder, the decoder and the autoencoder see every episode without its actions."""

    def setting(demos: int) -> dict[str, int]:
        return {"data.demos": demos, "data.videos": EPISODES - demos, **({"optim.steps": 600} if scale == "small" else {})}

    watched = {f"stages.{stage}.data.videos": EPISODES - 2 for stage in STAGES}
    rows = {name: Row(name, watched) for name in ("bc_rla", "bc_rla_off", "bc_rla_current", "bc_rla_shuffled")}
    return Study(
        question="With few actions and many videos, does cloning gain from predicting the residual latent of its own chunk?",
        rows={"bc": Row("bc", {"data.videos": 0}), **rows},
        baseline="bc",
        settings={"4% with actions": setting(2), "15% with actions": setting(7)} if scale != "tiny" else {"4% with actions": {}},
    )
