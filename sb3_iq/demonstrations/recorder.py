"""From an agent to episodes."""

import copy
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_iq.demonstrations.errors import check_integer, shorten
from sb3_iq.demonstrations.trajectory import Trajectory


def record(
    predict: Callable[[Any], Any],
    env: gym.Env,
    n_episodes: int,
    seed: int = 0,
    reset_options: dict[str, Any] | None = None,
) -> list[Trajectory]:
    """
    Play whole episodes and record them.

    :param predict: from one observation, as the environment gives it, to one action, as the environment takes it, e.g.
        ``lambda obs: model.predict(obs, deterministic=True)[0]``
    :param env: a Gymnasium environment whose episodes end
    :param n_episodes: the number of episodes (typically 1 to 50)
    :param seed: episode k is reset with ``seed + k``
    :param reset_options: the ``options`` of every reset
    :return: the episodes, with raw observations and exact flags
    :raises TypeError: if an argument is of another type, or ``predict`` returns what SB3's does
    :raises ValueError: if a number is out of range
    """
    if not callable(predict):
        raise TypeError(
            f"predict is {shorten(predict)}: expected a function of one observation. For a model of SB3 it is "
            "lambda obs: model.predict(obs, deterministic=True)[0]"
        )
    if not isinstance(env, gym.Env):
        raise TypeError(f"env is {shorten(env)}: expected a single environment of Gymnasium, e.g. gymnasium.make(ID)")
    check_integer("n_episodes", n_episodes, 1)
    check_integer("seed", seed, 0)
    return [play(predict, env, seed + episode, reset_options) for episode in range(n_episodes)]


def play(
    predict: Callable[[Any], Any], env: gym.Env, seed: int | None = None, reset_options: dict[str, Any] | None = None
) -> Trajectory:
    """
    Play one episode and record it.

    :param predict: from one observation to one action, as in :func:`record`
    :param env: a Gymnasium environment whose episodes end
    :param seed: the seed of the reset, None to go on with the environment's generator
    :param reset_options: the ``options`` of the reset
    :return: the episode
    """
    obs, _ = env.reset(seed=seed, options=reset_options)
    observations, actions, rewards = [copy.deepcopy(obs)], [], []  # copies: an environment may write into its own arrays
    terminated = truncated = False
    while not (terminated or truncated):
        action = predict(obs)
        if isinstance(action, tuple) and len(action) == 2 and (action[1] is None or isinstance(action[1], tuple)):
            raise TypeError(
                "predict returned an action and a state, as SB3's model.predict does: expected the action alone, "
                "model.predict(obs)[0]"
            )
        actions.append(copy.deepcopy(action))
        obs, reward, terminated, truncated, _ = env.step(action)
        observations.append(copy.deepcopy(obs))
        rewards.append(float(reward))
    stacked: Any = np.stack(observations) if not isinstance(obs, dict) else None
    if isinstance(obs, dict):
        stacked = {key: np.stack([step[key] for step in observations]) for key in obs}
    terminated = bool(terminated)
    return Trajectory(stacked, np.stack(actions), np.array(rewards), terminated, not terminated)
