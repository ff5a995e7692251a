"""Stacked frames are stored once each, and handed out as they were read."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_iq.demonstrations import Demonstrations, ExpertBuffer, Trajectory, load_demonstrations
from sb3_iq.demonstrations.frame_stacks import StackedRows
from sb3_iq.demonstrations.saving import save_trajectories
from tests.utils import DISCRETE

SIDE = 24


def stack(frames, n, order):
    """What SB3's VecFrameStack makes of the frames of an episode."""
    stacked = StackedObservations(1, n, spaces.Box(0, 255, frames.shape[1:], np.uint8), order)
    rows = [stacked.reset(frames[:1])[0].copy()]
    return np.stack(rows + [stacked.update(frame[None], np.array([False]), [{}])[0][0].copy() for frame in frames[1:]])


def repeat_first(frames, n):
    """What gymnasium's FrameStack makes of them."""
    padded = np.concatenate([frames[:1]] * (n - 1) + [frames])
    return np.stack([padded[t : t + n] for t in range(len(frames))])


def random_frames(shape, lengths=(40, 1, 7), seed=0):
    rng = np.random.default_rng(seed)
    return [rng.integers(0, 256, (n + 1, *shape)).astype(np.uint8) for n in lengths]


def make_buffer(observations, space, **kwargs):
    def length(obs):
        return len(next(iter(obs.values())) if isinstance(obs, dict) else obs) - 1

    episodes = [Trajectory(obs, np.arange(length(obs)) % 3, None, True, False) for obs in observations]
    return ExpertBuffer(Demonstrations(tuple(episodes), **kwargs), space, DISCRETE, rng=np.random.default_rng(0))


def check(buffer, observations, freq=1):
    """All that the buffer hands out is what was given to it."""
    everything = buffer.all()
    np.testing.assert_array_equal(everything.observations, np.concatenate([obs[:-1:freq] for obs in observations]))
    np.testing.assert_array_equal(everything.next_observations, np.concatenate([obs[1::freq] for obs in observations]))
    assert everything.observations.dtype == buffer.sample(3).observations.dtype
    firsts = {obs[0].tobytes() for obs in observations}
    assert {obs.numpy().tobytes() for obs in buffer.sample_initial_observations(40)} == firsts
    np.testing.assert_array_equal(np.concatenate(list(buffer.scan_observations())), everything.observations)
    rows = buffer._observations[""].take_array(np.arange(len(observations[0])))
    np.testing.assert_array_equal(rows, observations[0], strict=True)


GREY = random_frames((SIDE, SIDE, 1))
COLOURED = random_frames((SIDE, SIDE, 3))
CASES = {
    "channels last": ([stack(frames, 4, "last") for frames in GREY], (SIDE, SIDE, 4), 4),
    "colours": ([stack(frames, 3, "last") for frames in COLOURED], (SIDE, SIDE, 9), 3),
    "channels first": ([stack(np.moveaxis(frames, -1, 1), 4, "first") for frames in GREY], (4, SIDE, SIDE), 4),
    "repeated first frame": ([repeat_first(frames[..., 0], 4) for frames in GREY], (4, SIDE, SIDE), 4),
    "newest first": ([stack(frames, 4, "last")[..., ::-1].copy() for frames in GREY], (SIDE, SIDE, 4), 4),
    "an axis of its own": ([repeat_first(frames, 2) for frames in COLOURED], (2, SIDE, SIDE, 3), 2),
}


@pytest.mark.parametrize("freq", [1, 3])
@pytest.mark.parametrize("case", CASES)
def test_stacks_share_their_frames(case, freq):
    observations, shape, n_frames = CASES[case]
    buffer = make_buffer(observations, spaces.Box(0, 255, shape, np.uint8), subsample_freq=freq)
    assert isinstance(buffer._observations[""], StackedRows)
    assert buffer._observations[""].array[0].size == np.prod(shape) / n_frames
    check(buffer, observations, freq)


def test_as_the_environment_has_its_channels():
    """SB3 puts them first, whatever the data has."""
    observations = CASES["channels last"][0]
    buffer = make_buffer(observations, spaces.Box(0, 255, (4, SIDE, SIDE), np.uint8))
    assert isinstance(buffer._observations[""], StackedRows)
    check(buffer, [np.moveaxis(obs, -1, 1) for obs in observations])


