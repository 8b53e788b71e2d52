"""How few numbers does a frame need?  diffusers' AutoencoderKL as a frozen feature space: frames to latent tokens, and back.

Kingma and Welling 2014, arXiv:1312.6114; Rombach et al. 2022, latent diffusion, arXiv:2112.10752; Zhu et al. 2025, UWM,
arXiv:2504.02792, whose frames are SDXL's latents.
A token is a patch of the map of latents, row after row, its numbers in the order channel, row, column.  The latent is the mean of the
posterior, so that it can be kept on disk; UWM draws from the posterior.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.utils import logging as diffusers_logging
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Sizes

from .attention import from_patches, into_patches
from .backbones import HALF, Backbone, located, on_meta, one_line, read_weights, resized
from .parts import take
from .vit_mae import run_export


class Codec(Backbone):
    """Frames in [0, 1] to latent tokens, and back.

    Args:
        backbone: what Backbone takes; the network is an AutoencoderKL.
        fold: pixels of a side that become channels before the network.
        patch: cells of the latent map, of a side, in one token.
        factor: of the latents; 0.13025 / 3 in UWM.
    """

    def __init__(self, *backbone: Any, fold: int, patch: int, factor: float) -> None:
        super().__init__(*backbone)
        self.fold, self.patch, self.factor = fold, patch, factor

    @property
    def channels(self) -> int:
        """Of the latent map."""
        return self.width // self.patch**2

    def posterior(self, image: Float[Tensor, "n 3 Y X"]) -> tuple[Float[Tensor, "n C y x"], Float[Tensor, "n C y x"]]:
        """Mean and logarithm of the variance of the latent map, unscaled."""
        told = cast("Any", self.network).encode(pixel_unshuffle(self.prepare(image), self.fold)).latent_dist
        return told.mean, told.logvar

    def tokens(self, pixels: Float[Tensor, "n 3 S S"]) -> Float[Tensor, "n P E"]:
        latent = cast("Any", self.network).encode(pixel_unshuffle(pixels, self.fold)).latent_dist.mode()
        return into_patches(self.factor * latent, self.patch)

    def decode(self, latent: Float[Tensor, "n C y x"]) -> Float[Tensor, "n 3 S S"]:
        """The image of an unscaled latent map, in [0, 1] up to errors."""
        return pixel_shuffle(cast("Any", self.network).decode(latent).sample.float(), self.fold) * 0.5 + 0.5

    def paint(self, tokens: Float[Tensor, "n P E"], size: int) -> Float[Tensor, "n 3 Y X"]:
        """The image of these tokens, `size` pixels of a side."""
        return resized(self.decode(from_patches(tokens, self.patch, self.grid[0]) / self.factor), size)


@dataclass(frozen=True)
class Config(Blueprint):
    """A codec; the defaults are SDXL's, with UWM's patches and factor.

    Attributes:
        weights: none, pretrained (by `name`), the run folder of the arm `codec` ("stage:NAME" is a stage), a folder as
            diffusers writes it, or a file of weights.
        name: on the hub.
        size: pixels of a side at which it runs.
        channels: of each level of the network; every further level halves the map.
        layers: residual blocks of a level.
        groups: of the group norms.
        latent: channels of the latent map.
        attention: one layer of it in the middle of either half.
        fold, patch, factor: as in Codec.
        frozen: no gradient; carries the hash of its weights.
    """

    weights: str
    name: str = "stabilityai/sdxl-vae"
    size: int = 224
    channels: tuple[int, ...] = (128, 256, 512, 512)
    layers: int = 2
    groups: int = 32
    latent: int = 4
    attention: bool = True
    fold: int = 1
    patch: int = 4
    factor: float = 0.13025 / 3
    frozen: bool = True

    @property
    def architecture(self) -> dict[str, Any]:
        """In diffusers' words."""
        levels = len(self.channels)
        return {
            "in_channels": 3 * self.fold**2,
            "out_channels": 3 * self.fold**2,
            "block_out_channels": self.channels,
            "down_block_types": ("DownEncoderBlock2D",) * levels,
            "up_block_types": ("UpDecoderBlock2D",) * levels,
            "layers_per_block": self.layers,
            "norm_num_groups": self.groups,
            "latent_channels": self.latent,
            "mid_block_add_attention": self.attention,
        }

    def build(self, sizes: Sizes) -> Codec:
        stride = self.fold * 2 ** (len(self.channels) - 1)
        if not self.channels or self.size % (stride * self.patch):
            raise UserError(f"frames of {self.size} pixels do not divide by patches of {self.patch} cells of {stride} pixels")
        if odd := [c for c in self.channels if c % self.groups]:
            raise UserError(f"channels {odd} of the codec do not divide into {self.groups} groups")
        network = AutoencoderKL(**self.architecture)
        path = None if self.weights in ("none", "pretrained") or on_meta() else located(self.weights)
        run = path is not None and run_export(path) is not None
        if not run and self.weights != "none" and not on_meta():
            network = fetched(network, self, path)
        side = self.size // stride // self.patch
        about = f"AutoencoderKL fold={self.fold} patch={self.patch} factor={self.factor}"
        shape = self.size, HALF, self.latent * self.patch**2, (side, side)
        codec = Codec(network, about, *shape, self.frozen, fold=self.fold, patch=self.patch, factor=self.factor)
        if run:
            take(codec, "codec", self.weights, "codec; train the arm `codec`")
        return codec


def fetched(network: AutoencoderKL, config: Config, path: Path | None) -> AutoencoderKL:
    """The network with the weights of a file, of a folder as diffusers writes it, or of the hub.

    Raises:
        UserError: they are not there, or belong to another architecture.
    """
    verbosity = diffusers_logging.get_verbosity()
    diffusers_logging.set_verbosity_error()
    try:
        with one_line(config.weights, config.name):
            if path is not None and path.is_file():
                network.load_state_dict(read_weights(path))
                return network
            loaded = AutoencoderKL.from_pretrained(path or config.name, output_loading_info=True, low_cpu_mem_usage=False)
    finally:
        diffusers_logging.set_verbosity(verbosity)
    found, about = cast("tuple[AutoencoderKL, dict[str, list[str]]]", loaded)
    if missing := about["missing_keys"]:  # diffusers leaves them fresh
        raise UserError(f"{path or config.name} lacks {len(missing)} weights of {config.name}, such as {missing[0]}")
    stored = cast("Any", found).config
    differ = {key: stored[key] for key, asked in config.architecture.items() if _plain(stored[key]) != _plain(asked)}
    if differ:
        asked = ", ".join(f"{key}={config.architecture[key]}" for key in differ)
        raise UserError(f"{path or config.name} is a codec with {differ}, the configuration asks for {asked}")
    return found


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
