"""The recovered reward r = Q(s, a) - gamma (1 - terminated) V(s')."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.iq_learn.batches import Batch
from tests.utils import BOX, COMBINATIONS, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu")


def make(policy, observation_space, action_space, **kwargs):
    env = RandomEnv(observation_space, action_space)
    if policy != "MlpPolicy":
        kwargs["policy_kwargs"] = dict(net_arch=[16])
    return IQLearn(policy, env, random_trajectories(env), offline=True, **SMALL, **kwargs).learn(20)


def rows(obs, index):
    return {key: value[index] for key, value in obs.items()} if isinstance(obs, dict) else obs[index]


def batch_of(model, trajectory=None):
    """Raw transitions, as an environment gives them (images as SB3's wrapper transposes them)."""
    if trajectory is None:
        trajectory = random_trajectories(RandomEnv(model.observation_space, model.action_space))[0]
    obs = trajectory.obs
    terminated = np.zeros(len(trajectory), dtype=bool)
    terminated[-1] = True
    return rows(obs, slice(None, -1)), trajectory.acts, rows(obs, slice(1, None)), terminated


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
def test_all_spaces(policy, observation_space, action_space):
    model = make(policy, observation_space, action_space)
    obs, acts, next_obs, terminated = batch_of(model)
    rewards = model.predict_reward(obs, acts, next_obs, terminated)
    assert rewards.shape == (10,) and rewards.dtype == np.float32
    assert np.isfinite(rewards).all()
    assert np.array_equal(rewards, model.predict_reward(obs, acts, next_obs, terminated))
    # a row's reward does not depend on its neighbours
    part = model.predict_reward(rows(obs, slice(3, 7)), acts[3:7], rows(next_obs, slice(3, 7)), terminated[3:7])
    assert part == pytest.approx(rewards[3:7], abs=1e-5)


def test_discrete_by_hand():
    model = make("MlpPolicy", BOX, DISCRETE, ent_coef=0.3)
    obs, acts, next_obs, terminated = batch_of(model)
    with th.no_grad():
        q = model.q_net(th.as_tensor(obs)).numpy()[np.arange(10), acts]
        next_v = 0.3 * np.log(np.exp(model.q_net(th.as_tensor(next_obs)).numpy() / 0.3).sum(axis=1))
    expected = q - model.gamma * (1 - terminated) * next_v
    assert model.predict_reward(obs, acts, next_obs, terminated) == pytest.approx(expected, abs=1e-5)


def test_box_actions_are_scaled_and_terminal_states_have_no_value():
    model = make("MlpPolicy", BOX, WIDE_BOX, policy_kwargs=dict(n_critics=2))
    obs, acts, next_obs, _ = batch_of(model)
    scaled = 2 * (acts - WIDE_BOX.low) / (WIDE_BOX.high - WIDE_BOX.low) - 1
    with th.no_grad():
        q = th.cat(model.critic(th.as_tensor(obs), th.as_tensor(scaled, dtype=th.float32)), dim=1).min(dim=1).values
    assert model.predict_reward(obs, acts, next_obs, np.ones(10)) == pytest.approx(q.numpy(), abs=1e-5)


@pytest.mark.slow
def test_expected_value_is_the_mean_of_samples():
    model = make("MlpPolicy", BOX, WIDE_BOX, ent_coef=0.2)
    obs, ent_coef = th.as_tensor(batch_of(model)[0]), th.tensor(0.2)
    batch = Batch(obs, model.policy.sample_actions(obs), obs, th.zeros(10), 10, 10, None, obs)
    with th.no_grad():
        sampled = th.stack([model.policy.soft_values(batch, ent_coef, False).v for _ in range(1000)]).mean(dim=0)
        expected = model.policy.expected_state_value(obs, ent_coef, n_samples=2000)
    assert expected.numpy() == pytest.approx(sampled.numpy(), abs=0.05)


def test_bad_arguments():
    model = make("MlpPolicy", BOX, DISCRETE)
    obs, acts, next_obs, terminated = batch_of(model)
    with pytest.raises(ValueError, match="`obs` is a single observation"):
        model.predict_reward(obs[0], acts[0], next_obs[0], False)
    with pytest.raises(ValueError, match=r"different lengths: .10, 10, 10, 9"):
        model.predict_reward(obs, acts, next_obs, terminated[:9])
    with pytest.raises(ValueError, match="different lengths"):
        model.predict_reward(obs[:9], acts, next_obs, terminated)
    with pytest.raises(ValueError, match="different lengths"):
        model.predict_reward(obs, acts, next_obs[:9], terminated)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_a_model_that_has_not_learned_warns(action_space, tmp_path):
    """Unless somebody has set its parameters, or it plays the offline solution already."""
    trained = make("MlpPolicy", BOX, action_space)
    env = RandomEnv(BOX, action_space)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL)
    model.save(tmp_path / "model")
    batch = batch_of(model)
    for untrained in (model, IQLearn.load(tmp_path / "model")):
        with pytest.warns(UserWarning, match=r"has not learned: these rewards .* Call learn\(\) first"):
            untrained.predict_reward(*batch)
        untrained.predict(batch[0])
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trained.predict_reward(*batch)
        model.learn(5)
        assert model._n_updates == 0
        if action_space is DISCRETE:
            model.predict_reward(*batch)
        other = IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL)
        other.set_parameters(trained.get_parameters())
        other.predict_reward(*batch)


@pytest.mark.slow
@pytest.mark.learns
def test_tells_the_expert_from_random_actions():
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", seed=0, device="cpu", learning_starts=300)
    model.learn(4_000)
    env = gym.make("CartPole-v1")
    env.action_space.seed(0)
    means = []
    for agent in ("expert", "random"):
        if agent == "expert":
            obs, acts, next_obs, terminated = batch_of(model, load_demonstrations("bundled:CartPole-v1").trajectories[0])
            terminated[:] = False
        else:
            steps = []
            obs, _ = env.reset(seed=0)
            for _ in range(300):
                action = env.action_space.sample()
                next_obs, _, done, _, _ = env.step(action)
                steps.append((obs, action, next_obs, done))
                obs = env.reset()[0] if done else next_obs
            obs, acts, next_obs, terminated = map(np.array, zip(*steps, strict=True))
        means.append(model.predict_reward(obs, acts, next_obs, terminated).mean())
    assert means[0] > means[1] + 0.05


def test_actions_outside_the_space():
    model = make("MlpPolicy", BOX, WIDE_BOX)
    obs, ends = np.zeros((1, 3), dtype=np.float32), np.zeros(1)
    inside, outside = (model.predict_reward(obs, np.array([action]), obs, ends) for action in ([2.0, 10.0], [9.0, 99.0]))
    assert np.array_equal(inside, outside)
    model = make("MlpPolicy", BOX, DISCRETE)
    for action in (3, -1, 0.5):
        with pytest.raises(ValueError, match=f"`actions` holds {action}"):
            model.predict_reward(obs, np.array([action]), obs, ends)
