"""The ledger: every claim names a study, rows and settings that exist; a verdict is what its intervals allow."""

import csv
import json
import re
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from wmzoo import ledger
from wmzoo.compare import windows
from wmzoo.errors import UserError
from wmzoo.files import read_between, read_json, write_between, write_json
from wmzoo.ledger import Claim, Found, Judged, claims, compared, concluded, judged, of_study, table, with_published, word
from wmzoo.registry import arm
from wmzoo.rollout import Played, summary
from wmzoo.stats import Estimate, corrected
from wmzoo.study import Job, Plan, Study, study
from wmzoo.tables import saved

ROOT = Path(__file__).parents[1]
RESULTS = {
    "README.md": ("implicit_vs_explicit",),
    "RESULTS.md": (
        "first_comparison",
        "low_data",
        "policies",
        "flare_controls",
        "flare_ablation",
        "lara_controls",
        "lara_ablation",
        "residuals",
        "world_models",
        "world_models_play",
        "planning",
        "model_rl",
        "few_actions",
    ),
}
RECORDED = (  # whose cells lie under docs/results/cells
    "implicit_vs_explicit", "low_data", "flare_controls", "flare_ablation", "lara_controls", "lara_ablation", "few_actions",
    "model_rl", "planning", "policies",
)  # fmt: skip


def test_all_claims_of_the_protocol_are_there() -> None:
    assert [claim.number for claim in claims()] == list(range(1, 24))


@pytest.mark.parametrize("claim", [claim for claim in claims() if claim.study], ids=lambda claim: str(claim.number))
def test_a_claim_names_what_its_study_has(claim: Claim) -> None:
    found = study(claim.study, "small")
    assert claim.theirs or claim.measure == "order", "only chance has no row"
    assert claim.rows <= found.rows.keys()
    assert set(claim.settings) <= found.settings.keys()
    assert len(claim.settings) == (2 if claim.measure == "few less many" else 1)
    needs = {"l1": "foresee", "GFLOP": "foresee", "order": "foresee", "probe": "probe", "transfer": "transfer"}
    assert needs.get(claim.measure, "play") in found.measures


def test_a_ranking_is_tested_pair_by_pair() -> None:
    """Ours over two others, and these in their order; each pair is looked for in its own cells."""
    claim = Claim(5, "x", "ranks", "", "s", "a", ("b", "d"), also=(("b", "c"), ("c", "d")))
    assert claim.pairs == {"a over b": ("a", "b"), "a over d": ("a", "d"), "b over c": ("b", "c"), "c over d": ("c", "d")}
    assert claim.rows == {*"abcd"}
    assert Claim(18, "x", "orders", "", "s", "a").pairs == {"a over chance": ("a", "")}


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(0.1, 0.2)], "holds"),
        ([(0.1, 0.2), (-0.1, 0.2)], "not distinguishable"),
        ([(0.1, 0.2), (-0.2, -0.1)], "fails"),
        ([(0.0, 0.2)], "not distinguishable"),
    ],
)
def test_words(ends: list[tuple[float, float]], expected: str) -> None:
    assert word(ends) == expected


def cell(folder: Path, about: tuple[str, str, str], good: int) -> Job:
    handles = [Played(task, i, i < good, 9, 3.0) for task in ("toy-red", "toy-blue") for i in range(20)]
    write_json(folder / "eval.json", summary(handles))
    write_json(folder / "cell.json", {"measured": ["play 20"]})
    return Job(folder, arm("policy", "tiny"), (), about, ("play",), 20)


def test_a_gain_that_grows_is_a_difference_of_differences(tmp_path: Path) -> None:
    """Few: 12 against 4 of 20, many: 16 against 14: (.4) - (.1) = .3; a seed that one of the four cells lacks does not count."""
    goods = {("ours", "few"): 12, ("theirs", "few"): 4, ("ours", "many"): 16, ("theirs", "many"): 14}
    cells = {key: [cell(tmp_path / f"{'-'.join(key)}-{seed}", (*key, str(seed)), good) for seed in range(3)] for key, good in goods.items()}
    claim = Claim(3, "x", "grows", "", "s", "ours", ("theirs",), ("few", "many"), "few less many")
    (tmp_path / "theirs-many-2" / "cell.json").unlink()
    found = compared(claim, cells, "ours", "theirs")
    assert found is not None
    assert found.estimate.mean == pytest.approx(0.3)
    assert (found.n, found.seeds) == ("2 seeds x 40 handles", 2)
    assert concluded(claim, {"theirs": found}).verdict == "too few seeds"
    (tmp_path / "theirs-many-1" / "cell.json").unlink()
    alone = compared(claim, cells, "ours", "theirs")
    assert alone is not None
    assert alone.n == "1 seed x 40 handles"
    assert concluded(claim, {"theirs": alone}).verdict == "too few seeds", "one seed is no claim about a method"
    (tmp_path / "theirs-many-0" / "cell.json").unlink()
    assert compared(claim, cells, "ours", "theirs") is None


