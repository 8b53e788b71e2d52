"""The trunk: identity at first, taps, clocks, who may look at whom."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast, get_args

import pytest
import torch
from helpers import learns, made
from torch import Tensor

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.config import self_contained
from wmzoo.errors import UserError
from wmzoo.interfaces import Sizes
from wmzoo.kernels import attend, attention_kernel
from wmzoo.models import uwm
from wmzoo.models.attention import MLP, Attention, closed, pi0_sinusoid, self_mask, sinusoid
from wmzoo.models.dit import Conditioning, Config, DiT
from wmzoo.question import Stream

MODES = get_args(Conditioning)


def trunk(mode: Conditioning = "alternate", depth: int = 4, settle: bool = True) -> DiT:
    """A small trunk; settled means that its zero-initialised layers were moved, as after some training."""
    torch.manual_seed(0)
    dit = DiT(width=16, depth=depth, heads=2, context=16, conditioning=mode)
    if settle:
        for parameter in dit.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
    return dit.eval()


def streams() -> dict[str, Stream]:
    torch.manual_seed(1)
    return {
        "observation": Stream(torch.randn(3, 5, 16)),
        "state": Stream(torch.randn(3, 1, 16)),
        "action": Stream(torch.randn(3, 4, 16), torch.tensor([0.1, 0.5, 0.9])),
        "future": Stream(torch.randn(3, 2, 16), "action"),
    }


def changed(given: Mapping[str, Stream], name: str, **fields: object) -> dict[str, Stream]:
    stream = given[name]
    return {**given, name: Stream(**{**stream.__dict__, **fields})}


@pytest.mark.parametrize("mode", MODES)
def test_untrained_trunk_passes_its_input(mode: Conditioning) -> None:
    """D15: adaLN-zero makes every block the identity at initialisation, so all taps are equal to the input."""
    given = streams()
    hidden = trunk(mode, settle=False)(given, {0, 2, 4})
    for tap in (0, 2, 4):
        torch.testing.assert_close(hidden[tap]["action"], given["action"].tokens)


@pytest.mark.parametrize("mode", MODES)
def test_what_nobody_reads_is_left_out_of_the_last_block(mode: Conditioning) -> None:
    """The action and every gradient stay as they were; a tap at the last block brings everything back."""
    dit, given = trunk(mode), streams()
    unread = {name: replace(stream, read=name == "action") for name, stream in given.items()}

    def seen(shown: Mapping[str, Stream]) -> list[Tensor]:
        leaf = shown["future"].tokens.clone().requires_grad_()
        action = dit({**shown, "future": replace(shown["future"], tokens=leaf)}).final["action"]
        return [action, *torch.autograd.grad(action.square().sum(), [leaf, *dit.parameters()], allow_unused=True, materialize_grads=True)]

    torch.testing.assert_close(seen(unread), seen(given), atol=1e-4, rtol=1e-4)
    assert set(dit(unread).final) == {"action"}
    assert dit(unread, {4}).final.keys() == dit(given).final.keys()
    assert dit(unread, {4})[4]["future"].shape == (3, 2, 16)


@pytest.mark.parametrize("mode", MODES)
def test_taps_do_not_change_the_output(mode: Conditioning) -> None:
    """C2, and tap L is what the output norm reads."""
    dit, given = trunk(mode), streams()
    plain, tapped = dit(given), dit(given, {0, 1, 4})
    assert torch.equal(plain.final["action"], tapped.final["action"])
    assert plain.taps == {}
    assert sorted(tapped.taps) == [0, 1, 4]


def test_a_tap_that_does_not_exist_raises() -> None:
    """The message says which depths there are."""
    with pytest.raises(ValueError, match=r"taps \[5\] do not exist: this trunk has depths 0..4"):
        trunk()(streams(), {5})


@pytest.mark.parametrize("mode", MODES)
def test_the_order_of_streams_does_not_matter(mode: Conditioning) -> None:
    """D5: streams are addressed by name."""
    dit, given = trunk(mode), streams()
    turned = dict(reversed(given.items()))
    torch.testing.assert_close(dit(turned).final["action"], dit(given).final["action"], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("mode", MODES)
def test_everything_that_should_matter_matters(mode: Conditioning) -> None:
    """The action's output depends on the observation, the other streams and its clock."""
    dit, given = trunk(mode), streams()
    before = dit(given).final["action"]
    for name in ("observation", "state", "future"):
        after = dit(changed(given, name, tokens=given[name].tokens.flip(-1))).final["action"]
        assert not torch.allclose(after, before), name
    assert not torch.allclose(dit(changed(given, "action", clock=torch.tensor([0.2, 0.5, 0.9]))).final["action"][0], before[0])


