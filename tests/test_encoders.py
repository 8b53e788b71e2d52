"""Public backbones as encoders: normalised inside, patches only and in order, frozen for good, three ways of weights."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from transformers import (
    Siglip2Tokenizer,
    SiglipConfig,
    SiglipModel,
    ViTMAEConfig,
    ViTMAEForPreTraining,
    ViTMAEModel,
)
from transformers.models.vit_mae.modeling_vit_mae import build_2d_sinusoidal_position_embedding

from wmzoo.batch import Batch
from wmzoo.data import byte_tokens
from wmzoo.errors import UserError
from wmzoo.features import encoded
from wmzoo.interfaces import Sizes
from wmzoo.models import backbones, siglip2, vit_mae
from wmzoo.models.backbones import Backbone

MAE = vit_mae.Config("none", image=32, patch=8, width=32, depth=2, heads=2)
SIGLIP = siglip2.VisionConfig("none", image=32, patch=8, width=32, depth=2, heads=2)
TEXT = siglip2.TextConfig("none", width=32, depth=2, heads=2)
VIT = backbones.Config("test_vit", "none", size=32)
CONV = backbones.Config("test_resnet", "none", size=64)
ENCODERS = {"timm vit": VIT, "timm conv": CONV, "vit_mae": MAE, "siglip2": SIGLIP}
every = pytest.mark.parametrize("config", ENCODERS.values(), ids=ENCODERS.keys())


def built(config: Any, sizes: Sizes, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return config.build(sizes)


def image(count: int = 2, size: int = 48) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@every
def test_tokens_are_patches_alone(config: Any, sizes: Sizes) -> None:
    """One token of the promised width for each cell of the grid, whatever the size of the image."""
    encoder = built(config, sizes)
    for size in (24, 48, 200):
        assert encoder(image(size=size)).shape == (2, encoder.grid[0] * encoder.grid[1], encoder.width)


@every
def test_normalisation_is_inside(config: Any, sizes: Sizes) -> None:
    """An image of the mean colour arrives at the backbone as zeros; one deviation more arrives as ones; bytes are refused."""
    encoder = built(config, sizes)
    seen: list[torch.Tensor] = []
    read = encoder.tokens
    encoder.tokens = lambda pixels: read(seen.append(pixels) or pixels)
    for colour in (encoder.mean, encoder.mean + encoder.std):
        encoder(colour.expand(1, 3, 40, 40))
    size = (encoder.size, encoder.size)
    torch.testing.assert_close(seen[0], torch.zeros(1, 3, *size), atol=1e-6, rtol=0)
    torch.testing.assert_close(seen[1], torch.ones(1, 3, *size), atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="uint8"):
        encoder(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@every
def test_images_normalised_elsewhere_are_refused(config: Any, sizes: Sizes) -> None:
    """R7: floats of ImageNet's normalisation or up to 255 raise in one line; roundings and NaN pass; the meta device is not asked."""
    encoder = built(config, sizes)
    for wrong, told in (((image() - 0.45) / 0.22, "from -2.05 to 2.5"), (255 * image(), "to 255"), (image() - 1, "from -1 to")):
        with pytest.raises(UserError, match=rf"in \[0, 1\], these go .*{told}.* leave the normalisation to the encoder"):
            encoder(wrong)
    for right in (image() * 1.0005, torch.full((1, 3, 8, 8), float("nan")), torch.zeros(0, 3, 8, 8)):
        backbones.in_range(right)
    with torch.device("meta"):
        backbones.in_range(torch.zeros(1, 3, 8, 8) - 1)
    assert torch.compile(lambda x: backbones.in_range(x) or x + 1, backend="eager", fullgraph=True)(torch.full((2,), 9.0))[0] == 10


@pytest.mark.parametrize(("name", "prefix"), [("test_vit", 1), ("vit_small_patch16_dinov3", 5)])
def test_prefix_tokens_are_dropped(name: str, prefix: int, sizes: Sizes) -> None:
    """Class and register tokens come first in timm's last hidden state; the rest is what we return, after the final norm."""
    with torch.no_grad():
        encoder = built(backbones.Config(name, "none", size=32), sizes)
        whole = encoder.network.forward_features(encoder.prepare(image()))
        torch.testing.assert_close(encoder(image()), whole[:, prefix:])
    assert whole.shape[1] - prefix == encoder.grid[0] * encoder.grid[1]
    assert not isinstance(encoder.network.norm, nn.Identity)


