"""What a comparison refuses before its first run, in the words of the argument that does not fit."""

import gymnasium as gym
import pytest

from sb3_iq.compare import compare
from tests.utils import BOX, RandomEnv

DEMOS = "bundled:CartPole-v1"


class BrokenEnv(RandomEnv):
    """An environment that breaks with its first step."""

    def __init__(self) -> None:
        super().__init__(BOX, gym.spaces.Discrete(2))

    def step(self, action):
        raise AttributeError("`np.float_` was removed in the NumPy 2.0 release")


def test_environment_that_breaks_with_random_actions(tmp_path, monkeypatch):
    monkeypatch.setitem(gym.registry, "Broken-v0", gym.envs.registration.EnvSpec("Broken-v0", BrokenEnv))
    message = r"env='Broken-v0': this environment fails with random actions \(AttributeError: `np.float_` was removed"
    with pytest.raises(ValueError, match=message):
        compare("Broken-v0", DEMOS, ["iq"], [1], 1, 40, tmp_path / "out", n_eval_episodes=1)
    assert not (tmp_path / "out").exists()
