"""Behaviour cloning by regression: the baseline of the world-action model `bc_rla`.

wmzoo train bc --data.demos 2 --out runs/bc
"""

from dataclasses import replace

from wmzoo.config import Experiment, Play, Scale, Shape, Term
from wmzoo.models import backbones, dit, observer, text
from wmzoo.objectives import bc

from . import policy

HIDDEN = {"tiny": 64, "small": 512, "base": 2048, "paper": 2048}


def config(scale: Scale = "small") -> Experiment:
    """The observer of `policy`, a trunk whose observation is part of the sequence; a ResNet as in the paper at paper scale."""
    arm = policy.config("base" if scale == "paper" else scale)
    if scale == "paper":
        encoder = backbones.Config("resnet18", "none", size=128, frozen=False, group_norm=True)
        arm = replace(
            arm,
            shape=Shape(width=256, depth=6),
            observer=observer.Config(encoder, text.Config(width=256, depth=4, heads=4)),
            data=replace(arm.data, size=128, horizon=12, batch=64, shift=0),
            optim=replace(arm.optim, steps=40_000, lr=3e-4, betas=(0.9, 0.999), decay=1e-4, warmup=200 / 40_000),
        )
    term = bc.Config(queries={"tiny": 8}.get(scale, 16), hidden=HIDDEN[scale], dropout=0.0 if scale == "tiny" else 0.1)
    heads = {"tiny": 4, "small": 4, "base": 8, "paper": 8}[scale]
    return replace(
        arm,
        name="bc",
        trunk=dit.Config(heads=heads, conditioning="joint"),
        objectives={"bc": Term(term, weights={"action": 1.0})},
        play=Play(steps=1, execute=arm.play.execute),
    )
