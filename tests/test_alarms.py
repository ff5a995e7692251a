"""A run that goes wrong says so once, and before anything is stepped on."""

import warnings

import pytest
import torch as th

from sb3_iq import IQLearn
from sb3_iq.iq_learn import DivergenceError, arguments
from sb3_iq.iq_learn.diagnostics import Alarms
from tests.utils import BOX, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu", policy_kwargs=dict(net_arch=[8]))
HEALTHY = {"q_max": 5.0, "q_min": -3.0, "expert_reward": 1.0, "policy_reward": -1.0}


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


def test_a_diverging_run_warns_and_remembers(tmp_path):
    env = RandomEnv(BOX, DISCRETE)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), critic_bound="none", **SMALL)
    model.alarms = Alarms(patience=20)
    model.learn(12)
    with th.no_grad():
        model.q_net.q_net[-1].bias.fill_(1e6)
        model.q_net_target.q_net[-1].bias.fill_(1e6)
    with pytest.warns(UserWarning, match="Q is diverging. Use critic_bound='clip'"):
        model.learn(60, reset_num_timesteps=False)
    model.save(tmp_path / "model")
    assert IQLearn.load(tmp_path / "model").alarms.told == model.alarms.told != ()


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_nothing_is_stepped_on_what_is_not_finite(action_space):
    env = RandomEnv(BOX, action_space)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), critic_bound="none", **SMALL).learn(20)
    networks = model.policy.critic_networks()
    with th.no_grad():
        next(networks[1].parameters()).fill_(th.inf)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    with pytest.raises(DivergenceError, match=r"before the optimiser's step. Not finite: .*critic_loss.*Lower"):
        model.learn(5, reset_num_timesteps=False)
    after = list(model.policy.parameters())
    assert all(th.equal(a, b) or not th.isfinite(a).all() for a, b in zip(before, after, strict=True))


def test_bound_of_q():
    env = RandomEnv(BOX, DISCRETE)
    options = dict(gamma=0.9, penalty_coef=0.5, ent_coef=0.1, **SMALL)
    # The size of the prior: that of a clone's log-likelihood, that of a distance (where there is nothing to clone), none
    for size, prior in (
        (5.0, dict(reward_prior=1.0)),
        (1.0, dict(reward_prior=1.0, expert_actions="policy")),
        (0.0, dict(reward_prior=0.0)),
    ):
        model = IQLearn("MlpPolicy", env, random_trajectories(env), **options, **prior)
        assert arguments.q_bound(model) == pytest.approx((size + 2) / 0.1 + 0.1 * 1.0986 / 0.1, abs=1e-3)
    model.divergence = "forward_kl"
    assert arguments.q_bound(model) == float("inf")
