"""Transitions by the discounted occupancy: step t of an episode weighs gamma^t."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import IQLearn
from sb3_iq.demonstrations import Demonstrations, ExpertBuffer, Trajectory
from sb3_iq.iq_learn.discounted import ExpertOccupancy, ReplayOccupancy
from sb3_iq.iq_learn.replay import CompactReplayBuffer, transitions_at
from tests.utils import BOX, DISCRETE, SMALL, WIDE_BOX, RandomEnv, make_model, random_trajectories, sample_batch

GAMMA = 0.9
VECTORS = spaces.Dict(a=BOX, b=spaces.Discrete(3))
ONE = spaces.Box(-1e6, 1e6, (1,), np.float32)


def fill(buffer, steps, ends):
    """Add rows whose observations are the steps in their episodes; ``steps`` and ``ends`` of shape (n, n_envs)."""
    for step, end in zip(steps, ends, strict=True):
        obs, zeros = step[:, None].astype(np.float32), np.zeros((len(step), 1), np.float32)
        limits = [{"TimeLimit.truncated": bool(e == 2)} for e in end]
        buffer.add(obs, obs + 1, zeros, np.zeros(len(step)), end > 0, limits)


def episodes(n_rows, n_envs, seed=0):
    """:return: steps in their episodes; 1 where a terminal state ends it, 2 a time limit, else 0: shape (n_rows, n_envs)"""
    rng = np.random.default_rng(seed)
    ends = rng.choice(3, p=[0.85, 0.1, 0.05], size=(n_rows, n_envs))
    steps = np.zeros((n_rows, n_envs), int)
    for row in range(1, n_rows):
        steps[row] = np.where(ends[row - 1] > 0, 0, steps[row - 1] + 1)
    return steps, ends


@pytest.mark.parametrize("n_envs", [1, 3])
@pytest.mark.parametrize("sizes", [[50], [1] * 70, [7, 0, 20, 3, 50, 1, 1], [0, 200]])
def test_steps_are_counted(n_envs, sizes):
    """However much is added between two calls, round the ring and over."""
    buffer = ReplayBuffer(60 * n_envs, ONE, ONE, "cpu", n_envs)
    occupancy = ReplayOccupancy(buffer, GAMMA)
    steps, ends = episodes(sum(sizes), n_envs)
    done = 0
    for size in sizes:
        fill(buffer, steps[done : done + size], ends[done : done + size])
        done += size
        occupancy.follow(done)
    counted, expected = occupancy.steps[: buffer.size()], buffer.observations[: buffer.size(), :, 0].astype(int)
    if sizes[-1] < 60:
        assert (counted == expected).all()
        return
    # Of the episode that was running when its beginning was overwritten nobody knows the step
    order = (buffer.pos + np.arange(60)) % 60
    for idx in range(n_envs):
        known = np.flatnonzero(expected[order, idx] == 0)[0]
        assert (counted[order[known:], idx] == expected[order[known:], idx]).all()
        assert (counted[order[:known], idx] == np.arange(known)).all()


@pytest.mark.parametrize("n_envs", [1, 2])
@pytest.mark.parametrize("observation_space", [BOX, VECTORS])
def test_a_reset_by_learn_is_the_beginning_of_an_episode(observation_space, n_envs):
    """Nothing in SB3's buffer says so but the observations: the last next one is not where the next transition begins."""
    env = DummyVecEnv([lambda: RandomEnv(observation_space, WIDE_BOX, length=100)] * n_envs)
    policy = "MultiInputPolicy" if observation_space is VECTORS else "MlpPolicy"
    demonstrations = random_trajectories(RandomEnv(observation_space, WIDE_BOX))
    model = IQLearn(policy, env, demonstrations, **SMALL)
    for _ in range(3):
        model.learn(12 * n_envs)
    model.learn(12 * n_envs, reset_num_timesteps=False)
    occupancy = model.sampler.replay_occupancy
    occupancy.follow(model.num_timesteps // n_envs)
    expected = [*range(12), *range(12), *range(24)]
    assert occupancy.steps[:48].T.tolist() == [expected] * n_envs
    # Seen at once as well as step by step
    again = ReplayOccupancy(model.replay_buffer, GAMMA)
    again.follow(0)
    assert (again.steps == occupancy.steps).all()
    assert set(again.draw_starts(200)[0].tolist()) == {0, 12, 24}


@pytest.mark.parametrize("buffer_class", [ReplayBuffer, CompactReplayBuffer])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_early_steps_are_drawn_more_often(buffer_class, n_envs):
    compact = buffer_class is CompactReplayBuffer
    options = dict(optimize_memory_usage=True, handle_timeout_termination=False) if compact else {}
    buffer = buffer_class(60 * n_envs, ONE, ONE, "cpu", n_envs, **options)
    steps, ends = episodes(75, n_envs)
    fill(buffer, steps, ends)
    occupancy = ReplayOccupancy(buffer, GAMMA)
    occupancy.follow(75)
    np.random.seed(0)
    rows, envs = map(np.concatenate, zip(*(occupancy.draw(500) for _ in range(200)), strict=True))
    drawn = np.zeros((60, n_envs))
    np.add.at(drawn, (rows, envs), 1 / len(rows))
    weights = GAMMA ** occupancy.steps.astype(float)
    if compact:
        weights[buffer.pos] = 0
        weights[buffer.timeouts > 0] = 0
    assert drawn[weights == 0].sum() == 0
    assert np.abs(drawn - weights / weights.sum()).max() < 0.004


def test_a_very_long_episode_can_be_drawn_from():
    buffer = ReplayBuffer(100, ONE, ONE, "cpu", 1)
    fill(buffer, np.arange(100)[:, None], np.zeros((100, 1)))
    occupancy = ReplayOccupancy(buffer, GAMMA)
    occupancy.follow(100)
    occupancy.steps += 1_000_000
    rows, _ = occupancy.draw(50)
    assert rows.max() < 100 and len(set(rows)) > 5


def test_demonstrations():
    lengths, freq = (30, 3), 1
    trajectories = [
        Trajectory(np.arange(n + 1, dtype=np.float32)[:, None], np.zeros((n, 1), np.float32), None, True, False)
        for n in lengths
    ]
    buffer = ExpertBuffer(Demonstrations(trajectories), ONE, ONE, rng=np.random.default_rng(0))
    occupancy = ExpertOccupancy(buffer, GAMMA)
    steps = buffer.places()[1]
    assert steps.tolist() == [*range(0, 30, freq), *range(3)]
    counts = np.bincount(occupancy.draw(100_000), minlength=33) / 100_000
    weights = GAMMA**steps
    assert np.abs(counts - weights / weights.sum()).max() < 0.004


@pytest.mark.parametrize("observation_space", [BOX, VECTORS])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_transitions_are_those_that_are_stored(observation_space, action_space):
    policy = "MultiInputPolicy" if observation_space is VECTORS else "MlpPolicy"
    model = make_model(policy, observation_space, action_space).learn(40)
    buffer = model.replay_buffer
    samples = transitions_at(buffer, np.arange(30), np.zeros(30, int))
    expected = buffer._get_samples(np.arange(30))  # one environment: its only column
    for name in ("actions", "dones", "rewards"):
        assert th.equal(getattr(samples, name), getattr(expected, name))
    for name in ("observations", "next_observations"):
        ours, theirs = getattr(samples, name), getattr(expected, name)
        pairs = [(ours[key], theirs[key]) for key in ours] if isinstance(ours, dict) else [(ours, theirs)]
        assert all(th.equal(*pair) for pair in pairs)


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("normalizes", [False, True])
@pytest.mark.parametrize("n_envs", [1, 2])
def test_batches_of_continuous_actions_have_both_parts(normalizes, n_envs):
    env = DummyVecEnv([lambda: RandomEnv(BOX, WIDE_BOX)] * n_envs)
    env = VecNormalize(env, norm_reward=False) if normalizes else env
    trajectories = random_trajectories(RandomEnv(BOX, WIDE_BOX))
    model = IQLearn("MlpPolicy", env, trajectories, **{**SMALL, "seed": 0}).learn(60)
    assert model.sampler.discounted_share == 0.5
    batch = sample_batch(model, 16)
    assert batch.n_expert == 4 and len(batch.actions) == len(batch.reward_prior) == 20
    rewards = model.prior(transitions_at(model.replay_buffer, *map(np.array, ([3], [0])), model.get_vec_normalize_env()))
    assert rewards.isfinite().all()


def test_published_settings_draw_uniformly():
    for preset in ("paper", "ls-iq"):
        assert make_model("MlpPolicy", BOX, WIDE_BOX, preset=preset).learn(10).sampler.discounted_share == 0
    assert make_model("MlpPolicy", BOX, DISCRETE).learn(10).sampler.discounted_share == 0
