"""RAE-adapted diffusion: tokens of the future frame from noise, with clocks pushed toward noise as their dimension asks.

Zheng et al. 2025, Diffusion Transformers with Representation Autoencoders, arXiv:2510.11690; adapted as a baseline by RLA-WM 2026,
arXiv:2605.07079.  RAE's clock t' has noise at 1; ours is 1 - t'.
    t'   = a u / (1 + (a - 1) u), a = sqrt(numbers of a frame / 4096)     wmzoo.clock.shift
    u    = sigmoid(N(0, 1)), drawn within [0, 0.999]                      shifted_clocks
    L    = mean (V - v)^2, v = s_{t+h} - eps                              wmzoo.objectives.foresight.velocity_errors
    K Euler steps on the shifted grid                                     shifted_grid
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.clock import shift
from wmzoo.interfaces import Blueprint, ConditionalFlow, Sizes

from .fm_wm import FmWm
from .foresight import Lens


def shifted_clocks(n: int, factor: float, device: Any = "cpu") -> Float[Tensor, "n"]:
    """n training clocks in zoo time; the draw above 0.999 (P = 1e-12 of a logit-normal) is cut there."""
    u = torch.sigmoid(torch.randn(n, device=device)).clamp(max=0.999)
    return 1 - shift(u, factor)


def shifted_grid(steps: int, factor: float) -> Float[Tensor, "K1"]:
    """Zoo times 0 = t_0 < ... < t_K = 1 whose RAE times are an even grid, shifted."""
    return 1 - shift(torch.linspace(1, 0, steps + 1, device="cpu"), factor)


class Rae(FmWm):
    """As FM-WM from noise, with RAE's network and clocks."""

    def __init__(self, network: ConditionalFlow, pixels: nn.Module, lens: Lens, steps: int) -> None:
        super().__init__(network, pixels, lens, steps, "uniform", "gaussian", 0.0)
        count, width = self.shape
        self.factor = (count * width / 4096) ** 0.5

    def clocks(self, n: int, device: Any) -> Float[Tensor, "n"]:
        return shifted_clocks(n, self.factor, device)

    def follow(self, field: Callable[[Tensor, Tensor], Tensor], start: Tensor) -> Tensor:
        times, x = shifted_grid(self.steps, self.factor).tolist(), start
        for now, after in pairwise(times):
            x = x + (after - now) * field(x, torch.full((len(x),), now, device=x.device))
        return x


@dataclass(frozen=True)
class Config(Blueprint):
    """RAE-adapted diffusion.

    Attributes:
        network: models/rae.py.
        pixels: models/pixels.py.
        nearest: smallest gap between frames in control steps; the largest is the chunk.
        steps: of sampling.
        view: camera.
    """

    network: Blueprint
    pixels: Blueprint
    nearest: int = 1
    steps: int = 30
    view: int = 0

    def build(self, sizes: Sizes) -> Rae:
        network = cast("ConditionalFlow", self.network.build(sizes))
        return Rae(network, self.pixels.build(sizes), Lens(self.view, sizes.horizon, self.nearest), self.steps)
