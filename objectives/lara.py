"""LARA: the policy and a latent action model train each other, through one cosine between an action token and a latent.

Liu et al. 2026, LARA: Latent Action Representation Alignment for Vision-Language-Action Models, arXiv:2606.07100; the latent
action model is Moto's, arXiv:2412.04445 (objectives/lam.py).
    L_lara = 1 - cos(f(h_tap[last action]), flat(z)), one cosine over all K Z numbers   agreement
    z      = latent of (o_0 -> o_H) before quantisation, with gradient                  wmzoo.interfaces.LatentActions.encode
    f      = Linear(D -> K Z)                                                           Lara
    L      = L_fm + 0.01 L_lara + 0.01 L_LAM                                            experiments/lara.py
    L_LAM                                                                               objectives/lam.py
The token is that of the last action of the chunk that was recorded.  The tap is two blocks before the end (the text says the
second-to-last layer, the code taps this one).  The gradient of L_lara reaches the blocks up to the tap, the observer, the action
encoder, and the M-Former with its down-projection; not the codes, not the painter, not a frozen encoder.
With several gaps the target is the mean of their latents and L_LAM the mean of theirs.
We differ: the future frame is o_H, the state the chunk reaches (the code takes o_{H-1}); windows without actions or without that
frame have no L_lara (with them: objectives/lara_video.py).
"""

from dataclasses import dataclass
from typing import ClassVar, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, LatentActions, Objective, Sizes
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked

from .align import STILL, Control, likeness, retrieved, spread, tapped
from .lam import Painting

Token = Literal["last", "mean"]


@checked
def agreement(prediction: Float[Tensor, "B N"], latent: Float[Tensor, "B K Z"]) -> Float[Tensor, "B"]:
    """One minus the cosine of a prediction with a whole latent; one cosine over its K Z numbers, not one for each token.

    Args:
        prediction: as many numbers as the latent has; a gradient flows into both.

    Returns:
        One number for each window, from 0 (same direction) to 2 (opposite).  No unit.

    Raises:
        TypeCheckError: the windows differ in number.
        ValueError: the numbers do.
    """
    flat = latent.flatten(1)
    if prediction.shape != flat.shape:
        raise ValueError(f"a prediction of {prediction.shape[1]} numbers cannot agree with a latent of {flat.shape[1]}")
    return 1 - cosine_similarity(prediction, flat, dim=-1)


@checked
def chosen(tokens: Float[Tensor, "B H D"], recorded: Bool[Tensor, "B H"], token: Token) -> Float[Tensor, "B D"]:
    """The token of the last recorded action, or the mean over the recorded ones; the first where none was."""
    if token == "mean":
        weight = recorded[..., None].to(tokens.dtype)
        return (tokens * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)
    place = torch.arange(recorded.shape[1], device=recorded.device)
    last = torch.where(recorded, place, 0).amax(dim=1)
    return tokens.gather(1, last[:, None, None].expand(-1, 1, tokens.shape[-1]))[:, 0]


