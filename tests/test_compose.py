"""specs 7.11: many objectives, one pass."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from helpers import made
from jaxtyping import Float
from torch import Tensor, nn

from wmzoo import registry
from wmzoo.batch import Batch, Needs
from wmzoo.compose import Hybrid
from wmzoo.config import Optim, self_contained
from wmzoo.errors import UserError
from wmzoo.interfaces import Objective, Sizes, WorldModel
from wmzoo.models import conv, dit, embodiment, observer, text
from wmzoo.module import ZooModule
from wmzoo.objectives import ddpm, flow
from wmzoo.question import Hidden, Question, Score, Stream

INS, OUTS = embodiment.InConfig(), embodiment.OutConfig()


class Extra(Objective):
    """Two more tokens that are pulled toward a constant at tap 2; stands while playing; its head is auxiliary."""

    auxiliary = ("head",)

    def __init__(self, width: int) -> None:
        super().__init__()
        self.tokens, self.head = nn.Parameter(torch.randn(2, width)), nn.Linear(width, 1)

    def needs(self) -> Needs:
        return Needs(futures=(8,))

    def forward(self, batch: Batch) -> Question:
        def score(hidden: Hidden) -> dict[str, Score]:
            return {"pull": Score((self.head(hidden[2]["extra"]) - 1).square().mean(dim=(1, 2)), batch.has_future[:, 0])}

        return Question(self.standing(batch), frozenset({2}), score)

    def standing(self, batch: Batch) -> dict[str, Stream]:
        return {"extra": Stream(self.tokens.expand(len(batch), -1, -1), "action")}


def hybrid(sizes: Sizes, **more: Objective) -> Hybrid:
    """A policy with further objectives, its zero-initialised layers moved."""
    torch.manual_seed(0)
    parts = observer.Config(conv.Config((16, 32)), text.Config(width=16, depth=1)).build(sizes), dit.Config().build(sizes)
    net = Hybrid(*parts, {"flow": flow.Config(INS, OUTS).build(sizes), **more})
    generator = torch.Generator().manual_seed(1)
    for parameter in net.parameters():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=generator)
    return net


def losses(net: Hybrid, batch: Batch) -> dict[str, Float[Tensor, ""]]:
    torch.manual_seed(3)
    return {term: score.mean() for term, score in net(batch).items()}


def test_terms_are_named_after_their_objective(batch: Batch, sizes: Sizes) -> None:
    """Each term appears as "objective/term"; the needs of all are joined."""
    net = hybrid(sizes, more=Extra(sizes.width))
    assert sorted(losses(net, batch)) == ["flow/velocity", "more/pull"]
    assert net.needs() == Needs(1, 0, (8,))


def test_a_stream_has_one_owner(batch: Batch, sizes: Sizes) -> None:
    """Two objectives that add the same stream are an error that names it."""
    with pytest.raises(ValueError, match=r"adds the streams \['action'\], which another objective owns"):
        hybrid(sizes, again=flow.Config(INS, OUTS).build(sizes))(batch)


def test_chunks_that_start_at_different_steps_raise(sizes: Sizes) -> None:
    """Flow starts now, Diffusion Policy one step earlier: one batch cannot serve both."""
    with pytest.raises(UserError, match="start at different steps"):
        hybrid(sizes, ddpm=ddpm.Config(INS, OUTS).build(sizes)).needs()


@pytest.mark.parametrize("name", ["dino_wm", "dino_wm_one_shot", "fm_wm", "video"])
def test_a_world_model_hears_the_actions_from_now_on(name: str, sizes: Sizes) -> None:
    """Beside a policy whose chunk starts a step earlier it would hear every action one step late; beside one that starts now it is fine."""
    arm = self_contained(registry.arm(name, "tiny"))
    net, shape = hybrid(sizes), replace(sizes, width=arm.shape.width, depth=arm.shape.depth)
    terms = {name: cast("Objective", term.config.build(shape)) for name, term in arm.objectives.items()}
    models = {name: objective for name, objective in terms.items() if isinstance(objective, WorldModel)}
    net.objectives = cast("dict[str, Objective]", nn.ModuleDict({"flow": net.objectives["flow"], **models}))
    assert net.needs().first_action == 0
    net.objectives = cast("dict[str, Objective]", nn.ModuleDict({"ddpm": ddpm.Config(INS, OUTS).build(sizes), **models}))
    with pytest.raises(UserError, match=r"start at different steps: \{'ddpm': -1"):
        net.needs()


def test_weight_zero_changes_nothing(batch: Batch, sizes: Sizes) -> None:
    """C1: with the same streams, a term that is computed but weighs nothing leaves the policy's gradient bit-identical."""
    net = hybrid(sizes, more=Extra(sizes.width))
    gradients = []
    for weight in (None, 0.0):
        net.zero_grad()
        terms = losses(net, batch)
        total = terms["flow/velocity"] if weight is None else terms["flow/velocity"] + weight * terms["more/pull"]
        total.backward()
        gradients.append({name: p.grad.clone() for name, p in net.trunk.named_parameters() if p.grad is not None})
    assert all(torch.equal(gradients[0][name], gradients[1][name]) for name in gradients[0])