def test_conv_tokens_are_row_major(sizes: Sizes) -> None:
    """Token r * columns + c is the last map's pixel (r, c)."""
    encoder = built(CONV, sizes)
    last = encoder.network.forward_features(encoder.prepare(image(size=64)))
    (rows, columns), row, column = encoder.grid, 1, 0
    assert last.shape[-2:] == (rows, columns) == (2, 2)
    torch.testing.assert_close(encoder(image(size=64))[:, row * columns + column], last[:, :, row, column])


@every
def test_frozen_for_good(config: Any, sizes: Sizes, batch: Batch) -> None:
    """`.train()` of the whole policy changes nothing, no parameter learns, and the batch keeps the tokens for the next reader."""
    policy = nn.ModuleDict({"encoder": built(config, sizes)}).train()
    encoder = cast("Backbone", policy["encoder"])
    assert not any(module.training for module in encoder.modules())
    assert not any(p.requires_grad for p in policy.parameters())
    tokens = encoded(batch, encoder, "now")
    assert not tokens.requires_grad
    torch.testing.assert_close(tokens, encoder(batch.image.flatten(0, 2)))
    assert encoded(batch, encoder, "now").data_ptr() == tokens.data_ptr()


@every
def test_a_trained_encoder_learns_and_has_no_fingerprint(config: Any, sizes: Sizes) -> None:
    """Not frozen: every trainable weight gets a gradient, `.train()` works, and nobody can take it for a fixed function."""
    encoder = built(replace(config, frozen=False), sizes)
    assert encoder.train().training
    encoder(image(size=64)).square().mean().backward()
    assert not [name for name, p in encoder.named_parameters() if p.requires_grad and p.grad is None]
    assert not hasattr(encoder, "fingerprint")


@every
def test_fingerprint_names_the_content(config: Any, sizes: Sizes) -> None:
    """The same weights have the same fingerprint, used or not; other weights and other settings have another, and loading renews it."""
    encoder, twin, other = built(config, sizes), built(config, sizes), built(config, sizes, seed=1)
    twin(image())
    twin(image(1))
    assert encoder.fingerprint == twin.fingerprint != other.fingerprint
    nn.ModuleDict({"encoder": other}).load_state_dict(nn.ModuleDict({"encoder": encoder}).state_dict())
    assert other.fingerprint == encoder.fingerprint
    first = next(iter(encoder.state_dict()))
    changed = {**encoder.state_dict(), first: encoder.state_dict()[first] + 1e-3}
    other.load_state_dict(changed)
    assert other.fingerprint != encoder.fingerprint


def test_fingerprint_knows_the_size_and_the_normalisation(sizes: Sizes) -> None:
    """Weights alone do not decide the tokens."""
    small, large = built(CONV, sizes), built(replace(CONV, size=96), sizes)
    assert all(torch.equal(a, b) for a, b in zip(small.state_dict().values(), large.state_dict().values(), strict=True))
    assert small.fingerprint != large.fingerprint


def test_group_norm_replaces_every_batch_norm(sizes: Sizes) -> None:
    """Groups of 16 channels; a network without batch norm is refused."""
    encoder = built(backbones.Config("resnet18", "none", size=32, group_norm=True), sizes)
    norms = [module for module in encoder.modules() if isinstance(module, nn.GroupNorm)]
    assert len(norms) == 20
    assert all(norm.num_channels == 16 * norm.num_groups for norm in norms)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())
    assert encoder(image()).shape == (2, 1, 512)
    with pytest.raises(UserError, match="batch norm"):
        replace(VIT, group_norm=True).build(sizes)


