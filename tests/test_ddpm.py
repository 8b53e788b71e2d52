"""specs 7.4: Diffusion Policy's schedule, loss and samplers."""

from dataclasses import replace
from typing import Literal, cast

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import TypeCheckError
from torch import Tensor

from wmzoo.batch import Batch
from wmzoo.interfaces import Sizes
from wmzoo.models import embodiment
from wmzoo.objectives.ddpm import SCHEDULE, Config, Prediction, add_noise, noise_loss, regressed, zoo_clock
from wmzoo.question import Hidden

INS, OUTS = embodiment.InConfig(), embodiment.OutConfig()


def test_schedule_constants(sizes: Sizes) -> None:
    """D1: squaredcos_cap_v2(100) has these alpha-bars."""
    alpha_bar = Config(INS, OUTS).build(sizes).alpha_bar
    expected = torch.tensor([0.9993687, 0.4782646, 0.0195444, 2.4286e-4, 2.4285e-7])
    torch.testing.assert_close(alpha_bar[[0, 50, 90, 98, 99]], expected, rtol=1e-4, atol=0)


def test_ddim_visits_every_tenth_index() -> None:
    """D2: ten steps with leading spacing are 90, 80, ..., 0."""
    scheduler = DDIMScheduler(**SCHEDULE)
    scheduler.set_timesteps(10)
    assert scheduler.timesteps.tolist() == list(range(90, -1, -10))


def test_add_noise_is_diffusers() -> None:
    """D3: our one-line formula equals the scheduler's on random tensors."""
    torch.manual_seed(0)
    scheduler = DDPMScheduler(**SCHEDULE)
    clean, noise, index = torch.randn(5, 4, 3), torch.randn(5, 4, 3), torch.tensor([0, 20, 50, 90, 99])
    ours = add_noise(clean, noise, scheduler.alphas_cumprod[index])
    theirs = scheduler.add_noise(clean, noise, cast("torch.IntTensor", index))
    torch.testing.assert_close(ours, theirs, atol=1e-6, rtol=1e-6)


def test_ddim_by_hand(sizes: Sizes) -> None:
    """D3: the sampler equals x0 = clip((x - sqrt(1 - ab) e) / sqrt(ab)), x' = sqrt(ab') x0 + sqrt(1 - ab') e."""
    torch.manual_seed(0)
    ddpm, noise = Config(INS, OUTS).build(sizes), torch.randn(2, 8, 3)
    ours = ddpm.sample(lambda x, t: 0.3 * x * t[:, None, None], noise, 10)
    value = noise
    for k in range(90, -1, -10):
        e = 0.3 * value * zoo_clock(torch.tensor([k])).item()
        now = ddpm.alpha_bar[k]
        after = ddpm.alpha_bar[k - 10] if k else torch.tensor(1.0)
        clean = ((value - (1 - now).sqrt() * e) / now.sqrt()).clamp(-1, 1)
        # diffusers keeps the prediction as it was, also where x0 was clipped; after ab' = alpha_bar[0] at the end
        value = (after if k else ddpm.alpha_bar.new_tensor(1.0)).sqrt() * clean + (1 - after).sqrt() * e
    torch.testing.assert_close(ours, value, atol=1e-5, rtol=1e-5)


def test_noise_loss_by_hand_and_shapes() -> None:
    """Errors 2 and 4 count, padding does not: (4 + 16) / 2 = 10; another shape raises."""
    prediction, mask = torch.tensor([[[2.0], [4.0], [9.0]]]), torch.tensor([[[True], [True], [False]]])
    assert noise_loss(prediction, torch.zeros(1, 3, 1), mask).tolist() == [10.0]
    with pytest.raises(TypeCheckError):
        noise_loss(prediction, torch.zeros(1, 1, 1), mask)


def test_regressed_by_hand() -> None:
    """ab = .64, A = 1, eps = 2: the noise 2, the chunk 1, v = .8 * 2 - .6 * 1 = 1."""
    clean, noise, alpha_bar = torch.ones(1, 1, 1), torch.full((1, 1, 1), 2.0), torch.tensor([0.64])
    assert regressed("epsilon", clean, noise, alpha_bar).item() == 2
    assert regressed("sample", clean, noise, alpha_bar).item() == 1
    assert regressed("v_prediction", clean, noise, alpha_bar).item() == pytest.approx(1.0)


