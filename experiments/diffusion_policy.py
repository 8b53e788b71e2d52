"""Diffusion Policy on the same trunk: two observation frames, noise prediction, DDIM.  The classical baseline."""

from dataclasses import replace

from wmzoo.config import Experiment, Play, Scale, Term
from wmzoo.models import embodiment
from wmzoo.objectives import ddpm

from . import policy


def config(scale: Scale = "small") -> Experiment:
    """The policy's sizes and data; the objective alone differs."""
    arm = policy.config(scale)
    term = Term(ddpm.Config(embodiment.InConfig(), embodiment.OutConfig()), weights={"noise": 1.0})
    return replace(arm, name="diffusion_policy", objectives={"ddpm": term}, play=Play(steps=10, execute=arm.play.execute))
