"""Named settings: what they are, that they can be overridden, and that the published ones compute what was published."""

import inspect
from typing import get_args

import numpy as np
import pytest
import torch as th
from torch import nn

from sb3_iq import IQLearn
from sb3_iq.iq_learn import settings, updates
from sb3_iq.iq_learn.presets import PRESETS, Preset
from tests.utils import BOX, DISCRETE, IMAGE, WIDE_BOX, RandomEnv, assert_finite, random_trajectories, sample_batch

GAMMA, COEF = 0.99, 0.5


def make(observation_space=BOX, action_space=DISCRETE, policy="MlpPolicy", **kwargs):
    env = RandomEnv(observation_space, action_space)
    options = dict(learning_starts=20, buffer_size=100, seed=0, device="cpu")
    return IQLearn(policy, env, random_trajectories(env), **{**options, **kwargs})


def batch_and_loss(model):
    """:return: a batch after some learning, and the gradients of the Q-function's parameters"""
    model.learn(40)
    batch = sample_batch(model, 8)
    critic = model.policy.critic_networks()[0]
    critic.zero_grad()
    model.set_random_seed(0)
    loss, _ = updates.critic_loss(model.policy, batch, model.policy.ent_coef, model.objective, 0.0)
    loss.backward()
    return batch, [parameter.grad.clone() for parameter in critic.parameters()]


def gradients(network, loss):
    network.zero_grad()
    loss.backward()
    return [parameter.grad for parameter in network.parameters()]


def assert_equal(mine, expected):
    assert all(th.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in zip(mine, expected, strict=True))
    assert any(a.abs().max() > 1e-3 for a in mine)


def test_paper_discrete():
    """Soft Q-learning on expert and policy alike: -E_E[Q - y] + c E_E[(Q - y)^2] + E_E[V - y], through the gradient of y."""
    model = make(preset="paper")
    assert (model.batch_size, model.gamma, model.penalty_coef, model.objective.use_target) == (32, GAMMA, COEF, False)
    assert [type(layer) for layer in model.q_net.q_net] == [nn.Linear, nn.ELU, nn.Linear, nn.ELU, nn.Linear]
    assert model.lr_schedule(1) == 1e-4 and model.ent_coef == 0.01
    batch, mine = batch_and_loss(model)
    n, alpha = 8, 0.01
    q = model.q_net(batch.obs[:n])
    y = GAMMA * (1 - batch.terminated[:n]) * alpha * th.logsumexp(model.q_net(batch.next_obs[:n]) / alpha, dim=1)
    chosen, v = q.gather(1, batch.actions[:n]).squeeze(1), alpha * th.logsumexp(q / alpha, dim=1)
    expected = -(chosen - y).mean() + COEF * ((chosen - y) ** 2).mean() + (v - y).mean()
    assert_equal(mine, gradients(model.q_net, expected))


@pytest.mark.parametrize("occupancy_term", [None, "policy_mix"])
def test_paper_continuous(occupancy_term):
    """
    -E_E[Q - y] + (1 - gamma) E_E[V] + c / 2 (E_E[(Q - y)^2] + E_P[(Q - y)^2]) with y of the target network; for the other
    family of environments the mean of V - y over both batches in place of the second term.
    """
    model = make(BOX, WIDE_BOX, preset="paper", objective_kwargs=dict(occupancy_term=occupancy_term))
    assert (model.batch_size, model.gamma, model.penalty_coef, model.objective.use_target) == (256, GAMMA, COEF, True)
    assert (model.settings.actor_learning_rate, model.lr_schedule(1)) == (3e-5, 3e-4)
    assert (model.ent_coef, model.policy.actor_tau) == (0.01, 1.0)
    assert len(model.critic.q_networks) == 1 and not any(isinstance(m, nn.LayerNorm) for m in model.critic.modules())
    batch, mine = batch_and_loss(model)
    model.set_random_seed(0)
    n, alpha, states = 8, 0.01, batch.obs if occupancy_term else batch.obs[:8]
    with th.no_grad():
        actions, log_prob = model.actor.action_log_prob(th.cat([batch.next_obs, states]))
        next_q = model.critic_target(batch.next_obs, actions[: 2 * n])[0].squeeze(1)
        y = GAMMA * (1 - batch.terminated) * (next_q - alpha * log_prob[: 2 * n])
    v = model.critic(states, actions[2 * n :])[0].squeeze(1) - alpha * log_prob[2 * n :]
    r = model.critic(batch.obs, batch.actions)[0].squeeze(1) - y
    value_term = (v - y).mean() if occupancy_term else (1 - GAMMA) * v.mean()
    expected = -r[:n].mean() + value_term + COEF / 2 * ((r[:n] ** 2).mean() + (r[n:] ** 2).mean())
    assert_equal(mine, gradients(model.critic, expected))


