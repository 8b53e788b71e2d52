"""specs 7.6, R1 to R6: LARA's agreement, its gradients, its controls; LAPA's codes; starting from a finished run."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers import interrupted, learns, made, scores
from jaxtyping import TypeCheckError
from safetensors.torch import load_file
from torch import Tensor

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, build, self_contained
from wmzoo.errors import UserError
from wmzoo.interfaces import Sizes
from wmzoo.models.quantise import Config as Bottleneck
from wmzoo.module import ZooModule
from wmzoo.objectives.lam import Lam
from wmzoo.objectives.lapa import Lapa, code_loss
from wmzoo.objectives.lara import Lara, agreement, chosen
from wmzoo.objectives.lara_video import LaraVideo
from wmzoo.question import Hidden
from wmzoo.run import start_from, train


def small(name: str = "lara", depth: int = 8, **fields: Any) -> Experiment:
    """An arm at tiny scale with fresh weights, a trunk of eight blocks, and some fields of its agreement changed."""
    arm = self_contained(registry.arm(name, "tiny"))
    arm = replace(arm, shape=replace(arm.shape, width=32, depth=depth))
    term = arm.objectives["lara"]
    fields = {"tap": -2, **fields}
    return replace(arm, objectives={**arm.objectives, "lara": replace(term, config=replace(cast("Any", term.config), **fields))})


def objective(hybrid: Hybrid) -> Lara:
    return cast("Lara", hybrid.objectives["lara"])


def test_agreement_by_hand() -> None:
    """R1: latents (3, 0), (0, 4) flat are (3, 0, 0, 4); with (3, 0, 0, -4) the cosine is (9 - 16) / 25; a mean of two would be 0."""
    latent = torch.tensor([[[3.0, 0.0], [0.0, 4.0]]])
    torch.testing.assert_close(agreement(torch.tensor([[3.0, 0.0, 0.0, -4.0]]), latent), torch.tensor([1 + 7 / 25]))
    torch.testing.assert_close(agreement(5 * latent.flatten(1), latent), torch.zeros(1))
    torch.testing.assert_close(agreement(-latent.flatten(1), latent), torch.full((1,), 2.0))


def test_another_shape_raises() -> None:
    with pytest.raises(ValueError, match="3 numbers cannot agree with a latent of 4"):
        agreement(torch.randn(2, 3), torch.randn(2, 2, 2))
    with pytest.raises(TypeCheckError):
        agreement(torch.randn(1, 4), torch.randn(2, 2, 2))


def test_the_gradient_reaches_both_sides_of_the_equation() -> None:
    prediction, latent = torch.randn(2, 4, requires_grad=True), torch.randn(2, 2, 2, requires_grad=True)
    agreement(prediction, latent).sum().backward()
    assert prediction.grad is not None
    assert latent.grad is not None


def test_chosen_by_hand() -> None:
    """The last recorded of four: the third, the fourth, and the first where none was; or their mean."""
    tokens = torch.arange(12.0).reshape(3, 4, 1)
    recorded = torch.tensor([[True, True, True, False], [True] * 4, [False] * 4])
    assert chosen(tokens, recorded, "last").flatten().tolist() == [2, 7, 8]
    assert chosen(tokens, recorded, "mean").flatten().tolist() == [1, 5.5, 0]


def test_where_the_agreement_teaches(batch: Batch, sizes: Sizes) -> None:
    """R2: blocks 1 to 6 of 8, M-Former and its projection; not blocks 7, 8, the action decoder, the codes, the painter, the encoder.

    The codes are Moto's, which learn by gradient: those of the default are buffers that none could reach.
    """
    lam = replace(cast("Any", small().objectives["lara"].config).lam, bottleneck=Bottleneck("legacy", 16))
    hybrid = made(small(lam=lam), sizes)
    codes = [name for name, p in hybrid.named_parameters() if ".lam.bottleneck." in name and p.requires_grad]
    assert codes
    assert objective(hybrid).tap == 6
    scores(hybrid, batch)["lara/align"].backward()
    blocks = [learns(hybrid, f"trunk.blocks.{i}.") for i in range(8)]
    assert blocks == [True] * 6 + [False] * 2
    for name in ("observer.", "objectives.flow.encode", "objectives.lara.head", "objectives.lara.lam.former", "objectives.lara.lam.down"):
        assert learns(hybrid, name), name
    idle = ("objectives.flow.decode", "objectives.lara.lam.up", "objectives.lara.lam.painter", "objectives.lara.lam.encoder", *codes)
    for name in idle:
        assert not learns(hybrid, name), name
    hybrid.zero_grad()
    scores(hybrid, batch)["lara/lam"].backward()
    assert all(learns(hybrid, name) for name in codes), "the model's own loss does reach them"


def test_the_models_own_loss_teaches_no_policy(batch: Batch, sizes: Sizes) -> None:
    hybrid = made(small(), sizes)
    scores(hybrid, batch)["lara/lam"].backward()
    assert not any(learns(hybrid, name) for name in ("observer.", "trunk.", "objectives.flow.", "objectives.lara.head"))
    assert learns(hybrid, "objectives.lara.lam.painter")


@pytest.mark.parametrize("token", ["last", "mean"])
def test_only_the_last_action_token_matters(token: str, batch: Batch, sizes: Sizes) -> None:
    """R3: other tokens at the tap change nothing; row 1 is padded for its last 3 of 8 steps, so its token is the fifth."""
    hybrid = made(small(token=token), sizes).eval()
    batch = batch.map(torch.clone)
    batch.has_future[:] = True
    ours = objective(hybrid)
    question = ours(batch)
    tokens = torch.randn(6, 8, 32)

    def value(tokens: Tensor) -> Tensor:
        return question.score(Hidden({6: {"action": tokens}}, {"action": tokens}))["align"].value

    other = torch.randn_like(tokens)
    other[0, 7], other[1, 4] = tokens[0, 7], tokens[1, 4]
    same = torch.isclose(value(other), value(tokens))
    assert same[:2].all() == (token == "last")
    assert not same[3]


def test_the_total_is_the_sum_of_its_parts(batch: Batch, sizes: Sizes) -> None:
    """R4: what is minimised is L_fm + 0.01 L_lara + 0.01 L_LAM, and L_LAM is that of the stage's objective."""
    arm = small()
    assert arm.weights == {"flow/velocity": 1.0, "lara/align": 0.01, "lara/lam": 0.01}
    hybrid = made(arm, sizes).eval()  # codes move with every training pass
    terms = scores(hybrid, batch)
    batch.features.clear()
    alone = Lam(objective(hybrid).lam, 8, True)
    parts = alone(batch).score(Hidden({}, {}))
    valid = batch.has_future[:, 0]
    by_hand = torch.stack([score.value[valid] for score in parts.values()]).sum(dim=0).mean()
    torch.testing.assert_close(terms["lara/lam"], by_hand, atol=1e-6, rtol=1e-5)
    module = ZooModule(hybrid, arm.weights, arm.optim, 0)
    logged: dict[str, Tensor] = {}
    module.log_dict = lambda values, **_: logged.update(values)  # type: ignore[method-assign]
    batch.features.clear()
    total = module.training_step(batch, 0)
    flow, align = logged["train/flow/velocity"], logged["train/lara/align"]
    assert min(flow, align, by_hand) > 0.01
    torch.testing.assert_close(total, flow + 0.01 * align + 0.01 * by_hand, atol=1e-7, rtol=1e-6)


