"""The trunk: named streams, a clock for each, one residual stream, taps at any depth.

Peebles and Xie 2023, DiT, arXiv:2212.09748 (adaLN-zero blocks); Bjorck et al. 2025, GR00T N1, arXiv:2503.14734 (alternation);
Black et al. 2024, pi0, arXiv:2410.24164 (one sequence in which the observation is blind to the rest).
Three ways to condition on the stream "observation": in the sequence ("joint"), by cross-attention in every block ("cross"), or
alternating, cross-attention in blocks 1, 3, ... and self-attention in blocks 2, 4, ... ("alternate").  Everything that reads out
of a block starts at zero, so an untrained trunk passes its input through.
We differ from DiT: blocks are modulated by the clock alone, neither by a summary of the condition, which is looked at, nor by the kind of a
stream, which its own tokens carry.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Memory, Sizes, Trunk
from wmzoo.question import Hidden, Stream

from .attention import MLP, OBSERVATION, Attention, cross_mask, self_mask, silence, sinusoid

Conditioning = Literal["joint", "cross", "alternate"]


class Clocks(nn.Module):
    """The clocks of all streams as one condition vector per distinct clock, and which token listens to which.

    Streams that share a clock share its vector: modulation is computed once per clock, not once per token.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU())

    def forward(self, streams: Mapping[str, Stream]) -> tuple[Tensor, Tensor | None]:
        """Condition (B, G, D) and the choice (N, G) of one of G for each token; None where there is only one clock."""
        first = next(iter(streams.values())).tokens
        clean = torch.ones(len(first), device=first.device)
        clocks: list[Tensor] = []
        columns: list[Tensor] = []
        for stream in streams.values():
            time, n = resolve_clock(streams, stream, clean), stream.tokens.shape[1]
            if time.ndim == 1:
                known = [i for i, other in enumerate(clocks) if other is time]
                if not known:
                    clocks.append(time)
                columns.append(torch.full((n,), known[0] if known else len(clocks) - 1))
            else:
                columns.append(torch.arange(n) + len(clocks))
                clocks.extend(time.unbind(dim=1))
        condition = self.embed(sinusoid(1000 * torch.stack(clocks, dim=1), 256, last=128).to(self.embed[0].weight.dtype))
        if len(clocks) == 1:
            return condition, None
        choice = nn.functional.one_hot(torch.cat(columns), len(clocks))
        return condition, choice.to(first.device, condition.dtype)


def resolve_clock(streams: Mapping[str, Stream], stream: Stream, clean: Tensor) -> Tensor:
    """The clock of a stream: its own, that of the stream it names, or clean.

    Raises:
        ValueError: it names a stream that is not there, or one that has no clock of its own; or the clock is neither one for each
            window nor one for each token.
    """
    time = stream.clock
    if isinstance(time, str):
        owner = streams.get(time)
        if owner is None or isinstance(owner.clock, str):
            raise ValueError(f"a stream shares the clock of {time!r}, which has none here; streams: {sorted(streams)}")
        time = owner.clock
    if time is None:
        return clean
    windows, tokens = len(clean), stream.tokens.shape[1]
    if time.shape not in ((windows,), (windows, tokens)):
        raise ValueError(f"a clock is ({windows},) or ({windows}, {tokens}), one for each window or token, not {tuple(time.shape)}")
    return time


class Block(nn.Module):
    """Pre-norm attention and MLP, scaled, shifted and gated by the clock.  The identity at initialisation.

    Args:
        width, heads: of the trunk.
        context: width of the condition, 0 for none.
        alone: the block has self-attention (a cross-attention block of the alternation has not).
    """

    def __init__(self, width: int, heads: int, context: int, alone: bool) -> None:
        super().__init__()
        self.norm_attn = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.norm_mlp = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.self_attn = Attention(width, heads) if alone else None
        self.cross_attn = Attention(width, heads, context) if context else None
        if alone and context:
            self.norm_cross = nn.LayerNorm(width, eps=1e-6)
        self.mlp = MLP(width, 4 * width)
        self.modulation = nn.Linear(width, 6 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)

    def forward(
        self,
        x: Tensor,
        condition: Tensor,
        choice: Tensor | None,
        mask: Tensor | None,
        memory: tuple[Tensor, Tensor] | None,
        sees: Tensor | None,
        rows: slice,
    ) -> Tensor:
        """The tokens in `rows` after the block; the others are only looked at."""
        modulation = self.modulation(condition)
        if choice is not None:
            modulation = choice @ modulation
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation.chunk(6, dim=-1)
        h = self.norm_attn(x) * (1 + scale_a) + shift_a
        if choice is not None:
            gate_a, shift_m, scale_m, gate_m = (part[:, rows] for part in (gate_a, shift_m, scale_m, gate_m))
        x, sees = x[:, rows], rows_of(sees, rows)
        if self.self_attn is not None:
            x = x + gate_a * self.self_attn(h, mask=rows_of(mask, rows), rows=rows)
            if self.cross_attn is not None:
                x = x + self.cross_attn(self.norm_cross(x), memory, sees)
        elif self.cross_attn is not None:
            x = x + gate_a * self.cross_attn(h[:, rows], memory, sees)
        h = self.norm_mlp(x) * (1 + scale_m) + shift_m
        return x + gate_m * self.mlp(h)


