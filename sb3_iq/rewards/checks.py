"""Batches as a reward takes them, or a message that says what differs and what to do."""

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape

if TYPE_CHECKING:
    from sb3_iq.rewards.parts import Obs


def checked_obs(obs: Any, space: spaces.Space, name: str) -> "Obs":
    """
    :param obs: a batch of observations, shape (batch, \\*obs_shape), or a dictionary of such; images channels first or last
    :param space: the observation space of the model
    :param name: the argument's name, for messages
    :return: the observations as arrays, images channels first
    :raises ValueError: if they are those of another environment, a single observation, or not finite
    """
    if not isinstance(space, spaces.Dict):
        if isinstance(obs, dict):
            raise ValueError(f"`{name}` is a dictionary, but the reward's observation space is {_short(space)}.")
        return _checked_rows(obs, space, name)
    if not isinstance(obs, dict) or obs.keys() != space.spaces.keys():
        found = sorted(obs) if isinstance(obs, dict) else type(obs).__name__
        raise ValueError(
            f"`{name}` has the keys {str(found)[:80]}, but the reward's observation space has {sorted(space.spaces)}."
        )
    return {key: _checked_rows(obs[key], part, f"{name}[{key!r}]") for key, part in space.spaces.items()}


def _checked_rows(values: Any, space: spaces.Space, name: str) -> np.ndarray:
    rows = np.asarray(values)
    if rows.dtype.kind not in "buif":
        raise ValueError(
            f"`{name}` has dtype {rows.dtype}, but the reward's observation space is {_short(space)}: give numbers."
        )
    if isinstance(space, spaces.Discrete):
        rows = rows.reshape(-1) if rows.ndim == 2 and rows.shape[1] == 1 else rows
        shapes: list[tuple[int, ...]] = [()]
    else:
        shape: tuple[int, ...] = get_obs_shape(space)  # type: ignore[assignment]
        # Raw images are channels last, the model's are channels first
        shapes = [shape, (*shape[1:], shape[0])] if len(shape) == 3 else [shape]
    if rows.shape in shapes:
        raise ValueError(f"`{name}` is a single observation: give a batch, shape (batch, *obs_shape), by {name}[None].")
    if rows.shape[1:] not in shapes:
        raise ValueError(
            f"`{name}` has shape {rows.shape}, but the reward's observation space is {_short(space)}: give a batch of "
            "observations of the environment that the model was trained in, with the same wrappers."
        )
    if len(rows) == 0:
        raise ValueError(f"`{name}` is an empty batch: give at least one transition.")
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        index = int(np.argwhere(~np.isfinite(rows))[0][0])
        raise ValueError(f"`{name}` holds NaN or infinity in row {index}: drop that transition, or mend the environment.")
    if not isinstance(space, spaces.Box):
        _check_numbers(rows, space, name, "observations")
    return np.moveaxis(rows, -1, 1) if rows.shape[1:] != shapes[0] else rows


def checked_actions(actions: Any, space: spaces.Space) -> np.ndarray:
    """
    :param actions: a batch of actions in the environment's units, shape (batch, \\*action_shape)
    :param space: the action space of the model
    :return: the actions as an array; continuous ones within their bounds
    :raises ValueError: if they are no batch of actions of this space
    """
    rows = np.asarray(actions)
    if isinstance(space, spaces.Discrete):
        rows = rows.reshape(-1) if rows.ndim == 2 and rows.shape[1] == 1 else rows
    shape: tuple[int, ...] = space.shape  # type: ignore[assignment]
    if rows.shape == shape:
        raise ValueError("`actions` is a single action: give a batch, shape (batch, *action_shape), by actions[None].")
    if rows.shape[1:] != shape:
        raise ValueError(f"`actions` has shape {rows.shape}, but the reward's action space is {_short(space)}: give a batch.")
    if rows.dtype.kind not in "buif":
        raise ValueError(f"`actions` has dtype {rows.dtype}, but the reward's action space is {_short(space)}: give numbers.")
    if rows.dtype.kind == "f" and not np.isfinite(rows).all():
        raise ValueError("`actions` holds NaN or infinity: drop those transitions, or mend the agent.")
    if isinstance(space, spaces.Box):
        # As demonstrations are: Q is only defined on the box
        return np.clip(rows, space.low, space.high)
    _check_numbers(rows, space, "actions", "actions")
    return rows.astype(np.int64, copy=False)


def _check_numbers(rows: np.ndarray, space: spaces.Space, name: str, what: str) -> None:
    """Refuse numbers that a discrete space does not have."""
    low, high = _discrete_bounds(space)
    invalid = (rows < low) | (rows > high)
    if rows.dtype.kind == "f":
        invalid |= rows != np.floor(rows)
    if invalid.any():
        raise ValueError(
            f"`{name}` holds {rows[invalid][0]}, which is not in {_short(space)}: give the environment's own {what}."
        )


def _discrete_bounds(space: spaces.Space) -> tuple[Any, Any]:
    if isinstance(space, spaces.Discrete):
        return space.start, space.start + space.n - 1
    if isinstance(space, spaces.MultiDiscrete):
        return 0, space.nvec - 1
    return 0, 1


def checked_terminated(terminated: Any) -> np.ndarray:
    """
    :param terminated: whether episodes ended in a terminal state, shape (batch,)
    :return: the same as booleans
    :raises ValueError: if they are no batch of booleans, or of zeros and ones
    """
    over = np.asarray(terminated)
    if over.ndim != 1 or not (over.dtype == bool or (over.dtype.kind in "iuf" and ((over == 0) | (over == 1)).all())):
        raise ValueError(f"`terminated` is {str(terminated)[:80]}: give a batch of booleans, shape (batch,).")
    return over.astype(bool)


def check_lengths(**lengths: int) -> None:
    """
    :param lengths: the number of rows of each argument
    :raises ValueError: if they are not all the same
    """
    if len(set(lengths.values())) > 1:
        counts = ", ".join(f"`{name}` {length}" for name, length in lengths.items())
        raise ValueError(f"The arguments have different numbers of rows: {counts}. Give one row of each for a transition.")


def _short(space: spaces.Space) -> str:
    return str(space).replace("\n", " ")[:80]
