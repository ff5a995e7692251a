"""The environments of both stacks, by their ids in gymnasium 1.x."""

import gymnasium as gym
import numpy as np
import pytest

# What gymnasium 0.29 has instead: observations, actions and time limits are the same
OLDER_IDS = {
    "LunarLander-v3": "LunarLander-v2",
    "LunarLanderContinuous-v3": "LunarLanderContinuous-v2",
    "HalfCheetah-v5": "HalfCheetah-v4",
    "Hopper-v5": "Hopper-v4",
    "Swimmer-v5": "Swimmer-v4",
    "Walker2d-v5": "Walker2d-v4",
}
# Of gymnasium 0.29, written for NumPy 1: they can be made, but not stepped beside NumPy 2
NEED_NUMPY_1 = {"Acrobot-v1", "LunarLanderContinuous-v2"}


def env_id(current_id: str) -> str:
    """
    :param current_id: id of an environment in gymnasium 1.x
    :return: its id in the gymnasium that is installed
    """
    return current_id if current_id in gym.registry else OLDER_IDS[current_id]


def steppable_env_id(current_id: str) -> str:
    """
    As :func:`env_id`, for a test that steps the environment: it is skipped where that cannot work.

    :param current_id: id of an environment in gymnasium 1.x
    :return: its id in the gymnasium that is installed
    """
    name = env_id(current_id)
    if name in NEED_NUMPY_1 and gym.__version__.startswith("0.") and np.__version__ >= "2":
        pytest.skip(f"{name} of gymnasium {gym.__version__} cannot be stepped with NumPy {np.__version__}, only with 1.x")
    return name
