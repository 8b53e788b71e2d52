"""What is a run?  A folder that trains, resumes, exports and plays.

config.yaml     the resolved arm; `wmzoo train config.yaml --out DIR` repeats it
data.json       the hash of the data of each task
metrics.csv     one line per chapter: step, seconds, losses of training and validation
last.ckpt       everything an exact resume needs; replaced whole or not at all
export/         weights.safetensors, config.yaml, policy.json (sizes, normalisation, provenance), card.md; auxiliary.safetensors
eval.json       a count for every handle (rollout.py), videos/
"""

import csv
import logging
import sys
import time
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, cast

import lightning as L
import torch
from safetensors.torch import save_file
from tqdm import tqdm

from . import config
from .compose import Hybrid
from .config import Experiment, build_for, sizes_for
from .data import Windows
from .dream import source
from .errors import UserError
from .files import alone_in, exported, read_json, write_atomically, write_json
from .finished import finished, named_stage, whole
from .loggers import loggers
from .module import ZooData, ZooModule, run_loop

SETTLING = 16  # training batches on which statistics of frozen features are measured


def train(arm: Experiment, out: Path, told: Sequence[str] = ()) -> None:
    """Train an arm into a folder, from where it stopped; then export what plays.

    Args:
        told: loggers besides metrics.csv (loggers.py).

    Raises:
        UserError: the folder holds another run or another process trains in it, or the data is not there.
    """
    settled = out / "config.yaml"
    if settled.exists() and settled.read_bytes() != config.dump(arm).encode():
        raise UserError(f"{out} holds another run; choose another --out, or type: wmzoo train {settled} --out {out}")
    checkpoint = out / "last.ckpt"
    if checkpoint.exists() and not zipfile.is_zipfile(checkpoint):
        raise UserError(f"{checkpoint} is damaged; delete it to train from the beginning")
    if (out / "cell.json").exists() and not checkpoint.exists() and not (out / "export").exists():
        told = f"{out} has results that were taken back without weights, and these would be others'"
        raise UserError(f"{told}; choose another --out, or delete {out / 'cell.json'} and what was measured")
    config.check(arm)
    also = loggers(told, out, arm)
    if arm.start != "none" and not arm.start.startswith("stage:"):
        finished(Path(arm.start))
    windows = Windows(arm.data, config.needs_of(arm), arm.seed)
    learnt = out / "data.json"
    if learnt.exists() and read_json(learnt, "a run", f"delete {out}") != windows.provenance:
        raise UserError(f"{out} has learnt from other episodes than are in {arm.data.root} now; choose another --out")
    stages: dict[str, Path] = {}
    for name, stage in arm.stages.items():
        stages[name] = trained_stage(name, config.for_stage(stage, arm), stages, out.parent / "stages")
    started = config.from_stages(arm, stages)
    torch.manual_seed(arm.seed)
    hybrid = build_for(started, windows)
    if started.start != "none":
        start_from(hybrid, Path(started.start))
    module = ZooModule(hybrid, arm.weights, arm.optim, arm.seed, arm.shares, arm.rises)
    if checkpoint.exists():
        check_checkpoint(checkpoint, module)
    module.rehearse(windows.train(0)[:2])
    windows.cache(hybrid)
    if not checkpoint.exists():
        hybrid.eval().settle(lambda: (windows.train(step) for step in range(SETTLING)))
        hybrid.train()
    batches = source(arm, hybrid, windows)
    out.mkdir(parents=True, exist_ok=True)
    with alone_in(out), warnings.catch_warnings():
        write_atomically(settled, lambda draft: draft.write_text(config.dump(arm)))
        write_json(learnt, windows.provenance)
        warnings.filterwarnings("ignore", module="lightning")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        data, keeper = ZooData(batches, arm.optim), Keeper(out, arm.optim.steps)
        run_loop(module, data, [keeper], also, str(checkpoint) if checkpoint.exists() else None)
        if module.average is not None:
            module.average.copy_to(hybrid)
        export(arm, hybrid, windows, out / "export", [folder.name for folder in stages.values()])