def test_a_timm_file_or_folder_gives_the_same_tokens(sizes: Sizes, tmp_path: Path) -> None:
    """A classifier in the file is left out; the global seed is neither used nor moved."""
    for config in (VIT, CONV):
        torch.manual_seed(3)
        network = timm.create_model(config.name, img_size=32) if config is VIT else timm.create_model(config.name)
        save_file(network.state_dict(), tmp_path / "model.safetensors")
        tokens = []
        for path in (tmp_path, tmp_path / "model.safetensors"):
            torch.manual_seed(4)
            encoder = replace(config, weights=str(path)).build(sizes)
            tokens.append(encoder(image()))
            assert torch.rand(1) == torch.rand(1, generator=torch.Generator().manual_seed(4))
        assert torch.equal(*tokens)
        with torch.no_grad():
            whole = cast("Any", network.eval()).forward_features(encoder.prepare(image()))
        torch.testing.assert_close(tokens[0], whole[:, 1:] if config is VIT else whole.flatten(2).transpose(1, 2))


def test_a_file_of_something_else_is_refused(sizes: Sizes, tmp_path: Path) -> None:
    """timm loads a convolutional net without its classifier loosely, so a wrong file would leave it at its random start."""
    save_file({"something": torch.zeros(3)}, tmp_path / "model.safetensors")
    (tmp_path / "broken.safetensors").write_bytes(b"no")
    (tmp_path / "empty").mkdir()
    for config in (VIT, CONV, MAE, SIGLIP):
        for name in ("model.safetensors", "broken.safetensors", "empty", "missing"):
            assert_one_line(replace(config, weights=str(tmp_path / name)), sizes)


def assert_one_line(config: Any, sizes: Sizes, *words: str) -> None:
    with pytest.raises(UserError) as caught:
        config.build(sizes)
    message = str(caught.value)
    assert "\n" not in message
    assert all(word in message for word in words), message


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hub: the variable for whoever starts later, the constant for who has read it already."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


@pytest.mark.usefixtures("offline")
@pytest.mark.parametrize("config", [replace(VIT, name="vit_small_patch14_dinov2", size=28), MAE, SIGLIP, TEXT])
def test_pretrained_without_a_network_is_one_line(config: Any, sizes: Sizes) -> None:
    """It names the way out: a local file or folder."""
    assert_one_line(replace(config, weights="pretrained"), sizes, config.name, "hub", "local file or folder")


def test_wrong_names_and_sizes_are_one_line(sizes: Sizes) -> None:
    """A near name is offered; a size that does not divide is named."""
    assert_one_line(replace(VIT, name="vit_small_patch16_dinov4"), sizes, "did you mean", "vit_small_patch16_dinov3")
    assert_one_line(replace(VIT, name="vit_small_patch16_dinov3.lvd"), sizes, "did you mean", "vit_small_patch16_dinov3.lvd1689m")
    assert_one_line(replace(VIT, size=40), sizes, "40", "16")
    assert_one_line(replace(VIT, name="test_vit2"), sizes, "after pooling")
    assert_one_line(replace(VIT, name="swin_tiny_patch4_window7_224", size=224), sizes, "neither")
    assert_one_line(replace(MAE, patch=7), sizes, "patch=7")
    assert_one_line(replace(TEXT, length=65), sizes, "64")


# ViT-MAE


@pytest.fixture
def mae_folder(tmp_path: Path) -> Path:
    """A folder as the hub has it: the whole autoencoder, with random weights and real position tables."""
    torch.manual_seed(5)
    config = ViTMAEConfig(
        **MAE.architecture, decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2, decoder_intermediate_size=32
    )
    network = ViTMAEForPreTraining(config)
    vit_mae.start(network)
    network.save_pretrained(tmp_path / "mae")
    return tmp_path / "mae"


def test_mae_from_a_folder_or_a_file_is_the_library_in_order(mae_folder: Path, sizes: Sizes) -> None:
    """Our tokens are the library's after its own permutation is undone, class token dropped."""
    library = ViTMAEModel.from_pretrained(mae_folder, mask_ratio=0.0).eval()
    for path in (mae_folder, mae_folder / "model.safetensors"):
        encoder = replace(MAE, weights=str(path)).build(sizes)
        with torch.no_grad():
            raw = library(encoder.prepare(image()))
        index = raw.ids_restore[..., None].expand(-1, -1, encoder.width)
        torch.testing.assert_close(encoder(image()), raw.last_hidden_state[:, 1:].gather(1, index), atol=1e-5, rtol=0)


