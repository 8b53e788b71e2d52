"""LAPA: codes of a frozen latent action model as labels; the trunk first learns to say what will happen, and no action is read.

Ye et al. 2024, Latent Action Pretraining from Videos (LAPA), arXiv:2410.11758; Chen et al. 2024, Moto, arXiv:2412.04445.
    L = mean over K tokens of -ln p(code_k | o_0, instruction, state)     code_loss
    p = softmax(Linear(h[query_k]))                                Lapa
Then the head is thrown away and the trunk is fine-tuned on actions (experiments/lapa.py).
We differ: both papers say the codes one after the other with a language model; here K queries say them at once.  The papers
condition on frame and instruction; here the observer also shows the robot's state to the trunk, in the windows where it was
recorded (a learned null state in video), as it does when the policy is trained.  A fresh head is zero, so the first loss is the
logarithm of the number of codes.
Not built: LAPA's own latent action model at its paper size (LAQ, 343,796,080 parameters), of which models/quantise.py has NSVQ; Moto-GPT.
"""

from dataclasses import dataclass
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, LatentActions, Objective, Sizes
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.shapes import checked


@checked
def code_loss(logits: Float[Tensor, "B K N"], code: Int[Tensor, "B K"]) -> Float[Tensor, "B"]:
    """Cross-entropy averaged over the tokens of each window, in nats."""
    return cross_entropy(logits.transpose(1, 2), code, reduction="none").mean(dim=1)


class Lapa(Objective):
    """K queries whose final hidden states name the codes.

    Args:
        lam: discrete; it stays as it is.
        gap: control steps to the future frame.
        width, out: of the trunk and of its final output.
    """

    auxiliary = ("head", "lam")

    def __init__(self, lam: LatentActions, gap: int, width: int, out: int) -> None:
        super().__init__()
        if not lam.codes:
            raise UserError("this latent action model is continuous: there are no codes to predict; choose vq, legacy, nsvq or fsq")
        lam.freeze()
        self.lam, self.gap = lam, gap
        self.queries = nn.Parameter(0.02 * torch.randn(lam.tokens, width))
        self.head = nn.Linear(out, lam.codes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def needs(self) -> Needs:
        return Needs(futures=(self.gap,))

    @torch.no_grad()
    def codes(self, batch: Batch) -> Int[Tensor, "B K"]:
        """The labels."""
        codes = self.lam.quantise(self.lam.encode(batch, self.gap), batch.has_future[:, batch.column(self.gap)]).codes
        return torch.zeros(len(batch), self.lam.tokens, dtype=torch.long, device=batch.sample.device) if codes is None else codes

    def forward(self, batch: Batch) -> Question:
        label, valid = self.codes(batch), batch.has_future[:, batch.column(self.gap)]

        def logits(hidden: Hidden) -> Float[Tensor, "B K N"]:
            return self.head(hidden.final["code"]).float()

        def score(hidden: Hidden) -> dict[str, Score]:
            return {"code": Score(code_loss(logits(hidden), label), valid)}

        def watch(hidden: Hidden) -> dict[str, Tensor]:
            if not valid.any():
                return {}
            right, own = (logits(hidden).argmax(dim=-1) == label)[valid], label[valid]
            usual = torch.stack([(column == column.mode().values).float().mean() for column in own.unbind(dim=1)]).mean()
            return {"accuracy": right.float().mean(), "accuracy_of_the_usual_code": usual}

        return Question(self.standing(batch), frozenset(), score, watch)

    def standing(self, batch: Batch) -> dict[str, Stream]:
        return {"code": Stream(self.queries.expand(len(batch), -1, -1), blind=frozenset({"video"}), query=True)}


@dataclass(frozen=True)
class Config(Blueprint):
    """Codes as labels.

    Attributes:
        lam: models/lam.py, trained before.
        gap: control steps to the future frame.
    """

    lam: Blueprint
    gap: int = 16

    def build(self, sizes: Sizes) -> Lapa:
        return Lapa(cast("LatentActions", self.lam.build(sizes)), self.gap, sizes.width, sizes.out)
