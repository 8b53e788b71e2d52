"""Implicit world models: told the actions and never the future, and read by a map that is exactly the linear one."""

from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from helpers import made
from torch import Tensor, nn

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import self_contained
from wmzoo.errors import UserError
from wmzoo.implicit import Implicit, own
from wmzoo.interfaces import Sizes
from wmzoo.objectives.align import align_loss
from wmzoo.subject import untrained


class Space:
    """What is asked of the model that lends its feature space: here a token is a pixel of the first row."""

    view = 0

    class Row(nn.Module):
        width, grid = 3, (1, 4)

        def forward(self, image: Tensor) -> Tensor:
            return image[:, :, 0, :4].transpose(1, 2)

    encoder = Row()

    @staticmethod
    def paint(tokens: Tensor) -> Tensor:
        return tokens


def flare(sizes: Sizes, horizon: int = 8) -> tuple[Hybrid, Implicit]:
    hybrid = made(self_contained(registry.arm("flare", "tiny")), sizes).eval()
    return hybrid, Implicit(hybrid, untrained(registry.arm("flare", "tiny"), sizes), "flare", cast("Any", Space()), horizon)


def test_told_the_actions_and_never_the_future(batch: Batch, sizes: Sizes) -> None:
    """Leak: another future leaves what is foreseen as it is; other actions, or another present, change it."""
    _, model = flare(sizes)
    action = batch.action.nan_to_num()
    before = model.foreseen(batch, action)
    other = replace(batch, future=torch.rand_like(batch.future), features={})
    assert torch.equal(model.foreseen(other, action), before)
    assert not torch.allclose(model.foreseen(batch, action.flip(0)), before)
    assert not torch.allclose(model.foreseen(replace(batch, image=batch.image.flip(0), features={}), action), before)


def test_told_is_the_hidden_state_at_clock_one(batch: Batch, sizes: Sizes) -> None:
    """As in training, where the clock is 1 and the noise gone."""
    hybrid, model = flare(sizes)
    action = batch.action.nan_to_num()
    tap = frozenset({model.aligned.tap})
    streams = hybrid.observer(batch) | hybrid.objectives["flare"].standing(batch)
    streams |= hybrid.denoiser.embed(action, torch.ones(len(batch)), batch)
    expected = hybrid.trunk(streams, tap)
    assert torch.equal(hybrid.told(batch, {"flow": action}, tap)[model.aligned.tap]["future"], expected[model.aligned.tap]["future"])


def test_the_map_is_ridge_on_the_change(batch: Batch, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tokens that change by W e + b are read without error from e, and not from an embedding that says nothing."""
    _, model = flare(sizes)
    torch.manual_seed(0)
    rows = torch.arange(len(batch)).repeat(10)
    many = replace(batch[rows], features={})
    codes, weight = torch.randn(len(rows), 2, 3), torch.randn(6, 12)
    change = (codes.flatten(1) @ weight + 0.5).unflatten(1, (4, 3))
    monkeypatch.setattr(model, "foreseen", lambda asked, _: codes[: len(asked)])
    monkeypatch.setattr(model, "present", lambda asked, _: torch.zeros(len(asked), 1, 1))
    monkeypatch.setattr(model, "imagined", lambda asked, _: codes[: len(asked), :1])
    monkeypatch.setattr(model, "_change", lambda asked: change[: len(asked)])
    model.fit([many], np.arange(len(rows)) % 10)
    now = torch.rand(len(rows), 4, 3)
    ways = model.ways()
    assert torch.allclose(ways["prediction"](many, now, 8, torch.Generator()), now + change, atol=0.02)
    blind = ways["present, mapped"](many, now, 8, torch.Generator()) - now
    assert torch.allclose(blind, change.mean(dim=0).expand_as(blind), atol=1e-4)
    with pytest.raises(ValueError, match="8 steps ahead, not 4"):
        ways["prediction"](many, now, 4, torch.Generator())
    with pytest.raises(ValueError, match="no less"):
        model.predict(many, now, many.action, torch.zeros(len(rows), 8, dtype=torch.bool), torch.Generator())


def test_a_network_that_nothing_has_trained_hears_the_actions(batch: Batch, sizes: Sizes) -> None:
    """So a ridge can make something of it: its gates are open, its weights are others, the same every time; it is no part of the model."""
    _, model = flare(sizes)
    action = batch.action.nan_to_num()
    said = model.imagined(batch, action)
    assert said.shape == model.foreseen(batch, action).shape
    assert not torch.allclose(model.imagined(batch, action.flip(0)), said)
    assert not torch.allclose(said, model.foreseen(batch, action))
    assert torch.equal(flare(sizes)[1].imagined(batch, action), said)
    other = replace(batch, future=torch.rand_like(batch.future), features={})
    assert torch.equal(model.imagined(other, action), said)
    assert all(weight.any() for weight in untrained(registry.arm("flare", "tiny"), sizes).parameters() if weight.ndim > 1)
    before = torch.get_rng_state()
    untrained(registry.arm("flare", "tiny"), sizes)
    assert torch.equal(torch.get_rng_state(), before)
    assert {id(part) for part in model.modules()}.isdisjoint(id(part) for part in model.fresh[0].modules())


def test_own_space_by_hand(batch: Batch, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cosine is 1 less the loss; a prediction that is its own target is found by all, one turned round by none."""
    _, model = flare(sizes)
    few = replace(batch[torch.tensor([0, 3, 4, 5])], features={})
    action, place = few.action.nan_to_num(), np.array([0, 0, 1, 1])
    few = replace(few, action=action)
    told = own(model, [few], place)
    target = model.aligned.wanted(few, "future")
    with torch.no_grad():
        assert told["cosine"] == pytest.approx(1 - align_loss(model.foreseen(few, action), target).mean().item(), abs=1e-5)
    torch.manual_seed(0)
    apart = torch.randn(target.shape)
    monkeypatch.setattr(model.aligned, "wanted", lambda *_: apart)
    monkeypatch.setattr(model, "foreseen", lambda *_: apart)
    told = own(model, [few], place)
    assert (told["cosine"], told["found"]) == (pytest.approx(1.0, abs=1e-5), 1.0)
    monkeypatch.setattr(model, "foreseen", lambda *_: -apart)
    assert own(model, [few], place)["found"] == 0.0


def test_only_the_end_of_a_chunk_can_be_read(sizes: Sizes) -> None:
    with pytest.raises(UserError, match="looks 8 steps ahead and a chunk has 16"):
        flare(sizes, horizon=16)
