"""WMRL: every equation by hand, what moves and what does not, and a policy that learns in a world whose answer is known."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import interrupted
from torch import Tensor, nn

from wmzoo import config, registry
from wmzoo.config import Experiment, build_for, needs_of, self_contained
from wmzoo.data import Windows
from wmzoo.dream import Dreams, kinematics, source
from wmzoo.errors import UserError
from wmzoo.finished import Policy, load_hybrid
from wmzoo.interfaces import Sizes
from wmzoo.module import ZooModule
from wmzoo.objectives.wmrl import Wmrl, advantages, clipped, corrected, divergence, log_density, reward
from wmzoo.run import train


def tiny(root: Path, **fields: object) -> Experiment:
    """The tiny arm on the toy, its stages left out."""
    arm = config.with_fields(registry.arm("bc_rl", "tiny"), {"data.root": str(root), **fields})
    return self_contained(arm)


def dreaming(root: Path, **fields: object) -> tuple[Dreams, Wmrl]:
    """A fresh policy in a fresh world."""
    arm = tiny(root, **fields)
    windows = Windows(arm.data, needs_of(arm), seed=0)
    torch.manual_seed(0)
    hybrid = build_for(arm, windows)
    dreams = source(arm, hybrid, windows)
    assert isinstance(dreams, Dreams)
    dreamer = hybrid.objectives["bc"]
    assert isinstance(dreamer, Wmrl)
    return dreams, dreamer


def test_a_network_that_says_nothing_corrects_nothing() -> None:
    """X1: mean is the cloned policy's, deviation 0.1 softplus(0) = 0.1 ln 2 = 0.0693147; tanh bounds a correction at 0.1."""
    base = torch.tensor([[[0.3, -0.2]]])
    mean, deviation = corrected(base, torch.zeros(1, 2, 1, 2))
    assert torch.equal(mean, base)
    assert torch.allclose(deviation, torch.full_like(deviation, 0.0693147), atol=1e-7)
    assert torch.allclose(corrected(base, torch.full((1, 2, 1, 2), 50.0))[0], base + 0.1)


def test_the_density_of_a_chunk_by_hand() -> None:
    """Two numbers one deviation (0.5) off: 2 (-1/2 - ln 0.5 - ln sqrt(2 pi)) = -1 + 2 ln 2 - ln 2 pi."""
    chunk = torch.tensor([[[0.5, -0.5]]])
    by_hand = -1 + 2 * math.log(2) - math.log(2 * math.pi)
    assert log_density(chunk, torch.zeros(1, 1, 2), torch.full((1, 1, 2), 0.5)).item() == pytest.approx(by_hand, abs=1e-6)


def test_the_reward_by_hand() -> None:
    """X1: -5 x the mean distance 0.02 is -0.1; 0.5 more only where the demonstration ends and the goal is within 0.032."""
    dreamt = torch.zeros(4, 2, 3)
    shown = dreamt + 0.02
    goal = dreamt + torch.tensor([0.0319, 0.0321, 0.0319, 0.0])[:, None, None]
    ends = torch.tensor([True, True, False, True])
    assert reward(dreamt, shown, goal, ends, 0.032).tolist() == pytest.approx([0.4, -0.1, -0.1, 0.4], abs=1e-6)


