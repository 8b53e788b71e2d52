"""How sure is a rate?  Intervals for counts, and for means over training seeds."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.stats import norm, trim_mean
from scipy.stats import t as student

from .errors import UserError

SEEDS = 3  # training seeds that a word on a method needs, at least
CAUTION = "with fewer than three seeds this is about these networks, not about the method"


def wilson(successes: int, n: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval of a rate.

    Raises:
        UserError: there is nothing to count, or more successes than trials.
    """
    if not 0 <= successes <= n or n == 0:
        raise UserError(f"no interval for {successes} successes of {n}")
    z = float(norm.ppf(0.5 + level / 2))
    rate, scale = successes / n, 1 + z * z / n
    centre = (rate + z * z / (2 * n)) / scale
    half = z * np.sqrt(rate * (1 - rate) / n + z * z / (4 * n * n)) / scale
    return max(0.0, centre - half), min(1.0, centre + half)


class Estimate(NamedTuple):
    """A mean with its standard error, and the degrees of freedom that this error has.

    Attributes:
        mean: of the outcomes.
        error: standard error; 0 where nothing varies.
        df: degrees of freedom of Student's t.
    """

    mean: float
    error: float
    df: float

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Student's interval."""
        half = float(student.ppf(0.5 + level / 2, self.df)) * self.error
        return self.mean - half, self.mean + half

    @property
    def p(self) -> float:
        """Two-sided p-value of a mean of 0."""
        if self.error == 0:
            return float(self.mean == 0)
        return float(2 * student.sf(abs(self.mean) / self.error, self.df))


def crossed(outcomes: ArrayLike) -> Estimate:
    """Mean of outcomes[training seed][task][handle], when every seed was played from the same handles.

    Both seeds and handles are samples, tasks are not: the claim is about these tasks.  The variance is that of a crossed design
    (analysis of variance, Satterthwaite 1946; in the reading of images Obuchowski and Rockette 1995):
        var = (MS_seeds + MS_handles - MS_rest) / n.
    In simulations with three seeds or more, 95% intervals cover 93 to 97% where seeds spread by 3 to 10 points, 92 to 98% elsewhere; a
    bootstrap of three seeds covers less than 90% (tests/test_stats.py).  With one training seed the estimate is
    about that network alone.

    Raises:
        UserError: the table is empty or ragged, or one seed was played from one handle.
    """
    table = _full(outcomes)
    seeds, names, n = table.shape
    by_seed, by_handle, by_task = table.mean(axis=(1, 2)), table.mean(axis=0), table.mean(axis=2)
    df_seeds, df_handles = seeds - 1, names * (n - 1)
    if df_seeds + df_handles == 0:
        raise UserError("one outcome of each task has no interval")
    handles = seeds * np.square(by_handle - by_handle.mean(axis=1, keepdims=True)).sum() / max(1, df_handles)
    if seeds == 1:
        return Estimate(float(table.mean()), float(np.sqrt(handles / table.size)), df_handles)
    rest = table - by_task[:, :, None] - by_handle + by_handle.mean(axis=1, keepdims=True)
    residual = np.square(rest).sum() / max(1, df_seeds * df_handles)
    across = names * n * np.square(by_seed - by_seed.mean()).sum() / df_seeds
    if across < residual:  # by chance: it cannot be expected to be less
        across, df_across = residual, df_seeds * max(1, df_handles)
    else:
        df_across = df_seeds
    excess = max(0.0, handles - residual)  # what handles have in common beyond chance
    variance = across + excess
    if variance == 0:
        return Estimate(float(table.mean()), 0.0, df_seeds)
    spread = across**2 / df_across
    if excess > 0:
        spread += handles**2 / df_handles + residual**2 / (df_seeds * df_handles)
    return Estimate(float(table.mean()), float(np.sqrt(variance / table.size)), float(max(df_seeds, variance**2 / spread)))


