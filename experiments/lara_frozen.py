"""LARA with a latent action model that stays as its stage left it: does the policy gain, or does training together?"""

from wmzoo.config import Experiment, Scale

from . import lara


def config(scale: Scale = "small") -> Experiment:
    """The agreement alone; nothing moves the latent action model."""
    return lara.altered(lara.config(scale), "lara_frozen", {"align": 0.01}, frozen=True)
