"""The order of flat transitions: rows of several environments in turn, and shuffled ones, are put in the order of time."""

from typing import NamedTuple

import numpy as np

from sb3_iq.demonstrations.sources.notes import Notes, percent

Pair = tuple[str, np.ndarray, np.ndarray]
"""A label, the observations and the next observations."""
_MIN_ROWS = 8  # of fewer, nothing can be told
_MAX_ENVS = 1024
_INTERLEAVED = 0.9  # the share of rows that the row of the same environment continues


class Order(NamedTuple):
    """
    Rows in the order of time.

    :param rows: where each row was
    :param starts: where an episode begins without a done before it, and whether at a reset
    :param is_known: whether the row after a done is the first of the next episode
    """

    rows: np.ndarray
    starts: dict[int, bool]
    is_known: bool


def continues(pairs: list[Pair]) -> np.ndarray:
    """
    :param pairs: observations and next observations, n rows each
    :return: whether the observation of the next row is the next observation of this one, shape (n,); False for the last
    """
    follows = np.zeros(len(pairs[0][1]), dtype=bool)
    follows[:-1] = True
    for _, first, second in pairs:
        same = first[1:] == second[:-1].astype(first.dtype)
        follows[:-1] &= same.all(axis=tuple(range(1, same.ndim)))
    return follows


def find_order(pairs: list[Pair], done: np.ndarray, notes: Notes) -> Order:
    """
    :param pairs: observations and next observations, n rows each
    :param done: where an episode ends, shape (n,)
    :param notes: takes what was found
    :return: the order of time, as far as the next observations tell
    """
    n_rows = len(done)
    as_given = Order(np.arange(n_rows), {}, True)
    going_on = ~done
    going_on[-1] = False
    if n_rows < _MIN_ROWS or not going_on.any():
        return as_given
    broken = 1.0 - float(continues(pairs)[going_on].mean())
    if broken <= 0.5:
        return as_given
    ids, next_ids = _ids(pairs)
    n_envs = _n_envs(ids, next_ids, done)
    if n_envs is not None:
        notes.add(
            f"the rows are those of {n_envs} environments in turn ({percent(broken)} of them are not continued by the next "
            "one): they are read one environment after the other"
        )
        pieces = [np.arange(env, n_rows, n_envs) for env in range(n_envs)]
        starts = np.cumsum([0, *map(len, pieces[:-1])])
        return Order(np.concatenate(pieces), dict.fromkeys(starts.tolist(), True), True)
    successors = _successors(ids, next_ids)
    restored = float((successors[~done] >= 0).mean())
    if restored < 0.5:
        notes.add(
            f"{percent(broken)} of the rows are not continued by the next one, as if they were shuffled or left out: each run "
            "is taken as a piece of an episode, of which the start is not known. Pass the rows in the order of time"
        )
        return as_given._replace(is_known=False, starts={0: False})
    notes.add(
        f"{percent(broken)} of the rows are not continued by the next one: they are shuffled, and put back in order by their "
        f"next observations, which {percent(restored)} of them find"
    )
    chains = _chains(successors)
    starts = np.cumsum([0, *map(len, chains[:-1])])
    return Order(np.concatenate(chains), dict.fromkeys(starts.tolist(), restored > 0.99), True)


def _ids(pairs: list[Pair]) -> tuple[np.ndarray, np.ndarray]:
    """Return a number for each observation and next observation, equal for equal ones."""
    n_rows = len(pairs[0][1])
    ids = np.zeros(2 * n_rows, np.int64)
    for _, first, second in pairs:
        both = np.concatenate((first, second.astype(first.dtype))).reshape(2 * n_rows, -1) + first.dtype.type(0)  # -0.0 is 0.0
        rows = np.ascontiguousarray(both).view(np.dtype((np.void, both.shape[1] * both.itemsize))).reshape(-1)
        column = np.unique(rows, return_inverse=True)[1].reshape(-1)
        ids = np.unique(ids * (2 * n_rows) + column, return_inverse=True)[1].reshape(-1)
    return ids[:n_rows], ids[n_rows:]


def _n_envs(ids: np.ndarray, next_ids: np.ndarray, done: np.ndarray) -> int | None:
    """Return of how many environments the rows are, in turn, if they are."""
    shares = {}
    for lag in range(2, min(len(ids) // 2, _MAX_ENVS) + 1):
        going_on = ~done[:-lag]
        if going_on.any():
            shares[lag] = float((next_ids[:-lag] == ids[lag:])[going_on].mean())
    best = max(shares, key=lambda lag: (shares[lag], -lag), default=None)
    return best if best is not None and shares[best] >= _INTERLEAVED else None


def _successors(ids: np.ndarray, next_ids: np.ndarray) -> np.ndarray:
    """Return the one row that continues each row, -1 where there is none, several, or another row claims it."""
    unique, first, counts = np.unique(ids, return_index=True, return_counts=True)
    place = np.minimum(np.searchsorted(unique, next_ids), len(unique) - 1)
    found = (unique[place] == next_ids) & (counts[place] == 1)
    successors = np.where(found, first[place], -1)
    claimed = np.bincount(successors[found], minlength=len(ids))
    successors[found & (claimed[successors] > 1)] = -1
    return successors


def _chains(successors: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each chain, in order; a circle is cut."""
    is_head = np.ones(len(successors), dtype=bool)
    is_head[successors[successors >= 0]] = False
    seen = np.zeros(len(successors), dtype=bool)
    chains = []
    for head in [*np.flatnonzero(is_head).tolist(), *np.flatnonzero(~is_head).tolist()]:
        chain = []
        row = head
        while row >= 0 and not seen[row]:
            seen[row] = True
            chain.append(row)
            row = int(successors[row])
        if chain:
            chains.append(np.array(chain))
    return chains
