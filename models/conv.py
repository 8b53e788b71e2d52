"""Which encoder learns from scratch in minutes?  A small residual convolutional net; the offline default of every policy."""

from dataclasses import dataclass
from itertools import pairwise

from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Encoder, Sizes


class Residual(nn.Module):
    """Two 3x3 convolutions with group norm; the last norm starts at zero."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(8, channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.GroupNorm(8, channels),
        )
        nn.init.zeros_(self.body[-1].weight)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.body(x)).relu()


class Conv(Encoder):
    """Plain channels-first memory: group norm is ten times slower on a CPU when channels come last.

    A patch stem of stride 4, then residual stages, each of which halves the grid: stride 4, 8, 16, ...

    Args:
        channels: of each stage; the first is the stem's.
        size: pixels of a side.
    """

    def __init__(self, channels: tuple[int, ...], size: int) -> None:
        super().__init__()
        stride = 4 * 2 ** (len(channels) - 1)
        if odd := [c for c in channels if c % 8 or c < 8]:
            raise UserError(f"channels {odd} do not divide into 8 groups")
        if size % stride:
            raise UserError(f"images of {size} pixels do not divide by this encoder's stride of {stride}")
        self.width, self.grid = channels[-1], (size // stride, size // stride)
        layers: list[nn.Module] = [nn.Conv2d(3, channels[0], 8, 4, 2, bias=False), nn.GroupNorm(8, channels[0]), nn.ReLU()]
        for before, after in pairwise(channels):
            layers += [nn.Conv2d(before, after, 3, 2, 1, bias=False), nn.GroupNorm(8, after), nn.ReLU(), Residual(after)]
        self.body = nn.Sequential(*layers)

    def forward(self, image: Float[Tensor, "n 3 Y X"]) -> Float[Tensor, "n P E"]:
        return self.body((2 * image).sub_(1)).flatten(2).transpose(1, 2)  # in place: one temporary fewer


@dataclass(frozen=True)
class Config(Blueprint):
    """The small convolutional encoder, trained with the policy."""

    channels: tuple[int, ...] = (32, 64, 128)

    def build(self, sizes: Sizes) -> Conv:
        if not self.channels or min(self.channels) < 1:
            raise UserError(f"an encoder has at least one layer of at least one channel, not {self.channels}")
        return Conv(self.channels, sizes.image)
