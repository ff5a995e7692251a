"""IQRewardNet with imitation's own wrappers."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import IQLearn
from sb3_iq.rewards import LearnedReward, LearnedRewardVecEnv
from tests.utils import BOX, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

pytest.importorskip("imitation", reason="needs imitation")

from imitation.rewards import reward_nets
from imitation.rewards.reward_wrapper import RewardVecEnvWrapper
from imitation.util.networks import RunningNorm

from sb3_iq.imitation import IQRewardNet

SMALL = dict(batch_size=16, seed=0, device="cpu", offline=True)
DICT = spaces.Dict({"a": BOX, "b": BOX})


def make_reward(observation_space=BOX, action_space=DISCRETE, terminal_v=None):
    env = RandomEnv(observation_space, action_space)
    policy = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"
    model = IQLearn(policy, env, random_trajectories(env), **SMALL).learn(20)
    model.terminal_v = terminal_v
    return LearnedReward(model)


def batch_of(observation_space, action_space):
    trajectory = random_trajectories(RandomEnv(observation_space, action_space))[0]
    return trajectory.obs[:-1], trajectory.acts, trajectory.obs[1:], np.arange(10) == 9


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_rewards(action_space):
    reward, batch = make_reward(action_space=action_space), batch_of(BOX, action_space)
    net = IQRewardNet(reward)
    assert isinstance(net, reward_nets.RewardNet) and list(net.parameters()) == []
    expected = reward(*batch)
    assert np.array_equal(net.predict(*batch), expected)
    assert np.array_equal(net.predict_processed(*batch), expected)
    assert np.array_equal(net(*net.preprocess(*batch)).numpy(), expected)
    tail = IQRewardNet(reward, gamma=0.8).predict(*batch)
    assert tail[:-1] == pytest.approx(expected[:-1]) and tail[-1] == pytest.approx(expected[-1] / (1 - 0.8), rel=1e-4)


def test_wrappers_and_saving(tmp_path):
    reward, batch = make_reward(), batch_of(BOX, DISCRETE)
    net = IQRewardNet(reward)
    normalized = reward_nets.NormalizedRewardNet(net, RunningNorm)
    assert normalized.predict(*batch) == pytest.approx(reward(*batch))
    assert normalized.predict_processed(*batch, update_stats=True).std() < 2
    shaped = reward_nets.ShapedRewardNet(net, lambda state: th.zeros(len(state)), discount_factor=0.99)
    assert shaped.predict(*batch) == pytest.approx(reward(*batch))
    th.save(net, tmp_path / "net.pt")
    loaded = th.load(tmp_path / "net.pt", weights_only=False)
    assert np.array_equal(loaded.predict(*batch), reward(*batch))


@pytest.mark.parametrize("observation_space", [BOX, DICT])
def test_reward_wrapper(observation_space):
    """The wrapper of imitation pays what ours does where episodes end in terminal states."""
    reward = make_reward(observation_space)

    def make_venv():
        venv = DummyVecEnv([lambda: RandomEnv(observation_space, DISCRETE, length=3)] * 2)
        venv.seed(0)
        return venv

    theirs = RewardVecEnvWrapper(make_venv(), IQRewardNet(reward, gamma=0.9).predict_processed)
    ours = LearnedRewardVecEnv(make_venv(), reward, gamma=0.9)
    for _ in range(2):  # imitation's wrapper has reset its environment once
        ours.reset()
    theirs.reset()
    for _ in range(7):
        actions = np.array([0, 2])
        assert theirs.step(actions)[1] == pytest.approx(ours.step(actions)[1], abs=1e-5)


def test_a_time_limit_reads_as_an_end_in_imitations_wrapper_alone():
    """As the page says: that one hands over ``done`` alone, ours reads the infos."""
    reward = make_reward(terminal_v=-50.0)

    def make_venv():
        venv = DummyVecEnv([lambda: RandomEnv(BOX, DISCRETE, length=3, truncates=True)])
        venv.seed(0)
        return venv

    theirs = RewardVecEnvWrapper(make_venv(), IQRewardNet(reward).predict_processed)
    ours = LearnedRewardVecEnv(make_venv(), reward, gamma=reward.gamma)
    for _ in range(2):  # imitation's wrapper has reset its environment once
        ours.reset()
    theirs.reset()
    for step in range(1, 7):
        (paid,), (_, (expected,), _, (info,)) = theirs.step(np.array([1]))[1], ours.step(np.array([1]))
        if step % 3:
            assert paid == pytest.approx(expected, abs=1e-5)
        else:
            value = reward.predict_value(info["terminal_observation"][None])[0]
            assert paid - expected == pytest.approx(reward.gamma * (value + 50.0), abs=1e-3)


def test_an_agent_learns():
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", **SMALL).learn(20)
    venv = RewardVecEnvWrapper(make_vec_env("CartPole-v1", 2), IQRewardNet(LearnedReward(model), gamma=0.99).predict_processed)
    assert PPO("MlpPolicy", venv, n_steps=32, batch_size=32, device="cpu").learn(64).num_timesteps == 64


def test_bad_arguments():
    with pytest.raises(TypeError, match="`reward` is a str: give LearnedReward"):
        IQRewardNet("model.zip")
    with pytest.raises(ValueError, match=r"`gamma` is 1.0: give the discount factor .* in \[0, 1\)"):
        IQRewardNet(make_reward(), gamma=1.0)
