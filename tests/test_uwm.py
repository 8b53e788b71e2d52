"""UWM: numbers by hand, four modes and the joint one, leaks, controls, PAD, GR-1, and the published network weight for weight."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from helpers import by_heart, check_two_modes, learns, made, scores, two_alike
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, Term, build, self_contained, sizes_for
from wmzoo.errors import UserError
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Denoiser, Sizes
from wmzoo.models import conv, embodiment, text
from wmzoo.models import uwm as parity
from wmzoo.models.codec import Codec
from wmzoo.objectives import ddpm
from wmzoo.objectives.ahead import ChangeTarget, FrameTarget
from wmzoo.objectives.ddpm import zoo_clock
from wmzoo.objectives.pad import Pad
from wmzoo.objectives.uwm import Dynamics, Uwm, stream_loss
from wmzoo.question import Hidden, Stream


def small(name: str = "uwm", **fields: Any) -> Experiment:
    arm = self_contained(registry.arm(name, "tiny"))
    if not fields:
        return arm
    term = arm.objectives["uwm"]
    return replace(arm, objectives={**arm.objectives, "uwm": replace(term, config=replace(cast("Any", term.config), **fields))})


def video(hybrid: Hybrid) -> Uwm:
    return cast("Uwm", hybrid.objectives["uwm"])


def drawn(hybrid: Hybrid, batch: Batch, name: str, given: dict[str, Tensor], seed: int = 0) -> Tensor:
    """A sample of one stream, others given or at noise."""
    random, ahead = torch.Generator().manual_seed(seed), video(hybrid).ahead
    noise = {
        "flow": torch.randn(len(batch), 8, 3, generator=random),
        "uwm": torch.randn(len(batch), ahead.tokens, ahead.width, generator=random),
    }
    return hybrid.generate(batch, name, {key: value for key, value in noise.items() if key not in given}, 10, given)


def test_stream_loss_by_hand() -> None:
    """(1 + 9) / 2 = 5; another shape is never broadcast."""
    assert stream_loss(torch.tensor([[[1.0, -3.0]]]), torch.zeros(1, 1, 2)).item() == 5.0
    with pytest.raises(Exception, match="B N X"):
        stream_loss(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4))


def test_frame_target_holds_the_latents_of_the_future(batch: Batch, sizes: Sizes) -> None:
    """Standardised and back are the codec's tokens; where there is no future nothing counts, whatever stands there."""
    hybrid = made(small(), sizes).eval()
    ahead = cast("FrameTarget", video(hybrid).ahead)
    ahead.settle([batch])
    value, valid = ahead(batch)
    assert valid.tolist() == batch.has_future[:, 0].tolist()
    rows = value[valid].flatten(0, 1)
    assert torch.allclose(rows.mean(dim=0), torch.zeros(ahead.width), atol=1e-4)
    assert torch.allclose(rows.std(dim=0), torch.ones(ahead.width), atol=1e-3)
    tokens = frame_tokens(batch, ahead.encoder, 0, 0).float()
    assert torch.allclose(ahead.arrive(tokens, value)[valid], tokens[valid], atol=1e-4)


def test_frame_target_joins_two_frames_cell_by_cell(batch: Batch, sizes: Sizes) -> None:
    """The numbers of a token are ordered channel, frame, row, column, as a convolution over time has them; the first frame is predicted."""
    twice = replace(batch, future=batch.future.repeat(1, 2, 1, 1, 1, 1), has_future=batch.has_future.repeat(1, 2), features={})
    twice.future[:, 1] = torch.rand_like(batch.future[:, 0])
    twice.offset = torch.tensor([[8, 9]]).expand(6, 2)
    hybrid = made(small(gaps=(8, 9), scaling="none"), sizes).eval()
    ahead = cast("FrameTarget", video(hybrid).ahead)
    value, valid = ahead(twice)
    first, second = (frame_tokens(twice, ahead.encoder, 0, column).float().unflatten(2, (4, 4)) for column in (0, 1))
    shown = value.unflatten(2, (4, 2, 4))
    assert torch.allclose(shown[:, :, :, 0][valid], first[valid])
    assert torch.allclose(shown[:, :, :, 1][valid], second[valid])
    assert torch.allclose(ahead.arrive(first.flatten(2), value)[valid], first.flatten(2)[valid])


