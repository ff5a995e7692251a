"""Arrays of transitions, cut into episodes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sb3_iq.demonstrations.errors import shorten
from sb3_iq.demonstrations.sources import Select
from sb3_iq.demonstrations.trajectory import Observations, Trajectory, make_trajectory


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
    obs, next_obs = plain_observations(arrays["obs"]), plain_observations(arrays["next_obs"])
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
                info = info_at(last, arrays.get("infos"), n_steps)
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


def plain_observations(value: Any) -> Any:
    """
    :param value: an array, a mapping of arrays, or imitation's ``DictObs``
    :return: the array, or a dictionary
    """
    if isinstance(value, Mapping):
        return dict(value)
    return dict(value.unwrap()) if type(value).__name__ == "DictObs" else value


def info_at(index: int, infos: Any, n_infos: int) -> object:
    """
    :param index: which info is wanted
    :param infos: a sequence of infos, or anything else
    :param n_infos: how many there must be
    :return: the info, None if there are not so many or reading it would run code
    """
    # What imitation loads from disk decodes an info with jsonpickle (which runs code) when it is touched: take the text.
    infos = getattr(infos, "_encoded_list", infos)
    return infos[index] if isinstance(infos, (list, tuple, np.ndarray)) and len(infos) >= n_infos else None
