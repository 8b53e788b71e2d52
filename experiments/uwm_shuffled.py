"""Control of UWM: the video stream generates the future of another window."""

from wmzoo.config import Experiment, Scale

from . import uwm


def config(scale: Scale = "small") -> Experiment:
    return uwm.altered(uwm.config(scale), "uwm_shuffled", control="shuffled")
