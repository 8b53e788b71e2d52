"""Masked autoencoding: the numbers, who is hidden, who counts, and what is left after training."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from jaxtyping import TypeCheckError
from torch import nn
from transformers import ViTMAEConfig, ViTMAEForPreTraining

from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, build_for, needs_of
from wmzoo.data import Windows
from wmzoo.errors import UserError
from wmzoo.experiments import vit_mae as arm
from wmzoo.interfaces import Sizes
from wmzoo.models import vit_mae
from wmzoo.objectives import mae
from wmzoo.objectives.mae import Mae, normalise_patches, patchify, random_mask, reconstruction_loss
from wmzoo.run import export

ENCODER = vit_mae.Config("none", image=32, patch=8, width=64, depth=2, heads=2, frozen=False)
NETWORK = vit_mae.MaskedConfig(ENCODER, width=32, depth=1, heads=1)


def objective(sizes: Sizes, patch: int = 8, normalise: bool = True) -> Mae:
    torch.manual_seed(0)
    return mae.Config(replace(NETWORK, encoder=replace(ENCODER, patch=patch)), normalise=normalise).build(sizes)


def score(objective: Mae, batch: Batch, seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return objective(batch).score(cast("Any", None))["reconstruction"]


def test_random_mask_by_hand() -> None:
    """Noise .3 .1 .4 .2 with half of it hidden: patches 1 and 3 stay, in this order; patch 0 is third, 1 first, 2 last, 3 second."""
    kept, restore, masked = random_mask(torch.tensor([[0.3, 0.1, 0.4, 0.2]]), 0.5)
    assert kept.tolist() == [[1, 3]]
    assert restore.tolist() == [[2, 0, 3, 1]]
    assert masked.tolist() == [[True, False, True, False]]


def test_random_mask_hides_three_quarters_of_every_image_anew() -> None:
    """144 patches: 36 stay in each image, each patch a quarter of the time, and `restore` puts them back."""
    noise = torch.rand(400, 144, generator=torch.Generator().manual_seed(0))
    kept, restore, masked = random_mask(noise, 0.75)
    assert (masked.sum(dim=1) == 108).all()
    assert not masked.gather(1, kept).any()
    torch.testing.assert_close(masked.float().mean(dim=0), torch.full((144,), 0.75), atol=0.1, rtol=0)
    order = noise.argsort(dim=1)
    assert (order.gather(1, restore) == torch.arange(144)).all()


def test_patchify_by_hand() -> None:
    """An image of 4 x 4 whose red counts 0..15 and whose green is 100 more: the second of four patches holds 2 3 6 7."""
    red = torch.arange(16.0).reshape(1, 1, 4, 4)
    patches = patchify(torch.cat([red, red + 100, red + 200], dim=1), 2)
    assert patches.shape == (1, 4, 12)
    assert patches[0, 1].tolist() == [2, 102, 202, 3, 103, 203, 6, 106, 206, 7, 107, 207]


def test_normalise_patches_by_hand() -> None:
    """1 and 3: mean 2, unbiased variance 2, so -+ 1 / sqrt 2; a patch of one colour is zeros, not NaN."""
    root = 2**-0.5
    torch.testing.assert_close(normalise_patches(torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])), torch.tensor([[[-root, root], [0.0, 0.0]]]))


def test_reconstruction_loss_by_hand() -> None:
    """Patch 0 is hidden with errors 1 and 3, (1 + 9) / 2 = 5; patch 1 is hidden with none; patch 2 is visible: (5 + 0) / 2 = 2.5.
    Where nothing is hidden the loss is 0."""
    prediction = torch.tensor([[[1.0, 3.0], [0.0, 0.0], [9.0, 9.0]]]).repeat(2, 1, 1)
    masked = torch.tensor([[True, True, False], [False, False, False]])
    torch.testing.assert_close(reconstruction_loss(prediction, torch.zeros(2, 3, 2), masked), torch.tensor([2.5, 0.0]))


def test_visible_patches_do_not_count() -> None:
    """No gradient reaches the prediction of a visible patch, none reaches a target, and hidden patches share it equally."""
    prediction, target = (torch.rand(1, 4, 3, requires_grad=True) for _ in range(2))
    masked = torch.tensor([[True, False, True, False]])
    reconstruction_loss(prediction, target, masked).sum().backward()
    assert target.grad is None
    assert prediction.grad is not None
    assert (prediction.grad[~masked] == 0).all()
    torch.testing.assert_close(prediction.grad[masked], 2 * (prediction - target)[masked].detach() / 6)


def test_wrong_shapes_raise() -> None:
    """Nothing is broadcast."""
    with pytest.raises(TypeCheckError):
        reconstruction_loss(torch.zeros(2, 4, 3), torch.zeros(2, 1, 3), torch.ones(2, 4, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        reconstruction_loss(torch.zeros(2, 4, 3), torch.zeros(2, 4, 3), torch.ones(2, 4, 1, dtype=torch.bool))
    with pytest.raises(TypeCheckError):
        patchify(torch.zeros(2, 3, 4, 8), 4)


@pytest.mark.parametrize("normalise", [True, False])
def test_the_loss_is_the_librarys(normalise: bool, sizes: Sizes, batch: Batch) -> None:
    """The same weights, images and noise in ViTMAEForPreTraining give the same loss to 1e-5."""
    ours = objective(sizes, normalise=normalise)
    config = ViTMAEConfig(
        **ENCODER.architecture,
        decoder_hidden_size=32,
        decoder_num_hidden_layers=1,
        decoder_num_attention_heads=1,
        decoder_intermediate_size=128,
        norm_pix_loss=normalise,
    )
    library = ViTMAEForPreTraining(config)
    encoder, decoder = cast("Any", ours.encoder), cast("Any", ours.decoder)
    library.vit.load_state_dict(encoder.network.state_dict())
    library.decoder.load_state_dict(decoder.network.state_dict())
    pixels = encoder.prepare(batch.image.flatten(0, 2))
    torch.manual_seed(7)
    noise = torch.rand(6, 16)
    expected = library(pixels, noise=noise).loss
    torch.testing.assert_close(score(ours, batch, seed=7).mean(), expected, atol=1e-5, rtol=0)


def test_video_counts_like_demonstrations(sizes: Sizes, batch: Batch) -> None:
    """Every row counts; actions, states and text are never read, not even NaN."""
    ours = objective(sizes)
    whole = score(ours, batch)
    assert whole.weight.tolist() == [True] * 6
    nothing = torch.tensor(float("nan"))
    bare = replace(batch, action=batch.action + nothing, state=batch.state + nothing, action_mask=torch.zeros_like(batch.action_mask))
    assert torch.equal(score(ours, bare).value, whole.value)
    assert torch.equal(score(ours, bare).mean(), whole.mean())


def test_every_frame_and_camera_of_a_window_counts(sizes: Sizes, batch: Batch) -> None:
    """Two frames of two cameras: the window's loss is the mean of what the four images cost alone."""
    ours = objective(sizes)
    wide = replace(batch[:2], image=torch.rand(2, 2, 2, 3, 32, 32, generator=torch.Generator().manual_seed(2)))
    alone = replace(batch[:1].map(lambda x: x.expand(8, *x.shape[1:])), image=wide.image.flatten(0, 2)[:, None, None])
    torch.testing.assert_close(score(ours, wide).value, score(ours, alone).value.unflatten(0, (2, 4)).mean(dim=1))


