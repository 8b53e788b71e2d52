"""Windows: what is in them, what is masked, who is drawn, and that a number names a batch."""

import shutil
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path

import numpy as np
import pytest
import torch

from wmzoo.batch import Batch, Needs
from wmzoo.data import Data, Normaliser, Window, Windows, byte_tokens, move_into, to_image
from wmzoo.episodes import Episode, open_task, write_episode, write_manifest
from wmzoo.errors import UserError

Cut = Callable[..., Windows]


@pytest.fixture
def cut(toy_data: Path) -> Cut:
    """Windows of the toy data: cut(needs, field=value, ...)."""

    def make(needs: Needs | None = None, seed: int = 0, **changes: object) -> Windows:
        config = Data(tasks=("toy",), demos=6, videos=3, size=32, horizon=8, shift=2, batch=16, root=str(toy_data))
        return Windows(replace(config, **changes), needs or Needs(), seed)  # type: ignore[arg-type]

    return make


def gather(windows: Windows, *rows: Window, moved: tuple[int, int] = (0, 0)) -> Batch:
    """The batch of these windows."""
    return windows.gather(list(rows), np.array([moved] * len(rows)), np.random.default_rng(0))


def tensors(batch: Batch) -> list[torch.Tensor]:
    """Everything in a batch, one after the other."""
    return [getattr(batch, field.name) for field in fields(batch) if field.name != "features"] + [*batch.features.values()]


def equal(one: Batch, other: Batch) -> bool:
    """Bit for bit."""
    return all(torch.equal(a, b) for a, b in zip(tensors(one), tensors(other), strict=True))


def drawn(windows: Windows, batch: Batch) -> list[Window]:
    """The windows a batch was made of."""
    every = [*windows.labelled, *windows.unlabelled, *windows.validation]
    assert [window.number for window in every] == list(range(len(every)))
    return [every[number] for number in batch.sample]


def test_frames_up_to_now_and_frames_ahead(cut: Cut) -> None:
    """History 3 is t-2, t-1, t; futures (1, 5) are t+1, t+5; the state belongs to the same moments."""
    windows = cut(Needs(history=3, futures=(1, 5)))
    row = windows.labelled[4]
    episode, now = row.episode, row.now
    batch = gather(windows, row)
    assert now == 4
    torch.testing.assert_close(batch.image[0], to_image(np.array(episode.frames[2:5])), atol=0, rtol=0)
    torch.testing.assert_close(batch.future[0], to_image(np.array(episode.frames[[5, 9]])), atol=0, rtol=0)
    np.testing.assert_allclose(batch.state[0].numpy(), windows.normaliser.state(episode.state[2:5]))
    assert batch.offset.tolist() == [[1, 5]]
    assert batch.has_future.all()


def test_the_first_frame_is_repeated_before_the_beginning(cut: Cut) -> None:
    """At t = 0 a history of 2 sees the first frame twice."""
    windows = cut(Needs(history=2))
    batch = gather(windows, windows.labelled[0])
    assert torch.equal(batch.image[0, 0], batch.image[0, 1])


def test_frames_past_the_end_do_not_count(cut: Cut) -> None:
    """An episode of L steps has a frame L: two steps before the end, 2 ahead exists and 3 ahead does not."""
    windows = cut(Needs(futures=(2, 3)))
    row = next(w for w in windows.labelled if w.now == w.episode.length - 2)
    batch = gather(windows, row)
    assert batch.has_future.tolist() == [[True, False]]
    torch.testing.assert_close(batch.future[0, 0], to_image(np.array(row.episode.frames[-1])), atol=0, rtol=0)


@pytest.mark.parametrize("first", [0, -1, 2])
def test_the_chunk_starts_where_it_was_asked_to(first: int, cut: Cut) -> None:
    """Step j of the chunk is action t + first + j; before the beginning and past the end the mask is False and an end is repeated.

    As in Diffusion Policy, which trains on repeated actions (`train_on_pad` of objectives/ddpm.py).
    """
    windows = cut(Needs(first_action=first))
    length = windows.labelled[0].episode.length
    for now in (0, 3, length - 1):
        row = windows.labelled[now]
        batch = gather(windows, row)
        for j in range(8):
            step = now + first + j
            assert batch.action_mask[0, j].tolist() == [0 <= step < length] * 3
            expected = windows.normaliser.action(row.episode.action[min(max(step, 0), length - 1)])
            np.testing.assert_allclose(batch.action[0, j].numpy(), expected, atol=1e-6)


