"""Residual latents: numbers by hand, what the latent depends on, sizes of the paper, learning by heart, and reuse in other arms."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers import learns, made, scores
from torch import Tensor, nn

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.config import Experiment, self_contained
from wmzoo.errors import UserError
from wmzoo.interfaces import Sizes
from wmzoo.models import pixels, vit_mae
from wmzoo.models import rla as network
from wmzoo.models.rla import Autoencoder, TokenTransformer
from wmzoo.objectives.pixels import paint_loss
from wmzoo.objectives.rla import Rla, copied_ratio, distances, motion_weight
from wmzoo.run import train
from wmzoo.standard import Standardiser

EYE = vit_mae.Config("none", image=32, patch=8, width=32, depth=1, heads=2)


def small(**fields: Any) -> Experiment:
    """The arm at tiny scale with fresh weights, some fields of its model changed."""
    arm = self_contained(registry.arm("rla", "tiny"))
    term = arm.objectives["rla"]
    config = cast("Any", term.config)
    return replace(arm, objectives={"rla": replace(term, config=replace(config, residuals=replace(config.residuals, **fields)))})


def model_of(arm: Experiment, sizes: Sizes, moved: bool = True) -> Autoencoder:
    return cast("Autoencoder", cast("Rla", made(arm, sizes, moved).objectives["rla"]).residuals)


def maps(seed: int = 0, n: int = 3) -> tuple[Tensor, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(n, 16, 64, generator=random), torch.randn(n, 16, 64, generator=random)


def test_distances_by_hand() -> None:
    """Errors 1 and 3 on two patches of one number: plain means 2 and 5; with weights 0.5 and 1.5: 2.5 and 7."""
    written, future = torch.tensor([[[1.0], [3.0]]]), torch.zeros(1, 2, 1)
    assert [x.item() for x in distances(written, future, torch.ones(1, 2))] == [2.0, 5.0]
    assert [x.item() for x in distances(written, future, torch.tensor([[0.5, 1.5]]))] == [2.5, 7.0]


def test_motion_weight_by_hand() -> None:
    """Patches move by 3 and by 1, on average 2: with m = 1 they weigh (1 + 1.5) / 2 and (1 + 0.5) / 2; m = 0 is plain."""
    now, future = torch.zeros(1, 2, 1), torch.tensor([[[3.0], [1.0]]])
    torch.testing.assert_close(motion_weight(now, future, 1.0), torch.tensor([[1.25, 0.75]]))
    torch.testing.assert_close(motion_weight(now, future, 0.0), torch.ones(1, 2))
    torch.testing.assert_close(motion_weight(now, now, 4.0).sum(), torch.tensor(2 / 5))


def test_copied_ratio_by_hand() -> None:
    """Windows change by 1, 2, 4; the median is 2, so the last alone counts: error 1 of 4."""
    now, future = torch.zeros(3, 1, 1), torch.tensor([1.0, 2.0, 4.0])[:, None, None]
    assert copied_ratio(now, future - 1, future).item() == 0.25


def test_copied_ratio_of_windows_that_change_alike() -> None:
    """No window changes more than the median one: all count, 1 of 2; where nothing changes there is no ratio, least of all 0."""
    now, future = torch.zeros(3, 1, 1), torch.full((3, 1, 1), 2.0)
    assert copied_ratio(now, future - 1, future).item() == 0.5
    assert copied_ratio(now, now, now).isnan()


def test_paint_loss_by_hand() -> None:
    """An error of 0.5 everywhere costs 0.5 + 0.25."""
    assert paint_loss(torch.full((1, 3, 4, 4), 0.75), torch.full((1, 3, 4, 4), 0.25)).item() == 0.75


def test_a_fresh_decoder_of_the_paper_writes_nothing(batch: Batch, sizes: Sizes) -> None:
    """L1: the prediction is exactly 0 and the loss mean |s| + mean s^2; the zoo's form starts as a copy instead."""
    fresh = model_of(small(writes="frame"), sizes, moved=False)
    now, future = maps()
    written = fresh.decode(now, fresh.encode(now, future))
    assert (written == 0).all()
    l1, mse = distances(written, future, torch.ones(3, 16))
    torch.testing.assert_close(l1 + mse, (future.abs() + future.square()).mean(dim=(1, 2)))
    copying = model_of(small(), sizes, moved=False)
    assert torch.equal(copying.decode(now, copying.encode(now, future)), now)


