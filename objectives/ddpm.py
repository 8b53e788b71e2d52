"""Diffusion Policy: denoise the action chunk on the clock of discrete diffusion.

Chi et al. 2023, Diffusion Policy, arXiv:2303.04137; Ho et al. 2020, DDPM, arXiv:2006.11239; Song et al. 2021, DDIM,
arXiv:2010.02502; Nichol and Dhariwal 2021 (squared cosine schedule), arXiv:2102.09672; Salimans and Ho 2022
(predicting v), arXiv:2202.00512.
    x_k = sqrt(ab_k) A + sqrt(1 - ab_k) eps          add_noise
    y   = eps (the paper), A or sqrt(ab_k) eps - sqrt(1 - ab_k) A      regressed
    L   = mean over valid numbers of (y_hat - y)^2   noise_loss
    DDIM, K of 100 steps, x0 clipped to [-1, 1]      Ddpm.sample (the schedulers are diffusers')
    executed: predicted[:, T_o - 1 :]                Ddpm.executable
The chunk starts at the first of the T_o observation frames, so its first T_o - 1 actions lie in the past.  The index k counts
from the data (0) to the noise (99); the trunk sees zoo time t = 1 - (k + 1) / 100, so 0 is noise here too.
We differ: actions repeated past the episode's end are masked; the original trains on them (`train_on_pad`).  The noise of DDPM's
steps is seeded by the noise that a chunk starts from.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, assert_never, cast
from zlib import crc32

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.clock import spread
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Denoiser, Sizes
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.shapes import checked

STEPS = 100
SCHEDULE = {"num_train_timesteps": STEPS, "beta_schedule": "squaredcos_cap_v2", "clip_sample": True, "prediction_type": "epsilon"}
Prediction = Literal["epsilon", "sample", "v_prediction"]  # as diffusers calls them


@checked
def add_noise(
    clean: Float[Tensor, "B *rest"], noise: Float[Tensor, "B *rest"], alpha_bar: Float[Tensor, "B"] | Float[Tensor, "B T"]
) -> Float[Tensor, "B *rest"]:
    """The noisy value, sqrt(ab) clean + sqrt(1 - ab) noise, with one ab for each window, or for each of its frames.

    Raises:
        TypeCheckError: clean and noise differ in shape; nothing is broadcast.
        ValueError: there is not one ab for each window or frame.
    """
    if alpha_bar.shape != clean.shape[: alpha_bar.ndim]:
        raise ValueError(f"alpha-bars for {tuple(clean.shape)} are {tuple(clean.shape[: alpha_bar.ndim])}, not {tuple(alpha_bar.shape)}")
    ab = spread(alpha_bar, clean)
    return ab.sqrt() * clean + (1 - ab).sqrt() * noise


@checked
def regressed(
    kind: Prediction, clean: Float[Tensor, "B *rest"], noise: Float[Tensor, "B *rest"], alpha_bar: Float[Tensor, "B"] | Float[Tensor, "B T"]
) -> Float[Tensor, "B *rest"]:
    """What the network is asked for: the noise, the clean value ("sample") or the velocity v = sqrt(ab) noise - sqrt(1 - ab) clean."""
    match kind:
        case "epsilon":
            return noise
        case "sample":
            return clean
        case "v_prediction":
            return add_noise(noise, -clean, alpha_bar)
        case _:
            assert_never(kind)


@checked
def noise_loss(prediction: Float[Tensor, "B H A"], noise: Float[Tensor, "B H A"], mask: Bool[Tensor, "B H A"]) -> Float[Tensor, "B"]:
    """Squared error of the prediction over the valid numbers of each window; 0 where there is none.

    Raises:
        TypeCheckError: the three differ in shape.
    """
    error = torch.where(mask, prediction - noise, 0.0)
    return error.square().sum(dim=(1, 2)) / mask.sum(dim=(1, 2)).clamp(min=1)


def ruled(sampler: str, schedule: dict[str, Any]) -> str:
    """A sampler and the schedule it takes, as one line."""
    return f"{sampler}, {', '.join(f'{name} {value}' for name, value in sorted(schedule.items()))}"


def zoo_clock(index: Int[Tensor, "*any"], steps: int = STEPS) -> Float[Tensor, "*any"]:
    """Zoo time of a diffusion index: of 100, k = 99 is 0 (noise), k = 0 is 0.99."""
    return 1 - (index + 1) / steps


def generators(noise: Float[Tensor, "B H A"]) -> list[torch.Generator]:
    """One for each window, seeded with the window's noise, so that what is sampled is a function of the noise alone."""
    return [torch.Generator().manual_seed(crc32(row.numpy().tobytes())) for row in noise.detach().float().cpu()]


