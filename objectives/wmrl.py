"""WMRL: a cloned policy learns a small correction by trial and error inside a world model; no robot, no simulator.

RLA-WM 2026, arXiv:2605.07079; Schulman et al. 2017 (PPO), arXiv:1707.06347; Schulman et al. 2016 (GAE), arXiv:1506.02438.
    a     = a_BC + 0.1 tanh(m), deviation 0.1 softplus(d), (m, d) = MLP(f)       corrected
    log p = sum over the chunk of log N(a; mean, deviation)                      log_density
    r     = -5 mean |s_hat - s_demo| + 0.5 where the dream ends within reach of the demonstration's end     reward
    A_i   = delta_i + 0.9 * 0.95 A_{i+1}, delta_i = r_i + 0.9 V_{i+1} - V_i      advantages
    L     = -min(rho A, clip(rho, 0.8, 1.2) A) + 0.5 (V - A - V_old)^2           clipped
    KL    = mean (rho - 1 - log rho), beyond 0.1 a round is over                 divergence
The policy's weights are frozen, f are its features; s_hat is the world model's answer, painted so that the policy can go on from it
(wmzoo/dream.py).  The policy that plays takes the mean.
We differ: the hand's own state, which no world model here foresees, is told by ridge regression from the state and the actions; every
round begins anew, and its last chunk is an end (published: dreams of at most six chunks go on over rounds of four, with the critic's
word on what follows; the sixth is an end); gradients of 0 end a round that has moved too far, and Adam's momentum goes on; policy and
critic are clipped together (published: apart, and half the critic's loss); the learning rate falls along a cosine.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from re import match
from typing import Literal, cast

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributions import Normal

from wmzoo.batch import Batch, Needs
from wmzoo.errors import UserError
from wmzoo.files import exported
from wmzoo.finished import finished, whole
from wmzoo.interfaces import Blueprint, Denoiser, Dreamer, Sizes, WorldModel
from wmzoo.question import Hidden, Question, Score
from wmzoo.shapes import checked

from .align import exactly
from .bc import Bc

REACH = 0.1  # of a correction, in scaled actions
DISCOUNT, TRACE = 0.9, 0.95  # of a chunk
CLIP, TARGET_KL = 0.2, 0.1
DISTANCE, BONUS = 5.0, 0.5
FAR = 20.0  # a logarithm of a ratio beyond which nothing can be learnt


@checked
def corrected(base: Float[Tensor, "B K A"], raw: Float[Tensor, "B 2 K A"]) -> tuple[Float[Tensor, "B K A"], Float[Tensor, "B K A"]]:
    """Mean and deviation of the actions, scaled to [-1, 1]; a network that says 0 leaves the mean alone, with a deviation of 0.0693.

    A deviation is never less than 0.001: at 0 a density is no number.
    """
    return base + REACH * torch.tanh(raw[:, 0]), REACH * nn.functional.softplus(raw[:, 1]).clamp(min=0.01)


@checked
def log_density(chunk: Float[Tensor, "B K A"], mean: Float[Tensor, "B K A"], deviation: Float[Tensor, "B K A"]) -> Float[Tensor, "B"]:
    """Of a whole chunk under independent normals, in nats."""
    return Normal(mean, deviation, validate_args=False).log_prob(chunk).sum(dim=(1, 2))


@checked
def reward(
    dreamt: Float[Tensor, "B P E"], shown: Float[Tensor, "B P E"], goal: Float[Tensor, "B P E"], ends: Bool[Tensor, "B"], reach: float
) -> Float[Tensor, "B"]:
    """Of one chunk: minus five times the distance to the demonstration at the same moment, and 0.5 for an end near its own.

    Args:
        dreamt: the world model's answer.
        shown: the demonstration there; `goal` its last frame.
        ends: the demonstration, or the dream, is over by now.
        reach: largest mean absolute difference from the goal that earns the bonus.
    """
    near = (dreamt - goal).abs().mean(dim=(1, 2)) <= reach
    return -DISTANCE * (dreamt - shown).abs().mean(dim=(1, 2)) + BONUS * (ends & near)


@checked
def advantages(
    rewards: Float[Tensor, "B T"], values: Float[Tensor, "B T"], there: Bool[Tensor, "B T"]
) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
    """Generalised advantages and what the critic should have said; nothing follows the last chunk that is there.

    Args:
        there: True up to the end of each dream; the rest means nothing and is 0.
    """
    gain, after, ahead = [], torch.zeros_like(rewards[:, 0]), torch.zeros_like(rewards[:, 0])
    for i in reversed(range(rewards.shape[1])):
        delta = rewards[:, i] + DISCOUNT * ahead - values[:, i]
        after = torch.where(there[:, i], delta + DISCOUNT * TRACE * after, 0.0)
        ahead = torch.where(there[:, i], values[:, i], 0.0)
        gain.append(after)
    advantage = torch.stack(gain[::-1], dim=1)
    return advantage, torch.where(there, advantage + values, 0.0)


@checked
def clipped(ratio: Float[Tensor, "B"], advantage: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """PPO's loss of the policy: what the advantage gains, and no more than a change of a fifth would."""
    return -torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)


