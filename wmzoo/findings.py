"""What do the results of a study say?  Rates, paired differences, costs and sentences; and what has not been run.

A row is better or worse than the baseline only where the interval of its paired difference leaves out 0 (`verdict`), corrected by Holm
for all comparisons that were asked for, those that are not there yet too, and for those of the study's other rows that were run: what is
looked at does not change what is found.  Those of fewer than three training seeds are corrected among themselves.  Only seeds that both
rows have are compared, on the same handles.
"""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .config import Experiment
from .files import read_json
from .flops import counted
from .launch import State
from .stats import (
    CAUTION,
    SEEDS,
    corrected,
    hierarchical,
    holm,
    interquartile_mean,
    paired,
    pooled,
    probability_of_improvement,
    together,
    verdict,
    wilson,
)
from .study import Job, Plan
from .tasks import resolve


@dataclass(frozen=True)
class Rate:
    """Successes of several seeds on the same handles."""

    successes: int
    n: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Gap:
    """A paired difference to the baseline.

    Attributes:
        mean: of success, ours less the baseline's.
        low, high: 95%, corrected by Holm.
        p: adjusted.
        seeds: that both have.
        n: pairs of outcomes.
        improves: probability that a run of ours scores higher than one of the baseline.
    """

    mean: float
    low: float
    high: float
    p: float
    seeds: int
    n: int
    improves: float


@dataclass(frozen=True)
class Cost:
    """What a row costs; medians over its seeds.  None where it was not measured.

    Attributes:
        parameters: trained ones.
        gigaflop: of one training step for one window.
        step: milliseconds of a training step.
        train: minutes of training, stages left out.
        chunk: milliseconds until a chunk of actions is there.
        memory: gigabytes at most.
    """

    parameters: int
    gigaflop: float
    step: float | None
    train: float | None
    chunk: float | None
    memory: float | None


@dataclass(frozen=True)
class Line:
    """A row in one setting.

    Attributes:
        label, setting: which.
        jobs: its cells, in the order of the study's seeds.
        done: of these.
        by_seed: successes of each seed that is done.
        rate: over all tasks; None where nothing plays or nothing is done.
        tasks: the same for each task.
        iqm: interquartile mean of the rates of seeds and tasks, with its bootstrap interval.
        gap: to the baseline in the same setting; None for the baseline, or where nothing can be paired.
        cost: what it took.
    """

    label: str
    setting: str
    jobs: tuple[Job, ...]
    done: tuple[Job, ...]
    by_seed: tuple[int, ...]
    rate: Rate | None
    tasks: Mapping[str, Rate]
    iqm: tuple[float, float, float] | None
    gap: Gap | None
    cost: Cost

    @property
    def missing(self) -> int:
        """Cells that are not done."""
        return len(self.jobs) - len(self.done)


@dataclass(frozen=True)
class Findings:
    """All lines of a study, and what went wrong.

    Attributes:
        awaited: comparisons that Holm corrects for and that are not there yet.
        beside: rows that were not asked for, but were run: they count too.
    """

    name: str
    question: str
    baseline: str
    lines: tuple[Line, ...]
    failed: Mapping[Path, str]
    state: Mapping[Path, State]
    awaited: int = 0
    beside: tuple[str, ...] = ()

    @property
    def comparisons(self) -> int:
        """That Holm corrects together: of three training seeds or more."""
        there = sum(line.gap is not None and line.gap.seeds >= SEEDS for line in self.lines)
        return there + self.awaited + len(self.beside)

    @property
    def cells(self) -> int:
        return sum(len(line.jobs) for line in self.lines)

    @property
    def alike(self) -> tuple[int, int]:
        """Cells of seeds above 0 that were trained with the noise of seed 0, which wmzoo did before 0.2.0; and all such cells."""
        others = [job for line in self.lines for job in line.done if job.about[2] != "0"]
        facts = [read_json(job.folder / "cell.json", "a cell") for job in others]
        by = [fact.get("trained_by") or fact.get("versions", {}).get("wmzoo", "") for fact in facts]
        return sum(version.startswith("0.1.") for version in by), len(others)

    @property
    def missing(self) -> int:
        return sum(line.missing for line in self.lines)