def test_frozen_leaves_no_gradient_and_the_same_value(batch: Batch, sizes: Sizes) -> None:
    """R5: nothing reaches the latent action model, in training mode too its codes stay; the agreement is what it was."""
    free, frozen = made(small(), sizes), made(small(frozen=True), sizes)
    frozen.load_state_dict(free.state_dict())
    frozen.train()
    before = {name: value.clone() for name, value in objective(frozen).lam.state_dict().items()}
    terms = scores(frozen, batch)
    assert terms.keys() == {"flow/velocity", "lara/align"}
    torch.testing.assert_close(terms["lara/align"], scores(free, batch)["lara/align"])
    torch.stack([*terms.values()]).sum().backward()
    assert all(p.grad is None for p in objective(frozen).lam.parameters())
    assert all(torch.equal(before[name], value) for name, value in objective(frozen).lam.state_dict().items())
    assert learns(frozen, "objectives.lara.head")


def test_detached_the_model_learns_from_itself_alone(batch: Batch, sizes: Sizes) -> None:
    hybrid = made(small(detach=True), sizes)
    terms = scores(hybrid, batch)
    terms["lara/align"].backward(retain_graph=True)
    assert not learns(hybrid, "objectives.lara.lam.")
    terms["lara/lam"].backward()
    assert learns(hybrid, "objectives.lara.lam.former")


