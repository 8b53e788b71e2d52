"""What would have happened?  A policy plays inside a world model, beside demonstrations, and its dreams are the batches it learns from.

    now   = tokens of a demonstration's frame: of its first in half of the dreams, in the rest of any that has a chunk ahead
    then, chunk by chunk:
    f     = features of the policy before the frame as it is painted, the hand's state and the instruction
    chunk = drawn around the policy's own (`Dreamer.choice`)
    now   = what the world model predicts after it; the state by ridge regression from the state and the chunk
    r     = `Dreamer.reward`, against the demonstration at the same moment
A dream ends with its demonstration, or after T chunks.  Dream i of step s is a function of (seed, s, i) and of the weights.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from .batch import Batch
from .compose import Hybrid
from .config import Experiment
from .data import Window, Windows
from .errors import UserError
from .features import frame_tokens
from .interfaces import Dreamer
from .kernels import precision_for
from .regress import ridge

FIRST = 0.5  # of the dreams begin with a demonstration's first frame
PENALTY = 1e-3  # of the ridge that moves the hand
KINEMATICS = 4096  # windows that it is fitted on


class Dream(NamedTuple):
    """What happened in B dreams of T chunks; what comes after the end of a dream means nothing."""

    feature: Float[Tensor, "B T F"]
    chunk: Float[Tensor, "B T K A"]
    log_density: Float[Tensor, "B T"]
    value: Float[Tensor, "B T"]
    reward: Float[Tensor, "B T"]
    there: Bool[Tensor, "B T"]

    @property
    def gained(self) -> Float[Tensor, "B"]:
        """The sum of a dream's rewards, not discounted."""
        return torch.where(self.there, self.reward, 0.0).sum(dim=1)


Play = Callable[[int, Tensor, Tensor, Tensor], Tensor]


def source(arm: Experiment, hybrid: Hybrid, windows: Windows) -> "Windows | Dreams":
    """Where the batches of an arm come from: its windows, or what its policy dreams from there (`config.check_dreams` has seen it)."""
    dreamer = next((objective for objective in hybrid.objectives.values() if isinstance(objective, Dreamer)), None)
    if dreamer is None:
        return windows
    return Dreams(hybrid, dreamer, windows, precision_for(arm.optim.precision) == "bf16-mixed")


def kinematics(windows: Windows, execute: int) -> Callable[[Tensor, Tensor], Tensor]:
    """(state, K actions) -> the state after them, standardised: ridge regression on training windows.

    Raises:
        UserError: no demonstration is as long as a chunk.
    """
    rows = [row for row in windows.labelled if row.now + execute <= row.episode.length]
    if not rows:
        raise UserError(f"no demonstration has the {execute} actions of a chunk: record longer ones, or make --play.execute smaller")
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, min(KINEMATICS, len(rows))).astype(int)]
    scale = windows.normaliser
    before = np.stack([scale.state(row.episode.state[row.now]) for row in rows])
    after = np.stack([scale.state(row.episode.state[row.now + execute]) for row in rows])
    chunks = np.stack([scale.action(row.episode.action[row.now : row.now + execute]).ravel() for row in rows])
    moved = ridge(np.concatenate([before, chunks], axis=1).astype(float), (after - before).astype(float), PENALTY)

    def move(state: Tensor, chunk: Tensor) -> Tensor:
        seen = torch.cat([state, chunk.flatten(1)], dim=1)
        return state + torch.from_numpy(moved(seen.double().cpu().numpy())).to(state)

    return move


@dataclass
class Round:
    """What was dreamt at once, and the step it was dreamt for."""

    step: int
    batch: Batch


