"""specs 7.6, M1 to M5 and R7: the latent action model, its bottlenecks, its stage."""

from dataclasses import fields, replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from helpers import made, scores
from jaxtyping import TypeCheckError
from torch import Tensor, nn

from wmzoo import registry
from wmzoo.batch import Batch
from wmzoo.compose import Hybrid
from wmzoo.config import Experiment, self_contained
from wmzoo.errors import UserError
from wmzoo.flops import count
from wmzoo.interfaces import Quantised, Sizes
from wmzoo.models import conv, lam, moto, perceptual, vit_mae
from wmzoo.models.attention import from_patches, into_patches
from wmzoo.models.backbones import resized
from wmzoo.models.lam import LatentActionModel, MotionFormer, Painter
from wmzoo.models.quantise import (
    Config,
    Kind,
    Nsvq,
    commitment,
    gaussian_kl,
    nearest,
    period,
    straight_through,
    substitute_noise,
)
from wmzoo.objectives import lam as objective
from wmzoo.objectives.lam import Lam, moving_ratio, perplexity, pixel_loss
from wmzoo.run import train

KINDS: tuple[Kind, ...] = ("vq", "legacy", "nsvq", "fsq", "gaussian", "sphere")


def small(**fields: Any) -> Experiment:
    """The arm at tiny scale with fresh weights, for windows of 8 steps, and some fields of the model changed."""
    arm = self_contained(registry.arm("lam", "tiny"))
    term = arm.objectives["lam"]
    config = cast("Any", term.config)
    return replace(arm, objectives={"lam": replace(term, config=replace(config, lam=replace(config.lam, **fields)))})


def model_of(hybrid: Hybrid) -> LatentActionModel:
    return cast("LatentActionModel", cast("Lam", hybrid.objectives["lam"]).lam)


def test_the_reversed_weights_of_moto_by_hand() -> None:
    """M2: z = 1 and e = 0 cost 1 + 0.25; the latent feels 2, the code -0.5.  The modern form pulls the latent alone, with 0.5."""
    for on_latent, on_code, loss, pull_z, pull_e in (
        (1.0, 0.25, 1.25, 2.0, -0.5),
        (0.25, 1.0, 1.25, 0.5, -2.0),
        (0.25, 0.0, 0.25, 0.5, 0.0),
    ):
        z, e = torch.ones(1, 1, 1, requires_grad=True), torch.zeros(1, 1, 1, requires_grad=True)
        value = commitment(z, e, on_latent, on_code)
        value.sum().backward()
        assert z.grad is not None
        assert (value.item(), z.grad.item()) == (loss, pull_z)
        assert (0.0 if e.grad is None else e.grad.item()) == pull_e


