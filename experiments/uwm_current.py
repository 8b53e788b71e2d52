"""UWM's ablation: the video stream reconstructs the present frame instead of the future one."""

from wmzoo.config import Experiment, Scale

from . import uwm


def config(scale: Scale = "small") -> Experiment:
    return uwm.altered(uwm.config(scale), "uwm_current", control="current")