def test_action_free_windows_carry_frames_and_words_alone(cut: Cut) -> None:
    """Videos: no action, no state, the reserved embodiment, zeros where nothing is known; frames and instruction as ever."""
    windows = cut(Needs(futures=(2,)))
    robot, video = windows.labelled[3], windows.unlabelled[3]
    batch = gather(windows, robot, video)
    assert batch.has_action.tolist() == batch.has_state.tolist() == [True, False]
    assert batch.embodiment.tolist() == [0, 1]
    assert not batch.action[1].any()
    assert not batch.state[1].any()
    torch.testing.assert_close(batch.image[1, 0], to_image(np.array(video.episode.frames[3])), atol=0, rtol=0)
    assert batch.has_future.all()
    assert torch.equal(batch.text[0], batch.text[1])


def test_the_instruction_is_that_of_the_task(cut: Cut) -> None:
    """Byte tokens of the window's own task, padded with 0."""
    windows = cut()
    blue = next(w for w in windows.labelled if w.task == 1)
    text = gather(windows, windows.labelled[0], blue).text
    assert torch.equal(text, byte_tokens(["reach the red disc", "reach the blue disc"]))
    assert bytes(int(token) - 3 for token in text[0] if token > 1) == b"reach the red disc"
    assert text[0, -1] == 0


def test_ranges_of_offsets_are_drawn_to_both_ends(cut: Cut) -> None:
    """(2, 4) draws 2, 3 and 4 and nothing else; each frame is that of its own offset."""
    windows = cut(Needs(futures=((2, 4), 1)), shift=0)
    batch = windows.train(0)
    seen = torch.cat([windows.train(step).offset for step in range(10)])
    assert sorted(set(seen[:, 0].tolist())) == [2, 3, 4]
    assert set(seen[:, 1].tolist()) == {1}
    for row, window in enumerate(drawn(windows, batch)):
        for j, ahead in enumerate(batch.offset[row].tolist()):
            exists = window.now + ahead <= window.episode.length
            assert bool(batch.has_future[row, j]) == exists
            frame = window.episode.frames[min(window.now + ahead, window.episode.length)]
            assert torch.equal(batch.future[row, j], to_image(np.array(frame)))


def test_a_number_names_a_batch(cut: Cut) -> None:
    """Batch i is a function of (seed, i): the same from another object and in another order; other numbers and seeds differ."""
    needs = Needs(history=2, futures=((1, 4),))
    one, two = cut(needs), cut(needs)
    forward = [one.train(step) for step in range(3)]
    backward = [two.train(step) for step in (2, 1, 0)][::-1]
    assert all(equal(a, b) for a, b in zip(forward, backward, strict=True))
    assert not equal(forward[0], forward[1])
    assert not equal(forward[0], cut(needs, seed=1).train(0))


def padded(frame: np.ndarray, dy: int, dx: int) -> np.ndarray:
    """A picture (V, Y, X, 3) moved by (dy, dx), the plain way: pad by repeating edges, then crop."""
    y, x, pad = frame.shape[1], frame.shape[2], 4
    wide = np.pad(frame, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="edge")
    return wide[:, pad - dy : pad - dy + y, pad - dx : pad - dx + x]


@pytest.mark.parametrize("dy", [-4, -1, 0, 3])
@pytest.mark.parametrize("dx", [-3, 0, 1, 4])
def test_moving_repeats_edges(dy: int, dx: int) -> None:
    """Against an explicit np.pad, in every direction, for two cameras of a picture that is not square."""
    frame = np.random.default_rng(0).integers(0, 256, (2, 9, 12, 3), np.uint8)
    out = np.empty_like(frame)
    move_into(out, frame, dy, dx)
    np.testing.assert_array_equal(out, padded(frame, dy, dx))