def test_straight_through_is_the_code_with_the_gradient_of_the_latent() -> None:
    """M3: the value is e, d value / d z is the identity, nothing reaches e."""
    z, e = torch.randn(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    value, weight = straight_through(z, e), torch.randn(2, 3, 4)
    torch.testing.assert_close(value, e)
    (value * weight).sum().backward()
    assert torch.equal(cast("Tensor", z.grad), weight)
    assert e.grad is None


def test_noise_is_as_long_as_the_error() -> None:
    """NSVQ: z = (3, 0), e = (0, 4): the error is 5 long, whatever the noise; both sides feel it."""
    z, e = torch.tensor([[[3.0, 0.0]]], requires_grad=True), torch.tensor([[[0.0, 4.0]]], requires_grad=True)
    value = substitute_noise(z, e, torch.tensor([[[0.0, 7.0]]]))
    torch.testing.assert_close(value, torch.tensor([[[3.0, 5.0]]]))
    value.sum().backward()
    torch.testing.assert_close(e.grad, torch.tensor([[[-0.6, 0.8]]]))


def test_gaussian_kl_by_hand() -> None:
    """Mean 0 and variance 1: 0.  Mean 2: 2 nats.  Variance e: (e - 2) / 2."""
    mean, log_variance = torch.tensor([0.0, 2.0, 0.0])[:, None, None], torch.tensor([0.0, 0.0, 1.0])[:, None, None]
    torch.testing.assert_close(gaussian_kl(mean, log_variance), torch.tensor([0.0, 2.0, (torch.e - 2) / 2]))


def test_nearest_by_hand() -> None:
    assert nearest(torch.tensor([[[0.9], [-3.0]]]), torch.tensor([[0.0], [1.0], [-1.0]])).tolist() == [[1, 2]]


@pytest.mark.parametrize("shape", [(2, 1, 4), (1, 3, 4), (2, 3, 1)])
def test_another_shape_raises(shape: tuple[int, ...]) -> None:
    for equation in (lambda a, b: commitment(a, b, 1.0, 1.0), straight_through, gaussian_kl):
        with pytest.raises(TypeCheckError):
            equation(torch.randn(2, 3, 4), torch.randn(shape))
    with pytest.raises(TypeCheckError):
        pixel_loss(torch.rand(2, 3, 8, 8), torch.rand(1, 3, 8, 8))


@pytest.mark.parametrize("kind", KINDS)
def test_every_bottleneck_passes_a_gradient_and_is_still_in_eval(kind: Kind) -> None:
    """Two evaluations agree; in training a gradient reaches the latent; codes are numbers below their count."""
    torch.manual_seed(0)
    bottleneck = Config(kind, 16).build(8)
    latent = torch.randn(5, 4, 8, requires_grad=True)
    valid = torch.tensor([True, True, False, True, True])
    out = bottleneck(latent, valid)
    (out.value.sum() + out.penalty.sum()).backward()
    assert latent.grad is not None
    assert latent.grad[valid].abs().sum() > 0
    assert out.value.shape == latent.shape
    assert out.penalty.shape == (5,)
    assert (out.codes is None) == (bottleneck.codes == 0)
    if out.codes is not None:
        assert bottleneck.codes == 16
        assert 0 <= out.codes.min() <= out.codes.max() < 16
    bottleneck.eval()
    again = [bottleneck(latent.detach(), valid) for _ in range(2)]
    assert torch.equal(again[0].value[valid], again[1].value[valid])


@pytest.mark.parametrize("kind", KINDS)
def test_a_window_that_is_not_valid_teaches_no_codebook(kind: Kind) -> None:
    """Its latent may be anything: buffers, codes and values of the others stay what they are."""
    states, values = [], []
    for wild in (0.0, 1e6):
        torch.manual_seed(0)
        bottleneck = Config(kind, 16).build(8)
        latent, valid = torch.randn(6, 4, 8), torch.tensor([True, True, True, False, True, True])
        latent[3] += wild
        torch.manual_seed(1)
        values.append(bottleneck(latent, valid).value[valid])
        states.append(bottleneck.state_dict())
    assert torch.equal(*values)
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_dead_codes_are_revived() -> None:
    """All latents near one point: the library's and NSVQ's unused codes move there; FSQ cannot die."""
    torch.manual_seed(0)
    for kind in ("vq", "nsvq"):
        bottleneck = Config(kind, 16).build(2)
        far = nn.Parameter(100 + torch.randn(16, 2))
        if kind == "nsvq":
            cast("Nsvq", bottleneck).book.data[1:] = far.data[1:]
        else:
            bottleneck(100 + torch.randn(8, 4, 2), torch.ones(8, dtype=torch.bool))  # where the codes start
        valid, learnt = torch.ones(64, dtype=torch.bool), [*bottleneck.parameters()]
        optimiser = torch.optim.Adam(learnt, lr=0.03) if learnt else None  # of NSVQ; the library's codes follow by themselves
        for _ in range(400):
            latent = torch.randn(64, 4, 2)
            error = (bottleneck(latent, valid).value - latent).square().mean()
            if optimiser is not None:
                optimiser.zero_grad()
                error.backward()
                optimiser.step()
        used = cast("Tensor", bottleneck(torch.randn(64, 4, 2), valid).codes).unique()
        assert len(used) > 8, f"{kind}: only {len(used)} of 16 codes are used"


def test_when_lapa_replaces_codes_by_hand() -> None:
    """Every 10 steps up to 100, every 100 up to 1000, every 500 below 5000, never at first and never again."""
    steps = [step for step in range(20_000) if period(step)]
    assert steps == [*range(10, 100, 10), *range(100, 1000, 100), *range(1000, 5000, 500)]
    assert [period(step) for step in (0, 10, 100, 110, 200, 1000, 1500, 5000)] == [0, 10, 10, 0, 100, 100, 500, 0]


def test_a_code_is_replaced_where_it_is_rarely_chosen() -> None:
    """Of 200 steps, the last 100: chosen in 10 of them a code stays, in 9 it moves beside one that stays; so does one never chosen."""
    book = cast("Nsvq", Config("nsvq", 4).build(2))
    book.book.data = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0], [10.0, 10.0]])
    before, passes = book.book.data.clone(), cast("Tensor", book.passes)
    passes += 101
    for step in range(101, 201):
        assert torch.equal(book.book.data, before), step
        rows = [0] + [1] * (step <= 110) + [2] * (step <= 109)
        book(before[rows][:, None], torch.ones(len(rows), dtype=torch.bool))
    assert torch.equal(book.book[:2], before[:2])
    nearest_kept = torch.cdist(book.book[2:], before[:2]).amin(dim=1)
    assert (nearest_kept > 0).all()
    assert (nearest_kept < 1).all()
    assert not cast("Tensor", book.used).any()


