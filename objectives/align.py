"""Alignment: pull hidden states of one stream, at one depth, toward an embedding of a frame.  The base of REPA and FLARE.

Yu et al. 2024, Representation Alignment for Generation (REPA), arXiv:2410.06940;
Zheng et al. 2025, FLARE, arXiv:2505.15659.
    L = mean over tokens of 1 - cos(g(h_tap), sg[target])   align_loss
What is watched at every validation, since a loss near 0 may also mean that all targets are the same vector:
    deviation over windows, averaged over tokens and numbers   spread
    cosine of two different windows, averaged over pairs and tokens   likeness
    share of windows whose prediction is nearest to its own future, of all in the batch   retrieved
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.interfaces import Objective, Target
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.shapes import checked

Control = Literal["none", "current", "shuffled"]
Statistics = Literal["none", "centre", "standardise"]
ALIKE = 0.95  # mean cosine between targets of different windows from which on the task is called trivial


@checked
def align_loss(prediction: Float[Tensor, "B M E"], target: Float[Tensor, "B M E"]) -> Float[Tensor, "B"]:
    """One minus the cosine of each token with its own target, averaged over tokens.

    Args:
        prediction: projected hidden states.
        target: embedding of the frame; no gradient flows into it.

    Returns:
        One number for each window, from 0 (same direction) to 2 (opposite).  No unit.

    Raises:
        TypeCheckError: prediction and target differ in any dimension; nothing is broadcast.
    """
    return (1 - cosine_similarity(prediction, target.detach(), dim=-1)).mean(dim=-1)


@checked
def spread(tokens: Float[Tensor, "B M E"]) -> Float[Tensor, ""]:
    """Standard deviation over the windows, averaged over tokens and numbers; 0 is a collapse."""
    return tokens.std(dim=0, unbiased=False).mean()


@checked
def likeness(tokens: Float[Tensor, "B M E"]) -> Float[Tensor, ""]:
    """Mean cosine between the same token of two different windows; 1 is a collapse, and so is a single window."""
    unit = normalize(tokens, dim=-1)
    n, m = tokens.shape[:2]
    pairs = torch.einsum("amd,bmd->", unit, unit) - n * m
    return pairs / max(1, n * (n - 1) * m) if n > 1 else torch.ones_like(pairs)


@checked
def retrieved(prediction: Float[Tensor, "B M E"], target: Float[Tensor, "B M E"]) -> Float[Tensor, ""]:
    """Share of windows whose own target has the highest mean cosine of all targets; chance is 1/B."""
    nearest = torch.einsum("amd,bmd->ab", normalize(prediction, dim=-1), normalize(target, dim=-1)).argmax(dim=1)
    return (nearest == torch.arange(len(target), device=target.device)).float().mean()


class Standard(nn.Module):
    """Running mean and variance of targets, and what is done with them.

    A mean that all frames share makes every cosine look perfect; "centre" subtracts it, "standardise" also divides by the deviation.

    Args:
        kind: "none" is the paper.
        tokens, width: of the targets.
        momentum: of the running statistics; they begin as the first batch's.
    """

    mean: Tensor
    square: Tensor
    seen: Tensor

    def __init__(self, kind: Statistics, tokens: int, width: int, momentum: float = 0.02) -> None:
        super().__init__()
        self.kind, self.momentum = kind, momentum
        self.register_buffer("mean", torch.zeros(tokens, width))
        self.register_buffer("square", torch.ones(tokens, width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def observe(self, target: Float[Tensor, "B M E"], valid: Bool[Tensor, "B"]) -> None:
        """Move the statistics toward those of the valid windows of a batch."""
        weight = valid.float()[:, None, None] / valid.sum().clamp(min=1)
        share = torch.where(valid.any(), torch.where(self.seen, self.momentum, 1.0), 0.0)
        clean = torch.where(valid[:, None, None], target, 0.0)
        self.mean.lerp_((clean * weight).sum(0), share)
        self.square.lerp_((clean.square() * weight).sum(0), share)
        self.seen |= valid.any()

    def forward(self, target: Float[Tensor, "B M E"]) -> Float[Tensor, "B M E"]:
        match self.kind:
            case "none":
                return target
            case "centre":
                return target - self.mean
            case "standardise":
                return (target - self.mean) / (self.square - self.mean.square()).clamp(min=1e-6).sqrt()
            case _:
                assert_never(self.kind)


@dataclass(frozen=True)
class Plan:
    """What every alignment is told.

    Attributes:
        stream: whose hidden states are pulled; the first of its tokens if it has more than the target.
        tap: depth as a part of the trunk, rounded to a block.
        which: the frame of the target.
        gap: control steps to the future frame; 0 needs none.
        control: "none"; "current" aligns with the present frame; "shuffled" with the target of the next window in the batch.
        statistics: what is done with the targets before the cosine.
    """

    stream: str
    tap: float
    which: Literal["now", "future"]
    gap: int
    control: Control
    statistics: Statistics


class Align(Objective):
    """Projected hidden states against a target.

    Args:
        plan: stream, depth, frame, control.
        depth: blocks of the trunk.
        target: the embedding of a frame; how wide it is may be known only when it has joined the observer.
        projector: from the width of the target to the network from hidden states to it.
        tokens: how many are compared; must be as many as the target has.

    Raises:
        UserError: the tap is no part of the trunk.
    """

    auxiliary = ("project", "target", "standard")

    def __init__(self, plan: Plan, depth: int, target: Target, projector: Callable[[int], nn.Module], tokens: int) -> None:
        super().__init__()
        if not 0 <= plan.tap <= 1:
            raise UserError(f"tap {plan.tap} is no part of the trunk: say 0 (its input) to 1 (after its last block)")
        self.plan, self.tap, self.tokens = plan, round(plan.tap * depth), tokens
        self.target, self.projector = target, projector

    def join(self, observer: nn.Module) -> None:
        self.target.join(observer)
        self.project = self.projector(self.target.width)
        self.standard = Standard(self.plan.statistics, self.tokens, self.target.width)
        if self.target.tokens != self.tokens:
            raise UserError(f"{self.tokens} hidden tokens cannot be compared with a target of {self.target.tokens}: set `tokens` to these")

    def after_step(self, observer: nn.Module) -> None:
        self.target.after_step(observer)

    def needs(self) -> Needs:
        return Needs(futures=(self.plan.gap,) if self.plan.gap else ())

    def forward(self, batch: Batch) -> Question:
        moment = "now" if self.plan.control == "current" else self.plan.which
        wanted, valid = self.embed(batch, moment), self.valid(batch)
        if self.training:
            self.standard.observe(wanted, valid)
        wanted = self.standard(wanted)
        if self.plan.control == "shuffled":
            wanted, valid = wanted.roll(1, dims=0), valid & valid.roll(1)

        def score(hidden: Hidden) -> dict[str, Score]:
            return {"align": Score(align_loss(self.predict(hidden), wanted), valid)}

        return Question(self.standing(batch), frozenset({self.tap}), score, self.watching(batch, wanted))

    def embed(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B M E"]:
        """The target's tokens of the present or of the future frame, raw."""
        frames = self.target(batch, which).detach().float()
        return frames[:, batch.column(self.plan.gap) if which == "future" else -1]

    def valid(self, batch: Batch) -> Bool[Tensor, "B"]:
        """The windows that have what this alignment needs."""
        if self.plan.gap:
            return batch.has_future[:, batch.column(self.plan.gap)]
        return torch.ones(len(batch), dtype=torch.bool, device=batch.image.device)

    def predict(self, hidden: Hidden) -> Float[Tensor, "B M E"]:
        """The projected hidden states."""
        return self.project(hidden[self.tap][self.plan.stream][:, : self.tokens]).float()

    def watching(self, batch: Batch, wanted: Tensor) -> Callable[[Hidden], dict[str, Tensor]]:
        """Spread and likeness of predictions and targets; retrieval of the own frame; what a copy of the present would retrieve."""

        def watch(hidden: Hidden) -> dict[str, Tensor]:
            rows = self.valid(batch)
            if rows.sum() < 2:  # nothing to compare
                return {}
            mine, target = self.predict(hidden)[rows], wanted[rows]
            own = self.standard(self.embed(batch, self.plan.which))[rows]
            alike = likeness(target)
            seen = {
                "target_std": spread(target),
                "target_cosine": alike,
                "prediction_std": spread(mine),
                "prediction_cosine": likeness(mine),
                "retrieval": retrieved(mine, own),
                "alarm: the targets of all windows are alike": (alike > ALIKE).float(),
            }
            if self.plan.which == "future":
                seen["retrieval_by_copy"] = retrieved(self.standard(self.embed(batch, "now"))[rows], own)
            return seen

        return watch

    def standing(self, batch: Batch) -> dict[str, Stream]:
        return {}
