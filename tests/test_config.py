"""What is found out before anything is trained: stages of another size, impossible rows of studies; and what an export asks for."""

from dataclasses import fields, replace
from typing import Any, cast

import pytest
import torch

from wmzoo import config, registry, study
from wmzoo.cli import parse_train
from wmzoo.config import Experiment, check, differences, self_contained, with_fields
from wmzoo.errors import UserError
from wmzoo.models import lam

LAM = "objectives.lara.config.lam"
THERE = "stages.lam.objectives.lam.config.lam"


STAGED = [
    pytest.param(name, scale, marks=[pytest.mark.slow] * (scale != "tiny"))
    for scale in ("tiny", "small", "base", "paper")
    for name in sorted(registry.members("arms"))
    if registry.arm(name, scale).stages
]


def asked(words: str) -> Experiment:
    name, *rest = words.split()
    return parse_train([name, "--scale", "tiny", *rest])[0]


@pytest.mark.parametrize(("words", "option"), [
    ("flare --objectives.flare.config.tokens 9 --observer.tokens 9", "--stages.embedding.observer.tokens 9"),
    ("flare --observer.width 48", "--stages.embedding.observer.width 48"),
    ("flare --observer.heads 4", "--stages.embedding.observer.heads 4"),
    ("flare --observer.encoder.channels 16 64", "--stages.embedding.observer.encoder.channels 16 64"),
    (f"lara --{LAM}.latent 16", f"--{THERE}.latent 16"),
    ("lara_posttrain --shape.width 32", "--stages.policy.shape.width 32"),
    ("lapa --shape.depth 2", "--stages.codes.shape.depth 2"),
])  # fmt: skip
def test_a_part_of_another_size_than_its_stage_is_one_line(words: str, option: str) -> None:
    """Before, the stage was trained first.  The line names the option, with which the arm is possible."""
    with pytest.raises(UserError) as found:
        check(asked(words))
    assert str(found.value).endswith(f"add {option}")
    assert "\n" not in str(found.value)
    check(asked(f"{words} {option}"))


@pytest.mark.parametrize(("name", "scale"), STAGED)
def test_every_arm_fits_its_stages(name: str, scale: config.Scale) -> None:
    """By configuration alone: nothing is trained, nothing is allocated."""
    check(registry.arm(name, scale))


def test_the_latent_action_model_is_moto_sized_whatever_the_frames() -> None:
    """The policy's frames have 256 pixels at paper scale, those of `lam` 224: both hold the model of 196 painted patches.

    A stage of another size is refused, with the option that mends it; so is one whose model takes its size from the frames.
    """
    arm, alone = registry.arm("lara", "paper"), registry.arm("lam", "paper")
    assert (arm.data.size, alone.data.size) == (256, 224)
    with torch.device("meta"):
        ours, theirs = (
            {name: x.shape for name, x in cast("Any", term.config).lam.build(config._any_sizes(owner)).state_dict().items()}
            for owner, term in ((arm, arm.objectives["lara"]), (alone, alone.objectives["lam"]))
        )
    assert ours == theirs
    assert ours["painter.place"] == (196, 768)
    with pytest.raises(UserError, match=rf"size is 224 here, 256 there; add --{THERE}\.size 224$"):
        check(with_fields(arm, {f"{THERE}.size": 256}))
    unsized = {f.name: getattr(lam_of(arm), f.name) for f in fields(lam_of(arm)) if f.name != "size"}
    with pytest.raises(
        UserError, match=r"config\.lam cannot start from stages\.lam, which has no part of its class, .*models\.lam\.Config$"
    ):
        check(with_fields(arm, {LAM: lam.Config(**unsized)}))