def find(plan: Plan, state: Mapping[Path, State], failed: Mapping[Path, str]) -> Findings:
    """Read what there is.

    Args:
        state: of jobs that are being run, if any are.
        failed: what went wrong, by folder.
    """
    grouped: dict[tuple[str, str], list[Job]] = {}
    for job in plan.cells:
        grouped.setdefault((job.about[1], job.about[0]), []).append(job)
    there = [job for job in plan.cells if job.done]  # asked once: others may end meanwhile
    outcomes = {job.folder: played(job) for job in there}
    gaps, awaited, beside = compared(plan, grouped, outcomes)
    lines = []
    for (setting, label), jobs in grouped.items():
        done = tuple(job for job in jobs if job.folder in outcomes)
        tables = [found for job in done if (found := outcomes[job.folder])]
        tasks = {name: rated(np.stack([table[name] for table in tables])[:, None]) for name in (tables[0] if tables else ())}
        cube = np.stack([np.stack(list(table.values())) for table in tables]) if tables else None
        lines.append(
            Line(
                label=label,
                setting=setting,
                jobs=tuple(jobs),
                done=done,
                by_seed=tuple(int(sum(row.sum() for row in table.values())) for table in tables),
                rate=None if cube is None else rated(cube),
                tasks=tasks,
                iqm=None if cube is None else hierarchical(cube, middle, draws=2000),
                gap=gaps.get((setting, label)),
                cost=cost(jobs[0].arm, done),
            )
        )
    return Findings(plan.name, plan.study.question, plan.study.baseline, tuple(lines), dict(failed), dict(state), awaited, beside)


def outcomes_file(job: Job) -> Path:
    """The file that has what came of every handle: of a policy, or of a world model that planned."""
    return job.folder / ("plan.json" if "plan" in job.measures else "eval.json")


def played(job: Job, count: int = 0, result: str = "") -> dict[str, np.ndarray]:
    """Successes of a cell on the study's handles, or on the first `count` of each task, by task; nothing where nothing plays.

    Args:
        result: another file than `outcomes_file`.
    """
    path = job.folder / result if result else outcomes_file(job)
    if not {"play", "plan", "shift"} & set(job.measures) or not path.exists():
        return {}
    handles = [h for h in read_json(path, "an evaluated run")["handles"] if h["seed"] < (count or job.handles)]
    names = job.planned_on if "plan" in job.measures else resolve(job.arm.data.tasks)
    ordered = sorted(handles, key=lambda h: h["seed"])  # in the order of the study, whatever the file's
    outcomes = {name: np.array([h["success"] for h in ordered if h["task"] == name], float) for name in names}
    return outcomes if all(map(len, outcomes.values())) else {}


def middle(cube: np.ndarray) -> float:
    """Interquartile mean over the rates of seeds and tasks."""
    return interquartile_mean(cube.mean(axis=2))


def rated(cube: np.ndarray) -> Rate:
    """Of outcomes (seeds, tasks, handles)."""
    successes = int(cube.sum())
    mean, low, high = pooled(cube) if cube[0, 0].size > 1 or len(cube) > 1 else (cube.mean(), *wilson(successes, cube.size))
    return Rate(successes, cube.size, float(mean), float(low), float(high))


