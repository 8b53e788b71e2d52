"""Control of UWM: the same tokens without their loss."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import uwm


def config(scale: Scale = "small") -> Experiment:
    arm = uwm.config(scale)
    return replace(arm, name="uwm_off", objectives={**arm.objectives, "uwm": replace(arm.objectives["uwm"], weight=0.0)})
