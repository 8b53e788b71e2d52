"""How far is a study, and how long will it take?  A plan before it starts, and a table while it runs."""

import csv
import re
import statistics
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import torch
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from . import config
from .config import Experiment, sketch
from .doctor import matmul_speed
from .errors import UserError
from .flops import counted
from .interfaces import Denoiser
from .launch import State
from .study import Job, Plan
from .tasks import every_shift, resolve

ENDED = ("done", "failed", "not run")
EPISODE = 1.2  # seconds of playing one handle on one core; Meta-World at 96 pixels
PLANNED = 12.0  # seconds of planning through one handle with a network that predicts in one pass; one that samples takes longer
ASKED = 45.0  # seconds of asking a world model, or of probing latent actions, on one core


def kind(arm: Experiment) -> tuple[str, int, int, int]:
    """What decides the time of a step: steps of two runs of one kind take about as long."""
    return arm.name, arm.shape.width, arm.shape.depth, arm.data.batch


def known_speeds(runs: Path) -> dict[tuple[str, int, int, int], float]:
    """Seconds of a step of every kind of arm that has ever been trained here; the median over its runs."""
    seen: dict[tuple[str, int, int, int], list[float]] = {}
    for path in [*runs.glob("*/metrics.csv"), *runs.glob("stages/*/metrics.csv")]:
        try:
            rows = list(csv.DictReader(path.open()))
            arm = config.load(path.parent / "config.yaml")
            step, took = (float(rows[-1][name]) for name in ("step", "seconds")) if rows else (0.0, 0.0)
        except (UserError, KeyError, ValueError, TypeError):  # of another version, or of something else
            continue
        if step > 0:
            seen.setdefault(kind(arm), []).append(took / step)
    return {key: statistics.median(values) for key, values in seen.items()}


def seconds(job: Job, speeds: Mapping[tuple[str, int, int, int], float]) -> float:
    """About how long a job takes on one thread; of an arm that was never trained here, as its operations at the speed of a product."""
    key, names = kind(job.arm), resolve(job.arm.data.tasks)
    training = 0.0
    if not job.trained:
        step = speeds[key] if key in speeds else counted(job.arm)["flops"]["step"] * job.arm.data.batch / (1e9 * _speed())
        training = step * job.arm.optim.steps
    handles = job.handles * ("play" in job.measures)
    handles += job.shifted * len(every_shift(names)) if "shift" in job.measures else 0
    asked = ASKED * len({"foresee", "transfer", "probe"} & {*job.measures})
    planning = PLANNED * job.handles * len(job.planned_on) * ("plan" in job.measures)
    return training + EPISODE * handles * len(names) * (handles > 0 and acts(job.arm)) + planning + asked


def acts(arm: Experiment) -> bool:
    """Does it generate actions, or is it a world model alone?"""
    return any(isinstance(objective, Denoiser) and objective.stream == "action" for objective in sketch(arm).objectives.values())


_measured: list[float] = []


def _speed() -> float:
    """GFLOP/s of a product of matrices on one thread; measured once."""
    if not _measured:
        before = torch.get_num_threads()
        torch.set_num_threads(1)
        _measured.append(matmul_speed(torch.float32, 1024, 3))
        torch.set_num_threads(before)
    return _measured[0]


def outline(plan: Plan, runs: Path, processes: int) -> str:
    """The plan in words, with an estimate of the time."""
    todo, speeds = plan.todo, known_speeds(runs)
    total = sum(seconds(job, speeds) for job in todo)
    longest = max((seconds(job, speeds) for job in todo), default=0.0)
    study, stages = plan.study, [job for job in plan.jobs if not job.measures]
    settings = ", ".join(filter(None, study.settings)) or "one setting"
    tasks = Counter(", ".join(job.arm.data.tasks) for job in plan.cells)
    lines = [
        study.question,
        f"  rows      {', '.join(repr(row) if ',' in row else row for row in study.rows)}; compared with {study.baseline}",
        f"  settings  {settings}; training seeds {', '.join(map(str, study.seeds))}; {study.handles} handles of each task",
        f"  tasks     {', '.join(tasks)}",
        f"  cells     {len(plan.cells)}, of which {sum(job.done for job in plan.cells)} are there already",
        f"  stages    {len(stages)}, of which {sum(not job.measures for job in todo)} have to be trained",
        f"  time      about {_clock(max(longest, total / processes))} with {processes} at once" if todo else "  nothing is left to run",
    ]
    return "\n".join(lines)


def _clock(seconds: float) -> str:
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min" if hours else f"{max(1, minutes)} min"


def doing(folder: Path) -> str:
    """What the progress bar in a worker's log said last, such as "training 120 of 500"."""
    log = folder / "log.txt"
    if not log.exists():
        return "starting"
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 2000))
        said = re.findall(r"([^\r\n:|]+): +\d+%\|[^|]*\| *(\d+)/(\d+) ", file.read().decode(errors="replace"))
    return "{} {} of {}".format(*said[-1]) if said else "starting"


class Watcher:
    """A live table where there is a terminal; elsewhere one line for each job that ends."""

    def __init__(self, plan: Plan) -> None:
        self.plan, self.console = plan, Console(stderr=True)
        self.before: dict[Path, State] = {}
        self.live = Live(console=self.console, refresh_per_second=1) if self.console.is_terminal else None

    def __enter__(self) -> "Watcher":
        if self.live:
            self.live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.live:
            self.live.stop()

    def told(self, state: Mapping[Path, State], failed: Mapping[Path, str]) -> bool:
        """Show it; true if a job has ended since the last time."""
        changed = [job for job in self.plan.jobs if self.before.get(job.folder) != state[job.folder]]
        ended = [job for job in changed if state[job.folder] in ENDED]
        if self.live:
            self.live.update(self._table(state, failed))
        elif self.before:
            over = sum(value in ENDED for value in state.values())
            for job in ended:
                what = failed.get(job.folder, "") or job.folder.name
                self.console.print(
                    f"{over}/{len(state)} {state[job.folder]}: {named(job)}: {what}", highlight=False, markup=False, soft_wrap=True
                )
        self.before = dict(state)
        return bool(ended)

    def _table(self, state: Mapping[Path, State], failed: Mapping[Path, str]) -> Group:
        table = Table(box=None, pad_edge=False)
        for column in ("", "state", "what"):
            table.add_column(column)
        for job in self.plan.jobs:
            if state[job.folder] == "running":
                table.add_row(named(job), "running", doing(job.folder))
            elif job.folder in failed:
                table.add_row(named(job), Text(state[job.folder], "red"), Text(failed[job.folder]))
        counts = Counter(state.values())
        return Group(table, Text(", ".join(f"{n} {name}" for name, n in counts.items())))


def named(job: Job) -> str:
    """A job in words."""
    if not job.measures:
        return f"stage {job.about[0]}"
    row, setting, seed = job.about
    return ", ".join(filter(None, [row, setting, f"seed {seed}"]))
