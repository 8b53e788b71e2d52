"""How is a chunk of actions found that costs least?  By drawing many, and drawing again near the good ones.

CEM, the cross-entropy method (Rubinstein and Kroese 2004), as DINO-WM plans, arXiv:2411.04983:
    x_i ~ N(mean, spread^2), x_1 = mean; mean and spread are those of the best few                 Cem.plan
MPPI, model predictive path integral control (Williams et al. 2017), arXiv:1509.01149:
    x_i ~ N(mean, spread^2), x_1 = mean; mean = sum w_i x_i, w_i ~ exp(-(c_i - min c) / (temperature deviation of c))      Mppi.plan
Actions are scaled to [-1, 1] and drawn inside.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from .errors import UserError
from .interfaces import Cost, Planner


@dataclass(frozen=True)
class Cem(Planner):
    """The cross-entropy method; DINO-WM has 300 samples, 30 elites, 10 to 30 iterations, spread 1.

    Attributes:
        samples: of an iteration.
        elites: of them, from which the next mean and spread are taken.
        iterations: how often.
        spread: of the first.
    """

    samples: int = 64
    elites: int = 8
    iterations: int = 5
    spread: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.elites <= self.samples:
            raise UserError(f"CEM needs from 1 elite to as many as samples: --elites {self.elites} of --samples {self.samples} cannot be")
        if self.iterations < 1 or self.spread <= 0:
            raise UserError(f"CEM needs --iterations of at least 1 and a spread above 0, not {self.iterations} and {self.spread}")

    def plan(self, cost: Cost, start: Float[Tensor, "K A"], generator: torch.Generator) -> Float[Tensor, "K A"]:
        mean, spread = start, torch.full_like(start, self.spread)
        for _ in range(self.iterations):
            drawn = candidates(mean, spread, self.samples, generator)
            best = drawn[cost(drawn).argsort()[: self.elites]]
            mean, spread = best.mean(dim=0), best.std(dim=0, unbiased=False)
        return mean


@dataclass(frozen=True)
class Mppi(Planner):
    """Path integral control; the spread stays.

    Attributes:
        samples: of an iteration.
        iterations: how often.
        spread: of all of them.
        temperature: in deviations of the costs; near 0 the best candidate is taken.
    """

    samples: int = 64
    iterations: int = 5
    spread: float = 0.5
    temperature: float = 0.3

    def __post_init__(self) -> None:
        if self.samples < 2 or self.iterations < 1 or self.spread <= 0 or self.temperature <= 0:
            raise UserError(
                f"MPPI needs 2 --samples, 1 --iterations, a spread and a temperature at least; not {self.samples}, {self.iterations}, "
                f"{self.spread} and {self.temperature}"
            )

    def plan(self, cost: Cost, start: Float[Tensor, "K A"], generator: torch.Generator) -> Float[Tensor, "K A"]:
        mean = start
        for _ in range(self.iterations):
            drawn = candidates(mean, torch.full_like(mean, self.spread), self.samples, generator)
            costs = cost(drawn)
            weight = torch.softmax(-(costs - costs.min()) / (self.temperature * costs.std().clamp(min=1e-12)), dim=0)
            mean = torch.einsum("n,nka->ka", weight, drawn)
        return mean


def candidates(mean: Float[Tensor, "K A"], spread: Float[Tensor, "K A"], count: int, generator: torch.Generator) -> Float[Tensor, "n K A"]:
    """Normal ones inside [-1, 1]; the first is the mean itself."""
    drawn = mean + spread * torch.randn(count, *mean.shape, generator=generator)
    drawn[0] = mean
    return drawn.clamp(-1, 1)
