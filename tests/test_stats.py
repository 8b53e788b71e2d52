"""Intervals against numbers from textbooks, closed forms, and tables whose answer is known."""

from typing import Any, cast

import numpy as np
import pytest
from scipy.stats import norm, ttest_1samp

from wmzoo.errors import UserError
from wmzoo.stats import (
    Estimate,
    corrected,
    crossed,
    detectable,
    hierarchical,
    holm,
    interquartile_mean,
    over_windows,
    paired,
    pooled,
    probability_of_improvement,
    seeds_needed,
    together,
    wilson,
)


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


def drawn(rng: np.random.Generator, seeds: int, spread: float, difficulty: float, alike: float = 0.0) -> np.ndarray:
    """Successes of seeds on three tasks of 20 handles: probit of task + seed + handle, the handles the same for every seed.

    Args:
        alike: correlation of how difficult handle i is in one task and in another.
    """
    tasks = np.linspace(-0.5, 0.5, 3)[None, :, None]
    hard = np.sqrt(alike) * rng.normal(size=(1, 1, 20)) + np.sqrt(1 - alike) * rng.normal(size=(1, 3, 20))
    latent = 0.3 + tasks + rng.normal(0, spread, (seeds, 1, 1)) + difficulty * hard
    return (latent + rng.normal(size=(seeds, 3, 20)) > 0).astype(float)


@pytest.mark.parametrize("seeds", [3, 5, 10])
@pytest.mark.parametrize(("spread", "difficulty", "alike"), [(0.1, 1.0, 0.0), (0.1, 1.0, 0.8), (0.2, 1.0, 0.5), (0.3, 0.5, 0.0)])
def test_intervals_cover_what_they_promise(seeds: int, spread: float, difficulty: float, alike: float) -> None:
    """95% intervals of 4,000 simulated studies contain the true rate in 93 to 97% of them; seeds spread by 3 to 10 points.

    Also where a handle that is difficult in one task is so in another, since both draw their start state from the same seed.
    """
    rng = np.random.default_rng(seeds)
    truth = norm.cdf((0.3 + np.linspace(-0.5, 0.5, 3)) / np.sqrt(1 + spread**2 + difficulty**2)).mean()
    ends = np.array([crossed(drawn(rng, seeds, spread, difficulty, alike)).interval() for _ in range(4000)])
    covered = ((ends[:, 0] <= truth) & (truth <= ends[:, 1])).mean()
    assert 0.93 <= covered <= 0.97, covered


@pytest.mark.parametrize("seeds", [3, 5])
def test_paired_intervals_cover_what_they_promise(seeds: int) -> None:
    """Two arms that differ by chance alone on the same handles: 0 lies in 93 to 97% of the intervals of their difference."""
    rng, inside = np.random.default_rng(0), 0
    for _ in range(2000):
        hard = rng.normal(0, 1.0, (1, 3, 20))
        arms = [rng.normal(0, 0.2, (seeds, 1, 1)) + hard + rng.normal(size=(seeds, 3, 20)) > 0 for _ in range(2)]
        low, high = crossed(arms[0].astype(float) - arms[1]).interval()
        inside += low <= 0 <= high
    assert 0.93 <= inside / 2000 <= 0.97, inside / 2000


@pytest.mark.parametrize(("arms", "spread"), [(2, 0.12), (4, 0.12), (9, 0.05), (9, 0.12), (17, 0.08), (17, 0.12)])
def test_families_are_wrong_as_seldom_as_they_promise(arms: int, spread: float) -> None:
    """Of 400 studies of three seeds in which nothing differs, one in twenty at most finds any difference; alone each would too often.

    Seeds spread by 5 to 12 points, and by no more than 3 in a third of the arms.
    """
    rng, together_, alone = np.random.default_rng(arms), 0, 0
    steady = np.where(np.arange(arms + 1) % 3 == 2, min(spread, 0.03), spread)[:, None, None, None] / norm.pdf(0)
    for _ in range(400):
        hard = 0.8 * rng.normal(size=(1, 1, 3, 20)) + rng.normal(0, 0.4, (arms + 1, 1, 3, 20))
        played = hard + steady * rng.normal(size=(arms + 1, 3, 1, 1)) + rng.normal(size=(arms + 1, 3, 3, 20)) > 0
        gaps = [paired(ours.astype(float) - played[0]) for ours in played[1:]]
        together_ += min(holm([gap.p for gap in together(gaps, alike=True)])) < 0.05
        alone += min(holm([gap.p for gap in gaps])) < 0.05
    assert together_ / 400 <= 0.05
    assert arms < 9 or spread < 0.12 or alone / 400 > 0.07, "why there is `together`"


