"""Is the parity mode GR00T N1.5's head?  It is compared with one put together here from the classes that GR00T itself uses."""

from collections.abc import Mapping
from dataclasses import replace
from typing import cast

import pytest
import torch
from diffusers.models.attention import FeedForward
from diffusers.models.attention_processor import Attention
from diffusers.models.embeddings import TimestepEmbedding, Timesteps
from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu, silu

from wmzoo import flops
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, Optim, Shape, Term, build, sizes_for
from wmzoo.data import Data
from wmzoo.errors import UserError
from wmzoo.interfaces import Objective, Sizes
from wmzoo.kernels import Kernel, attention_kernel
from wmzoo.models import conv, groot, text
from wmzoo.objectives import flow
from wmzoo.question import Question, Score, Stream

SIZES = Sizes(width=24, depth=4, context=16, out=20, horizon=5, action=3, state=4, image=16, views=1, history=1, embodiments=3)
HEADS, FUTURE = 4, 3
CLOCK = torch.tensor([0.0, 0.0349, 0.5, 0.7777, 0.9985])


class RefAda(nn.Module):
    """Spec 2.1(a): one linear layer on SiLU(temb), chunked scale, shift."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear, self.norm = nn.Linear(width, 2 * width), nn.LayerNorm(width, 1e-5, elementwise_affine=False)

    def forward(self, x: Tensor, temb: Tensor) -> Tensor:
        scale, shift = self.linear(silu(temb)).chunk(2, dim=1)
        return self.norm(x) * (1 + scale[:, None]) + shift[:, None]


class RefBlock(nn.Module):
    """Spec 2.2; with `ada` False the block of the vision-language stack (spec 3.1)."""

    def __init__(self, width: int, heads: int, context: int | None, dropout: float, ada: bool) -> None:
        super().__init__()
        self.norm1 = RefAda(width) if ada else nn.LayerNorm(width)
        self.attn1 = Attention(width, context, heads, dim_head=width // heads, dropout=dropout, bias=True)
        self.norm3 = nn.LayerNorm(width, 1e-5, elementwise_affine=not ada)
        self.ff = FeedForward(width, dropout=dropout, activation_fn="gelu-approximate", final_dropout=True)
        self.final_dropout, self.ada = nn.Dropout(dropout), ada

    def forward(self, x: Tensor, temb: Tensor | None, context: Tensor | None) -> Tensor:
        h = self.norm1(x, temb) if self.ada else self.norm1(x)
        x = self.final_dropout(self.attn1(h, encoder_hidden_states=context)) + x
        return self.ff(self.norm3(x)) + x


class RefClock(nn.Module):
    """Spec 1.4: 256 sinusoids of the integer clock and diffusers' two layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.time_proj = Timesteps(256, flip_sin_to_cos=True, downscale_freq_shift=1)
        self.timestep_embedder = TimestepEmbedding(256, width)

    def forward(self, index: Tensor) -> Tensor:
        return self.timestep_embedder(self.time_proj(index))


class RefDiT(nn.Module):
    """The interleaved transformer; returns its output and all hidden states.  No mask reaches the attention."""

    def __init__(self, width: int, depth: int, heads: int, context: int, out: int, dropout: float) -> None:
        super().__init__()
        self.timestep_encoder = RefClock(width)
        blocks = (RefBlock(width, heads, None if i % 2 else context, dropout, ada=True) for i in range(depth))
        self.transformer_blocks = nn.ModuleList(blocks)
        self.norm_out = nn.LayerNorm(width, 1e-6, elementwise_affine=False)
        self.proj_out_1, self.proj_out_2 = nn.Linear(width, 2 * width), nn.Linear(width, out)

    def forward(self, x: Tensor, context: Tensor, index: Tensor) -> tuple[Tensor, list[Tensor]]:
        temb, hidden = self.timestep_encoder(index), [x]
        for i, block in enumerate(self.transformer_blocks):
            hidden.append(block(hidden[-1], temb, None if i % 2 else context))
        shift, scale = self.proj_out_1(silu(temb)).chunk(2, dim=1)
        return self.proj_out_2(self.norm_out(hidden[-1]) * (1 + scale[:, None]) + shift[:, None]), hidden


