"""DINO-WM in its sequence form: frame after frame by regression, causal from frame to frame."""

from dataclasses import replace
from typing import Any

from wmzoo.config import Experiment, Scale
from wmzoo.models import backbones, dino_wm
from wmzoo.objectives import dino_wm as objective

from . import feature_space, rla_wm

SIZES: dict[Scale, dict[str, Any]] = {
    "tiny": {"every": 2, "extra": 4, "depth": 2, "heads": 2, "head": 16, "hidden": 64},
    "small": {"every": 4, "extra": 16, "depth": 6, "heads": 4, "head": 32, "hidden": 512},
    "base": {"every": 4, "extra": 16, "depth": 12, "heads": 6, "head": 64, "hidden": 1536},
}


def config(scale: Scale = "small") -> Experiment:
    """Below paper scale the state is not read, as no other world model reads it, and frames lie 4 steps apart."""
    if scale == "paper":
        encoder = backbones.Config("vit_small_patch14_dinov2", "none", size=196)
        network = dino_wm.Config(encoder, place=1.0)
        term = objective.Config(network, feature_space.pixels.Config(encoder, channels=256))
        arm = rla_wm.world_model("dino_wm", scale, term, {"next": 1.0}, {})
        return replace(arm, data=replace(arm.data, horizon=15))  # three frames of five steps
    network = dino_wm.Config(feature_space.encoder(scale), proprio=False, **SIZES[scale])
    term = objective.Config(network, feature_space.look(scale), every=network.every)
    return rla_wm.world_model("dino_wm", scale, term, {"next": 1.0}, feature_space.stages(scale))
