"""A run that goes wrong says so once, and no optimiser steps on what is not finite."""

import itertools
import warnings

import pytest
import torch as th

from sb3_iq import IQLearn
from sb3_iq.iq_learn import NonFiniteLossError, diagnostics, updates
from sb3_iq.iq_learn.diagnostics import Alarms
from tests.utils import BOX, DISCRETE, WIDE_BOX, assert_finite, make_model

HEALTHY = {"q_max": 5.0, "q_min": -3.0, "expert_reward": 1.0, "policy_reward": -1.0}
NO_BOUND = dict(objective_kwargs=dict(critic_bound="none"))


def make(action_space=DISCRETE, **kwargs):
    return make_model("MlpPolicy", BOX, action_space, **{"policy_kwargs": dict(net_arch=[8]), **kwargs})


def warnings_of(means, n_updates=10_000, alarms=None):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        alarms = alarms or Alarms()
        for step in range(0, n_updates, 10):
            alarms.check(means, q_bound=10.0, n_updates=step)
    return [str(warning.message) for warning in caught]


def test_silent_when_healthy():
    assert warnings_of(HEALTHY) == []
    assert warnings_of({**HEALTHY, "q_max": 14.0}) == []
    assert warnings_of({"expert_reward": 1.0}) == []  # no step yet


def test_silent_where_the_prior_itself_rates_the_policy_higher():
    """Hopper-v5: the policy is as good as the expert, and nearer to the demonstration than its own other transitions."""
    means = {**HEALTHY, "expert_reward": 0.587, "policy_reward": 0.606}
    assert warnings_of({**means, "expert_prior": 0.55, "policy_prior": 0.6}) == []
    for policy_prior in (0.56, 0.5):
        (warning,) = warnings_of({**means, "expert_prior": 0.55, "policy_prior": policy_prior})
        assert "rated above the expert's" in warning


@pytest.mark.parametrize(
    "sign, message",
    [
        ({"q_max": 16.0}, "Q-values are as large as 16, beyond 10"),
        ({"q_min": -16.0}, "Q-values are as large as 16, beyond 10"),
        ({"policy_reward": 1.5}, "rated above the expert's"),
    ],
)
def test_told_once(sign, message):
    (warning,) = warnings_of({**HEALTHY, **sign})
    assert message in warning and "For 2000 gradient steps" in warning and "lower" in warning


def test_only_if_it_stands_for_long():
    alarms = Alarms()
    for _ in range(5):
        assert warnings_of({**HEALTHY, "q_max": 100.0}, 1_500, alarms) == []
        assert warnings_of(HEALTHY, 10, alarms) == []


@pytest.mark.slow
def test_a_diverging_run_warns_and_remembers(tmp_path):
    model = make(**NO_BOUND)
    model.alarms = Alarms(patience=20)
    model.learn(12)
    with th.no_grad():
        model.q_net.q_net[-1].bias.fill_(1e6)
        model.q_net_target.q_net[-1].bias.fill_(1e6)
    with pytest.warns(UserWarning, match="Q is diverging. Use critic_bound='clip'"):
        model.learn(260, reset_num_timesteps=False)
    model.save(tmp_path / "model")
    assert IQLearn.load(tmp_path / "model").alarms.told == model.alarms.told != ()