def test_several_gaps_have_the_mean_of_their_latents(batch: Batch, sizes: Sizes) -> None:
    """R6: two frames ahead: the target is the mean of two latents, one cosine; a window needs both frames."""
    hybrid = made(small(gaps=(4, 8)), sizes).eval()
    wide = batch.map(torch.clone)
    wide = replace(
        wide,
        future=torch.rand(6, 2, 1, 3, 32, 32),
        has_future=torch.tensor([[True, True]] * 5 + [[True, False]]),
        offset=torch.tensor([[4, 8]] * 6),
    )
    ours = objective(hybrid)
    latents = [ours.lam.encode(wide, gap) for gap in (4, 8)]
    target, valid = ours.target(wide, latents)
    torch.testing.assert_close(target, (latents[0] + latents[1]) / 2)
    assert valid.tolist() == [True] * 5 + [False]
    assert scores(hybrid, wide)["lara/lam"].isfinite()


def test_controls_by_hand(batch: Batch, sizes: Sizes) -> None:
    """Current: the motion from the present frame to itself.  Shuffled: that of the window before, where both have one."""
    for control in ("none", "current", "shuffled"):
        ours = objective(made(small(control=control), sizes).eval())
        own, still = ours.lam.encode(batch, 8), ours.lam.encode(batch, 0)
        target, valid = ours.target(batch, [own])
        torch.testing.assert_close(target, {"none": own, "current": still, "shuffled": own.roll(1, 0)}[control])
        there = batch.has_future[:, 0]
        assert torch.equal(valid, there & there.roll(1) if control == "shuffled" else there)


