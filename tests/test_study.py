"""A study: what is planned, what is shared, what happens when a job fails or everything is killed, and what may be said in the end."""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from matplotlib.figure import Figure

from wmzoo import __version__, cli, config, launch, records, registry, report, watch, work
from wmzoo.config import with_fields
from wmzoo.errors import UserError
from wmzoo.files import alone_in, read_json, write_json
from wmzoo.findings import find, played, sentence, verdict
from wmzoo.follow import settings
from wmzoo.launch import State
from wmzoo.rollout import Played, summary
from wmzoo.study import Job, Plan, Row, Study, experiments, foreseen, planned, restricted, study, transferred
from wmzoo.tables import Table
from wmzoo.watch import ASKED, EPISODE, PLANNED, Watcher, doing, kind, outline, seconds

CHANGES = {"optim.steps": 4, "optim.chapter": 2, "data.demos": 3, "data.batch": 8}
SMALL = Study(
    question="Is it planned?",
    rows={"policy": Row("policy"), "flare": Row("flare"), "flare, tap .25": Row("flare", {"objectives.flare.config.tap": 0.25})},
    baseline="policy",
    settings={"few": {"data.demos": 2}, "many": {"data.demos": 3}},
    seeds=(0, 1),
    handles=4,
)
SIZES = {"width": 1, "depth": 0, "context": 1, "out": 1, "horizon": 1, "action": 1, "state": 1, "image": 1, "views": 1, "history": 1}
NORMALISER = {name: [0.0] for name in ("action_low", "action_high", "state_mean", "state_std")}
FACTS = {"data": {"toy-red": "0"}, "instructions": {}, "sizes": {**SIZES, "embodiments": 1}, "normaliser": NORMALISER}  # of an export


def plan(toy_data: Path, runs: Path, what: Study = SMALL, changes: dict[str, Any] | None = None) -> Plan:
    """A study on the toy, planned."""
    kept = {key: value for key, value in CHANGES.items() if all(key not in setting for setting in what.settings.values())}
    return planned("small", what, runs, "tiny", {**kept, "data.root": str(toy_data), **(changes or {})})


@pytest.fixture
def without_demos() -> dict[str, Any]:
    return {key: value for key, value in CHANGES.items() if key != "data.demos"}


# What is planned


def test_every_cell_is_planned_once_after_what_it_stands_on(toy_data: Path, tmp_path: Path) -> None:
    """3 rows x 2 settings x 2 seeds; one embedding for each number of demonstrations, which both rows and both seeds share."""
    jobs = plan(toy_data, tmp_path).jobs
    cells = [job for job in jobs if job.measures]
    stages = [job for job in jobs if not job.measures]
    assert len(cells) == len({job.folder for job in cells}) == 12
    assert [job.about for job in stages] == [("embedding",), ("embedding",)]
    assert [job.about[2] for job in cells] == ["0"] * 6 + ["1"] * 6, "seeds come slowest: a study that is stopped is balanced"
    seen: set[Path] = set()
    for job in jobs:
        assert set(job.needs) <= seen, job.about
        seen.add(job.folder)
    assert {job.arm.data.demos for job in cells} == {2, 3}


def test_two_studies_share_what_they_have_in_common(toy_data: Path, tmp_path: Path) -> None:
    """The hash of configuration and data decides; a changed field, other data or another seed is another run."""
    one = {job.folder for job in plan(toy_data, tmp_path).cells}
    two = {job.folder for job in plan(toy_data, tmp_path, replace(SMALL, rows={"policy": Row("policy")}, seeds=(1, 2))).cells}
    assert len(one & two) == 2, "seed 1 in both settings"
    assert not one & {job.folder for job in plan(toy_data, tmp_path, changes={"optim.lr": 0.5}).cells}
    other = tmp_path / "other"
    shutil.copytree(toy_data, other)
    manifest = other / "32" / "toy-red" / "manifest.json"
    write_json(manifest, {**read_json(manifest, "a data set"), "hash": "0" * 16})
    moved = {job.folder.name for job in plan(other, tmp_path).cells}
    assert not moved & {folder.name for folder in one}


def test_a_judge_comes_first(toy_data: Path, tmp_path: Path) -> None:
    """Painted predictions are scored in the space of another row of the same seed, which must be there before."""
    rows = {"policy": Row("policy"), "flare": Row("flare")}
    jobs = plan(toy_data, tmp_path, replace(SMALL, rows=rows, space="flare", measures=("foresee",))).cells
    judged = [job for job in jobs if job.about[0] == "policy"]
    for job in judged:
        judge = next(other for other in jobs if str(other.folder) == job.space)
        assert judge.about[1:] == ("many", job.about[2])
        assert judge.folder in job.needs
    assert jobs[0].about[0] == "flare"


def test_a_change_wins_over_settings_and_loses_to_rows() -> None:
    """`--change` is not quietly undone by what all rows share; a row that is about a field keeps it, what it says of a setting too."""
    rows = {"policy": Row("policy"), "longer": Row("policy", {"optim.steps": 9}, within={"few": {"data.videos": 1}})}
    settings = {"few": {"data.demos": 3, "optim.steps": 5}, "many": {"data.demos": 5}}
    found = Study("Which?", rows, "policy", settings=settings, seeds=(0,))
    made = [arm for _, arm in experiments(found, "tiny", {"data.demos": 4, "optim.steps": 7})]
    assert [(arm.data.demos, arm.optim.steps, arm.data.videos) for arm in made] == [(4, 7, 0), (4, 9, 1), (4, 7, 0), (4, 9, 0)]


def test_with_few_demonstrations_stages_without_actions_have_videos() -> None:
    """LARA's latent action model and its encoder see forty more episodes a task; FLARE's embedding reads actions, so it does not."""
    found = replace(study("implicit_vs_explicit"), seeds=(0,))
    made = {label: arm for (label, setting, _), arm in experiments(found, "small", {}) if setting == "10 demonstrations"}
    assert {name: stage.data.videos for name, stage in made["lapa"].stages.items()} == {"vit_mae": 40, "lam": 40, "codes": 40}
    assert made["flare"].stages["embedding"].data.videos == made["lara"].data.videos == 0


@pytest.mark.parametrize("name", sorted(registry.members("studies")))
def test_every_study_names_arms_and_fields_that_exist(name: str) -> None:
    for scale in ("tiny", "small", "base", "paper"):
        assert list(experiments(replace(study(name, scale), seeds=(0,)), scale, {}))


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        ("study low_data --seeds", "--seeds needs a value"),
        ("study low_data --rows --plan", "--rows needs a value"),
        ("study low_data --seeds 4294967296", "--seeds must be from 0 to 2147483647"),
        ("study low_data --change seed=7", "say --seeds 0 1 2"),
        ("study low_data --change name=../evil", "--name is part of the name of a folder"),
        ("cell nowhere --handles -1", "--handles must be at least 1"),
        ("power --spread 0.9 --seeds 2", "show no difference of rates"),
    ],
)
def test_wrong_words_are_one_line(words: str, hint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("wmzoo.study.gather", lambda *_: None)
    with pytest.raises(UserError, match=hint):
        cli.dispatch(words.split())
    assert not list(tmp_path.iterdir())


def test_a_plan_records_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    cli.dispatch(["study", "quick", "--scale", "tiny", "--plan"])
    assert "not recorded yet; without --plan" in capsys.readouterr().out
    assert not list(tmp_path.iterdir())


def test_without_slurm_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "_engine", lambda _: None)
    monkeypatch.setattr(launch.shutil, "which", lambda _: None)
    with pytest.raises(UserError, match="no SLURM here: srun is not found"), launch.launcher("slurm", 1, 1, "auto"):
        pass


