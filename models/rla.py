"""What changed between two token maps?  The residual latent autoencoder of RLA-WM: a few numbers that rebuild the future in one pass.

RLA-WM 2026, arXiv:2605.07079.  s_t and s_{t+h} are the tokens of two frames in a frozen feature space:
    z     = first K outputs of T_enc([K learned tokens | Linear(s_{t+h} - s_t)])        wmzoo.models.rla.Autoencoder.encode
    s_hat = patch outputs of T_dec([Linear(z) + K learned tokens | Linear(s_t)])        wmzoo.models.rla.Autoencoder.decode
T is one plain pre-norm transformer without positions: the tokens carry theirs, and permuting both maps leaves z as it is.  Nothing
presses z together but its size: no code book, no prior, no action, no language.
We differ below paper scale: what the decoder writes is added to s_t ("change"), as both are nearly equal; zero at the start, so an
untrained decoder copies.  At paper scale it writes all of s_{t+h} anew ("frame").
"""

from dataclasses import dataclass
from typing import Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Encoder, Residuals, Sizes

from .attention import VitBlock
from .backbones import on_meta
from .parts import require_frozen, take
from .world import xavier

Reads = Literal["sub", "concat"]
Writes = Literal["frame", "change"]


class TokenTransformer(nn.Module):
    """K tokens and P patches in one sequence, through pre-norm blocks whose norms have no weights.

    Args:
        reads, width, writes: numbers of a patch, of the residual stream, of an output.
        depth, heads: of the blocks.
        tokens: K learned ones.
        fed: numbers that come in with each of the K tokens and are added to it; 0 is none.
    """

    def __init__(self, reads: int, width: int, writes: int, depth: int, heads: int, tokens: int, fed: int = 0) -> None:
        super().__init__()
        self.patch = nn.Linear(reads, width)
        self.feed = nn.Linear(fed, width) if fed else None
        self.tokens = nn.Parameter(0.2 * torch.randn(tokens, width))
        self.blocks = nn.ModuleList(VitBlock(width, heads, eps=1e-5, affine=False) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.out = nn.Linear(width, writes)
        xavier(self)

    def forward(self, patches: Float[Tensor, "n P R"], fed: Tensor | None, wanted: int) -> Float[Tensor, "n W O"]:
        """The first `wanted` outputs; the K tokens come before the patches."""
        tokens = self.tokens.expand(len(patches), -1, -1)
        if self.feed is not None and fed is not None:
            tokens = tokens + self.feed(fed)
        x = torch.cat([tokens, self.patch(patches)], dim=1)
        for i, block in enumerate(self.blocks, start=1):
            x = block(x, wanted if i == len(self.blocks) else x.shape[1])
        return self.out(self.norm(x[:, :wanted]))


class Autoencoder(Residuals):
    """Encoder and decoder of the change.

    Args:
        encoder: the frozen feature space.
        reader: pair of frames to latent; the first K of its outputs.
        writer: present frame and latent to the future frame.
        width: Z.
        view: camera.
        reads: "sub" sees the difference of the frames alone, "concat" both.
        writes: "frame" or "change".
    """

    def __init__(
        self, encoder: Encoder, reader: TokenTransformer, writer: TokenTransformer, width: int, view: int, reads: Reads, writes: Writes
    ) -> None:
        super().__init__()
        require_frozen(encoder, "residual latents")
        self.encoder, self.reader, self.writer, self.width, self.view = encoder, reader, writer, width, view
        self.tokens, self.reads, self.writes = len(reader.tokens), reads, writes
        nn.init.zeros_(writer.out.weight)

    def encode(self, now: Float[Tensor, "n P E"], future: Float[Tensor, "n P E"]) -> Float[Tensor, "n K Z"]:
        if now.shape != future.shape:
            raise ValueError(
                f"a change is that of one frame into another: {tuple(now.shape)} and {tuple(future.shape)} are not of one shape"
            )
        seen = future - now if self.reads == "sub" else torch.cat([future, now], dim=-1)
        return self.reader(seen, None, self.tokens).float()

    def decode(self, now: Float[Tensor, "n P E"], latent: Float[Tensor, "n K Z"]) -> Float[Tensor, "n P E"]:
        if latent.shape != (len(now), self.tokens, self.width):
            raise ValueError(f"the latents of {len(now)} frames are {(len(now), self.tokens, self.width)}, not {tuple(latent.shape)}")
        written = self.writer(now, latent, self.tokens + now.shape[1])[:, self.tokens :].float()
        return now + written if self.writes == "change" else written


@dataclass(frozen=True)
class Config(Blueprint):
    """A residual latent autoencoder; the defaults are the paper's sizes, behind DINOv3-L at 512 pixels.

    Attributes:
        encoder: the frozen feature space.
        weights: none, or the run folder of an arm that has this model; "stage:NAME" is a stage.
        tokens, latent: K and Z.
        width, depth, heads: of encoder and decoder each.
        reads, writes: see Autoencoder.
        view: camera.
    """

    encoder: Blueprint
    weights: str = "none"
    tokens: int = 32
    latent: int = 64
    width: int = 1024
    depth: int = 12
    heads: int = 16
    reads: Reads = "sub"
    writes: Writes = "frame"
    view: int = 0

    def build(self, sizes: Sizes) -> Autoencoder:
        if self.tokens < 1 or self.latent < 1:
            raise UserError(f"a residual latent needs at least one token of one number, not {self.tokens} of {self.latent}")
        if self.width % self.heads:
            raise UserError(f"an autoencoder of width {self.width} cannot have {self.heads} heads: choose a divisor of the width")
        if not 0 <= self.view < sizes.views:
            raise UserError(f"there is no camera {self.view}: the data has {sizes.views}")
        encoder = cast("Encoder", self.encoder.build(sizes))
        seen = encoder.width * (1 if self.reads == "sub" else 2)
        shape = {"width": self.width, "depth": self.depth, "heads": self.heads, "tokens": self.tokens}
        reader = TokenTransformer(seen, writes=self.latent, **shape)
        writer = TokenTransformer(encoder.width, writes=encoder.width, fed=self.latent, **shape)
        model = Autoencoder(encoder, reader, writer, self.latent, self.view, self.reads, self.writes)
        if self.weights != "none" and not on_meta():
            take(model, "residuals", self.weights, "residual latent autoencoder; train the arm `rla`")
        return model