class RefStack(nn.Module):
    """The self-attention stack over vision-language tokens."""

    def __init__(self, width: int, depth: int, heads: int) -> None:
        super().__init__()
        self.transformer_blocks = nn.ModuleList(RefBlock(width, heads, None, 0.0, ada=False) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        for block in self.transformer_blocks:
            x = block(x, None, None)
        return x


class RefLinear(nn.Module):
    """Spec 2.3: y = x W[id] + b[id]."""

    def __init__(self, categories: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.W = nn.Parameter(0.2 * torch.randn(categories, inputs, outputs))
        self.b = nn.Parameter(0.2 * torch.randn(categories, outputs))

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return torch.bmm(x, self.W[ids]) + self.b[ids][:, None]


class RefMLP(nn.Module):
    """Two of them around ReLU."""

    def __init__(self, categories: int, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.layer1, self.layer2 = RefLinear(categories, inputs, hidden), RefLinear(categories, hidden, outputs)

    def forward(self, x: Tensor, ids: Tensor) -> Tensor:
        return self.layer2(relu(self.layer1(x, ids)), ids)


class RefActions(nn.Module):
    """Spec 2.3 and 1.4: W3 swish(W2 [W1 a, tau]), tau = [sin, cos] of the integer clock at exp(-ln(1e4) i / (D/2))."""

    def __init__(self, categories: int, action: int, width: int) -> None:
        super().__init__()
        self.W1, self.W3 = RefLinear(categories, action, width), RefLinear(categories, width, width)
        self.W2 = RefLinear(categories, 2 * width, width)

    def forward(self, actions: Tensor, index: Tensor, ids: Tensor) -> Tensor:
        half = self.W3.W.shape[1] // 2
        angle = index[:, None] * torch.pow(1e4, -torch.arange(half) / half)
        tau = torch.cat([angle.sin(), angle.cos()], dim=-1)[:, None].expand(-1, actions.shape[1], -1)
        return self.W3(silu(self.W2(torch.cat([self.W1(actions, ids), tau], dim=-1), ids)), ids)


class RefHead(nn.Module):
    """GR00T N1.5's action head: state, future tokens and actions through the transformer; its loss and its sampler."""

    def __init__(self, sizes: Sizes, hidden: int) -> None:
        super().__init__()
        n, width = sizes.embodiments, sizes.width
        self.model = RefDiT(width, sizes.depth, HEADS, sizes.context, sizes.out, dropout=0.0)
        self.state_encoder = RefMLP(n, sizes.state, hidden, width)
        self.action_encoder = RefActions(n, sizes.action, width)
        self.action_decoder = RefMLP(n, sizes.out, hidden, sizes.action)
        self.future_tokens, self.position_embedding = nn.Embedding(FUTURE, width), nn.Embedding(1024, width)
        self.vlln, self.vl_self_attention = nn.LayerNorm(sizes.context), RefStack(sizes.context, 2, HEADS)

    def forward(self, tokens: Tensor, state: Tensor, noisy: Tensor, index: Tensor, ids: Tensor) -> Tensor:
        observation = self.vl_self_attention(self.vlln(tokens))
        actions = self.action_encoder(noisy, index, ids) + self.position_embedding(torch.arange(noisy.shape[1]))
        future = self.future_tokens.weight.expand(len(noisy), -1, -1)
        sequence = torch.cat([self.state_encoder(state, ids), future, actions], dim=1)
        return self.action_decoder(self.model(sequence, observation, index)[0], ids)[:, -noisy.shape[1] :]

    def loss(self, tokens: Tensor, batch: Batch, noise: Tensor, clock: Tensor) -> Tensor:
        t = clock[:, None, None]
        noisy = (1 - t) * noise + t * batch.action
        prediction = self(tokens, batch.state, noisy, (clock * 1000).long(), batch.embodiment)
        error = mse_loss(prediction, batch.action - noise, reduction="none") * batch.action_mask
        return error.sum() / batch.action_mask.sum()

    def sample(self, tokens: Tensor, batch: Batch, noise: Tensor, steps: int) -> Tensor:
        actions = noise
        for i in range(steps):
            index = torch.full((len(noise),), int(i / steps * 1000))
            actions = actions + self(tokens, batch.state, actions, index, batch.embodiment) / steps
        return actions


class Future(Objective):
    """N1.5's future tokens without FLARE's loss: they only stand in the sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(FUTURE, SIZES.width)

    def forward(self, batch: Batch) -> Question:
        return Question(self.standing(batch), frozenset(), lambda _: {})

    def standing(self, batch: Batch) -> dict[str, Stream]:
        return {"future": Stream(self.table.weight.expand(len(batch), -1, -1), "action")}


def make_hybrid(hidden: int = 12) -> Hybrid:
    """A tiny policy in parity mode, with fresh weights and no dropout."""
    seen = groot.ObserverConfig(conv.Config((8,)), text.Config(8, 1, 2), layers=2, heads=HEADS, dropout=0.0, hidden=hidden)
    trunk = groot.Config(HEADS, SIZES.width // HEADS, SIZES.context, SIZES.out, dropout=0.0).build(SIZES)
    policy = flow.Config(groot.InConfig(), groot.OutConfig(hidden), sampler="legacy_n15", reduction="element").build(SIZES)
    return Hybrid(seen.build(SIZES), trunk, {"flow": policy, "future": Future()})


def observer(hybrid: Hybrid) -> groot.GrootObserver:
    """The hybrid's observer, with its type."""
    return cast("groot.GrootObserver", hybrid.observer)


def policy(hybrid: Hybrid) -> flow.Flow:
    """The hybrid's flow objective, with its type."""
    return cast("flow.Flow", hybrid.objectives["flow"])


def parts(hybrid: Hybrid) -> dict[str, nn.Module]:
    """Our modules by the names that `groot.parts_of` uses."""
    places = {"trunk": "trunk", "action_in": "objectives.flow.encode", "action_out": "objectives.flow.decode"}
    places |= {"fuse": "observer.fuse", "state": "observer.state", "future": "objectives.future.table"}
    return {part: hybrid.get_submodule(place) for part, place in places.items()}


def gradient(tensor: Tensor) -> Tensor:
    """The gradient that this tensor received."""
    assert tensor.grad is not None
    return tensor.grad


def load(hybrid: Hybrid, head: nn.Module) -> None:
    """The head's weights into the hybrid: every name must fit, and no name may be left over."""
    states = groot.parts_of(head.state_dict())
    assert states.keys() == parts(hybrid).keys()
    for name, module in parts(hybrid).items():
        module.load_state_dict(states[name], strict=True)


def frozen_tokens(hybrid: Hybrid, batch: Batch) -> Tensor:
    """What the vision-language model would hand to the head."""
    seen = observer(hybrid)
    image = seen.project(seen.encoder(batch.image.flatten(0, 2)))
    return torch.cat([image, seen.project_text(seen.text(batch.text))], dim=1)


@pytest.fixture
def batch() -> Batch:
    """Five labelled windows of two robots; one has a shorter action vector, another a chunk past the end of its episode."""
    torch.manual_seed(0)
    n, mask = len(CLOCK), torch.ones(5, SIZES.horizon, SIZES.action, dtype=torch.bool)
    mask[1, :, 2:], mask[3, 3:] = False, False
    return Batch(
        image=torch.rand(n, 1, 1, 3, 16, 16), state=torch.randn(n, 1, SIZES.state), has_state=torch.ones(n, dtype=torch.bool),
        text=torch.randint(3, 200, (n, 6)), action=torch.where(mask, torch.randn(mask.shape), 0.0), action_mask=mask,
        future=torch.zeros(n, 0, 1, 3, 16, 16), has_future=torch.zeros(n, 0, dtype=torch.bool),
        offset=torch.zeros(n, 0, dtype=torch.long), embodiment=torch.tensor([0, 1, 0, 1, 1]), sample=torch.arange(n),
    )  # fmt: skip


@pytest.fixture
def pair() -> tuple[Hybrid, RefHead]:
    """Our head and the reference with the same weights."""
    torch.manual_seed(1)
    hybrid, head = make_hybrid(), RefHead(SIZES, hidden=12)
    load(hybrid, head)
    return hybrid, head


def close(ours: Tensor, reference: Tensor, tolerance: float = 1e-5) -> None:
    """Equal up to this part of the reference's largest number."""
    torch.testing.assert_close(ours, reference, rtol=tolerance, atol=tolerance * float(reference.detach().abs().max()))


def streams_of(batch: Batch, clock: Tensor, keep: Tensor | None = None) -> dict[str, Stream]:
    """Random streams for a bare trunk; seven observation tokens."""
    torch.manual_seed(2)
    n = len(batch)
    observation = Stream(torch.randn(n, 7, SIZES.context, requires_grad=True), keep=keep)
    state, action = torch.randn(n, 1, SIZES.width), torch.randn(n, SIZES.horizon, SIZES.width)
    return {"observation": observation, "state": Stream(state), "action": Stream(action, clock)}


def make_trunk(honour_masks: bool, dropout: float = 0.0) -> groot.GrootDiT:
    """A tiny trunk."""
    return groot.GrootDiT(SIZES.width, SIZES.depth, HEADS, SIZES.context, SIZES.out, dropout, honour_masks)


def test_same_loss_and_gradients_as_the_reference(batch: Batch, pair: tuple[Hybrid, RefHead], monkeypatch: pytest.MonkeyPatch) -> None:
    """F1: same weights, noise, clocks and batch give the same flow loss (1e-5) and the same gradient of every weight (1e-4)."""
    hybrid, head = pair
    noise = torch.randn(batch.action.shape)
    monkeypatch.setattr(torch, "randn_like", lambda _: noise)
    monkeypatch.setattr(flow, "draw", lambda *_: CLOCK)
    ours = hybrid(batch)["flow/velocity"].mean()
    reference = head.loss(frozen_tokens(hybrid, batch).detach(), batch, noise, CLOCK)
    torch.testing.assert_close(ours, reference, rtol=1e-5, atol=0.0)
    ours.backward()
    reference.backward()
    wanted = groot.parts_of({name: gradient(p) for name, p in head.named_parameters()})
    for part, module in parts(hybrid).items():
        assert wanted[part].keys() == dict(module.named_parameters()).keys()
        for name, parameter in module.named_parameters():
            if name.endswith("to_k.bias"):  # the softmax is blind to a shift of all keys: this gradient is rounding
                assert gradient(parameter).abs().max() < 1e-7
            else:
                close(gradient(parameter), wanted[part][name], 1e-4)


def test_every_tap_is_the_reference_hidden_state(batch: Batch) -> None:
    """F1: output and all hidden states of the bare transformer agree to 1e-5; tap l is the state behind block l."""
    torch.manual_seed(3)
    trunk, reference = make_trunk(False), RefDiT(SIZES.width, SIZES.depth, HEADS, SIZES.context, SIZES.out, 0.0)
    trunk.load_state_dict(reference.state_dict(), strict=True)
    eps = [{n: m.eps for n, m in net.named_modules() if isinstance(m, nn.LayerNorm)} for net in (trunk, reference)]
    assert eps[0] == eps[1]  # too small a difference to be seen in the output
    streams = streams_of(batch, CLOCK)
    hidden = trunk(streams, frozenset(range(SIZES.depth + 1)))
    sequence = torch.cat([streams["state"].tokens, streams["action"].tokens], dim=1)
    final, states = reference(sequence, streams["observation"].tokens, (CLOCK * 1000).long())
    close(torch.cat([hidden.final["state"], hidden.final["action"]], dim=1), final)
    for tap, wanted in enumerate(states):
        close(torch.cat([hidden[tap]["state"], hidden[tap]["action"]], dim=1), wanted)


def test_dropout_stands_where_it_stood(batch: Batch) -> None:
    """With dropout 0.2 and the same seed the same numbers are dropped: twice behind attention, twice in the feed-forward."""
    trunk, reference = make_trunk(False, 0.2), RefDiT(SIZES.width, SIZES.depth, HEADS, SIZES.context, SIZES.out, 0.2)
    trunk.load_state_dict(reference.state_dict(), strict=True)
    streams = streams_of(batch, CLOCK)
    sequence = torch.cat([streams["state"].tokens, streams["action"].tokens], dim=1)
    torch.manual_seed(4)
    wanted = reference(sequence, streams["observation"].tokens, (CLOCK * 1000).long())[0]
    torch.manual_seed(4)
    close(trunk(streams).final["action"], wanted[:, 1:])


@pytest.mark.parametrize("steps", [4, 10])
def test_sampler_gives_the_reference_actions(steps: int, batch: Batch, pair: tuple[Hybrid, RefHead]) -> None:
    """F2: K Euler steps from the same noise give the same actions to 1e-5; the observation is remembered, not computed again."""
    hybrid, head = pair
    noise = torch.randn(batch.action.shape)
    with torch.no_grad():
        wanted = head.sample(frozen_tokens(hybrid, batch), batch, noise, steps)
    close(hybrid.act(batch, noise, steps), wanted)


def test_clock_index_at_play_and_below_zero() -> None:
    """With K = 4 the indices are 0, 250, 500, 750 as Python counts them; a clock slightly below 0 has index 0, not -1."""
    assert groot.clock_index(torch.arange(4) / 4).tolist() == [0, 250, 500, 750]
    for steps in (4, 10, 16, 50):
        played = torch.stack([torch.full((), i / steps) for i in range(steps)])
        assert groot.clock_index(played).tolist() == [int(i / steps * 1000) for i in range(steps)]
    assert groot.clock_index(torch.tensor([-0.0015, -0.001, 0.9999])).tolist() == [0, 0, 999]


def test_order_of_observation_tokens_does_not_matter_but_that_of_actions_does(batch: Batch, pair: tuple[Hybrid, RefHead]) -> None:
    """F3: observation tokens, and state and future, form sets; actions have places, so a permuted chunk is not the permuted output."""
    hybrid, _ = pair
    trunk = hybrid.trunk
    streams, noisy = {**hybrid.observer(batch), **hybrid.objectives["future"].standing(batch)}, torch.randn(batch.action.shape)

    def final(streams: Mapping[str, Stream], noisy: Tensor) -> Tensor:
        return trunk({**streams, **policy(hybrid).embed(noisy, CLOCK, batch)}).final["action"]

    plain, turned = final(streams, noisy), torch.tensor([3, 0, 4, 1, 2])
    tokens = streams["observation"].tokens
    close(final({**streams, "observation": Stream(tokens[:, torch.randperm(tokens.shape[1])])}, noisy), plain)
    close(final({"future": streams["future"], "observation": streams["observation"], "state": streams["state"]}, noisy), plain)
    assert (final(streams, noisy[:, turned]) - plain[:, turned]).abs().max() > 1e-2


def test_parity_mode_ignores_the_observation_mask(batch: Batch) -> None:
    """F4: the reference attends to padded observation tokens; so does the parity mode, with and without memory."""
    trunk, keep = make_trunk(False), torch.arange(7).expand(len(batch), 7) < 4
    masked, plain = streams_of(batch, CLOCK, keep), streams_of(batch, CLOCK)
    assert torch.equal(trunk(masked).final["action"], trunk(plain).final["action"])
    assert trunk.remember(masked["observation"]).keep is None


def test_masked_tokens_have_no_influence_when_masks_are_honoured(batch: Batch) -> None:
    """F4: padding, NaN included, changes neither the output nor a gradient, and receives a gradient of exactly 0."""
    torch.manual_seed(5)
    trunk, keep = make_trunk(True), torch.arange(7).expand(len(batch), 7) < 4
    streams = streams_of(batch, CLOCK, keep)
    out = trunk(streams).final["action"]
    out.square().sum().backward()
    felt = gradient(streams["observation"].tokens)
    assert torch.equal(felt[:, 4:], torch.zeros_like(felt[:, 4:]))
    assert felt[:, :4].abs().sum() > 0
    learned = [gradient(p).clone() for p in trunk.parameters()]
    trunk.zero_grad()
    poisoned = streams_of(batch, CLOCK, keep)
    tokens = torch.where(keep[..., None], poisoned["observation"].tokens, torch.nan)
    again = trunk({**poisoned, "observation": Stream(tokens, keep=keep)}).final["action"]
    again.square().sum().backward()
    assert torch.equal(again, out)
    assert all(torch.equal(gradient(p), g) for p, g in zip(trunk.parameters(), learned, strict=True))
    assert not torch.equal(trunk(streams_of(batch, CLOCK)).final["action"], out)


@pytest.mark.parametrize("kernel", ["products", "fused"])
def test_blind_streams_and_padding_of_the_sequence(kernel: Kernel, batch: Batch) -> None:
    """With masks honoured nobody sees a padded token, and a blind stream depends on nothing it is blind to; gradients are finite."""
    trunk, streams = make_trunk(True), streams_of(batch, CLOCK)
    state, action = streams["state"].tokens, streams["action"].tokens
    keep = torch.arange(SIZES.horizon).expand(len(batch), -1) < 3
    padded = {**streams, "action": Stream(action, CLOCK, keep=keep)}
    poisoned = {**streams, "action": Stream(torch.where(keep[..., None], action, torch.nan), CLOCK, keep=keep)}
    blind = {**streams, "state": Stream(state, blind=frozenset({"action", "observation"}))}
    other = {"observation": Stream(torch.randn(len(batch), 7, SIZES.context)), "action": Stream(action + 1, CLOCK)}
    with attention_kernel(kernel):
        assert torch.equal(trunk(padded).final["state"], trunk(poisoned).final["state"])
        close(trunk({**blind, **other}).final["state"], trunk(blind).final["state"])
        assert (trunk({**blind, **other}).final["action"] - trunk(blind).final["action"]).abs().max() > 1e-2
        trunk(blind).final["state"].sum().backward()
    assert torch.equal(gradient(streams["observation"].tokens), torch.zeros_like(streams["observation"].tokens))
    assert all(gradient(p).isfinite().all() for p in trunk.parameters())


def test_parity_mode_refuses_masks_that_it_would_ignore(batch: Batch) -> None:
    """A leak rule must never be dropped in silence: blind streams raise where masks are not honoured."""
    streams = streams_of(batch, CLOCK)
    for blind in ("observation", "state"):
        action = Stream(streams["action"].tokens, CLOCK, blind=frozenset({blind}))
        with pytest.raises(ValueError, match="honour_masks"):
            make_trunk(False)({**streams, "action": action})


def test_memory_gives_the_same_output(batch: Batch) -> None:
    """Keys and values computed once give what the whole pass gives; self-attention blocks keep none."""
    for honour in (False, True):
        trunk, streams = make_trunk(honour), streams_of(batch, CLOCK, torch.arange(7).expand(5, 7) < 6)
        memory = trunk.remember(streams["observation"])
        assert [block is None for block in memory.blocks] == [False, True, False, True]
        rest = {name: stream for name, stream in streams.items() if name != "observation"}
        assert torch.equal(trunk(rest, memory=memory).final["action"], trunk(streams).final["action"])


def test_one_clock_for_all_streams(batch: Batch) -> None:
    """A named clock is the action's; a second clock, a clock per token and a name that is not there raise; no clock at all is 1."""
    trunk, streams = make_trunk(False), streams_of(batch, CLOCK)
    state, action = streams["state"].tokens, streams["action"].tokens
    shared = trunk({**streams, "state": Stream(state, "action")}).final["action"]
    assert torch.equal(shared, trunk(streams).final["action"])
    for wrong in (torch.zeros(len(batch)), "video"):
        with pytest.raises(ValueError, match="clock"):
            trunk({**streams, "state": Stream(state, wrong)})
    with pytest.raises(ValueError, match="clock"):
        trunk({**streams, "action": Stream(action, torch.zeros(len(batch), SIZES.horizon))})
    clean = trunk({**streams, "action": Stream(action)}).final["action"]
    assert torch.equal(clean, trunk({**streams, "action": Stream(action, torch.ones(len(batch)))}).final["action"])


def test_missing_observation_and_taps_outside_raise(batch: Batch) -> None:
    """Both are named in the error."""
    trunk, streams = make_trunk(False), streams_of(batch, CLOCK)
    with pytest.raises(ValueError, match="5"):
        trunk(streams, frozenset({5}))
    del streams["observation"]
    with pytest.raises(ValueError, match="observation"):
        trunk(streams)


def count(module: nn.Module) -> int:
    """Parameters of a module."""
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(("depth", "wanted"), [(8, 279_718_912), (16, 550_386_688), (32, 1_091_722_240)])
def test_parameters_of_the_published_trunk(depth: int, wanted: int) -> None:
    """F5: exactly as many parameters as GR00T's transformer, for 8 (FLARE), 16 (N1.5) and 32 blocks (N1.6)."""
    with torch.device("meta"):
        trunk = groot.GrootDiT(1536, depth, 32, 2048, 1024, 0.2, honour_masks=False)
    assert count(trunk) == wanted
    assert [count(block) for block in trunk.transformer_blocks[:2]] == [34_619_904, 33_047_040]


def test_parameters_of_a_whole_paper_scale_policy() -> None:
    """F5: an arm of blueprints has the published parts and runs; the layers per robot are counted for the zoo's two embodiments."""
    term = Term(flow.Config(groot.InConfig(), groot.OutConfig(), sampler="legacy_n15", reduction="element"), {"velocity": 1.0})
    arm = Experiment(
        "paper", Shape(1536, 16), groot.Config(), groot.ObserverConfig(conv.Config(), text.Config()),
        {"flow": term}, Data(horizon=16), Optim(steps=1),
    )  # fmt: skip
    sizes = sizes_for(arm, action=32, state=64, views=1, history=1)
    with torch.device("meta"):
        hybrid = build(arm, sizes)
    seen, counted = observer(hybrid), flops.count(arm)
    assert counted["parameters"]["trunk"] == count(hybrid.trunk) == 550_386_688
    assert counted["parameters"]["all"] == count(hybrid)
    assert hybrid.trunk.out == 1024
    assert count(seen.fuse.vl_self_attention) == 201_433_088
    assert count(seen.fuse.vlln) == 2 * 2048
    assert count(seen.state) == sizes.embodiments * 1_640_960
    assert count(policy(hybrid).encode) == sizes.embodiments * 7_131_648 + 1_572_864
    assert count(policy(hybrid).decode) == sizes.embodiments * 1_082_400


def test_padded_numbers_do_not_change_the_element_loss() -> None:
    """F6: by hand 1 + 9 over two valid numbers of two windows is 5; twice as many padded numbers leave it there."""
    prediction, target = torch.tensor([[[1.0, 7.0]], [[3.0, 7.0]]]), torch.zeros(2, 1, 2)
    mask = torch.tensor([[[True, False]], [[True, False]]])
    junk, never = torch.full((2, 1, 2), torch.nan), torch.zeros(2, 1, 2, dtype=torch.bool)
    plain = flow.flow_loss(prediction, target, mask)
    wide = flow.flow_loss(*(torch.cat(pair, dim=-1) for pair in ((prediction, junk), (target, junk), (mask, never))))
    for loss in (plain, wide):
        assert Score(loss, mask.sum(dim=(1, 2)).float()).mean() == 5


def test_no_valid_number_gives_zero_and_finite_gradients(batch: Batch, pair: tuple[Hybrid, RefHead]) -> None:
    """F6: where nothing was recorded the loss is exactly 0 and so is every gradient, even if the numbers are NaN."""
    hybrid, _ = pair
    batch.action_mask, batch.action = torch.zeros_like(batch.action_mask), torch.full_like(batch.action, torch.nan)
    loss = hybrid(batch)["flow/velocity"].mean()
    loss.backward()
    gradients = [p.grad for p in hybrid.parameters() if p.grad is not None]
    assert loss == 0
    assert gradients
    assert all(torch.equal(g, torch.zeros_like(g)) for g in gradients)


def test_unknown_state_is_learned_and_never_read(batch: Batch, pair: tuple[Hybrid, RefHead]) -> None:
    """Where the state is unknown its numbers, NaN included, play no part; the learned null state stands there."""
    hybrid, _ = pair
    batch.has_state = torch.tensor([True, False, True, True, False])
    batch.state = torch.where(batch.has_state[:, None, None], batch.state, torch.nan)
    state = hybrid.observer(batch)["state"].tokens
    assert torch.equal(state[1], observer(hybrid).null_state)
    assert state.isfinite().all()
    state.sum().backward()
    assert gradient(observer(hybrid).state.first.weight).isfinite().all()


def test_parts_of_a_checkpoint() -> None:
    """A prefix "action_head." is taken off; names that the head does not have raise."""
    parts = groot.parts_of({"action_head.action_encoder.W1.W": torch.ones(1), "action_decoder.layer2.b": torch.ones(1)})
    assert {part: list(names) for part, names in parts.items()} == {"action_in": ["W1.weight"], "action_out": ["project.second.bias"]}
    with pytest.raises(ValueError, match="backbone"):
        groot.parts_of({"backbone.eagle_model.weight": torch.ones(1)})


def test_wrong_sizes_are_refused() -> None:
    """Width must be heads x head_dim, heads must divide widths, and the table has 1024 places."""
    with pytest.raises(UserError, match="1536"):
        groot.Config().build(SIZES)
    with pytest.raises(UserError, match="heads"):
        groot.VisionLanguageStack(10, 1, 4, 0.0)
    with pytest.raises(UserError, match="heads"):
        groot.GrootDiT(10, 1, 4, 8, 8, 0.0, honour_masks=True)
    with pytest.raises(UserError, match="1024"):
        groot.InConfig().build(Sizes(**{**SIZES.__dict__, "horizon": 1025}))


@pytest.mark.parametrize("clock", [(1,), (5, 1), (5, 5), (5, 3)])
def test_a_clock_of_another_shape_raises(clock: tuple[int, ...], batch: Batch) -> None:
    """One clock for each window; one for all of them, or one for each token, is refused."""
    with pytest.raises(ValueError, match="clock"):
        make_trunk(honour_masks=True)(streams_of(batch, torch.zeros(clock)))


@pytest.mark.parametrize("name", ["observation", "action"])
def test_a_key_mask_of_another_shape_raises(name: str, batch: Batch) -> None:
    """One flag for each token; nothing is broadcast."""
    given = streams_of(batch, torch.zeros(len(batch)))
    given[name] = replace(given[name], keep=torch.ones(len(batch), 1, dtype=torch.bool))
    with pytest.raises(ValueError, match="one flag for each token"):
        make_trunk(honour_masks=True)(given)
