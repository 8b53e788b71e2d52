"""Demonstrations: the same whoever records them and however often it is interrupted, clean actions, failures counted."""

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, wait
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wmzoo import tasks
from wmzoo.collect import FIRST_SEED, LINGER, NOISE, collect, record, workers
from wmzoo.episodes import Episode, attempts, open_task, write_episode, write_manifest
from wmzoo.tasks.toy import Reach


def manifest(root: Path, task: str = "toy-red") -> dict[str, Any]:
    """What manifest.json says."""
    return json.loads((root / "32" / task / "manifest.json").read_text())


class Stubborn(Reach):
    """Its expert runs away from the disc when the seed is odd."""

    def reset(self, seed: int) -> None:
        super().reset(seed)
        self.odd = seed % 2 == 1

    def expert(self) -> np.ndarray:
        return -super().expert() if self.odd else super().expert()


def test_play_is_kept_whatever_happens_in_it() -> None:
    """A recording of play has its full length, solved or not, and its actions are those that were carried out: they lead where it went."""
    task, lengths = tasks.make("toy-blue-play", 32), set()
    for seed in range(FIRST_SEED, FIRST_SEED + 8):
        arrays, facts = record(task, seed)
        assert arrays is not None
        lengths.add(len(arrays["action"]))
        assert (facts["noise"], facts["success"]) == (0, True)
        task.reset(seed)
        for action, state in zip(arrays["action"], arrays["state"][1:], strict=True):
            task.step(action)
            assert np.array_equal(task.look().state, state)
    assert lengths == {task.recorded}


@pytest.mark.slow
def test_two_processes_record_what_one_records(toy_data: Path, tmp_path: Path) -> None:
    """The data set is a function of the task, the size and the number of episodes, not of who was faster."""
    collect(("toy-red",), tmp_path, size=32, episodes=12, processes=2)
    assert manifest(tmp_path)["hash"] == manifest(toy_data)["hash"]


def test_the_tasks_differ(toy_data: Path) -> None:
    """The same seeds in two tasks are two data sets; the manifest says which is which, and by what it was made."""
    red, blue = manifest(toy_data, "toy-red"), manifest(toy_data, "toy-blue")
    assert red["hash"] != blue["hash"]
    assert (red["task"], red["instruction"], red["size"]) == ("toy-red", "reach the red disc", 32)
    assert red["expert"] == {"successes": 12, "attempts": 12}
    assert red["versions"]["numpy"] == np.__version__


def killed(root: Path, whole_group: bool) -> subprocess.Popen[bytes]:
    """A collector that was killed after its first episodes; its standard error is still open."""
    command = [sys.executable, "-m", "wmzoo", "collect", "--tasks", "toy-red", "--size", "32", "--episodes", "80", "--processes", "2"]
    process = subprocess.Popen([*command, "--data", str(root)], stderr=subprocess.PIPE, start_new_session=True)
    assert process.stderr is not None
    heard = b""
    while b"frames/s" not in heard:
        byte = process.stderr.read(1)
        assert byte, f"it ended by itself: {heard.decode()}"
        heard += byte
    if whole_group:
        os.killpg(process.pid, signal.SIGKILL)
    else:
        process.kill()
    return process


