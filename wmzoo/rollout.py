"""How well does a policy play?  Fixed handles, a count for each, an interval on every rate.

A handle is one start state, named by task and seed.  Evaluation handles are seeds 0, 1, ...; tuning handles start at 10,000 and
serve recipe work alone.  The noise of chunk c of a handle is a function of (seed, c), the same in every task, and each process uses one
thread, so a handle's outcome does not depend on which other handles are played or by how many processes.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from tqdm import tqdm

from . import config, tasks
from .collect import workers
from .errors import UserError
from .files import read_json, write_atomically, write_json
from .finished import Policy, plays
from .interfaces import Sizes, Task, View
from .stats import CAUTION, SEEDS, paired, pooled, verdict, wilson

TUNING = 10_000


class Handle(NamedTuple):
    """One start state."""

    task: str
    seed: int


@dataclass(frozen=True)
class Played:
    """The outcome of one handle."""

    task: str
    seed: int
    success: bool
    steps: int
    milliseconds: float  # median time of one chunk, rendering left out


def handles(names: tuple[str, ...], count: int, tuning: bool = False) -> list[Handle]:
    """`count` handles of each task, from the evaluation list or the tuning list."""
    start = TUNING if tuning else 0
    return [Handle(name, start + i) for name in names for i in range(count)]


def play(
    act: Callable[[list[View], np.ndarray], np.ndarray],
    task: Task,
    handle: Handle,
    shape: tuple[int, int],
    execute: int,
    history: int,
    film: list[np.ndarray] | None = None,
) -> Played:
    """Play one handle until success or the task's limit.

    Args:
        act: (views so far, noise) -> chunk in the task's units.
        shape: of the noise, (horizon, A).
        execute: actions of a chunk that are carried out before the next one.
        history: views that a chunk is made from, one control step apart as in training; only these are rendered.
        film: where to put a frame for every second step; None renders only when the policy looks.
    """
    task.reset(handle.seed)
    views: list[View] = []
    seconds: list[float] = []
    steps, solved, chunk = 0, False, np.zeros((0, shape[1]))
    while steps < task.limit and not solved:
        done = steps % execute
        if done == 0 or done > execute - history:
            views.append(task.look())
        if done == 0:
            noise = np.random.default_rng((handle.seed, steps)).standard_normal(shape)
            start = time.perf_counter()
            chunk = act(views, noise)
            seconds.append(time.perf_counter() - start)
        solved = task.step(np.asarray(chunk[done], np.float32))
        steps += 1
        if film is not None and steps % 2 == 0:
            film.append(task.look().frame[0])
    return Played(handle.task, handle.seed, solved, steps, 1000 * float(np.median(seconds)))


@lru_cache(maxsize=1)
def _policy(folder: str) -> Policy:
    torch.set_num_threads(1)
    return Policy.load(Path(folder))


def _play_one(folder: str, handle: Handle, filmed: bool, shift: str = "") -> tuple[Played, np.ndarray | None]:
    policy = _policy(folder)
    film: list[np.ndarray] | None = [] if filmed else None
    task = tasks.held(handle.task, policy.sizes.image, shift)
    shape = (policy.sizes.horizon, policy.sizes.action)
    execute, history = policy.arm.play.execute, policy.sizes.history
    told = policy.instructions.get(handle.task, task.instruction)  # in the words that it was trained with
    outcome = play(lambda views, noise: policy.act(views, told, noise), task, handle, shape, execute, history, film)
    return outcome, np.stack(film) if film else None


def evaluate(
    folder: Path, names: tuple[str, ...], count: int, processes: int, tuning: bool = False, videos: bool = True, shift: str = ""
) -> dict[str, Any]:
    """Play the handles, write eval.json (tuning.json for tuning handles) and films of one success and one failure a task, and of handle 0.

    Args:
        shift: one thing that is changed, such as camera-2; the result is then eval-camera-2.json.

    Raises:
        UserError: the folder holds no policy, or one of another robot.
    """
    policy = Policy.load(folder)
    of_one_robot(folder, names, policy.tasks, policy.sizes)
    todo = handles(names, count, tuning)
    start = time.monotonic()
    with crew(processes) as each:
        playing = each(partial(_play_one, str(folder), filmed=False, shift=shift), todo)
        outcomes = [outcome for outcome, _ in tqdm(playing, total=len(todo), desc="playing", unit="ep")]
        seconds = time.monotonic() - start
        if videos:
            chosen = {(o.task, o.success): Handle(o.task, o.seed) for o in reversed(outcomes)}
            films = each(partial(_play_one, str(folder), filmed=True, shift=shift), chosen.values())
            for ((task, success), handle), (_, frames) in zip(chosen.items(), films, strict=True):
                _save_film(folder / "videos" / f"{task}-{'success' if success else 'failure'}.mp4", frames)
                if handle.seed == 0:
                    _save_film(_same_start(folder, task), frames)
    result = summary(outcomes) | {"seconds": round(seconds, 1), "processes": processes}
    write_json(folder / f"{'-'.join(filter(None, ('tuning' if tuning else 'eval', shift)))}.json", result)
    return result


def of_one_robot(folder: Path, names: Sequence[str], known: Sequence[str], sizes: Sizes) -> None:
    """Have these tasks as many numbers of state and action as those that a run was trained on?

    Raises:
        UserError: one has not.
    """
    for name in (name for name in names if name not in known):
        with closing(tasks.make(name, sizes.image)) as task:
            numbers, wanted = (len(task.state_names), len(task.action_names)), (sizes.state, sizes.action)
        if numbers != wanted:
            has, needs = (f"{state} numbers of state and {action} of action" for state, action in (numbers, wanted))
            raise UserError(f"{name} has {has}; {folder} was trained on {', '.join(known)}, which have {needs}")


@contextmanager
def crew(processes: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """What maps a function over its arguments, in order: other processes, or this one if it is to be one; each with one thread."""
    if processes > 1:
        with workers(processes) as pool:
            yield pool.map
        return
    threads = torch.get_num_threads()
    try:
        yield map
    finally:
        torch.set_num_threads(threads)
        _policy.cache_clear()  # the folder may be trained again


def film(folder: Path, names: tuple[str, ...]) -> None:
    """Of a run that was played before such films were kept: the start state that is the same whichever run plays."""
    with crew(1):
        for name in names:
            if not _same_start(folder, name).exists():
                _save_film(_same_start(folder, name), _play_one(str(folder), Handle(name, 0), filmed=True)[1])


def _same_start(folder: Path, task: str) -> Path:
    return folder / "videos" / f"{task}-handle-0.mp4"


def summary(outcomes: list[Played]) -> dict[str, Any]:
    """Counts, rates and Wilson intervals, by task and over all; and every handle."""

    def line(rows: list[Played]) -> dict[str, Any]:
        good, n = sum(o.success for o in rows), len(rows)
        low, high = wilson(good, n)
        return {"successes": good, "n": n, "rate": good / n, "interval": [round(float(low), 4), round(float(high), 4)]}

    by_task = {name: [o for o in outcomes if o.task == name] for name in dict.fromkeys(o.task for o in outcomes)}
    return {
        "all": line(outcomes),
        "tasks": {name: line(rows) for name, rows in by_task.items()},
        "chunk_milliseconds": float(np.median([o.milliseconds for o in outcomes])),
        "handles": [asdict(outcome) for outcome in outcomes],
    }


def outcomes_of(folders: Sequence[Path]) -> dict[str, np.ndarray]:
    """Success of evaluated runs, by task: (runs, handles), every column the same handle.

    Raises:
        UserError: a run was not evaluated, or the runs were not played from the same handles.
    """
    for folder in folders:
        if not (folder / "eval.json").exists() and not plays(folder):
            raise UserError(f"{folder} is no policy, and does not play; `wmzoo compare` is for what foresees")
    results = [read_json(folder / "eval.json", "an evaluated run", f"type: wmzoo eval {folder}") for folder in folders]
    played = [{(h["task"], h["seed"]): h["success"] for h in result["handles"]} for result in results]
    for folder, handles_ in zip(folders, played, strict=True):
        if handles_.keys() != played[0].keys():
            raise UserError(f"{folder} and {folders[0]} were not played from the same handles; evaluate both alike")
    ordered = sorted(played[0], key=lambda handle: handle[1])
    names = dict.fromkeys(task for task, _ in played[0])
    return {name: np.array([[run[handle] for handle in ordered if handle[0] == name] for run in played], float) for name in names}


def together(folders: Sequence[Path]) -> dict[str, Any]:
    """Several training seeds of one arm as one: mean success over the same handles.

    Raises:
        UserError: as in `outcomes_of`, or they are not training seeds of one arm.
    """
    one_arm(folders)
    tasks = outcomes_of(folders)
    by_seed = {str(folder): float(np.mean([rows[i].mean() for rows in tasks.values()])) for i, folder in enumerate(folders)}
    return {**_lines(tasks, pooled), "runs": by_seed}


def difference(folders: Sequence[Path], others: Sequence[Path]) -> dict[str, Any]:
    """Success of one arm less that of another, seed by seed and handle by handle.

    Runs are paired by their training seeds where both arms have the same ones, in whatever order they are given; else by place.

    Raises:
        UserError: as in `outcomes_of`, or the arms do not have the same number of training seeds.
    """
    if len(folders) != len(others):
        raise UserError(f"{len(folders)} runs cannot be paired with {len(others)}: give one run of each arm for each training seed")
    seeds = [one_arm(side) for side in (folders, others)]
    if None not in seeds[0] and len(set(seeds[0])) == len(folders) and set(seeds[0]) == set(seeds[1]):
        folders, others = (sorted(side, key=lambda folder: cast("int", _seed(folder))) for side in (folders, others))
    both = outcomes_of([*folders, *others])
    n = len(folders)
    pairs = {f"{Path(a).name} - {Path(b).name}": 0.0 for a, b in zip(folders, others, strict=True)}
    gaps = {name: rows[:n] - rows[n:] for name, rows in both.items()}
    for i, name in enumerate(pairs):
        pairs[name] = float(np.mean([gap[i].mean() for gap in gaps.values()]))
    return {**_lines(gaps, _gap), "runs": pairs}


def _seed(run: Path) -> int | None:
    """The training seed of a run; None where no configuration is there."""
    path = run / "config.yaml"
    return config.load(path).seed if path.exists() else None


def one_arm(folders: Sequence[Path]) -> list[int | None]:
    """The training seeds of runs that differ in nothing else; None where no configuration is there.

    Raises:
        UserError: they differ in something else, or two have the same seed.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UserError(f"a run is named twice among {', '.join(map(str, folders))}")
    seeds = [_seed(folder) for folder in folders]
    known = [(folder, config.load(folder / "config.yaml")) for folder, seed in zip(folders, seeds, strict=True) if seed is not None]
    for i, (folder, arm) in enumerate(known):
        first, other = known[0]
        if config.dump(replace(arm, seed=0)) != config.dump(replace(other, seed=0)):
            raise UserError(f"{folder} and {first} differ in more than the training seed; --against compares two arms")
        if twice := [path for path, before in known[:i] if before.seed == arm.seed]:
            raise UserError(f"{folder} and {twice[0]} have the same training seed, {arm.seed}")
    return seeds


