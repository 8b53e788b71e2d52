"""What `wmzoo eval` says of a world model, and `wmzoo compare` of several: by hand, end to end, and in one line where it cannot."""

import shutil
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file

from wmzoo import cli, registry, world
from wmzoo.compare import CANNOT, Measured, _interval, compare, compare_table, differences, explained, in_short, sentences, table, windows
from wmzoo.config import Experiment, load, parts
from wmzoo.errors import UserError
from wmzoo.experiments import feature_space
from wmzoo.features import frame_tokens
from wmzoo.files import read_json
from wmzoo.findings import Cost, Findings, Line
from wmzoo.finished import aligns, load_hybrid, plays
from wmzoo.flops import count, predicted, sampling, weightless
from wmzoo.interfaces import Encoder, Residuals
from wmzoo.models import backbones, vit_mae
from wmzoo.report import foresight, worlds
from wmzoo.run import train
from wmzoo.stats import by_start
from wmzoo.study import Job
from wmzoo.subject import subject
from wmzoo.work import work
from wmzoo.world import cost, evaluate, found, heard, line, order


def short(name: str, root: Path, steps: int = 3) -> Experiment:
    """A tiny arm and its stages, trained for a few steps on the toy."""
    arm = registry.arm(name, "tiny")
    stages = {key: replace(stage, optim=replace(stage.optim, steps=3)) for key, stage in arm.stages.items()}
    return replace(arm, stages=stages, data=replace(arm.data, root=str(root)), optim=replace(arm.optim, steps=steps, chapter=steps))


