"""How does a motion become few symbols?  Five bottlenecks behind one interface: `bottleneck(latent, valid) -> Quantised`.

van den Oord et al. 2017, Neural Discrete Representation Learning (VQ-VAE), arXiv:1711.00937; Chen et al. 2024, Moto,
arXiv:2412.04445; Ye et al. 2024, LAPA, arXiv:2410.11758; Vali and Backstrom 2022, NSVQ, IEEE Access 10, 13598;
Mentzer et al. 2023, Finite Scalar Quantization, arXiv:2309.15505; Gao et al. 2025, AdaWorld, arXiv:2503.18938.
    penalty = a mean (z - sg[e])^2 + b mean (sg[z] - e)^2           commitment
    value   = z + sg[e - z]                                         straight_through
    value   = z + |z - e| r / |r|, r ~ N(0, I)        (NSVQ)        substitute_noise
    unused codes are replaced after steps 10, 20 ... 100, 200 ... 1000, 1500 ... 4500, then never (LAPA)     period
    penalty = mean (m^2 + s^2 - 1 - ln s^2) / 2       (AdaWorld)    gaussian_kl
Vq is the modern form, by vector-quantize-pytorch: codes follow their latents by EMA (so b = 0), a = 0.25, dead codes are drawn
anew from the batch.  Legacy is Moto's code: a = 1 and b = 0.25, the reverse of the paper, learnt codes, no revival.
Fsq is the library's.  Nothing here looks at a window that is not valid.
We differ in NSVQ: a code is replaced if it was chosen in less than a tenth of the passes since the last time, as NSVQ's authors have it
(LAPA's code divides these passes by the windows of a batch), and by a used one plus a hundredth of their spread (LAPA's code: 1e-12,
a copy that no latent is ever nearer to).
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import Literal, assert_never, cast

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.functional import normalize

from wmzoo.errors import UserError
from wmzoo.interfaces import Quantised
from wmzoo.shapes import checked

Kind = Literal["vq", "legacy", "nsvq", "fsq", "gaussian", "sphere"]
RARELY = 0.1  # share of the passes below which a code is replaced (`discarding_threshold` of LAPA's code)
LEVELS = {128: (8, 4, 4), 64: (8, 8), 16: (4, 4), 8: (8,)}  # of Fsq, whose product is the number of codes


@checked
def commitment(latent: Float[Tensor, "B K Z"], code: Float[Tensor, "B K Z"], on_latent: float, on_code: float) -> Float[Tensor, "B"]:
    """Squared distance of each latent to its code, averaged over tokens and numbers; a weight for each side that moves.

    Args:
        latent: before the bottleneck.
        code: the nearest one.
        on_latent, on_code: how much the distance pulls the latent, and the code.
    """
    to_code = (latent - code.detach()).square().mean(dim=(1, 2))
    to_latent = (code - latent.detach()).square().mean(dim=(1, 2))
    return on_latent * to_code + on_code * to_latent


@checked
def straight_through(latent: Float[Tensor, "B K Z"], code: Float[Tensor, "B K Z"]) -> Float[Tensor, "B K Z"]:
    """The code, with the gradient of the latent."""
    return latent + (code - latent).detach()


@checked
def substitute_noise(latent: Float[Tensor, "B K Z"], code: Float[Tensor, "B K Z"], noise: Float[Tensor, "B K Z"]) -> Float[Tensor, "B K Z"]:
    """The latent and an error as long as the code's, in the direction of the noise: a gradient reaches latent and code."""
    return latent + (latent - code).norm(dim=-1, keepdim=True) * normalize(noise, dim=-1)


def period(step: int) -> int:
    """How many passes LAPA's code looks back over when it replaces unused codes after this step, counted from 0; 0 where it does not."""
    every = 10 if step <= 100 else 100 if step <= 1000 else 500
    return every if 0 < step < 5000 and step % every == 0 else 0


