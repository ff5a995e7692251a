"""The range of continuous actions that networks work in: the action space's, or where that is far wider, the expert's."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from torch import nn

from sb3_iq.demonstrations import Demonstrations

# Bounds that are more than so many times as wide as what the expert does say nothing about scale
WIDE = 4.0
# How far the range reaches beyond the expert's actions, as a share of their width: a tanh never gets to its bound
MARGIN = 0.1


def range_of_expert(action_space: spaces.Box, demonstrations: Demonstrations) -> spaces.Box:
    """
    Networks see actions scaled to [-1, 1]. With bounds of +-100 around actions of +-1 these are all but equal there, so that
    such dimensions are scaled by what the expert does. The environment receives actions in its own units all the same, and
    never one that is outside of this range.

    :param action_space: the environment's action space
    :param demonstrations: the demonstrations
    :return: the box to scale actions by, inside of the action space
    """
    low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
    found = [trajectory.acts for trajectory in demonstrations.trajectories]
    pieces = [np.asarray(acts).reshape(-1, *action_space.shape) for acts in found if acts is not None]
    if not pieces:
        return action_space
    least = np.clip(np.min([piece.min(axis=0) for piece in pieces], axis=0).astype(np.float64), low, high)
    greatest = np.clip(np.max([piece.max(axis=0) for piece in pieces], axis=0).astype(np.float64), low, high)
    width = greatest - least
    # Of an action that never changes, a tenth of its magnitude
    width = np.where(width > 0, width, 0.1 * np.maximum(np.abs(least), 1.0))
    wide = high - low > WIDE * width
    if not wide.any():
        return action_space
    narrow_low = np.where(wide, np.maximum(low, least - MARGIN * width), low)
    narrow_high = np.where(wide, np.minimum(high, greatest + MARGIN * width), high)
    return spaces.Box(narrow_low.astype(np.float32), narrow_high.astype(np.float32), dtype=np.float32)


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

    @property
    def box(self) -> spaces.Box:
        """The box."""
        low, high = self.bounds
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
