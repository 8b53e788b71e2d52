"""The feature space of the world models: an in-domain ViT-MAE offline, DINOv3 at paper scale; and a decoder to look at it.

wmzoo train rla_wm --space vit_small_patch14_dinov2.lvd142m          another one, by its name in timm, published weights
wmzoo train rla_wm --space vit_small_patch16_dinov3 WEIGHTS          or those of a local file or folder
"""

from dataclasses import replace

from wmzoo.config import Absent, Experiment, Optim, Scale, Shape, Term, parts, with_fields
from wmzoo.data import Data
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint
from wmzoo.models import backbones, pixels, vit_mae
from wmzoo.objectives import pixels as objective

from . import vit_mae as stage

# "small" has 64 tokens of 128 numbers: a network of noisy tokens must be trained in minutes, thirty passes a prediction.
ENCODERS = {**stage.ENCODERS, "small": vit_mae.Config("none", image=96, patch=12, width=128, depth=4, heads=4)}
OPTIMS = {
    "tiny": Optim(steps=200, lr=2e-3, ema=0.0, chapter=50),
    "small": Optim(steps=1500, ema=0.0),
    "base": Optim(steps=20_000, lr=3e-4, ema=0.0),
    "paper": Optim(steps=100_000, lr=1e-4, ema=0.0),
}
CHANNELS = {"tiny": 32, "small": 64, "base": 128, "paper": 256}


def config(scale: Scale = "small") -> Experiment:
    """The decoder to pixels, after the encoder."""
    before = stages(scale)
    arm = before.pop("pixels")
    return replace(arm, stages=before)


def encoder(scale: Scale) -> Blueprint:
    """Frozen; tokens of unmoved frames are computed once per data set and read from disk."""
    if scale == "paper":
        return backbones.Config("vit_large_patch16_dinov3", "none", size=512)
    return replace(ENCODERS[scale], weights="stage:vit_mae")


def stages(scale: Scale) -> dict[str, Experiment]:
    """What every world model is preceded by: the encoder, and the decoder to pixels."""
    term = objective.Config(encoder(scale), pixels.Config(encoder(scale), channels=CHANNELS[scale]))
    arm = Experiment(
        name="feature_space",
        shape=Shape(width=1, depth=0),
        trunk=Absent(),
        observer=Absent(),
        objectives={"pixels": Term(term, weights={"paint": 1.0})},
        data=data(scale),
        optim=OPTIMS[scale],
    )
    return {**({} if scale == "paper" else {"vit_mae": stage.staged(scale, ENCODERS[scale])}), "pixels": arm}


def data(scale: Scale) -> Data:
    """Frames are never moved, so that features are read from disk."""
    like = stage.DATA[scale]
    return replace(
        like, shift=0, size=512 if scale == "paper" else like.size, batch={"tiny": 32, "small": 64, "base": 128, "paper": 64}[scale]
    )


def through(arm: Experiment, name: str, weights: str = "pretrained") -> Experiment:
    """The arm with a frozen backbone of timm, run at 224 pixels, wherever it and its stages read the in-domain ViT-MAE.

    Args:
        weights: pretrained, or a local file or folder.

    Raises:
        UserError: it reads none, or `weights` is "none": every place would have other random ones.
    """
    if weights == "none":
        raise UserError("a feature space without weights would be another one in every place: say pretrained, or a local file or folder")
    other = backbones.Config(name, weights)

    def read(one: Experiment) -> dict[str, Blueprint]:
        seen = parts(replace(one, stages={}))
        return {place: other for place, part in seen if isinstance(part, vit_mae.Config) and part.weights == "stage:vit_mae"}

    if not any(map(read, (arm, *arm.stages.values()))):
        raise UserError(f"{arm.name} reads no frozen feature space that could be another one")
    stages = {label: with_fields(stage, read(stage)) for label, stage in arm.stages.items() if label != "vit_mae"}
    return with_fields(replace(arm, stages=stages), read(arm))


def look(scale: Scale) -> pixels.Config:
    """The frozen decoder in an arm that has the stage."""
    return pixels.Config(encoder(scale), "none" if scale == "paper" else "stage:pixels", CHANNELS[scale])
