"""How do many objectives share one pass?  A hybrid asks them all, runs the trunk once, and lets each mark what it sees."""

from collections.abc import Callable, Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from .batch import Batch, Needs
from .errors import UserError, unknown
from .interfaces import Denoiser, Dreamer, Objective, Trunk, WorldModel
from .question import Hidden, Question, Score, Stream


class Hybrid(nn.Module):
    """An observer, a trunk and any number of objectives.

    Args:
        observer: batch -> {"observation": Stream, "state": Stream}; never reads the future.
        trunk: runs once per batch, and not at all if no objective has streams or taps.
        objectives: by name; each stream has one owner.  Beside one that dreams observer and trunk stay as they are.
    """

    def __init__(self, observer: nn.Module, trunk: Trunk, objectives: Mapping[str, Objective]) -> None:
        super().__init__()
        self.observer, self.trunk = observer, trunk
        self.objectives = cast("dict[str, Objective]", nn.ModuleDict(objectives))
        for objective in objectives.values():
            objective.join(observer)
            if isinstance(objective, Dreamer):  # it learns a correction of what is there
                self.observer.requires_grad_(False)
                self.trunk.requires_grad_(False)

    def needs(self) -> Needs:
        """The frames and actions of all objectives together.

        Raises:
            UserError: two objectives, policies or world models, want action chunks that start at different steps.
        """
        each = {name: objective.needs() for name, objective in self.objectives.items()}
        acting = {name: need.first_action for name, need in each.items() if isinstance(self.objectives[name], Denoiser | WorldModel)}
        if len(set(acting.values())) > 1:
            raise UserError(f"the objectives want chunks that start at different steps: {acting}")
        futures = dict.fromkeys(offset for need in each.values() for offset in need.futures)
        first = next(iter(acting.values()), 0)
        return Needs(max((need.history for need in each.values()), default=1), first, tuple(futures))

    def forward(self, batch: Batch) -> dict[str, Score]:
        """Every term of every objective, as "objective/term".  One pass through the trunk.

        Raises:
            ValueError: two objectives own a stream of the same name.
        """
        questions, hidden = self._pass(batch)
        return {f"{name}/{term}": score for name, q in questions.items() for term, score in q.score(hidden).items()}

    @torch.no_grad()
    def watch(self, batch: Batch) -> dict[str, Tensor]:
        """What every objective wants to see logged, as "objective/name"."""
        questions, hidden = self._pass(batch)
        seen = {name: question.watch(hidden) for name, question in questions.items() if question.watch}
        return {f"{name}/{what}": value for name, values in seen.items() for what, value in values.items()}

    def _pass(self, batch: Batch) -> tuple[dict[str, Question], Hidden]:
        """Ask all objectives, run the trunk once if anyone has streams or taps."""
        questions = {name: objective(batch) for name, objective in self.objectives.items()}
        if any(question.streams or question.taps for question in questions.values()):
            streams: dict[str, Stream] = self.observer(batch)
            for name, question in questions.items():
                if taken := streams.keys() & question.streams.keys():
                    raise ValueError(f"objective {name!r} adds the streams {sorted(taken)}, which another objective owns")
                streams |= question.streams
            hidden = self.trunk(streams, frozenset().union(*(question.taps for question in questions.values())))
        else:
            hidden = Hidden({}, {})
        return questions, hidden

    @property
    def denoiser(self) -> Denoiser:
        """The objective that generates actions.

        Raises:
            UserError: this arm has none, so it cannot play.
        """
        for objective in self.objectives.values():
            if isinstance(objective, Denoiser) and objective.stream == "action":
                return objective
        raise UserError(f"this arm has no policy: none of its objectives {sorted(self.objectives)} generates actions")

    @property
    def world_model(self) -> WorldModel | None:
        """The objective that predicts a future frame, or the whole hybrid where one of its streams is the future; if there is one."""
        found = [objective for objective in self.objectives.values() if isinstance(objective, WorldModel)]
        found += [model for o in self.objectives.values() if isinstance(o, Denoiser) and (model := o.dynamics(self)) is not None]
        return found[0] if found else None

    @torch.no_grad()
    def act(self, batch: Batch, noise: Float[Tensor, "B H A"], steps: int) -> Float[Tensor, "B H A"]:
        """The chunk that starts now, from noise, in `steps` passes.  The observation is encoded and remembered once.

        The standing streams of every objective are in the sequence, as they were in training.

        Raises:
            ValueError: the noise is not of these windows and this robot, or no whole chunk.
        """
        windows, size = len(batch), batch.action.shape[2]
        if noise.ndim != 3 or noise.shape[0] != windows or noise.shape[2] != size:
            raise ValueError(f"a chunk of these windows is made from noise ({windows}, H, {size}), not {tuple(noise.shape)}")
        denoiser = self.denoiser
        return denoiser.executable(self._sample(denoiser, batch, noise, steps, {}))

    def generate(
        self, batch: Batch, name: str, noise: Mapping[str, Tensor], steps: int, given: Mapping[str, Tensor]
    ) -> Float[Tensor, "B N X"]:
        """The stream of one generating objective, from noise; those of others as they are given, or as noise.

        Args:
            name: of the objective.
            noise: for it, and for every generating objective that is neither it nor given; standing streams need none.
            steps: of sampling.
            given: clean values by objective: its clock is 1.

        Raises:
            UserError: an objective that was named generates nothing, or there is no noise for one.
            ValueError: a value that has not one row for each token of its stream.
        """
        generating = {name: objective for name, objective in self.objectives.items() if isinstance(objective, Denoiser)}
        for asked in (name, *given, *noise):
            if asked not in generating:
                raise unknown("generating objective of this arm", asked, generating)
        streams: dict[str, Stream] = {}
        for other, objective in generating.items():
            if other in given:
                streams |= shown(objective, given[other], torch.ones(len(batch), device=batch.state.device), batch)
            elif other in noise and other != name:
                streams |= shown(objective, noise[other], torch.zeros(len(batch), device=batch.state.device), batch)
            elif other != name and not objective.standing(batch):
                raise UserError(f"{other} is neither given nor is there noise for it")
        return self._sample(generating[name], batch, noise[name], steps, streams)

    def jointly(self, batch: Batch, noise: Mapping[str, Tensor], steps: int) -> dict[str, Tensor]:
        """All generating objectives at once, from noise, on one clock.

        Args:
            noise: for every one of them, by name.
            steps: of sampling.

        Raises:
            UserError: the names are not those of the generating objectives, or these are not sampled by one rule.
            ValueError: noise that has not one row for each token of its stream.
        """
        generating = {name: objective for name, objective in self.objectives.items() if isinstance(objective, Denoiser)}
        if noise.keys() != generating.keys():
            raise UserError(f"joint sampling needs noise for {sorted(generating)}, there is some for {sorted(noise)}")
        rules = {name: objective.rule for name, objective in generating.items()}
        if len(set(rules.values())) > 1:
            told = "; ".join(f"{name}: {rule}" for name, rule in rules.items())
            raise UserError(f"only streams of one sampling rule can be sampled jointly, not {told}")
        shapes = {name: noise[name].shape[1:] for name in generating}
        sizes = [shape.numel() for shape in shapes.values()]
        streams: dict[str, Stream] = self.observer(batch)
        for objective in self.objectives.values():
            streams |= objective.standing(batch)

        def apart(packed: Tensor) -> dict[str, Tensor]:
            return {name: part.unflatten(1, shapes[name]) for name, part in zip(generating, packed.split(sizes, dim=1), strict=True)}

        def predict(packed: Tensor, clock: Tensor) -> Tensor:
            everything = dict(streams)
            for name, value in apart(packed).items():
                everything |= shown(generating[name], value, clock, batch)
            hidden = self.trunk(everything)
            return torch.cat([objective.read(hidden, batch).flatten(1) for objective in generating.values()], dim=1)

        start = torch.cat([noise[name].flatten(1) for name in generating], dim=1)
        return apart(next(iter(generating.values())).sample(predict, start, steps))

    def told(self, batch: Batch, given: Mapping[str, Tensor], taps: AbstractSet[int]) -> Hidden:
        """One pass with clean values of generating objectives, by name; the others stay as they stand when the policy plays."""
        streams: dict[str, Stream] = self.observer(batch)
        for objective in self.objectives.values():
            streams |= objective.standing(batch)
        for name, value in given.items():
            denoiser = cast("Denoiser", self.objectives[name])
            streams |= shown(denoiser, value, torch.ones(len(batch), device=value.device), batch)
        return self.trunk(streams, taps)

    def played(self, denoiser: Denoiser, noisy: Tensor, clock: Tensor, batch: Batch) -> Hidden:
        """What the trunk makes of a noisy chunk at a clock (B,), everything standing as when the policy plays."""
        streams: dict[str, Stream] = self.observer(batch)
        for objective in self.objectives.values():
            streams |= objective.standing(batch)
        return self.trunk({**streams, **denoiser.embed(noisy, clock, batch)})

    def _sample(self, denoiser: Denoiser, batch: Batch, noise: Tensor, steps: int, others: Mapping[str, Stream]) -> Tensor:
        streams: dict[str, Stream] = self.observer(batch)
        for objective in self.objectives.values():
            streams |= objective.standing(batch)
        streams |= others
        memory = self.trunk.remember(streams.pop("observation")) if self.trunk.remembers else None

        def predict(noisy: Tensor, clock: Tensor) -> Tensor:
            prediction = denoiser.read(self.trunk({**streams, **denoiser.embed(noisy, clock, batch)}, memory=memory), batch)
            if prediction.shape != noisy.shape:
                raise ValueError(f"this objective predicts {tuple(prediction.shape)}: noise of {tuple(noisy.shape)} is no start for it")
            return prediction

        return denoiser.sample(predict, noise, steps)

    def settle(self, batches: Callable[[], Iterable[Batch]]) -> None:
        """To be called once before training: every objective measures what it wants on some training batches."""
        for objective in self.objectives.values():
            objective.settle(batches())

    def after_step(self) -> None:
        """To be called after every step of the optimiser."""
        for objective in self.objectives.values():
            objective.after_step(self.observer)

    def strip(self) -> "Hybrid":
        """The policy alone: auxiliary parts are removed, standing streams stay.  Changes this object and returns it."""
        for objective in self.objectives.values():
            objective.strip()
        return self


def shown(objective: Denoiser, value: Tensor, clock: Tensor, batch: Batch) -> dict[str, Stream]:
    """The streams of a value (B, N, X) of a generating objective at a clock (B,).

    Raises:
        ValueError: the value has not one row for each token, so that the objective has repeated it.
    """
    streams = objective.embed(value, clock, batch)
    tokens = streams[objective.stream].tokens
    if value.shape[:2] != tokens.shape[:2]:
        windows, rows = tokens.shape[:2]
        raise ValueError(f"the stream {objective.stream!r} has {windows} windows of {rows} rows, it was given {tuple(value.shape)}")
    return streams
