"""The loop: learning rate, decay, averages, exact resume, crashes."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest
import torch
from helpers import made
from lightning.pytorch.callbacks import LambdaCallback
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, Dataset

from wmzoo import files, registry, run
from wmzoo.batch import Batch
from wmzoo.config import Experiment, Term, check, self_contained, with_fields
from wmzoo.errors import UserError
from wmzoo.finished import Policy
from wmzoo.interfaces import Sizes, View
from wmzoo.kernels import precision_for
from wmzoo.models.targets import Following
from wmzoo.module import Average, ZooModule, balance, ema_decay, noise_seed, parameter_groups, rate


def quick(root: Path, steps: int = 12, chapter: int = 4) -> Experiment:
    """A few steps of the tiny policy."""
    arm = registry.arm("policy", "tiny")
    data = replace(arm.data, root=str(root), batch=4, demos=4)
    return replace(arm, data=data, optim=replace(arm.optim, steps=steps, chapter=chapter))


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "export" / "weights.safetensors")


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_rate_rises_and_falls() -> None:
    """Linear over the warm-up, 1 at its end, half-way down the cosine at the middle, 0 at the end."""
    factors = [rate(step, 120, 1 / 6) for step in range(121)]
    assert factors[0] == pytest.approx(1 / 20)
    assert factors[20] == pytest.approx(1)
    assert factors[70] == pytest.approx(0.5)
    assert factors[120] == pytest.approx(0, abs=1e-9)


def test_average_closed_form() -> None:
    """With constant weights w from w0, the average is w + prod(decay) (w0 - w); the young one that forgets all is left out."""
    layer = nn.Linear(1, 1, bias=False)
    layer.weight.data[:] = 2.0
    average = Average(layer, limit=0.9)
    layer.weight.data[:] = 5.0
    product = 1.0
    for step in range(3, 30):
        average.update(layer, step)
        product *= min(0.9, 1 - (step - 1) ** -0.75)
    assert average.values["weight"].item() == pytest.approx(5 + product * (2 - 5), rel=1e-5)
    average.copy_to(layer)
    assert layer.weight.item() == pytest.approx(average.values["weight"].item())


def test_ema_decay_by_hand() -> None:
    """Diffusion Policy's EMAModel at updates 1 to 5, power 3/4; and never above the limit."""
    assert [ema_decay(update, 1.0) for update in range(1, 6)] == pytest.approx([0, 0, 0.405396, 0.561309, 0.646447], abs=1e-6)
    assert ema_decay(5, 0.6) == 0.6


def fitted(module: ZooModule, batch: Batch, steps: int) -> list[dict[str, torch.Tensor]]:
    """The trained weights of the hybrid before and after each of some steps of the loop on one batch."""

    def snapshot() -> dict[str, torch.Tensor]:
        return {name: p.detach().clone() for name, p in module.hybrid.named_parameters() if p.requires_grad}

    seen = [snapshot()]
    keeper = LambdaCallback(on_train_batch_end=lambda *_: seen.append(snapshot()))
    quiet = dict.fromkeys(("logger", "enable_checkpointing", "enable_progress_bar", "enable_model_summary"), False)
    trainer = L.Trainer(max_steps=steps, max_epochs=-1, accelerator="cpu", callbacks=[keeper], **quiet)  # type: ignore[arg-type]
    trainer.fit(module, DataLoader(cast("Dataset[Batch]", [batch] * steps), batch_size=None))
    return seen


def test_the_loop_averages_like_the_reference(batch: Batch, sizes: Sizes) -> None:
    """After four steps with weights w1 ... w4: the average is w2 after two, then .405 of it and the rest w3, then .561 and w4."""
    arm = registry.arm("policy", "tiny")
    module = ZooModule(made(arm, sizes), arm.weights, replace(arm.optim, steps=4, lr=1e-2, ema=0.9999), seed=0)
    _, _, second, third, fourth = fitted(module, batch, 4)
    assert module.average is not None
    for name, value in module.average.values.items():
        after_three = third[name] + (1 - 2**-0.75) * (second[name] - third[name])
        torch.testing.assert_close(value, fourth[name] + (1 - 3**-0.75) * (after_three - fourth[name]), msg=name)


