"""How much of a motion can be read off some features?  Ridge and a small network, within tasks and to a task that was left out.

    y        = state[now + gap] - state[now], of the numbers of the state that are called "hand ..."
    R^2      = 1 - sum (y - guess)^2 / sum (y - mean y)^2, of each coordinate, then their mean        r_squared
    by variance: the same with both sums over all coordinates, so one that hardly moves hardly counts
    ridge    : (X'X + penalty I) w = X'y, on standardised features                                    ridge
    constant : the mean y of the training windows
The penalty, and the step at which the MLP stops, are those that do best on a fifth of the training episodes.  "within": one probe
for all tasks, R^2 in each task and over all windows together; "across": the windows of a task are guessed by a probe that was
fitted on the other tasks.  Intervals are 95 percent: validation episodes are drawn again within each task; none where a task has
only one of them.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import nn
from tqdm import tqdm

from .errors import UserError
from .shapes import checked

DRAWS = 500
PENALTIES = tuple(10.0**power for power in range(-3, 4))
HIDDEN, STEPS, PATIENT = 64, 1500, 25  # of the MLP: width, steps, and how often it is tried on the episodes set aside
Guess = Callable[[np.ndarray], np.ndarray]
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray], Guess]  # features, truth, which windows are set aside


def _errors(truth: np.ndarray, guess: np.ndarray, weight: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sums of squares, of the guess and of the mean: for each draw and coordinate."""
    centred = truth - truth.mean(axis=0)
    total = weight @ centred**2 - (weight @ centred) ** 2 / weight.sum(axis=1, keepdims=True)
    return weight @ (truth - guess) ** 2, total


def _part(error: np.ndarray, total: np.ndarray) -> np.ndarray:
    """Of the sum of squares that is explained; NaN where nothing varies."""
    return 1 - error / np.where(total > 1e-12, total, np.nan)


@checked
def r_squared(
    truth: Float[np.ndarray, "n C"], guess: Float[np.ndarray, "n C"], weight: Float[np.ndarray, "d n"]
) -> Float[np.ndarray, "d C"]:
    """Part of the variance of each coordinate that is explained: 1 is perfect, 0 is the mean; `weight`: d draws of the windows."""
    return _part(*_errors(truth, guess, weight))


@checked
def ridge(x: Float[np.ndarray, "n F"], y: Float[np.ndarray, "n C"], penalty: float) -> Guess:
    """Least squares with a penalty on the weights of standardised features; the mean is free."""
    (mean, scale), centre = _moments(x), y.mean(axis=0)
    z = (x - mean) / scale
    weights = np.linalg.solve(z.T @ z + penalty * np.eye(z.shape[1]), z.T @ (y - centre))
    return lambda new: (new - mean) / scale @ weights + centre


def by_ridge(x: np.ndarray, y: np.ndarray, aside: np.ndarray) -> Guess:
    """The best penalty on the windows set aside, then all windows."""
    spread = _moments(y)[1]

    def error(penalty: float) -> float:
        return float((((ridge(x[~aside], y[~aside], penalty)(x[aside]) - y[aside]) / spread) ** 2).mean())

    return ridge(x, y, min(PENALTIES, key=error))


@torch.enable_grad()
def by_mlp(x: np.ndarray, y: np.ndarray, aside: np.ndarray) -> Guess:
    """One hidden layer; the weights of the step that did best on the windows set aside."""
    (mean, scale), (centre, spread) = _moments(x[~aside]), _moments(y[~aside])
    inputs, target = (torch.from_numpy(z).float() for z in ((x - mean) / scale, (y - centre) / spread))
    held, rest = (torch.from_numpy(np.flatnonzero(rows)) for rows in (aside, ~aside))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(x.shape[1], HIDDEN), nn.ReLU(), nn.Linear(HIDDEN, y.shape[1]))
        optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
        best, kept = inf, deepcopy(network.state_dict())
        for step in range(1, STEPS + 1):
            rows = rest[torch.randint(len(rest), (256,))]
            optimiser.zero_grad()
            (network(inputs[rows]) - target[rows]).square().mean().backward()
            optimiser.step()
            if step % PATIENT == 0 and (error := (network(inputs[held]) - target[held]).square().mean().item()) < best:
                best, kept = error, deepcopy(network.state_dict())
    network.load_state_dict(kept)
    return lambda new: network(torch.from_numpy((new - mean) / scale).float()).detach().double().numpy() * spread + centre


def by_mean(x: np.ndarray, y: np.ndarray, aside: np.ndarray) -> Guess:
    """The mean, whatever is read."""
    return lambda new: np.tile(y.mean(axis=0), (len(new), 1))