@pytest.mark.parametrize("mode", ["cross", "alternate"])
def test_remembered_observation_gives_the_same(mode: Conditioning) -> None:
    """Keys and values computed once give the result of computing them in every pass."""
    dit, given = trunk(mode), streams()
    rest = {name: stream for name, stream in given.items() if name != "observation"}
    memory = dit.remember(given["observation"])
    assert torch.equal(dit(rest, memory=memory).final["action"], dit(given).final["action"])


def test_joint_conditioning_has_nothing_to_remember() -> None:
    """There the observation looks at the rest; asking is an error."""
    with pytest.raises(ValueError, match="part of the sequence"):
        trunk("joint").remember(streams()["observation"])


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["observation", "future"])
def test_padding_has_no_influence(mode: Conditioning, name: str) -> None:
    """F4 in zoo mode: what stands in masked tokens, NaN included, changes neither output nor gradient."""
    dit, given = trunk(mode), streams()
    keep = torch.ones(3, given[name].tokens.shape[1], dtype=torch.bool)
    keep[:, -1] = False

    def run(tokens: Tensor) -> tuple[Tensor, Tensor]:
        leaf = tokens.clone().requires_grad_()
        out = dit(changed(given, name, tokens=leaf, keep=keep)).final["action"]
        (gradient,) = torch.autograd.grad(out.sum(), leaf)
        return out, gradient

    poisoned = given[name].tokens.clone()
    poisoned[:, -1] = float("nan")
    (out, gradient), (same, _) = run(given[name].tokens), run(poisoned)
    assert torch.equal(out, same)
    assert (gradient[:, -1] == 0).all()


@pytest.mark.parametrize("mode", MODES)
def test_a_fully_masked_observation_is_finite(mode: Conditioning) -> None:
    """A query that may see nothing gets zeros, not NaN."""
    given = changed(streams(), "observation", keep=torch.zeros(3, 5, dtype=torch.bool))
    assert trunk(mode)(given).final["action"].isfinite().all()


@pytest.mark.parametrize("mode", MODES)
def test_blind_streams_do_not_see(mode: Conditioning) -> None:
    """C5: with the direct path and the relay through others blocked, the gradient is exactly 0."""
    given = streams()
    tokens = torch.randn(3, 3, 16, requires_grad=True)
    given = {name: Stream(s.tokens, s.clock, blind=frozenset({"video"})) for name, s in given.items()}
    given["video"] = Stream(tokens, torch.ones(3))
    final = trunk(mode)(given).final
    (leak,) = torch.autograd.grad(final["future"].sum() + final["action"].sum(), tokens, retain_graph=True)
    (seen,) = torch.autograd.grad(final["video"].sum(), tokens)
    assert (leak == 0).all()
    assert (seen != 0).any()


@pytest.mark.parametrize("mode", MODES)
def test_a_stream_may_be_blind_to_the_observation(mode: Conditioning) -> None:
    """Whatever the way of conditioning: if nobody else looks either, the observation has no influence."""
    dit = trunk(mode)
    given = {name: Stream(s.tokens, s.clock, blind=frozenset({"observation"})) for name, s in streams().items()}
    moved = changed(given, "observation", tokens=given["observation"].tokens.flip(-1))
    assert torch.equal(dit(given).final["action"], dit(moved).final["action"])


