"""The range of continuous actions that networks work in, saved with a policy."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn


class ActionScale(nn.Module):
    """
    The linear map between a box of actions and [-1, 1], saved with a policy.

    :param box: the box, until another one is set
    """

    low: th.Tensor
    high: th.Tensor

    def __init__(self, box: spaces.Box) -> None:
        super().__init__()
        self.register_buffer("low", th.as_tensor(box.low, dtype=th.float64))
        self.register_buffer("high", th.as_tensor(box.high, dtype=th.float64))
        self._bounds: tuple[np.ndarray, np.ndarray] | None = None

    def set(self, box: spaces.Box) -> None:
        """
        :param box: what is mapped to [-1, 1] from now on
        """
        self.low.copy_(th.as_tensor(box.low))
        self.high.copy_(th.as_tensor(box.high))
        self._bounds = None

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self._bounds = None

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """The bounds of the box, float64, shape of an action each."""
        if self._bounds is None:  # fetched from the device once
            self._bounds = self.low.cpu().numpy(), self.high.cpu().numpy()
        return self._bounds

    def within(self, action_space: spaces.Box) -> spaces.Box:
        """
        :param action_space: the environment's action space
        :return: the box; the action space itself where it is no smaller
        """
        low, high = self.bounds
        if np.array_equal(low, action_space.low) and np.array_equal(high, action_space.high):
            return action_space
        return spaces.Box(low, high, dtype=np.float64)  # type: ignore[arg-type]

    def scale(self, actions: np.ndarray) -> np.ndarray:
        """
        :param actions: actions in the environment's units, shape (..., \\*action_shape)
        :return: the same in [-1, 1], float32
        """
        low, high = self.bounds
        return (2.0 * ((actions - low) / (high - low)) - 1.0).astype(np.float32)

    def unscale(self, scaled: np.ndarray) -> np.ndarray:
        """
        :param scaled: actions in [-1, 1]
        :return: the same in the environment's units, float64
        """
        low, high = self.bounds
        return low + 0.5 * (scaled + 1.0) * (high - low)
