"""Defects that were found and mended; each test failed before."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import HerReplayBuffer
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize
from torch import nn

from sb3_iq import IQLearn
from sb3_iq.iq_learn import DivergenceError
from tests.utils import BOX, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu")


def make(action_space=DISCRETE, **kwargs):
    env = RandomEnv(BOX, action_space)
    return IQLearn("MlpPolicy", env, random_trajectories(env), **{**SMALL, **kwargs})


def parameters(model):
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


class BatchNormExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=3)
        self.batch_norm = nn.BatchNorm1d(3)

    def forward(self, observations):
        return self.batch_norm(observations)


def test_averaged_actor_forgets_where_it_began():
    """Of the n-th actor's weight w_n = n the average is that of about the last quarter, until its horizon is 1 / tau."""
    policy = make(WIDE_BOX, offline=True).policy
    weight, averaged = policy.actor.mu.weight.data, policy.averaged_actor.mu.weight
    for n in range(2001):
        weight.fill_(n)
        policy.average_actor(0.01, n)
        if n == 100:
            # Weights of (m + 1) (m + 2) (m + 3): the mean is 0.8 n
            assert averaged.mean().item() == pytest.approx(80, abs=1)
    assert averaged.mean().item() == pytest.approx(2000 - 99, abs=1)


def test_averaged_actor_has_the_statistics_of_batch_norm():
    kwargs = dict(features_extractor_class=BatchNormExtractor)
    model = make(WIDE_BOX, offline=True, actor_tau=1.0, policy_kwargs=kwargs).learn(30)
    model.policy.set_training_mode(False)
    obs = th.as_tensor(np.random.default_rng(0).normal(50, 1, size=(8, 3)), dtype=th.float32)
    assert th.equal(model.policy.averaged_actor(obs, deterministic=True), model.actor(obs, deterministic=True))
    assert model.policy.averaged_actor.features_extractor.extractor.batch_norm.num_batches_tracked > 0