def test_together_by_hand() -> None:
    """Seeds' means spread by variances of 0 and 2: both count as 1 or more; that 1 has 2 x 8 / 5 degrees of freedom, the rest 2."""
    steady, loose = (crossed([[[a, a + 1, a - 1]] for a in means]) for means in ((0.0, 0.0, 0.0), (0.0, 1.0, np.sqrt(12) / 2)))
    assert steady.variance is not None
    assert loose.variance is not None
    common = (steady.variance.spread + loose.variance.spread) / 2
    first, second = together([steady, loose], alike=True)
    assert first.variance == steady.variance
    excess, n = 3.0 * 1.0, 9  # handles -1, 0, 1 of three seeds: MS of 3
    assert first.error == pytest.approx(np.sqrt((3 * common + excess) / n))
    assert first.df == pytest.approx((3 * common + excess) ** 2 / ((3 * common) ** 2 / 3.2 + excess**2 / 2))
    assert second.error == loose.error
    assert second.df == pytest.approx((6 * common + excess) ** 2 / ((3 * common) ** 2 / 3.2 + (3 * common) ** 2 / 2 + excess**2 / 2))
    assert together([steady], alike=True) == [steady]
    apart = Estimate(0.1, 0.2, 3.0)
    assert together([apart, loose], alike=True)[0] == apart
    by_chance = crossed([[[0.0, 1.0, 0.0, 1.0]], [[1.0, 0.0, 0.0, 1.0]], [[0.0, 1.0, 1.0, 0.0]]])
    assert (by_chance.df, together([by_chance, loose], alike=False)[0].df) == (6, 2), "three seeds tell no more than three"


def test_what_is_awaited_counts() -> None:
    """As a p-value of 1: what is told then stays, whatever comes."""
    assert holm([0.01, 0.04], awaited=2) == pytest.approx([0.04, 0.12])
    told = Estimate(0.2, 0.05, 100.0)
    assert corrected([told], awaited=3) == [told.interval(1 - 0.05 / 4)]
    assert corrected([told], awaited=1) == corrected([told, Estimate(0.0, 0.05, 100.0)])[:1]


@pytest.mark.parametrize(("seeds", "least"), [(1, 0.93), (2, 0.86), (3, 0.93), (5, 0.93)])
@pytest.mark.parametrize(("alike", "spread"), [(0.0, 2.0), (0.6, 1.0)])
def test_intervals_over_windows_cover_what_they_promise(seeds: int, least: float, alike: float, spread: float) -> None:
    """Errors of 3 tasks x 6 episodes x 4 windows; seeds spread as episodes or twice as much: 0 lies in 93 to 97% of 2,000 intervals.

    With two seeds in 88%.  One seed is no sample of seeds: there its own error is looked for.  Episodes of one start may be alike.
    """
    rng, inside = np.random.default_rng(seeds), 0
    start = np.arange(72) // 4 % 6
    for _ in range(2000):
        own, common = rng.normal(size=(1, 18)), np.tile(rng.normal(size=(1, 6)), 3)
        episodes = (np.sqrt(1 - alike) * own + np.sqrt(alike) * common).repeat(4, 1)
        values = rng.normal(0, spread * (seeds > 1), (seeds, 1)) + episodes + rng.normal(0, 0.5, (seeds, 72))
        low, high = over_windows(values, start).interval()
        inside += low <= 0 <= high
    assert least <= inside / 2000 <= 0.97, inside / 2000


def test_parts_over_windows_cover_what_they_promise() -> None:
    """An error of 0.6 of a copy's, whose size varies with the episode, in 30 episodes of 2 to 8 windows: in 92 to 97% of 2,000."""
    rng, inside = np.random.default_rng(0), 0
    episode = np.repeat(np.arange(30), np.arange(30) % 4 * 2 + 2)
    for _ in range(2000):
        size = (1 + rng.exponential(size=30))[episode] * rng.uniform(0.5, 1.5, len(episode))
        error = size * (0.6 + rng.normal(0, 0.1, 30)[episode] + rng.normal(0, 0.1, len(episode)))
        low, high = over_windows(error[None], episode, size[None]).interval()
        inside += low <= 0.6 <= high
    assert 0.92 <= inside / 2000 <= 0.97, inside / 2000


