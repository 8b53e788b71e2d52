"""What can a hidden state be aligned with?  A copy of the policy's embedding that follows it, or a frozen encoder's tokens."""

from copy import deepcopy
from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import adaptive_avg_pool2d

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.features import encoded
from wmzoo.interfaces import Blueprint, Encoder, Sizes, Target

from .embedding import Embedding


class Following(Target):
    """A copy of the observer's embedding that moves toward it after every step: w <- rho w + (1 - rho) online.

    Always in eval, never trained; rho = 1 keeps the copy as it was at the start.

    Args:
        rho: how slowly it follows.
    """

    def __init__(self, rho: float) -> None:
        super().__init__()
        if not 0 <= rho <= 1:
            raise UserError(f"rho must be from 0 to 1, not {rho}")
        self.rho = rho

    def join(self, observer: nn.Module) -> None:
        online = _embedding(observer)
        shared = {id(part): part for part in (online.encoder, online.text) if not any(p.requires_grad for p in part.parameters())}
        self.embedding = deepcopy(online, dict(shared)).requires_grad_(False)  # what is frozen need not be there twice
        self.tokens, self.width = self.embedding.tokens, self.embedding.width
        self.train(False)

    def train(self, mode: bool = True) -> "Following":
        return super().train(False)

    @torch.no_grad()
    def after_step(self, observer: nn.Module) -> None:
        if self.rho == 1:
            return
        online = _embedding(observer)
        pairs = zip(self.embedding.parameters(), online.parameters(), strict=True)
        mine, theirs = zip(*((copy, source) for copy, source in pairs if source.requires_grad), strict=True)
        torch._foreach_lerp_(mine, theirs, 1 - self.rho)  # pyright: ignore
        for copy, source in zip(self.embedding.buffers(), online.buffers(), strict=True):
            copy.copy_(source)

    @torch.no_grad()
    def forward(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B T M E"]:
        return self.embedding(batch, which)


def _embedding(observer: nn.Module) -> Embedding:
    found = getattr(observer, "embedding", None)
    if not isinstance(found, Embedding):
        raise UserError("a target that follows the policy's embedding needs the observer of models/embedding.py in the arm")
    return found


class Frozen(Target):
    """The tokens of a frozen encoder, averaged over the cells of a grid for each camera.

    Args:
        encoder: must carry a fingerprint, which says that it is frozen; its features are read from disk where they were cached.
        rows: of the pooled grid, and its columns; as many as the encoder has pools nothing.
        views: cameras.
    """

    def __init__(self, encoder: Encoder, rows: int, views: int) -> None:
        super().__init__()
        if not hasattr(encoder, "fingerprint"):
            raise UserError("a frozen target needs a frozen encoder: set its `frozen` to True")
        if not 1 <= rows <= min(encoder.grid):
            raise UserError(f"the encoder has a grid of {encoder.grid}: it can be pooled to 1 to {min(encoder.grid)} rows, not {rows}")
        self.encoder, self.rows, self.views = encoder, rows, views
        self.tokens, self.width = views * rows * rows, encoder.width

    @torch.no_grad()
    def forward(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B T M E"]:
        frames = (batch.image if which == "now" else batch.future).shape[1]
        cells = encoded(batch, self.encoder, which).unflatten(1, (frames, self.views, *self.encoder.grid))
        if self.encoder.grid != (self.rows, self.rows):
            maps = cells.flatten(0, 2).permute(0, 3, 1, 2).float()
            cells = adaptive_avg_pool2d(maps, self.rows).permute(0, 2, 3, 1).unflatten(0, (len(batch), frames, self.views))
        return cells.flatten(2, 4)


@dataclass(frozen=True)
class FollowingConfig(Blueprint):
    """The action-aware embedding, by EMA.

    Attributes:
        rho: 0.995 in the paper; 1 is a frozen copy.
    """

    rho: float = 0.995

    def build(self, sizes: Sizes) -> Following:
        return Following(self.rho)


@dataclass(frozen=True)
class FrozenConfig(Blueprint):
    """A frozen encoder's tokens.

    Attributes:
        encoder: of the frames.
        rows: of the grid to which they are pooled.
    """

    encoder: Blueprint
    rows: int

    def build(self, sizes: Sizes) -> Frozen:
        return Frozen(cast("Encoder", self.encoder.build(sizes)), self.rows, sizes.views)
