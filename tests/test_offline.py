"""Offline training: the environment is never stepped, none is needed, and online training can follow."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_iq import IQLearn, SpacesEnv
from sb3_iq.iq_learn import offline_algorithm
from tests.utils import BOX, DISCRETE, IMAGE, SMALL, NoStepEnv, RandomEnv, random_trajectories

CARTPOLE = gym.make("CartPole-v1")


def vector(network):
    return th.nn.utils.parameters_to_vector(network.parameters()).detach().clone()


def test_without_environment():
    env = SpacesEnv(CARTPOLE.observation_space, CARTPOLE.action_space)
    model = IQLearn("MlpPolicy", env, "bundled:CartPole-v1", offline=True, **SMALL).learn(5)
    assert model.predict(np.zeros(4, dtype=np.float32))[0] in (0, 1)
    images = random_trajectories(RandomEnv(IMAGE, DISCRETE))
    options = dict(offline=True, policy_kwargs=dict(net_arch=[8]))
    IQLearn("CnnPolicy", SpacesEnv(IMAGE, DISCRETE), images, **options, **SMALL).learn(3)


def test_an_environment_of_spaces_is_none_to_learn_from():
    env = SpacesEnv(BOX, DISCRETE)
    with pytest.raises(RuntimeError, match="there is no environment to step"):
        env.step(0)
    with pytest.raises(
        ValueError, match=r"`env` is only a pair of spaces, and offline=False: give .* or the model by set_env"
    ):
        IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL).learn(20)


def test_refused_without_spaces():
    with pytest.raises(ValueError, match=r"`env` is None: give env=SpacesEnv\(observation_space, action_space\)"):
        IQLearn("MlpPolicy", None, "bundled:CartPole-v1", offline=True)
    with pytest.raises(ValueError, match="`env` is None"):
        IQLearn("MlpPolicy", None, "bundled:CartPole-v1")
    with pytest.raises(ValueError, match="`expert_data` is None"):
        IQLearn("MlpPolicy", "CartPole-v1").learn(10)
    with pytest.raises(ValueError, match="`expert_data` is None, and offline=True: there is nothing to learn from"):
        IQLearn("MlpPolicy", "CartPole-v1", offline=True)


@pytest.mark.parametrize("data", ["bundled:CartPole-v1", "my_demos", random_trajectories(CARTPOLE), {"obs": []}])
def test_demonstrations_in_the_place_of_the_environment(data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_demos").mkdir()
    (tmp_path / "CartPole-v1").mkdir()
    with pytest.raises(
        TypeError, match=r"`env` is .*Demonstrations are the third argument: IQLearn\(policy, env, expert_data"
    ):
        IQLearn("MlpPolicy", data)
    IQLearn("MlpPolicy", "CartPole-v1", random_trajectories(CARTPOLE), **SMALL)


def test_offline_for_one_call():
    """The environment comes back afterwards, and its transitions stay."""
    env = make_vec_env("CartPole-v1", n_envs=2, seed=0)
    model = IQLearn("MlpPolicy", env, "bundled:CartPole-v1", **SMALL)
    model.learn(10, offline=True)
    assert not model.offline and model._n_updates == 10 and model.replay_buffer is None
    model.learn(30)
    assert model.env is env and model.replay_buffer.size() == 15
    model.learn(5, offline=True)
    model.learn(4, offline=False, reset_num_timesteps=False)
    assert model.env is env and model.replay_buffer.size() == 15 + 2
    model = IQLearn("MlpPolicy", NoStepEnv(BOX, DISCRETE), random_trajectories(NoStepEnv(BOX, DISCRETE)), **SMALL)
    with pytest.raises(AssertionError, match="stepped"):
        model.learn(5)
    model.learn(5, offline=True)


def test_offline_then_online():
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL).learn(20)
    model.offline = False
    with pytest.raises(
        ValueError, match=r"`env` is only a pair of spaces, and offline=False: give .* or the model by set_env"
    ):
        model.learn(20)
    model.set_env(make_vec_env("CartPole-v1", n_envs=2, seed=0))
    model.learn(30)
    assert model.n_envs == model.replay_buffer.n_envs == 2
    assert model.replay_buffer.size() == 15
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(make_vec_env("CartPole-v1", n_envs=3, seed=0))
    model.offline = True
    model.learn(5)
    assert model.replay_buffer.size() == 15


def test_the_actor_waits_for_the_critic(tmp_path, monkeypatch):
    """After offline training the critic moves to other values online, and only then the actor follows it again."""
    monkeypatch.setattr(offline_algorithm, "ACTOR_WAITS", 10)
    model = IQLearn("MlpPolicy", "Pendulum-v1", random_trajectories(gym.make("Pendulum-v1")), **SMALL)
    model.learn(20, offline=True)
    model.save(tmp_path / "model")
    for name, trained in {"the same": model, "loaded": IQLearn.load(tmp_path / "model", env=gym.make("Pendulum-v1"))}.items():
        trained.set_expert_data(random_trajectories(gym.make("Pendulum-v1")))
        actor, critic = vector(trained.actor), vector(trained.critic)
        trained.learn(15)
        assert th.equal(vector(trained.actor), actor), name
        assert not th.equal(vector(trained.critic), critic), name
        trained.learn(15, reset_num_timesteps=False)
        assert not th.equal(vector(trained.actor), actor), name
        # A short offline phase in between does not hold it up for longer than itself
        n_updates = trained._n_updates
        trained.learn(3, offline=True)
        assert [trained._actor_waits(n_updates + n) for n in (3, 5, 6)] == [True, True, False], name


def test_the_actor_of_a_new_model_does_not_wait():
    model = IQLearn("MlpPolicy", "Pendulum-v1", random_trajectories(gym.make("Pendulum-v1")), **SMALL)
    actor = vector(model.actor)
    model.learn(20)
    assert model._n_updates > 0
    assert not th.equal(vector(model.actor), actor)