def test_now_and_future_move_together(cut: Cut) -> None:
    """All frames of a window move by the same pixels; windows of a batch move by different ones."""
    windows = cut(Needs(history=2, futures=(0, 3)))
    row = windows.labelled[5]
    batch = gather(windows, row, moved=(2, -1))
    for frame, at in zip([*batch.image[0], *batch.future[0]], (4, 5, 5, 8), strict=True):
        assert torch.equal(frame, to_image(padded(row.episode.frames[at], 2, -1)))
    drawn_batch = windows.train(0)
    assert torch.equal(drawn_batch.image[:, -1], drawn_batch.future[:, 0])
    moves = set()
    for image, window in zip(drawn_batch.image[:, -1], drawn(windows, drawn_batch), strict=True):
        fits = {
            (dy, dx)
            for dy in range(-2, 3)
            for dx in range(-2, 3)
            if torch.equal(image, to_image(padded(window.episode.frames[window.now], dy, dx)))
        }
        assert fits, "moved by at most two pixels"
        moves |= fits
    assert len(moves) > 5


@pytest.mark.parametrize("moves", [1, 3])
def test_every_window_has_its_own_move(moves: int, cut: Cut) -> None:
    """Two windows with one move or three raise; nothing is left out of a batch without a word."""
    windows = cut(Needs())
    with pytest.raises(ValueError, match=r"shorter|longer"):
        windows.gather(windows.labelled[:2], np.zeros((moves, 2), int), np.random.default_rng(0))


def test_no_shift_leaves_frames_untouched(cut: Cut) -> None:
    """With shift 0 a training frame is the recorded one, in floats from 0 to 1."""
    windows = cut(shift=0)
    batch = windows.train(3)
    for image, window in zip(batch.image[:, 0], drawn(windows, batch), strict=True):
        assert torch.equal(image, to_image(np.array(window.episode.frames[window.now])))
    assert batch.image.dtype == torch.float32
    assert batch.image.min() >= 0
    assert batch.image.max() <= 1
    assert to_image(np.full((1, 1, 3), 255, np.uint8)).unique().tolist() == [1.0]


def test_validation_is_always_the_same_and_never_moved(cut: Cut) -> None:
    """The same windows whatever the seed, in batches of at most the batch size that each span both tasks, frames untouched."""
    needs = Needs(futures=((1, 6),))
    windows = cut(needs)
    batches, again = windows.validate(20), cut(needs, seed=7).validate(20)
    assert [len(batch) for batch in batches] == [10, 10]
    assert all(len(batch.text.unique(dim=0)) == 2 for batch in batches)
    assert all(equal(a, b) for a, b in zip(batches, again, strict=True))
    for batch in batches:
        for image, window in zip(batch.image[:, 0], drawn(windows, batch), strict=True):
            assert torch.equal(image, to_image(np.array(window.episode.frames[window.now])))


def test_drawing_stays_within_its_split(cut: Cut, toy_data: Path) -> None:
    """Half of each batch are demonstrations and half videos; validation and unused episodes are never drawn."""
    windows = cut(demos=5, videos=2)
    allowed: dict[bool, set[Path]] = {True: set(), False: set()}
    for name in ("toy-red", "toy-blue"):
        for labelled, episodes in zip((True, False), open_task(toy_data / "32", name).split(5, 2), strict=True):
            allowed[labelled] |= {episode.folder for episode in episodes}
    seen: dict[bool, set[Path]] = {True: set(), False: set()}
    for step in range(40):
        batch = windows.train(step)
        assert int(batch.has_action.sum()) == 8
        for window, has_action in zip(drawn(windows, batch), batch.has_action.tolist(), strict=True):
            seen[has_action].add(window.episode.folder)
    assert seen == allowed
    held = {window.episode.folder.name for window in windows.validation}
    assert held == {"000009"}


def test_without_videos_all_windows_have_actions(cut: Cut) -> None:
    """The share of videos means nothing where there are none."""
    assert cut(videos=0).train(0).has_action.all()


def test_the_normaliser_sees_labelled_training_episodes_alone(cut: Cut, toy_data: Path, tmp_path: Path) -> None:
    """Actions and states of videos, validation and unused episodes are poisoned: statistics and batches stay bit for bit."""
    shutil.copytree(toy_data, tmp_path, dirs_exist_ok=True)
    clean = cut()
    used = {window.episode.folder.name for window in clean.labelled}
    poisoned = [folder for folder in tmp_path.glob("32/*/[0-9]*") if folder.name not in used]
    assert len(poisoned) == 12
    for folder in poisoned:
        for name in ("action", "state"):
            np.save(folder / f"{name}.npy", np.full_like(np.load(folder / f"{name}.npy"), 1e6))
    dirty = cut(root=str(tmp_path))
    assert dirty.normaliser == clean.normaliser
    assert all(equal(clean.train(step), dirty.train(step)) for step in range(3))