class DiT(Trunk):
    """Named streams in, hidden states of the tapped depths out.

    Args:
        width, depth, heads: of the residual stream; heads must divide width.
        context: width of the observation tokens (equal to `width` when conditioning is joint).
        conditioning: how the observation is read.
    """

    def __init__(self, width: int, depth: int, heads: int, context: int, conditioning: Conditioning) -> None:
        super().__init__()
        if depth < 1:
            raise UserError(f"a trunk has at least one block, not {depth}")
        if heads < 1 or width % heads:
            raise UserError(f"a trunk of width {width} cannot have {heads} heads: choose a divisor of the width")
        if conditioning == "joint" and context != width:
            raise UserError(f"joint conditioning needs observation tokens as wide as the trunk ({width}), they have {context}")
        self.width, self.depth, self.out, self.conditioning = width, depth, width, conditioning
        self.remembers = conditioning != "joint"
        self.clocks = Clocks(width)
        crossing = {"joint": range(0), "cross": range(depth), "alternate": range(0, depth, 2)}[conditioning]
        alone = range(1, depth, 2) if conditioning == "alternate" else range(depth)
        self.blocks = nn.ModuleList(Block(width, heads, context * (i in crossing), i in alone) for i in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation = nn.Linear(width, 2 * width)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        for block in self.blocks:
            if getattr(block, "norm_cross", None) is not None:  # ungated, so it starts at zero by its own output
                nn.init.zeros_(block.cross_attn.out.weight)
                nn.init.zeros_(block.cross_attn.out.bias)

    def remember(self, observation: Stream) -> Memory:
        if self.conditioning == "joint":
            raise ValueError("in joint conditioning the observation is part of the sequence; there is nothing to remember")
        tokens = silence(observation)
        blocks = [None if block.cross_attn is None else block.cross_attn.remember(tokens) for block in self.blocks]
        return Memory(blocks, observation.keep)

    def forward(self, streams: Mapping[str, Stream], taps: AbstractSet[int] = frozenset(), memory: Memory | None = None) -> Hidden:
        check_taps(taps, self.depth)
        if self.conditioning != "joint":
            streams, memory = apart(self, streams, memory)
        condition, choice = self.clocks(streams)
        mask, sees = self_mask(streams), cross_mask(streams, memory.keep) if memory else None
        sizes = {name: stream.tokens.shape[1] for name, stream in streams.items()}
        everything = slice(0, sum(sizes.values()))
        rows, left = (everything, sizes) if self.depth in taps else last_rows(streams)
        x = torch.cat([silence(s) for s in streams.values()], dim=1)
        hidden = {0: x}
        for depth, block in enumerate(self.blocks, start=1):
            kept = rows if depth == self.depth else everything
            x = block(x, condition, choice, mask, memory.blocks[depth - 1] if memory else None, sees, kept)
            hidden[depth] = x
        modulation = self.modulation(condition)
        if choice is not None:
            modulation = choice[rows] @ modulation
        shift, scale = modulation.chunk(2, dim=-1)
        final = self.norm(x) * (1 + scale) + shift
        return Hidden({tap: cut(hidden[tap], sizes) for tap in taps}, cut(final, left))


def apart(trunk: Trunk, streams: Mapping[str, Stream], memory: Memory | None) -> tuple[dict[str, Stream], Memory]:
    """The sequence without the observation, and the memory of the observation, made now if there is none.

    Raises:
        ValueError: there is neither, or it is of other windows.
    """
    sequence = dict(streams)
    observation = sequence.pop(OBSERVATION, None)
    if memory is None:
        if observation is None:
            raise ValueError(f"the trunk reads the stream {OBSERVATION!r}, there are only {sorted(sequence)}")
        memory = trunk.remember(observation)
    seen = {len(part) for kept in memory.blocks if kept is not None for part in kept}
    if apart := seen - {len(stream.tokens) for stream in sequence.values()}:
        raise ValueError(f"the observation is of {sorted(apart)} windows, the sequence of others; nothing is broadcast")
    return sequence, memory


def check_taps(taps: AbstractSet[int], depth: int) -> None:
    """Raise ValueError if a tap lies outside 0..depth."""
    if outside := sorted(tap for tap in taps if not 0 <= tap <= depth):
        raise ValueError(f"taps {outside} do not exist: this trunk has depths 0..{depth}")


def last_rows(streams: Mapping[str, Stream]) -> tuple[slice, dict[str, int]]:
    """The shortest run of tokens that holds every stream that is read at the end, and the streams in it with their lengths."""
    names = list(streams)
    read = [i for i, stream in enumerate(streams.values()) if stream.read]
    first, last = (read[0], read[-1] + 1) if read else (0, len(names))
    sizes = [stream.tokens.shape[1] for stream in streams.values()]
    return slice(sum(sizes[:first]), sum(sizes[:last])), dict(zip(names[first:last], sizes[first:last], strict=True))


def rows_of(mask: Tensor | None, rows: slice) -> Tensor | None:
    """A mask (B, 1, N, K) for some of its N tokens; (B, 1, 1, K) is for all of them."""
    return mask if mask is None or mask.shape[2] == 1 else mask[:, :, rows]


def cut(x: Tensor, sizes: Mapping[str, int]) -> dict[str, Tensor]:
    """The sequence cut back into its streams."""
    return dict(zip(sizes, x.split(list(sizes.values()), dim=1), strict=True))


@dataclass(frozen=True)
class Config(Blueprint):
    """The default trunk.  Width and depth come from the arm's sizes."""

    heads: int = 4
    conditioning: Conditioning = "alternate"

    def build(self, sizes: Sizes) -> DiT:
        return DiT(sizes.width, sizes.depth, self.heads, sizes.context, self.conditioning)
