"""LARA without the latent action model's own loss: what keeps the latents from becoming what is easy to agree with?"""

from wmzoo.config import Experiment, Scale

from . import lara


def config(scale: Scale = "small") -> Experiment:
    """The agreement alone moves policy and latents; reconstruction is logged."""
    return lara.altered(lara.config(scale), "lara_align", {"align": 0.01, "lam": 0.0})
