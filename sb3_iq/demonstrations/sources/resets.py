"""Environments that reset themselves: what they put in the place of the last observation of an episode is found and mended."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from sb3_iq.demonstrations.endings import info_at, true_observation
from sb3_iq.demonstrations.sources.notes import Notes, percent
from sb3_iq.demonstrations.sources.order import Pair, continues

# Above this chance, ends that look like resets are ends
MOST_CHANCE = 0.01
_CURE = "Record it from the infos (terminal_observation, final_obs) to keep them"


def mend_resets(
    pairs: list[Pair],
    done: np.ndarray,
    rews: np.ndarray | None,
    infos: Any,
    rows: np.ndarray,
    starts: Iterable[int],
    notes: Notes,
) -> tuple[list[Pair], np.ndarray]:
    """
    A vectorised environment resets itself where an episode is done. SB3's, and some of Gymnasium's, give the first observation
    of the next episode as the next observation of that step; others take one step more, whose action does nothing.

    :param pairs: observations and next observations, n rows each, in the order of time
    :param done: where an episode ends, shape (n,)
    :param rews: the rewards, shape (n,), if there are any
    :param infos: the infos, in the order that they were given in
    :param rows: where each row was in that order
    :param starts: rows that are known not to follow the one before them
    :param notes: takes what was found
    :return: the pairs, with the true last observations where the infos hold them, and the rows to leave out, shape (n,)
    """
    n_rows = len(done)
    lost = np.zeros(n_rows, dtype=bool)
    ends = np.flatnonzero(done)
    if not len(ends) or _all_equal(pairs):
        return pairs, lost
    follows = continues(pairs)
    has_next = np.arange(n_rows) < n_rows - 1
    has_next[[start - 1 for start in starts if start > 0]] = False
    follows &= has_next
    pairs, known = _with_true_observations(pairs, ends, infos, rows)
    is_suspect = follows[ends] & ~known
    suspects = ends[is_suspect]
    others = ends[~is_suspect & ~known & has_next[ends]]
    if not len(suspects):
        return pairs, lost
    if len(suspects) <= len(others):
        if all(first.dtype.kind == "f" for _, first, _ in pairs):
            notes.add(
                f"at {len(suspects)} of {len(ends)} ends ({percent(len(suspects) / n_rows)} of the rows) the next observation "
                "is the first one of the next episode; as it is not at the other ends, they are kept. Check the recording"
            )
        return pairs, lost
    if _chance(pairs, done, suspects) > MOST_CHANCE:
        return pairs, lost
    kind = "same step" if known.any() else _kind_of_reset(pairs, done, rews, suspects)
    if kind == "next step":
        lost[suspects + 1] = True
        notes.drop(int(lost.sum()), "after the end of an episode they are the step with which the environment resets itself")
        return pairs, lost
    lost[suspects] = True
    lost[ends[~known & ~has_next[ends]]] = True  # they do what the others do, though no row follows to show it
    if kind == "unknown":
        lost[suspects + 1] = True
    reason = "their next_obs is the first observation of the next episode, as the environment resets itself"
    if kind == "unknown":
        reason = "the environment resets itself at the end of an episode, in that step or the one after it"
    notes.drop(int(lost.sum()), f"{reason}. {_CURE}")
    return pairs, lost


def _chance(pairs: list[Pair], done: np.ndarray, suspects: np.ndarray) -> float:
    """Return how likely all suspects end where the next episode starts, if they end as other steps do, as in a small grid."""
    chance = 1.0
    if done.all():
        return 0.0
    for start in suspects + 1:
        arrives = np.ones(len(done), dtype=bool)
        for _, first, second in pairs:
            arrives &= (second == first[start]).reshape(len(done), -1).all(axis=1)
        chance *= float(arrives[~done].mean())
        if chance <= MOST_CHANCE:
            break
    return chance


def _all_equal(pairs: list[Pair]) -> bool:
    """Return whether there is only one observation, of which nothing can be told."""
    return all((first == first[:1]).all() and (second == first[:1]).all() for _, first, second in pairs)


def _with_true_observations(
    pairs: list[Pair], ends: np.ndarray, infos: Any, rows: np.ndarray
) -> tuple[list[Pair], np.ndarray]:
    """Return the pairs with the last observations that the infos hold, and at which ends they do."""
    known = np.zeros(len(ends), dtype=bool)
    if infos is None:
        return pairs, known
    changed = {name: second.copy() for name, _, second in pairs}
    for number, end in enumerate(ends.tolist()):
        found = true_observation(info_at(int(rows[end]), infos, len(rows)))
        parts = {name: found if not name else _part(found, name[2:-2]) for name in changed}
        arrays = {name: _fitting(part, changed[name].shape[1:]) for name, part in parts.items()}
        if all(array is not None for array in arrays.values()):
            known[number] = True
            for name, array in arrays.items():
                changed[name][end] = array
    return [(name, first, changed[name]) for name, first, _ in pairs], known


def _part(found: Any, key: str) -> Any:
    return found.get(key) if isinstance(found, dict) else None


def _fitting(value: Any, shape: tuple[int, ...]) -> np.ndarray | None:
    """Return numbers of this shape, also of one environment, or None."""
    if value is None or isinstance(value, dict):
        return None
    try:
        array = np.asarray(value)
    except Exception:  # a ragged list, an object of the user
        return None
    if array.dtype.kind not in "biuf" or array.shape not in (shape, (1, *shape)):
        return None
    return array.reshape(shape)


def _kind_of_reset(pairs: list[Pair], done: np.ndarray, rews: np.ndarray | None, suspects: np.ndarray) -> str:
    """Tell "same step" from "next step", by the rewards, 0 in a step that only resets, and by where the observation jumps."""
    resets = suspects[suspects + 1 < len(done)] + 1
    if done[resets].any():
        return "same step"  # a step that only resets ends nothing
    ordinary = np.ones(len(done), dtype=bool)
    ordinary[resets] = ordinary[suspects] = False
    if rews is not None:
        if (rews[resets] != 0).any():
            return "same step"
        if ordinary.any() and (rews[ordinary] != 0).mean() > 0.5:
            return "next step"
    at_end, after = _jump(pairs, suspects), _jump(pairs, resets)
    if at_end > 2 * after:
        return "same step"
    return "next step" if after > 2 * at_end else "unknown"


def _jump(pairs: list[Pair], rows: np.ndarray) -> float:
    """Return how far these rows move the observation, relative to the deviation of each number."""
    squares = np.zeros(len(rows))
    for _, first, second in pairs:
        deviation = first.reshape(len(first), -1).astype(np.float64).std(axis=0) + 1e-12
        moved = second[rows].astype(np.float64) - first[rows].astype(np.float64)
        squares += ((moved.reshape(len(rows), -1) / deviation) ** 2).mean(axis=1)
    return float(np.sqrt(np.median(squares))) if len(rows) else 0.0
