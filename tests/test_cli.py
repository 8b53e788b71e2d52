"""What is typed: right words do what they say, wrong words are answered in one line with exit code 2, and nothing is damaged."""

import json
import shlex
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from wmzoo import cli
from wmzoo.files import content_hash

SMALL = shlex.split(
    "policy --tasks toy --data.size 32 --data.demos 4 --data.batch 4 --data.horizon 8 --shape.width 32 --shape.depth 2 "
    "--observer.encoder.channels 16 32 --optim.steps 4 --optim.chapter 2"
)
Type = Callable[..., str]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Default folders such as runs/ and data/ are those of the test."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def run(toy_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished run of a very small arm, which no test changes."""
    out = tmp_path_factory.mktemp("runs") / "small"
    cli.dispatch(["train", *SMALL, "--data.root", str(toy_data), "--out", str(out)])
    before = contents(out)
    yield out
    assert contents(out) == before


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder, with its hash."""
    return {str(path.relative_to(folder)): content_hash(path) for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type `wmzoo` and these words; returns what it says on standard output."""

    def typed(*words: str) -> str:
        capsys.readouterr()
        monkeypatch.setattr(sys, "argv", ["wmzoo", *words])
        cli.main()
        return capsys.readouterr().out

    return typed


@pytest.fixture
def complaint(say: Type, capsys: pytest.CaptureFixture[str]) -> Type:
    """Type `wmzoo` and these wrong words; returns the one line on standard error that they are answered with."""

    def typed(*words: str) -> str:
        with pytest.raises(SystemExit) as ended:
            say(*words)
        said = capsys.readouterr()
        assert ended.value.code == 2
        assert said.out == ""
        assert said.err.count("\n") == 1, said.err
        assert said.err.startswith("wmzoo: ")
        return said.err

    return typed


WRONG_WORDS = {
    "command": ("trian policy", "did you mean 'train'"),
    "arm": ("train polcy", "did you mean 'policy'"),
    "no arm": ("train --out x", "wmzoo list"),
    "task of train": ("train policy --tasks drawer-opne", "did you mean 'drawer-open'"),
    "task of collect": ("collect --tasks mw33", "did you mean 'mw3"),
    "no task": ("train policy --tasks", "--tasks needs a value"),
    "transfer to nowhere": ("cell runs/a --measures transfer", "belong together"),
    "tasks of nothing": ("cell runs/a --elsewhere door-open", "belong together"),
    "no records": ("recall --records nowhere", "nowhere has no records"),
    "no task to collect": ("collect --tasks", "--tasks needs"),
    "scale": ("train policy --scale smal", "did you mean 'small'"),
    "scale of flops": ("flops policy --scale smal", "unknown --scale 'smal'; did you mean 'small'"),
    "scale like no other": ("flops policy --scale huge", "known: base, paper, small, tiny"),
    "measure": ("cell runs/a --measures ply", "did you mean 'play'"),
    "no scale": ("train policy --scale", "--scale needs a value"),
    "no out": ("train policy --out", "--out needs a value"),
    "flag instead of out": ("train policy --out --seed 1", "--out needs a value"),
    "key": ("train policy --optim.lrr 1", "did you mean --optim.lr"),
    "key of a term": ("train policy --objectives.flow.wieght 1", "did you mean --objectives.flow.weight"),
    "key of collect": ("collect --sise 32", "did you mean --size"),
    "number": ("train policy --optim.lr fast", "--optim.lr takes numbers, not 'fast'"),
    "two numbers": ("train policy --optim.betas 0.5", "--optim.betas needs 2 values"),
    "whole number": ("collect --episodes ten", "--episodes takes whole numbers, not 'ten'"),
    "whole numbers": ("study quick --seeds a", "--seeds takes whole numbers, not 'a'"),
    "number without a value": ("power --handles", "--handles needs a value"),
    "choice": ("train policy --optim.precision fp16", "did you mean 'bf16' or 'fp32'"),
    "no name": ("card", "a word is missing: wmzoo card NAME"),
    "no run": ("eval --handles 3", "a word is missing: wmzoo eval RUN"),
    "zero episodes": ("collect --episodes 0", "--episodes must be at least 1"),
    "zero processes": ("collect --processes 0", "--processes must be at least 1"),
    "few pixels": ("collect --size 7", "--size must be at least 8"),
    "many elites": ("plan nowhere --elites 100", "--elites 100 of --samples 64 cannot be"),
    "one seed": ("power --seeds 1", "takes at least 2.*a verdict at least 3"),
    "card": ("card flwo", "did you mean 'flow'"),
    "key of list": ("list --jsn", "did you mean --json"),
    "nothing to play": ("eval nowhere", "nowhere is not there"),
    "something else to play": ("eval .", "has the training ended"),
    "almost what is there": ("rate fil.txt", "fil.txt is not there; did you mean file.txt?"),
    "file to play": ("eval file.txt", "file.txt is a file, and a folder is wanted there"),
    "missing folder": ("train nowhere/config.yaml", "nowhere is not there"),
    "missing config": ("train ./other.yaml", "other.yaml is not there"),
    "data folder that is a file": ("collect --tasks toy --data file.txt", "file.txt is a file, and a folder is wanted there"),
    "report of a study that does not exist": ("report quik", "did you mean 'quick'"),
    "page that does not exist": ("claims --write PAGE.md", "PAGE.md is not there"),
    "page without a place": ("claims --write file.txt", "file.txt has no place for this"),
    "no time": ("bench --seconds 0", "--seconds must be above 0, not 0"),
    "card of a task": ("card toy", "toy is a task or a set of tasks, which have no card"),
    "flag of train itself": ("train policy --taks toy", "did you mean --tasks?"),
    "rate above 1": ("power --rate 1.5", "--rate lies between 0 and 1, not at 1.5"),
    "row with commas": ("study low_data --rows nope", "'flare, twice the steps'"),
    "missing data folder": ("train policy --tasks toy --data.root nowhere", "type: wmzoo collect --tasks toy-red --size 96 --data nowhere"),
}


