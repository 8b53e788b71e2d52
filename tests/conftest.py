"""What do many tests share?  A small data set on disk, the sizes of a small network, and one batch with every kind of gap."""

import os
from pathlib import Path

if "PYTEST_XDIST_WORKER" in os.environ:  # two processes of two threads each would wait for each other
    os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

from wmzoo.batch import Batch
from wmzoo.collect import collect
from wmzoo.data import byte_tokens
from wmzoo.interfaces import Sizes


@pytest.fixture(scope="session")
def toy_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data folder with 12 episodes of each toy task at 32 pixels.  Shared by all tests: read it, never write to it."""
    root = tmp_path_factory.mktemp("toy-data")
    collect(("toy-red", "toy-blue"), root, size=32, episodes=12, processes=1)
    return root


@pytest.fixture
def sizes() -> Sizes:
    """A network that trains in seconds, for the toy tasks."""
    return Sizes(width=32, depth=4, context=32, out=32, horizon=8, action=3, state=2, image=32, views=1, history=1, embodiments=2)


@pytest.fixture
def batch(sizes: Sizes) -> Batch:
    """Six windows, the same in every test: 0 and 3 complete, 1 padded for its last 3 steps, 2 without a future, 4 and 5 action-free."""
    random = torch.Generator().manual_seed(0)
    windows, steps = 6, sizes.horizon
    free = torch.tensor([False, False, False, False, True, True])
    mask = (~free)[:, None, None].repeat(1, steps, sizes.action)
    mask[1, -3:] = False
    has_future = torch.ones(windows, 1, dtype=torch.bool)
    has_future[2] = False
    action = 2 * torch.rand(windows, steps, sizes.action, generator=random) - 1
    state = torch.randn(windows, sizes.history, sizes.state, generator=random)
    frame = (sizes.views, 3, sizes.image, sizes.image)
    return Batch(
        image=torch.rand(windows, sizes.history, *frame, generator=random),
        state=torch.where(free[:, None, None], 0.0, state),
        has_state=~free,
        text=byte_tokens(["reach the red disc", "reach the blue disc"])[torch.tensor([0, 1, 0, 1, 0, 1])],
        action=torch.where(mask, action, 0.0),
        action_mask=mask,
        future=torch.rand(windows, 1, *frame, generator=random),
        has_future=has_future,
        offset=torch.full((windows, 1), 8),
        embodiment=free.long(),
        sample=torch.arange(windows),
    )
