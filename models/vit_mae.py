"""ViT-MAE: an encoder that saw masked images only, with its patches in order; and the autoencoder that trains one in-domain.

He et al. 2021, Masked Autoencoders Are Scalable Vision Learners, arXiv:2111.06377; the network is transformers' ViTMAEModel.
Three traps of that library, guarded here; tests/test_encoders.py shows them:
- Its forward permutes the patches at random in every call, in eval and with mask_ratio=0 too, and returns them permuted
  (positions are added before, so a reader trains, but slowly and never twice alike; Moto and LARA have this).  We make the
  tokens from its weights ourselves, in order; by a product, whose backward pass is several times faster here than the convolution's.
- A fresh network has position tables of zeros that never train (transformers 5.23): it cannot know where a patch was.
  We write the paper's fixed sine and cosine tables.
- A fresh network of a small width learns slowly: see `start`.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import ViTMAEConfig, ViTMAEForPreTraining, ViTMAEModel

from wmzoo import config as arms
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Sizes

from .attention import into_patches, sinusoid
from .backbones import IMAGENET, Backbone, from_transformers, located, on_meta, one_line, read_weights


class VitMae(Backbone):
    """Patch tokens in row-major order, the same in every call; the class token is dropped.  Normalises like ImageNet.

    Args:
        network: ViTMAEModel, configured with mask_ratio=0.
        frozen: Backbone.
    """

    def __init__(self, network: ViTMAEModel, frozen: bool) -> None:
        config = cast("Any", network.config)
        rows = config.image_size // config.patch_size
        about = f"vit_mae patch={config.patch_size} heads={config.num_attention_heads} eps={config.layer_norm_eps} {config.hidden_act}"
        super().__init__(network, about, config.image_size, IMAGENET, config.hidden_size, (rows, rows), frozen)
        self.patch = config.patch_size

    def tokens(self, pixels: Float[Tensor, "n 3 S S"]) -> Float[Tensor, "n P E"]:
        return self._read(self._embed(pixels))[:, 1:]

    def visible(self, pixels: Float[Tensor, "n 3 S S"], kept: Int[Tensor, "n K"]) -> Float[Tensor, "n K1 E"]:
        """The class token and the tokens of the patches `kept`, which see nothing but each other."""
        tokens = self._embed(pixels)
        chosen = tokens[:, 1:].gather(1, kept[..., None].expand(-1, -1, tokens.shape[-1]))
        return self._read(torch.cat([tokens[:, :1], chosen], dim=1))

    def _embed(self, pixels: Tensor) -> Tensor:
        embeddings = cast("Any", self.network).embeddings
        kernel, place = embeddings.patch_embeddings.projection, embeddings.position_embeddings
        tokens = linear(into_patches(pixels, self.patch), kernel.weight.flatten(1), kernel.bias) + place[:, 1:]
        first = (embeddings.cls_token + place[:, :1]).expand(len(pixels), -1, -1)
        return torch.cat([first.to(tokens.dtype), tokens], dim=1)

    def _read(self, tokens: Tensor) -> Tensor:
        network = cast("Any", self.network)
        for layer in network.layers:
            tokens = layer(tokens, None)
        return network.layernorm(tokens)


class Decoder(nn.Module):
    """The decoder of ViTMAEForPreTraining: visible tokens in, pixels of every patch out."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, visible: Float[Tensor, "n K1 E"], restore: Int[Tensor, "n P"]) -> Float[Tensor, "n P C"]:
        """Put mask tokens where patches are missing, everything back in its place (`restore`), and paint."""
        return self.network(visible, restore).logits


class Masked(nn.Module):
    """The two halves of the autoencoder: `encoder` is kept, `decoder` is thrown away after training."""

    def __init__(self, encoder: VitMae, decoder: Decoder) -> None:
        super().__init__()
        self.encoder, self.decoder = encoder, decoder


