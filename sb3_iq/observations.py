"""Observations as tensors or dictionaries of tensors: map, concatenate, take."""

from collections.abc import Callable
from typing import cast

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples

Samples = ReplayBufferSamples | DictReplayBufferSamples


def map_obs(function: Callable[[th.Tensor], th.Tensor], obs: PyTorchObs) -> PyTorchObs:
    """
    :param function: what to do with a tensor
    :param obs: a tensor, or a dictionary of tensors
    :return: the result, of the same form
    """
    return {key: function(values) for key, values in obs.items()} if isinstance(obs, dict) else function(obs)


def concatenate_obs(*batches: PyTorchObs) -> PyTorchObs:
    """
    Stack batches of observations along the batch axis.

    :param batches: tensors of shape (batch_i, ...), or dictionaries of such
    :return: one tensor of shape (sum of batch_i, ...), or a dictionary of such
    """
    if len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], dict):
        return {key: th.cat([cast(dict, batch)[key] for batch in batches]) for key in batches[0]}
    return th.cat(cast(tuple, batches))


def batch_length(obs: PyTorchObs) -> int:
    """
    :param obs: a tensor of shape (batch, ...), or a dictionary of such
    :return: the number of observations
    """
    return len(next(iter(obs.values()))) if isinstance(obs, dict) else len(obs)


def first_rows(obs: PyTorchObs, n: int) -> PyTorchObs:
    """
    :param obs: a tensor of shape (batch, ...), or a dictionary of such
    :param n: how many observations to take
    :return: the first n of them
    """
    return map_obs(lambda values: values[:n], obs)


def rows_of(samples: Samples, rows: th.Tensor) -> Samples:
    """
    :param samples: transitions
    :param rows: which of them, as a mask or as positions
    :return: those transitions
    """

    def take(values: th.Tensor) -> th.Tensor:
        return values[rows]

    return samples._replace(
        observations=map_obs(take, samples.observations),  # type: ignore[arg-type]
        actions=take(samples.actions),
        next_observations=map_obs(take, samples.next_observations),  # type: ignore[arg-type]
        dones=take(samples.dones),
        rewards=take(samples.rewards),
    )


def concatenate_samples(*parts: Samples) -> Samples:
    """
    :param parts: transitions
    :return: all of them
    """
    if len(parts) == 1:
        return parts[0]
    return parts[0]._replace(
        observations=concatenate_obs(*(part.observations for part in parts)),  # type: ignore[arg-type]
        actions=th.cat([part.actions for part in parts]),
        next_observations=concatenate_obs(*(part.next_observations for part in parts)),  # type: ignore[arg-type]
        dones=th.cat([part.dones for part in parts]),
        rewards=th.cat([part.rewards for part in parts]),
    )


def has_distance(observation_space: spaces.Space) -> bool:
    """
    :param observation_space: any observation space
    :return: whether the distance of two observations says how alike they are, which that of two images does not
    """
    named = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
    return not any(is_image_space(space) for space in named)
