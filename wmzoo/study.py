"""What is compared, and what has to be run for it?  Rows x settings x training seeds; every cell is a run that all studies share.

A study is a file in experiments/ with a function `study(scale)`.  A cell is a run folder called after the hash of its configuration and
of its data, as stages are; so what two studies have in common is run once, and a changed configuration can never meet a stale result.
    runs/ARM-HASH/           the run; config.yaml, metrics.csv, export/ (run.py), eval.json (rollout.py), world.json (world.py), plan.json
                             (follow.py)
    runs/ARM-HASH/cell.json  what was measured, seconds, peak memory, threads, versions, hash of the code that trained it (work.py)
    runs/stages/             what cells need beforehand, trained once
    runs/studies/NAME/       asked.json, report.html and its tables (report.py)
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from . import config
from .collect import collect
from .compare import result_of, scored
from .config import Experiment, Scale, with_fields
from .data import Data
from .episodes import open_task
from .errors import UserError, unknown
from .files import read_json
from .finished import hashed, named_stage
from .follow import settings
from .registry import arm, module
from .tasks import resolve
from .world import named

PROBED = 2000  # training windows that `wmzoo probe` fits on
Measure = Literal["play", "plan", "foresee", "probe", "shift", "transfer"]


@dataclass(frozen=True)
class Row:
    """One line of a study's tables: an arm, with some of its fields changed.

    Attributes:
        arm: its name.
        fields: dotted names of fields and their values, as `wmzoo train` takes them.
        within: further fields in some of the settings.
    """

    arm: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    within: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Rows x settings x training seeds on the same tasks and handles.

    Attributes:
        question: what it answers, in one sentence.
        rows: by label.
        baseline: label of the row that the others are compared with.
        settings: changes that all rows share, by label, such as the number of demonstrations.
        seeds: of training.
        handles: start states of each task.
        measures: policies are played, world models asked for futures, latent actions probed; `shift` plays a quarter of the
            handles under every change of the task; `transfer` asks world models on tasks that nothing was trained on; with
            `plan` world models play, along the film of an expert (follow.py).
        space: label of the row whose feature space judges all painted predictions; "" judges each in its own.
        windows: validation windows on which world models are asked.
        elsewhere: the tasks of `transfer`, and of `plan` unless it is to be the own.
        beside: rows that were not asked for this time.  Those that were run all the same count among the comparisons of the study: to
            choose rows does not choose what Holm corrects for.
    """

    question: str
    rows: Mapping[str, Row]
    baseline: str
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=lambda: {"": {}})
    seeds: tuple[int, ...] = (0, 1, 2)
    handles: int = 20
    measures: tuple[Measure, ...] = ("play",)
    space: str = ""
    windows: int = 256
    elsewhere: tuple[str, ...] = ()
    beside: Mapping[str, Row] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One run: a stage, or a cell and how it is measured.

    Attributes:
        folder: of the run.
        arm: what is trained.
        needs: folders of the stages it starts from.
        about: row, setting and seed of a cell; the name of a stage.
        measures: of a cell.
        handles: start states of each task.
        space: run of the world model whose feature space judges painted predictions, or "".
        windows: on which a world model is asked.
        elsewhere: tasks on which it is asked too.
    """

    folder: Path
    arm: Experiment
    needs: tuple[Path, ...]
    about: tuple[str, ...]
    measures: tuple[Measure, ...] = ()
    handles: int = 0
    space: str = ""
    windows: int = 256
    elsewhere: tuple[str, ...] = ()

    @property
    def trained(self) -> bool:
        """Are its weights here?  A cell that was measured elsewhere has none (records.py)."""
        return (self.folder / "export" / "policy.json").exists()

    @property
    def done(self) -> bool:
        """Trained and, if it is a cell, measured as asked."""
        if not self.measures:
            return self.trained
        path = self.folder / "cell.json"
        facts = read_json(path, "a cell", "delete it") if path.exists() else {"measured": []}
        if not isinstance(facts, dict) or not isinstance(facts.get("measured"), list):
            raise UserError(f"{path} is not that of a cell; delete it")
        lost = [name for name in facts.get("files", ()) if not (self.folder / name).exists()]
        return set(self.asked) <= set(facts["measured"]) and not lost and not self._measured_otherwise

    @property
    def _measured_otherwise(self) -> bool:
        """Was it played again from fewer start states since, or asked on other windows?"""
        played, planned, names = self.folder / "eval.json", self.folder / "plan.json", resolve(self.arm.data.tasks)
        asked = {
            "play": (played, lambda: handles_played(played, names) >= self.handles),
            "plan": (planned, lambda: handles_planned(self) >= self.handles),
            "foresee": (self.folder / "world.json", lambda: foreseen(self)),
            "transfer": (self.folder / f"{named(self.elsewhere)}.json", lambda: transferred(self)),
            "probe": (self.folder / "probe.json", lambda: probed(self)),
        }
        if "shift" in self.measures:
            for path in self.folder.glob("eval-*.json"):
                asked[path.name] = (path, lambda path=path: handles_played(path, names) >= self.shifted)
        return any(path.exists() and not as_asked() for what, (path, as_asked) in asked.items() if what in (*self.measures, path.name))

    @property
    def asked(self) -> list[str]:
        """The measurements in words, as cell.json lists them."""
        played = {
            "play": str(self.handles),
            "plan": " ".join([str(self.handles), *self.elsewhere]),
            "shift": str(self.shifted),
            "foresee": f"{self.windows} {Path(self.space).name}",
            "transfer": " ".join([str(self.windows), *self.elsewhere]),
            "probe": "",
        }
        return [f"{what} {played[what]}".strip() for what in self.measures]

    @property
    def planned_on(self) -> tuple[str, ...]:
        """Tasks of `plan`."""
        return resolve(self.elsewhere or self.arm.data.tasks)

    @property
    def shifted(self) -> int:
        """Handles of each task under each change: there are fifteen changes."""
        return max(1, self.handles // 4)


def handles_played(result: Path, names: Sequence[str]) -> int:
    """Start states of each of these tasks that an evaluation has played; none where there is no such file.

    Raises:
        UserError: it is something else.
    """
    if not result.exists():
        return 0
    rows = read_json(result, "an evaluated run", "delete it")
    if not isinstance(rows, dict) or not isinstance(rows.get("tasks"), dict) or not isinstance(rows.get("handles"), list):
        raise UserError(f"{result} is not that of an evaluated run; delete it")
    return min(rows["tasks"][name]["n"] if name in rows["tasks"] else 0 for name in names)


def handles_planned(job: Job) -> int:
    """Start states of each task that the world model has played by planning as studies do; 0 if otherwise."""
    path = job.folder / "plan.json"
    count = handles_played(path, job.planned_on)
    told = read_json(path, "a run that planned", "delete it") if count else {}
    return count if settings().items() <= told.items() else 0


def foreseen(job: Job) -> bool:
    """True if the world model was asked on these windows of its own data before; on those of its judge and in its feature space, if any.

    Raises:
        UserError: what lies there is something else.
    """
    path, judge = job.folder / "world.json", Path(job.space) / "world.json"
    if not (path.exists() and path.with_suffix(".npz").exists() and (not job.space or judge.exists())):
        return False
    mine = result_of(path)
    if mine["data"] != mine.get("trained_on", mine["data"]):
        return False
    return scored(mine) == scored(result_of(judge)) if job.space else mine.get("asked", mine["n"]) == job.windows


def transferred(job: Job) -> bool:
    """True if the world model was asked on as many windows of the other tasks before, as they are recorded here.

    Raises:
        UserError: what lies there is something else.
    """
    path = job.folder / f"{named(job.elsewhere)}.json"
    if not (path.exists() and path.with_suffix(".npz").exists()):
        return False
    result, root = result_of(path), Path(job.arm.data.root) / str(job.arm.data.size)
    here = {task: root / task / "manifest.json" for task in result["data"]}  # a record's recordings need not be here
    same = all(open_task(root, task).manifest["hash"] == result["data"][task] for task, manifest in here.items() if manifest.exists())
    return result.get("asked", 0) == job.windows and same


def probed(job: Job) -> bool:
    """True if the latent actions of the run were probed as studies do: on its own data, with as many windows as `wmzoo probe` takes.

    Raises:
        UserError: what lies there is something else.
    """
    path = job.folder / "probe.json"
    if not path.exists():
        return False
    result = read_json(path, "a probed run", "delete it")
    if not isinstance(result, dict) or not {"data", "trained_on", "probes"} <= result.keys():
        raise UserError(f"{path} is not that of a probed run; delete it")
    return result["data"] == result["trained_on"] and result.get("asked", PROBED) == PROBED


@dataclass(frozen=True)
class Plan:
    """All jobs of a study, each after what it stands on.

    Attributes:
        beside: cells of rows that were not asked for.
        asked: the options of `wmzoo study`, by name.
    """

    name: str
    study: Study
    jobs: tuple[Job, ...]
    beside: tuple[Job, ...] = ()
    asked: Mapping[str, Any] = field(default_factory=dict)

    @property
    def cells(self) -> tuple[Job, ...]:
        return tuple(job for job in self.jobs if job.measures)

    @property
    def todo(self) -> tuple[Job, ...]:
        """What has to be run: cells that are not done, and what they stand on whose weights are not here."""
        found: list[Job] = []
        needed: set[Path] = set()
        for job in reversed(self.jobs):
            if (job.measures and not job.done) or (job.folder in needed and not job.trained):
                found.append(job)
                needed |= set(job.needs)
        return tuple(reversed(found))


def study(name: str, scale: Scale = "small") -> Study:
    """A study by its name.

    Raises:
        UserError: there is none, or a name in it is wrong.
    """
    found: Study = module("studies", name).study(scale)
    for label in [found.baseline, *filter(None, [found.space])]:
        if label not in found.rows:
            raise UserError(f"study {name}: {label!r} is not one of its rows, {', '.join(found.rows)}")
    if at_odds(found.measures, found.elsewhere):
        raise UserError(f"study {name}: what measures `transfer` names the tasks `elsewhere`; what measures `plan` may, and nothing else")
    return found


def at_odds(measures: Sequence[Measure], elsewhere: Sequence[str]) -> bool:
    """Are there tasks that nothing is measured on, or is there a measurement without its tasks?"""
    return not {"transfer", "plan"} & {*measures} if elsewhere else "transfer" in measures


def restricted(found: Study, seeds: tuple[int, ...], rows: tuple[str, ...], settings: tuple[str, ...] = ()) -> Study:
    """The study with other training seeds, or with some of its rows and the baseline, or settings; all where none are given.

    Raises:
        UserError: it has no such row or setting.
    """
    for label in settings:
        if label not in found.settings:
            raise unknown("setting of this study", label, found.settings)
    for label in rows:
        if label not in found.rows:
            raise unknown("row of this study", label, found.rows)
    if wrong := [seed for seed in seeds if not 0 <= seed < 2**31]:
        raise UserError(f"--seeds must be from 0 to {2**31 - 1}, not {wrong[0]}")
    kept = {label: row for label, row in found.rows.items() if not rows or label in (*rows, found.baseline, found.space)}
    chosen = {label: changes for label, changes in found.settings.items() if not settings or label in settings}
    beside = {label: row for label, row in found.rows.items() if label not in kept}
    return replace(found, seeds=seeds or found.seeds, rows=kept, settings=chosen, beside=beside)


def experiments(found: Study, scale: Scale, common: Mapping[str, Any]) -> Iterator[tuple[tuple[str, str, int], Experiment]]:
    """Row, setting, seed and configuration of every cell; seeds come slowest, so that a study that is stopped is balanced.

    Args:
        common: fields changed in every cell: they win over those of a setting, and a row's own win over them.
    """
    for seed in found.seeds:
        for setting, changes in found.settings.items():
            for label, row in found.rows.items():
                fields = {**changes, **common, **row.fields, **row.within.get(setting, {})}
                yield (label, setting, seed), replace(with_fields(arm(row.arm, scale), fields), seed=seed)


def planned(name: str, found: Study, runs: Path, scale: Scale, common: Mapping[str, Any]) -> Plan:
    """What has to be run, in an order in which everything finds what it needs.  The data must have been collected.

    Args:
        common: fields that are changed in every cell.
    """
    jobs: dict[Path, Job] = {}
    built = list(experiments(found, scale, common))
    judges = {seed: str(cell_folder(e, runs)) for (label, _, seed), e in built if label == found.space}  # one space for all settings
    for (label, setting, seed), experiment in sorted(built, key=lambda cell: cell[0][0] != found.space):  # stable; the judge comes first
        checked(experiment)
        before: dict[str, Path] = {}
        for name_, stage in experiment.stages.items():
            ours = config.for_stage(stage, experiment)
            folder = named_stage(name_, ours, before, runs / "stages")
            needs = tuple(path for label_, path in before.items() if f"stage:{label_}" in config.dump(ours))
            jobs.setdefault(folder, Job(folder, config.from_stages(ours, before), needs, (name_,)))
            before[name_] = folder
        judge = judges[seed] if found.space and label != found.space else ""
        waits = (*before.values(), *([Path(judge)] if judge else []))
        folder = cell_folder(experiment, runs)
        about = (label, setting, str(seed))
        if folder in jobs:
            both = " and ".join(", ".join(filter(None, told)) for told in (jobs[folder].about, about))
            raise UserError(f"study {name}: {both} are the same run")
        jobs[folder] = Job(folder, experiment, waits, about, found.measures, found.handles, judge, found.windows, found.elsewhere)
    return Plan(name, found, tuple(jobs.values()), tuple(_beside(found, runs, scale, common)))


def _beside(found: Study, runs: Path, scale: Scale, common: Mapping[str, Any]) -> Iterator[Job]:
    """The cells of rows that were not asked for; what was changed in all others may not be in them."""
    for label, row in found.beside.items():
        with suppress(UserError):
            for about, experiment in experiments(replace(found, rows={label: row}), scale, common):
                told = (*about[:2], str(about[2]))
                yield Job(cell_folder(experiment, runs), experiment, (), told, found.measures, found.handles, elsewhere=found.elsewhere)


def checked(experiment: Experiment) -> None:
    """`config.check`, once for all seeds and numbers of demonstrations."""
    data = replace(experiment.data, demos=min(1, experiment.data.demos), videos=min(0, experiment.data.videos))
    _checked(config.dump(replace(experiment, seed=0, data=data)))


@cache
def _checked(text: str) -> None:
    config.check(config.from_plain(yaml.safe_load(text)))


def cell_folder(experiment: Experiment, runs: Path) -> Path:
    """Where a cell lives: called after its configuration and its data."""
    return runs / hashed(experiment.name, experiment)


def missing_data(found: Study, scale: Scale, common: Mapping[str, Any]) -> list[tuple[Data, str]]:
    """Tasks of which nothing has been recorded yet, each with the data settings that ask for it."""
    built = [e for _, e in experiments(found, scale, common)]
    asked = {(e.data.root, e.data.size, task): e.data for e in built for task in (*resolve(e.data.tasks), *resolve(found.elsewhere))}

    def lacks(root: str, size: int, task: str) -> bool:
        try:
            open_task(Path(root) / str(size), task)
        except UserError:
            return True
        return False

    return [(data, task) for (root, size, task), data in asked.items() if lacks(root, size, task)]


def gather(found: Study, scale: Scale, common: Mapping[str, Any], episodes: int, processes: int) -> None:
    """Record what has not been recorded yet."""
    for data, task in missing_data(found, scale, common):
        collect((task,), Path(data.root), data.size, episodes, processes)
