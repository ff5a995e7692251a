"""Whole episodes of any policy, as arrays: what the instruments measure."""

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import gymnasium as gym
import numpy as np

# An observation and the step it is at, and the action in the environment's units
Act = Callable[[np.ndarray, int], np.ndarray]


def model_parser(description: str | None) -> argparse.ArgumentParser:
    """:return: the arguments of an instrument that measures a model: the model, its environment, its demonstrations"""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("env")
    parser.add_argument("demos", help="the demonstrations that it was trained with, whatever load_demonstrations takes")
    return parser


@dataclass(frozen=True)
class Episode:
    """
    One episode, or its beginning.

    :param obs: observations, the last one included, shape (T + 1, \\*obs_shape)
    :param actions: in the environment's units, shape (T, \\*action_shape)
    :param rewards: of the environment, shape (T,)
    :param terminated: whether it ended in a terminal state
    """

    obs: np.ndarray
    actions: np.ndarray
    rewards: np.ndarray
    terminated: bool

    @property
    def ret(self) -> float:
        """The sum of rewards."""
        return float(self.rewards.sum())

    @property
    def dones(self) -> np.ndarray:
        """1 where the episode ended in a terminal state, shape (T,)."""
        dones = np.zeros(len(self.actions), np.float32)
        dones[-1] = self.terminated
        return dones


def play(env_id: str, act: Act, n_episodes: int, seed: int) -> list[Episode]:
    """
    :param env_id: the environment
    :param act: the policy
    :param n_episodes: how many episodes, from resets with ``seed``, ``seed + 1``, ...
    :param seed: the first seed
    :return: the episodes
    """
    env = gym.make(env_id)
    episodes = []
    for episode in range(n_episodes):
        obs, _ = env.reset(seed=seed + episode)
        observations, actions, rewards, over, terminated = [obs], list[np.ndarray](), list[float](), False, False
        while not over:
            action = act(obs, len(actions))
            obs, reward, terminated, truncated, _ = env.step(action)
            observations.append(obs)
            actions.append(action)
            rewards.append(float(reward))
            over = terminated or truncated
        episodes.append(Episode(np.array(observations), np.array(actions), np.array(rewards), terminated))
    env.close()
    return episodes
