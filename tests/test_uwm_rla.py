"""UWM-RLA: one network in four modes, what each of them looks at, and all four after learning by heart."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from helpers import by_heart, check_two_modes, learns, made, scores, two_alike
from torch import Tensor, nn

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, self_contained
from wmzoo.errors import UserError
from wmzoo.features import encoded, frame_tokens
from wmzoo.interfaces import Sizes
from wmzoo.objectives.uwm import Dynamics
from wmzoo.objectives.uwm_rla import UwmRla


def small(**fields: Any) -> Experiment:
    arm = self_contained(registry.arm("uwm_rla", "tiny"))
    term = arm.objectives["uwm_rla"]
    return replace(arm, objectives={**arm.objectives, "uwm_rla": replace(term, config=replace(cast("Any", term.config), **fields))})


def objective(hybrid: Hybrid) -> UwmRla:
    return cast("UwmRla", hybrid.objectives["uwm_rla"])


def mean_of(hybrid: Hybrid, batch: Batch, name: str, given: dict[str, Tensor], seed: int = 0) -> Tensor:
    """A sample of one stream, others given or at noise."""
    random = torch.Generator().manual_seed(seed)
    noise = {"flow": torch.randn(len(batch), 8, 3, generator=random), "uwm_rla": torch.randn(len(batch), 4, 8, generator=random)}
    return hybrid.generate(batch, name, {key: value for key, value in noise.items() if key not in given}, 10, given)


def test_policy_is_the_mode_whose_latent_says_nothing(batch: Batch, sizes: Sizes) -> None:
    """U7: playing is generating actions with the latent at t = 0, always the same noise; so is what is exported."""
    hybrid = made(small(), sizes).eval()
    noise, idle = torch.randn(6, 8, 3), cast("Tensor", objective(hybrid).idle).expand(6, -1, -1)
    played = hybrid.act(batch, noise, 4)
    with torch.no_grad():
        assert torch.equal(hybrid.generate(batch, "flow", {"flow": noise}, 4, {}), played)
        assert torch.equal(hybrid.generate(batch, "flow", {"flow": noise, "uwm_rla": idle}, 4, {}), played)
        other = hybrid.generate(batch, "flow", {"flow": noise}, 4, {"uwm_rla": idle + 0})
    assert not torch.equal(other, played), "the clock tells noise from a given latent"
    hybrid.strip()
    batch.features.clear()
    assert torch.equal(hybrid.act(batch, noise, 4), played)


def test_each_mode_listens_to_what_it_is_given(batch: Batch, sizes: Sizes) -> None:
    """Dynamics hear the actions, the inverse hears the latent, the predictor neither; what is given is never changed."""
    hybrid = made(small(), sizes).eval()
    action, latent = batch.action.clone(), torch.randn(6, 4, 8)
    with torch.no_grad():
        told = mean_of(hybrid, batch, "uwm_rla", {"flow": action})
        assert not torch.equal(mean_of(hybrid, batch, "uwm_rla", {"flow": action.flip(0)}), told)
        back = mean_of(hybrid, batch, "flow", {"uwm_rla": latent})
        assert not torch.equal(mean_of(hybrid, batch, "flow", {"uwm_rla": latent.flip(0)}), back)
        assert torch.equal(
            mean_of(hybrid, replace(batch, action=action.flip(0), features={}), "uwm_rla", {}), mean_of(hybrid, batch, "uwm_rla", {})
        )
    assert torch.equal(action, batch.action)


def test_the_future_enters_by_the_latent_alone(batch: Batch, sizes: Sizes) -> None:
    """With `drop` 1 the latent is noise at t = 0 everywhere: another future changes its target, not the action's loss."""
    for drop, same in ((1.0, True), (0.0, False)):
        hybrid = made(small(drop=drop), sizes)
        other = replace(batch, future=torch.rand_like(batch.future), features={})
        before, after = scores(hybrid, batch), scores(hybrid, other)
        assert torch.equal(before["flow/velocity"], after["flow/velocity"]) == same
        assert not torch.equal(before["uwm_rla/velocity"], after["uwm_rla/velocity"])


def test_video_teaches_the_latent_alone(batch: Batch, sizes: Sizes) -> None:
    """Action-free windows give the action's layers exactly nothing; a window without a future may hold NaN."""
    hybrid = made(small(), sizes)
    video = batch[4:]
    video.action[:], video.state[:] = float("nan"), float("nan")
    terms = scores(hybrid, video)
    assert terms["flow/velocity"] == 0
    torch.stack([*terms.values()]).sum().backward()
    assert not learns(hybrid, "objectives.flow.decode")
    assert learns(hybrid, "objectives.uwm_rla.decode")
    assert learns(hybrid, "trunk")
    before = scores(hybrid, batch)
    batch.future[2] = float("nan")
    after = scores(hybrid, batch)
    assert all(torch.equal(before[term], after[term]) for term in before)


