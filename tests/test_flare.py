"""specs 7.5: FLARE's alignment, its target, its controls and its videos; REPA on the same base."""

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers import made, scores
from jaxtyping import TypeCheckError

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, build, check, self_contained
from wmzoo.errors import UserError
from wmzoo.flops import count
from wmzoo.interfaces import Sizes
from wmzoo.models.embedding import Embedding, Observer
from wmzoo.models.targets import Following, FollowingConfig, FrozenConfig
from wmzoo.models.vit_mae import Config as VitConfig
from wmzoo.module import ZooModule
from wmzoo.objectives import flare, repa
from wmzoo.objectives.align import Align, align_loss, centred, likeness, retrieved, spread
from wmzoo.objectives.flare import Flare, projector
from wmzoo.question import Hidden

EIGHT = 8  # blocks, as in the paper


def small(name: str = "flare", depth: int = EIGHT, **fields: Any) -> Experiment:
    """An arm at tiny scale, with the paper's number of blocks, fresh weights and some fields of its alignment changed."""
    arm = self_contained(registry.arm(name, "tiny"))
    arm = replace(arm, shape=replace(arm.shape, width=32, depth=depth))
    term = arm.objectives["flare"]
    return replace(arm, objectives={**arm.objectives, "flare": replace(term, config=replace(cast("Any", term.config), **fields))})


def objective(hybrid: Hybrid) -> Flare:
    return cast("Flare", hybrid.objectives["flare"])


def test_align_loss_by_hand() -> None:
    """Two tokens: one parallel (1 - 1 = 0), one at a right angle (1 - 0 = 1); the mean is 0.5."""
    prediction = torch.tensor([[[2.0, 0.0], [0.0, 3.0]]])
    target = torch.tensor([[[5.0, 0.0], [1.0, 0.0]]])
    torch.testing.assert_close(align_loss(prediction, target), torch.tensor([0.5]))