def test_perplexity_by_hand() -> None:
    """One code: 1.  Two codes alike: 2.  Three to one: exp of the entropy, 1.7548."""
    for numbers, wanted in (([3, 3, 3, 3], 1.0), ([0, 0, 1, 1], 2.0), ([0, 0, 0, 5], 1.7548)):
        assert perplexity(torch.tensor(numbers), 8).item() == pytest.approx(wanted, abs=1e-4)


def test_moving_ratio_by_hand() -> None:
    """Copying costs 1, 2, 3, 4; above the median (2 here, the lower) are the last two: (0.3 + 1.1) / 7."""
    assert moving_ratio(torch.tensor([9.0, 9.0, 0.3, 1.1]), torch.tensor([1.0, 2.0, 3.0, 4.0])).item() == pytest.approx(0.2)


def test_pixel_loss_by_hand() -> None:
    painted, frame = torch.zeros(2, 3, 2, 2), torch.zeros(2, 3, 2, 2)
    frame[1, 0, 0, 0] = 1
    torch.testing.assert_close(pixel_loss(painted, frame), torch.tensor([0.0, 1 / 12]))


def test_patches_are_those_of_a_convolution() -> None:
    """A product with cut patches is the strided convolution; pasting is the way back and pixel shuffling."""
    torch.manual_seed(0)
    image, kernel = torch.randn(2, 3, 16, 24), torch.randn(5, 3, 8, 8)
    rows = into_patches(image, 8)
    wanted = nn.functional.conv2d(image, kernel, stride=8).flatten(2).transpose(1, 2)
    torch.testing.assert_close(rows @ kernel.flatten(1).T, wanted, atol=1e-4, rtol=1e-4)
    assert torch.equal(from_patches(rows, 8, 2), image)
    shuffled = nn.functional.pixel_shuffle(rows.transpose(1, 2).unflatten(2, (2, 3)), 8)
    assert torch.equal(from_patches(rows, 8, 2), shuffled)


def test_former_is_a_plain_transformer_over_the_whole_sequence() -> None:
    """[K queries | first | separator | second] with places and kinds through transformers' own ViT layers, the queries kept.

    As many tokens a frame as one likes: ours has no class token, Moto's has (below).
    """
    from transformers import ViTConfig
    from transformers.models.vit.modeling_vit import ViTLayer

    torch.manual_seed(0)
    former = MotionFormer(seen=6, patches=5, width=16, depth=2, heads=2, queries=3).eval()
    for parameter in former.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    config = ViTConfig(hidden_size=16, num_attention_heads=2, intermediate_size=64, layer_norm_eps=1e-12, hidden_act="gelu")
    config._attn_implementation = "eager"
    first, second = torch.randn(4, 5, 6), torch.randn(4, 5, 6)
    p = former.project
    x = torch.cat([former.queries.expand(4, -1, -1), p(first), former.separator.expand(4, -1, -1), p(second)], dim=1)
    x = x + former.place + torch.cat([former.kind[:1].expand(8, -1), former.kind[1:].expand(6, -1)])
    names = {
        "norm_attn": "layernorm_before",
        "norm_mlp": "layernorm_after",
        "attn.out": "attention.o_proj",
        "up": "mlp.fc1",
        "down": "mlp.fc2",
    }
    for block in cast("Any", former.blocks):
        ours, theirs = block.state_dict(), {}
        for part in ("weight", "bias"):
            theirs |= {f"{name}.{part}": ours[f"{mine}.{part}"] for mine, name in names.items()}
            theirs |= {f"attention.{n}_proj.{part}": rows for n, rows in zip("qkv", ours[f"attn.qkv.{part}"].chunk(3), strict=True)}
        layer = ViTLayer(config).eval()
        layer.load_state_dict(theirs)
        out = layer(x)
        x = out[0] if isinstance(out, tuple) else out
    wanted = former.norm(x)[:, :3]
    torch.testing.assert_close(former(first, second), wanted, atol=1e-5, rtol=1e-4)
    weights = former.attention(first, second)
    assert weights.shape == (4, 3, 5)
    assert (weights > 0).all()
    assert (weights.sum(dim=-1) < 1).all()


