"""Residual latents as an auxiliary of any policy: learned queries in the trunk's sequence foresee the latent of the own chunk.

The transformer form of BC-RLA in RLA-WM 2026, arXiv:2605.07079 (extension to vision-language-action models).
    z_hat = Linear(queries after the trunk)                                wmzoo.objectives.rla_head.RlaHead.forward
    L     = 0.05 mean |z_hat - zbar| + 0.05 mean (z_hat - zbar)^2          wmzoo.objectives.bc_rla.latent_errors
The queries see the noisy actions, so they learn the mean of the future given what stands in the sequence.  They stay in the sequence
when the policy plays; their readout and target do not.  Video counts like demonstrations.
We differ: the latent of the whole chunk (published: of every step of it).
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn

from wmzoo.batch import Batch, Needs
from wmzoo.interfaces import Blueprint, Objective, Residuals, Sizes
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.standard import Scaling

from .ahead import Ahead, Control, ResidualTarget
from .bc_rla import latent_errors


class RlaHead(Objective):
    """Queries and their readout; owns the stream "rla".

    Args:
        target: latents.
        width, out: of the trunk's residual stream and of its final output.
    """

    stream = "rla"
    auxiliary = ("readout", "target")

    def __init__(self, target: Ahead, width: int, out: int) -> None:
        super().__init__()
        self.target = target
        self.queries = nn.Parameter(0.02 * torch.randn(target.tokens, width))
        self.readout = nn.Linear(out, target.width)

    def needs(self) -> Needs:
        return Needs(futures=self.target.gaps)

    def settle(self, batches: Iterable[Batch]) -> None:
        self.target.settle(batches)

    def forward(self, batch: Batch) -> Question:
        latent, valid = self.target(batch)

        def score(hidden: Hidden) -> dict[str, Score]:
            l1, mse = latent_errors(self.readout(hidden.final[self.stream]).float(), latent)
            return {"latent_l1": Score(l1, valid), "latent_mse": Score(mse, valid)}

        return Question(self.standing(batch), frozenset(), score)

    def standing(self, batch: Batch) -> dict[str, Stream]:
        return {self.stream: Stream(self.queries.expand(len(batch), -1, -1), blind=frozenset({"video"} - {self.stream}), query=True)}


@dataclass(frozen=True)
class Config(Blueprint):
    """Residual latents as an auxiliary.

    Attributes:
        residuals: models/rla.py, trained by the stage "rla".
        scaling: of the latents.
        control: of the target: "none", "current", "shuffled".
    """

    residuals: Blueprint
    scaling: Scaling = "measured"
    control: Control = "none"

    def build(self, sizes: Sizes) -> RlaHead:
        target = ResidualTarget(cast("Residuals", self.residuals.build(sizes)), sizes.horizon, self.scaling, self.control)
        return RlaHead(target, sizes.width, sizes.out)
