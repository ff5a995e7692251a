"""What users of SAC and DQN know works as it does there: the tests of the page docs/guide/sb3.md that are nowhere else."""

import copy
import pickle

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise, VectorizedActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv
from torch import nn

from sb3_iq import IQLearn
from tests.test_policies import BatchNormExtractor
from tests.utils import BOX, DISCRETE, SMALL, WIDE_BOX, RandomEnv, assert_finite, make_model, parameters, random_trajectories

BOTH = pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
OBS = np.random.default_rng(0).uniform(-1, 1, (6, 3)).astype(np.float32)


@pytest.mark.parametrize("noise_class", [NormalActionNoise, OrnsteinUhlenbeckActionNoise])
def test_action_noise(noise_class):
    """It is added to the actions that are played, scaled, and clipped to their range."""
    noise = noise_class(np.array([100.0, 0.0]), np.zeros(2))
    env = DummyVecEnv([lambda: RandomEnv(BOX, WIDE_BOX)] * 2)
    trajectories = random_trajectories(RandomEnv(BOX, WIDE_BOX))
    model = IQLearn("MlpPolicy", env, trajectories, action_noise=VectorizedActionNoise(noise, 2), **SMALL).learn(30)
    actions = model.replay_buffer.actions[6:15]
    assert (actions[..., 0] == (1 if noise_class is NormalActionNoise else actions[..., 0])).all()
    assert np.abs(actions).max() <= 1
    with pytest.raises(ValueError, match="`action_noise` is"):
        make_model("MlpPolicy", BOX, DISCRETE, action_noise=noise)


@BOTH
def test_schedules(action_space):
    """Of learning rates and of the term of cloning, over the progress of learn()."""
    rates = dict(learning_rate=lambda left: 1e-3 * left, actor_learning_rate=lambda left: 1e-4 * left)
    model = make_model("MlpPolicy", BOX, action_space, offline=True, bc_coef=lambda left: left, **rates).learn(20)
    _, _, optimizer = model.policy.critic_networks()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-3 / 20)
    if model.actor is not None:
        assert model.actor.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4 / 20)


@BOTH
def test_optimizers(action_space):
    kwargs = dict(optimizer_class=th.optim.SGD, optimizer_kwargs=dict(momentum=0.5))
    model = make_model("MlpPolicy", BOX, action_space, policy_kwargs=kwargs).learn(14)
    _, _, optimizer = model.policy.critic_networks()
    for found in [optimizer] if model.actor is None else [optimizer, model.actor.optimizer]:
        assert type(found) is th.optim.SGD and found.param_groups[0]["momentum"] == 0.5
    assert_finite(model)


def test_net_arch():
    model = make_model("MlpPolicy", BOX, WIDE_BOX, policy_kwargs=dict(net_arch=dict(pi=[5], qf=[6, 7])))
    assert [layer.out_features for layer in model.actor.latent_pi if isinstance(layer, nn.Linear)] == [5]
    assert [layer.out_features for layer in model.critic.qf0 if isinstance(layer, nn.Linear)] == [6, 7, 1]
    model = make_model("MlpPolicy", BOX, DISCRETE, policy_kwargs=dict(net_arch=[6, 7]))
    assert [layer.out_features for layer in model.q_net.q_net if isinstance(layer, nn.Linear)] == [6, 7, 3]
    with pytest.raises(ValueError, match="Give a list"):
        make_model("MlpPolicy", BOX, DISCRETE, policy_kwargs=dict(net_arch=dict(pi=[5], qf=[6])))


@BOTH
def test_features_extractors(action_space):
    """They are the user's own objects, reached as in SAC and DQN, with their layers."""

    class Extractor(BatchNormExtractor):
        def __init__(self, observation_space, note):
            super().__init__(observation_space)
            self.note = note

    kwargs = dict(features_extractor_class=Extractor, features_extractor_kwargs=dict(note="mine"))
    model = make_model("MlpPolicy", BOX, action_space, policy_kwargs=kwargs)
    networks = [model.q_net, model.q_net_target] if action_space is DISCRETE else [model.actor, model.critic]
    for network in networks:
        assert type(network.features_extractor) is Extractor and network.features_extractor.note == "mine"
        assert isinstance(network.features_extractor.batch_norm, nn.BatchNorm1d)


