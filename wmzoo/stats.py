"""How sure is a rate?  Intervals for counts, and for means over training seeds."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import ArrayLike
from scipy.stats import chi2, norm, trim_mean
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


class Variance(NamedTuple):
    """An analysis of variance of outcomes[training seed][handle].

    Attributes:
        seeds, handles, rest: mean squares between seeds, between handles, and of what neither explains.
        df_seeds, df_handles: their degrees of freedom; the rest has the product.
    """

    seeds: float
    handles: float
    rest: float
    df_seeds: int
    df_handles: int

    @property
    def n(self) -> int:
        """Outcomes."""
        return (self.df_seeds + 1) * (self.df_handles + 1)

    @property
    def spread(self) -> float:
        """Variance of the means of seeds."""
        return self.seeds / (self.df_handles + 1)


class Estimate(NamedTuple):
    """A mean with its standard error, and the degrees of freedom that this error has.

    Attributes:
        mean: of the outcomes.
        error: standard error; 0 where nothing varies.
        df: degrees of freedom of Student's t.
        least: what the error is at least.
        variance: what the error is made of; None where seeds are no sample.
    """

    mean: float
    error: float
    df: float
    least: float = 0.0
    variance: Variance | None = None

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

    Both seeds and handles are samples, tasks are not: the claim is about these tasks.  A handle is named by a seed, from which every task
    draws its start state and the noise, so handle i of one task resembles handle i of another: the mean over tasks is what varies.
    The variance is that of a crossed design (analysis of variance, Satterthwaite 1946; in the reading of images Obuchowski and Rockette
    1995):
        var = (MS_seeds + MS_handles - MS_rest) / n.
    In simulations with three seeds or more, 95% intervals cover 93 to 97% where seeds spread by 3 to 10 points, 92 to 98% elsewhere; a
    bootstrap of three seeds covers less than 90% (tests/test_stats.py).  Several that are corrected together need `together`.  With one
    training seed the estimate is about that network alone.

    Raises:
        UserError: the table is empty or ragged, or one seed was played from one handle.
    """
    table = _full(outcomes).mean(axis=1)
    by_seed, by_handle = table.mean(axis=1), table.mean(axis=0)
    df_seeds, df_handles = table.shape[0] - 1, table.shape[1] - 1
    if df_seeds + df_handles == 0:
        raise UserError("one outcome of each task has no interval")
    handles = table.shape[0] * np.square(by_handle - by_handle.mean()).sum() / max(1, df_handles)
    if df_seeds == 0:
        return Estimate(float(table.mean()), float(np.sqrt(handles / table.size)), df_handles)
    rest = np.square(table - by_seed[:, None] - by_handle + table.mean()).sum() / max(1, df_seeds * df_handles)
    seeds = table.shape[1] * np.square(by_seed - by_seed.mean()).sum() / df_seeds
    variance = Variance(float(seeds), float(handles), float(rest), df_seeds, df_handles)
    if seeds < rest:  # by chance: it cannot be expected to be less
        return _estimate(float(table.mean()), variance, variance.rest, df_seeds * max(1, df_handles))
    return _estimate(float(table.mean()), variance, variance.seeds, df_seeds)


def _estimate(mean: float, variance: Variance, across: float, df_across: float, least: float = 0.0) -> Estimate:
    """Of a crossed design whose seeds have this mean square, with its degrees of freedom."""
    excess = max(0.0, variance.handles - variance.rest)  # what handles have in common beyond chance
    if across + excess == 0:
        return Estimate(mean, least, variance.df_seeds, least, variance)
    spread = across**2 / df_across
    if excess > 0:
        spread += variance.handles**2 / variance.df_handles + variance.rest**2 / (variance.df_seeds * variance.df_handles)
    error, df = math.sqrt((across + excess) / variance.n), max(variance.df_seeds, (across + excess) ** 2 / spread)
    return Estimate(mean, max(error, least), float(df), least, variance)