def _gap(cube: Any) -> tuple[float, float, float]:
    """A difference of rates with its interval, which ends at -1 and 1."""
    estimate = paired(cube)
    low, high = estimate.interval()
    return estimate.mean, max(-1.0, low), min(1.0, high)


def _lines(tasks: dict[str, np.ndarray], estimate: Callable[[Any], tuple[float, float, float]]) -> dict[str, Any]:
    """Mean, interval and sum of outcomes (seeds, handles), over all tasks and for each."""

    def line(chosen: list[str]) -> dict[str, Any]:
        cube = np.stack([tasks[name] for name in chosen], axis=1)
        mean, low, high = estimate(cube)
        return {"rate": mean, "interval": [round(low, 4), round(high, 4)], "successes": int(cube.sum()), "n": cube.size}

    return {"all": line(list(tasks)), "tasks": {name: line([name]) for name in tasks}}


def table(result: dict[str, Any]) -> str:
    """The result in words: one line a task, one for all."""
    title = f"{'task':24} {'n':>9} rate  95% Wilson interval"
    return "\n".join([title, *_rate_lines(result), f"one chunk takes {result['chunk_milliseconds']:.1f} ms on one core"])


def joint_table(result: dict[str, Any]) -> str:
    """Several training seeds in words: one line a task, one for all, and each seed's own rate."""
    seeds = ", ".join(f"{Path(run).name} {value:.2f}" for run, value in result["runs"].items())
    title = f"{'task':24} {'n':>9} rate  95% interval over {len(result['runs'])} training seeds"
    return "\n".join([title, *_rate_lines(result), seeds])