def test_the_library_shuffles_and_we_do_not(sizes: Sizes) -> None:
    """M4 (spec 7.6): two eval calls of ViTMAEModel with mask_ratio=0 differ by more than 0.1, and by less than 1e-5 once put
    back in order with ids_restore; two calls of ours are identical."""
    encoder = built(MAE, sizes)
    network = cast("Any", encoder.network)
    with torch.no_grad():
        calls = [network(encoder.prepare(image())) for _ in range(2)]
    raw = [call.last_hidden_state[:, 1:] for call in calls]
    ordered = [tokens.gather(1, call.ids_restore[..., None].expand_as(tokens)) for tokens, call in zip(raw, calls, strict=True)]
    assert (raw[0] - raw[1]).abs().max() > 0.1
    assert (ordered[0] - ordered[1]).abs().max() < 1e-5
    assert torch.equal(encoder(image()), encoder(image()))
    torch.testing.assert_close(encoder(image()), ordered[0], atol=1e-5, rtol=0)


def test_the_library_forgets_positions_and_we_do_not(sizes: Sizes) -> None:
    """A fresh ViTMAEModel has a table of zeros (transformers 5.23), so swapping two patches of the image merely swaps two
    tokens; ours has the paper's table, which is the one that the library would have written."""
    encoder = built(MAE, sizes)
    table = build_2d_sinusoidal_position_embedding(4, 4, 32, cls_token=True)
    expected = torch.cat([table[:, 16:], table[:, :16]], dim=-1)[None]
    torch.testing.assert_close(encoder.network.embeddings.position_embeddings, expected, atol=1e-6, rtol=0)
    torch.testing.assert_close(vit_mae.positions(4, 32), expected, atol=1e-6, rtol=0)
    picture = image(1, 32)
    swapped = picture.clone()
    swapped[..., :8, :8], swapped[..., :8, 8:16] = picture[..., :8, 8:16], picture[..., :8, :8]
    assert (encoder(swapped)[:, [1, 0]] - encoder(picture)[:, :2]).abs().max() > 0.01


def test_mae_of_another_architecture_is_refused(mae_folder: Path, sizes: Sizes) -> None:
    """Fewer layers or other heads would load without a word; the line says what is stored."""
    config = replace(MAE, weights=str(mae_folder))
    assert_one_line(replace(config, depth=1), sizes, "num_hidden_layers=2", "num_hidden_layers=1")
    assert_one_line(replace(config, heads=4), sizes, "num_attention_heads=2")
    assert_one_line(replace(config, depth=1, weights=str(mae_folder / "model.safetensors")), sizes, "more layers")
    assert_one_line(replace(config, depth=3, weights=str(mae_folder / "model.safetensors")), sizes, "lacks")
    assert_one_line(replace(config, width=64, weights=str(mae_folder / "model.safetensors")), sizes, "fit")


# SigLIP 2


@pytest.fixture
def siglip_folder(tmp_path: Path) -> Path:
    """A folder as the hub has it: both towers with random weights, and a tokenizer of letters."""
    torch.manual_seed(6)
    tower = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    vision = {**tower, "image_size": 32, "patch_size": 8}
    text = {**tower, "vocab_size": 40, "max_position_embeddings": 64, "projection_size": 32}
    SiglipModel(SiglipConfig(text_config=text, vision_config=vision)).save_pretrained(tmp_path / "siglip")
    letters = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁", *"abcdefghijklmnopqrstuvwxyz"]
    Siglip2Tokenizer({letter: i for i, letter in enumerate(letters)}, []).save_pretrained(tmp_path / "siglip")
    return tmp_path / "siglip"


