"""What does Diffusion Policy's convolutional network look like, and how does it play in a hybrid?

Chi et al. 2023, Diffusion Policy, arXiv:2303.04137; Perez et al. 2018 (FiLM), arXiv:1709.07871;
Finn et al. 2016 (spatial softmax), arXiv:1509.06113.
A U-Net over the time of the chunk; the diffusion index and the observation scale and shift every residual block.  Modules carry
the reference's names (ConditionalUnet1D), so its state dict loads with strict=True: 251,511,938 parameters for 2 numbers
per action and a condition of 132 (2 frames of 32 keypoints and 2 numbers of state).
In a hybrid its streams are raw: "observation" has one token per frame and camera, "state" one per frame, "action" is the noisy
chunk itself.  There is no residual stream, so nothing can be tapped.
We differ: the instruction is added to every camera's feature (the paper has one task per network), an unknown state is learned.
"""

from abc import abstractmethod
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.features import encoded
from wmzoo.interfaces import Blueprint, Encoder, Memory, Sizes, Trunk
from wmzoo.question import Hidden, Stream
from wmzoo.shapes import checked

from .attention import sinusoid
from .state import check_frames

INDICES = 100  # diffusion indices of Diffusion Policy: 0 is nearly data, 99 is noise
READ = {"observation", "state", "action"}


def step_sinusoid(index: Int[Tensor, "B"], width: int) -> Float[Tensor, "B W"]:
    """[sin, cos] of the diffusion index at width/2 frequencies from 1 down to 1/10000."""
    return sinusoid(index.float(), width, last=width / 2 - 1).roll(width // 2, dims=-1)


class Convolution(nn.Module):
    """Convolution over time, group norm, Mish."""

    def __init__(self, inputs: int, outputs: int, kernel: int, groups: int) -> None:
        super().__init__()
        layers = nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2), nn.GroupNorm(groups, outputs), nn.Mish()
        self.block = nn.Sequential(*layers)

    def forward(self, x: Float[Tensor, "B i H"]) -> Float[Tensor, "B o H"]:
        return self.block(x)


class Resample(nn.Module):
    """Half or twice as many steps; `conv` does it."""

    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class FilmBlock(nn.Module):
    """Two convolutions; between them the condition scales and shifts every channel, scale first."""

    def __init__(self, inputs: int, outputs: int, condition: int, kernel: int, groups: int) -> None:
        super().__init__()
        pair = Convolution(inputs, outputs, kernel, groups), Convolution(outputs, outputs, kernel, groups)
        self.blocks = nn.ModuleList(pair)
        self.cond_encoder = nn.Sequential(nn.Mish(), nn.Linear(condition, 2 * outputs))
        self.residual_conv = nn.Identity() if inputs == outputs else nn.Conv1d(inputs, outputs, 1)

    def forward(self, x: Float[Tensor, "B i H"], condition: Float[Tensor, "B G"]) -> Float[Tensor, "B o H"]:
        scale, bias = self.cond_encoder(condition)[..., None].chunk(2, dim=1)
        return self.blocks[1](scale * self.blocks[0](x) + bias) + self.residual_conv(x)


