"""The stand-in for an environment when training offline: spaces without dynamics."""

from typing import Any, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize, unwrap_vec_normalize


class SpacesEnv(gym.Env):
    """
    An environment that has spaces and can be reset (SB3 does so before learning), but cannot be stepped.

    :param observation_space: observation space
    :param action_space: action space
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if isinstance(self.observation_space, spaces.Dict):
            return {key: np.zeros(space.shape, space.dtype) for key, space in self.observation_space.items()}, {}
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}

    def step(self, action: Any) -> NoReturn:
        raise RuntimeError("Training is offline: there is no environment to step. Use set_env() to give the model one.")


def make_spaces_env(observation_space: spaces.Space, action_space: spaces.Space, env: VecEnv | None = None) -> VecEnv:
    """
    :param observation_space: observation space, as the policy sees it
    :param action_space: action space
    :param env: the environment the spaces come from; the statistics of its ``VecNormalize``, if it has one, are shared
    :return: a vectorised :class:`SpacesEnv`
    """
    spaces_env: VecEnv = DummyVecEnv([lambda: SpacesEnv(observation_space, action_space)])
    normalize = unwrap_vec_normalize(env) if env is not None else None
    if normalize is not None:
        # The stand-in's zeros must not enter the statistics, hence training=False
        spaces_env = VecNormalize(
            spaces_env,
            training=False,
            norm_obs=normalize.norm_obs,
            norm_reward=False,
            clip_obs=normalize.clip_obs,
            gamma=normalize.gamma,
            epsilon=normalize.epsilon,
            norm_obs_keys=normalize.norm_obs_keys,
        )
        if normalize.norm_obs:
            spaces_env.obs_rms = normalize.obs_rms
    return spaces_env