@checked
def divergence(log_ratio: Float[Tensor, "B"]) -> Float[Tensor, "B"]:
    """How far the policy has moved since it dreamt, a chunk's share of an unbiased estimate, in nats; 0 at first."""
    return log_ratio.exp() - 1 - log_ratio


class Wmrl(Bc, Dreamer):
    """A cloned policy with a correction of its first K actions.

    Args:
        world: where it learns; frozen here.
        queries, sizes, hidden: of the cloned policy.
        plan: the rest.
    """

    auxiliary = ("world", "critic")

    def __init__(self, world: WorldModel, queries: int, sizes: Sizes, hidden: int, plan: "Config") -> None:
        super().__init__(queries, sizes, hidden, 0.0)
        if not 1 <= plan.execute <= min(sizes.horizon, world.horizon) or plan.execute % world.every:
            raise UserError(
                f"a dream's chunk has 1 to {min(sizes.horizon, world.horizon)} actions, a multiple of {world.every}, not {plan.execute}"
            )
        if plan.chunks < 1 or plan.epochs < 1 or plan.reach < 0:
            raise UserError(f"a dream has at least one chunk and one epoch and a reach, not {plan.chunks}, {plan.epochs} and {plan.reach}")
        if sizes.history != 1 or sizes.views != 1:
            raise UserError(f"a dream is of one frame of one camera, not of {sizes.history} frames of {sizes.views} cameras")
        self.execute, self.chunks, self.epochs, self.reach, self.control = plan.execute, plan.chunks, plan.epochs, plan.reach, plan.control
        self.correct = nn.Sequential(
            *(nn.Linear(hidden, 512), nn.ReLU(), nn.Linear(512, 256), nn.ReLU()), nn.Linear(256, 2 * self.execute * sizes.action)
        )
        self.critic = nn.Sequential(nn.Linear(hidden, 256), nn.ReLU(), nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 1))
        nn.init.zeros_(cast("nn.Linear", self.correct[-1]).weight)
        nn.init.zeros_(cast("nn.Linear", self.correct[-1]).bias)
        self.world = world
        for part in (self.world, self.body, self.action_head):
            part.requires_grad_(False)
        self.queries.requires_grad_(False)

    def train(self, mode: bool = True) -> "Wmrl":
        super().train(mode)
        for part in (getattr(self, "world", None), self.body):
            if part is not None:
                part.train(False)
        return self

    def needs(self) -> Needs:
        return Needs(futures=tuple(self.execute * (i + 1) for i in range(self.chunks)))

    def settle(self, batches: Iterable[Batch]) -> None:
        """The world model has settled when it was trained."""

    def feature(self, hidden: Hidden) -> Float[Tensor, "B F"]:
        return self.body(hidden.final[self.stream].flatten(1)).float()

    def choice(self, feature: Float[Tensor, "B F"]) -> tuple[Float[Tensor, "B H A"], Float[Tensor, "B K A"], Float[Tensor, "B K A"]]:
        with exactly(feature):
            base = super().write(feature)
            mean, deviation = corrected(base[:, : self.execute], self.correct(feature).unflatten(1, (2, self.execute, -1)))
        return base, mean, deviation

    def log_density(self, feature: Float[Tensor, "B F"], chunk: Float[Tensor, "B K A"]) -> Float[Tensor, "B"]:
        return log_density(chunk, *self.choice(feature)[1:])

    def value(self, feature: Float[Tensor, "B F"]) -> Float[Tensor, "B"]:
        with exactly(feature):
            return self.critic(feature)[:, 0]

    def reward(
        self, dreamt: Float[Tensor, "B P E"], shown: Float[Tensor, "B P E"], goal: Float[Tensor, "B P E"], ends: Bool[Tensor, "B"]
    ) -> Float[Tensor, "B"]:
        if self.control == "shuffled":
            shown, goal = shown.roll(1, dims=0), goal.roll(1, dims=0)
        return reward(dreamt, shown, goal, ends, self.reach)

    def advantages(
        self, rewards: Float[Tensor, "B T"], values: Float[Tensor, "B T"], there: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B T"], Float[Tensor, "B T"]]:
        return advantages(rewards, values, there)

    def moved(self, batch: Batch) -> bool:
        """True where the policy is too far from the one that dreamt this batch."""
        log_ratio = self.log_density(batch.features["dream/feature"], batch.features["dream/chunk"]) - batch.features["dream/log_density"]
        return bool(divergence(log_ratio)[batch.features["dream/there"]].mean() > TARGET_KL)

    def write(self, features: Float[Tensor, "B F"]) -> Float[Tensor, "B H A"]:
        base, mean, _ = self.choice(features.float())
        return torch.cat([mean, base[:, self.execute :]], dim=1)

    def forward(self, batch: Batch) -> Question:
        """Windows that were not dreamt teach nothing."""
        told = batch.features
        feature = told.get("dream/feature", batch.state.new_zeros(len(batch), self.action_head.in_features)).detach()
        action = told.get("dream/chunk", torch.zeros_like(batch.action[:, : self.execute])).detach()
        nothing = batch.state.new_zeros(len(batch))
        there = told.get("dream/there", torch.zeros_like(batch.has_state))
        before, gain, wanted = (told.get(f"dream/{name}", nothing) for name in ("log_density", "advantage", "wanted"))

        def score(_: Hidden) -> dict[str, Score]:
            log_ratio = torch.where(there, self.log_density(feature, action) - before, 0.0).clamp(-FAR, FAR)  # exp of more is inf
            policy = clipped(log_ratio.exp(), gain)
            return {"policy": Score(policy, there), "value": Score((self.value(feature) - wanted).square(), there)}

        def watch(_: Hidden) -> dict[str, Tensor]:
            return {name.removeprefix("seen/"): value.mean() for name, value in told.items() if name.startswith("seen/")}

        return Question({}, frozenset(), score, watch)


@dataclass(frozen=True)
class World(Blueprint):
    """The world model of a finished run.

    Attributes:
        term: the objective that it is.
        weights: none, or the run folder of an arm that has it; "stage:NAME" is a stage.

    Raises:
        UserError: that is no finished run, or another world model, or damaged.
    """

    term: Blueprint
    weights: str = "none"

    def build(self, sizes: Sizes) -> WorldModel:
        model = self.term.build(sizes)
        if not isinstance(model, WorldModel):
            raise UserError(f"{type(self.term).__module__} is no world model that stands alone: a dream needs one such as rla_wm")
        if self.weights != "none" and not any(p.is_meta for p in model.parameters()):
            export, mine = finished(Path(self.weights)), model.state_dict()
            with whole(export):
                named = {hit[1]: value for name, value in exported(export).items() if (hit := match(r"objectives\.\w+\.(.*)", name))}
                model.load_state_dict({name: value for name, value in named.items() if name in mine})
        return model


@dataclass(frozen=True)
class Config(Blueprint):
    """Learning inside a world model; the defaults are the paper's.

    Attributes:
        world: where.
        queries, hidden: of the cloned policy, as in objectives/bc.py.
        execute: control steps of a chunk, as when it plays.
        chunks: of a dream.
        epochs: steps of the optimiser on what was dreamt at once.
        reach: mean absolute difference of features from a demonstration's end that counts as having arrived.
        control: "shuffled" rewards being where another dream's demonstration is.
    """

    world: Blueprint
    queries: int = 16
    hidden: int = 2048
    execute: int = 8
    chunks: int = 4
    epochs: int = 4
    reach: float = 0.032
    control: Literal["none", "shuffled"] = "none"

    def build(self, sizes: Sizes) -> Denoiser:
        return Wmrl(cast("WorldModel", self.world.build(sizes)), self.queries, sizes, self.hidden, self)
