"""Objects in memory: trajectories (imitation's, ours, or alike), imitation's transitions and dictionaries of arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sb3_iq.demonstrations.endings import STARTS_AT_RESET, flag_of_info, info_at
from sb3_iq.demonstrations.errors import cut, shorten
from sb3_iq.demonstrations.sources import Loaded, Request, Select
from sb3_iq.demonstrations.sources.flat import FLAGS, OF_SINGLE_STEPS, plain_observations, read_flat
from sb3_iq.demonstrations.sources.notes import Notes
from sb3_iq.demonstrations.trajectory import Trajectory, make_trajectory

# The names that libraries give to the same thing; the first is imitation's.
NAMES = {
    "obs": ("obs", "observations", "observation"),
    "acts": ("acts", "actions", "action", "acs"),
    "next_obs": ("next_obs", "next_observations", "next_observation"),
    "rews": ("rews", "rewards", "reward"),
    "terminal": ("terminal",),
    "dones": ("dones",),
    "terminated": ("terminated", "terminals", "terminations"),
    "truncated": ("truncated", "timeouts", "truncations"),
    "episode_starts": ("episode_starts",),
    "infos": ("infos",),
}
_LACKS_LAST = "lacks the last observation"
# Under these names libraries give as many observations as actions, which imitation's names never do
_WITHOUT_LAST = ("observations", "observation")


def is_mapping(source: object) -> bool:
    """
    :param source: any object
    :return: whether it is a dictionary
    """
    return isinstance(source, Mapping)


def read_mapping(source: Mapping[str, Any], request: Request) -> Loaded:
    """
    :param source: one of four forms. Flat transitions: obs, acts, next_obs and dones, or terminated and truncated
        (and optionally rews), also by the names of Gymnasium, SB2, SB3, D4RL and robomimic; without next_obs the last one
        of each episode is left out. A single episode: obs (T + 1), acts (T) and optionally terminal and rews. Columns: lists
        of episodes in obs and acts, and a list of bools in terminal. Arrays (episodes, steps, ...) as baselines writes.
        State-only data lack acts
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
    if isinstance(source, np.ndarray):
        return source.dtype.kind == "O" and source.ndim == 1
    if isinstance(source, (type, str, bytes, bytearray)) or hasattr(source, "detach"):
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
    notes = Notes()
    for index in request.select(len(source)):
        try:
            item = source[index]
        except Exception as error:  # a table, a mapping of another library
            raise TypeError(f"expert_data is {shorten(source)}, which is not a sequence of trajectories") from error
        trajectories += _read_object(index, item, request.max_episode_steps, notes)
    notes.warn()
    return Loaded(trajectories)


def _read_object(index: int, item: Any, limit: int | None, notes: Notes) -> list[Trajectory]:
    if isinstance(item, Trajectory):
        return [item if limit is None else item.with_time_limit(limit)]
    try:
        if isinstance(item, Mapping):
            arrays = _by_name(item)
            if _has_steps(arrays):
                return read_flat(arrays, range, limit, notes=notes)
            return [_read_single(arrays, limit)]
        if not all(hasattr(item, name) for name in ("obs", "acts", "terminal")):
            raise TypeError(
                f"{shorten(item)} is not a trajectory: expected the attributes obs, acts and terminal. {OF_SINGLE_STEPS}"
            )
        return [
            _read_single({name: getattr(item, name, None) for name in ("obs", "acts", "rews", "terminal", "infos")}, limit)
        ]
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
    terminal = arrays.get("terminal")
    if "next_obs" not in arrays and terminal is not None and np.ndim(terminal) == 1:
        return _read_columns(arrays, select, max_episode_steps)
    if "next_obs" not in arrays and _is_stacked(arrays):
        return _read_stacked(arrays, select, max_episode_steps)
    if _has_steps(arrays):
        return read_flat(arrays, select, max_episode_steps)
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
    if "obs" not in arrays:
        known = ", ".join(NAMES["obs"])
        raise ValueError(
            f"obs missing: found the keys {cut(list(source))}. Pass a dictionary with the observations under one of the names "
            f"{known}, and the actions under {', '.join(NAMES['acts'])}"
        )
    strange = [key for key in map(str, source) if key.lower().startswith("ac")]
    if "acts" not in arrays and strange:
        raise ValueError(
            f"acts missing: found the keys {cut(list(source))}. Pass the actions under one of the names "
            f"{', '.join(NAMES['acts'])}"
        )
    if "episode_starts" in arrays:  # SB2's: where an episode begins, so that the row before it is done
        starts = np.asarray(arrays.pop("episode_starts")).reshape(-1)
        arrays.setdefault("dones", np.append(starts[1:], True))
    if any(name in source for name in _WITHOUT_LAST) and _n_rows(arrays["obs"]) == _n_rows(arrays.get("acts")):
        arrays[_LACKS_LAST] = True
    return arrays


