"""Diffusion Policy on the same trunk: two observation frames, DDIM.  The classical baseline.

At paper scale the network predicts the noise; below, the clean chunk, which a short training learns better (LOG.md).
"""

from dataclasses import replace

from wmzoo.config import Experiment, Optim, Play, Scale, Shape, Term
from wmzoo.data import Data
from wmzoo.models import backbones, embodiment, text, unet1d
from wmzoo.objectives import ddpm

from . import policy


def config(scale: Scale = "small") -> Experiment:
    """The policy's sizes and data; the objective differs, and at paper scale the network is the published U-Net."""
    if scale == "paper":
        return paper()
    arm = policy.config(scale)
    term = Term(ddpm.Config(embodiment.InConfig(), embodiment.OutConfig(), prediction="sample"), weights={"denoise": 1.0})
    arm = replace(arm, name="diffusion_policy", objectives={"ddpm": term}, play=Play(steps=10, execute=arm.play.execute))
    return replace(arm, optim=replace(arm.optim, steps=2000)) if scale == "small" else arm


def paper() -> Experiment:
    """The convolutional network of the paper: ResNet-18 with group norm, 32 keypoints, U-Net (512, 1024, 2048); DDPM with all its steps."""
    encoder = backbones.Config("resnet18", "none", size=96, frozen=False, group_norm=True)
    return Experiment(
        name="diffusion_policy",
        shape=Shape(width=1, depth=0),
        trunk=unet1d.Config(),
        observer=unet1d.ObserverConfig(encoder, text.Config()),
        objectives={"ddpm": Term(ddpm.Config(unet1d.InConfig(), unet1d.OutConfig(), sampler="ddpm"), weights={"denoise": 1.0})},
        data=Data(tasks=("mw10",)),
        optim=Optim(steps=300_000, lr=1e-4, decay=1e-6, warmup=500 / 300_000, ema=0.9999),
        play=Play(steps=100),
    )
