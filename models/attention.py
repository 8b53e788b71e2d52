"""Who may look at whom?  Attention, its masks, the feed-forward layer, patches and the sinusoid: what all transformers here share."""

from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn.functional import gelu

from wmzoo.kernels import attend
from wmzoo.question import Stream

OBSERVATION = "observation"  # the stream that conditions the others


class Attention(nn.Module):
    """Multi-head attention: of a sequence over itself, or over a condition whose keys and values can be kept.

    Args:
        width: of the queries and of the output.
        heads: must divide the width.
        context: width of the condition; 0 is self-attention.
    """

    def __init__(self, width: int, heads: int, context: int = 0) -> None:
        super().__init__()
        self.heads = heads
        if context:
            self.query, self.key_value = nn.Linear(width, width), nn.Linear(context, 2 * width)
        else:
            self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """Queries, keys, values (or what `parts` there are) of (B, N, parts D), each (B, heads, N, C)."""
        return x.unflatten(-1, (parts, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def remember(self, context: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values of a condition, each (B, heads, K, C)."""
        k, v = self.split(self.key_value(context), 2)
        return k, v

    def forward(
        self, x: Tensor, memory: tuple[Tensor, Tensor] | None = None, mask: Tensor | None = None, rows: slice = slice(None)
    ) -> Tensor:
        """Of a sequence over itself, the tokens in `rows` alone; the others are only looked at."""
        if memory is None:
            q, k, v = self.split(self.qkv(x), 3)
            q = q[:, :, rows]
        else:
            (q,), (k, v) = self.split(self.query(x), 1), memory
        return self.out(attend(q, k, v, mask).transpose(1, 2).flatten(2))


class VitBlock(nn.Module):
    """A block of a ViT: pre-norm attention and GELU; as transformers' ViTLayer unless told otherwise.

    Args:
        width, heads: heads must divide the width.
        eps, affine: of the norms.
    """

    def __init__(self, width: int, heads: int, eps: float = 1e-12, affine: bool = True) -> None:
        super().__init__()
        self.norm_attn, self.norm_mlp = (nn.LayerNorm(width, eps=eps, elementwise_affine=affine) for _ in range(2))
        self.attn = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Float[Tensor, "n N D"], wanted: int) -> Float[Tensor, "n W D"]:
        """The first `wanted` tokens after the block; the others are only looked at."""
        q, k, v = self.attn.split(self.attn.qkv(self.norm_attn(x)), 3)
        seen = attend(q[:, :, :wanted], k, v, None).transpose(1, 2).flatten(2)
        x = x[:, :wanted] + self.attn.out(seen)
        return x + self.down(gelu(self.up(self.norm_mlp(x))))


class MLP(nn.Module):
    """Two linear layers around squared ReLU (So et al. 2021), which costs a CPU a fraction of GELU."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.up(x).relu().square())


def into_patches(image: Float[Tensor, "n C Y X"], patch: int) -> Float[Tensor, "n P N"]:
    """The patches of an image in row-major order, each as a row of its channels, rows and columns (a convolution's order)."""
    cells = image.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))  # n, C, rows, patch, columns, patch
    return cells.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)


def from_patches(patches: Float[Tensor, "n P N"], patch: int, rows: int) -> Float[Tensor, "n C Y X"]:
    """The image of these patches: what `into_patches` took apart."""
    cells = patches.unflatten(2, (-1, patch, patch)).unflatten(1, (rows, -1))  # n, rows, columns, C, patch, patch
    return cells.permute(0, 3, 1, 4, 2, 5).flatten(4).flatten(2, 3)


def closed(streams: Mapping[str, Stream]) -> dict[str, frozenset[str]]:
    """What each stream may not look at: what it names, what borrows the clock of that, and, where it has no clock, what any other names.

    A stream without a clock is a condition (observation, state, registers): all look at it, so what it sees they would see too.  One
    that borrows a clock belongs to its owner, whom it sees: it would pass on what that is.  So would a query, of all that it sees.
    """
    named = frozenset[str]().union(*(stream.blind for stream in streams.values()))
    noisy = {name for name, stream in streams.items() if stream.clock is not None or stream.query}
    blind = {name: stream.blind if name in noisy else stream.blind | (named - {name}) for name, stream in streams.items()}
    owner = {name: stream.clock for name, stream in streams.items() if isinstance(stream.clock, str)}
    blind = {name: hidden | {other for other in owner if owner[other] in hidden and other != name} for name, hidden in blind.items()}
    asks = {name: blind[name] for name, stream in streams.items() if stream.query}

    def passes_on(name: str, hidden: frozenset[str]) -> set[str]:
        return {query for query, unseen in asks.items() if query != name and (hidden & streams.keys()) - unseen - {query}}

    return {name: hidden | passes_on(name, hidden) for name, hidden in blind.items()}


