"""Expert data in memory: trajectory objects (imitation's, ours, or alike) and dictionaries of arrays."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from sb3_iq.demonstrations.errors import shorten
from sb3_iq.demonstrations.sources import Select
from sb3_iq.demonstrations.trajectory import Observations, Trajectory, make_trajectory

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


def read_trajectories(source: Sequence[Any], select: Select, max_episode_steps: int | None) -> list[Trajectory]:
    """
    :param source: objects with ``obs``, ``acts``, ``terminal`` and optionally ``infos`` and ``rews``, as imitation's
        ``Trajectory`` and ``TrajectoryWithRew``; our own :class:`Trajectory`; or dictionaries of one episode each
    :param select: from the number of episodes to the indices of those wanted
    :param max_episode_steps: the time limit, if known
    :return: the episodes
    :raises TypeError: if an object is of another kind
    :raises ValueError: if there is none, or one is malformed
    """
    if len(source) == 0:
        raise ValueError("expert_data is empty: expected at least one episode")
    trajectories = []
    for index in select(len(source)):
        try:
            item = source[index]
        except Exception as error:  # a table, a mapping of another library
            raise TypeError(f"expert_data is {shorten(source)}, which is not a sequence of trajectories") from error
        trajectories.append(_read_object(index, item, max_episode_steps))
    return trajectories


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


def read_mapping(source: Mapping[str, Any], select: Select, max_episode_steps: int | None) -> list[Trajectory]:
    """
    :param source: one of three forms. Flat transitions: obs, acts, next_obs and dones, or terminated and truncated
        (and optionally rews), also by the names of Gymnasium, SB3 and D4RL. A single episode: obs (T + 1), acts (T) and
        optionally terminal and rews. Columns: lists of episodes in obs and acts, and a list of bools in terminal
    :param select: from the number of episodes to the indices of those wanted
    :param max_episode_steps: the time limit, if known
    :return: the episodes. Flat transitions are cut where an episode is done, and where ``next_obs[i] != obs[i + 1]``
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
        raise ValueError(f"{missing} missing: expected arrays obs and acts, found the keys {shorten(str(list(source)))}")
    return arrays


def _read_single(arrays: dict[str, Any], limit: int | None) -> Trajectory:
    """Return one episode; without any flag it is not known to have ended, and bootstrapping is never wrong."""
    flags = {}
    for name in ("terminal", "dones", "terminated", "truncated"):
        flag = arrays.get(name)
        if flag is not None and (np.ndim(flag) != 0 or np.asarray(flag).dtype.kind != "b"):
            raise ValueError(f"{name}={shorten(flag)}: expected one bool for an episode")
        flags[name] = bool(flag)
    obs, acts, rews = _observations(arrays["obs"]), arrays["acts"], arrays.get("rews")
    if arrays.get("terminated") is not None or arrays.get("truncated") is not None:
        return Trajectory(obs, acts, rews, flags["terminated"], flags["truncated"] and not flags["terminated"])
    return make_trajectory(obs, acts, rews, flags["terminal"] or flags["dones"], _info_at(-1, arrays.get("infos"), 1), limit)


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
    return read_trajectories(episodes, select, limit)