@pytest.mark.slow
def test_killed_and_started_again_ends_as_if_nothing_had_happened(tmp_path: Path) -> None:
    """Kill the command and its workers after the first episodes: what is there stays, the rest follows, the hash is the same."""
    killed(tmp_path, whole_group=True).communicate()
    folder = tmp_path / "32" / "toy-red"
    before = {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/*")}
    assert 0 < len(attempts(folder)) < 80
    assert not (folder / "manifest.json").exists()
    collect(("toy-red",), tmp_path, size=32, episodes=80, processes=1)
    assert before.items() <= {path: path.stat().st_mtime_ns for path in folder.glob("[0-9]*/*")}.items()
    assert not list(folder.glob(".*"))
    uninterrupted = tmp_path / "uninterrupted"
    for number in range(80):
        write_episode(uninterrupted / f"{number:06d}", *record(Reach("toy-red", 32), FIRST_SEED + number))
    write_manifest(uninterrupted, {}, wanted=80)
    assert manifest(tmp_path)["hash"] == json.loads((uninterrupted / "manifest.json").read_text())["hash"]


@pytest.mark.slow
def test_workers_end_with_a_block_that_fails() -> None:
    """What they are at is not waited for, and what they have not begun never is."""
    start, futures = time.monotonic(), list[Future[Any]]()

    def stopped() -> None:
        with workers(1) as pool:
            futures.extend(pool.submit(time.sleep, 300) for _ in range(3))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stopped()
    assert time.monotonic() - start < 60, "they were waited for"
    assert not multiprocessing.active_children()
    wait(futures, timeout=60)
    assert all(future.done() for future in futures)


@pytest.mark.slow
def test_no_worker_outlives_its_collector(tmp_path: Path) -> None:
    """Only the command itself is killed (by the kernel, when memory runs out): its workers end too, and write nothing more."""
    process = killed(tmp_path, whole_group=False)
    try:
        process.communicate(timeout=15)  # returns when the last process that holds the pipe has ended
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        pytest.fail("workers are still there 15 seconds after their collector was killed")


def test_collecting_again_changes_nothing_and_more_goes_on(toy_data: Path, tmp_path: Path) -> None:
    """The same command does nothing; a larger number keeps what is there."""
    shutil.copytree(toy_data, tmp_path, dirs_exist_ok=True)
    before = manifest(tmp_path)
    collect(("toy-red",), tmp_path, size=32, episodes=12, processes=1)
    assert manifest(tmp_path) == before
    collect(("toy-red",), tmp_path, size=32, episodes=14, processes=1)
    assert manifest(tmp_path)["episodes"][:12] == before["episodes"]
    assert len(open_task(tmp_path / "32", "toy-red").episodes) == 14


def test_asking_for_fewer_takes_none_away(toy_data: Path, tmp_path: Path) -> None:
    """Six are asked for where twelve are: a run that was trained on the twelve can still be repeated."""
    shutil.copytree(toy_data, tmp_path, dirs_exist_ok=True)
    collect(("toy-red",), tmp_path, size=32, episodes=6, processes=1)
    assert manifest(tmp_path) == manifest(toy_data)


def test_the_toy_needs_no_simulator(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Meta-World is an extra: without it the toy is collected all the same."""

    def version(package: str) -> str:
        if package in ("metaworld", "mujoco"):
            raise PackageNotFoundError(package)
        return "1.0"

    monkeypatch.setattr("wmzoo.collect.version", version)
    shutil.copytree(toy_data, tmp_path, dirs_exist_ok=True)
    collect(("toy-red",), tmp_path, size=32, episodes=12, processes=1)
    assert manifest(tmp_path)["versions"]["numpy"] == "1.0"


def test_failed_attempts_are_dropped_and_counted(tmp_path: Path) -> None:
    """The expert fails on odd seeds: three successes take five attempts, and only they have arrays."""
    task = Stubborn("toy-red", 32)
    for number in range(6):
        arrays, facts = record(task, number)
        assert (arrays is None) == (number % 2 == 1) == (not facts["success"])
        write_episode(tmp_path / f"{number:06d}", arrays, facts)
    write_manifest(tmp_path, {"format": 1}, wanted=3)
    written = json.loads((tmp_path / "manifest.json").read_text())
    assert written["expert"] == {"successes": 3, "attempts": 5}
    assert [episode["seed"] for episode in written["episodes"]] == [0, 2, 4]
    assert [(tmp_path / f"{n:06d}" / "frames.npy").exists() for n in range(6)] == [True, False] * 3


@pytest.mark.parametrize("noise", NOISE)
def test_actions_are_recorded_clean_and_carried_out_noisily(noise: float, toy_data: Path) -> None:
    """What is recorded is what the expert wanted in that state; with noise the hand went elsewhere, without it exactly there."""
    task = Reach("toy-red", 32)
    chosen = [e for e in manifest(toy_data)["episodes"] if e["noise"] == noise]
    assert chosen, "the twelve seeds draw every noise"
    for entry in chosen:
        episode = Episode(toy_data / "32" / "toy-red" / f"{entry['attempt']:06d}", entry["length"])
        task.reset(entry["seed"])
        for state, action in zip(episode.state, episode.action, strict=False):
            task.hand = state.astype(float)
            np.testing.assert_allclose(task.expert(), action, atol=1e-5)
        meant = np.clip(episode.state[:-1] + task.stride * episode.action[:, :2], 0, 1)
        error = np.abs(episode.state[1:] - meant).max()
        assert (error < 1e-6) if noise == 0 else (0.2 * noise * task.stride < error < 6 * noise * task.stride)


def test_an_episode_ends_a_little_after_success() -> None:
    """One frame more than actions, LINGER - 1 steps after the one that succeeded, none of it beyond what was rendered."""
    task = Reach("toy-red", 32)
    arrays, facts = record(task, FIRST_SEED)
    assert arrays is not None
    assert len(arrays["frames"]) == len(arrays["state"]) == len(arrays["action"]) + 1 == int(str(facts["length"])) + 1
    distance = np.linalg.norm(arrays["state"] - task.discs["toy-red"], axis=1)
    assert int(np.argmax(distance < task.near)) == len(arrays["action"]) - LINGER + 1
    assert arrays["frames"].dtype == np.uint8
    assert arrays["frames"].shape[1:] == (1, 32, 32, 3)


@pytest.mark.parametrize("name", ["frames", "state", "action"])
def test_the_hash_is_of_the_contents(name: str, tmp_path: Path) -> None:
    """One number of one array is changed: another hash.  Nothing is changed: the same one."""
    arrays, facts = record(Reach("toy-red", 32), FIRST_SEED)
    assert arrays is not None
    changed = {key: array.copy() for key, array in arrays.items()}
    changed[name].flat[5] += 1
    hashes = []
    for folder, content in (("one", arrays), ("same", arrays), ("other", changed)):
        write_episode(tmp_path / folder / "000000", content, facts)
        write_manifest(tmp_path / folder, {}, wanted=1)
        hashes.append(json.loads((tmp_path / folder / "manifest.json").read_text())["hash"])
    assert hashes[0] == hashes[1] != hashes[2]
