"""What lies on disk?  One folder per episode, written whole or not at all, and a manifest per task.

    data/96/drawer-open/manifest.json      what the task is, which episodes count, how good the expert was, a content hash
    data/96/drawer-open/000012/            frames.npy (L+1, V, Y, X, 3) uint8, state.npy (L+1, S), action.npy (L, A), episode.json
    data/96/drawer-open/000013/            a failed attempt keeps episode.json alone
Every tenth position in the manifest is validation (of fewer than ten, the last); the others are demonstrations from the front and
action-free video from the back, so from ten on the split of an episode never changes when more are collected.
"""

import os
import resource
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from .errors import UserError
from .files import content_hash, read_json, text_hash, write_json

FORMAT = 1
ARRAYS = ("frames", "state", "action")
OPEN_FILES = 10_000


@dataclass(frozen=True)
class Episode:
    """One recorded episode of L steps; arrays are memory-mapped when first used."""

    folder: Path
    length: int

    @property
    def attempt(self) -> int:
        """Its number; attempts of one number were begun from the same seed in all tasks, so they resemble each other."""
        return int(self.folder.name)

    def _load(self, name: str) -> np.ndarray:
        path, again = self.folder / f"{name}.npy", f"delete {self.folder} and collect again"
        try:
            array = np.load(path, mmap_mode="r")
        except (FileNotFoundError, EOFError, ValueError) as error:
            raise UserError(f"{path} is missing or truncated ({error}); {again}") from None
        except OSError as error:
            raise UserError(f"{path} cannot be read: {error.strerror}") from None
        dimensions, kinds = (5, "u") if name == "frames" else (2, "fiu")
        if array.ndim != dimensions or array.dtype.kind not in kinds or (name == "frames" and array.dtype != np.uint8):
            wanted = "uint8 frames (L+1, V, Y, X, 3)" if name == "frames" else "numbers (L, n)"
            raise UserError(f"{path} holds {array.dtype} {array.shape}, not {wanted}; {again}")
        if len(array) != self.length + (name != "action"):
            raise UserError(f"{path} has {len(array)} rows where the manifest says {self.length} steps; {again}")
        if name != "frames" and not np.isfinite(array).all():
            raise UserError(f"{path} holds numbers that are not finite; {again}")
        return array

    @cached_property
    def frames(self) -> np.ndarray:
        return self._load("frames")

    @cached_property
    def state(self) -> np.ndarray:
        return np.array(self._load("state"), np.float32)  # a copy: what is mapped keeps its file open

    @cached_property
    def action(self) -> np.ndarray:
        return np.array(self._load("action"), np.float32)


