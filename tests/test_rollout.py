"""Handles, counts, and outcomes that depend on nothing but the handle."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from wmzoo import registry, rollout, run, tasks
from wmzoo.collect import FIRST_SEED
from wmzoo.config import dump, self_contained
from wmzoo.errors import UserError
from wmzoo.files import write_json
from wmzoo.interfaces import Task, View
from wmzoo.rollout import (
    TUNING,
    Handle,
    Played,
    difference,
    difference_table,
    evaluate,
    handles,
    play,
    summary,
    table,
    together,
    verdict,
)
from wmzoo.tasks.toy import Reach


def test_handle_lists_are_fixed_and_disjoint() -> None:
    """Evaluation, tuning and collecting never share a start state; twenty handles are the first twenty of fifty."""
    evaluation, tuning = handles(("a", "b"), 50), handles(("a", "b"), 50, tuning=True)
    assert not set(evaluation) & set(tuning)
    assert max(h.seed for h in evaluation) < TUNING <= min(h.seed for h in tuning) < FIRST_SEED
    assert set(handles(("a", "b"), 20)) < set(evaluation)


def test_a_chunk_is_executed_in_part() -> None:
    """Of four actions two are carried out, then the policy, which sees one frame, looks again; the expert solves the toy that way."""
    task, looks = tasks.make("toy-red", 32), []

    def act(views: list, noise: np.ndarray) -> np.ndarray:
        looks.append(len(views))
        return np.stack([task.expert()] * 4)

    outcome = play(act, task, Handle("toy-red", 1), (4, 3), execute=2, history=1)
    assert outcome.success
    assert looks == list(range(1, len(looks) + 1))
    assert len(looks) == -(-outcome.steps // 2)


class Counting(Task):
    """Nothing but a counter: a view's state is the control step at which it was looked at."""

    name = instruction = "counting"
    limit = 9

    def reset(self, seed: int) -> None:
        self.steps = self.looks = 0

    def step(self, action: np.ndarray) -> bool:
        self.steps += 1
        return False

    def look(self) -> View:
        self.looks += 1
        return View(np.zeros((1, 2, 2, 3), np.uint8), np.array([self.steps], np.float32))

    def expert(self) -> np.ndarray:
        return np.zeros(1)


@pytest.mark.parametrize(
    ("execute", "history", "looks", "seen"),
    [
        (4, 1, 3, [[0], [4], [8]]),
        (4, 2, 5, [[0], [3, 4], [7, 8]]),
        (4, 3, 7, [[0], [2, 3, 4], [6, 7, 8]]),
        (1, 2, 9, [[0], [0, 1], [1, 2]]),
        (2, 4, 9, [[0], [0, 1, 2], [1, 2, 3, 4]]),
    ],
)
def test_a_policy_with_a_past_sees_consecutive_steps(execute: int, history: int, looks: int, seen: list[list[int]]) -> None:
    """As in training: the chunk of step s is made from steps s - T_o + 1 ... s, however many actions are carried out at once;
    and nothing else is rendered."""
    task, shown = Counting(), []

    def act(views: list[View], noise: np.ndarray) -> np.ndarray:
        shown.append([int(view.state[0]) for view in views[-history:]])
        return np.zeros((4, 1))

    play(act, task, Handle("counting", 0), (4, 1), execute, history)
    assert shown[:3] == seen
    assert task.looks == looks


def test_the_limit_ends_an_episode() -> None:
    """A policy that stands still fails after exactly the task's limit."""
    task = tasks.make("toy-red", 32)
    outcome = play(lambda views, noise: np.zeros((4, 3)), task, Handle("toy-red", 0), (4, 3), execute=4, history=1)
    assert (outcome.success, outcome.steps) == (False, task.limit)


def test_noise_depends_on_the_handle_and_the_step_alone() -> None:
    """Playing other handles first changes nothing."""

    def noises(seeds: list[int]) -> list[np.ndarray]:
        task, seen = tasks.make("toy-red", 32), []
        for seed in seeds:
            seen.clear()
            play(lambda views, noise: seen.append(noise) or np.zeros((4, 3)), task, Handle("toy-red", seed), (4, 3), execute=4, history=1)
        return list(seen)

    alone, after = noises([7]), noises([1, 2, 7])
    assert all((a == b).all() for a, b in zip(alone, after, strict=True))
    assert not (alone[0] == alone[1]).all()


