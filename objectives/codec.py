"""A codec trained alone, on frames of the data: what explicit world models generate in.

Kingma and Welling 2014, arXiv:1312.6114; Rombach et al. 2022, latent diffusion, arXiv:2112.10752.
    z  = mean + exp(logvar / 2) eps                                      drawn
    KL = mean over latent numbers of (mean^2 + exp(logvar) - 1 - logvar) / 2     divergence
    L  = mean |D(z) - o| + mean (D(z) - o)^2 + weight KL, images in [0, 1]       wmzoo.objectives.pixels.paint_loss
We differ: no adversary and no LPIPS, which needs weights; latents are standardised by whoever generates them.
"""

from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Objective, Sizes
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked

from .pixels import paint_loss


@checked
def drawn(mean: Float[Tensor, "B C y x"], logvar: Float[Tensor, "B C y x"], noise: Float[Tensor, "B C y x"]) -> Float[Tensor, "B C y x"]:
    """A draw from the posterior, with a gradient into mean and variance."""
    return mean + torch.exp(logvar / 2) * noise


@checked
def divergence(mean: Float[Tensor, "B C y x"], logvar: Float[Tensor, "B C y x"]) -> Float[Tensor, "B"]:
    """Kullback-Leibler divergence from the standard normal, averaged over the latent numbers of each window; 0 for mean 0, variance 1."""
    return ((mean.square() + logvar.exp() - 1 - logvar) / 2).mean(dim=(1, 2, 3))


class Coding(Objective):
    """Paints the present frame from a draw of its own posterior.

    Args:
        codec: both halves; not frozen.
        view: camera.
    """

    def __init__(self, codec: nn.Module, view: int) -> None:
        super().__init__()
        if hasattr(codec, "fingerprint"):
            raise UserError("this arm trains its codec: set frozen to False")
        self.codec, self.view = codec, view

    def forward(self, batch: Batch) -> Question:
        frame = batch.image[:, -1, self.view]
        codec = cast("Any", self.codec)

        def score(_: Hidden) -> dict[str, Score]:
            mean, logvar = (part.float() for part in codec.posterior(frame))
            painted = codec.decode(drawn(mean, logvar, torch.randn_like(mean)))
            counts = torch.ones(len(batch), dtype=torch.bool, device=frame.device)
            return {"paint": Score(paint_loss(painted, frame), counts), "kl": Score(divergence(mean, logvar), counts)}

        def watch(_: Hidden) -> dict[str, Tensor]:
            from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

            painted = codec.paint(codec(frame), frame.shape[-1]).clamp(0, 1).float()
            with torch.autocast(frame.device.type, enabled=False):  # a variance in bf16 is mostly rounding: .92 would read .85
                ssim = cast("Tensor", structural_similarity_index_measure(painted, frame, data_range=1.0))
                return {"ssim": ssim, "psnr": peak_signal_noise_ratio(painted, frame, data_range=1.0)}

        return Question({}, frozenset(), score, watch)


@dataclass(frozen=True)
class Config(Blueprint):
    """A codec by itself.

    Attributes:
        codec: models/codec.py, not frozen, at the size of the frames.
        view: camera.
    """

    codec: Blueprint
    view: int = 0

    def build(self, sizes: Sizes) -> Coding:
        return Coding(self.codec.build(sizes), self.view)
