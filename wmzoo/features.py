"""Where do features come from?  Read from disk, or computed once per batch, by whoever asks first.

    data/96/drawer-open/.features/<fingerprint>/000012.npy     (L+1, V, P, E) float16: every frame of episode 12
    data/96/drawer-open/.features/<fingerprint>/000012.json    hash of the frames they were computed from; written last
The fingerprint is the hash of the encoder's weights and configuration, so other weights find another folder, and frames that
were collected again are encoded again.  Features are of frames as recorded: a window that is moved has none here.
"""

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float, Float16
from torch import Tensor
from tqdm import tqdm

from .batch import Batch
from .episodes import Episode
from .errors import UserError
from .files import read_json, write_atomically, write_json
from .interfaces import Encoder


def encoded(batch: Batch, encoder: Encoder, which: Literal["now", "future"]) -> Float[Tensor, "B N E"]:
    """The tokens of all frames and cameras of the batch, one after the other.

    A frozen encoder's result is kept in `batch.features`, so several objectives share one pass, and a data set that was
    encoded beforehand (same content hash) is not encoded again.  A future past the end of its episode is not encoded: zeros.
    """
    name = getattr(encoder, "fingerprint", None)
    key = f"{id(encoder) if batch.image.is_meta else name}/{which}"  # without numbers all encoders have one fingerprint
    if name is not None and key in batch.features:
        return batch.features[key].flatten(1, -2)
    images = batch.image if which == "now" else batch.future
    there = batch.has_future if which == "future" else torch.ones(1, dtype=torch.bool)
    if there.is_meta or there.all():
        tokens = encoder(images.flatten(0, 2)).unflatten(0, images.shape[:3])
    else:
        some = (
            encoder(images[there].flatten(0, 1)) if there.any() else images.new_zeros(0, encoder.grid[0] * encoder.grid[1], encoder.width)
        )
        tokens = some.new_zeros(*images.shape[:3], *some.shape[1:])
        tokens[there] = some.unflatten(0, (-1, images.shape[2]))
    if name is not None:
        batch.features[key] = tokens
    return tokens.flatten(1, -2)


def frame_tokens(batch: Batch, encoder: Encoder, view: int, column: int | None = None) -> Float[Tensor, "B P E"]:
    """The tokens of one camera's present frame, or of the future frame in this column."""
    views = batch.image.shape[2]
    if column is None:
        return encoded(batch, encoder, "now").unflatten(1, (batch.image.shape[1], views, -1))[:, -1, view]
    return encoded(batch, encoder, "future").unflatten(1, (batch.future.shape[1], views, -1))[:, column, view]


