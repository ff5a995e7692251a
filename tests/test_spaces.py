"""Every kind of space is learned from vectors, or refused with the reason."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn
from tests.utils import (
    BOX,
    COMBINATIONS,
    DISCRETE,
    SMALL,
    WIDE_BOX,
    RandomEnv,
    assert_finite,
    check_learning,
    random_trajectories,
)


@pytest.mark.parametrize("policy, observation_space, action_space", [row for row in COMBINATIONS if row[0] == "MlpPolicy"])
@pytest.mark.parametrize("offline", [False, True])
def test_learning(policy, observation_space, action_space, offline):
    check_learning(policy, observation_space, action_space, offline)


def test_actions_on_the_bounds_stay_finite():
    env = RandomEnv(BOX, WIDE_BOX)
    trajectories = random_trajectories(env)
    for trajectory in trajectories:
        trajectory.acts[:] = np.where(trajectory.acts > 0.5, WIDE_BOX.high, WIDE_BOX.low)
    assert_finite(IQLearn("MlpPolicy", env, trajectories, **SMALL).learn(40))
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, **SMALL).learn(40)
    batch = model.expert_buffer.all()
    assert batch.actions.abs().max() == 1
    assert th.isfinite(
        model.actor.action_dist.proba_distribution(*model.actor.get_action_dist_params(batch.observations)[:2]).log_prob(
            batch.actions
        )
    ).all()


def test_bounds_that_differ_as_infinite_and_huge():
    largest = float(np.finfo(np.float32).max)
    huge = spaces.Box(-largest, largest, (3,), np.float32)
    infinite = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    trajectories = random_trajectories(RandomEnv(BOX, DISCRETE))
    model = IQLearn("MlpPolicy", RandomEnv(huge, DISCRETE), trajectories, offline=True, **SMALL).learn(2)
    model.set_env(RandomEnv(infinite, DISCRETE))
    model.offline = False
    model.learn(20)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(RandomEnv(BOX, DISCRETE))


def test_load_with_bounds_that_differ_as_infinite_and_huge(tmp_path):
    largest = float(np.finfo(np.float32).max)
    huge, infinite = (spaces.Box(-bound, bound, (3,), np.float32) for bound in (largest, np.inf))
    env = RandomEnv(huge, DISCRETE)
    IQLearn("MlpPolicy", env, random_trajectories(RandomEnv(BOX, DISCRETE)), **SMALL).save(tmp_path / "model")
    IQLearn.load(tmp_path / "model", env=RandomEnv(infinite, DISCRETE))