def read_flat(
    arrays: dict[str, Any], select: Select, limit: int | None, starts_at_reset: Mapping[int, bool] | None = None
) -> list[Trajectory]:
    """
    :param arrays: transitions by imitation's names: obs, acts, next_obs and dones, or terminated and truncated
    :param select: from the number of episodes to the indices of those wanted
    :param limit: the time limit, if known
    :param starts_at_reset: where the caller knows that an episode begins (beside the cuts that the data show), and whether
        that is at a reset
    :return: the episodes
    :raises ValueError: if an array is malformed
    """
    known_starts = {0: True} | dict(starts_at_reset or {})
    acts = _array("acts", arrays["acts"])
    n_steps = len(acts)
    if n_steps == 0:
        raise ValueError("expert_data is empty: expected at least one transition")
    obs, next_obs = _observations(arrays["obs"]), _observations(arrays["next_obs"])
    pairs = list(_pairs(obs, next_obs))
    for name, first, second in pairs:
        if len(first) != n_steps or first.shape != second.shape:
            raise ValueError(
                f"obs{name} {first.shape}, next_obs{name} {second.shape} and acts {acts.shape} have different lengths or "
                "shapes: expected one entry for each transition"
            )
    rews = None if "rews" not in arrays else _column("rews", arrays["rews"], n_steps)
    flags = {
        name: _column(name, arrays[name], n_steps)
        for name in ("terminal", "dones", "terminated", "truncated")
        if name in arrays
    }
    flags = {name: _as_bool(name, flag) for name, flag in flags.items()}
    if not flags:
        raise ValueError("no array tells where episodes end: expected dones, or terminated and truncated")
    truncated = flags.get("truncated", np.zeros(n_steps, dtype=bool))
    ended = flags.get("dones", flags.get("terminal", np.zeros(n_steps, dtype=bool)))
    # dones covers both ways to end, so a truncated step is not terminated; beside `terminated` a true terminal state wins.
    terminated = flags.get("terminated", ended & ~truncated)
    exact = "terminated" in flags or "truncated" in flags
    done = ended | terminated | truncated

    gaps = np.zeros(n_steps, dtype=bool)  # gaps[i]: transition i + 1 does not continue transition i
    for _, first, second in pairs:
        differs = first[1:] != second[:-1].astype(first.dtype)
        gaps[:-1] |= differs.any(axis=tuple(range(1, differs.ndim)))
    gaps[[start - 1 for start in known_starts if start > 0]] = True
    ends = np.flatnonzero(done | gaps)
    ends = ends if len(ends) and ends[-1] == n_steps - 1 else np.append(ends, n_steps - 1)
    starts = np.concatenate(([0], ends[:-1] + 1))
    trajectories = []
    for index in select(len(ends)):
        start, last = starts[index], ends[index]
        pieces = {name: np.concatenate((a[start : last + 1], b[last : last + 1])) for name, a, b in pairs}
        piece: Observations = {name[2:-2]: value for name, value in pieces.items()} if isinstance(obs, dict) else pieces[""]
        piece_rews = None if rews is None else rews[start : last + 1]
        at_reset = known_starts.get(int(start), bool(start > 0 and done[start - 1]))
        try:
            if exact:
                is_terminal = bool(terminated[last])
                flag = bool(truncated[last]) and not is_terminal
                trajectories.append(Trajectory(piece, acts[start : last + 1], piece_rews, is_terminal, flag, at_reset))
            else:
                info = _info_at(last, arrays.get("infos"), n_steps)
                ended_here = bool(done[last])
                trajectories.append(
                    make_trajectory(piece, acts[start : last + 1], piece_rews, ended_here, info, limit, at_reset)
                )
        except ValueError as error:
            raise ValueError(f"episode {index} (transitions {start} to {last}): {error}") from error
    return trajectories


def _pairs(obs: Observations, next_obs: Observations) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Yield a label, the observations and the next observations of each key, in the narrower of two float types."""
    if isinstance(obs, dict) != isinstance(next_obs, dict) or (
        isinstance(obs, dict) and isinstance(next_obs, dict) and obs.keys() != next_obs.keys()
    ):
        raise ValueError("obs and next_obs are not alike: expected two arrays, or two dictionaries with the same keys")
    firsts = {f"['{key}']": value for key, value in obs.items()} if isinstance(obs, dict) else {"": obs}
    seconds = {f"['{key}']": value for key, value in next_obs.items()} if isinstance(next_obs, dict) else {"": next_obs}
    for name, value in firsts.items():
        first, second = _array(f"obs{name}", value), _array(f"next_obs{name}", seconds[name])
        if first.dtype.kind == second.dtype.kind == "f" and first.dtype != second.dtype:
            narrow = min(first.dtype, second.dtype, key=lambda dtype: dtype.itemsize)
            first, second = first.astype(narrow), second.astype(narrow)
        yield name, first, second


def _array(name: str, value: Any) -> np.ndarray:
    try:
        array = np.asarray(value)
    except Exception as error:  # a ragged list, a tensor on a GPU, an object of the user
        raise ValueError(f"{name} is not an array of numbers ({error})") from error
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(f"{name} has dtype {shorten(str(array.dtype))} and shape {array.shape}, expected a list of numbers")
    return array


def _column(name: str, value: Any, n_steps: int) -> np.ndarray:
    """Return one number for each transition; (N, 1) is taken for (N,)."""
    array = _array(name, value)
    if array.shape not in ((n_steps,), (n_steps, 1)):
        raise ValueError(f"{name} has shape {array.shape}, but there are {n_steps} actions: expected the same length")
    return array.reshape(n_steps)


def _as_bool(name: str, array: np.ndarray) -> np.ndarray:
    if not np.isin(array, (0, 1)).all():
        raise ValueError(f"{name} holds numbers other than 0 and 1: expected one flag for each transition")
    return array.astype(bool)


def _observations(value: Any) -> Any:
    """Return Dict observations as a dictionary, also from imitation's ``DictObs``."""
    if isinstance(value, Mapping):
        return dict(value)
    return dict(value.unwrap()) if type(value).__name__ == "DictObs" else value


def _info_at(index: int, infos: Any, n_infos: int) -> object:
    """Return one of at least ``n_infos`` infos if reading it runs no code."""
    # What imitation loads from disk decodes an info with jsonpickle (which runs code) when it is touched: take the text.
    infos = getattr(infos, "_encoded_list", infos)
    return infos[index] if isinstance(infos, (list, tuple, np.ndarray)) and len(infos) >= n_infos else None
