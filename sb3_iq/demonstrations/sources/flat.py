"""Arrays of transitions, cut into episodes."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from sb3_iq.demonstrations.endings import as_flag, info_at
from sb3_iq.demonstrations.errors import shorten
from sb3_iq.demonstrations.sources import Select
from sb3_iq.demonstrations.sources.notes import Notes
from sb3_iq.demonstrations.sources.order import Order, Pair, continues, find_order
from sb3_iq.demonstrations.sources.resets import mend_resets
from sb3_iq.demonstrations.trajectory import Observations, Trajectory, make_trajectory

FLAGS = ("terminal", "dones", "terminated", "truncated")
# What to do with (obs, action, ...) of one step each
OF_SINGLE_STEPS = "Of single steps pass one dictionary with an array of each: obs, acts, next_obs and dones"


def read_flat(
    arrays: dict[str, Any],
    select: Select,
    limit: int | None,
    starts_at_reset: Mapping[int, bool] | None = None,
    notes: Notes | None = None,
) -> list[Trajectory]:
    """
    Cut transitions into episodes, after a check of their order and of what the environment did where an episode ended.

    :param arrays: transitions by imitation's names: obs, acts, next_obs and dones, or terminated and truncated. Without
        acts they are state-only; without next_obs the last transition of each episode is left out
    :param select: from the number of episodes to the indices of those wanted
    :param limit: the time limit, if known
    :param starts_at_reset: where the caller knows that an episode begins (beside the cuts that the data show), and whether
        that is at a reset
    :param notes: takes what is to be told of the rows; None warns of it here
    :return: the episodes
    :raises ValueError: if an array is malformed
    """
    told = Notes() if notes is None else notes
    arrays = _by_environment(arrays)
    obs = plain_observations(arrays["obs"])
    has_next = arrays.get("next_obs") is not None
    next_obs = plain_observations(arrays["next_obs"]) if has_next else obs
    acts = None if arrays.get("acts") is None else _array("acts", arrays["acts"])
    pairs = list(_pairs(obs, next_obs))
    n_steps = len(pairs[0][1]) if acts is None else len(acts)
    if n_steps == 0:
        raise ValueError("expert_data is empty: expected at least one transition")
    for name, first, second in pairs:
        if len(first) != n_steps or first.shape != second.shape:
            raise ValueError(
                f"obs{name} {first.shape}, next_obs{name} {second.shape} and acts {'missing' if acts is None else acts.shape} "
                "have different lengths or shapes: expected one entry for each transition"
            )
    told.n_rows += n_steps
    rews = None if arrays.get("rews") is None else _column("rews", arrays["rews"], n_steps)
    flags = {name: _as_bool(name, arrays[name], n_steps) for name in FLAGS if arrays.get(name) is not None}
    if not flags and has_next:
        raise ValueError("no array tells where episodes end: expected dones, or terminated and truncated")
    truncated = flags.get("truncated", np.zeros(n_steps, dtype=bool))
    ended = flags.get("dones", flags.get("terminal", np.zeros(n_steps, dtype=bool)))
    # dones covers both ways to end, so a truncated step is not terminated; beside `terminated` a true terminal state wins.
    terminated = flags.get("terminated", ended & ~truncated)
    exact = "terminated" in flags or "truncated" in flags
    done = ended | terminated | truncated

    order = Order(np.arange(n_steps), {}, True)
    if has_next and starts_at_reset is None:  # else the caller knows the order
        order = find_order(pairs, done, told)
    known_starts = {0: True} | order.starts | dict(starts_at_reset or {})
    rows = order.rows
    if order.starts:
        pairs = [(name, first[rows], second[rows]) for name, first, second in pairs]
        done, rews_in_order = done[rows], None if rews is None else rews[rows]
    else:
        rews_in_order = rews
    if has_next:
        pairs, lost = mend_resets(pairs, done, rews_in_order, arrays.get("infos"), rows, known_starts, told)
    else:
        pairs, lost = _without_next(pairs, done, known_starts, told)
    if lost.any():
        kept = np.flatnonzero(~lost)
        if not len(kept):
            raise ValueError(
                "no transition is left, as the next observation of none is known. Record next_obs, the last observation of "
                "an episode included"
            )
        known_starts = {int(np.searchsorted(kept, row)): at_reset for row, at_reset in known_starts.items()}
        known_starts |= {int(np.searchsorted(kept, row + 1)): True for row in np.flatnonzero(lost)}
        known_starts = {row: at_reset for row, at_reset in known_starts.items() if row < len(kept)}
        pairs = [(name, first[kept], second[kept]) for name, first, second in pairs]
        done, rows = done[kept], rows[kept]
    if len(rows) < n_steps or order.starts:
        acts, rews = (None if column is None else column[rows] for column in (acts, rews))
        terminated, truncated = terminated[rows], truncated[rows]

    gaps = ~continues(pairs)  # gaps[i]: transition i + 1 does not continue transition i
    gaps[[start - 1 for start in known_starts if start > 0]] = True
    gaps[-1] = True
    ends = np.flatnonzero(done | gaps)
    starts = np.concatenate(([0], ends[:-1] + 1))
    trajectories = []
    for index in select(len(ends)):
        start, last = starts[index], ends[index]
        pieces = {name: np.concatenate((a[start : last + 1], b[last : last + 1])) for name, a, b in pairs}
        piece: Observations = {name[2:-2]: value for name, value in pieces.items()} if isinstance(obs, dict) else pieces[""]
        piece_acts = None if acts is None else acts[start : last + 1]
        piece_rews = None if rews is None else rews[start : last + 1]
        at_reset = known_starts.get(int(start), bool(order.is_known and start > 0 and done[start - 1]))
        try:
            if exact:
                is_terminal = bool(terminated[last])
                flag = bool(truncated[last]) and not is_terminal
                trajectories.append(Trajectory(piece, piece_acts, piece_rews, is_terminal, flag, at_reset))
            else:
                info = info_at(int(rows[last]), arrays.get("infos"), n_steps)
                trajectories.append(make_trajectory(piece, piece_acts, piece_rews, bool(done[last]), info, limit, at_reset))
        except ValueError as error:
            raise ValueError(f"episode {index} (transitions {start} to {last}): {error}") from error
    if notes is None:
        told.warn()
    return trajectories


def _by_environment(arrays: dict[str, Any]) -> dict[str, Any]:
    """Return arrays (steps, environments, ...), which vectorised environments give, as rows of one environment in turn."""
    flag = next((np.asarray(arrays[name]) for name in FLAGS if arrays.get(name) is not None), None)
    if flag is None or flag.ndim != 2 or flag.shape[1] < 2 or flag.dtype.kind not in "biuf":
        return arrays
    n_steps, n_envs = flag.shape

    def rows(value: Any) -> Any:
        array = np.asarray(value)
        return array.reshape(n_steps * n_envs, *array.shape[2:]) if array.shape[:2] == flag.shape else value

    flat: dict[str, Any] = {}
    for name, value in arrays.items():
        value = plain_observations(value)
        if name == "infos":  # one for each environment in each step, or something else
            nested = isinstance(value, (list, tuple)) and all(isinstance(step, (list, tuple)) for step in value)
            flat[name] = [info for step in value for info in step] if nested else None
        else:
            flat[name] = {key: rows(part) for key, part in value.items()} if isinstance(value, dict) else rows(value)
    return flat


def _without_next(
    pairs: list[Pair], done: np.ndarray, known_starts: Mapping[int, bool], notes: Notes
) -> tuple[list[Pair], np.ndarray]:
    """Return the observation of the next row as the next one, and where there is none, the rows to leave out."""
    lost = done.copy()
    lost[-1] = True
    lost[[start - 1 for start in known_starts if start > 0]] = True
    notes.drop(int(lost.sum()), "they are the last of an episode, of which the data lack the next observation (next_obs)")
    return [(name, first, np.concatenate((first[1:], first[-1:]))) for name, first, _ in pairs], lost


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
        if array.dtype.kind == "O" and array.ndim == 1 and len(array) and all(np.ndim(row) for row in array):
            array = np.stack([np.asarray(row) for row in array])  # a column of arrays, as of a DataFrame
    except Exception as error:  # a ragged list, a tensor on a GPU, an object of the user
        raise ValueError(f"{name} is not an array of numbers ({error})") from error
    if array.dtype.kind not in "biuf" or array.ndim == 0:
        raise ValueError(
            f"{name} has dtype {shorten(str(array.dtype))} and shape {array.shape}, expected a list of numbers"
            f"{'' if array.ndim else f'. {OF_SINGLE_STEPS}'}"
        )
    return array


def _column(name: str, value: Any, n_steps: int) -> np.ndarray:
    """Return one number for each transition; (N, 1) is taken for (N,)."""
    array = _array(name, value)
    if array.shape not in ((n_steps,), (n_steps, 1)):
        raise ValueError(f"{name} has shape {array.shape}, but there are {n_steps} actions: expected the same length")
    return array.reshape(n_steps)


def _as_bool(name: str, value: Any, n_steps: int) -> np.ndarray:
    """Return one flag for each transition; words are read as those in infos are."""
    words = np.asarray(value, dtype=object) if np.asarray(value).dtype.kind in "OSU" else None
    if words is not None:
        read = [as_flag(word.decode() if isinstance(word, bytes) else word) for word in words.reshape(-1)]
        if None in read:
            unread = shorten(words.reshape(-1)[read.index(None)])
            raise ValueError(f"{name} holds {unread}: expected True or False for each transition")
        value = np.array(read).reshape(words.shape)
    array = _column(name, value, n_steps)
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