def test_alignment_identity() -> None:
    """A5: equal is 0, opposite is 2, the scale does not matter, and one wrong token of four costs a quarter of its own."""
    target = torch.randn(3, 4, 5, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(align_loss(7 * target, target), torch.zeros(3), atol=1e-6, rtol=0)
    torch.testing.assert_close(align_loss(-target, target), torch.full((3,), 2.0))
    wrong = target.clone()
    wrong[:, 2] = torch.randn(3, 5)
    cosine = torch.cosine_similarity(wrong[:, 2], target[:, 2], dim=-1)
    torch.testing.assert_close(align_loss(wrong, target), 0.25 * (1 - cosine), atol=1e-6, rtol=0)


@pytest.mark.parametrize("shape", [(2, 1, 4), (2, 3, 1), (1, 3, 4), (2, 4, 3)])
def test_another_shape_raises(shape: tuple[int, ...]) -> None:
    """Nothing is broadcast, and nothing becomes 0."""
    with pytest.raises(TypeCheckError):
        align_loss(torch.randn(2, 3, 4), torch.randn(shape))


def test_no_gradient_reaches_the_target() -> None:
    prediction, target = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    align_loss(prediction, target).sum().backward()
    assert prediction.grad is not None
    assert target.grad is None


def test_what_is_watched_by_hand() -> None:
    """Windows (1, 0) and (0, 1): deviation 0.5, cosine 0; each finds itself; exchanged, none does; equal ones are alike."""
    tokens = torch.eye(2)[:, None]
    assert spread(tokens).item() == 0.5
    together = torch.zeros(2, dtype=torch.long)
    assert likeness(tokens, together).item() == pytest.approx(0)
    assert likeness(tokens, torch.arange(2)).item() == 0
    assert retrieved(tokens, 3 * tokens).item() == 1
    assert retrieved(tokens.flip(0), tokens).item() == 0
    assert likeness(torch.ones(4, 2, 3), torch.tensor([0, 0, 1, 1])).item() == pytest.approx(1)
    assert spread(torch.ones(4, 2, 3)).item() == 0


def test_what_is_watched_and_centred_is_exact_under_autocast() -> None:
    """64 windows share a vector and deviate by 0.02: each finds itself, and likeness and deviations are those of float32."""
    random = torch.Generator().manual_seed(0)
    target = torch.randn(1, 4, 32, generator=random) + 0.02 * torch.randn(64, 4, 32, generator=random)
    group, valid = torch.arange(64) % 2, torch.ones(64, dtype=torch.bool)

    def seen() -> list[torch.Tensor]:
        return [retrieved(target, target), 1 - likeness(target, group), centred(target, group, valid)]

    plain = seen()
    with torch.autocast("cpu", torch.bfloat16):
        rounded = seen()
    assert plain[0] == 1
    for exact, other in zip(plain, rounded, strict=True):
        assert other.dtype == torch.float32
        torch.testing.assert_close(other, exact)


def test_projector_is_a_norm_and_two_layers() -> None:
    """Linear(SiLU(Linear(LayerNorm(h)))): blind to the scale of the residual stream."""
    torch.manual_seed(0)
    network, x = projector(8, 3), torch.randn(2, 5, 8)
    norm, first, _, last = network
    by_hand = last(torch.nn.functional.silu(first(norm(x))))
    torch.testing.assert_close(network(x), by_hand)
    torch.testing.assert_close(network(100 * x), network(x), atol=1e-4, rtol=0)
    assert first.out_features == 16


@pytest.mark.parametrize(("depth", "tap"), [(2, 2), (6, 5), (8, 6), (10, 8)])
def test_the_tap_is_three_quarters_of_any_trunk(depth: int, tap: int, sizes: Sizes) -> None:
    """To the nearest block; half a block goes up, whether the block below is even or odd."""
    assert objective(made(small(depth=depth), sizes)).tap == tap


def test_the_alignment_stops_at_the_tap(batch: Batch, sizes: Sizes) -> None:
    """A1: blocks 1 to 6 of 8, the future tokens and both encoders learn; blocks 7 and 8, the decoder and the target do not."""
    hybrid = made(small(), sizes)
    assert objective(hybrid).tap == 6
    scores(hybrid, batch)["flare/align"].backward()
    learns = {name: p.grad is not None and bool((p.grad != 0).any()) for name, p in hybrid.named_parameters()}
    silent = {name for name, p in hybrid.named_parameters() if p.grad is None or not (p.grad != 0).any()}
    for block in range(EIGHT):
        names = [name for name in learns if name.startswith(f"trunk.blocks.{block}.")]
        assert any(learns[name] for name in names) == (block < 6), block
        assert block < 6 or set(names) <= silent
    for part in ("objectives.flow.decode", "objectives.flare.target", "trunk.modulation"):
        assert not any(does for name, does in learns.items() if name.startswith(part)), part
    for part in ("objectives.flare.queries", "objectives.flare.project", "objectives.flow.encode", "observer.state", "observer.embedding"):
        assert any(does for name, does in learns.items() if name.startswith(part)), part


def test_the_flow_reaches_the_future_tokens_but_not_the_projector(batch: Batch, sizes: Sizes) -> None:
    hybrid = made(small(), sizes)
    scores(hybrid, batch)["flow/velocity"].backward()
    ours = objective(hybrid)
    assert ours.queries.grad is not None
    assert ours.queries.grad.abs().sum() > 0
    assert all(p.grad is None for p in (*ours.project.parameters(), *ours.target.parameters()))


def test_weight_0_is_the_policy_with_m_tokens(batch: Batch, sizes: Sizes) -> None:
    """A2: the flow's loss and every gradient are bit for bit those of a policy that carries the tokens and has no alignment."""

    class Tokens(Flare):
        """The tokens alone."""

        def forward(self, batch: Batch) -> Any:
            return replace(super().forward(batch), taps=frozenset(), score=lambda _: {})

    off, bare = made(small("flare_off"), sizes), made(small("flare_off"), sizes)
    bare.objectives["flare"].__class__ = Tokens
    arm = small("flare_off")
    marks = scores(off, batch)
    torch.stack([arm.weights[name] * mark for name, mark in marks.items()]).sum().backward()
    theirs = scores(bare, batch)["flow/velocity"]
    theirs.backward()
    assert torch.equal(marks["flow/velocity"], theirs)
    for (name, ours), (_, other) in zip(off.named_parameters(), bare.named_parameters(), strict=True):
        if other.grad is not None:
            assert ours.grad is not None, name
            assert torch.equal(ours.grad, other.grad), name
        elif ours.grad is not None:
            assert not ours.grad.any(), name


def test_ema_in_closed_form(sizes: Sizes) -> None:
    """A3: under constant online weights w, n steps from w0 end at w + rho^n (w0 - w); rho = 1 never moves; always in eval."""
    hybrid = made(small(target=FollowingConfig(0.9)), sizes, moved=False)
    target, online = cast("Following", objective(hybrid).target), cast("Observer", hybrid.observer).embedding
    start = [p.clone() for p in target.embedding.parameters()]
    assert all(torch.equal(a, b) for a, b in zip(start, online.parameters(), strict=True))
    for p in online.parameters():
        p.data += torch.randn_like(p)
    for _ in range(7):
        hybrid.after_step()
    for now, was, w in zip(target.embedding.parameters(), start, online.parameters(), strict=True):
        torch.testing.assert_close(now, w + 0.9**7 * (was - w))
    hybrid.train()
    assert not target.training
    assert not target.embedding.training
    assert not any(p.requires_grad for p in target.parameters())
    frozen = made(small("flare_frozen"), sizes, moved=False)
    kept = [p.clone() for p in frozen.objectives["flare"].get_submodule("target").parameters()]
    for p in frozen.observer.parameters():
        p.data += 1
    frozen.after_step()
    assert all(torch.equal(a, b) for a, b in zip(kept, frozen.objectives["flare"].get_submodule("target").parameters(), strict=True))


def test_a_frozen_encoder_is_shared_with_the_target(sizes: Sizes) -> None:
    """What never moves is there once."""
    arm = small()
    eye = replace(cast("Any", arm.observer), encoder=VitConfig("none", image=32, patch=8, width=64, depth=1, heads=2))
    hybrid = made(replace(arm, observer=eye), sizes, moved=False)
    target, online = cast("Following", objective(hybrid).target), cast("Observer", hybrid.observer).embedding
    assert target.embedding.encoder is online.encoder
    assert target.embedding.queries is not online.queries


def test_the_future_is_not_seen(batch: Batch, sizes: Sizes) -> None:
    """Leak test: another future changes no action and not the flow's loss; it does change the alignment."""
    hybrid = made(small(), sizes).eval()
    other = batch.map(torch.clone)
    other.future.copy_(torch.rand_like(other.future))
    noise = torch.randn(len(batch), *batch.action.shape[1:])
    before, after = scores(hybrid, batch), scores(hybrid, other)
    assert torch.equal(before["flow/velocity"], after["flow/velocity"])
    assert not torch.equal(before["flare/align"], after["flare/align"])
    assert torch.equal(hybrid.act(batch, noise, 2), hybrid.act(other, noise, 2))


@pytest.mark.parametrize("hide", [False, True])
def test_videos_add_exactly_nothing_to_the_flow(hide: bool, batch: Batch, sizes: Sizes) -> None:
    """A4, C4: NaN in the actions and states of video rows changes no loss; video alone moves no action decoder."""
    arm = small("flare_video")
    term = arm.objectives["flow"]
    arm = replace(arm, objectives={**arm.objectives, "flow": replace(term, config=replace(cast("Any", term.config), hide=hide))})
    hybrid = made(arm, sizes)
    poisoned = batch.map(torch.clone)
    poisoned.action[4:], poisoned.state[4:] = float("nan"), float("nan")
    clean, dirty = scores(hybrid, batch), scores(hybrid, poisoned)
    assert all(torch.equal(clean[name], dirty[name]) and clean[name].isfinite() for name in clean)
    hybrid.zero_grad()
    video = poisoned[4:]
    video.text[:] = video.text[:1]
    marks = scores(hybrid, video)
    assert marks["flow/velocity"] == 0
    assert marks["flare/align"] > 0
    (marks["flow/velocity"] + marks["flare/align"]).backward()
    assert all(p.grad is None or not p.grad.any() for p in hybrid.objectives["flow"].get_submodule("decode").parameters())
    assert all(p.grad is None or p.grad.isfinite().all() for p in hybrid.parameters())


def test_hidden_actions_do_not_touch_the_alignment_of_videos(batch: Batch, sizes: Sizes) -> None:
    """With `hide`, other noise in the action tokens of a video leaves its alignment as it was; without, it does not."""
    for hide in (True, False):
        arm = small("flare_video", centre="none")
        term = arm.objectives["flow"]
        arm = replace(arm, objectives={**arm.objectives, "flow": replace(term, config=replace(cast("Any", term.config), hide=hide))})
        hybrid, video = made(arm, sizes).eval(), batch[4:]
        values = []
        for seed in (0, 1):
            torch.manual_seed(seed)
            values.append(hybrid(video)["flare/align"].value)
        assert torch.equal(*values) == hide


def test_windows_without_a_future_do_not_count(batch: Batch, sizes: Sizes) -> None:
    """Row 2 ends before its future: its pixels there, even NaN, change no loss and no gradient."""
    hybrid, gradients = made(small(), sizes), []
    other = batch.map(torch.clone)
    other.future[2] = float("nan")
    for data in (batch, other):
        hybrid.zero_grad()
        scores(hybrid, data)["flare/align"].backward()
        gradients.append([p.grad.clone() for p in hybrid.parameters() if p.grad is not None])
    assert torch.equal(scores(hybrid, batch)["flare/align"], scores(hybrid, other)["flare/align"])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*gradients, strict=True))


