"""FLARE toward the future of another window: is it the content of the target that helps?  A control."""

from wmzoo.config import Experiment, Scale

from . import flare


def config(scale: Scale = "small") -> Experiment:
    """FLARE whose targets are exchanged within the batch."""
    arm = flare.config(scale)
    return flare.altered(arm, "flare_shuffled", control="shuffled")
