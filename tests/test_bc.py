"""Cloning and BC-RLA: numbers by hand, who teaches which head, what is gone when it plays, controls."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers import learns, made, scores
from torch import nn

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, Scale, dump, for_stage, needs_of, self_contained
from wmzoo.data import Windows
from wmzoo.episodes import Episode, Recorded
from wmzoo.errors import UserError
from wmzoo.experiments.few_actions import EPISODES, study
from wmzoo.interfaces import Sizes
from wmzoo.models.state import GrootState, StateTokens
from wmzoo.objectives.ahead import ResidualTarget
from wmzoo.objectives.bc import Config, clone_loss
from wmzoo.objectives.bc_rla import BcRla, latent_errors
from wmzoo.objectives.rla_head import RlaHead
from wmzoo.study import experiments


def small(name: str, **fields: Any) -> Experiment:
    arm = self_contained(registry.arm(name, "tiny"))
    key = "rla" if name == "policy_rla" else "bc"
    term = arm.objectives[key]
    return replace(arm, objectives={**arm.objectives, key: replace(term, config=replace(cast("Any", term.config), **fields))})


def target_of(hybrid: Hybrid) -> ResidualTarget:
    part = hybrid.objectives["rla" if "rla" in hybrid.objectives else "bc"]
    return cast("ResidualTarget", cast("BcRla | RlaHead", part).target)


def test_clone_loss_by_hand() -> None:
    """Errors 1 and 3, the third number not recorded: (1 + 9) / 2; a window without any is 0, NaN or not."""
    predicted, action = torch.zeros(2, 3, 1), torch.tensor([[[1.0], [3.0], [float("nan")]], [[float("nan")]] * 3])
    mask = torch.tensor([[[True], [True], [False]], [[False]] * 3])
    assert clone_loss(predicted, action, mask).tolist() == [5.0, 0.0]


def test_latent_errors_by_hand() -> None:
    """Errors 1 and -3: absolutes 2, squares 5; no gradient into the target."""
    target = torch.tensor([[[1.0, -3.0]]], requires_grad=True)
    l1, mse = latent_errors(torch.zeros(1, 1, 2, requires_grad=True), target)
    assert (l1.item(), mse.item()) == (2.0, 5.0)
    (l1 + mse).sum().backward()
    assert target.grad is None


def test_video_teaches_everything_but_the_action_head(batch: Batch, sizes: Sizes) -> None:
    """B1: on video alone the action head gets exactly 0, the rest learns; state and actions that are unknown may be NaN."""
    hybrid = made(small("bc_rla"), sizes)
    video = batch[4:]
    video.state[:], video.action[:] = float("nan"), float("nan")
    terms = scores(hybrid, video)
    assert terms["bc/action"] == 0
    torch.stack([*terms.values()]).sum().backward()
    assert not learns(hybrid, "objectives.bc.action_head")
    for part in ("observer.encoder", "trunk.blocks.0", "objectives.bc.queries", "objectives.bc.body", "objectives.bc.latent_head"):
        assert learns(hybrid, part), part
    assert all(p.grad is None for p in target_of(hybrid).parameters())


def test_the_latent_head_is_gone_when_it_plays(batch: Batch, sizes: Sizes) -> None:
    """B2: acting is the same without it, and does not depend on the noise."""
    hybrid = made(small("bc_rla"), sizes).eval()
    noise = torch.randn(6, 8, 3)
    before = hybrid.act(batch, noise, 1)
    hybrid.strip()
    assert not any("latent_head" in name or "target" in name for name, _ in hybrid.named_parameters())
    batch.features.clear()
    assert torch.equal(hybrid.act(batch, noise, 1), before)
    assert torch.equal(hybrid.act(batch, torch.zeros_like(noise), 1), before)


@pytest.mark.parametrize("name", ["bc_rla", "policy_rla"])
def test_the_future_does_not_reach_the_policy(name: str, batch: Batch, sizes: Sizes) -> None:
    """The target alone reads it: actions and the action's loss stay, the latent's change."""
    hybrid = made(small(name), sizes).eval()
    noise, other = torch.randn(6, 8, 3), replace(batch, future=torch.rand_like(batch.future), features={})
    assert torch.equal(hybrid.act(batch, noise, 2), hybrid.act(other, noise, 2))
    before, after = scores(hybrid, batch), scores(hybrid, other)
    for term, value in before.items():
        assert torch.equal(value, after[term]) == ("latent" not in term), term


@pytest.mark.parametrize("name", ["bc_rla", "policy_rla"])
def test_controls_of_the_target(name: str, batch: Batch, sizes: Sizes) -> None:
    """ "current" does not read the future; "shuffled" is the next window's, and counts where both have one."""
    key = "rla" if name == "policy_rla" else "bc"
    hybrid = made(small(name), sizes)
    own, valid = target_of(hybrid)(batch)
    assert valid.tolist() == [True, True, False, True, True, True]
    shuffled, both = target_of(made(small(name, control="shuffled"), sizes))(replace(batch, features={}))
    assert torch.equal(shuffled[1], own[0])
    assert both.tolist() == [True, True, False, False, True, True]
    current = target_of(made(small(name, control="current"), sizes))
    first = current(replace(batch, features={}))[0]
    assert torch.equal(current(replace(batch, future=torch.rand_like(batch.future), features={}))[0], first)
    assert not torch.equal(first, own)
    assert scores(hybrid, batch)[f"{key}/latent_l1"].requires_grad


