"""Flow matching on actions: the number, the gradient, the masks."""

from typing import cast

import pytest
import torch
from jaxtyping import TypeCheckError

from wmzoo.batch import Batch
from wmzoo.interfaces import Sizes
from wmzoo.models import embodiment
from wmzoo.objectives.flow import Config, Flow, flow_loss
from wmzoo.question import Hidden

INS, OUTS = embodiment.InConfig(), embodiment.OutConfig()


def test_flow_loss_by_hand() -> None:
    """Errors 1 and 3 count, the third is padding: (1 + 9) / 2 = 5; a window of padding alone is 0."""
    prediction = torch.tensor([[[1.0], [3.0], [7.0]], [[1.0], [1.0], [1.0]]])
    mask = torch.tensor([[[True], [True], [False]], [[False]] * 3])
    torch.testing.assert_close(flow_loss(prediction, torch.zeros(2, 3, 1), mask), torch.tensor([5.0, 0.0]))


def test_wrong_shape_raises() -> None:
    """A target of another shape raises; it is never broadcast."""
    with pytest.raises(TypeCheckError):
        flow_loss(torch.zeros(2, 3, 4), torch.zeros(2, 1, 4), torch.ones(2, 3, 4, dtype=torch.bool))


def test_padding_may_be_nan() -> None:
    """What stands under a False of the mask is never read: neither value nor gradient changes."""
    mask = torch.tensor([[[True], [False]]])
    prediction = torch.ones(1, 2, 1, requires_grad=True)
    loss = flow_loss(prediction, torch.tensor([[[0.0], [float("nan")]]]), mask)
    loss.sum().backward()
    assert loss.tolist() == [1.0]
    assert prediction.grad is not None
    assert prediction.grad.flatten().tolist() == [2.0, 0.0]


def ask(flow: Flow, batch: Batch, velocity: torch.Tensor) -> torch.Tensor:
    """The flow's mean score when the trunk's output decodes to `velocity`."""
    question = flow(batch)
    flow.read = lambda hidden, batch: velocity  # type: ignore[method-assign]
    return question.score(cast("Hidden", None))["velocity"].mean()


def test_target_is_action_minus_noise(batch: Batch, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """A6, the sign guard: with noise 0 the perfect velocity is the action itself, not its negative."""
    flow = Config(INS, OUTS).build(sizes)
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    assert ask(flow, batch, batch.action.clone()) == 0
    assert ask(flow, batch, -batch.action) > 0


def test_element_reduction_weighs_numbers_not_windows(batch: Batch, sizes: Sizes, monkeypatch: pytest.MonkeyPatch) -> None:
    """F6 and D11: GR00T averages over all valid numbers of the batch; we average windows first."""
    monkeypatch.setattr(torch, "randn_like", torch.zeros_like)
    zero = torch.zeros_like(batch.action)
    by_window = ask(Config(INS, OUTS).build(sizes), batch, zero)
    by_element = ask(Config(INS, OUTS, reduction="element").build(sizes), batch, zero)
    square, mask = batch.action.square(), batch.action_mask
    torch.testing.assert_close(by_element, square[mask].mean())
    rows = [square[i][mask[i]].mean() for i in range(len(batch)) if mask[i].any()]
    torch.testing.assert_close(by_window, torch.stack(rows).mean())


def test_action_free_rows_stand_at_the_noise_end(batch: Batch, sizes: Sizes) -> None:
    """D6: their clock is 0 and their noisy action is the noise itself; others have a clock above 0."""
    flow = Config(INS, OUTS).build(sizes)
    clock = flow(batch).streams["action"].clock
    assert isinstance(clock, torch.Tensor)
    assert (clock[~batch.has_action] == 0).all()
    assert (clock[batch.has_action] > 0).all()


def test_unknown_sampler_raises(batch: Batch, sizes: Sizes) -> None:
    """A misspelt sampler is named at the first batch."""
    with pytest.raises(Exception, match="did you mean 'uniform'"):
        Config(INS, OUTS, sampler="uniforn").build(sizes)(batch)


def test_category_layers_use_their_own_weights() -> None:
    """Each row is multiplied by the weights of its own embodiment, in value and in gradient."""
    layer = embodiment.CategoryLinear(2, 1, 1)
    layer.weight.data = torch.tensor([[[2.0]], [[5.0]]])
    out = layer(torch.ones(2, 1, 1), torch.tensor([0, 1]))
    out[0].sum().backward()
    assert out.flatten().tolist() == [2.0, 5.0]
    assert layer.weight.grad is not None
    assert layer.weight.grad.flatten().tolist() == [1.0, 0.0]


@pytest.mark.parametrize(("windows", "ids"), [(4, (1,)), (1, (4,)), (4, (3,)), (4, (4, 1))])
def test_every_window_has_one_embodiment(windows: int, ids: tuple[int, ...]) -> None:
    """One id for four windows, or four for one, is an error and no broadcast."""
    with pytest.raises(ValueError, match=f"{windows} windows need {windows} ids"):
        embodiment.CategoryLinear(2, 3, 5)(torch.ones(windows, 2, 3), torch.zeros(ids, dtype=torch.long))
