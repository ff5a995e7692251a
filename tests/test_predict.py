"""Stochastic and deterministic predictions."""

import numpy as np
import pytest
import torch as th

from tests.utils import BOX, DISCRETE, WIDE_BOX, make_model


def test_softmax_and_argmax():
    model = make_model("MlpPolicy", BOX, DISCRETE, ent_coef=0.5, seed=0)
    obs = np.tile(np.array([0.2, -0.5, 0.7], np.float32), (4000, 1))
    with th.no_grad():
        q_values = model.q_net(th.as_tensor(obs[:1]))
    probabilities = th.softmax(q_values / 0.5, dim=1)[0].numpy()
    actions, _ = model.predict(obs, deterministic=False)
    assert np.bincount(actions, minlength=3) / 4000 == pytest.approx(probabilities, abs=0.03)
    actions, _ = model.predict(obs, deterministic=True)
    assert (actions == int(q_values.argmax())).all()
    value = model.policy.expected_state_value(th.as_tensor(obs[:1]), th.tensor(0.5))
    assert value.item() == pytest.approx(0.5 * np.log(np.exp(q_values.numpy() / 0.5).sum()), rel=1e-5)


def test_continuous_actions_are_drawn_or_the_average_of_the_actor():
    model = make_model("MlpPolicy", BOX, WIDE_BOX).learn(20)
    obs = np.tile(BOX.sample(), (50, 1))
    drawn, fixed = (model.predict(obs, deterministic=deterministic)[0] for deterministic in (False, True))
    assert len(np.unique(drawn, axis=0)) == 50 and len(np.unique(fixed, axis=0)) == 1
    with th.no_grad():
        averaged = model.policy.averaged_actor(th.as_tensor(obs), deterministic=True).numpy()
        latest = model.actor(th.as_tensor(obs), deterministic=True).numpy()
    assert np.array_equal(fixed, model.policy.unscale_action(averaged)) and not np.allclose(latest, averaged, atol=1e-6)