def test_it_runs_without_trunk_and_observer(sizes: Sizes, batch: Batch) -> None:
    """No stream, no tap: neither part of the arm is called."""
    hybrid = Hybrid(nn.Module(), cast("Any", nn.Module()), {"mae": objective(sizes)})
    assert hybrid(batch).keys() == {"mae/reconstruction"}
    assert objective(sizes)(batch).streams == {}


def test_a_frozen_encoder_is_refused(sizes: Sizes) -> None:
    """It could not learn."""
    with pytest.raises(UserError, match="frozen"):
        vit_mae.MaskedConfig(replace(ENCODER, frozen=True)).build(sizes)


def tiny(root: Path) -> tuple[Experiment, Windows]:
    experiment = arm.config("tiny")
    experiment = replace(experiment, data=replace(experiment.data, root=str(root), batch=8))
    return experiment, Windows(experiment.data, needs_of(experiment), seed=0)


def test_it_learns_one_batch_by_heart(sizes: Sizes, batch: Batch) -> None:
    """Four different blends of colour, another mask in each of 100 steps: the loss ends below a fifth of what predicting the
    mean of every place costs.  (The toy's discs are small: three quarters hidden, they take a thousand steps.)"""
    down, right = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
    blends = [(right, down, 1 - right), (down, 1 - right, right), (1 - down, down, 1 - right), (1 - right, right * down, down)]
    batch = replace(batch[:4], image=torch.stack([torch.stack(blend) for blend in blends])[:, None, None])
    ours = objective(sizes, patch=4)
    optimizer = torch.optim.AdamW([p for p in ours.parameters() if p.requires_grad], lr=3e-3, betas=(0.9, 0.95))
    curve = []
    for step in range(100):
        optimizer.param_groups[0]["lr"] = 3e-3 * min(1.0, (100 - step) / 30)
        loss = score(ours, batch, seed=step).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        curve.append(loss.item())
    target = normalise_patches(patchify(cast("Any", ours.encoder).prepare(batch.image.flatten(0, 2)), 4))
    mean = (target - target.mean(dim=(0, 1))).square().mean().item()
    assert sum(curve[-10:]) / 10 < 0.2 * mean < curve[0]