def test_controls_by_hand(batch: Batch, sizes: Sizes) -> None:
    """Current: the target of the present frame.  Shuffled: that of the window before, where both have a future."""
    for control in ("none", "current", "shuffled"):
        hybrid = made(small(control=control, centre="none"), sizes).eval()
        ours = objective(hybrid)
        own, now = ours.embed(batch, "future"), ours.embed(batch, "now")
        wanted = {"none": own, "current": now, "shuffled": own.roll(1, 0)}[control]
        valid = batch.has_future[:, 0] & (batch.has_future[:, 0].roll(1) if control == "shuffled" else True)
        torch.manual_seed(3)
        streams = hybrid.observer(batch) | hybrid.objectives["flow"](batch).streams
        question = ours(batch)
        hidden = hybrid.trunk({**streams, **question.streams}, question.taps)
        score = question.score(hidden)["align"]
        torch.testing.assert_close(score.value, align_loss(ours.predict(hidden), torch.where(valid[:, None, None], wanted, 0.0)))
        assert torch.equal(score.weight, valid)


def test_centred_by_hand() -> None:
    """Group 0 has 1 and 3 (and NaN that does not count): mean 2; group 1 has 5 alone."""
    target, valid = torch.tensor([1.0, 3.0, float("nan"), 5.0])[:, None, None], torch.tensor([True, True, False, True])
    out = centred(target, torch.tensor([0, 0, 0, 1]), valid).flatten()
    assert out[[0, 1, 3]].tolist() == [-1, 1, 0]
    assert centred(target, torch.zeros(4, dtype=torch.long), valid).flatten()[[0, 1, 3]].tolist() == [-2, 0, 2]
    assert centred(target[:2], torch.zeros(2, dtype=torch.long), torch.zeros(2, dtype=torch.bool)).flatten().tolist() == [1, 3]