def positions(grid: int, width: int) -> Float[Tensor, "1 P1 E"]:
    """MAE's fixed table: sine and cosine of the column, then of the row, at width/4 frequencies each; the class token has zeros."""
    place = torch.arange(grid, dtype=torch.float32)
    cosine, sine = sinusoid(place, width // 2, last=width / 4).chunk(2, dim=-1)
    table = torch.cat([sine, cosine], dim=-1)
    column, row = table[None].expand(grid, -1, -1), table[:, None].expand(-1, grid, -1)
    return torch.cat([torch.zeros(1, width), torch.cat([column, row], dim=-1).flatten(0, 1)])[None]


@torch.no_grad()
def start(network: nn.Module) -> None:
    """The start of the authors' code, for a fresh encoder or decoder of transformers, in place.

    Xavier for every matrix, patch projection included (the library's deviation of 0.02 is right for widths near 1000; at
    width 64, eight toy frames learnt by heart ended at 0.07 against 0.20 after 1,000 steps, one seed), positions, class and
    mask tokens.
    """
    for module in network.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
    for name, parameter in network.named_parameters():
        if name.endswith(("position_embeddings", "decoder_pos_embed")):
            parameter.copy_(positions(math.isqrt(parameter.shape[1] - 1), parameter.shape[2]))
        elif name.endswith(("cls_token", "mask_token")):
            nn.init.normal_(parameter, std=0.02)


@dataclass(frozen=True)
class Config(Blueprint):
    """A ViT-MAE encoder; the defaults are ViT-MAE-L, which Moto and LARA read.

    Attributes:
        weights: none; pretrained (by `name`); a local file or folder of transformers; or the run folder of the in-domain
            stage (experiments/vit_mae.py).
        name: in the hub.
        image, patch: pixels of a side.
        width, depth, heads: of the transformer; weights of another architecture are refused.
        frozen: no gradient; False where it is to be trained.
    """

    weights: str
    name: str = "facebook/vit-mae-large"
    image: int = 224
    patch: int = 16
    width: int = 1024
    depth: int = 24
    heads: int = 16
    frozen: bool = True

    @property
    def architecture(self) -> dict[str, Any]:
        """In the library's words."""
        return {
            "image_size": self.image,
            "patch_size": self.patch,
            "hidden_size": self.width,
            "num_hidden_layers": self.depth,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
        }

    def build(self, sizes: Sizes) -> VitMae:
        check(self)
        run = None if self.weights in ("none", "pretrained") or on_meta() else run_export(located(self.weights))
        weights = "none" if run else self.weights
        fixed = {"mask_ratio": 0.0}
        network = cast("ViTMAEModel", from_transformers(ViTMAEModel, ViTMAEConfig, self.architecture, fixed, weights, self.name))
        if run:
            load_run(network, run, self)
        elif weights == "none" and not on_meta():
            start(network)
        return VitMae(network, self.frozen)


def check(config: Config) -> None:
    """Raise UserError where the sizes do not divide."""
    if config.image % config.patch or config.width % config.heads or config.width % 4:
        sizes = f"image={config.image}, patch={config.patch}, width={config.width}, heads={config.heads}"
        raise UserError(f"{sizes}: the image must divide by the patch, the width by the heads and by 4")


def run_export(path: Path) -> Path | None:
    """The export of a run folder; None if `path` is no run.

    Raises:
        UserError: it is a run whose training has not ended.
    """
    export = path / "export" if (path / "export").is_dir() else path
    if not (export / "config.yaml").exists():
        return None
    if not (export / "weights.safetensors").exists():
        raise UserError(f"{path} is a run whose training has not ended: it has no export/weights.safetensors yet")
    return export


def load_run(network: ViTMAEModel, export: Path, asked: Config) -> None:
    """The encoder that an in-domain stage has exported.

    Raises:
        UserError: the run has no such encoder, or one of another architecture.
    """
    trained = {
        name: autoencoder.encoder
        for name, term in arms.load(export / "config.yaml").objectives.items()
        if isinstance(autoencoder := getattr(term.config, "network", None), MaskedConfig)
    }
    if len(trained) != 1:
        raise UserError(f"{export} is not the run of an in-domain ViT-MAE: {len(trained)} of its objectives train one")
    (objective, stored) = next(iter(trained.items()))
    fields = ("image", "patch", "width", "depth", "heads")
    if differ := [field for field in fields if getattr(stored, field) != getattr(asked, field)]:
        sizes = ", ".join(f"{field}={getattr(stored, field)}" for field in fields)
        raise UserError(f"{export} holds an encoder with {sizes}; set {', '.join(differ)} to these")
    prefix = f"objectives.{objective}.encoder.network."
    with one_line(str(export), "its own configuration"):
        state = read_weights(export / "weights.safetensors")
        network.load_state_dict({key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)})


@dataclass(frozen=True)
class MaskedConfig(Blueprint):
    """The autoencoder of the in-domain stage.

    Attributes:
        encoder: must not be frozen; may start from weights.
        width, depth, heads: of the decoder.
    """

    encoder: Config
    width: int = 512
    depth: int = 8
    heads: int = 16

    def build(self, sizes: Sizes) -> Masked:
        if self.encoder.frozen:
            raise UserError("a masked autoencoder trains its encoder: set frozen to False")
        encoder = self.encoder.build(sizes)
        config = ViTMAEConfig(
            **self.encoder.architecture,
            decoder_hidden_size=self.width,
            decoder_num_hidden_layers=self.depth,
            decoder_num_attention_heads=self.heads,
            decoder_intermediate_size=4 * self.width,
        )
        config._attn_implementation = cast("Any", encoder.network).config._attn_implementation
        network = ViTMAEForPreTraining(config).decoder
        if not on_meta():
            start(network)
        return Masked(encoder, Decoder(network))
