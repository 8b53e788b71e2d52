"""RLA-WM: a world model that generates the residual latent of the future from the present frame and the actions.

wmzoo train rla_wm --out runs/rla_wm
wmzoo eval runs/rla_wm
"""

from dataclasses import replace
from typing import Any

from wmzoo.config import Absent, Experiment, Optim, Scale, Shape, Term
from wmzoo.interfaces import Blueprint
from wmzoo.models import rla_wm
from wmzoo.objectives import rla_wm as objective

from . import feature_space, rla

# the same blocks for every world model: as wide, and as many in all
WIDTH, DEPTH, HEADS = ({"tiny": 32, "small": 128, "base": 384}, {"tiny": 2, "small": 6, "base": 12}, {"tiny": 2, "small": 4, "base": 6})
OPTIMS = {
    "tiny": Optim(steps=400, lr=2e-3, ema=0.0, chapter=50),
    "small": Optim(steps=1500, decay=0.0),
    "base": Optim(steps=60_000, lr=3e-4, decay=0.0),
    "paper": Optim(steps=100_000, lr=1e-4, betas=(0.9, 0.999), decay=0.0, ema=0.0),
}


def config(scale: Scale = "small") -> Experiment:
    before = rla.stages(scale)
    residuals = rla.model(scale, "none" if scale == "paper" else "stage:rla")
    network = rla_wm.Config(residuals, places=False) if scale == "paper" else rla_wm.Config(residuals, **half(scale))
    term = objective.Config(network, feature_space.look(scale))
    return world_model("rla_wm", scale, term, {"mse": 1.0, "l1": 1.0}, {} if scale == "paper" else before)


def half(scale: Scale) -> dict[str, Any]:
    """Half of the blocks read the present, half make the latent."""
    return {"width": WIDTH[scale], "before": DEPTH[scale] // 2, "after": DEPTH[scale] // 2, "heads": HEADS[scale]}


def blocks(scale: Scale) -> dict[str, Any]:
    """All blocks over the tokens of a frame; the network's own sizes at paper scale."""
    return {} if scale == "paper" else {"width": WIDTH[scale], "depth": DEPTH[scale], "heads": HEADS[scale]}


def world_model(name: str, scale: Scale, term: Blueprint, weights: dict[str, float], stages: dict[str, Experiment]) -> Experiment:
    """An arm with one world model: same windows, same steps, no trunk.

    At paper scale frames lie 1 to 14 steps ahead: published are 2 to 15 frames, of which the present one is the first.
    """
    data = feature_space.data(scale)
    return Experiment(
        name=name,
        shape=Shape(width=1, depth=0),
        trunk=Absent(),
        observer=Absent(),
        objectives={name: Term(term, weights=weights)},
        data=replace(data, videos=0, horizon=14 if scale == "paper" else data.horizon),
        optim=OPTIMS[scale],
        stages=stages,
    )