def test_change_target_is_zero_where_nothing_moves(batch: Batch, sizes: Sizes) -> None:
    """The difference of the codec's tokens; a value of 0, with mean 0 and deviation 1, is a copy; back and forth is the future."""
    ahead = video(made(small("uwm_change", scaling="none"), sizes).eval()).ahead
    assert isinstance(ahead, ChangeTarget)
    still = replace(batch, future=batch.image.clone(), features={})
    now, future = frame_tokens(batch, ahead.encoder, 0).float(), frame_tokens(batch, ahead.encoder, 0, 0).float()
    assert not ahead(still)[0].any()
    value, valid = ahead(batch)
    assert torch.allclose(value[valid], (future - now)[valid], atol=1e-6)
    assert torch.equal(ahead.arrive(now, torch.zeros_like(value)), now)
    standard = cast("FrameTarget", video(made(small("uwm_change"), sizes).eval()).ahead)
    standard.settle([batch])
    assert torch.allclose(standard.arrive(now, standard(batch)[0])[valid], future[valid], atol=1e-4)
    with pytest.raises(UserError, match="the control `current` needs whole frames"):
        made(small("uwm_change", control="current"), sizes)


@pytest.mark.parametrize("control", ["current", "shuffled"])
def test_controls_change_the_target_alone(batch: Batch, sizes: Sizes, control: str) -> None:
    plain, changed = made(small(), sizes), made(small(control=control), sizes)
    assert sum(p.numel() for p in plain.parameters()) == sum(p.numel() for p in changed.parameters())
    ahead = cast("FrameTarget", video(changed).ahead)
    value, valid = ahead(batch)
    own, there = cast("FrameTarget", video(plain).ahead)(batch)
    if control == "current":
        assert torch.allclose(value[valid], ahead.present(batch)[valid])
    else:
        assert torch.equal(value[valid], own.roll(1, dims=0)[valid])
        assert valid.tolist() == (there & there.roll(1)).tolist()


def test_first_loss_is_that_of_predicting_zero(batch: Batch, sizes: Sizes) -> None:
    """U2: outputs are exactly 0 at the start, so each loss is the mean square of its target: about 2 for standardised latents."""
    hybrid = made(small(), sizes, moved=False)
    hybrid.settle(lambda: [batch])
    many = batch[torch.tensor([0, 1, 3, 4, 5]).repeat(40)]
    assert abs(scores(hybrid, many)["uwm/velocity"].item() - 2.0) < 0.1


def test_policy_is_the_mode_whose_video_says_nothing(batch: Batch, sizes: Sizes) -> None:
    """U7: playing leaves the video at t = 0, always the same noise; so does what is exported, without codec and targets."""
    hybrid = made(small(), sizes).eval()
    noise = torch.randn(6, 8, 3)
    idle = cast("Tensor", video(hybrid).idle)
    before = idle.clone()
    played = hybrid.act(batch, noise, 4)
    assert torch.equal(idle, before)
    with torch.no_grad():
        assert torch.equal(hybrid.generate(batch, "flow", {"flow": noise, "uwm": idle.expand(6, -1, -1)}, 4, {}), played)
        told = hybrid.generate(batch, "flow", {"flow": noise}, 4, {"uwm": idle.expand(6, -1, -1)})
    assert not torch.equal(told, played), "the clock tells noise from a given frame"
    hybrid.strip()
    assert not any(isinstance(part, Codec) for part in hybrid.modules())
    assert torch.equal(hybrid.act(batch, noise, 4), played)


def test_each_mode_listens_to_what_it_is_given(batch: Batch, sizes: Sizes) -> None:
    """Dynamics hear the actions, the inverse hears the frame, video neither; what is given is never changed."""
    hybrid = made(small(), sizes).eval()
    action, frame = batch.action.clone(), video(hybrid).ahead(batch)[0]
    kept = frame.clone()
    with torch.no_grad():
        told = drawn(hybrid, batch, "uwm", {"flow": action})
        assert not torch.equal(drawn(hybrid, batch, "uwm", {"flow": action.flip(0)}), told)
        back = drawn(hybrid, batch, "flow", {"uwm": frame})
        assert not torch.equal(drawn(hybrid, batch, "flow", {"uwm": frame.flip(0)}), back)
        other = replace(batch, action=action.flip(0), future=torch.rand_like(batch.future), features={})
        assert torch.equal(drawn(hybrid, other, "uwm", {}), drawn(hybrid, batch, "uwm", {}))
    assert torch.equal(action, batch.action)
    assert torch.equal(frame, kept)


