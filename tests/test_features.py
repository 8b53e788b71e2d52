"""Features on disk: computed once, whole or not at all, and never those of other weights or other frames."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from wmzoo.batch import Batch, Needs
from wmzoo.collect import collect
from wmzoo.data import Data, Windows, to_image
from wmzoo.episodes import Episode, open_task
from wmzoo.errors import UserError
from wmzoo.features import FeatureStore, cache_features, encoded
from wmzoo.files import read_json, write_json
from wmzoo.interfaces import Encoder


class Patches(Encoder):
    """Four patches of 16 pixels, seven numbers each; counts its calls, and stops at the last that is allowed."""

    width, grid = 7, (2, 2)

    def __init__(self, fingerprint: str = "abc", allowed: int = 10_000) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Conv2d(3, self.width, 16, 16).requires_grad_(False)
        self.fingerprint, self.allowed, self.calls = fingerprint, allowed, 0

    def forward(self, image: Tensor) -> Tensor:
        if self.calls == self.allowed:
            raise KeyboardInterrupt
        self.calls += 1
        assert image.shape[1:] == (3, 32, 32)
        assert 0 <= image.min() <= image.max() <= 1
        return self.body(image).flatten(2).transpose(1, 2)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three episodes of the toy, ours to write beside."""
    root = tmp_path_factory.mktemp("data")
    collect(("toy-red",), root, 32, 3, 1)
    return root


@pytest.fixture
def root(recorded: Path, tmp_path: Path) -> Path:
    return shutil.copytree(recorded, tmp_path / "data")


@pytest.fixture
def episodes(root: Path) -> tuple[Episode, ...]:
    return open_task(root / "32", "toy-red").episodes