def test_parts_over_windows_by_hand() -> None:
    """Errors (1, 3) of (4, 4) copied: a half, plus or minus 12.706 x .25; ten copies of every window change nothing; one is not sure."""
    error, copied, both = np.array([[1.0, 3.0]]), np.array([[4.0, 4.0]]), np.arange(2)
    once = over_windows(error, both, copied)
    assert (once.mean, once.error, once.df) == (0.5, 0.25, 1)
    tenfold = over_windows(error.repeat(10, 1), both.repeat(10), copied.repeat(10, 1))
    assert tenfold[:3] == pytest.approx(once[:3])
    assert over_windows(error[:, :1], both[:1]).interval() == (-np.inf, np.inf)
    with pytest.raises(UserError, match="no windows"):
        over_windows(error[:, :0], both[:0])


def test_a_bootstrap_of_three_seeds_covers_too_little() -> None:
    """Why means have `crossed`: of 200 simulated studies the bootstrap's interval misses the truth in more than a tenth."""
    rng, truth = np.random.default_rng(0), norm.cdf((0.3 + np.linspace(-0.5, 0.5, 3)) / np.sqrt(1 + 0.25 + 0.25)).mean()
    ends = [hierarchical(drawn(rng, 3, 0.5, 0.5), draws=200)[1:] for _ in range(200)]
    assert np.mean([low <= truth <= high for low, high in ends]) < 0.9


def test_seeds_that_agree_by_chance_do_not_make_it_sure() -> None:
    """Two seeds with the same rate on different handles: the rest of the table tells how far they might have been apart."""
    low, high = crossed([[[1.0, 0.0, 1.0, 0.0, 1.0, 0.0]], [[0.0, 1.0, 0.0, 1.0, 1.0, 0.0]]]).interval()
    assert low < 0.25 < 0.75 < high


def test_crossed_by_hand() -> None:
    """Two seeds, one task, two handles: [[1, 1], [0, 0]].  Mean .5; MS_seeds = 2 (.25 + .25) = 1, MS_handles = 0, so
    var = 1 / 4 with one degree of freedom: half width 12.706 x .5."""
    estimate = crossed([[[1.0, 1.0]], [[0.0, 0.0]]])
    assert estimate[:3] == (0.5, 0.5, 1.0)
    assert estimate.interval() == pytest.approx((0.5 - 6.353, 0.5 + 6.353), abs=1e-3)
    assert estimate.p == pytest.approx(0.5)


def test_crossed_of_one_seed_is_about_its_handles() -> None:
    """100 handles of one network: Student's interval of their mean."""
    values = np.random.default_rng(0).normal(size=100)
    expected = cast("Any", ttest_1samp(values, 0.0))
    estimate = crossed(values[None, None])
    assert estimate.interval() == pytest.approx(tuple(expected.confidence_interval()))
    assert estimate.p == pytest.approx(expected.pvalue)


def test_crossed_of_one_handle_each_is_about_seeds() -> None:
    """One handle: seeds alone vary, Student's interval over them."""
    values = np.random.default_rng(0).normal(size=7)
    assert crossed(values[:, None, None]).interval() == pytest.approx(tuple(cast("Any", ttest_1samp(values, 0.0)).confidence_interval()))
    with pytest.raises(UserError, match="no interval"):
        crossed([[[1.0]]])


def test_pairs_that_never_differ_are_not_known_to_be_equal() -> None:
    """Three seeds, 60 handles, no difference: as if one of 180 had differed, 1 / 180 x 4.30 (two degrees of freedom)."""
    estimate = paired(np.zeros((3, 3, 20)).tolist())
    assert estimate.mean == 0
    assert estimate.interval()[1] == pytest.approx(4.3027 / 180, rel=1e-4)
    assert paired([[[1.0]]]).interval()[0] < -1, "one pair tells nothing"


def test_pooled_rates_stay_rates() -> None:
    """180 of 180 has Wilson's interval; wild seeds end at 0 and 1."""
    assert pooled(np.ones((3, 3, 20)))[1:] == pytest.approx(wilson(180, 180))
    assert pooled([[[1.0, 1.0]], [[0.0, 0.0]]])[1:] == (0.0, 1.0)


def test_holm_by_hand() -> None:
    """p = .01, .04, .03: times 3, then 2, then 1, never falling: .03, .06, .06."""
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]


