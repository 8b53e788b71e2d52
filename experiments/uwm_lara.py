"""UWM and LARA on one trunk: the frame is generated, and the actions, which may not look at it, agree with a latent action."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import codec, lara, uwm


def config(scale: Scale = "small") -> Experiment:
    arm = lara.config("base" if scale == "paper" else scale)
    explicit = uwm.config("base" if scale == "paper" else scale).objectives
    arm = replace(
        arm, objectives={**arm.objectives, **explicit}, stages={**arm.stages, **codec.stages("base" if scale == "paper" else scale)}
    )
    return uwm.sealed(arm, "uwm_lara")
