"""How does a public network become an encoder?  Resize, normalise, run, keep the patch tokens; here for every backbone of timm.

Its weights come in one of three ways:
    none          fresh, decided by torch's global seed alone
    pretrained    by name, through the library's hub
    a path        a file or a folder on this machine
A weights file that leaves a part of the network at its random start is refused: the libraries only log that.
On the meta device nothing is read or hashed, so an arm can be asked for its needs without loading a gigabyte.
"""

import hashlib
import logging
import pickle
import re
from abc import abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, cast

import timm
import torch
from jaxtyping import Float
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn
from torch.nn.functional import interpolate
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from wmzoo.errors import UserError, unknown
from wmzoo.interfaces import Blueprint, Encoder, Sizes

IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
HALF = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)  # SigLIP
Statistics = tuple[tuple[float, ...], tuple[float, ...]]
FILES = ("model.safetensors", "weights.safetensors", "pytorch_model.bin")
SLACK = 1e-3  # beyond [0, 1]: interpolated frames may overshoot by a rounding


class Backbone(Encoder):
    """An encoder around a network that somebody else designed.

    Args:
        network: the network.
        about: everything besides the weights that decides the tokens; part of the fingerprint.
        size: pixels of a side that the network was configured for; images are resized to it, bilinearly and antialiased.
        statistics: mean and deviation of each channel that the network was trained with.
        width, grid: of its tokens.
        frozen: stays in eval, without gradients, and carries a `fingerprint`, the hash of its weights and of `about`.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self, network: nn.Module, about: str, size: int, statistics: Statistics, width: int, grid: tuple[int, int], frozen: bool
    ) -> None:
        super().__init__()
        self.network, self.size, self.width, self.grid, self.frozen = network, size, width, grid, frozen
        mean, std = (torch.tensor(row)[:, None, None] for row in statistics)
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.about = f"{about} size={size} statistics={statistics}"
        for module in network.modules():  # the backward pass of timm's fused attention is slow on a CPU (models/attention.py)
            if hasattr(module, "fused_attn"):
                cast("Any", module).fused_attn = torch.cuda.is_available()
        if frozen:
            self.requires_grad_(False)
            self.fingerprint = fingerprint(network, self.about)
            self.register_load_state_dict_post_hook(_renew_fingerprint)
        self.train()

    def train(self, mode: bool = True) -> "Backbone":
        return super().train(mode and not self.frozen)

    def prepare(self, image: Float[Tensor, "n 3 Y X"]) -> Float[Tensor, "n 3 S S"]:
        """Images in [0, 1] as the network wants them.

        Raises:
            ValueError: the images are not floats.
            UserError: they are not in [0, 1].
        """
        in_range(image)
        return self.normalised(image)

    def normalised(self, image: Float[Tensor, "n 3 Y X"]) -> Float[Tensor, "n 3 S S"]:
        """As `prepare`, for painted images, which may leave [0, 1]."""
        return (resized(image, self.size) - self.mean) / self.std

    def forward(self, image: Float[Tensor, "n 3 Y X"]) -> Float[Tensor, "n P E"]:
        if not self.frozen:
            return self.tokens(self.prepare(image))
        with torch.no_grad():
            return self.tokens(self.prepare(image))

    @abstractmethod
    def tokens(self, pixels: Float[Tensor, "n 3 S S"]) -> Float[Tensor, "n P E"]:
        """Patch tokens of normalised images."""


def resized(image: Float[Tensor, "n 3 Y X"], size: int) -> Float[Tensor, "n 3 S S"]:
    """Images of `size` pixels of a side, bilinearly and antialiased; themselves if they are."""
    return image if image.shape[-2:] == (size, size) else interpolate(image, (size, size), mode="bilinear", antialias=True)


def in_range(image: Tensor) -> None:
    """Are these images in [0, 1]?  NaN, which says so by itself, passes; nothing is looked at on the meta device or under a compiler.

    One pass and one wait for the device.

    Raises:
        ValueError: the images are not floats.
        UserError: somebody else has normalised them, or they are numbers up to 255.
    """
    if not image.is_floating_point():
        raise ValueError(f"encoders read floats in [0, 1], these images are {image.dtype}")
    if image.is_meta or image.numel() == 0 or torch.compiler.is_compiling():
        return
    low, high = torch.stack(image.detach().flatten().aminmax()).tolist()  # flat, which is twice as fast
    if low < -SLACK or high > 1 + SLACK:
        raise UserError(f"images must be in [0, 1], these go from {low:.3g} to {high:.3g}: leave the normalisation to the encoder")


def fingerprint(network: nn.Module, about: str) -> str:
    """The first 16 hexadecimal digits of the SHA-256 of a description and of every weight, by name."""
    state = network.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        return "meta"
    digest = hashlib.sha256(about.encode())
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()[:16]


def _renew_fingerprint(encoder: nn.Module, _: object) -> None:
    backbone = cast("Backbone", encoder)
    backbone.fingerprint = fingerprint(backbone.network, backbone.about)


def on_meta() -> bool:
    """True while networks are built without memory."""
    return torch.empty(0).is_meta


def located(weights: str) -> Path:
    """The file or folder that `weights` names.

    Raises:
        UserError: there is none.
    """
    path = Path(weights)
    if not path.exists():
        raise UserError(f"weights {weights!r}: no such file or folder; say none, pretrained, or the path of a local file or folder")
    return path


def weights_file(path: Path) -> Path:
    """The file of weights in a folder; a file is itself.

    Raises:
        UserError: the folder has none.
    """
    found = [path] if path.is_file() else [path / name for name in FILES if (path / name).exists()]
    if not found:
        raise UserError(f"{path} holds none of {', '.join(FILES)}")
    return found[0]


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights."""
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, map_location="cpu", weights_only=True)


