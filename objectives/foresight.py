"""A world model predicts the tokens of a future frame from the present ones and the actions between.  The base of four of them.

Lipman et al. 2023, Flow Matching for Generative Modeling, arXiv:2210.02747; RLA-WM 2026, arXiv:2605.07079.
    t ~ sampler, x_t = (1 - t) source + t x, v = x - source       wmzoo.clock.interpolate
    L = mean (V - v)^2 + mean |V - v|                             velocity_errors
    x <- source; x <- x + V / K at t = 0, 1/K, ..., (K-1)/K       wmzoo.sample.euler
The chunk ends h steps ahead, h drawn uniformly for each window; actions behind it are not read.  Windows with a step of which no action
was recorded, or past the end of their episode, do not count: a world model listens.
"""

from abc import abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.clock import SAMPLERS, draw, interpolate, velocity
from wmzoo.errors import UserError, unknown
from wmzoo.features import frame_tokens
from wmzoo.interfaces import ConditionalFlow, Encoder, Freezable, WorldModel
from wmzoo.question import Hidden, Question, Score
from wmzoo.sample import euler
from wmzoo.shapes import checked


@checked
def velocity_errors(prediction: Float[Tensor, "B N X"], target: Float[Tensor, "B N X"]) -> tuple[Float[Tensor, "B"], Float[Tensor, "B"]]:
    """Squared and absolute error of the velocity, averaged over the numbers of each window."""
    error = prediction - target
    return error.square().mean(dim=(1, 2)), error.abs().mean(dim=(1, 2))


@checked
def skill(predicted: Float[Tensor, "B P E"], now: Float[Tensor, "B P E"], future: Float[Tensor, "B P E"]) -> Float[Tensor, ""]:
    """One minus the absolute error as a part of the error of copying the present: 1 is perfect, 0 is no better than a copy."""
    return 1 - (predicted - future).abs().mean() / (now - future).abs().mean().clamp(min=1e-12)


def column_within(batch: Batch, nearest: int, farthest: int) -> int:
    """Which of the future frames was drawn between two gaps: of those that lie there in every window, the one that varies most.

    A hybrid's batch holds the frames of all its objectives; one at a fixed gap, such as FLARE's, is not taken for a drawn one.

    Raises:
        ValueError: none is.
    """
    if batch.offset.is_meta:  # for counting alone: every column is as good
        return 0
    there = ((batch.offset >= nearest) & (batch.offset <= farthest)).all(dim=0)
    if not there.any():
        raise ValueError(
            f"no future frame of this batch is {nearest} to {farthest} steps ahead; the first window has {batch.offset[:1].tolist()}"
        )
    spread = batch.offset.amax(dim=0) - batch.offset.amin(dim=0)
    return int(torch.where(there, spread, -1).argmax())


class Seen(NamedTuple):
    """What a world model learns from in one batch; `keep` counts the actions that lead to the future frame."""

    now: Float[Tensor, "B P E"]
    future: Float[Tensor, "B P E"]
    action: Float[Tensor, "B H A"]
    keep: Bool[Tensor, "B H"]
    valid: Bool[Tensor, "B"]


@dataclass(frozen=True)
class Lens:
    """What is common to all world models of an arm.

    Attributes:
        view: camera.
        horizon: control steps of a chunk; the largest gap between frames.
        nearest: the smallest gap.
    """

    view: int
    horizon: int
    nearest: int


class Foresight(WorldModel):
    """What all world models share: a camera, gaps between frames, and a decoder for looking.

    Args:
        lens: camera and gaps.
        pixels: decoder to pixels; frozen here.
        steps: of sampling.
    """

    def __init__(self, lens: Lens, pixels: nn.Module, steps: int) -> None:
        super().__init__()
        if not 1 <= lens.nearest <= lens.horizon:
            raise UserError(f"frames lie 1 to {lens.horizon} steps ahead (the chunk), not {lens.nearest} or more")
        if steps < 1:
            raise UserError(f"sampling takes at least one step, not {steps}")
        self.view, self.horizon, self.nearest, self.pixels, self.steps = lens.view, lens.horizon, lens.nearest, pixels, steps
        cast("Freezable", pixels).freeze()

    @property
    @abstractmethod
    def encoder(self) -> Encoder: ...

    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        return self.pixels(tokens)


class OneChunk(Foresight):
    """One future frame a window, at the end of a chunk of any length."""

    def needs(self) -> Needs:
        return Needs(futures=((self.nearest, self.horizon),))

    def seen(self, batch: Batch) -> Seen:
        """Frames and actions of a batch; what is not there is 0 and never valid."""
        column = column_within(batch, self.nearest, self.horizon)
        now = frame_tokens(batch, self.encoder, self.view).float()
        future = frame_tokens(batch, self.encoder, self.view, column).float()
        ahead = torch.arange(batch.action.shape[1], device=batch.action.device)
        keep = ahead < batch.offset[:, column, None]
        recorded = batch.action_mask.any(dim=2)
        valid = batch.has_future[:, column] & (recorded | ~keep).all(dim=1)
        action = torch.where(batch.action_mask, batch.action, 0.0)
        return Seen(now, torch.where(valid[:, None, None], future, now), action, keep & valid[:, None], valid)

    @abstractmethod
    def errors(self, seen: Seen) -> dict[str, Float[Tensor, "B"]]:
        """Every term of the loss for each window."""

    def forward(self, batch: Batch) -> Question:
        seen = self.seen(batch)

        def score(_: Hidden) -> dict[str, Score]:
            return {name: Score(value, seen.valid) for name, value in self.errors(seen).items()}

        def watch(_: Hidden) -> dict[str, Tensor]:
            rows = seen.valid.nonzero().flatten()[:16]  # sampling all would cost more than training
            if len(rows) < 2:
                return {}
            few = Seen(*(part[rows] for part in seen))
            generator = torch.Generator(few.now.device).manual_seed(0)
            predicted = self.predict(batch[rows], few.now, few.action, few.keep, generator)
            return {"skill": skill(predicted, few.now, few.future)}

        return Question({}, frozenset(), score, watch)


