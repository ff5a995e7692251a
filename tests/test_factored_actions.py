"""Actions of several parts: the factored soft Q-function against enumeration, and learned on two CartPoles at once."""

import itertools
import sys
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th
import yaml
from gymnasium import spaces
from stable_baselines3 import A2C
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import IQLearn, SpacesEnv, load_demonstrations
from sb3_iq.record import main as record
from tests.utils import BOX, RandomEnv, random_trajectories

SPACES = [spaces.MultiDiscrete([3, 2, 4]), spaces.MultiBinary(3)]


@pytest.mark.parametrize("action_space", SPACES, ids=str)
@pytest.mark.parametrize("offline", [False, True])
def test_values_are_those_of_all_actions(action_space, offline, tmp_path):
    env = RandomEnv(BOX, action_space)
    options = dict(seed=0, learning_starts=20, batch_size=16, ent_coef=0.3, policy_kwargs=dict(net_arch=[16]))
    model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=offline, **options).learn(60)
    for deterministic in (True, False):
        action, _ = model.predict(BOX.sample(), deterministic=deterministic)
        assert action_space.contains(action)
    policy, obs, alpha = model.policy, th.rand(5, 3), th.tensor(0.3)
    actions = th.tensor(list(itertools.product(*(range(n) for n in policy.sizes))))
    q_values = th.stack([policy.q_values(obs, action.expand(5, -1))[0] for action in actions], dim=1)
    log_probs = th.log_softmax(q_values / alpha, dim=1)
    assert th.allclose(policy.expected_state_value(obs, alpha), alpha * th.logsumexp(q_values / alpha, dim=1), atol=1e-5)
    assert th.allclose(policy.log_likelihood(obs, actions[:5]), log_probs[range(5), range(5)], atol=1e-5)
    assert th.allclose(policy.action_log_prob(obs)[1], (log_probs.exp() * log_probs).sum(dim=1), atol=1e-5)
    best = actions[q_values.argmax(dim=1)].numpy()
    assert np.array_equal(model.predict(obs.numpy(), deterministic=True)[0], best.astype(best.dtype))
    terminated = np.zeros(5)
    rewards = model.predict_reward(obs.numpy(), best, obs.numpy(), terminated)
    assert rewards.shape == (5,) and np.isfinite(rewards).all()
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model")
    assert np.allclose(loaded.predict_reward(obs.numpy(), best, obs.numpy(), terminated), rewards, atol=1e-6)


@pytest.mark.parametrize(
    "action_space, message",
    [
        (spaces.MultiDiscrete(np.array([[2, 2], [2, 2]])), "one axis"),
        (spaces.MultiBinary([2, 2]), "one axis"),
        (spaces.Tuple([spaces.Discrete(2)] * 2), "MultiDiscrete"),
        (spaces.Dict(a=spaces.Discrete(2)), "MultiDiscrete"),
        (spaces.Box(0, 255, (2,), np.uint8), "Box of integers"),
        (spaces.Box(-np.inf, np.inf, (2,)), "no scale of actions.*the range that the expert uses"),
        (spaces.Box(np.zeros(1, np.float32), np.full(1, np.inf, np.float32)), "no scale of actions"),
        (spaces.Discrete(3, start=1), "counts? .*from 0|count actions from 0"),
        (spaces.Box(-1, 1, (0,)), "nothing to choose.*ActionWrapper"),
    ],
    ids=str,
)
def test_refused_with_the_wrapper_that_cures_it(action_space, message):
    with pytest.raises(ValueError, match=message) as error:
        IQLearn("MlpPolicy", RandomEnv(BOX, action_space), None)
    assert "ActionWrapper" in str(error.value)


@pytest.mark.parametrize("offline", [False, True])
@pytest.mark.parametrize(
    "action_space", [spaces.Box(-np.inf, np.inf, (2,)), spaces.Tuple([spaces.Discrete(2)])], ids=["infinite", "tuple"]
)
def test_the_cure_is_told_however_the_environment_is_given(action_space, offline):
    """Before SB3 asserts that the actions are supported and finite, without saying what to do, and before data are read."""
    env = RandomEnv(BOX, action_space)
    for given in (env, DummyVecEnv([lambda: env]), SpacesEnv(BOX, action_space)):
        with pytest.raises(ValueError, match=r"Wrap the environment in a gymnasium\.ActionWrapper"):
            IQLearn("MlpPolicy", given, "nowhere.npz", offline=offline)


def test_observations_that_do_not_start_at_0_are_refused():
    for space in (spaces.Discrete(3, start=1), spaces.Dict(phase=spaces.Discrete(3, start=1), position=BOX)):
        policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
        with pytest.raises(ValueError, match="ObservationWrapper"):
            IQLearn(policy, RandomEnv(space, spaces.Discrete(2)), None)


