"""The environment of a comparison, by name, so that a worker anywhere can make it."""

import importlib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium as gym
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv

from sb3_iq.demonstrations.errors import shorten
from sb3_iq.observations import channels_first, is_image

# The shortest side of an image that the three convolutions of NatureCNN leave a pixel of
MIN_SIDE = 36


@dataclass(frozen=True)
class Environment:
    """
    A registered environment.

    :param env_id: its id
    :param kwargs: its arguments
    :param packages: modules to import first: they register environments
    """

    env_id: str
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    packages: tuple[str, ...] = ()

    def __getstate__(self) -> dict[str, Any]:
        """:return: the fields, and what this process registered by this id, which another one may not have"""
        spec = None if self.packages else gym.registry.get(self.env_id)
        return {**self.__dict__, "spec": spec if is_portable(spec) else None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        spec = state.pop("spec", None)
        self.__dict__.update(state)
        if spec is not None:
            gym.registry.setdefault(self.env_id, spec)

    def check_portable(self) -> None:
        """:raises ValueError: if it is registered in this process in a way that another process cannot repeat"""
        if not self.packages and not is_portable(gym.registry.get(self.env_id)):
            raise ValueError(
                f"env={shorten(self.env_id)}: this environment is defined in a script or a notebook, where the process of a "
                "run cannot find it. Define it in a module of its own, which registers it, and name that with gym_packages"
            )

    def make(self) -> gym.Env:
        """
        :return: a new one
        :raises ValueError: if it cannot be made, with the reason
        """
        try:
            for package in self.packages:
                importlib.import_module(package)
            return gym.make(self.env_id, **self.kwargs)
        except Exception as error:  # an id that is unknown or deprecated, a package that is missing, the environment itself
            raise ValueError(
                f"env={shorten(self.env_id)}: this environment cannot be made ({type(error).__name__}: {error}). Check the id "
                "and its arguments, and name a package that registers it with gym_packages"
            ) from error

    def vectorized(self, n_envs: int = 1) -> VecEnv:
        """
        :param n_envs: how many
        :return: new ones, side by side, wrapped as SB3's algorithms wrap them (images: channels first)
        """
        return BaseAlgorithm._wrap_env(DummyVecEnv([lambda: Monitor(self.make())] * n_envs), 0)


def is_portable(value: Any) -> bool:
    """
    :param value: what a process of its own, which does a run, is given
    :return: whether another process can read it
    """
    try:
        # By its name alone, which stands for something else in another process
        return b"__main__" not in pickle.dumps(value)
    except Exception:  # pickle raises several kinds
        return False


def policy_name(observation_space: spaces.Space) -> str:
    """
    :param observation_space: a space, as a vectorised environment has it
    :return: SB3's name of the policy for it. Images with a side that is too short for NatureCNN are vectors; those of floats
        take ``normalize_images=False``, see :func:`~sb3_iq.observations.integer_pixels`
    """
    if isinstance(observation_space, spaces.Dict):
        return "MultiInputPolicy"
    if not isinstance(observation_space, spaces.Box):
        return "MlpPolicy"
    if not is_image(observation_space) or not (is_image_space(observation_space) or channels_first(observation_space)):
        return "MlpPolicy"  # no image, or one of floats that SB3 does not transpose
    sides = observation_space.shape[1:] if channels_first(observation_space) else observation_space.shape[:2]
    return "CnnPolicy" if min(sides) >= MIN_SIDE else "MlpPolicy"
