"""IQ-Learn learns: thresholds with a margin, fixed seeds."""

import os

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_iq import IQLearn, load_demonstrations
from tests.environments import OLDER_IDS, env_id, steppable_env_id

pytestmark = [pytest.mark.slow, pytest.mark.learns]

needs_demonstrations = pytest.mark.skipif(
    "SB3_IQ_DEMOS" not in os.environ, reason="SB3_IQ_DEMOS does not name a folder of demonstrations, see benchmarks/README.md"
)


def mean_return(model, env_id, n_episodes=20):
    env = make_vec_env(env_id, n_envs=n_episodes, seed=10_000)
    return evaluate_policy(model, env, n_episodes, deterministic=True, warn=False)[0]


class Target(gym.Env):
    """One step of an episode of 20: the observation is where the action should go."""

    observation_space = spaces.Box(-1.0, 1.0, (2,), np.float32)
    action_space = spaces.Box(-3.0, 3.0, (2,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.step_count = 0
        return self._observe(), {}

    def _observe(self):
        self.target = self.np_random.uniform(-1, 1, size=2).astype(np.float32)
        return self.target

    def step(self, action):
        reward = -float(np.abs(action / 2 - self.target).mean())
        self.step_count += 1
        return self._observe(), reward, False, self.step_count >= 20, {}


def target_demonstrations(n_episodes=10):
    env = Target()
    episodes = []
    for seed in range(n_episodes):
        obs, _ = env.reset(seed=seed)
        observations, actions = [obs], []
        for _ in range(20):
            actions.append(2 * obs)
            obs, *_ = env.step(actions[-1])
            observations.append(obs)
        episodes.append(dict(obs=np.array(observations), acts=np.array(actions), terminal=False))
    columns = {key: [episode[key] for episode in episodes] for key in ("obs", "acts", "terminal")}
    return load_demonstrations(columns)


@pytest.mark.both_stacks
def test_cartpole_offline():
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, seed=0, device="cpu").learn(2_000)
    assert mean_return(model, "CartPole-v1") >= 475


def test_cartpole_online():
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", seed=0, device="cpu").learn(3_000)
    assert mean_return(model, "CartPole-v1") >= 400


@pytest.mark.parametrize("offline", [True, False])
def test_box_actions(offline):
    """A random policy errs by 1 in the mean, one that does nothing by 0.5."""
    model = IQLearn("MlpPolicy", Target(), target_demonstrations(), offline=offline, seed=0, device="cpu", learning_starts=100)
    model.learn(700)
    env = Target()
    env.reset(seed=0)
    error = -evaluate_policy(model, env, 5, warn=False)[0] / 20
    assert error < 0.25


@needs_demonstrations
def test_lunar_lander_offline():
    demonstrations = load_demonstrations("demos:LunarLander-v3", n_trajectories=3, seed=0)
    lunar_lander = steppable_env_id("LunarLander-v3")
    model = IQLearn("MlpPolicy", lunar_lander, demonstrations, offline=True, seed=0, device="cpu").learn(3_000)
    assert mean_return(model, lunar_lander) >= 150


@needs_demonstrations
def test_acrobot_online_from_one_demonstration():
    """Without a prior of the rewards, what a clone does in states that no demonstration has is forgotten (-130 to -260)."""
    acrobot = steppable_env_id("Acrobot-v1")
    demonstrations = load_demonstrations("demos:Acrobot-v1", n_trajectories=1, seed=1)
    model = IQLearn("MlpPolicy", acrobot, demonstrations, seed=1, device="cpu").learn(4_000)
    assert mean_return(model, acrobot) >= -110


@needs_demonstrations
def test_acrobot_offline_from_a_subsampled_demonstration():
    acrobot = steppable_env_id("Acrobot-v1")
    demonstrations = load_demonstrations("demos:Acrobot-v1", n_trajectories=3, subsample_freq=2, seed=0)
    model = IQLearn("MlpPolicy", acrobot, demonstrations, offline=True, seed=0, device="cpu").learn(3_000)
    assert mean_return(model, acrobot) >= -130


@pytest.mark.both_stacks
@needs_demonstrations
@pytest.mark.parametrize("name", [*OLDER_IDS, "Acrobot-v1", "MountainCar-v0", "Pendulum-v1", "BipedalWalker-v3"])
def test_recorded_demonstrations_fit_their_environments(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MuJoCo writes warnings to a file where it runs
    demonstrations = load_demonstrations(f"demos:{name}")
    model = IQLearn("MlpPolicy", env_id(name), demonstrations, offline=True, seed=0, device="cpu").learn(2)
    assert model.expert_buffer.size() == demonstrations.card["n_transitions"]
    assert model.expert_buffer.all().dones.sum() == sum(demonstrations.card["terminated"])