def test_targets_follow_after_the_optimiser_step(batch: Batch, sizes: Sizes) -> None:
    """FLARE's copy is rho w0 + (1 - rho) w1 after one step: what it follows are the weights that the step has made."""
    arm = self_contained(registry.arm("flare", "tiny"))
    module = ZooModule(made(arm, sizes), arm.weights, replace(arm.optim, steps=1, lr=1e-1, ema=0.0), seed=0)
    target = cast("Following", module.hybrid.get_submodule("objectives.flare.target"))
    target.rho, start = 0.75, {name: p.clone() for name, p in target.embedding.named_parameters()}
    _, after = fitted(module, batch, 1)
    followed = [name for name in start if f"observer.embedding.{name}" in after]
    assert followed
    for name in followed:
        new = after[f"observer.embedding.{name}"]
        torch.testing.assert_close(target.embedding.get_parameter(name), 0.75 * start[name] + 0.25 * new, msg=name)


def test_balance_by_hand() -> None:
    """Ours are 2 and 4 with weights 1 and .5, the first one's 3: R = .25 asks for .75 of 4; nothing to balance is 0; no gradient."""
    first, one = torch.tensor(3.0, requires_grad=True), torch.tensor(2.0, requires_grad=True)
    weighted = {"flow/velocity": first, "other/a": one, "other/b": 0.5 * torch.tensor(4.0), "otherwise/c": torch.tensor(9.0)}
    factor = balance(weighted, "flow", "other", 0.25)
    assert factor.item() == 0.75 / 4
    assert not factor.requires_grad
    assert balance({**weighted, "other/a": torch.tensor(0.0), "other/b": torch.tensor(0.0)}, "flow", "other", 0.25) == 0


def test_a_balanced_objective_is_a_share_of_the_first(batch: Batch, sizes: Sizes) -> None:
    """Its weight follows both losses; the gradient is that of this weight, held still."""
    arm = with_fields(self_contained(registry.arm("flare", "tiny")), {"objectives.flare.weight": "auto:0.25"})
    module, plain = (ZooModule(made(arm, sizes), arm.weights, arm.optim, 0, shares) for shares in (arm.shares, {}))
    seen: dict[str, torch.Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZooModule, "log_dict", lambda _, values, **__: seen.update(values))
        patch.setattr(ZooModule, "global_step", 0)
        module.training_step(batch, 0).backward()
        factor, flow = seen["train/flare_factor"], seen["train/flow/velocity"]
        assert seen["train/total"].item() == pytest.approx(1.25 * flow.item(), rel=1e-5)
        assert factor.item() == pytest.approx(0.25 * (flow / seen["train/flare/align"]).item(), rel=1e-5)
        plain.weights = {"flow/velocity": 1.0, "flare/align": factor.item()}
        plain.training_step(batch, 0).backward()
    for (name, ours), theirs in zip(module.hybrid.named_parameters(), plain.hybrid.parameters(), strict=True):
        if ours.grad is not None:
            torch.testing.assert_close(ours.grad, theirs.grad, msg=name)


def test_a_weight_that_rises(batch: Batch, sizes: Sizes) -> None:
    """0.2 in ten steps is 0.02 in the first, 0.1 in the fifth, 0.2 from the tenth; the first objective's is 1 all the time."""
    arm = with_fields(self_contained(registry.arm("flare", "tiny")), {"objectives.flare.weight": "rise:0.2:10"})
    assert arm.weights_in_words == {"flow/velocity": "1", "flare/align": "0.2, after a rise of 10 steps"}
    module = ZooModule(made(arm, sizes), arm.weights, arm.optim, 0, arm.shares, arm.rises)
    seen: dict[str, torch.Tensor] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ZooModule, "log_dict", lambda _, values, **__: seen.update(values))
        for step, weight in ((0, 0.02), (4, 0.1), (9, 0.2), (200, 0.2)):
            patch.setattr(ZooModule, "global_step", step)
            module.training_step(batch, 0)
            expected = seen["train/flow/velocity"] + weight * seen["train/flare/align"]
            torch.testing.assert_close(seen["train/total"], expected)