def test_every_frame_is_kept_where_it_belongs(episodes: tuple[Episode, ...], root: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """One float16 file an episode, memory-mapped, with the encoder's own tokens; a bar tells how far it is."""
    encoder = Patches()
    store = cache_features(episodes, encoder)
    for episode in episodes:
        path = root / "32" / "toy-red" / ".features" / "abc" / f"{episode.folder.name}.npy"
        kept = store.episode(episode)
        assert isinstance(kept, np.memmap)
        assert kept.dtype == np.float16
        assert Path(str(kept.filename)) == path.resolve()
        expected = encoder(to_image(np.array(episode.frames)).flatten(0, 1))[:, None]
        assert kept.shape == expected.shape == (episode.length + 1, 1, 4, 7)
        np.testing.assert_array_equal(kept, expected.numpy().astype(np.float16))
        np.testing.assert_array_equal(store(episode, episode.length), kept[-1])
    assert "features" in capfd.readouterr().err


def test_the_second_call_computes_nothing(episodes: tuple[Episode, ...], capfd: pytest.CaptureFixture[str]) -> None:
    """Nor does an episode that is named twice count twice."""
    first, second = Patches(), Patches()
    cache_features([*episodes, *episodes], first)
    assert first.calls == sum(-(-(episode.length + 1) // 64) for episode in episodes)
    capfd.readouterr()
    cache_features(episodes, second)
    assert second.calls == 0
    assert capfd.readouterr().err == ""


def test_killed_half_way_it_goes_on(episodes: tuple[Episode, ...], root: Path) -> None:
    """Killed within the second episode: the first is there, of the second nothing, and only two are computed afterwards."""
    pieces = [-(-(episode.length + 1) // 4) for episode in episodes]
    with pytest.raises(KeyboardInterrupt):
        cache_features(episodes, Patches(allowed=pieces[0] + 1), batch=4)
    folder = root / "32" / "toy-red" / ".features" / "abc"
    assert sorted(path.name for path in folder.iterdir()) == [f"{episodes[0].folder.name}.json", f"{episodes[0].folder.name}.npy"]
    encoder = Patches()
    store = cache_features(episodes, encoder, batch=4)
    assert encoder.calls == sum(pieces[1:])
    assert all(store.holds(episode) for episode in episodes)


def test_killed_between_file_and_note_it_computes_again(episodes: tuple[Episode, ...]) -> None:
    """The note is written last, so features without one are not trusted."""
    store = cache_features(episodes[:1], Patches())
    store.path(episodes[0]).with_suffix(".json").unlink()
    encoder = Patches()
    cache_features(episodes[:1], encoder)
    assert encoder.calls > 0


def test_other_weights_have_another_folder(episodes: tuple[Episode, ...]) -> None:
    """Both stay."""
    first = cache_features(episodes, Patches("abc"))
    other = Patches("def")
    second = cache_features(episodes, other)
    assert other.calls > 0
    assert first.path(episodes[0]) != second.path(episodes[0])
    assert first.holds(episodes[0])
    assert second.holds(episodes[0])


def test_other_frames_are_encoded_again(episodes: tuple[Episode, ...]) -> None:
    """Episodes that were deleted and collected again keep their numbers; their features do not survive."""
    cache_features(episodes, Patches())
    facts = read_json(episodes[1].folder / "episode.json", "an episode")
    write_json(episodes[1].folder / "episode.json", {**facts, "sha256": {**facts["sha256"], "frames": "0" * 16}})
    encoder = Patches()
    store = FeatureStore("abc")
    assert [store.holds(episode) for episode in episodes] == [True, False, True]
    cache_features(episodes, encoder)
    assert encoder.calls == -(-(episodes[1].length + 1) // 64)


@pytest.mark.parametrize("damage", ["truncated", "emptied", "replaced", "deleted"])
def test_a_damaged_file_is_one_line_and_is_computed_again(damage: str, episodes: tuple[Episode, ...]) -> None:
    """Whoever only reads is told; whoever computes repairs."""
    path = cache_features(episodes, Patches()).path(episodes[0])
    if damage == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "replaced":
        np.save(path, np.zeros((2, 3)))
    else:
        path.unlink()
    with pytest.raises(UserError) as caught:
        FeatureStore("abc")(episodes[0], 0)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)
    store = cache_features(episodes, Patches())
    assert store(episodes[0], 0).shape == (1, 4, 7)


def test_only_frozen_encoders_are_kept(episodes: tuple[Episode, ...]) -> None:
    """An encoder that changes has no fingerprint."""
    encoder = Patches()
    del encoder.fingerprint
    with pytest.raises(UserError, match="frozen"):
        cache_features(episodes, encoder)


def test_numbers_that_do_not_fit_are_named(episodes: tuple[Episode, ...]) -> None:
    """float16 ends at 65,504: infinity is never written."""
    encoder = Patches()
    encoder.body.weight.data.fill_(1e6)
    with pytest.raises(UserError, match="too large"):
        cache_features(episodes, encoder)


def test_a_full_disk_is_told_before(episodes: tuple[Episode, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is computed."""
    monkeypatch.setattr("wmzoo.features.shutil.disk_usage", lambda _: shutil._ntuple_diskusage(100, 90, 10))
    encoder = Patches()
    with pytest.raises(UserError, match="GB left"):
        cache_features(episodes, encoder)
    assert encoder.calls == 0


def gathered(root: Path) -> tuple[Windows, Batch, list[tuple[Episode, int]]]:
    """A batch of windows that begin before and end after their episode, not moved, and its moments."""
    needs = Needs(history=3, futures=(8, (1, 20)))
    windows = Windows(Data(tasks=("toy-red",), demos=2, size=32, horizon=4, shift=0, root=str(root)), needs, seed=0)
    rows = [windows.labelled[i] for i in (0, 1, 5, len(windows.labelled) - 1)]
    batch = windows.gather(rows, np.zeros((4, 2), int), np.random.default_rng(3))
    return windows, batch, [(row.episode, row.now) for row in rows]


def test_a_filled_batch_is_not_encoded(root: Path) -> None:
    """`encoded` returns from disk what it would have computed: past, present and future, also past the ends of an episode."""
    windows, batch, moments = gathered(root)
    encoder, idle = Patches(), Patches(allowed=0)
    store = cache_features((row.episode for row in windows.labelled), encoder)
    now, future = (encoded(replace(batch, features={}), encoder, which) for which in ("now", "future"))
    store.fill(batch, moments)
    assert batch.features["abc/now"].shape == (4, 3, 1, 4, 7)
    assert batch.features["abc/future"].shape == (4, 2, 1, 4, 7)
    assert all(tokens.dtype == torch.float32 for tokens in batch.features.values())
    torch.testing.assert_close(encoded(batch, idle, "now"), now, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(encoded(batch, idle, "future"), future, atol=2e-3, rtol=2e-3)
    assert batch[1:3].features["abc/now"].shape[0] == 2


def test_fill_wants_one_moment_for_each_window(root: Path) -> None:
    """Features of other windows would go unnoticed; an arm without futures gets none."""
    windows, batch, moments = gathered(root)
    store = cache_features((row.episode for row in windows.labelled), Patches())
    with pytest.raises(ValueError, match=r"shorter|longer"):
        store.fill(batch, moments[:-1])
    near = replace(batch, future=batch.future[:, :0], offset=batch.offset[:, :0], has_future=batch.has_future[:, :0], features={})
    store.fill(near, moments)
    assert near.features.keys() == {"abc/now"}
