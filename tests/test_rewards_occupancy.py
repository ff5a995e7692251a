"""The form "occupancy": how much of their time the demonstrations spend near a state."""

import numpy as np
import pytest
from gymnasium import spaces
from scipy.stats import multivariate_normal
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import Demonstrations, IQLearn, Trajectory
from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.rewards import LearnedReward, LearnedRewardVecEnv
from sb3_iq.rewards.occupancy import StateOccupancy
from tests.test_rewards import FLOAT_IMAGE, SMALL, batch_of, make
from tests.utils import BOX, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

NAMED = spaces.Dict({"a": BOX, "b": BOX})


def buffer_of(*episodes):
    """:return: demonstrations of these states, each shape (n, n_numbers)"""
    space = spaces.Box(-np.inf, np.inf, episodes[0].shape[1:], np.float32)
    trajectories = [
        Trajectory(obs.astype(np.float32), np.zeros(len(obs) - 1, np.int64), None, terminated=True, truncated=False)
        for obs in episodes
    ]
    return ExpertBuffer(Demonstrations(trajectories), space, DISCRETE)


def test_is_a_kernel_density():
    """The mean of Gaussians in standard deviations, of Scott's width; a demonstration is rated by the others alone."""
    rng = np.random.default_rng(0)
    episodes = [rng.normal(loc, [1.0, 5.0], (21, 2)) for loc in (-1.0, 0.0, 2.0)]
    occupancy = StateOccupancy.of(buffer_of(*episodes))
    own = [obs[:-1].astype(np.float32).astype(np.float64) for obs in episodes]
    states = np.concatenate(own)
    mean, std, width = states.mean(axis=0), states.std(axis=0), 60 ** (-1 / 6)

    def log_density(rows, others):
        kernels = [multivariate_normal((state - mean) / std, width**2).pdf((rows - mean) / std) for state in others]
        return np.log(np.mean(kernels, axis=0)) + np.log(2 * np.pi * width**2)  # without a Gaussian's constant factor

    rated = np.concatenate([log_density(own[i], np.concatenate([own[j] for j in range(3) if j != i])) for i in range(3)])
    assert occupancy.typical == pytest.approx(rated.mean(), abs=1e-4)
    assert occupancy.unit == pytest.approx(4 * rated.std(), abs=1e-3)
    rows = np.array([[0.0, 0.0], [-2.0, 6.0], [4.0, -9.0]])
    expected = np.clip(1 + (log_density(rows, states) - rated.mean()) / (4 * rated.std()), 0, 2)
    assert occupancy.likeness(rows) == pytest.approx(expected, abs=1e-3)
    assert (occupancy.likeness(np.array([[1e6, 0.0], [np.float32(1e30), 0.0]])) == 0).all()


def test_where_the_expert_stays_is_better_than_where_it_only_passes():
    """A distance to the nearest state can't tell these apart: both are states of the demonstrations."""
    way = np.linspace(0, 10, 11)
    episodes = [np.concatenate([way, np.full(90, 10.0)])[:, None] + 0.01 * i for i in range(3)]
    stays, passes, never = StateOccupancy.of(buffer_of(*episodes)).likeness(np.array([[10.0], [5.0], [-20.0]]))
    assert stays > 1 > passes + 0.1 > passes > never == 0


@pytest.mark.parametrize("n_steps", [1, 2, 30])
def test_of_a_single_demonstration(n_steps):
    """Its states are rated without their neighbours in time; of a few steps there are no others."""
    obs = np.random.default_rng(0).normal(size=(n_steps + 1, 3))
    occupancy = StateOccupancy.of(buffer_of(obs))
    likeness = occupancy.likeness(obs)
    assert np.isfinite(occupancy.typical) and occupancy.unit >= 1 and np.isfinite(likeness).all()
    assert likeness[:-1].mean() == pytest.approx(1.0, abs=0.5)


def test_what_is_constant_in_the_demonstrations():
    obs = np.random.default_rng(0).normal(size=(40, 2))
    obs[:, 1] = 7.0
    occupancy = StateOccupancy.of(buffer_of(obs[:20], obs[20:]))
    near, far = occupancy.likeness(np.array([[0.0, 7.0], [0.0, 17.0]]))
    assert near > 1 and far == 0


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX], ids=["discrete", "continuous"])
@pytest.mark.parametrize("observation_space", [BOX, NAMED], ids=["box", "dict"])
def test_reward(action_space, observation_space, tmp_path):
    """It survives saving, has the ends of the bounded form, and an environment pays what a batch is worth."""
    model = make("MultiInputPolicy" if observation_space is NAMED else "MlpPolicy", observation_space, action_space)
    reward = LearnedReward(model, form="occupancy")
    batch = batch_of(observation_space, action_space)
    tail = reward.with_tail(*batch)
    assert tail.rewards.dtype == np.float32 and tail.rewards.std() > 0
    assert np.array_equal(tail.absorbing, reward.with_form("bounded").with_tail(*batch).absorbing)
    if action_space is WIDE_BOX:
        assert (reward(*batch, standard_error=True)[1] == 0).all()
    reward.save(tmp_path / "reward.zip")
    loaded = LearnedReward.load(tmp_path / "reward.zip", device="cpu")
    assert loaded.form == "occupancy" and np.array_equal(loaded.with_tail(*batch), tail)

    venv = LearnedRewardVecEnv(DummyVecEnv([lambda: RandomEnv(observation_space, action_space)] * 2), loaded, gamma=0.9)
    venv.seed(0)
    obs = venv.reset()
    for _ in range(5):
        actions = np.array([venv.action_space.sample() for _ in range(2)])
        before = {key: values.copy() for key, values in obs.items()} if isinstance(obs, dict) else obs.copy()
        obs, rewards, dones, _ = venv.step(actions)
        going_on = ~dones
        assert rewards[going_on] == pytest.approx(loaded(before, actions, obs, dones)[going_on], abs=1e-6)


def test_observations_are_raw():
    """The statistics of VecNormalize are no part of it: rho is a density of the environment's own states."""
    env = VecNormalize(DummyVecEnv([lambda: RandomEnv(BOX, DISCRETE)]))
    trajectories = random_trajectories(RandomEnv(BOX, DISCRETE))
    model = IQLearn("MlpPolicy", env, trajectories, **SMALL).learn(20)
    obs, acts, next_obs, terminated = batch_of(BOX, DISCRETE)
    rewards = LearnedReward(model, form="occupancy")(obs, acts, next_obs, terminated)
    assert np.array_equal(rewards, StateOccupancy.of(model.demonstrations).likeness(obs))


@pytest.mark.parametrize("space", [FLOAT_IMAGE, spaces.Discrete(5)], ids=["images", "codes"])
def test_needs_vectors(space):
    model = make("CnnPolicy" if space is FLOAT_IMAGE else "MlpPolicy", space)
    with pytest.raises(ValueError, match=r"no vectors of numbers.*use 'bounded'"):
        LearnedReward(model, form="occupancy")


def test_needs_demonstrations(tmp_path):
    model = make()
    with pytest.raises(
        ValueError, match=r"does not hold the demonstrations' states.*LearnedReward\(model, form='occupancy'\)"
    ):
        LearnedReward(model).with_form("occupancy")
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model", device="cpu")  # arrays have no name to read them again by
    with pytest.raises(ValueError, match="expert_data="):
        LearnedReward(loaded, form="occupancy")
