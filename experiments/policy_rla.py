"""The world-action model as a transformer: the flow-matching policy with queries that foresee the residual latent of the chunk."""

from dataclasses import replace

from wmzoo.config import Experiment, Scale, Term
from wmzoo.objectives import rla_head

from . import bc_rla, policy, rla


def config(scale: Scale = "small") -> Experiment:
    return with_head(policy.config(scale), "policy_rla", scale)


def with_head(arm: Experiment, name: str, scale: Scale) -> Experiment:
    """The same arm with the queries, and the stages that their target needs."""
    head = rla_head.Config(rla.model(scale, "none" if scale == "paper" else "stage:rla"))
    term = Term(head, weights={"latent_l1": 1.0, "latent_mse": 1.0}, weight=0.05)
    stages = {**arm.stages, **bc_rla.unseen(scale)}
    return replace(arm, name=name, objectives={**arm.objectives, "rla": term}, data=bc_rla.watched(arm, scale), stages=stages)