class FeatureStore:
    """The features of one encoder for recorded episodes, memory-mapped when first used.

    Args:
        fingerprint: of the encoder.
    """

    def __init__(self, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._open: dict[Episode, np.ndarray] = {}

    def path(self, episode: Episode) -> Path:
        """Where the features of an episode are."""
        return episode.folder.parent / ".features" / self.fingerprint / f"{episode.folder.name}.npy"

    def holds(self, episode: Episode) -> bool:
        """True if the features are there, whole, and of the frames that are there now."""
        note = self.path(episode).with_suffix(".json")
        if not note.exists() or read_json(note, "a note of features") != _frames_hash(episode):
            return False
        try:
            self.episode(episode)
        except UserError:
            return False
        return True

    def write(self, episode: Episode, features: Float16[np.ndarray, "T V P E"]) -> None:
        """Keep the features of an episode: whole, or not at all."""
        path = self.path(episode)

        def save(draft: Path) -> None:
            with open(draft, "wb") as file:  # np.save would add a suffix to a path
                np.save(file, features)

        path.with_suffix(".json").unlink(missing_ok=True)
        write_atomically(path, save)
        write_json(path.with_suffix(".json"), _frames_hash(episode))
        self._open.pop(episode, None)

    def episode(self, episode: Episode) -> Float16[np.ndarray, "T V P E"]:
        """The features of every frame of an episode.

        Raises:
            UserError: they are not there, or the file is damaged.
        """
        if episode not in self._open:
            path = self.path(episode)
            try:
                features = np.load(path, mmap_mode="r")
            except (OSError, ValueError, EOFError) as error:
                raise UserError(f"{path} is missing or truncated ({error}); compute the features of this data again") from None
            if features.ndim != 4 or features.dtype != np.float16 or len(features) != episode.length + 1:
                found = f"{features.dtype} {features.shape}"
                raise UserError(f"{path} holds {found}, the episode has {episode.length + 1} frames; delete it and compute again")
            self._open[episode] = features
        return self._open[episode]

    def __call__(self, episode: Episode, frame: int) -> Float16[np.ndarray, "V P E"]:
        """The features of one frame."""
        return self.episode(episode)[frame]

    def fill(self, batch: Batch, moments: Sequence[tuple[Episode, int]]) -> None:
        """Put the features of every frame of a batch where `encoded` looks for them.

        Args:
            batch: made of these moments, none of them moved.
            moments: the episode and the present frame of each window.

        Raises:
            ValueError: there are not as many moments as windows.
        """
        history = batch.image.shape[1]
        past = [[max(0, now - history + 1 + j) for j in range(history)] for _, now in moments]
        ahead = [
            [min(now + offset, episode.length) for offset in offsets]
            for (episode, now), offsets in zip(moments, batch.offset.tolist(), strict=True)
        ]
        for which, frames in {"now": past, "future": ahead}.items():
            if frames[0]:
                rows = [np.stack([self(episode, frame) for frame in row]) for (episode, _), row in zip(moments, frames, strict=True)]
                batch.features[f"{self.fingerprint}/{which}"] = torch.from_numpy(np.stack(rows)).float()
        if f"{self.fingerprint}/future" in batch.features:
            batch.features[f"{self.fingerprint}/future"][~batch.has_future] = 0


def _frames_hash(episode: Episode) -> str:
    return read_json(episode.folder / "episode.json", "an episode")["sha256"]["frames"]


def cache_features(episodes: Iterable[Episode], encoder: Encoder, batch: int = 64) -> FeatureStore:
    """Compute what is missing of an encoder's features for these episodes, one episode at a time; killed, it goes on from there.

    On a GPU where there is one, wherever the encoder is.

    Args:
        episodes: any of them may come more than once.
        encoder: a frozen one.
        batch: frames in one pass.

    Raises:
        UserError: the encoder is not frozen, the disk is too small, or a feature is too large for float16.
    """
    name = getattr(encoder, "fingerprint", None)
    if name is None:
        raise UserError("only the features of a frozen encoder can be kept: this one changes while it trains")
    store = FeatureStore(name)
    missing = [episode for episode in dict.fromkeys(episodes) if not store.holds(episode)]
    if not missing:
        return store
    frames = sum(episode.length + 1 for episode in missing)
    _require_room(missing[0], frames, encoder)
    home = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    try:
        encoder.to("cuda" if torch.cuda.is_available() else home)
        with tqdm(total=frames, desc="features", unit="frame", mininterval=1) as bar:
            for episode in missing:
                store.write(episode, _encode(episode, encoder, batch, bar))
    finally:
        encoder.to(home)
    return store


def _require_room(episode: Episode, frames: int, encoder: Encoder) -> None:
    needed = 2 * frames * episode.frames.shape[1] * encoder.grid[0] * encoder.grid[1] * encoder.width
    free = shutil.disk_usage(episode.folder).free
    if needed > free:
        raise UserError(f"the features of {frames} frames take {needed / 1e9:.1f} GB, {episode.folder.parent} has {free / 1e9:.1f} GB left")


@torch.no_grad()
def _encode(episode: Episode, encoder: Encoder, batch: int, bar: tqdm) -> Float16[np.ndarray, "T V P E"]:
    device = next((p.device for p in encoder.parameters()), torch.device("cpu"))
    parts = []
    for first in range(0, episode.length + 1, batch):
        frames = torch.from_numpy(np.array(episode.frames[first : first + batch])).to(device)
        images = frames.movedim(-1, -3).float().div(255)
        tokens = encoder(images.flatten(0, 1)).unflatten(0, images.shape[:2])
        with np.errstate(over="ignore"):  # found below
            parts.append(tokens.float().cpu().numpy().astype(np.float16))
        bar.update(len(frames))
    features = np.concatenate(parts)
    if not np.isfinite(features).all():
        raise UserError(f"a feature of {episode.folder} is too large for float16, or not a number")
    return features
