"""The replay buffers of Stable-Baselines3: scaled actions, a ring, several environments side by side."""

import warnings
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_iq.demonstrations.errors import cut, shorten
from sb3_iq.demonstrations.sources import Loaded, Request
from sb3_iq.demonstrations.sources.flat import read_flat
from sb3_iq.demonstrations.trajectory import Observations

ROUNDING = 1e-4  # how far beyond [-1, 1] float32 arithmetic may have put a scaled action


def is_replay_buffer(source: object) -> bool:
    """
    :param source: any object
    :return: whether it is a replay buffer
    """
    return isinstance(source, ReplayBuffer)


def read_replay_buffer(buffer: ReplayBuffer, request: Request) -> Loaded:
    """
    :param buffer: a ``ReplayBuffer`` or ``DictReplayBuffer``, also one that is full and has begun to overwrite itself
    :param request: what is wanted of it
    :return: the spaces, and the episodes of each environment in turn, oldest first, with actions in the units of the
        environment. Without ``handle_timeout_termination`` the buffer has not told terminated from truncated, and the time
        limit decides
    :raises ValueError: if the buffer is empty, or its actions are not scaled as SB3 scales them
    """
    shared = bool(getattr(buffer, "optimize_memory_usage", False))
    n_steps = buffer.buffer_size if buffer.full else buffer.pos
    order = (np.arange(n_steps) + (buffer.pos if buffer.full else 0)) % buffer.buffer_size
    if shared and buffer.full:
        order = order[1:]  # its observation is overwritten by the next observation of the newest transition
    if not len(order):
        raise ValueError("expert_data is empty: the replay buffer holds no transition")

    dones = _by_env(buffer.dones, order) != 0
    # The next observation of step i is stored where step i + 1 begins, and at a done that is the next episode
    lost = np.zeros_like(dones)
    if shared:
        lost = dones.copy()
        lost[:, -1] = False  # nothing has followed the newest transition
    kept = np.flatnonzero(~lost)
    if lost.any():
        warnings.warn(
            f"Expert data: the replay buffer has optimize_memory_usage=True, which drops the last observation of an episode: "
            f"the last transition of {lost.sum()} episodes is left out, and these are taken as cut off. Record with "
            "optimize_memory_usage=False to learn from terminal states.",
            stacklevel=4,
        )
    if not len(kept):
        raise ValueError("expert_data: every transition of the replay buffer lacks its next observation. Record it anew")

    def column(array: np.ndarray, steps: np.ndarray = order) -> np.ndarray:
        rows = _by_env(array, steps)
        return rows.reshape(-1, *rows.shape[2:])[kept]

    arrays: dict[str, Any] = {
        "obs": _each(buffer.observations, column),
        "acts": _unscale(column(buffer.actions), buffer.action_space),
        "next_obs": (
            _each(buffer.observations, lambda array: column(array, (order + 1) % buffer.buffer_size))
            if shared
            else _each(buffer.next_observations, column)
        ),
        "rews": column(buffer.rewards),
    }
    done = dones.reshape(-1)[kept]
    if buffer.handle_timeout_termination:
        arrays["truncated"] = column(buffer.timeouts) != 0
        arrays["terminated"] = done & ~arrays["truncated"]
    else:
        arrays["dones"] = done
    # Where a row does not follow the one before it: at another environment, and after a transition that is left out
    first = np.flatnonzero(np.arange(dones.size) % len(order) == 0)
    starts = {int(np.searchsorted(kept, row)): not buffer.full for row in first}
    starts |= {int(np.searchsorted(kept, row + 1)): True for row in np.flatnonzero(lost)}
    starts = {row: reset for row, reset in starts.items() if row < len(kept)}
    trajectories = read_flat(arrays, request.select, request.max_episode_steps, starts)
    return Loaded(trajectories, buffer.observation_space, buffer.action_space)


def _by_env(array: np.ndarray, order: np.ndarray) -> np.ndarray:
    """Return the rows in this order, one environment after the other: (n_envs, len(order), ...)."""
    return array[order].swapaxes(0, 1)


def _each(arrays: Any, function: Any) -> Observations:
    """Return what the function makes of an array, or of each of a dictionary."""
    return {key: function(array) for key, array in arrays.items()} if isinstance(arrays, dict) else function(arrays)


def _unscale(acts: np.ndarray, space: spaces.Space) -> np.ndarray:
    """Return actions in the units of the environment: SB3 stores those of a Box scaled to [-1, 1], and all of them flat."""
    if not isinstance(space, spaces.Box):
        return acts.reshape(len(acts), *(space.shape or ()))
    acts = acts.reshape(len(acts), *space.shape)
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    if not (np.isfinite(low).all() and np.isfinite(high).all()):
        raise ValueError(
            f"expert_data: the replay buffer's action_space {cut(space)} is not bounded, so that its actions, which "
            "SB3 scales to [-1, 1], can't be scaled back. Wrap the environment to bound them"
        )
    if np.abs(acts).max() > 1 + ROUNDING and not (np.allclose(low, -1) and np.allclose(high, 1)):
        raise ValueError(
            f"expert_data: the replay buffer holds the action {shorten(float(acts.flat[np.abs(acts).argmax()]))}, but SB3 "
            "stores actions scaled to [-1, 1]: this buffer was filled with unscaled ones. Pass its arrays in a dictionary "
            "(obs, acts, next_obs, terminated, truncated) instead"
        )
    return (low + 0.5 * (acts.astype(np.float64) + 1.0) * (high - low)).astype(np.float32)
