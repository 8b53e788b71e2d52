"""What does an objective say to the trunk?  It asks (streams, taps) and later marks (scores); it never calls the trunk."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from .shapes import checked


@dataclass(frozen=True)
class Stream:
    """Named tokens in the trunk's sequence, already as wide as the trunk.

    Attributes:
        tokens: what the trunk reads.
        clock: zoo time (0 noise, 1 data), one per window or one per token; the name of another stream shares its clock;
            None is clean, which is the same as a clock of 1.
        keep: False marks padding, which nobody attends to; None keeps every token.
        blind: streams that these tokens may not attend to, nor to those that borrow their clock; streams without a clock may then
            not attend to them either, so that none of them passes on what it sees.
        frame: the frame each token belongs to; tokens then attend only to their own stream's frames up to their own.
        read: False promises that nobody reads these tokens after the last block; a trunk need not compute what only they would need.
        query: learned tokens that ask, whose answer an objective reads: no condition, even without a clock.  They see what they are not
            blind to, and who may not see that may not look at them.
    """

    tokens: Float[Tensor, "B N D"]
    clock: Float[Tensor, "B"] | Float[Tensor, "B N"] | str | None = None
    keep: Bool[Tensor, "B N"] | None = None
    blind: frozenset[str] = frozenset()
    frame: Int[Tensor, "N"] | None = None
    read: bool = True
    query: bool = False


@dataclass(frozen=True)
class Hidden:
    """What the trunk gives back.  `hidden[tap]["action"]` is the residual stream after block `tap`; tap 0 is the input.

    Attributes:
        taps: the depths that were asked for, raw and in the autograd graph.
        final: every stream that is read after the last block and the output norm; a trunk may add others.
    """

    taps: Mapping[int, Mapping[str, Tensor]]
    final: Mapping[str, Tensor]

    def __getitem__(self, tap: int) -> Mapping[str, Tensor]:
        return self.taps[tap]


@dataclass(frozen=True)
class Score:
    """One number for each window, and whether (or how much) it counts.

    Attributes:
        value: the loss of each window; where it does not count it may be anything, even NaN.
        weight: True or False, or a number such as the count of valid elements (GR00T's reduction).

    Raises:
        ValueError: value and weight are not both (B,); nothing is broadcast.
    """

    value: Float[Tensor, "B"]
    weight: Bool[Tensor, "B"] | Float[Tensor, "B"]

    def __post_init__(self) -> None:
        if self.value.ndim != 1 or self.value.shape != self.weight.shape:
            shapes = f"a value {tuple(self.value.shape)} with a weight {tuple(self.weight.shape)}"
            raise ValueError(f"a score has one value and one weight for each window, not {shapes}")

    @checked
    def mean(self) -> Float[Tensor, ""]:
        """Weighted mean over the windows that count; exactly 0 with a gradient of 0 where none does."""
        counts = self.weight > 0
        value = torch.where(counts, self.value, 0.0)
        weight = torch.where(counts, self.weight.to(value.dtype), 0.0)
        return (value * weight).sum() / torch.where(counts.any(), weight.sum(), 1.0)


@dataclass(frozen=True)
class Question:
    """What an objective wants of one pass through the trunk.

    Attributes:
        streams: the streams this objective adds, by name; a stream has one owner.
        taps: the depths at which it wants to see the residual stream of any stream.
        score: from the hidden states to one Score per term of the loss.
        watch: from the hidden states to numbers that are logged at every validation, without a gradient; None watches nothing.
            One whose name begins with "alarm" is announced to whoever trains when it is not 0.
    """

    streams: Mapping[str, Stream]
    taps: frozenset[int]
    score: Callable[[Hidden], dict[str, Score]]
    watch: Callable[[Hidden], dict[str, Tensor]] | None = None
