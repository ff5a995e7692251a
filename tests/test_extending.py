"""A divergence, a prior of rewards and a preset of somebody else's: one row of a table each."""

import dataclasses

import pytest
import torch as th

from sb3_iq import IQLearn
from sb3_iq.iq_learn import reward_priors
from sb3_iq.iq_learn.divergences import DIVERGENCES, Divergence
from sb3_iq.iq_learn.presets import PRESETS
from sb3_iq.iq_learn.reward_priors import PriorRow
from tests.utils import BOX, DISCRETE, WIDE_BOX, assert_finite, make_model, sample_batch


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("offline", [False, True])
def test_a_divergence(monkeypatch, action_space, offline):
    # Half of chi-squared's penalty: phi(r) = r - c r^2 / 2
    row = Divergence(
        phi=lambda r, coef: r - coef * r**2 / 2,
        phi_prime=lambda r, coef: 1 - coef * r,
        optimal_reward=lambda u, coef: (1 - u) / coef,
        generator=lambda u, coef: (u - 1) ** 2 / (2 * coef),
        bounded=True,
    )
    monkeypatch.setitem(DIVERGENCES, "half", row)
    model = make_model("MlpPolicy", BOX, action_space, offline=offline, objective_kwargs=dict(divergence="half")).learn(20)
    assert model.objective.row is row
    assert_finite(model)


class ConstantPrior:
    bound = 3.0

    def __init__(self, inputs):
        self.reward = 3.0 * inputs.coefficient

    @staticmethod
    def follows_statistics(n_updates):
        return False

    def start(self, policy):
        return False

    def __call__(self, samples):
        return th.full((len(samples.dones),), self.reward)

    of_expert = __call__


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_a_prior(monkeypatch, action_space):
    row = PriorRow(ConstantPrior, lambda obs, actions, given: True)
    monkeypatch.setattr(reward_priors, "PRIORS", {"constant": row, **reward_priors.PRIORS})
    model = make_model("MlpPolicy", BOX, action_space, reward_prior=0.5, penalty_coef=2.0, gamma=0.9).learn(20)
    assert isinstance(model.prior, ConstantPrior)
    assert (sample_batch(model, 8).reward_prior == 1.5).all()
    assert model.objective.value_bound == pytest.approx((1.5 + 0.5) / 0.1)
    assert_finite(model)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_a_preset(monkeypatch, action_space, tmp_path):
    rows = {
        kind: dataclasses.replace(row, settings={**row.settings, "gamma": 0.8, "terminal_value": "zero"})
        for kind, row in PRESETS["default"].items()
    }
    monkeypatch.setitem(PRESETS, "short-sighted", rows)
    model = make_model("MlpPolicy", BOX, action_space, preset="short-sighted").learn(20)
    assert (model.gamma, model.objective.gamma, model.objective.terminal_value) == (0.8, 0.8, "zero")
    assert_finite(model)
    model.save(tmp_path / "model")
    assert IQLearn.load(tmp_path / "model").settings == model.settings
