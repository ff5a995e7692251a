"""Environments: what is known of them, and how one takes another's place."""

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.iq_learn.spaces_env import env_spec
from tests.utils import BOX, DISCRETE, SMALL, RandomEnv, assert_finite, make_model, random_trajectories

CARTPOLE_OBS = spaces.Box(-np.inf, np.inf, (4,), np.float32)


def test_worker_processes():
    def make_env():
        return gym.wrappers.TimeLimit(RandomEnv(BOX, DISCRETE), max_episode_steps=50)

    env = SubprocVecEnv([make_env] * 2, start_method="fork")
    model = IQLearn("MlpPolicy", env, random_trajectories(RandomEnv(BOX, DISCRETE)), **SMALL).learn(20)
    assert model._env_spec.max_episode_steps == 50
    assert_finite(model)
    env.close()


def test_time_limit_of_the_environment_tells_truncated_from_terminated():
    episode = dict(acts=np.zeros(500, dtype=int), rews=np.ones(500), terminal=True)
    episode["obs"] = np.zeros((501, 4), dtype=np.float32)
    assert load_demonstrations(episode).trajectories[0].terminated
    model = IQLearn("MlpPolicy", "CartPole-v1", episode, offline=True)
    assert model.expert_buffer.all().dones.sum() == 0
    model = IQLearn("MlpPolicy", gym.make("CartPole-v1", max_episode_steps=600), episode, offline=True)
    assert model.expert_buffer.all().dones.sum() == 1
    # a wrapper around an environment that is not registered
    env = gym.wrappers.TimeLimit(RandomEnv(CARTPOLE_OBS, spaces.Discrete(2)), max_episode_steps=500)
    assert IQLearn("MlpPolicy", env, episode, offline=True).expert_buffer.all().dones.sum() == 0


def test_a_new_environment_without_a_limit_keeps_the_known_one(tmp_path):
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL)
    model.save(tmp_path / "model")
    env = RandomEnv(gym.make("CartPole-v1").observation_space, spaces.Discrete(2))
    episode = dict(obs=np.zeros((501, 4), dtype=np.float32), acts=np.zeros(500, dtype=int), terminal=True)
    loaded = IQLearn.load(tmp_path / "model", env=env, expert_data=episode)
    assert loaded.expert_buffer.all().dones.sum() == 0


def test_a_refused_environment_leaves_the_model_as_it_was():
    model = make_model("MlpPolicy", BOX, DISCRETE)
    other = DummyVecEnv([lambda: RandomEnv(spaces.Box(-1, 1, (7,), np.float32), DISCRETE)] * 2)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(other)
    assert model.n_envs == 1
    model.learn(15)


def test_what_is_no_environment_of_sb3_is_refused_with_the_cure():
    vectorised = gym.vector.SyncVectorEnv([lambda: gym.make("CartPole-v1")])
    with pytest.raises(TypeError, match=r"vector environment of gymnasium.*use .*make_vec_env\(env_id, n_envs\)"):
        IQLearn("MlpPolicy", vectorised, "bundled:CartPole-v1")
    for maker in (RandomEnv, lambda: gym.make("CartPole-v1")):
        with pytest.raises(TypeError, match=r"expected an environment, not what makes one\. Call it"):
            IQLearn("MlpPolicy", maker, "bundled:CartPole-v1")
    with pytest.raises(TypeError, match="Demonstrations are the third argument"):
        IQLearn("MlpPolicy", "bundled:CartPole-v1")


def unsendable():
    return gym.wrappers.TransformReward(gym.make("CartPole-v1"), lambda reward: 0.1 * reward)


def test_a_specification_that_cannot_be_sent_between_processes():
    venv = SubprocVecEnv([unsendable], start_method="fork")
    try:
        assert env_spec(venv) == ("CartPole-v1", 500)
        IQLearn("MlpPolicy", venv, "bundled:CartPole-v1", offline=True, seed=0).learn(2)
    finally:
        venv.close()


@pytest.mark.parametrize("workers", [DummyVecEnv, SubprocVecEnv])
@pytest.mark.parametrize("train_freq, gradient_steps, n_updates", [(1, -1, 24), (3, -1, 24), (3, 5, 10), (1, 1, 6)])
def test_parallel_environments(workers, train_freq, gradient_steps, n_updates):
    """With gradient_steps=-1, as many gradient steps as environment steps; specifications that can't be sent do no harm."""
    kwargs = dict(start_method="fork") if workers is SubprocVecEnv else {}
    venv = workers([unsendable] * 4, **kwargs)
    options = dict(train_freq=train_freq, gradient_steps=gradient_steps, **{**SMALL, "learning_starts": 12})
    try:
        model = IQLearn("MlpPolicy", venv, "bundled:CartPole-v1", **options).learn(36)
        assert (model.num_timesteps, model._n_updates) == (36, n_updates)
        assert model.replay_buffer.n_envs == 4 and model.replay_buffer.pos == 9
        assert_finite(model)
        for n_envs in (1, 2):
            model.predict(np.zeros((n_envs, 4), np.float32))
    finally:
        venv.close()