class Ddpm(Denoiser):
    """Generates the stream "action" by denoising.

    Args:
        encode: (noisy chunk, clock, embodiment) -> tokens.
        decode: (final tokens, embodiment) -> the prediction.
        history: observation frames T_o; the chunk starts at the first of them.
        sampler: "ddim" or "ddpm", used when the policy plays.
        prediction: what the network predicts, see `regressed`.
        idle: windows without actions are asked for their noise too, as UWM's published code does.
        train_on_pad: actions repeated past the episode's end count too, as in Diffusion Policy's published code.
    """

    stream = "action"
    most = STEPS
    alpha_bar: Tensor

    def __init__(
        self,
        encode: nn.Module,
        decode: nn.Module,
        history: int,
        sampler: Literal["ddim", "ddpm"],
        prediction: Prediction = "epsilon",
        idle: bool = False,
        train_on_pad: bool = False,
    ) -> None:
        super().__init__()
        if history < 1:
            raise UserError(f"a policy sees at least one frame, not {history}")
        self.encode, self.decode, self.history, self.sampler = encode, decode, history, sampler
        self.prediction, self.idle, self.train_on_pad = prediction, idle, train_on_pad
        self.register_buffer("alpha_bar", DDPMScheduler(**SCHEDULE).alphas_cumprod, persistent=False)

    def needs(self) -> Needs:
        return Needs(history=self.history, first_action=1 - self.history)

    def forward(self, batch: Batch) -> Question:
        known = batch.action_mask
        if self.train_on_pad:  # in the numbers that this robot has
            known = known.any(dim=1, keepdim=True).expand_as(known)
        action = torch.where(known, batch.action, 0.0)
        asked = torch.ones_like(batch.has_action) if self.idle else batch.has_action
        mask = known | (asked & ~batch.has_action)[:, None, None]
        noise = torch.randn_like(action)
        index = torch.randint(0, STEPS, (len(batch),), device=action.device)
        index = torch.where(batch.has_action, index, STEPS - 1)
        alpha_bar = self.alpha_bar[index]
        noisy = torch.where(batch.has_action[:, None, None], add_noise(action, noise, alpha_bar), noise)
        target = regressed(self.prediction, action, noise, alpha_bar)

        def score(hidden: Hidden) -> dict[str, Score]:
            return {"denoise": Score(noise_loss(self.read(hidden, batch), target, mask), asked)}

        return Question(self.embed(noisy, zoo_clock(index), batch), frozenset(), score)

    def embed(self, noisy: Tensor, clock: Tensor, batch: Batch) -> dict[str, Stream]:
        return {self.stream: Stream(self.encode(noisy, clock, batch.embodiment), clock)}

    def read(self, hidden: Hidden, batch: Batch) -> Tensor:
        return self.decode(hidden.final[self.stream], batch.embodiment).float()

    def sample(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        scheduler = DDIMScheduler(**self.schedule) if self.sampler == "ddim" else DDPMScheduler(**self.schedule)
        scheduler.set_timesteps(steps)
        value, drawn = noise, cast("torch.Generator", generators(noise))  # diffusers takes one for each window too
        for index in scheduler.timesteps:
            clock = zoo_clock(index).to(value.device).expand(len(value))
            value = scheduler.step(predict(value, clock), index, value, generator=drawn).prev_sample
        return value

    @property
    def schedule(self) -> dict[str, Any]:
        """As diffusers takes it."""
        return SCHEDULE | {"prediction_type": self.prediction}

    @property
    def rule(self) -> str:
        return ruled(self.sampler, self.schedule)

    def executable(self, chunk: Tensor) -> Tensor:
        return chunk[:, self.history - 1 :]


@dataclass(frozen=True)
class Config(Blueprint):
    """Diffusion on actions.

    Attributes:
        encode, decode: the layers between actions and trunk.
        history: observation frames.
        sampler: ddim or ddpm.
        prediction: the noise (the paper), the clean chunk or the velocity v.
        idle: windows without actions are asked for their noise too.
        train_on_pad: actions repeated past the episode's end count too.
    """

    encode: Blueprint
    decode: Blueprint
    history: int = 2
    sampler: Literal["ddim", "ddpm"] = "ddim"
    prediction: Prediction = "epsilon"
    idle: bool = False
    train_on_pad: bool = False

    def build(self, sizes: Sizes) -> Ddpm:
        layers = self.encode.build(sizes), self.decode.build(sizes)
        return Ddpm(*layers, self.history, self.sampler, self.prediction, self.idle, self.train_on_pad)