def test_patches_have_no_place(sizes: Sizes) -> None:
    """L2: permuting the patches of both maps alike leaves the latent and permutes what is written."""
    model, order = model_of(small(), sizes), torch.randperm(16, generator=torch.Generator().manual_seed(1))
    now, future = maps()
    latent = model.encode(now, future)
    torch.testing.assert_close(model.encode(now[:, order], future[:, order]), latent)
    torch.testing.assert_close(model.decode(now[:, order], latent), model.decode(now, latent)[:, order])


def test_nothing_is_broadcast_over_pairs(sizes: Sizes) -> None:
    """One frame for all, or one latent for all tokens, would be repeated without a word."""
    now, future = maps()
    for reads in ("sub", "concat"):
        model = model_of(small(reads=reads), sizes)
        for pair in ((now[:1], future), (now[:, :1], future), (now, future[..., :1])):
            with pytest.raises(ValueError, match="not of one shape"):
                model.encode(*pair)
        latent = model.encode(now, future)
        for wrong in (latent[:1], latent[:, :1], latent[..., :1]):
            with pytest.raises(ValueError, match="the latents of 3 frames"):
                model.decode(now, wrong)


def test_the_latent_is_of_the_difference_alone(sizes: Sizes) -> None:
    """L3: the same map added to both frames leaves the latent, not what is written; "concat" sees both frames."""
    now, future = maps()
    both = torch.randn(1, 16, 64)
    for reads, same in (("sub", True), ("concat", False)):
        model = model_of(small(reads=reads), sizes)
        assert torch.allclose(model.encode(now + both, future + both), model.encode(now, future), atol=1e-5) == same
    model = model_of(small(), sizes)
    latent = model.encode(now, future)
    assert not torch.allclose(model.decode(now + both, latent) - both, model.decode(now, latent), atol=1e-3)


def test_sizes_of_the_paper() -> None:
    """L4: encoder 152,255,552, decoder 153,306,112; with 8 tokens of 8 numbers 305.4 million in all."""
    with torch.device("meta"):
        reader, writer = TokenTransformer(1024, 1024, 64, 12, 16, 32), TokenTransformer(1024, 1024, 1024, 12, 16, 32, fed=64)
        few = TokenTransformer(1024, 1024, 8, 12, 16, 8), TokenTransformer(1024, 1024, 1024, 12, 16, 8, fed=8)
    assert [sum(p.numel() for p in m.parameters()) for m in (reader, writer)] == [152_255_552, 153_306_112]
    assert round(sum(p.numel() for m in few for p in m.parameters()) / 1e6, 1) == 305.4


@pytest.mark.slow
def test_pairs_learnt_by_heart(sizes: Sizes) -> None:
    """L5: eight changes of one map, each three numbers of its own: a twentieth of the first error; without a latent most of it stays."""
    random, reached = torch.Generator().manual_seed(0), {}
    now = torch.randn(1, 16, 64, generator=random).expand(8, -1, -1)
    future = now + torch.einsum("nk,kpe->npe", torch.randn(8, 3, generator=random), torch.randn(3, 16, 64, generator=random))
    for control in ("none", "no_latent"):
        model = model_of(small(width=64), sizes, moved=False)
        optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=3e-3)
        first, l1 = (future - now).abs().mean().item(), torch.zeros(8)
        for step in range(400):
            for group in optimizer.param_groups:
                group["lr"] = 3e-3 * min(1.0, (400 - step) / 150)
            latent = model.encode(now, future)
            l1, mse = distances(model.decode(now, 0 * latent if control == "no_latent" else latent), future, torch.ones(8, 16))
            optimizer.zero_grad()
            (l1 + mse).mean().backward()
            optimizer.step()
        reached[control] = l1.mean().item() / first
    assert reached["none"] < 0.05, reached
    assert reached["no_latent"] > 0.5, reached


def test_pairs_past_the_end_count_for_nothing(batch: Batch, sizes: Sizes) -> None:
    """Window 2 has no future: its frames may be NaN; video (4, 5) counts like demonstrations."""
    hybrid = made(small(), sizes)
    before = scores(hybrid, batch)
    batch.future[2] = float("nan")
    after = scores(hybrid, batch)
    assert all(torch.equal(before[name], after[name]) for name in before)
    torch.manual_seed(0)
    assert hybrid(batch)["rla/l1"].weight.tolist() == [True, True, False, True, True, True]
    scores(hybrid, batch)["rla/l1"].backward()
    assert learns(hybrid, "objectives.rla.residuals.reader")
    assert learns(hybrid, "objectives.rla.residuals.writer")
    assert all(p.grad is None for p in cast("Any", hybrid.objectives["rla"]).residuals.encoder.parameters())