@pytest.mark.parametrize(("words", "hint"), WRONG_WORDS.values(), ids=WRONG_WORDS)
def test_wrong_words(words: str, hint: str, tmp_path: Path, complaint: Type) -> None:
    """Each wrong word is named together with what would be right, and no file appears."""
    (tmp_path / "file.txt").write_text("a letter")
    line = complaint(*words.split())
    assert matches(hint, line)
    assert [path.name for path in tmp_path.iterdir()] == ["file.txt"]


def matches(pattern: str, line: str) -> bool:
    """True if the parts between the stars of the pattern stand in the line, in that order."""
    position = 0
    for part in pattern.split(".*"):
        position = line.find(part, position)
        if position < 0:
            return False
    return True


WRONG_VALUES = {
    "data.demos": ["0", "-1"],
    "data.videos": ["-1"],
    "data.video-share": ["2"],
    "data.batch": ["0"],
    "data.horizon": ["0"],
    "data.shift": ["-1", "100"],
    "data.size": ["33"],
    "optim.steps": ["0"],
    "optim.chapter": ["0"],
    "optim.lr": ["-1", "inf", "nan"],
    "optim.ema": ["2"],
    "shape.width": ["0", "30"],
    "shape.depth": ["0"],
    "trunk.heads": ["0", "3"],
    "observer.encoder.channels": ["12"],
    "observer.text.longest": ["3"],
    "observer.text.heads": ["3"],
    "objectives.flow.weights.velocity": ["nan"],
    "objectives.flow.config.sampler": ["grot"],
    "objectives.flow.config.integrator": ["eular"],
    "play.steps": ["0"],
    "play.execute": ["0", "9"],
    "seed": ["-1"],
}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in WRONG_VALUES.items() for value in values])
def test_values_that_cannot_be(key: str, value: str, toy_data: Path, tmp_path: Path, complaint: Type) -> None:
    """Numbers out of range and names nobody knows are found before a run folder appears: the corrected command can use it."""
    line = complaint("train", *SMALL, "--data.root", str(toy_data), "--out", "run", f"--{key}", value)
    assert value.lstrip("-") in line or key in line, "it must name the value or the option"
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("flag", "value"), [("--tasks", "toy"), ("--scale", "tiny"), ("--out", "there"), ("--seed", "3")])
def test_flags_with_an_equals_sign(flag: str, value: str) -> None:
    """--out=DIR is --out DIR, as everywhere else."""
    assert cli.parse_train(["policy", f"{flag}={value}"]) == cli.parse_train(["policy", flag, value])


