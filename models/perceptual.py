"""How different do two images look?  LPIPS where its weights are, else the distance of a frozen encoder's features.

Zhang et al. 2018, The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (LPIPS), arXiv:1801.03924; the network is
that of the package `lpips`, on VGG-16.
    d = mean over tokens of 1 - cos(E(x)_n, E(y)_n)     feature_distance
The second stands in for the first where VGG's weights are not on this machine; it is never called LPIPS.
"""

from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from wmzoo.shapes import checked

from .backbones import located, one_line, read_weights

VGG = "vgg16-397923af.pth"  # torchvision's name of the file


@checked
def feature_distance(features: Float[Tensor, "n P E"], other: Float[Tensor, "n P E"]) -> Float[Tensor, "n"]:
    """One minus the cosine of corresponding tokens, averaged over tokens; from 0 (alike) to 2."""
    return (1 - cosine_similarity(features, other, dim=-1)).mean(dim=-1)


class Lpips(nn.Module):
    """LPIPS on VGG-16; images in [0, 1] of any size.  No part of a state_dict: a run loads with and without VGG's weights.

    Args:
        weights: torchvision's file of VGG-16.
    """

    def __init__(self, weights: Path) -> None:
        import lpips

        super().__init__()
        self.network = lpips.LPIPS(net="vgg", pnet_rand=True, verbose=False)  # its own layers come with the package
        with one_line(str(weights), "VGG-16"):
            state = read_weights(weights)
            slices = (
                self.network.net.slice1,
                self.network.net.slice2,
                self.network.net.slice3,
                self.network.net.slice4,
                self.network.net.slice5,
            )
            layers = {number: layer for part in slices for number, layer in part.named_children()}
            for number, layer in layers.items():
                if isinstance(layer, nn.Conv2d):
                    layer.load_state_dict({kind: state[f"features.{number}.{kind}"] for kind in ("weight", "bias")})
        self.requires_grad_(False)
        self.train(False)

    def state_dict(self, *args: Any, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> Any:
        return {} if destination is None else destination

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        state_dict.update(super().state_dict(prefix=prefix))  # it keeps what it has

    def train(self, mode: bool = True) -> "Lpips":
        return super().train(False)

    def forward(self, image: Float[Tensor, "n 3 Y X"], other: Float[Tensor, "n 3 Y X"]) -> Float[Tensor, "n"]:
        return self.network(image, other, normalize=True).flatten()


def lpips_or(weights: str) -> Lpips | str:
    """LPIPS with these weights; "auto" takes VGG-16 where torchvision keeps it and says "features" if it is not there.

    "features" and "none" are what they are.
    """
    if weights == "auto":
        kept = Path(torch.hub.get_dir()) / "checkpoints" / VGG
        return Lpips(kept) if kept.exists() else "features"
    return weights if weights in ("features", "none") else Lpips(located(weights))