def _moments(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and deviation of each column; one that never changes keeps a scale of 1."""
    std = x.std(axis=0)
    return x.mean(axis=0), np.where(std < 1e-9, 1.0, std)


def fifth(episode: Int[np.ndarray, "n"]) -> Bool[np.ndarray, "n"]:
    """The windows of every fifth episode; of fewer than five, of the last.

    Raises:
        UserError: there is only one episode.
    """
    known = np.unique(episode)
    if len(known) < 2:
        raise UserError("a probe needs two or more training episodes that are longer than the gap: choose more tasks or windows")
    return np.isin(episode, known[4::5] if len(known) > 4 else known[-1:])


def principal(train: Float[np.ndarray, "n F"], held: Float[np.ndarray, "m F"], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Both along the principal axes of the first, at most `count`."""
    mean = train.mean(axis=0)
    values, vectors = np.linalg.eigh(((train - mean) @ (train - mean).T).astype(float))
    kept = [i for i in range(len(values))[::-1][:count] if values[i] > 1e-9 * values[-1]] or [len(values) - 1]
    axes = (train - mean).T @ vectors[:, kept] / np.sqrt(np.maximum(values[kept], 1e-30))
    return (train - mean) @ axes, (held - mean) @ axes


@dataclass
class Seen:
    """What was read of n windows.

    Attributes:
        names: of the coordinates of the hand; `tasks` of the tasks, by number.
        task, episode: number of each window's task and episode.
        start: of the seed that its episode was recorded with, which several tasks may have in common.
        motion: of the hand over the gap, in units of the task.
        features: what a probe may read, by name.
    """

    names: tuple[str, ...]
    tasks: tuple[str, ...]
    task: Int[np.ndarray, "n"]
    episode: Int[np.ndarray, "n"]
    start: Int[np.ndarray, "n"]
    motion: Float[np.ndarray, "n C"]
    features: dict[str, Float[np.ndarray, "n F"]]

    def redraws(self, seed: int = 0) -> Float[np.ndarray, "d n"]:
        """How often each window counts: once in the first row, then as often as what its episode started from was drawn again."""
        known, which = np.unique(self.start, return_inverse=True)
        drawn = np.random.default_rng(seed).multinomial(len(known), np.full(len(known), 1 / len(known)), size=DRAWS)
        return np.concatenate([np.ones((1, len(which))), drawn[:, which]])

    def estimate(self, values: Float[np.ndarray, "d"], rows: Bool[np.ndarray, "n"]) -> dict[str, Any]:
        """A number with its interval and what it was measured on; the first of the values is the number itself."""
        counts = [len(np.unique(self.episode[rows & (self.task == task)])) for task in np.unique(self.task[rows])]
        several = len(counts) > 0 and min(counts) > 1 and bool(np.isfinite(values).all())
        interval = np.quantile(values[1:], [0.025, 0.975]).tolist() if several else None
        return {"value": float(values[0]), "interval": interval, "n": int(rows.sum()), "episodes": sum(counts)}

    def ratio(self, top: Float[np.ndarray, "n"], bottom: Float[np.ndarray, "n"], rows: Bool[np.ndarray, "n"]) -> dict[str, Any]:
        """Sum over sum, over some of the windows."""
        weight = self.redraws()[:, rows]
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.estimate((weight @ top[rows]) / (weight @ bottom[rows]), rows)

    def explained(self, guess: Float[np.ndarray, "n C"]) -> dict[str, Any]:
        """R^2 of a guess of the motion: over all windows, in each task, and the mean over tasks."""
        weight = self.redraws()

        def line(*groups: np.ndarray) -> dict[str, Any]:
            sums = [_errors(self.motion[rows], guess[rows], weight[:, rows]) for rows in groups]
            r2 = np.mean([_part(error, total) for error, total in sums], axis=0)
            joint = np.mean([_part(error.sum(axis=1), total.sum(axis=1)) for error, total in sums], axis=0)
            rows = np.any(groups, axis=0)
            each = {"coordinates": dict(zip(self.names, r2[0].tolist(), strict=True)), "by_variance": self.estimate(joint, rows)}
            return {**self.estimate(r2.mean(axis=1), rows), **each}

        own = {self.tasks[task]: self.task == task for task in np.unique(self.task)}
        every = np.ones(len(self.task), bool)
        return {"mean": line(*own.values()), "pooled": line(every), "tasks": {name: line(rows) for name, rows in own.items()}}


def probed(fit: Fit, row: str, train: Seen, held: Seen) -> dict[str, Any]:
    """R^2 within and across tasks of a probe that reads one kind of feature."""
    x, y, new = train.features[row], train.motion, held.features[row]
    within = held.explained(fit(x, y, fifth(train.episode))(new))
    if len(np.unique(train.task)) < 2:
        return {"within": within, "across": None}
    guess = np.empty_like(held.motion)
    for task in np.unique(held.task):
        others, there = train.task != task, held.task == task
        guess[there] = fit(x[others], y[others], fifth(train.episode[others]))(new[there])
    return {"within": within, "across": held.explained(guess)}


def probes(train: Seen, held: Seen) -> dict[str, Any]:
    """Every kind of feature by both probes, and the constant."""
    kinds: dict[str, Fit] = {"ridge": by_ridge, "mlp": by_mlp}
    found: dict[str, Any] = {}
    for row, x in tqdm(train.features.items(), desc="probes", unit="row"):
        found[row] = {"numbers": x.shape[1], **{kind: probed(fit, row, train, held) for kind, fit in kinds.items()}}
    return {**found, "constant": {"numbers": 0, "mean": probed(by_mean, next(iter(found)), train, held)}}
