"""The ways from noise to data: straight, and the two discrete diffusions against those of diffusers."""

from typing import Any, cast

import pytest
import torch
from torch import Tensor

from wmzoo.clock import interpolate
from wmzoo.objectives.ddpm import zoo_clock
from wmzoo.objectives.path import Denoising, Kind, Straight, path_of


def test_straight_is_interpolate_and_velocity() -> None:
    noise, value, clock = torch.randn(3, 2, 4), torch.randn(3, 2, 4), torch.tensor([0.0, 0.25, 1.0])
    path = path_of("flow")
    assert isinstance(path, Straight)
    assert torch.equal(path.noisy(noise, value, clock), interpolate(noise, value, clock))
    assert torch.equal(path.target(noise, value, clock), value - noise)
    assert torch.allclose(path.back(lambda x, t: value - noise, noise, 7), value, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "indices", "visited"),
    [
        ("epsilon", [0, 50, 99], [90, 80, 70, 60, 50, 40, 30, 20, 10, 0]),
        ("v", [0, 500, 999], [999, 899, 799, 699, 599, 499, 399, 299, 199, 99]),
    ],
)
def test_denoising_is_that_of_diffusers(kind: Kind, indices: list[int], visited: list[int]) -> None:
    """D3, V5: noisy value and target are the scheduler's; told the truth, DDIM ends at the value; published are these indices."""
    path, seen = cast("Denoising", path_of(kind)), []
    noise, value, index = torch.randn(3, 2, 4), torch.rand(3, 2, 4) * 2 - 1, cast("Any", torch.tensor(indices))
    clock = zoo_clock(index, len(path.alpha_bar))
    assert torch.allclose(path.noisy(noise, value, clock), path.scheduler().add_noise(value, noise, index), atol=1e-6)
    regressed = path.scheduler().get_velocity(value, noise, index) if kind == "v" else noise
    assert torch.allclose(path.target(noise, value, clock), regressed, atol=1e-6)

    def predict(x: Tensor, clock: Tensor) -> Tensor:
        ab = path.alpha(clock)[0]
        seen.append(round(((1 - clock[0]) * len(path.alpha_bar) - 1).item()))
        added = (x - ab.sqrt() * value) / (1 - ab).sqrt()
        return path.target(added, value, clock)

    assert torch.allclose(path.back(predict, noise, 10), value, atol=1e-4)
    assert seen == visited


def test_the_last_index_of_v_is_noise_and_nothing_else() -> None:
    """V5: alpha_bar[999] = 0, so what is regressed there is minus the value; epsilon's last index keeps a trace."""
    path = cast("Denoising", path_of("v"))
    assert path.alpha_bar[999] == 0
    assert len(path.alpha_bar) == 1000
    assert bool((path.alpha_bar.diff() < 0).all())
    noise, value, clock = torch.randn(2, 3), torch.randn(2, 3), torch.zeros(2)
    assert torch.equal(path.noisy(noise, value, clock), noise)
    assert torch.equal(path.target(noise, value, clock), -value)
    assert cast("Denoising", path_of("epsilon")).alpha_bar[-1] > 0


@pytest.mark.parametrize("kind", ["flow", "epsilon", "v"])
def test_each_frame_may_have_a_clock(kind: Kind) -> None:
    """V3: clocks (B, T), all different; each frame is as noisy as it would be by itself; another shape raises."""
    torch.manual_seed(0)
    path = path_of(kind)
    noise, value, clock = torch.randn(2, 5, 3, 4), torch.randn(2, 5, 3, 4), path.clocks((2, 5), "cpu")
    assert clock.shape == (2, 5)
    assert len(clock.unique()) == 10
    assert bool((clock >= 0).all() and (clock < 1).all())
    for made in (path.noisy(noise, value, clock), path.target(noise, value, clock)):
        assert made.shape == value.shape
    for i in range(5):
        alone = path.noisy(noise[:, i], value[:, i], clock[:, i])
        assert torch.equal(path.noisy(noise, value, clock)[:, i], alone)
    with pytest.raises(ValueError, match=r"\(2, 5\), not \(2, 4\)"):
        path.noisy(noise, value, clock[:, :4])