@pytest.mark.parametrize("mode", MODES)
def test_no_condition_passes_on_what_others_may_not_see(mode: Conditioning) -> None:
    """C5: policy, state and future tokens are blind to the video; observation and registers, which say nothing of it, are relays.

    The gradient of every stream but the video's own with respect to the video is exactly 0.
    """
    given = changed(streams(), "state", blind=frozenset({"video"}))
    given = changed(changed(given, "action", blind=frozenset({"video"})), "future", blind=frozenset({"video"}))
    video = torch.randn(3, 3, 16, requires_grad=True)
    given |= {"registers": Stream(torch.randn(3, 2, 16)), "video": Stream(video, torch.rand(3))}
    for name, out in trunk(mode)(given).final.items():
        (leak,) = torch.autograd.grad(out.sum(), video, retain_graph=True)
        assert bool((leak == 0).all()) == (name != "video"), name


def test_uwm_registers_pass_nothing_on() -> None:
    """C5 on UWM's own trunk, whose registers nobody can address: sealed, the actions do not feel the video; plain, they do."""
    torch.manual_seed(0)
    network = uwm.UwmTrunk(width=16, depth=2, heads=2, seen=80, registers=3)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for blind in (frozenset[str](), frozenset({"video"})):
        video = torch.randn(3, 3, 16, requires_grad=True)
        given = changed(streams(), "action", blind=blind)
        given = {"observation": given["observation"], "action": given["action"], "video": Stream(video, torch.rand(3))}
        (leak,) = torch.autograd.grad(network(given).final["action"].sum(), video)
        assert bool((leak == 0).all()) == bool(blind)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["uwm_flare", "uwm_lara"])
def test_sealed_arms_are_sealed_in_every_conditioning(name: str, mode: Conditioning, batch: Batch, sizes: Sizes) -> None:
    """`--trunk.conditioning joint` opens no way from the video to the policy or to what is aligned with the future."""
    arm = self_contained(registry.arm(name, "tiny"))
    hybrid = made(replace(arm, trunk=replace(cast("Config", arm.trunk), conditioning=mode)), sizes)
    for term, score in hybrid(batch).items():
        hybrid.zero_grad()
        score.mean().backward(retain_graph=True)
        assert learns(hybrid, "objectives.uwm.encode") == term.startswith("uwm/"), term


@pytest.mark.parametrize("mode", MODES)
def test_plain_uwm_sees_everything(mode: Conditioning) -> None:
    """Nobody names anything, so nobody is blind, and there is no mask at all."""
    given = {**streams(), "video": Stream(torch.randn(3, 3, 16), torch.rand(3))}
    assert set(closed(given).values()) == {frozenset()}
    assert self_mask(given) is None


def test_who_borrows_a_clock_is_hidden_with_its_owner() -> None:
    """A prefix that is blind to the actions is blind to what moves with them and sees them; that itself goes on seeing itself."""
    given = changed(changed(streams(), "state", blind=frozenset({"action"})), "future", clock="action")
    hidden = closed(given)
    assert hidden["state"] == {"action", "future"}
    assert hidden["future"] == hidden["action"] == frozenset()
    assert closed(changed(given, "future", clock="action", blind=frozenset({"action"})))["future"] == {"action"}


def test_queries_beside_a_prefix() -> None:
    """Learned queries without a clock see state and noisy actions; a prefix that is blind to these does not look at the queries."""
    given = changed(changed(streams(), "state", blind=frozenset({"action"})), "future", query=True)
    given = changed(given, "observation", blind=frozenset({"state", "action"}))
    hidden = closed(given)
    assert hidden["observation"] == {"state", "action", "future"}
    assert hidden["state"] == {"action", "future"}
    assert hidden["future"] == hidden["action"] == frozenset()
    sealed = changed(changed(given, "future", blind=frozenset({"video"})), "action", blind=frozenset({"video"}))
    sealed = {**sealed, "video": Stream(torch.randn(3, 3, 16), torch.rand(3))}
    assert closed(sealed)["action"] == closed(sealed)["future"] == {"video"}, "a query that is as blind passes nothing on"
    assert "future" in closed(changed(sealed, "future", blind=frozenset()))["action"]