@pytest.mark.parametrize("centre", ["none", "batch", "instruction"])
def test_what_is_taken_off(centre: str, batch: Batch, sizes: Sizes) -> None:
    """Nothing; the mean of the windows with a future; the mean of those with the same instruction (0, 2, 4 and 1, 3, 5)."""
    ours = objective(made(small(centre=centre), sizes).eval())
    raw, valid = ours.embed(batch, "future"), batch.has_future[:, 0]
    out = ours.centre(raw, batch, valid)
    alone = batch[torch.tensor([0, 1, 4])]
    weight = ours(alone).score(Hidden({ours.tap: {"future": torch.zeros(3, 4, 32)}}, {}))["align"].weight
    assert weight.tolist() == [True, centre != "instruction", True]
    mean = {"none": torch.zeros(()), "batch": raw[valid].mean(0), "instruction": raw[[0, 4]].mean(0)}[centre]
    torch.testing.assert_close(out[4], raw[4] - mean)


def test_the_policy_alone_plays_the_same(batch: Batch, sizes: Sizes) -> None:
    """C6: without projector and target the actions are the same; without the future tokens they are not."""
    hybrid = made(small(), sizes).eval()
    noise = torch.randn(len(batch), *batch.action.shape[1:])
    whole = hybrid.act(batch, noise, 3)
    names = {name.split(".")[2] for name, _ in hybrid.strip().named_parameters() if name.startswith("objectives.flare")}
    assert names == {"queries"}
    assert torch.equal(hybrid.act(batch, noise, 3), whole)
    objective(hybrid).queries.data += 1
    assert not torch.equal(hybrid.act(batch, noise, 3), whole)


