"""What are the plugs?  Everything an arm can be put together from, as abstract classes."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from math import inf
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from .batch import Batch, Needs
from .errors import UserError
from .question import Hidden, Question, Stream


@dataclass(frozen=True)
class Sizes:
    """What the networks must know of the data and of each other before they are built.

    Attributes:
        width, depth: of the trunk; `context` is the width of its observation tokens, `out` of its final output.
        horizon, action, state: actions in a chunk, numbers per action, numbers of proprioception.
        image, views, history: pixels of a side, cameras, frames up to now.
        embodiments: robots, the reserved video index included.
    """

    width: int
    depth: int
    context: int
    out: int
    horizon: int
    action: int
    state: int
    image: int
    views: int
    history: int
    embodiments: int


class Blueprint(ABC):
    """A frozen dataclass that builds one part.  Arms are made of blueprints, so they can be printed, saved and overridden."""

    @abstractmethod
    def build(self, sizes: Sizes) -> nn.Module:
        """The part, with fresh weights, for data and a trunk of these sizes."""

    def started(self, part: nn.Module) -> nn.Module:
        """What of the part that was built starts from the blueprint's `weights`, if it has any."""
        return part


class Objective(nn.Module, ABC):
    """One idea of a paper: what it adds to the sequence, and how it marks the result.

    Attributes:
        auxiliary: names of sub-modules that only training needs; `strip` removes them for export.
    """

    auxiliary: tuple[str, ...] = ()

    def needs(self) -> Needs:
        """The frames and actions this objective asks the data for."""
        return Needs()

    @abstractmethod
    def forward(self, batch: Batch) -> Question:
        """Ask: streams, taps, and how to mark."""

    def standing(self, batch: Batch) -> dict[str, Stream]:
        """The streams that stay in the sequence when the policy plays; they must not depend on the future."""
        return {}

    def join(self, observer: nn.Module) -> None:
        """Called once, when the hybrid is put together: what copies a part of the observer does it now."""

    def settle(self, batches: Iterable[Batch]) -> None:
        """Called once before training, with some training batches: statistics of frozen features are measured now."""

    def after_step(self, observer: nn.Module) -> None:
        """Called after every step of the optimiser (targets that follow the observer by EMA)."""

    def strip(self) -> None:
        """Remove what only training needs."""
        for name in self.auxiliary:
            delattr(self, name)


