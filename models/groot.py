"""What does GR00T's action head look like, weight for weight?  The parity mode of the trunk: old norms, old order, old names.

Bjorck et al. 2025, GR00T N1, arXiv:2503.14734, and the public code of GR00T N1.5, whose head LARA trains; FLARE builds on it.
A block is x + Drop(Drop(Attn(AdaLN(x)))), then x + FF(LN(x)): no gates, default weights, so it is not the identity at the start.
Blocks 1, 3, ... read the observation, blocks 2, 4, ... read the sequence.  The clock is the index floor(1000 t), clamped at 0
(GR00T N1.5 draws slightly negative clocks).  Sub-modules carry the reference's names: `parts_of` hands out a public state dict.
We differ where GR00T does not say: a learned null state for unknown states, and instructions as tokens beside the image.
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import silu

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.features import encoded
from wmzoo.interfaces import Blueprint, Encoder, Memory, Sizes, Trunk
from wmzoo.question import Hidden, Stream

from .attention import OBSERVATION, attend, cross_mask, self_mask, silence, sinusoid
from .dit import apart, check_taps, cut, resolve_clock
from .embodiment import CategoryLinear, CategoryMLP
from .state import known_or_null

PLACES = 1024  # rows of GR00T's table of action positions
PARTS = {  # top name in the reference: our part, and what its names start with there
    "model": ("trunk", ""),
    "state_encoder": ("state", ""),
    "action_encoder": ("action_in", ""),
    "position_embedding": ("action_in", "position_embedding."),
    "action_decoder": ("action_out", "project."),
    "vlln": ("fuse", "vlln."),
    "vl_self_attention": ("fuse", "vl_self_attention."),
    "future_tokens": ("future", ""),
}
OURS = {"layer1": "first", "layer2": "second", "W": "weight", "b": "bias"}


def clock_index(clock: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """GR00T's integer clock: 1000 t without its fraction, never below 0.  No unit."""
    return (clock * 1000).long().clamp(min=0)


class TimestepEncoder(nn.Module):
    """The integer clock as one vector: 256 sinusoids, [cos, sin], the last frequency 1/10000, then two linear layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        layers = nn.ModuleDict({"linear_1": nn.Linear(256, width), "linear_2": nn.Linear(width, width)})
        self.timestep_embedder = cast("dict[str, nn.Linear]", layers)

    def forward(self, index: Int[Tensor, "B"]) -> Float[Tensor, "B D"]:
        first, second = self.timestep_embedder["linear_1"], self.timestep_embedder["linear_2"]
        wave = sinusoid(index.float(), 256, last=127.0)
        return second(silu(first(wave.to(first.weight.dtype))))


class AdaNorm(nn.Module):
    """Layer norm that the clock scales and shifts, in this order; neither starts at zero."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2 * width)
        self.norm = nn.LayerNorm(width, eps=1e-5, elementwise_affine=False)

    def forward(self, x: Float[Tensor, "B N D"], time: Float[Tensor, "B D"]) -> Float[Tensor, "B N D"]:
        scale, shift = self.linear(time)[:, None].chunk(2, dim=-1)
        return self.norm(x) * (1 + scale) + shift