def test_jointly_is_euler_over_both(batch: Batch, sizes: Sizes) -> None:
    """One step from noise is the noise plus both velocities at t = 0; a missing noise is refused."""
    hybrid = made(small(), sizes).eval()
    ahead = video(hybrid).ahead
    noise = {"flow": torch.randn(6, 8, 3), "uwm": torch.randn(6, ahead.tokens, ahead.width)}
    with torch.no_grad():
        both = hybrid.jointly(batch, noise, 1)
        zero, streams = torch.zeros(6), cast("dict[str, Stream]", hybrid.observer(batch))
        for name, value in noise.items():
            streams |= cast("Denoiser", hybrid.objectives[name]).embed(value, zero, batch)
        hidden = hybrid.trunk({**streams, **video(hybrid).always(batch)})
        for name, value in noise.items():
            velocity = cast("Denoiser", hybrid.objectives[name]).read(hidden, batch)
            assert torch.allclose(both[name], value + velocity, atol=1e-5)
    with pytest.raises(UserError, match="joint sampling needs noise"):
        hybrid.jointly(batch, {"flow": noise["flow"]}, 1)
    for mixed in ({"path": "epsilon", "scaling": "none"}, {"path": "v"}):
        with pytest.raises(UserError, match=r"of one sampling rule .* not flow: velocity, euler; uwm: ddim"):
            made(small(**mixed), sizes).jointly(batch, noise, 1)


def test_the_future_enters_by_the_video_alone(batch: Batch, sizes: Sizes) -> None:
    """With `drop` 1 the video is noise at t = 0 everywhere: another future changes its target, not the action's loss."""
    for drop, same in ((1.0, True), (0.0, False)):
        hybrid = made(small(drop=drop), sizes)
        other = replace(batch, future=torch.rand_like(batch.future), features={})
        before, after = scores(hybrid, batch), scores(hybrid, other)
        assert torch.equal(before["flow/velocity"], after["flow/velocity"]) == same
        assert not torch.equal(before["uwm/velocity"], after["uwm/velocity"])


@pytest.mark.parametrize("name", ["uwm", "pad", "gr1"])
def test_video_without_actions_teaches_the_frames_alone(batch: Batch, sizes: Sizes, name: str) -> None:
    """U8: finite, the action's term exactly 0, no gradient in the action's readout; NaN where nothing is recorded changes nothing."""
    hybrid = made(small(name), sizes)
    free = batch[4:]
    free.action[:], free.state[:] = float("nan"), float("nan")
    terms = scores(hybrid, free)
    acting = {"uwm": "flow/velocity", "pad": "pad/action", "gr1": "bc/action"}[name]
    assert terms.pop(acting) == 0
    assert all(term > 0 for term in terms.values())
    torch.stack([*scores(hybrid, free).values()]).sum().backward()
    assert not learns(hybrid, {"uwm": "objectives.flow.decode", "pad": "objectives.pad.decode.", "gr1": "objectives.bc.action_head"}[name])
    assert all(p.grad is None or p.grad.isfinite().all() for p in hybrid.parameters())
    past = replace(batch, features={})
    past.future[2] = float("nan")
    assert all(value.isfinite() for value in scores(hybrid, past).values())


def test_published_code_asks_videos_for_the_noise_of_their_actions(batch: Batch, sizes: Sizes) -> None:
    """U6: with `idle` the term of the actions counts windows without actions too, whatever stands in them; else it does not."""
    terms = {}
    for idle in (True, False):
        torch.manual_seed(0)
        config = ddpm.Config(embodiment.InConfig(), embodiment.OutConfig(), history=1, idle=idle)
        question = config.build(sizes)(replace(batch, action=torch.where(batch.action_mask, batch.action, float("nan"))))
        tokens = question.streams["action"].tokens
        assert tokens.isfinite().all()
        terms[idle] = question.score(Hidden({}, {"action": torch.zeros_like(tokens)}))["denoise"]
    assert terms[True].weight.tolist() == [True] * 6
    assert terms[False].weight.tolist() == batch.has_action.tolist()
    assert torch.equal(terms[True].value[:4], terms[False].value[:4])
    assert (terms[True].value[4:] > 0).all()
    assert (terms[False].value[4:] == 0).all()
    assert cast("Any", registry.arm("uwm", "paper").objectives["ddpm"].config).idle


def test_nothing_teaches_the_codec(batch: Batch, sizes: Sizes) -> None:
    hybrid = made(small(), sizes)
    torch.stack([*scores(hybrid, batch).values()]).sum().backward()
    assert not any(p.requires_grad or p.grad is not None for p in video(hybrid).ahead.parameters())
    assert all(learns(hybrid, part) for part in ("objectives.uwm.encode", "objectives.uwm.decode", "objectives.uwm.registers", "trunk"))


@pytest.mark.parametrize(("name", "term"), [("uwm_flare", "flare/align"), ("uwm_lara", "lara/align")])
def test_hybrids_do_not_read_the_future_off_the_video(batch: Batch, sizes: Sizes, name: str, term: str) -> None:
    """C5: no gradient reaches the video's own layers from what is aligned with the future, nor from the actions; unsealed it does."""
    for sealed in (True, False):
        arm = replace(small(name), shape=replace(small(name).shape, depth=8))  # deep enough for a relay
        if not sealed:
            flow = arm.objectives["flow"]
            plain = {**arm.objectives, "flow": replace(flow, config=replace(cast("Any", flow.config), blind=()))}
            arm = replace(arm, objectives=plain)
        hybrid = made(arm, sizes)
        for wanted in (term, "flow/velocity"):
            hybrid.zero_grad()
            scores(hybrid, batch)[wanted].backward()
            assert learns(hybrid, "objectives.uwm.encode") != sealed, wanted


