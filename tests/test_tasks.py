"""Tasks: seeds that are seeds in every process, pictures that stand upright, states without secrets, experts that can."""

from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context

import numpy as np
import pytest

from wmzoo import tasks
from wmzoo.collect import FIRST_SEED
from wmzoo.errors import UserError
from wmzoo.interfaces import Task
from wmzoo.tasks.play import STRETCH
from wmzoo.tasks.toy import Reach

SIZE = 48
TOY, MW3, MW10 = (tasks.resolve([name]) for name in ("toy", "mw3", "mw10"))
TOY_AND_MW3 = [*TOY, *(pytest.param(name, marks=pytest.mark.slow) for name in MW3)]
TOY_AND_MW10 = [*TOY, *(pytest.param(name, marks=pytest.mark.slow) for name in MW10)]


@contextmanager
def simulator(name: str, size: int = SIZE) -> Iterator[Task]:
    """A task that is closed at the end."""
    task = tasks.make(name, size)
    try:
        yield task
    finally:
        task.close()


def beginning(task: Task, seed: int) -> list[np.ndarray]:
    """The start state of a seed, what it looks like, and where ten steps of the expert lead."""
    task.reset(seed)
    seen = [*task.look()]
    for _ in range(10):
        task.step(task.expert())
        seen.append(task.look().state)
    return [*seen, task.look().frame]


def beginnings(name: str, seeds: list[int]) -> list[list[np.ndarray]]:
    """The beginnings of these seeds, one after the other in one simulator."""
    with simulator(name) as task:
        return [beginning(task, seed) for seed in seeds]