def together(estimates: Sequence[Estimate], alike: bool) -> list[Estimate]:
    """Several comparisons that Holm corrects, as sure as they are among others.

    A few seeds that happen to lie close together tell little of how methods spread, and of many comparisons some are such: at the small
    levels of a correction their p-values would be much too small.  So no comparison spreads less over seeds than all do on average,
    with the degrees of freedom of that average (`of_average`); what it spreads more has those of its own seeds.  Where comparisons are
    not of one kind, each has no more than its own.  In simulations without any difference, of 2 to 17 comparisons corrected so, at least
    one is called different in less than 5% (tests/test_stats.py); of 20 that are not of one kind also, unless seeds spread much more than
    handles do (LOG.md).

    Args:
        alike: are they differences of one kind, such as of success, from one baseline?
    """
    sampled = [estimate.variance for estimate in estimates if estimate.variance is not None]
    if len(estimates) < 2 or not sampled:
        return list(estimates)
    common = float(np.mean([variance.spread for variance in sampled])) if alike else 0.0
    df_common = of_average(float(np.mean([variance.df_seeds for variance in sampled])), len(sampled))
    told = []
    for estimate in estimates:
        if (variance := estimate.variance) is None:
            told.append(estimate)
            continue
        theirs = common * (variance.df_handles + 1)
        more = max(0.0, variance.seeds - theirs)
        df = (theirs + more) ** 2 / (theirs**2 / df_common + more**2 / variance.df_seeds) if theirs + more > 0 else variance.df_seeds
        told.append(_estimate(estimate.mean, variance, max(theirs + more, variance.rest), df, estimate.least))
    return told


def of_average(df: float, comparisons: int) -> float:
    """Degrees of freedom of the average variance of comparisons with df each (Satterthwaite): one baseline is in all of them.

    With arms that spread alike, the average of s^2 of m differences to one baseline has the variance 4 (1 + 3 / m) / (2 df) of a mean of
    2, so 4 m / (m + 3) times df: as many as one of them for m = 1, never more than four times that.
    """
    return df * 4 * comparisons / (comparisons + 3)


def paired(gaps: ArrayLike) -> Estimate:
    """Mean of differences of two arms' outcomes; where hardly any differ, as uncertain as if one more had.

    Raises:
        UserError: the table is empty or ragged.
    """
    table = _full(gaps)
    estimate = Estimate(float(table.mean()), 1.0, 1.0) if max(table.shape[0], table.shape[2]) == 1 else crossed(gaps)
    return estimate._replace(error=max(estimate.error, 1 / table.size), least=1 / table.size)


def pooled(outcomes: ArrayLike, level: float = 0.95) -> tuple[float, float, float]:
    """A success rate over seeds, tasks and handles, with the interval of `crossed`; never narrower than Wilson's for as many trials.

    Raises:
        UserError: as in `crossed`.
    """
    estimate, table = crossed(outcomes), _full(outcomes)
    ends, trials = estimate.interval(level), wilson(round(float(table.sum())), table.size, level)
    return estimate.mean, max(0.0, min(ends[0], trials[0])), min(1.0, max(ends[1], trials[1]))


