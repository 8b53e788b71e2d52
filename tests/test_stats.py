"""Intervals against numbers from textbooks, closed forms, and tables whose answer is known."""

import numpy as np
import pytest
from scipy.stats import norm

from wmzoo.errors import UserError
from wmzoo.stats import hierarchical, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(8, 10, 0.4902, 0.9433), (0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (1, 2, 0.0945, 0.9055), (81, 263, 0.2553, 0.3662)],
)
def test_wilson_against_published_values(successes: int, n: int, low: float, high: float) -> None:
    """8 of 10 is [0.490, 0.943]; 81 of 263 is Newcombe's example (1998, method 3)."""
    assert wilson(successes, n) == pytest.approx((low, high), abs=1e-4)


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_wilson_ends_where_the_score_test_does(level: float) -> None:
    """The definition: at both ends p of the interval, |rate - p| is z standard errors sqrt(p (1 - p) / n)."""
    z = norm.ppf(0.5 + level / 2)
    for end in wilson(13, 20, level):
        assert abs(13 / 20 - end) == pytest.approx(z * np.sqrt(end * (1 - end) / 20), rel=1e-9)


def test_wilson_is_symmetric_and_narrows() -> None:
    """Counting failures mirrors the interval; more trials at the same rate make it narrower."""
    low, high = wilson(3, 12)
    assert wilson(9, 12) == pytest.approx((1 - high, 1 - low))
    widths = [np.diff(wilson(n // 4, n))[0] for n in (8, 40, 200)]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.parametrize(("successes", "n"), [(0, 0), (3, 2), (-1, 5)])
def test_wilson_refuses_what_is_not_a_count(successes: int, n: int) -> None:
    """No trials, or more successes than trials, is an error that names both numbers."""
    with pytest.raises(UserError, match=f"{successes} successes of {n}"):
        wilson(successes, n)


def test_a_constant_table_has_no_spread() -> None:
    """Every handle succeeds half: mean and both ends are one half."""
    assert hierarchical(np.full((3, 2, 5), 0.5).tolist(), draws=100) == (0.5, 0.5, 0.5)


def test_seeds_that_agree_leave_the_spread_of_handles() -> None:
    """One training seed, one task, 100 handles of rate .5: the half width is 1.96 x .5 / sqrt(100) = .098."""
    mean, low, high = hierarchical([[[0.0, 1.0] * 50]], draws=4000)
    assert mean == 0.5
    assert (low, high) == pytest.approx((0.402, 0.598), abs=0.015)


def test_seeds_that_differ_widen_the_interval() -> None:
    """Half of 16 seeds always fail and half always succeed: what spreads is seeds alone, 1.96 x .5 / sqrt(16) = .245."""
    table = np.zeros((16, 3, 20))
    table[::2] = 1
    mean, low, high = hierarchical(table.tolist(), draws=4000)
    assert mean == 0.5
    assert (low, high) == pytest.approx((0.255, 0.745), abs=0.03)


def test_tasks_are_not_drawn_again() -> None:
    """One task always succeeds and one always fails: for these two tasks the rate is known exactly."""
    table = np.zeros((3, 2, 20))
    table[:, 0] = 1
    assert hierarchical(table.tolist(), draws=200) == (0.5, 0.5, 0.5)


def test_the_bootstrap_repeats_itself() -> None:
    """One seed gives one interval; another seed nearly the same; a lower level a narrower one."""
    table = np.random.default_rng(1).random((3, 2, 10))
    one, again, other = (hierarchical(table.tolist(), draws=1000, seed=seed) for seed in (0, 0, 1))
    assert one == again != other
    assert one == pytest.approx(other, abs=0.02)
    _, low, high = hierarchical(table.tolist(), level=0.5, draws=1000)
    assert one[1] < low < high < one[2]


@pytest.mark.parametrize("outcomes", [[], [[]], [[[]]], [1.0, 0.0], [[1.0], [0.0]], [[[1.0, 0.0]], [[1.0]]]])
def test_empty_and_ragged_tables_are_errors(outcomes: list) -> None:
    """Nothing, a missing level, or seeds with different numbers of handles: one line that says what is expected."""
    with pytest.raises(UserError, match="training seeds, tasks and handles"):
        hierarchical(outcomes)
