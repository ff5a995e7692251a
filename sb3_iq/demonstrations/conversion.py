"""Expert arrays as the spaces of an environment want them, or a message that says what differs."""

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_obs_shape

from sb3_iq.demonstrations.errors import cut
from sb3_iq.demonstrations.image_checks import check_range, of_card, why_shapes_differ
from sb3_iq.demonstrations.storage import Column, chunks, extremes, one_in_a_row
from sb3_iq.demonstrations.trajectory import Trajectory
from sb3_iq.observations import is_image

ROUNDING = 1e-6  # an excess beyond the bounds, relative to their width, that is float32 rounding and nothing to tell
TOLD = 0.01  # an excess beyond the range of a model's actions, relative to its width, that is to be told
# Bounds that are more than so many times as wide as what the expert does say nothing about scale
WIDE = 4.0
# How far the range reaches beyond the expert's actions, as a share of their width: a tanh never gets to its bound
MARGIN = 0.1


def _check_observation_space(space: spaces.Space) -> None:
    """Refuse spaces that SB3's buffers have no array for."""
    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else [("", space)]:
        if not isinstance(part, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            label = f"observation_space[{key!r}]" if key else "observation_space"
            raise ValueError(f"{label} is {type(part).__name__}: Box, Discrete, MultiDiscrete, MultiBinary or Dict is needed")


def observation_columns(
    trajectories: tuple[Trajectory, ...], space: spaces.Space, card: Mapping[str, Any] | None = None
) -> dict[str, Column]:
    """
    :param trajectories: the episodes
    :param space: the observation space
    :param card: the card beside the data, which may name the wrappers of the recording
    :return: the observations by the keys of a Dict space, under "" for any other: rows of the shape and dtype that SB3's
        ``ReplayBuffer`` holds them in
    :raises ValueError: if keys, shapes, dtypes or discrete values don't fit the space
    """
    _check_observation_space(space)
    if not isinstance(space, spaces.Dict):
        arrays = []
        for index, trajectory in enumerate(trajectories):
            if isinstance(trajectory.obs, dict):
                raise ValueError(
                    f"expert_data, episode {index}: the observations are a dictionary with the keys "
                    f"{sorted(trajectory.obs)}, but the environment's observation space is {type(space).__name__}: look at "
                    f"the wrapper that flattens them (gymnasium.wrappers.FlattenObservation){of_card(card)}"
                )
            arrays.append(trajectory.obs)
        return {"": _observation_column(arrays, space, "observations", card)}
    columns: dict[str, list[np.ndarray]] = {key: [] for key in space.spaces}
    for index, trajectory in enumerate(trajectories):
        if not isinstance(trajectory.obs, dict):
            raise ValueError(
                f"expert_data, episode {index}: the observations are one array, but the environment's observation space is a "
                f"Dict with the keys {sorted(columns)}: look at the wrapper that flattens them in the recording, or adds "
                f"keys in the environment (gymnasium.wrappers.FlattenObservation, AddRenderObservation){of_card(card)}"
            )
        if trajectory.obs.keys() != columns.keys():
            missing, extra = sorted(columns.keys() - trajectory.obs.keys()), sorted(trajectory.obs.keys() - columns.keys())
            raise ValueError(
                f"expert_data, episode {index}: the observation keys differ from the environment's Dict space: missing "
                f"{missing}, extra {extra}. Look at the wrapper that chooses them (gymnasium.wrappers.FilterObservation), or "
                f"leave keys out of the data{of_card(card)}"
            )
        for key, column in columns.items():
            column.append(trajectory.obs[key])
    return {
        key: _observation_column(column, space.spaces[key], f"observations[{key!r}]", card) for key, column in columns.items()
    }


def _observation_column(arrays: list[np.ndarray], space: spaces.Space, name: str, card: Mapping[str, Any] | None) -> Column:
    """Return the observations of one (sub)space."""
    shape: tuple[int, ...] = get_obs_shape(space)  # type: ignore[assignment]
    dtype = np.dtype(space.dtype)

    def fit(rows: np.ndarray) -> np.ndarray:
        found = rows.shape[1:]
        if isinstance(space, spaces.Discrete) and found == ():
            return rows[:, None]
        if found != shape and len(shape) == 3 and found == (*shape[1:], shape[0]):
            return np.moveaxis(rows, -1, 1)  # the environment is wrapped in VecTransposeImage, the data is not
        return rows

    for index, array in enumerate(arrays):
        found = array.shape[1:]
        if fit(array[:1]).shape[1:] != shape:
            why = why_shapes_differ(found, space) or (
                "either this is data of another environment, or it was recorded with other environment wrappers (flattening, "
                "frame stacking, time feature, resizing): use the same ones"
            )
            raise ValueError(
                f"expert_data, episode {index}: {name} of shape {found}, but the environment's observation space has shape "
                f"{shape}: {why}{of_card(card)}"
            )
        _check_values(array, space, dtype, f"expert_data, episode {index}: {name}")
    return Column(arrays, shape, dtype, fit)


def _check_values(array: np.ndarray, space: spaces.Space, dtype: np.dtype, label: str) -> None:
    """Refuse observations that a cast to the space's dtype would change, codes outside a discrete space, scaled images."""
    if is_image(space) and (array.dtype != dtype or dtype.kind == "f"):
        minimum, maximum = extremes(array)
        check_range(label, array.dtype, float(minimum.min()), float(maximum.max()), space)
    if isinstance(space, spaces.Box) and (np.can_cast(array.dtype, dtype) or (dtype.kind == "f" and array.dtype.kind != "f")):
        return
    minimum, maximum = extremes(array)
    low: int | np.ndarray
    high: int | np.ndarray
    if isinstance(space, spaces.Box) and dtype.kind == "f":
        largest = max(abs(minimum.min()), abs(maximum.max()))
        if largest > np.finfo(dtype).max:
            raise ValueError(f"{label} hold {largest}, which is too large for the space's dtype {dtype}")
        return
    if isinstance(space, spaces.Box):
        low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
        cure = "Were images scaled to [0, 1]? Record them as the environment gives them"
    else:
        low, high, cure = 0, 1, "Is this data of another environment?"
        if isinstance(space, spaces.Discrete):
            low, high = int(space.start), int(space.start + space.n) - 1
        elif isinstance(space, spaces.MultiDiscrete):
            high = np.asarray(space.nvec) - 1
    if array.dtype.kind == "f" and not all((chunk == np.round(chunk)).all() for chunk in chunks(array)):
        raise ValueError(f"{label} of dtype {array.dtype} are not whole numbers, but the space has dtype {dtype}. {cure}")
    if (minimum < low).any() or (maximum > high).any():
        raise ValueError(
            f"{label} from {minimum.min()} to {maximum.max()} reach beyond the environment's space {cut(space)} of "
            f"dtype {dtype}. {cure}"
        )


def action_column(
    trajectories: tuple[Trajectory, ...], space: spaces.Space, action_range: spaces.Space | None = None
) -> Column:
    """
    :param trajectories: the episodes, with actions in the units of the environment
    :param space: the action space
    :param action_range: the box inside of it that continuous actions are scaled from; None for the space itself
    :return: discrete actions as int64 of shape (1,), or of shape (n_parts,) those of a MultiDiscrete or MultiBinary space;
        continuous ones as float32 of shape (action_dim,), scaled to [-1, 1] as SB3's policies use them. Actions beyond the
        bounds are clipped, and one warning tells how many and how far
    :raises ValueError: if the space is not served (see :func:`part_sizes`), or a Box without finite bounds, or if the actions
        don't fit it
    """
    actions = []
    for index, trajectory in enumerate(trajectories):
        if trajectory.acts is None:
            raise ValueError(
                f"expert_data, episode {index}: there are no actions, or only NaN (state-only data), but "
                "expert_actions='given' reads them. Use expert_actions='inverse_dynamics' or 'policy', or data with acts"
            )
        actions.append(trajectory.acts)
    if not isinstance(space, spaces.Box):
        return _discrete_action_column(actions, space)
    if not (np.isfinite(space.low).all() and np.isfinite(space.high).all() and (space.low < space.high).all()):
        raise ValueError(f"action_space={cut(space)} has infinite or empty bounds: wrap the environment to bound them")
    return _continuous_action_column(actions, space, action_range if isinstance(action_range, spaces.Box) else space)


def part_sizes(space: spaces.Space) -> tuple[int, ...]:
    """
    :param space: a space of discrete actions
    :return: how many choices each part of an action has; an action of a Discrete space has one part
    :raises ValueError: if the space is another one, has more than one axis, or does not start at 0
    """
    if np.asarray(getattr(space, "start", 0)).any():
        raise ValueError(f"action_space={cut(space)} does not start at 0: only spaces that count from 0 are supported")
    if isinstance(space, spaces.Discrete):
        return (int(space.n),)
    if isinstance(space, spaces.MultiDiscrete) and space.nvec.ndim == 1:
        return tuple(int(n) for n in space.nvec)
    if isinstance(space, spaces.MultiBinary) and len(space.shape) == 1:
        return (2,) * space.shape[0]
    raise ValueError(
        f"action_space={cut(space)}: only Discrete, Box, and MultiDiscrete and MultiBinary spaces of one axis are supported"
    )


def _discrete_action_column(actions: list[np.ndarray], space: spaces.Space) -> Column:
    """Return int64 actions; whole numbers of a float dtype are taken for what they are."""
    sizes = np.array(part_sizes(space))
    shapes = ((), (1,)) if isinstance(space, spaces.Discrete) else (space.shape,)
    for index, acts in enumerate(actions):
        label = f"expert_data, episode {index}: actions"
        whole = acts.dtype.kind in "biu" or all((chunk == np.round(chunk)).all() for chunk in chunks(acts))
        if whole and isinstance(space, spaces.Discrete) and _is_one_hot(acts, int(space.n)):
            raise ValueError(
                f"{label} of shape {acts.shape[1:]} are one-hot, but the environment's action space is {cut(space)}. Give the "
                "number of the action, acts.argmax(axis=1)"
            )
        if acts.shape[1:] not in shapes or not whole:
            kind = "other than this space's" if whole else "continuous (a Box)"
            raise ValueError(
                f"{label} of shape {acts.shape[1:]} and dtype {acts.dtype} are {kind}, but the environment's action space is "
                f"{cut(space)}. Use data of the discrete environment"
            )
        for chunk in chunks(acts):
            parts = chunk.reshape(len(chunk), -1)
            rows, columns = np.nonzero((parts < 0) | (parts >= sizes))
            if len(rows):
                raise ValueError(
                    f"{label} hold {parts[rows[0], columns[0]]}, which is outside 0..{sizes[columns[0]] - 1} of the "
                    "environment's action space. Is this data of another environment, or does it count actions from 1?"
                )
    convert = one_in_a_row if isinstance(space, spaces.Discrete) else parts_in_a_row
    return Column(actions, (len(sizes),), np.dtype(np.int64), convert)


def _is_one_hot(acts: np.ndarray, n: int) -> bool:
    """Return whether each action is n numbers, of which one is 1 and the others are 0."""
    if n < 2 or acts.shape[1:] != (n,):
        return False
    return all(bool(((chunk == 0) | (chunk == 1)).all() and (chunk.sum(axis=1) == 1).all()) for chunk in chunks(acts))


def parts_in_a_row(rows: np.ndarray) -> np.ndarray:
    """:return: actions of several parts, shape (n, n_parts)"""
    return rows.reshape(len(rows), -1).astype(np.int64)


def _look_scaled(actions: list[np.ndarray], low: np.ndarray, high: np.ndarray) -> bool:
    """Return whether, of bounds that are somewhat wider, -1 or 1 are reached and never passed."""
    minima, maxima = zip(*map(extremes, actions), strict=True)
    farthest = np.maximum(-np.min(minima, axis=0), np.max(maxima, axis=0)).reshape(low.shape)
    inside = (low < -1.2) & (high > 1.2) & (high - low <= 8.0)
    return bool(inside.any() and ((farthest > 0.95) & (farthest < 1 + ROUNDING))[inside].all())


def _continuous_action_column(actions: list[np.ndarray], space: spaces.Box, box: spaces.Box) -> Column:
    """Return actions scaled by the bounds of a box inside of the space, clipped to them."""
    low, high = space.low.astype(np.float64), space.high.astype(np.float64)
    width = high - low
    box_low, box_high = box.low.astype(np.float64), box.high.astype(np.float64)
    n_beyond, n_total, largest, outside = 0, 0, 0.0, np.zeros(space.shape)
    for index, acts in enumerate(actions):
        label = f"expert_data, episode {index}: actions"
        if acts.ndim == 1 and acts.dtype.kind in "biu":
            raise ValueError(
                f"{label} are discrete ({acts.dtype}, one number for each step), but the environment's action space is a "
                f"Box of shape {space.shape}. Use data of the continuous environment"
            )
        if acts.shape[1:] != space.shape and not (acts.ndim == 1 and space.shape == (1,)):
            raise ValueError(
                f"{label} of shape {acts.shape[1:]}, but the environment's action space has shape {space.shape}. Is this "
                "data of another environment, or recorded with other environment wrappers?"
            )
        minimum, maximum = (extreme.astype(np.float64) for extreme in extremes(acts))
        if (np.maximum(low - minimum, maximum - high) > width).any():
            raise ValueError(
                f"{label} between {minimum.min():.4g} and {maximum.max():.4g} exceed the bounds of the action space "
                f"({low.min():.4g} to {high.max():.4g}) by more than its width: the units are wrong. Give actions as the "
                "environment takes them, neither scaled nor normalised"
            )
        outside = np.maximum(outside, box_low - np.maximum(minimum, low))
        outside = np.maximum(outside, np.minimum(maximum, high) - box_high)
        for chunk in chunks(acts):
            rows = chunk.reshape(-1, *space.shape).astype(np.float64)
            excess = np.maximum(low - rows, rows - high)
            n_beyond += int((excess > ROUNDING * width).sum())
            n_total += excess.size
            largest = max(largest, float(excess.max(initial=0.0)))
    if _look_scaled(actions, low, high):
        warnings.warn(
            f"Expert data: all actions are between -1 and 1, and reach just as far, but the action space is {cut(space)}. "
            "Those in SB3's replay buffers are scaled to [-1, 1]: if these are too, give policy.unscale_action(actions).",
            stacklevel=4,
        )
    if n_beyond:
        warnings.warn(
            f"Expert data: {100.0 * n_beyond / n_total:.1f} % of the action components lie beyond the bounds of the action "
            f"space, by up to {largest:.3g}; they are clipped.",
            stacklevel=4,
        )
    if (outside > TOLD * (box_high - box_low)).any():
        warnings.warn(
            f"Expert data: actions lie beyond the range of actions that the model has, by up to {outside.max():.3g}; they are "
            "clipped to it. A model that is made with these demonstrations has a range that holds them.",
            stacklevel=4,
        )

    def scale(rows: np.ndarray) -> np.ndarray:
        scaled = 2.0 * (rows.reshape(-1, *space.shape).astype(np.float64) - box_low) / (box_high - box_low) - 1.0
        # As in SB3's buffer: one row for each action, whatever its shape
        return np.clip(scaled, -1.0, 1.0).astype(np.float32).reshape(len(rows), -1)

    return Column(actions, (low.size,), np.dtype(np.float32), scale)


def range_of_expert(action_space: spaces.Box, trajectories: Sequence[Trajectory]) -> spaces.Box:
    """
    Networks see actions scaled to [-1, 1]. With bounds of +-100 around actions of +-1 these are all but equal there, so that
    such dimensions are scaled by what the expert does. The environment receives actions in its own units all the same, and
    never one that is outside of this range.

    :param action_space: the environment's action space
    :param trajectories: the episodes
    :return: the box to scale actions by, inside of the action space
    """
    low, high = action_space.low.astype(np.float64), action_space.high.astype(np.float64)
    found = [trajectory.acts for trajectory in trajectories if trajectory.acts is not None]
    # Actions of another shape are refused, with the reason, where they are read
    fits = all(acts.shape[1:] == action_space.shape or (acts.ndim == 1 and action_space.shape == (1,)) for acts in found)
    if not found or not fits:
        return action_space
    pieces = [np.asarray(acts).reshape(-1, *action_space.shape) for acts in found]
    least = np.clip(np.min([piece.min(axis=0) for piece in pieces], axis=0).astype(np.float64), low, high)
    greatest = np.clip(np.max([piece.max(axis=0) for piece in pieces], axis=0).astype(np.float64), low, high)
    width = greatest - least
    # Of an action that never changes, a tenth of its magnitude
    width = np.where(width > 0, width, 0.1 * np.maximum(np.abs(least), 1.0))
    wide = high - low > WIDE * width
    if not wide.any():
        return action_space

    def rounded(bound: np.ndarray) -> np.ndarray:
        # Rounding does not lead out of the space
        return np.clip(np.clip(bound, low, high).astype(np.float32).astype(np.float64), low, high)

    narrow_low = np.where(wide, rounded(least - MARGIN * width), low)
    narrow_high = np.where(wide, rounded(greatest + MARGIN * width), high)
    return spaces.Box(narrow_low, narrow_high, dtype=np.float64)  # type: ignore[arg-type]