def test_siglip_from_a_folder_is_the_library(siglip_folder: Path, sizes: Sizes) -> None:
    """Both towers give the last hidden state of the library's own model; the image tower also from the file alone."""
    library = SiglipModel.from_pretrained(siglip_folder).eval()
    text = replace(TEXT, weights=str(siglip_folder), length=32).build(sizes)
    sentences = ["reach the red disc", "reach the blue disc", "reach the red disc"]
    pieces = text.pieces(byte_tokens(sentences))
    assert pieces.shape == (3, 32)
    assert cast("Any", text.tokenizer).decode(pieces[1], skip_special_tokens=True) == "reach the blue disc"
    for path in (siglip_folder, siglip_folder / "model.safetensors"):
        vision = replace(SIGLIP, weights=str(path)).build(sizes)
        with torch.no_grad():
            expected = library.vision_model(vision.prepare(image())).last_hidden_state
        torch.testing.assert_close(vision(image()), expected)
    with torch.no_grad():
        torch.testing.assert_close(text(byte_tokens(sentences)), library.text_model(pieces).last_hidden_state)
    assert_one_line(replace(TEXT, weights=str(siglip_folder / "model.safetensors")), sizes, "folder", "tokenizer")
    assert_one_line(replace(SIGLIP, weights=str(siglip_folder), depth=1), sizes, "num_hidden_layers=2")


def test_text_reads_bytes_without_weights(sizes: Sizes) -> None:
    """A sentence means the same whatever else is in the batch; equal sentences are equal; one that is too long is refused."""
    text = built(TEXT, sizes)
    both = text(byte_tokens(["open the door", "press the button from above", "open the door"]))
    assert both.shape == (3, 64, 32)
    assert not both.requires_grad
    torch.testing.assert_close(both[0], text(byte_tokens(["open the door"]))[0])
    assert torch.equal(both[0], both[2])
    assert not torch.equal(both[0], both[1])
    with pytest.raises(UserError, match="28 tokens"):
        replace(TEXT, length=20).build(sizes)(byte_tokens(["press the button from above"]))
    trained = built(replace(TEXT, frozen=False), sizes)
    trained(byte_tokens(["open the door"])).sum().backward()
    assert not [name for name, p in trained.named_parameters() if p.requires_grad and p.grad is None]


# paper scale


@pytest.mark.parametrize(
    ("config", "millions", "grid"),
    [
        (siglip2.VisionConfig("none"), 303.4, 16),
        (backbones.Config("vit_large_patch16_siglip_256", "none", size=256), 303.4, 16),
        (backbones.Config("vit_large_patch16_dinov3", "none", size=512), 303.1, 32),
        (backbones.Config("vit_base_patch16_dinov3", "none", size=224), 85.6, 14),
        (backbones.Config("vit_small_patch16_dinov3", "none", size=224), 21.6, 14),
        (backbones.Config("vit_small_patch14_dinov2", "none", size=518), 22.06, 37),
        (backbones.Config("vit_base_patch14_reg4_dinov2", "none", size=518), 86.6, 37),
        (backbones.Config("resnet18", "none", size=256, group_norm=True), 11.2, 8),
        (vit_mae.Config("none", frozen=False), 303.1, 14),
    ],
)
def test_paper_scale_counts(config: Any, millions: float, grid: int, sizes: Sizes) -> None:
    """Spec 2.4, to the precision given there, without allocating anything.

    MAE-L counts its trainable weights (its 0.2M positions are fixed); DINOv2's are counted with the 37 x 37 positions of
    its checkpoint, of which 196 pixels keep 14 x 14 (21.6M for the small one).
    """
    with torch.device("meta"):
        encoder = config.build(sizes)
        tokens = encoder(torch.empty(1, 3, 96, 96))
    fixed = [p for name, p in encoder.named_parameters() if name.endswith("embeddings.position_embeddings")]
    counted = sum(p.numel() for p in encoder.parameters()) - sum(p.numel() for p in fixed)
    digits = 2 if millions == 22.06 else 1
    assert round(counted / 1e6, digits) == millions
    assert encoder.grid == (grid, grid)
    assert tokens.shape == (1, grid * grid, encoder.width)
    assert all(p.is_meta for p in encoder.parameters())


def test_weights_are_not_read_on_the_meta_device(sizes: Sizes) -> None:
    """An arm is asked for its needs on the meta device; that must not load, hash or even find a file."""
    with torch.device("meta"):
        for config in (VIT, MAE, SIGLIP, TEXT):
            replace(config, weights="/nowhere/on/this/machine").build(sizes)
