"""Settings of every kind run, online and offline, and leave finite numbers."""

import inspect

import numpy as np
import pytest
import torch as th
from stable_baselines3 import SAC
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_iq import IQLearn
from tests.utils import BOX, DISCRETE, SMALL, WIDE_BOX, assert_finite, make_model


def test_is_an_sb3_algorithm_with_its_keyword_order():
    assert issubclass(IQLearn, OffPolicyAlgorithm)
    ours = list(inspect.signature(IQLearn.__init__).parameters)
    sac = [name for name in inspect.signature(SAC.__init__).parameters if name in ours]
    assert ours[:4] == ["self", "policy", "env", "expert_data"]
    assert [name for name in ours if name in sac] == sac
    for method in ("collect_rollouts", "save_replay_buffer", "load_replay_buffer"):
        assert getattr(IQLearn, method) is getattr(OffPolicyAlgorithm, method)


def test_at_most_37_arguments():
    assert len(inspect.signature(IQLearn).parameters) - len({"_init_setup_model"}) <= 37


def test_docstring_names_every_argument():
    for name in inspect.signature(IQLearn.__init__).parameters:
        assert name == "self" or f":param {name}:" in IQLearn.__doc__


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("occupancy_term", ["policy_mix", "expert", "start_states", "policy"])
@pytest.mark.parametrize("penalty", ["expert", "mixture"])
@pytest.mark.parametrize("use_target", [False, True])
def test_objectives(action_space, occupancy_term, penalty, use_target):
    objective = dict(occupancy_term=occupancy_term, penalty=penalty, use_target=use_target)
    model = make_model("MlpPolicy", BOX, action_space, objective_kwargs=objective).learn(14)
    assert_finite(model)
    target = model.q_net_target if action_space is DISCRETE else model.critic_target
    online = model.q_net if action_space is DISCRETE else model.critic
    pairs = zip(target.parameters(), online.parameters(), strict=True)
    assert all(th.equal(a, b) for a, b in pairs) is False
    model.offline = True
    if occupancy_term in ("policy_mix", "policy") or penalty == "mixture":
        with pytest.raises(ValueError, match=r"offline there are no transitions of the policy"):
            model.learn(2)
    else:
        model.learn(2)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("ent_coef", ["auto", "auto_0.1", 0.2])
@pytest.mark.parametrize("offline", [False, True])
def test_ent_coef(action_space, ent_coef, offline):
    model = make_model("MlpPolicy", BOX, action_space, ent_coef=ent_coef, offline=offline).learn(30)
    assert_finite(model)
    if isinstance(ent_coef, str):
        assert model.log_ent_coef.exp().item() != pytest.approx(1.0 if ent_coef == "auto" else 0.1, abs=1e-6)
    else:
        assert model.log_ent_coef is None
        assert model.policy.ent_coef.item() == pytest.approx(ent_coef)
    assert model.ent_coef_tensor == model.policy.ent_coef  # its name in SAC
    if action_space is DISCRETE:
        assert 0 < model.policy.ent_coef.item() < 2


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(n_critics=2),
        dict(layer_norm=False),
        dict(share_features_extractor=True),
        dict(net_arch=dict(pi=[8], qf=[16, 16])),
        dict(activation_fn=th.nn.Tanh, optimizer_class=th.optim.RMSprop),
    ],
)
def test_policy_kwargs(kwargs):
    assert_finite(make_model("MlpPolicy", BOX, WIDE_BOX, policy_kwargs=kwargs).learn(14))


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_activation_and_number_of_critics(action_space):
    kwargs = dict(activation_fn=th.nn.Tanh, net_arch=[8, 8])
    model = make_model("MlpPolicy", BOX, action_space, policy_kwargs=kwargs)
    layers = list(model.policy.critic_networks()[0].modules())
    assert sum(isinstance(layer, th.nn.Tanh) for layer in layers) > 1
    assert not any(isinstance(layer, th.nn.ReLU) for layer in layers)
    if action_space is DISCRETE:
        with pytest.raises(ValueError, match="`policy_kwargs` has n_critics, which only the policy for continuous actions"):
            make_model("MlpPolicy", BOX, DISCRETE, policy_kwargs=dict(n_critics=2))
    else:
        model = make_model("MlpPolicy", BOX, WIDE_BOX, policy_kwargs=dict(n_critics=3, **kwargs))
        assert len(model.critic.q_networks) == len(model.critic_target.q_networks) == 3


def test_sb3_options():
    noise = NormalActionNoise(np.zeros(2), 0.1 * np.ones(2))
    options = dict(train_freq=(1, "episode"), gradient_steps=-1, action_noise=noise, learning_rate=lambda left: 1e-3 * left)
    model = make_model("MlpPolicy", BOX, WIDE_BOX, actor_learning_rate=lambda left: 1e-4 * left, **options).learn(40)
    assert model._n_updates == 30
    assert model.actor.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * model.critic.optimizer.param_groups[0]["lr"])
    assert_finite(
        make_model(
            "MlpPolicy", BOX, DISCRETE, optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False)
        ).learn(30)
    )


@pytest.mark.parametrize("env_id, demos_id", [("CartPole-v1", "bundled:CartPole-v1")])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_vectorised(env_id, demos_id, n_envs):
    model = IQLearn("MlpPolicy", make_vec_env(env_id, n_envs=n_envs, seed=0), demos_id, **SMALL)
    model.learn(36)
    assert model.replay_buffer.n_envs == n_envs
    assert_finite(model)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_target_update_interval_counts_gradient_steps(action_space):
    """From the first one on, over all calls of learn() and train()."""

    def note(*_):
        critic, critic_target, _ = model.policy.critic_networks()
        pairs = zip(critic.parameters(), critic_target.parameters(), strict=True)
        found.append(all(th.equal(online, target) for online, target in pairs))
        return True

    found = []
    model = make_model("MlpPolicy", BOX, action_space, offline=True, target_update_interval=3, tau=1.0)
    model.learn(2, note)
    model.learn(5, note, reset_num_timesteps=False)
    assert found == [True, False, False, True, False, False, True]