def foreign(config: str) -> dict[str, tuple[bytes, str]]:
    """Wrong contents of a config.yaml, made from a right one, with what the answer must hold."""
    text = {
        "another program's": ("name: my app\nversion: 2\n", "does not describe an experiment"),
        "empty": ("", "does not describe an experiment"),
        "cut in half": (config[: len(config) // 2], "config.yaml"),
        "cut after a line": (config[: config.find("data:")], "config.yaml has no data, optim; is the file incomplete?"),
        "cut in a word": (config[: config.find("demos:") + 3], "line"),
        "not yaml": ("a: [1,\n b: }", "not a configuration of wmzoo"),
        "misspelt field": (config.replace("chapter: 2", "chaptre: 2"), "did you mean 'chapter'"),
        "unknown part": (config.replace("models.dit.Config", "models.dot.Config"), "'wmzoo.models.dot.Config' is not a part"),
        "function as part": ("is: wmzoo.run.train\n", "'wmzoo.run.train' is not a part"),
        "part of another package": ("is: subprocess.Popen\nargs: ls\n", "'subprocess.Popen' is not a part"),
        "number as part": ("is: 3\n", "3"),
        "part in the wrong place": (
            config.replace("wmzoo.config.Shape", "wmzoo.config.Play").replace("width: 32\n  depth", "execute: 8\n  steps"),
            "shape",
        ),
        "missing field": (config.replace("  depth: 2\n", "", 1), "depth"),
        "wrong type": (config.replace("  steps: 4\n  lr", "  steps: four\n  lr"), "steps"),
        "unknown term": (config.replace("velocity: 1.0", "speed: 1.0"), "velocity"),
    }
    return {name: (content.encode(), hint) for name, (content, hint) in text.items()} | {"a picture": (b"\xff\xfe\x00\x01", "config.yaml")}


@pytest.mark.parametrize("name", foreign(""))
def test_foreign_configurations(name: str, run: Path, tmp_path: Path, complaint: Type) -> None:
    """A config.yaml that is damaged or someone else's is named, with the field that is wrong; no run folder appears."""
    content, hint = foreign((run / "config.yaml").read_text())[name]
    (tmp_path / "config.yaml").write_bytes(content)
    line = complaint("train", "config.yaml", "--out", "run")
    assert hint in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["manifest.json", "000002/frames.npy", "000001/action.npy"])
def test_damaged_data(name: str, toy_data: Path, tmp_path: Path, complaint: Type) -> None:
    """A data set that is truncated or foreign is found before training: the file is named, no run folder appears."""
    shutil.copytree(toy_data, tmp_path / "data")
    damaged = tmp_path / "data" / "32" / "toy-blue" / name
    damaged.write_bytes(damaged.read_bytes()[:200])
    line = complaint("train", *SMALL, "--data.root", "data", "--out", "run")
    assert f"toy-blue/{name}" in line
    assert not (tmp_path / "run").exists()


FOREIGN_ARRAYS = {
    "frames as floats": ("000002/frames.npy", np.zeros((3, 1, 32, 32, 3), np.float32), "uint8 frames"),
    "one number": ("000002/frames.npy", np.array(3), "uint8 frames"),
    "words": ("000001/action.npy", np.array([["left"]]), "numbers"),
    "not finite": ("000001/state.npy", None, "not finite"),
}


@pytest.mark.parametrize("name", FOREIGN_ARRAYS)
def test_foreign_arrays(name: str, toy_data: Path, tmp_path: Path, complaint: Type) -> None:
    """Readable files of other numbers than an episode has."""
    shutil.copytree(toy_data, tmp_path / "data")
    file, array, hint = FOREIGN_ARRAYS[name]
    path = tmp_path / "data" / "32" / "toy-blue" / file
    if array is None:
        array = np.load(path)
        array[1, 0] = np.nan
    np.save(path, array)
    line = complaint("train", *SMALL, "--data.root", "data", "--out", "run")
    assert f"toy-blue/{file}" in line
    assert hint in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("field", ["instruction", "hash"])
def test_a_manifest_without_a_word(field: str, toy_data: Path, tmp_path: Path, complaint: Type) -> None:
    shutil.copytree(toy_data, tmp_path / "data")
    path = tmp_path / "data" / "32" / "toy-red" / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: 3}))
    assert matches(f"manifest.json.*{field}", complaint("train", *SMALL, "--data.root", "data", "--out", "run"))