class Lara(Objective):
    """Adds no token: it looks at the policy's own action tokens.

    Args:
        lam: the latent action model, which learns along unless it is frozen.
        width, depth: of the trunk.
        tap: block whose output is read; below 0 it counts from the last (-2 is two blocks before the end).
        token: which action.
        gaps: control steps to each future frame.
        detach: the agreement does not teach the latent action model.
        frozen: nothing does; the term "lam" is then absent.
        control: "none"; "current" agrees with the motion from the present frame to itself, "shuffled" with another window's.
    """

    auxiliary = ("head", "lam")

    def __init__(
        self,
        lam: LatentActions,
        width: int,
        depth: int,
        tap: int,
        token: Token,
        gaps: tuple[int, ...],
        detach: bool,
        frozen: bool,
        control: Control,
    ) -> None:
        super().__init__()
        if not -depth <= tap <= depth:
            raise UserError(f"tap {tap} does not exist: this trunk has blocks 1 to {depth} (or -1 to -{depth} from the end)")
        if not gaps or min(gaps) < 1:
            raise UserError(f"gaps are one or more numbers of control steps, each at least 1, not {gaps}")
        self.lam, self.head = lam, nn.Linear(width, lam.tokens * lam.width)
        self.tap, self.gaps = tap if tap >= 0 else depth + tap, gaps
        self.token: Token = token
        self.detach, self.frozen, self.control = detach, frozen, control
        if frozen:
            lam.freeze()

    def needs(self) -> Needs:
        return Needs(futures=self.gaps)

    def target(self, batch: Batch, latents: list[Tensor]) -> tuple[Float[Tensor, "B K Z"], Bool[Tensor, "B"]]:
        """What the action token should agree with, and the windows that have it."""
        valid = torch.stack([batch.has_future[:, batch.column(gap)] for gap in self.gaps]).all(dim=0)
        latent = self.lam.encode(batch, 0) if self.control == "current" else torch.stack(latents).mean(dim=0)
        if self.control == "shuffled":
            latent, valid = latent.roll(1, 0), valid & valid.roll(1, 0)
        return (latent.detach() if self.detach else latent), valid

    def forward(self, batch: Batch) -> Question:
        latents = [self.lam.encode(batch, gap) for gap in self.gaps]
        target, valid = self.target(batch, latents)
        paintings = [] if self.frozen else self.paintings(batch, latents)

        def score(hidden: Hidden) -> dict[str, Score]:
            scores = {"align": Score(agreement(self.predict(hidden, batch), target), valid & self.recorded(batch).any(dim=1))}
            if paintings:
                each = [torch.stack(list(painting.parts().values())).sum(dim=0) for painting in paintings]
                there = torch.stack([painting.valid for painting in paintings])
                total = torch.where(there, torch.stack(each), 0.0).sum(dim=0) / there.sum(dim=0).clamp(min=1)
                scores["lam"] = Score(total, there.any(dim=0))
            return scores

        def watch(hidden: Hidden) -> dict[str, Tensor]:
            return self.watching(hidden, batch, target, valid, (paintings or self.paintings(batch, latents))[0])

        return Question({}, frozenset({self.tap}), score, watch)

    def paintings(self, batch: Batch, latents: list[Tensor]) -> list[Painting]:
        """The future frames as the model paints them."""
        return [Painting(self.lam, batch, gap, latent, True) for gap, latent in zip(self.gaps, latents, strict=True)]

    def predict(self, hidden: Hidden, batch: Batch) -> Float[Tensor, "B N"]:
        """f of the chosen action token."""
        tokens = tapped(hidden, self.tap, "action")
        return self.head(chosen(tokens, self.recorded(batch), self.token)).float()

    def recorded(self, batch: Batch) -> Bool[Tensor, "B H"]:
        """The actions whose tokens may be chosen; a window without any has no agreement."""
        return batch.action_mask.any(dim=-1)

    def watching(self, hidden: Hidden, batch: Batch, target: Tensor, valid: Tensor, painting: Painting) -> dict[str, Tensor]:
        """Spread and likeness of the latents, retrieval of the own one, and what a latent action model shows of itself."""
        rows = valid & self.recorded(batch).any(dim=1)
        if rows.sum() < 2:
            return {}
        mine, latent = self.predict(hidden, batch)[rows, None], target.float().flatten(1)[rows, None]
        everyone = torch.zeros_like(batch.sample[rows])
        return painting.watch() | {
            "latent_std": spread(latent),
            "latent_cosine": likeness(latent, everyone),
            "prediction_cosine": likeness(mine, everyone),
            "retrieval": retrieved(mine, latent),
            "retrieval_by_chance": 1 / rows.sum(),
            "alarm: the latents have collapsed": (spread(latent) < STILL * latent.square().mean().sqrt()).float(),
        }


@dataclass(frozen=True)
class Config(Blueprint):
    """Agreement of a policy and a latent action model.

    Attributes:
        lam: models/lam.py.
        tap: as in Lara.
        token: last (the paper) or mean.
        gaps: control steps to each future frame; the paper's one is the length of the chunk.
        detach, frozen: what the latent action model may learn from.
        control: none, or the control arms: current, shuffled.
    """

    lam: Blueprint
    tap: int = -2
    token: Token = "last"
    gaps: tuple[int, ...] = (16,)
    detach: bool = False
    frozen: bool = False
    control: Control = "none"

    kind: ClassVar[type[Lara]] = Lara

    def build(self, sizes: Sizes) -> Lara:
        lam = cast("LatentActions", self.lam.build(sizes))
        return self.kind(lam, sizes.width, sizes.depth, self.tap, self.token, self.gaps, self.detach, self.frozen, self.control)
