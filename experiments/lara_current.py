"""LARA toward the motion from the present frame to itself: is it the future that helps?  A control."""

from wmzoo.config import Experiment, Scale

from . import lara


def config(scale: Scale = "small") -> Experiment:
    """LARA whose target has seen no future."""
    return lara.altered(lara.config(scale), "lara_current", control="current")
