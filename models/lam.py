"""What happened between two frames?  Moto's motion tokenizer, the latent action model of LARA.

Chen et al. 2024, Moto: Latent Motion Token as the Bridging Language for Learning Robot Manipulation, arXiv:2412.04445;
as used by LARA.  The whole chain, after an encoder of both frames (frozen in the paper):
    [K queries | first frame | separator | second frame], self-attention; the queries come out   wmzoo.models.lam.MotionFormer
    z = Linear(tanh(Linear(h))), the latent that LARA aligns          wmzoo.models.lam.LatentActionModel.encode
    a bottleneck (models/quantise.py)                                 wmzoo.models.lam.LatentActionModel.quantise
    patches of the first frame + Linear(flat(Linear(tanh(Linear(code))))), self-attention, pixels   wmzoo.models.lam.Painter
We differ from the published code: patches are in order (it permutes them at random in every call, both frames differently), the
class token is not read (at paper scale 401 places in the M-Former, where it has 403), each frame has its own kind (it gives both
the first), images are in [0, 1] everywhere (it changes their normalisation between stages).  models/moto.py differs in the order of
the patches alone, and takes the published weights.  Below paper scale the painter paints the change of the frame and starts as a
copy of it.
Frames are those of one camera; at paper scale they are read and painted at 224 pixels, Moto's size, whatever they were recorded at.
"""

from dataclasses import dataclass, field, replace
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Blueprint, Encoder, LatentActions, Quantised, Sizes

from . import quantise
from .attention import VitBlock, from_patches, into_patches
from .backbones import Backbone, in_range, on_meta, resized
from .parts import take
from .perceptual import Lpips, feature_distance, lpips_or

Paint = Literal["frame", "change"]


class MotionFormer(nn.Module):
    """Learned queries that look at two frames.

    Args:
        seen: width of the frames' tokens; `patches` is how many each frame has.
        width, depth, heads: of the blocks.
        queries: K.
    """

    def __init__(self, seen: int, patches: int, width: int, depth: int, heads: int, queries: int) -> None:
        super().__init__()
        self.project = nn.Linear(seen, width)
        self.queries = nn.Parameter(0.02 * torch.randn(queries, width))
        self.separator = nn.Parameter(0.02 * torch.randn(1, width))
        self.place = nn.Parameter(0.02 * torch.randn(queries + 2 * patches + 1, width))
        self.kind = nn.Parameter(0.02 * torch.randn(2, width))
        self.blocks = nn.ModuleList(VitBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-12)

    def forward(self, first: Float[Tensor, "n P E"], second: Float[Tensor, "n P E"]) -> Float[Tensor, "n K D"]:
        x = self._sequence(first, second)
        for i, block in enumerate(self.blocks, start=1):
            x = block(x, len(self.queries) if i == len(self.blocks) else x.shape[1])
        return self.norm(x[:, : len(self.queries)])

    def _sequence(self, first: Tensor, second: Tensor) -> Tensor:
        n, patches = first.shape[:2]
        queries, separator = self.queries.expand(n, -1, -1), self.separator.expand(n, -1, -1)
        x = torch.cat([queries, self.project(first), separator, self.project(second)], dim=1)
        kind = self.kind.repeat_interleave(
            torch.tensor([len(self.queries) + patches, patches + 1], device=x.device), dim=0, output_size=x.shape[1]
        )
        return x + self.place + kind

    def attention(self, first: Float[Tensor, "n P E"], second: Float[Tensor, "n P E"]) -> Float[Tensor, "n K P"]:
        """How much each query looks at each patch of the second frame in the last block, averaged over heads."""
        *before, last = cast("list[VitBlock]", list(self.blocks))
        x = self._sequence(first, second)
        for block in before:
            x = block(x, x.shape[1])
        q, k, _ = last.attn.split(last.attn.qkv(last.norm_attn(x)), 3)
        weights = (q[:, :, : len(self.queries)] @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).softmax(dim=-1).mean(dim=1)
        return weights[:, :, -second.shape[1] :]