class Target(nn.Module, ABC):
    """What hidden states are aligned with: an embedding of a frame, never with a gradient.

    Attributes:
        tokens, width: of the embedding of one moment.
    """

    tokens: int
    width: int

    @abstractmethod
    def forward(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B T M E"]:
        """The embedding of every frame up to now, or of every future frame."""

    def join(self, observer: nn.Module) -> None:
        """As in Objective."""

    def after_step(self, observer: nn.Module) -> None:
        """As in Objective."""


RARE = 0.25  # share of the codes below whose use a codebook is called collapsed


class Quantised(NamedTuple):
    """A latent after its bottleneck.

    Attributes:
        value: what a decoder reads; its gradient reaches the latent.
        codes: the number of each token's code; None where there are none.
        penalty: what keeps latent and codes together, one number for each window; no unit.
    """

    value: Float[Tensor, "B K Z"]
    codes: Int[Tensor, "B K"] | None
    penalty: Float[Tensor, "B"]


class Freezable(nn.Module):
    """A part that can be kept as it is while the network around it trains."""

    frozen = False

    def freeze(self) -> None:
        """Nothing moves it any more: no gradient, no code, whatever mode the network around it is in."""
        self.frozen = True
        self.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> "Freezable":
        return super().train(mode and not self.frozen)


class LatentActions(Freezable, ABC):
    """What happened between two frames, as K tokens of Z numbers: an inverse model and a forward model without action labels.

    Frames are those of one camera; the first is the present frame of a window, the second lies `gap` control steps ahead, and
    a gap of 0 is the present frame again.

    Attributes:
        tokens, width: K and Z.
        codes: how many codes a token may take; 0 is continuous.
        view: the camera.
        by_lpips: `distance` is LPIPS.
    """

    tokens: int
    width: int
    codes: int
    view: int
    by_lpips: bool

    @abstractmethod
    def encode(self, batch: Batch, gap: int) -> Float[Tensor, "B K Z"]:
        """The latent before its bottleneck."""

    @abstractmethod
    def quantise(self, latent: Float[Tensor, "B K Z"], valid: Bool[Tensor, "B"]) -> Quantised:
        """The latent through its bottleneck; windows that are not valid teach it nothing."""

    @abstractmethod
    def seen(self, frame: Float[Tensor, "n 3 Y X"]) -> Float[Tensor, "n 3 S S"]:
        """A recorded frame in the size in which frames are painted."""

    @abstractmethod
    def decode(self, batch: Batch, value: Float[Tensor, "B K Z"]) -> Float[Tensor, "B 3 S S"]:
        """The second frame, in [0, 1] up to errors, from the present frame and the latent."""

    @abstractmethod
    def distance(self, batch: Batch, gap: int, painted: Float[Tensor, "B 3 S S"]) -> Float[Tensor, "B"]:
        """How different a painted second frame looks (perceptual); meaningless where there is none."""

    @abstractmethod
    def attention(self, batch: Batch, gap: int) -> Float[Tensor, "B K P"]:
        """How much each token looks at each patch of the second frame; sums to at most 1."""


class Residuals(Freezable, ABC):
    """What changed between two frames in a frozen feature space, as K tokens of Z numbers, and the second frame from these.

    Attributes:
        tokens, width: K and Z.
        encoder: the frozen feature space.
        view: the camera.
    """

    tokens: int
    width: int
    encoder: "Encoder"
    view: int

    @abstractmethod
    def encode(self, now: Float[Tensor, "n P E"], future: Float[Tensor, "n P E"]) -> Float[Tensor, "n K Z"]:
        """The latent of a pair of frames."""

    @abstractmethod
    def decode(self, now: Float[Tensor, "n P E"], latent: Float[Tensor, "n K Z"]) -> Float[Tensor, "n P E"]:
        """The second frame's tokens."""


class Aligned(Objective, ABC):
    """Pulls hidden states toward an embedding of a frame; where that frame lies ahead, an implicit world model.

    Attributes:
        gap: control steps to the frame; 0 is the present one.
        tap: the hidden states are those after this many blocks.
    """

    gap: int
    tap: int

    @abstractmethod
    def predict(self, hidden: Hidden) -> Float[Tensor, "B M E"]:
        """The hidden states in the space of the embedding."""

    @abstractmethod
    def embed(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B M E"]:
        """The embedding of the present frame, or of the one `gap` steps ahead."""

    @abstractmethod
    def wanted(self, batch: Batch, which: Literal["now", "future"]) -> Float[Tensor, "B M E"]:
        """That embedding as the loss sees it."""


class ConditionalFlow(nn.Module, ABC):
    """A velocity over some value, given what a condition stage has made of the present tokens and of the actions."""

    @abstractmethod
    def condition(self, now: Float[Tensor, "B P E"], action: Float[Tensor, "B H A"], keep: Bool[Tensor, "B H"]) -> Any:
        """Once for all steps.  `keep` marks the actions that are meant; none is an action-free window."""

    @abstractmethod
    def velocity(self, noisy: Float[Tensor, "B N X"], clock: Float[Tensor, "B"], condition: Any) -> Float[Tensor, "B N X"]:
        """From source (0) to data (1), at a clock."""


class WorldModel(Objective):
    """Predicts the tokens of a future frame, in a frozen feature space, from the present ones and the actions between.

    Attributes:
        view: the camera.
        steps: of sampling; 1 where nothing is sampled.
        horizon: control steps that one prediction can look ahead; `every` divides all horizons that it knows.
    """

    view: int
    steps: int
    horizon: int
    every: int = 1

    @property
    @abstractmethod
    def encoder(self) -> "Encoder":
        """The frozen feature space."""

    @abstractmethod
    def predict(
        self,
        batch: Batch,
        now: Float[Tensor, "B P E"],
        action: Float[Tensor, "B H A"],
        keep: Bool[Tensor, "B H"],
        generator: torch.Generator,
    ) -> Float[Tensor, "B P E"]:
        """The tokens after the actions that `keep` counts; H is at most `horizon`.

        Args:
            batch: what else was known when the prediction was asked for (state, instruction); its frames are not looked at.
            now: tokens to start from: of the present frame, or predicted ones.
            action: scaled to [-1, 1]; what lies behind the kept ones is not read.
            keep: the first h of H, the same or another h in every window.
            generator: of the noise.
        """

    @abstractmethod
    def paint(self, tokens: Float[Tensor, "B P E"]) -> Float[Tensor, "B 3 Y X"]:
        """These tokens as an image in [0, 1], through a frozen decoder that all models of one feature space share."""


Cost = Callable[[Float[Tensor, "n K A"]], Float[Tensor, "n"]]


class Planner(ABC):
    """Finds actions that cost little."""

    samples: int
    iterations: int

    @abstractmethod
    def plan(self, cost: Cost, start: Float[Tensor, "K A"], generator: torch.Generator) -> Float[Tensor, "K A"]:
        """K actions scaled to [-1, 1]; the search begins at `start`."""


class FourModes(ABC):
    """A world model that is a policy too: told the actions it foresees; it can also be told the future, or nothing."""

    @abstractmethod
    def video(self, batch: Batch, now: Float[Tensor, "B P E"], generator: torch.Generator) -> Float[Tensor, "B P E"]:
        """The tokens a chunk ahead when no actions are told."""

    @abstractmethod
    def inverse(self, batch: Batch, generator: torch.Generator, told: bool = True) -> Float[Tensor, "B H A"]:
        """The actions that lead to the batch's own future frames, in as many sampling steps as a prediction takes.

        Args:
            told: False does not tell these frames: the actions are then those of the policy, with the same noise.
        """


class Denoiser(Objective):
    """An objective that can also generate its stream, from noise to data.

    Attributes:
        most: steps of sampling that it can take.
    """

    stream: str
    most: float = inf

    @abstractmethod
    def embed(self, noisy: Tensor, clock: Tensor, batch: Batch) -> dict[str, Stream]:
        """The stream for a noisy value (B, H, A) at a clock (B,)."""

    @abstractmethod
    def read(self, hidden: Hidden, batch: Batch) -> Tensor:
        """The prediction (B, H, A) for that stream."""

    @abstractmethod
    def sample(self, predict: Callable[[Tensor, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        """From noise (B, H, A) to data in `steps` calls of predict(value, clock)."""

    @property
    def rule(self) -> str:
        """What is predicted and which steps are taken; streams of one rule can be sampled together."""
        return type(self).__name__

    def dynamics(self, hybrid: Any) -> "WorldModel | None":
        """The whole hybrid as a world model, where this stream is the future."""
        return None

    def executable(self, chunk: Tensor) -> Tensor:
        """The part of a generated chunk that starts now."""
        return chunk


class Dreamer(Denoiser):
    """A policy that learns from what a world model says would follow its actions.

    Attributes:
        world: the world model.
        execute: K, actions of a chunk that are carried out.
        chunks: T, of a dream.
        epochs: how often what was dreamt at once is learnt from.
    """

    world: WorldModel
    execute: int
    chunks: int
    epochs: int

    @abstractmethod
    def feature(self, hidden: Hidden) -> Float[Tensor, "B F"]:
        """What the policy makes of what it sees; it stays as it is while the policy learns."""

    @abstractmethod
    def choice(self, feature: Float[Tensor, "B F"]) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B K A"], Float[Tensor, "B K A"]]:
        """The chunk before learning; mean and deviation of the first K actions now, scaled to [-1, 1]."""

    @abstractmethod
    def log_density(self, feature: Float[Tensor, "B F"], chunk: Float[Tensor, "B K A"]) -> Float[Tensor, "B"]:
        """Of these K actions, in nats."""

    @abstractmethod
    def value(self, feature: Float[Tensor, "B F"]) -> Float[Tensor, "B"]:
        """What the critic expects of the rest of the dream."""

    @abstractmethod
    def reward(
        self, dreamt: Float[Tensor, "B P E"], shown: Float[Tensor, "B P E"], goal: Float[Tensor, "B P E"], ends: Bool[Tensor, "B"]
    ) -> Float[Tensor, "B"]:
        """Of a chunk that led here, where a demonstration was there, and ends at the goal."""

    @abstractmethod
    def advantages(
        self, rewards: Float[Tensor, "B T"], values: Float[Tensor, "B T"], there: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        """How much better than expected each chunk was, and what should have been expected."""

    @abstractmethod
    def moved(self, batch: "Batch") -> bool:
        """True where the policy has moved too far to learn more from this."""


class Trunk(nn.Module, ABC):
    """Named streams in, hidden states out; the only place where streams meet.

    Attributes:
        width, depth: of the residual stream; `out` is the width of the final output.
        remembers: the observation does not look at the rest, so its keys and values can be computed once per chunk.
    """

    width: int
    depth: int
    out: int
    remembers: bool

    @abstractmethod
    def forward(
        self,
        streams: Mapping[str, Stream],
        taps: AbstractSet[int] = frozenset(),
        memory: "Memory | None" = None,
    ) -> Hidden:
        """One pass.  The stream "observation" is the condition; with `memory` it is left out of `streams`."""

    @abstractmethod
    def remember(self, observation: Stream) -> "Memory":
        """Keys and values of the observation, to be computed once and used at every sampling step."""


class Memory(NamedTuple):
    """Keys and values of the observation in each block that reads it (None in the others), and its key mask."""

    blocks: list[tuple[Tensor, Tensor] | None]
    keep: Tensor | None


class Encoder(nn.Module, ABC):
    """Images in [0, 1] in, tokens out; normalisation is inside.

    Attributes:
        width: channels of a token.
        grid: rows and columns of patch tokens.
    """

    width: int
    grid: tuple[int, int]

    @abstractmethod
    def forward(self, image: Float[Tensor, "n 3 Y X"]) -> Float[Tensor, "n P E"]:
        """Patch tokens in row-major order, without any class or register token."""


class View(NamedTuple):
    """What the robot sees: one frame for each camera, and its own state."""

    frame: UInt8[np.ndarray, "V Y X 3"]
    state: Float[np.ndarray, "S"]


class Task(ABC):
    """A simulated task: starts that are named by seeds, an expert that solves it, and a flag that says when it is solved.

    Attributes:
        name, instruction: how it is called, and what it asks for in plain words.
        state_names, action_names: what the numbers are; actions live in [-1, 1].
        limit: control steps after which an episode has failed.
        recorded: control steps of a recording that is kept whatever happens in it; 0 records until the task is solved, or drops it.
    """

    name: str
    instruction: str
    state_names: tuple[str, ...]
    action_names: tuple[str, ...]
    limit: int
    recorded: int = 0

    @abstractmethod
    def reset(self, seed: int) -> None:
        """To the start state that this seed names: the same in every process, whatever was played before."""

    @abstractmethod
    def step(self, action: Float[np.ndarray, "A"]) -> bool:
        """One control step.  True when the task is solved."""

    @abstractmethod
    def look(self) -> View:
        """Render.  Costly, so it is not part of `step`."""

    @abstractmethod
    def expert(self) -> Float[np.ndarray, "A"]:
        """What a scripted expert would do now."""

    def demonstrate(self) -> Float[np.ndarray, "A"]:
        """What is done now where a recording is made; the expert's action, unless the task has something else to show."""
        return self.expert()

    def shift(self, axis: str, strength: int) -> None:
        """Change one thing, from the next reset on, that no demonstration has shown.

        Args:
            axis: one of the family's SHIFTS.
            strength: 1 to 3.

        Raises:
            UserError: this task cannot be changed so.
        """
        raise UserError(f"{self.name} cannot be shifted along {axis!r}")

    def hand_pixel(self, state: Float[np.ndarray, "S"]) -> tuple[float, float] | None:
        """Where the first camera sees the hand that this state describes.

        Returns:
            Row and column as parts of the image's side, from 0 at the top and at the left to 1; outside of that, out of the
            picture.  None where the task has no hand, or the hand is behind the camera.
        """
        return None

    def close(self) -> None:  # noqa: B027  (most tasks hold nothing)
        """Free what the simulator holds."""
