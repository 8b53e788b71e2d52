"""FLARE's tokens and parameters without its loss: what do extra tokens do alone?  The control with weight 0."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale

from . import flare


def config(scale: Scale = "small") -> Experiment:
    """FLARE with weight 0; the alignment is still computed, logged and watched."""
    arm = flare.config(scale)
    return replace(arm, name="flare_off", objectives={**arm.objectives, "flare": replace(arm.objectives["flare"], weight=0.0)})
