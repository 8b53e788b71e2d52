"""PAD, as UWM compares with it: actions and the future frame on one clock."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale, Term
from wmzoo.models import embodiment
from wmzoo.objectives import pad

from . import codec, policy


def config(scale: Scale = "small") -> Experiment:
    """The policy's eye, trunk and data; at paper scale those of `base` in the published codec."""
    arm = policy.config("base" if scale == "paper" else scale)
    term = pad.Config(codec.frozen(scale), embodiment.InConfig(), embodiment.OutConfig(), gap=arm.data.horizon)
    return replace(arm, name="pad", objectives={"pad": Term(term, weights={"action": 1.0, "video": 1.0})}, stages=codec.stages(scale))