def test_an_attempt_that_is_none(toy_data: Path, tmp_path: Path, complaint: Type) -> None:
    """An empty episode.json is named by the next `wmzoo collect`; a folder that only looks like an episode is left alone."""
    shutil.copytree(toy_data, tmp_path / "data")
    (tmp_path / "data" / "32" / "toy-red" / "0abc").mkdir()
    (tmp_path / "data" / "32" / "toy-red" / "000001" / "episode.json").write_text("{}")
    line = complaint("collect", "--tasks", "toy-red", "--size", "32", "--data", "data", "--episodes", "3", "--processes", "1")
    assert matches("000001/episode.json is not that of an episode; delete", line)


def test_other_episodes_than_before(run: Path, tmp_path: Path, complaint: Type) -> None:
    """A finished run and its data, of which one hash has changed since: nothing is exported anew."""
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "data.json").write_text(json.dumps({"toy-red": "0" * 16, "toy-blue": "0" * 16}))
    before = contents(tmp_path / "run")
    assert matches("has learnt from other episodes.*choose another --out", complaint("train", "run/config.yaml", "--out", "run"))
    assert contents(tmp_path / "run") == before


def test_too_many_demonstrations(toy_data: Path, complaint: Type) -> None:
    """More than were collected: the line holds the command that collects them."""
    line = complaint("train", *SMALL, "--data.root", str(toy_data), "--data.demos", "40")
    assert matches("11 training episodes.*40 demonstrations.*wmzoo collect --tasks toy-red", line)


def test_results_without_weights_do_not_get_other_weights(run: Path, tmp_path: Path, complaint: Type) -> None:
    """A record that was taken back: trained again by hand, its outcomes would be those of weights that are not there any more."""
    record = tmp_path / "record"
    record.mkdir()
    shutil.copy(run / "config.yaml", record)
    (record / "cell.json").write_text('{"measured": []}')
    line = complaint("train", str(record / "config.yaml"), "--out", str(record))
    assert matches("record has results that were taken back without weights, and these would be others'; choose another --out", line)
    assert not (record / "export").exists()


def test_a_run_folder_keeps_its_run(run: Path, toy_data: Path, complaint: Type) -> None:
    """Another arm into the same folder: the line names a way out, the folder stays as it is (the fixture checks)."""
    line = complaint("train", *SMALL, "--data.root", str(toy_data), "--out", str(run), "--seed", "1")
    assert matches("holds another run; choose another --out", line)


@pytest.mark.parametrize("content", [b"name: my app\n", b"\xff\xfe\x00\x01"])
def test_a_folder_of_something_else_is_left_alone(content: bytes, toy_data: Path, tmp_path: Path, complaint: Type) -> None:
    """--out points at a folder with another program's config.yaml."""
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / "config.yaml").write_bytes(content)
    line = complaint("train", *SMALL, "--data.root", str(toy_data), "--out", "app")
    assert "app" in line
    assert contents(tmp_path) == {"app/config.yaml": content_hash(tmp_path / "app" / "config.yaml")}


def test_out_is_a_file(toy_data: Path, tmp_path: Path, complaint: Type) -> None:
    """--out points at a letter: it is named, and it is still a letter afterwards."""
    (tmp_path / "letter").write_text("dear zoo")
    assert "letter" in complaint("train", *SMALL, "--data.root", str(toy_data), "--out", "letter")
    assert (tmp_path / "letter").read_text() == "dear zoo"


@pytest.mark.parametrize("name", ["export/weights.safetensors", "export/policy.json", "export/config.yaml"])
def test_a_damaged_export_does_not_play(name: str, run: Path, tmp_path: Path, complaint: Type) -> None:
    """Half a file of the export: the line names it, and no result is written."""
    shutil.copytree(run, tmp_path / "run")
    damaged = tmp_path / "run" / name
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    assert name.split("/")[1] in complaint("eval", "run")
    assert not (tmp_path / "run" / "eval.json").exists()


def test_a_half_trained_run_does_not_play(run: Path, tmp_path: Path, complaint: Type) -> None:
    """A run folder whose training was stopped has no export yet: the line asks whether it has ended."""
    shutil.copytree(run, tmp_path / "run", ignore=shutil.ignore_patterns("export"))
    assert "has the training ended?" in complaint("eval", "run")