def test_it_goes_on_from_its_own_prediction(batch: Batch, sizes: Sizes) -> None:
    """As a world model it is shown the recorded frame if that is what it is asked about, and else the painted one, with no state."""
    hybrid = made(small(), sizes).eval()
    model = hybrid.world_model
    assert isinstance(model, Dynamics)
    now, keep = frame_tokens(batch, model.encoder, 0).float(), torch.ones(6, 8, dtype=torch.bool)
    assert model.seen(batch, now) is batch
    with torch.no_grad():
        first = model.predict(batch, now, batch.action, keep, torch.Generator().manual_seed(0))
        shown = model.seen(batch, first)
        assert not shown.has_state.any()
        assert torch.equal(shown.image[:, -1, 0], model.paint(first).clamp(0, 1))
        second = model.predict(batch, first, batch.action, keep, torch.Generator().manual_seed(0))
        other = replace(batch, image=torch.rand_like(batch.image), features={})
        assert torch.equal(model.predict(other, first, batch.action, keep, torch.Generator().manual_seed(0)), second)
        told = model.inverse(batch, torch.Generator().manual_seed(0))
        untold = model.inverse(batch, torch.Generator().manual_seed(0), told=False)
    assert not torch.equal(told, untold)
    with pytest.raises(ValueError, match="8 steps ahead, no less"):
        model.predict(batch, now, batch.action, keep & (torch.arange(8) < 4), torch.Generator())


def test_a_history_goes_on_by_one_frame(batch: Batch, sizes: Sizes) -> None:
    """What was the newest frame is the one before it when a prediction is painted; a window asked about as recorded stays."""
    hybrid = made(small(history=2), replace(sizes, history=2)).eval()
    model = cast("Dynamics", hybrid.world_model)
    batch = replace(batch, image=torch.rand(6, 2, 1, 3, 32, 32), state=torch.randn(6, 2, 2), features={})
    now = frame_tokens(batch, model.encoder, 0).float()
    asked, moved = torch.cat([now[:1], now[1:] + 1.0]), slice(1, None)
    shown = model.seen(batch, asked)
    assert torch.equal(shown.image[0], batch.image[0])
    assert torch.equal(shown.image[moved, 0], batch.image[moved, 1])
    assert torch.equal(shown.image[moved, 1, 0], model.paint(asked).clamp(0, 1)[moved])
    assert shown.has_state.tolist() == [True, False, False, False, False, False]


def test_nobody_looks_at_a_frame_that_is_not_there(batch: Batch, sizes: Sizes) -> None:
    """PAD's actions past the end of an episode do not depend on what stands for the frame; where there is one they do."""
    hybrid = made(small("pad"), sizes)
    pad = cast("Pad", hybrid.objectives["pad"])
    pad.ahead.settle([batch])
    question = pad(batch)
    kept = question.streams["video"].keep
    assert kept is not None
    assert kept.all(dim=1).tolist() == kept.any(dim=1).tolist() == batch.has_future[:, 0].tolist()
    assert not batch.has_future[:, 0].all()
    torch.manual_seed(0)
    before = hybrid(batch)["pad/action"].value.detach()
    pad.ahead.standard.mean += 1.0  # moves what stands for a frame, in all windows
    torch.manual_seed(0)
    moved = ~torch.isclose(hybrid(batch)["pad/action"].value.detach(), before)
    there = batch.has_future[:, 0] & batch.has_action
    assert moved[there].all()
    assert not moved[~batch.has_future[:, 0]].any()


def test_the_observation_goes_camera_by_camera(batch: Batch, sizes: Sizes) -> None:
    """Two frames of two cameras are the vectors (camera 0: t, t + 1), (camera 1: t, t + 1), as the published network concatenates them."""
    two = replace(sizes, history=2, views=2)
    seen = parity.ObserverConfig(conv.Config((8,)), text.Config(8, 1, 2)).build(two)
    more = replace(batch, image=torch.rand(6, 2, 2, 3, 32, 32), features={})
    before = seen(more)["observation"].tokens
    assert before.shape[1] == 4
    for place, (frame, camera) in enumerate(((0, 0), (1, 0), (0, 1), (1, 1))):
        image = more.image.clone()
        image[:, frame, camera] = torch.rand_like(image[:, frame, camera])
        moved = (seen(replace(more, image=image))["observation"].tokens != before).any(dim=2).any(dim=0)
        assert moved.tolist() == [i == place for i in range(4)]


