"""A causal, action-conditioned video model: frame after frame, each denoised given those before it and the actions that led to it.

In the manner of Huang et al. 2025, Vid2World, arXiv:2505.14357; Chen et al. 2024, Diffusion Forcing, arXiv:2407.01392.
    z_{tau,t} = (1 - t_tau) eps + t_tau z_tau, t_tau ~ U(0, 1) for every frame       wmzoo.clock.interpolate
    L   = mean over windows and frames of (V_tau - (z_tau - eps_tau))^2              frame_loss
    published: an index of 1000 for every frame, v regressed, no signal at the last index, DDIM     wmzoo.objectives.path.Denoising
    V   = V(no action) + scale (V(action) - V(no action)), of the last frame's action alone     guided
    sampled frame by frame; the history is clean, its keys and values computed once     wmzoo.objectives.video.Video.predict
    a temporal convolution made causal                                                  wmzoo.models.video.causal_taps
We differ: flow matching by default; no pretrained network; the history is clean (published code: lightly noised); values are not rescaled
with the index, nor the guided answer; the codec's frames are 96 pixels.
The actions that led to a frame are not heard with probability 0.2 in training, those of the first frame never, nor unrecorded ones: video
without actions teaches the answer without them.  A frame past the end of its episode does not count; the first frame always does.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Blueprint, Encoder, Sizes, WorldModel
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked
from wmzoo.standard import Standardiser

from .foresight import clip, side_by_side, skill, whole_steps
from .path import Kind, path_of


@checked
def frame_loss(predicted: Float[Tensor, "B T P E"], target: Float[Tensor, "B T P E"], valid: Bool[Tensor, "B T"]) -> Float[Tensor, "B"]:
    """Squared error of each frame, averaged over the frames of each window that are there."""
    error = (predicted - target).square().mean(dim=(2, 3))
    return torch.where(valid, error, 0.0).sum(dim=1) / valid.sum(dim=1).clamp(min=1)


@checked
def guided(told: Float[Tensor, "*shape"], untold: Float[Tensor, "*shape"], scale: float) -> Float[Tensor, "*shape"]:
    """Guidance: 1 is the answer with actions, 0 that without; Vid2World's strength lambda is a scale of 1 + lambda."""
    return untold + scale * (told - untold)