@pytest.fixture
def run(toy_data: Path, tmp_path: Path) -> tuple[Path, torch.Tensor, torch.Tensor]:
    """The run folder of an in-domain stage (untrained), an image, and the tokens that its encoder gives."""
    experiment, windows = tiny(toy_data)
    torch.manual_seed(1)
    hybrid = build_for(experiment, windows)
    image = windows.train(0).image.flatten(0, 2)
    with torch.no_grad():
        tokens = cast("Any", hybrid.objectives["mae"]).encoder(image)
    export(experiment, hybrid, windows, tmp_path / "run" / "export", [])
    return tmp_path / "run", image, tokens


def test_the_export_is_an_encoder(run: tuple[Path, torch.Tensor, torch.Tensor], sizes: Sizes) -> None:
    """The decoder is gone; run folder and export folder both give the trained tokens, frozen, with one fingerprint."""
    folder, image, tokens = run
    encoders = [replace(arm.ENCODERS["tiny"], weights=str(path)).build(sizes) for path in (folder, folder / "export")]
    for encoder in encoders:
        assert torch.equal(encoder(image), tokens)
    assert encoders[0].fingerprint == encoders[1].fingerprint
    names = [name for name, _ in objective(sizes).named_parameters()]
    stripped = objective(sizes)
    stripped.strip()
    left = [name for name, _ in stripped.named_parameters()]
    assert left == [name for name in names if name.startswith("encoder.")]


def test_the_wrong_run_is_one_line(run: tuple[Path, torch.Tensor, torch.Tensor], sizes: Sizes) -> None:
    """Another architecture (heads do not show in the weights), a run that has not ended, weights that are damaged."""
    folder = run[0]
    good = replace(arm.ENCODERS["tiny"], weights=str(folder))
    with pytest.raises(UserError, match=r"heads=2; set heads to these$"):
        replace(good, heads=4).build(sizes)
    (folder / "export" / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"^[^\n]*does not hold[^\n]*$"):
        good.build(sizes)
    (folder / "export" / "weights.safetensors").unlink()
    with pytest.raises(UserError, match="not ended"):
        good.build(sizes)