def compared(
    plan: Plan, grouped: Mapping[tuple[str, str], Sequence[Job]], outcomes: Mapping[Path, dict[str, np.ndarray]]
) -> tuple[dict[tuple[str, str], Gap], int, tuple[str, ...]]:
    """Every row against the baseline in its own setting, all corrected together; those of too few seeds among themselves.

    Returns:
        The differences, by setting and row; how many more there are to come; the rows that were not asked for but count.
    """
    others: dict[tuple[str, str], list[Job]] = {}
    for job in plan.beside:
        others.setdefault((job.about[1], job.about[0]), []).append(job)
    outcomes = {**outcomes, **{job.folder: played(job) for job in plan.beside if job.done}}
    pairs: dict[tuple[str, str], tuple[np.ndarray, np.ndarray]] = {}
    for (setting, label), jobs in {**grouped, **others}.items():
        base = {job.about[2]: outcomes.get(job.folder, {}) for job in grouped.get((setting, plan.study.baseline), ())}
        both = [(found, base[job.about[2]]) for job in jobs if (found := outcomes.get(job.folder)) and base.get(job.about[2])]
        asked = (setting, label) in grouped
        if label != plan.study.baseline and (both if asked else len(both) >= SEEDS):
            ours, theirs = (np.stack([np.stack(list(pair[i].values())) for pair in both]) for i in (0, 1))
            pairs[setting, label] = ours, theirs
    whole = {key for key, jobs in grouped.items() if key[1] != plan.study.baseline and len(jobs) >= SEEDS}
    whole -= {key for key in whole if any(outcomes.get(job.folder) == {} for job in grouped[key])}  # nothing plays there
    found, to_come = {}, 0
    for few in (False, True):  # what one or two seeds say is no test of a method
        family = {key: pair for key, pair in pairs.items() if (len(pair[0]) < SEEDS) == few}
        awaited = 0 if few else len(whole - family.keys())
        to_come += awaited
        estimates = together([paired(ours - theirs) for ours, theirs in family.values()], alike=True)
        adjusted, ends = holm([estimate.p for estimate in estimates], awaited), corrected(estimates, awaited=awaited)
        for (key, (ours, theirs)), estimate, (low, high), p in zip(family.items(), estimates, ends, adjusted, strict=True):
            improves = probability_of_improvement(ours.mean(axis=2), theirs.mean(axis=2))
            found[key] = Gap(estimate.mean, max(-1.0, low), min(1.0, high), p, len(ours), ours.size, improves)
    return found, to_come, tuple(", ".join(filter(None, key[::-1])) for key in pairs if key not in grouped)


def cost(arm: Experiment, done: Sequence[Job]) -> Cost:
    """What a row cost."""
    counts = counted(arm)
    facts = [read_json(job.folder / "cell.json", "a cell") for job in done]
    chunks = [read_json(outcomes_file(job), "an evaluated run")["chunk_milliseconds"] for job in done if played(job)]
    train = median([f["seconds"]["train"] for f in facts])
    return Cost(
        parameters=counts["parameters"]["trained"],
        gigaflop=counts["flops"]["step"] / 1e9,
        step=None if train is None else 1000 * train / arm.optim.steps,
        train=None if train is None else train / 60,
        chunk=median(chunks),
        memory=median([f["peak_bytes"] / 1e9 for f in facts]),
    )


def median(values: Sequence[float]) -> float | None:
    """Of what there is."""
    return float(np.median(values)) if values else None


def sentence(line: Line, baseline: str) -> str:
    """The verdict on a row, with everything that it rests on."""
    place = f" ({line.setting})" if line.setting else ""
    if line.gap is None:
        return f"{line.label}{place}: nothing to compare yet."
    gap, handles = line.gap, line.gap.n // line.gap.seeds
    runs = f"{gap.seeds} training seed{'s' * (gap.seeds > 1)} x {handles} handles"
    caution = "" if gap.seeds >= SEEDS else f"; {CAUTION}"
    told = f"{gap.mean:+.2f} [{gap.low:+.2f}, {gap.high:+.2f}]"
    word = verdict(gap.low, gap.high)
    return f"{line.label}{place} is {word} {'from' if word.startswith('not') else 'than'} {baseline} at n = {runs}: {told}{caution}."


def curves(job: Job, terms: Sequence[str]) -> tuple[str, np.ndarray, np.ndarray] | None:
    """The first of these terms that a run has, the steps, and its loss on validation windows."""
    path = job.folder / "metrics.csv"
    rows = list(csv.DictReader(path.open())) if path.exists() else []
    term = next((t for t in terms if rows and rows[-1].get(f"validation/{t}")), None)
    if term is None:
        return None
    kept = [row for row in rows if row.get(f"validation/{term}")]
    return term, np.array([int(row["step"]) for row in kept]), np.array([float(row[f"validation/{term}"]) for row in kept])