def test_pad_embeds_the_present_and_samples_both(batch: Batch, sizes: Sizes) -> None:
    """One clock for both streams, the present frame in Pad.embed; Pad.sample starts frames from the same noise and returns the chunk."""
    hybrid = made(small("pad"), sizes).eval()
    pad = cast("Pad", hybrid.objectives["pad"])
    packed, clock = torch.randn(6, 8 * 3 + pad.ahead.tokens * pad.ahead.width), torch.rand(6)
    streams = pad.embed(packed, clock, batch)
    assert streams["video"].clock == "action"
    assert streams["action"].clock is clock
    other = replace(batch, image=batch.image.flip(0), features={})
    assert not torch.equal(pad.embed(packed, clock, other)["video"].tokens, streams["video"].tokens)
    assert torch.equal(pad.pack(*pad.unpack(packed)), packed)
    start = pad.pack(torch.zeros(6, 8, 3), cast("Tensor", pad.start).expand(6, -1, -1))
    moved: list[Tensor] = []

    def predict(value: Tensor, _: Tensor) -> Tensor:
        moved.append(value)
        return torch.ones_like(value)

    assert torch.allclose(pad.sample(predict, torch.zeros(6, 8, 3), 4), torch.ones(6, 8, 3))
    assert torch.equal(moved[0], start)


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"drop": 1.5}, "drop is from 0 to 1"),
        ({"gaps": ()}, "future frames lie"),
        ({"registers": -1}, "registers are none or more"),
        ({"path": "epsilon"}, "say scaling none or tenth"),
        ({"path": "epsilon", "scaling": "none", "steps": 101}, "at most 100, not 101"),
    ],
)
def test_impossible_settings_are_refused_in_one_line(sizes: Sizes, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(small(**bad), sizes)


class ReferenceBlock(nn.Module):
    """A block of the published denoiser, assembled from torch's parts under its names."""

    def __init__(self, width: int, heads: int, condition: int) -> None:
        super().__init__()
        self.heads = heads
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width), "proj": nn.Linear(width, width)})
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, 4 * width), "fc2": nn.Linear(4 * width, width)})
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(condition, 6 * width))

    def forward(self, x: Tensor, c: Tensor) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)
        h = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale_a) + shift_a
        q, k, v = self.attn["qkv"](h).reshape(*h.shape[:2], 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        x = x + gate_a * self.attn["proj"](scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        h = nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale_m) + shift_m
        return x + gate_m * self.mlp["fc2"](nn.functional.gelu(self.mlp["fc1"](h)))


class Reference(nn.Module):
    """The published denoiser at any size, under its names, for one patch in time."""

    def __init__(self, seen: int, action: int, horizon: int, patches: int, patch: tuple[int, ...], width: int, depth: int) -> None:
        super().__init__()
        hidden = 4 * max(width, action)
        convolution = nn.Conv3d(patch[0], width, cast("Any", patch[1:]), cast("Any", patch[1:]))
        decoder = nn.Linear(width, int(torch.tensor(patch).prod()))
        self.obs_patchifier = nn.ModuleDict({"patch_encoder": convolution, "patch_decoder": decoder})
        self.action_encoder = nn.Sequential(nn.Linear(action, hidden), nn.Mish(), nn.Linear(hidden, width))
        self.action_decoder = nn.Sequential(nn.Linear(width, hidden), nn.Mish(), nn.Linear(hidden, action))
        self.timestep_embedding = nn.ModuleDict({"proj": nn.Sequential(nn.Linear(1024, 2048), nn.Mish(), nn.Linear(2048, 512))})
        self.registers = nn.Parameter(torch.randn(1, 3, width))
        self.pos_embed = nn.Parameter(torch.randn(1, horizon + patches + 3, width))
        self.blocks = nn.ModuleList(ReferenceBlock(width, 2, seen + 512) for _ in range(depth))
        modulation = nn.Sequential(nn.SiLU(), nn.Linear(seen + 512, 2 * width))
        self.head = nn.ModuleDict({"linear": nn.Linear(width, width), "adaLN_modulation": modulation})
        self.horizon, self.patches = horizon, patches

    def wave(self, k: Tensor) -> Tensor:
        frequency = torch.exp(-torch.log(torch.tensor(10000.0)) * torch.arange(256) / 255)
        angle = k.float()[:, None] * frequency
        return torch.cat([angle.sin(), angle.cos()], dim=-1)

    def forward(self, seen: Tensor, action: Tensor, k_a: Tensor, frames: Tensor, k_o: Tensor) -> tuple[Tensor, Tensor]:
        patches = self.obs_patchifier["patch_encoder"](frames).flatten(2).transpose(1, 2)
        x = torch.cat([self.action_encoder(action), patches, self.registers.expand(len(seen), -1, -1)], dim=1) + self.pos_embed
        c = torch.cat([seen, self.timestep_embedding["proj"](torch.cat([self.wave(k_a), self.wave(k_o)], dim=-1))], dim=-1)
        for block in self.blocks:
            x = block(x, c)
        shift, scale = self.head["adaLN_modulation"](c)[:, None].chunk(2, dim=-1)
        x = self.head["linear"](nn.functional.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale) + shift)
        a, o = x[:, : self.horizon], x[:, self.horizon : self.horizon + self.patches]
        return self.action_decoder(a), self.obs_patchifier["patch_decoder"](o)