def test_a_policy_hears_the_words_that_it_was_trained_with(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the task says it otherwise by now; of a task it was not trained on it hears the task's own."""
    heard: list[str] = []

    def act(views: list[View], instruction: str, noise: np.ndarray) -> np.ndarray:
        heard.append(instruction)
        return np.zeros((4, 3))

    sizes, arm = SimpleNamespace(image=32, horizon=4, action=3, history=1), SimpleNamespace(play=SimpleNamespace(execute=4))
    policy = SimpleNamespace(act=act, sizes=sizes, arm=arm, instructions={"toy-red": "touch what is red"})
    monkeypatch.setattr(rollout, "_policy", lambda _: policy)
    for name in ("toy-red", "toy-blue"):
        rollout._play_one("run", Handle(name, 0), filmed=False)
    assert list(dict.fromkeys(heard)) == ["touch what is red", "reach the blue disc"]


def test_counts_by_hand() -> None:
    """3 of 4 and 0 of 4: rates .75 and 0, over all 3 of 8, each with its interval and every handle kept."""
    outcomes = [Played(task, i, task == "a" and i < 3, 10, 1.0) for task in ("a", "b") for i in range(4)]
    result = summary(outcomes)
    assert (result["tasks"]["a"]["successes"], result["tasks"]["a"]["n"], result["tasks"]["a"]["rate"]) == (3, 4, 0.75)
    assert (result["all"]["successes"], result["all"]["n"]) == (3, 8)
    low, high = result["all"]["interval"]
    assert low < 3 / 8 < high
    assert len(result["handles"]) == 8
    assert "3/4" in table(result)


def test_training_seeds_are_joined_over_the_same_handles(tmp_path: Path) -> None:
    """Two runs with 4 and 2 of 4: 6 of 8 together; other handles, or a folder that is no run, are named."""

    def write(name: str, good: int, first: int = 0) -> Path:
        result = summary([Played("a", first + i, i < good, 10, 1.0) for i in range(4)])
        (tmp_path / name).mkdir()
        (tmp_path / name / "eval.json").write_text(json.dumps(result))
        return tmp_path / name

    joined = together([write("x", 4), write("y", 2)])
    assert (joined["all"]["successes"], joined["all"]["n"], joined["all"]["rate"]) == (6, 8, 0.75)
    low, high = joined["all"]["interval"]
    assert low <= 0.5 < 0.75 < high <= 1
    with pytest.raises(UserError, match="not played from the same handles"):
        together([tmp_path / "x", write("z", 2, first=9)])
    with pytest.raises(UserError, match="is not an exported run"):
        together([tmp_path / "x", tmp_path])


@pytest.mark.slow
def test_one_process_or_two_make_no_difference(toy_data: Path, tmp_path: Path) -> None:
    """The same successes and the same number of steps for every handle; films are there; a folder that is no run is named."""
    arm = registry.arm("policy", "tiny")
    arm = replace(arm, data=replace(arm.data, root=str(toy_data)), optim=replace(arm.optim, steps=120, chapter=60))
    run.train(arm, tmp_path / "run")
    results = [evaluate(tmp_path / "run", ("toy-red", "toy-blue"), 6, processes, videos=processes == 1) for processes in (1, 2)]
    played = [[(h["task"], h["seed"], h["success"], h["steps"]) for h in result["handles"]] for result in results]
    assert played[0] == played[1]
    assert json.loads((tmp_path / "run" / "eval.json").read_text())["all"] == results[1]["all"]
    films = {path.stem for path in (tmp_path / "run" / "videos").glob("*.mp4")}
    assert {"toy-red-handle-0", "toy-blue-handle-0"} < films
    assert films & {"toy-red-success", "toy-red-failure"}
    with pytest.raises(UserError, match="is not an exported run"):
        evaluate(tmp_path, ("toy-red",), 1, 1)


def test_another_robot_is_one_line(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is played: what the task has, and what the policy was trained on."""
    arm = registry.arm("policy", "tiny")
    arm = replace(arm, data=replace(arm.data, root=str(toy_data), demos=4), optim=replace(arm.optim, steps=1, chapter=1))
    run.train(arm, tmp_path / "a")

    class Arm(Reach):
        state_names = ("hand x", "hand y", "hand z", "gripper")

    monkeypatch.setattr(tasks, "make", lambda name, size: Arm("toy-red", size))
    with pytest.raises(UserError, match=r"door-open has 4 numbers of state and 3 of action; .* toy-red, toy-blue, which have 2 numbers"):
        evaluate(tmp_path / "a", ("door-open",), 1, 1)


def test_paired_difference(tmp_path: Path) -> None:
    """Seed 0: of 8 handles a wins 2 that b loses; seed 1: equal.  Mean (2/8 + 0) / 2, in whatever order the handles were stored."""

    def write(name: str, wins: set[int]) -> Path:
        outcomes = [Played("t", seed, seed in wins, 3, 1.0) for seed in (range(8) if name[0] == "a" else reversed(range(8)))]
        write_json(tmp_path / name / "eval.json", summary(outcomes))
        return tmp_path / name

    mine = [write("a0", {0, 1, 2, 3}), write("a1", {5})]
    theirs = [write("b0", {0, 1}), write("b1", {5})]
    result = difference(mine, theirs)
    assert result["all"]["rate"] == pytest.approx(1 / 8)
    assert result["runs"] == {"a0 - b0": pytest.approx(2 / 8), "a1 - b1": 0.0}
    assert result["all"]["interval"] == [-1, 1], "two seeds that disagree tell nothing"
    low, high = difference(mine, mine)["all"]["interval"]
    assert -1 < low < 0 < high < 1, "16 pairs without a difference do not show that there is none"
    assert "not distinguishable" in difference_table(result)
    assert (verdict(0.1, 0.2), verdict(-0.2, -0.1), verdict(-0.1, 0.1)) == ("better", "worse", "not distinguishable")
    with pytest.raises(UserError, match="2 runs cannot be paired with 1"):
        difference(mine, theirs[:1])
    for runs, seeds in ((mine, (0, 1)), (theirs, (0, 1))):
        for folder, seed in zip(runs, seeds, strict=True):
            (folder / "config.yaml").write_text(dump(replace(self_contained(registry.arm("policy", "tiny")), seed=seed)))
    assert difference(mine, theirs[::-1]) == result, "by their seeds, not by their places: study folders are called after hashes"
    assert "these networks" in difference_table(result)
    with pytest.raises(UserError, match="named twice"):
        together([mine[0], mine[1], mine[0]])
    (mine[1] / "config.yaml").write_text((mine[0] / "config.yaml").read_text())
    with pytest.raises(UserError, match="have the same training seed, 0"):
        difference(mine, theirs)
    (mine[1] / "config.yaml").write_text(dump(replace(self_contained(registry.arm("policy", "tiny")), seed=1, name="other")))
    with pytest.raises(UserError, match="differ in more than the training seed"):
        together(mine)
