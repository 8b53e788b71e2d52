"""How do episodes become batches?  Windows around a moment called now, drawn by step number, so that a resumed run sees the same.

Batch number i of a run is a function of (seed, i) alone.  A window past the end of its episode keeps its mask False there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .batch import Batch, Needs
from .episodes import Episode, Recorded, open_task
from .errors import UserError
from .features import FeatureStore, cache_features
from .interfaces import Encoder
from .tasks import resolve


@dataclass(frozen=True)
class Data:
    """Which episodes an arm learns from, and how windows are cut out of them.

    Attributes:
        tasks: task or preset names.
        demos: demonstrations a task, with actions.
        videos: further episodes a task, frames and instruction only.
        video_share: part of each batch that is drawn from the videos, if there are any.
        size: pixels of a side of the recorded frames.
        horizon: actions in a chunk (control steps).
        shift: every frame of a window is moved by the same random number of pixels, at most this, edges repeated; with 0 the
            features of frozen encoders are computed once per data set and read from disk.
        batch: windows in a batch.
        root: folder of the recorded episodes.
    """

    tasks: tuple[str, ...] = ("mw3",)
    demos: int = 40
    videos: int = 0
    video_share: float = 0.5
    size: int = 96
    horizon: int = 16
    shift: int = 4
    batch: int = 64
    root: str = "data"


@dataclass(frozen=True)
class Normaliser:
    """Actions to [-1, 1] by their range, states to mean 0 and deviation 1; fitted on labelled training episodes alone."""

    action_low: tuple[float, ...]
    action_high: tuple[float, ...]
    state_mean: tuple[float, ...]
    state_std: tuple[float, ...]

    @staticmethod
    def fit(episodes: Sequence[Episode]) -> "Normaliser":
        """The statistics of these episodes; a number that never changes keeps a scale of 1."""
        action = np.concatenate([episode.action for episode in episodes])
        state = np.concatenate([episode.state for episode in episodes])
        low, high, std = action.min(0), action.max(0), state.std(0)
        flat = high - low < 1e-6
        low, high = np.where(flat, low - 1, low), np.where(flat, high + 1, high)
        rows = (low, high, state.mean(0), np.where(std < 1e-6, 1, std))
        return Normaliser(*(tuple(float(number) for number in row) for row in rows))

    def action(self, raw: np.ndarray) -> np.ndarray:
        """To [-1, 1]."""
        low, high = np.asarray(self.action_low, np.float32), np.asarray(self.action_high, np.float32)
        return 2 * (raw - low) / (high - low) - 1

    def raw_action(self, action: np.ndarray) -> np.ndarray:
        """Back to the units of the task."""
        low, high = np.asarray(self.action_low, np.float32), np.asarray(self.action_high, np.float32)
        return (action + 1) / 2 * (high - low) + low

    def state(self, raw: np.ndarray) -> np.ndarray:
        """To mean 0, deviation 1."""
        return (raw - np.asarray(self.state_mean, np.float32)) / np.asarray(self.state_std, np.float32)


def byte_tokens(instructions: Sequence[str]) -> Tensor:
    """Instructions as ByT5's byte tokens (n, longest), 0 is padding."""
    from transformers.models.byt5 import ByT5Tokenizer

    return ByT5Tokenizer()(list(instructions), padding=True, return_tensors="pt")["input_ids"]


def move_into(out: np.ndarray, frame: np.ndarray, dy: int, dx: int) -> None:
    """Write frames (..., Y, X, 3) into `out` moved by (dy, dx) pixels, edges repeated; one copy and two thin strips."""
    y, x = frame.shape[-3], frame.shape[-2]
    top, left = max(0, dy), max(0, dx)
    bottom, right = min(y, y + dy), min(x, x + dx)
    out[..., top:bottom, left:right, :] = frame[..., top - dy : bottom - dy, left - dx : right - dx, :]
    out[..., top:bottom, :left, :] = out[..., top:bottom, left : left + 1, :]
    out[..., top:bottom, right:, :] = out[..., top:bottom, right - 1 : right, :]
    out[..., :top, :, :] = out[..., top : top + 1, :, :]
    out[..., bottom:, :, :] = out[..., bottom - 1 : bottom, :, :]


def to_image(frames: np.ndarray) -> Tensor:
    """uint8 (..., Y, X, 3) to floats in [0, 1] (..., 3, Y, X)."""
    return torch.from_numpy(frames).movedim(-1, -3).contiguous().float().div_(255)


@dataclass(frozen=True)
class Window:
    """One moment of one episode."""

    episode: Episode
    now: int
    task: int
    labelled: bool
    number: int


