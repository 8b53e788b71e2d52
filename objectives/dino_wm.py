"""DINO-WM: the next frame's tokens by regression, causal from frame to frame; and its one-shot form.

Zhou et al. 2024, DINO-WM, arXiv:2411.04983; the one-shot form is the baseline of RLA-WM 2026, arXiv:2605.07079.
    sequence: L = mean (P(z_0 .. z_2)[:-a] - sg[z_1 .. z_3][:-a])^2, the last a channels being action and state   next_loss
    roll-out: the newest frame joins the past, with the next actions    wmzoo.objectives.dino_wm.Sequence.predict
    one shot: L = mean (s_t + N(s_t, a) - s_{t+h})^2, or without the s_t                  one_shot_loss
    its control: the same with a = 0, what the present frame says alone                   wmzoo.objectives.dino_wm.Untold
We differ: the shared feature space, standardised channel by channel, instead of DINOv2 at .5/.5; any frame may be the first, so
predictions start from a single one; the state is that of the present frame for all frames and is not predicted (published: it is, 394
numbers a token where here are 384), as windows carry no future states.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, ConditionalFlow, Encoder, Sizes
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked
from wmzoo.standard import Standardiser

from .foresight import Foresight, Lens, OneChunk, Seen, clip, present, side_by_side, skill, whole_steps

Writes = Literal["frame", "change"]


@checked
def next_loss(
    predicted: Float[Tensor, "B T P D"], target: Float[Tensor, "B T P D"], extra: int, valid: Bool[Tensor, "B T"]
) -> Float[Tensor, "B"]:
    """Squared error without the last `extra` channels, averaged over the frames of each window that are there."""
    error = (predicted - target.detach())[..., :-extra].square().mean(dim=(2, 3))
    return torch.where(valid, error, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)


@checked
def one_shot_loss(predicted: Float[Tensor, "B P E"], future: Float[Tensor, "B P E"]) -> Float[Tensor, "B"]:
    """Squared error averaged over the numbers of each window."""
    return (predicted - future).square().mean(dim=(1, 2))


class Sequence(Foresight):
    """Frame after frame, `every` control steps apart.

    Args:
        predictor: models/dino_wm.py.
        every: control steps between frames.
    """

    def __init__(self, predictor: nn.Module, pixels: nn.Module, view: int, horizon: int, every: int) -> None:
        frames = cast("Any", predictor).frames
        if horizon < every * frames:
            raise UserError(f"{frames} frames of {every} steps need a chunk of {every * frames} actions, this arm has {horizon}")
        super().__init__(Lens(view, horizon - horizon % every, every), pixels, steps=1)
        self.predictor, self.frames, self.every = predictor, frames, every
        self.standard = Standardiser(self.encoder.width)

    @property
    def encoder(self) -> Encoder:
        return cast("Any", self.predictor).encoder

    def needs(self) -> Needs:
        return Needs(futures=tuple(self.every * (i + 1) for i in range(self.frames)))

    def settle(self, batches: Iterable[Batch]) -> None:
        self.standard.fit(present(batches, self.encoder, self.view))

    def forward(self, batch: Batch) -> Question:
        network: Any = self.predictor
        recorded = clip(batch, self.encoder, self.view, self.every, self.frames)
        tokens, action, valid = self.standard(recorded.frames), recorded.action, recorded.there
        state = torch.where(batch.has_state[:, None], batch.state[:, -1], 0.0)[:, None].expand(-1, self.frames, -1)

        def score(_: Hidden) -> dict[str, Score]:
            source = network.embed(torch.where(valid[..., None, None], tokens[:, :-1], 0.0), state, action)
            target = network.embed(tokens[:, 1:], state, action)
            return {"next": Score(next_loss(network(source), target, network.extra, valid), valid.any(dim=1))}

        def watch(_: Hidden) -> dict[str, Tensor]:
            rows = valid.all(dim=1).nonzero().flatten()[:16]
            if len(rows) < 2:
                return {}
            few, now = batch[rows], recorded.frames[rows, 0]
            keep = (torch.arange(batch.action.shape[1]) < self.every * self.frames).expand(len(rows), -1)
            predicted = self.predict(few, now, few.action, keep, torch.Generator())
            return {"skill": skill(predicted, now, recorded.frames[rows, -1])}

        return Question({}, frozenset(), score, watch)

    def predict(
        self,
        batch: Batch,
        now: Float[Tensor, "B P E"],
        action: Float[Tensor, "B H A"],
        keep: Bool[Tensor, "B H"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B P E"]:
        network: Any = self.predictor
        chunks = side_by_side(action[:, : whole_steps(keep, self.horizon, self.every)], self.every)
        state = torch.where(batch.has_state[:, None], batch.state[:, -1], 0.0)[:, None]
        past = network.embed(self.standard(now)[:, None], state, chunks[:, :1])
        for i in range(1, chunks.shape[1] + 1):
            newest = network(past)[:, -1:, :, : self.encoder.width]
            if i < chunks.shape[1]:
                past = torch.cat([past, network.embed(newest, state, chunks[:, i : i + 1])], dim=1)[:, -self.frames :]
        return self.standard.back(newest[:, 0])


class OneShot(OneChunk):
    """s_{t+h} in one pass from s_t and the chunk.

    Args:
        network: models/token_flow.py without a clock.
        writes: "frame" anew, or the "change" of the present one.
    """

    def __init__(self, network: ConditionalFlow, pixels: nn.Module, lens: Lens, writes: Writes) -> None:
        super().__init__(lens, pixels, steps=1)
        self.network, self.writes = network, writes
        self.standard = Standardiser(self.encoder.width)

    @property
    def encoder(self) -> Encoder:
        return cast("Any", self.network).encoder

    def settle(self, batches: Iterable[Batch]) -> None:
        self.standard.fit(present(batches, self.encoder, self.view))

    def _next(self, now: Tensor, action: Tensor, keep: Tensor) -> Tensor:
        seen = self.standard(now)
        written = self.network.velocity(seen, torch.zeros(len(now), device=now.device), self.network.condition(seen, action, keep))
        return seen + written if self.writes == "change" else written

    def errors(self, seen: Seen) -> dict[str, Float[Tensor, "B"]]:
        return {"mse": one_shot_loss(self._next(seen.now, seen.action, seen.keep), self.standard(seen.future))}

    def predict(
        self,
        batch: Batch,
        now: Float[Tensor, "B P E"],
        action: Float[Tensor, "B H A"],
        keep: Bool[Tensor, "B H"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B P E"]:
        return self.standard.back(self._next(now, action, keep))


class Untold(OneShot):
    """Its control: told how far ahead, not by which actions, so that what it foresees is what the present frame says alone."""

    def _next(self, now: Tensor, action: Tensor, keep: Tensor) -> Tensor:
        return super()._next(now, torch.zeros_like(action), keep)


@dataclass(frozen=True)
class Config(Blueprint):
    """The sequence form.

    Attributes:
        predictor: models/dino_wm.py, which knows how many steps lie between frames.
        pixels: models/pixels.py.
        every: the same number of steps.
        view: camera.
    """

    predictor: Blueprint
    pixels: Blueprint
    every: int = 5
    view: int = 0

    def build(self, sizes: Sizes) -> Sequence:
        if cast("Any", self.predictor).every != self.every:
            raise UserError(f"the predictor moves {cast('Any', self.predictor).every} steps at a time, the objective {self.every}")
        return Sequence(self.predictor.build(sizes), self.pixels.build(sizes), self.view, sizes.horizon, self.every)


@dataclass(frozen=True)
class OneShotConfig(Blueprint):
    """The one-shot form.

    Attributes:
        network: models/token_flow.py with `timed` False.
        pixels: models/pixels.py.
        nearest: smallest gap between frames in control steps; the largest is the chunk.
        writes: "frame" or "change".
        view: camera.
    """

    network: Blueprint
    pixels: Blueprint
    nearest: int = 1
    writes: Writes = "frame"
    view: int = 0
    form: ClassVar[type[OneShot]] = OneShot

    def build(self, sizes: Sizes) -> OneShot:
        network, lens = cast("ConditionalFlow", self.network.build(sizes)), Lens(self.view, sizes.horizon, self.nearest)
        return self.form(network, self.pixels.build(sizes), lens, self.writes)


@dataclass(frozen=True)
class UntoldConfig(OneShotConfig):
    """The one-shot form without the actions."""

    form = Untold