def test_frames_of_another_length() -> None:
    """One frame for all tokens would be repeated, and nothing would be masked."""
    for frames in (torch.zeros(1, dtype=torch.long), torch.arange(3)):
        with pytest.raises(ValueError, match="each of one frame"):
            self_mask(changed(streams(), "action", frame=frames))


def test_pi0_prefix_mask(batch: Batch, sizes: Sizes) -> None:
    """P1 on the arm as it is built: the observation is blind to the rest, the state to the actions; actions see everything."""
    hybrid = made(registry.arm("pi0", "tiny"), sizes).eval()
    for parameter in hybrid.trunk.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    top, noisy, clock = hybrid.trunk.depth, torch.randn(6, 8, 3), torch.rand(6)

    @torch.no_grad()
    def seen(batch: Batch, noisy: Tensor) -> Mapping[str, Tensor]:
        return hybrid.trunk({**hybrid.observer(batch), **hybrid.denoiser.embed(noisy, clock, batch)}, {top})[top]

    before = seen(batch, noisy)
    action = seen(batch, noisy.flip(-1))
    state = seen(replace(batch, state=batch.state + 1), noisy)
    image = seen(replace(batch, image=1 - batch.image, features={}), noisy)
    assert set(before) == {"observation", "state", "action"}
    assert torch.equal(action["observation"], before["observation"])
    assert torch.equal(action["state"], before["state"])
    assert torch.equal(state["observation"], before["observation"])
    assert not torch.allclose(state["state"], before["state"])
    assert not torch.allclose(image["state"], before["state"])
    assert all(not torch.allclose(after["action"], before["action"]) for after in (action, state, image))


def test_pi0_time_embedding() -> None:
    """P2: at 0, 1/4 and 1 with D = 8, periods .004, .04, .4 and 4."""
    expected = [
        [0, 0, 0, 0, 1, 1, 1, 1],
        [0, 1, -(0.5**0.5), 0.3826834, -1, 0, -(0.5**0.5), 0.9238795],  # 62.5, 6.25, .625 and .0625 turns
        [0, 0, 0, 1, 1, 1, -1, 0],  # 250, 25, 2.5 and .25 turns
    ]
    torch.testing.assert_close(pi0_sinusoid(torch.tensor([0.0, 0.25, 1.0]), 8), torch.tensor(expected), atol=1e-6, rtol=0)


def test_frames_are_causal() -> None:
    """A stream with frames sees its own past alone: changing frame 1 leaves frame 0 unchanged."""
    dit, given = trunk("cross"), streams()
    video = Stream(torch.randn(3, 4, 16), torch.rand(3, 4), frame=torch.tensor([0, 0, 1, 1]))
    later = video.tokens.clone()
    later[:, 2:] += torch.randn(3, 2, 16)
    rest = {"observation": given["observation"]}
    before = dit({**rest, "video": video}).final["video"]
    after = dit({**rest, "video": Stream(later, video.clock, frame=video.frame)}).final["video"]
    assert torch.equal(before[:, :2], after[:, :2])
    assert not torch.allclose(before[:, 2:], after[:, 2:])


@pytest.mark.parametrize("mode", MODES)
def test_shared_clean_and_per_token_clocks(mode: Conditioning) -> None:
    """Naming a stream, repeating its clock, or giving it per token are the same; no clock is a clock of 1."""
    dit, given = trunk(mode), streams()
    time = given["action"].clock
    assert isinstance(time, Tensor)
    before = dit(given).final["future"]
    for clock in (time.clone(), time[:, None].expand(3, 2)):
        torch.testing.assert_close(dit(changed(given, "future", clock=clock)).final["future"], before, atol=1e-5, rtol=1e-4)
    clean = dit(changed(given, "future", clock=None)).final["future"]
    torch.testing.assert_close(dit(changed(given, "future", clock=torch.ones(3))).final["future"], clean, atol=1e-5, rtol=1e-4)
    assert not torch.allclose(clean, before)