def test_advantages_of_a_dream_of_four_chunks_by_hand() -> None:
    """X1, gamma 0.9, lambda 0.95, backward from the end: A_3 = r_3 - V_3, A_i = r_i + 0.9 V_(i+1) - V_i + 0.855 A_(i+1).

    r = -1, 0, -0.5, 1 and V = 0.2, -0.1, 0.3, 0.5: A_3 = 0.5, A_2 = -0.35 + 0.4275 = 0.0775, A_1 = 0.37 + 0.0662625 = 0.4362625,
    A_0 = -1.29 + 0.373004... = -0.9169955...; a dream that ends after two chunks has A_1 = 0.1 and nothing after it.
    """
    rewards, values = torch.tensor([[-1.0, 0.0, -0.5, 1.0]] * 2), torch.tensor([[0.2, -0.1, 0.3, 0.5]] * 2)
    there = torch.tensor([[True] * 4, [True, True, False, False]])
    gain, wanted = advantages(rewards, values, there)
    first = -1.29 + 0.855 * 0.4362625
    assert gain[0].tolist() == pytest.approx([first, 0.4362625, 0.0775, 0.5], abs=1e-6)
    assert wanted[0].tolist() == pytest.approx([first + 0.2, 0.3362625, 0.3775, 1.0], abs=1e-6)
    assert gain[1].tolist() == pytest.approx([-1.29 + 0.855 * 0.1, 0.1, 0.0, 0.0], abs=1e-6)
    assert wanted[1, 2:].tolist() == [0.0, 0.0]


def test_the_clipped_loss_by_hand() -> None:
    """Gains stop at 1.2 and at 0.8; losses do not: -min(1.5 x 1, 1.2), -min(0.5 x 1, 0.8), -min(1.5 x -1, 1.2 x -1)."""
    ratio, gain = torch.tensor([1.5, 0.5, 1.5, 0.5]), torch.tensor([1.0, 1.0, -1.0, -1.0])
    assert clipped(ratio, gain).tolist() == pytest.approx([-1.2, -0.5, 1.5, 0.8])


def test_the_divergence_by_hand() -> None:
    """e^0.1 - 1 - 0.1 = 0.0051709; nothing where nothing moved."""
    assert divergence(torch.tensor([0.0, 0.1])).tolist() == pytest.approx([0.0, 0.0051709], abs=1e-6)


def test_shapes_are_not_broadcast() -> None:
    """One row too few is an error, never a mean over the wrong thing."""
    with pytest.raises(Exception, match="clipped"):
        clipped(torch.ones(3), torch.ones(1))
    with pytest.raises(Exception, match="reward"):
        reward(torch.zeros(2, 4, 3), torch.zeros(2, 1, 3), torch.zeros(2, 4, 3), torch.ones(2, dtype=torch.bool), 0.1)


def test_at_first_it_plays_as_it_was_cloned(toy_data: Path) -> None:
    """X1: the mean of a fresh correction is the cloned chunk; in a first epoch all ratios are 1 and the divergence 0."""
    dreams, dreamer = dreaming(toy_data)
    nn.init.normal_(dreamer.action_head.weight, std=0.1)
    batch = dreams.train(0)
    told = batch.features
    base, mean, _ = dreamer.choice(told["dream/feature"])
    assert torch.equal(mean, base[:, : dreamer.execute])
    assert torch.equal(dreamer.write(told["dream/feature"]), base)
    assert torch.allclose(dreamer.log_density(told["dream/feature"], told["dream/chunk"]), told["dream/log_density"], atol=1e-4)
    assert not dreamer.moved(batch)
    there = told["dream/there"]
    assert told["dream/advantage"][there].mean().abs() < 1e-5
    score = dreamer(batch).score(None)["policy"]  # pyright: ignore
    assert score.mean().item() == pytest.approx(0.0, abs=1e-5)  # minus the mean of normalised advantages


