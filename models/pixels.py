"""What would these tokens look like?  A small decoder from a frozen feature space to pixels, for looking and for pixel metrics."""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Encoder, Freezable, Sizes

from .backbones import on_meta, resized
from .conv import Residual
from .parts import require_frozen, take


class Pixels(Freezable):
    """Residual convolutions on the grid of tokens, doubled in size as often as a patch divides by 2; the rest of a patch at once.

    Args:
        seen, grid: of the tokens.
        size: pixels of a side.
        channels: on the grid; halved at every doubling, never below 16.
    """

    def __init__(self, seen: int, grid: tuple[int, int], size: int, channels: int) -> None:
        super().__init__()
        self.grid, self.size = grid, size
        patch = math.ceil(size / max(grid))
        doublings = (patch & -patch).bit_length() - 1
        self.rest = patch >> doublings
        layers: list[nn.Module] = [nn.Conv2d(seen, channels, 1), Residual(channels), Residual(channels)]
        for _ in range(doublings):
            fewer = max(16, channels // 2)
            layers += [nn.Upsample(scale_factor=2, mode="nearest"), nn.Conv2d(channels, fewer, 3, padding=1), nn.ReLU(), Residual(fewer)]
            channels = fewer
        self.body = nn.Sequential(*layers, nn.Conv2d(channels, 3 * self.rest**2, 3, padding=1))

    def forward(self, tokens: Float[Tensor, "n P E"]) -> Float[Tensor, "n 3 Y X"]:
        """An image in [0, 1] up to errors."""
        maps = tokens.transpose(1, 2).unflatten(2, self.grid)
        return resized(0.5 + pixel_shuffle(self.body(maps).float(), self.rest), self.size)


@dataclass(frozen=True)
class Config(Blueprint):
    """A decoder to pixels.

    Attributes:
        encoder: the frozen feature space it reads.
        weights: none, or the run folder of an arm that has this decoder; "stage:NAME" is a stage.
        channels: on the grid of tokens, a multiple of 16.
    """

    encoder: Blueprint
    weights: str = "none"
    channels: int = 128

    def build(self, sizes: Sizes) -> Pixels:
        if self.channels % 16 or self.channels < 16:
            raise UserError(f"a decoder to pixels has channels in multiples of 16, not {self.channels}")
        encoder: Encoder = self.encoder.build(sizes)  # type: ignore[assignment]
        require_frozen(encoder, "decoders to pixels")
        decoder = Pixels(encoder.width, encoder.grid, sizes.image, self.channels)
        if self.weights != "none" and not on_meta():
            take(decoder, "pixels", self.weights, "decoder to pixels; train the arm `feature_space`")
        return decoder
