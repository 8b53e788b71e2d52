"""FM-WM: flow matching between the tokens of two frames, with no latent in between.

The baseline of RLA-WM 2026, arXiv:2605.07079, which publishes no code; two readings of "a path that directly flows to the future state".
    "current":  x_t = (1 - t) s_t + t s_{t+h} + 0.1 eps, v = s_{t+h} - s_t                  bridge
    "gaussian": x_t = (1 - t) eps + t s_{t+h}, v = s_{t+h} - eps                            wmzoo.clock.interpolate
    L = mean (V - v)^2 + mean |V - v|                                                       wmzoo.objectives.foresight.velocity_errors
From the present frame the velocity is the residual itself; sampling starts at the clean frame and adds no noise, so of several futures
it draws the mean.
Tokens are standardised channel by channel.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.clock import interpolate
from wmzoo.interfaces import Blueprint, ConditionalFlow, Encoder, Sizes
from wmzoo.shapes import checked
from wmzoo.standard import Standardiser

from .foresight import FlowForesight, Lens, Seen, noise, present

Source = Literal["current", "gaussian"]


@checked
def bridge(
    now: Float[Tensor, "B P E"], future: Float[Tensor, "B P E"], clock: Float[Tensor, "B"], eps: Float[Tensor, "B P E"], blur: float
) -> Float[Tensor, "B P E"]:
    """The straight way between two frames, with the same noise at every clock; the velocity along it knows nothing of that noise."""
    return interpolate(now, future, clock) + blur * eps


class FmWm(FlowForesight):
    """Generates the tokens of the future frame.

    Args:
        network: its `encoder` is the feature space.
        start: "current" or "gaussian".
        blur: deviation of the noise on the way from a present frame, in training.
    """

    def __init__(
        self, network: ConditionalFlow, pixels: nn.Module, lens: Lens, steps: int, sampler: str, start: Source, blur: float
    ) -> None:
        super().__init__(network, lens, pixels, steps, sampler)
        self.start, self.blur = start, blur
        self.standard = Standardiser(self.encoder.width)

    @property
    def encoder(self) -> Encoder:
        return cast("Any", self.network).encoder

    @property
    def shape(self) -> tuple[int, int]:
        return self.encoder.grid[0] * self.encoder.grid[1], self.encoder.width

    def settle(self, batches: Iterable[Batch]) -> None:
        self.standard.fit(present(batches, self.encoder, self.view))

    def goal(self, seen: Seen) -> Float[Tensor, "B P E"]:
        return self.standard(seen.future)

    def look(self, now: Float[Tensor, "B P E"]) -> Float[Tensor, "B P E"]:
        return self.standard(now)

    def source(self, now: Float[Tensor, "B P E"], like: tuple[int, ...], generator: torch.Generator | None) -> Float[Tensor, "B P E"]:
        if self.start == "gaussian":
            return noise(like, generator, now)
        return self.standard(now)

    def between(self, source: Float[Tensor, "B P E"], x: Float[Tensor, "B P E"], clock: Float[Tensor, "B"]) -> Float[Tensor, "B P E"]:
        if self.start == "gaussian":
            return super().between(source, x, clock)
        return bridge(source, x, clock, noise(tuple(x.shape), None, x), self.blur)

    def arrive(self, now: Float[Tensor, "B P E"], x: Float[Tensor, "B P E"]) -> Float[Tensor, "B P E"]:
        return self.standard.back(x)


@dataclass(frozen=True)
class Config(Blueprint):
    """FM-WM.

    Attributes:
        network: models/token_flow.py.
        pixels: models/pixels.py.
        nearest: smallest gap between frames in control steps; the largest is the chunk.
        steps: of sampling.
        sampler: of training clocks.
        source: "current" or "gaussian".
        blur: deviation of the noise on the way from a present frame, in training.
        view: camera.
    """

    network: Blueprint
    pixels: Blueprint
    nearest: int = 1
    steps: int = 30
    sampler: str = "uniform"
    source: Source = "current"
    blur: float = 0.1
    view: int = 0

    def build(self, sizes: Sizes) -> FmWm:
        network, lens = cast("ConditionalFlow", self.network.build(sizes)), Lens(self.view, sizes.horizon, self.nearest)
        return FmWm(network, self.pixels.build(sizes), lens, self.steps, self.sampler, self.source, self.blur)
