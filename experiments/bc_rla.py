"""BC-RLA, the minimalist world-action model: cloning, and a head for the residual latent of the own chunk.

wmzoo train bc_rla --data.demos 2 --data.videos 52 --out runs/bc_rla      of 60 recorded episodes a task 6 are for validation
"""

from dataclasses import replace

from wmzoo.config import Experiment, Scale, Term
from wmzoo.data import Data
from wmzoo.objectives import bc_rla

from . import bc, feature_space, rla

DATA = {"tiny": {"demos": 4, "videos": 4}, "paper": {"demos": 50, "videos": 950}}  # episodes of a task; elsewhere 10 and 40 of 54


def config(scale: Scale = "small") -> Experiment:
    """Weight 0.05 on both terms of the latent, as in the paper; `--data.demos k --data.videos n`: half of each batch is video.

    The stages before it watch the same episodes.  The paper has 50 demonstrations of 1,000 videos, and frames as large as its latents want.
    """
    arm, few = bc.config(scale), DATA.get(scale, {"demos": 10, "videos": 40})
    cloning = arm.objectives["bc"].config
    shape = {name: getattr(cloning, name) for name in ("queries", "hidden", "dropout")}
    term = bc_rla.Config(rla.model(scale, "none" if scale == "paper" else "stage:rla"), **shape)
    return replace(
        arm,
        name="bc_rla",
        objectives={"bc": Term(term, weights={"action": 1.0, "latent_l1": 0.05, "latent_mse": 0.05})},
        data=replace(watched(arm, scale), **few),
        stages={label: replace(stage, data=replace(stage.data, videos=few["videos"])) for label, stage in unseen(scale).items()},
    )


def watched(arm: Experiment, scale: Scale) -> Data:
    """The data of an arm with residual latents: at paper scale in the size of their feature space; its own eye takes them smaller."""
    return replace(arm.data, size=feature_space.data(scale).size) if scale == "paper" else arm.data


def unseen(scale: Scale) -> dict[str, Experiment]:
    """The stages that an arm with residual latents needs, when it never paints what it foresees."""
    return {} if scale == "paper" else {label: stage for label, stage in rla.stages(scale).items() if label != "pixels"}