@pytest.fixture(scope="module")
def elsewhere() -> Iterator[ProcessPoolExecutor]:
    """Another process, started from nothing."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        yield pool


def same(one: list[np.ndarray], other: list[np.ndarray]) -> bool:
    """Bit for bit."""
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("name", TOY_AND_MW3)
def test_a_seed_names_a_start_state(name: str, elsewhere: ProcessPoolExecutor) -> None:
    """Two seeds look different; a seed is the same again after others were played, and in another process."""
    first, second, third, again = beginnings(name, [0, 1, FIRST_SEED, 0])
    assert same(first, again)
    assert not np.array_equal(first[0], second[0])
    assert not np.array_equal(first[0], third[0])
    there = elsewhere.submit(beginnings, name, [1, 0]).result()
    assert same(second, there[0])
    assert same(first, there[1])


@pytest.mark.parametrize("name", TOY_AND_MW3)
def test_a_view_is_as_the_data_expects(name: str) -> None:
    """One camera of the size that was asked for, in bytes; a number for each name; frames are copies, not windows on a buffer."""
    with simulator(name, 32) as task:
        task.reset(3)
        before = task.look()
        kept = before.frame.copy()
        assert (before.frame.dtype, before.frame.shape) == (np.uint8, (1, 32, 32, 3))
        assert (before.state.dtype, before.state.shape) == (np.float32, (len(task.state_names),))
        assert task.expert().shape == (len(task.action_names),)
        assert np.abs(task.expert()).max() <= 1
        for _ in range(5):
            task.step(task.expert())
        assert not np.array_equal(task.look().frame, kept)
        np.testing.assert_array_equal(before.frame, kept)


def test_the_toy_shows_its_discs_where_they_are() -> None:
    """The pixel at (x, y) of each disc has its colour, so the picture is neither mirrored nor turned."""
    with simulator("toy-red", 64) as task:
        task.reset(0)
        frame = task.look().frame[0]
        for name, (x, y) in task.discs.items():  # type: ignore[attr-defined]
            red, _, blue = frame[int(64 * y), int(64 * x)].astype(int)
            assert (red > blue) == (name == "toy-red")


@pytest.mark.slow
@pytest.mark.parametrize("name", MW10)
def test_meta_world_stands_upright(name: str) -> None:
    """The wall behind is grey and at the top, the table is brown and at the bottom, the arm is red and comes from the right."""
    with simulator(name, 96) as task:
        task.reset(0)
        frame = task.look().frame[0].astype(float)
    wall, table = frame[:15, :30].mean((0, 1)), frame[-20:, :40].mean((0, 1))
    assert np.ptp(wall) < 12, "grey"
    assert table[0] - table[2] > 20, "brown"
    assert wall.mean() > table.mean() + 20
    red = frame[..., 0] > 2 * frame[..., 1:].max(-1)
    assert red[:, 48:].sum() > 5 * red[:, :24].sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", MW10)
def test_the_state_of_meta_world_is_the_hand_alone(name: str) -> None:
    """Four numbers: where the hand is and how far the fingers are apart; two seeds that differ only in the objects have one state."""
    with simulator(name) as task:
        starts = []
        for seed in (0, 1):
            task.reset(seed)
            starts.append(task.look())
        assert np.abs(starts[0].state - starts[1].state).max() < 1e-3
        assert not np.array_equal(starts[0].frame, starts[1].frame)
        for _ in range(20):
            task.step(task.expert())
        inner = task._env  # type: ignore[attr-defined]
        apart = np.linalg.norm(inner.data.body("rightclaw").xpos - inner.data.body("leftclaw").xpos) / 0.1
        expected = [*inner.get_endeff_pos(), min(apart, 1.0)]
        assert len(task.look().state) == 4
        np.testing.assert_allclose(task.look().state, expected, atol=1e-5)


def test_the_toy_says_where_its_hand_is_seen() -> None:
    """The dark disc is where `hand_pixel` says, to a pixel; a task that knows nothing says None."""
    with simulator("toy-red", 64) as task:
        task.reset(0)
        frame, state = task.look()
        rows, columns = np.nonzero(frame[0].max(-1) < 30)
        place = task.hand_pixel(state)
        assert place is not None
        np.testing.assert_allclose(place, [(rows.mean() + 0.5) / 64, (columns.mean() + 0.5) / 64], atol=1 / 64)
        assert Task.hand_pixel(task, state) is None


@pytest.mark.slow
def test_meta_world_says_where_its_hand_is_seen() -> None:
    """Only the hand's own bodies turn green between two pictures: their centre is where `hand_pixel` says, wherever the hand goes."""
    with simulator("reach", 96) as task:
        inner = task._env  # type: ignore[attr-defined]
        ours = [inner.model.body(name).id for name in ("hand", "rightclaw", "rightpad", "leftclaw", "leftpad")]
        parts = np.isin(inner.model.geom_bodyid, ours)
        material, colours = inner.model.geom_matid.copy(), inner.model.geom_rgba.copy()
        assert np.isfinite(task.hand_pixel(np.zeros(4, np.float32)) or np.nan).all(), "before the first reset too"
        task.reset(0)
        seen = []
        for action in ([0, 0, 1, 0], [1, 0, 0, 0], [0, 1, 0, 0], [-1, -1, -1, 0]):
            for _ in range(15):
                task.step(np.array(action, np.float32))
            frame, state = task.look()
            inner.model.geom_matid[parts], inner.model.geom_rgba[parts] = -1, (0, 1, 0, 1)
            painted = task.look().frame[0].astype(int)
            inner.model.geom_matid[:], inner.model.geom_rgba[:] = material, colours
            green = np.argwhere(np.abs(painted - frame[0]).sum(-1) > 60)
            place = task.hand_pixel(state)
            assert len(green) > 10
            assert place is not None
            seen.append((np.array(place), (green.mean(axis=0) + 0.5) / 96))
        assert task.hand_pixel(np.array([3, -2, 3, 0], np.float32)) is None, "behind the camera"
    said, found = (np.stack(rows) for rows in zip(*seen, strict=True))
    assert np.abs(said - found).max() < 0.05
    moved = np.diff(found, axis=0)
    assert np.abs(moved).max() > 0.1
    assert np.abs(np.diff(said, axis=0) - moved).max() < 0.05