def test_action_free_rows_contribute_nothing_to_flow_and_agreement(batch: Batch, sizes: Sizes) -> None:
    """NaN actions and states in rows 4 and 5: the same terms and gradients; without them the agreement is the same too."""
    arm, out = small(), []
    for poisoned in (False, True):
        hybrid, data = made(arm, sizes), batch.map(torch.clone)
        if poisoned:
            data.action[4:], data.state[4:] = float("nan"), float("nan")
        terms = scores(hybrid, data)
        torch.stack([*terms.values()]).sum().backward()
        out.append([*terms.values(), *(p.grad for p in hybrid.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*out, strict=True))
    free = batch.map(torch.clone)
    free.action_mask[:] = False
    hybrid = made(arm, sizes)
    terms = scores(hybrid, free)
    assert terms["flow/velocity"] == terms["lara/align"] == 0
    assert terms["lara/lam"] > 0
    (terms["flow/velocity"] + terms["lara/align"]).backward()
    assert not any(p.grad is not None and p.grad.any() for p in hybrid.parameters())


def test_video_agrees_from_noise(batch: Batch, sizes: Sizes) -> None:
    """`lara_video`: the last token of a chunk without actions, which is noise at t = 0; what was recorded of actions there is not seen."""
    hybrid = made(small("lara_video"), sizes).eval()
    ours, plain = objective(hybrid), objective(made(small(), sizes).eval())
    assert type(ours) is LaraVideo
    free = batch.map(torch.clone)
    free.action_mask[:] = False
    free.action_mask[0, :3] = True
    assert ours.recorded(free).sum(dim=1).tolist() == [3, *[8] * (len(free) - 1)]
    assert plain.recorded(free).sum(dim=1).tolist() == [3, *[0] * (len(free) - 1)]
    torch.manual_seed(0)
    questions, hidden = hybrid._pass(free)
    assert cast("Tensor", questions["flow"].streams["action"].clock)[1:].eq(0).all()
    score = questions["lara"].score(hidden)["align"]
    assert torch.equal(score.weight, free.has_future[:, 0])
    tokens = hidden.taps[ours.tap]["action"]
    latent = ours.lam.encode(free, 8)
    expected = agreement(ours.head(torch.cat([tokens[:1, 2], tokens[1:, -1]])).float(), latent)
    torch.testing.assert_close(score.value, expected)
    free.action[1:] = float("nan")
    torch.manual_seed(0)
    assert torch.equal(hybrid(free)["lara/align"].value, score.value)


def test_the_future_does_not_leak_into_the_policy(batch: Batch, sizes: Sizes) -> None:
    """Another future: the same velocity and the same actions."""
    hybrid = made(small("flare_lara"), sizes).eval()
    other = batch.map(torch.clone)
    other.future[:] = torch.rand_like(other.future)
    noise = torch.randn(6, 8, 3)
    assert torch.equal(hybrid.act(batch, noise, 3), hybrid.act(other, noise, 3))
    torch.testing.assert_close(scores(hybrid, batch)["flow/velocity"], scores(hybrid, other)["flow/velocity"], atol=0, rtol=0)


def test_the_policy_alone_plays_the_same(batch: Batch, sizes: Sizes) -> None:
    """C6: without head and latent action model, whose parameters are all gone, the actions are the same."""
    hybrid = made(small(), sizes).eval()
    noise = torch.randn(6, 8, 3)
    whole = hybrid.act(batch, noise, 3)
    assert not [name for name, _ in hybrid.strip().named_parameters() if name.startswith("objectives.lara")]
    assert torch.equal(hybrid.act(batch, noise, 3), whole)


def test_weight_zero_is_the_policy(batch: Batch, sizes: Sizes) -> None:
    """C1: with both weights 0 loss and gradients of the policy are bit for bit those of the arm without LARA."""
    arm = small()
    hybrid, alone = made(arm, sizes), made(replace(arm, objectives={"flow": arm.objectives["flow"]}), sizes)
    state = {name: value for name, value in hybrid.state_dict().items() if not name.startswith("objectives.lara")}
    alone.load_state_dict(state)
    terms, plain = scores(hybrid, batch), scores(alone, batch)
    (terms["flow/velocity"] + 0 * terms["lara/align"] + 0 * terms["lara/lam"]).backward()
    plain["flow/velocity"].backward()
    theirs = dict(hybrid.named_parameters())
    for name, p in alone.named_parameters():
        assert (p.grad is None) == (theirs[name].grad is None) or not theirs[name].grad.any(), name  # type: ignore[union-attr]
        assert p.grad is None or torch.equal(p.grad, cast("Tensor", theirs[name].grad)), name


def test_what_is_watched(batch: Batch, sizes: Sizes) -> None:
    watched = made(small(), sizes).eval().watch(batch)
    assert {name.split("/")[1].split(":")[0] for name in watched} == {
        "moving_ratio", "perceptual_is_lpips", "perplexity", "codes_in_use", "latent_std", "latent_cosine", "prediction_cosine",
        "retrieval", "retrieval_by_chance", "alarm",
    }  # fmt: skip
    hybrid = made(small(), sizes).eval()
    last = cast("Any", objective(hybrid).lam).down[2]
    last.weight.data.zero_()
    assert next(value for name, value in hybrid.watch(batch).items() if "latents have collapsed" in name) == 1
    assert next(value for name, value in watched.items() if "latents have collapsed" in name) == 0


@pytest.mark.parametrize(("fields", "message"), [
    ({"tap": 9}, "tap 9 does not exist"), ({"tap": -9}, "tap -9"), ({"gaps": ()}, "one or more"), ({"gaps": (0,)}, "at least 1"),
])  # fmt: skip
def test_a_wrong_field_is_one_line(fields: dict[str, Any], message: str, sizes: Sizes) -> None:
    with pytest.raises(UserError, match=message):
        made(small(**fields), sizes)


def test_code_loss_by_hand() -> None:
    """Two tokens of two codes: logits 0, 0 cost ln 2; logits 0, ln 3 with the second right cost ln 4/3."""
    logits = torch.tensor([[[0.0, 0.0], [0.0, torch.log(torch.tensor(3.0))]]])
    wanted = (torch.log(torch.tensor(2.0)) + torch.log(torch.tensor(4 / 3))) / 2
    torch.testing.assert_close(code_loss(logits, torch.tensor([[0, 1]])), wanted[None])
    with pytest.raises(TypeCheckError):
        code_loss(logits, torch.zeros(1, 3, dtype=torch.long))


def lapa(sizes: Sizes) -> Hybrid:
    arm = self_contained(registry.arm("lapa_codes", "tiny"))
    return made(replace(arm, shape=replace(arm.shape, width=32)), sizes)


def test_a_fresh_head_costs_the_logarithm_of_the_codes(batch: Batch, sizes: Sizes) -> None:
    hybrid = lapa(sizes)
    ours = cast("Lapa", hybrid.objectives["lapa"])
    for p in ours.head.parameters():
        p.data.zero_()
    assert scores(hybrid, batch)["lapa/code"].item() == pytest.approx(torch.log(torch.tensor(16.0)).item())


def test_codes_are_labels_not_inputs(batch: Batch, sizes: Sizes) -> None:
    """The model that gives them stays as it is; actions are not read; a window without the future frame does not count."""
    hybrid = lapa(sizes).train()
    ours = cast("Lapa", hybrid.objectives["lapa"])
    before = {name: value.clone() for name, value in ours.lam.state_dict().items()}
    poisoned = batch.map(torch.clone)
    poisoned.action[:], poisoned.state[4:], poisoned.future[2] = float("nan"), float("nan"), float("nan")
    loss = scores(hybrid, batch)["lapa/code"]
    assert torch.equal(loss, scores(hybrid, poisoned)["lapa/code"])
    loss.backward()
    assert all(p.grad is None for p in ours.lam.parameters())
    assert learns(hybrid, "trunk.")
    assert all(torch.equal(before[name], value) for name, value in ours.lam.state_dict().items())
    hidden = {"code": torch.randn(6, 4, 32)}
    assert ours(batch).score(Hidden({}, hidden))["code"].weight.tolist() == batch.has_future[:, 0].tolist()
    assert {name.split("/")[1] for name in hybrid.eval().watch(batch)} == {"accuracy", "accuracy_of_the_usual_code"}


def test_a_continuous_model_has_no_codes(sizes: Sizes) -> None:
    from wmzoo.models.quantise import Config

    arm = self_contained(registry.arm("lapa_codes", "tiny"))
    term = arm.objectives["lapa"]
    model = replace(cast("Any", term.config).lam, bottleneck=Config("sphere"))
    with pytest.raises(UserError, match="continuous"):
        build(replace(arm, objectives={"lapa": replace(term, config=replace(cast("Any", term.config), lam=model))}), sizes)


def short(name: str, root: Path, steps: int = 2) -> Experiment:
    """A few steps of an arm and of each of its stages."""
    arm = registry.arm(name, "tiny")
    stages = {key: replace(stage, optim=replace(stage.optim, steps=2, chapter=2)) for key, stage in arm.stages.items()}
    optim = replace(arm.optim, steps=steps, chapter=1, lr=0.0, ema=0.0)
    return replace(arm, optim=optim, data=replace(arm.data, root=str(root), demos=3, batch=8), stages=stages)


def exported(run: Path, name: str = "weights") -> dict[str, Tensor]:
    return load_file(run / "export" / f"{name}.safetensors")


def test_stages_follow_each_other_and_start_the_arm(toy_data: Path, tmp_path: Path) -> None:
    """LAPA: the encoder, then the latent action model on it, then the trunk on its codes, then the policy on that trunk."""
    train(short("lapa", toy_data), tmp_path / "lapa")
    folders = {folder.name.split("-")[0]: folder for folder in (tmp_path / "stages").iterdir()}
    assert set(folders) == {"vit_mae", "lam", "codes"}
    policy, codes, model = exported(tmp_path / "lapa"), exported(folders["codes"]), exported(folders["lam"])
    shared = [name for name in policy if name.startswith(("observer.", "trunk."))]
    assert shared
    assert all(torch.equal(policy[name], codes[name]) for name in shared)
    assert not [name for name in policy if name.startswith("objectives.lapa")]
    mae = exported(folders["vit_mae"])
    encoders = {name.partition("encoder.network.")[2]: value for name, value in model.items() if ".encoder.network." in name}
    assert encoders
    assert all(torch.equal(value, mae[f"objectives.mae.encoder.network.{name}"]) for name, value in encoders.items())
    labels = exported(folders["codes"], "auxiliary")
    assert all(torch.equal(value, labels[name.replace("objectives.lam.", "objectives.lapa.")]) for name, value in model.items())


@pytest.mark.slow
def test_post_training_starts_from_a_policy(toy_data: Path, tmp_path: Path) -> None:
    """Every weight of the policy is taken; LARA's head and model are added; a run of one's own can take the stage's place."""
    train(short("lara_posttrain", toy_data), tmp_path / "post")
    before = exported(next((tmp_path / "stages").glob("policy-*")))
    after = exported(tmp_path / "post")
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)
    train(short("policy", toy_data), tmp_path / "own")
    train(replace(short("lara", toy_data), start=str(tmp_path / "own")), tmp_path / "again")
    mine, theirs = exported(tmp_path / "own"), exported(tmp_path / "again")
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)
    joint = {**exported(tmp_path / "again", "auxiliary")}
    train(replace(short("lara", toy_data), start=str(tmp_path / "again"), seed=1), tmp_path / "third")
    taken = {name: value for name, value in exported(tmp_path / "third", "auxiliary").items() if ".book." not in name}  # codes follow
    assert all(torch.equal(value, joint[name]) for name, value in taken.items())