def test_what_does_not_exist_is_one_line_with_a_hint(toy_data: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"unknown study 'quik'; did you mean 'quick'"):
        study("quik")
    with pytest.raises(UserError, match=r"unknown row of this study 'flair'; did you mean 'flare'"):
        restricted(SMALL, (), ("flair",))
    with pytest.raises(UserError, match=r"unknown field of data 'demo'; did you mean 'demos'"):
        with_fields(registry.arm("policy", "tiny"), {"data.demo": 3})
    with pytest.raises(UserError, match=r"data\.demos must be int, not 'three'"):
        with_fields(registry.arm("policy", "tiny"), {"data.demos": "three"})
    with pytest.raises(UserError, match="the same run"):
        plan(toy_data, tmp_path, replace(SMALL, rows={"policy": Row("policy"), "again": Row("policy")}))
    with pytest.raises(UserError, match=r"--data.demos must be at least 1"):
        plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 0}}))


def test_fields_change_and_nothing_else() -> None:
    arm = registry.arm("flare", "tiny")
    changed = with_fields(arm, {"objectives.flare.config.tap": 0.5, "objectives.flare.weight": 0.1, "stages.embedding.optim.steps": 7})
    assert changed.objectives["flare"].config.tap == 0.5  # type: ignore[attr-defined]
    assert (changed.objectives["flare"].weight, changed.stages["embedding"].optim.steps) == (0.1, 7)
    assert with_fields(changed, {"objectives.flare.config.tap": 0.75, "objectives.flare.weight": 0.2}).objectives == arm.objectives


def test_restricted_keeps_the_baseline() -> None:
    few = restricted(SMALL, (5,), ("flare",))
    assert (list(few.rows), few.seeds) == (["policy", "flare"], (5,))
    assert restricted(SMALL, (), ()) == SMALL
    assert list(restricted(SMALL, (), (), ("many",)).settings) == ["many"]
    with pytest.raises(UserError, match="unknown setting of this study 'man'; did you mean 'many'"):
        restricted(SMALL, (), (), ("man",))


def test_the_plan_in_words(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Counts of cells and stages, and a time that falls as runs of the kind are known to be fast."""
    what = plan(toy_data, tmp_path)
    said = outline(what, tmp_path, 2)
    assert "12, of which 0 are there already" in said
    assert "2, of which 2 have to be trained" in said
    assert re.search(r"time +about \d", said)
    job, speeds = what.cells[0], {kind(what.cells[0].arm): 2.0}
    steps = 2.0 * job.arm.optim.steps
    assert seconds(job, speeds) == pytest.approx(steps + EPISODE * 2 * job.handles), "two tasks"
    world = replace(job, arm=registry.arm("rla_wm", "tiny"), measures=("play", "foresee"))
    assert seconds(world, {kind(world.arm): 2.0}) == 2.0 * world.arm.optim.steps + ASKED, "it does not play"
    write_json(job.folder / "export" / "policy.json", FACTS)
    assert seconds(job, speeds) == pytest.approx(EPISODE * 2 * job.handles), "it has been trained"
    monkeypatch.setattr(watch, "every_shift", lambda _: ("light-1", "light-2", "camera-1"))
    assert seconds(replace(job, measures=("plan",), elsewhere=("toy-red",)), speeds) == PLANNED * job.handles, "one task"
    assert seconds(replace(job, measures=("shift",), handles=8), speeds) == pytest.approx(EPISODE * 2 * 2 * 3)


# What is run


class Fake:
    """Runs nothing: writes what a finished job leaves, or fails."""

    def __init__(self, broken: set[str]) -> None:
        self.broken, self.asked = broken, list[str]()

    def __call__(self, words: list[str], log: Path) -> "Future[str]":
        folder = Path(words[1])
        self.asked.append(folder.name)
        future: Future[str] = Future()
        if folder.name in self.broken:
            future.set_result("exit code 1: out of memory")
            return future
        write_json(folder / "export" / "policy.json", FACTS)
        if "--measures" in words:
            handles = int(words[words.index("--handles") + 1])
            measured = [f"play {handles}"]
            write_json(folder / "cell.json", {"measured": measured, "seconds": {"train": 60.0}, "peak_bytes": 1e9})
            played = [Played(task, i, i % 2 == 0, 9, 3.0) for task in ("toy-red", "toy-blue") for i in range(handles)]
            write_json(folder / "eval.json", summary(played))
        future.set_result("")
        return future


def told_nothing(state: dict[Path, State], failed: dict[Path, str]) -> None:
    pass


def test_a_failure_stops_what_stands_on_it_and_nothing_else(toy_data: Path, tmp_path: Path) -> None:
    """The embedding of one setting fails: its flare cells are not run and say why; every other cell is."""
    what = plan(toy_data, tmp_path)
    broken = next(job for job in what.jobs if not job.measures)
    seen: list[dict[Path, State]] = []
    fake = Fake({broken.folder.name})
    failed = launch.run(what, fake, lambda state, _: seen.append(dict(state)))
    lost = [job for job in what.cells if broken.folder in job.needs]
    assert len(lost) == 4
    assert failed[broken.folder] == "exit code 1: out of memory"
    assert all(failed[job.folder] == f"it stands on {broken.folder.name}, which failed" for job in lost)
    assert sum(job.done for job in what.cells) == 8
    assert {seen[-1][job.folder] for job in lost} == {"not run"}
    assert seen[-1][broken.folder] == "failed"
    again = Fake(set())
    assert launch.run(what, again, told_nothing) == {}
    assert sorted(again.asked) == sorted([broken.folder.name, *(job.folder.name for job in lost)]), "nothing is run twice"


def test_a_job_without_a_result_has_failed(toy_data: Path, tmp_path: Path) -> None:
    """A worker that ends well and leaves nothing is not believed."""
    what = plan(toy_data, tmp_path, replace(SMALL, rows={"policy": Row("policy")}, seeds=(0,)))

    def idle(words: list[str], log: Path) -> "Future[str]":
        future: Future[str] = Future()
        future.set_result("")
        return future

    assert set(launch.run(what, idle, told_nothing).values()) == {"it ended without a result"}

    def careless(words: list[str], log: Path) -> "Future[str]":
        write_json(Path(words[1]) / "cell.json", {"measured": 3})
        return idle(words, log)

    for wrong in launch.run(what, careless, told_nothing).values():
        assert wrong.endswith("cell.json is not that of a cell; delete it"), "the rest goes on"


def test_an_engine_that_loses_a_worker_fails_that_job_alone(toy_data: Path, tmp_path: Path) -> None:
    """A future that raises, and a folder that holds another run: both are reported, and the rest is run."""
    what = plan(toy_data, tmp_path, replace(SMALL, rows={"policy": Row("policy")}))
    lost, taken = what.cells[0].folder, what.cells[1].folder
    taken.mkdir()
    (taken / "config.yaml").write_text("something else")
    fake = Fake(set())

    def engine(words: list[str], log: Path) -> "Future[str]":
        if words[1] != str(lost):
            return fake(words, log)
        future: Future[str] = Future()
        future.set_exception(ConnectionError("node died"))
        return future

    failed = launch.run(what, engine, told_nothing)
    assert failed[lost] == "ConnectionError: node died"
    assert "holds another run than its name says" in failed[taken]
    assert [job.done for job in what.cells] == [False, False, True, True]


def test_a_world_model_is_asked_again_where_the_answer_would_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In another feature space, or on more windows; then new scores replace the old ones, and cell.json does not claim those any more."""
    asked: list[tuple[str, int]] = []

    def leave(folder: Path, **fields: Any) -> None:
        write_json(folder / "world.json", {"kind": "world model", "feature_space": "own", "data": {}, "n": 256, **fields})
        (folder / "world.npz").touch()

    def evaluate(folder: Path, count: int, space: Path | None) -> None:
        asked.append((space.name if space else "", count))
        leave(folder, n=count, asked=count, **({"space": space.name} if space else {}))

    job = Job(tmp_path / "cell", registry.arm("policy", "tiny"), (), ("policy", "", "0"), ("foresee",), 4)
    write_json(job.folder / "export" / "policy.json", FACTS)
    (job.folder / "metrics.csv").write_text("step,seconds\n1,2.0\n")
    monkeypatch.setattr(work, "foresees", lambda _: True)
    monkeypatch.setattr(work.world, "evaluate", evaluate)
    leave(job.folder)
    for judge in ("own", "one", "two"):
        leave(tmp_path / judge, feature_space=judge)
    for judge in ("", "own", "one", "one", "two"):
        work.work(replace(job, space=str(tmp_path / judge) if judge else ""))
    assert asked == [("one", 256), ("two", 256)], "its own space was measured before"
    work.work(replace(job, windows=300))
    assert asked[-1] == ("", 300)
    facts = read_json(job.folder / "cell.json", "")
    assert (facts["trained_by"], facts["code"]) == (__version__, work.code_hash())
    assert (facts["measured"], facts["files"], facts["data"]) == (["foresee 300"], ["world.json", "world.npz"], {"toy-red": "0"})
    again = replace(job, windows=300)
    assert again.done
    leave(job.folder, n=8, asked=8)  # by hand, as `wmzoo eval --windows 8` does
    assert not again.done
    work.work(again)
    assert again.done
    (job.folder / "world.npz").unlink()
    assert not again.done


def test_a_folder_with_another_run_is_refused(toy_data: Path, tmp_path: Path) -> None:
    job = plan(toy_data, tmp_path).jobs[0]
    job.folder.mkdir()
    (job.folder / "config.yaml").write_text("something else")
    with pytest.raises(UserError, match="holds another run than its name says"):
        launch.prepare(job)


@pytest.mark.slow
def test_a_command_that_fails_says_its_last_line(tmp_path: Path) -> None:
    """Exit code and the line that says why; what it printed lies in its log."""
    wrong = launch.call(["card", "flair"], tmp_path / "log.txt", 1, tmp_path)
    assert re.fullmatch(r"exit code 2: unknown card 'flair'; did you mean .*", wrong)
    assert "flair" in (tmp_path / "log.txt").read_text()
    assert launch.call(["card", "flare"], tmp_path / "log.txt", 1, tmp_path) == ""


def test_an_engine_that_is_not_installed_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UserError, match=r"ray is not installed; type: pip install 'wmzoo\[ray\]'"), launch.launcher("ray", 1, 1, "local"):
        pass


