"""Every member of the zoo: builds at every scale, learns one batch by heart, plays it back, and plays the same when exported."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from wmzoo import config, registry
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, build_for, needs_of, self_contained
from wmzoo.data import Windows
from wmzoo.flops import count
from wmzoo.interfaces import Denoiser
from wmzoo.module import ZooModule

ARMS = sorted(registry.members("arms"))
VARIANTS = {  # of an arm that is tested
    "flare_current", "flare_frozen", "flare_off", "flare_shuffled", "flare_tokens", "flare_video", "flare_lara", "lapa",
    "lara_align", "lara_current", "lara_frozen", "lara_off", "lara_posttrain", "lara_shuffled", "lara_video",
    "bc_rl_off", "bc_rl_shuffled", "bc_rla_current", "bc_rla_off", "bc_rla_shuffled", "flare_rla", "fm_wm_gaussian", "dino_wm_untold",
    "policy_rla", "rla_no_latent",
    "uwm_change", "uwm_current", "uwm_flare", "uwm_lara", "uwm_off", "uwm_shuffled", "uwm_video",
}  # fmt: skip
DREAMING = {"bc_rl", "bc_rl_off", "bc_rl_shuffled"}  # windows teach them nothing: tests/test_wmrl.py
SCALES = ("tiny", "small", "base", "paper")
COUNTED = [  # a variant has the sizes of the arm that it varies
    pytest.param(name, scale, marks=[pytest.mark.slow] * (scale != "tiny"))
    for name in ARMS
    for scale in SCALES
    if scale != "base" or name not in VARIANTS
]


def tiny(name: str, root: Path) -> tuple[Experiment, Windows]:
    """The tiny arm on the toy, never moved, so that one batch can be learnt by heart."""
    arm = self_contained(registry.arm(name, "tiny"))  # stages have tests of their own (test_run.py)
    arm = replace(arm, data=replace(arm.data, root=str(root), batch=8, shift=0))
    return arm, Windows(arm.data, needs_of(arm), seed=0)


def memorise(arm: Experiment, net: Hybrid, batch: Batch, steps: int, enough: Callable[[list[float]], bool]) -> list[float]:
    """Train on one batch alone, each window four times a step for more clocks, until it is enough; returns the loss of every step."""
    torch.manual_seed(0)
    net.settle(lambda: [batch])
    batch = batch[torch.arange(len(batch)).repeat(4)]
    optimizer = torch.optim.AdamW(net.parameters(), lr=4e-3, betas=(0.9, 0.99), fused=True)
    curve = []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * min(1.0, (steps - step) / (0.5 * steps))
        loss = torch.stack([arm.weights[term] * score.mean() for term, score in net(batch).items()]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        net.after_step()
        curve.append(loss.item())
        if enough(curve):
            break
    return curve


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in ARMS if name not in DREAMING])
def test_an_arm_learns_one_batch_by_heart_and_plays_it_back(name: str, toy_data: Path) -> None:
    """The loss falls to a fraction; a policy returns the chunks it was shown, from noise, with all its standing streams.

    Controls and ablations learn until the loss has halved and are not played back.
    """
    arm, windows = tiny(name, toy_data)
    batch = windows.train(0)
    torch.manual_seed(0)
    net = build_for(arm, windows)
    plays = any(isinstance(objective, Denoiser) for objective in net.objectives.values())
    whole = plays and name not in VARIANTS  # what plays a variant back is what plays back the arm that it varies
    goal = 0.25 if whole else 0.5

    def learnt(curve: list[float]) -> bool:
        return len(curve) >= 20 and sum(curve[-20:]) / 20 < goal * curve[0]  # masks are drawn anew at every step of an autoencoder

    curve = memorise(arm, net, batch, 250, lambda curve: not whole and learnt(curve))
    assert learnt(curve)
    if whole:
        net.eval()
        noise = torch.randn(batch.action.shape, generator=torch.Generator().manual_seed(5))
        played, shown = net.act(batch, noise, 10), net.denoiser.executable(batch.action)
        mask = net.denoiser.executable(batch.action_mask)
        assert (played - shown)[mask].abs().mean() < 0.1, f"mean magnitude {shown[mask].abs().mean():.2f}"


@pytest.mark.parametrize("name", ARMS)
def test_first_loss_is_that_of_predicting_zero(name: str, toy_data: Path) -> None:
    """D15: a fresh policy predicts 0, so its first loss is the mean square of its target."""
    arm, windows = tiny(name, toy_data)
    net = build_for(arm, windows)
    if not any(isinstance(objective, Denoiser) for objective in net.objectives.values()):
        pytest.skip("this arm has no policy")
    batch = windows.train(0)
    chunk = net.act(batch[:2], torch.ones(2, *batch.action.shape[1:]), 1)
    assert chunk.isfinite().all()
    streams = net.denoiser(batch).streams
    if name in DREAMING:  # what it learns from has been asked already
        streams = net.denoiser.embed(batch.action, torch.zeros(len(batch)), batch)
    hidden = net.trunk({**net.observer(batch), **streams})
    assert (net.denoiser.read(hidden, batch) == 0).all()


@pytest.mark.parametrize("name", ARMS)
def test_every_parameter_gets_a_gradient_also_from_video_alone(name: str, toy_data: Path) -> None:
    """C7: no trainable parameter is left out of a mixed batch, nor of a batch of video, which gives finite gradients, some of them 0."""
    arm, windows = tiny(name, toy_data)
    net = build_for(arm, windows)
    for parameter in net.parameters():
        parameter.data += 0.01 * torch.randn_like(parameter)
    batch = windows.train(0)
    batch.has_state[0] = False
    torch.stack([score.mean() for score in net(batch).values()]).sum().backward()
    idle = [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None and not n.startswith(("observer", "trunk"))]
    assert not idle
    if net.trunk is not None and any(isinstance(o, Denoiser) for o in net.objectives.values()):
        assert not [n for n, p in net.named_parameters() if p.requires_grad and p.grad is None]
    untouched = {n for n, p in net.named_parameters() if p.grad is None}
    video = batch.map(torch.clone)
    video.action_mask[:] = False
    video.has_state[:] = False
    for parameter in net.parameters():
        parameter.grad = None
    torch.stack([score.mean() for score in net(video).values()]).sum().backward()
    assert {n for n, p in net.named_parameters() if p.grad is None} == untouched
    assert all(p.grad is None or p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", ARMS)
def test_what_is_exported_loads_and_plays(name: str, toy_data: Path) -> None:
    """A stripped network takes every mode; a policy acts exactly like the whole one, from the weights that were left."""
    arm, windows = tiny(name, toy_data)
    whole, kept = build_for(arm, windows).eval(), build_for(arm, windows).strip().train().eval()
    kept.load_state_dict({key: value for key, value in whole.state_dict().items() if key in kept.state_dict()})
    if any(isinstance(objective, Denoiser) for objective in whole.objectives.values()):
        batch = windows.train(0)[:2]
        noise = torch.randn(2, *batch.action.shape[1:])
        assert torch.equal(whole.act(batch, noise, 2), kept.act(batch, noise, 2))


@pytest.mark.parametrize("name", ARMS)
def test_a_rehearsal_changes_nothing(name: str, toy_data: Path) -> None:
    """Two windows seen before training leave every weight and every buffer as it was, those of a codebook too."""
    arm, windows = tiny(name, toy_data)
    module = ZooModule(build_for(arm, windows), arm.weights, arm.optim, 0)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module.rehearse(windows.train(0)[:2])
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("name", ARMS)
def test_an_arm_survives_yaml(name: str, scale: config.Scale, tmp_path: Path) -> None:
    """What is saved with a run is read back equal."""
    arm = registry.arm(name, scale)
    (tmp_path / "config.yaml").write_text(config.dump(arm))
    assert config.load(tmp_path / "config.yaml") == arm


@pytest.mark.parametrize(("name", "scale"), COUNTED)
def test_an_arm_builds_and_counts_on_the_meta_device(name: str, scale: config.Scale) -> None:
    """Every scale builds without memory; a step has more operations than its forward pass."""
    counts = count(registry.arm(name, scale))
    parts = sum(n for part, n in counts["parameters"].items() if part not in ("all", "trained"))
    assert parts == counts["parameters"]["all"]
    assert counts["flops"]["step"] > counts["flops"]["forward"] > 0