class Now(Sequence[Batch]):
    """One batch, made when it is asked for: whoever validates asks for the batches of a chapter before its training.

    Args:
        make: what makes it.
    """

    def __init__(self, make: Callable[[], Batch]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return [self.make()][index]


class Dreams:
    """In the place of `Windows`: batches of dreams.

    Args:
        hybrid: the policy as it is now, whenever a batch is asked for.
        dreamer: the objective that learns.
        windows: where dreams begin.
        half: dream in bf16.
    """

    def __init__(self, hybrid: Hybrid, dreamer: Dreamer, windows: Windows, half: bool) -> None:
        self.hybrid, self.dreamer, self.windows, self.half = hybrid, dreamer, windows, half
        self.move = kinematics(windows, dreamer.execute)
        self.first = [row for row in windows.labelled if row.now == 0]
        self.later = [row for row in windows.labelled if row.now + dreamer.execute <= row.episode.length]
        self.round: Round | None = None
        self.still: dict[str, Tensor] = {}

    def train(self, step: int) -> Batch:
        """Training batch number `step`: a new round, or the last one again, of which nothing counts once the policy has moved too far."""
        begun = step - step % self.dreamer.epochs
        if self.round is None or self.round.step != begun:
            self.round = Round(begun, self._round(begun))
        batch = self.round.batch
        if step > begun:
            with torch.no_grad():
                if self.dreamer.moved(batch):
                    there = batch.features["dream/there"]
                    return replace(batch, features={**batch.features, "dream/there": torch.zeros_like(there)})
        return batch

    def _round(self, step: int) -> Batch:
        rng = np.random.default_rng((self.windows.seed, step))
        count = self.windows.config.batch
        early = rng.random(count) < FIRST
        pools = [self.first if soon else self.later for soon in early]
        rows = [pool[rng.integers(len(pool))] for pool in pools]
        chance = torch.Generator().manual_seed(int(rng.integers(2**32)))  # all that torch heeds of a seed

        def drawn(_: int, __: Tensor, mean: Tensor, deviation: Tensor) -> Tensor:
            return mean + deviation * torch.randn(mean.shape, generator=chance).to(mean.device)

        start, dream = self.dream(rows, drawn)
        gain, wanted = self.dreamer.advantages(dream.reward, dream.value, dream.there)
        some = gain[dream.there]
        told = {name: value.flatten(0, 1) for name, value in dream._asdict().items()}
        told |= {
            "advantage": ((gain - some.mean()) / (some.std(correction=min(1, len(some) - 1)) + 1e-8)).flatten(),
            "wanted": wanted.flatten(),
        }
        rows_of = torch.arange(count, device=gain.device).repeat_interleave(dream.reward.shape[1])
        return replace(start[rows_of], features={f"dream/{name}": value for name, value in told.items()})

    def validate(self, count: int) -> "Now":
        """Dreams without chance from validation windows, the same ones every time.

        `return` is that of the policy as it is, `return_before` of what it was before it learnt, `return_shown` of the demonstration's own
        actions: about the most that it could gain in this world.
        """
        held = self.windows.validation
        rows = [held[i] for i in np.linspace(0, len(held) - 1, min(count, self.windows.config.batch)).astype(int)]
        return Now(lambda: self._seen(rows))

    def _seen(self, rows: list[Window]) -> Batch:
        start, now = self.dream(rows, lambda _, __, mean, ___: mean)
        if not self.still:
            before = self.dream(rows, lambda _, base, mean, ___: base[:, : mean.shape[1]])[1]
            shown = self.dream(rows, lambda i, *_: self._recorded(rows, i).to(now.reward.device))[1]
            self.still = {"return_before": before.gained, "return_shown": shown.gained}
        seen = {"return": now.gained, **self.still}
        return replace(start, features={f"seen/{name}": value for name, value in seen.items()})

    def _recorded(self, rows: list[Window], chunk: int) -> Float[Tensor, "B K A"]:
        """What was done in the demonstration, its last action repeated."""
        first = [row.now + chunk * self.dreamer.execute for row in rows]
        steps = [
            np.minimum(start + np.arange(self.dreamer.execute), row.episode.length - 1) for start, row in zip(first, rows, strict=True)
        ]
        actions = [self.windows.normaliser.action(row.episode.action[taken]) for row, taken in zip(rows, steps, strict=True)]
        return torch.from_numpy(np.stack(actions)).float()

    @torch.no_grad()
    def dream(self, rows: list[Window], play: Play) -> tuple[Batch, Dream]:
        """What happens from these windows on.

        Args:
            play: number of a chunk, and what `Dreamer.choice` says -> the K actions.

        Returns:
            The windows themselves, and the dreams.
        """
        dreamer, training = self.dreamer, self.hybrid.training
        world, device = dreamer.world, next(self.hybrid.parameters()).device
        start = self.windows.gather(rows, np.zeros((len(rows), 2), int), np.random.default_rng(0)).to(device)
        length = torch.tensor([row.episode.length - row.now for row in rows], device=device)
        self.hybrid.eval()
        steps = []
        with torch.autocast(device.type, torch.bfloat16, enabled=self.half):
            tokens = frame_tokens(start, world.encoder, world.view).float()
            goal = self._goal(rows, device)
            batch = start
            for i in range(dreamer.chunks):
                feature = dreamer.feature(self._hidden(batch))
                base, mean, deviation = dreamer.choice(feature)
                chunk = play(i, base, mean, deviation)
                tokens = self._ahead(batch, tokens, chunk, i).float()
                shown = frame_tokens(start, world.encoder, world.view, start.column(dreamer.execute * (i + 1))).float()
                done = dreamer.execute * (i + 1)
                shown = torch.where((length >= done)[:, None, None], shown, goal)
                gained = dreamer.reward(tokens, shown, goal, (length <= done) | (i + 1 == dreamer.chunks))
                there = length > dreamer.execute * i
                steps.append(Dream(feature, chunk, dreamer.log_density(feature, chunk), dreamer.value(feature), gained, there))
                batch = self._next(batch, tokens, chunk)
        self.hybrid.train(training)
        return start, Dream(*(torch.stack(parts, dim=1) for parts in zip(*steps, strict=True)))

    def _goal(self, rows: list[Window], device: torch.device) -> Float[Tensor, "B P E"]:
        """The last frame of every demonstration."""
        ends = [replace(row, now=row.episode.length) for row in rows]
        last = self.windows.gather(ends, np.zeros((len(rows), 2), int), np.random.default_rng(0)).to(device)
        return frame_tokens(last, self.dreamer.world.encoder, self.dreamer.world.view).float()

    def _hidden(self, batch: Batch) -> Any:
        chunk, clock = torch.zeros_like(batch.action), torch.zeros(len(batch), device=batch.action.device)
        return self.hybrid.played(self.dreamer, chunk, clock, batch)

    def _ahead(self, batch: Batch, tokens: Float[Tensor, "B P E"], chunk: Float[Tensor, "B K A"], index: int) -> Float[Tensor, "B P E"]:
        """What the world model predicts, with the same noise in every round."""
        world = self.dreamer.world
        action = torch.zeros(len(chunk), world.horizon, chunk.shape[2], device=chunk.device)
        action[:, : chunk.shape[1]] = chunk.clamp(-1, 1)
        keep = torch.arange(world.horizon, device=chunk.device) < chunk.shape[1]
        chance = torch.Generator(chunk.device).manual_seed(index)
        return world.predict(batch, tokens, action, keep.expand(len(chunk), -1), chance)

    def _next(self, batch: Batch, tokens: Float[Tensor, "B P E"], chunk: Float[Tensor, "B K A"]) -> Batch:
        """What the policy sees after the chunk."""
        side = batch.image.shape[-1]
        image = self.dreamer.world.paint(tokens).float().clamp(0, 1)
        if image.shape[-1] != side:
            image = torch.nn.functional.interpolate(image, size=(side, side), mode="bilinear", antialias=True)
        state = self.move(batch.state[:, -1], chunk.clamp(-1, 1).float())
        return replace(batch, image=image[:, None, None], state=state[:, None], features={})