@pytest.mark.parametrize(
    ("fields", "message"),
    [({"tokens": 0}, "at least one token"), ({"heads": 3}, "choose a divisor"), ({"view": 1}, "no camera 1"),
     ({"encoder": replace(EYE, frozen=False)}, "frozen feature space")],
)  # fmt: skip
def test_wrong_sizes_are_one_line(fields: dict[str, Any], message: str, sizes: Sizes) -> None:
    with pytest.raises(UserError, match=message):
        replace(network.Config(EYE, width=32, heads=2, depth=1), **fields).build(sizes)


@pytest.mark.parametrize(("image", "patch"), [(96, 12), (96, 8), (96, 16), (196, 14), (32, 8)])
def test_a_decoder_paints_whole_images(image: int, patch: int) -> None:
    """Whatever the patch is made of: doublings, and the rest at once."""
    side = image // patch
    assert pixels.Pixels(24, (side, side), image, 16)(torch.randn(2, side * side, 24)).shape == (2, 3, image, image)


def test_standardiser_by_hand() -> None:
    """Slots 1, 3 and 5, 5: means 2 and 5, deviations sqrt 2 and, for what never changes, 1; there and back; a tenth is a tenth."""
    standard = Standardiser(2, 1)
    standard.fit(iter([torch.tensor([[[1.0], [5.0]]]), torch.tensor([[[3.0], [5.0]]])]))
    torch.testing.assert_close(standard.mean.flatten(), torch.tensor([2.0, 5.0]))
    torch.testing.assert_close(standard.deviation.flatten(), torch.tensor([2**0.5, 1.0]))
    x = torch.randn(4, 2, 1)
    torch.testing.assert_close(standard.back(standard(x)), x)
    tenth = Standardiser(2, 1, scaling="tenth")
    tenth.fit([x])
    assert torch.equal(tenth(x), x / 10)
    for wrong in (torch.randn(2, 1, 8), torch.randn(4, 1), torch.randn(8)):
        for way in (Standardiser(4, 8), Standardiser(4, 8).back):
            with pytest.raises(ValueError, match=r"statistics are of \(4, 8\) numbers"):
                way(wrong)


def test_a_stage_is_taken_by_another_arm(toy_data: Path, tmp_path: Path) -> None:
    """The autoencoder, its decoder to pixels and its statistics are those of the stages; all are frozen, and in the export."""
    arm = registry.arm("rla_wm", "tiny")
    short = {name: replace(stage, optim=replace(stage.optim, steps=3)) for name, stage in arm.stages.items()}
    root = shutil.copytree(toy_data, tmp_path / "data")  # features are written beside the frames
    arm = replace(arm, stages=short, data=replace(arm.data, root=str(root)), optim=replace(arm.optim, steps=2, chapter=2))
    train(arm, tmp_path / "wm")
    from safetensors.torch import load_file

    stage = load_file(next((tmp_path / "stages").glob("rla-*")) / "export" / "weights.safetensors")
    mine = load_file(tmp_path / "wm" / "export" / "weights.safetensors")
    taken = {key.rpartition("residuals.")[2]: value for key, value in mine.items() if ".network.residuals." in key}
    assert taken
    assert all(torch.equal(value, stage[f"objectives.rla.residuals.{key}"]) for key, value in taken.items())
    assert not torch.equal(mine["objectives.rla_wm.standard.deviation"], torch.ones(4, 8))
    with pytest.raises(UserError, match="no decoder to pixels"):
        pixels.Config(EYE, weights=str(next((tmp_path / "stages").glob("vit_mae-*"))), channels=32).build(
            Sizes(32, 4, 32, 32, 8, 3, 2, 32, 1, 1, 2)
        )


def test_a_frozen_part_stays_in_eval() -> None:
    """`.train()` of the network around it does not wake it."""
    decoder = pixels.Pixels(8, (4, 4), 32, 16)
    decoder.freeze()
    nn.Sequential(decoder).train()
    assert not decoder.training
    assert not any(p.requires_grad for p in decoder.parameters())
