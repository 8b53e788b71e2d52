"""specs 7.1: conventions and time."""

from collections.abc import Callable

import pytest
import torch
from jaxtyping import TypeCheckError

from wmzoo.clock import SAMPLERS, draw, interpolate, shift, to_zoo_time, velocity
from wmzoo.errors import UserError
from wmzoo.sample import euler, heun, integrate

N = 500_000


def test_interpolate_by_hand() -> None:
    """A quarter of the way from 4 to 8 is 5; the velocity is 4 everywhere."""
    source, data = torch.tensor([[4.0]]), torch.tensor([[8.0]])
    torch.testing.assert_close(interpolate(source, data, torch.tensor([0.25])), torch.tensor([[5.0]]))
    torch.testing.assert_close(velocity(source, data), torch.tensor([[4.0]]))


def test_nothing_is_broadcast() -> None:
    """Source and data of different shapes raise instead of returning a plausible number."""
    with pytest.raises(TypeCheckError):
        velocity(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4))


def test_a_clock_per_token() -> None:
    """A clock (B, N) moves each token by its own time."""
    moved = interpolate(torch.zeros(1, 2, 3), torch.ones(1, 2, 3), torch.tensor([[0.0, 0.5]]))
    torch.testing.assert_close(moved, torch.tensor([[[0.0] * 3, [0.5] * 3]]))


def test_groot_sampler_is_the_published_one() -> None:
    """T1: mean .3994, quantiles .068 / .369 / .783, support [0, .999], most mass on the noisy side."""
    torch.manual_seed(0)
    t = draw("groot", N)
    assert t.mean().item() == pytest.approx(0.3994, abs=2e-3)
    quantiles = t.quantile(torch.tensor([0.1, 0.5, 0.9]))
    torch.testing.assert_close(quantiles, torch.tensor([0.068, 0.369, 0.783]), atol=3e-3, rtol=0)
    assert t.min() >= 0
    assert t.max() <= 0.999
    assert (t < 0.5).float().mean() > 0.6  # a flipped sampler has .35


def test_legacy_sampler_has_its_negative_tail() -> None:
    """T1: P(t < 0) = .0015 for GR00T N1.5; what `draw` returns is clamped at 0."""
    torch.manual_seed(0)
    raw = SAMPLERS["legacy_n15"](N, "cpu")
    assert (raw < 0).float().mean().item() == pytest.approx(0.0015, abs=3e-4)
    assert raw.mean().item() == pytest.approx(0.3992, abs=2e-3)
    assert draw("legacy_n15", N).min() >= 0


def test_pi0_in_zoo_time_is_groot() -> None:
    """pi0 counts from the data; in zoo time its sampler has GR00T's quantiles up to the offset of .001."""
    torch.manual_seed(0)
    pi0, groot = draw("pi0", N), draw("groot", N)
    points = torch.tensor([0.1, 0.5, 0.9])
    torch.testing.assert_close(pi0.quantile(points), groot.quantile(points), atol=4e-3, rtol=0)


def test_logit_normal_and_uniform() -> None:
    """Deviations .208 and .289, both with mean one half."""
    torch.manual_seed(0)
    for name, deviation in (("logit_normal", 0.208), ("uniform", 0.2887)):
        t = draw(name, N)
        assert (t.mean().item(), t.std().item()) == pytest.approx((0.5, deviation), abs=2e-3)


def test_unknown_sampler_names_the_nearest() -> None:
    """A misspelt sampler is answered with the right one."""
    with pytest.raises(UserError, match="did you mean 'groot'"):
        draw("grot", 1)
    with pytest.raises(UserError, match="did you mean 'euler'"):
        integrate("eular", lambda x, t: x, torch.zeros(1), 1)


def _marginal_velocity(mean: float, std: float):
    """Exact velocity of the straight path from N(0, 1) to N(mean, std^2)."""

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        t = t[:, None]
        variance = (1 - t) ** 2 + t**2 * std**2
        return mean + (t * std**2 - (1 - t)) / variance * (x - t * mean)

    return field


def test_euler_lands_on_the_data_and_the_printed_sign_does_not() -> None:
    """T2: with v = data - noise, 50 steps end in N(2, .5^2); with FLARE's printed sign they run away."""
    torch.manual_seed(0)
    field, noise = _marginal_velocity(2.0, 0.5), torch.randn(20_000, 1)
    good, better = euler(field, noise, 50), heun(field, noise, 50)
    wrong = euler(lambda x, t: -field(x, t), noise, 50)
    assert abs(good.mean() - 2) < 0.05
    assert abs(good.std() - 0.5) < 0.05
    assert abs(better.std() - 0.5) < 0.02
    assert abs(wrong.mean() - 2) > 1


