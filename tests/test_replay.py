"""Initial observations out of SB3's replay buffer."""

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer

from sb3_iq.iq_learn.replay import sample_episode_starts

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