def test_other_recordings_do_not_count(toy_data: Path, tmp_path: Path) -> None:
    """A world model that was asked about other recordings than its own, or than those of the other tasks that are here, is asked again."""
    arm = with_fields(registry.arm("policy", "tiny"), {"data.root": str(toy_data)})
    job = Job(tmp_path, arm, (), ("policy", "", "0"), ("foresee", "transfer"), elsewhere=("toy-blue",))
    about = {"kind": "world model", "feature_space": "own", "n": 256, "asked": 256}
    recording = read_json(toy_data / "32" / "toy-blue" / "manifest.json", "")["hash"]
    for name in ("world", "world-toy-blue"):
        (tmp_path / f"{name}.npz").touch()
    for data, same in ((recording, True), ("other", False)):
        write_json(tmp_path / "world.json", about | {"data": {"toy-red": data}, "trained_on": {"toy-red": recording}})
        write_json(tmp_path / "world-toy-blue.json", about | {"data": {"toy-blue": data}, "trained_on": {"toy-red": recording}})
        assert (foreseen(job), transferred(job)) == (same, same)


def test_more_handles_are_asked_for_again(tmp_path: Path) -> None:
    """A cell that was played on 10 handles is not done for a study that asks for 20, and is for one that asks for 10."""
    write_json(tmp_path / "cell.json", {"measured": ["play 10"]})
    job = Job(tmp_path, registry.arm("policy", "tiny"), (), ("policy", "", "0"), ("play",), 10)
    assert job.done
    assert not replace(job, handles=20).done
    assert not replace(job, measures=("play", "foresee")).done


@pytest.mark.parametrize(
    ("name", "text"),
    [("cell.json", "[]"), ("cell.json", '{"seconds": 1}'), ("eval.json", "[]"), ("eval.json", '{"tasks": 3, "handles": []}')],
)
def test_a_foreign_result_in_a_cell_is_named(name: str, text: str, tmp_path: Path) -> None:
    write_json(tmp_path / "cell.json", {"measured": ["play 10"]})
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match=rf"{name} is not that of .*; delete it"):
        assert Job(tmp_path, registry.arm("policy", "tiny"), (), ("policy", "", "0"), ("play",), 10).done


def test_a_cell_whose_outcomes_are_lost_is_played_again(tmp_path: Path) -> None:
    """Whole, or one task of it; a world model has none."""
    write_json(tmp_path / "cell.json", {"measured": ["play 1"], "files": ["eval.json"]})
    job = Job(tmp_path, registry.arm("policy", "tiny"), (), ("policy", "", "0"), ("play",), 1)
    assert not job.done
    write_json(tmp_path / "eval.json", summary([Played("toy-red", 0, True, 9, 3.0)]))
    assert not job.done
    write_json(tmp_path / "eval.json", summary([Played(task, 0, True, 9, 3.0) for task in ("toy-red", "toy-blue")]))
    assert job.done
    (tmp_path / "eval.json").unlink()
    write_json(tmp_path / "cell.json", {"measured": ["play 1"], "files": []})
    assert job.done


@pytest.mark.slow
def test_results_outlive_their_runs(toy_data: Path, tmp_path: Path) -> None:
    """Written down and taken back elsewhere the tables are the same; only what is new is run, with the stages that it alone stands on."""
    what = plan(toy_data, tmp_path / "here")
    played_as(what, {"policy": 0.25, "flare": 0.75}, seeds=("0", "1"))
    records.keep(what, tmp_path / "records")
    launch.prepare(plan(toy_data, tmp_path / "there").cells[0])  # was about to be run when a study was stopped
    assert records.recall(tmp_path / "records", tmp_path / "there") == 8
    assert records.recall(tmp_path / "records", tmp_path / "there") == 0, "what is there stays"
    again = plan(toy_data, tmp_path / "there")
    assert [table.rows for table in report.tables(find(again, {}, {}))[:2]] == [t.rows for t in report.tables(find(what, {}, {}))[:2]]
    assert sorted(row[3] for row in report.cells(find(again, {}, {})).rows) == ["recorded"] * 8 + ["waiting"] * 4
    assert {job.about[0] for job in again.todo if job.measures} == {"flare, tap .25"}
    assert [job.about for job in again.todo if not job.measures] == [("embedding",)] * 2
    policies = plan(toy_data, tmp_path / "there", replace(SMALL, rows={"policy": SMALL.rows["policy"], "flare": SMALL.rows["flare"]}))
    assert policies.todo == (), "all is known, so no stage is trained"
    known, new = again.cells[0], again.todo[-1]
    judged = tuple(replace(job, needs=(known.folder,)) if job == new else job for job in again.jobs)
    assert known in replace(again, jobs=judged).todo, "what a new cell stands on is trained again, although it is known"
    with pytest.raises(UserError, match="has no records"):
        records.recall(tmp_path, tmp_path / "there")
    cell = tmp_path / "records" / "cells" / what.cells[0].folder.name / "cell.json"
    whole = read_json(cell, "a cell")
    before = [*whole["measured"], "foresee 256"]
    write_json(cell, whole | {"measured": before})
    with pytest.raises(UserError, match=r"trained again, and what is written down of it knows more: foresee 256; run the studies"):
        records.keep(what, tmp_path / "records")
    assert read_json(cell, "a cell")["measured"] == before
    write_json(cell, whole)
    (cell.parent / "eval-light-1.json").touch()
    records.keep(what, tmp_path / "records")
    assert not (cell.parent / "eval-light-1.json").exists(), "what another training was measured to do"


@pytest.mark.parametrize(
    ("before", "now", "lost"),
    [
        (["play 20"], ["play 60", "foresee 256"], []),
        (["play 50", "probe"], ["play 10", "probe"], ["play 50"]),
        (["plan 10 a b"], ["plan 10"], ["plan 10 a b"]),
        (["foresee 256 rla_wm-1"], ["foresee 256 rla_wm-2"], []),
        (["foresee 256", "probe"], ["foresee 64"], ["foresee 256", "probe"]),
    ],
)
def test_measurements_that_would_be_lost(before: list[str], now: list[str], lost: list[str]) -> None:
    """Fewer start states or windows, other tasks, or none; of several judges of foresight the last counts."""
    assert records.lost_measurements(before, now) == lost