class Painter(nn.Module):
    """The first frame and the motion to the second frame.

    Args:
        patch, size: pixels of a side, of a patch and of a painted frame.
        width, depth, heads: of the blocks; `motion` is how many numbers the motion has.
        paint: "frame" paints all pixels anew; "change" paints what is added to the first frame, nothing at first.
    """

    def __init__(self, patch: int, size: int, width: int, depth: int, heads: int, motion: int, paint: Paint) -> None:
        super().__init__()
        self.patch, self.paint, self.size, self.rows = patch, paint, size, size // patch
        self.embed = nn.Linear(3 * patch * patch, width)
        self.spread = nn.Linear(motion, width)
        self.place = nn.Parameter(0.02 * torch.randn((size // patch) ** 2, width))
        self.blocks = nn.ModuleList(VitBlock(width, heads) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.pixels = nn.Linear(width, 3 * patch * patch)
        if paint == "change":
            nn.init.zeros_(self.pixels.weight)
            nn.init.zeros_(self.pixels.bias)

    def forward(self, first: Float[Tensor, "n 3 Y X"], motion: Float[Tensor, "n M"]) -> Float[Tensor, "n 3 Y X"]:
        x = self.embed(into_patches(first, self.patch)) + self.spread(motion)[:, None] + self.place
        for block in self.blocks:
            x = block(x, x.shape[1])
        painted = from_patches(self.pixels(self.norm(x)), self.patch, self.rows).float()
        return first + painted if self.paint == "change" else painted


class LatentActionModel(LatentActions):
    """Encoder, M-Former, bottleneck, painter.

    Args:
        encoder: of the frames.
        former: reads both frames.
        bottleneck: of the latent.
        painter: reconstructs the second frame.
        width: Z, numbers of a token.
        view: camera.
        perceptual: weights of the perceptual distance; "none" has none.
    """

    def __init__(
        self,
        encoder: Encoder,
        former: MotionFormer,
        bottleneck: quantise.Bottleneck,
        painter: Painter,
        width: int,
        view: int,
        perceptual: str,
    ) -> None:
        super().__init__()
        inner = former.queries.shape[1]
        self.encoder, self.former, self.bottleneck, self.painter = encoder, former, bottleneck, painter
        self.tokens, self.width, self.codes, self.view = len(former.queries), width, bottleneck.codes, view
        self.down = nn.Sequential(nn.Linear(inner, inner), nn.Tanh(), nn.Linear(inner, width))
        self.up = nn.Sequential(nn.Linear(width, width), nn.Tanh(), nn.Linear(width, inner))
        if perceptual != "none" and not (isinstance(encoder, Backbone) and encoder.frozen):
            raise UserError("a perceptual term needs a frozen encoder: set its `frozen` to True, or `perceptual` to none")
        self.perceptual = lpips_or(perceptual)
        self.by_lpips = isinstance(self.perceptual, Lpips)

    def frames(self, batch: Batch, gap: int) -> tuple[Float[Tensor, "B P E"], Float[Tensor, "B P E"]]:
        """Tokens of the present frame, and of the one `gap` control steps ahead (0 is the present).

        Raises:
            UserError: the frames are not in [0, 1]; said here too, since tokens may come from disk while the painter reads the frame.
        """
        in_range(batch.image[:, -1, self.view])
        if gap and not isinstance(self.encoder, Backbone):  # which looks for itself
            in_range(batch.future[:, batch.column(gap), self.view])
        now = frame_tokens(batch, self.encoder, self.view)
        return now, now if gap == 0 else frame_tokens(batch, self.encoder, self.view, batch.column(gap))

    def encode(self, batch: Batch, gap: int) -> Float[Tensor, "B K Z"]:
        return self.down(self.former(*self.frames(batch, gap))).float()

    def quantise(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        with torch.autocast(latent.device.type if not latent.is_meta else "cpu", enabled=False):
            return self.bottleneck(latent, valid)

    def seen(self, frame: Float[Tensor, "n 3 Y X"]) -> Float[Tensor, "n 3 S S"]:
        return resized(frame, self.painter.size)

    def decode(self, batch: Batch, value: Float[Tensor, "B K Z"]) -> Float[Tensor, "B 3 S S"]:
        return self.painter(self.seen(batch.image[:, -1, self.view]), self.up(value).flatten(1))

    def attention(self, batch: Batch, gap: int) -> Float[Tensor, "B K P"]:
        return self.former.attention(*self.frames(batch, gap)).float()

    def distance(self, batch: Batch, gap: int, painted: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B"]:
        match self.perceptual:
            case Lpips() as lpips:
                column = batch.column(gap)
                there = batch.has_future[:, column, None, None, None]
                return lpips(painted, torch.where(there, self.seen(batch.future[:, column, self.view]), painted.detach()))
            case "features":
                encoder = cast("Backbone", self.encoder)
                made = encoder.tokens(encoder.normalised(painted))  # its forward would stop the gradient
                wanted = frame_tokens(batch, encoder, self.view, batch.column(gap))
                return feature_distance(made.float(), wanted.float())
            case _:
                return painted.new_zeros(len(painted))


@dataclass(frozen=True)
class Config(Blueprint):
    """A latent action model; the defaults are Moto's sizes.

    Attributes:
        encoder: of the frames; Moto's is a frozen ViT-MAE-L.
        bottleneck: models/quantise.py.
        weights: none, or the run folder of an arm that has this model (its own stage, or a joint run); "stage:NAME" is a stage.
        tokens, latent: K and Z.
        width, heads: of M-Former and painter.
        depth, painter: blocks of each.
        patch: pixels of a side of a painted patch.
        paint: "frame" or "change".
        perceptual: "auto" (LPIPS if VGG's weights are there, else features), "features", "none", or the path of VGG's weights.
        view: camera.
    """

    encoder: Blueprint
    bottleneck: quantise.Config = field(default_factory=quantise.Config)
    weights: str = "none"
    tokens: int = 8
    latent: int = 32
    width: int = 768
    heads: int = 12
    depth: int = 4
    painter: int = 12
    patch: int = 16
    paint: Paint = "frame"
    perceptual: str = "auto"
    view: int = 0

    def build(self, sizes: Sizes) -> LatentActionModel:
        self._check(sizes)
        encoder = cast("Encoder", self.encoder.build(sizes))
        patches = encoder.grid[0] * encoder.grid[1]
        former = MotionFormer(encoder.width, patches, self.width, self.depth, self.heads, self.tokens)
        painter = Painter(self.patch, sizes.image, self.width, self.painter, self.heads, self.tokens * self.width, self.paint)
        bottleneck = self.bottleneck.build(self.latent)
        perceptual = "features" if on_meta() and self.perceptual == "auto" else self.perceptual
        model = LatentActionModel(encoder, former, bottleneck, painter, self.latent, self.view, perceptual)
        if self.weights != "none" and not on_meta():
            take(model, "lam", self.weights, "latent action model; train the arm `lam`")
        return model

    def _check(self, sizes: Sizes) -> None:
        if self.tokens < 1 or self.latent < 1:
            raise UserError(f"a latent action needs at least one token of one number, not {self.tokens} of {self.latent}")
        if self.width % self.heads:
            raise UserError(f"a latent action model of width {self.width} cannot have {self.heads} heads: choose a divisor of the width")
        if sizes.image % self.patch:
            raise UserError(f"images of {sizes.image} pixels do not divide into painted patches of {self.patch}")
        if not 0 <= self.view < sizes.views:
            raise UserError(f"there is no camera {self.view}: the data has {sizes.views}")


@dataclass(frozen=True)
class SizedConfig(Config):
    """A latent action model with an image size of its own, so that it starts from a run on frames of another size.

    Attributes:
        size: pixels of a side that frames are painted with; Moto's are as large as its encoder's.
    """

    size: int = 224

    def build(self, sizes: Sizes) -> LatentActionModel:
        return super().build(replace(sizes, image=self.size))
