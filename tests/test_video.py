"""The causal video model: numbers by hand, causality, clocks and actions of each frame, guidance, kept history, the transfer of kernels."""

from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from helpers import by_heart, learns, made, scores, two_alike
from torch import Tensor
from torch.nn.functional import conv1d

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.clock import interpolate
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, self_contained
from wmzoo.errors import UserError
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Sizes
from wmzoo.models.video import CausalVideo, causal_taps
from wmzoo.objectives.foresight import side_by_side
from wmzoo.objectives.video import Video, frame_loss, guided

FRAMES = 4  # of two steps each, in a chunk of eight


def small(**fields: Any) -> Experiment:
    arm = self_contained(registry.arm("video", "tiny"))
    term = arm.objectives["video"]
    return replace(arm, objectives={"video": replace(term, config=replace(cast("Any", term.config), **fields))})


def model_of(sizes: Sizes, **fields: Any) -> tuple[Hybrid, Video]:
    hybrid = made(small(**fields), sizes)
    return hybrid, cast("Video", hybrid.objectives["video"])


@pytest.fixture
def frames(batch: Batch) -> Batch:
    """The batch with a frame every two steps; of window 1 the last two are not there, of window 2 none is."""
    random = torch.Generator().manual_seed(1)
    there = torch.ones(6, FRAMES, dtype=torch.bool)
    there[1, 2:], there[2] = False, False
    future = torch.rand(6, FRAMES, 1, 3, 32, 32, generator=random)
    return replace(batch, future=future, has_future=there, offset=torch.tensor([[2, 4, 6, 8]]).expand(6, 4), features={})


def test_frame_loss_by_hand() -> None:
    """V3: frames with errors 1, 2 and 3 squared, the last not there: (1 + 4) / 2; none there: 0."""
    predicted = torch.tensor([1.0, 2.0, 3.0]).reshape(1, 3, 1, 1)
    valid = torch.tensor([[True, True, False]])
    assert frame_loss(predicted, torch.zeros(1, 3, 1, 1), valid).item() == 2.5
    assert frame_loss(predicted, torch.zeros(1, 3, 1, 1), valid & False).item() == 0.0
    with pytest.raises(Exception, match="B T P E"):
        frame_loss(predicted, torch.zeros(1, 1, 1, 1), valid)


def test_guided_by_hand() -> None:
    """V4: a scale of 1 is the answer with actions, 0 that without; 1 + lambda is (1 + lambda) told - lambda untold."""
    told, untold = torch.tensor(3.0), torch.tensor(1.0)
    assert guided(told, untold, 1.0) == told
    assert guided(told, untold, 0.0) == untold
    assert guided(told, untold, 1 + 2.5).item() == pytest.approx(3.5 * 3 - 2.5 * 1)
    with pytest.raises(Exception, match="shape"):
        guided(torch.zeros(2, 3), torch.zeros(2, 1), 1.0)


def test_causal_taps() -> None:
    """V1: on a + b t the extrapolated kernel answers as the original, the other two do not; bias and channels stay."""
    torch.manual_seed(0)
    weight, bias = torch.randn(5, 3, 3), torch.randn(5)
    ramp = torch.randn(1, 3, 1) + torch.randn(1, 3, 1) * torch.arange(9.0)
    original = conv1d(ramp, weight, bias, padding=1)[..., 2:-1]
    for how, same in (("extrapolative", True), ("masked", False), ("shift", False)):
        moved = conv1d(ramp, causal_taps(weight, cast("Any", how)), bias)
        assert torch.allclose(moved[..., : original.shape[-1]], original, atol=1e-4) == same, how
    before, here, _after = weight.unbind(dim=2)
    assert torch.equal(causal_taps(weight, "masked"), torch.stack([0 * before, before, here], dim=2))
    assert torch.equal(causal_taps(weight, "shift"), weight)
    still = torch.ones(1, 3, 9)
    assert torch.allclose(conv1d(still, causal_taps(weight, "extrapolative")), conv1d(still, weight), atol=1e-5)
    spatial = causal_taps(torch.randn(4, 4, 3, 1, 1), "extrapolative")
    assert spatial.shape == (4, 4, 3, 1, 1)
    with pytest.raises(UserError, match="three taps"):
        causal_taps(torch.randn(4, 4, 5), "shift")
    with pytest.raises(UserError, match="extrapolative"):
        causal_taps(weight, cast("Any", "extrapolate"))


