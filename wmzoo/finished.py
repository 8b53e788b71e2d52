"""What can be done with a finished run?  It is found, read, and played.

A run folder is described in run.py, which writes it; nothing here needs what trains.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from . import config
from .batch import Batch
from .compose import Hybrid
from .config import Experiment, build
from .data import Normaliser, byte_tokens, to_image
from .episodes import open_task
from .errors import UserError
from .files import content_hash, exported, read_json, text_hash
from .interfaces import Aligned, Denoiser, Sizes, View
from .tasks import resolve


def named_stage(name: str, stage: Experiment, before: Mapping[str, Path], home: Path) -> Path:
    """The run folder of a stage, called after the hash of its configuration and of its data.

    Args:
        before: the folders of earlier stages, which it may start from; their names are part of the hash.
    """
    return home / hashed(name, config.from_stages(stage, {name: folder.name for name, folder in before.items()}))


def hashed(name: str, arm: Experiment) -> str:
    """A name and the hash of all that a run is made from: configuration, recordings, and whatever local files it starts from."""
    recorded = [open_task(Path(arm.data.root) / str(arm.data.size), task) for task in resolve(arm.data.tasks)]
    began = [arm.start, *(weights for _, part in config.parts(arm) if isinstance(weights := getattr(part, "weights", None), str))]
    outside = [_content(file, file.stat().st_mtime_ns) for place in began if Path(place).exists() for file in _files(Path(place))]
    return f"{name}-{text_hash(config.dump(arm) + ''.join([*(r.manifest['hash'] for r in recorded), *outside]))[:12]}"


def _files(path: Path) -> list[Path]:
    """A file itself, the weights of a run, or the files of a folder."""
    if path.is_file():
        return [path]
    weights = [file for folder in (path / "export", path) if (file := folder / "weights.safetensors").exists()]
    return weights[:1] or sorted(file for file in path.iterdir() if file.is_file())


@cache
def _content(file: Path, changed: int) -> str:
    return content_hash(file)


def finished(run: Path) -> Path:
    """The export of a finished run.

    Raises:
        UserError: it is none.
    """
    folder = run / "export" if (run / "export").exists() else run
    if not (folder / "weights.safetensors").exists():
        raise UserError(f"{run} is no finished run: it has no export/weights.safetensors")
    return folder


def facts_of(export: Path) -> dict[str, Any]:
    """What policy.json of an exported run says.

    Raises:
        UserError: it is not there, or not whole.
    """
    if (export / "cell.json").exists():
        again = f"to train it again: wmzoo train {export / 'config.yaml'} --out ANOTHER"
        raise UserError(f"{export} has results that were taken back without weights, or that are being made; {again}")
    facts = read_json(export / "policy.json", "an exported run (has the training ended?)")
    try:
        Sizes(**facts["sizes"])
        Normaliser(**facts["normaliser"])
        whole = isinstance(facts["instructions"], dict) and isinstance(facts["data"], dict)
    except (KeyError, TypeError):
        whole = False
    if not whole:
        raise UserError(f"{export / 'policy.json'} is damaged or of another version; train again: wmzoo train {export / 'config.yaml'}")
    return facts


def load_hybrid(run: Path) -> tuple[Experiment, Hybrid, dict[str, Any]]:
    """The arm of a finished run, its whole network in eval, what only training needs included, and what policy.json says.

    Raises:
        UserError: it is not a run, its training has not ended, or a file is damaged.
    """
    folder = run / "export" if (run / "export").exists() else run
    facts = facts_of(folder)
    arm = config.load(folder / "config.yaml")
    hybrid = build(arm, Sizes(**facts["sizes"])).eval()
    with whole(folder):
        hybrid.load_state_dict(exported(folder))
    return arm, hybrid, facts


def plays(run: Path) -> bool:
    """True if a finished run has a policy.

    Raises:
        UserError: it is not a run, or its training has not ended.
    """
    objectives = outline(run).objectives.values()
    return any(isinstance(objective, Denoiser) and objective.stream == "action" for objective in objectives)


def foresees(run: Path) -> bool:
    """True if a finished run has a world model.

    Raises:
        UserError: it is not a run, or its training has not ended.
    """
    return outline(run).world_model is not None


def aligns(run: Path) -> bool:
    """True if a finished run foresees an embedding: an implicit world model, which can be read in another one's feature space.

    Raises:
        UserError: it is not a run, or its training has not ended.
    """
    return any(isinstance(objective, Aligned) and objective.gap > 0 for objective in outline(run).objectives.values())


def outline(run: Path) -> Hybrid:
    """The network of a finished run without its weights."""
    folder = run / "export" if (run / "export").exists() else run
    facts = facts_of(folder)
    with torch.device("meta"):
        return build(config.load(folder / "config.yaml"), Sizes(**facts["sizes"]))


@contextmanager
def whole(weights: Path) -> Iterator[None]:
    """Whatever goes wrong with the weights of an exported run becomes one line."""
    try:
        yield
    except (OSError, RuntimeError, SafetensorError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"the weights of {weights} do not fit its config.yaml or are damaged: {reason}") from None


@dataclass
class Policy:
    """A policy that plays: raw views in, raw actions out."""

    arm: Experiment
    hybrid: Hybrid
    sizes: Sizes
    normaliser: Normaliser
    instructions: dict[str, str]

    @property
    def tasks(self) -> tuple[str, ...]:
        """The tasks it was trained on."""
        return tuple(self.instructions)

    @staticmethod
    def load(folder: Path) -> "Policy":
        """The policy of a run folder or of its export.

        Raises:
            UserError: it is not a run, its training has not ended, or a file is damaged.
        """
        folder = folder / "export" if (folder / "export").exists() else folder
        facts = facts_of(folder)
        arm, sizes = config.load(folder / "config.yaml"), Sizes(**facts["sizes"])
        hybrid = build(arm, sizes).strip().eval()
        with whole(folder / "weights.safetensors"):
            hybrid.load_state_dict(load_file(folder / "weights.safetensors"))
        normaliser = Normaliser(**{name: tuple(row) for name, row in facts["normaliser"].items()})
        return Policy(arm, hybrid, sizes, normaliser, facts["instructions"])

    def act(self, views: list[View], instruction: str, noise: np.ndarray) -> np.ndarray:
        """The chunk (H, A) that starts now, in the task's units.

        Args:
            views: what was seen, the last is now; the first is repeated if there are too few.
            instruction: in plain words.
            noise: standard normal, (horizon, A).
        """
        batch = seen(views, instruction, self.sizes, self.normaliser)
        chunk = self.hybrid.act(batch, torch.from_numpy(noise)[None].float(), self.arm.play.steps)
        return self.normaliser.raw_action(chunk[0].numpy())


def seen(views: list[View], instruction: str, sizes: Sizes, normaliser: Normaliser) -> Batch:
    """One window: what was seen so far, and no future; the first view is repeated if there are too few."""
    views = ([views[0]] * sizes.history + views)[-sizes.history :]
    empty = np.zeros((1, 0, sizes.views, sizes.image, sizes.image, 3), np.uint8)
    chunk = (1, sizes.horizon, sizes.action)
    return Batch(
        image=to_image(np.stack([view.frame for view in views])[None]),
        state=torch.from_numpy(normaliser.state(np.stack([view.state for view in views])[None])),
        has_state=torch.ones(1, dtype=torch.bool),
        text=byte_tokens([instruction]),
        action=torch.zeros(chunk),
        action_mask=torch.zeros(chunk, dtype=torch.bool),
        future=to_image(empty),
        has_future=torch.zeros(1, 0, dtype=torch.bool),
        offset=torch.zeros(1, 0, dtype=torch.long),
        embodiment=torch.zeros(1, dtype=torch.long),
        sample=torch.zeros(1, dtype=torch.long),
    )
