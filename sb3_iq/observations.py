"""Observations as tensors, arrays or dictionaries of such: map, concatenate, take, and which of them are images."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples

Samples = ReplayBufferSamples | DictReplayBufferSamples
ObsT = TypeVar("ObsT")
# Those of SB3 2.2; later ones add what only returns over several steps need
COLUMNS = ("observations", "actions", "next_observations", "dones", "rewards")


def map_obs(function: Callable[[Any], Any], obs: Any) -> Any:
    """
    :param function: what to do with a tensor or array
    :param obs: one of them, or a dictionary of such
    :return: the result, of the same form
    """
    return {key: function(values) for key, values in obs.items()} if isinstance(obs, dict) else function(obs)


def concatenate_obs(*batches: ObsT) -> ObsT:
    """
    :param batches: tensors or arrays of shape (batch_i, ...), or dictionaries of such
    :return: one of shape (sum of batch_i, ...)
    """
    if len(batches) == 1:
        return batches[0]
    return _joined(batches, lambda parts: th.cat(parts) if isinstance(parts[0], th.Tensor) else np.concatenate(parts))


def stack_obs(observations: Sequence[ObsT]) -> ObsT:
    """
    :param observations: arrays of shape (...), or dictionaries of such
    :return: one of shape (number, ...)
    """
    return _joined(observations, np.stack)


def _joined(parts: Sequence[Any], join: Callable[[list[Any]], Any]) -> Any:
    if isinstance(parts[0], dict):
        return {key: join([part[key] for part in parts]) for key in parts[0]}
    return join(list(parts))


def batch_length(obs: Any) -> int:
    """
    :param obs: a tensor or array of shape (batch, ...), or a dictionary of such
    :return: the number of observations
    """
    return len(next(iter(obs.values()))) if isinstance(obs, dict) else len(obs)


def take_rows(obs: ObsT, rows: Any) -> ObsT:
    """
    :param obs: a tensor or array of shape (batch, ...), or a dictionary of such
    :param rows: which observations, as positions, as a mask or as a slice
    :return: those observations
    """
    return map_obs(lambda values: values[rows], obs)


def take_samples(samples: Samples, rows: th.Tensor) -> Samples:
    """
    :param samples: transitions
    :param rows: which of them, as a mask or as positions
    :return: those transitions
    """
    return samples._replace(**{name: take_rows(getattr(samples, name), rows) for name in COLUMNS})


def concatenate_samples(*parts: Samples) -> Samples:
    """
    :param parts: transitions
    :return: all of them
    """
    if len(parts) == 1:
        return parts[0]
    return parts[0]._replace(**{name: concatenate_obs(*(getattr(part, name) for part in parts)) for name in COLUMNS})


def is_image(space: spaces.Space) -> bool:
    """
    :param space: a space without parts
    :return: whether its elements are images: what SB3 takes for one (uint8, 0 to 255), or floats on three axes with one
        finite range for all pixels, e.g. [0, 1]
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


# Pixels in height or width, below which SB3's NatureCNN has nothing left
SMALLEST_OF_CNN = 36


def has_channels_last(space: spaces.Box) -> bool:
    """
    :param space: the space of an image
    :return: whether SB3 leaves its channels last, as it only transposes uint8
    """
    return space.dtype.kind == "f" and not channels_first(space)


def is_small(space: spaces.Box) -> bool:
    """
    :param space: the space of an image
    :return: whether it has fewer pixels than SB3's NatureCNN takes
    """
    return sorted(space.shape)[-2] < SMALLEST_OF_CNN


def images_of(observation_space: spaces.Space) -> dict[str, spaces.Box]:
    """
    :param observation_space: any observation space
    :return: the spaces of its images by their keys, under "" that of an observation without keys
    """
    named: Any = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    return {key: space for key, space in named.items() if is_image(space)}


def integer_pixels(observation_space: spaces.Space) -> bool:
    """
    :param observation_space: any observation space
    :return: False if its images hold floats, which SB3's networks are not to divide by 255 (``normalize_images``)
    """
    images = images_of(observation_space).values()
    return not images or any(space.dtype is not None and space.dtype.kind != "f" for space in images)


def has_distance(observation_space: spaces.Space) -> bool:
    """
    :param observation_space: any observation space
    :return: whether the distance of two observations says how alike they are, which that of two images does not
    """
    return not images_of(observation_space)
