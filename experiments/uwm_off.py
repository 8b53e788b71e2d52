"""Control of UWM: the same tokens without their loss, and noise alone in them, so that no action reads the future off them."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import uwm


def config(scale: Scale = "small") -> Experiment:
    arm = uwm.altered(uwm.config(scale), "uwm_off", drop=1.0)
    return replace(arm, objectives={**arm.objectives, "uwm": replace(arm.objectives["uwm"], weight=0.0)})
