"""A causal video model in the codec's latents, in the manner of Vid2World.

wmzoo train video --out runs/video
wmzoo eval runs/video --space RUN      also in the feature space of another world model's run
"""

from dataclasses import replace
from typing import Any

from wmzoo.config import Experiment, Scale
from wmzoo.models import video
from wmzoo.objectives import video as objective

from . import codec, rla_wm

EVERY: dict[Scale, int] = {"tiny": 2, "small": 4, "base": 4, "paper": 4}


def config(scale: Scale = "small") -> Experiment:
    """As wide and as deep as the other world models, wider at tiny scale; 30 steps of sampling, guided, at paper scale."""
    sizes: dict[str, Any] = rla_wm.blocks(scale) | ({"width": 64, "depth": 3} if scale == "tiny" else {})
    term = objective.Config(video.Config(codec.frozen(scale), every=EVERY[scale], **sizes), steps=30 if scale == "paper" else 10)
    term = replace(term, guidance=2.5) if scale == "paper" else term
    arm = rla_wm.world_model("video", scale, term, {"velocity": 1.0}, codec.stages(scale))
    return replace(arm, data=replace(arm.data, size=224)) if scale == "paper" else arm
