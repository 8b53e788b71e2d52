"""What travels from the data to the loss?  One record, `Batch`, with a mask for everything that may be absent.

B windows, T frames up to now, V cameras, F future frames, H actions in a chunk, A numbers per action, S numbers of state.
"""

from dataclasses import dataclass, field, fields

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True)
class Needs:
    """Which frames and actions an objective asks the data for, counted in control steps from now.

    Attributes:
        history: frames up to and including now.
        first_action: where the action chunk starts; 0 is now (Diffusion Policy starts at its first frame).
        futures: a future frame at each of these steps; a pair (low, high) draws one step uniformly, both ends included.
    """

    history: int = 1
    first_action: int = 0
    futures: tuple[int | tuple[int, int], ...] = ()


@dataclass
class Batch:
    """B windows.  Images are floats in [0, 1]; encoders normalise, nobody else does.

    Attributes:
        image: frames up to now, the last one is now.
        state: proprioception, standardised with the statistics of the labelled training windows (no unit).
        has_state: False where the state is unknown; its numbers then mean nothing.
        text: the instruction in byte tokens, 0 is padding.
        action: the chunk, each number scaled to [-1, 1] (no unit); before and past the episode its first and last are repeated.
        action_mask: True where the number was really recorded: not past the episode's end, not an action-free window.
        future: future frames, in the order of Needs.futures.
        has_future: False where the episode ends before that frame.
        offset: how many control steps ahead each future frame is.
        embodiment: index of the robot; the last index is reserved for action-free video.
        sample: a number that names the window in its data set.
        features: frozen features, by "encoder/now" and "encoder/future": computed once per batch or read from disk.
    """

    image: Float[Tensor, "B T V 3 Y X"]
    state: Float[Tensor, "B T S"]
    has_state: Bool[Tensor, "B"]
    text: Int[Tensor, "B N"]
    action: Float[Tensor, "B H A"]
    action_mask: Bool[Tensor, "B H A"]
    future: Float[Tensor, "B F V 3 Y X"]
    has_future: Bool[Tensor, "B F"]
    offset: Int[Tensor, "B F"]
    embodiment: Int[Tensor, "B"]
    sample: Int[Tensor, "B"]
    features: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.image)

    @property
    def has_action(self) -> Bool[Tensor, "B"]:
        """True where at least one number of the chunk was recorded."""
        return self.action_mask.flatten(1).any(dim=1)

    def column(self, gap: int) -> int:
        """Which of the future frames is `gap` control steps ahead, in every window.

        Raises:
            ValueError: none is.
        """
        if self.offset.is_meta:  # for counting alone: every column is as good
            return 0
        found = (self.offset == gap).all(dim=0).nonzero().flatten().tolist()
        if not found:
            raise ValueError(f"no future frame of this batch is {gap} steps ahead; the first window has {self.offset[:1].tolist()}")
        return found[0]

    def map(self, function) -> "Batch":
        """The batch with `function` applied to every tensor."""
        changed = {f.name: function(getattr(self, f.name)) for f in fields(self) if f.name != "features"}
        return Batch(**changed, features={name: function(value) for name, value in self.features.items()})

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The batch on another device.  Lightning finds this method and uses it."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def __getitem__(self, rows: slice | Tensor) -> "Batch":
        """Some of the windows."""
        return self.map(lambda tensor: tensor[rows])