def check_checkpoint(path: Path, module: ZooModule) -> None:
    """Can training go on from it?

    Raises:
        UserError: it is damaged, or that of another run.
    """
    try:
        held = torch.load(path, map_location="cpu", weights_only=False)
        shapes = {name: value.shape for name, value in held["state_dict"].items()}
        whole = {"optimizer_states", "lr_schedulers", "loops", "global_step"} <= held.keys() and (module.average is None) != (
            "average" in held
        )
    except (OSError, RuntimeError, EOFError, UnpicklingError, KeyError, AttributeError, TypeError, ValueError):
        shapes, whole = {}, False
    if not whole or shapes != {name: value.shape for name, value in module.state_dict().items()}:
        raise UserError(f"{path} is damaged or of another run; delete it to train from the beginning")


def start_from(hybrid: Hybrid, run: Path) -> None:
    """Give a fresh network everything that a finished run has of it; what that run has not stays fresh.

    Raises:
        UserError: it is no finished run, or its observer or trunk is another one.
    """
    export_, mine = finished(run), hybrid.state_dict()
    with whole(export_):
        state = {name: value for name, value in exported(export_).items() if name in mine}
    needed = [name for name in mine if name.startswith(("observer.", "trunk."))]
    for name in needed:
        if name not in state:
            raise UserError(f"{run} cannot start this arm: it has no {name}; its observer or trunk is another one")
    for name, value in state.items():
        if value.shape != mine[name].shape:
            raise UserError(f"{run} cannot start this arm: its {name} is {tuple(value.shape)}, here it is {tuple(mine[name].shape)}")
    hybrid.load_state_dict(state, strict=False)
    for name, objective in hybrid.objectives.items():
        if not any(key.startswith(f"objectives.{name}.") for key in state):
            objective.join(hybrid.observer)  # its copy of the observer is made again, of the observer as it is now


def trained_stage(name: str, stage: Experiment, before: Mapping[str, Path], home: Path) -> Path:
    """The run folder of a stage, trained now unless it is there already.

    Every arm and seed that needs the same stage shares it; whoever comes while another process trains it waits.
    """
    folder = named_stage(name, stage, before, home)
    queue = folder / "queue"
    queue.mkdir(parents=True, exist_ok=True)
    with alone_in(queue, wait=True):
        if not (folder / "export" / "policy.json").exists():
            train(config.from_stages(stage, before), folder)
    return folder


class Keeper(L.Callback):
    """Progress bar, metrics.csv and last.ckpt."""

    def __init__(self, out: Path, steps: int) -> None:
        self.out, self.steps, self.started, self.before = out, steps, time.monotonic(), 0.0
        self.bar = tqdm(disable=True)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        rows = [row for row in self._rows() if int(row["step"]) <= trainer.global_step]
        self.before = float(rows[-1]["seconds"]) if rows else 0.0
        self._write(rows)
        self.bar = tqdm(total=self.steps, initial=trainer.global_step, desc="training", unit="step", mininterval=1)

    def on_train_batch_end(self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int) -> None:
        self.bar.update(trainer.global_step - self.bar.n)

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if "train/total" not in trainer.callback_metrics:  # Lightning ends the chapter that it goes on from once more
            return
        metrics = {name: f"{float(value):.6g}" for name, value in sorted(trainer.callback_metrics.items())}
        if lost := [f"train/{name}" for name in cast("ZooModule", pl_module).weights if not isfinite(float(metrics[f"train/{name}"]))]:
            told = f"step {trainer.global_step}: {', '.join(lost)} is no number any more; try a smaller --optim.lr"
            raise UserError(f"{told}; last.ckpt and metrics.csv are as they were a chapter before")
        seconds = self.before + time.monotonic() - self.started
        self._write([*self._rows(), {"step": str(trainer.global_step), "seconds": f"{seconds:.1f}", **metrics}])
        losses = {f"validation/{name}": name for name in (*cast("ZooModule", pl_module).weights, "total")}
        self.bar.set_postfix({losses[name]: value for name, value in metrics.items() if name in losses})
        for name in (name for name, value in metrics.items() if "/alarm" in name and float(value) > 0):
            self.bar.write(f"step {trainer.global_step}: {name.removeprefix('validation/')} (wmzoo card {name.split('/')[1]})", sys.stderr)
        write_atomically(self.out / "last.ckpt", trainer.save_checkpoint)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.close()

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.close()

    def _rows(self) -> list[dict[str, str]]:
        path = self.out / "metrics.csv"
        rows = list(csv.DictReader(path.open())) if path.exists() else []
        if any(not (row.get("step") or "").isdecimal() for row in rows):
            raise UserError(f"{path} is not that of a run; move it away, and the same command goes on")
        return rows

    def _write(self, rows: list[dict[str, str]]) -> None:
        def write(draft: Path) -> None:
            with draft.open("w", newline="") as file:
                names = list(dict.fromkeys(name for row in rows for name in row)) or ["step", "seconds"]
                table = csv.DictWriter(file, names)
                table.writeheader()
                table.writerows(rows)

        write_atomically(self.out / "metrics.csv", write)


