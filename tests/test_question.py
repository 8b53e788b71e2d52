"""What counts, counts; what does not, contributes exactly nothing."""

import pytest
import torch

from wmzoo.question import Score


def test_mean_by_hand() -> None:
    """Of 1, 2 and 9 the first two count: 1.5.  With weights 1 and 3: (1 + 6) / 4."""
    value = torch.tensor([1.0, 2.0, 9.0])
    assert Score(value, torch.tensor([True, True, False])).mean() == 1.5
    assert Score(value, torch.tensor([1.0, 3.0, 0.0])).mean() == 1.75


def test_a_window_that_does_not_count_may_be_nan() -> None:
    """NaN under a False reaches neither the value nor the gradient."""
    value = torch.tensor([1.0, float("nan")], requires_grad=True)
    mean = Score(value, torch.tensor([True, False])).mean()
    mean.backward()
    assert mean == 1
    assert value.grad is not None
    assert value.grad.tolist() == [1, 0]


def test_nothing_counts() -> None:
    """A term without a valid window is exactly 0, with a gradient of exactly 0, so every parameter is still seen."""
    value = torch.tensor([5.0, 6.0], requires_grad=True)
    mean = Score(value, torch.tensor([False, False])).mean()
    mean.backward()
    assert mean == 0
    assert value.grad is not None
    assert value.grad.tolist() == [0, 0]


@pytest.mark.parametrize(("value", "weight"), [((3,), (2,)), ((3,), (1,)), ((3, 1), (3,)), ((3, 1), (3, 1)), ((), ()), ((3,), ())])
def test_one_value_and_one_weight_for_each_window(value: tuple[int, ...], weight: tuple[int, ...]) -> None:
    """Anything else raises: three values with two weights would count the third with the weight of nobody."""
    with pytest.raises(ValueError, match="one value and one weight for each window"):
        Score(torch.ones(value), torch.ones(weight))