def vec_normalize(outside=lambda env: env, **kwargs):
    return outside(VecNormalize(DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"))]), **kwargs))


def test_a_model_of_normalised_observations_does_not_go_on_without_them(tmp_path):
    env = vec_normalize()
    IQLearn("MlpPolicy", env, "bundled:CartPole-v1", offline=True, **SMALL).learn(5).save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model")
    with pytest.raises(ValueError, match="normalised by VecNormalize"):
        loaded.learn(5)
    IQLearn.load(tmp_path / "model", env=env).learn(5)


def test_statistics_are_warmed_up_once_and_never_if_frozen():
    trajectories = random_trajectories(RandomEnv(spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(2)))
    env = vec_normalize()
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, **SMALL)
    counts = [model.learn(2).get_vec_normalize_env().obs_rms.count for _ in range(3)]
    assert counts == pytest.approx([30, 30, 30], abs=1e-3)
    frozen = vec_normalize(training=False)
    IQLearn("MlpPolicy", frozen, trajectories, offline=True, **SMALL).learn(2)
    assert frozen.obs_rms.count < 1


def test_wrappers_around_vec_normalize_offline(tmp_path):
    """EvalCallback finds the statistics, CheckpointCallback saves the user's own wrapper."""
    env, eval_env = vec_normalize(VecMonitor), vec_normalize(VecMonitor, training=False)
    model = IQLearn("MlpPolicy", env, "bundled:CartPole-v1", offline=True, **SMALL)
    checkpoint = CheckpointCallback(5, str(tmp_path), save_vecnormalize=True, save_replay_buffer=True)
    model.learn(10, [EvalCallback(eval_env, eval_freq=5, n_eval_episodes=1, verbose=0), checkpoint])
    assert eval_env.obs_rms.mean == pytest.approx(env.obs_rms.mean)
    saved = VecNormalize.load(next(tmp_path.glob("*vecnormalize*")), DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    assert saved.training and saved.norm_reward
    assert saved.obs_rms.mean == pytest.approx(env.obs_rms.mean)


def test_target_update_interval_counts_over_calls_of_train():
    model = make(offline=True, target_update_interval=1000, tau=1.0).learn(5)
    pairs = list(zip(model.q_net.parameters(), model.q_net_target.parameters(), strict=True))
    assert not any(th.equal(online, target) for online, target in pairs)


def test_seed_controls_the_expert_batches(tmp_path):
    first, second = make(offline=True, seed=None), make(offline=True, seed=None)
    second.set_parameters(first.get_parameters())
    for model in (first, second):
        model.set_random_seed(3)
        model.learn(10)
    assert th.equal(parameters(first), parameters(second))
    first.save(tmp_path / "model")
    trajectories = random_trajectories(RandomEnv(BOX, DISCRETE))
    results = []
    for seed in (5, 6):
        loaded = IQLearn.load(tmp_path / "model", expert_data=trajectories)
        loaded.set_random_seed(seed)
        results.append(parameters(loaded.learn(10, reset_num_timesteps=False)))
    assert not th.equal(*results)


def test_a_refused_environment_leaves_the_model_as_it_was():
    model = make()
    other = DummyVecEnv([lambda: RandomEnv(spaces.Box(-1, 1, (7,), np.float32), DISCRETE)] * 2)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(other)
    assert model.n_envs == 1
    model.learn(15)


def test_load_with_bounds_that_differ_as_infinite_and_huge(tmp_path):
    largest = float(np.finfo(np.float32).max)
    huge, infinite = (spaces.Box(-bound, bound, (3,), np.float32) for bound in (largest, np.inf))
    env = RandomEnv(huge, DISCRETE)
    IQLearn("MlpPolicy", env, random_trajectories(RandomEnv(BOX, DISCRETE)), **SMALL).save(tmp_path / "model")
    IQLearn.load(tmp_path / "model", env=RandomEnv(infinite, DISCRETE))


@pytest.mark.parametrize("log_interval, steps", [(1, [100, 200]), (None, [])])
def test_each_step_is_logged_once(tmp_path, log_interval, steps):
    model = make(offline=True)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(200, log_interval=log_interval)
    text = (tmp_path / "progress.csv").read_text()
    column = text.splitlines()[0].split(",").index("time/total_timesteps") if text else 0
    assert [int(line.split(",")[column]) for line in text.splitlines()[1:]] == steps


def test_reward_of_actions_outside_the_space():
    model = make(WIDE_BOX, offline=True)
    obs, ends = np.zeros((1, 3), dtype=np.float32), np.zeros(1)
    inside, outside = (model.predict_reward(obs, np.array([action]), obs, ends) for action in ([2.0, 10.0], [9.0, 99.0]))
    assert np.array_equal(inside, outside)
    model = make(offline=True)
    for action in (3, -1, 0.5):
        with pytest.raises(ValueError, match=f"`actions` holds {action}"):
            model.predict_reward(obs, np.array([action]), obs, ends)


def test_a_buffer_derived_from_a_refused_one_is_refused():
    class Mine(HerReplayBuffer):
        pass

    with pytest.raises(ValueError, match="`replay_buffer_class` is Mine"):
        make(replay_buffer_class=Mine)


def test_refused_in_the_constructor_rather_than_in_learn():
    with pytest.raises(ValueError, match="optimize_memory_usage"):
        make(optimize_memory_usage=True)
    with pytest.raises(TypeError, match="unknown"):
        make(replay_buffer_kwargs=dict(unknown=1))
    with pytest.raises(ValueError, match="only Discrete and Box are supported"):
        IQLearn("MlpPolicy", RandomEnv(BOX, spaces.MultiDiscrete([2, 3])))


@pytest.mark.parametrize("kwargs", [dict(learning_rate=1e12), dict(actor_learning_rate=1e12, learning_rate=1e12)])
def test_diverging_leaves_finite_parameters(kwargs):
    model = make(WIDE_BOX, offline=True, ent_coef="auto", **kwargs)
    with pytest.raises(DivergenceError):
        model.learn(300)
    assert th.isfinite(parameters(model)).all()


def test_a_new_environment_without_a_limit_keeps_the_known_one(tmp_path):
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL)
    model.save(tmp_path / "model")
    env = RandomEnv(gym.make("CartPole-v1").observation_space, spaces.Discrete(2))
    episode = dict(obs=np.zeros((501, 4), dtype=np.float32), acts=np.zeros(500, dtype=int), terminal=True)
    loaded = IQLearn.load(tmp_path / "model", env=env, expert_data=episode)
    assert loaded.expert_buffer.all().dones.sum() == 0