@pytest.mark.parametrize(
    "env, ent_coef, occupancy_term",
    [("CartPole-v1", 1e-3, "expert"), ("Acrobot-v1", 1e-2, "expert"), ("MountainCar-v0", 1e-2, "expert")],
)
def test_paper_families_of_vectors(env, ent_coef, occupancy_term):
    model = IQLearn("MlpPolicy", env, preset="paper", device="cpu")
    assert model.ent_coef == ent_coef
    assert (model.objective.occupancy_term, model.objective.penalty) == (occupancy_term, "expert")


def test_paper_families_of_control():
    found = {
        name: (named["occupancy_term"], named["ent_coef"])
        for name in ("Hopper-v5", "Walker2d-v4", "HalfCheetah-v5", "Ant-v5", "Humanoid-v4", None, "me/Ant-v0")
        for named in [settings.of_preset(settings.Context("paper", BOX, WIDE_BOX, name, False, "given"))]
    }
    assert found == {
        "Hopper-v5": ("expert_states", 0.01),
        "Walker2d-v4": ("expert_states", 0.01),
        "HalfCheetah-v5": ("policy_mix", 0.01),
        "Ant-v5": ("policy_mix", 1e-3),
        "Humanoid-v4": ("expert_states", 1.0),
        None: ("expert_states", 0.01),
        "me/Ant-v0": ("policy_mix", 1e-3),
    }


def test_paper_images():
    model = make(IMAGE, DISCRETE, "CnnPolicy", preset="paper")
    assert model.batch_size == 64 and model.ent_coef == 1e-3


def test_ls_iq_gradients():
    """c / 2 (E_E[(Q - Q_max)^2] + E_P[r^2]) + the mean of V - y over both batches, y clipped."""
    model = make(preset="ls-iq", gamma=0.9)
    form = model.objective
    assert (form.occupancy_term, form.penalty, form.expert_target) == ("policy_mix", "mixture", "fixed")
    assert (form.terminal_value, form.critic_bound) == ("absorbing", "clip")
    batch, mine = batch_and_loss(model)
    n, alpha, bound = 8, 1e-3, 1 / (COEF * 0.1)
    with th.no_grad():
        next_v = (alpha * th.logsumexp(model.q_net_target(batch.next_obs) / alpha, dim=1)).clamp(-bound, bound)
    q = model.q_net(batch.obs)
    chosen, v = q.gather(1, batch.actions).squeeze(1), alpha * th.logsumexp(q / alpha, dim=1)
    # The demonstrations have ends, so that of an end is not known beforehand what it is worth: there V = Q(s, a)
    assert model.terminal_v is None
    y = 0.9 * th.where(batch.terminated > 0, chosen.detach().clamp(-bound, bound), next_v)
    v = th.where(batch.terminated > 0, chosen, v)
    expected = COEF / 2 * (((chosen[:n] - bound) ** 2).mean() + ((chosen - y)[n:] ** 2).mean()) + (v - y).mean()
    assert_equal(mine, gradients(model.q_net, expected))


@pytest.mark.slow
@pytest.mark.parametrize("preset", get_args(Preset))
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("offline", [False, True])
def test_presets_learn_and_come_back(preset, action_space, offline, tmp_path):
    model = make(BOX, action_space, preset=preset, offline=offline).learn(40)
    assert_finite(model)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model")
    for name in inspect.signature(IQLearn.__init__).parameters:
        if hasattr(model, name) and isinstance(getattr(model, name), (str, int, float, bool)):
            assert getattr(loaded, name) == getattr(model, name), name
    assert loaded.settings.objective == model.settings.objective
    obs = np.stack([BOX.sample() for _ in range(5)])
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])


def test_an_argument_overrides_the_preset():
    model = make(
        preset="paper",
        gamma=0.5,
        batch_size=7,
        policy_kwargs=dict(net_arch=[3]),
        objective_kwargs=dict(terminal_value="absorbing"),
    )
    assert (model.gamma, model.batch_size, model.objective.terminal_value) == (0.5, 7, "absorbing")
    assert model.q_net.q_net[0].out_features == 3 and isinstance(model.q_net.q_net[1], nn.ELU)


def test_every_setting_is_an_argument():
    known = {*inspect.signature(IQLearn).parameters, *settings.OBJECTIVE_KWARGS, *settings.PRESET_ONLY}
    for kinds in PRESETS.values():
        for row in kinds.values():
            for named in (row.settings, row.images, row.offline, row.state_only, *row.families.values()):
                assert set(named) <= known


def test_unknown_preset():
    with pytest.raises(ValueError, match="`preset` is 'best': choose one of default, paper, ls-iq"):
        make(preset="best")


def test_ls_iq_temperature():
    def found(env_id):
        return settings.of_preset(settings.Context("ls-iq", BOX, WIDE_BOX, env_id, False, "given"))["ent_coef"]

    assert (found("Hopper-v5"), found("Humanoid-v5")) == (1e-3, 0.1)
