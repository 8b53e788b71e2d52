"""What does UWM's network look like, weight for weight?  The parity mode of the trunk: the observation modulates, nothing looks at it.

Zhu et al. 2025, Unified World Models (UWM), arXiv:2504.02792, and its public code.
One vector [frames seen, both clocks] scales, shifts and gates every block (adaLN-zero); the sequence is actions, frames, registers.  The
clocks are diffusion indices, k = 100 (1 - t) - 1.  384,915,082 parameters for 3 cameras and 8 registers (10 numbers an action, 171 tokens),
297,589,639 for 2 cameras and 24 registers (7 numbers, 138 tokens).  `renamed` hands out a public state dict.
We differ: an instruction is added to what is seen of each frame (its projection starts at zero; published: one task per network).
"""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import ClassVar, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.features import encoded
from wmzoo.interfaces import Blueprint, Encoder, Memory, Sizes, Trunk
from wmzoo.question import Hidden, Stream

from .attention import OBSERVATION, Attention, self_mask, silence
from .dit import check_taps, cut, resolve_clock
from .unet1d import step_sinusoid, to_index

CLOCK = 512  # numbers of the vector of both clocks
ACTION, VIDEO = "action", "video"


class DualClock(nn.Module):
    """Two diffusion indices as one vector: a sinusoid each, [sin, cos], then two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Sequential(nn.Linear(2 * CLOCK, 4 * CLOCK), nn.Mish(), nn.Linear(4 * CLOCK, CLOCK))

    def forward(self, action: Float[Tensor, "B"], video: Float[Tensor, "B"]) -> Float[Tensor, "B C"]:
        """Both clocks in zoo time."""
        waves = torch.cat([step_sinusoid(to_index(clock), CLOCK) for clock in (action, video)], dim=-1)
        return self.proj(waves.to(cast("nn.Linear", self.proj[0]).weight.dtype))


class VectorBlock(nn.Module):
    """Attention and GELU, scaled, shifted and gated by one vector; the identity at the start."""

    def __init__(self, width: int, heads: int, condition: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = (nn.LayerNorm(width, eps=1e-6, elementwise_affine=False) for _ in range(2))
        self.attn = Attention(width, heads)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.modulation = nn.Linear(condition, 6 * width)

    def forward(self, x: Float[Tensor, "B N D"], vector: Float[Tensor, "B C"], mask: Tensor | None) -> Float[Tensor, "B N D"]:
        """`vector` is behind its SiLU."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(vector)[:, None].chunk(6, dim=-1)
        x = x + gate_a * self.attn(self.norm1(x) * (1 + scale_a) + shift_a, mask=mask)
        h = self.norm2(x) * (1 + scale_m) + shift_m
        return x + gate_m * self.down(gelu(self.up(h)))


