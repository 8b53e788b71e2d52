"""What of the future is foreseen?  The frame at the end of a chunk, as latents of a codec or as a residual latent; never with a gradient.

RLA-WM 2026, arXiv:2605.07079 (residual latents); Zhu et al. 2025, Unified World Models (UWM), arXiv:2504.02792 (latents of a codec).
    zbar = sg[(T_enc(s_{t+H} - s_t) - mean) / deviation]      wmzoo.objectives.ahead.ResidualTarget
    z    = (codec(o_{t+H}) - mean) / deviation                wmzoo.objectives.ahead.FrameTarget
    z    = (codec(o_{t+H}) - codec(o_t) - mean) / deviation   wmzoo.objectives.ahead.ChangeTarget
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import Any, Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from wmzoo.batch import Batch
from wmzoo.errors import UserError
from wmzoo.features import frame_tokens
from wmzoo.interfaces import Encoder, Residuals
from wmzoo.standard import Scaling, Standardiser

Control = Literal["none", "current", "shuffled"]


def end_of_chunk(gaps: tuple[int, ...], horizon: int) -> None:
    """Raise UserError if the first of these frames is not that at the end of the chunk."""
    if gaps and gaps[0] != horizon:
        raise UserError(f"the frame is that of the chunk's end, {horizon} actions on: say so many control steps to it, not {gaps[0]}")


class Ahead(nn.Module, ABC):
    """What a second stream holds: something about the frame at the end of a chunk, in N tokens of X numbers, never with a gradient.

    Attributes:
        tokens, width: N and X.
        gaps: control steps to the frames it is made of; the first one is the frame that is predicted.
        view: the camera that is predicted.
    """

    tokens: int
    width: int
    gaps: tuple[int, ...]
    view: int

    @property
    @abstractmethod
    def encoder(self) -> Encoder:
        """The frozen feature space of `arrive`."""

    @abstractmethod
    def settle(self, batches: Iterable[Batch]) -> None:
        """Measure mean and deviation."""

    @abstractmethod
    def forward(self, batch: Batch) -> tuple[Float[Tensor, "B N X"], Bool[Tensor, "B"]]:
        """Standardised values, and where they mean something."""

    @abstractmethod
    def arrive(self, now: Float[Tensor, "B P E"], value: Float[Tensor, "B N X"]) -> Float[Tensor, "B P E"]:
        """The tokens of the frame from a value."""


class FrameTarget(Ahead):
    """Latents of future frames, all cameras one after the other; those of several frames are joined cell by cell, as one patch in time.

    Args:
        codec: models/codec.py, frozen.
        gaps: control steps to the frames.
        views: cameras.
        scaling: of the latents.
        control: "current" is the present frame in place of every future one, "shuffled" that of the next window in the batch.
    """

    def __init__(self, codec: Encoder, gaps: tuple[int, ...], views: int, scaling: Scaling, control: Control = "none") -> None:
        super().__init__()
        if not hasattr(codec, "fingerprint"):
            raise UserError("frames are generated in the latents of a frozen codec: set its `frozen` to True")
        if not gaps or min(gaps) < 1:
            raise UserError(f"future frames lie at least 1 control step ahead, not {gaps}")
        self.codec, self.gaps, self.views, self.control, self.view = codec, tuple(gaps), views, control, 0
        cells = codec.grid[0] * codec.grid[1]
        self.tokens, self.width = views * cells, codec.width * len(gaps)
        self.standard = Standardiser(self.width, scaling=scaling)

    def settle(self, batches: Iterable[Batch]) -> None:
        def values(batch: Batch) -> Tensor:
            value, valid = self.raw(batch)
            return value[valid]

        self.standard.fit(values(batch) for batch in batches)

    @torch.no_grad()
    def raw(self, batch: Batch) -> tuple[Float[Tensor, "B N X"], Bool[Tensor, "B"]]:
        """Latents, and where they mean something."""
        columns = [batch.column(gap) for gap in self.gaps]
        valid = batch.has_future[:, columns].all(dim=1)
        frames = [self.shown(batch, None if self.control == "current" else column) for column in columns]
        channels = cast("Any", self.encoder).channels
        apart = torch.stack([frame.unflatten(2, (channels, -1)) for frame in frames], dim=3)  # channel, frame, row, column
        return torch.where(valid[:, None, None], apart.flatten(2), 0.0), valid

    def shown(self, batch: Batch, column: int | None) -> Float[Tensor, "B N E"]:
        """What the stream holds of one frame; None is the present."""
        return self.of(batch, column)

    def of(self, batch: Batch, column: int | None) -> Float[Tensor, "B N E"]:
        """All cameras of one frame."""
        return torch.cat([frame_tokens(batch, self.encoder, view, column).float() for view in range(self.views)], dim=1)

    def present(self, batch: Batch) -> Float[Tensor, "B N E"]:
        """All cameras of the present frame, standardised; where one frame is generated."""
        with torch.no_grad():
            return self.standard(self.of(batch, None))

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "B N X"], Bool[Tensor, "B"]]:
        value, valid = self.raw(batch)
        if self.control == "shuffled":
            value, valid = value.roll(1, dims=0), valid & valid.roll(1)
        return self.standard(value), valid

    @property
    def encoder(self) -> Encoder:
        return self.codec

    def arrive(self, now: Float[Tensor, "B P E"], value: Float[Tensor, "B N X"]) -> Float[Tensor, "B P E"]:
        channels = cast("Any", self.encoder).channels
        latent = self.standard.back(value)[:, : now.shape[1]].unflatten(2, (channels, len(self.gaps), -1))
        return latent[:, :, :, 0].flatten(2)


class ChangeTarget(FrameTarget):
    """What changes in the latents on the way to future frames: what rests is 0, so a copy of the present is the easiest answer.

    Args:
        codec, gaps, views, scaling, control: as in FrameTarget; there is no change to the present frame.
    """

    def __init__(self, codec: Encoder, gaps: tuple[int, ...], views: int, scaling: Scaling, control: Control = "none") -> None:
        if control == "current":
            raise UserError("from the present frame to itself nothing changes: the control `current` needs whole frames (arm uwm_current)")
        super().__init__(codec, gaps, views, scaling, control)

    def shown(self, batch: Batch, column: int | None) -> Float[Tensor, "B N E"]:
        return self.of(batch, column) - self.of(batch, None)

    def arrive(self, now: Float[Tensor, "B P E"], value: Float[Tensor, "B N X"]) -> Float[Tensor, "B P E"]:
        return now + super().arrive(now, value)


class ResidualTarget(Ahead):
    """The standardised residual latent of the frame at the end of a chunk, by a frozen autoencoder.

    Args:
        residuals: the autoencoder; frozen here.
        gap: control steps to that frame.
        scaling: "measured", or "tenth".
        control: "current" is the latent of no change, "shuffled" that of the next window in the batch.
    """

    def __init__(self, residuals: Residuals, gap: int, scaling: Scaling, control: Control = "none") -> None:
        super().__init__()
        residuals.freeze()
        self.residuals, self.gaps, self.control = residuals, (gap,), control
        self.view = residuals.view
        self.tokens, self.width = residuals.tokens, residuals.width
        self.standard = Standardiser(self.tokens, self.width, scaling=scaling)

    @property
    def encoder(self) -> Encoder:
        return self.residuals.encoder

    def settle(self, batches: Iterable[Batch]) -> None:
        def latents(batch: Batch) -> Tensor:
            latent, valid = self.raw(batch)
            return latent[valid]

        self.standard.fit(latents(batch) for batch in batches)

    @torch.no_grad()
    def raw(self, batch: Batch) -> tuple[Float[Tensor, "B K Z"], Bool[Tensor, "B"]]:
        """Latents, and where they mean something."""
        column = batch.column(self.gaps[0])
        valid = batch.has_future[:, column]
        now = frame_tokens(batch, self.encoder, self.view).float()
        future = now if self.control == "current" else frame_tokens(batch, self.encoder, self.view, column).float()
        return self.residuals.encode(now, torch.where(valid[:, None, None], future, now)), valid

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "B K Z"], Bool[Tensor, "B"]]:
        latent, valid = self.raw(batch)
        if self.control == "shuffled":
            latent, valid = latent.roll(1, dims=0), valid & valid.roll(1)
        return self.standard(latent), valid

    def arrive(self, now: Float[Tensor, "B P E"], value: Float[Tensor, "B K Z"]) -> Float[Tensor, "B P E"]:
        return self.residuals.decode(now, self.standard.back(value))