def test_floats_and_dictionaries():
    stacks = [obs.astype(np.float32) / 255 for obs in CASES["channels first"][0]]
    vectors = [np.random.default_rng(0).normal(size=(len(obs), 3)).astype(np.float32) for obs in stacks]
    image, vector = spaces.Box(0.0, 1.0, (4, SIDE, SIDE)), spaces.Box(-9.0, 9.0, (3,))
    check(make_buffer(stacks, image), stacks)
    named = [{"image": obs, "vector": vec} for obs, vec in zip(stacks, vectors, strict=True)]
    buffer = make_buffer(named, spaces.Dict(image=image, vector=vector))
    assert {key: isinstance(rows, StackedRows) for key, rows in buffer._observations.items()} == {
        "image": True,
        "vector": False,
    }
    everything = buffer.all()
    np.testing.assert_array_equal(everything.observations["image"], np.concatenate([obs[:-1] for obs in stacks]))
    np.testing.assert_array_equal(everything.next_observations["vector"], np.concatenate([vec[1:] for vec in vectors]))


@pytest.mark.parametrize("place", [(0, 20), (2, 7)])
def test_one_pixel_that_differs_and_all_is_stored_as_it_is(place):
    """No step is taken for granted, the last one of the last episode neither."""
    episode, step = place
    observations = [obs.copy() for obs in CASES["channels last"][0]]
    observations[episode][step, 5, 5, 0] ^= 1
    buffer = make_buffer(observations, spaces.Box(0, 255, (SIDE, SIDE, 4), np.uint8))
    assert not isinstance(buffer._observations[""], StackedRows)
    check(buffer, observations)


@pytest.mark.parametrize("shape", [(3, SIDE, SIDE), (SIDE, SIDE, 3), (SIDE, SIDE, 1)])
def test_frames_that_are_not_stacked(shape):
    observations = random_frames(shape)
    buffer = make_buffer(observations, spaces.Box(0, 255, shape, np.uint8))
    assert not isinstance(buffer._observations[""], StackedRows)
    check(buffer, observations)


@pytest.mark.parametrize("length", [300, 30])
def test_they_take_the_memory_of_their_single_frames(length):
    """3,000 transitions of four stacked frames, in long episodes and in short ones: at most 1.05 of it."""
    frames = random_frames((40, 40, 1), [length] * (3_000 // length))
    buffer = make_buffer([stack(episode, 4, "last") for episode in frames], spaces.Box(0, 255, (40, 40, 4), np.uint8))
    single = sum(episode.nbytes for episode in frames)
    frames_and_index = buffer._observations[""].nbytes
    assert buffer.size() == 3_000 and single < frames_and_index <= 1.05 * single
    assert frames_and_index < 0.27 * sum(4 * episode.nbytes for episode in frames)


def test_drawn_as_before():
    observations = CASES["channels last"][0]
    space = spaces.Box(0, 255, (4, SIDE, SIDE), np.uint8)
    spoiled = [*observations, np.random.default_rng(0).integers(0, 256, (2, SIDE, SIDE, 4)).astype(np.uint8)]
    stacked, plain = make_buffer(observations, space), make_buffer(spoiled, space)
    assert not isinstance(plain._observations[""], StackedRows)
    positions = stacked.draw(20)
    for name in ("observations", "next_observations", "dones"):
        assert th.equal(getattr(stacked.at(positions), name), getattr(plain.at(positions), name))


@pytest.mark.parametrize("max_memory_gb", [0.0, 2.0])
@pytest.mark.parametrize("name", ["folder", "file.parquet"])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32, np.bool_])
def test_on_disk_images_take_no_more_than_their_numbers(tmp_path, monkeypatch, name, dtype, max_memory_gb):
    monkeypatch.setattr("sb3_iq.demonstrations.saving.MAX_NUMBERS", 60_000)  # several pieces
    episodes = [
        Trajectory((obs[:, :8, :8] > 127).astype(dtype), np.arange(len(obs) - 1), None, True, False) for obs in GREY * 9
    ]
    save_trajectories(episodes, tmp_path / name)
    loaded = load_demonstrations(tmp_path / name, max_memory_gb=max_memory_gb)
    for one, other in zip(episodes, loaded, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs, strict=False)
        assert one.obs.dtype == other.obs.dtype
    if name == "folder" and dtype == np.float32:
        written = sum(file.stat().st_size for file in (tmp_path / name).glob("*.arrow"))
        assert written < 1.4 * sum(episode.obs.nbytes for episode in episodes)  # with actions, infos and the schema


@pytest.mark.parametrize("case", CASES)
def test_no_row_is_a_batch_of_none(case):
    observations, shape, _ = CASES[case]
    buffer = make_buffer(observations, spaces.Box(0, 255, shape, np.uint8))
    nothing = buffer.at(np.zeros(0, int))
    assert nothing.observations.shape == nothing.next_observations.shape == (0, *shape)