def _rate_lines(result: dict[str, Any]) -> list[str]:
    """One line a task, one for all: count, rate, interval."""
    return [
        f"{name:24} {r['successes']:4}/{r['n']:<4} {r['rate']:.2f}  [{r['interval'][0]:.2f}, {r['interval'][1]:.2f}]"
        for name, r in {**result["tasks"], "all": result["all"]}.items()
    ]


def difference_table(result: dict[str, Any]) -> str:
    """A paired difference in words; a verdict on all tasks together alone, "better" only where the interval leaves out 0."""
    few = f" ({CAUTION})" if len(result["runs"]) < SEEDS else ""
    lines = [
        f"{name:24} {r['n']:4} pairs {r['rate']:+.2f}  [{r['interval'][0]:+.2f}, {r['interval'][1]:+.2f}]"
        for name, r in {**result["tasks"], "all": result["all"]}.items()
    ]
    lines[-1] += f"  {verdict(*result['all']['interval'])}{few}"
    pairs = "\n".join(f"{name}: {value:+.2f}" for name, value in result["runs"].items())
    return "\n".join([f"{'difference':24} 95% interval over {len(result['runs'])} pairs of training seeds, not corrected", *lines, pairs])


def _save_film(path: Path, frames: np.ndarray | None) -> None:
    import imageio.v3 as imageio

    assert frames is not None
    side = -(-frames.shape[1] // 16) * 16
    padded = np.pad(frames, ((0, 0), (0, side - frames.shape[1]), (0, side - frames.shape[2]), (0, 0)))
    enlarged = np.repeat(np.repeat(padded, 2, 1), 2, 2)
    write_atomically(
        path,
        lambda draft: imageio.imwrite(
            draft, enlarged, extension=".mp4", fps=20, codec="libx264", macro_block_size=None, output_params=["-f", "mp4"]
        ),
    )