@pytest.mark.parametrize(("fields", "message"), [
    ({"tap": 1.5}, "tap 1.5"), ({"tokens": 3}, "3 hidden tokens .* target of 4"), ({"tokens": -1}, "future tokens, or none, not -1"),
    ({"gap": 0}, "at least 1 control step"), ({"target": FollowingConfig(2.0)}, "rho must be"),
])  # fmt: skip
def test_a_wrong_field_is_one_line(fields: dict[str, Any], message: str, sizes: Sizes) -> None:
    with pytest.raises(UserError, match=message):
        made(small(**fields), sizes)


def test_no_future_token_is_the_policy(batch: Batch, sizes: Sizes) -> None:
    """A2: with M = 0 losses, gradients and actions are those of the policy with the same eye, bit for bit."""
    arms = small(tokens=0), replace(self_contained(registry.arm("policy_embedding", "tiny")), shape=small().shape)
    ours, plain = (made(arm, sizes) for arm in arms)
    for hybrid in (ours, plain):
        scores(hybrid, batch)["flow/velocity"].backward()
    assert scores(ours, batch)["flare/align"] == 0
    gradients = [{name: p.grad for name, p in hybrid.named_parameters()} for hybrid in (ours, plain)]
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        other = gradients[1][name]
        assert (gradient is None) == (other is None), name
        assert gradient is None or other is None or torch.equal(gradient, other), name
    noise = torch.randn(len(batch), *batch.action.shape[1:])
    assert torch.equal(ours.eval().act(batch, noise, 3), plain.eval().act(batch, noise, 3))
    pulls = ZooModule(ours, arms[0].weights, arms[0].optim, 0).pulls(batch)
    assert pulls["flow/velocity"] > 0
    assert pulls["flare/align"] == 0, "what has no gradient pulls nowhere"


def test_a_following_target_needs_the_embedding(sizes: Sizes) -> None:
    arm = registry.arm("policy", "tiny")
    arm = replace(arm, objectives={**arm.objectives, "flare": small().objectives["flare"]})
    with pytest.raises(UserError, match=r"needs the observer of models/embedding\.py"):
        build(arm, sizes)


def test_frozen_tokens_pool_cells(batch: Batch, sizes: Sizes) -> None:
    """A grid of 4 x 4 to 2 x 2: each token is the mean of its quarter; unpooled they are the encoder's; two cameras follow each other."""
    encoder = VitConfig("none", image=32, patch=8, width=64, depth=1, heads=2)
    torch.manual_seed(0)
    pooled, plain = FrozenConfig(encoder, 2).build(sizes), FrozenConfig(encoder, 4).build(sizes)
    plain.encoder.load_state_dict(pooled.encoder.state_dict())
    cells = plain(batch, "future")
    assert cells.shape == (6, 1, 16, 64)
    grid = cells.reshape(6, 1, 4, 4, 64)
    torch.testing.assert_close(pooled(batch, "future")[:, :, 1], grid[:, :, :2, 2:].mean(dim=(2, 3)))
    double = batch.map(torch.clone)
    double = replace(double, image=batch.image.repeat(1, 1, 2, 1, 1, 1))
    both = FrozenConfig(encoder, 2).build(replace(sizes, views=2))
    assert both.tokens == 8
    seen = both(double, "now")
    assert torch.equal(seen[:, :, :4], seen[:, :, 4:])
    with pytest.raises(UserError, match="1 to 4 rows"):
        FrozenConfig(encoder, 5).build(sizes)
    with pytest.raises(UserError, match="frozen encoder"):
        FrozenConfig(replace(encoder, frozen=False), 2).build(sizes)


