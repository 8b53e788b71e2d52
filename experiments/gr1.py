"""GR-1, as UWM compares with it: cloning, and the future frame by regression."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale, Term
from wmzoo.objectives import gr1

from . import bc, codec


def config(scale: Scale = "small") -> Experiment:
    """The clone of `bc` with learned tokens for the frame; the absolute error is logged alone."""
    arm = bc.config("base" if scale == "paper" else scale)
    term = Term(gr1.Config(codec.frozen(scale), gaps=(arm.data.horizon,)), weights={"latent_mse": 1.0, "latent_l1": 0.0})
    return replace(arm, name="gr1", objectives={**arm.objectives, "gr1": term}, stages=codec.stages(scale))
