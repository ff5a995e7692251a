"""What earlier versions saved and computed: their models load and go on, and the losses are those recorded then."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch as th

from sb3_iq import IQLearn
from sb3_iq.iq_learn.presets import DEFAULT, LinearDecay
from tests.utils import BOX, DISCRETE, WIDE_BOX, RandomEnv, assert_finite, parameters, random_trajectories

GOLDEN = Path(__file__).parent / "golden"
ACTION_SPACES = {"discrete": DISCRETE, "box": WIDE_BOX}
EXPECTED = json.loads((GOLDEN / "expected.json").read_text())
PARITY = json.loads((GOLDEN / "parity.json").read_text())


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_a_saved_model_predicts_as_before(name):
    model, expected = IQLearn.load(GOLDEN / name, device="cpu"), EXPECTED[name]
    assert model._n_updates == expected["n_updates"]
    arrays = {key: np.array(expected[key]) for key in ("obs", "actions", "next_obs", "terminated")}
    arrays |= {key: arrays[key].astype(np.float32) for key in ("obs", "next_obs")}
    predicted, _ = model.predict(arrays["obs"], deterministic=True)
    assert predicted.astype(float) == pytest.approx(np.array(expected["predicted"], float), abs=1e-5)
    assert model.predict_reward(**arrays) == pytest.approx(np.array(expected["rewards"]), abs=1e-5)


def test_its_arguments_are_where_they_belong():
    model = IQLearn.load(GOLDEN / "discrete", device="cpu")
    assert model.objective_kwargs["divergence"] == "jensen_shannon"
    assert (model.objective.occupancy_term, model.objective.critic_bound) == ("start_states", "tanh")
    assert (model.ent_coef, model.bc_coef) == ("auto_0.1", 0.3)
    model = IQLearn.load(GOLDEN / "box", device="cpu")
    assert (model.policy.actor_tau, model.penalty_coef, model.objective.gradient_penalty) == (0.01, 4.0, 1.0)
    for name in ("divergence", "critic_bound", "actor_tau", "use_target", "policy_delay", "replay_window"):
        assert not hasattr(model, name)


@pytest.mark.parametrize("name", ACTION_SPACES)
def test_it_goes_on_learning(name, tmp_path):
    env = RandomEnv(BOX, ACTION_SPACES[name])
    model = IQLearn.load(GOLDEN / name, env=env, expert_data=random_trajectories(env), device="cpu")
    before, steps = model._n_updates, model.num_timesteps
    model.learn(40, reset_num_timesteps=False)
    assert model.num_timesteps == steps + 40 and model._n_updates > before
    assert_finite(model)
    model.save(tmp_path / "model")
    again = IQLearn.load(tmp_path / "model", device="cpu")
    assert again.settings == model.settings
    assert th.equal(parameters(again), parameters(model))


def with_form(**form):
    return dict(ent_coef="auto_0.1", objective_kwargs=form)


# The defaults of then, for discrete and continuous actions
SMALL_PENALTY = dict(penalty_coef=0.5)
WITHOUT_PRIOR = dict(reward_prior=0.0, **SMALL_PENALTY)
WARM = dict(ent_coef=0.01)
SMALL_NETWORKS = dict(policy_kwargs=dict(net_arch=[64, 64]), learning_rate=5e-4)
CASES = {
    "discrete-online": (DISCRETE, {**WITHOUT_PRIOR, **SMALL_NETWORKS}),
    "discrete-offline": (DISCRETE, dict(offline=True, **SMALL_PENALTY, **SMALL_NETWORKS)),
    "box-online": (WIDE_BOX, {}),
    "box-offline": (
        WIDE_BOX,
        dict(offline=True, penalty_coef=32.0, actor_learning_rate=LinearDecay(3e-4), **WARM),
    ),
    "paper-discrete-offline": (DISCRETE, dict(offline=True, preset="paper")),
    "paper-box-online": (WIDE_BOX, dict(preset="paper")),
    "ls-iq-box-online": (WIDE_BOX, dict(preset="ls-iq")),
    "auto-temp-discrete": (
        DISCRETE,
        {**with_form(gradient_penalty=1.0, occupancy_term="start_states"), **WITHOUT_PRIOR, **SMALL_NETWORKS},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_are_those_recorded(name, monkeypatch):
    """Of the first gradient steps, with some slack for another processor's rounding."""
    # The default of then
    for setting, value in (("input_lasso", 0.0), ("bc_coef", 1.0)):
        monkeypatch.setitem(DEFAULT["continuous"].offline, setting, value)
    action_space, settings = CASES[name]
    env = RandomEnv(BOX, action_space)
    options = dict(learning_starts=20, buffer_size=2000, seed=0, device="cpu")
    model = IQLearn("MlpPolicy", env, random_trajectories(env, 6, 20), **options, **settings)
    model.learn(1 if model.offline else 22)
    losses = []
    for _ in range(20):
        model._update_current_progress_remaining(model._n_updates, 400)
        model.train(1, model.batch_size)
        model._record_means()
        losses.append(model.logger.name_to_value["train/critic_loss"])
    assert losses == pytest.approx(PARITY[name], rel=1e-4, abs=1e-5)
