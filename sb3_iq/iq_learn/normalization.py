"""Observations standardised by the mean and standard deviation of the demonstrations, inside of the networks."""

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_iq.observations import channels_first, is_image

# What is far from the demonstrations stays in a network's range
MAX_MAGNITUDE = 10.0
MIN_VARIANCE = 1e-4
MIN_STD = 1e-3
# Whose pixels' median is taken
MAX_IMAGES = 200

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
        self._limit: float | None = None  # of magnitudes: what `fitted` says, asked for once
        self.register_buffer("mean", th.zeros(shape))
        self.register_buffer("std", th.ones(shape))
        self.register_buffer("fitted", th.zeros(()))  # a number: get_parameters() may be reckoned with

    def fit(self, values: th.Tensor) -> "Standardize":
        """
        :param values: observations, batch first
        :return: itself
        """
        values = values.to(self.mean)
        self.mean.copy_(values.mean(dim=0))
        self.std.copy_(self.std_of(values.var(dim=0, unbiased=False)))
        self.fitted.fill_(1.0)
        self._limit = None
        return self

    def forward(self, values: th.Tensor) -> th.Tensor:
        if self._limit is None:
            self._limit = MAX_MAGNITUDE if bool(self.fitted) else math.inf
        return ((values - self.mean) / self.std).clamp(-self._limit, self._limit)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._limit = None


class CenterImages(Standardize):
    """
    x -> x - b, the background: the median brightness of each channel of the demonstrations. Where the background is not 0, a
    network hardly learns of small things, such as a ball of a few pixels. One number for each channel keeps images the same
    wherever things are in them, and the unit of pixels stays: with the mean image, or divided by a standard deviation, little
    data is learned by heart.

    :param space: of images
    :param normalize_images: whether SB3 divides pixels by 255 first
    """

    def __init__(self, space: spaces.Box, normalize_images: bool) -> None:
        super().__init__(space.shape)
        self.space, self.normalize_images = space, normalize_images
        self.axis = 0 if channels_first(space) else 2

    def fit(self, values: th.Tensor) -> "CenterImages":
        """
        :param values: images as the environment gives them, batch first
        :return: itself
        """
        some: Any = preprocess_obs(values[:: -(-len(values) // MAX_IMAGES)], self.space, self.normalize_images)
        some = some.to(self.mean)
        background = some.movedim(1 + self.axis, 0).flatten(1).median(dim=1).values
        self.mean.copy_(background.view([-1 if axis == self.axis else 1 for axis in range(3)]))
        self.fitted.fill_(1.0)
        return self

    def forward(self, values: th.Tensor) -> th.Tensor:
        return values - self.mean

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        if f"{prefix}fitted" in state_dict:
            super()._load_from_state_dict(state_dict, prefix, *args)
        else:  # saved by an earlier version, whose networks saw images as they are
            self.fitted.fill_(1.0)


class ObservationNormalizer(nn.Module):
    """
    Standardises vectors and centres images, be they an observation or entries of a dictionary of such. One-hot codes stay.

    It is one object, shared by all networks of a policy and saved with it.

    :param observation_space: the observation space
    :param normalize_images: whether SB3 divides pixels by 255 first
    """

    def __init__(self, observation_space: spaces.Space, normalize_images: bool = True) -> None:
        super().__init__()
        named = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"obs": observation_space}
        boxes = {key: space for key, space in named.items() if isinstance(space, spaces.Box)}
        images = {key: space for key, space in boxes.items() if is_image(space)}
        self.parts = nn.ModuleDict(
            {
                key: CenterImages(space, normalize_images) if key in images else Standardize(space.shape)
                for key, space in boxes.items()
            }
        )
        self.ranges = {key: float(space.high.flat[0] - space.low.flat[0]) for key, space in images.items()}

    def units(self) -> dict[str, th.Tensor | float]:
        """
        :return: what observations are measured in, of each entry (``"obs"`` where there is but one) that has a measure: the
            demonstrations' standard deviations, shape of the entry, the range of images
        """
        stds = {key: part.std for key, part in self.parts.items() if key not in self.ranges}
        return {**stds, **self.ranges}  # type: ignore[dict-item]

    @property
    def fitted(self) -> bool:
        """Whether there is nothing to be fitted (any more)."""
        return all(bool(part.fitted) for part in self.parts.values())

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

    def before_extractor(self, _: nn.Module, inputs: tuple[PyTorchObs]) -> tuple[PyTorchObs]:
        """
        A hook for ``register_forward_pre_hook``: the extractor stays the object that the user's class made.

        :param inputs: what a features extractor is called with
        :return: what it gets instead
        """
        return (self(inputs[0]),)


def current_names(state: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param state: what was saved of a policy, perhaps by an earlier version, which wrapped features extractors to normalise,
        and kept the temperature itself instead of its logarithm
    :return: the same, by today's names
    """
    wrapped, normalizer = "features_extractor.extractor.", "features_extractor.normalizer."
    if "ent_coef" in state:
        state = dict(state)
        state["log_ent_coef"] = state.pop("ent_coef").log().reshape(1)
    return {key.replace(wrapped, "features_extractor."): value for key, value in state.items() if normalizer not in key}
