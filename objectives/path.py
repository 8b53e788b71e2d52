"""From noise to data: which way?  Straight, or one of the two discrete diffusions that UWM and Vid2World publish.

    x_t = (1 - t) eps + t x, target x - eps, t ~ U(0, 1), Euler      Straight
    x_k = sqrt(ab_k) x + sqrt(1 - ab_k) eps, target eps or v = sqrt(ab_k) eps - sqrt(1 - ab_k) x, DDIM      Denoising
"epsilon" is UWM's, arXiv:2504.02792: 100 indices, squared cosine, the clean value clipped to [-1, 1].  "v" is Vid2World's,
arXiv:2505.14357: 1000 indices, sqrt-linear betas from .00085 to .012, rescaled so that ab_999 = 0: the last index is noise and nothing
else; trailing indices.
The rescaling is that of Lin et al. 2024, Common Diffusion Noise Schedules and Sample Steps are Flawed, arXiv:2305.08891.  A diffusion
index k of K is zoo time 1 - (k + 1) / K: the noisiest is 0.  Clocks are one for each window (B,), or one for each frame (B, T).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable
from math import inf
from typing import Any, Literal, assert_never, cast

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from jaxtyping import Float
from torch import Tensor

from wmzoo.clock import interpolate, velocity
from wmzoo.errors import UserError
from wmzoo.sample import euler

from .ddpm import SCHEDULE, add_noise, regressed, ruled, zoo_clock

Kind = Literal["flow", "epsilon", "v"]
TERMINAL: dict[str, Any] = {
    "num_train_timesteps": 1000,
    "beta_schedule": "scaled_linear",
    "beta_start": 0.00085,
    "beta_end": 0.012,
    "rescale_betas_zero_snr": True,
    "timestep_spacing": "trailing",
    "clip_sample": False,
    "prediction_type": "v_prediction",
}


class Path(ABC):
    """From noise to data: training clocks, the noisy value, what is regressed, and the way back.

    Attributes:
        term: what is regressed, as the terms of a loss are called.
        most: steps back that it can take.
    """

    term: str
    most: float = inf

    @abstractmethod
    def clocks(self, shape: tuple[int, ...], device: Any) -> Float[Tensor, "*shape"]:
        """Training clocks in zoo time."""

    @abstractmethod
    def noisy(self, noise: Tensor, value: Tensor, clock: Tensor) -> Tensor:
        """The value at a clock."""

    @abstractmethod
    def target(self, noise: Tensor, value: Tensor, clock: Tensor) -> Tensor:
        """What the network is asked for."""

    @property
    @abstractmethod
    def rule(self) -> str:
        """As `Denoiser.rule`."""

    @abstractmethod
    def back(self, predict: Callable[[Tensor, Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
        """From noise to data in so many calls of predict(value, clock (B,)).

        Raises:
            ValueError: it predicts another shape than it was asked at; nothing is broadcast.
        """


class Straight(Path):
    """Flow matching, clocks uniform."""

    term = "velocity"
    rule = "velocity, euler"

    def clocks(self, shape: tuple[int, ...], device: Any) -> Float[Tensor, "*shape"]:
        return torch.rand(shape, device=device)

    def noisy(self, noise: Tensor, value: Tensor, clock: Tensor) -> Tensor:
        return interpolate(noise, value, clock)

    def target(self, noise: Tensor, value: Tensor, clock: Tensor) -> Tensor:
        return velocity(noise, value)

    def back(self, predict: Callable[[Tensor, Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
        return euler(predict, start, steps)


class Denoising(Path):
    """Discrete diffusion; the schedule is what diffusers' DDIM takes, and takes the steps.

    Args:
        schedule: its fields.
        term: what is regressed.
    """

    def __init__(self, schedule: dict[str, Any], term: str) -> None:
        self.schedule, self.term = schedule, term
        self.alpha_bar = self.scheduler().alphas_cumprod
        self.most = len(self.alpha_bar)

    @property
    def rule(self) -> str:
        return ruled("ddim", self.schedule)

    def scheduler(self) -> DDIMScheduler:
        """A fresh one; it remembers where it is."""
        return DDIMScheduler(**self.schedule)

    def alpha(self, clock: Tensor) -> Tensor:
        """The alpha-bar of each clock."""
        last = len(self.alpha_bar) - 1
        index = ((1 - clock) * len(self.alpha_bar) - 1).round().long().clamp(0, last)
        return self.alpha_bar.to(clock.device)[index]

    def clocks(self, shape: tuple[int, ...], device: Any) -> Float[Tensor, "*shape"]:
        return zoo_clock(torch.randint(0, len(self.alpha_bar), shape, device=device), len(self.alpha_bar))

    def noisy(self, noise: Tensor, value: Tensor, clock: Tensor) -> Tensor:
        return add_noise(value, noise, self.alpha(clock))

    def target(self, noise: Tensor, value: Tensor, clock: Tensor) -> Tensor:
        return regressed(self.schedule["prediction_type"], value, noise, self.alpha(clock))

    def back(self, predict: Callable[[Tensor, Tensor], Tensor], start: Tensor, steps: int) -> Tensor:
        scheduler, value = cast("Any", self.scheduler()), start
        scheduler.set_timesteps(steps)
        for index in scheduler.timesteps:
            clock = zoo_clock(index, len(self.alpha_bar)).to(value.device).expand(len(value))
            predicted = predict(value, clock)
            if predicted.shape != value.shape:
                raise ValueError(f"what is predicted has the shape of its value {tuple(value.shape)}, not {tuple(predicted.shape)}")
            value = scheduler.step(predicted, index, value).prev_sample
        return value


def path_of(kind: Kind, steps: int = 1) -> Path:
    """The named path.

    Args:
        steps: back that will be asked of it.

    Raises:
        UserError: none, or more than it has noise levels.
    """
    path = _path(kind)
    if not 1 <= steps <= path.most:
        most = f", at most {path.most}" if path.most < inf else ""
        raise UserError(f"path {kind} is sampled in at least one step{most}, not {steps}")
    return path


def _path(kind: Kind) -> Path:
    match kind:
        case "flow":
            return Straight()
        case "epsilon":
            return Denoising(SCHEDULE, "noise")
        case "v":
            return Denoising(TERMINAL, "velocity")
        case _:
            assert_never(kind)