@pytest.mark.parametrize("name", TOY_AND_MW10)
def test_the_expert_solves_four_of_five(name: str) -> None:
    """Without noise, within the limit, and no start is solved before anything was done."""
    solved = 0
    with simulator(name) as task:
        for seed in range(900_000, 900_005):
            task.reset(seed)
            solved += any(task.step(task.expert()) for _ in range(task.limit))
            task.reset(seed)
            assert not task.step(np.zeros(len(task.action_names), np.float32))
    assert solved >= 4, f"{solved} of 5"


def test_every_task_says_what_it_asks_for() -> None:
    """Instructions are plain words, and no two tasks of MT10 share one."""
    words = tasks.instructions()
    assert set(MW10) | set(TOY) <= set(words)
    assert len({words[name] for name in MW10}) == 10
    assert all(word == word.lower() and " " in word for word in words.values())


def test_presets_are_expanded_in_order_and_without_repeats() -> None:
    """A mixture of task and preset names is a list of tasks in the order of their first mention."""
    assert tasks.resolve(["mw3"]) == ("drawer-open", "window-close", "button-press-topdown")
    assert tasks.resolve(["window-close", "toy", "mw3", "toy-red"]) == (
        "window-close", "toy-red", "toy-blue", "drawer-open", "button-press-topdown",
    )  # fmt: skip
    assert len(tasks.resolve(["mw10"])) == 10
    assert tasks.resolve([]) == ()


@pytest.mark.parametrize(("wrong", "right"), [("drawer-opne", "drawer-open"), ("mw33", "mw3"), ("toy-rad", "toy-red")])
def test_unknown_names_are_answered_with_the_nearest(wrong: str, right: str) -> None:
    """A misspelt task or preset is named together with the right one; so is one that `make` does not know."""
    with pytest.raises(UserError, match=f"unknown task '{wrong}'; did you mean .*'{right}'"):
        tasks.resolve(["toy", wrong])
    with pytest.raises(UserError, match=f"unknown task '{wrong}'"):
        tasks.make(wrong, 32)


def turns(task: Task, seed: int, steps: int = 100) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What play does from this start (steps, A), what the expert would do at each of its steps, and the state after each."""
    task.reset(seed)
    done, wanted, states = [], [], []
    for _ in range(steps):
        wanted.append(task.expert())
        done.append(task.demonstrate())
        task.step(done[-1])
        states.append(task.look().state)
    return np.stack(done), np.stack(wanted), np.stack(states)


@pytest.mark.parametrize("name", ["toy-red-play", pytest.param("drawer-open-play", marks=pytest.mark.slow)])
def test_play_takes_turns_with_the_expert(name: str) -> None:
    """Half of the time it is the expert; else one action is held for as long as a turn lasts; a seed is a seed."""
    least, fewer_than = STRETCH
    with simulator(name) as task:
        played = [turns(task, seed) for seed in range(6)]
        again = turns(task, 2)
        assert task.recorded == 100
    assert all(np.array_equal(a, b) for a, b in zip(again, played[2], strict=True))
    mine = np.concatenate([(done == wanted).all(1) for done, wanted, _ in played])
    assert 0.25 < mine.mean() < 0.75
    for done, wanted, _ in played:
        assert np.abs(done).max() <= 1
        strange = (done != wanted).any(1)
        held = (done[1:] == done[:-1]).all(1)
        lengths = np.diff(np.flatnonzero(np.concatenate(([True], ~(held & strange[1:] & strange[:-1]), [True]))))
        assert not strange.any() or least <= lengths.max() < fewer_than


def test_play_shows_one_picture_and_different_futures() -> None:
    """From a start that is known the expert does one thing; what play does first differs from seed to seed."""
    with simulator("toy-red-play") as task:
        firsts = [turns(task, seed, steps=1) for seed in range(40)]
    away = [np.abs(done - wanted).max() for done, wanted, _ in firsts]
    assert 8 <= sum(distance > 0.1 for distance in away) <= 32


def test_one_simulator_is_held_and_closed_when_another_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same one for the same task and size; of three that were asked for, two are closed, each once."""
    closed: list[Task] = []
    monkeypatch.setattr(Reach, "close", lambda task: closed.append(task))
    monkeypatch.setattr(tasks, "_held", {})
    red = tasks.held("toy-red", SIZE)
    assert tasks.held("toy-red", SIZE) is red
    assert closed == []
    blue = tasks.held("toy-blue", SIZE)
    assert closed == [red]
    assert tasks.held("toy-blue", 2 * SIZE) is not blue
    assert closed == [red, blue]
    with pytest.raises(UserError, match="toy-red"):
        tasks.held("toy-rad", SIZE)


