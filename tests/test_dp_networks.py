"""Are these Diffusion Policy's networks, and do they play in a hybrid?  Sizes, names, order of operations, masks, playback."""

from typing import cast

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler, DDIMSchedulerOutput
from jaxtyping import TypeCheckError
from torch import Tensor, nn
from torch.nn.functional import conv1d, conv_transpose1d, group_norm, linear, mish

from wmzoo import flops
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, Optim, Shape, Term
from wmzoo.data import Data
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Sizes
from wmzoo.models import conv, dp_transformer, text, unet1d
from wmzoo.objectives import ddpm
from wmzoo.question import Stream

SIZES = Sizes(width=1, depth=0, context=6, out=1, horizon=8, action=3, state=2, image=16, views=2, history=2, embodiments=2)
TRUNKS = {"unet": unet1d.Config((16, 32), 3, 4, 8, 6), "transformer": dp_transformer.Config(32, 2, 2, 0.0, 6)}
PUBLISHED = {
    "unet": (unet1d.Config(), 16, 251_511_938),  # trunk, horizon, parameters
    "transformer": (dp_transformer.Config(), 10, 8_975_362),
}


def gradient(tensor: Tensor) -> Tensor:
    """The gradient that this tensor received."""
    assert tensor.grad is not None
    return tensor.grad


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(p.numel() for p in module.parameters())


def make_unet() -> unet1d.UNet1D:
    """A U-Net of three levels for 3 numbers per action and a condition of 5."""
    torch.manual_seed(0)
    return unet1d.UNet1D(action=3, condition=5, channels=(16, 24, 32), kernel=5, groups=4, embedding=12)


def make_transformer() -> dp_transformer.DiffusionTransformer:
    """A transformer for 8 actions of 3 numbers and 2 frames of 5, without dropout, its weights large enough to matter."""
    torch.manual_seed(0)
    network = dp_transformer.DiffusionTransformer(3, 8, 5, 2, width=16, depth=2, heads=2, dropout=0.0)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def make_hybrid(trunk: Blueprint) -> Hybrid:
    """A tiny Diffusion Policy."""
    torch.manual_seed(0)
    seen = unet1d.ObserverConfig(conv.Config((8,)), text.Config(8, 1, 2), points=5).build(SIZES)
    objective = ddpm.Config(unet1d.InConfig(), unet1d.OutConfig()).build(SIZES)
    return Hybrid(seen, cast("unet1d.ChunkTrunk", trunk.build(SIZES)), {"ddpm": objective})


@pytest.fixture
def batch() -> Batch:
    """Four windows of two frames and two cameras; the last has neither actions nor state, and NaN stands there."""
    torch.manual_seed(1)
    known = torch.tensor([True, True, True, False])
    mask = known[:, None, None].repeat(1, SIZES.horizon, SIZES.action)
    mask[1, 6:] = False
    return Batch(
        image=torch.rand(4, 2, 2, 3, 16, 16),
        state=torch.where(known[:, None, None], torch.randn(4, 2, SIZES.state), torch.nan),
        has_state=known,
        text=torch.randint(3, 200, (4, 6)),
        action=torch.where(mask, 2 * torch.rand(mask.shape) - 1, torch.nan),
        action_mask=mask,
        future=torch.zeros(4, 0, 2, 3, 16, 16),
        has_future=torch.zeros(4, 0, dtype=torch.bool),
        offset=torch.zeros(4, 0, dtype=torch.long),
        embodiment=torch.tensor([0, 0, 0, 1]),
        sample=torch.arange(4),
    )


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters_of_the_published_networks(name: str) -> None:
    """D4: an arm of blueprints at the paper's size (Push-T: 2 numbers per action, 2 frames of 64 + 2) has exactly the paper's
    number of parameters, and runs."""
    trunk, horizon, wanted = PUBLISHED[name]
    term = Term(ddpm.Config(unet1d.InConfig(), unet1d.OutConfig()), {"denoise": 1.0})
    seen = unet1d.ObserverConfig(conv.Config(), text.Config())
    arm = Experiment("paper", Shape(1, 0), trunk, seen, {"ddpm": term}, Data(horizon=horizon), Optim(steps=1))
    assert flops.count(arm)["parameters"]["trunk"] == wanted