@BOTH
def test_train_and_eval_modes(action_space):
    """BatchNorm and Dropout learn in learn(), and stay as they are in predict()."""

    class Extractor(BatchNormExtractor):
        def __init__(self, observation_space):
            super().__init__(observation_space)
            self.dropout = nn.Dropout(0.5)

        def forward(self, observations):
            return self.dropout(super().forward(observations))

    model = make_model("MlpPolicy", BOX, action_space, policy_kwargs=dict(features_extractor_class=Extractor))
    network = model.q_net if action_space is DISCRETE else model.critic
    norm = network.features_extractor.batch_norm
    assert norm.running_mean.abs().max() == 0
    model.learn(20)
    assert norm.running_mean.abs().max() > 0
    statistics = norm.running_mean.clone()
    first, second = (model.predict(OBS, deterministic=True)[0] for _ in range(2))
    assert np.array_equal(first, second) and th.equal(norm.running_mean, statistics)
    assert not network.training
    rewards = [model.predict_reward(OBS, np.stack([action_space.sample()] * 6), OBS, np.zeros(6, bool)) for _ in range(1)]
    assert np.isfinite(rewards).all() and th.equal(norm.running_mean, statistics)


def test_stats_window_size():
    model = make_model("MlpPolicy", BOX, DISCRETE, stats_window_size=2)
    model.learn(50)
    assert model.ep_info_buffer.maxlen == model.ep_success_buffer.maxlen == 2
    assert (model._episode_num, len(model.ep_info_buffer)) == (5, 2)


@BOTH
def test_save_include_and_exclude(tmp_path, action_space):
    model = make_model("MlpPolicy", BOX, action_space, offline=True).learn(5)
    model.note = "mine"
    model.save(tmp_path / "model", exclude=["tensorboard_log", "note"], include=["expert_buffer"])
    loaded = IQLearn.load(tmp_path / "model", device="cpu")
    assert not hasattr(loaded, "note") and loaded.expert_buffer.size() == model.expert_buffer.size()
    model.save(tmp_path / "model")
    assert IQLearn.load(tmp_path / "model").note == "mine"


@BOTH
def test_set_parameters(tmp_path, action_space):
    """From a dictionary, a file, its path, and a part of a dictionary."""
    env = RandomEnv(BOX, action_space)
    one, other = (IQLearn("MlpPolicy", env, random_trajectories(env), **{**SMALL, "seed": seed}).learn(14) for seed in (0, 1))
    one.save(tmp_path / "model")
    with open(tmp_path / "model.zip", "rb") as file:
        for form in (one.get_parameters(), str(tmp_path / "model"), tmp_path / "model.zip", file):
            model = copy.deepcopy(other)
            assert not th.equal(parameters(model), parameters(one))
            model.set_parameters(form)
            assert th.equal(parameters(model), parameters(one))
    part = {"policy": one.policy.state_dict()}
    with pytest.raises(ValueError, match="Names of parameters do not match"):
        other.set_parameters(part, exact_match=True)
    other.set_parameters(part, exact_match=False)
    assert th.equal(parameters(other), parameters(one))
    with pytest.raises(ValueError, match="Key unknown is an invalid object name"):
        other.set_parameters({"unknown": {}}, exact_match=False)


@BOTH
def test_copies(action_space):
    model = make_model("MlpPolicy", BOX, action_space, ent_coef="auto_0.1").learn(20)
    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model.policy))):
        found, _ = twin.predict(OBS, deterministic=True)
        assert np.array_equal(found, model.predict(OBS, deterministic=True)[0])
    twin = copy.deepcopy(model)
    before = parameters(model)
    twin.learn(20)
    assert th.equal(parameters(model), before) and not th.equal(parameters(twin), before)
    assert twin.policy.ent_coef != model.policy.ent_coef


@BOTH
@pytest.mark.parametrize("device", ["cpu", "auto", th.device("cpu")])
def test_device(action_space, device):
    model = make_model("MlpPolicy", BOX, action_space, device=device).learn(14)
    expected = "cuda" if device == "auto" and th.cuda.is_available() else "cpu"
    assert model.device.type == model.policy.device.type == expected
    assert {parameter.device.type for parameter in model.policy.parameters()} == {expected}


@BOTH
def test_callbacks_see_what_they_read(action_space):
    class Callback(BaseCallback):
        def __init__(self):
            super().__init__()
            self.calls = []

        def _on_rollout_start(self):
            self.calls.append("start")

        def _on_step(self):
            assert {"self", "callback", "total_timesteps"} <= set(self.locals)
            self.calls.append(self.model._n_updates)
            return True

        def _on_rollout_end(self):
            self.calls.append("end")

    for offline in (True, False):
        callback = Callback()
        make_model("MlpPolicy", BOX, action_space, offline=offline).learn(14, callback)
        rollouts = [call for call in callback.calls if isinstance(call, str)]
        assert rollouts[:2] == ["start", "end"]
        steps = [call for call in callback.calls if not isinstance(call, str)]
        # Offline a step is a gradient step; online the first gradient step comes after ten of the environment
        assert steps == ([*range(1, 15)] if offline else [*[0] * 11, 1, 2, 3])