def test_parity_with_the_published_denoiser() -> None:
    """U1, U3, U5: same weights by `renamed`, same outputs for any two indices; patches of a convolution over time are our tokens."""
    torch.manual_seed(0)
    reference = Reference(32, 3, 4, 4, (4, 2, 2, 2), 32, 2)  # four channels, two frames, patches of 2 x 2: 32 numbers a token
    trunk = parity.UwmTrunk(32, 2, heads=2, seen=32, registers=3)
    actions = parity.ActionIn(3, 32, 4), parity.ActionOut(32, 3)
    encode, decode, place = nn.Linear(32, 32), nn.Linear(32, 32), nn.Parameter(torch.zeros(4, 32))
    whole = nn.ModuleDict(
        {
            "trunk": trunk,
            "objectives": nn.ModuleDict(
                {
                    "ddpm": nn.ModuleDict({"encode": actions[0], "decode": actions[1]}),
                    "uwm": nn.ModuleDict({"encode": encode, "decode": decode}),
                }
            ),
        }
    )
    whole["objectives"].get_submodule("uwm").register_parameter("place", place)
    whole.load_state_dict(parity.renamed(reference.state_dict(), 4), strict=True)
    frames, action, seen = torch.randn(5, 4, 2, 4, 4), torch.randn(5, 4, 3), torch.randn(5, 2, 16)
    tokens = frames.unflatten(4, (2, 2)).unflatten(3, (2, 2)).permute(0, 3, 5, 1, 2, 4, 6).flatten(3).flatten(1, 2)
    k_a, k_o = torch.tensor([0, 99, 10, 50, 73]), torch.tensor([99, 0, 10, 20, 5])
    for one, two in ((k_a, k_o), (k_o, k_a)):
        expected = reference(seen.flatten(1), action, one, frames, two)
        streams = {
            "observation": Stream(seen),
            "action": Stream(actions[0](action, zoo_clock(one), one), zoo_clock(one)),
            "video": Stream(encode(tokens) + place, zoo_clock(two)),
        }
        final = trunk(streams).final
        assert torch.allclose(actions[1](final["action"], one), expected[0], atol=1e-5)
        assert torch.allclose(decode(final["video"]), expected[1], atol=1e-5)
    with pytest.raises(UserError, match="no weight of UWM"):
        parity.renamed({"other.weight": torch.zeros(1)}, 4)


@pytest.mark.parametrize(
    ("views", "registers", "action", "tokens", "parameters"), [(3, 8, 10, 171, 384_915_082), (2, 24, 7, 138, 297_589_639)]
)
def test_published_sizes(views: int, registers: int, action: int, tokens: int, parameters: int) -> None:
    """U4: tokens and parameters of both published settings, on the meta device; observation encoder and codec apart."""
    arm = registry.arm("uwm", "paper")
    arm = replace(arm, trunk=replace(cast("parity.Config", arm.trunk), registers=registers))
    with torch.device("meta"):
        hybrid = build(arm, sizes_for(arm, action=action, state=1, views=views, history=2))
    trunk, objective = cast("parity.UwmTrunk", hybrid.trunk), video(hybrid)
    assert arm.data.horizon + objective.ahead.tokens + trunk.registers.shape[0] == tokens
    own = [*trunk.parameters(), *hybrid.objectives["ddpm"].parameters()]
    own += [p for name, p in objective.named_parameters() if not name.startswith("ahead.")]
    assert sum(p.numel() for p in own) == parameters
    assert hybrid.needs().history == 2
    assert hybrid.needs().futures == (16, 17)
    assert hybrid.needs().first_action == 0