def test_what_is_being_trained_is_not_taken_back(toy_data: Path, tmp_path: Path) -> None:
    """A worker holds the queue of its cell before there is a checkpoint."""
    what = plan(toy_data, tmp_path / "here")
    played_as(what, {"policy": 0.25}, seeds=("0",))
    records.keep(what, tmp_path / "records")
    begun = plan(toy_data, tmp_path / "there").cells[0].folder
    (begun / "queue").mkdir(parents=True)
    with alone_in(begun / "queue"):
        assert records.recall(tmp_path / "records", tmp_path / "there") == 1
        assert not (begun / "cell.json").exists()
    assert records.recall(tmp_path / "records", tmp_path / "there") == 1


@pytest.mark.slow
def test_a_page_loses_no_cell_that_it_shows(toy_data: Path, tmp_path: Path) -> None:
    """Tables, a picture and records go to the page and beside it; without a place, or with less than it has, nothing is written."""
    asked = replace(SMALL, settings={"few": {"data.demos": 2}}, seeds=(0,))
    what, page = plan(toy_data, tmp_path / "runs", asked), tmp_path / "PAGE.md"
    played_as(what, {"policy": 0.25, "flare": 0.75}, seeds=("0",))
    home = tmp_path / "docs" / "results"
    with pytest.raises(UserError, match=r"PAGE\.md is not there"):
        report.publish(what, tmp_path / "runs", page)
    for text in (b"a page without a place\n", b"\x89PNG\xff"):
        page.write_bytes(text)
        with pytest.raises(UserError, match=r"PAGE\.md has no place for this"):
            report.publish(what, tmp_path / "runs", page)
    assert not home.exists()
    page.write_text("above\n<!-- small -->\n<!-- end of small -->\nbelow\n")
    report.write(what, tmp_path / "runs", {}, {})
    report.publish(what, tmp_path / "runs", page)
    told = page.read_text()
    assert told.startswith("above\n<!-- small -->\n| arm |")
    assert told.endswith("![differences](docs/results/small/differences.png)\n<!-- end of small -->\nbelow\n")
    assert not (home / "small" / "asked.json").exists()
    report.publish(replace(what, asked={"rows": ["flare"]}), tmp_path / "runs", page)
    assert read_json(home / "small" / "asked.json", "what was asked for") == {"rows": ["flare"]}, "whatever another study asks meanwhile"
    assert (home / "small" / "differences.png").exists()
    assert len(list((home / "cells").iterdir())) == 2
    report.publish(what, tmp_path / "runs", page)
    assert page.read_text() == told
    few = plan(toy_data, tmp_path / "runs", replace(asked, rows={"policy": Row("policy")}))
    with pytest.raises(UserError, match="shows 1 finished cells that are not here or were not asked for, such as flare, few, seed 0"):
        report.publish(few, tmp_path / "runs", page)
    cell = home / "cells" / what.cells[0].folder.name / "cell.json"
    facts, files = read_json(cell, ""), {path: path.read_bytes() for path in (home / "small").iterdir()}
    write_json(cell, facts | {"measured": [*facts["measured"], "probe"]})
    with pytest.raises(UserError, match="knows more: probe"):
        report.publish(what, tmp_path / "runs", page)
    assert files == {path: path.read_bytes() for path in (home / "small").iterdir()}, "nothing is written before that is known"
    write_json(cell, facts)
    (what.cells[1].folder / "cell.json").unlink()
    with pytest.raises(UserError, match="such as flare, few, seed 0; take them back"):
        report.publish(what, tmp_path / "runs", page)
    before = (home / "small" / "cells.csv").read_bytes()
    for broken in (b"", before[:-20], b"a,b\n1,2\n", b"\xff\xfe\x00"):
        (home / "small" / "cells.csv").write_bytes(broken)
        with pytest.raises(UserError, match=r"cells\.csv is not (a|the) table .*restore it, or delete .* to begin anew"):
            report.publish(what, tmp_path / "runs", page)
    assert page.read_text() == told
    shutil.rmtree(home / "small")
    report.publish(what, tmp_path / "runs", page)
    assert page.read_text() != told
    assert not (home / "small" / "differences.png").exists(), "nothing can be compared"


