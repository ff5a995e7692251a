"""Bounds far wider than what the expert does are no scale: such actions are scaled by the expert's range."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.demonstrations.conversion import range_of_expert
from tests.utils import BOX, RandomEnv


def imitable(n_steps=1000):
    """:return: an episode in which the expert's action is the first number of the observation"""
    obs = np.random.default_rng(0).uniform(-1, 1, (n_steps + 1, 3)).astype(np.float32)
    return [dict(obs=obs, acts=obs[:-1, :1].copy(), terminated=False, truncated=True)]


class Receiver(RandomEnv):
    """Keeps the actions that it gets."""

    def __init__(self, *args):
        super().__init__(*args)
        self.received = []

    def step(self, action):
        self.received.append(np.array(action))
        return super().step(action)


@pytest.mark.slow
@pytest.mark.parametrize("bound", [1.0, 100.0, 1e10])
def test_learned_whatever_the_bounds(bound, tmp_path):
    env = RandomEnv(BOX, spaces.Box(-bound, bound, (1,)))
    data = imitable()
    kwargs = dict(offline=True, policy_kwargs=dict(net_arch=[64]), learning_rate=1e-3, actor_learning_rate=1e-3)
    model = IQLearn("MlpPolicy", env, data, seed=0, **kwargs).learn(300)
    obs, acts = data[0]["obs"][:-1], data[0]["acts"]
    assert np.abs(model.predict(obs, deterministic=True)[0] - acts).mean() < 0.08
    model.save(tmp_path / "model")
    copy = IQLearn("MlpPolicy", env, data, seed=1, **kwargs).policy
    copy.load_state_dict(model.policy.state_dict())
    for loaded in (IQLearn.load(tmp_path / "model"), copy):
        assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


@pytest.mark.slow
def test_the_environment_receives_its_own_units():
    env = Receiver(BOX, spaces.Box(-100.0, 100.0, (1,)))
    model = IQLearn("MlpPolicy", env, imitable(), seed=0, learning_starts=50, batch_size=16).learn(100)
    received = np.concatenate(env.received)
    assert np.abs(received).max() <= 1.21 and np.abs(received[:50]).max() > 0.9
    assert np.abs(model.replay_buffer.actions[:100]).max() <= 1
    assert th.allclose(model.policy.network_actions(np.array([[1.2], [50.0]])), th.ones(2, 1), atol=0.02)


def test_only_what_is_far_too_wide():
    acts = np.array([[0.5, -50.0, 3.0], [-0.5, 50.0, 3.0]], np.float32)
    data = load_demonstrations([dict(obs=np.zeros((3, 3), np.float32), acts=acts, terminated=False, truncated=True)])
    box = spaces.Box(np.array([-1, -100, -1000], np.float32), np.array([1, 100, 1000], np.float32))
    scaled_by = range_of_expert(box, data.trajectories)
    assert scaled_by.low.tolist() == pytest.approx([-1, -100, 3 - 0.03]) and scaled_by.high[2] == pytest.approx(3.03)
    assert range_of_expert(spaces.Box(-1, 1, (3,)), data.trajectories).low.tolist()[:2] == [-1, -1]


def test_demonstrations_are_checked_against_the_bounds_and_not_the_range(recwarn):
    """Actions from -1 to 1 of a far wider box are no scaled ones, and those a little beyond the bounds are clipped."""
    obs = np.zeros((21, 3), np.float32)
    acts = np.linspace(-1, 1, 20, dtype=np.float32)[:, None]
    data = dict(obs=obs, acts=acts, terminated=False, truncated=True)
    IQLearn("MlpPolicy", RandomEnv(BOX, spaces.Box(-100.0, 100.0, (1,))), [data], offline=True)
    assert not recwarn.list
    data["acts"] = np.full((20, 1), 1.3, np.float32)
    with pytest.warns(UserWarning, match=r"100.0 % .* by up to 0.3; they are clipped"):
        model = IQLearn("MlpPolicy", RandomEnv(BOX, spaces.Box(-1.0, 1.0, (1,))), [data], offline=True)
    assert model.policy.action_scale.unscale(model.expert_buffer.all().actions.numpy()) == pytest.approx(1.0)


def test_bounds_as_wide_as_numbers_reach():
    env = Receiver(BOX, spaces.Box(-3e38, 3e38, (1,)))
    IQLearn("MlpPolicy", env, imitable(40), seed=0, learning_starts=20, batch_size=8).learn(30)
    assert len(env.received) == 30 and np.abs(env.received).max() <= 1.21


def test_state_only_demonstrations_keep_the_bounds():
    env = RandomEnv(BOX, spaces.Box(-100.0, 100.0, (1,)))
    model = IQLearn("MlpPolicy", env, imitable(), seed=0, expert_actions="policy")
    assert model.policy.action_scale.bounds[1].tolist() == [100.0]


