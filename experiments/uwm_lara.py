"""UWM and LARA on one trunk: the frame is generated, and the actions, which may not look at it, agree with a latent action."""

from wmzoo.config import Experiment, Scale

from . import lara, uwm


def config(scale: Scale = "small") -> Experiment:
    """At most base: the published networks of the two do not fit on one trunk."""
    built: Scale = "base" if scale == "paper" else scale
    return uwm.joined(lara.config(built), "uwm_lara", built)
