"""LARA without its agreement: policy and latent action model side by side, nothing between them.  The control with weight 0."""

from wmzoo.config import Experiment, Scale

from . import lara


def config(scale: Scale = "small") -> Experiment:
    """The agreement is computed, logged and watched; it teaches nobody."""
    return lara.altered(lara.config(scale), "lara_off", {"align": 0.0, "lam": 0.01})