class Video(WorldModel):
    """Frames `every` control steps apart.

    Args:
        network: models/video.py.
        size: pixels of a frame's side.
        view: camera.
        horizon: control steps of a chunk.
        drop: part of the frames whose actions are not heard in training.
        guidance: scale in sampling.
        steps: of sampling a frame.
        path: of objectives/path.py.
    """

    def __init__(
        self, network: nn.Module, size: int, view: int, horizon: int, drop: float, guidance: float, steps: int, path: Kind = "flow"
    ) -> None:
        super().__init__()
        self.every = cast("Any", network).every
        if horizon < self.every:
            raise UserError(f"frames {self.every} steps apart need a chunk as long, this arm has {horizon}")
        if not 0 <= drop < 1 or guidance < 0:
            raise UserError(f"drop is from 0 to below 1, guidance at least 0; not {drop} and {guidance}")
        self.network, self.size, self.view, self.steps = network, size, view, steps
        self.horizon, self.frames = horizon - horizon % self.every, horizon // self.every
        self.drop, self.guidance, self.path = drop, guidance, path_of(path, steps)
        self.standard = Standardiser(self.encoder.width)

    @property
    def encoder(self) -> Encoder:
        return cast("Any", self.network).encoder

    def needs(self) -> Needs:
        return Needs(futures=tuple(self.every * (i + 1) for i in range(self.frames)))

    def settle(self, batches: Iterable[Batch]) -> None:
        with torch.no_grad():
            self.standard.fit(frame_tokens(batch, self.encoder, self.view).float() for batch in batches)

    def forward(self, batch: Batch) -> Question:
        recorded = clip(batch, self.encoder, self.view, self.every, self.frames)
        valid = torch.cat([torch.ones_like(recorded.shown[:, :1]), recorded.shown], dim=1)
        frames = torch.where(valid[..., None, None], self.standard(recorded.frames), 0.0)
        action = self.led(recorded.action)
        noise, clock = torch.randn_like(frames), self.path.clocks(tuple(valid.shape), frames.device)
        told = torch.cat([torch.zeros_like(recorded.there[:, :1]), recorded.there], dim=1)
        keep = told & (torch.rand(valid.shape, device=frames.device) >= self.drop)

        def score(_: Hidden) -> dict[str, Score]:
            predicted, _past = self.network(self.path.noisy(noise, frames, clock), clock, action, keep)
            return {"velocity": Score(frame_loss(predicted, self.path.target(noise, frames, clock), valid), torch.ones_like(valid[:, 0]))}

        def watch(_: Hidden) -> dict[str, Tensor]:
            rows = recorded.there.all(dim=1).nonzero().flatten()[:16]
            if len(rows) < 2:
                return {}
            few, now = batch[rows], recorded.frames[rows, 0]
            every = torch.ones(len(rows), self.horizon, dtype=torch.bool, device=now.device)
            predicted = self.predict(few, now, few.action[:, : self.horizon], every, torch.Generator(now.device).manual_seed(0))
            return {"skill": skill(predicted, now, recorded.frames[rows, -1])}

        return Question({}, frozenset(), score, watch)

    def led(self, action: Float[Tensor, "B T C"]) -> Float[Tensor, "B F C"]:
        """The actions that lead to each frame, the first one included: none lead to it."""
        return torch.cat([torch.zeros_like(action[:, :1]), action], dim=1)

    def predict(
        self,
        batch: Batch,
        now: Float[Tensor, "B P E"],
        action: Float[Tensor, "B H A"],
        keep: Bool[Tensor, "B H"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B P E"]:
        taken = action[:, : whole_steps(keep, self.horizon, self.every)]
        led, newest = self.led(side_by_side(taken, self.every)), self.standard(now)[:, None]
        past = self.known(newest, led[:, :1], torch.zeros_like(keep[:, :1]), None)
        for i in range(1, led.shape[1]):
            shape = newest.shape
            start = newest.new_zeros(shape) if now.is_meta else torch.randn(shape, generator=generator, device=now.device)
            newest = self.path.back(self.field(led[:, i : i + 1], past), start, self.steps)
            if i + 1 < led.shape[1]:
                past = self.known(newest, led[:, i : i + 1], torch.ones_like(keep[:, :1]), past)
        return self.standard.back(newest[:, 0])

    def known(self, frame: Float[Tensor, "B 1 P E"], led: Tensor, heard: Bool[Tensor, "B 1"], past: Any) -> Any:
        """The past with one more clean frame."""
        return self.network(frame, torch.ones(len(frame), 1, device=frame.device), led, heard, past)[1]

    def field(self, led: Float[Tensor, "B 1 C"], past: Any) -> Callable[[Tensor, Tensor], Tensor]:
        """What the path regresses, of the next frame."""

        def answer(x: Tensor, t: Tensor) -> Tensor:
            heard = torch.ones(len(x), 1, dtype=torch.bool, device=x.device)
            told = self.network(x, t[:, None], led, heard, past)[0]
            if self.guidance == 1:
                return told
            return guided(told, self.network(x, t[:, None], led, ~heard, past)[0], self.guidance)

        return answer

    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        return cast("Any", self.encoder).paint(tokens, self.size)


@dataclass(frozen=True)
class Config(Blueprint):
    """The causal video model as a world model.

    Attributes:
        network: models/video.py.
        drop: part of the frames whose actions are not heard in training.
        guidance: scale in sampling; 1 asks once a step, anything else twice.
        steps: of sampling a frame.
        view: camera.
        path: of objectives/path.py; v is the published one.
    """

    network: Blueprint
    drop: float = 0.2
    guidance: float = 1.0
    steps: int = 10
    view: int = 0
    path: Kind = "flow"

    def build(self, sizes: Sizes) -> Video:
        network = self.network.build(sizes)
        return Video(network, sizes.image, self.view, sizes.horizon, self.drop, self.guidance, self.steps, self.path)
