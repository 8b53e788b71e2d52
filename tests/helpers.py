"""What do tests of several objectives do with an arm?  Build it small, away from its zeros, and score a batch twice alike."""

from dataclasses import replace

import torch
from torch import Tensor

from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, build
from wmzoo.interfaces import Sizes


def made(arm: Experiment, sizes: Sizes, moved: bool = True) -> Hybrid:
    """The hybrid of an arm, the same in every call; `moved` takes its weights away from the zeros they start with."""
    torch.manual_seed(0)
    shape = arm.shape
    hybrid = build(arm, replace(sizes, width=shape.width, depth=shape.depth, context=shape.width, out=shape.width))
    if moved:
        for parameter in hybrid.parameters():
            if parameter.requires_grad:
                parameter.data += 0.02 * torch.randn_like(parameter)
    return hybrid


def scores(hybrid: Hybrid, batch: Batch) -> dict[str, Tensor]:
    """The mean of every term, noise and clock the same in every call."""
    batch.features.clear()
    torch.manual_seed(3)
    return {name: score.mean() for name, score in hybrid(batch).items()}


def learns(hybrid: Hybrid, prefix: str) -> bool:
    """A gradient that is not 0 reached a parameter of that name."""
    named = [(name, p) for name, p in hybrid.named_parameters() if name.startswith(prefix)]
    assert named, prefix
    return any(p.grad is not None and bool(p.grad.any()) for _, p in named)