def published(random: torch.Generator) -> dict[str, Tensor]:
    """Weights of a LatentMotionTokenizer by its own names: 3 queries of 16 numbers, 2 + 1 blocks, 8 codes of 5, 4 x 4 patches."""

    def block(home: str) -> dict[str, tuple[int, ...]]:
        linear = {"attention.attention.query": (16, 16), "attention.attention.key": (16, 16), "attention.attention.value": (16, 16)}
        linear |= {"attention.output.dense": (16, 16), "intermediate.dense": (64, 16), "output.dense": (16, 64)}
        norms = {f"{home}.layernorm_{place}.{part}": (16,) for place in ("before", "after") for part in ("weight", "bias")}
        return (
            norms
            | {f"{home}.{name}.weight": shape for name, shape in linear.items()}
            | {f"{home}.{name}.bias": shape[:1] for name, shape in linear.items()}
        )

    eyes, paints = "m_former.embeddings", "decoder.transformer.embeddings"
    shapes: dict[str, tuple[int, ...]] = {
        f"{eyes}.latent_motion_token": (1, 3, 16), f"{eyes}.sep_token": (1, 1, 16), f"{eyes}.token_type_embeddings": (2, 16),
        f"{eyes}.position_embeddings": (1, 3 + 2 * 17 + 1, 16), f"{eyes}.projection.weight": (16, 24), f"{eyes}.projection.bias": (16,),
        "m_former.layernorm.weight": (16,), "m_former.layernorm.bias": (16,), "m_former.pooler.dense.weight": (16, 16),
        "vq_down_resampler.0.weight": (16, 16), "vq_down_resampler.0.bias": (16,), "vq_down_resampler.2.weight": (5, 16),
        "vq_down_resampler.2.bias": (5,), "vq_up_resampler.0.weight": (5, 5), "vq_up_resampler.0.bias": (5,),
        "vq_up_resampler.2.weight": (16, 5), "vq_up_resampler.2.bias": (16,), "vector_quantizer.embedding.weight": (8, 5),
        f"{paints}.patch_embeddings.projection.weight": (16, 3, 8, 8), f"{paints}.patch_embeddings.projection.bias": (16,),
        f"{paints}.query_pooling_layer.weight": (16, 48), f"{paints}.query_pooling_layer.bias": (16,),
        f"{paints}.position_embeddings": (1, 16, 16), "decoder.transformer.layernorm.weight": (16,),
        "decoder.transformer.layernorm.bias": (16,), "decoder.decoder.0.weight": (192, 16, 1, 1), "decoder.decoder.0.bias": (192,),
    }  # fmt: skip
    for home in ("m_former.encoder.layer.0", "m_former.encoder.layer.1", "decoder.transformer.encoder.layer.0"):
        shapes |= block(home)
    return {name: 0.3 * torch.randn(shape, generator=random) for name, shape in shapes.items()}