def test_published_form_starts_at_zero_and_sees_the_order_of_clocks(batch: Batch, sizes: Sizes) -> None:
    """U2, U3: exactly 0 at the start; once modulated, exchanging both clocks changes the outputs."""
    torch.manual_seed(0)
    trunk = parity.UwmTrunk(32, 2, 2, seen=32, registers=2)

    def run(one: float, two: float) -> Tensor:
        streams = {
            "observation": Stream(torch.ones(2, 2, 16)),
            "action": Stream(torch.ones(2, 4, 32), torch.full((2,), one)),
            "video": Stream(torch.ones(2, 3, 32), torch.full((2,), two)),
        }
        return trunk(streams).final["action"]

    assert (run(0.1, 0.9) == 0).all()
    for parameter in trunk.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    assert not torch.allclose(run(0.1, 0.9), run(0.9, 0.1))
    with pytest.raises(ValueError, match="reads the streams"):
        trunk({"observation": Stream(torch.ones(2, 2, 16))})


def test_the_published_form_learns_from_the_first_step(batch: Batch, sizes: Sizes) -> None:
    """Outputs are exactly 0, as the trunk's last layer is; that layer learns at once, as the frames' own begins at 0.02 N(0, 1)."""
    objective = video(made(small(path="epsilon", scaling="none", registers=0), replace(sizes, width=32), moved=False))
    width = objective.encode.out_features
    trunk = parity.UwmTrunk(width, 2, 2, seen=width, registers=2)
    for layer in (objective.encode, objective.decode):
        assert layer.weight.std().item() == pytest.approx(0.02, rel=0.2)
        assert not layer.bias.any()
    question = objective(batch)
    given = {"observation": Stream(torch.randn(6, 1, width)), "action": Stream(torch.randn(6, 8, width), torch.rand(6))}
    hidden = trunk({**given, **question.streams})
    assert not objective.read(hidden, batch).any()
    question.score(hidden)["noise"].mean().backward()
    assert trunk.linear.weight.grad is not None
    assert trunk.linear.weight.grad.any()
    assert video(made(small(), sizes, moved=False)).decode.weight.count_nonzero() == 0, "flow matching keeps its zero"


def published(sizes: Sizes) -> Hybrid:
    """The published form at tiny size: UWM's trunk, observation by modulation, epsilon on both streams."""
    arm = small(path="epsilon", scaling="none", registers=0, drop=0.0)
    actions = ddpm.Config(parity.InConfig(), parity.OutConfig(), history=1, idle=True)
    eye = parity.ObserverConfig(conv.Config(channels=(16, 32)), text.Config(width=32, depth=1))
    terms = {"ddpm": Term(actions, weights={"denoise": 1.0}), "uwm": replace(arm.objectives["uwm"], weights={"noise": 1.0})}
    return made(replace(arm, trunk=parity.Config(heads=2, registers=2), observer=eye, objectives=terms), sizes).eval()


def test_published_modes_are_ddim_on_one_stream(batch: Batch, sizes: Sizes) -> None:
    """U7: indices 90, 80, ..., 0 of one stream while the other stays as it is: noise at clock 0, or clean at 1; or both go together."""
    hybrid = published(sizes)
    actions, frames = cast("ddpm.Ddpm", hybrid.objectives["ddpm"]), video(hybrid)
    noise_a, noise_v = torch.randn(6, 8, 3), torch.randn(6, frames.ahead.tokens, frames.ahead.width)
    shown: list[tuple[Tensor, Tensor]] = []

    def ask(a: Tensor, t_a: Tensor, v: Tensor, t_v: Tensor) -> tuple[Tensor, Tensor]:
        shown.append((t_a, t_v))
        streams = {**hybrid.observer(batch), **actions.embed(a, t_a.expand(6), batch), **frames.embed(v, t_v.expand(6), batch)}
        hidden = hybrid.trunk(streams)
        return actions.read(hidden, batch), frames.read(hidden, batch)

    def ddim(step: Callable[[Tensor, Tensor], Tensor], start: Tensor) -> Tensor:
        scheduler, value = DDIMScheduler(**ddpm.SCHEDULE), start
        scheduler.set_timesteps(10)
        assert scheduler.timesteps.tolist() == list(range(90, -1, -10))
        for k in scheduler.timesteps:
            value = cast("Any", scheduler).step(step(value, zoo_clock(k)), k, value).prev_sample
        return value

    nothing, clean, silent = torch.tensor(0.0), torch.tensor(1.0), cast("Tensor", frames.idle).expand(6, -1, -1)
    with torch.no_grad():
        policy = ddim(lambda a, t: ask(a, t, silent, nothing)[0], noise_a)
        forward = ddim(lambda v, t: ask(noise_a, clean, v, t)[1], noise_v)
        inverse = ddim(lambda a, t: ask(a, t, noise_v, clean)[0], noise_a)
        told_nothing = ddim(lambda v, t: ask(noise_a, nothing, v, t)[1], noise_v)
        both = ddim(
            lambda x, t: torch.cat(
                [part.flatten(1) for part in ask(x[:, :24].unflatten(1, (8, 3)), t, x[:, 24:].view_as(noise_v), t)], dim=1
            ),
            torch.cat([noise_a.flatten(1), noise_v.flatten(1)], dim=1),
        )
        torch.testing.assert_close(hybrid.act(batch, noise_a, 10), policy)
        noise = {"ddpm": noise_a, "uwm": noise_v}
        torch.testing.assert_close(hybrid.generate(batch, "uwm", {"uwm": noise_v}, 10, {"ddpm": noise_a}), forward)
        torch.testing.assert_close(hybrid.generate(batch, "ddpm", {"ddpm": noise_a}, 10, {"uwm": noise_v}), inverse)
        torch.testing.assert_close(hybrid.generate(batch, "uwm", noise, 10, {}), told_nothing)
        joint = hybrid.jointly(batch, noise, 10)
        torch.testing.assert_close(torch.cat([joint["ddpm"].flatten(1), joint["uwm"].flatten(1)], dim=1), both)
    assert len(shown) == 50
    assert not torch.allclose(policy, inverse)