class UwmTrunk(Trunk):
    """UWM's transformer.  It needs the streams "observation", "action" and "video", whose clocks it reads; others are tokens beside them.

    Args:
        width, depth, heads: of the blocks.
        seen: numbers of the whole observation.
        registers: learned tokens at the end of the sequence.
    """

    def __init__(self, width: int, depth: int, heads: int, seen: int, registers: int) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise UserError(f"a trunk of width {width} cannot have {heads} heads: choose a divisor of the width")
        self.width, self.depth, self.out, self.remembers, self.seen = width, depth, width, False, seen
        self.clocks = DualClock()
        self.registers = nn.Parameter(torch.empty(registers, width))
        self.places = nn.Parameter(torch.empty(registers, width))
        self.blocks = nn.ModuleList(VectorBlock(width, heads, seen + CLOCK) for _ in range(depth))
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.modulation, self.linear = nn.Linear(seen + CLOCK, 2 * width), nn.Linear(width, width)
        begin(self)
        zeroed = [cast("VectorBlock", block).modulation for block in self.blocks] + [self.modulation, self.linear]
        for layer in zeroed:
            nn.init.zeros_(layer.weight)

    def remember(self, observation: Stream) -> Memory:
        raise ValueError("nothing looks at the observation here, so there is nothing to remember")

    def forward(self, streams: Mapping[str, Stream], taps: AbstractSet[int] = frozenset(), memory: Memory | None = None) -> Hidden:
        """One pass.

        Raises:
            ValueError: a tap outside 0..depth, a stream is missing, an observation of another size or with padding, a clock per token, or
                a stream that wants what one vector for all cannot give: a clock of its own, or not to see the observation.
        """
        check_taps(taps, self.depth)
        sequence = dict(streams)
        if missing := {OBSERVATION, ACTION, VIDEO} - sequence.keys():
            raise ValueError(f"this trunk reads the streams {sorted(missing)} too, there are {sorted(streams)}")
        seen = sequence.pop(OBSERVATION).tokens.flatten(1)
        if seen.shape[1] != self.seen:
            raise ValueError(f"this trunk is modulated by {self.seen} numbers of observation, not {seen.shape[1]}; use its observer")
        if streams[OBSERVATION].keep is not None:
            raise ValueError("the whole observation modulates this trunk, so it can have no padding")
        for name, stream in sequence.items():
            if OBSERVATION in stream.blind:
                raise ValueError(f"the stream {name!r} is not to see the observation, which modulates every token here")
            if name not in (ACTION, VIDEO) and isinstance(stream.clock, Tensor):
                raise ValueError(f"the stream {name!r} has a clock of its own: this trunk has those of {ACTION!r} and {VIDEO!r} alone")
        clean = torch.ones(len(seen), device=seen.device)
        times = [resolve_clock(sequence, sequence[name], clean) for name in (ACTION, VIDEO)]
        if any(time.ndim != 1 for time in times):
            raise ValueError("this trunk has one clock a window for the actions and one for the video")
        vector = silu(torch.cat([seen, self.clocks(*times).to(seen.dtype)], dim=-1))
        order = {ACTION: sequence.pop(ACTION), VIDEO: sequence.pop(VIDEO), **sequence}
        last = (self.registers + self.places).expand(len(seen), -1, -1)
        shown = {**order, " registers": Stream(last)}
        sizes = {name: stream.tokens.shape[1] for name, stream in shown.items()}
        mask, x = self_mask(shown), torch.cat([silence(stream) for stream in shown.values()], dim=1)
        hidden = {0: x}
        for depth, block in enumerate(self.blocks, start=1):
            x = block(x, vector, mask)
            hidden[depth] = x
        shift, scale = self.modulation(vector)[:, None].chunk(2, dim=-1)
        final = self.linear(self.norm(x) * (1 + scale) + shift)
        return Hidden({tap: cut(hidden[tap], sizes) for tap in taps}, cut(final, sizes))


def begin(network: nn.Module) -> None:
    """Every matrix and table from 0.02 N(0, 1), every bias 0."""
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            nn.init.normal_(parameter, std=0.02)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)


