"""UWM and FLARE on one trunk: the frame is generated, and its embedding is foreseen by tokens that may not look at it."""

from wmzoo.config import Experiment, Scale

from . import flare, uwm


def config(scale: Scale = "small") -> Experiment:
    """At most base: the published networks of the two do not fit on one trunk."""
    built: Scale = "base" if scale == "paper" else scale
    return uwm.joined(flare.config(built), "uwm_flare", built)
