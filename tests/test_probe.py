"""Probes: numbers by hand, intervals that are seeded, a task that is left out and really is; and a whole run with its pictures."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from wmzoo import cli, config, probe, registry, regress, run
from wmzoo.batch import Batch
from wmzoo.collect import collect
from wmzoo.config import Experiment
from wmzoo.data import Window
from wmzoo.errors import UserError
from wmzoo.probe import codebook, table
from wmzoo.regress import Seen, by_mlp, by_ridge, fifth, principal, probed, r_squared, ridge

PICTURES = {"reconstruction.png", "attention.png", "transfer.png", "r2.png"}


def seen(features: np.ndarray, motion: np.ndarray, tasks: int = 3, episodes: int = 5) -> Seen:
    """Windows that are shared out evenly over tasks and episodes."""
    number = np.arange(len(motion)) * tasks * episodes // len(motion)
    names = tuple("abc"[:tasks])
    return Seen(("hand x", "hand y")[: motion.shape[1]], names, number // episodes, number, number % episodes, motion, {"latent": features})


def drawn(n: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width))


def test_r_squared_by_hand() -> None:
    """Truth 0, 2, 4 (sum of squares about its mean 8): itself is 1, its mean 0, one step off everywhere 1 - 3/8.  A window that
    counts twice is as good as two of it; a coordinate that never moves is NaN."""
    truth, once = np.array([[0.0], [2.0], [4.0]]), np.ones((1, 3))
    for guess, expected in ((truth, 1.0), (np.full_like(truth, 2.0), 0.0), (truth + 1, 1 - 3 / 8)):
        np.testing.assert_allclose(r_squared(truth, guess, once), [[expected]])
    guess = np.array([[1.0], [2.0], [5.0]])
    twice = r_squared(truth[[0, 1, 1, 2]], guess[[0, 1, 1, 2]], np.ones((1, 4)))
    np.testing.assert_allclose(r_squared(truth, guess, np.array([[1.0, 2.0, 1.0]])), twice)
    assert np.isnan(r_squared(np.ones((3, 1)), truth, once)).all()


def test_a_coordinate_that_rests_does_not_hide_the_others() -> None:
    """Of two coordinates one never moves: it alone is NaN, and by variance a perfect guess is 1."""
    motion = np.stack([np.arange(300.0) % 7, np.zeros(300)], axis=1)
    line = seen(drawn(300, 2), motion).explained(motion)["pooled"]
    assert line["by_variance"]["value"] == 1
    assert line["coordinates"]["hand x"] == 1
    assert np.isnan(line["coordinates"]["hand y"])


def test_ridge_by_hand() -> None:
    """x = 1, 3 is standardised to -1, 1; y = 0, 4 is -2, 2 about its mean 2.  X'X = 2, X'y = 4: w = 4 / (2 + penalty)."""
    x, y = np.array([[1.0], [3.0]]), np.array([[0.0], [4.0]])
    for penalty, weight in ((0.0, 2.0), (2.0, 1.0), (1e12, 0.0)):
        np.testing.assert_allclose(ridge(x, y, penalty)(np.array([[1.0], [2.0], [5.0]])), [[2 - weight], [2], [2 + 3 * weight]], atol=1e-9)


def test_the_penalty_is_chosen_on_the_windows_set_aside() -> None:
    """Forty windows of fifty numbers that mean nothing: a small penalty would learn them by heart, the chosen one does not."""
    x, y = drawn(40, 50), drawn(40, 1, seed=1)
    guess = by_ridge(x, y, fifth(np.arange(40) // 4))(x)
    assert r_squared(y, ridge(x, y, 1e-3)(x), np.ones((1, 40))) > 0.99
    assert r_squared(y, guess, np.ones((1, 40))) < 0.5


def test_a_fifth_of_the_episodes_is_set_aside() -> None:
    """Whole episodes: every fifth; of three, the last; of one, none, which is said."""
    episode = np.repeat(np.arange(10), 3)
    assert set(episode[fifth(episode)]) == {4, 9}
    assert set(np.arange(3)[fifth(np.arange(3))]) == {2}
    with pytest.raises(UserError, match="two or more training episodes"):
        fifth(np.zeros(7, int))


def test_principal_axes() -> None:
    """All variance of a plane in ten dimensions is in two components, the largest first; there are never more than asked for."""
    plane = drawn(60, 2) * [3.0, 1.0] @ drawn(2, 10, seed=1)
    train, held = principal(plane[:40], plane[40:], 5)
    assert train.shape == (40, 2)
    assert held.shape == (20, 2)
    np.testing.assert_allclose(np.square(train).sum(), np.square(plane[:40] - plane[:40].mean(axis=0)).sum())
    assert train[:, 0].var() > train[:, 1].var()
    assert principal(plane[:40], plane[40:], 1)[0].shape == (40, 1)


def test_intervals_are_seeded_and_draw_whole_episodes_within_their_task() -> None:
    """The interval holds the number; every draw keeps each task's windows, and all windows of an episode count alike."""
    held = seen(drawn(300, 4), drawn(300, 2, seed=1))
    guess = held.motion + 0.5 * drawn(300, 2, seed=2)
    line = held.explained(guess)["pooled"]
    assert line["interval"][0] < line["value"] < line["interval"][1]
    assert line == held.explained(guess)["pooled"]
    assert (line["n"], line["episodes"]) == (300, 15)
    weight = held.redraws()
    assert (weight[0] == 1).all()
    assert all((weight[:, held.task == task].sum(axis=1) == 100).all() for task in range(3))
    assert all((np.ptp(weight[:, held.episode == e], axis=1) == 0).all() for e in range(15))
    assert not np.array_equal(weight, held.redraws(seed=1))