def episode_of(action: np.ndarray, state: np.ndarray) -> Episode:
    """An episode that was never on disk."""
    episode = Episode(Path("nowhere"), len(action))
    episode.__dict__.update(action=action, state=state)
    return episode


def test_normalising_by_hand() -> None:
    """Actions from 0 to 4 go to -1 and 1; states 1 and 3 have mean 2 and deviation 1; what never changes keeps its scale."""
    action = np.array([[0.0, 5.0], [4.0, 5.0]], np.float32)
    state = np.array([[1.0, 7.0], [3.0, 7.0]], np.float32)
    normaliser = Normaliser.fit([episode_of(action, state)])
    np.testing.assert_allclose(normaliser.action(action), [[-1, 0], [1, 0]])
    np.testing.assert_allclose(normaliser.state(state), [[-1, 0], [1, 0]])
    np.testing.assert_allclose(normaliser.action(np.array([2.0, 5.5], np.float32)), [0, 0.5])


def test_normalising_there_and_back(cut: Cut) -> None:
    """raw_action undoes action, for numbers that were never seen and for a number that never changes (the toy's grip)."""
    normaliser = cut().normaliser
    raw = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.testing.assert_allclose(normaliser.raw_action(normaliser.action(raw)), raw, atol=1e-6)
    assert np.isfinite(normaliser.action(raw)).all()
    assert normaliser.action_low[2] < normaliser.action_high[2]


def test_a_batch_moves_and_is_cut_as_one(batch: Batch) -> None:
    """`to` and `[...]` reach every tensor, the features too, and leave the original as it was."""
    batch.features["encoder/now"] = torch.arange(6.0)
    assert [tensor.device.type for tensor in tensors(batch.to("meta"))] == 12 * ["meta"]
    assert batch.image.device.type == "cpu"
    assert len(batch) == 6
    assert batch[1:3].sample.tolist() == batch[torch.tensor([1, 2])].sample.tolist() == [1, 2]
    labelled = batch[batch.has_action]
    assert len(labelled) == 4
    assert labelled.features["encoder/now"].tolist() == [0, 1, 2, 3]
    assert equal(batch[:], batch)


def test_has_action_needs_one_recorded_number(batch: Batch) -> None:
    """A padded chunk still counts, an empty one does not."""
    assert batch.has_action.tolist() == [True] * 4 + [False] * 2
    batch.action_mask[1] = False
    batch.action_mask[1, 0, 2] = True
    assert batch.has_action.tolist() == [True] * 4 + [False] * 2


def test_no_demonstrations_is_an_error(cut: Cut) -> None:
    """Nothing to fit the normaliser on: the line names the option."""
    with pytest.raises(UserError, match=r"--data\.demos"):
        cut(demos=0)


def test_tasks_of_different_robots_do_not_mix(cut: Cut, toy_data: Path, tmp_path: Path) -> None:
    """A robot with two numbers of state and one with four cannot share a table of numbers: one line that names both."""
    shutil.copytree(toy_data, tmp_path, dirs_exist_ok=True)
    folder = tmp_path / "32" / "reach"
    arrays = {"frames": np.zeros((5, 1, 32, 32, 3), np.uint8), "state": np.zeros((5, 4)), "action": np.zeros((4, 4))}
    for number in range(12):
        write_episode(folder / f"{number:06d}", arrays, {"seed": number, "noise": 0.0, "success": True, "length": 4})
    write_manifest(folder, {"task": "reach", "instruction": "reach", "size": 32}, wanted=12)
    with pytest.raises(UserError, match=r"toy-red.*reach|reach.*toy-red"):
        cut(tasks=("toy-red", "reach"), root=str(tmp_path))


def test_damage_is_found_before_training_starts(cut: Cut, toy_data: Path, tmp_path: Path) -> None:
    """One truncated picture file of twenty-four: it is named when the windows are made, not an hour later."""
    shutil.copytree(toy_data, tmp_path, dirs_exist_ok=True)
    frames = tmp_path / "32" / "toy-blue" / "000004" / "frames.npy"
    frames.write_bytes(frames.read_bytes()[:5000])
    with pytest.raises(UserError, match=r"toy-blue/000004/frames\.npy"):
        cut(root=str(tmp_path))