def test_bare_networks_have_the_published_sizes() -> None:
    """D4, without a hybrid: condition 132 at once, or two frames of 66."""
    with torch.device("meta"):
        unet = unet1d.UNet1D(action=2, condition=132, channels=(512, 1024, 2048), kernel=5, groups=8, embedding=128)
        transformer = dp_transformer.DiffusionTransformer(2, 10, 66, 2, width=256, depth=8, heads=4, dropout=0.3)
    assert count(unet) == 251_511_938
    assert count(transformer) == 8_975_362


def reference_unet(state: dict[str, Tensor], noisy: Tensor, index: Tensor, condition: Tensor, groups: int) -> Tensor:
    """ConditionalUnet1D with FiLM scale and bias, written out from a state dict by the reference's names."""

    def affine(name: str) -> tuple[Tensor, Tensor]:
        return state[f"{name}.weight"], state[f"{name}.bias"]

    def convolve(x: Tensor, name: str, groups: int = groups) -> Tensor:
        x = conv1d(x, *affine(f"{name}.block.0"), padding=2)
        return mish(group_norm(x, groups, *affine(f"{name}.block.1")))

    def residual(x: Tensor, name: str) -> Tensor:
        first = convolve(x, f"{name}.blocks.0")
        film = linear(mish(feature), *affine(f"{name}.cond_encoder.1")).reshape(len(x), 2, -1, 1)
        out = convolve(film[:, 0] * first + film[:, 1], f"{name}.blocks.1")
        short = f"{name}.residual_conv"
        return out + (conv1d(x, *affine(short)) if f"{short}.weight" in state else x)

    width = state["diffusion_step_encoder.1.weight"].shape[1]
    frequency = 1e4 ** (-torch.arange(width // 2) / (width // 2 - 1))
    wave = torch.cat([(index[:, None] * frequency).sin(), (index[:, None] * frequency).cos()], dim=-1)
    hidden = mish(linear(wave, *affine("diffusion_step_encoder.1")))
    feature = torch.cat([linear(hidden, *affine("diffusion_step_encoder.3")), condition], dim=-1)
    x, levels = noisy.transpose(1, 2), []
    for i in range(3):
        x = residual(residual(x, f"down_modules.{i}.0"), f"down_modules.{i}.1")
        levels.append(x)
        x = conv1d(x, *affine(f"down_modules.{i}.2.conv"), stride=2, padding=1) if i < 2 else x
    x = residual(residual(x, "mid_modules.0"), "mid_modules.1")
    for i in range(2):
        x = torch.cat([x, levels.pop()], dim=1)
        x = residual(residual(x, f"up_modules.{i}.0"), f"up_modules.{i}.1")
        x = conv_transpose1d(x, *affine(f"up_modules.{i}.2.conv"), stride=2, padding=1)
    return conv1d(convolve(x, "final_conv.0", groups=8), *affine("final_conv.1")).transpose(1, 2)


def test_unet_computes_what_the_reference_computes() -> None:
    """Same weights, by the reference's names: output and gradients equal the network written out by hand to 1e-5."""
    network, noisy, condition = make_unet(), torch.randn(4, 8, 3), torch.randn(4, 5)
    index = torch.tensor([0, 7, 50, 99])
    ours = network(noisy, index, condition)
    wanted = reference_unet(network.state_dict(keep_vars=True), noisy, index, condition, groups=4)
    torch.testing.assert_close(ours, wanted, rtol=1e-5, atol=1e-5)
    names, parameters = zip(*network.named_parameters(), strict=True)
    pairs = zip(torch.autograd.grad(ours.square().sum(), parameters), torch.autograd.grad(wanted.square().sum(), parameters), strict=True)
    for name, (mine, theirs) in zip(names, pairs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-4 * float(theirs.abs().max()), msg=name)


@pytest.mark.parametrize(("channels", "groups", "last"), [((16, 32), 4, 8), ((32, 32), 16, 8), ((12, 24), 4, 4)])
def test_groups_of_the_last_norm(channels: tuple[int, ...], groups: int, last: int) -> None:
    """8 whatever the others have, as in the reference; a first level that does not divide by 8 keeps the groups of the others."""
    network = unet1d.UNet1D(action=3, condition=5, channels=channels, kernel=3, groups=groups, embedding=8)
    norm = network.get_submodule("final_conv.0.block.1")
    assert isinstance(norm, nn.GroupNorm)
    assert norm.num_groups == last


def test_transformer_computes_what_the_reference_computes() -> None:
    """The reference's decoder with additive masks and the same weights gives the same output to 1e-5."""
    network, noisy, condition = make_transformer(), torch.randn(4, 8, 3), torch.randn(4, 2, 5)
    index = torch.tensor([0, 7, 50, 99])
    frequency = 1e4 ** (-torch.arange(8) / 7)
    wave = torch.cat([(index[:, None] * frequency).sin(), (index[:, None] * frequency).cos()], dim=-1)
    memory = network.encoder(torch.cat([wave[:, None], network.cond_obs_emb(condition)], dim=1) + network.cond_pos_emb)
    steps, seen = torch.meshgrid(torch.arange(8), torch.arange(3), indexing="ij")
    causal = torch.zeros(8, 8).masked_fill(torch.ones(8, 8).tril() == 0, -torch.inf)
    known = torch.zeros(8, 3).masked_fill(steps < seen - 1, -torch.inf)
    x = network.decoder(network.input_emb(noisy) + network.pos_emb, memory, tgt_mask=causal, memory_mask=known)
    torch.testing.assert_close(network(noisy, index, condition), network.head(network.ln_f(x)), rtol=1e-5, atol=1e-5)


def test_transformer_looks_back_only() -> None:
    """Action i depends on actions up to i and frames up to i (and on the index); on nothing behind."""
    network, noisy, condition = make_transformer(), torch.randn(1, 8, 3), torch.randn(1, 2, 5)

    def seen(which: int) -> tuple[Tensor, Tensor]:
        inputs = noisy.clone().requires_grad_(), condition.clone().requires_grad_()
        network(inputs[0], torch.tensor([9]), inputs[1])[0, which].sum().backward()
        return gradient(inputs[0])[0].abs().sum(-1) > 0, gradient(inputs[1])[0].abs().sum(-1) > 0

    for which in (0, 1, 7):
        actions, frames = seen(which)
        assert actions.tolist() == [i <= which for i in range(8)]
        assert frames.tolist() == [True, which >= 1]


@pytest.mark.parametrize("make", [make_unet, make_transformer])
def test_index_and_condition_matter_and_shapes_are_checked(make) -> None:
    """Another index or condition gives another output; wrong sizes raise, and nothing is broadcast."""
    network = make()
    noisy, condition = torch.randn(2, 8, 3), torch.randn(2, 5) if isinstance(network, unet1d.UNet1D) else torch.randn(2, 2, 5)
    plain = network(noisy, torch.tensor([3, 3]), condition)
    assert plain.shape == noisy.shape
    assert (network(noisy, torch.tensor([90, 90]), condition) - plain).abs().max() > 1e-3
    assert (network(noisy, torch.tensor([3, 3]), condition + 1) - plain).abs().max() > 1e-3
    with pytest.raises(TypeCheckError):
        network(noisy, torch.tensor([3]), condition)
    with pytest.raises(ValueError, match="not"):
        network(noisy, torch.tensor([3, 3]), torch.cat([condition, condition], dim=1))
    with pytest.raises(ValueError, match="9"):
        network(torch.randn(2, 9, 3), torch.tensor([3, 3]), condition)


def test_index_of_a_zoo_clock() -> None:
    """Every index from 0 to 99 survives the way through zoo time; pure noise (0) is 99, clean data is 0."""
    index = torch.arange(ddpm.STEPS)
    assert unet1d.INDICES == ddpm.STEPS
    assert torch.equal(unet1d.to_index(ddpm.zoo_clock(index)), index)
    assert unet1d.to_index(torch.tensor([0.0, 1.0])).tolist() == [99, 0]


def test_what_is_known_of_each_frame() -> None:
    """By hand: two frames of two cameras; each frame has its cameras' features, then its state."""
    observation, state = torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]), torch.tensor([[[8.0], [9.0]]])
    assert unet1d.per_frame(observation, state).tolist() == [[[1, 2, 8], [3, 4, 9]]]
    with pytest.raises(ValueError, match="3 observation tokens"):
        unet1d.per_frame(observation[:, :3], state)


