"""Loggers besides metrics.csv: the same lines, on disk, without a network."""

import csv
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wmzoo import registry, run
from wmzoo.config import Experiment
from wmzoo.errors import UserError
from wmzoo.loggers import logged_in, loggers


def small(root: Path) -> Experiment:
    arm = registry.arm("policy", "tiny")
    return replace(arm, data=replace(arm.data, root=str(root), demos=2, batch=4), optim=replace(arm.optim, steps=4, chapter=2))


@pytest.mark.slow
def test_tensorboard_has_the_lines_of_the_table(toy_data: Path, tmp_path: Path) -> None:
    """Every number of metrics.csv, at its step."""
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run.train(small(toy_data), tmp_path / "run", ["tensorboard"])
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    seen = events.EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    seen.Reload()
    for name in ("train/total", "validation/flow/velocity"):
        assert [float(row[name]) for row in rows] == pytest.approx([event.value for event in seen.Scalars(name)], rel=1e-5)


@pytest.mark.slow
def test_wandb_is_offline_unless_somebody_is_logged_in(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no network: a run folder on disk that `wandb sync` can send later."""
    for name in [name for name in os.environ if name.startswith("WANDB")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not logged_in()
    run.train(small(toy_data), tmp_path / "run", ["wandb"])
    import wandb

    wandb.finish()
    (offline,) = (tmp_path / "run" / "wandb").glob("offline-run-*")
    assert [path for path in offline.glob("*.wandb") if path.stat().st_size > 0]


def test_whoever_has_a_key_is_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not logged_in()
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password key\n")
    (tmp_path / ".netrc").chmod(0o600)
    assert logged_in()
    (tmp_path / ".netrc").unlink()
    monkeypatch.setenv("WANDB_API_KEY", "key")
    assert logged_in()


def test_an_unknown_logger_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="unknown logger 'wandbb'; did you mean 'wandb'"):
        loggers(["wandbb"], tmp_path, registry.arm("policy", "tiny"))
    assert loggers([], tmp_path, registry.arm("policy", "tiny")) == []


def test_a_key_that_is_none_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before anything is trained; an empty one is none at all."""
    import wandb

    def refused(**_: Any) -> None:
        raise wandb.Error("the key is\nnone")

    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(wandb, "init", refused)
    monkeypatch.setenv("WANDB_API_KEY", "bad")
    with pytest.raises(UserError, match=r"wandb: the key is none; .* WANDB_MODE=offline"):
        loggers(["wandb"], tmp_path, registry.arm("policy", "tiny"))
    monkeypatch.setenv("WANDB_API_KEY", "")
    monkeypatch.setenv("NETRC", str(tmp_path / "none"))
    monkeypatch.setenv("HOME", str(tmp_path))
    assert not logged_in()