@pytest.fixture(scope="module")
def runs(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of an autoencoder, of world models in features and in pixels, of two that also play, and of a policy, with the same stages."""
    home = tmp_path_factory.mktemp("worlds")
    toy_data = shutil.copytree(toy_data, home / "data")  # features are written beside the frames
    for name in ("rla", "rla_wm", "dino_wm", "uwm_rla", "uwm", "video", "policy", "flare"):
        train(short(name, toy_data), home / name)
    train(replace(short("rla_wm", toy_data), seed=1), home / "rla_wm-1")
    return home


def test_own_future_by_hand() -> None:
    """Predictions at 0.9 and 2.2 of futures 1 and 2: both nearest to their own; turned round, none."""
    future = torch.tensor([1.0, 2.0])[:, None, None]
    assert found(torch.tensor([0.9, 2.2])[:, None, None], future).tolist() == [1.0, 1.0]
    assert found(torch.tensor([2.2, 0.9])[:, None, None], future).tolist() == [0.0, 0.0]


def test_a_line_by_hand() -> None:
    """Errors 1 and 3 of 2 and 6 copied: skill 1 - 4/8, and where it moves 3/6; one episode a task has no spread within a task."""
    values = {"l1": np.array([1.0, 3.0]), "copied": np.array([2.0, 6.0]), "mse": np.array([1.0, 1.0]), "copy mse": np.array([4.0, 1.0])}
    row = line(values, np.array([0, 1]))
    assert (row["skill"], row["moving_ratio"], row["n"]) == (0.5, 0.5, 2)
    assert row["skill_interval"] == [0.5, 0.5]
    assert (row["pixel skill"], row["pixel moving_ratio"]) == (1 - 2 / 5, 1 / 4)


def test_where_all_windows_change_alike_nothing_is_perfect() -> None:
    """No window changes more than the median one: then all count, and an error of a half of what a copy is off by is a half."""
    values = {"l1": np.array([1.0, 1.0]), "copied": np.array([2.0, 2.0])}
    assert line(values, np.array([0, 1]))["moving_ratio"] == 0.5


def test_listening_by_hand() -> None:
    """Errors of 1 with the own actions, of 2.5 with another's, of 4 copied: skills 3/4 and 3/8, so 3/8 are lost."""
    told = heard(np.array([[1.0, 1.0], [2.5, 2.5], [4.0, 4.0]]), np.array([0, 1]))
    assert (told["skill"], told["with_others_actions"], told["difference"], told["n"]) == (0.75, 0.375, 0.375, 2)
    assert told["interval"] == [0.375, 0.375]


@pytest.mark.slow
def test_a_world_model_is_measured(runs: Path) -> None:
    """All horizons that the short episodes of the toy reach, all metrics, listening, recovery, cost, and pictures; twice alike."""
    result = evaluate(runs / "rla_wm", count=20)
    assert list(result["ways"]) == ["prediction", "own latent"]
    assert list(result["ways"]["prediction"]) == ["2", "4", "8"]
    row = result["ways"]["prediction"]["8"]
    assert {"l1", "copied", "skill", "cosine", "found", "psnr", "ssim", "copy ssim", "seen ssim", "n"} <= row.keys()
    assert 0 < row["l1"] < 10
    assert result["cost"]["parameters"] > 0
    assert result["cost"]["GFLOP"] > 0
    assert result["listens"]["n"] == result["n"]
    low, high = result["recovers"]["interval"]
    assert low <= result["recovers"]["r2"] <= high
    stored = windows(runs / "rla_wm")
    tried = stored["recovers/row"]
    assert set(stored["task"][tried]) == set(stored["task"])
    assert len(tried) == result["recovers"]["n"] <= 16
    assert all((runs / "rla_wm" / f"{name}.png").stat().st_size > 10_000 for name in ("world", "horizon"))
    again = evaluate(runs / "rla_wm", count=20)
    assert again["ways"] == result["ways"]
    assert "skill" in table(result)


def test_an_autoencoder_is_told_the_future(runs: Path) -> None:
    """Its own latent, none, another's; and whether half of it is half of the way."""
    result = evaluate(runs / "rla", count=20)
    assert list(result["ways"]) == ["own latent", "no latent", "another's latent"]
    assert result["order"]["decoded"]["n"] == result["n"]
    assert "half a latent" in table(result)
    with pytest.raises(UserError, match="autoencoder"):
        compare([runs / "rla"], runs / "compared")


def test_one_that_plays_can_be_asked_too(runs: Path, toy_data: Path) -> None:
    """`--predict`; its horizons are whole chunks."""
    assert plays(runs / "uwm_rla")
    assert not plays(runs / "rla_wm")
    result = evaluate(runs / "uwm_rla", count=20)
    assert list(result["ways"]["prediction"]) == ["8"]


class Ruler:
    """Residuals whose tokens are the time of the frame, and whose latent is the time between two and a number that is always the same."""

    tokens, width, view = 1, 1, 0

    def __init__(self, stretch: float) -> None:
        self.stretch = stretch

    def encode(self, now: torch.Tensor, future: torch.Tensor) -> torch.Tensor:
        return future - now + 5

    def decode(self, now: torch.Tensor, latent: torch.Tensor) -> torch.Tensor:
        return now + self.stretch * (latent - 5)


@pytest.mark.parametrize(("stretch", "nearest"), [(1.0, True), (1.5, False), (0.5, False)])
def test_half_of_a_latent_is_measured_from_no_change(monkeypatch: pytest.MonkeyPatch, stretch: float, nearest: bool) -> None:
    """All windows move alike, so their mean is no origin: half of the time is the half-way frame, unless it is painted elsewhere."""
    asked = SimpleNamespace(model=Ruler(stretch), horizons=(2, 4, 8), windows=SimpleNamespace(needs=None))
    asked.tokens = lambda batch, ahead: batch + ahead
    asked.batches = lambda rows: [torch.tensor(rows)[:, None, None]]
    monkeypatch.setattr(world, "replace", lambda what, **_: what)
    ranks = order(cast("Any", asked), cast("Any", [0.0, 100.0]), cast("Any", [0.0, 10.0, 50.0]))
    assert ((ranks["decoded"] == 0) == nearest).all()


def test_what_a_prediction_never_runs_costs_nothing(runs: Path) -> None:
    """Parameters of the reader of true futures and of the decoder to pixels are not those of a prediction."""
    for name in ("rla_wm", "uwm_rla"):
        what, _ = subject(runs / name, (), "")
        part = next(part for part in what.model.modules() if isinstance(part, Residuals))
        told = cost(what, what.batches(what.chosen(what.windows.validation, 4))[0])["parameters"]
        pixels = getattr(what.model, "pixels", None) or cast("Any", what.model).objective.pixels
        unused = [*cast("Any", part).reader.parameters(), *pixels.parameters(), *what.encoder.parameters()]
        assert told == sum(p.numel() for p in what.model.parameters()) - sum(p.numel() for p in {id(p): p for p in unused}.values())


def test_two_frames_are_generated_and_one_is_scored(toy_data: Path, tmp_path: Path) -> None:
    """UWM as published generates the frame after the chunk too: it can be asked all the same, and two horizons are those of chunks."""
    arm = short("uwm", Path(shutil.copytree(toy_data, tmp_path / "data")))
    term = arm.objectives["uwm"]
    train(
        replace(arm, objectives={**arm.objectives, "uwm": replace(term, config=replace(cast("Any", term.config), gaps=(8, 9)))}),
        tmp_path / "a",
    )
    result = evaluate(tmp_path / "a", count=8)
    assert list(result["ways"]["prediction"]) == ["8"]
    assert np.isfinite(result["inverse"]["r2"])


@pytest.mark.slow
def test_another_feature_space_by_one_choice(toy_data: Path, tmp_path: Path) -> None:
    """A backbone from a local file, in the arm and in all its stages: trained, evaluated, and the same one everywhere."""
    weights = tmp_path / "backbone.safetensors"
    torch.manual_seed(3)
    save_file(timm.create_model("test_vit").state_dict(), weights)
    arm = short("rla_wm", Path(shutil.copytree(toy_data, tmp_path / "data")), steps=2)
    train(feature_space.through(arm, "test_vit", str(weights)), tmp_path / "a")
    assert {path.name.split("-")[0] for path in (tmp_path / "stages").iterdir()} == {"pixels", "rla"}
    result = evaluate(tmp_path / "a", count=4)
    assert np.isfinite(result["ways"]["prediction"]["8"]["l1"])
    eyes = [part for part in load_hybrid(tmp_path / "a")[1].modules() if isinstance(part, Encoder)]
    assert eyes
    assert {(cast("Any", eye).fingerprint, eye.grid, eye.width) for eye in eyes} == {(result["feature_space"], (14, 14), 64)}


def test_another_feature_space_in_words() -> None:
    """`--space NAME [WEIGHTS]` reaches every place; who reads none, and a space without weights, are one line."""
    arm, _ = cli.parse_train(["uwm_rla", "--space", "vit_small_patch14_dinov2", "weights.pt", "--optim.steps", "7"])
    assert list(arm.stages) == ["pixels", "rla"]
    found = [part for one in (arm, *arm.stages.values()) for _, part in parts(one) if isinstance(part, backbones.Config)]
    assert {(part.name, part.weights, part.size, part.frozen) for part in found} == {("vit_small_patch14_dinov2", "weights.pt", 224, True)}
    assert not [part for _, part in parts(arm) if isinstance(part, vit_mae.Config)]
    assert arm.optim.steps == 7
    for words, hint in (
        ("policy --space resnet18", "policy reads no frozen feature space"),
        ("rla --space resnet18 none", "say pretrained"),
    ):
        with pytest.raises(UserError, match=hint):
            cli.parse_train(words.split())


def test_what_episodes_started_from_takes_the_place_of_handles() -> None:
    """Windows of one seed come together, whatever their task; starts with more windows weigh more."""
    values = np.array([[1.0, 3.0, 5.0, 7.0]])
    assert by_start(values, np.array([4, 4, 2, 9])).tolist() == [[[4.75, 1.0, 6.25]]], "4 + (7 - 4) x 3 / 4, ..."
    assert by_start(values[:, 1:3], np.array([1, 0])).tolist() == [[[5.0, 3.0]]]


def test_starts_of_older_measurements_are_ranks(tmp_path: Path) -> None:
    """They kept the number of the episode over all tasks; the first of each task was recorded with one seed, the second with another."""
    task, episode = np.array([1, 0, 1, 0, 2]), np.array([7, 0, 5, 1, 8])
    np.savez(tmp_path / "world.npz", task=task, episode=episode)
    assert windows(tmp_path)["start"].tolist() == [1, 0, 0, 1, 0]
    np.savez(tmp_path / "world.npz", task=task, episode=episode, start=episode + 40)
    assert windows(tmp_path)["start"].tolist() == [47, 40, 45, 41, 48]


def test_a_difference_of_errors_by_hand() -> None:
    """On the seed that both have, window by window; a model that is .1 off where the baseline is .3 is better; nothing of the baseline."""
    shared = {"task": np.zeros(6, int), "episode": np.arange(6) // 2, "start": np.arange(6) // 2}
    noise = np.array([0.0, 0.01, 0.0, 0.02, 0.01, 0.0])
    base, good = ({"prediction/8/l1": np.full(6, error), **shared} for error in (0.3, 0.1))
    same = {"prediction/8/l1": 0.3 + noise * [1, -1, 1, -1, 1, -1], **shared}
    good |= {"prediction/8/l1": 0.1 + noise}
    seeds = {"base": dict.fromkeys(range(3), base), "good": {0: good, 7: good}, "same": dict.fromkeys(range(3), same)}
    found = differences(seeds, "base", ["8"])
    assert list(found) == [("same", "8"), ("good", "8")]
    assert found["good", "8"]["mean"] == pytest.approx(-0.2 + noise.mean())
    assert (found["good", "8"]["seeds"], found["good", "8"]["verdict"]) == (1, "better")
    assert found["same", "8"]["verdict"] == "not distinguishable"
    worse = differences({"good": seeds["good"], "base": {0: base}}, "good", ["8"])["base", "8"]
    assert worse["verdict"] == "worse"
    assert worse["low"] == pytest.approx(-found["good", "8"]["high"])


def test_world_models_in_one_line() -> None:
    """At the horizon of most models, the farthest of these; nearest first; what has two seeds is not in it."""
    gap = {"verdict": "better", "seeds": 3}
    rows = {
        "base": {"8": {}, "16": {}, "32": {}},
        "far": {"8": {"less": {**gap, "mean": 0.5, "verdict": "worse"}}, "16": {"less": {**gap, "mean": 0.04, "verdict": "worse"}}},
        "near": {"16": {"less": {**gap, "mean": -0.01}}, "32": {"less": {**gap, "mean": -0.3}}},
        "nearest": {"8": {"less": {**gap, "mean": -0.5}}, "16": {"less": {**gap, "mean": -0.02}}},
        "few": {ahead: {"less": {**gap, "mean": -1.0, "seeds": 2}} for ahead in ("8", "16", "32")},
    }
    summary = {"baseline": "base", "arms": {name: {"horizons": seen} for name, seen in rows.items()}}
    assert in_short(summary) == "Feature error 16 steps ahead, less base's: better: nearest (-0.020), near (-0.010); worse: far (+0.040)."
    assert in_short({"baseline": "base", "arms": {name: {"horizons": rows[name]} for name in ("base", "few")}}) == ""


@pytest.mark.slow
def test_world_models_side_by_side(runs: Path) -> None:
    """Seeds of one arm are one row; horizons that all know; tables and pictures."""
    for name in ("rla_wm", "rla_wm-1", "dino_wm", "uwm_rla"):
        evaluate(runs / name, count=20)
    with pytest.raises(UserError, match="rla_wm has a training seed twice"):
        compare([runs / "rla_wm", runs / "rla_wm"], runs / "compared")
    with pytest.raises(UserError, match="were asked about other windows"):
        compare([runs / "rla_wm", _of_other_windows(runs)], runs / "compared")
    with pytest.raises(UserError, match="differ in feature space"):
        compare([runs / "rla_wm", _in_another_space(runs)], runs / "compared")
    summary = compare([runs / name for name in ("rla_wm", "rla_wm-1", "dino_wm")], runs / "compared")
    assert summary["arms"]["rla_wm"]["seeds"] == [0, 1]
    assert list(summary["copy"]) == ["2", "4", "8"]
    words = compare_table(summary)
    assert "rla_wm (2 seeds)" in words
    assert "its decoder, told the truth: " in words
    (said,) = sentences(summary)
    assert said in words
    assert said.startswith("dino_wm against rla_wm, difference of feature errors by steps ahead: ")
    assert said.endswith("this is about these networks, not about the method.")
    assert summary["arms"]["dino_wm"]["horizons"]["8"]["less"]["seeds"] == 1
    other = compare([runs / name for name in ("rla_wm", "dino_wm")], runs / "compared", "dino_wm")
    gaps = [summary["arms"]["dino_wm"]["horizons"]["8"]["less"], other["arms"]["rla_wm"]["horizons"]["8"]["less"]]
    assert gaps[0]["mean"] == pytest.approx(-gaps[1]["mean"])
    assert "dino_wm (1 seed)" in words
    assert {path.name for path in (runs / "compared").iterdir()} == {"compare.json", "compare.png", "frames.png"}
    summary = compare([runs / "uwm_rla", runs / "dino_wm"], runs / "compared")
    assert list(summary["copy"]) == ["8"]
    summary = compare([runs / "dino_wm", runs / "uwm_rla"], runs / "compared")
    assert list(summary["arms"]["uwm_rla"]["horizons"]) == ["8"]
    assert [row[3] for row in foresight(summary, "worlds", "").rows if row[0] == "uwm_rla"][:2] == [CANNOT, CANNOT]
    assert CANNOT in compare_table(summary)


@pytest.mark.slow
def test_frames_are_scored_in_the_feature_space_of_another_run(runs: Path) -> None:
    """Explicit and implicit models on one axis: beside its own latents, and only then comparable; the codec's own error stands beside."""
    evaluate(runs / "rla_wm", count=20)
    alone = evaluate(runs / "uwm", count=20)
    assert "space" not in alone
    with pytest.raises(UserError, match="--predict --space"):
        compare([runs / "rla_wm", runs / "uwm"], runs / "compared")
    for name in ("uwm", "video"):
        result = evaluate(runs / name, count=20, space=runs / "rla_wm")
        row = result["ways"]["prediction"]["8"]
        assert {"space l1", "space copied", "space skill", "space found", "seen space l1"} <= row.keys()
        assert row["space skill"] == pytest.approx(1 - row["space l1"] / row["space copied"])
        assert "in the space of --space, 8 ahead" in table(result)
        listens = result["listens"]
        assert listens["space"]["skill"] == pytest.approx(row["space skill"], abs=1e-5), "the same predictions, in the same space"
        assert listens["space"]["skill"] != listens["skill"]
        assert "listens in the space of --space" in table(result)
    told = read_json(runs / "uwm" / "world.json", "a result")["inverse"]
    assert told["steps"] == 8
    import imageio.v3 as imageio

    film = imageio.imread(runs / "uwm" / "world.gif")
    assert film.shape[:2] == (2, 2 * 2 * 32), "now and the one horizon that episodes of the toy reach; the truth above the prediction"
    assert film.shape[2] >= 2 * 2 * 32
    assert imageio.imread(runs / "uwm" / "modes.png").std() > 0
    assert not (runs / "dino_wm" / "modes.png").exists()
    assert told["r2"] < 1
    assert "told the future frame" in table(read_json(runs / "uwm" / "world.json", "a result"))
    summary = compare([runs / name for name in ("rla_wm", "uwm", "video")], runs / "compared")
    every = foresight(summary, "worlds", "").rows
    rows = [row for row in every if row[2] == "8"]
    assert [row[0] for row in rows] == ["copy of the present", "rla_wm", "uwm", "video"]
    assert [row[1] for row in rows] == ["", "0", "0", "0"]
    assert [bool(row[5]) for row in rows] == [False, False, True, True]
    assert rows[1][3] == f"{summary['arms']['rla_wm']['horizons']['8']['l1']['mean']:.4f}"
    jobs = [Job(runs / name, registry.arm(name, "tiny"), (), (name, "", "0"), ("foresee",)) for name in ("rla_wm", "uwm", "video")]
    cost = Cost(1, 1.0, None, None, None, None)
    lines = tuple(Line(job.about[0], "", (job,), (job,), (), None, {}, None, None, cost) for job in jobs)
    (shown,) = worlds(Findings("a study", "Which?", "rla_wm", lines, {}, {}), runs / "reported")
    assert shown.table is not None
    assert shown.table.rows == every
    assert all(url.startswith("data:image/png;base64,") for url in shown.pictures.values())
    copied = read_json(runs / "rla_wm" / "world.json", "a result")["ways"]["prediction"]["8"]["copied"]
    assert summary["copy"]["8"]["l1"] == pytest.approx(copied)
    for name in ("uwm", "video"):
        row = read_json(runs / name / "world.json", "a result")["ways"]["prediction"]["8"]
        assert row["space copied"] == pytest.approx(copied, rel=0.02), "the same frames in the same space"
        assert summary["arms"][name]["horizons"]["8"]["l1"]["mean"] == pytest.approx(row["space l1"], rel=1e-5)
        heard_there = read_json(runs / name / "world.json", "a result")["listens"]["space"]["difference"]
        assert summary["arms"][name]["listens"] == heard_there, "on one axis with the others"


@pytest.mark.slow
def test_an_implicit_world_model_is_read_by_a_linear_map(runs: Path) -> None:
    """FLARE: at the chunk's end alone, on the same windows as the others, beside the map of the present; and in its own space."""
    assert aligns(runs / "flare")
    assert not aligns(runs / "policy")
    with pytest.raises(UserError, match="say --space"):
        evaluate(runs / "flare", count=20)
    with pytest.raises(UserError, match="say --space"):
        evaluate(runs / "flare", count=20, space=runs / "rla")
    result, other = evaluate(runs / "flare", count=20, space=runs / "rla_wm"), evaluate(runs / "rla_wm", count=20)
    assert list(result["ways"]) == ["prediction", "present, mapped", "untrained, mapped"]
    assert result["untrained"]["skill"] == pytest.approx(result["ways"]["untrained, mapped"]["8"]["skill"])
    assert result["untrained"] != result["listens"]
    assert list(result["ways"]["prediction"]) == ["8"]
    own = result["own_space"]
    assert own["n"] == result["n"]
    assert -1 <= own["cosine"] <= 1
    assert own["cosine_interval"][0] - 1e-4 <= own["cosine"] <= own["cosine_interval"][1] + 1e-4, "rounded to four digits"
    assert result["fitted"] > 2
    assert result["ways"]["prediction"]["8"]["copied"] == pytest.approx(other["ways"]["prediction"]["8"]["copied"])
    words = table(result)
    assert f"linear map fitted on {result['fitted']} training windows" in words
    assert "with another window's actions: finds" in words
    assert "listens, with weights that nothing has trained: skill" in words
    summary = compare([runs / "rla_wm", runs / "flare"], runs / "compared")
    assert "flare: read by a linear map" in compare_table(summary)
    assert "flare: read by a linear map" in foresight(summary, "worlds", "").note
    told, stored = summary["arms"]["flare"]["untrained"], windows(runs / "flare")
    errors = {way: stored[f"{way}/8/l1"].mean() for way in ("prediction", "untrained, mapped")}
    copied = stored["prediction/8/copied"].mean()
    assert told["gain"]["mean"] == pytest.approx((errors["untrained, mapped"] - errors["prediction"]) / copied, rel=1e-4)
    assert told["skill"]["mean"] == pytest.approx(1 - errors["untrained, mapped"] / copied, rel=1e-4)
    assert f"with fresh weights, read alike, it has a skill of {told['skill']['mean']:+.2f}" in compare_table(summary)
    assert set(summary["arms"]["flare"]["horizons"]) == {"8"}


def test_in_its_own_feature_space_nothing_is_painted(runs: Path) -> None:
    """A model that predicts in the judge's features is scored on what it predicted, not on a picture of it."""
    alone, judged = evaluate(runs / "dino_wm", count=20), evaluate(runs / "dino_wm", count=20, space=runs / "rla_wm")
    assert "space" not in judged
    assert judged["ways"] == alone["ways"]
    assert not any("space" in key for key in np.load(runs / "dino_wm" / "world.npz"))


@pytest.mark.slow
def test_rows_of_one_arm_that_differ_stand_apart(runs: Path) -> None:
    """By the labels of a study, or by their folders; what is missing is said."""
    for name in ("rla_wm", "rla_wm-1", "dino_wm"):
        evaluate(runs / name, count=20)
    labelled = compare([runs / name for name in ("rla_wm", "rla_wm-1")], runs / "compared", "b", ("a", "b"))
    assert list(labelled["arms"]) == ["a", "b"]
    assert labelled["baseline"] == "b"
    other = runs / "rla_wm-other"
    if not other.exists():
        shutil.copytree(runs / "rla_wm-1", other)
    kept = other / "config.yaml"
    kept.write_text(kept.read_text().replace("lr: 0.002", "lr: 0.003"))
    summary = compare([runs / "rla_wm", other], runs / "compared")
    assert list(summary["arms"]) == ["rla_wm (rla_wm)", "rla_wm (rla_wm-other)"]
    rows = foresight(labelled, "worlds", "", {"b": "1 of 2 seeds missing", "video": "2 of 2 seeds missing"}).rows
    assert [row[1] for row in rows if row[0] == "b"] == ["1 (1 of 2 seeds missing)"] * 3
    assert rows[-1][:2] == ("video", "not run (2 of 2 seeds missing)")


@pytest.mark.slow
def test_every_decoder_stands_beside_its_models(runs: Path) -> None:
    """The codec's own error is the codec's, the feature decoder's is its own; frames show what each makes of the truth."""
    evaluate(runs / "rla_wm", count=20)
    told = evaluate(runs / "uwm", count=20, space=runs / "rla_wm")["ways"]["prediction"]["8"]
    summary = compare([runs / "rla_wm", runs / "uwm"], runs / "compared")
    assert summary["arms"]["uwm"]["decoder"]["8"] == {"psnr": told["seen psnr"], "ssim": told["seen ssim"], "l1": told["seen space l1"]}
    assert summary["arms"]["rla_wm"]["decoder"]["8"]["l1"] is None
    head, rows = (lambda table: (table.head, table.rows))(foresight(summary, "worlds", ""))
    shown = dict(zip(head, next(row for row in rows if row[:3:2] == ("uwm", "8")), strict=True))
    assert shown["its decoder with the true tokens: PSNR"] == f"{told['seen psnr']:.1f}"
    assert shown["and SSIM"] == f"{told['seen ssim']:.3f}"
    assert shown["and feature error"] == f"{told['seen space l1']:.4f}"


def test_skill_over_seeds_by_hand() -> None:
    """Two episodes of one task, two seeds: errors (1, 3) and (1, 3) of 4 and 4 copied are half of it; the second digit of each is sure."""
    shared = {"task": np.zeros(2, int), "episode": np.arange(2), "start": np.arange(2), "copied": np.array([4.0, 4.0])}
    mine = [Measured(Path(), {}, {"l1": np.array([1.0, 3.0]), **shared}) for _ in range(2)]
    part = _interval(mine, "l1", "copied")
    assert part["mean"] == pytest.approx(0.5)
    alone = _interval(mine[:1], "l1", "copied")  # two episodes at .25 and .75: half width 12.706 x .25
    assert alone["low"] == pytest.approx(0.5 - 12.706 * 0.25, abs=1e-3)


def test_recovered_actions_by_hand() -> None:
    """Windows 1 and 3 of four are tried, of two episodes and two seeds: errors 1 and 3 of spreads 4 and 4 leave half explained."""
    tried = {"recovers/row": np.array([1, 3]), "recovers/error": np.array([1.0, 3.0]), "recovers/spread": np.array([4.0, 4.0])}
    stored = {"task": np.zeros(4, int), "start": np.array([0, 0, 1, 1]), **tried}
    assert explained([stored, stored])["mean"] == pytest.approx(0.5)
    alone = explained([stored])
    assert (alone["low"], alone["high"]) == pytest.approx((0.5 - 12.706 * 0.25, 0.5 + 12.706 * 0.25), abs=1e-3)


def test_anothers_latent_is_of_another_episode(runs: Path) -> None:
    """That of the window half a batch away: in the order in which windows are asked their neighbours are of one episode."""
    what, _ = subject(runs / "rla", (), "")
    rows = what.chosen(what.windows.validation, 20)
    assert any(row.episode is other.episode for row, other in pairwise(rows))
    half = len(rows) // 2
    assert not any(row.episode is other.episode for row, other in zip(rows[half:], rows, strict=False))
    batch, model = what.gather(rows), cast("Residuals", what.model)
    now, future = what.tokens(batch, 0), what.tokens(batch, 8)
    told = what.ways["another's latent"](batch, now, 8, torch.Generator())
    torch.testing.assert_close(told, model.decode(now, model.encode(now, future).roll(half, dims=0)))


def test_a_broken_file_of_windows_is_one_line(tmp_path: Path) -> None:
    """Truncated, or not there: which file, and what to type."""
    for text in (b"PK\x03\x04 cut", None):
        if text is not None:
            (tmp_path / "world.npz").write_bytes(text)
        else:
            (tmp_path / "world.npz").unlink()
        with pytest.raises(UserError, match=r"world.npz cannot be read; type: wmzoo eval"):
            windows(tmp_path)


def _of_other_windows(runs: Path) -> Path:
    """A run whose windows are another's in another order."""
    other = runs / "rla_wm-turned"
    if not other.exists():
        shutil.copytree(runs / "rla_wm-1", other)
    stored = dict(np.load(runs / "rla_wm-1" / "world.npz"))
    turned = {key: value[::-1] if "copied" in key else value for key, value in stored.items()}
    np.savez(other / "world.npz", **turned)
    return other


def _in_another_space(runs: Path) -> Path:
    import json

    other = runs / "elsewhere"
    other.mkdir(exist_ok=True)
    shutil.copy(runs / "dino_wm" / "world.npz", other)
    said = read_json(runs / "dino_wm" / "world.json", "a result")
    (other / "world.json").write_text(json.dumps({**said, "feature_space": "another"}))
    return other


def test_other_tasks(runs: Path) -> None:
    """Named tasks have files of their own."""
    result = evaluate(runs / "rla_wm", tasks=("toy-blue",), count=10)
    assert result["tasks"] == ["toy-blue"]
    assert (runs / "rla_wm" / "world-toy-blue.json").exists()


def test_a_cell_is_asked_on_tasks_that_it_was_not_trained_on(runs: Path) -> None:
    """Once: what is there on as many windows is not asked again; the cell says what was measured."""
    job = Job(runs / "rla", load(runs / "rla" / "config.yaml"), (), ("rla", "", "0"), ("transfer",), windows=10, elsewhere=("toy-blue",))
    assert not job.done
    work(job)
    assert job.done
    assert "transfer 10 toy-blue" in read_json(runs / "rla" / "cell.json", "a cell")["measured"]
    there = runs / "rla" / "world-toy-blue.npz"
    assert "own latent/8/l1" in np.load(there)
    before = there.stat().st_mtime_ns
    work(replace(job, handles=1))
    assert there.stat().st_mtime_ns == before
    assert not replace(job, windows=11).done


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("eval", "nowhere"), "nowhere is not there"),
        (("compare", "{runs}/uwm_rla", "{runs}/policy"), "it is a policy alone"),
        (("compare",), "RUNS|runs"),
        (("eval", "{runs}/rla_wm", "--windows", "0"), "at least 1"),
        (("eval", "{runs}/rla_wm", "--tasks", "toy-bleu"), "toy-blue"),
        (("eval", "{runs}/policy", "--predict"), "nothing in it predicts"),
        (("eval", "{runs}/uwm", "--predict", "--space", "{runs}/policy"), "is the run of another world model"),
        (("eval", "{runs}/rla", "--space", "{runs}/uwm"), "does not paint"),
    ],
)
def test_wrong_words(words: tuple[str, ...], message: str, runs: Path) -> None:
    with pytest.raises(UserError, match=message):
        cli.dispatch([word.format(runs=runs) for word in words])


