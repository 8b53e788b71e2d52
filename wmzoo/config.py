"""What is an arm made of?  A tree of frozen dataclasses: built, printed, overridden, saved as YAML and read back."""

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import partial
from importlib import import_module
from math import inf, isfinite
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

import torch
import yaml
from beartype import BeartypeConf
from beartype.door import is_bearable
from torch import nn

from .batch import Needs
from .compose import Hybrid
from .data import Data, Windows
from .errors import UserError, missing, unknown
from .interfaces import Blueprint, Denoiser, Dreamer, Objective, Sizes, Trunk

Scale = Literal["tiny", "small", "base", "paper"]
Shapes = dict[str, torch.Size]  # of tensors, by name


@dataclass(frozen=True)
class Term:
    """An objective and how much each of its terms weighs; 0 means that it is computed and logged only.

    Attributes:
        config: the objective.
        weights: by term.
        weight: a factor on all of them; "auto:R" is that at which they are together R times the first objective's loss, at every step and
            without a gradient (the authors of RLA-WM in their rebuttal, R = 0.25, arXiv:2605.07079); "rise:W:N" grows to W in N steps.
    """

    config: Blueprint
    weights: dict[str, float]
    weight: float | str = 1.0

    @property
    def weighing(self) -> "Weighing":
        """What the weight says.

        Raises:
            UserError: it is none of the three.
        """
        if not isinstance(self.weight, str):
            return Weighing(float(self.weight))
        with suppress(ValueError):
            match self.weight.split(":"):
                case ["auto", share] if 0 < float(share) < inf:
                    return Weighing(share=float(share))
                case ["rise", factor, steps] if 0 < float(factor) < inf and int(steps) > 0:
                    return Weighing(float(factor), rise=int(steps))
                case _:
                    pass
        told = "auto:R with a positive R such as auto:0.25, or rise:W:N with positive ones such as rise:0.2:1000"
        raise UserError(f"a weight is a number, {told}; not {self.weight!r}")


@dataclass(frozen=True)
class Weighing:
    """How an objective is weighed.

    Attributes:
        factor: of its terms.
        share: what part of the first objective's loss it is, if it is balanced.
        rise: steps in which the factor grows linearly from 0; 0 is at once.
    """

    factor: float = 1.0
    share: float | None = None
    rise: int = 0


@dataclass(frozen=True)
class Optim:
    """How the weights move.

    Attributes:
        steps: of the optimiser.
        lr, betas, decay: AdamW; norms, biases and tables are not decayed.
        warmup: part of the steps over which the rate rises; it then falls along a cosine to 0.
        clip: largest norm of the gradient.
        ema: weights that play are averaged with decay min(ema, 1 - (1 + step)^-0.75); 0 plays the last weights.
        precision: bf16 or fp32, or auto: bf16 where this processor is good at it.
        compile: torch.compile the network; costs a minute at the start.
        chapter: steps between checkpoints, validations and lines of metrics.csv.
    """

    steps: int
    lr: float = 1e-3
    betas: tuple[float, float] = (0.95, 0.999)
    decay: float = 1e-5
    warmup: float = 0.05
    clip: float = 1.0
    ema: float = 0.999
    precision: Literal["auto", "bf16", "fp32"] = "auto"
    compile: bool = False
    chapter: int = 250


@dataclass(frozen=True)
class Play:
    """How the policy acts.

    Attributes:
        steps: sampling steps K.
        execute: actions of a chunk that are carried out before the next look.
    """

    steps: int = 4
    execute: int = 8


@dataclass(frozen=True)
class Shape:
    """Width and depth of the trunk."""

    width: int
    depth: int


@dataclass(frozen=True)
class Absent(Blueprint):
    """No trunk, no observer: the objectives of this arm have no streams."""

    def build(self, sizes: Sizes) -> nn.Module:
        return nn.Identity()


