"""SigLIP 2: an encoder of images and one of instructions that were trained to agree; FLARE's embedding starts from both.

Tschannen et al. 2025, SigLIP 2, arXiv:2502.14786.  Checkpoints of one resolution use transformers' Siglip classes.
Weights come in the three ways of backbones.py.  Sentences need the tokenizer's files, so without weights the text side reads
byte tokens (a table of 384, as models/text.py) and shares nothing with SigLIP but its shape.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import AutoTokenizer, SiglipTextConfig, SiglipTextModel, SiglipVisionConfig, SiglipVisionModel

from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Sizes

from .backbones import HALF, Backbone, from_transformers, on_meta, one_line
from .text import BYTES

HUB = "google/siglip2-large-patch16-256"
POSITIONS = 64  # tokens of a sentence that SigLIP was trained with
FIRST_BYTE = 3  # ByT5: padding, end, unknown, then the bytes


class Vision(Backbone):
    """Patch tokens after the final norm; there is no class token, and the pooling head is left out.  Pixels to [-1, 1].

    Args:
        network: SiglipVisionModel without its head.
        frozen: Backbone.
    """

    def __init__(self, network: SiglipVisionModel, frozen: bool) -> None:
        config = cast("Any", network.config)
        rows = config.image_size // config.patch_size
        about = f"siglip2 patch={config.patch_size} heads={config.num_attention_heads} eps={config.layer_norm_eps} {config.hidden_act}"
        super().__init__(network, about, config.image_size, HALF, config.hidden_size, (rows, rows), frozen)

    def tokens(self, pixels: Float[Tensor, "n 3 S S"]) -> Float[Tensor, "n P E"]:
        return self.network(pixels).last_hidden_state


class Text(nn.Module):
    """Instructions to `length` tokens each.  Every distinct instruction of a batch is encoded once.

    Padding is read like any other token, as in SigLIP's training, so a sentence always means the same, whatever else is in
    the batch.

    Args:
        network: SiglipTextModel.
        tokenizer: of the checkpoint; None reads the byte tokens of the batch as they are.
        length: tokens of a sentence, padding included.
        frozen: stays in eval, without gradients.
    """

    def __init__(self, network: SiglipTextModel, tokenizer: Any | None, length: int, frozen: bool) -> None:
        super().__init__()
        self.network, self.tokenizer, self.length, self.frozen = network, tokenizer, length, frozen
        self.width = network.config.hidden_size
        self.network.head.requires_grad_(False)  # it pools, and nobody reads the pooled token
        if frozen:
            self.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> "Text":
        return super().train(mode and not self.frozen)

    @torch.compiler.disable
    def forward(self, text: Int[Tensor, "B N"]) -> Float[Tensor, "B L E"]:
        if text.is_meta:  # for counting alone: nothing is known to be equal
            return self.network(text.new_zeros(len(text), self.length)).last_hidden_state
        distinct, which = text.unique(dim=0, return_inverse=True)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.frozen):
            return self.network(self.pieces(distinct)).last_hidden_state[which]

    def pieces(self, text: Int[Tensor, "B N"]) -> Int[Tensor, "B L"]:
        """The network's tokens of byte tokens (0 is padding), padded to `length`.

        Raises:
            UserError: an instruction is too long.
        """
        if self.tokenizer is None:
            rows = [row[row > 0].tolist() for row in text]
        else:
            sentences = [bytes(int(i) - FIRST_BYTE for i in row if i >= FIRST_BYTE).decode() for row in text]
            rows = [cast("Any", self.tokenizer)(sentence)["input_ids"] for sentence in sentences]
        if (longest := max(len(row) for row in rows)) > self.length:
            raise UserError(f"an instruction has {longest} tokens, the text encoder reads {self.length}; set length (at most {POSITIONS})")
        padding = 0 if self.tokenizer is None else self.tokenizer.pad_token_id
        return torch.tensor([row + [padding] * (self.length - len(row)) for row in rows], device=text.device)


@dataclass(frozen=True)
class VisionConfig(Blueprint):
    """SigLIP 2's image encoder; the defaults are large, patch 16, 256 pixels.

    Attributes:
        weights: none; pretrained (by `name`); or a local file or folder, of this tower or of both.
        name: in the hub.
        image, patch: pixels of a side.
        width, depth, heads: of the transformer; weights of another architecture are refused.
        frozen: no gradient.
    """

    weights: str
    name: str = HUB
    image: int = 256
    patch: int = 16
    width: int = 1024
    depth: int = 24
    heads: int = 16
    frozen: bool = True

    def build(self, sizes: Sizes) -> Vision:
        architecture: dict[str, Any] = {
            "image_size": self.image,
            "patch_size": self.patch,
            "hidden_size": self.width,
            "num_hidden_layers": self.depth,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
        }
        fixed = {"vision_use_head": False}
        network = from_transformers(SiglipVisionModel, SiglipVisionConfig, architecture, fixed, self.weights, self.name)
        return Vision(cast("SiglipVisionModel", network), self.frozen)


@dataclass(frozen=True)
class TextConfig(Blueprint):
    """SigLIP 2's reader of instructions; the defaults are large.

    Attributes:
        weights: none (reads bytes); pretrained (by `name`); or a local folder with the tokenizer's files.
        name: in the hub.
        width, depth, heads: of the transformer; weights of another architecture are refused.
        length: tokens of a sentence, padding included: 64 in SigLIP, 32 in FLARE.
        frozen: no gradient.
    """

    weights: str
    name: str = HUB
    width: int = 1024
    depth: int = 24
    heads: int = 16
    length: int = POSITIONS
    frozen: bool = True

    def build(self, sizes: Sizes) -> Text:
        if Path(self.weights).is_file():
            raise UserError(f"{self.weights} is a file: the text encoder needs a folder that holds the tokenizer too")
        if not 0 < self.length <= POSITIONS:
            raise UserError(f"length={self.length}: this text encoder has positions for 1 to {POSITIONS} tokens")
        architecture: dict[str, Any] = {
            "max_position_embeddings": POSITIONS,
            "hidden_size": self.width,
            "num_hidden_layers": self.depth,
            "num_attention_heads": self.heads,
            "intermediate_size": 4 * self.width,
        }
        fixed: dict[str, Any] = {"vocab_size": BYTES} if self.weights == "none" else {}
        network = from_transformers(SiglipTextModel, SiglipTextConfig, architecture, fixed, self.weights, self.name)
        return Text(cast("SiglipTextModel", network), self._tokenizer(), self.length, self.frozen)

    def _tokenizer(self) -> Any | None:
        if self.weights == "none" or on_meta():
            return None
        with one_line(self.weights, f"the tokenizer of {self.name}"):
            return AutoTokenizer.from_pretrained(self.name if self.weights == "pretrained" else self.weights)