def _n_rows(value: Any) -> int | None:
    """Return the number of rows, None where there is nothing that has any."""
    value = plain_observations(value)
    value = next(iter(value.values()), None) if isinstance(value, dict) else value
    return len(value) if hasattr(value, "__len__") else None


def _has_steps(arrays: dict[str, Any]) -> bool:
    """Return whether these are transitions, one entry for each, and not one episode with its last observation."""
    if "next_obs" in arrays or _LACKS_LAST in arrays:
        return True
    flags = (arrays[name] for name in FLAGS if arrays.get(name) is not None)
    n_flags = next((len(flag) for flag in flags if np.ndim(flag) > 0), None)
    return n_flags is not None and n_flags == _n_rows(arrays["obs"])


def _is_stacked(arrays: dict[str, Any]) -> bool:
    """Return whether the arrays are (episodes, steps, ...), of which the rewards tell."""
    shapes = [np.shape(arrays[name])[:2] for name in ("obs", "acts", "rews") if isinstance(arrays.get(name), np.ndarray)]
    no_flags = not any(name in arrays for name in FLAGS)
    return no_flags and len(shapes) == 3 and arrays["rews"].ndim == 2 and arrays["rews"].shape[1] > 1 and len(set(shapes)) == 1


def _read_stacked(arrays: dict[str, Any], select: Select, limit: int | None) -> list[Trajectory]:
    """Return the episodes of arrays without the last observation of each."""
    notes = Notes()
    trajectories = []
    for index in select(len(arrays["acts"])):
        trajectories += read_flat({name: arrays[name][index] for name in ("obs", "acts", "rews")}, range, limit, notes=notes)
    notes.warn()
    return trajectories


def _read_single(arrays: dict[str, Any], limit: int | None) -> Trajectory:
    """Return one episode; without any flag it is not known to have ended, and bootstrapping is never wrong."""
    flags = {}
    for name in ("terminal", "dones", "terminated", "truncated"):
        flag = _last_flag(name, arrays.get(name), _n_rows(arrays["obs"]))
        if flag is not None and (np.ndim(flag) != 0 or np.asarray(flag).dtype.kind != "b"):
            raise ValueError(f"{name}={shorten(flag)}: expected one bool for an episode")
        flags[name] = bool(flag)
    obs, acts, rews = plain_observations(arrays["obs"]), arrays.get("acts"), arrays.get("rews")
    if arrays.get("terminated") is not None or arrays.get("truncated") is not None:
        return Trajectory(obs, acts, rews, flags["terminated"], flags["truncated"] and not flags["terminated"])
    infos = arrays.get("infos")
    at_reset = flag_of_info(STARTS_AT_RESET, info_at(0, infos, 1)) is not False
    return make_trajectory(obs, acts, rews, flags["terminal"] or flags["dones"], info_at(-1, infos, 1), limit, at_reset)


def _last_flag(name: str, flag: Any, n_obs: int | None) -> Any:
    """Return the flag of an episode, also of one that has a flag for each step."""
    if np.ndim(flag) == 0 or n_obs is None or len(flag) != n_obs - 1 or np.ndim(flag) > 2:
        return flag
    flags = np.asarray(flag).reshape(len(flag), -1)
    if flags.shape[1] != 1 or flags.dtype.kind not in "biuf" or not np.isin(flags, (0, 1)).all():
        return flag
    if flags[:-1].any():
        step = int(np.flatnonzero(flags[:, 0])[0])
        raise ValueError(f"{name} is True at step {step}, within the episode. Pass next_obs, or one dictionary an episode")
    return bool(flags[-1, 0])


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