class UNet1D(nn.Module):
    """Predicts the noise in a chunk of actions, given a diffusion index and one condition vector.

    Args:
        action: numbers per action.
        condition: numbers of the condition.
        channels: of each level; the number of steps halves between levels.
        kernel: of the convolutions, odd.
        groups: of the group norms; must divide every level's channels.  The last norm has 8, as in the reference, where the first
            level's channels divide by 8.
        embedding: numbers of the embedded diffusion index.
    """

    def __init__(self, action: int, condition: int, channels: tuple[int, ...], kernel: int, groups: int, embedding: int) -> None:
        super().__init__()
        self.condition, self.embedding, self.stride = condition, embedding, 2 ** (len(channels) - 1)
        layers = nn.Identity(), nn.Linear(embedding, 4 * embedding), nn.Mish(), nn.Linear(4 * embedding, embedding)
        self.diffusion_step_encoder = nn.Sequential(*layers)  # the identity stands where the reference has its sinusoid

        def block(inputs: int, outputs: int) -> FilmBlock:
            return FilmBlock(inputs, outputs, embedding + condition, kernel, groups)

        deepest = channels[-1]
        self.mid_modules = nn.ModuleList([block(deepest, deepest), block(deepest, deepest)])
        self.down_modules, self.up_modules = nn.ModuleList(), nn.ModuleList()
        for before, after in pairwise((action, *channels)):
            half = Resample(nn.Conv1d(after, after, 3, 2, 1)) if len(self.down_modules) < len(channels) - 1 else nn.Identity()
            self.down_modules.append(nn.ModuleList([block(before, after), block(after, after), half]))
        for after, before in pairwise(reversed(channels)):
            twice = Resample(nn.ConvTranspose1d(before, before, 4, 2, 1))
            self.up_modules.append(nn.ModuleList([block(2 * after, before), block(before, before), twice]))
        last = groups if channels[0] % 8 else 8
        self.final_conv = nn.Sequential(Convolution(channels[0], channels[0], kernel, last), nn.Conv1d(channels[0], action, 1))

    @checked
    def forward(self, noisy: Float[Tensor, "B H A"], index: Int[Tensor, "B"], condition: Float[Tensor, "B G"]) -> Float[Tensor, "B H A"]:
        """The predicted noise, without unit.

        Raises:
            TypeCheckError: the three differ in the number of windows.
            ValueError: a condition of another size than the network was built for, or a chunk that does not halve evenly.
        """
        if condition.shape[1] != self.condition or noisy.shape[1] % self.stride:
            wanted = f"a condition of {self.condition} numbers and a chunk that divides by {self.stride}"
            raise ValueError(f"this U-Net takes {wanted}, not {condition.shape[1]} numbers and {noisy.shape[1]} actions")
        step = self.diffusion_step_encoder(step_sinusoid(index, self.embedding).to(condition.dtype))
        film, x = torch.cat([step, condition], dim=-1), noisy.transpose(1, 2)
        levels: list[Tensor] = []
        for first, second, half in cast("Any", self.down_modules):
            levels.append(second(first(x, film), film))
            x = half(levels[-1])
        for middle in self.mid_modules:
            x = middle(x, film)
        for first, second, twice in cast("Any", self.up_modules):
            x = twice(second(first(torch.cat([x, levels.pop()], dim=1), film), film))
        return self.final_conv(x).transpose(1, 2)


def to_index(clock: Float[Tensor, "B"]) -> Int[Tensor, "B"]:
    """The diffusion index of a zoo clock, t = 1 - (k + 1) / 100: 0 (noise) is k = 99, 0.99 is k = 0."""
    return ((1 - clock) * INDICES - 1).round().long().clamp(0, INDICES - 1)