def test_who_learns(toy_data: Path) -> None:
    """Gradients reach the correction and the critic; the cloned policy, the observer, the trunk and the world stay as they are."""
    dreams, dreamer = dreaming(toy_data)
    batch = dreams.train(0)
    dreams.hybrid.train()
    assert not dreamer.world.training
    assert not dreamer.body.training
    torch.stack([score.mean() for score in dreams.hybrid(batch).values()]).sum().backward()
    moved = {name.split(".")[2] for name, p in dreams.hybrid.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert moved == {"correct", "critic"}
    learns = {name.split(".")[2] for name, p in dreams.hybrid.named_parameters() if p.requires_grad}
    assert learns == {"correct", "critic"}


def test_windows_teach_nothing(toy_data: Path) -> None:
    """A batch that was not dreamt has a loss of exactly 0 with gradients of 0, whatever its actions are."""
    dreams, _ = dreaming(toy_data)
    batch = dreams.windows.train(0)
    batch.action[:] = float("nan")
    total = torch.stack([score.mean() for score in dreams.hybrid(batch).values()]).sum()
    total.backward()
    assert total.item() == 0
    assert all(p.grad is None or (p.grad == 0).all() for p in dreams.hybrid.parameters())


def test_a_round_is_learnt_from_until_the_policy_has_moved(toy_data: Path) -> None:
    """Four steps have one round's dreams; once the divergence exceeds 0.1 nothing counts; the next round is dreamt anew."""
    dreams, dreamer = dreaming(toy_data)
    first = dreams.train(0)
    assert torch.equal(dreams.train(1).features["dream/chunk"], first.features["dream/chunk"])
    assert dreams.train(1).features["dream/there"].any()
    nn.init.constant_(dreamer.correct[-1].bias, 1.0)  # pyright: ignore
    assert dreamer.moved(first)
    assert not dreams.train(2).features["dream/there"].any()
    assert not torch.equal(dreams.train(4).features["dream/chunk"], first.features["dream/chunk"])


@pytest.mark.parametrize(("bias", "less"), [(-200.0, 0.0), (0.0, 200.0)])
def test_a_policy_that_ran_away_is_not_lost(toy_data: Path, bias: float, less: float) -> None:
    """Deviations of almost 0 and ratios of e^200 have finite gradients; those of a round that no longer counts are 0."""
    dreams, dreamer = dreaming(toy_data)
    batch = dreams.train(0)
    batch.features["dream/log_density"] -= less
    nn.init.constant_(dreamer.correct[-1].bias, bias)  # pyright: ignore
    for told, still in ((batch, True), (dreams.train(1), False)):
        dreams.hybrid.zero_grad()
        dreams.hybrid(told)["bc/policy"].mean().backward()
        assert told.features["dream/there"].any() == still
        assert all(p.grad is None or (p.grad.isfinite().all() and (still or not p.grad.any())) for p in dreamer.parameters())


def test_validation_sees_the_policy_as_it_is(toy_data: Path) -> None:
    """Asked for before a chapter's training and looked at after it, validation dreams are those of after."""
    dreams, dreamer = dreaming(toy_data)
    with torch.no_grad():
        for parameter in dreamer.world.parameters():  # a fresh world does not listen to actions
            parameter += 0.1 * torch.randn_like(parameter)
    asked = dreams.validate(8)
    before = asked[0].features
    assert torch.equal(before["seen/return"], before["seen/return_before"])
    nn.init.constant_(dreamer.correct[-1].bias, 1.0)  # pyright: ignore
    after = asked[0].features
    assert not torch.equal(after["seen/return"], before["seen/return"])
    for name in ("seen/return_before", "seen/return_shown"):
        assert torch.equal(after[name], before[name])
        assert not torch.equal(after[name], after["seen/return"])


def test_a_dream_ends_with_its_demonstration(toy_data: Path) -> None:
    """Chunks count as long as the demonstration goes on."""
    dreams, dreamer = dreaming(toy_data, **{"data.batch": 64})
    rows = dreams.windows.labelled[:40]
    _, dream = dreams.dream(rows, lambda _, __, mean, ___: mean)
    left = [row.episode.length - row.now for row in rows]
    assert dream.there.sum(dim=1).tolist() == [min(dreamer.chunks, math.ceil(n / dreamer.execute)) for n in left]


def test_the_last_chunk_of_a_dream_is_an_end(toy_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the demonstration ends, and where the dream does: there being near the goal pays."""
    dreams, dreamer = dreaming(toy_data, **{"data.batch": 64})
    ends: list[Tensor] = []
    inner = dreamer.reward
    monkeypatch.setattr(dreamer, "reward", lambda dreamt, shown, goal, over: (ends.append(over), inner(dreamt, shown, goal, over))[1])
    rows = [row for row in dreams.windows.labelled if row.episode.length - row.now > dreamer.execute * (dreamer.chunks - 1)][:20]
    assert rows
    dreams.dream(rows, lambda _, __, mean, ___: mean)
    assert torch.stack(ends)[-1].all()
    done = dreamer.execute * torch.arange(1, dreamer.chunks)
    left = torch.tensor([row.episode.length - row.now for row in rows])
    assert torch.equal(torch.stack(ends)[:-1], left <= done[:, None])


def test_half_of_the_dreams_begin_with_a_first_frame(toy_data: Path) -> None:
    """Of 4 rounds of 64 dreams 0.5 + 0.5 x the share of first frames among those with a chunk ahead, within four deviations; another
    round has other dreams; none begins nearer to its end than a chunk."""
    dreams, _ = dreaming(toy_data, **{"data.batch": 64})
    first = {row.number for row in dreams.first}
    drawn = [dreams.train(4 * i).sample.unique(return_counts=True) for i in range(4)]
    begun = sum(int(counts[[int(number) in first for number in numbers]].sum()) for numbers, counts in drawn)
    share, n = 0.5 + 0.5 * len(first) / len(dreams.later), 4 * 64
    near = {row.number for row in dreams.windows.labelled if row.now + dreams.dreamer.execute > row.episode.length}
    assert near
    assert not near & {int(number) for numbers, _ in drawn for number in numbers}
    chunks = dreams.dreamer.chunks
    assert abs(begun / chunks / n - share) < 4 * (share * (1 - share) / n) ** 0.5
    assert not torch.equal(drawn[0][0], drawn[1][0]) or not torch.equal(drawn[0][1], drawn[1][1])


def test_the_hand_moves_as_in_the_demonstrations(toy_data: Path) -> None:
    """On validation windows ridge regression is nearer than standing still; two thirds of the episodes were carried out with noise."""
    dreams, dreamer = dreaming(toy_data)
    move, scale = kinematics(dreams.windows, dreamer.execute), dreams.windows.normaliser
    rows = [row for row in dreams.windows.validation if row.now + dreamer.execute <= row.episode.length]
    before, after = (
        torch.from_numpy(np.stack([scale.state(row.episode.state[row.now + ahead]) for row in rows])).float()
        for ahead in (0, dreamer.execute)
    )
    chunk = torch.from_numpy(np.stack([scale.action(row.episode.action[row.now : row.now + dreamer.execute]) for row in rows])).float()
    assert (move(before, chunk) - after).abs().mean() < 0.7 * (before - after).abs().mean()


class Line(nn.Module):
    """A world of one number: it ends where the first numbers of the actions lead, on average; its picture is grey."""

    encoder: nn.Module
    view, steps, horizon, every = 0, 1, 8, 1

    def __init__(self, tokens: int, width: int) -> None:
        super().__init__()
        self.shape = tokens, width

    def predict(self, batch: object, now: Tensor, action: Tensor, keep: Tensor, generator: torch.Generator) -> Tensor:
        reached = (action[..., 0] * keep).sum(dim=1) / keep.sum(dim=1)
        return reached[:, None, None].expand(-1, *self.shape)

    def paint(self, tokens: Tensor) -> Tensor:
        return torch.full((len(tokens), 3, 32, 32), 0.5)


@pytest.mark.slow
@pytest.mark.parametrize(("control", "learns"), [("none", True), ("shuffled", False)])
def test_it_learns_what_is_rewarded(toy_data: Path, monkeypatch: pytest.MonkeyPatch, control: str, learns: bool) -> None:
    """In a world where it is best to push the first number to 0.08, the mean of the first number goes there; shuffled goals of
    both signs pull nowhere.
    """
    dreams, dreamer = dreaming(toy_data, **{"data.batch": 64, "objectives.bc.config.control": control})
    world = Line(4, 2)
    world.encoder = dreamer.world.encoder
    dreamer.world = world  # pyright: ignore
    turn = torch.arange(64) % 2 * 2 - 1 if control == "shuffled" else torch.ones(64)

    def tokens(batch: object, *_: object) -> Tensor:
        return (0.08 * turn[: len(batch)])[:, None, None].expand(-1, 4, 2)  # pyright: ignore

    monkeypatch.setattr("wmzoo.dream.frame_tokens", tokens)
    module = ZooModule(dreams.hybrid, {"bc/policy": 1.0, "bc/value": 0.5}, config.Optim(120, lr=3e-3, clip=0.5, ema=0.0), 0)
    optimizer = torch.optim.AdamW([p for p in module.parameters() if p.requires_grad], lr=3e-3, weight_decay=0.0)
    for step in range(120):
        scores = dreams.hybrid(dreams.train(step))
        optimizer.zero_grad()
        (scores["bc/policy"].mean() + 0.5 * scores["bc/value"].mean()).backward()
        optimizer.step()
    _, mean, _ = dreamer.choice(dreams.train(0).features["dream/feature"])
    reached = mean[..., 0].mean().item()
    assert (reached > 0.04) == learns, reached


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"play.execute": 2}, "dreams of 4 actions a chunk and plays 2"),
        ({"optim.chapter": 10}, "multiple of the 4 epochs"),
        ({"data.shift": 2}, "--data.shift 0"),
        ({"objectives.bc.config.execute": 9}, "1 to 8 actions"),
        ({"objectives.bc.config.chunks": 0}, "at least one chunk"),
    ],
)
def test_what_does_not_fit_is_one_line(toy_data: Path, fields: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        config.check(tiny(toy_data, **fields))


def test_a_world_that_does_not_fit_is_one_line(toy_data: Path, tmp_path: Path, sizes: Sizes) -> None:
    """Another width than the stage's is found before any stage is trained; what is no run or is damaged says so."""
    arm = registry.arm("bc_rl", "tiny")
    with pytest.raises(UserError, match=r"world.term cannot start from stages.rla_wm.*width is 64 here, 32 there"):
        config.check(config.with_fields(arm, {"objectives.bc.config.world.term.network.width": 64}))
    lost = config.with_fields(tiny(toy_data), {"objectives.bc.config.world.weights": str(tmp_path)})
    with pytest.raises(UserError, match="no finished run"):
        config.build(lost, sizes)
    (tmp_path / "weights.safetensors").write_bytes(b"cut off")
    with pytest.raises(UserError, match="damaged"):
        config.build(lost, sizes)


@pytest.mark.slow
def test_a_run_starts_from_its_stages_and_plays(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stages are trained, the policy starts as the cloned one and dreams in their world model; what plays has neither world nor
    critic.  Stopped in its eleventh step and started again it ends in the same weights.
    """
    arm = config.with_fields(registry.arm("bc_rl", "tiny"), {"data.root": str(toy_data), "optim.steps": 16, "optim.chapter": 8})
    brief = {f"stages.{name}.optim.steps": 20 for name in arm.stages} | {f"stages.{name}.optim.chapter": 20 for name in arm.stages}
    arm = config.with_fields(arm, brief)
    train(arm, tmp_path / "whole")
    learnt = load_hybrid(tmp_path / "whole")[1]
    objective = learnt.objectives["bc"]
    assert isinstance(objective, Wmrl)
    cloned = load_hybrid(next((tmp_path / "stages").glob("bc-*")))[1].state_dict()
    assert all(torch.equal(learnt.state_dict()[name], value) for name, value in cloned.items())
    world = load_hybrid(next((tmp_path / "stages").glob("rla_wm-*")))[1].objectives["rla_wm"].state_dict()
    assert all(torch.equal(objective.world.state_dict()[name], value) for name, value in world.items())
    assert objective.correct[-1].weight.abs().sum() > 0  # pyright: ignore
    plays = Policy.load(tmp_path / "whole").hybrid.state_dict()
    assert not any("world" in name or "critic" in name for name in plays)
    interrupted(arm, tmp_path / "again", 10, monkeypatch)
    again = load_hybrid(tmp_path / "again")[1].state_dict()
    assert all(torch.equal(again[name], value) for name, value in learnt.state_dict().items())
