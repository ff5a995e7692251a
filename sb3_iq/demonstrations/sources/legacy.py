"""
The dictionaries that the IQ-Learn paper's expert data comes in; and pickles, which hold these, old trajectories of imitation
or anything else, can run code, and are only read when the caller asks for it.
"""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sb3_iq.demonstrations.errors import cut, reading, shorten
from sb3_iq.demonstrations.sources import Loaded, Request
from sb3_iq.demonstrations.sources.flat import read_flat

SUFFIXES = (".pkl", ".pickle", ".npy")
_NAMES = {"obs": "states", "next_obs": "next_states", "acts": "actions", "dones": "dones", "rews": "rewards"}


def is_pickle(source: object) -> bool:
    """
    :param source: a path, or anything else
    :return: whether it is a file that is read by unpickling
    """
    if not isinstance(source, Path) or source.is_dir():
        return False
    with open(source, "rb") as file:
        start = file.read(4)
    return source.suffix in SUFFIXES or start[:1] == b"\x80" or start == b"\x93NUM"


def unpickle(path: Path) -> Any:
    """
    :param path: a file that the caller trusts
    :return: the object in it
    :raises ValueError: if it can't be unpickled
    """
    with reading(path, "a pickle"), open(path, "rb") as file:
        if file.read(4) != b"\x93NUM":
            file.seek(0)
            return pickle.load(file)
        content = np.load(path, allow_pickle=True)
    return content.item() if content.shape == () else content


def is_legacy(source: object) -> bool:
    """
    :param source: any object
    :return: whether it is a dictionary with a list of trajectories under each of the legacy names
    """
    return isinstance(source, Mapping) and "states" in source


def read_legacy(content: Mapping[str, Any], request: Request) -> Loaded:
    """
    :param content: lists with one sequence for each trajectory under ``states``, ``next_states``, ``actions``, ``dones`` and
        optionally ``rewards``, and their ``lengths``, if the sequences are padded
    :param request: what is wanted of it; ``dones`` are True at a time limit too, which its time limit tells
    :return: the episodes. A trajectory whose next states don't chain is cut there
    :raises ValueError: if a list is missing or malformed
    """
    missing = [name for name in _NAMES.values() if name not in content and name != "rewards"]
    if missing:
        raise ValueError(f"the lists {missing} are missing; found {cut(list(content))}")
    lists = {name: content[alias] for name, alias in _NAMES.items() if content.get(alias) is not None}
    n_trajectories = _length("actions", lists["acts"])
    if n_trajectories == 0:
        raise ValueError("expert_data is empty: expected at least one episode")
    wrong = [_NAMES[name] for name, column in lists.items() if _length(_NAMES[name], column) != n_trajectories]
    if wrong:
        raise ValueError(
            f"{wrong} and actions have different lengths: expected one entry for each of {n_trajectories} episodes"
        )
    lengths = content.get("lengths")
    if lengths is None:
        lengths = [_length("actions", acts) for acts in lists["acts"]]
    if len(lengths) != n_trajectories or not all(isinstance(n, (int, np.integer)) and n > 0 for n in lengths):
        raise ValueError(f"lengths={cut(lengths)}: expected one positive number for each of {n_trajectories} episodes")
    arrays = {name: _join(_NAMES[name], column, lengths) for name, column in lists.items()}
    starts = np.cumsum(lengths) - np.asarray(lengths)
    return Loaded(read_flat(arrays, request.select, request.max_episode_steps, dict.fromkeys(starts.tolist(), True)))


def _length(name: str, sequence: Any) -> int:
    if not hasattr(sequence, "__len__"):
        raise ValueError(f"{name} holds {shorten(sequence)}: expected lists")
    return len(sequence)


def _join(name: str, column: Any, lengths: Any) -> np.ndarray:
    """Return the steps of all trajectories one after the other."""
    pieces = []
    for index, (sequence, length) in enumerate(zip(column, lengths, strict=True)):
        try:
            piece = np.asarray(sequence)[:length]
        except Exception as error:  # a ragged list, an object of the user
            raise ValueError(f"episode {index}: {name} is not an array of numbers ({error})") from error
        if piece.ndim == 0 or len(piece) != length:
            raise ValueError(f"episode {index}: {name} has fewer than {length} entries, which lengths or actions ask for")
        pieces.append(piece)
    try:
        return np.concatenate(pieces)
    except ValueError as error:
        raise ValueError(f"{name} has entries of different shapes ({error})") from error
