"""ExportablePolicy: TorchScript and ONNX return what predict returns."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq import IQLearn
from sb3_iq.export import ExportablePolicy
from tests.utils import BOX, COMBINATIONS, DISCRETE, SMALL, RandomEnv, make_model, random_trajectories

FAR = spaces.Box(-1e10, 1e10, (2,), np.float32)


def random_obs(space, n=6):
    space.seed(0)
    samples = [space.sample() for _ in range(n)]
    return (
        {key: np.stack([s[key] for s in samples]) for key in samples[0]} if isinstance(samples[0], dict) else np.stack(samples)
    )


def tensors(obs):
    return {key: th.as_tensor(part) for key, part in obs.items()} if isinstance(obs, dict) else th.as_tensor(obs)


def far_bounds():
    """A model whose actions are scaled by the expert's, which are far inside of the bounds."""
    trajectories = random_trajectories(RandomEnv(BOX, spaces.Box(-1.0, 1.0, (2,), np.float32)))
    return IQLearn("MlpPolicy", RandomEnv(BOX, FAR), trajectories, offline=True, **SMALL).learn(5)


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("policy, observation_space, action_space", [*COMBINATIONS, ("MlpPolicy", BOX, FAR)])
def test_torch_script(tmp_path, policy, observation_space, action_space):
    model = far_bounds() if action_space is FAR else make_model(policy, observation_space, action_space, offline=True).learn(5)
    exported = ExportablePolicy(model.policy)
    script = th.jit.freeze(th.jit.trace(exported, exported.example_obs(), strict=False))
    script.save(str(tmp_path / "policy.pt"))
    obs = random_obs(model.observation_space)
    expected, _ = model.predict(obs, deterministic=True)
    actions = th.jit.load(str(tmp_path / "policy.pt"))(tensors(obs)).numpy()
    assert (actions.shape, actions.dtype) == (expected.shape, expected.dtype)
    assert np.allclose(actions, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(exported(tensors(obs)).detach().numpy(), expected)


def test_it_is_not_the_actor():
    """What the page says of SB3's recipe."""
    model = far_bounds()
    obs = random_obs(BOX)
    expected, _ = model.predict(obs, deterministic=True)
    with th.no_grad():
        actor = model.policy.actor(th.as_tensor(obs), deterministic=True).numpy()
        averaged = model.policy.averaged_actor(th.as_tensor(obs), deterministic=True).numpy()
    assert not np.allclose(model.policy.unscale_action(actor), expected, rtol=1e-6)
    assert np.array_equal(model.policy.unscale_action(averaged), expected)
    low, high = model.action_space.low, model.action_space.high
    assert not np.allclose(low + 0.5 * (averaged + 1.0) * (high - low), expected)


@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_statistics_of_vec_normalize(env_id):
    env = VecNormalize(make_vec_env(env_id))
    expert_data = "bundled:CartPole-v1" if env_id == "CartPole-v1" else random_trajectories(gym.make(env_id))
    model = IQLearn("MlpPolicy", env, expert_data, offline=True, **SMALL).learn(5)
    obs = np.random.default_rng(0).normal(size=(6, *env.observation_space.shape)).astype(np.float32)
    expected, _ = model.predict(env.normalize_obs(obs), deterministic=True)
    exported = ExportablePolicy(model.policy, model.get_vec_normalize_env())
    script = th.jit.trace(exported, exported.example_obs())
    assert np.allclose(script(th.as_tensor(obs)).numpy(), expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(ExportablePolicy(model.policy)(th.as_tensor(env.normalize_obs(obs))).detach().numpy(), expected)


def test_statistics_of_dict_observations():
    space = spaces.Dict({"right": BOX, "left": spaces.Box(-1.0, 1.0, (2,), np.float32)})
    env = VecNormalize(make_vec_env(lambda: RandomEnv(space, DISCRETE)), norm_obs_keys=["right"])
    model = IQLearn("MultiInputPolicy", env, random_trajectories(RandomEnv(space, DISCRETE)), offline=True, **SMALL).learn(5)
    obs = random_obs(space)
    expected, _ = model.predict(env.normalize_obs(obs), deterministic=True)
    assert np.array_equal(ExportablePolicy(model.policy, env)(tensors(obs)).numpy(), expected)
    with pytest.raises(AssertionError):
        np.testing.assert_array_equal(env.normalize_obs(obs)["right"], obs["right"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "policy, observation_space, action_space",
    [COMBINATIONS[0], COMBINATIONS[1], COMBINATIONS[4], COMBINATIONS[5], COMBINATIONS[9], ("MlpPolicy", BOX, FAR)],
)
def test_onnx(tmp_path, policy, observation_space, action_space):
    onnxruntime = pytest.importorskip("onnxruntime", reason="needs the extra export")
    pytest.importorskip("onnxscript", reason="needs the extra export")
    model = far_bounds() if action_space is FAR else make_model(policy, observation_space, action_space, offline=True).learn(5)
    exported, path = ExportablePolicy(model.policy), str(tmp_path / "policy.onnx")
    shapes = ({0: th.export.Dim("batch")},)
    names = dict(input_names=["obs"], output_names=["actions"])
    th.onnx.export(exported, (exported.example_obs(batch_size=2),), path, **names, dynamic_shapes=shapes, dynamo=True)
    obs = random_obs(model.observation_space)
    expected, _ = model.predict(obs, deterministic=True)
    (actions,) = onnxruntime.InferenceSession(path).run(None, {"obs": obs})
    assert (actions.shape, actions.dtype) == (expected.shape, expected.dtype)
    assert np.allclose(actions, expected, rtol=1e-4, atol=1e-5)
