"""World models: numbers by hand, what listens to what, what is computed once, sizes of the papers, and a batch predicted back."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from helpers import descend, learns, made, scores
from torch import Tensor, nn

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.clock import interpolate, to_zoo_time, velocity
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, needs_of, self_contained
from wmzoo.errors import UserError
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Encoder, Sizes, WorldModel
from wmzoo.models import rae as wide
from wmzoo.models import rla, rla_wm
from wmzoo.models.dino_wm import Predictor
from wmzoo.models.world import ActionVector, ModulatedBlock, grid_places
from wmzoo.objectives.dino_wm import Sequence, Untold, next_loss, one_shot_loss
from wmzoo.objectives.fm_wm import FmWm, bridge
from wmzoo.objectives.foresight import FlowForesight, Foresight, OneChunk, Seen, clip, column_within, skill, velocity_errors
from wmzoo.objectives.rae import Rae, shifted_clocks, shifted_grid
from wmzoo.sample import euler

ARMS = ("rla_wm", "fm_wm", "fm_wm_gaussian", "rae", "dino_wm_one_shot", "dino_wm")
FLOWS = ("rla_wm", "fm_wm", "fm_wm_gaussian", "rae")
CHUNKS = tuple(name for name in ARMS if name != "dino_wm")  # one future frame, at the end of a chunk of any length


class Eye(Encoder):
    """Stands for a frozen encoder of given sizes."""

    fingerprint = "eye"

    def __init__(self, width: int, side: int) -> None:
        super().__init__()
        self.width, self.grid = width, (side, side)

    def forward(self, image: Tensor) -> Tensor:
        raise NotImplementedError


def small(name: str, **fields: Any) -> Experiment:
    """An arm at tiny scale with fresh weights, some fields of its objective changed; DINO-WM's frames fit the batch of the tests."""
    arm = self_contained(registry.arm(name, "tiny"))
    ((key, term),) = arm.objectives.items()
    return replace(arm, objectives={key: replace(term, config=replace(cast("Any", term.config), **fields))})


def world(name: str, sizes: Sizes, moved: bool = True, **fields: Any) -> tuple[Hybrid, Any]:
    hybrid = made(small(name, **fields), sizes, moved)
    model = hybrid.world_model
    assert isinstance(model, WorldModel)
    return hybrid, model


def frames(batch: Batch, name: str) -> Batch:
    """The batch with three futures 2, 4 and 6 steps ahead for the sequence form; as it is for the others."""
    if name != "dino_wm":
        return batch
    random = torch.Generator().manual_seed(4)
    return replace(
        batch,
        future=torch.rand(6, 3, 1, 3, 32, 32, generator=random),
        has_future=batch.has_future.expand(-1, 3).clone(),
        offset=torch.tensor([[2, 4, 6]]).expand(6, -1).clone(),
        features={},
    )


def test_the_published_time_of_the_latents_flow_is_zoo_time_turned_round() -> None:
    """W2: RLA-WM's code has the noise at s = 1, x_s = (1 - s) x + (1e-5 + (1 - 1e-5) s) eps, v = (1 - 1e-5) eps - x; with 1e-5 taken as 0
    the same triplet (x, eps, s = 1 - t) and the same network, its time turned and its sign flipped, have the same squared and
    absolute error, and walk the same way from noise to data.
    """
    random = torch.Generator().manual_seed(0)
    x, eps = torch.randn(5, 4, 3, generator=random), torch.randn(5, 4, 3, generator=random)
    t, weight = torch.rand(5, generator=random), torch.randn(3, 3, generator=random)

    def network(value: Tensor, s: Tensor) -> Tensor:
        return torch.tanh(value @ weight) + s[:, None, None]

    s = 1 - t
    theirs = network((1 - s)[:, None, None] * x + s[:, None, None] * eps, s) - (eps - x)
    field = to_zoo_time("rla_wm", network)
    squared, absolute = velocity_errors(field(interpolate(eps, x, t), t), velocity(eps, x))
    assert torch.allclose(squared, theirs.square().mean(dim=(1, 2)))
    assert torch.allclose(absolute, theirs.abs().mean(dim=(1, 2)))
    walked = eps
    for i in range(10):  # from s = 1 down to 0
        walked = walked - network(walked, torch.full((5,), 1 - i / 10)) / 10
    assert torch.allclose(euler(field, eps, 10), walked, atol=1e-6)


def ask(model: Any, batch: Batch, steps: int = 8, action: Tensor | None = None, seed: int = 0) -> Tensor:
    now = frame_tokens(batch, model.encoder, model.view).float()
    keep = (torch.arange(batch.action.shape[1]) < steps).expand(len(batch), -1)
    return model.predict(batch, now, batch.action if action is None else action, keep, torch.Generator().manual_seed(seed))


