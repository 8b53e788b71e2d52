"""RAE-adapted diffusion: the future frame's tokens from noise, with a wide head and clocks pushed toward noise."""

from wmzoo.config import Experiment, Scale
from wmzoo.models import rae
from wmzoo.objectives import rae as objective

from . import feature_space, rla_wm

HEADS = {"tiny": (64, 1, 2), "small": (256, 1, 4), "base": (768, 2, 6)}  # width, depth, heads of the wide head


def config(scale: Scale = "small") -> Experiment:
    """Below paper scale two blocks of the trunk are given up for the head."""
    encoder = feature_space.encoder(scale)
    if scale == "paper":
        network, stages = rae.Config(encoder), {}
    else:
        width, depth, heads = HEADS[scale]
        blocks = {**rla_wm.blocks(scale), "depth": max(1, rla_wm.DEPTH[scale] - 2)}
        network, stages = rae.Config(encoder, head_width=width, head_depth=depth, head_heads=heads, **blocks), feature_space.stages(scale)
    term = objective.Config(network, feature_space.look(scale))
    return rla_wm.world_model("rae", scale, term, {"mse": 1.0, "l1": 0.0}, stages)