def test_the_total_is_the_sum_of_its_parts(batch: Batch, sizes: Sizes) -> None:
    """C3: the loss that is minimised is the sum of weight times term."""
    net = hybrid(sizes, more=Extra(sizes.width))
    weights = {"flow/velocity": 1.0, "more/pull": 0.2}
    module = ZooModule(net, weights, Optim(steps=1), seed=0)
    module.log_dict = lambda *_, **__: None  # type: ignore[method-assign]
    torch.manual_seed(3)
    total = module._total(batch, "train")
    torch.testing.assert_close(total, sum((weights[term] * loss for term, loss in losses(net, batch).items()), torch.zeros(())))


def poison(batch: Batch) -> Batch:
    """NaN in whatever the masks declare absent."""
    spoilt = batch.map(torch.clone)
    spoilt.action[~batch.action_mask] = float("nan")
    spoilt.state[~batch.has_state] = float("nan")
    return spoilt


def permute(batch: Batch) -> Batch:
    """Noise in whatever the masks declare absent."""
    spoilt = batch.map(torch.clone)
    spoilt.action[~batch.action_mask] = 100.0
    spoilt.state[~batch.has_state] = -7.0
    return spoilt


@pytest.mark.parametrize("spoil", [poison, permute])
@pytest.mark.parametrize("objective", ["flow", "ddpm"])
def test_absent_actions_and_states_change_nothing(spoil: Callable[[Batch], Batch], objective: str, batch: Batch, sizes: Sizes) -> None:
    """C4: every loss and every gradient is bit-identical whatever stands there, NaN included."""
    net = hybrid(sizes)
    if objective == "ddpm":
        net.objectives = nn.ModuleDict({"ddpm": ddpm.Config(INS, OUTS, history=1).build(sizes)})  # type: ignore[assignment]
    results = []
    for given in (batch, spoil(batch)):
        net.zero_grad()
        (loss,) = losses(net, given).values()
        loss.backward()
        results.append((loss.detach(), [None if p.grad is None else p.grad.clone() for p in net.parameters()]))
    assert results[0][0].isfinite()
    assert torch.equal(results[0][0], results[1][0])
    pairs = zip(results[0][1], results[1][1], strict=True)
    assert all((a is None) == (b is None) and (a is None or torch.equal(a, b)) for a, b in pairs)


def test_action_free_rows_contribute_exactly_nothing(batch: Batch, sizes: Sizes) -> None:
    """The mixed batch has the loss of its labelled rows alone; a batch of video alone has loss 0 and gradient 0."""
    net = hybrid(sizes)
    video = batch[~batch.has_action]
    (loss,) = losses(net, video).values()
    loss.backward()
    assert loss == 0
    decoder = net.get_submodule("objectives.flow.decode")
    assert all((p.grad == 0).all() for p in decoder.parameters() if p.grad is not None)
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


def test_the_future_does_not_leak(batch: Batch, sizes: Sizes) -> None:
    """Changing the future frame changes neither the policy's loss nor what it plays."""
    net = hybrid(sizes, more=Extra(sizes.width)).eval()
    changed = batch.map(torch.clone)
    changed.future = 1 - batch.future
    noise = torch.randn(len(batch), sizes.horizon, sizes.action)
    assert torch.equal(losses(net, batch)["flow/velocity"], losses(net, changed)["flow/velocity"])
    assert torch.equal(net.act(batch, noise, 4), net.act(changed, noise, 4))


def test_standing_streams_stay_and_auxiliary_parts_go(batch: Batch, sizes: Sizes) -> None:
    """C6: the stripped policy plays the same; without its standing tokens it would not."""
    net = hybrid(sizes, more=Extra(sizes.width)).eval()
    noise = torch.randn(len(batch), sizes.horizon, sizes.action)
    before = net.act(batch, noise, 4)
    net.strip()
    assert not hasattr(net.objectives["more"], "head")
    assert torch.equal(net.act(batch, noise, 4), before)
    del net.objectives["more"]
    assert not torch.allclose(net.act(batch, noise, 4), before)


