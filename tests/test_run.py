"""A frozen encoder through a whole run: features are computed once, and the export stands alone."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from wmzoo import features, registry, run
from wmzoo.config import Experiment
from wmzoo.interfaces import View
from wmzoo.run import Policy


def stage(root: Path, steps: int = 4) -> Experiment:
    """A few steps of the in-domain encoder."""
    arm = registry.arm("vit_mae", "tiny")
    return replace(arm, data=replace(arm.data, root=str(root), demos=2, batch=4), optim=replace(arm.optim, steps=steps, chapter=2))


@pytest.mark.slow
def test_a_policy_on_the_in_domain_encoder(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train the stage, freeze it in a policy, cache its features; a second run encodes nothing; the export needs neither."""
    data = tmp_path / "data"
    shutil.copytree(toy_data, data)
    run.train(stage(data), tmp_path / "stage")
    arm = registry.arm("policy", "tiny")
    encoder = replace(registry.module("arms", "vit_mae").ENCODERS["tiny"], weights=str(tmp_path / "stage"))
    arm = replace(
        arm,
        observer=replace(arm.observer, encoder=encoder),  # type: ignore[call-arg]
        data=replace(arm.data, root=str(data), demos=2, batch=4, shift=0),
        optim=replace(arm.optim, steps=4, chapter=2),
    )
    run.train(arm, tmp_path / "first")
    stored = list(data.rglob("*.features/*/*.npy")) + list(data.rglob(".features/*/*.npy"))
    assert len(set(stored)) == 2 * 3  # two demonstrations and one validation episode of each task

    def fail(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(features.FeatureStore, "write", fail)
    run.train(arm, tmp_path / "second")
    monkeypatch.undo()
    shutil.rmtree(tmp_path / "stage")
    view = [View(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(2, np.float32))]
    chunks = [Policy.load(tmp_path / name).act(view, "reach the red disc", np.zeros((8, 3))) for name in ("first", "second")]
    assert (chunks[0] == chunks[1]).all()
    assert "none" in (tmp_path / "first" / "export" / "config.yaml").read_text()
