"""PAD: actions and the frame at the end of the chunk are denoised together, on one clock.  UWM with its two clocks tied.

Guo et al. 2024, Prediction with Action (PAD), arXiv:2411.18179, as UWM (arXiv:2504.02792) compares with it.
    t ~ U(0, 1), one for both; a_t = (1 - t) eps_a + t A; z_t = (1 - t) eps_z + t z     wmzoo.clock.interpolate
    the present frame's latents are joined to the noisy ones, number by number           wmzoo.objectives.pad.Pad.embed
    L_a = mean over valid numbers of (V_a - (A - eps_a))^2                              wmzoo.objectives.flow.flow_loss
    L_z = mean over numbers of (V_z - (z - eps_z))^2                                    wmzoo.objectives.uwm.stream_loss
    played: both from noise to data in the same steps                                   wmzoo.objectives.pad.Pad.sample
We differ: the trunk looks at the policy's whole observation (published: it is conditioned on the clock alone and sees the present only by
those joined latents); flow matching (published: DDPM, the noise is predicted).
It cannot be asked for one given the other.  Nobody looks at the action tokens of a window without actions, or at the frame's of one that
has none; video teaches the frame alone.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.clock import interpolate, velocity
from wmzoo.errors import UserError
from wmzoo.interfaces import Blueprint, Denoiser, Encoder, Sizes
from wmzoo.question import Hidden, Question, Score, Stream
from wmzoo.sample import euler
from wmzoo.standard import Scaling

from .ahead import FrameTarget, end_of_chunk
from .flow import flow_loss
from .uwm import stream_loss


class Pad(Denoiser):
    """Owns the streams "action" and "video"; what it samples is both, packed into one row a window.

    Args:
        ahead: latents of one future frame.
        encode, decode: between actions and trunk, as in objectives/flow.py.
        sizes: of trunk and data.
    """

    stream = "action"

    def __init__(self, ahead: FrameTarget, encode: nn.Module, decode: nn.Module, sizes: Sizes) -> None:
        super().__init__()
        if len(ahead.gaps) != 1:
            raise UserError(f"PAD generates one frame, not those {list(ahead.gaps)} steps ahead")
        self.ahead, self.encode, self.decode = ahead, encode, decode
        self.chunk = (sizes.horizon, sizes.action)
        self.encode_video, self.decode_video = nn.Linear(2 * ahead.width, sizes.width), nn.Linear(sizes.out, ahead.width)
        self.place = nn.Parameter(0.02 * torch.randn(ahead.tokens, sizes.width))
        self.register_buffer("start", torch.randn(ahead.tokens, ahead.width))  # where frames start when the policy plays
        nn.init.zeros_(self.decode_video.weight)
        nn.init.zeros_(self.decode_video.bias)

    def needs(self) -> Needs:
        return Needs(futures=self.ahead.gaps)

    def settle(self, batches: Iterable[Batch]) -> None:
        self.ahead.settle(batches)

    def forward(self, batch: Batch) -> Question:
        mask, (value, valid) = batch.action_mask, self.ahead(batch)
        action = torch.where(mask, batch.action, 0.0)
        clock = torch.rand(len(batch), device=action.device)
        noise_a, noise_z = torch.randn_like(action), torch.randn_like(value)
        noisy = self.pack(interpolate(noise_a, action, clock), interpolate(noise_z, value, clock))

        def score(hidden: Hidden) -> dict[str, Score]:
            v_a, v_z = self.unpack(self.read(hidden, batch))
            loss = flow_loss(v_a, velocity(noise_a, action), mask)
            return {"action": Score(loss, batch.has_action), "video": Score(stream_loss(v_z, velocity(noise_z, value)), valid)}

        streams = self.embed(noisy, clock, batch)
        there = {"action": batch.has_action, "video": valid}
        kept = {name: replace(s, keep=there[name][:, None].expand(-1, s.tokens.shape[1])) for name, s in streams.items()}
        return Question(kept, frozenset(), score)

    def pack(self, action: Tensor, video: Tensor) -> Tensor:
        """Both as one row a window."""
        return torch.cat([action.flatten(1), video.flatten(1)], dim=1)

    def unpack(self, packed: Tensor) -> tuple[Tensor, Tensor]:
        """Both again."""
        numbers = self.chunk[0] * self.chunk[1]
        return packed[:, :numbers].unflatten(1, self.chunk), packed[:, numbers:].unflatten(1, (self.ahead.tokens, -1))

    def embed(self, noisy: Tensor, clock: Tensor, batch: Batch) -> dict[str, Stream]:
        action, video = self.unpack(noisy)
        both = torch.cat([video, self.ahead.present(batch).to(video.dtype)], dim=-1)
        return {
            "action": Stream(self.encode(action, clock, batch.embodiment), clock),
            "video": Stream(self.encode_video(both) + self.place, "action"),
        }

    def read(self, hidden: Hidden, batch: Batch) -> Tensor:
        video = self.decode_video(hidden.final["video"]).float()
        return self.pack(self.decode(hidden.final["action"], batch.embodiment).float(), video)

    def sample(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        """The chunk; `noise` is its own, frames start from the same noise every time."""
        start = self.pack(noise, cast("Tensor", self.start).expand(len(noise), -1, -1))
        return self.unpack(euler(predict, start, steps))[0]


@dataclass(frozen=True)
class Config(Blueprint):
    """PAD on the trunk.

    Attributes:
        codec: models/codec.py.
        encode, decode: the layers between actions and trunk.
        gap: control steps to the frame.
        scaling: of the latents.
    """

    codec: Blueprint
    encode: Blueprint
    decode: Blueprint
    gap: int = 16
    scaling: Scaling = "measured"

    def build(self, sizes: Sizes) -> Pad:
        end_of_chunk((self.gap,), sizes.horizon)
        target = FrameTarget(cast("Encoder", self.codec.build(sizes)), (self.gap,), sizes.views, self.scaling)
        return Pad(target, self.encode.build(sizes), self.decode.build(sizes), sizes)
