"""What lies on disk?  Whole episodes or none, damage that is named in one line, splits that never move."""

import errno
import json
import resource
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from wmzoo import cli
from wmzoo.episodes import Episode, Recorded, attempts, open_task, sweep_drafts, write_episode, write_manifest
from wmzoo.errors import UserError

FACTS = {"seed": 1, "noise": 0.0, "success": True, "length": 3}


def arrays() -> dict[str, np.ndarray]:
    """An episode of three steps."""
    return {"frames": np.zeros((4, 1, 8, 8, 3), np.uint8), "state": np.zeros((4, 2)), "action": np.ones((3, 3))}


def test_an_episode_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """What was written comes back, frames as they are and numbers as float32."""
    write_episode(tmp_path / "000000", arrays(), FACTS)
    episode = Episode(tmp_path / "000000", 3)
    np.testing.assert_array_equal(episode.frames, arrays()["frames"])
    np.testing.assert_array_equal(episode.state, np.float32(arrays()["state"]))
    assert episode.action.dtype == np.float32
    assert [path.name for path in tmp_path.iterdir()] == ["000000"]


def test_a_crash_between_arrays_leaves_nothing_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full after the first array: there is no such attempt, the next collector sweeps up and can write it."""
    save = np.save

    def full(path: Path, array: np.ndarray) -> None:
        if path.name != "frames.npy":
            raise OSError("No space left on device")
        save(path, array)

    with monkeypatch.context() as patch:
        patch.setattr(np, "save", full)
        with pytest.raises(OSError, match="No space"):
            write_episode(tmp_path / "000000", arrays(), FACTS)
    assert attempts(tmp_path) == {}
    sweep_drafts(tmp_path)
    assert list(tmp_path.iterdir()) == []
    write_episode(tmp_path / "000000", arrays(), FACTS)
    assert attempts(tmp_path)[0]["length"] == 3


def cut(path: Path) -> None:
    """Keep the first half of a file."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def foreign(path: Path) -> None:
    """Another program's JSON."""
    path.write_text('{"manifest_version": 3, "name": "an extension of a browser"}')


def without_episodes(path: Path) -> None:
    """The right format and task, and nothing else."""
    path.write_text('{"format": 1, "task": "toy-red"}')


def of_another_size(path: Path) -> None:
    """Frames of 96 pixels in the folder for 32."""
    path.write_text(json.dumps({**json.loads(path.read_text()), "size": 96}))


def shorter(path: Path) -> None:
    """A whole array with a row too few."""
    np.save(path, np.load(path)[:-1])


def read_everything(root: Path) -> None:
    """Open the data set and every array of it, then count the attempts."""
    for episode in open_task(root, "toy-red").episodes:
        assert len(episode.frames) == len(episode.state) == len(episode.action) + 1
    attempts(root / "toy-red")


@pytest.mark.parametrize(
    ("name", "damage"),
    [
        ("000003/frames.npy", cut),
        ("000003/frames.npy", shorter),
        ("000003/state.npy", Path.unlink),
        ("000003/action.npy", shorter),
        ("000003/episode.json", cut),
        ("000003/episode.json", Path.unlink),
        ("manifest.json", cut),
        ("manifest.json", foreign),
        ("manifest.json", without_episodes),
        ("manifest.json", of_another_size),
    ],
)
def test_damage_is_named_in_one_line(name: str, damage: Callable[[Path], None], toy_data: Path, tmp_path: Path) -> None:
    """A truncated, missing or foreign file: one line with its path and what to do about it."""
    shutil.copytree(toy_data / "32", tmp_path / "32")
    read_everything(tmp_path / "32")
    damage(tmp_path / "32" / "toy-red" / name)
    with pytest.raises(UserError) as caught:
        read_everything(tmp_path / "32")
    message = str(caught.value)
    assert "\n" not in message
    assert str(tmp_path / "32" / "toy-red" / name) in message
    assert "collect again" in message or "wmzoo collect" in message, "it must say what to do"


def test_numbers_are_copies_and_keep_no_file_open(tmp_path: Path) -> None:
    """Of an episode that was read whole the frames alone stay mapped."""
    write_episode(tmp_path / "000000", arrays() | {"state": np.zeros((4, 2), np.float32), "action": np.ones((3, 3), np.float32)}, FACTS)
    episode = Episode(tmp_path / "000000", 3)
    assert isinstance(episode.frames, np.memmap)
    for numbers in (episode.state, episode.action):
        assert not isinstance(numbers, np.memmap)
        assert numbers.base is None