def test_what_cannot_start_an_arm_is_one_line(toy_data: Path, tmp_path: Path, sizes: Sizes) -> None:
    train(short("policy", toy_data), tmp_path / "policy")
    hybrid = made(self_contained(registry.arm("policy_embedding", "tiny")), sizes)
    with pytest.raises(UserError, match="its observer or trunk is another one"):
        start_from(hybrid, tmp_path / "policy")
    wider = self_contained(registry.arm("policy", "tiny"))
    hybrid = made(replace(wider, shape=replace(wider.shape, width=32)), sizes)
    with pytest.raises(UserError, match=r"here it is"):
        start_from(hybrid, tmp_path / "policy")
    with pytest.raises(UserError, match="no finished run"):
        start_from(hybrid, tmp_path)
    arm = short("lara_posttrain", toy_data)
    with pytest.raises(UserError, match=r"polcy.*policy"):
        train(replace(arm, start="stage:polcy"), tmp_path / "wrong")
    for start in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(UserError, match="no finished run"):
            train(replace(arm, start=str(start)), tmp_path / "wrong")
    lost = arm.stages["lam"].objectives["lam"]
    lost = replace(lost, config=replace(cast("Any", lost.config), lam=replace(cast("Any", lost.config).lam, weights="nowhere")))
    with pytest.raises(UserError, match=r"'nowhere': no such file"):
        train(replace(arm, stages={**arm.stages, "lam": replace(arm.stages["lam"], objectives={"lam": lost})}), tmp_path / "wrong")
    assert not (tmp_path / "stages").exists(), "found out before a stage is trained"
    stages = {"lam": arm.stages["lam"], "vit_mae": arm.stages["vit_mae"]}
    with pytest.raises(UserError, match="vit_mae"):
        train(replace(arm, start="none", stages=stages), tmp_path / "order")