def test_corrected_intervals_agree_with_holm() -> None:
    """An interval leaves out 0 exactly where the adjusted p-value is below .05; alone it is the plain interval."""
    rng = np.random.default_rng(0)
    for _ in range(200):
        family = [Estimate(float(rng.normal()), float(rng.uniform(0.1, 1)), float(rng.integers(2, 30))) for _ in range(5)]
        adjusted = holm([estimate.p for estimate in family])
        for (low, high), p in zip(corrected(family), adjusted, strict=True):
            assert (low > 0 or high < 0) == (p < 0.05)
    alone = Estimate(0.3, 0.1, 4.0)
    assert corrected([alone]) == [alone.interval()]


def test_a_difference_without_spread_is_not_a_division_by_zero() -> None:
    assert Estimate(0.0, 0.0, 2.0).p == 1.0
    assert corrected([Estimate(0.0, 0.0, 2.0), Estimate(0.1, 0.0, 2.0)]) == [(0.0, 0.0), (0.1, 0.1)]


def test_interquartile_mean_by_hand() -> None:
    """0 .. 7: the middle half is 2, 3, 4, 5; an outlier is not heard."""
    assert interquartile_mean(np.arange(8.0)) == 3.5
    assert interquartile_mean(np.array([0.0, 1, 2, 3, 4, 5, 6, 1000])) == 3.5


def test_probability_of_improvement_by_hand() -> None:
    """One task, (1, 3) against (2, 3): 1 < 2, 1 < 3, 3 > 2, 3 = 3: (0 + 0 + 1 + .5) / 4."""
    assert probability_of_improvement(np.array([[1.0], [3.0]]), np.array([[2.0], [3.0]])) == 0.375


def test_power_is_what_a_simulation_finds() -> None:
    """Of simulated pairs of arms that differ by the detectable difference, four fifths show it."""
    seeds, handles, spread, rate = 5, 60, 0.05, 0.6
    gap, rng = detectable(seeds, handles, spread, rate, alike=0.0), np.random.default_rng(0)
    shown = 0
    for _ in range(2000):
        arms = [np.clip(rng.normal(mean, spread, (seeds, 1)), 0, 1) for mean in (rate + gap / 2, rate - gap / 2)]
        ours, theirs = (rng.random((seeds, handles)) < arm for arm in arms)
        low, _ = Estimate(*_student(ours.mean(axis=1) - theirs.mean(axis=1))).interval()
        shown += low > 0
    assert shown / 2000 == pytest.approx(0.8, abs=0.03)


@pytest.mark.parametrize("comparisons", [1, 16])
def test_power_of_the_verdict_itself(comparisons: int) -> None:
    """Start states that suit one arm more than the other stay so whatever the seeds; and the verdict is one of a family."""
    seeds, handles, spread, rate, alike, same = 5, 60, 0.05, 0.6, 0.1, 0.2
    gap = detectable(seeds, handles, spread, rate, alike, same=same, comparisons=comparisons)
    rng, shown, draws = np.random.default_rng(0), 0, 600
    for _ in range(draws):
        suits = rng.normal(0, np.sqrt(0.24 * alike), handles)
        levels = [rate - gap / 2, rate + gap / 2, *[rate - gap / 2] * (comparisons - 1)]
        means = [level + suits + rng.normal(0, np.sqrt(0.24 * (same - alike)), handles) for level in levels]
        theirs, *others = (rng.random((seeds, 1, handles)) < mean + rng.normal(0, spread, (seeds, 1, 1)) for mean in means)
        shown += together([paired(ours.astype(float) - theirs) for ours in others], alike=True)[0].p * comparisons < 0.05
    assert 0.72 < shown / draws < 0.95
    assert detectable(10**6, handles, spread, rate, alike) < 0.01 < detectable(10**6, handles, spread, rate, alike, same=same)
    with pytest.raises(UserError, match="at least as alike"):
        detectable(seeds, handles, spread, rate, alike, same=0.0)


def _student(values: np.ndarray) -> tuple[float, float, float]:
    return float(values.mean()), float(values.std(ddof=1) / np.sqrt(len(values))), len(values) - 1


def test_seeds_needed_is_the_other_way_round() -> None:
    needed = seeds_needed(0.15, 60, 0.05, 0.6, 0.3)
    assert detectable(needed, 60, 0.05, 0.6, 0.3) <= 0.15 < detectable(needed - 1, 60, 0.05, 0.6, 0.3)
    with pytest.raises(UserError, match="no 1000 training seeds"):
        seeds_needed(0.0, 60, 0.05, 0.6, 0.3)
    with pytest.raises(UserError, match="at least 2"):
        detectable(1, 60, 0.05, 0.6, 0.3)


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