def paired(gaps: ArrayLike) -> Estimate:
    """Mean of differences of two arms' outcomes; where hardly any differ, as uncertain as if one more had.

    Raises:
        UserError: the table is empty or ragged.
    """
    table = _full(gaps)
    estimate = Estimate(float(table.mean()), 1.0, 1.0) if max(table.shape[0], table.shape[2]) == 1 else crossed(gaps)
    return estimate._replace(error=max(estimate.error, 1 / table.size))


def pooled(outcomes: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """A success rate over seeds, tasks and handles, with the interval of `crossed`; never narrower than Wilson's for as many trials.

    Raises:
        UserError: as in `crossed`.
    """
    estimate, table = crossed(outcomes), _full(outcomes)
    ends, trials = estimate.interval(level), wilson(round(float(table.sum())), table.size, level)
    return estimate.mean, max(0.0, min(ends[0], trials[0])), min(1.0, max(ends[1], trials[1]))


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment (1979): each p-value as it may be compared with one level for the whole family."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def corrected(estimates: Sequence[Estimate], level: float = 0.95) -> list[tuple[float, float]]:
    """Intervals of a family: one leaves out 0 exactly where Holm's adjusted p-value is below 1 - level.

    So all verdicts are right together as often as `level`.  As to how large a difference is, each interval covers it as often, all
    together less often where many differences are large: those are judged one after the other, and only the first is widened for all.
    """
    p_values = [estimate.p for estimate in estimates]
    shares = [p / q if q > 0 else 1 / len(p_values) for p, q in zip(p_values, holm(p_values), strict=True)]
    return [estimate.interval(1 - (1 - level) * share) for estimate, share in zip(estimates, shares, strict=True)]


def verdict(low: float, high: float) -> str:
    """What the interval of a difference allows to say, where more is better."""
    return "better" if low > 0 else "worse" if high < 0 else "not distinguishable"


def interquartile_mean(scores: Float[np.ndarray, "..."]) -> float:
    """Mean of the middle half of all scores (Agarwal et al. 2021, rliable, arXiv:2108.13264)."""
    return float(trim_mean(np.asarray(scores).ravel(), 0.25))


def probability_of_improvement(ours: Float[np.ndarray, "seeds tasks"], theirs: Float[np.ndarray, "seeds tasks"]) -> float:
    """How probable is it that a run of ours scores higher than one of theirs, on average over tasks?  Ties count half (rliable)."""
    higher = (ours[:, None] > theirs[None]) + 0.5 * (ours[:, None] == theirs[None])
    return float(higher.mean())


def detectable(
    seeds: int,
    handles: int,
    seed_spread: float,
    rate: float,
    alike: float,
    power: float = 0.8,
    level: float = 0.95,
    same: float | None = None,
    comparisons: int = 1,
) -> float:
    """The smallest paired difference of two success rates that `paired` shows with this power: its error and degrees of freedom, expected.

    Args:
        seeds: training seeds of each arm.
        handles: start states in all, the same for both arms.
        seed_spread: standard deviation of an arm's true rate from seed to seed.
        rate: about where both arms are.
        alike: correlation of the two arms' outcomes on one handle.
        power: probability of showing it.
        same: correlation of one arm's outcomes on one handle from seed to seed; what of it the arms have not in common stays, however
            many the seeds.  As `alike` unless given.
        comparisons: of the family that Holm corrects, none of the others showing anything.
    """
    if seeds < 2:
        raise UserError(f"--seeds {seeds}: an interval over training seeds takes at least 2 of them, a verdict at least {SEEDS}")
    same = alike if same is None else same
    if same < alike:
        raise UserError(f"an arm's outcomes on a handle are at least as alike as two arms' are: {same} is less than {alike}")
    rest = 2 * rate * (1 - rate) * (1 - same)  # mean squares of `crossed`
    across, excess = rest + handles * 2 * seed_spread**2, seeds * 2 * rate * (1 - rate) * (same - alike)
    error = math.sqrt((across + excess) / (seeds * handles))
    known = across**2 / (seeds - 1) + ((rest + excess) ** 2 + rest**2 / (seeds - 1)) / max(1, handles - 1)
    df = max(seeds - 1, (across + excess) ** 2 / known)
    return error * float(student.ppf(1 - (1 - level) / 2 / comparisons, df) + student.ppf(power, df))


def seeds_needed(
    difference: float,
    handles: int,
    seed_spread: float,
    rate: float,
    alike: float,
    most: int = 1000,
    same: float | None = None,
    comparisons: int = 1,
) -> int:
    """Training seeds of each arm that show this difference with power 0.8.

    Raises:
        UserError: not even `most` do.
    """
    for seeds in range(2, most + 1):
        if detectable(seeds, handles, seed_spread, rate, alike, same=same, comparisons=comparisons) <= difference:
            return seeds
    raise UserError(f"no {most} training seeds show a difference of {difference} on {handles} handles; more start states might")


def _full(outcomes: ArrayLike) -> Float[np.ndarray, "seeds tasks handles"]:
    """The table as an array.

    Raises:
        UserError: it is empty or ragged.
    """
    try:
        table = np.asarray(outcomes, float)
    except ValueError:  # ragged
        table = np.empty((0, 0, 0))
    if table.ndim != 3 or table.size == 0:
        raise UserError("outcomes must be a full table of training seeds, tasks and handles")
    return table


def hierarchical(
    outcomes: ArrayLike,
    statistic: Callable[[Float[np.ndarray, "seeds tasks handles"]], float] = np.mean,
    level: float = 0.95,
    draws: int = 10_000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """A statistic and its bootstrap interval: seeds are drawn again, and the handles of each task, the same ones for every seed.

    For statistics that have no closed form; a mean is better served by `crossed`: a bootstrap of three seeds covers too little.
    Tasks are not drawn again: the claim is about these tasks.  With one training seed the interval is about that network alone.

    Raises:
        UserError: the table is empty or ragged.
    """
    table = _full(outcomes)
    rng = np.random.default_rng(seed)
    seeds, names, n = table.shape
    values = np.empty(draws)
    for i in range(draws):
        columns = rng.integers(n, size=(1, names, n))
        values[i] = statistic(np.take_along_axis(table[rng.integers(seeds, size=seeds)], columns, axis=2))
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return float(statistic(table)), float(low), float(high)


def by_episode(
    values: Float[np.ndarray, "seeds n"],
    task: Int[np.ndarray, "n"],
    episode: Int[np.ndarray, "n"],
    scale: Float[np.ndarray, "seeds n"] | None = None,
) -> Float[np.ndarray, "seeds tasks episodes"]:
    """The mean over windows, as a table for `crossed` where episodes take the place of handles: windows of one resemble each other.

    What is averaged is sum(values) / sum(scale), linear in what each seed and episode adds to it (delta method); no scale counts windows.
    Tasks that differ in their number of episodes, or have one each, are put together as one.

    Raises:
        UserError: there is nothing to average.
    """
    if values.size == 0:
        raise UserError("no interval for no windows")
    whole = np.ones_like(values) if scale is None else scale
    names, index = np.unique(episode, return_inverse=True)
    total = max(1e-12, float(whole.sum()))
    part = float(values.sum()) / total
    excess = np.stack([np.bincount(index, row, len(names)) for row in values - part * whole])
    means = part + excess * excess.size / total
    home = np.array([task[index == i][0] for i in range(len(names))])
    tasks, sizes = np.unique(home, return_counts=True)
    if len(set(sizes)) > 1 or sizes[0] == 1:
        return means[:, None]
    return np.stack([means[:, home == name] for name in tasks], axis=1)


def over_windows(
    values: Float[np.ndarray, "seeds n"],
    task: Int[np.ndarray, "n"],
    episode: Int[np.ndarray, "n"],
    scale: Float[np.ndarray, "seeds n"] | None = None,
) -> Estimate:
    """`crossed` over seeds and episodes (`by_episode`), also of one of each, of which nothing is sure.

    Raises:
        UserError: there is nothing to average.
    """
    table = by_episode(values, task, episode, scale)
    return crossed(table) if table.shape[0] > 1 or table.shape[2] > 1 else Estimate(float(table.mean()), math.inf, 1.0)
