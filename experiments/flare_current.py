"""FLARE toward the present frame: is it the future that helps, or any alignment?  A control."""

from wmzoo.config import Experiment, Scale

from . import flare


def config(scale: Scale = "small") -> Experiment:
    """FLARE whose target is the embedding of the current frame."""
    arm = flare.config(scale)
    return flare.altered(arm, "flare_current", control="current")