def test_published_first_losses_are_those_of_predicting_zero(batch: Batch, sizes: Sizes) -> None:
    """U2: the mean square of the noise, 1 for each stream, about 2 together."""
    hybrid = published(sizes)
    last = cast("parity.UwmTrunk", hybrid.trunk).linear
    for parameter in (*last.parameters(), *video(hybrid).decode.parameters(), *hybrid.objectives["ddpm"].parameters()):
        parameter.data.zero_()
    many = batch[torch.tensor([0, 3, 4, 5]).repeat(100)]
    assert sum(score.item() for score in scores(hybrid, many).values()) == pytest.approx(2.0, abs=0.05)


def test_the_published_trunk_says_what_it_cannot_do() -> None:
    """One vector modulates all: padding of the observation, a stream that may not see it, and a third clock are refused, not ignored."""
    trunk = parity.UwmTrunk(32, 1, 2, seen=32, registers=2)
    streams = {
        "observation": Stream(torch.ones(2, 2, 16)),
        "action": Stream(torch.ones(2, 4, 32), torch.ones(2)),
        "video": Stream(torch.ones(2, 3, 32), torch.ones(2)),
    }
    for wrong, message in (
        ({"observation": Stream(torch.ones(2, 2, 16), keep=torch.ones(2, 2, dtype=torch.bool))}, "no padding"),
        ({"action": Stream(torch.ones(2, 4, 32), torch.ones(2), blind=frozenset({"observation"}))}, "not to see the observation"),
        ({"other": Stream(torch.ones(2, 4, 32), torch.ones(2))}, "a clock of its own"),
    ):
        with pytest.raises(ValueError, match=message):
            trunk({**streams, **wrong})
    with pytest.raises(ValueError, match="a chunk has 8 actions here, not 1"):
        parity.ActionIn(3, 32, 8)(torch.ones(2, 1, 3), torch.ones(2), torch.zeros(2))


@pytest.mark.parametrize(("name", "field"), [("pad", {"gap": 4}), ("gr1", {"gaps": (4,)}), ("uwm", {"gaps": (4,)})])
def test_the_frame_is_that_of_the_chunks_end(name: str, field: dict[str, Any], sizes: Sizes) -> None:
    arm = self_contained(registry.arm(name, "tiny"))
    term = arm.objectives[name]
    wrong = replace(arm, objectives={**arm.objectives, name: replace(term, config=replace(cast("Any", term.config), **field))})
    with pytest.raises(UserError, match="the chunk's end, 8 actions on"):
        made(wrong, sizes)


@pytest.mark.slow
def test_four_modes_after_learning_by_heart(batch: Batch, sizes: Sizes) -> None:
    """Actions give their frame, frames their actions; without either both are possible; and sampled jointly they belong together."""
    hybrid = made(small(), sizes, moved=False)
    batch = by_heart(hybrid, two_alike(batch))
    with torch.no_grad():
        frame, action = video(hybrid).ahead(batch)[0], batch.action
        check_two_modes(lambda name, given, seed: drawn(hybrid, batch, name, given, seed), {"uwm": frame, "flow": action})
        both = hybrid.jointly(batch, {"flow": torch.randn(8, 8, 3), "uwm": torch.randn(8, *frame.shape[1:])}, 10)
        which = torch.stack([(both["flow"] - action[i]).abs().mean(dim=(1, 2)) for i in range(2)]).argmin(dim=0)
        fits = (both["uwm"] - frame[:2][which]).abs().mean()
        assert fits < 0.5 * (frame[0] - frame[1]).abs().mean(), "the frame that was sampled is that of the actions that were sampled"