def test_a_target_is_standardised_once(batch: Batch, sizes: Sizes) -> None:
    """After `settle` the valid latents of the batch have mean 0 and deviation 1, number by number."""
    hybrid = made(small("bc_rla"), sizes)
    hybrid.settle(lambda: [batch])
    latent, valid = target_of(hybrid)(batch)
    torch.testing.assert_close(latent[valid].mean(dim=0), torch.zeros(4, 8), atol=1e-4, rtol=0)
    torch.testing.assert_close(latent[valid].std(dim=0), torch.ones(4, 8), atol=1e-3, rtol=0)


def test_queries_stay_in_the_sequence(batch: Batch, sizes: Sizes) -> None:
    """The transformer form keeps its tokens when it plays, with readout and target gone."""
    hybrid = made(small("policy_rla"), sizes).eval()
    noise = torch.randn(6, 8, 3)
    before = hybrid.act(batch, noise, 2)
    cast("Any", hybrid.objectives["rla"]).queries.data += 1.0 * torch.randn(4, hybrid.trunk.width)
    assert not torch.equal(hybrid.act(batch, noise, 2), before)
    hybrid.strip()
    assert {name for name, _ in hybrid.objectives["rla"].named_parameters()} == {"queries"}


def test_weights_are_those_of_the_paper() -> None:
    assert registry.arm("bc_rla").weights == {"bc/action": 1.0, "bc/latent_l1": 0.05, "bc/latent_mse": 0.05}
    assert registry.arm("policy_rla").weights["rla/latent_l1"] == 0.05
    assert set(registry.arm("flare_rla").weights) == {"flow/velocity", "flare/align", "rla/latent_l1", "rla/latent_mse"}


@pytest.mark.parametrize("name", ["bc_rla", "bc_rla_off", "bc_rla_current", "bc_rla_shuffled"])
def test_half_of_each_batch_is_video(name: str, toy_data: Path) -> None:
    """The method as published, by default: demonstrations and videos of a task are among its 54 episodes for training, the stages' too."""
    arm = registry.arm(name, "tiny")
    assert arm.data.videos > 0
    batch = Windows(replace(arm.data, root=str(toy_data)), needs_of(arm), seed=0).train(0)
    assert batch.has_action.float().mean() == 0.5
    data = registry.arm(name).data
    assert (data.demos, data.videos, data.video_share) == (10, 40, 0.5)
    for stage in registry.arm(name).stages.values():
        assert for_stage(stage, registry.arm(name)).data.demos + stage.data.videos == 50


def test_stages_that_nothing_needs_are_left_out() -> None:
    """An arm that never paints is not preceded by the decoder; one that does is."""
    for name in ("policy_rla", "flare_rla"):
        arm = registry.arm(name)
        assert "rla" in arm.stages
        assert "pixels" not in arm.stages
        assert "stage:pixels" not in dump(replace(arm, stages={}))
    assert "pixels" in registry.arm("uwm_rla").stages


@pytest.mark.parametrize("scale", ["tiny", "small"])
def test_few_actions_asks_for_no_more_episodes_than_there_are(scale: Scale) -> None:
    """Every cell and every stage of it: 54 episodes a task are for training, of the toy 11; `bc` has no videos."""
    there = {"tiny": 11, "small": EPISODES}[scale]
    for (label, setting, _), arm in experiments(study(scale), scale, {}):
        asked = [arm.data, *(for_stage(stage, arm).data for stage in arm.stages.values())]
        assert max(data.demos + data.videos for data in asked) <= there, (label, setting)
        assert (arm.data.videos == 0) == (label == "bc")
    recorded = Recorded(Path(), {}, tuple(Episode(Path(str(i)), 1) for i in range(60)))
    assert len(recorded.episodes) - len(recorded.validation) == EPISODES


@pytest.mark.parametrize("make", [StateTokens, partial(GrootState, hidden=12)])
def test_states_of_another_history_are_refused(make: Callable[[Sizes], nn.Module], batch: Batch, sizes: Sizes) -> None:
    """One state is not two tokens for a network of two frames."""
    tokens = make(replace(sizes, history=2))
    with pytest.raises(ValueError, match="the states of 2 frames are read here, not of 1"):
        tokens(batch)
    assert tokens(replace(batch, state=batch.state.repeat(1, 2, 1))).shape == (6, 2, 32)


def test_wrong_numbers_are_one_line(sizes: Sizes) -> None:
    with pytest.raises(UserError, match="at least one query"):
        Config(queries=0).build(sizes)
    with pytest.raises(UserError, match="dropout"):
        Config(dropout=1.0).build(sizes)