def test_what_does_not_play_or_foresee_is_not_sent_to_eval(run: Path, tmp_path: Path, complaint: Type) -> None:
    """A policy has no world.json, whatever is typed; a record has no weights; and a folder that is not there may be a record."""
    assert matches("was not measured as a world model.*policy alone", complaint("compare", str(run)))
    assert f"type: wmzoo eval {run}" in complaint("rate", str(run))
    for folder in ("runs/recalled", "docs/results/cells/recorded"):
        (tmp_path / folder).mkdir(parents=True)
        (tmp_path / folder / "cell.json").write_text("{}")
    for command in ("eval", "plan", "probe", "rate", "compare"):
        assert matches("runs/recalled has results.*without weights.*wmzoo train", complaint(command, "runs/recalled"))
        assert matches("runs/recorded is not there.*wmzoo recall", complaint(command, "runs/recorded"))
        assert "did you mean runs/recalled?" in complaint(command, "runs/recaled")


def test_half_a_result_is_named(run: Path, tmp_path: Path, complaint: Type) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "eval.json").write_text('{"all": {"n"')
    assert matches("run/eval.json is damaged.*line 1 is not JSON.*wmzoo eval run", complaint("rate", "run"))


def test_a_damaged_checkpoint_is_named(run: Path, tmp_path: Path, complaint: Type) -> None:
    """Half a last.ckpt, copied from elsewhere: the line names it, and it is not replaced."""
    shutil.copytree(run, tmp_path / "run")
    damaged = tmp_path / "run" / "last.ckpt"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    assert "last.ckpt" in complaint("train", "run/config.yaml", "--out", "run")
    assert damaged.stat().st_size == 1000


@pytest.mark.parametrize("kind", ["an archive", "another program's", "one weight less"])
def test_a_foreign_checkpoint_is_named(kind: str, run: Path, tmp_path: Path, complaint: Type) -> None:
    """Files that can be read, and are no checkpoint of this run."""
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "last.ckpt"
    if kind == "an archive":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("letter", "dear zoo")
    else:
        held = torch.load(path, weights_only=False)
        held["state_dict"].popitem()
        torch.save({"a": 1} if kind == "another program's" else held, path)
    before = content_hash(path)
    assert "last.ckpt is damaged or of another run" in complaint("train", "run/config.yaml", "--out", "run")
    assert content_hash(path) == before


@pytest.mark.parametrize("field", ["sizes", "normaliser", "instructions"])
def test_an_export_without_its_numbers(field: str, run: Path, tmp_path: Path, complaint: Type) -> None:
    shutil.copytree(run, tmp_path / "run")
    path = tmp_path / "run" / "export" / "policy.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: [1]}))
    assert "policy.json is damaged or of another version" in complaint("eval", "run")


def test_a_foreign_curve_is_named(run: Path, tmp_path: Path, complaint: Type) -> None:
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / "metrics.csv").write_text("day,rain\nMonday,3\n")
    (tmp_path / "run" / "last.ckpt").unlink()
    assert "metrics.csv is not that of a run" in complaint("train", "run/config.yaml", "--out", "run")


@pytest.mark.parametrize(
    ("options", "hint"),
    [
        ("policy --optim.betas 1.5 0.999", "--optim.betas are from 0 to below 1"),
        ("diffusion_policy --play.steps 200", "--play.steps 200 is more than the 100 noise levels"),
        ("diffusion_policy --objectives.ddpm.config.history 0", "at least one frame"),
    ],
)
def test_what_would_fail_later_is_refused_now(options: str, hint: str, toy_data: Path, tmp_path: Path, complaint: Type) -> None:
    line = complaint("train", *options.split(), "--scale", "tiny", "--tasks", "toy", "--data.root", str(toy_data), "--out", "run")
    assert hint in line
    assert list(tmp_path.iterdir()) == []


def test_a_run_folder_is_complete(run: Path) -> None:
    """The arm, the curve, the checkpoint, and an export with weights, arm, numbers and card."""
    assert set(contents(run)) == {
        "config.yaml",
        "data.json",
        "metrics.csv",
        "last.ckpt",
        *(f"export/{name}" for name in ("weights.safetensors", "config.yaml", "policy.json", "card.md")),
    }
    assert yaml.safe_load((run / "config.yaml").read_text())["optim"]["steps"] == 4
    assert [line.split(",")[0] for line in (run / "metrics.csv").read_text().splitlines()] == ["step", "2", "4"]