@pytest.mark.parametrize(("name", "weight", "message"), [
    ("flare", "auto:x", "auto:R"), ("flare", "auto:-1", "auto:R"), ("flare", "half", "auto:R"), ("flow", "auto:0.25", "balanced against"),
    ("flare", "rise:0.2", "rise:W:N"), ("flare", "rise:0.2:0", "rise:W:N"), ("flare", "rise:0.2:1.5", "rise:W:N"),
])  # fmt: skip
def test_wrong_weights_are_one_line(name: str, weight: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(with_fields(registry.arm("flare", "tiny"), {f"objectives.{name}.weight": weight}))


def test_only_matrices_decay() -> None:
    """Norms, biases, tables and free parameters are not decayed; every trainable parameter is in one group."""
    net = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2), nn.Embedding(3, 2))
    net.register_parameter("place", nn.Parameter(torch.zeros(2, 2)))
    heavy, plain = parameter_groups(net, 0.1)
    assert [p is net[0].weight for p in heavy["params"]] == [True]
    assert len(plain["params"]) == 5
    assert (heavy["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)


def test_precision_names() -> None:
    """The three words mean what they say."""
    assert precision_for("fp32") == "32-true"
    assert precision_for("bf16") == "bf16-mixed"
    assert precision_for("auto") in ("32-true", "bf16-mixed")


@pytest.mark.slow
def test_a_run_leaves_a_whole_folder(toy_data: Path, tmp_path: Path) -> None:
    """config.yaml, metrics.csv with one line per chapter, last.ckpt, export; and training again changes nothing."""
    run.train(quick(toy_data), tmp_path / "a")
    assert {p.name for p in (tmp_path / "a").iterdir()} == {"config.yaml", "data.json", "metrics.csv", "last.ckpt", "export"}
    lines = (tmp_path / "a" / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "4", "8", "12"]
    before = weights(tmp_path / "a")
    run.train(quick(toy_data), tmp_path / "a")
    assert same(before, weights(tmp_path / "a"))


def test_no_two_seeds_share_their_noise(batch: Batch, sizes: Sizes) -> None:
    """The same network and windows at the same step: one seed gives one loss, another seed another, by its noise alone."""
    arm = registry.arm("policy", "tiny")
    hybrid = made(arm, sizes)
    losses = [ZooModule(hybrid, arm.weights, arm.optim, seed).training_step(batch, 0).item() for seed in (0, 1, 2, 0)]
    assert losses[0] == losses[3]
    assert len(set(losses)) == 3


def test_seeds_of_noise_lie_far_apart() -> None:
    """Of a thousand seeds, on the circle of 32 bits, no two are nearer than a million and a half steps."""
    starts = sorted(noise_seed(seed, 0) for seed in range(1000))
    assert min(after - before for before, after in pairwise([*starts, starts[0] + 2**32])) > 1_500_000
    assert noise_seed(3, 5) == noise_seed(3, 0) + 5
    torch.manual_seed(noise_seed(0, 5))
    first = torch.rand(4)
    torch.manual_seed(noise_seed(1, 5))
    assert not torch.equal(first, torch.rand(4)), "the generator does not heed what differs"


@pytest.mark.slow
def test_the_seed_decides(toy_data: Path, tmp_path: Path) -> None:
    """The same seed gives the same weights bit for bit, another seed others."""
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        run.train(replace(quick(toy_data, 4), seed=seed), tmp_path / name)
    assert same(weights(tmp_path / "a"), weights(tmp_path / "b"))
    assert not same(weights(tmp_path / "a"), weights(tmp_path / "c"))


@pytest.mark.slow
def test_killed_at_random_it_ends_in_the_same_weights(toy_data: Path, tmp_path: Path) -> None:
    """SIGKILL at a random step after the first checkpoint, and again after a later one; the same command then ends bit-identical."""
    options = ["--data.root", str(toy_data), "--data.demos", "4", "--data.batch", "4", "--optim.steps", "60", "--optim.chapter", "5"]
    command = [sys.executable, "-m", "wmzoo", "train", "policy", "--scale", "tiny", *options, "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run([*command, str(tmp_path / "whole")], check=True, env=environment, capture_output=True)
    metrics = tmp_path / "killed" / "metrics.csv"
    for checkpoints in (1, 5):
        killed = subprocess.Popen(
            [*command, str(tmp_path / "killed")], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        while killed.poll() is None and (not metrics.exists() or len(metrics.read_text().splitlines()) < 1 + checkpoints):
            time.sleep(0.01)
        time.sleep(0.05 * torch.rand(1).item())
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        assert not (tmp_path / "killed" / "export").exists(), "it ended before it could be killed"
    subprocess.run([*command, str(tmp_path / "killed")], check=True, env=environment, capture_output=True)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "killed"))


@pytest.mark.slow
def test_a_full_disk_leaves_the_last_good_checkpoint(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second checkpoint fails half-way; the first is still there, whole, and the run resumes from it."""
    run.train(quick(toy_data), tmp_path / "whole")
    replaced, calls = os.replace, []

    def full(draft: Path, path: Path) -> None:
        if Path(path).name == "last.ckpt":
            calls.append(path)
            if len(calls) == 2:
                Path(draft).write_bytes(b"half")
                raise OSError(28, "No space left on device")
        replaced(draft, path)

    monkeypatch.setattr(files.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        run.train(quick(toy_data), tmp_path / "full")
    monkeypatch.undo()
    assert sorted(p.name for p in (tmp_path / "full").iterdir()) == ["config.yaml", "data.json", "last.ckpt", "metrics.csv"]
    assert torch.load(tmp_path / "full" / "last.ckpt", weights_only=False)["global_step"] == 4
    run.train(quick(toy_data), tmp_path / "full")
    lines = (tmp_path / "full" / "metrics.csv").read_text().splitlines()
    assert [line.split(",")[0] for line in lines] == ["step", "4", "8", "12"]
    assert not any(line.endswith(",") for line in lines)
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "full"))


def test_a_run_that_diverges_stops(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss is no number in the second chapter: one line, the first one's checkpoint stays, nothing is exported."""
    total = ZooModule.training_step

    def step(module: ZooModule, batch: Batch, index: int) -> torch.Tensor:
        return total(module, replace(batch, action=batch.action * (torch.nan if module.global_step >= 4 else 1)), index)

    monkeypatch.setattr(ZooModule, "training_step", step)
    with pytest.raises(UserError, match=r"step 8: train/flow/velocity is no number any more"):
        run.train(quick(toy_data), tmp_path / "a")
    assert torch.load(tmp_path / "a" / "last.ckpt", weights_only=False)["global_step"] == 4
    assert len((tmp_path / "a" / "metrics.csv").read_text().splitlines()) == 2
    assert not (tmp_path / "a" / "export").exists()


@pytest.mark.slow
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_stopped_training_has_not_ended(toy_data: Path, tmp_path: Path, sent: signal.Signals, code: int) -> None:
    """What comes after && is not run; whoever pressed Ctrl-C is told that the same command goes on."""
    options = ["--data.root", str(toy_data), "--data.demos", "4", "--optim.steps", "5000", "--optim.chapter", "5", "--out", "run"]
    command = [sys.executable, "-m", "wmzoo", "train", "policy", "--scale", "tiny", *options]
    place = {"cwd": tmp_path, "env": {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(files.__file__).parents[1])}}
    heard = partial(signal.signal, sent, signal.SIG_DFL)  # whoever starts the tests in the background has it ignored
    running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, preexec_fn=heard, **place)
    try:
        while running.poll() is None and not (tmp_path / "run" / "last.ckpt").exists():
            time.sleep(0.05)
        running.send_signal(sent)
        told = running.communicate(timeout=60)[1]
    finally:
        running.kill()
    assert running.returncode == code, told
    assert "Traceback" not in told
    assert ("the same command goes on from here" in told) == (sent == signal.SIGINT)
    assert not (tmp_path / "run" / "export").exists()


def test_ctrl_c_amid_a_checkpoint(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is heard when the checkpoint has been written, which is whole; the same command goes on from it."""
    keep, before = ZooModule.on_save_checkpoint, signal.getsignal(signal.SIGINT)

    class Struck:
        def __reduce__(self) -> tuple[type[int], tuple[()]]:
            signal.raise_signal(signal.SIGINT)
            return int, ()

    def struck(module: ZooModule, checkpoint: dict[str, Any]) -> None:
        keep(module, checkpoint)
        checkpoint["struck"] = Struck()

    with monkeypatch.context() as patched:
        patched.setattr(ZooModule, "on_save_checkpoint", struck)
        with pytest.raises(KeyboardInterrupt):
            run.train(quick(toy_data), tmp_path / "a")
    assert signal.getsignal(signal.SIGINT) == before
    assert torch.load(tmp_path / "a" / "last.ckpt", weights_only=False)["global_step"] == 4
    run.train(quick(toy_data), tmp_path / "a")
    run.train(quick(toy_data), tmp_path / "whole")
    assert same(weights(tmp_path / "whole"), weights(tmp_path / "a"))


def test_two_trainings_in_one_folder(toy_data: Path, tmp_path: Path) -> None:
    """The second is told so in words and touches nothing."""
    (tmp_path / "a").mkdir()
    with files.alone_in(tmp_path / "a"), pytest.raises(UserError, match="another process is writing"):
        run.train(quick(toy_data, 4), tmp_path / "a")
    assert not list((tmp_path / "a").iterdir())


def test_terms_and_weights_must_match(toy_data: Path, tmp_path: Path) -> None:
    """A weight for a term that does not exist, or a term without a weight, is an error that shows both lists."""
    arm = quick(toy_data)
    wrong = {"flow": Term(arm.objectives["flow"].config, weights={"velocty": 1.0})}
    with pytest.raises(UserError, match=r"the loss has the terms \['flow/velocity'\], the experiment weighs \['flow/velocty'\]"):
        run.train(replace(arm, objectives=wrong), tmp_path / "a")


def test_export_plays_like_the_training_module(toy_data: Path, tmp_path: Path) -> None:
    """C6: the policy read from its export gives bit-identical chunks, also from the export folder alone."""
    run.train(quick(toy_data), tmp_path / "a")
    first, second = Policy.load(tmp_path / "a"), Policy.load(tmp_path / "a" / "export")
    view = [View(torch.zeros(1, 32, 32, 3, dtype=torch.uint8).numpy(), torch.zeros(2).numpy())]
    noise = torch.randn(8, 3).numpy()
    chunk = first.act(view, "reach the red disc", noise)
    assert (chunk == second.act(view, "reach the red disc", noise)).all()
    assert chunk.shape == (8, 3)


def test_damaged_exports_are_named(toy_data: Path, tmp_path: Path) -> None:
    """A truncated weights file and a folder that is no run are one line each."""
    run.train(quick(toy_data, 4), tmp_path / "a")
    path = tmp_path / "a" / "export" / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(UserError, match=r"weights.safetensors do not fit its config.yaml or are damaged"):
        Policy.load(tmp_path / "a")
    with pytest.raises(UserError, match="is not an exported run"):
        Policy.load(tmp_path)