def answer(network: CausalVideo, noisy: Tensor, clock: Tensor, action: Tensor, keep: Tensor) -> Tensor:
    with torch.no_grad():
        return network(noisy, clock, action, keep)[0]


def test_led_by_hand(sizes: Sizes) -> None:
    """V2: none lead to the first frame, a_0 to frame 1, a_1 to frame 2: frame tau has heard a_{tau-1} and never a_tau."""
    _, model = model_of(sizes)
    action = torch.tensor([[[1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]])
    assert model.led(action).tolist() == [[[0.0, 0.0], [1.0, 10.0], [2.0, 20.0], [3.0, 30.0]]]
    assert side_by_side(torch.tensor([[[1.0], [2.0], [3.0], [4.0]]]), 2).tolist() == [[[1.0, 2.0], [3.0, 4.0]]]


@pytest.mark.parametrize(("name", "shape"), [("clock", (2, 1)), ("clock", (1, 5)), ("action", (2, 1, 6)), ("keep", (1, 1))])
def test_nothing_is_broadcast_over_frames(sizes: Sizes, name: str, shape: tuple[int, ...]) -> None:
    _, model = model_of(sizes)
    values = {"clock": torch.rand(2, 5), "action": torch.randn(2, 5, 6), "keep": torch.ones(2, 5, dtype=torch.bool)}
    values[name] = torch.ones(shape, dtype=values[name].dtype)
    with pytest.raises(ValueError, match="2 windows of 5 frames have a clock"):
        model.network(torch.randn(2, 5, 16, 16), **values)


def test_a_frame_depends_on_nothing_later(sizes: Sizes) -> None:
    """V2: tokens, clocks and actions of frame 3 and later leave frames 0 to 2 as they are, and change frame 3."""
    _, model = model_of(sizes)
    network = cast("CausalVideo", model.network)
    noisy, clock, action = torch.randn(2, 5, 16, 16), torch.rand(2, 5), torch.randn(2, 5, 6)
    keep = torch.ones(2, 5, dtype=torch.bool)
    before = answer(network, noisy, clock, action, keep)
    for changed in ("noisy", "clock", "action"):
        values = {"noisy": noisy.clone(), "clock": clock.clone(), "action": action.clone()}
        values[changed][:, 3:] = torch.rand_like(values[changed][:, 3:])
        after = answer(network, keep=keep, **values)
        assert torch.equal(after[:, :3], before[:, :3]), changed
        assert not torch.allclose(after[:, 3], before[:, 3]), changed


def test_actions_that_are_not_heard_may_be_anything(sizes: Sizes) -> None:
    """NaN too; and heard ones change the answer."""
    _, model = model_of(sizes)
    network = cast("CausalVideo", model.network)
    noisy, clock, action = torch.randn(2, 3, 16, 16), torch.rand(2, 3), torch.randn(2, 3, 6)
    keep = torch.tensor([[False, True, False]]).expand(2, 3)
    before = answer(network, noisy, clock, action, keep)
    poisoned = torch.where(keep[..., None], action, float("nan"))
    assert torch.equal(answer(network, noisy, clock, poisoned, keep), before)
    assert not torch.allclose(answer(network, noisy, clock, action.flip(0), keep), before)


def test_the_first_loss_is_that_of_predicting_zero(frames: Batch, sizes: Sizes) -> None:
    """Each frame's noise and clock are its own, and standardised latents and noise have variance 1: about 2."""
    hybrid = made(small(), sizes, moved=False)
    hybrid.settle(lambda: [frames])
    many = frames[torch.tensor([0, 3, 4, 5]).repeat(40)]
    assert abs(scores(hybrid, many)["video/velocity"].item() - 2.0) < 0.15


def test_interpolate_takes_a_clock_for_each_frame() -> None:
    noise, frame = torch.zeros(1, 3, 1, 1), torch.ones(1, 3, 1, 1)
    assert interpolate(noise, frame, torch.tensor([[0.0, 0.5, 1.0]])).flatten().tolist() == [0.0, 0.5, 1.0]


def test_what_is_not_there_does_not_count(frames: Batch, sizes: Sizes) -> None:
    """NaN in frames past the end and in unrecorded actions changes nothing; the codec is untouched."""
    hybrid, model = model_of(sizes)
    before = scores(hybrid, frames)["video/velocity"]
    frames.future[1, 2:], frames.future[2] = float("nan"), float("nan")
    frames.action[1, -3:], frames.action[4:] = float("nan"), float("nan")
    frames.features.clear()
    after = scores(hybrid, frames)["video/velocity"]
    assert torch.equal(before, after)
    after.backward()
    assert not any(p.requires_grad for p in cast("Any", model.encoder).parameters())
    for part in ("embed", "clock", "action", "blocks", "out"):
        assert learns(hybrid, f"objectives.video.network.{part}")
    other = replace(frames, future=torch.where(frames.has_future[:, :, None, None, None, None], frames.future.flip(0), 0.0), features={})
    assert not torch.equal(scores(hybrid, other)["video/velocity"], after), "frames that are there count"


def test_video_without_actions_teaches_the_answer_without_them(frames: Batch, sizes: Sizes) -> None:
    """Windows none of whose actions is known: their frames count, and no layer that reads actions learns."""
    hybrid, _ = model_of(sizes)
    silent = replace(frames, action_mask=torch.zeros_like(frames.action_mask))
    before = scores(hybrid, silent)["video/velocity"]
    assert not torch.equal(scores(hybrid, replace(silent, future=frames.future.flip(0), features={}))["video/velocity"], before)
    before.backward()
    network = cast("Any", hybrid.objectives["video"]).network
    assert all(p.grad is None or not p.grad.any() for p in network.action.parameters())
    assert learns(hybrid, "objectives.video.network.blocks")


def test_video_predict_keeps_its_history(frames: Batch, sizes: Sizes) -> None:
    """Frame by frame with kept keys and values is the whole sequence at once, step for step."""
    _, model = model_of(sizes, steps=3)
    model.eval()
    network, now = cast("CausalVideo", model.network), frame_tokens(frames, model.encoder, 0).float()
    keep = torch.ones(6, 8, dtype=torch.bool)
    with torch.no_grad():
        fast = model.predict(frames, now, frames.action, keep, torch.Generator().manual_seed(0))
        random, led = torch.Generator().manual_seed(0), model.led(side_by_side(frames.action[:, : model.horizon], model.every))
        clean = [model.standard(now)]
        for i in range(1, FRAMES + 1):
            x = torch.randn(6, 1, *now.shape[1:], generator=random)[:, 0]
            heard = torch.ones(6, i + 1, dtype=torch.bool)
            heard[:, 0] = False
            for step in range(3):
                clock = torch.ones(6, i + 1)
                clock[:, -1] = step / 3
                x = x + answer(network, torch.stack([*clean, x], dim=1), clock, led[:, : i + 1], heard)[:, -1] / 3
            clean.append(x)
    assert torch.allclose(fast, model.standard.back(clean[-1]), atol=1e-4)
    with torch.no_grad():
        short = model.predict(frames, now, frames.action, keep & (torch.arange(8) < 4), torch.Generator().manual_seed(0))
        assert torch.allclose(short, model.standard.back(clean[2]), atol=1e-4)
    with pytest.raises(ValueError, match="2 steps at a time"):
        model.predict(frames, now, frames.action, keep & (torch.arange(8) < 3), torch.Generator())


def test_guidance_asks_twice_and_moves_the_answer(frames: Batch, sizes: Sizes) -> None:
    """V4: every frame is asked for with its actions and without; what led to the frames before it stays told."""
    _, model = model_of(sizes, steps=2, guidance=2.0)
    network, heard = cast("CausalVideo", model.network), []
    network.register_forward_pre_hook(lambda _, given: heard.append((bool((given[1] == 1).all()), given[3].all().item())))
    with torch.no_grad():
        now, keep = frame_tokens(frames, model.encoder, 0).float(), torch.ones(6, 8, dtype=torch.bool)
        model.predict(frames, now, frames.action, keep, torch.Generator().manual_seed(0))
    asked = [told for clean, told in heard if not clean]
    assert asked.count(True) == asked.count(False) == 2 * FRAMES
    assert [told for clean, told in heard if clean] == [False] + [True] * (FRAMES - 1), "nothing leads to the first frame"
    now, keep = frame_tokens(frames, model.encoder, 0).float(), torch.ones(6, 8, dtype=torch.bool)
    answers = []
    for scale in (0.0, 1.0, 2.0):
        model.guidance = scale
        with torch.no_grad():
            answers.append(model.predict(frames, now, frames.action, keep, torch.Generator().manual_seed(0)))
    assert not torch.allclose(answers[0], answers[1])
    assert not torch.allclose(answers[1], answers[2])


@pytest.mark.parametrize(
    ("bad", "message"),
    [({"drop": 1.0}, "drop is from 0 to below 1"), ({"steps": 0}, "at least one step"), ({"guidance": -1.0}, "guidance")],
)
def test_impossible_settings_are_refused_in_one_line(sizes: Sizes, bad: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        made(small(**bad), sizes)


def test_v_is_regressed_and_sampled_on_its_own_indices(frames: Batch, sizes: Sizes) -> None:
    """Published: at first, where zero is predicted, the loss is the variance of v, about 1; the clocks asked for are those of DDIM."""
    hybrid = made(small(path="v", steps=2), sizes, moved=False)
    hybrid.settle(lambda: [frames])
    many = frames[torch.tensor([0, 3, 4, 5]).repeat(40)]
    assert abs(scores(hybrid, many)["video/velocity"].item() - 1.0) < 0.1
    model, asked = cast("Video", hybrid.objectives["video"]), []
    model.network.register_forward_pre_hook(lambda _, given: asked.append(round(given[1][0, -1].item(), 3)))
    now, keep = frame_tokens(frames, model.encoder, 0).float(), torch.arange(8).expand(6, 8) < 2
    with torch.no_grad():
        model.predict(frames, now, frames.action, keep, torch.Generator().manual_seed(0))
    assert asked == [1.0, 0.0, 0.5], "the history is clean, then indices 999 and 499 of 1000"


@pytest.mark.slow
def test_a_batch_is_predicted_back(frames: Batch, sizes: Sizes) -> None:
    """Two windows that begin alike: only the actions tell which frames come."""
    pair = two_alike(frames)
    hybrid = made(small(drop=0.1), sizes, moved=False)
    model = cast("Video", hybrid.objectives["video"])
    by_heart(hybrid, pair, steps=700)
    now, keep = frame_tokens(pair, model.encoder, 0).float(), torch.ones(2, 8, dtype=torch.bool)
    with torch.no_grad():
        predicted = model.predict(pair, now, pair.action, keep, torch.Generator().manual_seed(0))
        truth = frame_tokens(pair, model.encoder, 0, 3).float()
    assert (predicted - truth).abs().mean() < 0.35 * (truth[0] - truth[1]).abs().mean()
