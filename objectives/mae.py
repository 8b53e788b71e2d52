"""Masked autoencoding: hide three quarters of an image, paint them back; the encoder that comes out is used elsewhere.

He et al. 2021, Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377.
    keep a uniformly random quarter of the patches, drawn anew for each image   random_mask
    x_p = the pixels of patch p, as the encoder normalises them                 patchify
    y_p = (x_p - mean x_p) / sqrt(var x_p + 1e-6), per patch                    normalise_patches
    L   = mean over hidden patches and their pixels of (D(E(visible))_p - y_p)^2   reconstruction_loss
The encoder sees visible patches only; the decoder sees their tokens and one mask token in every other place.
We differ: each window is marked alone (its frames and cameras together); augmentation is the data's random shift, without
crops and flips, since the policy has to know where things are.  A recorded action is never read: video counts like demonstrations.
Under normalise_patches, predicting the mean of each patch costs 1 (a patch has one mean for all its channels).
"""

from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.interfaces import Blueprint, Objective, Sizes
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked


@checked
def random_mask(noise: Float[Tensor, "n P"], ratio: float) -> tuple[Int[Tensor, "n K"], Int[Tensor, "n P"], Bool[Tensor, "n P"]]:
    """Which patches stay: those with the smallest noise.

    Args:
        noise: one number for each patch; only its order counts.
        ratio: part of the patches that is hidden.

    Returns:
        Indices of the K = int(P (1 - ratio)) kept patches, in order of noise; the place of each patch in that order, which
        puts it back; True where a patch is hidden.
    """
    order = noise.argsort(dim=1)
    restore = order.argsort(dim=1)
    keep = int(noise.shape[1] * (1 - ratio))
    return order[:, :keep], restore, restore >= keep


@checked
def patchify(pixels: Float[Tensor, "n 3 S S"], patch: int) -> Float[Tensor, "n P C"]:
    """The pixels of each patch, patches in row-major order; C counts row, column, channel, the channel fastest."""
    n, channels, size, _ = pixels.shape
    cut = pixels.reshape(n, channels, size // patch, patch, size // patch, patch)
    return cut.permute(0, 2, 4, 3, 5, 1).reshape(n, (size // patch) ** 2, patch * patch * channels)


@checked
def normalise_patches(patches: Float[Tensor, "n P C"]) -> Float[Tensor, "n P C"]:
    """Each patch to mean 0 and deviation 1 over its own numbers (the unbiased variance, as in the authors' code)."""
    mean, variance = patches.mean(dim=-1, keepdim=True), patches.var(dim=-1, keepdim=True)
    return (patches - mean) / (variance + 1e-6).sqrt()


@checked
def reconstruction_loss(
    prediction: Float[Tensor, "B N C"], target: Float[Tensor, "B N C"], masked: Bool[Tensor, "B N"]
) -> Float[Tensor, "B"]:
    """Squared error averaged over the hidden patches of each window; visible patches do not count.

    Args:
        prediction: pixels of every patch of the window, all its frames and cameras.
        target: what they are; no gradient flows into it.
        masked: True where the encoder did not see the patch.

    Returns:
        One number for each window, in squared units of the target; 0 where nothing was hidden.

    Raises:
        TypeCheckError: the three differ in shape; nothing is broadcast.
    """
    error = (prediction - target.detach()).square().mean(dim=-1)
    return torch.where(masked, error, 0.0).sum(dim=1) / masked.sum(dim=1).clamp(min=1)


@runtime_checkable
class Hideable(Protocol):
    """An encoder that can be kept from seeing some patches."""

    grid: tuple[int, int]
    patch: int

    def prepare(self, image: Tensor) -> Tensor:
        """Images in [0, 1] as the encoder wants them."""
        ...

    def visible(self, pixels: Tensor, kept: Tensor) -> Tensor:
        """The tokens of the kept patches, which see nothing but each other."""
        ...


class Mae(Objective):
    """Trains an encoder without trunk, streams or labels.

    Args:
        encoder: what is trained.
        decoder: (visible tokens, restore) -> pixels of every patch; gone after training.
        ratio: part of the patches that is hidden.
        normalise: the paper's better target, normalise_patches; False paints plain pixels, which are nicer to look at.
    """

    auxiliary = ("decoder",)

    def __init__(self, encoder: Hideable, decoder: nn.Module, ratio: float, normalise: bool) -> None:
        super().__init__()
        self.encoder, self.decoder, self.ratio, self.normalise = encoder, decoder, ratio, normalise

    def forward(self, batch: Batch) -> Question:
        pixels = self.encoder.prepare(batch.image.flatten(0, 2))
        noise = torch.rand(len(pixels), self.encoder.grid[0] * self.encoder.grid[1], device=pixels.device)
        kept, restore, masked = random_mask(noise, self.ratio)
        prediction = self.decoder(self.encoder.visible(pixels, kept), restore).float()
        target = patchify(pixels, self.encoder.patch)
        if self.normalise:
            target = normalise_patches(target)

        def score(_: Hidden) -> dict[str, Score]:
            prediction_, target_, masked_ = (x.unflatten(0, (len(batch), -1)).flatten(1, 2) for x in (prediction, target, masked))
            loss = reconstruction_loss(prediction_, target_, masked_)
            return {"reconstruction": Score(loss, torch.ones_like(loss, dtype=torch.bool))}

        return Question({}, frozenset(), score)


@dataclass(frozen=True)
class Config(Blueprint):
    """Masked autoencoding.

    Attributes:
        network: builds a module with an `encoder` and a `decoder`.
        ratio: part of the patches that is hidden.
        normalise: targets are normalised per patch.
    """

    network: Blueprint
    ratio: float = 0.75
    normalise: bool = True

    def build(self, sizes: Sizes) -> Mae:
        network = self.network.build(sizes)
        return Mae(cast("Hideable", network.encoder), cast("nn.Module", network.decoder), self.ratio, self.normalise)
