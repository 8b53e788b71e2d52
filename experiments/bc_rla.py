"""BC-RLA, the minimalist world-action model: cloning, and a head for the residual latent of the own chunk.

wmzoo train bc_rla --data.demos 2 --data.videos 46 --out runs/bc_rla      half of each batch is video
"""

from dataclasses import replace

from wmzoo.config import Experiment, Scale, Term
from wmzoo.objectives import bc_rla

from . import bc, rla


def config(scale: Scale = "small") -> Experiment:
    """Weight 0.05 on both terms of the latent, as in the paper."""
    arm = bc.config(scale)
    cloning = arm.objectives["bc"].config
    shape = {name: getattr(cloning, name) for name in ("queries", "hidden", "dropout")}
    term = bc_rla.Config(rla.model(scale, "none" if scale == "paper" else "stage:rla"), **shape)
    return replace(
        arm,
        name="bc_rla",
        objectives={"bc": Term(term, weights={"action": 1.0, "latent_l1": 0.05, "latent_mse": 0.05})},
        stages=before(scale),
    )


def before(scale: Scale) -> dict[str, Experiment]:
    """The stages that an arm with residual latents needs."""
    return {} if scale == "paper" else rla.stages(scale)