def test_keypoints_by_hand() -> None:
    """A map that looks at one patch gives its place, (x, y) with y downwards; one that looks everywhere gives the middle."""
    points = unet1d.Keypoints(inputs=2, grid=(2, 3), points=2, outputs=4)
    nn.init.zeros_(points.maps.bias)
    points.maps.weight.data = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    tokens = torch.zeros(1, 6, 2)
    tokens[0, 5, 0] = 100  # the last patch: right, below
    torch.testing.assert_close(points.points(tokens), torch.tensor([[[1.0, 1.0], [0.0, 0.0]]]))
    tokens[0, 5, 0], tokens[0, 2, 0] = 0, 100  # the right end of the first row
    torch.testing.assert_close(points.points(tokens)[0, 0], torch.tensor([1.0, -1.0]))


@pytest.mark.parametrize("name", TRUNKS)
def test_every_weight_learns_and_unknown_windows_are_harmless(name: str, batch: Batch) -> None:
    """One pass of the hybrid: every parameter has a finite gradient, though actions and state of one window are NaN."""
    hybrid = make_hybrid(TRUNKS[name])
    assert hybrid.needs().history == 2
    hybrid(batch)["ddpm/denoise"].mean().backward()
    for parameter_name, parameter in hybrid.named_parameters():
        assert parameter.grad is not None, parameter_name
        assert parameter.grad.isfinite().all(), parameter_name
    observed = hybrid.observer(batch)
    assert observed["observation"].tokens.shape == (4, SIZES.history * SIZES.views, SIZES.context)
    assert torch.equal(observed["state"].tokens[3], hybrid.observer.get_parameter("null_state"))


