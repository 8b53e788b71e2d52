"""Alignment: pull hidden states of one stream, at one depth, toward an embedding of a frame.  The base of REPA and FLARE.

Yu et al. 2024, Representation Alignment for Generation (REPA), arXiv:2410.06940;
Zheng et al. 2025, FLARE, arXiv:2505.15659.
    L = mean over tokens of 1 - cos(g(h_tap), sg[target])   align_loss
What is watched at every validation, since a loss near 0 may also mean that all targets are the same vector:
    deviation over windows, averaged over tokens and numbers   spread
    cosine of two different windows, averaged over pairs and tokens   likeness
    share of windows whose prediction is nearest to its own future, of all in the batch   retrieved
We may differ in one thing: what all windows share, or all windows with the same instruction, can be taken off the targets first
    target - mean over the windows of its group in the batch   centred
An embedding that reads the instruction is nearly constant for one task (LOG.md), so the plain cosine is 0.99 for a prediction that
has only read the instruction.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, assert_never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize, one_hot

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.interfaces import Aligned, Target
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.shapes import checked

Control = Literal["none", "current", "shuffled"]
Centre = Literal["none", "batch", "instruction"]
ALIKE = 0.95  # mean cosine between targets of the same instruction from which on aligning with them is called trivial
STILL = 0.02  # deviation of targets as the loss sees them, as a part of their raw size, below which they are called collapsed: bf16
# rounds a target by 0.002 of its size


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


def exactly(tensor: Tensor) -> torch.autocast:
    """A place where products are not rounded: under bf16 autocast small differences between vectors that are nearly alike vanish."""
    return torch.autocast("cpu" if tensor.is_meta else tensor.device.type, enabled=False)


@checked
def spread(tokens: Float[Tensor, "B M E"]) -> Float[Tensor, ""]:
    """Standard deviation over the windows, averaged over tokens and numbers; 0 is a collapse."""
    return tokens.std(dim=0, unbiased=False).mean()


@checked
def cosines(tokens: Float[Tensor, "A M E"], others: Float[Tensor, "B M E"]) -> Float[Tensor, "A B"]:
    """Cosine of every window with every other one, averaged over tokens; in float32 whatever the precision around it."""
    with exactly(tokens):
        return torch.einsum("amd,bmd->ab", normalize(tokens.float(), dim=-1), normalize(others.float(), dim=-1)) / tokens.shape[1]


@checked
def likeness(tokens: Float[Tensor, "B M E"], group: Int[Tensor, "B"]) -> Float[Tensor, ""]:
    """Mean cosine between the same token of two different windows of one group; 1 is a collapse; 0 if no group has two windows."""
    pairs = (group[:, None] == group[None, :]).float().fill_diagonal_(0)
    return (cosines(tokens, tokens) * pairs).sum() / pairs.sum().clamp(min=1)


@checked
def centred(target: Float[Tensor, "B M E"], group: Int[Tensor, "B"], valid: Bool[Tensor, "B"]) -> Float[Tensor, "B M E"]:
    """The targets without the mean of the valid windows of their group."""
    member = one_hot(group, len(group)).to(target.dtype)  # as many groups as windows, at most
    counts = member * valid[:, None]
    clean = torch.where(valid[:, None, None], target, 0.0)
    with exactly(target):
        mean = torch.einsum("bg,bme->gme", counts, clean) / counts.sum(dim=0).clamp(min=1)[:, None, None]
        return target - torch.einsum("bg,gme->bme", member, mean)


@checked
def retrieved(prediction: Float[Tensor, "B M E"], target: Float[Tensor, "B M E"]) -> Float[Tensor, ""]:
    """Share of windows whose own target has the highest mean cosine of all targets; chance is 1/B."""
    return (cosines(prediction, target).argmax(dim=1) == torch.arange(len(target), device=target.device)).float().mean()


@dataclass(frozen=True)
class Plan:
    """What every alignment is told.

    Attributes:
        stream: whose hidden states are pulled, all of them.
        tap: depth as a part of the trunk, rounded to a block; half a block up.
        which: the frame of the target.
        gap: control steps to the future frame; 0 needs none.
        control: "none"; "current" aligns with the present frame; "shuffled" with the target of the next window in the batch.
        centre: what is taken off the targets before the cosine: nothing, the mean of the batch, or of the same instruction in it.
    """

    stream: str
    tap: float
    which: Literal["now", "future"]
    gap: int
    control: Control
    centre: Centre


class Align(Aligned):
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

    auxiliary = ("project", "target")

    def __init__(self, plan: Plan, depth: int, target: Target, projector: Callable[[int], nn.Module], tokens: int) -> None:
        super().__init__()
        if not 0 <= plan.tap <= 1:
            raise UserError(f"tap {plan.tap} is no part of the trunk: say 0 (its input) to 1 (after its last block)")
        self.plan, self.tap, self.tokens = plan, int(plan.tap * depth + 0.5), tokens
        self.gap = plan.gap if plan.which == "future" else 0
        self.target, self.projector = target, projector

    def join(self, observer: nn.Module) -> None:
        self.target.join(observer)
        self.project = self.projector(self.target.width)
        if self.target.tokens != self.tokens:
            raise UserError(f"{self.tokens} hidden tokens cannot be compared with a target of {self.target.tokens}: set `tokens` to these")

    def after_step(self, observer: nn.Module) -> None:
        self.target.after_step(observer)

    def needs(self) -> Needs:
        return Needs(futures=(self.plan.gap,) if self.plan.gap else ())

    def forward(self, batch: Batch) -> Question:
        moment = "now" if self.plan.control == "current" else self.plan.which
        valid = self.valid(batch)
        wanted = self.centre(self.embed(batch, moment), batch, valid)
        if self.plan.centre == "instruction":  # a window alone with its instruction is its own mean
            group = instructions(batch)
            valid = valid & (((group[:, None] == group[None, :]) & valid).sum(dim=1) > 1)
        counted = valid
        if self.plan.control == "shuffled":
            wanted, valid = wanted.roll(1, dims=0), valid & valid.roll(1)
        wanted = torch.where(valid[:, None, None], wanted, 0.0)  # NaN in a frame that does not count must not reach a gradient

        def score(hidden: Hidden) -> dict[str, Score]:
            return {"align": Score(align_loss(self.predict(hidden), wanted), valid)}

        return Question(self.standing(batch), frozenset({self.tap}), score, self.watching(batch, counted))

    def embed(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B M E"]:
        """The target's tokens of the present or of the future frame, raw."""
        frames = self.target(batch, which).detach().float()
        return frames[:, batch.column(self.plan.gap) if which == "future" else -1]

    def wanted(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B M E"]:
        return self.centre(self.embed(batch, which), batch, self.valid(batch))

    def centre(self, target: Float[Tensor, "B M E"], batch: Batch, valid: Bool[Tensor, "B"]) -> Float[Tensor, "B M E"]:
        """The target as the loss sees it."""
        match self.plan.centre:
            case "none":
                return target
            case "batch":
                return centred(target, torch.zeros_like(batch.sample), valid)
            case "instruction":
                return centred(target, instructions(batch), valid)
            case _:
                assert_never(self.plan.centre)

    def valid(self, batch: Batch) -> Bool[Tensor, "B"]:
        """The windows that have what this alignment needs."""
        if self.plan.gap:
            return batch.has_future[:, batch.column(self.plan.gap)]
        return torch.ones(len(batch), dtype=torch.bool, device=batch.image.device)

    def predict(self, hidden: Hidden) -> Float[Tensor, "B M E"]:
        """The projected hidden states.

        Raises:
            UserError: the trunk has no such stream, or not as many tokens as the target.
        """
        tokens = self.pulled(tapped(hidden, self.tap, self.plan.stream))
        if tokens.shape[1] != self.tokens:
            raise UserError(
                f"the stream {self.plan.stream!r} has {tokens.shape[1]} tokens, its target {self.tokens}: choose another stream"
            )
        return self.project(tokens).float()

    def pulled(self, tokens: Float[Tensor, "B N D"]) -> Float[Tensor, "B M D"]:
        """Those of the stream's tokens that have a counterpart in the target."""
        return tokens

    def watching(self, batch: Batch, valid: Bool[Tensor, "B"]) -> Callable[[Hidden], dict[str, Tensor]]:
        """Spread and likeness of predictions and targets; retrieval of the own frame, by chance and by a copy of the present.

        The targets are those of a window's own frame, whatever the control exchanges.
        """

        def watch(hidden: Hidden) -> dict[str, Tensor]:
            if valid.sum() < 2:  # nothing to compare
                return {}
            raw = self.embed(batch, self.plan.which)
            mine, target = (x[valid] for x in (self.predict(hidden), self.centre(raw, batch, valid)))
            group, everyone = instructions(batch)[valid], torch.zeros_like(batch.sample[valid])
            alike, size = likeness(target, group), raw[valid].square().mean().sqrt()
            seen = {
                "target_std": spread(raw[valid]),
                "target_std_as_seen": spread(target),
                "target_cosine": likeness(target, everyone),
                "target_cosine_same_instruction": alike,
                "prediction_std": spread(mine),
                "prediction_cosine": likeness(mine, everyone),
                "retrieval": retrieved(mine, target),
                "retrieval_by_chance": 1 / valid.sum(),
                "alarm: the targets of an instruction are alike": (alike > ALIKE).float(),
                "alarm: the targets have collapsed": (spread(target) < STILL * size).float(),
            }
            if self.plan.which == "future":
                seen["retrieval_by_copy"] = retrieved(self.centre(self.embed(batch, "now"), batch, valid)[valid], target)
            return seen

        return watch

    def standing(self, batch: Batch) -> dict[str, Stream]:
        return {}


def tapped(hidden: Hidden, tap: int, stream: str) -> Float[Tensor, "B N D"]:
    """The hidden states of a stream at a depth.

    Raises:
        UserError: the trunk's sequence has no such stream, such as an observation that is only looked at.
    """
    streams = hidden[tap]
    if stream not in streams:
        raise UserError(f"the stream {stream!r} has no hidden states in this trunk: tap one of {', '.join(sorted(streams))}")
    return streams[stream]


def instructions(batch: Batch) -> Int[Tensor, "B"]:
    """The number of each window's instruction among those of the batch."""
    return torch.zeros_like(batch.sample) if batch.text.is_meta else batch.text.unique(dim=0, return_inverse=True)[1]