def test_embedding_reads_all_cameras_and_the_instruction(batch: Batch, sizes: Sizes) -> None:
    """Several cameras: each pixel of each camera and the instruction change the tokens; frames are embedded one by one."""
    arm = small()
    sizes = replace(sizes, views=2, history=2, depth=EIGHT)
    torch.manual_seed(0)
    observer = cast("Observer", arm.observer.build(sizes)).eval()
    embedding = observer.embedding
    assert isinstance(embedding, Embedding)
    images = torch.rand(6, 2, 2, 3, 32, 32)
    double = replace(batch, image=images, state=torch.randn(6, 2, 2))
    tokens = embedding(double, "now")
    assert tokens.shape == (6, 2, 4, 32)
    assert observer(double)["observation"].tokens.shape == (6, 8, 32)
    for view in range(2):
        other = images.clone()
        other[:, 1, view] = 0
        moved = embedding(replace(double, image=other), "now")
        assert torch.equal(moved[:, 0], tokens[:, 0])
        assert not torch.allclose(moved[:, 1], tokens[:, 1])
    assert not torch.allclose(embedding(replace(double, text=double.text.flip(0)), "now"), tokens)


def test_the_state_at_paper_scale_is_groots(batch: Batch, sizes: Sizes) -> None:
    """Two layers around ReLU and no place: the same state in two frames is one token; an unknown one, NaN included, is a null token."""
    from wmzoo.models.embedding import GrootConfig

    arm = small()
    assert type(registry.arm("flare", "paper").observer) is GrootConfig
    torch.manual_seed(0)
    config = GrootConfig(cast("Any", arm.observer).encoder, cast("Any", arm.observer).text, tokens=4, width=32, heads=2, hidden=12)
    observer = cast("Observer", config.build(replace(sizes, history=2)))
    numbers = torch.randn(6, 1, 2).repeat(1, 2, 1)
    numbers[4:] = float("nan")
    known = torch.arange(6) < 4
    tokens = observer.state(replace(batch, state=numbers, has_state=known))
    project = cast("Any", observer.state).project
    assert project.first.weight.shape == (sizes.embodiments, 2, 12)
    assert torch.equal(tokens[:4, 0], tokens[:4, 1])
    first, second = project.first, project.second
    wanted = (numbers[0, 0] @ first.weight[0] + first.bias[0]).relu() @ second.weight[0] + second.bias[0]
    torch.testing.assert_close(tokens[0, 0], wanted)
    assert torch.equal(tokens[4], cast("Any", observer.state).null)


def test_repa_has_flares_base(batch: Batch, sizes: Sizes) -> None:
    """Q1: 1 + the printed loss, at block round(8/28 L), into no block after it, and no stream of its own."""
    arm = self_contained(registry.arm("repa", "tiny"))
    arm = replace(arm, shape=replace(arm.shape, width=32, depth=EIGHT))
    hybrid = made(arm, sizes)
    ours = cast("Align", hybrid.objectives["repa"])
    assert isinstance(ours, Align)
    assert ours.tap == 2
    assert ours.standing(batch) == {}
    torch.manual_seed(3)
    question = ours(batch)
    hidden = hybrid.trunk({**hybrid.observer(batch), **hybrid.objectives["flow"](batch).streams}, question.taps)
    target = cast("FrozenConfig", cast("repa.Config", arm.objectives["repa"].config).target)
    assert isinstance(target, FrozenConfig)
    printed = -torch.cosine_similarity(ours.predict(hidden), ours.embed(batch, "now"), dim=-1).mean(dim=1)
    torch.testing.assert_close(question.score(hidden)["align"].value, 1 + printed)
    scores(hybrid, batch)["repa/align"].backward()
    assert [any(p.grad is not None for p in block.parameters()) for block in cast("Any", hybrid.trunk).blocks] == [True] * 2 + [False] * 6
    assert [type(layer).__name__ for layer in repa.projector(8, 16, 3)] == ["Linear", "SiLU", "Linear", "SiLU", "Linear"]