@pytest.mark.slow
def test_a_held_simulator_plays_as_a_fresh_one() -> None:
    """Whatever was played in it before."""
    held = tasks.held(MW3[0], SIZE)
    beginning(held, 5)
    assert same(beginning(held, 3), beginnings(MW3[0], [3])[0])


def test_play_has_the_presets_of_what_it_plays_with() -> None:
    assert tasks.resolve(["mw3-play"]) == tuple(f"{name}-play" for name in MW3)
    assert tasks.resolve(["toy-play"]) == ("toy-red-play", "toy-blue-play")
    assert tasks.every_shift(["drawer-open-play"]) == ()
    with pytest.raises(UserError, match="unknown task 'toy-red-pley'; did you mean 'toy-red-play'"):
        tasks.make("toy-red-pley", SIZE)


SHIFTS = tasks.every_shift(["drawer-open"])


def first_look(shift: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    task = tasks.make("drawer-open", SIZE, shift)
    try:
        task.reset(seed)
        frame, state = task.look()
        return frame.astype(float), state
    finally:
        task.close()


@pytest.mark.slow
def test_a_shift_changes_one_thing_and_more_with_its_strength() -> None:
    """Pictures differ more and more; only a shifted start moves the hand, by 5 cm in the plane or more for each unit."""
    frame, state = first_look("")
    assert len(SHIFTS) == 15
    for axis in dict.fromkeys(shift.rpartition("-")[0] for shift in SHIFTS):
        seen = [first_look(f"{axis}-{strength}") for strength in (1, 2, 3)]
        changes = [np.abs(shifted - frame).mean() for shifted, _ in seen]
        assert 0.1 < changes[0] < changes[1] < changes[2], (axis, changes)
        moved = [np.linalg.norm(place[:3] - state[:3]) for _, place in seen]
        assert moved == pytest.approx([0.05, 0.10, 0.15], abs=0.02) if axis == "start" else moved == [0, 0, 0]


@pytest.mark.slow
def test_an_expert_solves_shifted_starts() -> None:
    """The task stays possible: at the greatest strength at least 4 of 5; and the object lies where it always does."""
    task = tasks.make("drawer-open", SIZE, "start-3")
    try:
        solved = 0
        for seed in range(5):
            task.reset(seed)
            solved += any(task.step(task.expert()) for _ in range(task.limit))
        assert solved >= 4
    finally:
        task.close()


def test_impossible_shifts_are_one_line() -> None:
    with pytest.raises(UserError, match="cannot be shifted"):
        tasks.make("toy-red", 32, "camera-1")
    for wrong in ("camra-1", "camera"):
        with pytest.raises(UserError, match=r"unknown shift of drawer-open \(such as camera-2\).*did you mean"):
            tasks.make("drawer-open", SIZE, wrong)
    with pytest.raises(UserError, match="strength 1, 2 or 3, not 4"):
        tasks.make("drawer-open", SIZE, "camera-4")
    assert tasks.every_shift(["toy-red", "drawer-open"]) == ()