def test_what_is_trained_again_is_measured_again(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Outcomes of other weights are removed before the training."""
    what = plan(toy_data, tmp_path)
    played_as(what, {"policy": 0.25}, seeds=("0",))
    job = what.cells[0]
    shutil.rmtree(job.folder / "export")
    write_json(job.folder / "eval-light-1.json", {})
    (job.folder / "videos").mkdir()

    def trained(arm: config.Experiment, out: Path) -> None:
        assert out == job.folder
        assert [path.name for path in out.iterdir()] == ["queue"], "nothing of what was measured is left"
        raise UserError("as far as this test goes")

    monkeypatch.setattr(work, "train", trained)
    with pytest.raises(UserError, match="as far as"):
        work.work(job)


# What may be said


def played_as(plan: Plan, rates: dict[str, float], seeds: tuple[str, ...] = ("0", "1")) -> None:
    """Leave results: every row succeeds on the first part of its handles."""
    for job in plan.cells:
        if job.about[0] in rates and job.about[2] in seeds:
            good = round(rates[job.about[0]] * job.handles)
            handles = [Played(task, i, i < good, 9, 3.0) for task in ("toy-red", "toy-blue") for i in range(job.handles)]
            write_json(job.folder / "eval.json", summary(handles))
            facts = {"measured": job.asked, "seconds": {"train": 60.0}, "peak_bytes": 1e9}
            write_json(job.folder / "cell.json", facts)
            write_json(job.folder / "export" / "policy.json", FACTS)


def test_rates_differences_and_missing_cells(toy_data: Path, tmp_path: Path) -> None:
    """policy 10 of 40, flare 30 of 40 in all three seeds: + .5, sure; the third row was not run, and every table says so."""
    what = plan(toy_data, tmp_path, replace(SMALL, handles=40, settings={"": {"data.demos": 3}}, seeds=(0, 1, 2)))
    played_as(what, {"policy": 0.25, "flare": 0.75}, seeds=("0", "1", "2"))
    found = find(what, {}, {})
    policy, flare, third = found.lines
    assert policy.rate is not None
    assert (policy.rate.successes, policy.rate.n, policy.by_seed) == (60, 240, (20, 20, 20))
    assert policy.gap is None
    assert flare.gap is not None
    assert flare.gap.mean == pytest.approx(0.5)
    assert (flare.gap.seeds, flare.gap.n, flare.gap.improves) == (3, 240, 1.0)
    assert flare.gap.low > 0
    assert (third.rate, third.gap, third.missing) == (None, None, 3)
    assert sentence(flare, "policy").startswith("flare is better than policy at n = 3 training seeds x 80 handles: +0.50 [")
    assert "fewer than three seeds" not in sentence(flare, "policy")
    assert sentence(third, "policy") == "flare, tap .25: nothing to compare yet."
    for table in report.tables(found):
        assert any(row[0] == "flare, tap .25" for row in table.rows), table.name
    assert [row[-1] for row in report.success(found).rows] == ["", "", "3 of 3 cells missing"]
    assert report.headline(found) == "6 of 9 cells are done. Better than policy: flare; 0 not distinguishable."


def test_seeds_with_common_noise_are_counted(toy_data: Path, tmp_path: Path) -> None:
    """Cells of seeds above 0 that were trained by wmzoo 0.1, also if a later one has measured them; without any nothing is said."""
    what = plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 3}}, seeds=(0, 1, 2)))
    played_as(what, {"policy": 0.25, "flare": 0.75}, seeds=("0", "1", "2"))
    told = {"policy": {"versions": {"wmzoo": "0.1.0"}}, "flare": {"versions": {"wmzoo": "0.2.0"}}}
    for job in what.cells:
        path = job.folder / "cell.json"
        if path.exists():
            write_json(path, read_json(path, "") | told[job.about[0]])
    found = find(what, {}, {})
    assert found.alike == (2, 4)
    assert "2 of 4 cells of seeds above 0 were trained with the noise of seed 0" in report.success(found).note
    (flare,) = (job for job in what.cells if job.about[0] == "flare" and job.about[2] == "2")
    write_json(flare.folder / "cell.json", read_json(flare.folder / "cell.json", "") | {"trained_by": "0.1.0"})
    assert find(what, {}, {}).alike == (3, 4)
    new = plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 3}}, seeds=(0,)))
    assert report.of_seeds(find(new, {}, {})) == ""


def test_a_page_says_which_code_trained_its_cells(toy_data: Path, tmp_path: Path) -> None:
    """And what was trained before that was kept, or is measured again by other code, is not taken for this one's."""
    what = plan(toy_data, tmp_path)
    played_as(what, {"policy": 0.25, "flare": 0.75})
    codes = {"policy": {"trained_by": "0.2.0", "code": "a"}, "flare": {"versions": {"wmzoo": "0.1.0"}}}
    for job in what.cells:
        if job.about[0] in codes:
            write_json(job.folder / "cell.json", read_json(job.folder / "cell.json", "") | codes[job.about[0]])
    told = report.provenance(what)["wmzoo that trained the runs"]
    assert told == "0.1.0: 4 cells (4 not known); 0.2.0: 4 cells (1 state of its code)"
    assert report.in_words(["a", "b", "a", ""]) == "4 cells (2 states of its code, 1 not known)"


def test_a_cell_that_ends_while_results_are_read_waits_for_the_next_report(
    toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker may finish at any moment; what was not there at the start is missing, not half there."""
    what = plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 3}}))
    played_as(what, {"policy": 0.25})

    def meanwhile(job: Job) -> dict[str, Any]:
        played_as(what, {"flare": 0.75})
        return played(job)

    with monkeypatch.context() as patch:
        patch.setattr("wmzoo.findings.played", meanwhile)
        assert [line.missing for line in find(what, {}, {}).lines] == [0, 2, 2]
    assert [line.missing for line in find(what, {}, {}).lines] == [0, 0, 2]


def test_what_a_worker_does_is_read_off_its_log(tmp_path: Path) -> None:
    """The last state of the last progress bar; before there is one, it starts."""
    assert doing(tmp_path) == "starting"
    (tmp_path / "log.txt").write_text("loading\n")
    assert doing(tmp_path) == "starting"
    bar = "training:  25%|##5       | 125/500 [00:41<02:04,  3.0step/s, total=.1]\r"
    (tmp_path / "log.txt").write_text("x" * 5000 + bar + bar.replace("125", "130"))
    assert doing(tmp_path) == "training 130 of 500"
    with (tmp_path / "log.txt").open("a") as log:
        log.write("\nplaying: 100%|█| 30/30 [00:47<00:00,  1.57s/ep]")
    assert doing(tmp_path) == "playing 30 of 30"


def test_a_cell_that_was_played_again_on_fewer_start_states_is_not_done(toy_data: Path, tmp_path: Path) -> None:
    """`wmzoo eval RUN --handles 1` in between: no row of a table rests on one start state without a word."""
    what = plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 3}}))
    played_as(what, {"policy": 0.5})
    job = what.cells[0]
    assert job.done
    write_json(job.folder / "eval.json", summary([Played(task, 0, True, 9, 3.0) for task in ("toy-red", "toy-blue")]))
    assert not job.done
    assert find(what, {}, {}).lines[0].missing == 1


def test_what_latent_actions_know_is_a_table(toy_data: Path, tmp_path: Path) -> None:
    """One line for a seed, with its interval and n; a seed that is missing, and an arm without latent actions, are said to be."""
    what = plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 3}}, measures=("play", "probe"), seeds=(0, 1)))
    played_as(what, {"policy": 0.5, "flare": 0.5}, seeds=("0",))
    line = {"value": 0.5, "interval": [0.25, 0.75]}
    both = {"ridge": {"within": {"mean": line, "pooled": {"value": 0.9, "interval": None}}}}
    result = {"probes": {"latent": both, "random encoder": both}, "codes": {"in_use": 0.25, "codes": 64}, "attention": None,
              "reconstruction": {"moving": line}, "halfway": {}, "validation": {"n": 9, "episodes": 3},
              "data": {"toy-red": "0"}, "trained_on": {"toy-red": "0"}}  # fmt: skip
    write_json(what.cells[1].folder / "probe.json", result)
    rows = report.latents(find(what, {}, {})).rows
    assert rows[0][:3] == ("policy", "-", "1 of 2 cells missing")
    assert rows[1] == ("flare", "-", "0", "0.500 [0.250, 0.750]", "0.900", "0.500 [0.250, 0.750]", "25% of 64", "0.500 [0.250, 0.750]",
                       "n/a", "n/a", "n/a", "9 windows of 3 episodes")  # fmt: skip
    assert rows[2][:3] == ("flare", "-", "1 of 2 cells missing")
    assert "latents" in [table.name for table in report.tables(find(what, {}, {}))]
    for otherwise in ({"asked": 100}, {"data": {"toy-red": "1"}}):  # `wmzoo probe RUN --windows 100`, or --data of another folder
        write_json(what.cells[1].folder / "probe.json", result | otherwise)
        assert not what.cells[1].done
    write_json(what.cells[1].folder / "probe.json", {"other": 1})
    with pytest.raises(UserError, match=r"probe\.json is not that of a probed run; delete it"):
        assert what.cells[1].done


def test_what_autoencoders_decode_is_a_table(toy_data: Path, tmp_path: Path) -> None:
    """A line for each tasks and horizon, all seeds; half of a latent at the last one; what has no latent has no skill with it."""
    rows = {"policy": Row("policy"), "flare": Row("flare")}
    found = replace(
        SMALL, rows=rows, settings={"": {"data.demos": 3}}, measures=("foresee", "transfer"), seeds=(0, 1), elsewhere=("other",)
    )
    what = plan(toy_data, tmp_path, found)
    about = {"kind": "autoencoder", "feature_space": "x", "data": {}, "n": 9, "episodes": 3, "asked": 256, "tasks": ["own"]}
    line, own = {"moving_ratio": 0.25}, ("own latent", "no latent", "another's latent")
    for job in what.cells:
        ways = own if job.about[0] == "policy" else ("no latent",)
        told = about | {"ways": {way: {"4": line, "8": line} for way in ways}}
        arrays: dict[str, Any] = {
            f"{way}/{ahead}/{name}": np.full(8, value) for way in ways for ahead in (4, 8) for name, value in (("l1", 0.5), ("copied", 2.0))
        }
        told |= {"order": {"noisy": {"nearest": 0.5}, "noise": {"nearest": 0.125}}} if len(ways) > 1 else {}
        for name, tasks in (("world", ["own"]), ("world-other", ["other"])):
            write_json(job.folder / f"{name}.json", told | {"tasks": tasks})
            np.savez(job.folder / f"{name}.npz", **arrays, task=np.zeros(8), episode=np.arange(8) // 2)
        write_json(job.folder / "export" / "policy.json", FACTS)
        write_json(job.folder / "cell.json", {"measured": job.asked, "seconds": {"train": 1.0}, "peak_bytes": 1})
    table = report.residuals(find(what, {}, {}))
    skill, n = "+0.75 [+0.75, +0.75]", "2 seeds x 9 windows of 3 episodes"
    assert table.rows[0] == ("policy", "-", "0, 1", "own", "4", "0.250, 0.250", skill, skill, skill, "", "", n)
    assert table.rows[1][-3:] == ("0.50, 0.50", "0.12, 0.12", n)
    assert [row[3] for row in table.rows] == ["own", "own", "other", "other"] * 2
    assert table.rows[-1][5:] == ("0.250, 0.250", "", skill, "", "", "", n)
    assert all(len(row) == len(table.head) for row in table.rows)
    assert "residuals" in [shown.name for shown in report.tables(find(what, {}, {}))]
    (what.cells[0].folder / "cell.json").unlink()
    assert [row[:3] for row in report.residuals(find(what, {}, {})).rows][-1] == ("policy", "-", "1 of 2 cells missing")


def test_world_models_that_plan_are_counted_like_policies(toy_data: Path, tmp_path: Path) -> None:
    """On the tasks that the study names, as studies plan and from as many start states; what was planned otherwise by hand is not."""
    rows = {name: Row(name) for name in ("dino_wm_one_shot", "dino_wm_untold")}
    asked = replace(SMALL, rows=rows, baseline="dino_wm_untold", handles=2, measures=("plan",), seeds=(0,), elsewhere=("toy-blue",))
    what = plan(toy_data, tmp_path, replace(asked, settings={"": {"data.tasks": ("toy-red",), "data.demos": 3}}))
    job, outcomes = what.cells[0], []
    for job in what.cells:
        good = job.about[0] == "dino_wm_one_shot"
        outcomes = [Played("toy-blue", i, good and i < 2, 9, 3.0) for i in range(3)]
        write_json(job.folder / "plan.json", summary(outcomes) | {"expert": 3} | settings())
        facts = {"measured": ["plan 2 toy-blue"], "files": ["plan.json"], "seconds": {"train": 60.0}, "peak_bytes": 1e9}
        write_json(job.folder / "cell.json", facts)
        assert job.done
    found = find(what, {}, {})
    assert [(line.label, line.by_seed, line.rate and line.rate.n) for line in found.lines] == [
        ("dino_wm_one_shot", (2,), 2), ("dino_wm_untold", (0,), 2),
    ]  # fmt: skip
    assert list(found.lines[0].tasks) == ["toy-blue"]
    assert found.lines[0].gap is not None
    assert found.lines[0].gap.mean == 1
    assert [table.name for table in report.tables(found)][:2] == ["success", "differences"]
    assert [row[4] for row in report.cells(found).rows] == ["2/2", "0/2"]
    for otherwise in ({"samples": 8}, {"goal": "last"}, {"planner": "mppi"}):
        write_json(job.folder / "plan.json", summary(outcomes) | {"expert": 3} | settings() | otherwise)
        assert not job.done
    write_json(job.folder / "plan.json", summary(outcomes[:1]) | {"expert": 1} | settings())
    assert not job.done


def test_shifts_count_the_start_states_of_the_study(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four handles of each task unchanged, one of each under a change, although more were played by hand."""
    what = plan(toy_data, tmp_path, replace(SMALL, rows={"policy": Row("policy")}, handles=4, measures=("play", "shift"), seeds=(0,)))
    job = what.cells[0]
    played_as(what, {"policy": 0.5})
    more = [Played(task, i, i == 0, 9, 3.0) for task in ("toy-red", "toy-blue") for i in range(3)]
    monkeypatch.setattr(report, "every_shift", lambda _: ("light-1", "light-2"))
    write_json(job.folder / "eval-light-1.json", summary(more))
    (row, *_) = report.shifts(find(what, {}, {})).rows
    assert (row[2][:3], row[3][:3], row[4]) == ("2/2", "2/2", "not run")
    assert job.done
    write_json(job.folder / "eval-light-1.json", summary(more[:1]))  # `wmzoo eval RUN --shift light-1 --tasks toy-red --handles 1`
    assert not job.done


def test_what_is_gained_in_dreams_is_drawn_between_its_marks(toy_data: Path, tmp_path: Path) -> None:
    """Rows that dream have a curve, the mean of their seeds; where none does there is no picture."""
    what = plan(toy_data, tmp_path, replace(SMALL, handles=40, settings={"": {"data.demos": 3}}, seeds=(0, 1)))
    played_as(what, {"policy": 0.25, "flare": 0.75})
    assert report.dreamt(find(what, {}, {})) is None
    told = "step,validation/bc/return,validation/bc/return_before,validation/bc/return_shown\n"
    for job in what.cells:
        if job.about[0] == "flare":
            (job.folder / "metrics.csv").write_text(f"{told}4,-3,-3,-2\n8,{-2 - int(job.about[2])},-3,-2\n")
    found = find(what, {}, {})
    ((line, term, steps, gained),) = report.over_seeds(found, ("bc/return",))
    assert (line.label, term, steps.tolist(), gained.tolist()) == ("flare", "bc/return", [4, 8], [[-3, -2], [-3, -3]])
    assert report.dreamt(found) is not None


def test_losses_over_other_clocks_say_so(toy_data: Path, tmp_path: Path) -> None:
    """The policy's clocks are groot's, uwm's uniform: their losses have other levels, so the legend tells them apart."""
    rows = {name: Row(name) for name in ("policy", "flare", "uwm")}
    what = plan(toy_data, tmp_path, replace(SMALL, rows=rows, settings={"": {"data.demos": 3}}, seeds=(0,)))
    played_as(what, dict.fromkeys(("policy", "flare", "uwm"), 0.5))
    for job in what.cells:
        (job.folder / "metrics.csv").write_text("step,validation/flow/velocity\n4,2\n8,1\n")
    found = find(what, {}, {})
    kinds = [report.loss_kind(line, "flow/velocity") for line in found.lines]
    assert kinds == ["groot clocks", "groot clocks", "uniform clocks"]
    assert report.learning(found) is not None


@pytest.mark.slow
@pytest.mark.parametrize("few", [1, 2])
def test_few_seeds_are_no_verdict_on_a_method(toy_data: Path, tmp_path: Path, few: int) -> None:
    """Whatever their interval: no colour, no place in the headline, and a word that says so; with three there are."""
    what = plan(toy_data, tmp_path, replace(SMALL, handles=40, settings={"": {"data.demos": 3}}, seeds=(0, 1, 2)))
    played_as(what, {"policy": 0.25, "flare": 0.75}, seeds=("0", "1")[:few])
    found = find(what, {}, {})
    assert report.differences(found).rows[0][-1] == "better, these networks"
    assert report.headline(found).endswith("say nothing of the methods yet.")
    assert "fewer than three seeds" in sentence(found.lines[1], "policy")
    axes = Figure().add_subplot()
    report.forest(axes, found)
    assert [line.get_fillstyle() for line in axes.lines if line.get_marker() == "o"] == ["none"]
    assert {line.get_color() for line in axes.lines[1:]} == {"C7"}
    played_as(what, {"policy": 0.25, "flare": 0.75}, seeds=("0", "1", "2"))
    found = find(what, {}, {})
    assert report.differences(found).rows[0][-1] == "better"
    axes = Figure().add_subplot()
    report.forest(axes, found)
    assert {line.get_color() for line in axes.lines[1:]} == {"C2"}
    before = found.lines[1].gap
    played_as(what, {"flare, tap .25": 0.5}, seeds=("0", "1")[:few])
    found = find(what, {}, {})
    assert found.lines[2].gap is not None
    assert found.lines[2].gap.seeds == few
    assert found.lines[1].gap == before, "few seeds do not make the others stricter"
    assert "2 comparisons, 1 of them to come; 1 of fewer than 3 seeds among themselves" in report.differences(found).note


def test_what_is_shown_does_not_change_what_is_found(toy_data: Path, tmp_path: Path) -> None:
    """Holm corrects for rows that were run though they were not asked for, and for those still to come; a note names them."""
    three = replace(SMALL, handles=40, settings={"": {"data.demos": 3}}, seeds=(0, 1, 2))
    whole = plan(toy_data, tmp_path, three)
    played_as(whole, {"policy": 0.25, "flare": 0.375}, seeds=("0", "1", "2"))
    some = plan(toy_data, tmp_path, restricted(three, (), ("flare",)))
    alone = find(some, {}, {})
    assert (alone.comparisons, alone.awaited, alone.beside) == (1, 0, ())
    waiting = find(whole, {}, {})
    assert (waiting.comparisons, waiting.awaited) == (2, 1)
    assert "for 2 comparisons, 1 of them to come." in report.differences(waiting).note
    assert alone.lines[1].gap is not None
    assert waiting.lines[1].gap is not None
    assert waiting.lines[1].gap.p == pytest.approx(min(1.0, 2 * alone.lines[1].gap.p))
    played_as(whole, {"flare, tap .25": 0.5}, seeds=("0", "1", "2"))
    everything, chosen = find(whole, {}, {}), find(plan(toy_data, tmp_path, restricted(three, (), ("flare",))), {}, {})
    assert len(chosen.lines) == 2
    assert chosen.lines[1].gap == everything.lines[1].gap
    assert (chosen.comparisons, chosen.beside) == (2, ("flare, tap .25",))
    assert "for 2 comparisons; not shown but run, and so among them: flare, tap .25." in report.differences(chosen).note
    assert "not shown" not in report.differences(everything).note


def test_seeds_of_ones_own_are_named(toy_data: Path, tmp_path: Path) -> None:
    """Successes stand seed by seed: which seeds they are of is no secret."""
    for seeds, told in (((0, 1), False), ((4, 7), True)):
        what = plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 3}}, seeds=seeds))
        assert ("Training seeds 4, 7." in report.success(find(what, {}, {})).note) == told