@checked
def gaussian_kl(mean: Float[Tensor, "B K Z"], log_variance: Float[Tensor, "B K Z"]) -> Float[Tensor, "B"]:
    """Divergence of a Gaussian from the unit Gaussian, averaged over tokens and numbers, in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean(dim=(1, 2))


@checked
def nearest(latent: Float[Tensor, "B K Z"], codebook: Float[Tensor, "N Z"]) -> Int[Tensor, "B K"]:
    """The code at the smallest distance from each token."""
    return torch.cdist(latent.detach(), codebook.detach()[None]).argmin(dim=-1)


class Bottleneck(nn.Module, ABC):
    """Attributes: `codes` is how many a token may take, 0 if it is continuous."""

    codes = 0

    @abstractmethod
    def forward(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        """The latent through the bottleneck."""


class Vq(Bottleneck):
    """Codes that follow their latents.  All are dead at first, so the first training batch gives them their places.

    The library's own start by k-means is not used: it also happens in eval, whatever the batch.
    """

    def __init__(self, codes: int, width: int) -> None:
        from vector_quantize_pytorch import VectorQuantize

        super().__init__()
        self.codes = codes
        self.book = VectorQuantize(width, codes, decay=0.98, threshold_ema_dead_code=1, commitment_weight=0.0, rotation_trick=False)

    def forward(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        if latent.is_meta:  # for counting alone: the library looks at numbers
            return Quantised(latent, None, latent.mean(dim=(1, 2)))
        number, code = torch.zeros(latent.shape[:2], dtype=torch.long, device=latent.device), latent.detach().clone()
        if valid.any():
            code[valid], number[valid], _ = self.book(latent.detach()[valid])
        return Quantised(straight_through(latent, code), number, commitment(latent, code, 0.25, 0.0))


class Legacy(Bottleneck):
    """Codes that are learnt by gradient, with the weights of Moto's code."""

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.codes = codes
        self.book = nn.Embedding(codes, width)
        nn.init.uniform_(self.book.weight, -1 / codes, 1 / codes)

    def forward(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        number = nearest(latent, self.book.weight)
        code = self.book(number)
        return Quantised(straight_through(latent, code), number, commitment(latent, code, 1.0, 0.25))


class Nsvq(Bottleneck):
    """Codes that are learnt through substituted noise; those that hardly anybody used are drawn anew from the used ones.

    LAPA's schedule (`period`) says when; hardly used is what was chosen in fewer than a tenth of the training passes since the last time.
    The noise of a pass is torch's.
    """

    def __init__(self, codes: int, width: int) -> None:
        super().__init__()
        self.codes = codes
        self.book = nn.Parameter(torch.randn(codes, width))
        self.register_buffer("used", torch.zeros(codes))
        self.register_buffer("passes", torch.zeros((), dtype=torch.long))

    def forward(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        number = nearest(latent, self.book)
        code = self.book[number]
        none = latent.new_zeros(len(latent))
        if not self.training:
            return Quantised(straight_through(latent, code), number, none)
        if not latent.is_meta:
            self._revive(number[valid])
        return Quantised(substitute_noise(latent, code, torch.randn_like(latent)), number, none)

    @torch.no_grad()
    def _revive(self, number: Int[Tensor, "b K"]) -> None:
        used, passes = cast("Tensor", self.used), cast("Tensor", self.passes)
        used += torch.bincount(number.flatten(), minlength=self.codes) > 0
        if since := period(int(passes)):
            dead = used < RARELY * since
            if dead.any() and not dead.all():
                alive = self.book[~dead]
                chosen = alive[torch.randint(len(alive), (int(dead.sum()),), device=alive.device)]
                self.book[dead] = chosen + 0.01 * alive.std() * torch.randn_like(chosen)
            used.zero_()
        passes += 1


class Fsq(Bottleneck):
    """Each number of a short projection is rounded to a few levels; nothing is learnt, nothing can die."""

    def __init__(self, codes: int, width: int) -> None:
        from vector_quantize_pytorch import FSQ

        super().__init__()
        if codes not in LEVELS:
            raise UserError(f"finite scalars make {sorted(LEVELS)} codes here, not {codes}")
        self.codes = prod(LEVELS[codes])
        self.book = FSQ(levels=list(LEVELS[codes]), dim=width)

    def forward(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        if latent.is_meta:
            return Quantised(latent, None, latent.mean(dim=(1, 2)))
        value, number = self.book(latent)
        return Quantised(value, number.long(), latent.new_zeros(len(latent)))


class Gaussian(Bottleneck):
    """Continuous: the latent is a mean, its variance is read off it, a sample travels in training."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.log_variance = nn.Linear(width, width)

    def forward(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        log_variance = self.log_variance(latent).float()
        noise = torch.randn_like(latent) if self.training else torch.zeros_like(latent)
        return Quantised(latent + (0.5 * log_variance).exp() * noise, None, gaussian_kl(latent, log_variance))


class Sphere(Bottleneck):
    """Continuous: each token is put on the sphere on which its numbers have a mean square of 1."""

    def forward(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        return Quantised(latent.shape[-1] ** 0.5 * normalize(latent, dim=-1), None, latent.new_zeros(len(latent)))


@dataclass(frozen=True)
class Config:
    """A bottleneck.

    Attributes:
        kind: vq, legacy (Moto), nsvq (LAPA), fsq; gaussian (AdaWorld) and sphere are continuous.
        codes: how many a token may take; nothing to the continuous kinds.
    """

    kind: Kind = "vq"
    codes: int = 128

    def build(self, width: int) -> Bottleneck:
        if self.codes < 2:
            raise UserError(f"a codebook needs at least 2 codes, not {self.codes}")
        match self.kind:
            case "vq":
                return Vq(self.codes, width)
            case "legacy":
                return Legacy(self.codes, width)
            case "nsvq":
                return Nsvq(self.codes, width)
            case "fsq":
                return Fsq(self.codes, width)
            case "gaussian":
                return Gaussian(width)
            case "sphere":
                return Sphere()
            case _:
                assert_never(self.kind)
