"""UWM and FLARE on one trunk: the frame is generated, and its embedding is foreseen by tokens that may not look at it."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import codec, flare, uwm


def config(scale: Scale = "small") -> Experiment:
    arm = flare.config("base" if scale == "paper" else scale)
    explicit = uwm.config("base" if scale == "paper" else scale).objectives
    arm = replace(
        arm, objectives={**arm.objectives, **explicit}, stages={**arm.stages, **codec.stages("base" if scale == "paper" else scale)}
    )
    return uwm.sealed(arm, "uwm_flare")
