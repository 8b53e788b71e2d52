"""How are Moto's published weights read?  Its tokenizer by our names, and the same network with its class tokens.

Chen et al. 2024, Moto: Latent Motion Token as the Bridging Language for Learning Robot Manipulation, arXiv:2412.04445
(LatentMotionTokenizer).  The network is that of models/lam.py; patches are in order, where the published code permutes them
at random in every call.
"""

import math
from collections.abc import Mapping
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from wmzoo.batch import Batch

from . import quantise
from .lam import LatentActionModel, MotionFormer, Painter
from .vit_mae import VitMae

MOTO = {  # where Moto's LatentMotionTokenizer keeps what; its blocks are transformers 4's ViT
    "m_former.embeddings.latent_motion_token": "former.queries",
    "m_former.embeddings.sep_token": "former.separator",
    "m_former.embeddings.position_embeddings": "former.place",
    "m_former.embeddings.token_type_embeddings": "former.kind",
    "m_former.embeddings.projection": "former.project",
    "m_former.encoder.layer": "former.blocks",
    "m_former.layernorm": "former.norm",
    "vq_down_resampler": "down",
    "vq_up_resampler": "up",
    "vector_quantizer.embedding": "bottleneck.book",
    "decoder.transformer.embeddings.patch_embeddings.projection": "painter.embed",
    "decoder.transformer.embeddings.query_pooling_layer": "painter.spread",
    "decoder.transformer.embeddings.position_embeddings": "painter.place",
    "decoder.transformer.encoder.layer": "painter.blocks",
    "decoder.transformer.layernorm": "painter.norm",
    "decoder.decoder.0": "painter.pixels",
}
VIT = {
    "attention.attention.query": "attn.q",
    "attention.attention.key": "attn.k",
    "attention.attention.value": "attn.v",
    "attention.output.dense": "attn.out",
    "intermediate.dense": "up",
    "output.dense": "down",
    "layernorm_before": "norm_attn",
    "layernorm_after": "norm_mlp",
}


class Moto(LatentActionModel):
    """Moto's own reading: class tokens first in both frames, and a painter of normalised images.  Made by `moto`."""

    def frames(self, batch: Batch, gap: int) -> tuple[Float[Tensor, "B P1 E"], Float[Tensor, "B P1 E"]]:
        now = self._seen(batch.image[:, -1, self.view])
        if gap == 0:
            return now, now
        column = batch.column(gap)
        there = batch.has_future[:, column, None, None, None]
        return now, self._seen(torch.where(there, batch.future[:, column, self.view], 0.0))

    @torch.no_grad()
    def _seen(self, image: Float[Tensor, "B 3 Y X"]) -> Float[Tensor, "B P1 E"]:
        eye = cast("VitMae", self.encoder)
        every = torch.arange(math.prod(eye.grid), device=image.device).expand(len(image), -1)
        return eye.visible(eye.prepare(image), every)

    def attention(self, batch: Batch, gap: int) -> Float[Tensor, "B K P"]:
        return super().attention(batch, gap)[:, :, 1:]

    def decode(self, batch: Batch, value: Float[Tensor, "B K Z"]) -> Float[Tensor, "B 3 S S"]:
        eye = cast("VitMae", self.encoder)
        painted = self.painter(eye.prepare(batch.image[:, -1, self.view]), self.up(value).flatten(1))
        return painted * eye.std + eye.mean


def moto_parts(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of Moto's LatentMotionTokenizer, by our names; those of its encoder, of LPIPS and of an idle pooler are left out.

    Its M-Former gives both frames the first kind (`legacy`).
    """
    found: dict[str, Tensor] = {}
    for name, value in state.items():
        if home := next((home for home in MOTO if name == home or name.startswith(f"{home}.")), None):
            ours = MOTO[home] + name.removeprefix(home)
            for theirs, part in VIT.items() if ".blocks." in ours else ():
                head, cut, tail = ours.partition(f".{theirs}.")
                if cut and head.rpartition(".")[2].isdigit():
                    ours = f"{head}.{part}.{tail}"
                    break
            found[ours] = value
    for name in [name for name in found if ".attn.q." in name]:
        rows = [found.pop(name.replace(".attn.q.", f".attn.{part}.")) for part in "qkv"]
        found[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat(rows)
    for name in ("former.queries", "former.separator", "former.place", "painter.place"):
        found[name] = found[name][0]
    for name in ("painter.embed.weight", "painter.pixels.weight"):  # convolutions of patches and of single pixels are products
        found[name] = found[name].flatten(1)
    found["former.kind"] = found["former.kind"][:1].expand(2, -1)
    return found


def moto(encoder: VitMae, state: Mapping[str, Tensor], heads: int, view: int = 0) -> Moto:
    """Moto's tokenizer with its weights; sizes are those of the weights.

    Args:
        encoder: frozen ViT-MAE, at the size of the painted images.
        state: of LatentMotionTokenizer (`get_state_dict_to_save`).
        heads: of M-Former and painter; 12.
        view: camera.
    """
    own = moto_parts(state)
    tokens, width = own["former.queries"].shape
    codes, latent = own["bottleneck.book.weight"].shape
    depth, painted = (
        len([n for n in own if n.startswith(f"{part}.blocks.") and n.endswith("attn.out.bias")]) for part in ("former", "painter")
    )
    patch = math.isqrt(own["painter.embed.weight"].shape[1] // 3)
    former = MotionFormer(encoder.width, 1 + math.prod(encoder.grid), width, depth, heads, tokens)
    painter = Painter(patch, encoder.size, width, painted, heads, tokens * width, "frame")
    model = Moto(encoder, former, quantise.Legacy(codes, latent), painter, latent, view, "none")
    model.load_state_dict(own | {name: value for name, value in model.state_dict().items() if name.startswith("encoder.")})
    return model