@pytest.mark.parametrize(("kind", "steps"), [("pi0", 10), ("rla_wm", 30), ("repa", 20)])
def test_foreign_networks_give_the_same_result(kind: str, steps: int) -> None:
    """T3: integrating in zoo time through the wrapper equals the native loop that runs from s = 1 down."""
    torch.manual_seed(0)
    weight, noise = torch.randn(3, 3), torch.randn(4, 3)

    def net(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x @ weight) * s[:, None] + x

    native = noise
    for i in range(steps):
        native = native - net(native, torch.full((4,), 1 - i / steps)) / steps
    torch.testing.assert_close(euler(to_zoo_time(kind, net), noise, steps), native, atol=1e-6, rtol=1e-6)


def test_pi0_loss_is_the_zoo_loss_with_time_turned() -> None:
    """P4: (u - (noise - data))^2 at s equals (v - (data - noise))^2 at t = 1 - s, on the same noisy value."""
    torch.manual_seed(0)
    data, noise, s = torch.randn(5, 4, 3), torch.randn(5, 4, 3), torch.rand(5)

    def net(x: torch.Tensor, s: torch.Tensor) -> torch.Tensor:
        return x * s[:, None, None] - 0.3

    foreign = s[:, None, None] * noise + (1 - s[:, None, None]) * data
    theirs = (net(foreign, s) - (noise - data)).square().mean()
    ours = (to_zoo_time("pi0", net)(interpolate(noise, data, 1 - s), 1 - s) - velocity(noise, data)).square().mean()
    torch.testing.assert_close(ours, theirs)


def test_groot_networks_pass_unchanged_and_unknown_ones_raise() -> None:
    """GR00T's convention is the zoo's; a convention nobody told us about is an error."""
    net = torch.add
    assert to_zoo_time("groot", net) is net
    with pytest.raises(UserError, match="did you mean 'pi0'"):
        to_zoo_time("pi", net)


@pytest.mark.parametrize(("steps", "expected"), [(4, [0, 250, 500, 750]), (10, [100 * i for i in range(10)])])
def test_the_clock_is_never_evaluated_at_data(steps: int, expected: list[int]) -> None:
    """T4: four steps read GR00T's table at 0, 250, 500, 750; ten steps are ten (pi0: 1.0, .9, ..., .1)."""
    seen: list[int] = []

    def field(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        seen.append(round(1000 * float(t[0])))
        return torch.zeros_like(x)

    euler(field, torch.zeros(1, 1), steps)
    assert seen == expected


def test_rae_shift() -> None:
    """T5: a = sqrt(196608 / 4096) = 6.9282; .5 goes to .87387; 0 and 1 stay; monotone; mean of the logit-normal .837."""
    torch.manual_seed(0)
    factor = (196_608 / 4096) ** 0.5
    assert factor == pytest.approx(6.9282, abs=1e-4)
    torch.testing.assert_close(shift(torch.tensor([0.0, 0.5, 1.0]), factor), torch.tensor([0.0, 0.87387, 1.0]), atol=1e-5, rtol=0)
    assert (shift(torch.linspace(0, 1, 100), factor).diff() > 0).all()
    assert shift(draw("logit_normal", N), factor).mean().item() == pytest.approx(0.837, abs=2e-3)


@pytest.mark.parametrize("clock", [(3, 1), (1,), (3, 2), (3, 4, 1)])
def test_a_clock_of_another_shape_raises(clock: tuple[int, ...]) -> None:
    """Three windows of four tokens have a clock (3,) or (3, 4)."""
    value = torch.zeros(3, 4, 2)
    interpolate(value, value, torch.zeros(3, 4))
    with pytest.raises((ValueError, TypeCheckError)):
        interpolate(value, value, torch.zeros(clock))


@pytest.mark.parametrize("integrator", [euler, heun])
@pytest.mark.parametrize("shape", [(3, 1, 2), (1, 4, 2), (4, 2), (3, 4, 1)])
def test_a_velocity_of_another_shape_raises(integrator: Callable[..., torch.Tensor], shape: tuple[int, ...]) -> None:
    """A field that would be broadcast over the value that it moves is an error that names both shapes."""
    with pytest.raises(ValueError, match=r"has the shape of its value \(3, 4, 2\)"):
        integrator(lambda x, t: torch.zeros(shape), torch.zeros(3, 4, 2), 2)