def test_one_episode_has_no_interval() -> None:
    held = seen(drawn(30, 2), drawn(30, 2, seed=1), episodes=1)
    assert held.explained(held.motion)["mean"]["interval"] is None


@pytest.mark.parametrize("fit", [by_ridge, by_mlp])
def test_a_latent_that_is_the_motion_and_one_that_is_noise(fit: regress.Fit, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first explains everything, in a task it was not fitted on too; the second nothing."""
    monkeypatch.setattr(regress, "STEPS", 600)
    motion, noise = (drawn(n, 2, seed=n) for n in (450, 300)), (drawn(n, 2, seed=n + 1) for n in (450, 300))
    sides = list(motion)
    good = probed(fit, "latent", *(seen(0.1 * m @ np.array([[1.0, 2.0], [0.0, 1.0]]) + 7, m) for m in sides))
    bad = probed(fit, "latent", *(seen(x, m) for x, m in zip(noise, sides, strict=True)))
    for where in ("within", "across"):
        assert good[where]["mean"]["value"] > 0.99
        assert bad[where]["mean"]["value"] < 0.1


def test_the_task_that_is_left_out_is_not_seen() -> None:
    """With task c's training windows ruined, c is guessed as before, a and b are not; every probe sees the others alone."""
    x, y = drawn(300, 3), drawn(300, 2, seed=1)
    held = seen(drawn(150, 3, seed=2), drawn(150, 2, seed=3))
    clean, ruined = seen(x, y), seen(x.copy(), y.copy())
    ruined.motion[ruined.task == 2] = 1e6 * drawn(100, 2, seed=4)
    ruined.features["latent"][ruined.task == 2] *= -50
    before, after = (probed(by_ridge, "latent", side, held)["across"]["tasks"] for side in (clean, ruined))
    assert before["c"] == after["c"]
    assert before["a"] != after["a"]
    assert before["b"] != after["b"]
    sizes = []

    def spy(x: np.ndarray, y: np.ndarray, aside: np.ndarray) -> regress.Guess:
        sizes.append(len(x))
        return by_ridge(x, y, aside)

    probed(spy, "latent", clean, held)
    assert sizes == [300, 200, 200, 200]
    assert probed(by_ridge, "latent", seen(x, y, tasks=1), seen(x, y, tasks=1))["across"] is None


def test_codes_by_hand() -> None:
    """Two of four codes, alike often: perplexity 2, half in use; one of sixteen has collapsed."""
    use = codebook(np.array([[0, 1], [1, 0], [0, 1]]), 4)
    assert (use["perplexity"], use["in_use"], use["dead"], use["n"], use["collapsed"]) == (pytest.approx(2.0), 0.5, 2, 6, False)
    assert codebook(np.zeros((20, 4), int), 16)["collapsed"]


def arm(root: Path, name: str = "lam", **data: Any) -> Experiment:
    """Two steps of a tiny arm without stages."""
    arm = config.self_contained(registry.arm(name, "tiny"))
    data = {"root": str(root), "demos": 4, "batch": 8, **data}
    return replace(arm, data=replace(arm.data, **data), optim=replace(arm.optim, steps=2, chapter=1))


@pytest.fixture(scope="module")
def trained(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("runs") / "lam"
    run.train(arm(toy_data), out)
    return out


def test_other_tasks_have_a_file_of_their_own(trained: Path, toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One task, from a folder with fewer episodes than the run has read: those are taken, and probe.json is left alone."""
    monkeypatch.setattr(regress, "STEPS", 50)
    folder = tmp_path / "run"
    shutil.copytree(trained, folder)
    collect(("toy-red",), tmp_path / "few", size=32, episodes=3, processes=1)
    result = probe.probe(folder, ("toy-red",), str(tmp_path / "few"), 60)
    assert result["tasks"] == ["toy-red"]
    assert result["demos"] == 2
    assert {path.name for path in folder.glob("probe-toy-red*")} == {"probe-toy-red.json", "probe-toy-red"}
    assert {path.name for path in (folder / "probe-toy-red").iterdir()} == PICTURES


def test_a_run_is_probed(trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Numbers of both probes for every kind of feature, four pictures, strict JSON; --json prints the same, words name it all."""
    monkeypatch.setattr(regress, "STEPS", 50)
    cli.dispatch(["probe", str(trained), "--windows", "80", "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result == json.loads((trained / "probe.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert {path.name for path in (trained / "probe").iterdir()} == PICTURES
    assert all((trained / "probe" / name).read_bytes().startswith(b"\x89PNG") for name in PICTURES)
    rows = {"latent", "quantised latent", "random encoder", "random former", "feature difference", "PCA of the difference", "constant"}
    assert set(result["probes"]) == rows
    assert result["probes"]["latent"]["numbers"] == result["tokens"] * result["width"]
    assert (result["gap"], result["arm"], result["tasks"]) == (8, "lam", ["toy-red", "toy-blue"])
    assert set(result["data"]) == {"toy-red", "toy-blue"}
    within = result["probes"]["latent"]["ridge"]["within"]["pooled"]
    assert set(within["coordinates"]) == {"hand x", "hand y"}
    assert within["n"] == result["validation"]["n"] <= 20 < result["training"]["n"] <= 80
    assert 0 < result["attention"]["uniform"]["value"] < 0.5
    assert result["reconstruction"]["all"]["value"] == pytest.approx(1, abs=0.3)  # two steps after a start as a copy
    assert set(result["halfway"]) == {"latent", "quantised latent"}
    assert all(0 <= line["nearest"]["value"] <= 1 and 0 <= line["mean_rank"]["value"] <= 4 for line in result["halfway"].values())
    words = table(result)
    assert all(row in words for row in (*rows, "half of a latent", "half of a quantised latent"))
    assert "COLLAPSED" not in table({**result, "codes": None})
    assert "COLLAPSED" in table({**result, "codes": codebook(np.zeros((20, 4), int), 16)})


@pytest.mark.parametrize(("name", "objective"), [("lara", "lara"), ("lapa_codes", "lapa")])
def test_a_joint_run_is_read_with_its_own_model(toy_data: Path, tmp_path: Path, name: str, objective: str) -> None:
    """The model lies in the auxiliary file; of the random ones one keeps the frozen encoder, the other nothing."""
    run.train(arm(toy_data, name), tmp_path / "run")
    model, about = probe.subject(tmp_path / "run", ("toy-red",), str(toy_data))
    assert (about["objective"], about["gap"], about["tasks"]) == (objective, 8, ["toy-red"])
    weights = load_file(tmp_path / "run" / "export" / "auxiliary.safetensors")
    ours, former, fresh = (part.state_dict() for part in (model.lam, model.fresh["random former"], model.fresh["random encoder"]))
    assert all(torch.equal(value, weights[f"objectives.{objective}.lam.{key}"]) for key, value in ours.items())
    encoder = [key for key in ours if key.startswith("encoder.")]
    assert encoder
    assert all(torch.equal(ours[key], former[key]) for key in encoder)
    assert all(torch.equal(fresh[key], former[key]) for key in fresh.keys() - encoder)
    patches = "encoder.network.embeddings.patch_embeddings.projection.weight"
    assert not any(torch.equal(ours[key], fresh[key]) for key in ("down.0.weight", patches))
    assert not any(part.training for part in (model.lam, *model.fresh.values()))


def test_an_encoder_that_learns_is_not_kept(toy_data: Path, tmp_path: Path) -> None:
    """Of a model whose encoder is not frozen there is one random rival: all of it fresh."""
    whole = arm(toy_data)
    term = cast("Any", whole.objectives["lam"])
    model = replace(term.config.lam, encoder=replace(term.config.lam.encoder, frozen=False), perceptual="none")
    run.train(replace(whole, objectives={"lam": replace(term, config=replace(term.config, lam=model))}), tmp_path / "run")
    assert set(probe.subject(tmp_path / "run", (), "")[0].fresh) == {"random encoder"}


def test_patches_near_the_hand(trained: Path) -> None:
    """Of 4 x 4 patches, whose centres are at 1/8, 3/8, ...: near the centre of one is that one alone; near none without a hand."""
    model, _ = probe.subject(trained, (), "")
    assert model.encoder.grid == (4, 4)
    near = model.near(np.array([[0.125, 0.625], [np.nan, np.nan]]))
    assert np.flatnonzero(near[0]).tolist() == [2]
    assert not near[1].any()


def test_the_difference_of_features_is_of_the_right_frames(trained: Path) -> None:
    """The tokens of the frame `gap` steps ahead less those of the present one."""
    model, _ = probe.subject(trained, (), "")
    rows = model.chosen(model.windows.validation, 3)
    frames = [[row.episode.frames[row.now + ahead][0] for row in rows] for ahead in (0, model.gap)]
    now, future = (model.encoder(torch.from_numpy(np.stack(x)).movedim(-1, 1).float() / 255) for x in frames)
    torch.testing.assert_close(model.change(model.gather(rows)), future - now, atol=1e-5, rtol=1e-4)


class Ruler:
    """A latent action model whose latent is the number of control steps, painted as the frame that lies `stretch` times as far ahead."""

    tokens, width, codes, view = 1, 1, 0, 0

    def __init__(self, rows: list[Window], stretch: float) -> None:
        self.rows, self.stretch = rows, stretch

    def encode(self, batch: Batch, gap: int) -> Tensor:
        return torch.full((len(batch), 1, 1), float(gap))

    def quantise(self, latent: Tensor, valid: Tensor) -> Any:
        return SimpleNamespace(value=latent)

    def seen(self, frame: Tensor) -> Tensor:
        return frame

    def decode(self, batch: Batch, value: Tensor) -> Tensor:
        ahead = (self.stretch * value[:, 0, 0]).round().int().tolist()
        frames = [row.episode.frames[row.now + step][0] for row, step in zip(self.rows, ahead, strict=True)]
        return torch.from_numpy(np.stack(frames)).movedim(-1, 1).float() / 255


@pytest.mark.parametrize(("stretch", "first"), [(1.0, True), (0.5, False), (2.0, False)])
def test_half_of_a_motion_by_hand(trained: Path, stretch: float, first: bool) -> None:
    """Painted as the half-way frame it ranks first; as that of a quarter or of the whole, others are nearer; 3 steps have no quarters."""
    model, _ = probe.subject(trained, (), "")
    rows = [row for row in model.windows.validation if row.now + 8 <= row.episode.length]
    rows = [row for row in rows if len({row.episode.frames[row.now + ahead][0].tobytes() for ahead in (0, 2, 4, 6, 8)}) == 5][:8]
    assert rows
    ruled = replace(model, lam=cast("Any", Ruler(rows, stretch)))
    rank = ruled.halfway(rows)["latent"]
    assert (rank == 0).all() if first else (rank > 0).all()
    assert replace(ruled, gap=3).halfway(rows) == {}


@pytest.mark.parametrize(
    ("words", "message"), [("--tasks toy-rad", "toy-red"), ("--data nowhere", "nowhere"), ("--windows 0", "at least 1")]
)
def test_wrong_words_are_one_line(trained: Path, words: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        cli.dispatch(["probe", str(trained), *words.split()])
    assert "\n" not in str(error.value)


def test_a_run_without_a_latent_action_model_is_one_line(toy_data: Path, tmp_path: Path) -> None:
    """It is named with the arms that have one; so are a folder that is no run, and damaged weights."""
    run.train(arm(toy_data, "policy"), tmp_path / "p")
    with pytest.raises(UserError, match=r"policy, which has no latent action model; lam, lara"):
        probe.probe(tmp_path / "p")
    with pytest.raises(UserError, match="is not an exported run"):
        probe.probe(tmp_path)
    (tmp_path / "p" / "export" / "weights.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match="damaged"):
        probe.probe(tmp_path / "p")


def test_episodes_shorter_than_the_gap_are_one_line(trained: Path) -> None:
    model, _ = probe.subject(trained, (), "")
    model.gap = 500
    with pytest.raises(UserError, match="too short"):
        model.chosen(model.windows.validation, 10)