def test_wrong_questions_are_one_line(batch: Batch, sizes: Sizes) -> None:
    hybrid = made(small(), sizes)
    with pytest.raises(UserError, match="uwm_rla"):
        hybrid.generate(batch, "uwm", {}, 1, {})
    with pytest.raises(UserError, match="flow is neither given"):
        hybrid.generate(batch, "uwm_rla", {"uwm_rla": torch.randn(6, 4, 8)}, 1, {})
    with pytest.raises(UserError, match="drop is from 0 to 1"):
        made(small(drop=2.0), sizes)
    foreign = replace(small(), observer=registry.arm("policy", "tiny").observer)
    with pytest.raises(UserError, match="frozen feature space"):
        _ = made(foreign, sizes).world_model


def test_it_goes_on_from_its_own_prediction(batch: Batch, sizes: Sizes) -> None:
    """As a world model it reads tokens, not frames: predicted ones do as well as seen ones."""
    hybrid = made(small(), sizes).eval()
    space = objective(hybrid).ahead.encoder  # fresh weights are two encoders; trained ones are one
    cast("Any", hybrid.observer).encoder.load_state_dict(space.state_dict())
    model = hybrid.world_model
    assert isinstance(model, Dynamics)
    nn.init.normal_(cast("Any", model.ahead).residuals.writer.out.weight, std=0.5)
    now, keep = frame_tokens(batch, model.encoder, 0).float(), torch.ones(6, 8, dtype=torch.bool)

    def ask(tokens: Tensor, seen: Batch) -> Tensor:
        with torch.no_grad():
            return model.predict(seen, tokens, batch.action, keep, torch.Generator().manual_seed(0))

    assert model.seen(batch, now) is batch
    first = ask(now, batch)
    strange = [replace(batch, image=torch.rand_like(batch.image), features={}) for _ in range(2)]
    assert torch.equal(*(ask(first, seen) for seen in strange)), "frames are not looked at"
    assert torch.equal(ask(first, strange[0]), ask(first, replace(batch, has_state=batch.has_state & False))), (
        "nor states of another moment"
    )
    assert not torch.equal(ask(now, strange[0]), first), "the state is unknown where the frame is not the recorded one"
    assert not torch.allclose(ask(first, batch) - first, first - now)
    with pytest.raises(ValueError, match="8 steps ahead, no less"):
        model.predict(batch, now, batch.action, keep & (torch.arange(8) < 4), torch.Generator())


def test_what_is_shown_of_a_prediction(batch: Batch, sizes: Sizes) -> None:
    """Two cameras, two frames: the history goes on by one, one camera's newest frame is the prediction, the state is unknown there."""
    two = replace(sizes, views=2, history=2)
    hybrid = made(small(), two).eval()
    cast("Any", hybrid.observer).encoder.load_state_dict(objective(hybrid).ahead.encoder.state_dict())
    model = cast("Dynamics", hybrid.world_model)
    batch = replace(batch, image=torch.rand(6, 2, 2, 3, 32, 32), state=torch.randn(6, 2, 2), features={})
    recorded = encoded(batch, model.encoder, "now").unflatten(1, (2, 2, -1))
    now = torch.randn_like(recorded[:, -1, 0])
    now[3] = recorded[3, -1, 0]  # this window is asked about as it was recorded
    shown = model.seen(batch, now)
    assert shown.has_state.tolist() == [False, False, False, True, False, False]
    tokens = encoded(shown, model.encoder, "now").unflatten(1, (2, 2, -1))
    assert torch.equal(tokens[3], recorded[3])
    others = torch.tensor([0, 1, 2, 4, 5])
    assert torch.equal(tokens[others, 0], recorded[others, 1])
    assert torch.equal(tokens[others, 1, 0], now[others])
    assert torch.equal(tokens[others, 1, 1], recorded[others, 1, 1])
    assert hybrid.observer(shown)["observation"].tokens.isfinite().all()


@pytest.mark.slow
def test_four_modes_after_learning_by_heart(batch: Batch, sizes: Sizes) -> None:
    """Actions give their latent, latents give their actions; without either both are possible."""
    hybrid = made(small(), sizes, moved=False)
    batch = by_heart(hybrid, two_alike(batch))
    with torch.no_grad():
        truth = {"uwm_rla": objective(hybrid).ahead(batch)[0], "flow": batch.action}
        check_two_modes(lambda name, given, seed: mean_of(hybrid, batch, name, given, seed), truth)
