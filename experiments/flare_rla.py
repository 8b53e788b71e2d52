"""A hybrid nobody has published: FLARE's future tokens and residual latents on one trunk."""

from wmzoo.config import Experiment, Scale

from . import flare
from .policy_rla import with_head


def config(scale: Scale = "small") -> Experiment:
    return with_head(flare.config(scale), "flare_rla", scale)