@pytest.mark.parametrize("name", TRUNKS)
def test_playback_equals_a_loop_written_by_hand(name: str, batch: Batch) -> None:
    """DDIM, 10 steps from the same noise: `Hybrid.act` gives what the network and diffusers' scheduler give alone (1e-6),
    without the first action, which lies in the past."""
    hybrid, batch = make_hybrid(TRUNKS[name]).eval(), batch[:3]
    noise = torch.randn(3, SIZES.horizon, SIZES.action)
    network = hybrid.trunk.get_submodule("network")
    with torch.no_grad():
        observed = hybrid.observer(batch)
        frames = unet1d.per_frame(observed["observation"].tokens, observed["state"].tokens)
        condition = frames.flatten(1) if name == "unet" else frames
        scheduler, value = DDIMScheduler(**ddpm.SCHEDULE), noise
        scheduler.set_timesteps(10)
        for index in scheduler.timesteps:
            step = scheduler.step(network(value, index.expand(3), condition), int(index), value)
            value = cast("DDIMSchedulerOutput", step).prev_sample
    torch.testing.assert_close(hybrid.act(batch, noise, 10), value[:, 1:], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", TRUNKS)
def test_one_window_is_learned(name: str, batch: Batch) -> None:
    """Trained on one window, the error of the predicted noise falls below half of what predicting 0 would give (which is 1)."""
    hybrid, many = make_hybrid(TRUNKS[name]), batch[torch.zeros(16, dtype=torch.long)]
    optimiser = torch.optim.Adam(hybrid.trunk.parameters(), lr=5e-3)
    with torch.no_grad():
        observed = hybrid.observer(many)
    losses = []
    for _ in range(80):
        question = hybrid.denoiser(many)
        loss = question.score(hybrid.trunk({**observed, **question.streams}))["denoise"].mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert sum(losses[-10:]) / 10 < 1 / 2, losses


def test_streams_that_the_network_cannot_read_raise(batch: Batch) -> None:
    """Taps, foreign streams, masks, a missing clock and a request for memory are refused by name."""
    hybrid = make_hybrid(TRUNKS["unet"])
    trunk, observed = hybrid.trunk, hybrid.observer(batch)
    chunk, clock = torch.randn(4, SIZES.horizon, SIZES.action), torch.zeros(4)
    good = {**observed, "action": Stream(chunk, clock)}
    assert trunk(good).final["action"].shape == chunk.shape
    with pytest.raises(ValueError, match="taps"):
        trunk(good, frozenset({0}))
    with pytest.raises(ValueError, match="future"):
        trunk({**good, "future": Stream(chunk)})
    with pytest.raises(ValueError, match="mask"):
        trunk({**good, "action": Stream(chunk, clock, blind=frozenset({"state"}))})
    with pytest.raises(ValueError, match="clock"):
        trunk({**good, "action": Stream(chunk)})
    with pytest.raises(ValueError, match="remember"):
        trunk.remember(observed["observation"])


def test_a_horizon_that_does_not_halve_is_refused() -> None:
    """Three levels need a chunk that divides by 4."""
    with pytest.raises(UserError, match="divides by 4"):
        unet1d.Config().build(Sizes(**{**SIZES.__dict__, "horizon": 10}))