def write_episode(folder: Path, arrays: dict[str, np.ndarray] | None, facts: dict[str, Any]) -> None:
    """Write one attempt; arrays is None for a failed one.  The folder appears whole or not at all."""
    draft = folder.with_name(f".draft-{folder.name}-{os.getpid()}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    for name, array in (arrays or {}).items():
        np.save(draft / f"{name}.npy", array)
    sums = {name: content_hash(draft / f"{name}.npy") for name in arrays or {}}
    write_json(draft / "episode.json", {**facts, "sha256": sums})
    os.replace(draft, folder)


def sweep_drafts(folder: Path) -> None:
    """Remove what killed collectors left behind."""
    for draft in folder.glob(".draft-*"):
        shutil.rmtree(draft, ignore_errors=True)


def attempts(folder: Path) -> dict[int, dict[str, Any]]:
    """Every attempt on disk, by number."""
    found = sorted(path for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())
    return {int(path.name): _attempt(path) for path in found}


def _attempt(folder: Path) -> dict[str, Any]:
    """What episode.json says, whole."""
    path, again = folder / "episode.json", f"delete {folder} and collect again"
    facts = read_json(path, "an episode", again)
    if (
        not isinstance(facts, dict)
        or "success" not in facts
        or (facts["success"] and not {"seed", "noise", "length", "sha256"} <= facts.keys())
    ):
        raise UserError(f"{path} is not that of an episode; {again}")
    return facts


def write_manifest(folder: Path, facts: dict[str, Any], wanted: int) -> None:
    """The first `wanted` successes in order of attempt, the failures on the way to them, and a hash of it all."""
    tried = attempts(folder)
    good = [number for number in tried if tried[number]["success"]][:wanted]
    last = good[-1] if good else -1
    failures = sum(not facts_["success"] for number, facts_ in tried.items() if number < last)
    episodes = [{"attempt": n, **{k: tried[n][k] for k in ("seed", "noise", "length", "sha256")}} for n in good]
    write_json(
        folder / "manifest.json",
        {
            "format": FORMAT,
            **facts,
            "expert": {"successes": len(good), "attempts": len(good) + failures},
            "hash": text_hash(repr([(e["seed"], sorted(e["sha256"].items())) for e in episodes])),
            "episodes": episodes,
        },
    )


@dataclass(frozen=True)
class Recorded:
    """The recorded episodes of one task.

    Attributes:
        manifest: what manifest.json says.
        episodes: in order.
    """

    folder: Path
    manifest: dict[str, Any]
    episodes: tuple[Episode, ...]

    @property
    def validation(self) -> tuple[Episode, ...]:
        """Every tenth episode; of fewer than ten, the last."""
        return self.episodes[9::10] or self.episodes[-1:]

    def split(self, demos: int, videos: int) -> tuple[tuple[Episode, ...], tuple[Episode, ...]]:
        """`demos` episodes with actions from the front and `videos` without from the back, never the same.

        Raises:
            UserError: there are not enough episodes.
        """
        held = {id(e) for e in self.validation}
        rest = tuple(e for e in self.episodes if id(e) not in held)
        if demos + videos > len(rest):
            raise UserError(
                f"{self.folder} has {len(rest)} training episodes, {demos} demonstrations and {videos} videos are asked for; "
                f"{collect_command(self.folder)} --episodes {-(-(demos + videos) * 10 // 9) + 1}"
            )
        return rest[:demos], rest[len(rest) - videos :] if videos else ()


def collect_command(folder: Path) -> str:
    """What to type so that the folder of a task is filled."""
    return f"type: wmzoo collect --tasks {folder.name} --size {folder.parent.name} --data {folder.parent.parent}"


def _allow_open_files() -> None:
    """The frames of every episode that is read stay mapped, each an open file: more than the 1,024 that are usual."""
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if most == resource.RLIM_INFINITY else min(OPEN_FILES, most)
    if resource.RLIM_INFINITY != allowed < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))


def open_task(root: Path, task: str) -> Recorded:
    """The recorded episodes of a task below `root` (such as data/96).

    Raises:
        UserError: nothing was collected, or the folder holds something else.
    """
    _allow_open_files()
    folder = root / task
    if not (folder / "manifest.json").exists():
        raise UserError(f"no episodes of {task} in {root}; {collect_command(folder)}")
    cure = f"delete it and {collect_command(folder)}"
    manifest = read_json(folder / "manifest.json", "a wmzoo data set", cure)
    expected = {"format": FORMAT, "task": task, "size": int(root.name) if root.name.isdigit() else root.name}
    try:
        wrong = {key: manifest.get(key) for key, value in expected.items() if manifest.get(key) != value}
        wrong |= {key: manifest.get(key) for key in ("instruction", "hash") if not isinstance(manifest.get(key), str)}
        episodes = tuple(Episode(folder / f"{e['attempt']:06d}", int(e["length"])) for e in manifest["episodes"])
    except (AttributeError, KeyError, TypeError, ValueError):
        wrong, episodes = {"episodes": None}, ()
    if wrong:
        raise UserError(f"{folder / 'manifest.json'} has {wrong}, which is not a wmzoo data set of {expected}; {cure}")
    return Recorded(folder, manifest, episodes)