def test_velocity_errors_and_skill_by_hand() -> None:
    """Errors 1 and -3: squares 5, absolutes 2.  A prediction with a quarter of a copy's error has a skill of 3/4."""
    mse, l1 = velocity_errors(torch.tensor([[[1.0, -3.0]]]), torch.zeros(1, 1, 2))
    assert (mse.item(), l1.item()) == (5.0, 2.0)
    now, future = torch.zeros(1, 1, 2), torch.tensor([[[4.0, -4.0]]])
    assert skill(future + 1, now, future).item() == 0.75
    assert skill(now, now, future).item() == 0


def test_bridge_by_hand() -> None:
    """A quarter of the way from 2 to 6 is 3; noise of -1 at a deviation of 0.1 moves it by 0.1, at every clock."""
    now, future, eps = (torch.full((1, 1, 1), value) for value in (2.0, 6.0, -1.0))
    assert bridge(now, future, torch.tensor([0.25]), eps, 0.1).item() == pytest.approx(2.9)
    assert bridge(now, future, torch.tensor([1.0]), eps, 0.1).item() == pytest.approx(5.9)


def test_fm_wm_from_the_present_learns_the_residual(sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """s_t = 2, s_{t+h} = 6, t = 1/4, eps = -1: the network reads 2.9 and is asked for 4, not for what a noisy source would leave."""
    _, model = world("fm_wm", sizes, moved=False)
    assert isinstance(model, FmWm)
    monkeypatch.setattr("wmzoo.objectives.fm_wm.noise", lambda like, generator, near: -torch.ones(like))
    monkeypatch.setattr(model, "clocks", lambda n, device: torch.full((n,), 0.25))
    read: list[Tensor] = []

    def nothing(x: Tensor, clock: Tensor, condition: Any) -> Tensor:
        read.append(x)
        return torch.zeros_like(x)

    monkeypatch.setattr(model.network, "velocity", nothing)
    now, future = (torch.full((2, *model.shape), value) for value in (2.0, 6.0))
    errors = model.errors(Seen(now, future, torch.zeros(2, 8, 3), torch.ones(2, 8, dtype=torch.bool), torch.ones(2, dtype=torch.bool)))
    torch.testing.assert_close(read[0], torch.full_like(now, 2.9))
    torch.testing.assert_close(errors, {"mse": torch.full((2,), 16.0), "l1": torch.full((2,), 4.0)})
    for generator in (None, torch.Generator()):
        assert torch.equal(model.source(now, tuple(now.shape), generator), now), "clean where the way begins, in training and in sampling"


def beside_another(batch: Batch) -> Batch:
    """The batch as a hybrid asks for it: first a frame at a fixed gap for another objective, then the one drawn for a world model."""
    fixed, drawn = torch.full((6, 1), 8), torch.tensor([[3], [1], [8], [5], [2], [8]])
    strange = torch.rand(batch.future.shape, generator=torch.Generator().manual_seed(9))
    return replace(
        batch,
        future=torch.cat([strange, batch.future], dim=1),
        has_future=torch.cat([batch.has_future, batch.has_future], dim=1),
        offset=torch.cat([fixed, drawn], dim=1),
        features={},
    )


def test_column_within_by_hand(batch: Batch) -> None:
    """Frames 4 to 8 are asked for: 16 and 3 are too far and too near, 8 is fixed, so the fourth; alone a fixed one will do."""
    offset = torch.tensor([[16, 3, 8, 8, 4], [16, 4, 8, 5, 4]])
    two = replace(batch[:2], offset=offset)
    assert column_within(two, 4, 8) == 3
    assert column_within(replace(two, offset=offset[:, :3]), 4, 8) == 2
    with pytest.raises(ValueError, match="9 to 15 steps ahead"):
        column_within(two, 9, 15)


@pytest.mark.parametrize("name", [*CHUNKS, "rla"])
def test_in_a_hybrid_it_learns_from_its_own_frame(name: str, batch: Batch, sizes: Sizes) -> None:
    """Frames of others stand before it: the losses are those of its own frames alone."""
    both = beside_another(batch)
    alone = replace(both, future=both.future[:, 1:], has_future=both.has_future[:, 1:], offset=both.offset[:, 1:], features={})
    hybrid = made(small(name), sizes)
    mine, theirs = scores(hybrid, alone), scores(hybrid, both)
    assert all(torch.equal(theirs[term], value) for term, value in mine.items())


@pytest.mark.parametrize("name", CHUNKS)
def test_a_shorter_chunk_in_training(name: str, batch: Batch, sizes: Sizes) -> None:
    """A frame 3 steps ahead: three actions lead to it; those behind are not heard and need not be recorded, those before are."""
    near = replace(batch, offset=torch.full((6, 1), 3), features={})
    hybrid, model = world(name, sizes)
    for parameter in hybrid.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    seen = cast("OneChunk", model).seen(near)
    assert seen.keep.sum(dim=1).tolist() == [3, 3, 0, 3, 0, 0]
    assert seen.valid.tolist() == [True, True, False, True, False, False], "window 1 lacks its last three alone"
    before = scores(hybrid, near)
    for first, last, heard in ((3, 8, False), (2, 3, True)):
        action = near.action.clone()
        action[:, first:last] = 1.0 - action[:, first:last]
        after = scores(hybrid, replace(near, action=action))
        assert all(torch.equal(after[term], before[term]) != heard for term in before), (first, last)


def test_an_action_with_a_padded_dimension_counts(batch: Batch, sizes: Sizes) -> None:
    """A robot with two of three numbers: its windows count as before, in both forms; the third number is read as 0."""
    mask = batch.action_mask.clone()
    mask[0, :, 2] = False
    batch.action[0, :, 2] = float("nan")
    _, model = world("fm_wm", sizes)
    seen = cast("OneChunk", model).seen(replace(batch, action_mask=mask))
    assert seen.valid.tolist() == [True, False, False, True, False, False]
    assert (seen.action[0, :, 2] == 0).all()
    _, model = world("dino_wm", sizes)
    recorded = clip(replace(frames(batch, "dino_wm"), action_mask=mask), model.encoder, 0, 2, 3)
    assert recorded.there[0].all()
    assert recorded.action.isfinite().all()


def test_regressions_by_hand() -> None:
    """The last channel is the action's and does not count; the second frame is not there; then plain squares."""
    predicted, target = torch.zeros(1, 2, 1, 3), torch.tensor([[[[1.0, 3.0, 100.0]], [[7.0, 7.0, 7.0]]]])
    assert next_loss(predicted, target, 1, torch.tensor([[True, False]])).item() == 5.0
    assert one_shot_loss(torch.tensor([[[1.0, 3.0]]]), torch.zeros(1, 1, 2)).item() == 5.0


def test_the_shift_of_rae() -> None:
    """T5: a = sqrt(numbers / 4096); the mean of shifted clocks of 768 x 16 x 16 numbers is .837 in RAE's time; the grid runs 0 to 1."""
    factor = (768 * 16 * 16 / 4096) ** 0.5
    assert factor == pytest.approx(6.9282, abs=1e-4)
    torch.manual_seed(0)
    assert (1 - shifted_clocks(400_000, factor)).mean().item() == pytest.approx(0.837, abs=2e-3)
    grid = shifted_grid(30, factor)
    assert grid[0].item() == pytest.approx(0, abs=1e-6)
    assert grid[-1].item() == 1
    assert (grid.diff() > 0).all()
    assert grid[15].item() == pytest.approx(1 - 0.87387, abs=1e-4)
    assert pytest.approx(4.90, abs=0.01) == (384 * 256 / 4096) ** 0.5


def test_sizes_of_the_papers() -> None:
    """RLA-WM 349,036,224 and 521,154,624; DINO-WM 20,122,600; DiT-DH S 196,455,764, XL 838,675,796."""
    with torch.device("meta"):
        reader = rla.TokenTransformer(1024, 1024, 64, 1, 16, 32)
        residuals = rla.Autoencoder(Eye(1024, 32), reader, rla.TokenTransformer(1024, 1024, 1024, 1, 16, 32, fed=64), 64, 0, "sub", "frame")
        apart = sum(p.numel() for p in residuals.parameters())
        for action, blocks, wanted in ((8, 8, 349_036_224), (14, 12, 521_154_624)):
            flow = rla_wm.LatentFlow(residuals, action, 1024, blocks, blocks, 16, places=False)
            assert sum(p.numel() for p in flow.parameters()) - apart == wanted
        predictor = Predictor(Eye(384, 14), 4, 5, 10, True, 3, 6, 16, 64, 2048, 1.0)
        assert (
            sum(p.numel() for part in (predictor.layers, predictor.norm) for p in part.parameters()) + predictor.place.numel() == 20_122_600
        )
        for width, depth, heads, wanted in ((384, 12, 6, 196_455_764), (1152, 28, 16, 838_675_796)):
            network = wide.WideHead(768, (16, 16), 0, 1000, width, depth, heads, 2048, 2, 16)
            assert sum(p.numel() for p in network.parameters()) == wanted


@pytest.mark.parametrize("name", [*CHUNKS, "dino_wm"])
def test_gaps_of_the_papers(name: str) -> None:
    """Section 5 of the specs: gaps of 1 to 14 steps (2 to 15 frames, the present one counted); DINO-WM's 5, 10 and 15."""
    arm = registry.arm(name, "paper")
    assert needs_of(arm).futures == ((5, 10, 15) if name == "dino_wm" else ((1, 14),))
    assert arm.data.horizon == (15 if name == "dino_wm" else 14)


def test_padding_is_not_heard() -> None:
    """W5, W6: what lies behind the kept actions changes nothing, a shorter chunk is the same vector, and no action is exactly 0."""
    torch.manual_seed(0)
    reader, action = ActionVector(3, 8, 16), torch.randn(2, 6, 3)
    keep = (torch.arange(6) < 4).expand(2, -1)
    vector = reader(action, keep)
    noisy = torch.where(keep[..., None], action, float("nan"))
    torch.testing.assert_close(reader(noisy, keep), vector)
    torch.testing.assert_close(reader(action[:, :4], keep[:, :4]), vector)
    assert (reader(action, torch.zeros(2, 6, dtype=torch.bool)) == 0).all()
    assert not torch.allclose(reader(action[:, [1, 0, 2, 3, 4, 5]], keep), vector), "order matters"
    for wrong in (keep[:, :1], keep[:1], keep[:, :5]):
        with pytest.raises(ValueError, match="one for each"):
            reader(action, wrong)


def test_places_of_a_grid_differ() -> None:
    """Every cell has its own; rows turn the first half, columns the second."""
    places = grid_places((3, 4), 16)
    assert places.shape == (12, 16)
    assert torch.cdist(places, places).fill_diagonal_(1).min() > 0.1
    assert torch.equal(places[:4, :8], places[:1, :8].expand(4, -1))


def test_a_block_starts_as_the_identity() -> None:
    """adaLN-zero; a memory is not gated."""
    x, condition = torch.randn(2, 5, 16), torch.randn(2, 16)
    assert torch.equal(ModulatedBlock(16, 2)(x, condition), x)


def test_rla_wm_starts_as_published(sizes: Sizes) -> None:
    """Glorot's weights and no biases, the clock's layers from N(0, .02), gates and output 0."""
    model = world("rla_wm", sizes, moved=False)[1]
    network = model.network
    clock = torch.cat([layer.weight.flatten() for layer in (network.clock.body[0], network.clock.body[2])])
    assert clock.std().item() == pytest.approx(0.02, rel=0.1)
    for block in (*network.before, *network.after):
        assert not block.modulation.weight.any()
        up = block.up.weight
        assert up.abs().max() <= (6 / sum(up.shape)) ** 0.5
        assert up.std().item() == pytest.approx((2 / sum(up.shape)) ** 0.5, rel=0.1)
        assert not block.up.bias.any()
    assert not network.out.weight.any()


@pytest.mark.parametrize("name", FLOWS)
def test_a_fresh_flow_predicts_no_velocity(name: str, batch: Batch, sizes: Sizes) -> None:
    """W1, E2: v = 0, so the loss is E (x - eps)^2 + E |x - eps|, whatever the actions; after two steps they matter."""
    hybrid, model = world(name, sizes, moved=False)
    if name == "rla_wm":  # its autoencoder is fresh here, and would write nothing
        nn.init.normal_(cast("Any", model).residuals.writer.out.weight, std=0.5)
    terms = scores(hybrid, batch)
    key = next(iter(hybrid.objectives))
    seen = cast("FlowForesight", model).seen(batch)
    valid = seen.valid
    torch.manual_seed(3)
    x = model.goal(seen)
    source = model.source(seen.now, x.shape, None)
    mse, l1 = velocity_errors(torch.zeros_like(x), x - source)
    torch.testing.assert_close(terms[f"{key}/mse"], mse[valid].mean())
    torch.testing.assert_close(terms[f"{key}/l1"], l1[valid].mean())
    changed = replace(batch, action=batch.action.flip(0), features={})
    assert torch.equal(ask(model, batch), ask(model, changed))
    descend(hybrid, batch, 3 if name == "rae" else 2, 1e-2)  # one step opens the last layer, one the gates; RAE's head has gates of its own
    assert not torch.equal(ask(model, batch), ask(model, changed)), "then actions are heard"


def test_fm_wm_from_the_present_starts_as_a_copy(batch: Batch, sizes: Sizes) -> None:
    """E3: a fresh network returns s_t; an oracle of the velocity returns s_{t+h} in one step or in thirty."""
    _, model = world("fm_wm", sizes, moved=False)
    now = frame_tokens(batch, model.encoder, 0).float()
    torch.testing.assert_close(ask(model, batch), now)
    future = frame_tokens(batch, model.encoder, 0, 0).float()
    model.network.velocity = lambda x, t, condition: model.standard(future) - model.standard(now)
    for steps in (1, 30):
        model.steps = steps
        torch.testing.assert_close(ask(model, batch), future, atol=1e-4, rtol=1e-4)


def test_the_condition_is_made_once(batch: Batch, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """W3: K = 7 steps ask for the velocity 7 times and for the condition once."""
    for name in ("rla_wm", "fm_wm", "rae"):
        _, model = world(name, sizes, steps=7)
        calls = {"condition": 0, "velocity": 0}
        for method in calls:
            inner = getattr(model.network, method)

            def counted(*args: Any, method: str = method, inner: Any = inner, calls: dict[str, int] = calls) -> Any:
                calls[method] += 1
                return inner(*args)

            monkeypatch.setattr(model.network, method, counted)
        ask(model, batch)
        assert calls == {"condition": 1, "velocity": 7}, name


@pytest.mark.parametrize("name", ARMS)
def test_windows_that_do_not_count(name: str, batch: Batch, sizes: Sizes) -> None:
    """Video and windows past the end: whatever stands in their actions, states and futures, losses and gradients stay as they are."""
    batch = frames(batch, name)
    hybrid, _ = world(name, sizes)
    key = next(iter(hybrid.objectives))
    valid = hybrid(batch)[next(iter(hybrid(batch)))].weight
    assert valid.tolist()[2:] == [False, True, False, False]
    before = scores(hybrid, batch)
    torch.stack([*before.values()]).sum().backward()
    gradients = {n: p.grad.clone() for n, p in hybrid.named_parameters() if p.grad is not None}
    batch.action[4:], batch.state[4:], batch.future[2] = float("nan"), float("nan"), float("nan")
    hybrid.zero_grad()
    after = scores(hybrid, batch)
    torch.stack([*after.values()]).sum().backward()
    assert all(torch.equal(before[term], after[term]) for term in before)
    assert all(torch.equal(p.grad, gradients[n]) for n, p in hybrid.named_parameters() if p.grad is not None)
    assert gradients
    assert not any(".encoder." in n or ".residuals." in n or ".pixels." in n for n in gradients), key
    video = batch[4:]
    assert all(value.item() == 0 for value in scores(hybrid, video).values())


@pytest.mark.parametrize("name", ARMS)
def test_the_future_does_not_leak(name: str, batch: Batch, sizes: Sizes) -> None:
    """A prediction reads the present frame, actions and noise; other futures change nothing, other actions do."""
    batch = frames(batch, name)
    hybrid, model = world(name, sizes)
    for parameter in hybrid.parameters():  # the gates of untrained blocks hardly open, and an untrained autoencoder writes nothing
        parameter.data += 0.1 * torch.randn_like(parameter)
    steps = 8 if name != "dino_wm" else 6
    before = ask(model, batch, steps)
    assert torch.equal(ask(model, replace(batch, future=torch.rand_like(batch.future), features={}), steps), before)
    assert not torch.equal(ask(model, batch, steps, action=batch.action.flip(0)), before)
    later = batch.action.clone()
    later[:, 4:] = 9.0
    assert torch.equal(ask(model, batch, 4, later), ask(model, batch, 4)), "actions behind the horizon"


@pytest.mark.slow
@pytest.mark.parametrize("name", ARMS)
def test_a_batch_learnt_by_heart_is_predicted_back(name: str, batch: Batch, sizes: Sizes) -> None:
    """Two windows that begin with the same frame: only the actions tell which future comes, and the prediction knows."""
    batch = frames(batch, name)[torch.tensor([0, 3])]
    batch.image[1] = batch.image[0]
    arm = small(name)
    ((key, term),) = arm.objectives.items()
    config = cast("Any", term.config)
    if name in ("fm_wm_gaussian", "rae"):  # noise on tokens of 64 numbers needs as wide a network
        wider = {"width": 128, **({"head_width": 128, "depth": 2} if name == "rae" else {})}
        arm = replace(arm, objectives={key: replace(term, config=replace(config, network=replace(config.network, **wider)))})
    hybrid = made(arm, sizes, moved=False)
    model: Any = hybrid.world_model
    if name == "rae":  # 16 tokens of 64 numbers push clocks toward data, where which future it will be is decided already
        model.factor = 2.0
    if name == "rla_wm":  # its autoencoder is fresh here, and writes nothing
        nn.init.normal_(model.residuals.writer.out.weight, std=0.5)
    hybrid.settle(lambda: [batch])
    descend(hybrid, batch, 900, 3e-3)
    with torch.no_grad():
        ahead = 6 if name == "dino_wm" else 8
        now, future = frame_tokens(batch, model.encoder, 0).float(), frame_tokens(batch, model.encoder, 0, -1).float()
        if name == "rla_wm":  # what its autoencoder makes of the true latent
            future = model.residuals.decode(now, model.residuals.encode(now, future))
        got, wrong = ask(model, batch, ahead), ask(model, batch, ahead, action=batch.action.flip(0))
        apart = (future[0] - future[1]).abs().mean()
        assert (got - future).abs().mean() < apart / 3, f"{(got - future).abs().mean() / apart:.2f}"
        assert (wrong - future.flip(0)).abs().mean() < apart / 3, "with the other's actions comes the other's future"


def test_the_predictor_is_the_published_one(sizes: Sizes) -> None:
    """N1: the published transformer put together from torch's functions, with its own mask of blocks, and our weights under its names."""
    _, model = world("dino_wm", sizes)
    predictor = cast("Any", model).predictor
    embedded = torch.randn(2, 3, 16, predictor.place.shape[1])
    n, width = 3 * 16, embedded.shape[-1]
    rows = [torch.cat([torch.ones(16, 16 * (t + 1)), torch.zeros(16, 16 * (2 - t))], dim=1) for t in range(3)]
    mask = torch.cat(rows) == 0
    x = embedded.reshape(2, n, width) + predictor.place[:n]
    for layer in predictor.layers:
        h = nn.functional.layer_norm(x, (width,), layer.norm_attn.weight, layer.norm_attn.bias)
        q, k, v = (part.reshape(2, n, layer.heads, -1).transpose(1, 2) for part in (h @ layer.qkv.weight.T).chunk(3, dim=-1))
        dots = (q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5).masked_fill(mask, float("-inf"))
        x = x + layer.out((dots.softmax(dim=-1) @ v).transpose(1, 2).reshape(2, n, -1))
        h = nn.functional.layer_norm(x, (width,), layer.norm_mlp.weight, layer.norm_mlp.bias)
        x = x + layer.down(nn.functional.gelu(layer.up(h)))
    expected = nn.functional.layer_norm(x, (width,), predictor.norm.weight, predictor.norm.bias).reshape(2, 3, 16, width)
    torch.testing.assert_close(predictor(embedded), expected, atol=1e-5, rtol=1e-5)


def test_the_last_channels_are_not_asked_for(batch: Batch, sizes: Sizes) -> None:
    """N2: on real embeddings the mean square over the patch's own numbers; without the action's alone where that is asked."""
    _, model = world("dino_wm", sizes)
    predictor, valid = cast("Any", model).predictor, torch.ones(2, 3, dtype=torch.bool)
    width = predictor.encoder.width
    source, target = (
        predictor.embed(torch.randn(2, 3, 16, width), torch.randn(2, 3, sizes.state), torch.randn(2, 3, predictor.action.in_features))
        for _ in range(2)
    )
    predicted = predictor(source)
    error = (predicted - target).square()
    assert predictor.extra == source.shape[-1] - width
    torch.testing.assert_close(next_loss(predicted, target, predictor.extra, valid), error[..., :width].mean(dim=(1, 2, 3)))
    actions = predictor.action.out_features
    torch.testing.assert_close(next_loss(predicted, target, actions, valid), error[..., :-actions].mean(dim=(1, 2, 3)))


def test_frames_see_the_past_alone(batch: Batch, sizes: Sizes) -> None:
    """N1: other tokens in frame 3 (not a constant, which the norm takes off) leave what follows frames 1 and 2."""
    _, model = world("dino_wm", sizes)
    predictor = cast("Any", model).predictor
    embedded = torch.randn(2, 3, 16, predictor.place.shape[1])
    before = predictor(embedded)
    embedded[:, 2] = torch.randn_like(embedded[:, 2])
    after = predictor(embedded)
    torch.testing.assert_close(after[:, :2], before[:, :2])
    assert not torch.allclose(after[:, 2], before[:, 2])


def test_gradients_of_the_sequence_form(batch: Batch, sizes: Sizes) -> None:
    """N3: action embedder and predictor learn through the source; the target gives none, the encoder gets none."""
    hybrid, _ = world("dino_wm", sizes)
    scores(hybrid, frames(batch, "dino_wm"))["dino_wm/next"].backward()
    assert learns(hybrid, "objectives.dino_wm.predictor.action")
    assert learns(hybrid, "objectives.dino_wm.predictor.layers")
    predicted, target = torch.randn(1, 1, 2, 3, requires_grad=True), torch.randn(1, 1, 2, 3, requires_grad=True)
    next_loss(predicted, target, 1, torch.ones(1, 1, dtype=torch.bool)).sum().backward()
    assert target.grad is None


def test_a_roll_out_is_frame_after_frame(batch: Batch, sizes: Sizes) -> None:
    """N5: 6 actions are 3 frames, each from at most 3 before it, the action part replaced; other lengths are refused."""
    _, model = world("dino_wm", sizes)
    sequence = cast("Sequence", model)
    with torch.no_grad():
        rolled = ask(model, batch, 6)
        network: Any = sequence.predictor
        state, chunks = (
            torch.where(batch.has_state[:, None], batch.state[:, -1], 0.0)[:, None],
            batch.action.unflatten(1, (-1, 2)).flatten(2),
        )
        past = [sequence.standard(frame_tokens(batch, model.encoder, 0).float())]
        for i in range(3):
            seen = torch.cat([network.embed(frame[:, None], state, chunks[:, j : j + 1]) for j, frame in enumerate(past)], dim=1)
            past.append(network(seen)[:, -1, :, : model.encoder.width])
            assert len(past) == i + 2
    torch.testing.assert_close(rolled, sequence.standard.back(past[-1]))
    with pytest.raises(ValueError, match="2 steps at a time"):
        ask(model, batch, 3)


def test_variants_are_what_they_say(batch: Batch, sizes: Sizes) -> None:
    """Slots without places are a set; RAE's head sees noise alone, its trunk the present too; a tenth divides by ten."""
    arm = small("rla_wm")
    config = cast("Any", arm.objectives["rla_wm"].config)
    _, placed = world("rla_wm", sizes)
    _, plain = world("rla_wm", sizes, network=replace(config.network, places=False))
    order = torch.tensor([2, 0, 3, 1])
    noisy, clock = torch.randn(6, 4, 8), torch.rand(6)
    for model, same in ((placed, False), (plain, True)):
        seen = model.seen(batch)
        condition = model.network.condition(seen.now, seen.action, seen.keep)
        first, second = (model.network.velocity(x, clock, condition) for x in (noisy, noisy[:, order]))
        assert torch.allclose(first[:, order], second, atol=1e-5) == same
    _, tenth = world("rla_wm", sizes, scaling="tenth")
    assert (tenth.standard.deviation == 10).all()
    _, diffusion = world("rae", sizes)
    assert isinstance(diffusion, Rae)
    assert diffusion.factor == pytest.approx((16 * 64 / 4096) ** 0.5)


def test_untold_does_not_hear_the_actions(batch: Batch, sizes: Sizes) -> None:
    """Other actions change no bit of what the control predicts or loses, how far ahead it looks does; with the actions told both change."""
    other = replace(batch, action=batch.action.flip(0))
    for name, hears in (("dino_wm_one_shot", True), ("dino_wm_untold", False)):
        _, model = world(name, sizes)
        assert isinstance(model, Untold) == (not hears)
        seen, same = model.seen(batch), model.seen(other)
        whole, half = torch.ones_like(seen.keep), torch.arange(seen.keep.shape[1]).expand_as(seen.keep) < seen.keep.shape[1] // 2
        said = model.predict(batch, seen.now, batch.action, whole, torch.Generator())
        assert torch.equal(said, model.predict(batch, seen.now, other.action, whole, torch.Generator())) == (not hears)
        assert torch.equal(model.errors(seen)["mse"], model.errors(same)["mse"]) == (not hears)
        assert not torch.equal(said, model.predict(batch, seen.now, batch.action, half, torch.Generator()))


def test_the_wide_head_is_the_published_one() -> None:
    """E1: DiT-DH put together from torch's functions, rotary positions as complex numbers, with our weights."""
    torch.manual_seed(0)
    net = wide.WideHead(6, (3, 4), action=0, classes=5, width=16, depth=2, heads=2, head_width=32, head_depth=2, head_heads=2)
    for parameter in net.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    x, time, label = torch.randn(3, 12, 6), torch.rand(3), torch.tensor([0, 4, 5])

    def turned(q: Tensor) -> Tensor:
        quarter = q.shape[-1] // 4  # pairs for the row, and as many for the column
        rate = 10_000.0 ** (-torch.arange(quarter) / quarter)
        row, column = torch.arange(12) // 4, torch.arange(12) % 4
        angle = torch.cat([row[:, None] * rate, column[:, None] * rate], dim=1)
        pairs = torch.view_as_complex(q.unflatten(-1, (-1, 2)).contiguous())
        return torch.view_as_real(pairs * torch.polar(torch.ones_like(angle), angle)).flatten(-2)

    def rms(x: Tensor, norm: Any) -> Tensor:
        return x * (x.square().mean(dim=-1, keepdim=True) + 1e-6).rsqrt() * norm.weight

    def block(part: Any, x: Tensor, c: Tensor) -> Tensor:
        one, two, three, four, five, six = part.modulation(nn.functional.silu(c)).chunk(6, dim=-1)
        q, k, v = (
            y.reshape(3, 12, part.heads, -1).transpose(1, 2) for y in part.qkv(rms(x, part.norm_attn) * (1 + two) + one).chunk(3, -1)
        )
        seen = nn.functional.scaled_dot_product_attention(turned(q), turned(k), v).transpose(1, 2).reshape(3, 12, -1)
        x = x + three * part.out(seen)
        gate, up = part.gate_up(rms(x, part.norm_mlp) * (1 + five) + four).chunk(2, dim=-1)
        return x + six * part.down(nn.functional.silu(gate) * up)

    waves = 2 * torch.pi * (1 - time)[:, None] * net.clock.frequencies  # the published clock is 1 at noise
    t = net.clock.body(torch.cat([waves.sin(), waves.cos()], dim=-1))
    c = nn.functional.silu(t + cast("nn.Embedding", net.classes)(label))[:, None]
    s = net.trunk_in(x) + net.place
    for part in net.trunk:
        s = block(part, s, c)
    s, y = net.bridge(nn.functional.silu(t[:, None] + s)), net.head_in(x)
    for part in net.head:
        y = block(part, y, s)
    shift, scale = net.modulation(nn.functional.silu(s)).chunk(2, dim=-1)
    expected = net.out(rms(y, net.norm) * (1 + scale) + shift)
    torch.testing.assert_close(net.velocity(x, time, net.of_class(label)), expected, atol=1e-4, rtol=1e-4)


def test_classes_of_rae(sizes: Sizes) -> None:
    """Without a present frame and actions it is RAE's own network: zero at the start, then it hears its class and its clock."""
    torch.manual_seed(0)
    network = wide.WideHead(8, (2, 2), 0, 5, 16, 1, 2, 32, 1, 2)
    x, clock = torch.randn(2, 4, 8), torch.tensor([0.2, 0.7])
    assert (network.velocity(x, clock, network.of_class(torch.tensor([0, 1]))) == 0).all()
    for p in network.parameters():
        p.data += 0.1 * torch.randn_like(p)
    before = network.velocity(x, clock, network.of_class(torch.tensor([0, 1])))
    told = network.trunk_output(x, network.clock(1 - clock), network.of_class(torch.tensor([0, 1])))
    assert told.shape == (2, 4, 16), "one condition of the head for each token"
    assert not torch.allclose(network.velocity(x, clock, network.of_class(torch.tensor([0, 2])))[1], before[1])
    assert not torch.allclose(network.velocity(x, clock.flip(0), network.of_class(torch.tensor([0, 1]))), before)


def test_rotary_positions_turn_pairs() -> None:
    """Lengths stay; the product of two turned vectors depends on how far apart they are, by row and by column."""
    rotary = wide.Rotary(8, (4, 4))
    q, k = torch.randn(8), torch.randn(8)
    turned_q, turned_k = (rotary(x.expand(1, 1, 16, 8))[0, 0] for x in (q, k))
    torch.testing.assert_close(turned_q.norm(dim=-1), q.norm().expand(16))
    products = turned_q @ turned_k.T
    torch.testing.assert_close(products[0, 5], products[5, 10])
    torch.testing.assert_close(products[0, 1], products[1, 2])
    torch.testing.assert_close(products[0, 4], products[4, 8])
    assert not torch.isclose(products[0, 1], products[0, 4])


@pytest.mark.parametrize(
    ("name", "fields", "message"),
    [
        ("fm_wm", {"nearest": 9}, "1 to 8 steps ahead"),
        ("fm_wm", {"steps": 0}, "at least one step"),
        ("fm_wm", {"sampler": "unifrom"}, "uniform"),
        ("dino_wm", {"every": 3}, "the predictor moves 2 steps"),
    ],
)
def test_wrong_settings_are_one_line(name: str, fields: dict[str, Any], message: str, sizes: Sizes) -> None:
    with pytest.raises(UserError, match=message):
        world(name, sizes, **fields)


def test_the_frozen_parts_of_an_arm(sizes: Sizes) -> None:
    """Encoder, autoencoder and decoder to pixels never train, in whatever mode the rest is."""
    for name in ARMS:
        hybrid, model = world(name, sizes)
        hybrid.train()
        frozen = [cast("nn.Module", model.encoder), cast("Foresight", model).pixels]
        assert not any(p.requires_grad for part in frozen for p in part.parameters())
        assert not any(part.training for part in frozen)