def repa_arm(**fields: Any) -> Experiment:
    arm = self_contained(registry.arm("repa", "tiny"))
    arm = replace(arm, shape=replace(arm.shape, width=32, depth=EIGHT))
    term = arm.objectives["repa"]
    return replace(arm, objectives={**arm.objectives, "repa": replace(term, config=replace(cast("Any", term.config), **fields))})


def test_repa_pulls_the_last_frame_of_every_camera(batch: Batch, sizes: Sizes) -> None:
    """Two frames, two cameras: of 2 x 2 x 16 patches and the instruction the second 32, whose target is the same patch of now."""
    sizes = replace(sizes, history=2, views=2)
    encoder = cast("Any", repa_arm().objectives["repa"].config).target.encoder
    hybrid = made(repa_arm(tokens=32, target=FrozenConfig(encoder, 4)), sizes).eval()
    batch = replace(batch, image=torch.rand(6, 2, 2, 3, 32, 32), state=torch.randn(6, 2, 2))
    ours = cast("Align", hybrid.objectives["repa"])
    streams = {**hybrid.observer(batch), **hybrid.objectives["flow"](batch).streams}
    hidden = hybrid.trunk(streams, frozenset({ours.tap}))
    raw = hidden[ours.tap]["observation"]
    assert raw.shape[1] > 64
    torch.testing.assert_close(ours.predict(hidden), ours.project(raw[:, 32:64]))
    target = ours.embed(batch, "now")
    torch.testing.assert_close(target[:, :16], cast("Any", ours.target).encoder(batch.image[:, 1, 0]))
    torch.testing.assert_close(target[:, 16:], cast("Any", ours.target).encoder(batch.image[:, 1, 1]))


def test_repa_refuses_another_grid_and_a_stream_that_is_not_there(batch: Batch, sizes: Sizes) -> None:
    """Before: the first tokens of whatever there was, or KeyError."""
    encoder = cast("Any", repa_arm().objectives["repa"].config).target.encoder
    with pytest.raises(UserError, match=r"4 tokens is not the observation's grid of 4 x 4 patches in 1 camera"):
        made(repa_arm(tokens=4, target=FrozenConfig(encoder, 2)), sizes)
    hybrid = made(repa_arm(stream="action"), sizes)
    with pytest.raises(UserError, match="'action' has 8 tokens, its target 16"):
        hybrid(batch)
    policy = self_contained(registry.arm("policy", "tiny"))
    policy = replace(policy, shape=replace(policy.shape, width=32))
    arm = replace(policy, objectives={**policy.objectives, "repa": repa_arm().objectives["repa"]})
    with pytest.raises(UserError, match="'observation' has no hidden states in this trunk: tap one of action, state"):
        made(arm, sizes)(batch)
    eye = replace(small(), objectives={**policy.objectives, "repa": repa_arm().objectives["repa"]})
    with pytest.raises(UserError, match="no grid of patches"):
        made(eye, sizes)


def test_what_is_logged(batch: Batch, sizes: Sizes) -> None:
    """Always: spread and likeness of targets and predictions, retrieval with its baseline, the alarm."""
    hybrid = made(small(), sizes).eval()
    seen = hybrid.watch(batch)
    assert {name.split("/")[1].split(":")[0] for name in seen} == {
        "target_std", "target_std_as_seen", "target_cosine", "target_cosine_same_instruction", "prediction_std",
        "prediction_cosine", "retrieval", "retrieval_by_chance", "retrieval_by_copy", "alarm",
    }  # fmt: skip
    same = batch.map(torch.clone)
    same.future[:] = same.future[:1]
    same.text[:] = same.text[:1]
    assert next(value for name, value in hybrid.watch(same).items() if "collapsed" in name) == 1
    plain = made(small(centre="none"), sizes).eval()
    assert next(value for name, value in plain.watch(same).items() if "are alike" in name) == 1
    assert plain.watch(batch[2:3]) == {}
    cast("Any", objective(plain).target).forward = lambda rows, which: torch.randn(len(rows), 1, 4, 32)
    assert [value for name, value in plain.watch(batch).items() if "alarm" in name] == [0, 0]


