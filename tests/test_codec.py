"""The codec: numbers by hand, tokens and back, three ways to weights, what teaches it, SDXL's size."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers import learns, made, scores
from safetensors.torch import load_file, save_file

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.config import Experiment
from wmzoo.errors import UserError
from wmzoo.experiments import codec as arms
from wmzoo.interfaces import Sizes
from wmzoo.models.codec import Codec
from wmzoo.objectives.codec import divergence, drawn

TINY = arms.CODECS["tiny"]


def small() -> Experiment:
    return registry.arm("codec", "tiny")


def test_divergence_by_hand() -> None:
    """Mean 2, variance 1: (4 + 1 - 1 - 0) / 2 = 2; the standard normal gives 0; shapes are never broadcast."""
    one, zero = torch.ones(1, 1, 1, 1), torch.zeros(1, 1, 1, 1)
    assert divergence(2 * one, zero).item() == 2.0
    assert divergence(zero, zero).item() == 0.0
    assert divergence(zero, torch.log(2 * one)).item() == pytest.approx((2 - 1 - torch.log(torch.tensor(2.0)).item()) / 2)
    with pytest.raises(Exception, match="B C y x"):
        divergence(torch.zeros(2, 1, 2, 2), torch.zeros(1, 1, 2, 2))


def test_drawn_by_hand() -> None:
    """Mean 1, variance 4, noise 3: 1 + 2 * 3 = 7; the gradient reaches mean and variance."""
    mean, logvar = torch.ones(1, 1, 1, 1, requires_grad=True), torch.log(torch.full((1, 1, 1, 1), 4.0)).requires_grad_()
    value = drawn(mean, logvar, torch.full((1, 1, 1, 1), 3.0))
    assert value.item() == pytest.approx(7.0)
    value.sum().backward()
    assert mean.grad is not None
    assert mean.grad.item() == 1.0
    assert logvar.grad is not None
    assert logvar.grad.item() == pytest.approx(3.0)


def test_tokens_are_patches_of_the_mean(sizes: Sizes) -> None:
    """Row after row, a token's numbers ordered channel, row, column, times the factor; painting takes them apart again."""
    torch.manual_seed(0)
    codec = replace(TINY, factor=0.5).build(sizes).eval()
    image = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        tokens, (mean, _) = codec(image), codec.posterior(image)
        assert tokens.shape == (2, 16, 16)
        assert codec.grid == (4, 4)
        assert codec.channels == 4
        assert torch.allclose(tokens[:, 5], 0.5 * mean[:, :, 2:4, 2:4].flatten(1), atol=1e-6)
        assert torch.allclose(codec.paint(tokens, 32), codec.decode(mean), atol=1e-5)
        assert codec.paint(tokens, 48).shape == (2, 3, 48, 48)


def test_what_teaches_it(batch: Batch, sizes: Sizes) -> None:
    """Both halves learn from every window, also from video; another future changes nothing."""
    hybrid = made(small(), sizes)
    terms = scores(hybrid, batch)
    assert torch.equal(scores(hybrid, replace(batch, future=torch.rand_like(batch.future)))["codec/paint"], terms["codec/paint"])
    torch.stack([*terms.values()]).sum().backward()
    assert all(learns(hybrid, f"objectives.codec.codec.network.{half}") for half in ("encoder", "decoder"))
    assert {"codec/ssim", "codec/psnr"} == set(hybrid.eval().watch(batch))


