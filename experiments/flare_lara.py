"""A hybrid nobody has published: FLARE's future tokens and LARA's shared latent on one trunk."""

from wmzoo.config import Experiment, Scale

from . import flare, lara


def config(scale: Scale = "small") -> Experiment:
    """Both at the weights of their papers."""
    return lara.joined(flare.config(scale), "flare_lara", scale)
