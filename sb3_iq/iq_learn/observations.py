"""Batches of observations, be they tensors or dictionaries of tensors."""

from typing import cast

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs


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
    return {key: values[:n] for key, values in obs.items()} if isinstance(obs, dict) else obs[:n]
