"""Small networks as NumPy functions: for the few rows of a vectorised step, PyTorch's own overhead is most of the time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import FlattenExtractor
from torch import nn

from sb3_iq.iq_learn.networks import ScaledTanh
from sb3_iq.iq_learn.normalization import MAX_MAGNITUDE, Standardize
from sb3_iq.iq_learn.optimization import InPlaceReLU
from sb3_iq.observations import is_image

Function = Callable[[np.ndarray], np.ndarray]


def _linear(rows: np.ndarray, weight: np.ndarray, bias: np.ndarray) -> np.ndarray:
    result = rows @ weight
    result += bias
    return result


def _relu(rows: np.ndarray) -> np.ndarray:
    return np.maximum(rows, 0.0)


def _scaled_tanh(rows: np.ndarray, bound: float) -> np.ndarray:
    return bound * np.tanh(rows / bound)


def _standardize(rows: np.ndarray, mean: np.ndarray, std: np.ndarray) -> np.ndarray:
    return np.minimum(np.maximum((rows - mean) / std, -MAX_MAGNITUDE), MAX_MAGNITUDE)


def _chain(rows: np.ndarray, functions: list[Function]) -> np.ndarray:
    # Networks are of single precision
    rows = rows.astype(np.float32, copy=False)
    for function in functions:
        rows = function(rows)
    return rows


def _flatten(rows: np.ndarray) -> np.ndarray:
    return rows.reshape(len(rows), -1)


def _array(values: th.Tensor) -> np.ndarray:
    return np.ascontiguousarray(values.detach().cpu().numpy())


LAYERS: dict[type[nn.Module], Callable[[Any], Function]] = {
    nn.Linear: lambda layer: partial(
        _linear,
        weight=_array(layer.weight.T),
        bias=np.zeros(layer.out_features, np.float32) if layer.bias is None else _array(layer.bias),
    ),
    nn.ReLU: lambda layer: _relu,
    InPlaceReLU: lambda layer: _relu,
    nn.Tanh: lambda layer: np.tanh,
    ScaledTanh: lambda layer: partial(_scaled_tanh, bound=layer.bound),
    Standardize: lambda layer: partial(_standardize, mean=_array(layer.mean), std=_array(layer.std)),
}
"""What is known of a layer: its class, and the same as a function of rows."""


def q_function(policy: BasePolicy) -> Function | None:
    """
    :param policy: the networks of discrete actions
    :return: Q(s, .) as a function of observations, shape (batch, n_actions); None if the networks are of other layers than
        those in the table, have a features extractor of their own, see images or dictionaries, or are not on the CPU
    """
    networks: Any = policy
    space, q_net = policy.observation_space, networks.q_net
    if not isinstance(space, spaces.Box) or is_image(space) or policy.device.type != "cpu":
        return None
    if type(q_net.features_extractor) is not FlattenExtractor:
        return None
    layers: list[nn.Module] = list(q_net.q_net)
    if networks.normalize_obs and networks.normalizer.fitted:
        layers = [networks.normalizer.parts["obs"], *layers]
    if any(type(layer) not in LAYERS for layer in layers):
        return None
    functions = [LAYERS[type(layer)](layer) for layer in layers]
    # After what has the observation's shape comes what has rows
    functions.insert(int(type(layers[0]) is Standardize), _flatten)
    function = partial(_chain, functions=functions)
    return function if _is_the_same(function, q_net, space) else None


def _is_the_same(function: Function, network: nn.Module, space: spaces.Box) -> bool:
    """Whether a function computes what a network does, whose parts may have been changed by the user."""
    rows = np.random.default_rng(0).normal(size=(16, *space.shape)).astype(np.float32)
    with th.no_grad():
        expected = network(th.as_tensor(rows)).numpy()
    found = function(rows)
    return found.shape == expected.shape and bool(np.allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max()))
