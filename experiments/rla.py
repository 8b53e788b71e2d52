"""The residual latent autoencoder by itself: what changed between two frames, in 8 tokens of 16 numbers.

wmzoo train rla --out runs/rla
wmzoo eval runs/rla
"""

from dataclasses import replace
from typing import Any

from wmzoo.config import Absent, Experiment, Optim, Scale, Shape, Term
from wmzoo.models import rla
from wmzoo.objectives import rla as objective

from . import feature_space

SIZES: dict[Scale, dict[str, Any]] = {
    "tiny": {"tokens": 4, "latent": 8, "width": 32, "depth": 2, "heads": 2, "writes": "change"},
    "small": {"tokens": 8, "latent": 16, "width": 128, "depth": 4, "heads": 4, "writes": "change"},
    "base": {"tokens": 16, "latent": 32, "width": 384, "depth": 8, "heads": 6, "writes": "change"},
    "paper": {},
}
OPTIMS = {
    "tiny": Optim(steps=300, lr=2e-3, ema=0.0, chapter=50),
    "small": Optim(steps=1500, decay=0.0, ema=0.0),
    "base": Optim(steps=40_000, lr=3e-4, decay=0.0, ema=0.0),
    "paper": Optim(steps=100_000, lr=1e-4, betas=(0.9, 0.999), decay=0.0, ema=0.0),
}


def config(scale: Scale = "small") -> Experiment:
    """Frames 1 to 16 steps apart (the chunk); 1 to 99 at paper scale."""
    before = stages(scale)
    arm = before.pop("rla")
    return replace(arm, stages=before)


def model(scale: Scale, weights: str = "none") -> rla.Config:
    """The autoencoder at each scale."""
    return rla.Config(feature_space.encoder(scale), weights, **SIZES[scale])


def stages(scale: Scale) -> dict[str, Experiment]:
    """What an arm with residual latents is preceded by: encoder, decoder to pixels, and the autoencoder, "rla"."""
    data = feature_space.data(scale)
    gaps = (1, 99) if scale == "paper" else (1, data.horizon)
    arm = Experiment(
        name="rla",
        shape=Shape(width=1, depth=0),
        trunk=Absent(),
        observer=Absent(),
        objectives={"rla": Term(objective.Config(model(scale), gaps), weights={"l1": 1.0, "mse": 1.0})},
        data=replace(data, videos=0 if scale == "tiny" else 10, batch=128 if scale == "paper" else data.batch),
        optim=OPTIMS[scale],
    )
    return {**feature_space.stages(scale), "rla": arm}
