"""How does a latent get mean 0 and deviation 1?  By statistics measured once, on training data, and kept with the weights."""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

Scaling = Literal["measured", "tenth", "none"]


class Standardiser(nn.Module):
    """(x - mean) / deviation, number by number.

    Args:
        shape: of the numbers that each have statistics; what comes before it is averaged over.
        scaling: "measured", "tenth", which divides by ten whatever the data (RLA-WM's published code), or "none".
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, *shape: int, scaling: Scaling = "measured") -> None:
        super().__init__()
        self.scaling = scaling
        self.register_buffer("mean", torch.zeros(shape))
        self.register_buffer("deviation", torch.full(shape, 10.0 if scaling == "tenth" else 1.0))

    @torch.no_grad()
    def fit(self, samples: Iterable[Float[Tensor, "n *shape"]]) -> None:
        """Measure; a number that never changes keeps a deviation of 1.  Nothing happens where nothing is measured."""
        if self.scaling != "measured":
            return
        count, total, squares = 0, torch.zeros_like(self.mean, dtype=torch.float64), torch.zeros_like(self.mean, dtype=torch.float64)
        for part in samples:
            rows = self._fitting(part).flatten(0, part.ndim - self.mean.ndim - 1).double()
            count, total, squares = count + len(rows), total + rows.sum(dim=0), squares + rows.square().sum(dim=0)
        if count < 2:
            return
        mean = total / count
        deviation = ((squares / count - mean.square()).clamp(min=0) * count / (count - 1)).sqrt()
        self.mean.copy_(mean)
        self.deviation.copy_(torch.where(deviation < 1e-6, 1.0, deviation))

    def forward(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """Standardised.

        Raises:
            ValueError: the last dimensions are not those of the statistics.
        """
        return (self._fitting(x) - self.mean) / self.deviation

    def back(self, x: Float[Tensor, "*n"]) -> Float[Tensor, "*n"]:
        """As it was.

        Raises:
            ValueError: the last dimensions are not those of the statistics.
        """
        return self._fitting(x) * self.deviation + self.mean

    def _fitting(self, x: Tensor) -> Tensor:
        shape = tuple(self.mean.shape)
        if tuple(x.shape[x.ndim - len(shape) :]) != shape:
            raise ValueError(f"these statistics are of {shape} numbers, which must be the last dimensions of {tuple(x.shape)}")
        return x
