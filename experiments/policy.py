"""The policy alone: flow matching on action chunks with a DiT (GR00T N1, pi0).  The baseline of every comparison."""

from dataclasses import replace

from wmzoo.config import Experiment, Optim, Play, Scale, Shape, Term
from wmzoo.data import Data
from wmzoo.models import backbones, conv, dit, embodiment, groot, observer, siglip2, text
from wmzoo.objectives import flow


def config(scale: Scale = "small") -> Experiment:
    """Tiny learns the toy in seconds; small is for two cores; base for one GPU; paper is GR00T N1.5's size."""
    return {"tiny": tiny, "small": small, "base": base, "paper": paper}[scale]()


def small() -> Experiment:
    return Experiment(
        name="policy",
        shape=Shape(width=128, depth=8),
        trunk=dit.Config(),
        observer=observer.Config(conv.Config(), text.Config()),
        objectives={"flow": Term(flow.Config(embodiment.InConfig(), embodiment.OutConfig()), weights={"velocity": 1.0})},
        data=Data(),
        optim=Optim(steps=2000),
    )


def tiny() -> Experiment:
    arm = small()
    return replace(
        arm,
        shape=Shape(width=64, depth=4),
        observer=observer.Config(conv.Config(channels=(16, 32)), text.Config(width=32, depth=1)),
        data=Data(tasks=("toy",), demos=8, size=32, horizon=8, shift=2, batch=32),
        optim=Optim(steps=300, lr=2e-3, ema=0.99, chapter=50),
        play=Play(steps=4, execute=4),
    )


def base() -> Experiment:
    arm = small()
    return replace(
        arm,
        shape=Shape(width=512, depth=12),
        trunk=dit.Config(heads=8),
        observer=observer.Config(
            backbones.Config("resnet18", "none", size=96, frozen=False, group_norm=True), text.Config(width=256, depth=4, heads=4)
        ),
        data=Data(tasks=("mw10",), batch=256),
        optim=Optim(steps=40_000, lr=3e-4, ema=0.9999),
    )


def paper() -> Experiment:
    """GR00T N1.5's action head (parity mode, 16 blocks) behind SigLIP 2 large; FLARE's policy-only training setting."""
    return Experiment(
        name="policy",
        shape=Shape(width=1536, depth=16),
        trunk=groot.Config(),
        observer=groot.ObserverConfig(siglip2.VisionConfig("none"), text.Config(width=1024, depth=4, heads=16)),
        objectives={"flow": Term(flow.Config(groot.InConfig(), groot.OutConfig(), reduction="element"), weights={"velocity": 1.0})},
        data=Data(tasks=("mw10",), size=256, batch=1024),
        optim=Optim(steps=80_000, lr=1e-4, ema=0.0),
    )