@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_jobs_elsewhere_ask_for_the_gpus_they_are_given(engine: launch.Launcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray and SLURM are told how many each job keeps; SLURM nothing where none are asked for, since some clusters refuse that word."""
    fake = MagicMock()
    monkeypatch.setattr(launch, "_engine", lambda _: fake)
    for gpus in (0, 2):
        with launch.launcher(engine, 1, 1, "local", gpus) as submit:
            submit(["list"], tmp_path / "log").result()
    told, name = (fake.remote, "num_gpus") if engine == "ray" else (fake.AutoExecutor.return_value.update_parameters, "gpus_per_node")
    assert [call.kwargs.get(name) for call in told.call_args_list] == ([0, 2] if engine == "ray" else [None, 2])


def test_gpus_are_kept_by_a_launcher() -> None:
    with pytest.raises(UserError, match="--gpus 1: a number that --launcher ray or slurm keeps for each run"):
        cli.dispatch(["study", "quick", "--scale", "tiny", "--gpus", "1", "--plan"])


def test_what_a_run_starts_from_is_part_of_its_name(toy_data: Path, tmp_path: Path) -> None:
    """Weights of a local path: the same path with other weights is another cell; what else lies in that run is none of them."""
    start = tmp_path / "before"
    (start / "export").mkdir(parents=True)

    def named(weights: bytes) -> Path:
        (start / "export" / "weights.safetensors").write_bytes(weights)
        os.utime(start / "export" / "weights.safetensors", ns=(len(weights), len(weights)))
        return plan(toy_data, tmp_path, replace(SMALL, seeds=(0,)), {"start": str(start)}).cells[0].folder

    first, again, other = named(b"one"), named(b"one"), named(b"other")
    assert first == again != other
    (start / "metrics.csv").write_text("step\n")
    assert named(b"other") == other


def test_only_seeds_that_both_have_are_compared(toy_data: Path, tmp_path: Path) -> None:
    what = plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 3}}))
    played_as(what, {"policy": 0.25}, seeds=("1",))
    played_as(what, {"flare": 0.75})
    gap = find(what, {}, {}).lines[1].gap
    assert gap is not None
    assert gap.seeds == 1
    few = plan(toy_data, tmp_path, replace(SMALL, settings={"": {"data.demos": 3}}, seeds=(0,)))
    told = [row[2] for row in report.differences(find(few, {}, {})).rows]
    assert told == ["policy not run", "not run"], "what was run is not said not to be"
    assert "missing" in report.success(find(what, {}, {})).rows[0][-1]


@pytest.mark.slow
def test_every_verdict_agrees_with_its_interval(toy_data: Path, tmp_path: Path) -> None:
    """For many results: the word of the sentence is what the printed numbers allow, and Holm's p-value says the same."""
    what = plan(toy_data, tmp_path, replace(SMALL, handles=20, settings={"": {"data.demos": 3}}, seeds=(0, 1, 2)))
    said = set()
    for seed in range(12):
        rng = np.random.default_rng(seed)
        rates = dict(zip(what.study.rows, rng.choice([0.1, 0.3, 0.5, 0.8], size=3), strict=True))
        for job in what.cells:
            drawn = rng.random((2, job.handles)) < rates[job.about[0]]
            handles = [Played(t, i, bool(drawn[k, i]), 9, 3.0) for k, t in enumerate(("toy-red", "toy-blue")) for i in range(job.handles)]
            write_json(job.folder / "eval.json", summary(handles))
            write_json(job.folder / "cell.json", {"measured": job.asked, "seconds": {"train": 1.0}, "peak_bytes": 1})
        for line in find(what, {}, {}).lines[1:]:
            text = sentence(line, "policy")
            low, high = map(float, re.findall(r"\[([-+.\d]+), ([-+.\d]+)\]", text)[0])
            word = next(w for w in ("not distinguishable from", "better than", "worse than") if f" is {w} policy" in text)
            allowed = {"better than": low >= 0, "worse than": high <= 0, "not distinguishable from": low <= 0 <= high}
            assert allowed[word], text
            assert line.gap is not None
            assert (line.gap.p < 0.05) == (word != "not distinguishable from")
            said.add(word)
    assert len(said) == 3, "all three words were tried"
    assert [verdict(*ends) for ends in ((0.01, 0.2), (-0.2, -0.01), (-0.1, 0.1), (0.0, 0.1))] == [
        "better", "worse", "not distinguishable", "not distinguishable"
    ]  # fmt: skip


def test_tables_in_three_forms(toy_data: Path, tmp_path: Path) -> None:
    table = Table("t", ("arm", "50% | x"), (("flare_off", "a, b"),), "Note.")
    assert table.markdown == "| arm | 50% \\| x |\n| --- | --- |\n| flare_off | a, b |\n\nNote.\n"
    assert table.csv == 'arm,50% | x\nflare_off,"a, b"\n'
    assert r"flare\_off & a, b \\" in table.latex
    assert r"50\% | x" in table.latex


def test_a_report_of_nothing_is_a_report(toy_data: Path, tmp_path: Path) -> None:
    """Before the first cell: the page is there and says that nothing is."""
    page = report.write(plan(toy_data, tmp_path), tmp_path, {}, {}).read_text()
    assert "0 of 12 cells are done; nothing can be compared yet." in page
    assert page.count("not run") >= 12


def test_what_failed_stands_in_the_page(toy_data: Path, tmp_path: Path) -> None:
    what = plan(toy_data, tmp_path)
    page = report.write(what, tmp_path, {}, {what.cells[0].folder: "exit code 1: <out of memory>"}).read_text()
    assert "exit code 1: &lt;out of memory&gt;" in page, "and what is not ours is escaped"


def test_watcher_without_a_terminal_prints_a_line_for_each_end(toy_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    what = plan(toy_data, tmp_path, replace(SMALL, rows={"policy": Row("policy")}, seeds=(0,)))
    one, two = (job.folder for job in what.cells)
    watcher = Watcher(what)
    assert not watcher.told({one: "waiting", two: "waiting"}, {})
    assert watcher.told({one: "done", two: "running"}, {})
    assert watcher.told({one: "done", two: "failed"}, {two: "out of memory"})
    assert not watcher.told({one: "done", two: "failed"}, {two: "out of memory"})
    said = capsys.readouterr().err
    assert f"1/2 done: policy, few, seed 0: {one.name}" in said
    assert "2/2 failed: policy, many, seed 0: out of memory" in said


# The whole, for real

WORDS = ["study", "quick", "--scale", "tiny", "--change", *(f"{key}={value}" for key, value in CHANGES.items())]


def start(folder: Path, *more: str) -> "subprocess.Popen[bytes]":
    with (folder / "said.txt").open("ab") as said:
        return subprocess.Popen([sys.executable, "-m", "wmzoo", *WORDS, *more], cwd=folder, stdout=said, stderr=said)


def home(toy_data: Path, tmp_path: Path, name: str) -> Path:
    folder = tmp_path / name
    shutil.copytree(toy_data, folder / "data")
    return folder


def results(folder: Path) -> dict[str, Any]:
    """Weights of every run, and every outcome."""
    found: dict[str, Any] = {str(p.relative_to(folder)): p.read_bytes() for p in folder.glob("runs/**/weights.safetensors")}
    for path in folder.glob("runs/*/eval.json"):
        found[str(path.relative_to(folder))] = [(h["task"], h["seed"], h["success"], h["steps"]) for h in read_json(path, "")["handles"]]
    return found


def alive_in(folder: Path) -> list[int]:
    """Processes whose working directory this is."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if Path(os.readlink(entry / "cwd")) == folder and (entry / "stat").read_text().rpartition(")")[2].split()[0] != "Z":
                found.append(int(entry.name))
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def whole(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """policy and flare, two at once, undisturbed."""
    folder = home(toy_data, tmp_path_factory.mktemp("study"), "whole")
    assert start(folder, "--rows", "flare", "--processes", "2").wait(300) == 0, (folder / "said.txt").read_text()
    return folder


@pytest.mark.slow
def test_killed_again_and_again_it_ends_as_if_it_had_not_been(toy_data: Path, tmp_path: Path, whole: Path) -> None:
    """SIGKILL at random moments, one process instead of two: no worker outlives it, the same weights and outcomes, nothing run twice."""
    folder, rng = home(toy_data, tmp_path, "killed"), random.Random(int(time.time()))
    stopped = 0
    for wait in (rng.uniform(4, 8), rng.uniform(4, 20), rng.uniform(4, 20)):
        running = start(folder, "--rows", "flare", "--processes", "1")
        try:
            running.wait(wait)
        except subprocess.TimeoutExpired:
            running.send_signal(signal.SIGKILL)
            running.wait()
            stopped += 1
        end = time.monotonic() + 10
        while (left := alive_in(folder)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left, f"killed after {wait:.1f} s, {len(left)} workers live on"
    assert stopped, "it ended before it could be killed"
    assert start(folder, "--rows", "flare", "--processes", "1").wait(300) == 0, (folder / "said.txt").read_text()
    assert results(folder) == results(whole)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/weights.safetensors")}
    assert start(folder, "--rows", "flare").wait(120) == 0
    assert {path: path.stat().st_mtime_ns for path in folder.glob("runs/**/weights.safetensors")} == before


def test_transfer_names_its_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A study that asks for it without tasks, or has tasks that nobody is asked on, is one line."""
    told = study("residuals", "tiny")
    assert told.elsewhere == ("toy-blue",)
    assert study("planning", "tiny").elsewhere == ("toy",)
    for wrong in (replace(told, elsewhere=()), replace(told, measures=("foresee",))):
        monkeypatch.setattr("wmzoo.experiments.residuals.study", lambda scale, wrong=wrong: wrong)
        with pytest.raises(UserError, match="names the tasks `elsewhere`"):
            study("residuals", "tiny")


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["ray", "slurm"])
def test_an_engine_changes_nothing(toy_data: Path, tmp_path: Path, whole: Path, engine: str) -> None:
    """A Ray cluster of two workers, and submitit's local executor: the same weights and outcomes as two processes here."""
    pytest.importorskip({"ray": "ray", "slurm": "submitit"}[engine])
    folder = home(toy_data, tmp_path, engine)
    rows = ("--rows", "flare") if engine == "ray" else ("--rows", "policy")
    assert start(folder, *rows, "--processes", "2", "--launcher", engine, "--address", "local").wait(400) == 0, (
        folder / "said.txt"
    ).read_text()
    here, there = results(folder), results(whole)
    assert here
    assert here == {key: there[key] for key in here}
    assert engine == "slurm" or here.keys() == there.keys()


SPY = """<script>addEventListener('load', async () => {
  await Promise.all([...document.querySelectorAll('video')].map(v => v.readyState >= 2 || new Promise(done => {
    v.onloadeddata = done; v.onerror = done; v.preload = 'auto'; v.load(); })));
  document.body.setAttribute('data-seen', JSON.stringify({
    images: [...document.images].map(i => i.naturalWidth), videos: [...document.querySelectorAll('video')].map(v => v.videoWidth),
    rows: [...document.querySelectorAll('table[data-name]')].map(t => [t.dataset.name, t.rows.length]),
    wide: document.documentElement.scrollWidth, requests: performance.getEntriesByType('resource').map(r => r.name)}));
});</script></body>"""


@pytest.mark.slow
def test_the_page_in_a_browser(whole: Path, tmp_path: Path) -> None:
    """Every picture and film is drawn, every table has its rows, no request leaves the page, and a telephone need not scroll it."""
    browser = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("no Chromium here; type: apt-get install chromium")
    page = (whole / "runs" / "studies" / "quick" / "report.html").read_text()
    assert not re.findall(r"""(?:src|href|srcset)=["'](?!data:|#)""", page)
    spied = page.replace("default-src 'none'", "default-src 'none'; script-src 'unsafe-inline'").replace("</body>", SPY)
    (tmp_path / "page.html").write_text(spied)
    asked = [browser, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path / 'profile'}", "--window-size=500,900"]
    asked += ["--virtual-time-budget=20000", "--dump-dom", (tmp_path / "page.html").as_uri()]
    said = subprocess.run(asked, capture_output=True, text=True, timeout=120, check=True).stdout
    found = re.search(r'data-seen="([^"]*)"', said)
    assert found, "the page did not load"
    seen = json.loads(found.group(1).replace("&quot;", '"'))
    assert len(seen["images"]) >= 3
    assert all(width > 0 for width in seen["images"])
    assert len(seen["videos"]) == 2 * 2, "two tasks, two arms"
    assert all(width > 0 for width in seen["videos"])
    assert dict(seen["rows"]) == {"success": 3, "differences": 2, "cost": 3, "cells": 3}
    assert not [name for name in seen["requests"] if not name.startswith("data:")]
    assert seen["wide"] <= 500


def test_a_plan_only(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """--plan shows and runs nothing; a change that is none, or a wrong field, is one line."""
    from wmzoo.cli import dispatch

    monkeypatch.chdir(home(toy_data, tmp_path, "here"))
    dispatch([*WORDS, "--rows", "flare", "--plan"])
    assert "cells     2, of which 0 are there already" in capsys.readouterr().out
    assert not list(Path("runs").glob("*/metrics.csv"))
    with pytest.raises(UserError, match="say field=value"):
        dispatch(["study", "quick", "--scale", "tiny", "--change", "optim.steps"])
    with pytest.raises(UserError, match=r"--change: .*lists are written \[a, b\]"):
        dispatch(["study", "quick", "--scale", "tiny", "--change", "optim.steps=[1"])
    with pytest.raises(UserError, match="--seeds must be from 0 to 2147483647, not -1"):
        dispatch(["study", "quick", "--scale", "tiny", "--seeds", "-1"])
    with pytest.raises(UserError, match="unknown field of optim 'step'"):
        dispatch(["study", "quick", "--scale", "tiny", "--change", "optim.step=3"])


def test_power_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    from wmzoo.cli import dispatch

    dispatch(["power", "--seeds", "3", "--handles", "60"])
    assert re.match(r"3 training seeds of each arm on 60 handles show a difference of 0\.\d\d or more", capsys.readouterr().out)
    dispatch(["power", "--difference", "0.1"])
    assert re.match(r"a difference of 0.10 takes \d+ training seeds", capsys.readouterr().out)
    dispatch(["power", "--comparisons", "16"])
    assert capsys.readouterr().out.endswith("or more, one of 16 that are compared\n")
    dispatch(["power", "--seeds", "2"])
    assert capsys.readouterr().out.endswith("; a verdict takes 3 seeds\n")
    for wrong, rule in {"--rate 60": "--rate lies between 0 and 1", "--same 0.1": "--alike lies from -1 to --same"}.items():
        with pytest.raises(UserError, match=rule):
            dispatch(["power", *wrong.split()])


def test_a_configuration_survives_its_file(toy_data: Path, tmp_path: Path) -> None:
    """A worker reads what the study wrote: the same configuration, to the letter."""
    for job in plan(toy_data, tmp_path).jobs:
        launch.prepare(job)
        assert config.dump(config.load(job.folder / "config.yaml")) == config.dump(job.arm)
