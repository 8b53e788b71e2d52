"""Behaviour cloning by regression: learned queries read the observation, and one head writes the chunk.

The baseline of RLA-WM 2026, arXiv:2605.07079, and the policy that BC-RLA (objectives/bc_rla.py) is built on.
    a_hat = Linear(MLP(flat(queries after the trunk)))            wmzoo.objectives.bc.Bc.read
    L     = mean over valid numbers of (a_hat - A)^2              clone_loss
Nothing is sampled: it is a generator whose stream does not depend on the noise, so that it plays like every other policy.
We differ: the trunk is the zoo's transformer with adaLN-zero blocks and a place for every image token, on a clock that stands still
(published: plain pre-norm blocks without places); an instruction is read (published: one task per network); the state passes two layers
of its robot's own (published: one).
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Denoiser, Sizes
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.shapes import checked


@checked
def clone_loss(predicted: Float[Tensor, "B H A"], action: Float[Tensor, "B H A"], mask: Bool[Tensor, "B H A"]) -> Float[Tensor, "B"]:
    """Squared error averaged over the valid numbers of each window; 0 where there is none."""
    error = torch.where(mask, predicted - torch.where(mask, action, 0.0), 0.0)
    return error.square().sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)


class Bc(Denoiser):
    """Owns the stream "action", which here is learned queries.

    Args:
        queries: how many.
        sizes: of trunk and data.
        hidden: width of the MLP's two layers.
        dropout: in the MLP.
    """

    stream = "action"

    def __init__(self, queries: int, sizes: Sizes, hidden: int, dropout: float) -> None:
        super().__init__()
        if queries < 1 or not 0 <= dropout < 1:
            raise UserError(f"cloning needs at least one query and a dropout from 0 to below 1, not {queries} and {dropout}")
        self.queries = nn.Parameter(0.02 * torch.randn(queries, sizes.width))
        layers = [nn.Linear(queries * sizes.out, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, hidden), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Dropout(dropout))
        self.action_head = nn.Linear(hidden, sizes.horizon * sizes.action)
        self.chunk = (sizes.horizon, sizes.action)
        nn.init.zeros_(self.action_head.weight)
        nn.init.zeros_(self.action_head.bias)

    def forward(self, batch: Batch) -> Question:
        def score(hidden: Hidden) -> dict[str, Score]:
            return self.mark(self.body(hidden.final[self.stream].flatten(1)), batch)

        return Question(self.standing_queries(len(batch)), frozenset(), score)

    def mark(self, features: Float[Tensor, "B F"], batch: Batch) -> dict[str, Score]:
        """The terms of the loss from the MLP's output."""
        return {"action": Score(clone_loss(self.write(features), batch.action, batch.action_mask), batch.has_action)}

    def write(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B H A"]:
        """The chunk."""
        return self.action_head(features).unflatten(1, self.chunk).float()

    def standing_queries(self, count: int) -> dict[str, Stream]:
        """The stream, the same for every window."""
        return {self.stream: Stream(self.queries.expand(count, -1, -1), query=True)}

    def embed(self, noisy: Tensor, clock: Tensor, batch: Batch) -> dict[str, Stream]:
        return self.standing_queries(len(batch))

    def read(self, hidden: Hidden, batch: Batch) -> Tensor:
        return self.write(self.body(hidden.final[self.stream].flatten(1)))

    def sample(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        return predict(noise, torch.zeros(len(noise), device=noise.device))


@dataclass(frozen=True)
class Config(Blueprint):
    """Cloning; the defaults are the paper's.

    Attributes:
        queries: learned ones.
        hidden: width of the MLP's two layers.
        dropout: in the MLP.
    """

    queries: int = 16
    hidden: int = 2048
    dropout: float = 0.1

    def build(self, sizes: Sizes) -> Bc:
        return Bc(self.queries, sizes, self.hidden, self.dropout)