@pytest.mark.parametrize("space", [spaces.Box(-1.0, 1.0, (3,)), spaces.Box(-100.0, 100.0, (3,))])
@pytest.mark.parametrize("acts, message", [(np.zeros((25, 2)), "of shape"), (np.zeros(25, int), "are discrete")])
def test_actions_of_another_shape_are_refused_with_the_reason(space, acts, message):
    """25 actions of 2 numbers make no rows of 3."""
    data = dict(obs=np.zeros((26, 3), np.float32), acts=acts, terminated=False, truncated=True)
    with pytest.raises(ValueError, match=f"expert_data, episode 0: actions {message}"):
        IQLearn("MlpPolicy", RandomEnv(BOX, space), [data], offline=True)


def test_no_action_is_beyond_bounds_of_float64():
    """-0.1 as a float32 is a little less."""
    box = spaces.Box(np.array([-0.1, -0.1]), np.array([3.3, 0.3]), dtype=np.float64)
    acts = np.tile([-0.1, 0.1], (20, 1))
    acts[0, 1], acts[1, 1] = 0.3, -0.1
    data = [dict(obs=np.zeros((21, 3), np.float32), acts=acts, terminated=False, truncated=True)]
    policy = IQLearn("MlpPolicy", RandomEnv(BOX, box), data, offline=True).policy
    assert policy.action_scale.bounds[1].tolist() == pytest.approx([-0.09, 0.3])
    assert box.contains(policy.unscale_action(np.full((1, 2), -1.0, np.float32))[0])


def scaled_by(factor, n_steps=20):
    """:return: demonstrations of actions up to this size"""
    (episode,) = imitable(n_steps)
    return [{**episode, "acts": factor * episode["acts"]}]


WIDE = spaces.Box(-100.0, 100.0, (1,))
OPTIONS = dict(seed=0, offline=True, batch_size=16, device="cpu", policy_kwargs=dict(net_arch=[8]))


def actions_in_units(model):
    """:return: the demonstrations' actions, as the networks take them, in the environment's units"""
    return model.policy.action_scale.unscale(model.demonstrations.all().actions.numpy())


@pytest.mark.parametrize("mapped", [False, True])
def test_parameters_that_are_set_bring_their_range(mapped, tmp_path):
    """The demonstrations are then scaled by it, too: those of half the size are those of half the size."""
    trained = IQLearn("MlpPolicy", RandomEnv(BOX, WIDE), scaled_by(2.0), **OPTIONS).learn(2)
    data = load_demonstrations(scaled_by(1.0))
    if mapped:
        data.save(tmp_path / "data")
        data = load_demonstrations(tmp_path / "data", max_memory_gb=0)
    model = IQLearn("MlpPolicy", RandomEnv(BOX, WIDE), data, **OPTIONS)
    acts = data[0].acts
    assert actions_in_units(model) == pytest.approx(acts, abs=1e-5)
    model.set_parameters(trained.get_parameters())
    model.learn(1)
    assert th.equal(model.sampler.expert_buffer.all().actions, model.demonstrations.all().actions)
    assert model.policy.action_scale.bounds == trained.policy.action_scale.bounds
    assert actions_in_units(model) == pytest.approx(acts, abs=1e-5)


def test_networks_keep_the_range_that_they_have_learned_in():
    """Whoever trained them; that other demonstrations go beyond it is told."""
    trained = IQLearn("MlpPolicy", RandomEnv(BOX, WIDE), scaled_by(1.0), **OPTIONS).learn(2)
    model = IQLearn("MlpPolicy", RandomEnv(BOX, WIDE), scaled_by(1.0), **OPTIONS)
    model.set_parameters(trained.get_parameters())
    obs = imitable(20)[0]["obs"]
    before = model.predict(obs, deterministic=True)[0]
    for one in (model, trained):
        with pytest.warns(UserWarning, match=r"beyond the range of actions that the model has, by up to \d"):
            one.set_expert_data(scaled_by(10.0))
    assert np.array_equal(model.predict(obs, deterministic=True)[0], before)
    untrained = IQLearn("MlpPolicy", RandomEnv(BOX, WIDE), scaled_by(1.0), **OPTIONS)
    untrained.set_expert_data(scaled_by(10.0))
    assert actions_in_units(untrained) == pytest.approx(scaled_by(10.0)[0]["acts"], abs=1e-4)


def test_the_replay_buffer_knows_what_its_actions_are_scaled_from():
    env = Receiver(BOX, WIDE)
    model = IQLearn("MlpPolicy", env, imitable(20), seed=0, learning_starts=20, batch_size=8)
    assert model.replay_buffer.size() == 0  # allocated, for the range of now
    model.set_expert_data(scaled_by(5.0))
    model.learn(19)
    acts = np.concatenate([episode.acts for episode in load_demonstrations(model.replay_buffer)])
    assert acts == pytest.approx(np.stack(env.received), abs=1e-4) and np.abs(acts).max() > 2
    # Other demonstrations would give what is stored another meaning
    bounds = model.policy.action_scale.bounds
    model.set_expert_data(scaled_by(2.0))
    assert model.policy.action_scale.bounds == bounds
