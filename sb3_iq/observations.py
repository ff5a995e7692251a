"""Observations as tensors or dictionaries of tensors: map, concatenate, take, and which of them are images."""

from collections.abc import Callable
from typing import Any, cast

import numpy as np
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


def is_image(space: spaces.Space) -> bool:
    """
    :param space: a space without parts
    :return: whether its elements are images: what SB3 takes for one (uint8, 0 to 255), or floats on three axes with one
        finite range for all pixels, e.g. [0, 1], which SB3's networks take with ``normalize_images=False``
    """
    if is_image_space(space):
        return True
    if not isinstance(space, spaces.Box) or len(space.shape) != 3 or space.dtype.kind != "f":
        return False
    low, high = space.low.flat[0], space.high.flat[0]
    return bool(np.isfinite([low, high]).all() and (space.low == low).all() and (space.high == high).all())


def channels_first(space: spaces.Box) -> bool:
    """
    :param space: the space of an image
    :return: whether its first axis is that of the channels, the shorter one of the first and the last
    """
    return space.shape[0] <= space.shape[-1]


def images_of(observation_space: spaces.Space) -> dict[str, spaces.Box]:
    """
    :param observation_space: any observation space
    :return: the spaces of its images by their keys, under "" that of an observation without keys
    """
    named: Any = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    return {key: space for key, space in named.items() if is_image(space)}


def has_distance(observation_space: spaces.Space) -> bool:
    """
    :param observation_space: any observation space
    :return: whether the distance of two observations says how alike they are, which that of two images does not
    """
    return not images_of(observation_space)