class Windows:
    """Every moment of the training and validation episodes, and the batches made of them.

    Raises:
        UserError: a task was not collected, in this size, with this many episodes.
    """

    def __init__(self, config: Data, needs: Needs, seed: int) -> None:
        self.config, self.needs, self.seed = config, needs, seed
        self.names = resolve(config.tasks)
        self.recorded: list[Recorded] = [open_task(Path(config.root) / str(config.size), name) for name in self.names]
        splits = [recorded.split(config.demos, config.videos) for recorded in self.recorded]
        demos = [(task, episode) for task, split in enumerate(splits) for episode in split[0]]
        if not demos:
            raise UserError("an arm needs at least one demonstration a task; set --data.demos")
        videos = [(task, episode) for task, split in enumerate(splits) for episode in split[1]]
        held = [(task, episode) for task, recorded in enumerate(self.recorded) for episode in recorded.validation]
        self.views, self.state_size, self.action_size = self._shapes([episode for _, episode in demos + videos + held])
        self.normaliser = Normaliser.fit([episode for _, episode in demos])
        self.text = byte_tokens([recorded.manifest["instruction"] for recorded in self.recorded])
        self.labelled = self._moments(demos, True, 0)
        self.unlabelled = self._moments(videos, False, len(self.labelled))
        self.validation = self._moments(held, True, len(self.labelled) + len(self.unlabelled))
        self.stores: list[FeatureStore] = []

    def _shapes(self, episodes: list[Episode]) -> tuple[int, int, int]:
        """Cameras, numbers of state and of action, the same in all episodes.  Every file is opened, so damage is found now."""
        found = {(e.frames.shape[1:], e.state.shape[1:], e.action.shape[1:]): e.folder for e in episodes}
        if len(found) > 1:
            raise UserError("cannot mix " + " and ".join(f"{folder} (frames, state, action: {shape})" for shape, folder in found.items()))
        (frame, state, action), folder = next(iter(found.items()))
        if frame[1:] != (self.config.size, self.config.size, 3):
            raise UserError(f"{folder} has frames of {frame}, not of {self.config.size} pixels; delete it and collect again")
        return frame[0], state[0], action[0]

    @staticmethod
    def _moments(episodes: list[tuple[int, Episode]], labelled: bool, start: int) -> list[Window]:
        moments = [(task, episode, now) for task, episode in episodes for now in range(episode.length)]
        return [Window(episode, now, task, labelled, start + i) for i, (task, episode, now) in enumerate(moments)]

    @property
    def provenance(self) -> dict[str, Any]:
        """What a run must remember of its data."""
        return {name: recorded.manifest["hash"] for name, recorded in zip(self.names, self.recorded, strict=True)}

    def train(self, step: int) -> Batch:
        """Training batch number `step`."""
        rng = np.random.default_rng((self.seed, step))
        quiet = round(self.config.batch * self.config.video_share) if self.unlabelled else 0
        rows = [self.labelled[i] for i in rng.integers(len(self.labelled), size=self.config.batch - quiet)]
        rows += [self.unlabelled[i] for i in rng.integers(max(1, len(self.unlabelled)), size=quiet)]
        shifts = rng.integers(-self.config.shift, self.config.shift + 1, size=(len(rows), 2))
        return self.gather(rows, shifts, rng)

    def validate(self, count: int) -> list[Batch]:
        """At most `count` validation windows, evenly spaced and always the same, never moved, in batches that each span all episodes."""
        count = min(count, len(self.validation))
        chosen = [self.validation[i] for i in np.linspace(0, len(self.validation) - 1, count).astype(int)]
        rng = np.random.default_rng(0)
        batches = -(-count // self.config.batch)
        return [self.gather(rows, np.zeros((len(rows), 2), int), rng) for rows in (chosen[i::batches] for i in range(batches))]

    def gather(self, rows: list[Window], shifts: np.ndarray, rng: np.random.Generator) -> Batch:
        """The batch of these windows, each moved by its (dy, dx)."""
        n, horizon, needs = len(rows), self.config.horizon, self.needs
        lows, highs = zip(*((o, o) if isinstance(o, int) else o for o in needs.futures), strict=True) if needs.futures else ((), ())
        offset = rng.integers(lows, np.array(highs, int) + 1, size=(n, len(lows)))
        size = (self.views, self.config.size, self.config.size, 3)
        image = np.empty((n, needs.history, *size), np.uint8)
        future = np.empty((n, len(lows), *size), np.uint8)
        state = np.zeros((n, needs.history, self.state_size), np.float32)
        action = np.zeros((n, horizon, self.action_size), np.float32)
        mask = np.zeros(action.shape, bool)
        has_future = np.zeros(offset.shape, bool)
        for i, (row, (dy, dx)) in enumerate(zip(rows, shifts, strict=True)):
            episode, now = row.episode, row.now
            for j in range(needs.history):
                past = max(0, now - needs.history + 1 + j)
                move_into(image[i, j], episode.frames[past], dy, dx)
                state[i, j] = episode.state[past]
            for j, ahead in enumerate(offset[i]):
                has_future[i, j] = now + ahead <= episode.length
                move_into(future[i, j], episode.frames[min(now + ahead, episode.length)], dy, dx)
            if row.labelled:
                steps = now + needs.first_action + np.arange(horizon)
                recorded = (steps >= 0) & (steps < episode.length)
                action[i] = episode.action[np.clip(steps, 0, episode.length - 1)]
                mask[i] = recorded[:, None]
        labelled = np.array([row.labelled for row in rows])
        batch = Batch(
            image=to_image(image),
            state=torch.from_numpy(np.where(labelled[:, None, None], self.normaliser.state(state), 0)),
            has_state=torch.from_numpy(labelled),
            text=self.text[[row.task for row in rows]],
            action=torch.from_numpy(np.where(labelled[:, None, None], self.normaliser.action(action), 0)),
            action_mask=torch.from_numpy(mask),
            future=to_image(future),
            has_future=torch.from_numpy(has_future),
            offset=torch.from_numpy(offset),
            embodiment=torch.from_numpy(np.where(labelled, 0, 1)),
            sample=torch.tensor([row.number for row in rows]),
        )
        if not shifts.any():  # stored features are those of the frames as recorded
            for store in self.stores:
                store.fill(batch, [(row.episode, row.now) for row in rows])
        return batch

    def cache(self, network: nn.Module) -> None:
        """Compute the features of every frozen encoder in the network once, if frames are never moved; later runs find them."""
        if self.config.shift:
            return
        frozen = {m.fingerprint: m for m in network.modules() if isinstance(m, Encoder) and hasattr(m, "fingerprint")}
        rows = (*self.labelled, *self.unlabelled, *self.validation)
        episodes = list({row.episode.folder: row.episode for row in rows}.values())
        self.stores = [cache_features(episodes, encoder) for encoder in frozen.values()]