@contextmanager
def one_line(weights: str, name: str) -> Iterator[None]:
    """Whatever goes wrong while weights are fetched or read becomes one line that says what to do; libraries keep quiet."""
    hub, verbosity = logging.getLogger("huggingface_hub"), transformers_logging.get_verbosity()
    level, bars = hub.level, transformers_logging.is_progress_bar_enabled()
    hub.setLevel(logging.ERROR)
    transformers_logging.set_verbosity_error()
    if weights != "pretrained":
        transformers_logging.disable_progress_bar()
    try:
        yield
    except (OSError, ValueError, RuntimeError, KeyError, EOFError, SafetensorError, pickle.UnpicklingError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if weights == "pretrained":
            raise UserError(
                f"the weights of {name} cannot be fetched from the hub; where there is no network, copy them here and set "
                f"weights to that local file or folder ({reason})"
            ) from None
        raise UserError(f"{weights} does not hold weights that fit {name}: {reason}") from None
    finally:
        hub.setLevel(level)
        transformers_logging.set_verbosity(verbosity)
        if bars:
            transformers_logging.enable_progress_bar()


def from_transformers(
    kind: type[PreTrainedModel], config: type[PreTrainedConfig], sizes: Mapping[str, Any], fixed: Mapping[str, Any], weights: str, name: str
) -> PreTrainedModel:
    """A network of transformers with its weights.

    Args:
        kind, config: its class and that of its configuration.
        sizes: its architecture, in the library's words; stored weights must agree with it.
        fixed: further settings, whatever the stored configuration says.
        weights: none, pretrained (by `name`), a file of weights, or a folder as `save_pretrained` writes it.

    Raises:
        UserError: the weights are not there, or they belong to another architecture.
    """
    attention = "sdpa" if torch.cuda.is_available() else "eager"  # models/attention.py says why
    ours = config(**sizes, **fixed)
    ours._attn_implementation = attention
    if weights == "none" or on_meta():
        return kind(ours)
    source = None if weights == "pretrained" else located(weights)
    with one_line(weights, name):
        if source is not None and source.is_file():
            where, state = None, read_weights(source)
        else:
            where, state = name if source is None else source, None
            ours = config.from_pretrained(where, **fixed)
            differ = {key: getattr(ours, key) for key, value in sizes.items() if getattr(ours, key) != value}
            if differ:
                asked = ", ".join(f"{key}={sizes[key]}" for key in differ)
                stored = ", ".join(f"{key}={value}" for key, value in differ.items())
                raise UserError(f"{where} is a network with {stored}, the configuration asks for {asked}")
        network, report = cast("Any", kind).from_pretrained(
            where, config=ours, state_dict=state, output_loading_info=True, dtype=torch.float32, attn_implementation=attention
        )
    if report["missing_keys"]:
        raise UserError(f"{where or source} lacks {len(report['missing_keys'])} weights of {name}, such as {min(report['missing_keys'])}")
    shapes = {re.sub(r"\d+", "#", key) for key in network.state_dict()}
    towers = ("", f"{kind.base_model_prefix}.")
    if left := [key for key in report["unexpected_keys"] if shapes & {re.sub(r"\d+", "#", key.removeprefix(tower)) for tower in towers}]:
        raise UserError(f"{where or source} has more layers than the configuration asks for, such as {min(left)}")
    return network


class Timm(Backbone):
    """A vision transformer (last hidden state after the final norm, prefix tokens dropped) or a convolutional net (last map) of timm.

    Args:
        backbone: what Backbone takes; the network is made with num_classes=0 and global_pool="".
        prefix: class and register tokens in front of a transformer's patch tokens; 0 for a convolutional net.
    """

    def __init__(self, *backbone: Any, prefix: int) -> None:
        super().__init__(*backbone)
        self.prefix = prefix

    def tokens(self, pixels: Float[Tensor, "n 3 S S"]) -> Float[Tensor, "n P E"]:
        features = cast("Any", self.network).forward_features(pixels)
        return features[:, self.prefix :] if features.ndim == 3 else features.flatten(2).transpose(1, 2)


def replace_batch_norm(network: nn.Module) -> None:
    """Every batch norm becomes a fresh group norm of 16 channels a group, as in Diffusion Policy.  In place.

    Raises:
        UserError: there is no batch norm, or one that is fused with an activation.
    """
    norms = {name: module for name, module in network.named_modules() if isinstance(module, nn.BatchNorm2d)}
    if not norms or any(type(module) is not nn.BatchNorm2d for module in norms.values()):
        raise UserError("group_norm replaces plain batch norms (ResNets have them); this backbone has none, or other ones")
    for name, module in norms.items():
        parent, _, child = name.rpartition(".")
        setattr(network.get_submodule(parent), child, nn.GroupNorm(max(1, module.num_features // 16), module.num_features))


def make_timm(name: str, weights: str, arguments: Mapping[str, Any]) -> nn.Module:
    """A network of timm.  With weights, a fresh twin from the same seed tells which parameters were not in the file.

    Raises:
        UserError: the weights are not there or do not fit.
    """
    make = lambda **more: timm.create_model(name, num_classes=0, global_pool="", **arguments, **more)  # noqa: E731
    if weights == "none" or on_meta():
        return make()
    local = {} if weights == "pretrained" else {"pretrained_cfg_overlay": {"file": str(weights_file(located(weights)))}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        fresh = make()
        torch.manual_seed(0)
        with one_line(weights, name):
            network = make(pretrained=True, **local)
    loaded = dict(network.named_parameters())
    same = [key for key, start in fresh.named_parameters() if start.ndim > 1 and start.std() > 0 and torch.equal(start, loaded[key])]
    if same:
        raise UserError(f"{weights} lacks {len(same)} weights of {name}, such as {same[0]}")
    return network


class Survey(NamedTuple):
    """What is known of a backbone of timm at some size before it is made.

    Attributes:
        transformer: a vision transformer; else a convolutional net.
        prefix: class and register tokens in front of the patch tokens.
        width, grid: of its tokens.
    """

    transformer: bool
    prefix: int
    width: int
    grid: tuple[int, int]


@cache
def surveyed(name: str, size: int) -> Survey:
    """A look at a backbone on the meta device; once a process, since arms at paper scale ask many times.

    Raises:
        UserError: there is none of this name, its tokens are no embedding, or the size does not fit.
    """
    known = timm.list_pretrained() if "." in name else timm.list_models()
    if name not in known:
        raise unknown("backbone of timm", name, get_close_matches(name, known, n=5, cutoff=0))
    with torch.device("meta"):
        pooled = timm.create_model(name, num_classes=0)
        if not isinstance(getattr(pooled, "fc_norm", nn.Identity()), nn.Identity):
            raise UserError(f"{name} normalises after pooling only, so its patch tokens are no embedding; choose another one")
        transformer = hasattr(pooled, "num_prefix_tokens") and hasattr(pooled, "patch_embed")
        arguments: dict[str, Any] = {"img_size": size} if transformer else {}
        network = cast("Any", timm.create_model(name, num_classes=0, global_pool="", **arguments))
        if transformer and any(size % patch for patch in network.patch_embed.patch_size):
            raise UserError(f"{name}: a size of {size} does not divide by its patches of {network.patch_embed.patch_size[0]}")
        shape = network.eval().forward_features(torch.empty(1, 3, size, size)).shape
    if transformer:
        height, width = network.patch_embed.grid_size
        return Survey(True, network.num_prefix_tokens, network.num_features, (height, width))
    if len(shape) != 4 or shape[1] != network.num_features:
        raise UserError(f"{name} is neither a vision transformer nor a convolutional net with channels first")
    return Survey(False, 0, network.num_features, (shape[2], shape[3]))


@dataclass(frozen=True)
class Config(Blueprint):
    """Any backbone of timm.

    Attributes:
        name: in timm, such as vit_small_patch16_dinov3, vit_large_patch16_siglip_256.v2_webli, resnet18.
        weights: none, pretrained, or a local file or folder of weights (positions are interpolated to `size`).
        size: pixels of a side the backbone is run at, whatever the recorded size.
        frozen: no gradient, no dropout, no batch statistics.
        group_norm: replace batch norm, which breaks under moving averages and small batches.
    """

    name: str
    weights: str
    size: int = 224
    frozen: bool = True
    group_norm: bool = False

    def build(self, sizes: Sizes) -> Timm:
        about = surveyed(self.name, self.size)
        network = make_timm(self.name, self.weights, {"img_size": self.size} if about.transformer else {})
        if self.group_norm:
            replace_batch_norm(network)
        data = resolve_model_data_config(network)
        said, statistics = f"timm {self.name} group_norm={self.group_norm}", (data["mean"], data["std"])
        return Timm(network, said, self.size, statistics, about.width, about.grid, self.frozen, prefix=about.prefix)