def two_layers(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """Linear, Mish, linear."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.Mish(), nn.Linear(hidden, outputs))


class ActionIn(nn.Module):
    """Noisy actions to tokens with places; one set of weights for all robots."""

    def __init__(self, action: int, width: int, horizon: int) -> None:
        super().__init__()
        self.project = two_layers(action, 4 * max(action, width), width)
        self.place = nn.Parameter(torch.empty(horizon, width))
        begin(self)

    def forward(self, noisy: Float[Tensor, "B H A"], clock: Float[Tensor, "B"], embodiment: Tensor) -> Float[Tensor, "B H D"]:
        """The tokens.

        Raises:
            ValueError: a chunk of another length; nothing is broadcast.
        """
        if noisy.shape[1] != len(self.place):
            raise ValueError(f"a chunk has {len(self.place)} actions here, not {noisy.shape[1]}")
        return self.project(noisy) + self.place


class ActionOut(nn.Module):
    """Final tokens to a prediction per action."""

    def __init__(self, width: int, action: int) -> None:
        super().__init__()
        self.project = two_layers(width, 4 * max(action, width), action)
        begin(self)

    def forward(self, final: Float[Tensor, "B H D"], embodiment: Tensor) -> Float[Tensor, "B H A"]:
        return self.project(final)


class UwmObserver(nn.Module):
    """The stream "observation": one vector for each camera and its frames, the mean of its patch tokens through a linear layer."""

    def __init__(self, encoder: Encoder, text: nn.Module, sizes: Sizes) -> None:
        super().__init__()
        self.encoder, self.text, self.images = encoder, text, (sizes.history, sizes.views)
        self.project = nn.Linear(encoder.width, sizes.context)
        self.project_text = nn.Linear(cast("int", text.width), sizes.context)
        nn.init.zeros_(self.project_text.weight)
        nn.init.zeros_(self.project_text.bias)

    def forward(self, batch: Batch) -> dict[str, Stream]:
        tokens = encoded(batch, self.encoder, "now").unflatten(1, (*self.images, -1)).mean(dim=3).transpose(1, 2).flatten(1, 2)
        return {OBSERVATION: Stream(self.project(tokens) + self.project_text(self.text(batch.text)))}


NAMES = {  # what a public name begins with, and where that part is in a hybrid with the objectives "ddpm" and "uwm"
    "action_encoder.": "objectives.ddpm.encode.project.",
    "action_decoder.": "objectives.ddpm.decode.project.",
    "timestep_embedding.": "trunk.clocks.",
    "obs_patchifier.patch_encoder.": "objectives.uwm.encode.",
    "obs_patchifier.patch_decoder.": "objectives.uwm.decode.",
    "head.adaLN_modulation.1.": "trunk.modulation.",
    "head.linear.": "trunk.linear.",
    "blocks.": "trunk.blocks.",
}
INSIDE = {"attn.proj.": "attn.out.", "mlp.fc1.": "up.", "mlp.fc2.": "down.", "adaLN_modulation.1.": "modulation."}


def renamed(state: Mapping[str, Tensor], horizon: int) -> dict[str, Tensor]:
    """The weights of a published denoiser under the names of a hybrid; one table of places becomes three.

    Args:
        state: "blocks.0.attn.qkv.weight" and so on.
        horizon: actions in a chunk.

    Raises:
        UserError: a name that no part of the network has.
    """
    ours: dict[str, Tensor] = {}
    for key, value in state.items():
        if key == "registers":
            ours["trunk.registers"] = value[0]
        elif key == "pos_embed":
            registers = state["registers"].shape[1]
            parts = value[0].split([horizon, value.shape[1] - horizon - registers, registers])
            ours |= dict(zip(("objectives.ddpm.encode.place", "objectives.uwm.place", "trunk.places"), parts, strict=True))
        else:
            start = next((name for name in NAMES if key.startswith(name)), None)
            if start is None:
                raise UserError(f"{key!r} is no weight of UWM's denoiser")
            rest = key.removeprefix(start)
            for theirs, mine in INSIDE.items():
                rest = rest.replace(theirs, mine)
            ours[NAMES[start] + rest] = value.flatten(1) if "patch_encoder.weight" in key else value
    return ours


@dataclass(frozen=True)
class Config(Blueprint):
    """UWM's transformer as a trunk; width and depth come from the arm's shape.

    Attributes:
        heads: of the blocks.
        registers: 8, or 24 in the authors' smaller setting.
        context_width: numbers of each frame and camera.
    """

    heads: int = 12
    registers: int = 8
    context_width: int = 768

    def build(self, sizes: Sizes) -> UwmTrunk:
        seen = sizes.history * sizes.views * sizes.context
        return UwmTrunk(sizes.width, sizes.depth, self.heads, seen, self.registers)


@dataclass(frozen=True)
class InConfig(Blueprint):
    """Actions into UWM's trunk."""

    def build(self, sizes: Sizes) -> ActionIn:
        return ActionIn(sizes.action, sizes.width, sizes.horizon)


@dataclass(frozen=True)
class OutConfig(Blueprint):
    """Actions out of UWM's trunk."""

    def build(self, sizes: Sizes) -> ActionOut:
        return ActionOut(sizes.out, sizes.action)


@dataclass(frozen=True)
class ObserverConfig(Blueprint):
    """UWM's observer.

    Attributes:
        encoder, text: of images and instructions.
        action, views: sizes of the published robot data, with which an arm is counted where there is no data.
    """

    action: ClassVar[int] = 10
    views: ClassVar[int] = 3
    encoder: Blueprint
    text: Blueprint

    def build(self, sizes: Sizes) -> UwmObserver:
        return UwmObserver(cast("Encoder", self.encoder.build(sizes)), self.text.build(sizes), sizes)
