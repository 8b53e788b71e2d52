"""FLARE: the policy and a few tokens that foresee the embedding of the frame at the end of the chunk."""

from dataclasses import replace
from typing import Any

from wmzoo.config import Experiment, Scale, Term
from wmzoo.models import targets
from wmzoo.objectives import flare

from . import embedding, policy_embedding


def config(scale: Scale = "small") -> Experiment:
    """Weight 0.2, tap 0.75, rho 0.995 as in the paper; below its scale the targets are centred (few tasks, one fixed camera)."""
    arm = policy_embedding.config(scale)
    align = flare.Config(
        targets.FollowingConfig(),
        tokens=embedding.observer(scale).tokens,
        gap=arm.data.horizon,
        centre="none" if scale == "paper" else "instruction",
    )
    return replace(arm, name="flare", objectives={**arm.objectives, "flare": Term(align, weights={"align": 1.0}, weight=0.2)})


def altered(arm: Experiment, name: str, **fields: Any) -> Experiment:
    """The same arm under another name with some fields of its alignment changed: controls and ablations."""
    term = arm.objectives["flare"]
    return replace(arm, name=name, objectives={**arm.objectives, "flare": replace(term, config=replace(term.config, **fields))})