def test_a_stage_is_built_in_its_own_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a stage kept frames of its own, a model as large as the frames would not fit: said before training, with the tensor."""
    arm = registry.arm("lara", "tiny")
    monkeypatch.setattr(config, "for_stage", lambda stage, arm: stage)
    check(arm)
    with pytest.raises(UserError, match=r"painter\.place is \(16, 32\) here, \(36, 32\) there; its data or its trunk is of another size$"):
        check(with_fields(arm, {"stages.lam.data.size": 48}))


def lam_of(arm: Experiment) -> lam.Config:
    return cast("Any", arm.objectives["lara"].config).lam


def test_a_stage_of_a_stage_is_looked_at_too() -> None:
    """The latent action model fits its stage, which reads another encoder than its own stage trains."""
    with pytest.raises(UserError, match=r"config\.lam\.encoder cannot start from stages\.vit_mae.* add --stages\.vit-mae\..*\.depth 3$"):
        check(asked(f"lara --{LAM}.encoder.depth 3 --{THERE}.encoder.depth 3"))


def test_a_part_of_another_class_is_one_line() -> None:
    arm, other = registry.arm("flare", "tiny"), cast("Any", registry.arm("lara", "tiny").objectives["lara"].config).lam.encoder
    eye = replace(cast("Any", arm.observer), encoder=replace(other, weights="none"))
    with pytest.raises(UserError, match=r"another class; give stages\.embedding\.observer\.encoder the class of observer\.encoder$"):
        check(replace(arm, observer=eye))


@pytest.mark.parametrize("words", [
    f"lara --{LAM}.perceptual none", f"lara --{LAM}.encoder.no-frozen --{LAM}.perceptual none", "lara --objectives.lara.config.tap -3",
    "flare --observer.state-blind action", "lara_posttrain --optim.steps 3", "flare --shape.width 32",
])  # fmt: skip
def test_what_is_no_size_may_differ(words: str) -> None:
    check(asked(words))


@pytest.mark.parametrize("name", sorted(registry.members("studies")))
def test_every_row_of_every_study_is_possible_at_tiny_scale(name: str) -> None:
    """As the planner does it, and no two rows of a setting are one run."""
    found = replace(study.study(name, "tiny"), seeds=(0,))
    told = {}
    for about, arm in study.experiments(found, "tiny", {}):
        study.checked(arm)
        text = config.dump(arm)
        assert text not in told, (about, told[text])
        told[text] = about


@pytest.mark.slow
def test_twice_the_steps_changes_the_steps_alone() -> None:
    """A row with twice the steps stands on the very stages of the row with once: they have seen the same videos."""
    found = study.study("implicit_vs_explicit", "small")
    rows = {label: row for label, row in found.rows.items() if f"{label}, twice the steps" in found.rows or "twice" in label}
    arms = dict(study.experiments(replace(found, rows=rows, seeds=(0,)), "small", {}))
    twice = [about for about in arms if about[0].endswith(", twice the steps")]
    assert len(twice) == 12
    for label, setting, seed in twice:
        once = arms[label.removesuffix(", twice the steps"), setting, seed]
        assert arms[label, setting, seed] == with_fields(once, {"optim.steps": 2000}), (label, setting)


def test_an_export_asks_for_no_file_of_vgg() -> None:
    """A path becomes "features", so that the export loads elsewhere; what needs no file stays."""
    for told, kept in (("/x/vgg.pth", "features"), ("auto", "auto"), ("features", "features"), ("none", "none")):
        arm = self_contained(asked(f"lara --{LAM}.perceptual {told}"))
        assert cast("Any", arm.objectives["lara"].config).lam.perceptual == kept
        assert "/x/" not in config.dump(arm)


def test_differences_by_hand() -> None:
    """Where weights come from is none."""
    ours = registry.arm("policy", "tiny")
    theirs = replace(ours, shape=replace(ours.shape, width=7), seed=3)
    assert list(differences(ours, theirs)) == [("shape.width", ours.shape.width, 7), ("seed", 0, 3)]
    eye = cast("Any", registry.arm("flare", "tiny").observer)
    assert list(differences(eye, replace(eye, weights="none"))) == []