@pytest.mark.parametrize(
    "space, message",
    [
        (spaces.Text(3), "space is Text.*FlattenObservation"),
        (spaces.Sequence(spaces.Discrete(2)), "space is Sequence.*ObservationWrapper"),
        (spaces.Tuple([spaces.Discrete(2)]), "space is Tuple.*FlattenObservation"),
        (spaces.Dict(a=spaces.Dict(b=BOX)), "entry 'a' .* is Dict.*FlattenObservation"),
        (spaces.MultiDiscrete(np.array([[2, 3]])), r"of shape \(1, 2\).*flattens"),
        (spaces.Box(-1, 1, (0,)), r"of shape \(0,\)"),
        (spaces.Dict({}), "empty Dict"),
    ],
    ids=["text", "sequence", "tuple", "nested", "2-d", "nothing", "empty"],
)
def test_observations_that_sb3_has_no_features_of_are_refused(space, message):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    with pytest.raises(ValueError, match=message):
        IQLearn(policy, RandomEnv(space, spaces.Discrete(2)), None)


def test_demonstrations_that_do_not_fit_are_refused():
    env = RandomEnv(BOX, spaces.MultiDiscrete([3, 2]))
    for trajectories, message in [
        (random_trajectories(RandomEnv(BOX, spaces.MultiDiscrete([3, 3]))), "outside 0..1"),
        (random_trajectories(RandomEnv(BOX, spaces.MultiDiscrete([3, 2, 2]))), r"of shape \(3,\)"),
        (random_trajectories(RandomEnv(BOX, spaces.Box(-1, 1, (2,)))), "continuous"),
    ]:
        with pytest.raises(ValueError, match=message):
            IQLearn("MlpPolicy", env, trajectories)


class TwoCartPoles(gym.Env):
    """Two poles, balanced by one action of two parts; the episode ends with the first that falls."""

    def __init__(self):
        self.envs = [gym.make("CartPole-v1"), gym.make("CartPole-v1")]
        self.observation_space = spaces.Box(-np.inf, np.inf, (8,), np.float32)
        self.action_space = spaces.MultiDiscrete([2, 2])

    def reset(self, *, seed=None, options=None):
        seeds = [None, None] if seed is None else [seed, seed + 1]
        return np.concatenate([env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)]), {}

    def step(self, action):
        results = [env.step(int(part)) for env, part in zip(self.envs, action, strict=True)]
        terminated, truncated = any(result[2] for result in results), any(result[3] for result in results)
        return np.concatenate([result[0] for result in results]), 1.0, terminated, truncated and not terminated, {}


@pytest.mark.slow
def test_two_cartpoles_are_learned():
    episodes = []
    for seed in range(0, 50, 10):
        env, done = TwoCartPoles(), False
        obs, acts = [env.reset(seed=seed)[0]], []
        while not done:
            acts.append(np.array([3 * obs[-1][2] + obs[-1][3] > 0, 3 * obs[-1][6] + obs[-1][7] > 0], dtype=np.int64))
            observation, _, terminated, truncated, _ = env.step(acts[-1])
            obs.append(observation)
            done = terminated or truncated
        episodes.append(dict(obs=np.stack(obs), acts=np.stack(acts), terminated=terminated, truncated=truncated))
    model = IQLearn("MlpPolicy", TwoCartPoles(), episodes, offline=True, seed=0).learn(1_500)
    env = Monitor(TwoCartPoles())
    env.reset(seed=0)  # of the starts that the evaluation draws
    mean, _ = evaluate_policy(model, env, 5)
    assert mean > 400


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("action_space", SPACES, ids=str)
def test_recorded_trained_by_the_zoo_and_recorded_again(action_space, tmp_path, monkeypatch):
    """From an agent of SB3 to one of this package, by the commands."""
    pytest.importorskip("rl_zoo3", reason='RL Zoo is not installed: pip install ".[zoo]"', exc_type=ImportError)
    from sb3_iq import zoo

    env_id = f"Parts{type(action_space).__name__}-v0"
    gym.register(env_id, entry_point=lambda **_: RandomEnv(BOX, action_space))
    monkeypatch.chdir(tmp_path)
    A2C("MlpPolicy", env_id).save("agent")
    assert record(["--algo", "a2c", "--model", "agent.zip", "--env", env_id, "--n-episodes", "3", "--out", "set"]) == 0
    hyperparams = dict(policy="MlpPolicy", expert_data="set", n_timesteps=40, learning_starts=20, batch_size=16)
    Path("iq.yml").write_text(yaml.dump({env_id: {**hyperparams, "reward_prior": 0.0}}))
    for command in (["train", "-conf", "iq.yml", "--eval-freq", "-1"], ["enjoy", "--no-render", "-n", "20"]):
        monkeypatch.setattr(sys, "argv", ["sb3_iq.zoo", *command, "--algo", "iq", "--env", env_id, "-f", "logs"])
        zoo.main()
    assert record(["--algo", "iq", "-f", "logs", "--env", env_id, "--n-episodes", "2", "--out", "again"]) == 0
    model = IQLearn.load(f"logs/iq/{env_id}_1/{env_id}.zip")
    assert model._n_updates == 20
    for episode in load_demonstrations("again"):
        obs, acts, next_obs = episode.obs[:-1], episode.acts, episode.obs[1:]
        assert all(action_space.contains(action.astype(action_space.dtype)) for action in acts)
        assert np.array_equal(model.predict(obs, deterministic=True)[0], acts)
        assert np.isfinite(model.predict_reward(obs, acts, next_obs, np.zeros(len(acts)))).all()