class FlowForesight(OneChunk):
    """A world model that follows a velocity from a source to the future, in tokens or in latents.

    Args:
        network: the velocity and what conditions it.
        lens, pixels, steps: as above; K sampling steps.
        sampler: of training clocks.
    """

    def __init__(self, network: ConditionalFlow, lens: Lens, pixels: nn.Module, steps: int, sampler: str) -> None:
        super().__init__(lens, pixels, steps)
        if sampler not in SAMPLERS:
            raise unknown("clock sampler", sampler, SAMPLERS)
        self.network, self.sampler = network, sampler

    @abstractmethod
    def goal(self, seen: Seen) -> Float[Tensor, "B N X"]:
        """What is generated, standardised."""

    @abstractmethod
    def source(self, now: Float[Tensor, "B P E"], like: tuple[int, ...], generator: torch.Generator | None) -> Float[Tensor, "B N X"]:
        """Where the path starts; without a generator torch's own noise is drawn, as in training."""

    @abstractmethod
    def arrive(self, now: Float[Tensor, "B P E"], x: Float[Tensor, "B N X"]) -> Float[Tensor, "B P E"]:
        """The tokens of the future frame from what was generated."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int]:
        """N and X of what is generated."""

    def look(self, now: Float[Tensor, "B P E"]) -> Float[Tensor, "B P E"]:
        """The present tokens as the network reads them."""
        return now

    def clocks(self, n: int, device: Any) -> Float[Tensor, "n"]:
        """Training clocks."""
        return draw(self.sampler, n, device)

    def between(self, source: Float[Tensor, "B N X"], x: Float[Tensor, "B N X"], clock: Float[Tensor, "B"]) -> Float[Tensor, "B N X"]:
        """What the network reads at a training clock."""
        return interpolate(source, x, clock)

    def errors(self, seen: Seen) -> dict[str, Float[Tensor, "B"]]:
        x, now = self.goal(seen), self.look(seen.now)
        source, clock = self.source(seen.now, x.shape, None), self.clocks(len(x), x.device)
        condition = self.network.condition(now, seen.action, seen.keep)
        predicted = self.network.velocity(self.between(source, x, clock), clock, condition)
        mse, l1 = velocity_errors(predicted, velocity(source, x))
        return {"mse": mse, "l1": l1}

    def predict(
        self,
        batch: Batch,
        now: Float[Tensor, "B P E"],
        action: Float[Tensor, "B H A"],
        keep: Bool[Tensor, "B H"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B P E"]:
        condition = self.network.condition(self.look(now), action, keep)
        start = self.source(now, (len(now), *self.shape), generator)
        return self.arrive(now, self.follow(lambda x, t: self.network.velocity(x, t, condition), start))

    def follow(self, field: Any, start: Tensor) -> Tensor:
        """K steps along the field."""
        return euler(field, start, self.steps)


class Clip(NamedTuple):
    """Frames some control steps apart: the present one and T more, with what leads from each to the next."""

    frames: Float[Tensor, "B F P E"]  # F = T + 1
    action: Float[Tensor, "B T C"]  # the actions of a step side by side; 0 where none was recorded
    shown: Bool[Tensor, "B T"]  # this frame and those before it
    there: Bool[Tensor, "B T"]  # and the actions that lead to them


def clip(batch: Batch, encoder: Encoder, view: int, every: int, count: int) -> Clip:
    """`count` frames after the present one, `every` control steps apart; a frame after one that is not there has no meaning."""
    columns = [batch.column(every * (i + 1)) for i in range(count)]
    frames = [frame_tokens(batch, encoder, view, column).float() for column in (None, *columns)]
    recorded = batch.action_mask[:, : every * count].any(dim=2).unflatten(1, (count, every)).all(dim=2)
    shown = batch.has_future[:, columns].cumprod(dim=1).bool()
    there = recorded.cumprod(dim=1).bool() & shown
    action = torch.where(batch.action_mask, batch.action, 0.0)[:, : every * count]
    return Clip(torch.stack(frames, dim=1), side_by_side(action, every), shown, there)


def side_by_side(action: Float[Tensor, "B H A"], every: int) -> Float[Tensor, "B T C"]:
    """The actions of each step of `every` control steps as one row."""
    return action.unflatten(1, (-1, every)).flatten(2)


def whole_steps(keep: Bool[Tensor, "B H"], horizon: int, every: int) -> int:
    """Actions that `keep` counts, for a model that moves `every` control steps at a time; all of them where only operations are counted.

    Raises:
        ValueError: windows differ, or the last step is not whole.
    """
    if keep.is_meta:
        return horizon
    length = int(keep.sum(dim=1).max())
    if length % every or not bool((keep.sum(dim=1) == length).all()):
        raise ValueError(f"this model moves {every} steps at a time, all windows alike; asked for {keep.sum(dim=1).tolist()[:4]}")
    return length


def noise(like: tuple[int, ...], generator: torch.Generator | None, near: Tensor) -> Tensor:
    """Standard normal, on the device of `near`."""
    if near.is_meta:
        return near.new_zeros(like)
    return torch.randn(like, generator=generator, device=near.device)


def present(batches: Iterable[Batch], encoder: Encoder, view: int) -> list[Tensor]:
    """The present tokens of some batches, for statistics."""
    with torch.no_grad():
        return [frame_tokens(batch, encoder, view).float() for batch in batches]