@pytest.mark.parametrize(
    "options, prior",
    [
        # The magnitude of the prior: that of the offline solution, that of a distance (without the expert's actions), none
        (dict(reward_prior=2.0), 2.0),
        (dict(reward_prior=1.0, expert_actions="policy"), 1.0),
        (dict(reward_prior=0.0), 0.0),
        (dict(objective_kwargs=dict(divergence="forward_kl")), None),
    ],
)
def test_bound_that_alarms_go_by(options, prior):
    bounds = []

    class Spy(Alarms):
        def check(self, means, q_bound, n_updates):
            bounds.append(q_bound)

    model = make(gamma=0.9, penalty_coef=0.5, ent_coef=0.1, **options)
    model.alarms = Spy()
    model.learn(12)
    expected = float("inf") if prior is None else (prior + 2) / 0.1 + 0.1 * 1.0986 / 0.1
    assert bounds == pytest.approx([expected] * len(bounds), abs=1e-3) and len(bounds) > 0


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_divergence_stops_before_a_step(action_space):
    model = make(action_space, offline=True)
    model.learn(2)
    network = model.q_net if action_space is DISCRETE else model.critic
    with th.no_grad():
        list(network.parameters())[-1].fill_(1e30)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    with pytest.raises(NonFiniteLossError, match="diverged at gradient step 2"):
        model.learn(2, reset_num_timesteps=False)
    assert all(th.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.parametrize("kwargs", [dict(learning_rate=1e12), dict(actor_learning_rate=1e12, learning_rate=1e12)])
def test_diverging_leaves_finite_parameters(kwargs):
    model = make(WIDE_BOX, offline=True, ent_coef="auto", **kwargs)
    with pytest.raises(NonFiniteLossError):
        model.learn(300)
    assert_finite(model)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_nothing_is_stepped_on_what_is_not_finite(action_space):
    model = make(action_space, **NO_BOUND).learn(20)
    networks = model.policy.critic_networks()
    with th.no_grad():
        next(networks[1].parameters()).fill_(th.inf)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    with pytest.raises(NonFiniteLossError, match=r"before the optimiser's step. Not finite: .*critic_loss.*Lower"):
        model.learn(5, reset_num_timesteps=False)
    after = list(model.policy.parameters())
    assert all(th.equal(a, b) or not th.isfinite(a).all() for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("kind", ["unfused", "fused", "on the device"])
@pytest.mark.parametrize("n_steps", [5, 300])
def test_no_optimiser_steps_on_a_loss_that_is_not_finite(action_space, kind, n_steps, monkeypatch):
    """Where only the optimiser itself leaves steps out, that is found out after a hundred of them or at the end of learn()."""
    if kind == "on the device":  # as on an accelerator; the fused optimisers of the CPU can leave a step out too
        monkeypatch.setattr(
            diagnostics, "skips_on_device", lambda optimizer: all(group.get("fused") for group in optimizer.param_groups)
        )
    kwargs = dict(net_arch=[8], optimizer_kwargs={}) if kind == "unfused" else dict(net_arch=[8])
    model = make(action_space, offline=True, policy_kwargs=kwargs).learn(2)
    critic, _, optimizer = model.policy.critic_networks()
    assert bool(optimizer.param_groups[0].get("fused")) == (kind != "unfused")
    with th.no_grad():
        list(critic.parameters())[-1].fill_(1e30)
    before = [parameter.clone() for parameter in critic.parameters()]
    with pytest.raises(NonFiniteLossError, match="diverged at gradient step 2"):
        model.learn(n_steps, reset_num_timesteps=False)
    assert model._n_updates <= (2 if kind != "on the device" else min(2 + n_steps, 102))
    assert all(th.equal(a, b) for a, b in zip(before, critic.parameters(), strict=True))
    assert_finite(model)


def test_steps_are_left_out_only_where_they_were_not_finite(monkeypatch):
    """A single loss that is not finite costs one step, and is told with its number."""
    monkeypatch.setattr(diagnostics, "skips_on_device", lambda optimizer: True)
    model = make(offline=True).learn(3)
    critic_loss, calls = updates.critic_loss, []

    def once(*args):
        loss, info = critic_loss(*args)
        calls.append(th.cat([parameter.detach().flatten() for parameter in model.q_net.parameters()]))
        return (loss * th.inf, info | {"critic_loss": loss.detach() * th.inf}) if len(calls) == 3 else (loss, info)

    monkeypatch.setattr(
        updates, "functions", lambda compile: updates.Functions(updates.action_log_prob, once, updates.actor_loss)
    )
    with pytest.raises(NonFiniteLossError, match=r"gradient step 5, .*Not finite: critic_loss"):
        model.learn(6, reset_num_timesteps=False)
    moved = [not th.equal(before, after) for before, after in itertools.pairwise(calls)]
    assert moved == [True, True, False, True, True]
