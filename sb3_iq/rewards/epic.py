"""The EPIC distance of two rewards, which shaping and scale do not change (https://arxiv.org/abs/2006.13900)."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import numpy as np

from sb3_iq.observations import concatenate_obs, take_rows
from sb3_iq.rewards.episodes import Episode
from sb3_iq.rewards.parts import Obs
from sb3_iq.rewards.statistics import pearson

RewardFunction: TypeAlias = Callable[[Obs, np.ndarray, Obs, np.ndarray], np.ndarray]


def pendulum(obs: Obs, actions: np.ndarray, next_obs: Obs, terminated: np.ndarray) -> np.ndarray:
    """:return: the true rewards of Pendulum-v1, for any transitions, shape (batch,)"""
    assert isinstance(obs, np.ndarray)
    angle = np.arctan2(obs[:, 1], obs[:, 0])
    torque = np.clip(actions.reshape(-1), -2.0, 2.0)
    return -(angle**2 + 0.1 * obs[:, 2] ** 2 + 0.001 * torque**2)


# True rewards as functions of any transition, that of the environment or not
TRUE_REWARDS: dict[str, RewardFunction] = {"Pendulum-v1": pendulum}


def epic_distance(
    reward: RewardFunction,
    other: RewardFunction,
    episodes: Sequence[Episode],
    gamma: float,
    n_transitions: int = 256,
    n_samples: int = 128,
    seed: int = 0,
) -> float:
    """
    The distance sqrt((1 - rho) / 2) for the correlation rho of both rewards after their canonical shaping,

        C(R)(s, a, s') = R(s, a, s') + E[gamma R(s', A, S') - R(s, A, S') - gamma R(S, A, S')],

    with S, S' and A drawn independently from the states and actions of the episodes (Definition 4.1; the last term is a
    constant, which no correlation sees). Both rewards must be defined for transitions that the environment never makes.

    :param reward: a reward as a function of (obs, actions, next_obs, terminated), such as a ``LearnedReward``
    :param other: another one
    :param episodes: where states, actions and transitions come from
    :param gamma: the discount factor of the shaping
    :param n_transitions: for how many transitions the rewards are compared
    :param n_samples: over how many draws of (A, S') each expectation is taken
    :param seed: the seed of the draws
    :return: the distance, in [0, 1]: 0 for rewards that differ in shaping and positive scale only, 0.7 for unrelated ones
    """
    rng = np.random.default_rng(seed)
    obs = concatenate_obs(*(episode.obs for episode in episodes))
    next_obs = concatenate_obs(*(episode.next_obs for episode in episodes))
    actions = np.concatenate([episode.actions for episode in episodes])
    n = len(actions)
    rows = rng.integers(n, size=n_transitions)
    sampled_actions, sampled_states = actions[rng.integers(n, size=n_samples)], take_rows(obs, rng.integers(n, size=n_samples))

    def mean_reward(function: RewardFunction, states: Obs) -> np.ndarray:
        repeated = take_rows(states, np.repeat(np.arange(n_transitions), n_samples))
        tiled = np.tile(np.arange(n_samples), n_transitions)
        no_end = np.zeros(len(tiled), dtype=bool)
        values = function(repeated, sampled_actions[tiled], take_rows(sampled_states, tiled), no_end)
        return values.reshape(n_transitions, n_samples).mean(axis=1)

    def canonical(function: RewardFunction) -> np.ndarray:
        states, next_states = take_rows(obs, rows), take_rows(next_obs, rows)
        rewards = function(states, actions[rows], next_states, np.zeros(n_transitions, dtype=bool))
        return rewards + gamma * mean_reward(function, next_states) - mean_reward(function, states)

    correlation = pearson(canonical(reward).astype(np.float64), canonical(other).astype(np.float64))
    return float(np.sqrt((1 - correlation) / 2))
