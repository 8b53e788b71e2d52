"""LARA: the policy and a latent action model that train each other, after the model has learnt from video alone."""

from dataclasses import replace
from typing import Any

from wmzoo.config import Experiment, Scale, Term
from wmzoo.objectives import lara

from . import lam, policy


def config(scale: Scale = "small", agreement: type[lara.Config] = lara.Config) -> Experiment:
    """Weights 0.01 and 0.01, two blocks before the end (one in a trunk of four), the frame at the end of the chunk.

    At paper scale it trains as in the paper, longer than the policy does there, in smaller batches.
    """
    arm = joined(policy.config(scale), "lara", scale, agreement)
    if scale != "paper":
        return arm
    return replace(arm, data=replace(arm.data, batch=384), optim=replace(arm.optim, steps=200_000))


def joined(arm: Experiment, name: str, scale: Scale, agreement: type[lara.Config] = lara.Config) -> Experiment:
    """An arm of this scale with LARA's two terms, and the stages of its latent action model."""
    agree = agreement(lam.model(scale, "stage:lam"), tap=-1 if arm.shape.depth < 6 else -2, gaps=(arm.data.horizon,))
    term = Term(agree, weights={"align": 0.01, "lam": 0.01})
    return replace(arm, name=name, objectives={**arm.objectives, "lara": term}, stages={**arm.stages, **lam.stages(scale)})


def altered(arm: Experiment, name: str, weights: dict[str, float] | None = None, **fields: Any) -> Experiment:
    """The same arm under another name with other weights, or some fields of its agreement changed: controls and ablations."""
    term = arm.objectives["lara"]
    changed = replace(term, config=replace(term.config, **fields), weights=term.weights if weights is None else weights)
    return replace(arm, name=name, objectives={**arm.objectives, "lara": changed})