def per_frame(observation: Float[Tensor, "B N E"], state: Float[Tensor, "B T S"]) -> Float[Tensor, "B T C"]:
    """What is known of each frame: the features of its cameras, then its state.

    Raises:
        ValueError: the observation's tokens are not the same number for every frame.
    """
    frames, tokens = state.shape[1], observation.shape[1]
    if tokens % frames:
        raise ValueError(f"{tokens} observation tokens do not divide by {frames} frames; use the observer of this file")
    return torch.cat([observation.unflatten(1, (frames, tokens // frames)).flatten(2), state], dim=-1)


class ChunkTrunk(Trunk):
    """A network that denoises a whole chunk, as a trunk: it reads raw streams and has only a final output, "action".

    Args:
        action: numbers per action, which is also the width of the output.
    """

    def __init__(self, action: int) -> None:
        super().__init__()
        self.width, self.depth, self.out, self.remembers = action, 0, action, False

    @abstractmethod
    def denoise(self, noisy: Float[Tensor, "B H A"], index: Int[Tensor, "B"], frames: Float[Tensor, "B T C"]) -> Float[Tensor, "B H A"]:
        """The predicted noise, given what is known of each frame."""

    def remember(self, observation: Stream) -> Memory:
        raise ValueError("this network has no keys and values, so there is nothing to remember")

    def forward(self, streams: Mapping[str, Stream], taps: AbstractSet[int] = frozenset(), memory: Memory | None = None) -> Hidden:
        """One pass.

        Raises:
            ValueError: taps, other streams than the three, masks, or a stream "action" without a clock per window.
        """
        if taps:
            raise ValueError(f"taps {sorted(taps)} do not exist: this network has no residual stream")
        if streams.keys() != READ:
            raise ValueError(f"this network reads the streams {sorted(READ)}, there are {sorted(streams)}")
        if any(s.keep is not None or s.blind or s.frame is not None for s in streams.values()):
            raise ValueError("this network has no masks, but a stream carries one")
        clock = streams["action"].clock
        if not isinstance(clock, Tensor) or clock.ndim != 1:
            raise ValueError("the stream 'action' needs one clock per window")
        frames = per_frame(streams["observation"].tokens, streams["state"].tokens)
        return Hidden({}, {"action": self.denoise(streams["action"].tokens, to_index(clock), frames)})


class UNetTrunk(ChunkTrunk):
    """The U-Net, conditioned on all frames at once."""

    def __init__(self, network: UNet1D, action: int) -> None:
        super().__init__(action)
        self.network = network

    def denoise(self, noisy: Float[Tensor, "B H A"], index: Int[Tensor, "B"], frames: Float[Tensor, "B T C"]) -> Float[Tensor, "B H A"]:
        return self.network(noisy, index, frames.flatten(1))


class Raw(nn.Module):
    """Nothing between actions and network: returns its first argument."""

    def forward(self, value: Tensor, *_: Tensor) -> Tensor:
        return value


class Keypoints(nn.Module):
    """Spatial softmax: where in the image each of a few maps looks, as (x, y) from -1 to 1; then one linear layer.

    Args:
        inputs: channels of a patch token.
        grid: rows and columns of the tokens.
        points, outputs: maps, and numbers that come out.
    """

    places: Tensor

    def __init__(self, inputs: int, grid: tuple[int, int], points: int, outputs: int) -> None:
        super().__init__()
        rows, columns = (torch.linspace(-1, 1, size) for size in grid)
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        self.register_buffer("places", torch.stack([x, y], dim=-1).flatten(0, 1), persistent=False)
        self.maps, self.project = nn.Linear(inputs, points), nn.Linear(2 * points, outputs)

    def points(self, tokens: Float[Tensor, "*n P E"]) -> Float[Tensor, "*n K 2"]:
        """The expected place of each map."""
        weights = self.maps(tokens).float().softmax(dim=-2)
        return weights.transpose(-1, -2) @ self.places

    def forward(self, tokens: Float[Tensor, "*n P E"]) -> Float[Tensor, "*n F"]:
        return self.project(self.points(tokens).flatten(-2))


class FrameObserver(nn.Module):
    """The streams "observation" (keypoints of each frame and camera) and "state" (as it is; learned where unknown).

    The instruction's projection starts at zero.
    """

    def __init__(self, encoder: Encoder, text: nn.Module, sizes: Sizes, points: int) -> None:
        super().__init__()
        self.encoder, self.text = encoder, text
        self.images = sizes.history * sizes.views
        self.keypoints = Keypoints(encoder.width, encoder.grid, points, sizes.context)
        self.project_text = nn.Linear(cast("int", text.width), sizes.context)
        self.null_state = nn.Parameter(0.02 * torch.randn(sizes.history, sizes.state))
        nn.init.zeros_(self.project_text.weight)
        nn.init.zeros_(self.project_text.bias)

    def forward(self, batch: Batch) -> dict[str, Stream]:
        tokens = encoded(batch, self.encoder, "now").unflatten(1, (self.images, -1))
        seen = self.keypoints(tokens) + self.project_text(self.text(batch.text))
        check_frames(batch, len(self.null_state))
        state = torch.where(batch.has_state[:, None, None], batch.state, self.null_state)
        return {"observation": Stream(seen), "state": Stream(state)}


@dataclass(frozen=True)
class Config(Blueprint):
    """Diffusion Policy's U-Net as a trunk, at the paper's size; the arm's shape (width, depth) plays no part.

    Attributes:
        channels, kernel, groups, embedding: of the network.
        context_width: numbers that the observer gives for each frame and camera.
    """

    channels: tuple[int, ...] = (512, 1024, 2048)
    kernel: int = 5
    groups: int = 8
    embedding: int = 128
    context_width: int = 64

    def build(self, sizes: Sizes) -> UNetTrunk:
        stride = 2 ** (len(self.channels) - 1)
        if sizes.horizon % stride:
            raise UserError(f"a U-Net of {len(self.channels)} levels needs a horizon that divides by {stride}, not {sizes.horizon}")
        condition = sizes.history * (sizes.views * sizes.context + sizes.state)
        network = UNet1D(sizes.action, condition, tuple(self.channels), self.kernel, self.groups, self.embedding)
        return UNetTrunk(network, sizes.action)


@dataclass(frozen=True)
class InConfig(Blueprint):
    """Actions as they are."""

    def build(self, sizes: Sizes) -> Raw:
        return Raw()


@dataclass(frozen=True)
class OutConfig(Blueprint):
    """The network's output as it is."""

    def build(self, sizes: Sizes) -> Raw:
        return Raw()


@dataclass(frozen=True)
class ObserverConfig(Blueprint):
    """Diffusion Policy's observer: an image encoder, a reader of instructions, and the number of keypoints per image.

    Attributes:
        encoder, text, points: the three.
        action, state: sizes of the published Push-T task, with which an arm is counted where there is no data.
    """

    action: ClassVar[int] = 2
    state: ClassVar[int] = 2
    encoder: Blueprint
    text: Blueprint
    points: int = 32

    def build(self, sizes: Sizes) -> FrameObserver:
        return FrameObserver(cast("Encoder", self.encoder.build(sizes)), self.text.build(sizes), sizes, self.points)