@dataclass(frozen=True)
class Experiment:
    """An arm: everything that decides a run, and nothing else.

    Attributes:
        start: a finished run whose observer, trunk and shared objectives this arm starts from ("stage:NAME" is a stage); or none.
        stages: what is trained beforehand, by name, in this order; wherever the arm or a later stage says
            `weights="stage:NAME"` it starts from the result.  A stage has the demonstrations of its arm (`for_stage`) and its
            own videos, batch, steps and seed.
    """

    name: str
    shape: Shape
    trunk: Blueprint
    observer: Blueprint
    objectives: dict[str, Term]
    data: Data
    optim: Optim
    play: Play = field(default_factory=Play)
    seed: int = 0
    start: str = "none"
    stages: "dict[str, Experiment]" = field(default_factory=dict)

    @property
    def weights(self) -> dict[str, float]:
        """Weight of each term, as "objective/term"; what balances an objective (`shares`) apart."""
        return {f"{name}/{t}": term.weighing.factor * w for name, term in self.objectives.items() for t, w in term.weights.items()}

    @property
    def shares(self) -> dict[str, float]:
        """Objectives that are balanced against the first one, and what part of its loss they are.

        Raises:
            UserError: the first one is among them.
        """
        found = {name: share for name, term in self.objectives.items() if (share := term.weighing.share) is not None}
        if found and (first := next(iter(self.objectives))) in found:
            raise UserError(
                f"--objectives.{first}.weight is what others are balanced against: a number, not {self.objectives[first].weight}"
            )
        return found

    @property
    def rises(self) -> dict[str, int]:
        """Objectives whose weight grows from 0, and in how many steps."""
        return {name: rise for name, term in self.objectives.items() if (rise := term.weighing.rise)}

    @property
    def weights_in_words(self) -> dict[str, str]:
        """The weight of each term, and how it is balanced, or rises."""
        more = {name: f", auto:{share:g}" for name, share in self.shares.items()}
        more |= {name: f", after a rise of {steps} steps" for name, steps in self.rises.items()}
        return {term: f"{weight:g}{more.get(term.partition('/')[0], '')}" for term, weight in self.weights.items()}


RANGES = {
    "shape": {"width": (1, inf), "depth": (0, inf)},
    "data": {"demos": (1, inf), "videos": (0, inf), "video_share": (0, 1), "size": (1, inf), "horizon": (1, inf), "batch": (1, inf)},
    "optim": {
        "steps": (1, inf), "lr": (0, inf), "decay": (0, inf), "warmup": (0, 1), "clip": (0, inf), "ema": (0, 1), "chapter": (1, inf),
    },
    "play": {"steps": (1, inf), "execute": (1, inf)},
}  # fmt: skip