@pytest.mark.parametrize(("apart", "alarm"), [(0.1, 0), (0.003, 1)])
def test_a_collapse_within_instructions_is_seen(batch: Batch, sizes: Sizes, apart: float, alarm: int) -> None:
    """Targets that tell instructions apart and hardly anything else have collapsed: what is left after centring is too small to be told."""
    hybrid = made(small(), sizes).eval()
    places = torch.randn(len(batch), 1, 4, 32, generator=torch.Generator().manual_seed(0))
    by_text = batch.text.unique(dim=0, return_inverse=True)[1].float()[:, None, None, None]
    assert objective(hybrid).plan.centre == "instruction"
    cast("Any", objective(hybrid).target).forward = lambda rows, which: by_text + apart * places
    seen = {name.split("/")[1]: value for name, value in hybrid.watch(batch).items()}
    assert seen["alarm: the targets have collapsed"] == alarm
    assert seen["target_std"] > 0.1
    assert seen["target_std_as_seen"] == pytest.approx(apart, rel=0.3)


@pytest.mark.parametrize("name", sorted(n for n in registry.members("arms") if n.startswith("flare")))
def test_ablation_fields_are_options(name: str, tmp_path: Path, sizes: Sizes) -> None:
    """Tap, weight, target and M of every arm can be said on the command line, and give an arm that can be built and trained."""
    from wmzoo.cli import parse_train

    words = [name, "--scale", "tiny", "--objectives.flare.weight", "0.05", "--objectives.flare.config.tap", "0.25"]
    words += ["--objectives.flare.config.tokens", "9", "--stages.embedding.optim.steps", "3"]
    if name == "flare_tokens":
        words += ["--objectives.flare.config.target.rows", "3"]
    else:
        words += ["--observer.tokens", "9", "--stages.embedding.observer.tokens", "9", "--objectives.flare.config.target.rho", "0.99"]
    arm, _ = parse_train([*words, "--out", str(tmp_path)])
    assert arm.weights["flare/align"] == 0.05
    assert cast("flare.Config", arm.objectives["flare"].config).tap == 0.25
    assert arm.stages["embedding"].optim.steps == 3
    check(arm)
    ours = objective(made(self_contained(arm), sizes, moved=False))
    assert (ours.tap, ours.target.tokens, len(ours.queries)) == (1, 9, 9)


def test_paper_scale_counts() -> None:
    """Section 4 of the sheets: eight blocks of GR00T 279,718,912, 32 future tokens 49,152; what is frozen is there once.

    GR00T's projector is 9,855,008 for each of our two embodiments (the state encoder 1,640,960 of it, without a place), beside one table
    of places for actions and the null state.
    """
    arm = registry.arm("flare", "paper")
    counts = count(arm)["parameters"]
    assert counts["trunk"] == 279_718_912
    assert counts["objectives.flare tables"] == 49_152
    assert counts["observer.state"] == 2 * 1_640_960 + 1536
    projector = sum(counts[part] for part in ("observer.state", "objectives.flow.encode", "objectives.flow.decode"))
    assert projector == 2 * 9_855_008 + 1_572_864 + 1536
    with torch.device("meta"):
        embedding = cast("Any", arm.observer).build(Sizes(1536, 8, 2048, 1024, 16, 4, 4, 256, 1, 1, 2)).embedding
    frozen = sum(p.numel() for p in (*embedding.encoder.parameters(), *embedding.text.parameters()))
    assert counts["observer.embedding"] == frozen + counts["objectives.flare.target"]
    assert counts["trained"] < counts["all"] - frozen
