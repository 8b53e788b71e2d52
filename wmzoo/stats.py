"""How sure is a rate?  Intervals for counts, and for means over training seeds."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import norm

from .errors import UserError


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


def hierarchical(
    outcomes: Sequence[Sequence[Sequence[float]]], level: float = 0.95, draws: int = 10_000, seed: int = 0
) -> tuple[float, float, float]:
    """Mean and bootstrap interval of outcomes[training seed][task][handle]: seeds are drawn again, then handles within each task.

    Tasks are not drawn again: the claim is about these tasks.  With one training seed the interval is about that network alone.

    Raises:
        UserError: the table is empty or ragged.
    """
    try:
        table = np.asarray(outcomes, float)
    except ValueError:  # ragged
        table = np.empty((0, 0, 0))
    if table.ndim != 3 or table.size == 0:
        raise UserError("outcomes must be a full table of training seeds, tasks and handles")
    rng = np.random.default_rng(seed)
    seeds, names, n = table.shape
    means = np.empty(draws)
    for i in range(draws):
        chosen = table[rng.integers(seeds, size=seeds)]
        columns = rng.integers(n, size=(seeds, names, n))
        means[i] = np.take_along_axis(chosen, columns, axis=2).mean()
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(table.mean()), float(low), float(high)


def clustered(
    values: Float[np.ndarray, "seeds n"],
    scale: Float[np.ndarray, "n"],
    task: Int[np.ndarray, "n"],
    episode: Int[np.ndarray, "n"],
    level: float = 0.95,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[float, float, float]:
    """sum(values) / sum(scale) over windows, and its bootstrap interval: seeds are drawn again, then whole episodes within each task.

    Windows of one episode resemble each other, so they come and go together.

    Raises:
        UserError: there is nothing to average.
    """
    if values.size == 0:
        raise UserError("no interval for no windows")
    rng = np.random.default_rng(seed)
    names, index = np.unique(episode, return_inverse=True)
    per_seed = np.stack([np.bincount(index, row, len(names)) for row in values])
    per_scale = np.bincount(index, scale, len(names))
    home = np.array([task[index == i][0] for i in range(len(names))])
    weight = np.zeros((draws, len(names)))
    for name in np.unique(home):
        mine = np.flatnonzero(home == name)
        np.add.at(weight, (np.arange(draws)[:, None], mine[rng.integers(len(mine), size=(draws, len(mine)))]), 1)
    chosen = rng.integers(len(values), size=(draws, len(values)))
    drawn = np.einsum("de,se->ds", weight, per_seed)
    means = np.take_along_axis(drawn, chosen, axis=1).mean(axis=1) / np.maximum(weight @ per_scale, 1e-12)
    low, high = np.quantile(means, [0.5 - level / 2, 0.5 + level / 2])
    return float(values.mean(axis=0).sum() / max(1e-12, scale.sum())), float(low), float(high)