def holm(p_values: Sequence[float], awaited: int = 0) -> list[float]:
    """Holm's step-down adjustment (1979): each p-value as it may be compared with one level for the whole family.

    Args:
        awaited: further p-values of the family that are not known yet: as if they were 1, so what is found does not vanish with them.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) + awaited - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted


def corrected(estimates: Sequence[Estimate], level: float = 0.95, awaited: int = 0) -> list[tuple[float, float]]:
    """Intervals of a family: one leaves out 0 exactly where Holm's adjusted p-value is below 1 - level.

    So all verdicts are right together as often as `level`.  As to how large a difference is, each interval covers it as often, all
    together less often where many differences are large: those are judged one after the other, and only the first is widened for all.

    Args:
        awaited: as in `holm`.
    """
    p_values = [estimate.p for estimate in estimates]
    adjusted = holm(p_values, awaited)
    shares = [p / q if q > 0 else 1 / (len(p_values) + awaited) for p, q in zip(p_values, adjusted, strict=True)]
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
    tasks: int = 1,
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
        comparisons: of the family that Holm corrects, none of the others showing anything (`together`).
        tasks: over which the start states are spread; differences on one do not tell those on another.
    """
    if seeds < 2:
        raise UserError(f"--seeds {seeds}: an interval over training seeds takes at least 2 of them, a verdict at least {SEEDS}")
    same = alike if same is None else same
    if same < alike:
        raise UserError(f"an arm's outcomes on a handle are at least as alike as two arms' are: {same} is less than {alike}")
    rest = 2 * rate * (1 - rate) * (1 - same)  # mean squares of `crossed`
    across, excess = rest + handles * 2 * seed_spread**2, seeds * 2 * rate * (1 - rate) * (same - alike)
    df_across = float(seeds - 1)
    if comparisons > 1:  # the larger of its own spread and the family's
        across *= float(chi2.cdf(df_across, df_across) + chi2.sf(df_across, df_across + 2))
        df_across = of_average(df_across, comparisons)
    error = math.sqrt((across + excess) / (seeds * handles))
    known = across**2 / df_across + ((rest + excess) ** 2 + rest**2 / (seeds - 1)) / max(1, handles // tasks - 1)
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
    tasks: int = 1,
) -> int:
    """Training seeds of each arm that show this difference with power 0.8.

    Raises:
        UserError: not even `most` do.
    """
    for seeds in range(2, most + 1):
        if detectable(seeds, handles, seed_spread, rate, alike, same=same, comparisons=comparisons, tasks=tasks) <= difference:
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
    """A statistic and its bootstrap interval: seeds are drawn again, and handles, the same ones for every seed and in every task.

    For statistics that have no closed form; a mean is better served by `crossed`: a bootstrap of three seeds covers too little.
    Tasks are not drawn again: the claim is about these tasks.  With one training seed the interval is about that network alone.

    Raises:
        UserError: the table is empty or ragged.
    """
    table = _full(outcomes)
    rng = np.random.default_rng(seed)
    seeds, _, n = table.shape
    values = np.empty(draws)
    for i in range(draws):
        values[i] = statistic(table[rng.integers(seeds, size=seeds)][:, :, rng.integers(n, size=n)])
    low, high = np.quantile(values, [0.5 - level / 2, 0.5 + level / 2])
    return float(statistic(table)), float(low), float(high)


def by_start(
    values: Float[np.ndarray, "seeds n"], start: Int[np.ndarray, "n"], scale: Float[np.ndarray, "seeds n"] | None = None
) -> Float[np.ndarray, "seeds 1 starts"]:
    """The mean over windows, as a table for `crossed` where what episodes started from takes the place of handles.

    Windows of one episode resemble each other, and so do episodes of all tasks that were recorded with one seed.  What is averaged is
    sum(values) / sum(scale), linear in what each seed and start adds to it (delta method); no scale counts windows.

    Args:
        start: of each window, the seed of its episode.

    Raises:
        UserError: there is nothing to average.
    """
    if values.size == 0:
        raise UserError("no interval for no windows")
    whole = np.ones_like(values) if scale is None else scale
    names, index = np.unique(start, return_inverse=True)
    total = max(1e-12, float(whole.sum()))
    part = float(values.sum()) / total
    excess = np.stack([np.bincount(index, row, len(names)) for row in values - part * whole])
    return (part + excess * excess.size / total)[:, None]


def over_windows(
    values: Float[np.ndarray, "seeds n"], start: Int[np.ndarray, "n"], scale: Float[np.ndarray, "seeds n"] | None = None
) -> Estimate:
    """`crossed` over seeds and starts (`by_start`), also of one of each, of which nothing is sure.

    Raises:
        UserError: there is nothing to average.
    """
    table = by_start(values, start, scale)
    return crossed(table) if max(table.shape) > 1 else Estimate(float(table.mean()), math.inf, 1.0)
