"""Initial observations out of SB3's replay buffer."""

import copy
import pickle

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_iq.iq_learn.replay import EpisodeStarts, sample_episode_starts

COUNTER = spaces.Box(0, 10_000, (1,), np.float32)


def fill(buffer, lengths, n_steps):
    """Observation = 100 * episode + step, for each environment on its own, with the given lengths of episodes in turn."""
    n_envs = buffer.n_envs
    episode, step = np.arange(n_envs), np.zeros(n_envs, dtype=int)
    for _ in range(n_steps):
        obs = (100.0 * episode + step)[:, None]
        done = step + 1 >= np.array(lengths)[episode % len(lengths)]
        infos = [{"TimeLimit.truncated": bool(d and e % 2)} for d, e in zip(done, episode, strict=True)]
        if isinstance(buffer, DictReplayBuffer):
            buffer.add({"a": obs}, {"a": obs + 1}, np.zeros((n_envs, 1)), np.zeros(n_envs), done, infos)
        else:
            buffer.add(obs, obs + 1, np.zeros((n_envs, 1)), np.zeros(n_envs), done, infos)
        episode, step = episode + n_envs * done, np.where(done, 0, step + 1)


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("n_steps", [1, 7, 20, 21, 50, 64])
@pytest.mark.parametrize("kind", [ReplayBuffer, DictReplayBuffer])
def test_only_starts_of_episodes(n_envs, n_steps, kind):
    """Whatever the buffer has forgotten, and whether episodes were terminated or truncated."""
    np.random.seed(0)
    space = spaces.Dict({"a": COUNTER}) if kind is DictReplayBuffer else COUNTER
    buffer = kind(20 * n_envs, space, spaces.Discrete(2), n_envs=n_envs)
    fill(buffer, [4, 7, 2], n_steps)
    obs = sample_episode_starts(buffer, 300)
    obs = (obs["a"] if kind is DictReplayBuffer else obs).numpy()
    assert obs.shape == (300, 1)
    assert (obs % 100 == 0).all()
    stored = buffer.observations["a"] if kind is DictReplayBuffer else buffer.observations
    stored = stored[: buffer.size()]
    assert set(np.unique(obs)) == set(np.unique(stored[stored % 100 == 0])) or n_steps >= 20  # the oldest row's past is gone


def test_an_episode_longer_than_the_buffer():
    buffer = ReplayBuffer(5, COUNTER, spaces.Discrete(2))
    fill(buffer, [90], 12)
    assert (sample_episode_starts(buffer, 10).numpy() == 7).all()


def scanned_starts(buffer):
    """All starts of episodes in the buffer, by their definition: after an end, and where the run started."""
    starts = set()
    for row in range(buffer.size()):
        if buffer.full and row == buffer.pos:
            continue  # the step before it is gone
        first = row == 0 and not buffer.full
        starts |= {(row, env) for env in range(buffer.n_envs) if first or buffer.dones[row - 1, env]}
    return starts


def add(buffer, n_steps, rng, share=0.2):
    for _ in range(n_steps):
        obs = rng.uniform(size=(buffer.n_envs, 1))
        done = rng.uniform(size=buffer.n_envs) < share
        buffer.add(obs, obs, np.zeros((buffer.n_envs, 1)), np.zeros(buffer.n_envs), done, [{}] * buffer.n_envs)


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("options", [{}, dict(optimize_memory_usage=True, handle_timeout_termination=False)])
def test_starts_are_followed_as_a_scan_would_find_them(n_envs, options):
    """However much is added between two draws, round the ring and over, and after the buffer was emptied or replaced."""
    np.random.seed(0)
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(15 * n_envs, COUNTER, spaces.Discrete(2), n_envs=n_envs, **options)
    starts = EpisodeStarts()
    for n_steps in [1, 1, 3, 5, 4, 1, 1, 2, 7, 15, 1, 0, 14, 16, 3, 40, 1, 30, 6, -1, 2, 1, 9, -1, 20, 5]:
        if n_steps < 0:
            buffer.reset()
            add(buffer, 3, rng)
        add(buffer, n_steps, rng)
        if rng.uniform() < 0.3:  # as SB3 does when an episode is cut between two calls of learn()
            buffer.dones[buffer.pos - 1] = True
        drawn = set(zip(*starts.draw(buffer, 400), strict=True))
        expected = scanned_starts(buffer)
        assert drawn == expected or (not expected and drawn == {(buffer.pos, env) for env in range(n_envs)})


def test_a_copied_or_loaded_buffer_draws_the_same():
    rng = np.random.default_rng(0)
    buffer = ReplayBuffer(20, COUNTER, spaces.Discrete(2))
    for _ in range(30):
        add(buffer, 2, rng)
        sample_episode_starts(buffer, 4)
    buffers = buffer, copy.deepcopy(buffer), pickle.loads(pickle.dumps(buffer))
    draws = []
    for each in buffers:
        np.random.seed(0)
        draws.append(sample_episode_starts(each, 50).numpy())
    assert np.array_equal(draws[0], draws[1]) and np.array_equal(draws[0], draws[2])
