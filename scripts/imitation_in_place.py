"""
A pytest plugin: in the tests that the library imitation has of SQIL, IQLearnTrainer stands in its place.

The tests download experts. Here the demonstrations are those of CartPole-v1 that the package brings along, whose observations
and actions are those of imitation's CartPole, and random episodes of Pendulum-v1, from which nothing is to be learned.
"""

from typing import Any

import numpy as np
import pytest
from imitation.algorithms import sqil
from imitation.data import rollout
from imitation.data.types import Transitions
from imitation.testing import expert_trajectories
from stable_baselines3.common.env_util import make_vec_env

from sb3_iq import load_demonstrations
from sb3_iq.imitation import IQLearnTrainer

NOT_APPLICABLE = {
    "test_sqil_demonstration_buffer": "asks for SQIL's own buffer: IQ-Learn keeps demonstrations in its ExpertBuffer",
    "test_sqil_constructor_raises": "asks for SQIL's refusal of other replay buffers, which IQ-Learn takes",
}


def demonstrations_of(env_name: str, rng: np.random.Generator, expert_data_type: str, **_: Any) -> Transitions:
    """Stands for imitation's function, which downloads an expert. The tests that apply ask for transitions."""
    assert expert_data_type == "transitions"
    if "CartPole" in env_name:
        return rollout.flatten_trajectories(load_demonstrations("bundled:CartPole-v1").to_imitation())
    env = make_vec_env(env_name, n_envs=2, seed=0)
    enough = rollout.make_sample_until(min_episodes=4)
    return rollout.flatten_trajectories(rollout.generate_trajectories(None, env, enough, rng))


sqil.SQIL = IQLearnTrainer
expert_trajectories.make_expert_transition_loader = demonstrations_of


@pytest.hookimpl
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Expect to fail what can't apply."""
    for item in items:
        if reason := NOT_APPLICABLE.get(getattr(item, "originalname", item.name)):
            item.add_marker(pytest.mark.xfail(reason=reason, strict=True))
