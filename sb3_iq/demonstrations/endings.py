"""What the infos of steps tell of an episode, for all sources: how it ended, where it began, and its true last observation."""

import base64
import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from sb3_iq.demonstrations.errors import shorten

TIME_LIMIT = "TimeLimit.truncated"
STARTS_AT_RESET = "sb3_iq.starts_at_reset"  # in the first info of an episode on disk that doesn't start at a reset
FLAGS = (TIME_LIMIT, STARTS_AT_RESET)
"""The flags that are read, so that a source need not decode anything else of an info."""
_FINAL_INFO = "final_info"  # where Gymnasium's vector environments put the info of the last step
_TRUE_OBSERVATIONS = ("terminal_observation", "final_obs", "final_observation")  # of SB3, and Gymnasium from 1.0 and before
_WORDS = {"true": True, "false": False, "1": True, "0": False}


def flag_of_info(name: str, info: object) -> bool | None:
    """
    Read a flag without decoding anything but plain JSON (jsonpickle would run code from the data).

    :param name: :data:`TIME_LIMIT` of the last step, or :data:`STARTS_AT_RESET` of the first
    :param info: the info of a step: a mapping, its JSON, also with NumPy's numbers as jsonpickle writes them, or anything else
    :return: the flag, or None if the info doesn't tell. A flag that is there but can't be read is told by a warning
    """
    if isinstance(info, str):
        if name not in info:
            return None
        try:
            info = json.loads(info)
        except (ValueError, RecursionError):
            _warn_unreadable(name, info)
            return None
    if not isinstance(info, Mapping):
        return None
    value = info.get(name)
    if value is None:
        final = _single(info.get(_FINAL_INFO))
        return flag_of_info(name, final) if isinstance(final, Mapping) else None
    flag = as_flag(value)
    if flag is None:
        _warn_unreadable(name, value)
    return flag


def _warn_unreadable(name: str, value: object) -> None:
    warnings.warn(
        f"Expert data: the infos hold {name}, but its value {shorten(value)} is not a bool, so that it is not known how the "
        "episode ended. Write True or False, or give max_episode_steps."
    )


def as_flag(value: Any) -> bool | None:
    """
    :param value: what may say yes or no: a bool, a number, a word, an array of one of these
    :return: that as a bool, None for anything else
    """
    value = _single(value)
    if isinstance(value, str):
        return _WORDS.get(value.strip().lower())
    if isinstance(value, Mapping):
        return _jsonpickled_flag(value)
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    number = isinstance(value, (int, float, np.integer, np.floating)) and value in (0, 1)
    return bool(value) if number else None


def _jsonpickled_flag(value: Mapping[str, Any]) -> bool | None:
    """Return a number of one byte that jsonpickle wrote for NumPy, read as the plain JSON that it is."""
    try:
        function, arguments = value["py/reduce"][:2]
        content = base64.b64decode(arguments["py/tuple"][-1]["py/b64"], validate=True)
        name = function["py/function"]
    except (KeyError, IndexError, TypeError, ValueError):
        return None
    known = name.rpartition(".")[2] in ("scalar", "_reconstruct") and content in (b"\x00", b"\x01")
    return content == b"\x01" if known else None


def _single(value: Any) -> Any:
    """Return the entry of a list or array of one: vector environments of one give such."""
    while isinstance(value, (list, tuple, np.ndarray)) and np.size(value) == 1 and not isinstance(value, str):
        value = value.reshape(-1)[0] if isinstance(value, np.ndarray) else value[0]
    return value


def info_at(index: int, infos: Any, n_infos: int) -> object:
    """
    :param index: which info is wanted
    :param infos: a sequence of infos, a mapping of columns with one entry for each step, or anything else
    :param n_infos: how many there must be
    :return: the info, None if there are not so many or reading it would run code
    """
    # What imitation loads from disk decodes an info with jsonpickle (which runs code) when it is touched: take the text.
    infos = getattr(infos, "_encoded_list", infos)
    if isinstance(infos, Mapping):
        names = (*FLAGS, _FINAL_INFO, *_TRUE_OBSERVATIONS)
        columns = {name: infos[name] for name in names if isinstance(infos.get(name), (Sequence, np.ndarray))}
        return {name: column[index] for name, column in columns.items() if len(column) >= n_infos}
    return infos[index] if isinstance(infos, (list, tuple, np.ndarray)) and len(infos) >= n_infos else None


def true_observation(info: object) -> Any:
    """
    :param info: the info of the last step of an episode, from an environment that resets itself
    :return: the observation before the reset, or None if the info doesn't hold it
    """
    if not isinstance(info, Mapping):
        return None
    found = next((info[name] for name in _TRUE_OBSERVATIONS if info.get(name) is not None), None)
    if isinstance(found, np.ndarray) and found.dtype.kind == "O":
        found = found.reshape(-1)[0] if found.size == 1 else None
    return found
