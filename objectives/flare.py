"""FLARE: pull a few extra tokens, part of the way through the policy, toward the embedding of the future.

Zheng et al. 2025, FLARE: Robot Learning with Implicit World Modeling, arXiv:2505.15659.
    L_align = mean over windows and tokens of 1 - cos(MLP(h_tap[future_j]), sg[g(phi_H)]_j)   wmzoo.objectives.align.align_loss
    L       = L_fm + 0.2 L_align                                    experiments/flare.py
    L_fm    = mean of (V(phi_t, x_t, q_t) - (A - eps))^2            wmzoo.objectives.flow.flow_loss
    x_t     = t A + (1 - t) eps                                     wmzoo.clock.interpolate
    A       <- A + V / K                                            wmzoo.sample.euler
    phi_t   = Q-former(self-attention([patches of o_t, instruction]))   wmzoo.models.embedding.Embedding
    g       <- rho g + (1 - rho) phi, after every step, rho = 0.995   wmzoo.models.targets.Following
    MLP     = Linear(SiLU(Linear(LayerNorm(h))))                    projector
The paper and its pseudocode disagree twice.  The text prints the flow target as eps - A, with which Euler would run away from the
data: we follow the pseudocode, A - eps.  The pseudocode slices the trunk's output: we follow the text and its ablation, the
hidden states after layer 6 of 8, round(0.75 L) here.  The paper prints -cos, its pseudocode 1 - cos: same gradient, we log the latter.
We differ: the MLP is not described, so it begins with a norm (the residual stream grows with depth); windows whose future lies
past the end of the episode do not count; targets can be centred (`centre`, objectives/align.py), since what all frames of a
task share makes the cosine trivial; video without actions has a learned null state, noise actions at t = 0 and its own embodiment,
which the paper leaves open.  The future tokens have the clock of the actions and are never to see a stream "video".
The policy-only baseline (experiments/policy_embedding.py) starts with a fresh trunk, as FLARE does; the paper's starts from the
trunk of the embedding's stage as well.
"""

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import nn

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Objective, Sizes, Target
from wmzoo.question import Question, Score, Stream

from .align import Align, Centre, Control, Plan


def projector(width: int, out: int) -> nn.Sequential:
    """From the trunk's width to the target's: norm, twice as wide, SiLU, out."""
    return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, out))


class Without(Objective):
    """No future token: the term is there and counts for no window, so what remains is the policy, bit for bit."""

    def forward(self, batch: Batch) -> Question:
        nothing = torch.zeros(len(batch), device=batch.image.device)
        return Question({}, frozenset(), lambda _: {"align": Score(nothing, nothing.bool())})


class Flare(Align):
    """M learned future tokens, read at one depth of the trunk.

    They stay in the sequence when the policy plays, since the actions have learnt to look at them; projector and target do not.

    Args:
        plan, depth, target, tokens: as in Align.
        width: of the trunk.
    """

    def __init__(self, plan: Plan, depth: int, target: Target, tokens: int, width: int) -> None:
        super().__init__(plan, depth, target, partial(projector, width), tokens)
        self.queries = nn.Parameter(0.02 * torch.randn(tokens, width))

    def standing(self, batch: Batch) -> dict[str, Stream]:
        return {"future": Stream(self.queries.expand(len(batch), -1, -1), clock="action", blind=frozenset({"video"}), read=False)}


@dataclass(frozen=True)
class Config(Blueprint):
    """Alignment with the future.

    Attributes:
        target: models/targets.py.
        tokens: M, as many as the target has; 0 is the policy alone.
        tap: depth as a part of the trunk.
        gap: control steps to the future frame; the paper's is the length of the chunk.
        control: none, or the control arms: current, shuffled.
        centre: none (the paper), batch or instruction: whose mean is taken off the targets.
    """

    target: Blueprint
    tokens: int = 32
    tap: float = 0.75
    gap: int = 16
    control: Control = "none"
    centre: Centre = "none"

    def build(self, sizes: Sizes) -> Objective:
        if self.tokens == 0:
            return Without()
        if self.tokens < 0:
            raise UserError(f"FLARE has future tokens, or none, not {self.tokens}")
        if self.gap < 1:
            raise UserError(f"the future is at least 1 control step ahead, not {self.gap}")
        plan = Plan("future", self.tap, "future", self.gap, self.control, self.centre)
        return Flare(plan, sizes.depth, cast("Target", self.target.build(sizes)), self.tokens, sizes.width)
