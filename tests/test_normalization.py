"""Observations standardised by the demonstrations' statistics."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn
from sb3_iq.iq_learn.normalization import ObservationNormalizer
from tests.utils import BOX, DICT, DISCRETE, IMAGE, WIDE_BOX, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu", policy_kwargs=dict(net_arch=[8]))


def test_what_is_normalised():
    values = th.randn(500, 4, generator=th.Generator().manual_seed(0)) * th.tensor([100.0, 1.0, 0.1, 0.0]) + 7
    image = th.randint(0, 256, (500, 3, 36, 36), dtype=th.uint8)
    image[:, 0] = 200  # a channel of background
    normalizer = ObservationNormalizer(
        spaces.Dict({"vector": spaces.Box(-1, 1, (4,)), "image": spaces.Box(0, 255, (3, 36, 36), np.uint8)})
    )
    inputs = {"vector": values, "image": image / 255}  # as SB3's networks get them
    before = normalizer(inputs)
    assert all(th.equal(before[key], inputs[key]) for key in inputs) and not normalizer.fitted
    normalizer.fit({"vector": values, "image": image})
    after = normalizer(inputs)
    assert th.allclose(after["vector"].mean(dim=0), th.zeros(4), atol=1e-4)
    assert th.allclose(after["vector"].std(dim=0), th.tensor([1.0, 1.0, 1.0, 0.0]), atol=0.01)
    assert normalizer.fitted
    # The background is 0, in the unit of pixels
    assert after["image"][:, 0].abs().max() < 1e-6
    moved = (inputs["image"] - after["image"])[:, 1:]
    assert th.allclose(moved, moved[0, 0, 0, 0], atol=0.05)  # a random image has about the same median in each channel
    assert normalizer.units()["image"] == 255
    far = normalizer({**inputs, "vector": values + 1e6})["vector"]
    assert far.max() == 10


@pytest.mark.parametrize("shape", [(2, 84, 84), (84, 84, 2)], ids=["channels first", "channels last"])
def test_the_background_of_each_channel_is_0(shape):
    """What moves over it is what is left, wherever it is."""
    axis = shape.index(2)
    images = np.zeros((80, *shape), np.float32)
    np.moveaxis(images, 1 + axis, 0)[:] = np.array([0.25, 0.75], np.float32).reshape(2, 1, 1, 1)
    background = images.copy()
    for i, image in enumerate(images):
        np.moveaxis(image, axis, 0)[:, 40:42, i : i + 2] = 1.0
    normalizer = ObservationNormalizer(spaces.Box(0, 1, shape, np.float32), normalize_images=False)
    normalizer.fit(th.as_tensor(images))
    assert np.allclose(normalizer(th.as_tensor(images)).numpy(), images - background)


def test_networks_of_an_earlier_version_see_images_as_they_are():
    normalizer = ObservationNormalizer(IMAGE)
    normalizer.load_state_dict({})
    assert normalizer.fitted
    obs = th.rand(3, *IMAGE.shape)
    assert th.equal(normalizer(obs), obs)


@pytest.mark.parametrize("space", [spaces.Discrete(4), spaces.MultiBinary(3)])
def test_one_hot_codes_stay(space):
    normalizer = ObservationNormalizer(space)
    assert normalizer.fitted
    obs = th.rand(3, 5)
    assert normalizer(obs) is obs


@pytest.mark.slow
@pytest.mark.parametrize("observation_space, action_space", [(BOX, DISCRETE), (BOX, WIDE_BOX), (DICT, WIDE_BOX)])
@pytest.mark.parametrize("offline", [False, True])
def test_all_networks_share_one_that_is_saved(observation_space, action_space, offline, tmp_path):
    env = RandomEnv(observation_space, action_space)
    policy = "MlpPolicy" if observation_space is BOX else "MultiInputPolicy"
    model = IQLearn(policy, env, random_trajectories(env), offline=offline, **SMALL)
    assert not model.policy.normalizer.fitted
    model.learn(20)
    normalizer = model.policy.normalizer
    assert normalizer.fitted
    found = {id(module) for module in model.policy.modules() if isinstance(module, ObservationNormalizer)}
    assert found == {id(normalizer)}
    key = "vector" if observation_space is DICT else "obs"
    part = normalizer.parts[key]
    expert = model.expert_buffer.all().observations
    expert = expert[key] if isinstance(expert, dict) else expert
    assert th.allclose(part.mean, expert.mean(dim=0), atol=1e-6)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model", env=env)
    other = loaded.policy.normalizer.parts[key]
    assert th.equal(part.mean, other.mean) and th.equal(part.std, other.std)
    obs = env.observation_space.sample()
    assert np.array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    loaded.set_expert_data(random_trajectories(env, seed=5))
    loaded.learn(20)  # other data are not fitted again
    assert th.equal(part.mean, other.mean)


def test_units_do_not_matter():
    """The same task in other units of observation is learned in the same way, up to float precision."""

    class Scaled(gym.ObservationWrapper):
        def __init__(self, env, factor):
            super().__init__(env)
            self.factor = factor
            self.observation_space = spaces.Box(-np.inf, np.inf, env.observation_space.shape, np.float32)

        def observation(self, obs):
            return (obs * self.factor).astype(np.float32)

    predictions = []
    for factor in (1.0, 64.0):
        env = Scaled(RandomEnv(spaces.Box(-50, 50, (3,), np.float32), DISCRETE), factor)
        trajectories = random_trajectories(env.unwrapped)
        for trajectory in trajectories:
            object.__setattr__(trajectory, "obs", (trajectory.obs * factor).astype(np.float32))
        model = IQLearn("MlpPolicy", env, trajectories, **SMALL).learn(60)
        with th.no_grad():
            predictions.append(model.q_net(th.as_tensor(trajectories[0].obs)))
    assert th.allclose(*predictions, atol=1e-3)


def test_can_be_switched_off():
    env = RandomEnv(BOX, DISCRETE)
    options = {**SMALL, "policy_kwargs": dict(net_arch=[8], normalize_obs=False)}
    model = IQLearn("MlpPolicy", env, random_trajectories(env), **options).learn(20)
    assert not any(isinstance(module, ObservationNormalizer) for module in model.q_net.modules())