def test_the_observation_is_encoded_once_a_chunk(batch: Batch, sizes: Sizes) -> None:
    """Four sampling steps, one pass of the observer and one of the keys and values."""
    net, calls = hybrid(sizes).eval(), {"observer": 0, "remember": 0}
    net.observer.register_forward_hook(lambda *_: calls.update(observer=calls["observer"] + 1))
    remember = net.trunk.remember

    def counted(observation: Stream) -> object:
        calls["remember"] += 1
        return remember(observation)

    net.trunk.remember = counted  # type: ignore[method-assign, assignment]
    net.act(batch, torch.randn(len(batch), sizes.horizon, sizes.action), 4)
    assert calls == {"observer": 1, "remember": 1}


def test_playing_sees_the_streams_of_training(batch: Batch, sizes: Sizes) -> None:
    """The names of the streams in the trunk's sequence are the same in training and in play."""
    net = hybrid(sizes, more=Extra(sizes.width)).eval()
    seen: list[set[str]] = []
    net.trunk.register_forward_pre_hook(lambda _, args: seen.append(set(args[0]) - {"observation"}))
    net(batch)
    net.act(batch, torch.randn(len(batch), sizes.horizon, sizes.action), 1)
    assert seen == [{"state", "action", "extra"}] * 2


class Still(Objective):
    """An objective with nothing to ask the trunk (an autoencoder, say)."""

    def forward(self, batch: Batch) -> Question:
        return Question({}, frozenset(), lambda hidden: {"one": Score(torch.ones(len(batch)), batch.has_state)})


def test_without_streams_the_trunk_does_not_run(batch: Batch, sizes: Sizes) -> None:
    """Then there is no policy either, and asking for one is answered in words."""
    net = hybrid(sizes)
    net.objectives = nn.ModuleDict({"still": Still()})  # type: ignore[assignment]
    net.trunk.forward = None  # type: ignore[method-assign, assignment]
    assert net(batch)["still/one"].mean() == 1
    with pytest.raises(UserError, match="no policy"):
        net.act(batch, torch.zeros(6, 8, 3), 1)


@pytest.mark.parametrize("shape", [(6, 1, 3), (1, 8, 3), (6, 4, 3), (6, 8, 1)])
@pytest.mark.parametrize("objective", ["flow", "ddpm"])
def test_noise_of_another_shape_raises(objective: str, shape: tuple[int, ...], batch: Batch, sizes: Sizes) -> None:
    """A chunk is made from as much noise as it has numbers; nothing is repeated."""
    net = hybrid(sizes)
    if objective == "ddpm":
        net.objectives = cast("dict[str, Objective]", nn.ModuleDict({"ddpm": ddpm.Config(INS, OUTS, history=1).build(sizes)}))
    for sample in (
        lambda: net.act(batch, torch.zeros(shape), 1),
        lambda: net.generate(batch, objective, {objective: torch.zeros(shape)}, 1, {}),
    ):
        with pytest.raises(ValueError, match=r"is made from noise|it was given|a chunk has 8 actions|windows need|numbers"):
            sample()


def test_a_batch_may_hold_more_actions_than_a_chunk(batch: Batch, sizes: Sizes) -> None:
    """World models are asked about two chunks of recorded actions; the policy beside them still makes one."""
    net = hybrid(sizes).eval()
    longer = replace(batch, action=torch.cat([batch.action] * 2, dim=1), action_mask=torch.cat([batch.action_mask] * 2, dim=1))
    noise = torch.randn(batch.action.shape)
    assert torch.equal(net.act(longer, noise, 2), net.act(batch, noise, 2))


@pytest.mark.parametrize("shape", [(6, 1, 3), (1, 8, 3), (6, 4, 3)])
def test_values_of_another_shape_raise(shape: tuple[int, ...], batch: Batch, sizes: Sizes) -> None:
    """Actions that are given, or noise for them or for the frame, have one row for each token, in every mode of UWM."""
    arm = self_contained(registry.arm("uwm", "tiny"))
    net = made(arm, sizes).eval()
    ahead = cast("Any", net.objectives["uwm"]).ahead
    good = {"flow": torch.zeros(6, 8, 3), "uwm": torch.zeros(6, ahead.tokens, ahead.width)}
    windows, rows, _ = shape
    frame = torch.zeros(windows, rows, ahead.width)
    with torch.no_grad():
        net.jointly(batch, good, 1)
        for name, noise, given in (
            ("uwm", good, {"flow": torch.zeros(shape)}),
            ("uwm", {**good, "flow": torch.zeros(shape)}, {}),
            ("flow", {**good, "flow": torch.zeros(shape)}, {}),
            ("flow", good, {"uwm": frame}),
            ("uwm", {**good, "uwm": frame}, {"flow": good["flow"]}),
        ):
            with pytest.raises((ValueError, RuntimeError)):
                net.generate(batch, name, noise, 1, given)
        with pytest.raises((ValueError, RuntimeError)):
            net.jointly(batch, {**good, "flow": torch.zeros(shape)}, 1)
