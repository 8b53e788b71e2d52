"""What do tests of several objectives do with an arm?  Build it small, away from its zeros, and score a batch twice alike."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, build
from wmzoo.interfaces import Sizes
from wmzoo.module import ZooModule
from wmzoo.run import train


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


def interrupted(arm: Experiment, out: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train an arm that fails in this step, counted from 0, and then to its end by the same call."""
    whole = ZooModule.training_step

    def failing(module: ZooModule, batch: Batch, index: int) -> Tensor:
        if module.global_step == step:
            raise RuntimeError("the power is gone")
        return whole(module, batch, index)

    with monkeypatch.context() as patched:
        patched.setattr(ZooModule, "training_step", failing)
        with pytest.raises(RuntimeError, match="power"):
            train(arm, out)
    train(arm, out)


def learns(hybrid: Hybrid, prefix: str) -> bool:
    """A gradient that is not 0 reached a parameter of that name."""
    named = [(name, p) for name, p in hybrid.named_parameters() if name.startswith(prefix)]
    assert named, prefix
    return any(p.grad is not None and bool(p.grad.any()) for _, p in named)


def two_alike(batch: Batch) -> Batch:
    """Two complete windows that begin alike: only their actions and their futures tell them apart."""
    pair = batch[torch.tensor([0, 3])]
    pair.image[1], pair.state[1], pair.text[1] = pair.image[0], pair.state[0], pair.text[0]
    return pair


def by_heart(hybrid: Hybrid, pair: Batch, steps: int = 900) -> Batch:
    """Train on two windows, each four times a step for more clocks; returns that batch."""
    batch = pair[torch.arange(2).repeat(4)]
    hybrid.settle(lambda: [pair])
    torch.manual_seed(0)
    descend(hybrid, batch, steps, 2e-3)
    return batch


def descend(hybrid: Hybrid, batch: Batch, steps: int, rate: float) -> None:
    """Train on one batch alone, at a rate that falls over the last three tenths."""
    optimizer = torch.optim.Adam([p for p in hybrid.parameters() if p.requires_grad], lr=rate, fused=True)
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = rate * min(1.0, (steps - step) / (0.3 * steps))
        loss = torch.stack([score.mean() for score in hybrid(batch).values()]).sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(hybrid.parameters(), 1.0)
        optimizer.step()
    hybrid.eval()


def check_two_modes(sample: Callable[..., Tensor], truth: dict[str, Tensor]) -> None:
    """After `by_heart`: either stream follows from the other; with neither given, one of the two windows, whichever the noise says.

    Args:
        sample: (name, what is given, seed) -> that stream.
        truth: both streams of the batch, by name.
    """
    apart = {name: (value[0] - value[1]).abs().mean() for name, value in truth.items()}
    for name, value in truth.items():
        told = (sample(name, {other: known for other, known in truth.items() if other != name}, 0) - value).abs().mean()
        assert told < 0.25 * apart[name], f"{name}: {told / apart[name]:.2f}"
        drawn = torch.cat([sample(name, {}, seed) for seed in range(4)])
        near = torch.stack([(drawn - value[i]).abs().mean(dim=(1, 2)) for i in range(2)]).amin(dim=0)
        assert near.mean() < 0.5 * apart[name], f"{name}: {near.mean() / apart[name]:.2f}"