def test_a_saved_configuration_is_accepted_back(run: Path, tmp_path: Path, say: Type) -> None:
    """config.yaml into its own folder changes nothing; into another folder it gives the same weights, bit for bit."""
    shutil.copytree(run, tmp_path / "same")
    before = contents(tmp_path / "same" / "export")
    say("train", "same/config.yaml", "--out", "same")
    assert contents(tmp_path / "same" / "export") == before
    say("train", str(run / "config.yaml"), "--out", "other")
    assert contents(tmp_path / "other" / "export") == before


def test_options_override_a_saved_configuration(run: Path) -> None:
    """A field that is typed wins over the file; the rest is the file's."""
    arm, out = cli.parse_train([str(run / "config.yaml"), "--optim.steps", "6", "--objectives.flow.weight", "0.5"])
    assert (arm.optim.steps, arm.optim.chapter, arm.weights) == (6, 2, {"flow/velocity": 0.5})
    assert out == Path("runs/config")


def test_list_is_json(say: Type) -> None:
    """Six kinds, each a name and a line; the first members are there."""
    listed = json.loads(say("list", "--json"))
    assert list(listed) == ["arms", "studies", "claims", "objectives", "models", "tasks"]
    for kind, name in (
        ("arms", "policy"),
        ("studies", "quick"),
        ("objectives", "flow"),
        ("models", "dit"),
        ("tasks", "mw3"),
        ("tasks", "toy-red"),
    ):
        assert listed[kind][name]
    assert "toy-red" in say("list")


def test_a_card_names_its_functions(say: Type) -> None:
    """`card flow` shows the citation and the function that is the loss."""
    said = say("card", "flow")
    assert "flow_loss" in said
    assert "arXiv:2210.02747" in said


def test_flops_is_json(say: Type) -> None:
    """Parts add up to the whole, a step costs more than a forward pass."""
    counts = json.loads(say("flops", "policy", "--scale", "tiny", "--json"))
    parameters = dict(counts["parameters"])
    whole = parameters.pop("all")
    parameters.pop("trained")
    assert sum(parameters.values()) == whole > 0
    assert counts["flops"]["step"] > 2 * counts["flops"]["forward"] > 0


def test_the_commands_are_listed(say: Type) -> None:
    """Nothing typed, or a call for help: every command with its line."""
    assert say() == say("--help")
    assert all(f"  {name} " in say() for name in cli.COMMANDS)


@pytest.mark.parametrize(
    ("words", "shown"), [("collect --help", "--episodes"), ("train --help", "--out"), ("train policy --help", "--optim.lr")]
)
def test_help_is_not_an_error(words: str, shown: str, say: Type, capsys: pytest.CaptureFixture[str]) -> None:
    """The options are printed to standard output, and the exit code is 0."""
    with pytest.raises(SystemExit) as ended:
        say(*words.split())
    assert not ended.value.code
    assert shown in capsys.readouterr().out


def test_help_has_no_holes(say: Type, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Summaries are whole lines, and a line that is wrapped in the source is one again."""
    assert "or less that of another arm, with an interval over seeds and handles." in say("--help")
    assert "--log tensorboard wandb] [any field of the arm]." in say("--help")
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit):
        say("eval", "--help")
    lines = [line.strip("│ ") for line in capsys.readouterr().out.splitlines()]
    assert "of an arm" not in lines
    assert any("of an arm that aligns" in line for line in lines)


def test_random_numbers_that_stay_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    """At paper scale frozen networks have no weights until somebody says where they are; below it they are trained beforehand."""
    cli.parse_train(["dino_wm", "--scale", "paper"])
    said = capsys.readouterr().err
    assert "stays random" in said
    assert "--objectives.dino-wm.config.predictor.encoder.weights" in said
    cli.parse_train(["dino_wm"])
    assert capsys.readouterr().err == ""


def test_what_a_shorter_chunk_leaves_behind_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    """FLARE's target stays where it was, unless that is said too."""
    cli.parse_train(["flare", "--data.horizon", "8"])
    assert "a chunk has 8 steps now, --objectives.flare.config.gap stays 16" in capsys.readouterr().err
    for words in ("flare --data.horizon 8 --objectives.flare.config.gap 16", "flare", "policy --data.horizon 8"):
        cli.parse_train([str(word) for word in words.split()])
        assert not capsys.readouterr().err
