"""Objects in memory: trajectories (imitation's, ours, or alike), imitation's transitions and dictionaries of arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sb3_iq.demonstrations.errors import cut, shorten
from sb3_iq.demonstrations.sources import Loaded, Request, Select
from sb3_iq.demonstrations.sources.flat import info_at, plain_observations, read_flat
from sb3_iq.demonstrations.trajectory import Trajectory, make_trajectory

# The names that libraries give to the same thing; the first is imitation's.
NAMES = {
    "obs": ("obs", "observations"),
    "acts": ("acts", "actions"),
    "next_obs": ("next_obs", "next_observations"),
    "rews": ("rews", "rewards"),
    "terminal": ("terminal",),
    "dones": ("dones",),
    "terminated": ("terminated", "terminals"),
    "truncated": ("truncated", "timeouts"),
    "infos": ("infos",),
}


def is_mapping(source: object) -> bool:
    """
    :param source: any object
    :return: whether it is a dictionary
    """
    return isinstance(source, Mapping)


def read_mapping(source: Mapping[str, Any], request: Request) -> Loaded:
    """
    :param source: one of three forms. Flat transitions: obs, acts, next_obs and dones, or terminated and truncated
        (and optionally rews), also by the names of Gymnasium, SB3 and D4RL. A single episode: obs (T + 1), acts (T) and
        optionally terminal and rews. Columns: lists of episodes in obs and acts, and a list of bools in terminal
    :param request: what is wanted of it
    :return: the episodes. Flat transitions are cut where an episode is done, and where ``next_obs[i] != obs[i + 1]``
    :raises ValueError: if an array is missing or malformed
    """
    try:
        return Loaded(read_arrays(source, request.select, request.max_episode_steps))
    except ValueError as error:
        raise ValueError(f"expert_data: {error}") from error


def is_transitions(source: object) -> bool:
    """
    :param source: any object
    :return: whether it has the attributes of imitation's ``Transitions``
    """
    return all(hasattr(source, name) for name in ("obs", "acts", "next_obs", "dones")) and not isinstance(source, type)


def read_transitions(source: Any, request: Request) -> Loaded:
    """
    :param source: imitation's ``Transitions`` or ``TransitionsWithRew``, or alike
    :param request: what is wanted of it
    :return: the episodes, as of a dictionary of flat transitions
    :raises ValueError: if an array is malformed
    """
    names = ("obs", "acts", "next_obs", "dones", "rews", "infos")
    return read_mapping({name: getattr(source, name, None) for name in names}, request)


def is_trajectory(source: object) -> bool:
    """
    :param source: any object
    :return: whether it has the attributes of a trajectory
    """
    alike = all(hasattr(source, name) for name in ("obs", "acts", "terminal")) and not isinstance(source, type)
    return alike or isinstance(source, Trajectory)


def read_trajectory(source: Any, request: Request) -> Loaded:
    """
    :param source: one trajectory, as in :func:`read_trajectories`
    :param request: what is wanted of it
    :return: the episode
    :raises ValueError: if it is malformed
    """
    return read_trajectories([source], request)


def is_sequence(source: object) -> bool:
    """
    :param source: any object
    :return: whether it may be a sequence of trajectories: not text, numbers, transitions nor a loader of batches
    """
    if isinstance(source, (type, str, bytes, bytearray, np.ndarray)) or hasattr(source, "detach"):
        return False
    if hasattr(source, "acts") or hasattr(source, "batch_size"):
        return False
    return hasattr(source, "__len__") and hasattr(source, "__getitem__")


def read_trajectories(source: Sequence[Any], request: Request) -> Loaded:
    """
    :param source: objects with ``obs``, ``acts``, ``terminal`` and optionally ``infos`` and ``rews``, as imitation's
        ``Trajectory`` and ``TrajectoryWithRew``; our own :class:`Trajectory`; or dictionaries of one episode each
    :param request: what is wanted of it
    :return: the episodes
    :raises TypeError: if an object is of another kind
    :raises ValueError: if there is none, or one is malformed
    """
    if len(source) == 0:
        raise ValueError("expert_data is empty: expected at least one episode")
    trajectories = []
    for index in request.select(len(source)):
        try:
            item = source[index]
        except Exception as error:  # a table, a mapping of another library
            raise TypeError(f"expert_data is {shorten(source)}, which is not a sequence of trajectories") from error
        trajectories.append(_read_object(index, item, request.max_episode_steps))
    return Loaded(trajectories)


def _read_object(index: int, item: Any, limit: int | None) -> Trajectory:
    if isinstance(item, Trajectory):
        return item if limit is None else item.with_time_limit(limit)
    try:
        if isinstance(item, Mapping):
            return _read_single(_by_name(item), limit)
        if not all(hasattr(item, name) for name in ("obs", "acts", "terminal")):
            raise TypeError(f"{shorten(item)} is not a trajectory: expected the attributes obs, acts and terminal")
        return _read_single({name: getattr(item, name, None) for name in ("obs", "acts", "rews", "terminal", "infos")}, limit)
    except (TypeError, ValueError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"expert_data, episode {index}: {error}") from error


def read_arrays(source: Mapping[str, Any], select: Select, max_episode_steps: int | None) -> list[Trajectory]:
    """
    :param source: a dictionary, as in :func:`read_mapping`
    :param select: from the number of episodes to the indices of those wanted
    :param max_episode_steps: the time limit, if known
    :return: the episodes
    :raises ValueError: if an array is missing or malformed
    """
    arrays = _by_name(source)
    if "next_obs" in arrays:
        return read_flat(arrays, select, max_episode_steps)
    terminal = arrays.get("terminal")
    if terminal is not None and np.ndim(terminal) == 1:
        return _read_columns(arrays, select, max_episode_steps)
    if any(np.ndim(arrays[name]) for name in ("dones", "terminated", "truncated") if name in arrays):
        raise ValueError("next_obs is missing: the observation after the last step of an episode can't be told without it")
    select(1)
    return [_read_single(arrays, max_episode_steps)]


def _by_name(source: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arrays under imitation's names."""
    arrays: dict[str, Any] = {}
    for name, aliases in NAMES.items():
        found = [alias for alias in aliases if source.get(alias) is not None]
        if len(found) > 1:
            raise ValueError(f"both {found[0]!r} and {found[1]!r} are given: they are names of the same thing")
        if found:
            arrays[name] = source[found[0]]
    missing = [name for name in ("obs", "acts") if name not in arrays]
    if missing:
        raise ValueError(f"{missing} missing: expected arrays obs and acts, found the keys {cut(list(source))}")
    return arrays