def test_what_is_watched_does_not_depend_on_the_precision_of_training(batch: Batch, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A perfect codec of smooth frames has SSIM 1, in bf16 too, where a variance is mostly rounding."""
    hybrid = made(small(), sizes).eval()
    codec = cast("Any", hybrid.objectives["codec"]).codec
    ramp = torch.linspace(0.3, 0.9, sizes.image)
    frames = replace(batch, image=(ramp[:, None] * 0.5 + ramp * 0.5).expand_as(batch.image).contiguous())
    offset = 0.01 * torch.sin(torch.arange(sizes.image) * 0.9)
    monkeypatch.setattr(codec, "paint", lambda tokens, size: frames.image[:, -1, 0] + offset)
    with torch.no_grad():
        plain = hybrid.watch(frames)["codec/ssim"]
        with torch.autocast("cpu", torch.bfloat16):
            mixed = hybrid.watch(frames)["codec/ssim"]
    assert 0.5 < plain < 0.99
    assert mixed == pytest.approx(plain.item(), abs=1e-4)


def test_a_frozen_codec_has_a_fingerprint_and_cannot_be_trained(sizes: Sizes) -> None:
    torch.manual_seed(0)
    one, other = TINY.build(sizes), TINY.build(sizes)
    assert one.fingerprint != other.fingerprint
    other.load_state_dict(one.state_dict())
    assert one.fingerprint == other.fingerprint
    assert not any(p.requires_grad for p in one.parameters())
    assert not one.train().training
    arm = small()
    term = arm.objectives["codec"]
    frozen = replace(arm, objectives={"codec": replace(term, config=replace(cast("Any", term.config), codec=TINY))})
    with pytest.raises(UserError, match="set frozen to False"):
        made(frozen, sizes)


def test_three_ways_to_weights(sizes: Sizes, tmp_path: Path) -> None:
    """None; a folder as diffusers writes it; a file of weights.  What is missing, foreign or truncated is one line."""
    torch.manual_seed(0)
    source = TINY.build(sizes)
    cast("Any", source.network).save_pretrained(tmp_path / "folder")
    torch.save(source.network.state_dict(), tmp_path / "weights.pt")
    for where in ("folder", "weights.pt"):
        found = cast("Codec", replace(TINY, weights=str(tmp_path / where)).build(sizes))
        assert found.fingerprint == source.fingerprint
    with pytest.raises(UserError, match=r"is a codec with .*32"):
        replace(TINY, weights=str(tmp_path / "folder"), channels=(64,)).build(sizes)
    with pytest.raises(UserError, match="does not hold weights that fit"):
        replace(TINY, weights=str(tmp_path / "weights.pt"), channels=(64,)).build(sizes)
    with pytest.raises(UserError, match="no such file or folder"):
        replace(TINY, weights=str(tmp_path / "nowhere")).build(sizes)
    damaged = tmp_path / "folder" / "diffusion_pytorch_model.safetensors"
    whole = load_file(damaged)
    save_file({key: value for key, value in whole.items() if key != "decoder.conv_in.weight"}, damaged)
    with pytest.raises(UserError, match=r"lacks 1 weights of .*decoder\.conv_in\.weight"):
        replace(TINY, weights=str(tmp_path / "folder")).build(sizes)
    damaged.write_bytes(damaged.read_bytes()[:1000])
    with pytest.raises(UserError, match="does not hold weights that fit"):
        replace(TINY, weights=str(tmp_path / "folder")).build(sizes)


def test_by_name_without_a_network_is_one_line(sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot be fetched from the hub.*local file or folder"):
        replace(TINY, weights="pretrained", name="nobody/no-such-codec").build(sizes)


@pytest.mark.parametrize(
    ("bad", "message"), [({"size": 36}, "do not divide by patches"), ({"channels": (20,)}, "do not divide into 8 groups")]
)
def test_impossible_sizes_are_refused_in_one_line(sizes: Sizes, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        replace(TINY, **bad).build(sizes)


def test_sdxl_size(sizes: Sizes) -> None:
    """83,653,863 parameters; frames of 224 pixels are 49 tokens of 64 numbers, those of UWM."""
    with torch.device("meta"):
        codec = arms.CODECS["paper"].build(sizes)
        assert sum(p.numel() for p in codec.parameters()) == 83_653_863
        assert codec(torch.empty(1, 3, 224, 224)).shape == (1, 49, 64)