def test_a_clock_that_nobody_has_raises() -> None:
    """The message names the stream that was looked for."""
    with pytest.raises(ValueError, match="'video', which has none here"):
        trunk()(changed(streams(), "future", clock="video"))


def test_gradient_stops_at_the_tap() -> None:
    """A loss on tap 2 reaches blocks 1 and 2 and leaves the others without gradient."""
    dit = trunk(depth=4)
    dit(streams(), {2})[2]["action"].sum().backward()
    assert [any(p.grad is not None for p in block.parameters()) for block in dit.blocks] == [True, True, False, False]


def test_wrong_sizes_are_named() -> None:
    """Heads that do not divide the width, and a joint observation of another width, are answered in words."""
    with pytest.raises(UserError, match="width 16 cannot have 3 heads"):
        DiT(16, 2, 3, 16, "cross")
    with pytest.raises(UserError, match="as wide as the trunk"):
        DiT(16, 2, 2, 8, "joint")
    with pytest.raises(ValueError, match="reads the stream 'observation'"):
        trunk()({"action": streams()["action"]})


def test_attention_by_hand() -> None:
    """One query that is equally far from two keys gets the mean of their values, in both kernels."""
    q, k, v = torch.zeros(1, 1, 1, 4), torch.randn(1, 1, 2, 4), torch.tensor([[[[0.0], [2.0]]]])
    for kernel in ("products", "fused"):
        with attention_kernel(kernel):
            torch.testing.assert_close(attend(q, k, v, None), torch.ones(1, 1, 1, 1))


def test_kernels_agree() -> None:
    """The written-out products equal the fused kernel, with and without a mask, values and gradients."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(2, 2, n, 8, requires_grad=True) for n in (3, 5, 5))
    for mask in (None, torch.rand(2, 1, 1, 5) > 0.4):
        results = []
        for kernel in ("products", "fused"):
            with attention_kernel(kernel):
                out = attend(q, k, v, mask)
            results.append((out, *torch.autograd.grad(out.square().sum(), (q, k, v))))
        for a, b in zip(*results, strict=True):
            torch.testing.assert_close(a, b, atol=1e-5, rtol=1e-4)


def test_small_parts() -> None:
    """Squared ReLU, the sinusoid at time 0, and no mask where all may see all."""
    mlp = MLP(2, 4)
    assert mlp(torch.zeros(1, 2)).shape == (1, 2)
    torch.testing.assert_close(sinusoid(torch.zeros(1), 4, last=2), torch.tensor([[1.0, 1.0, 0.0, 0.0]]))
    torch.testing.assert_close(sinusoid(torch.ones(1), 4, last=2)[0, 1], torch.tensor(0.01).cos())
    assert self_mask(streams()) is None
    assert Attention(8, 2)(torch.randn(1, 3, 8)).shape == (1, 3, 8)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("clock", [(1,), (2,), (3, 3), (3, 1), (1, 2), (3, 2, 1)])
def test_a_clock_of_another_shape_raises(mode: Conditioning, clock: tuple[int, ...]) -> None:
    """Three windows of two tokens have a clock (3,) or (3, 2); nothing is broadcast, and no token gets its neighbour's."""
    with pytest.raises(ValueError, match=r"a clock is \(3,\) or \(3, 2\)"):
        trunk(mode)(changed(streams(), "future", clock=torch.zeros(clock)))


def test_a_shared_clock_per_token_fits_both() -> None:
    """Four actions with a clock each cannot lend it to two tokens."""
    given = changed(streams(), "action", clock=torch.zeros(3, 4))
    with pytest.raises(ValueError, match=r"a clock is \(3,\) or \(3, 2\)"):
        trunk()(given)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["observation", "action"])
@pytest.mark.parametrize("keep", [(3, 1), (1, 1), (3, 3), (1, 4), (3,)])
def test_a_key_mask_of_another_shape_raises(mode: Conditioning, name: str, keep: tuple[int, ...]) -> None:
    """One flag for each token; nothing is broadcast."""
    with pytest.raises(ValueError, match="one flag for each token"):
        trunk(mode)(changed(streams(), name, keep=torch.ones(keep, dtype=torch.bool)))
