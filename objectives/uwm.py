"""UWM: the policy's trunk also generates the frame at the end of the chunk, on a clock of its own, so that one network is four.

Zhu et al. 2025, Unified World Models (UWM), arXiv:2504.02792.  A stream at t = 0 is noise and says nothing; at t = 1 it is given.
    policy     p(a | o):     the frame stays at 0, actions go from 0 to 1        wmzoo.compose.Hybrid.act
    dynamics   p(z | o, a):  actions at 1, the frame goes from 0 to 1            wmzoo.objectives.uwm.Dynamics
    inverse    p(a | o, z):  the frame at 1, actions go from 0 to 1              wmzoo.compose.Hybrid.generate
    video      p(z | o):     actions stay at 0, the frame goes from 0 to 1       wmzoo.compose.Hybrid.generate
    joint      p(a, z | o):  both go from 0 to 1 on one clock                    wmzoo.compose.Hybrid.jointly
    z  = (codec(o_{t+H}) - mean) / deviation                                     wmzoo.objectives.ahead.FrameTarget
    t_z ~ U(0, 1), independent of the action's clock, 0 in `drop` of the windows; z_t = (1 - t) eps + t z     wmzoo.clock.interpolate
    L  = mean over numbers of (V - (z - eps))^2                                  stream_loss
    published: k ~ U{0..99}, z_k = sqrt(ab_k) z + sqrt(1 - ab_k) eps, target eps, DDIM     wmzoo.objectives.path.Denoising
Windows past the end of their episode have no frame: noise at t = 0, and no loss.  Action-free video teaches the frame alone; the
published code also asks such windows for the noise of their actions (`idle` in objectives/ddpm.py; the arm at paper scale does).
We differ: flow matching by default; a policy's frame is exactly noise (published: drawn at k = 99 in training, at k = 90 in playing); the
codec's mean instead of a draw; latents standardised number by number.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.compose import Hybrid
from wmzoo.errors import UserError
from wmzoo.features import encoded, frame_tokens
from wmzoo.interfaces import Blueprint, Denoiser, Encoder, FourModes, Sizes, WorldModel
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.shapes import checked
from wmzoo.standard import Scaling

from .ahead import Ahead, Control, FrameTarget, end_of_chunk
from .path import Kind, path_of


@checked
def stream_loss(prediction: Float[Tensor, "B N X"], target: Float[Tensor, "B N X"]) -> Float[Tensor, "B"]:
    """Squared error of what a stream predicts, averaged over the numbers of each window."""
    return (prediction - target).square().mean(dim=(1, 2))


def begin_as_published(*layers: nn.Linear) -> None:
    """Matrices from 0.02 N(0, 1), biases 0; the published trunk ends in a zero of its own, and behind two zeros nothing would learn."""
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.02)
        nn.init.zeros_(layer.bias)


@dataclass(frozen=True)
class Plan:
    """How a second stream is trained and sampled.

    Attributes:
        path: of objectives/path.py.
        drop: part of the windows whose stream is noise at t = 0, as it is when the policy plays.
        steps: of sampling.
        registers: learned tokens beside it.
        blind: streams that the registers may not look at.
        history: frames up to now that the arm sees.
    """

    path: Kind
    drop: float
    steps: int
    registers: int = 0
    blind: frozenset[str] = frozenset()
    history: int = 1


class SecondStream(Denoiser):
    """A stream about the future with a clock of its own; silent while the policy plays.

    Args:
        ahead: what it holds.
        plan: how it is trained and sampled.
        width, out: of the trunk's residual stream and of its final output.
    """

    stream = "video"
    auxiliary = ("ahead",)

    def __init__(self, ahead: Ahead, plan: Plan, width: int, out: int) -> None:
        super().__init__()
        if not 0 <= plan.drop <= 1 or plan.registers < 0:
            raise UserError(f"drop is from 0 to 1, registers are none or more; not {plan.drop} and {plan.registers}")
        self.ahead, self.plan, self.path = ahead, plan, path_of(plan.path, plan.steps)
        self.encode, self.decode = nn.Linear(ahead.width, width), nn.Linear(out, ahead.width)
        self.place = nn.Parameter(0.02 * torch.randn(ahead.tokens, width))
        self.register_buffer("idle", torch.randn(ahead.tokens, ahead.width))  # what says nothing says it always alike
        if plan.path == "epsilon":
            begin_as_published(self.encode, self.decode)
        else:
            nn.init.zeros_(self.decode.weight)
            nn.init.zeros_(self.decode.bias)
        if plan.registers:
            self.registers = nn.Parameter(0.02 * torch.randn(plan.registers, width))

    def needs(self) -> Needs:
        return Needs(history=self.plan.history, futures=self.ahead.gaps)

    def settle(self, batches: Iterable[Batch]) -> None:
        self.ahead.settle(batches)

    def forward(self, batch: Batch) -> Question:
        value, valid = self.ahead(batch)
        noise = torch.randn_like(value)
        told = valid & (torch.rand(len(batch), device=value.device) >= self.plan.drop)
        clock = torch.where(told, self.path.clocks((len(batch),), value.device), 0.0)
        noisy = torch.where(told[:, None, None], self.path.noisy(noise, value, clock), noise)

        def score(hidden: Hidden) -> dict[str, Score]:
            return {self.path.term: Score(stream_loss(self.read(hidden, batch), self.path.target(noise, value, clock)), valid)}

        return Question({**self.embed(noisy, clock, batch), **self.always(batch)}, frozenset(), score)

    def always(self, batch: Batch) -> dict[str, Stream]:
        """The registers, if there are any."""
        if not self.plan.registers:
            return {}
        return {"registers": Stream(self.registers.expand(len(batch), -1, -1), blind=self.plan.blind, read=False)}

    def standing(self, batch: Batch) -> dict[str, Stream]:
        silent = cast("Tensor", self.idle).expand(len(batch), -1, -1)
        return {**self.embed(silent, torch.zeros(len(batch), device=silent.device), batch), **self.always(batch)}

    def embed(self, noisy: Tensor, clock: Tensor, batch: Batch) -> dict[str, Stream]:
        return {self.stream: Stream(self.encode(noisy) + self.place, clock)}

    def read(self, hidden: Hidden, batch: Batch) -> Tensor:
        return self.decode(hidden.final[self.stream]).float()

    def sample(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        return self.path.back(predict, noise, steps)

    @property
    def rule(self) -> str:
        return self.path.rule

    def dynamics(self, hybrid: Hybrid) -> WorldModel:
        return Dynamics(hybrid, self)

    @abstractmethod
    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        """The frame of these tokens."""


class Uwm(SecondStream):
    """Owns the stream "video": latents of the codec.

    Args:
        size: pixels of a frame's side.
    """

    def __init__(self, ahead: FrameTarget, plan: Plan, width: int, out: int, size: int) -> None:
        super().__init__(ahead, plan, width, out)
        self.size = size

    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        return cast("Any", self.ahead.encoder).paint(tokens, self.size)


class Dynamics(WorldModel, FourModes):
    """The whole hybrid as a world model: actions given, what lies at the chunk's end sampled and turned into tokens.

    A prediction that it goes on from is the newest frame of the history that the observer is shown: as features, where the observer reads
    that feature space, or painted.  Other cameras keep their newest recorded frame; the robot's own state is then unknown.

    Raises:
        UserError: the observer cannot be shown a prediction.
    """

    def __init__(self, hybrid: Hybrid, objective: SecondStream) -> None:
        super().__init__()
        self.hybrid, self.objective, self.ahead = hybrid, objective, objective.ahead
        self.view, self.steps = self.ahead.view, objective.plan.steps
        self.horizon = self.every = self.ahead.gaps[0]
        self.name = next(name for name, part in hybrid.objectives.items() if part is objective)
        self.playing = next(name for name, part in hybrid.objectives.items() if isinstance(part, Denoiser) and part.stream == "action")
        reader = getattr(hybrid.observer, "encoder", None)
        self.by_features = getattr(reader, "fingerprint", None) == getattr(self.encoder, "fingerprint", "")
        if not (self.by_features or isinstance(self.ahead, FrameTarget)):
            raise UserError("a policy is a world model where its observer reads the frozen feature space that it predicts")

    @property
    def encoder(self) -> Encoder:
        return self.ahead.encoder

    def forward(self, batch: Batch) -> Question:
        raise NotImplementedError("the hybrid trains it")

    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        return self.objective.paint(tokens)

    def seen(self, batch: Batch, now: Float[Tensor, "B P E"]) -> Batch:
        """The batch as the observer would see it if `now` were the present frame's tokens; as it is where they are."""
        if now.is_meta:
            return replace(batch, features={}) if self.by_features else batch
        own = (now == frame_tokens(batch, self.encoder, self.view).float()).flatten(1).all(dim=1)
        if own.all():
            return batch
        state = batch.has_state & own
        if not self.by_features:
            return replace(batch, image=self.after(batch.image, self.paint(now).clamp(0, 1), own), features={}, has_state=state)
        tokens = encoded(batch, self.encoder, "now").unflatten(1, (*batch.image.shape[1:3], -1))
        key = f"{cast('Any', self.encoder).fingerprint}/now"
        return replace(batch, features={key: self.after(tokens, now.to(tokens.dtype), own)}, has_state=state)

    def after(self, history: Float[Tensor, "B T V *frame"], newest: Float[Tensor, "B *frame"], own: Bool[Tensor, "B"]) -> Tensor:
        """The history one frame on, with this frame of one camera; as it was where the frame is its own newest one."""
        moved = torch.cat([history[:, 1:], history[:, -1:]], dim=1)
        moved[:, -1, self.view] = newest
        return torch.where(own.reshape(-1, *[1] * (history.ndim - 1)), history, moved)

    def predict(
        self,
        batch: Batch,
        now: Float[Tensor, "B P E"],
        action: Float[Tensor, "B H A"],
        keep: Bool[Tensor, "B H"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B P E"]:
        if not (keep.is_meta or bool(keep.all())):
            raise ValueError(f"this model looks {self.horizon} steps ahead, no less")
        return self.frame(batch, now, self.noise(now, generator), {self.playing: action})

    def video(self, batch: Batch, now: Float[Tensor, "B P E"], generator: torch.Generator) -> Float[Tensor, "B P E"]:
        untold = torch.randn(len(now), self.horizon, batch.action.shape[2], generator=generator, device=now.device)
        return self.frame(batch, now, {**self.noise(now, generator), self.playing: untold}, {})

    def frame(self, batch: Batch, now: Tensor, noise: dict[str, Tensor], given: dict[str, Tensor]) -> Float[Tensor, "B P E"]:
        """What lies at the chunk's end, given this; what is neither given nor asked for stays noise."""
        return self.ahead.arrive(now, self.hybrid.generate(self.seen(batch, now), self.name, noise, self.steps, given))

    def noise(self, now: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """For its own stream."""
        shape = (len(now), self.ahead.tokens, self.ahead.width)
        return {self.name: now.new_zeros(shape) if now.is_meta else torch.randn(shape, generator=generator, device=now.device)}

    def inverse(self, batch: Batch, generator: torch.Generator, told: bool = True) -> Float[Tensor, "B H A"]:
        shape = len(batch), self.horizon, batch.action.shape[2]
        noise = {self.playing: torch.randn(shape, generator=generator, device=generator.device)}
        given = {self.name: self.ahead(batch)[0]} if told else {}
        return self.hybrid.generate(batch, self.playing, noise, self.steps, given)


@dataclass(frozen=True)
class Config(Blueprint):
    """The video stream of UWM.

    Attributes:
        codec: models/codec.py.
        gaps: control steps to the generated frames; the published model generates two, at the chunk's end and one step on.
        path: of objectives/path.py; epsilon, the published one, clips latents to [-1, 1]: they must not be scaled to a deviation of 1.
        drop: part of the windows whose video says nothing.
        steps: of sampling frames.
        registers: learned tokens beside them.
        scaling: of the latents.
        control: of the target: "none"; "current" is UWM's ablation that reconstructs the present; "shuffled".
        blind: streams that the registers may not look at; hybrids in which nobody may look at the video name it here too.
        history: frames up to now that the arm sees.
    """

    codec: Blueprint
    gaps: tuple[int, ...] = (16,)
    path: Kind = "flow"
    drop: float = 0.2
    steps: int = 10
    registers: int = 8
    scaling: Scaling = "measured"
    control: Control = "none"
    blind: tuple[str, ...] = ()
    history: int = 1

    def target(self, sizes: Sizes) -> FrameTarget:
        """What the stream holds."""
        return FrameTarget(cast("Encoder", self.codec.build(sizes)), self.gaps, sizes.views, self.scaling, self.control)

    def build(self, sizes: Sizes) -> Uwm:
        end_of_chunk(self.gaps, sizes.horizon)
        if self.path == "epsilon" and self.scaling == "measured":
            raise UserError(
                "path epsilon clips latents to [-1, 1], which measured scaling exceeds: say scaling none or tenth, or path flow"
            )
        plan = Plan(self.path, self.drop, self.steps, self.registers, frozenset(self.blind), self.history)
        return Uwm(self.target(sizes), plan, sizes.width, sizes.out, sizes.image)