ASKED = {"kind": "world model", "feature_space": "own", "data": {}, "n": 8}  # world.json, as far as the ledger reads it


def test_smaller_errors_are_better(tmp_path: Path) -> None:
    """Ours is off by .1, theirs by .3, on every window and seed: .2 nearer, in the shared space where there is another."""
    cells = {}
    for row, error in (("ours", 0.1), ("theirs", 0.3)):
        for seed in range(2):
            job = cell(tmp_path / f"{row}-{seed}", (row, "", str(seed)), 1)
            ahead = job.arm.data.horizon
            key = f"prediction/{ahead}/{'space l1' if row == 'theirs' else 'l1'}"
            extra = {f"prediction/{ahead}/l1": np.full(8, 9.0)} if row == "theirs" else {}
            np.savez(job.folder / "world.npz", **{key: np.full(8, error), **extra, "task": np.zeros(8), "episode": np.arange(8) // 2})
            space = {"space": "frozen"} if row == "theirs" else {}
            write_json(job.folder / "world.json", {**ASKED, "feature_space": "codec" if space else "frozen", **space})
            cells.setdefault((row, ""), []).append(job)
    claim = Claim(16, "x", "nearer", "", "s", "ours", ("theirs",), ("",), "l1")
    found = compared(claim, cells, "ours", "theirs")
    assert found is not None
    assert found.estimate.mean == pytest.approx(0.2)
    assert found.n == "2 seeds x 8 windows of 4 episodes"
    apart = cells["ours", ""][1].folder / "world.json"
    write_json(apart, {**ASKED, "feature_space": "another"})
    with pytest.raises(UserError, match=r"ours-1 and .*ours-0 were measured in other feature spaces"):
        compared(claim, cells, "ours", "theirs")
    write_json(apart, {**ASKED, "feature_space": "frozen"})
    other = cells["theirs", ""][1].folder / "world.npz"
    np.savez(other, **{**np.load(other), "episode": np.arange(8) // 4})
    with pytest.raises(UserError, match=r"theirs-1 and .*ours-0 were asked about other windows"):
        compared(claim, cells, "ours", "theirs")


def test_autoencoders_are_told_the_future(tmp_path: Path) -> None:
    """With its latent off by .1, trained without by .4."""
    cells: dict[tuple[str, str], list[Job]] = {}
    for row, way, error in (("ours", "own latent", 0.1), ("theirs", "no latent", 0.4)):
        for seed in range(3):
            job = cell(tmp_path / f"{row}-{seed}", (row, "", str(seed)), 1)
            told = {f"{way}/{job.arm.data.horizon}/l1": np.full(8, error), "task": np.zeros(8), "episode": np.arange(8) // 2}
            np.savez(job.folder / "world.npz", **told)
            write_json(job.folder / "world.json", {**ASKED, "kind": "autoencoder"})
            cells.setdefault((row, ""), []).append(job)
    claim = Claim(15, "x", "reconstructs", "", "s", "ours", ("theirs",), measure="l1")
    said = concluded(claim, {"theirs": compared(claim, cells, "ours", "theirs")})
    assert said.verdict == "holds"
    assert said.found.startswith("theirs: +0.300 [")


def test_other_tasks_are_read_from_their_own_files(tmp_path: Path) -> None:
    """Off by .2 with its latent and by .3 without on the other tasks; on its own tasks, where it is the other way round, nobody looks."""
    cells: dict[tuple[str, str], list[Job]] = {}
    for row, way, error in (("ours", "own latent", 0.2), ("theirs", "no latent", 0.3)):
        for seed in range(3):
            job = replace(cell(tmp_path / f"{row}-{seed}", (row, "", str(seed)), 1), elsewhere=("a", "b"))
            for name, off in (("world-a-b", error), ("world", 1 - error)):
                told = {f"{way}/{job.arm.data.horizon}/l1": np.full(8, off), "task": np.zeros(8), "episode": np.arange(8) // 2}
                np.savez(job.folder / f"{name}.npz", **told)
                write_json(job.folder / f"{name}.json", ASKED)
            cells.setdefault((row, ""), []).append(job)
    claim = Claim(19, "x", "transfers", "", "s", "ours", ("theirs",), measure="transfer")
    found = compared(claim, cells, "ours", "theirs")
    assert found is not None
    assert found.estimate.mean == pytest.approx(0.1)


def test_operations_are_counted_and_have_no_interval(tmp_path: Path) -> None:
    """Ours .5, theirs 2: 1.5 fewer, whatever the seed."""
    cells: dict[tuple[str, str], list[Job]] = {}
    for row, operations in (("ours", 0.5), ("theirs", 2.0)):
        for seed in range(2):
            job = cell(tmp_path / f"{row}-{seed}", (row, "", str(seed)), 1)
            write_json(job.folder / "world.json", {**ASKED, "cost": {"GFLOP": operations}})
            cells.setdefault((row, ""), []).append(job)
    claim = Claim(17, "x", "cheaper", "", "s", "ours", ("theirs",), measure="GFLOP")
    said = concluded(claim, {"theirs": compared(claim, cells, "ours", "theirs")})
    assert (said.verdict, said.found) == ("holds", "theirs: +1.50 GFLOP")


def test_half_a_latent_against_noise(tmp_path: Path) -> None:
    """The half-way frame is nearest in one window of two, to noise in one of four: .25 more; if to noise in none, .3 more than chance."""
    cells: dict[tuple[str, str], list[Job]] = {}
    ranks: dict[str, Any] = {"order/noisy": np.arange(8) % 2, "order/noise": np.arange(8) % 4}
    for seed in range(2):
        job = cell(tmp_path / f"ours-{seed}", ("ours", "", str(seed)), 1)
        np.savez(job.folder / "world.npz", **ranks, task=np.zeros(8), episode=np.zeros(8))
        cells.setdefault(("ours", ""), []).append(job)
    claim = Claim(18, "x", "orders time", "", "s", "ours", measure="order")
    found = compared(claim, cells, "ours", "")
    assert found is not None
    assert found.estimate.mean == pytest.approx(0.25)
    assert concluded(claim, {"": found}).verdict == "too few seeds"
    for job in cells["ours", ""]:
        ranks["order/noise"] = np.ones(8)
        np.savez(job.folder / "world.npz", **ranks, task=np.zeros(8), episode=np.zeros(8))
    assert (seldom := compared(claim, cells, "ours", "")) is not None
    assert seldom.estimate.mean == pytest.approx(0.3)
    np.savez(cells["ours", ""][0].folder / "world.npz", task=np.zeros(8), episode=np.arange(8) // 2)
    assert compared(claim, cells, "ours", "") is None, "measured before ranks were stored"


def test_probes_are_compared_over_seeds(tmp_path: Path) -> None:
    """Gains of .1, .2 and .3: .2, whose error is .1 / sqrt(3), with two degrees of freedom."""
    cells: dict[tuple[str, str], list[Job]] = {}

    def told(value: float | None) -> dict[str, object]:
        return {"validation": {"n": 9, "episodes": 3}, "probes": {"latent": {"ridge": {"within": {"mean": {"value": value}}}}}}

    for row, values in (("ours", (0.6, 0.8, 0.9)), ("theirs", (0.5, 0.6, 0.6))):
        for seed, value in enumerate(values):
            job = cell(tmp_path / f"{row}-{seed}", (row, "", str(seed)), 1)
            write_json(job.folder / "probe.json", told(value))
            cells.setdefault((row, ""), []).append(job)
    claim = Claim(11, "x", "probes better", "", "s", "ours", ("theirs",), measure="probe")
    found = compared(claim, cells, "ours", "theirs")
    assert found is not None
    assert found.estimate[:3] == pytest.approx((0.2, 0.1 / 3**0.5, 2))
    assert found.n == "3 seeds, 9 windows of 3 episodes each"
    alone = compared(claim, {row: jobs[:1] for row, jobs in cells.items()}, "ours", "theirs")
    assert alone is not None
    assert astuple(concluded(claim, {"theirs": alone}))[1:] == (
        "theirs: +0.100 [-inf, +inf]",
        "1 seed, 9 windows of 3 episodes each",
        "too few seeds",
    )
    write_json(cells["ours", ""][0].folder / "probe.json", told(None))
    assert compared(claim, cells, "ours", "theirs") is None


def test_without_cells_or_data_nothing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tested,) = (claim for claim in claims() if claim.number == 1)
    found = judged(tested, tmp_path, "small")
    assert (found.verdict, found.found) == ("not run", "no demonstrations here of drawer-open, window-close, button-press-topdown")
    assert judged(replace(tested, study=""), tmp_path, "small").verdict == "untested"


def test_a_claim_is_judged_by_the_seeds_that_are_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FLARE is better with the seeds of the study, and worse with three others: either answer is to be had."""
    (tested,) = (claim for claim in claims() if claim.number == 1)

    def plan(name: str, few: Study, *_: object) -> Plan:
        jobs = [
            cell(tmp_path / f"{row}-{seed}", (row, "40 demonstrations", str(seed)), 12 if (row == "flare") == (seed < 3) else 4)
            for row in sorted(tested.rows)
            for seed in few.seeds
        ]
        return Plan(name, few, tuple(jobs))

    monkeypatch.setattr(ledger, "missing_data", lambda *_: [])
    monkeypatch.setattr(ledger, "planned", plan)
    assert judged(tested, tmp_path, "small").verdict == "holds"
    mine = judged(tested, tmp_path, "small", (3, 4, 5))
    assert (mine.verdict, mine.n) == ("fails", "3 seeds x 40 handles")
    assert judged(tested, tmp_path, "small", (0, 5)).verdict == "too few seeds"


def test_a_report_knows_the_claims_that_its_study_tests(tmp_path: Path) -> None:
    """FLARE against the policy with its eye: 12 and 4 of 20 on both tasks, three seeds; what was not asked for is not run."""
    jobs = [
        cell(tmp_path / f"{row}-{seed}", (row, "40 demonstrations", str(seed)), good)
        for row, good in (("flare", 12), ("policy_embedding", 4))
        for seed in range(3)
    ]
    said = {row.claim.number: row for row in of_study(Plan("implicit_vs_explicit", study("implicit_vs_explicit"), tuple(jobs)))}
    assert said[1].verdict == "holds"
    assert said[1].found.startswith("flare over policy_embedding: +0.400 [")
    assert (said[2].verdict, said[9].verdict) == ("not run", "not run")
    assert 16 not in said, "another study's"
    assert table(list(said.values())).rows[0][0] == "1"
    assert not of_study(Plan("quick", study("quick"), tuple(jobs)))


def test_a_claim_with_a_comparison_missing_is_unfinished_unless_it_fails() -> None:
    """And the comparison that is missing is named."""
    claim = Claim(16, "x", "nearer", "", "s", "ours", ("a", "b"))
    good, bad = (Estimate(mean, 0.01, 100.0) for mean in (0.2, -0.2))
    both = concluded(claim, {"a": Found(good, "3 seeds", 3), "b": Found(good, "3 seeds", 3)})
    assert (both.verdict, both.n) == ("holds", "3 seeds")
    assert concluded(claim, {"a": Found(good, "3 seeds", 3), "b": Found(bad, "2 seeds", 2)}).verdict == "too few seeds"
    assert concluded(claim, {"a": Found(bad, "3 seeds", 3), "b": Found(good, "2 seeds", 2)}).verdict == "fails"
    half = concluded(claim, {"a": None, "b": Found(good, "3 seeds", 3)})
    assert half.verdict == "unfinished"
    assert half.found.startswith("b: +0.200 [")
    assert half.found.endswith("; a: not run")
    assert concluded(claim, {"a": Found(bad, "3 seeds", 3), "b": None}).verdict == "fails"
    assert concluded(claim, {"a": None, "b": None}).verdict == "not run"


def test_what_is_still_to_be_told_counts() -> None:
    """Holm corrects for all comparisons of a claim; one of a single seed counts as one to come, however sure it looks."""
    claim = Claim(16, "x", "nearer", "", "s", "ours", ("a", "b"))
    sure = Estimate(0.2, 0.08, 100.0)
    low, high = corrected([sure], awaited=1)[0]
    for other in (None, Found(Estimate(0.9, 0.01, 100.0), "1 seed", 1)):
        alone = concluded(claim, {"a": Found(sure, "3 seeds", 3), "b": other})
        assert alone.found.startswith(f"a: +0.200 [{low:+.3f}, {high:+.3f}]")
        assert alone.verdict == ("too few seeds" if other else "unfinished")
    assert low < sure.interval()[0]


def test_what_was_published_stays_where_nothing_is_here(tmp_path: Path) -> None:
    """Claim 1 was judged before and is not run here, claim 2 is judged here, claim 3 was never judged."""
    said = [
        Judged(Claim(number, "x", "says, this", ""), *found)
        for number, found in ((1, ("+0.1", "3 seeds", "holds")), (2, ("+0.2", "3 seeds", "holds")))
    ]
    before = tmp_path / "claims.csv"
    assert with_published(said, before) == said, "nothing was published"
    before.write_text(table(said).csv)
    now = [
        Judged(said[0].claim, "", "", "not run"),
        Judged(said[1].claim, "-0.2", "3 seeds", "fails"),
        Judged(Claim(3, "x", "y", ""), "", "", "untested"),
    ]
    kept = with_published(now, before)
    assert [(row.found, row.verdict) for row in kept] == [("+0.1", "holds*"), ("-0.2", "fails"), ("", "untested")]
    before.write_text(table(kept).csv)
    assert with_published(now, before) == kept, "one star, however often"
    assert "As published before" in table(kept).markdown
    assert "As published before" not in table(said).markdown
    before.write_text(table(said, "tiny").csv)
    nothing = ("", "", "not run")
    studied = [Judged(replace(said[0].claim, study="quick"), *nothing), Judged(replace(said[0].claim, says="another"), *nothing)]
    assert [row.verdict for row in with_published(studied, before, "small")] == ["not run"] * 2, "another study, other words"
    before.write_text(table([Judged(studied[0].claim, "+0.1", "3 seeds", "holds")], "tiny").csv)
    assert [with_published(studied[:1], before, scale)[0].verdict for scale in ("small", "tiny")] == ["not run", "holds*"], "its scale"
    before.write_text("something else\nentirely\n")
    with pytest.raises(UserError, match="not the table of claims"):
        with_published(now, before)


def test_the_table_goes_between_its_marks(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("before\n<!-- claims -->\nold\n<!-- end of claims -->\nafter\n")
    rows = table([judged(Claim(1, "x", "says | so", "9%"), tmp_path, "small")], "small")
    assert "seeds" not in rows.note
    assert "Training seeds that were asked for: 3, 4." in table([], "small", (3, 4)).note
    write_between(page, ledger.MARK, rows.markdown)
    text = page.read_text()
    assert text.startswith("before\n<!-- claims -->\n| ")
    assert text.endswith("<!-- end of claims -->\nafter\n")
    assert read_between(page, ledger.MARK) == rows.markdown
    assert "untested" in text
    (tmp_path / "claims.csv").write_text(rows.csv)
    assert saved(tmp_path / "claims.csv", rows.note) == rows
    with pytest.raises(UserError, match="has no place for this"):
        write_between(ROOT / "LICENSE", ledger.MARK, "")


def test_the_ledger_of_the_readme_was_generated() -> None:
    """What stands in README.md is what lies in docs/results, to the letter."""
    inside = read_between(ROOT / "README.md", ledger.MARK)
    note = re.findall(r"^Scale: .*$", inside, re.MULTILINE)[0]
    assert inside == saved(ROOT / "docs" / "results" / "claims.csv", note).markdown


@pytest.mark.parametrize(("page", "name"), [(page, name) for page, names in RESULTS.items() for name in names])
def test_the_tables_of_results_were_generated(page: str, name: str) -> None:
    """What stands on the pages is what lies in docs/results, to the letter, and every picture is there."""
    folder, inside = ROOT / "docs" / "results" / name, read_between(ROOT / page, name)
    shown = [path for path in sorted(folder.glob("*.csv")) if path.stem not in ("cost", "cells")]
    assert shown
    for path in shown:
        assert saved(path, "").markdown.rstrip() in inside, path
    pictures = re.findall(r"\]\((docs/results/.*?)\)", inside)
    assert pictures or name == "residuals", "autoencoders have a table alone"
    assert all((ROOT / path).exists() for path in pictures)


def test_published_ratios_are_those_of_the_records() -> None:
    """What an autoencoder decodes of the future, by seed, is what lies beside the table."""
    home = ROOT / "docs" / "results"
    runs = {(row["arm"], row["seed"]): row["run"] for row in csv.DictReader((home / "residuals" / "cells.csv").open())}
    rows = list(csv.DictReader((home / "residuals" / "residuals.csv").open()))
    assert len(rows) == 12
    for row in rows:
        told = []
        for seed in row["seeds"].split(", "):
            folder = home / "cells" / runs[row["arm"], seed]
            (path,) = [path for path in folder.glob("world*.json") if ", ".join(json.loads(path.read_text())["tasks"]) == row["tasks"]]
            assert path.with_suffix(".npz").exists()
            ways = json.loads(path.read_text())["ways"]
            told.append(ways.get("own latent", ways["no latent"])[row["ahead"]]["moving_ratio"])
        assert row["error / a copy's, where it moves"] == ", ".join(f"{ratio:.3f}" for ratio in told)


@pytest.mark.parametrize(("name", "least"), [("world_models", 24), ("world_models_play", 15)])
def test_published_errors_of_world_models_are_those_of_the_records(name: str, least: int) -> None:
    """The feature error of every model and horizon is the mean over its seeds' windows, which lie beside the table."""
    home = ROOT / "docs" / "results"
    runs = {(row["arm"], row["seed"]): row["run"] for row in csv.DictReader((home / name / "cells.csv").open())}
    rows = [row for row in csv.DictReader((home / name / "worlds.csv").open()) if row["seeds"]]
    assert len(rows) >= least
    for row in rows:
        errors, mine = [], f"prediction/{row['ahead']}"
        for seed in row["seeds"].split(", "):
            stored = windows(home / "cells" / runs[row["model"], seed])
            errors.append(stored.get(f"{mine}/space l1", stored[f"{mine}/l1"]).mean())
        assert float(row["feature error"]) == pytest.approx(np.mean(errors), abs=6e-5)


@pytest.mark.parametrize("name", [*RECORDED, "residuals", "world_models", "world_models_play"])
def test_records_say_that_what_their_study_measures_was_measured(name: str) -> None:
    """So whoever recalls them has the table again: a cell that was trained again for another study may know less than it did."""
    home = ROOT / "docs" / "results"
    done = [row["run"] for row in csv.DictReader((home / name / "cells.csv").open()) if row["state"] in ("done", "recorded")]
    assert done
    for run in done:
        measured = {asked.split()[0] for asked in read_json(home / "cells" / run / "cell.json", "a record")["measured"]}
        assert set(study(name).measures) <= measured, run


def test_one_cell_has_one_outcome_on_all_pages() -> None:
    """But for the first comparison, which is an earlier version's and says so."""
    outcomes: dict[str, set[str]] = {}
    for path in sorted((ROOT / "docs" / "results").glob("*/cells.csv")):
        for row in csv.DictReader(path.open()):
            if row["successes"] and path.parent.name != "first_comparison":
                outcomes.setdefault(row["run"], set()).add(row["successes"])
    assert {run: told for run, told in outcomes.items() if len(told) > 1} == {}


@pytest.mark.parametrize("name", RECORDED)
def test_published_counts_are_those_of_the_records(name: str) -> None:
    """Every cell of the table has its outcomes beside it, one for each start state."""
    home = ROOT / "docs" / "results"
    rows = [row for row in csv.DictReader((home / name / "cells.csv").open()) if row["successes"]]
    assert rows
    for row in rows:
        counted = "plan.json" if "plan" in study(name).measures else "eval.json"
        told = read_json(home / "cells" / row["run"] / counted, "a record")["handles"]
        assert (
            row["successes"] == f"{sum(handle['success'] for handle in told)}/{len({(handle['task'], handle['seed']) for handle in told})}"
        )