def test_more_files_than_usual_may_be_open(toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Opening a task raises this process's limit as far as it may, and never lowers it."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    for allowed, most in ((1024, 4096), (1024, resource.RLIM_INFINITY), (20_000, 20_000), (1024, 1024)):
        monkeypatch.setattr(resource, "getrlimit", lambda _, both=(allowed, most): both)
        open_task(toy_data / "32", "toy-red")
    assert asked == [(4096, 4096), (10_000, resource.RLIM_INFINITY)]


def test_what_cannot_be_opened_is_not_called_truncated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Too many open files is no reason to delete an episode."""
    write_episode(tmp_path / "000000", arrays(), FACTS)

    def none_left(*_: object, **__: object) -> np.ndarray:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(np, "load", none_left)
    with pytest.raises(UserError, match="cannot be read: Too many open files") as caught:
        _ = Episode(tmp_path / "000000", 3).action
    assert "delete" not in str(caught.value)


def recorded(count: int) -> Recorded:
    """So many episodes of a task, none of them on disk."""
    return Recorded(Path("nowhere"), {}, tuple(Episode(Path(f"{number:06d}"), 1) for number in range(count)))


def names(episodes: tuple[Episode, ...]) -> list[str]:
    """The folders of these episodes."""
    return [episode.folder.name for episode in episodes]


@pytest.mark.parametrize(("count", "demos", "videos"), [(3, 1, 1), (9, 5, 3), (10, 9, 0), (10, 0, 9), (25, 10, 13), (60, 40, 14)])
def test_splits_do_not_overlap(count: int, demos: int, videos: int) -> None:
    """No episode is a demonstration and a video, and neither of them validates."""
    task = recorded(count)
    split = [names(episodes) for episodes in (*task.split(demos, videos), task.validation)]
    together = [name for part in split for name in part]
    assert list(map(len, split))[:2] == [demos, videos]
    assert split[2]
    assert len(together) == len(set(together))


def test_more_demonstrations_are_the_same_ones_and_others() -> None:
    """The demonstrations of k = 3 are the first three of k = 6, however many videos there are."""
    task = recorded(20)
    assert names(task.split(3, 0)[0]) == names(task.split(3, 5)[0]) == names(task.split(6, 9)[0])[:3]
    assert names(task.split(3, 2)[1]) == names(task.split(3, 5)[1])[-2:]


@pytest.mark.parametrize(("before", "after"), [(10, 11), (12, 60), (19, 20), (40, 47)])
def test_growing_never_moves_an_episode_between_splits(before: int, after: int) -> None:
    """Demonstrations stay the same, what validated validates, and a former video never becomes a demonstration."""
    small, large = recorded(before), recorded(after)
    assert names(small.validation) == names(large.validation)[: len(small.validation)]
    assert names(small.split(4, 3)[0]) == names(large.split(4, 3)[0])
    assert not set(names(small.split(4, 3)[1])) & set(names(large.split(4, 3)[0]) + names(large.validation))


def test_too_many_demonstrations_are_answered_with_a_command_that_works(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twelve episodes train eleven.  For more, the command of the message is typed as it stands; afterwards there are enough."""
    shutil.copytree(toy_data / "32", tmp_path / "32")
    few = open_task(tmp_path / "32", "toy-red")
    assert [len(part) for part in few.split(8, 3)] == [8, 3]
    with pytest.raises(UserError, match="30 demonstrations and 20 videos") as caught:
        few.split(30, 20)
    obey(str(caught.value), tmp_path, monkeypatch)
    assert [len(part) for part in open_task(tmp_path / "32", "toy-red").split(30, 20)] == [30, 20]


def test_the_number_in_that_command_is_enough() -> None:
    """For every number of demonstrations: as many episodes as the message says hold them, and not many more than needed."""
    for demos in range(1, 200):
        with pytest.raises(UserError) as caught:
            recorded(1).split(demos, 0)
        words = shlex.split(str(caught.value))
        episodes = int(words[words.index("--episodes") + 1])
        assert len(recorded(episodes).split(demos, 0)[0]) == demos
        assert episodes <= demos * 10 / 9 + 3


def test_nothing_collected_is_answered_with_a_command_that_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder: the command of the message fills it."""
    with pytest.raises(UserError, match="no episodes of toy-blue") as caught:
        open_task(tmp_path / "32", "toy-blue")
    obey(str(caught.value), tmp_path, monkeypatch)
    assert open_task(tmp_path / "32", "toy-blue").episodes


def obey(message: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Type the command that a message ends with, in this folder, so that nothing else on the disk can change."""
    command = shlex.split(message.partition("type: ")[2])
    assert command[:2] == ["wmzoo", "collect"], message
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [*command, "--processes", "1"])
    cli.main()


def test_the_manifest_counts_failures_on_the_way(tmp_path: Path) -> None:
    """Attempts 0 and 2 fail, 1, 3 and 4 succeed: two wanted means 2 of 4, the fourth attempt is not counted, none is lost."""
    for number, success in enumerate([False, True, False, True, True]):
        write_episode(tmp_path / f"{number:06d}", arrays() if success else None, {**FACTS, "seed": number, "success": success})
    write_manifest(tmp_path, {"task": "toy-red"}, wanted=2)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["expert"] == {"successes": 2, "attempts": 4}
    assert [episode["attempt"] for episode in manifest["episodes"]] == [1, 3]
    assert [path.name for path in (tmp_path / "000000").iterdir()] == ["episode.json"]
