"""Observations standardised by the mean and standard deviation of the demonstrations, inside of the networks."""

from collections.abc import Callable
from typing import TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

# What is far from the demonstrations stays in a network's range
MAX_MAGNITUDE = 10.0
MIN_VARIANCE = 1e-4
MIN_STD = 1e-3

AnyObs = TypeVar("AnyObs", th.Tensor, dict[str, th.Tensor])


def softened(variance: th.Tensor) -> th.Tensor:
    """
    :param variance: variances
    :return: standard deviations of at least 0.01: what is constant in the demonstrations is not blown up without end
    """
    return (variance + MIN_VARIANCE).sqrt()


def own_units_if_constant(variance: th.Tensor) -> th.Tensor:
    """
    :param variance: variances
    :return: standard deviations, 1 where there is none: what is constant in the demonstrations counts in its own units
    """
    std = variance.sqrt()
    return th.where(std < MIN_STD, 1.0, std)


class Standardize(nn.Module):
    """
    x -> (x - mean) / std, clipped to [-10, 10]; the identity until it is fitted.

    :param shape: shape of an observation
    :param std_of: the standard deviations of variances
    """

    mean: th.Tensor
    std: th.Tensor
    fitted: th.Tensor

    def __init__(self, shape: tuple[int, ...], std_of: Callable[[th.Tensor], th.Tensor] = softened) -> None:
        super().__init__()
        self.std_of = std_of
        self.register_buffer("mean", th.zeros(shape))
        self.register_buffer("std", th.ones(shape))
        self.register_buffer("fitted", th.zeros((), dtype=th.bool))

    def fit(self, values: th.Tensor) -> "Standardize":
        """
        :param values: observations, batch first
        :return: itself
        """
        values = values.to(self.mean)
        self.mean.copy_(values.mean(dim=0))
        self.std.copy_(self.std_of(values.var(dim=0, unbiased=False)))
        self.fitted.fill_(True)
        return self

    def forward(self, values: th.Tensor) -> th.Tensor:
        limit = th.where(self.fitted, MAX_MAGNITUDE, th.inf)
        return ((values - self.mean) / self.std).clamp(-limit, limit)


class ObservationNormalizer(nn.Module):
    """
    Standardises vectors, be they an observation or entries of a dictionary of such. Images and one-hot codes stay as they are.

    It is one object, shared by all networks of a policy and saved with it.

    :param observation_space: the observation space
    """

    def __init__(self, observation_space: spaces.Space) -> None:
        super().__init__()
        named = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"obs": observation_space}
        vectors = {key: space for key, space in named.items() if isinstance(space, spaces.Box) and not is_image_space(space)}
        self.parts = nn.ModuleDict({key: Standardize(space.shape) for key, space in vectors.items()})
        self.images = [key for key, space in named.items() if is_image_space(space)]

    def units(self) -> dict[str, th.Tensor | float]:
        """
        :return: what observations are measured in, of each entry (``"obs"`` where there is but one) that has a measure: the
            demonstrations' standard deviations, shape of the entry, the range of images
        """
        stds = {key: part.std for key, part in self.parts.items()}
        return {**stds, **dict.fromkeys(self.images, 255.0)}  # type: ignore[dict-item]

    @property
    def fitted(self) -> bool:
        """Whether there is nothing to be fitted (any more)."""
        return all(part.fitted for part in self.parts.values())

    def fit(self, obs: PyTorchObs) -> None:
        """
        :param obs: observations, batch first
        """
        for key, part in self.parts.items():
            part.fit(obs[key] if isinstance(obs, dict) else obs)  # type: ignore[operator]

    def forward(self, obs: AnyObs) -> AnyObs:
        if isinstance(obs, dict):
            return {key: self.parts[key](values) if key in self.parts else values for key, values in obs.items()}
        return self.parts["obs"](obs) if "obs" in self.parts else obs


class NormalizedExtractor(BaseFeaturesExtractor):
    """
    A features extractor of normalised observations.

    :param observation_space: the observation space
    :param extractor: what features are extracted by
    :param normalizer: what observations go through before
    """

    def __init__(
        self, observation_space: spaces.Space, extractor: BaseFeaturesExtractor, normalizer: ObservationNormalizer
    ) -> None:
        super().__init__(observation_space, extractor.features_dim)
        self.extractor = extractor
        self.normalizer = normalizer

    def forward(self, observations: PyTorchObs) -> th.Tensor:
        return self.extractor(self.normalizer(observations))
