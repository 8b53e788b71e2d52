"""A frozen encoder through a whole run: features are computed once, and the export stands alone."""

import shutil
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from wmzoo import config, features, registry, run
from wmzoo.config import Experiment
from wmzoo.errors import UserError
from wmzoo.experiments.flare import altered
from wmzoo.files import alone_in
from wmzoo.finished import Policy
from wmzoo.interfaces import View
from wmzoo.module import ZooModule


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


def staged(root: Path, name: str = "policy_embedding", seed: int = 0) -> Experiment:
    """A few steps of an arm whose eye starts from a stage of a few steps."""
    arm = registry.arm(name, "tiny")
    stage = replace(arm.stages["embedding"], optim=replace(arm.optim, steps=4, chapter=2), data=replace(arm.data, batch=4))
    data, optim = replace(arm.data, root=str(root), demos=3, batch=8), replace(arm.optim, steps=2, chapter=1, lr=0.0, ema=0.0)
    return replace(arm, data=data, optim=optim, seed=seed, stages={"embedding": stage})


@pytest.mark.slow
def test_a_stage_is_trained_once_and_starts_the_arm(toy_data: Path, tmp_path: Path) -> None:
    """Two arms and two seeds share the stage; the eye starts from its weights, the trunk does not; other data is another stage."""
    run.train(staged(toy_data), tmp_path / "a")
    (stage,) = (tmp_path / "stages").iterdir()
    made = (stage / "last.ckpt").stat().st_mtime_ns
    run.train(staged(toy_data, seed=1), tmp_path / "b")
    run.train(staged(toy_data, "flare"), tmp_path / "c")
    assert [folder.name for folder in (tmp_path / "stages").iterdir()] == [stage.name]
    assert (stage / "last.ckpt").stat().st_mtime_ns == made
    first = load_file(stage / "export" / "weights.safetensors")
    for name in "abc":
        arm = load_file(tmp_path / name / "export" / "weights.safetensors")
        assert all(torch.equal(arm[key], value) for key, value in first.items() if key.startswith("observer.embedding."))
        assert not all(torch.equal(arm[key], value) for key, value in first.items() if key.startswith("trunk."))
        assert config.load(tmp_path / name / "config.yaml") == staged(
            toy_data, "flare" if name == "c" else "policy_embedding", int(name == "b")
        )
    assert stage.name in (tmp_path / "a" / "export" / "policy.json").read_text()
    assert config.load(stage / "config.yaml").data.demos == 3
    shutil.rmtree(stage)
    view = [View(np.zeros((1, 32, 32, 3), np.uint8), np.zeros(2, np.float32))]
    assert np.isfinite(Policy.load(tmp_path / "c").act(view, "reach the red disc", np.zeros((8, 3)))).all()
    fewer = staged(toy_data)
    run.train(replace(fewer, data=replace(fewer.data, demos=2)), tmp_path / "d")
    assert stage.name not in {folder.name for folder in (tmp_path / "stages").iterdir()}


def test_a_stage_that_is_not_there_is_named(toy_data: Path, tmp_path: Path) -> None:
    arm = staged(toy_data)
    arm = replace(arm, observer=replace(arm.observer, weights="stage:embeding"))  # type: ignore[call-arg]
    with pytest.raises(UserError, match=r"embeding.*embedding"):
        run.train(arm, tmp_path / "a")
    assert not (tmp_path / "stages").exists()  # found before anything was trained


@pytest.mark.slow
def test_weights_of_another_kind_are_refused(toy_data: Path, tmp_path: Path) -> None:
    """A run without this embedding, an embedding of another size, a folder that is no run."""
    run.train(staged(toy_data), tmp_path / "a")
    arm = replace(staged(toy_data), stages={})
    run.train(replace(registry.arm("policy", "tiny"), data=arm.data, optim=arm.optim), tmp_path / "p")
    (tmp_path / "empty").mkdir()
    for weights, width, message in (("p", 32, "no embedding"), ("a", 64, "does not hold weights that fit"), ("empty", 32, "no run folder")):
        other = replace(arm, observer=replace(arm.observer, weights=str(tmp_path / weights), width=width))  # type: ignore[call-arg]
        with pytest.raises(UserError, match=message):
            run.train(other, tmp_path / "b")


def test_whoever_comes_later_waits(tmp_path: Path) -> None:
    """With `wait` the second holder comes after the first; without, it is told."""
    held, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with alone_in(tmp_path):
            held.set()
            leave.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    assert held.wait(60)
    with pytest.raises(UserError, match="another process"), alone_in(tmp_path):
        pass
    threading.Timer(0.2, leave.set).start()
    with alone_in(tmp_path, wait=True):
        assert leave.is_set()
    holder.join()


@pytest.mark.slow
def test_metrics_say_who_pulls_and_what_is_seen(toy_data: Path, tmp_path: Path) -> None:
    """Every line of metrics.csv has the norms on the trunk and what the alignment watches."""
    arm = staged(toy_data, "flare")
    arm = altered(arm, "flare", gap=2)  # so that enough of the toy's few windows have a future
    run.train(replace(arm, optim=replace(arm.optim, lr=1e-2, steps=4)), tmp_path / "a")
    header, *lines = (tmp_path / "a" / "metrics.csv").read_text().splitlines()
    assert len(lines) == 4
    for column in ("flow/velocity_gradient", "flare/align_gradient", "flare/retrieval", "flare/target_std", "flare/target_cosine"):
        assert f"validation/{column}" in header
    row = dict(zip(header.split(","), lines[-1].split(","), strict=True))
    assert float(row["validation/flow/velocity_gradient"]) > 0


def test_pulls_by_hand(toy_data: Path) -> None:
    """The norm of a term's gradient on the trunk is that of a backward pass of this term alone."""
    arm = config.self_contained(staged(toy_data, "flare"))
    windows = run.Windows(arm.data, config.needs_of(arm), 0)
    torch.manual_seed(0)
    hybrid = config.build_for(arm, windows).eval()
    module, batch = ZooModule(hybrid, arm.weights, arm.optim, 0), windows.train(0)
    for parameter in hybrid.parameters():
        parameter.data += 0.01
    torch.manual_seed(1)
    pulls = module.pulls(batch)
    torch.manual_seed(1)
    hybrid(batch)["flare/align"].mean().backward()
    squares = [p.grad.square().sum() for p in hybrid.trunk.parameters() if p.grad is not None]
    torch.testing.assert_close(pulls["flare/align"], torch.stack(squares).sum().sqrt())