def self_mask(streams: Mapping[str, Stream]) -> Bool[Tensor, "B 1 N N"] | None:
    """Who of the sequence may look at whom: padding is never seen, `closed` and `frame` are obeyed; None if all see all.

    Raises:
        ValueError: a key mask or the frames of a stream are not one for each of its tokens.
    """
    if not any(s.keep is not None or s.blind & streams.keys() or s.frame is not None for s in streams.values()):
        return None
    blind = closed(streams)
    rows = [torch.cat([_pair(streams, asks, seen, seen in blind[asks]) for seen in streams], dim=-1) for asks in streams]
    return torch.cat(rows, dim=-2)[:, None]


def _pair(streams: Mapping[str, Stream], asks: str, seen: str, hidden: bool) -> Bool[Tensor, "B Q K"]:
    query, key = streams[asks], streams[seen]
    allowed = key.tokens.new_full((), not hidden, dtype=torch.bool)
    if asks == seen and query.frame is not None:
        if query.frame.shape != query.tokens.shape[1:2]:
            raise ValueError(
                f"the frames of {asks!r} are {tuple(query.frame.shape)}, but it has {query.tokens.shape[1]} tokens, each of one frame"
            )
        allowed = allowed & (query.frame[:, None] >= query.frame[None, :])
    if (keep := kept(key)) is not None:
        allowed = allowed & keep[:, None, :]
    return allowed.expand(len(key.tokens), query.tokens.shape[1], key.tokens.shape[1])


def key_mask(keep: Bool[Tensor, "B K"] | None) -> Bool[Tensor, "B 1 1 K"] | None:
    """The mask of a condition for every query."""
    return None if keep is None else keep[:, None, None, :]


def cross_mask(streams: Mapping[str, Stream], keep: Bool[Tensor, "B K"] | None) -> Bool[Tensor, "#B 1 #N #K"] | None:
    """Who of the sequence may look at which observation token: padding is never seen, and streams may be blind to all of it."""
    mask = key_mask(keep)
    if not any(OBSERVATION in stream.blind for stream in streams.values()):
        return mask
    blind = closed(streams)
    rows = [torch.full((s.tokens.shape[1],), OBSERVATION not in blind[name], device=s.tokens.device) for name, s in streams.items()]
    sees = torch.cat(rows)[None, None, :, None]
    return sees if mask is None else mask & sees


def kept(stream: Stream) -> Bool[Tensor, "B N"] | None:
    """The key mask of a stream.

    Raises:
        ValueError: it has not one flag for each token of each window.
    """
    if stream.keep is not None and stream.keep.shape != stream.tokens.shape[:2]:
        raise ValueError(f"a key mask is {tuple(stream.tokens.shape[:2])}, one flag for each token, not {tuple(stream.keep.shape)}")
    return stream.keep


def silence(stream: Stream) -> Tensor:
    """The tokens of a stream with zeros where they are padding, so that whatever stood there cannot spread."""
    keep = kept(stream)
    return stream.tokens if keep is None else torch.where(keep[..., None], stream.tokens, 0.0)


def sinusoid(time: Float[Tensor, "*any"], width: int, last: float) -> Float[Tensor, "*any W"]:
    """[cos, sin] of time at width/2 frequencies exp(-ln(10000) i / last), i = 0, 1, ...; DiT has last = width/2."""
    steps = torch.arange(width // 2, device=time.device, dtype=torch.float32)
    angle = time.float()[..., None] * torch.exp(-9.210340371976184 * steps / last)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def pi0_sinusoid(time: Float[Tensor, "*any"], width: int) -> Float[Tensor, "*any W"]:
    """[sin, cos] of 2 pi time / period at width/2 periods, geometric from 4e-3 to 4 (openpi's `posemb_sincos`).

    Args:
        time: pi0's own, from 0 (data) to 1 (noise), in double precision inside: 250 turns leave few digits of a float.
        width: even, at least 4.
    """
    part = torch.linspace(0, 1, width // 2, device=time.device, dtype=torch.float64)
    angle = 2 * torch.pi * time.double()[..., None] / (4e-3 * 1000**part)
    return torch.cat([angle.sin(), angle.cos()], dim=-1).float()