def _read_single(arrays: dict[str, Any], limit: int | None) -> Trajectory:
    """Return one episode; without any flag it is not known to have ended, and bootstrapping is never wrong."""
    flags = {}
    for name in ("terminal", "dones", "terminated", "truncated"):
        flag = arrays.get(name)
        if flag is not None and (np.ndim(flag) != 0 or np.asarray(flag).dtype.kind != "b"):
            raise ValueError(f"{name}={shorten(flag)}: expected one bool for an episode")
        flags[name] = bool(flag)
    obs, acts, rews = plain_observations(arrays["obs"]), arrays["acts"], arrays.get("rews")
    if arrays.get("terminated") is not None or arrays.get("truncated") is not None:
        return Trajectory(obs, acts, rews, flags["terminated"], flags["truncated"] and not flags["terminated"])
    return make_trajectory(obs, acts, rews, flags["terminal"] or flags["dones"], info_at(-1, arrays.get("infos"), 1), limit)


def _read_columns(arrays: dict[str, Any], select: Select, limit: int | None) -> list[Trajectory]:
    terminal = arrays["terminal"]
    columns = {name: arrays[name] for name in ("obs", "acts", "rews", "infos") if name in arrays}
    if not len(terminal):
        raise ValueError("expert_data is empty: expected at least one episode")
    for name, column in columns.items():
        if not hasattr(column, "__len__") or isinstance(column, Mapping) or len(column) != len(terminal):
            raise ValueError(
                f"{name} and terminal have different lengths: expected one entry for each of {len(terminal)} episodes"
            )
    episodes = [
        {name: column[i] for name, column in columns.items()} | {"terminal": terminal[i]} for i in range(len(terminal))
    ]
    return read_trajectories(episodes, Request(select, limit)).trajectories