@pytest.mark.slow
def test_a_followers_copy_is_of_the_weights_it_starts_from(toy_data: Path, tmp_path: Path) -> None:
    """FLARE started from a policy with its eye: the target is a copy of that eye, not of the fresh one."""
    train(short("policy_embedding", toy_data), tmp_path / "eye")
    arm = replace(short("flare", toy_data), start=str(tmp_path / "eye"))
    train(arm, tmp_path / "flare")
    eye, target = exported(tmp_path / "eye"), exported(tmp_path / "flare", "auxiliary")
    copied = {name: value for name, value in target.items() if name.startswith("objectives.flare.target.embedding.")}
    assert copied
    for name, value in copied.items():
        assert torch.equal(value, eye[name.replace("objectives.flare.target.", "observer.")]), name


@pytest.mark.slow
def test_interrupted_it_ends_with_the_same_codes(toy_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped in the third of four steps and started again: policy, latent action model and codebook are bit-identical."""
    arm = short("lara", toy_data, steps=4)
    arm = replace(arm, optim=replace(arm.optim, lr=1e-3))
    train(arm, tmp_path / "whole")
    interrupted(arm, tmp_path / "again", 2, monkeypatch)
    for name in ("weights", "auxiliary"):
        whole, again = exported(tmp_path / "whole", name), exported(tmp_path / "again", name)
        assert whole.keys() == again.keys()
        assert all(torch.equal(whole[key], again[key]) for key in whole), name
    assert any(".book." in name for name in exported(tmp_path / "whole", "auxiliary"))