class GrootAttention(nn.Module):
    """Multi-head attention of a sequence over itself, or over keys and values that were remembered; biases everywhere."""

    def __init__(self, width: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q, self.to_k, self.to_v = nn.Linear(width, width), nn.Linear(context, width), nn.Linear(context, width)
        self.to_out = nn.ModuleList([nn.Linear(width, width), nn.Dropout(dropout)])

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def remember(self, context: Float[Tensor, "B K E"]) -> tuple[Tensor, Tensor]:
        """Keys and values, each (B, heads, K, C)."""
        return self._heads(self.to_k(context)), self._heads(self.to_v(context))

    def forward(self, x: Float[Tensor, "B N D"], memory: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Float[Tensor, "B N D"]:
        keys, values = self.remember(x) if memory is None else memory
        x = attend(self._heads(self.to_q(x)), keys, values, mask).transpose(1, 2).flatten(2)
        for layer in self.to_out:
            x = layer(x)
        return x


class Gelu(nn.Module):
    """A linear layer and GELU in its tanh form."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.proj = nn.Linear(width, hidden)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.gelu(self.proj(x), approximate="tanh")


class FeedForward(nn.Module):
    """Four times as wide inside, dropout behind both layers."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.net = nn.Sequential(Gelu(width, 4 * width), nn.Dropout(dropout), nn.Linear(4 * width, width), nn.Dropout(dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


class GrootBlock(nn.Module):
    """Attention behind a norm that knows the clock, feed-forward behind a plain one; no gates.

    Args:
        width, heads: of the trunk.
        context: width of what is attended to: the observation's, or the trunk's own in a self-attention block.
        dropout: on the attention's output (twice, as in the reference) and in the feed-forward.
    """

    def __init__(self, width: int, heads: int, context: int, dropout: float) -> None:
        super().__init__()
        self.norm1 = AdaNorm(width)
        self.attn1 = GrootAttention(width, heads, context, dropout)
        self.norm3 = nn.LayerNorm(width, eps=1e-5, elementwise_affine=False)
        self.ff = FeedForward(width, dropout)
        self.final_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, time: Tensor, memory: tuple[Tensor, Tensor] | None, mask: Tensor | None) -> Tensor:
        x = x + self.final_dropout(self.attn1(self.norm1(x, time), memory, mask))
        return x + self.ff(self.norm3(x))


def shared_clock(streams: Mapping[str, Stream]) -> Float[Tensor, "B"]:
    """The one clock of all streams; clean (1) if none has a clock of its own.

    Raises:
        ValueError: two streams have clocks of their own, a clock is per token, or a named clock is not there.
    """
    first = next(iter(streams.values())).tokens
    clean = torch.ones(len(first), device=first.device)
    times = {name: resolve_clock(streams, stream, clean) for name, stream in streams.items()}
    own = {name: time for name, time in times.items() if time is not clean}
    shared = next(iter(own.values()), clean)
    if shared.ndim != 1 or any(time is not shared for time in own.values()):
        raise ValueError(f"this trunk has one clock per window for all streams, but {sorted(own)} bring their own")
    return shared


class GrootDiT(Trunk):
    """GR00T N1.5's diffusion transformer as a trunk: named streams in, hidden states out.

    Streams other than "observation" are one sequence without any order of their own; all share one clock.

    Args:
        width, depth, heads: of the residual stream; heads must divide width.
        context: width of the observation tokens.
        out: width of `Hidden.final`, behind the last projection.
        dropout: 0.2 in the reference.
        honour_masks: False is the reference, in which padded observation tokens are attended to; True obeys every mask.
    """

    def __init__(self, width: int, depth: int, heads: int, context: int, out: int, dropout: float, honour_masks: bool) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"a trunk of width {width} cannot have {heads} heads: choose a divisor of the width")
        self.width, self.depth, self.out, self.honour_masks = width, depth, out, honour_masks
        self.remembers = True
        self.timestep_encoder = TimestepEncoder(width)
        widths = [width if i % 2 else context for i in range(depth)]
        blocks = nn.ModuleList(GrootBlock(width, heads, size, dropout) for size in widths)
        self.transformer_blocks = cast("list[GrootBlock]", blocks)
        self.norm_out = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.proj_out_1, self.proj_out_2 = nn.Linear(width, 2 * width), nn.Linear(width, out)

    def remember(self, observation: Stream) -> Memory:
        tokens = silence(observation) if self.honour_masks else observation.tokens
        blocks = [None if i % 2 else block.attn1.remember(tokens) for i, block in enumerate(self.transformer_blocks)]
        return Memory(blocks, observation.keep if self.honour_masks else None)

    def forward(self, streams: Mapping[str, Stream], taps: AbstractSet[int] = frozenset(), memory: Memory | None = None) -> Hidden:
        """One pass.

        Raises:
            ValueError: a tap outside 0..depth, no observation, more than one clock, or masks that this mode would ignore.
        """
        check_taps(taps, self.depth)
        streams, memory = apart(self, streams, memory)
        mask, seen = self._masks(streams, memory.keep)
        time = silu(self.timestep_encoder(clock_index(shared_clock(streams))))
        x = torch.cat([silence(s) if self.honour_masks else s.tokens for s in streams.values()], dim=1)
        hidden = {0: x}
        for depth, block in enumerate(self.transformer_blocks, start=1):
            read = memory.blocks[depth - 1]
            x = block(x, time, read, mask if read is None else seen)
            hidden[depth] = x
        shift, scale = self.proj_out_1(time)[:, None].chunk(2, dim=-1)
        final = self.proj_out_2(self.norm_out(x) * (1 + scale) + shift)
        sizes = {name: stream.tokens.shape[1] for name, stream in streams.items()}
        return Hidden({tap: cut(hidden[tap], sizes) for tap in taps}, cut(final, sizes))

    def _masks(self, streams: Mapping[str, Stream], keep: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
        mask, seen = self_mask(streams), cross_mask(streams, keep)
        if not self.honour_masks and (mask is not None or seen is not None):
            raise ValueError(f"the streams {sorted(streams)} carry masks, which the parity mode would ignore: set honour_masks=True")
        return mask, seen


class Layer(nn.Module):
    """A block of the stack over observation tokens: norms with weights, no clock."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norm1, self.norm3 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn1 = GrootAttention(width, heads, width, dropout)
        self.ff = FeedForward(width, dropout)
        self.final_dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.final_dropout(self.attn1(self.norm1(x), None, None))
        return x + self.ff(self.norm3(x))


class VisionLanguageStack(nn.Module):
    """What GR00T N1.5 trains on top of its frozen vision-language model: a layer norm and a few self-attention layers.

    Args:
        width, depth, heads: 2048, 4 and 32 in the reference; the layers then have 201,433,088 parameters, the norm 4,096 more.
        dropout: 0.2 in the reference.
    """

    def __init__(self, width: int, depth: int, heads: int, dropout: float) -> None:
        super().__init__()
        if width % heads:
            raise UserError(f"observation tokens of width {width} cannot have {heads} heads: choose a divisor of the width")
        self.vlln = nn.LayerNorm(width)
        layers = nn.ModuleList(Layer(width, heads, dropout) for _ in range(depth))
        self.vl_self_attention = nn.ModuleDict({"transformer_blocks": layers})

    def forward(self, tokens: Float[Tensor, "B N E"]) -> Float[Tensor, "B N E"]:
        x = self.vlln(tokens)
        for layer in cast("nn.ModuleList", self.vl_self_attention["transformer_blocks"]):
            x = layer(x)
        return x


class GrootActionIn(nn.Module):
    """Noisy actions and the clock to tokens, with one set of weights per embodiment.

    x = W3 swish(W2 [W1 a, sinusoid(k)]) + place; the sinusoid is [sin, cos] here, and its last frequency is above 1/10000.
    """

    def __init__(self, embodiments: int, action: int, width: int) -> None:
        super().__init__()
        self.W1 = CategoryLinear(embodiments, action, width)
        self.W2 = CategoryLinear(embodiments, 2 * width, width)
        self.W3 = CategoryLinear(embodiments, width, width)
        self.position_embedding = nn.Embedding(PLACES, width)
        nn.init.normal_(self.position_embedding.weight, std=0.02)

    def forward(self, noisy: Float[Tensor, "B H A"], clock: Float[Tensor, "B"], embodiment: Int[Tensor, "B"]) -> Float[Tensor, "B H D"]:
        """Raises RuntimeError for chunks longer than the table of 1024 places."""
        actions = self.W1(noisy, embodiment)
        width = actions.shape[-1]
        time = sinusoid(clock_index(clock).float(), width, last=width / 2).roll(width // 2, dims=-1).to(actions.dtype)
        x = torch.cat([actions, time[:, None].expand_as(actions)], dim=-1)
        return self.W3(silu(self.W2(x, embodiment)), embodiment) + self.position_embedding.weight[: noisy.shape[1]]


class GrootActionOut(nn.Module):
    """Final tokens to a velocity per action: two layers per embodiment, not zero at the start."""

    def __init__(self, embodiments: int, inputs: int, hidden: int, action: int) -> None:
        super().__init__()
        self.project = CategoryMLP(embodiments, inputs, hidden, action)

    def forward(self, final: Float[Tensor, "B H F"], embodiment: Int[Tensor, "B"]) -> Float[Tensor, "B H A"]:
        return self.project(final, embodiment)


class GrootObserver(nn.Module):
    """The streams "observation" (image tokens and instruction through the vision-language stack) and "state" (no place).

    Args:
        encoder: images to tokens; stands where GR00T has its frozen vision-language model.
        text: instruction to tokens.
        fuse: the stack on top of both.
        sizes: of the data and the trunk; `context` is the width of the stack.
        hidden: numbers between the two layers of the state encoder.
    """

    def __init__(self, encoder: Encoder, text: nn.Module, fuse: VisionLanguageStack, sizes: Sizes, hidden: int) -> None:
        super().__init__()
        self.encoder, self.text, self.fuse = encoder, text, fuse
        self.project = nn.Linear(encoder.width, sizes.context)
        self.project_text = nn.Linear(cast("int", text.width), sizes.context)
        self.state = CategoryMLP(sizes.embodiments, sizes.state, hidden, sizes.width)
        self.null_state = nn.Parameter(0.02 * torch.randn(sizes.history, sizes.width))

    def forward(self, batch: Batch) -> dict[str, Stream]:
        seen = self.project(encoded(batch, self.encoder, "now"))
        tokens = torch.cat([seen, self.project_text(self.text(batch.text))], dim=1)
        return {OBSERVATION: Stream(self.fuse(tokens)), "state": Stream(known_or_null(self.state, self.null_state, batch))}


def parts_of(head: Mapping[str, Tensor]) -> dict[str, dict[str, Tensor]]:
    """A public state dict of GR00T N1.5's action head (or LARA's), cut into what our modules load with strict=True.

    Args:
        head: tensors by the reference's names, with or without "action_head." in front.

    Returns:
        By part: "trunk" for GrootDiT, "action_in" and "action_out" for the layers around it, "fuse" for VisionLanguageStack,
        "state" for GrootObserver.state, and "future", the table of future tokens, as {"weight": (M, D)}.

    Raises:
        ValueError: names that no part of the head has.
    """
    names = [name.removeprefix("action_head.") for name in head]
    if strange := sorted({name.partition(".")[0] for name in names} - PARTS.keys()):
        raise ValueError(f"GR00T's action head has no {strange}; it has {sorted(PARTS)}")
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in zip(names, head.values(), strict=True):
        top, _, rest = name.partition(".")
        part, prefix = PARTS[top]
        parts.setdefault(part, {})[prefix + ".".join(OURS.get(word, word) for word in rest.split("."))] = value
    return parts


@dataclass(frozen=True)
class Config(Blueprint):
    """GR00T's trunk; the defaults are the published ones.  The arm's width must be heads x head_dim (32 x 48 = 1536).

    Attributes:
        heads, head_dim: of the attention.
        context_width, out_width: of the observation tokens and of the final output.
        dropout: in every block.
        honour_masks: False for the reference, in which padding is attended to.
    """

    heads: int = 32
    head_dim: int = 48
    context_width: int = 2048
    out_width: int = 1024
    dropout: float = 0.2
    honour_masks: bool = False

    def build(self, sizes: Sizes) -> GrootDiT:
        if sizes.width != self.heads * self.head_dim:
            raise UserError(f"{self.heads} heads of {self.head_dim} make a trunk of width {self.heads * self.head_dim}, not {sizes.width}")
        return GrootDiT(sizes.width, sizes.depth, self.heads, sizes.context, sizes.out, self.dropout, self.honour_masks)


@dataclass(frozen=True)
class InConfig(Blueprint):
    """Actions into GR00T's trunk."""

    def build(self, sizes: Sizes) -> GrootActionIn:
        if sizes.horizon > PLACES:
            raise UserError(f"GR00T's table has {PLACES} places, the chunk has {sizes.horizon} actions")
        return GrootActionIn(sizes.embodiments, sizes.action, sizes.width)


@dataclass(frozen=True)
class OutConfig(Blueprint):
    """Actions out of GR00T's trunk; `hidden` is the width between the two layers."""

    hidden: int = 1024

    def build(self, sizes: Sizes) -> GrootActionOut:
        return GrootActionOut(sizes.embodiments, sizes.out, self.hidden, sizes.action)


@dataclass(frozen=True)
class ObserverConfig(Blueprint):
    """GR00T's observer; the width of the stack is the trunk's `context_width`.

    Attributes:
        encoder, text: of images and instructions.
        layers, heads, dropout: of the vision-language stack.
        hidden: between the two layers of the state encoder.
        action, state: padded sizes of the published model, with which an arm is counted where there is no data.
    """

    action: ClassVar[int] = 32
    state: ClassVar[int] = 64
    encoder: Blueprint
    text: Blueprint
    layers: int = 4
    heads: int = 32
    dropout: float = 0.2
    hidden: int = 1024

    def build(self, sizes: Sizes) -> GrootObserver:
        fuse = VisionLanguageStack(sizes.context, self.layers, self.heads, self.dropout)
        return GrootObserver(cast("Encoder", self.encoder.build(sizes)), self.text.build(sizes), fuse, sizes, self.hidden)