def tokenizer(w: dict[str, Tensor], first: Tensor, second: Tensor, image: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Embed, ids, quant, reconstruction and codebook loss of Moto, from the tokens of both frames (class token first), two heads."""
    linear, norm = nn.functional.linear, nn.functional.layer_norm

    def layer(x: Tensor, home: str) -> Tensor:
        def dense(x: Tensor, name: str) -> Tensor:
            return linear(x, w[f"{home}.{name}.weight"], w[f"{home}.{name}.bias"])

        def normed(x: Tensor, name: str) -> Tensor:
            return norm(x, (16,), w[f"{home}.{name}.weight"], w[f"{home}.{name}.bias"], 1e-12)

        h = normed(x, "layernorm_before")
        q, k, v = (dense(h, f"attention.attention.{name}").reshape(*h.shape[:2], 2, 8) for name in ("query", "key", "value"))
        share = torch.einsum("nqhc,nkhc->nhqk", q, k).div(8**0.5).softmax(dim=-1)
        x = x + dense(torch.einsum("nhqk,nkhc->nqhc", share, v).flatten(2), "attention.output.dense")
        return x + dense(nn.functional.gelu(dense(normed(x, "layernorm_after"), "intermediate.dense")), "output.dense")

    def resampled(x: Tensor, name: str) -> Tensor:
        x = linear(x, w[f"{name}.0.weight"], w[f"{name}.0.bias"]).tanh()
        return linear(x, w[f"{name}.2.weight"], w[f"{name}.2.bias"])

    n, eyes, paints = len(image), "m_former.embeddings", "decoder.transformer.embeddings"
    a, b = (linear(x, w[f"{eyes}.projection.weight"], w[f"{eyes}.projection.bias"]) for x in (first, second))
    x = torch.cat([w[f"{eyes}.latent_motion_token"].expand(n, -1, -1), a, w[f"{eyes}.sep_token"].expand(n, -1, -1), b], dim=1)
    x = x + w[f"{eyes}.position_embeddings"] + w[f"{eyes}.token_type_embeddings"][0]
    for i in range(2):
        x = layer(x, f"m_former.encoder.layer.{i}")
    x = norm(x, (16,), w["m_former.layernorm.weight"], w["m_former.layernorm.bias"], 1e-12)[:, :3]
    embed, book = resampled(x, "vq_down_resampler"), w["vector_quantizer.embedding.weight"]
    ids = (embed[:, :, None] - book).square().sum(dim=-1).argmin(dim=-1)
    quant = book[ids]
    loss = (quant - embed).square().mean() + 0.25 * (quant - embed).square().mean()
    kernel = f"{paints}.patch_embeddings.projection"
    y = nn.functional.conv2d(image, w[f"{kernel}.weight"], w[f"{kernel}.bias"], stride=8).flatten(2).transpose(1, 2)
    moved = resampled(quant, "vq_up_resampler").reshape(n, 1, 48)
    y = y + linear(moved, w[f"{paints}.query_pooling_layer.weight"], w[f"{paints}.query_pooling_layer.bias"])
    y = layer(y + w[f"{paints}.position_embeddings"], "decoder.transformer.encoder.layer.0")
    y = norm(y, (16,), w["decoder.transformer.layernorm.weight"], w["decoder.transformer.layernorm.bias"], 1e-12)
    y = nn.functional.conv2d(y.transpose(1, 2).reshape(n, 16, 4, 4), w["decoder.decoder.0.weight"], w["decoder.decoder.0.bias"])
    return embed, ids, quant, nn.functional.pixel_shuffle(y, 8), loss


def test_moto_with_its_own_weights(batch: Batch, sizes: Sizes) -> None:
    """M1: the same weights give the same embed, ids, quant, reconstruction and codebook loss, with transformers' own ViT-MAE in order.

    Not the same by design: our pixel loss is in [0, 1], Moto's of ImageNet-normalised frames.
    """
    random = torch.Generator().manual_seed(0)
    weights = published(random)
    torch.manual_seed(0)
    eye = vit_mae.Config("none", image=32, patch=8, width=24, depth=2, heads=2).build(sizes)
    mean, std = eye.mean, eye.std
    first, second = ((x - mean) / std for x in (batch.image[:, -1, 0], batch.future[:, 0, 0]))
    order = torch.arange(16).float().expand(6, -1)
    with torch.no_grad():
        seen = [cast("Any", eye.network)(x, noise=order).last_hidden_state for x in (first, second)]
        assert seen[0].shape == (6, 17, 24)
        own, *_ = tokenizer(weights, seen[0], seen[1], first)
        weights["vector_quantizer.embedding.weight"][:3] = own[0]  # so that every query has its own code
        embed, ids, quant, painted, loss = tokenizer(weights, seen[0], seen[1], first)
        model, there = moto.moto(eye, weights, heads=2).eval(), batch.has_future[:, 0]
        ours = model.encode(batch, 8)
        out = model.quantise(ours, there)
        torch.testing.assert_close(ours[there], embed[there], atol=1e-4, rtol=1e-4)
        assert len(ids[there].unique()) > 2
        assert torch.equal(cast("Tensor", out.codes)[there], ids[there])
        torch.testing.assert_close(out.value[there], quant[there], atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(out.penalty[there].mean(), tokenizer(weights, seen[0][there], seen[1][there], first[there])[-1])
        torch.testing.assert_close(((model.decode(batch, out.value) - mean) / std)[there], painted[there], atol=1e-4, rtol=1e-4)
        assert model.attention(batch, 8).shape == (6, 3, 16)
    assert loss > 0
    kinds = {**weights, "m_former.embeddings.token_type_embeddings": weights["m_former.embeddings.token_type_embeddings"].flip(0)}
    assert not torch.allclose(moto.moto(eye, kinds, heads=2).encode(batch, 8)[there], embed[there], atol=1e-2), "one kind is read"


def test_two_evaluations_are_identical(batch: Batch, sizes: Sizes) -> None:
    """M4: the published tokenizer is not: its encoder permutes the patches at random in every call."""
    model = model_of(made(small(), sizes).eval())
    out = []
    for _ in range(2):
        batch.features.clear()
        quantised = model.quantise(model.encode(batch, 8), batch.has_future[:, 0])
        out.append((quantised.value, quantised.codes, model.decode(batch, quantised.value)))
    assert all(torch.equal(a, b) for a, b in zip(*out, strict=True))


def test_a_fresh_painter_copies(sizes: Sizes, batch: Batch) -> None:
    """ "change" starts as a copy of the present frame, whatever the motion; "frame" does not."""
    torch.manual_seed(0)
    image = batch.image[:, -1, 0]
    assert torch.equal(Painter(8, 32, 16, 1, 2, 12, "change")(image, torch.randn(6, 12)), image)
    assert not torch.allclose(Painter(8, 32, 16, 1, 2, 12, "frame")(image, torch.randn(6, 12)), image)


def test_frames_of_another_size_are_resized_inside(batch: Batch, sizes: Sizes) -> None:
    """An image size of its own: one set of weights for recorded frames of any size; painted, and marked, in its own size."""
    own = lam_config().lam
    config = lam.SizedConfig(**{field.name: getattr(own, field.name) for field in fields(own)}, size=24)
    torch.manual_seed(0)
    model = config.build(sizes).eval()
    for size in (24, 32, 64):
        frames = replace(batch, image=up(batch.image, size), future=up(batch.future, size), features={})
        other = config.build(replace(sizes, image=size)).eval()
        other.load_state_dict(model.state_dict())
        painting = objective.Painting(other, frames, 8, other.encode(frames, 8), True)
        assert painting.painted.shape == painting.frame.shape == (6, 3, 24, 24)
        parts = {name: value[frames.has_future[:, 0]] for name, value in painting.parts().items()}
        assert all(value.isfinite().all() for value in parts.values())
        assert painting.watch()["moving_ratio"].isfinite()
    torch.testing.assert_close(painting.now, resized(up(batch.image, 64)[:, -1, 0], 24))
    alike = own.build(sizes)
    assert torch.equal(alike.seen(batch.image[:, -1, 0]), batch.image[:, -1, 0]), "frames of the painted size are not touched"


def up(frames: Tensor, size: int) -> Tensor:
    """Frames (B, T, V, 3, Y, X) recorded at another size."""
    return resized(frames.flatten(0, 2), size).unflatten(0, frames.shape[:3])


def lam_config() -> Any:
    return small().objectives["lam"].config


def test_the_motion_is_of_both_frames_and_the_painter_sees_one(batch: Batch, sizes: Sizes) -> None:
    """The latent changes with either frame; the painted frame reads the future through the latent alone."""
    model = model_of(made(small(), sizes).eval())
    latent = model.encode(batch, 8)
    for name in ("image", "future"):
        other = batch.map(torch.clone)
        getattr(other, name)[:] = torch.rand_like(getattr(other, name))
        other.features.clear()
        rows = batch.has_future[:, 0]
        assert not torch.isclose(model.encode(other, 8), latent).all(dim=(1, 2))[rows].any()
        if name == "future":
            assert torch.equal(model.decode(other, latent), model.decode(batch, latent))


def test_actions_states_and_missing_futures_are_never_read(batch: Batch, sizes: Sizes) -> None:
    """NaN in every action and state, and in the frame past the end (row 2): the same losses and gradients."""
    arm, out = small(), []
    for poisoned in (False, True):
        hybrid, data = made(arm, sizes), batch.map(torch.clone)
        if poisoned:
            data.action[:], data.state[:], data.future[2] = float("nan"), float("nan"), float("nan")
        terms = scores(hybrid, data)
        torch.stack([*terms.values()]).sum().backward()
        out.append([*terms.values(), *(p.grad for p in hybrid.parameters() if p.grad is not None)])
    assert all(torch.equal(a, b) and a.isfinite().all() for a, b in zip(*out, strict=True))


def test_gradients_reach_everything_but_the_encoder(batch: Batch, sizes: Sizes) -> None:
    hybrid = made(small(bottleneck=Config("legacy", 16)), sizes)
    torch.stack([*scores(hybrid, batch).values()]).sum().backward()
    idle = {name.split(".")[3] for name, p in hybrid.named_parameters() if p.grad is None or not p.grad.any()}
    assert idle == {"encoder"}


def test_the_perceptual_gradient_has_a_switch(batch: Batch, sizes: Sizes) -> None:
    """M5: without it the gradient of the total is that of the other two terms."""
    arm = small()
    term = arm.objectives["lam"]
    gradients = {}
    for switch in (True, False):
        hybrid = made(replace(arm, objectives={"lam": replace(term, config=replace(cast("Any", term.config), gradient=switch))}), sizes)
        terms = scores(hybrid, batch)
        assert terms["lam/perceptual"] > 0
        assert terms["lam/perceptual"].requires_grad == switch
        chosen = [*terms.values()] if not switch else [value for name, value in terms.items() if name != "lam/perceptual"]
        torch.stack(chosen).sum().backward()
        gradients[switch] = [p.grad.clone() for p in hybrid.parameters() if p.grad is not None]
    assert all(torch.equal(a, b) for a, b in zip(gradients[True], gradients[False], strict=True))


def test_images_are_in_zero_to_one(batch: Batch, sizes: Sizes) -> None:
    """R7: the encoder normalises by itself; bytes are refused rather than taken for numbers up to 255."""
    model = model_of(made(small(), sizes))
    with pytest.raises(ValueError, match=r"floats in \[0, 1\]"):
        model.encode(replace(batch, image=(255 * batch.image).byte()), 8)


@pytest.mark.parametrize("name", ["image", "future"])
@pytest.mark.parametrize("eye", ["vit", "conv"])
def test_frames_normalised_elsewhere_are_refused(eye: str, name: str, batch: Batch, sizes: Sizes) -> None:
    """R7: whichever encoder and whichever frame; a missing future may be NaN, and a painted frame may leave [0, 1]."""
    fields = {"encoder": conv.Config(channels=(16, 32)), "perceptual": "none"} if eye == "conv" else {}
    model = model_of(made(small(**fields), sizes))
    with pytest.raises(UserError, match=r"in \[0, 1\], these go from -2"):
        model.encode(replace(batch, **{name: (getattr(batch, name) - 0.485) / 0.229}), 8)
    missing = batch.map(torch.clone)
    missing.future[2] = float("nan")
    assert model.encode(missing, 8)[batch.has_future[:, 0]].isfinite().all()
    assert model.distance(batch, 8, 3 * batch.image[:, -1, 0] - 1).isfinite().all()


def test_frames_whose_tokens_are_known_are_looked_at_too(batch: Batch, sizes: Sizes) -> None:
    """The painter reads the present frame, wherever the tokens come from."""
    model = model_of(made(small(), sizes))
    model.encode(batch, 8)
    with pytest.raises(UserError, match=r"in \[0, 1\]"):
        model.encode(replace(batch, image=2 * batch.image - 1), 8)


@pytest.mark.slow
def test_features_stand_in_where_vgg_is_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, batch: Batch, sizes: Sizes) -> None:
    """ "auto" is LPIPS with VGG's file in torch's cache, else the encoder's features; the log says which; each loads the other's run."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    hybrid = made(small(perceptual="auto"), sizes).eval()
    assert model_of(hybrid).perceptual == "features"
    assert hybrid.watch(batch)["lam/perceptual_is_lpips"] == 0
    import torchvision

    torch.manual_seed(0)
    file = tmp_path / "checkpoints" / perceptual.VGG
    file.parent.mkdir()
    torch.save(torchvision.models.vgg16(weights=None).state_dict(), file)
    hybrid = made(small(perceptual="auto"), sizes).eval()
    model = model_of(hybrid)
    assert isinstance(model.perceptual, perceptual.Lpips)
    assert hybrid.watch(batch)["lam/perceptual_is_lpips"] == 1
    frame = torch.where(batch.has_future[:, :, None, None], batch.future[:, 0, 0], batch.image[:, 0, 0])
    same = model.distance(batch, 8, frame)
    torch.testing.assert_close(same[batch.has_future[:, 0]], torch.zeros(5), atol=1e-6, rtol=0)
    assert (model.distance(batch, 8, 1 - frame)[batch.has_future[:, 0]] > 0.01).all()
    plain = made(small(perceptual="features"), sizes)
    assert plain.state_dict().keys() == hybrid.state_dict().keys()
    before = model.distance(batch, 8, 1 - frame)
    plain.load_state_dict(hybrid.state_dict())
    hybrid.load_state_dict(plain.state_dict())
    torch.testing.assert_close(model.distance(batch, 8, 1 - frame), before)
    file.write_bytes(b"no weights")
    with pytest.raises(UserError, match="does not hold weights that fit VGG-16"):
        made(small(perceptual=str(file)), sizes)


def test_feature_distance_by_hand() -> None:
    """Tokens at a right angle and opposite: (1 + 2) / 2; the same direction: 0, whatever the length."""
    features = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    other = torch.tensor([[[0.0, 3.0], [0.0, -1.0]]])
    torch.testing.assert_close(perceptual.feature_distance(features, other), torch.tensor([1.5]))
    torch.testing.assert_close(perceptual.feature_distance(features, 5 * features), torch.zeros(1))
    with pytest.raises(TypeCheckError):
        perceptual.feature_distance(features, other[:, :1])


def test_collapse_is_announced(batch: Batch, sizes: Sizes) -> None:
    """Of 16 codes 4 in use (a quarter) are no alarm, 3 are one; a code that all latents are nearest to is used alone."""
    hybrid = made(small(), sizes).eval()
    same = batch.map(torch.clone)
    model = model_of(hybrid)
    for used, alarm in ((4, 0), (3, 1)):  # 5 windows with a future, 4 tokens each
        numbers = (torch.arange(24) % used).unflatten(0, (6, 4))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(model, "quantise", lambda latent, valid, codes=numbers: Quantised(latent, codes, latent.new_zeros(6)))
            watched = hybrid.watch(batch)
        assert watched["lam/codes_in_use"] == used / 16
        assert next(value for name, value in watched.items() if "alarm" in name) == alarm
    book = cast("Any", model_of(hybrid).bottleneck).book._codebook.embed
    book[:] = torch.cat([torch.zeros(1, 1, 8), torch.full((1, 15, 8), 1e3)], dim=1)
    watched = hybrid.watch(same)
    assert watched["lam/perplexity"] == 1
    assert next(value for name, value in watched.items() if "alarm" in name) == 1


@pytest.mark.parametrize(("fields", "message"), [
    ({"width": 30, "heads": 4}, "cannot have 4 heads"), ({"patch": 7}, "painted patches of 7"), ({"view": 1}, "no camera 1"),
    ({"tokens": 0}, "at least one token"), ({"bottleneck": Config("fsq", 100)}, "finite scalars"),
    ({"bottleneck": Config("vq", 1)}, "2 codes"),
])  # fmt: skip
def test_a_wrong_field_is_one_line(fields: dict[str, Any], message: str, sizes: Sizes) -> None:
    with pytest.raises(UserError, match=message):
        made(small(**fields), sizes)


def test_a_moving_encoder_measures_no_likeness(sizes: Sizes) -> None:
    arm = small()
    encoder = replace(cast("Any", arm.objectives["lam"].config).lam.encoder, frozen=False)
    with pytest.raises(UserError, match="needs a frozen encoder"):
        made(small(encoder=encoder, perceptual="features"), sizes)
    made(small(encoder=encoder, perceptual="none"), sizes)


def test_taken_out_of_one_run_and_used_in_another(toy_data: Path, tmp_path: Path, sizes: Sizes) -> None:
    """The model of its own stage, and the model that a joint run has changed, start another arm; a policy has none."""

    def short(name: str) -> Experiment:
        arm = registry.arm(name, "tiny")
        fast = {"optim": replace(arm.optim, steps=2, chapter=2, ema=0.0), "data": replace(arm.data, root=str(toy_data), demos=3, batch=8)}
        stages = {key: replace(stage, optim=replace(stage.optim, steps=2, chapter=2)) for key, stage in arm.stages.items()}
        return replace(arm, **fast, stages=stages)

    train(short("lara"), tmp_path / "joint")
    stage = next((tmp_path / "stages").glob("lam-*"))
    config = cast("Any", small().objectives["lam"].config).lam
    taken = {
        name: config_with(config, weights).build(replace(sizes, horizon=8))
        for name, weights in (("joint", tmp_path / "joint"), ("stage", stage))
    }
    states = {name: model.state_dict() for name, model in taken.items()}
    assert states["joint"].keys() == states["stage"].keys()
    moved = [name for name in states["joint"] if not torch.equal(states["joint"][name], states["stage"][name])]
    assert any("former" in name for name in moved)
    assert not [name for name in moved if name.startswith("encoder.")]
    assert (tmp_path / "joint" / "export" / "auxiliary.safetensors").exists()
    with pytest.raises(UserError, match="does not hold weights that fit this latent action model"):
        config_with(replace(config, tokens=3), stage).build(sizes)
    train(short("policy"), tmp_path / "policy")
    with pytest.raises(UserError, match="no latent action model"):
        config_with(config, tmp_path / "policy").build(sizes)


def config_with(config: lam.Config, weights: Path) -> lam.Config:
    return replace(config, weights=str(weights))


@pytest.mark.slow
def test_paper_scale_counts() -> None:
    """Section 4 of the sheets: about 121.2 million trained (M-Former 29.46, painter 91.1, the rest 0.65), LARA's head 393,472."""
    parameters = count(registry.arm("lam", "paper"))["parameters"]
    assert parameters["trained"] == pytest.approx(121.2e6, rel=1e-3)
    with torch.device("meta"):
        former, painter = MotionFormer(1024, 197, 768, 4, 12, 8), Painter(16, 224, 768, 12, 12, 8 * 768, "frame")
    # 197 tokens a frame with Moto's class token, which models/moto.py reads and the arm does not: 2 of 403 places less
    assert former.place.shape == (403, 768)
    ours = sum(p.numel() for p in former.parameters())
    assert ours == pytest.approx(29.46e6, rel=1e-3)
    with torch.device("meta"):
        arm = cast("Any", registry.arm("lam", "paper").objectives["lam"].config).lam.build(Sizes(1, 0, 1, 1, 16, 4, 4, 224, 1, 1, 2))
    assert arm.former.place.shape == (401, 768)
    assert ours - sum(p.numel() for p in arm.former.parameters()) == 2 * 768
    assert sum(p.numel() for p in painter.parameters()) == pytest.approx(91.1e6, rel=1e-3)
    assert count(registry.arm("lara", "paper"))["parameters"]["objectives.lara.head"] == 393_472
    rest = sum(p.numel() for part in (arm.down, arm.up, arm.bottleneck) for p in part.parameters())
    assert rest == 645_696, "with Moto's learned codebook"