@pytest.mark.parametrize("name", ["rla_wm", "rae", "uwm", "uwm_rla", "video", "dino_wm"])
def test_operations_of_all_sampling_steps(name: str) -> None:
    """`count` looks at one step and at two; all of them, one by one, take as many operations as it says."""
    arm = registry.arm(name, "tiny")
    hybrid, batch = weightless(arm)
    hybrid.requires_grad_(False)
    model = hybrid.world_model
    assert model is not None
    with torch.device("meta"):
        spent = sampling(model, batch, frame_tokens(batch, model.encoder, model.view), model.steps)
    assert spent == count(arm)["flops"]["prediction"]


@pytest.mark.slow
def test_operations_of_a_prediction() -> None:
    """At paper scale, in TFLOP: FM-WM 14.6 (the paper: 14.3); the latent's flow is an order of magnitude cheaper."""
    arms = {name: registry.arm(name, "paper") for name in ("rla_wm", "fm_wm", "dino_wm_one_shot")}
    tera = {name: predicted(*weightless(arm))["prediction"] / 1e12 for name, arm in arms.items()}
    assert tera["fm_wm"] == pytest.approx(14.6, abs=0.1)
    assert tera["rla_wm"] < tera["fm_wm"] / 10
    assert tera["dino_wm_one_shot"] == pytest.approx(tera["fm_wm"] / 30, rel=0.01)