@pytest.mark.parametrize("kind", ["epsilon", "sample", "v_prediction"])
def test_a_perfect_prediction_is_sampled_back(kind: Prediction, sizes: Sizes) -> None:
    """Told the truth at every index, DDIM returns the chunk, whatever the network is asked for."""
    torch.manual_seed(0)
    ddpm = Config(INS, OUTS, prediction=kind).build(sizes)
    clean = torch.rand(2, 8, 3) * 2 - 1

    def oracle(value: Tensor, clock: Tensor) -> Tensor:
        alpha_bar = ddpm.alpha_bar[((1 - clock) * 100 - 1).round().long()]
        noise = (value - alpha_bar.sqrt()[:, None, None] * clean) / (1 - alpha_bar).sqrt()[:, None, None]
        return regressed(kind, clean, noise, alpha_bar)

    torch.testing.assert_close(ddpm.sample(oracle, torch.randn(2, 8, 3), 10), clean, atol=1e-4, rtol=0)


def test_clock_is_zoo_time() -> None:
    """k = 99 is noise (0), k = 0 is nearly data (.99); ascending in k is descending in t."""
    torch.testing.assert_close(zoo_clock(torch.tensor([99, 49, 0])), torch.tensor([0.0, 0.5, 0.99]))


def test_executed_slice(sizes: Sizes) -> None:
    """D5: with two observation frames the chunk that starts now is pred[:, 1:]."""
    ddpm = Config(INS, OUTS, history=2).build(sizes)
    assert ddpm.executable(torch.arange(8.0).reshape(1, 8, 1)).flatten().tolist() == [1, 2, 3, 4, 5, 6, 7]
    needs = ddpm.needs()
    assert (needs.history, needs.first_action) == (2, -1)


def test_action_free_rows_are_pure_noise(batch: Batch, sizes: Sizes) -> None:
    """They stand at the noise end and their term does not count."""
    ddpm = Config(INS, OUTS, history=1).build(sizes)
    clock = ddpm(batch).streams["action"].clock
    assert isinstance(clock, torch.Tensor)
    assert (clock[~batch.has_action] == 0).all()


def test_repeated_actions_count_where_asked(batch: Batch, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """Past the end of the episode nothing is asked, unless `train_on_pad`; numbers that this robot has not are never asked."""
    padded = replace(batch, action_mask=batch.action_mask.clone())
    padded.action_mask[0, 5:], padded.action_mask[0, :, 2] = False, False
    asked = {}
    for pad in (False, True):
        ddpm = Config(INS, OUTS, history=1, train_on_pad=pad).build(sizes)
        question = ddpm(padded)
        hidden = Hidden({}, {"action": torch.zeros(6, 8, sizes.out)})
        answer = ddpm.read(hidden, padded).detach().requires_grad_()
        monkeypatch.setattr(ddpm, "read", lambda *_, answer=answer: answer)
        question.score(hidden)["denoise"].mean().backward()
        assert answer.grad is not None
        asked[pad] = answer.grad[0] != 0
    assert asked[False].tolist() == padded.action_mask[0].tolist()
    assert asked[True].tolist() == [[True, True, False]] * 8


def test_ddpm_sampler_recovers_a_known_point(sizes: Sizes) -> None:
    """With the exact noise prediction for data at 0.5, both samplers end at 0.5."""
    torch.manual_seed(0)
    for sampler, steps in (("ddim", 10), ("ddpm", 100)):
        ddpm = Config(INS, OUTS, sampler=sampler).build(sizes)  # type: ignore[arg-type]

        def exact(x: torch.Tensor, t: torch.Tensor, alpha_bar: torch.Tensor = ddpm.alpha_bar) -> torch.Tensor:
            ab = alpha_bar[(100 * (1 - t) - 1).round().long()][:, None, None]
            return (x - ab.sqrt() * 0.5) / (1 - ab).sqrt()

        result = ddpm.sample(exact, torch.randn(2, 8, 3), steps)
        torch.testing.assert_close(result, torch.full_like(result, 0.5), atol=0.02, rtol=0)


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
def test_the_chunk_is_a_function_of_the_noise(sampler: Literal["ddim", "ddpm"], sizes: Sizes) -> None:
    """Whatever torch's own generator did before: the same noise gives the same chunk, other noise another one, and a window
    alone what it gives among others."""
    ddpm, noise = Config(INS, OUTS, sampler=sampler).build(sizes), torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(0))

    def drawn(seed: int, noise: Tensor) -> Tensor:
        torch.manual_seed(seed)
        return ddpm.sample(lambda x, t: 0.3 * x * t[:, None, None], noise, 10)

    chunk = drawn(0, noise)
    assert torch.equal(drawn(1, noise), chunk)
    assert not torch.equal(drawn(0, noise + 0.01), chunk)
    torch.testing.assert_close(drawn(2, noise[1:2]), chunk[1:2])
