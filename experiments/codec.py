"""The codec in which explicit world models generate frames: diffusers' AutoencoderKL, small and trained on the data's own frames.

wmzoo train codec --out runs/codec
replace(codec.CODECS["small"], weights="runs/codec")      its blueprint in a later arm
"""

from dataclasses import replace

from wmzoo.config import Absent, Experiment, Optim, Scale, Shape, Term
from wmzoo.models import codec
from wmzoo.objectives import codec as objective

from . import feature_space

# "small": 24 x 24 cells of 4 numbers, 36 tokens of 64; folded, since convolutions at full size keep a CPU waiting for memory
SMALL = {"groups": 8, "fold": 4, "attention": False, "factor": 1.0}
CODECS = {
    "tiny": codec.Config("none", size=32, channels=(32,), layers=1, patch=2, **SMALL),
    "small": codec.Config("none", size=96, channels=(64,), layers=1, patch=4, **SMALL),
    "base": codec.Config("none", size=96, channels=(256,), layers=2, patch=4, **SMALL),
    "paper": codec.Config("none"),
}
OPTIMS = {
    "tiny": Optim(steps=300, lr=2e-3, ema=0.0, chapter=50),
    "small": Optim(steps=3000, lr=3e-3, ema=0.0),
    "base": Optim(steps=20_000, lr=3e-4, ema=0.0),
    "paper": Optim(steps=100_000, lr=1e-4, ema=0.0),
}


def config(scale: Scale = "small") -> Experiment:
    """A KL weight of 1e-6 a number; small batches, since updates count more than windows here."""
    term = Term(objective.Config(replace(CODECS[scale], frozen=False)), weights={"paint": 1.0, "kl": 1e-6})
    size = {"paper": 224}.get(scale, feature_space.data(scale).size)
    return Experiment(
        name="codec",
        shape=Shape(width=1, depth=0),
        trunk=Absent(),
        observer=Absent(),
        objectives={"codec": term},
        data=replace(feature_space.data(scale), size=size, batch={"tiny": 32, "small": 16, "base": 64, "paper": 32}[scale]),
        optim=OPTIMS[scale],
    )


def frozen(scale: Scale) -> codec.Config:
    """In an arm that has the stage; SDXL's, to be given weights, at paper scale."""
    return CODECS[scale] if scale == "paper" else replace(CODECS[scale], weights="stage:codec")


def stages(scale: Scale) -> dict[str, Experiment]:
    """What an arm that generates frames is preceded by."""
    return {} if scale == "paper" else {"codec": config(scale)}