def check(arm: Experiment) -> None:
    """Are the numbers of the arm possible, and are the stages it names its own and of its size?

    Raises:
        UserError: one is out of its range, or a stage is not there or of another size.
    """
    from_stages(arm, dict.fromkeys(arm.stages, Path()))
    for i, stage in enumerate(arm.stages.values()):
        from_stages(stage, dict.fromkeys([*arm.stages][:i], Path()))
    for part in (arm, *arm.stages.values()):
        with_weights(replace(part, stages={}), _there)
    ranges = {f"{part}.{name}": limits for part, numbers in RANGES.items() for name, limits in numbers.items()}
    values = {key: getattr(getattr(arm, key.partition(".")[0]), key.partition(".")[2]) for key in ranges}
    ranges |= {"seed": (0, 2**31 - 1), "data.shift": (0, arm.data.size // 2)}
    values |= {"seed": arm.seed, "data.shift": arm.data.shift}
    for key, (low, high) in ranges.items():
        if not low <= values[key] <= high or (values[key] == inf and key != "optim.clip"):
            raise UserError(
                f"--{key.replace('_', '-')} must be {f'from {low} to {high}' if high < inf else f'at least {low}'}, not {values[key]}"
            )
    if not re.fullmatch(r"[\w.-]*\w", arm.name):
        raise UserError(f"--name is part of the name of a folder: letters, digits, dots and dashes, not {arm.name!r}")
    if not all(0 <= beta < 1 for beta in arm.optim.betas):
        raise UserError(f"--optim.betas are from 0 to below 1, not {' '.join(map(str, arm.optim.betas))}")
    for term, weight in (arm.weights | arm.shares).items():
        if not isfinite(weight):
            raise UserError(f"the weight of {term} must be a finite number, not {weight}")
    for objective in sketch(arm).objectives.values():
        if isinstance(objective, Denoiser) and arm.play.steps > objective.most:
            raise UserError(f"--play.steps {arm.play.steps} is more than the {objective.most} noise levels of this arm")
    chunk = arm.data.horizon + needs_of(arm).first_action
    if arm.play.execute > chunk:
        raise UserError(f"--play.execute {arm.play.execute} is more than the {chunk} actions of a chunk that lie ahead")
    check_dreams(arm)
    check_starts(arm)


def check_dreams(arm: Experiment) -> None:
    """Can the policy of the arm, if it dreams, dream as it plays, and stop where a checkpoint is written?

    Raises:
        UserError: it cannot.
    """
    for name, objective in sketch(arm).objectives.items():
        if not isinstance(objective, Dreamer):
            continue
        if objective.execute != arm.play.execute:
            raise UserError(
                f"the policy dreams of {objective.execute} actions a chunk and plays {arm.play.execute}: "
                f"make --objectives.{name}.config.execute and --play.execute equal"
            )
        if arm.optim.chapter % objective.epochs:
            raise UserError(f"--optim.chapter {arm.optim.chapter} must be a multiple of the {objective.epochs} epochs of a round")
        if arm.data.shift:
            raise UserError(f"a dream begins with a frame as it was recorded: --data.shift 0, not {arm.data.shift}")


def check_starts(arm: Experiment) -> None:
    """Does every part fit the stage that it starts from?  Found out before that stage is trained.

    A part is compared with the one of its class in the stage, an objective that is taken whole (`term`) with that objective, each
    in the sizes that it is trained with; what changes no tensor that is taken (`frozen`, `state_blind`) may differ.

    Raises:
        UserError: a tensor has another shape there, with the options that would make it the same.
    """
    stages = {name: for_stage(stage, arm) for name, stage in arm.stages.items()}
    for owner, user in (("", arm), *((f"stages.{name}", stage) for name, stage in stages.items())):
        for place, part in parts(replace(user, stages={}), owner):
            kind, _, name = str(getattr(part, "weights", "")).partition(":")
            if kind == "stage" and not isinstance(part, Experiment):
                whole = getattr(part, "term", part)
                twins = [twin for twin in parts(replace(stages[name], stages={}), f"stages.{name}") if type(twin[1]) is type(whole)]
                inside = place if whole is part else f"{place}.term"
                if not twins:
                    raise UserError(f"{inside} cannot start from stages.{name}, which has no part of its class, {_class(whole)}")
                here, there = (partial(_taken, sizes=_any_sizes(trained)) for trained in (user, stages[name]))
                _same_shapes(inside, whole, twins, here, there)
    kind, _, name = arm.start.partition(":")
    if kind == "stage":
        bare, stage = (replace(e, objectives={}, data=arm.data, stages={}) for e in (arm, arm.stages[name]))
        same = {f.name: getattr(bare, f.name) for f in fields(bare) if f.name not in ("shape", "trunk", "observer")}
        _same_shapes("", bare, [(f"stages.{name}", replace(stage, **same))], _whole, _whole)


def _whole(arm: Experiment) -> Shapes:
    """The shapes of all of an arm."""
    return _shapes(build(arm, _any_sizes(arm)))


def _taken(part: Any, sizes: Sizes) -> Shapes:
    """The shapes of what a part, for data and a trunk of these sizes, starts from its stage."""
    return _shapes(part.started(part.build(sizes)))


def _same_shapes(
    place: str, part: Any, twins: list[tuple[str, Any]], here: Callable[[Any], Shapes], there: Callable[[Any], Shapes]
) -> None:
    """Raise unless one of the twins has the shapes of `part`, and its heads: these change no tensor, and what is computed from it.

    Args:
        twins: and where they are.
        here, there: the shapes of the part, and of a twin.
    """

    def matters(field_: str, value: Any) -> bool:
        try:
            return _is_heads(field_) or here(with_fields(part, {field_: value})) != ours
        except UserError:  # not possible alone: a width without the heads that divide it
            return True

    wrong: list[tuple[str, str, Any, Any]] = []
    where, ours, theirs = "", {}, {}
    with torch.device("meta"):
        ours = here(part)
        for where, twin in twins:
            apart, theirs = list(differences(part, twin)), there(twin)
            if theirs == ours and not any(_is_heads(field_) for field_, _, _ in apart):
                return
            wrong = [(where, field_, mine, its) for field_, mine, its in apart if matters(field_, its)]
    if wrong:
        where, field_, mine, its = wrong[0]
        told = f"{field_} is {'another class' if is_dataclass(mine) else f'{mine} here, {its} there'}"
        options = [f"--{at}.{name} {_words(value)}".replace("_", "-") for at, name, value, _ in wrong if not is_dataclass(value)]
        todo = f"add {' '.join(options)}" if options else f"give {where}.{field_} the class of {f'{place}.{field_}'.strip('.')}"
    else:
        name = next(name for name in ours | theirs if ours.get(name) != theirs.get(name))
        mine, its = (tuple(shapes[name]) if name in shapes else "absent" for shapes in (ours, theirs))
        told, todo = f"its {name} is {mine} here, {its} there", "its data or its trunk is of another size"
    raise UserError(f"{place or 'this arm'} cannot start from {where}, which has another size: {told}; {todo}")


def _is_heads(field_: str) -> bool:
    return field_.rpartition(".")[2] == "heads"


def _shapes(network: nn.Module) -> Shapes:
    return {name: value.shape for name, value in network.state_dict().items()}


def _class(part: Any) -> str:
    return f"{type(part).__module__}.{type(part).__qualname__}"


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def parts(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every dataclass of a tree with its dotted name."""
    if is_dataclass(tree):
        yield path, tree
    inside = {f.name: getattr(tree, f.name) for f in fields(tree)} if is_dataclass(tree) else tree if isinstance(tree, dict) else {}
    for name, part in inside.items():
        yield from parts(part, f"{path}.{name}".strip("."))


def differences(ours: Any, theirs: Any, path: str = "") -> Iterator[tuple[str, Any, Any]]:
    """The fields, by dotted name, in which two trees differ, with both values; where weights come from is none of them."""
    if is_dataclass(ours) and type(ours) is type(theirs):
        for f in fields(ours):
            if f.name != "weights":
                yield from differences(getattr(ours, f.name), getattr(theirs, f.name), f"{path}.{f.name}".strip("."))
    elif ours != theirs:
        yield path, ours, theirs


def _there(weights: str) -> str:
    """Weights as they are, if they are there: found out before anything is trained."""
    if weights not in ("none", "pretrained") and not weights.startswith("stage:") and not Path(weights).exists():
        raise UserError(f"weights {weights!r}: no such file or folder; say none, pretrained, or the path of a local file or folder")
    return weights


def sizes_for(arm: Experiment, *, action: int, state: int, views: int, history: int) -> Sizes:
    """What the networks of an arm must know before they are built; the data tells the keyword arguments."""
    width, depth = arm.shape.width, arm.shape.depth
    context, out = getattr(arm.trunk, "context_width", width), getattr(arm.trunk, "out_width", width)
    return Sizes(width, depth, context, out, arm.data.horizon, action, state, arm.data.size, views, history, embodiments=2)


def needs_of(arm: Experiment) -> Needs:
    """The frames and actions that the objectives of the arm ask the data for."""
    return sketch(arm).needs()


def sketch(arm: Experiment) -> Hybrid:
    """The arm's networks before the data has been opened, on the meta device, so that nothing is allocated."""
    with torch.device("meta"):
        return build(arm, _any_sizes(arm))


def _any_sizes(arm: Experiment) -> Sizes:
    """Before the data has been opened."""
    return sizes_for(arm, action=1, state=1, views=1, history=1)


def build(arm: Experiment, sizes: Sizes) -> Hybrid:
    """The networks of an arm, with fresh weights."""
    objectives = {name: cast("Objective", term.config.build(sizes)) for name, term in arm.objectives.items()}
    return Hybrid(arm.observer.build(sizes), cast("Trunk", arm.trunk.build(sizes)), objectives)


def build_for(arm: Experiment, windows: Windows) -> Hybrid:
    """The networks of an arm for this data."""
    shapes = {"action": windows.action_size, "state": windows.state_size, "views": windows.views}
    return build(arm, sizes_for(arm, **shapes, history=windows.needs.history))


def to_plain(value: Any) -> Any:
    """A tree of dataclasses as dicts, lists and numbers; each dataclass carries its class under "is"."""
    if is_dataclass(value) and not isinstance(value, type):
        return {"is": _class(value), **{f.name: to_plain(getattr(value, f.name)) for f in fields(value)}}
    if isinstance(value, Mapping):
        return {key: to_plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [to_plain(item) for item in value]
    return value


def from_plain(plain: Any, where: str = "config") -> Any:
    """The tree that `to_plain` made.  Only classes of wmzoo are built.

    Raises:
        UserError: a class or a field that does not exist.
    """
    if isinstance(plain, dict) and "is" in plain:
        module, _, name = str(plain["is"]).rpartition(".")
        try:
            kind = getattr(import_module(module), name) if module.startswith("wmzoo.") else None
        except (ImportError, AttributeError):
            kind = None
        if not is_dataclass(kind):
            raise UserError(f"{where}: {plain['is']!r} is not a part of wmzoo")
        known = {f.name for f in fields(kind)}
        for key in plain.keys() - known - {"is"}:
            raise unknown(f"field of {where} ({plain['is']})", key, known)
        values = {key: from_plain(item, f"{where}.{key}") for key, item in plain.items() if key != "is"}
        hints = get_type_hints(kind)
        for key, value in values.items():
            if not is_bearable(value, hints[key], conf=BeartypeConf(is_pep484_tower=True)):  # an int will do for a float
                cut = "; is the file incomplete?" if plain[key] is None else ""
                raise UserError(f"{where}.{key} must be {getattr(hints[key], '__name__', hints[key])}, not {plain[key]!r}{cut}")
        needed = [f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING]
        if lacking := [name for name in needed if name not in values]:
            raise UserError(f"{where} has no {', '.join(lacking)}; is the file incomplete?")
        return kind(**values)  # type: ignore[operator]
    if isinstance(plain, dict):
        return {key: from_plain(item, f"{where}.{key}") for key, item in plain.items()}
    if isinstance(plain, list):
        return tuple(from_plain(item, where) for item in plain)
    return plain


def for_stage(stage: Experiment, arm: Experiment) -> Experiment:
    """A stage as this arm needs it: the same tasks, demonstrations, frames and chunks."""
    ours = arm.data
    same = {"tasks": ours.tasks, "demos": ours.demos, "size": ours.size, "horizon": ours.horizon, "shift": ours.shift, "root": ours.root}
    return replace(stage, data=replace(stage.data, **same))


def with_weights(part: Any, change: Callable[[str], str], field_: str = "weights") -> Any:
    """The same tree with every `weights: str`, or text field of another name, changed."""
    if is_dataclass(part) and not isinstance(part, type):
        values = {f.name: getattr(part, f.name) for f in fields(part)}
        kept = {k: change(v) if k == field_ and isinstance(v, str) else with_weights(v, change, field_) for k, v in values.items()}
        return replace(part, **kept)
    if isinstance(part, dict):
        return {key: with_weights(item, change, field_) for key, item in part.items()}
    return part


def with_fields(part: Any, changes: Mapping[str, Any], where: str = "") -> Any:
    """The same tree with some fields changed, which are named as on the command line: {"data.demos": 10, "objectives.flare.weight": 0.1}.

    Raises:
        UserError: there is no such field, or it cannot have that value.
    """
    for name, value in changes.items():
        first, _, rest = name.partition(".")
        inside = (
            dict(part) if isinstance(part, dict) else {f.name: getattr(part, f.name) for f in fields(part)} if is_dataclass(part) else {}
        )
        if first not in inside:
            raise unknown(f"field of {where or 'the arm'}", first, inside)
        path = f"{where}.{first}".strip(".")
        inside[first] = with_fields(inside[first], {rest: value}, path) if rest else value
        if not isinstance(part, dict):
            hint = get_type_hints(type(part))[first]
            if not is_bearable(inside[first], hint, conf=BeartypeConf(is_pep484_tower=True)):
                raise UserError(f"{path} must be {getattr(hint, '__name__', hint)}, not {value!r}")
        part = inside if isinstance(part, dict) else type(part)(**inside)
    return part


def self_contained(arm: Experiment) -> Experiment:
    """The arm with fresh weights everywhere and no stages: for an export, whose own file holds all weights.

    VGG's file, which measures and is no part of them, is not asked for elsewhere.
    """
    alone = with_weights(replace(arm, stages={}, start="none"), lambda _: "none")
    return with_weights(alone, lambda told: told if told in ("auto", "features", "none") else "features", "perceptual")


def from_stages(arm: Experiment, runs: Mapping[str, Path | str]) -> Experiment:
    """The arm with the folder of a trained stage wherever it says "stage:NAME".

    Raises:
        UserError: the arm has no stage of that name.
    """

    def located(weights: str) -> str:
        kind, _, name = weights.partition(":")
        if kind != "stage":
            return weights
        if name not in runs:
            raise unknown(f"stage of {arm.name}", name, runs)
        return str(runs[name])

    return with_weights(replace(arm, stages={}, start=located(arm.start)), located)


def dump(arm: Experiment) -> str:
    """The arm as YAML."""
    return yaml.safe_dump(to_plain(arm), sort_keys=False)


def load(path: Path) -> Experiment:
    """An arm from YAML.

    Raises:
        UserError: the file is missing, damaged, or describes something else.
    """
    try:
        arm = from_plain(yaml.safe_load(path.read_text()), str(path))
    except (FileNotFoundError, NotADirectoryError):
        raise missing(path if path.parent.is_dir() else path.parent) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise UserError(f"{path} is not a configuration of wmzoo: line {line}: {error.problem}; is the file incomplete?") from None
    except (yaml.YAMLError, UnicodeDecodeError, TypeError) as error:
        raise UserError(f"{path} is not a configuration of wmzoo: {str(error).splitlines()[0]}") from None
    if not isinstance(arm, Experiment):
        raise UserError(f"{path} does not describe an experiment")
    return arm
