"""The in-domain stage: a ViT-MAE encoder from the data's own frames, which later arms (LARA's latent actions) read.

wmzoo train vit_mae --out runs/vit_mae
replace(vit_mae.ENCODERS["small"], weights="runs/vit_mae")      the blueprint of that encoder in a later arm
"""

from dataclasses import replace

from wmzoo.config import Absent, Experiment, Optim, Scale, Shape, Term
from wmzoo.data import Data
from wmzoo.interfaces import Blueprint
from wmzoo.models import siglip2, vit_mae
from wmzoo.objectives import mae

# "small" is 0.3 GFLOP forward an image (36 of 144 patches are visible), 58 GFLOP a step of 64 windows; bf16 did 1.8 steps a
# second on one core, so 1,000 steps fit into five minutes on two.
ENCODERS = {
    "tiny": vit_mae.Config("none", image=32, patch=8, width=64, depth=2, heads=2),
    "small": vit_mae.Config("none", image=96, patch=8, width=192, depth=6, heads=6),
    "base": vit_mae.Config("none", image=96, patch=8, width=384, depth=12, heads=6),
    "paper": vit_mae.Config("none"),
}
DECODERS = {"tiny": (32, 1, 1), "small": (96, 2, 3), "base": (192, 4, 3), "paper": (512, 8, 16)}  # width, depth, heads
OPTIMS = {
    "tiny": Optim(steps=200, lr=2e-3, chapter=50),
    "small": Optim(steps=1000),
    "base": Optim(steps=20_000, lr=5e-4),
    "paper": Optim(steps=100_000, lr=1.5e-4),
}
DATA = {
    "tiny": Data(tasks=("toy",), demos=8, size=32, horizon=8, shift=2, batch=32),
    "small": Data(),
    "base": Data(tasks=("mw10",), batch=256),
    "paper": Data(tasks=("mw10",), size=224, batch=256),
}


def config(scale: Scale = "small") -> Experiment:
    return staged(scale, ENCODERS[scale])


def staged(scale: Scale, encoder: vit_mae.Config) -> Experiment:
    """The stage that trains another encoder at this scale."""
    encoder, (width, depth, heads) = replace(encoder, frozen=False), DECODERS[scale]
    return Experiment(
        name="vit_mae",
        shape=Shape(width=1, depth=0),
        trunk=Absent(),
        observer=Absent(),
        objectives={"mae": Term(mae.Config(vit_mae.MaskedConfig(encoder, width, depth, heads)), weights={"reconstruction": 1.0})},
        data=DATA[scale],
        optim=replace(OPTIMS[scale], betas=(0.9, 0.95), decay=0.05),  # He et al., table 8
    )


def frozen(scale: Scale) -> tuple[Blueprint, dict[str, Experiment]]:
    """A frozen encoder for alignment targets, and the stages it needs: this one; SigLIP 2 and none at paper scale."""
    if scale == "paper":
        return siglip2.VisionConfig("none"), {}
    return replace(ENCODERS[scale], weights="stage:vit_mae"), {"vit_mae": config(scale)}