def export(arm: Experiment, hybrid: Hybrid, windows: Windows, folder: Path, stages: list[str]) -> None:
    """Write what plays: weights, arm, sizes, normalisation, provenance (names of the stages included); and, in a file of its own,
    what only training needs (targets, latent action models), which a later arm may start from.  Strips the hybrid.
    """
    shapes = {"action": windows.action_size, "state": windows.state_size, "views": windows.views}
    sizes = sizes_for(arm, **shapes, history=windows.needs.history)
    facts = {
        "sizes": asdict(sizes),
        "normaliser": asdict(windows.normaliser),
        "tasks": list(windows.names),
        "instructions": {r.manifest["task"]: r.manifest["instruction"] for r in windows.recorded},
        "data": windows.provenance,
        "stages": stages,
        "versions": {name: version(name) for name in ("torch", "lightning", "diffusers", "numpy")},
    }
    whole = {name: value.contiguous() for name, value in hybrid.state_dict().items()}
    kept = hybrid.strip().state_dict().keys()
    state, rest = ({name: value for name, value in whole.items() if (name in kept) == plays} for plays in (True, False))
    write_atomically(folder / "weights.safetensors", lambda draft: save_file(state, draft))
    if rest:
        write_atomically(folder / "auxiliary.safetensors", lambda draft: save_file(_unshared(rest), draft))
    write_atomically(folder / "config.yaml", lambda draft: draft.write_text(config.dump(config.self_contained(arm))))
    write_atomically(folder / "card.md", lambda draft: draft.write_text(card(arm, facts)))
    write_json(folder / "policy.json", facts)


def _unshared(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The same tensors, none of which lies in another's memory: safetensors refuses those."""
    seen: set[int] = set()
    return {name: value.clone() if value.data_ptr() in seen or seen.add(value.data_ptr()) else value for name, value in state.items()}


def card(arm: Experiment, facts: dict[str, Any]) -> str:
    """What the exported policy is, in Markdown: objectives, data, statistics, versions."""
    terms = "\n".join(f"- `{term}`, weight {weight}" for term, weight in arm.weights_in_words.items())
    data = "\n".join(
        f"- {name} ({facts['instructions'][name]}): {arm.data.demos} demonstrations, data set {h}" for name, h in facts["data"].items()
    )
    versions = ", ".join(f"{name} {number}" for name, number in facts["versions"].items())
    play = f"K = {arm.play.steps} sampling steps, {arm.play.execute} of {arm.data.horizon} actions executed"
    trained = f"Trained {arm.optim.steps} steps with {versions}."
    return f"# {arm.name}, seed {arm.seed}\n\n{terms}\n\n## Data\n{data}\n\n## Play\n{play}\n\n{trained}\n"
