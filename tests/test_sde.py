"""Generalised state-dependent exploration."""

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from tests.utils import BOX, DISCRETE, WIDE_BOX, assert_finite, make_model


class Noise(BaseCallback):
    """Notes the matrix that the noise of each step was drawn with."""

    def __init__(self):
        super().__init__()
        self.matrices = []

    def _on_step(self):
        self.matrices.append(self.model.actor.action_dist.exploration_mat.clone())
        return True

    def changes(self):
        return [not th.equal(one, other) for one, other in zip(self.matrices, self.matrices[1:], strict=False)]


@pytest.mark.parametrize("kwargs", [dict(use_sde=True), dict(use_sde=True, use_sde_at_warmup=True, sde_sample_freq=2)])
def test_sde(kwargs):
    model = make_model("MlpPolicy", BOX, WIDE_BOX, **kwargs).learn(16)
    assert model.actor.use_sde
    assert_finite(model)


def test_noise_is_drawn_as_often_as_asked():
    """Between gradient steps, of which each draws anew, and at warm-up, where the first steps are the policy's own."""
    noise = Noise()
    options = dict(learning_starts=9, train_freq=12, use_sde=True, use_sde_at_warmup=True, sde_sample_freq=4)
    model = make_model("MlpPolicy", BOX, WIDE_BOX, **options)
    model.learn(12, noise)
    assert noise.changes() == [step % 4 == 0 for step in range(1, 12)]
    rest = make_model("MlpPolicy", BOX, WIDE_BOX, **{**options, "sde_sample_freq": -1})
    rest.learn(12, once := Noise())
    assert not any(once.changes())


def test_discrete_actions_have_none():
    with pytest.raises(ValueError, match="can only be used with continuous actions"):
        make_model("MlpPolicy", BOX, DISCRETE, use_sde=True)
