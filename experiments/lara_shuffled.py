"""LARA toward the motion of another window: is it the content of the latent that helps?  A control."""

from wmzoo.config import Experiment, Scale

from . import lara


def config(scale: Scale = "small") -> Experiment:
    """LARA whose latents are exchanged within the batch."""
    return lara.altered(lara.config(scale), "lara_shuffled", control="shuffled")
