"""How are demonstrations recorded?  Scripted experts with noise, failures dropped and counted, killed at any moment without loss.

The noise of an episode (standard deviation 0, 0.1 or 0.3 of the action's range) is drawn from its seed; the recorded action is
the clean one, so the policy learns to come back.  A task that says how long it is recorded (play) does without noise, and nothing of
it is dropped.  Collecting seeds start at 1,000,000 and never name a handle (rollout.py).
"""

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager, suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from tqdm import tqdm

from . import tasks
from .episodes import attempts, sweep_drafts, write_episode, write_manifest
from .errors import UserError
from .files import alone_in
from .interfaces import Task

FIRST_SEED = 1_000_000
NOISE = (0.0, 0.1, 0.3)
LINGER = 8  # steps recorded after success


@contextmanager
def workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that end with this one; where the block fails or is stopped, at once and without a word."""
    pool = ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), _end_with_parent)
    try:
        yield pool
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        begun = multiprocessing.active_children()
        for worker in begun:
            worker.terminate()
        for worker in begun:
            worker.join()
        raise
    pool.shutdown()


def _end_with_parent() -> None:
    """Let this worker end when the process that started it does, even if that was killed; Ctrl-C is that one's affair."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def record(task: Task, seed: int) -> tuple[dict[str, np.ndarray] | None, dict[str, object]]:
    """One episode: its arrays (None if it failed) and the facts about it, of which success says that it counts: of play every one does."""
    rng = np.random.default_rng(seed)
    noise = 0.0 if task.recorded else float(rng.choice(NOISE))
    task.reset(seed)
    views, actions, since_success = [task.look()], [], 0
    while len(actions) < (task.recorded or task.limit) and (task.recorded or since_success < LINGER):
        clean = task.demonstrate()
        actions.append(clean)
        solved = task.step(np.clip(clean + noise * rng.standard_normal(clean.shape), -1, 1).astype(np.float32))
        since_success += solved or since_success > 0
        views.append(task.look())
    kept = since_success > 0 or task.recorded > 0
    facts = {"seed": seed, "noise": noise, "success": kept, "length": len(actions)}
    if not kept:
        return None, facts
    frames, state = (np.stack(column) for column in zip(*views, strict=True))
    return {"frames": frames, "state": state, "action": np.stack(actions)}, facts


def _attempt(name: str, size: int, folder: Path, number: int) -> tuple[bool, int]:
    arrays, facts = record(tasks.held(name, size), FIRST_SEED + number)
    write_episode(folder / f"{number:06d}", arrays, facts)
    return arrays is not None, int(str(facts["length"])) + 1


def _fill(pool: ProcessPoolExecutor, processes: int, name: str, size: int, folder: Path, wanted: int) -> Iterator[tuple[bool, int]]:
    """Try attempts in order until the first `wanted` successes are known; yields (succeeded, frames) as they come."""
    done = {number: facts["success"] for number, facts in attempts(folder).items()}
    good, number, running = sum(done.values()), 0, dict[Future[tuple[bool, int]], int]()
    while good < wanted or running:
        while good + len(running) < wanted and len(running) < 2 * processes:
            while number in done:
                number += 1
            done[number] = False
            running[pool.submit(_attempt, name, size, folder, number)] = number
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            del running[future]
            succeeded, frames = future.result()
            good += succeeded
            yield succeeded, frames
        if len(done) > 20 + 10 * wanted:
            raise UserError(f"the expert of {name} succeeded in {good} of {len(done)} attempts; something is wrong with the simulator")


def collect(names: tuple[str, ...], root: Path, size: int, episodes: int, processes: int) -> None:
    """Make sure that `root`/`size` holds `episodes` successful episodes of each task."""
    for name in names:
        folder = root / str(size) / name
        folder.mkdir(parents=True, exist_ok=True)
        with alone_in(folder):
            _collect_task(name, folder, size, episodes, processes)


def _collect_task(name: str, folder: Path, size: int, episodes: int, processes: int) -> None:
    sweep_drafts(folder)
    have = sum(facts["success"] for facts in attempts(folder).values())
    with tqdm(total=max(have, episodes), initial=have, desc=f"{name:22}", unit="ep") as bar:
        if have < episodes:
            with workers(processes) as pool:
                frames = 0
                for succeeded, length in _fill(pool, processes, name, size, folder, episodes):
                    frames += length
                    bar.update(succeeded)
                    bar.set_postfix_str(f"{frames / bar.format_dict['elapsed']:.0f} frames/s")
    facts = {"task": name, "instruction": tasks.instructions()[name], "size": size, "versions": _versions()}
    write_manifest(folder, facts, max(have, episodes))


def _versions() -> dict[str, str]:
    found = {}
    for package in ("numpy", "metaworld", "mujoco"):
        with suppress(PackageNotFoundError):  # the toy needs no simulator
            found[package] = version(package)
    return found
