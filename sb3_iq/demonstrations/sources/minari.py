"""Minari's data sets: by their id, found on this machine or downloaded, and ``MinariDataset`` objects."""

import contextlib
import os
import re
import sys
import urllib.error
import urllib.request
from typing import Any

import numpy as np

from sb3_iq.demonstrations.errors import first_words, how_to_install, shorten
from sb3_iq.demonstrations.sources import Loaded, Request
from sb3_iq.demonstrations.trajectory import Trajectory

_HUB = "https://huggingface.co"  # where Minari downloads from
_SECONDS_TO_ANSWER = 5


def open_minari(name: str) -> Any:
    """
    :param name: the id of a data set, e.g. ``mujoco/hopper/expert-v0``; it is downloaded if it is not on this machine
    :return: the ``MinariDataset``
    :raises ImportError: if Minari, or what it needs for the data set, is not installed
    :raises FileNotFoundError: if the data set is neither on this machine nor can be downloaded
    :raises ValueError: if the id is malformed
    """
    reference = f"minari:{name}"
    if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", name):
        raise ValueError(f"expert_data {shorten(reference)}: not the id of a data set. Use minari:NAMESPACE/NAME-vVERSION")
    try:
        import minari
    except ImportError as error:
        raise ImportError(
            f"expert_data {shorten(reference)}: Minari can't be imported ({error}). {how_to_install('minari')}"
        ) from error
    try:
        try:
            return minari.load_dataset(name)
        except FileNotFoundError:
            if not _may_download():
                raise
        return minari.load_dataset(name, download=True)
    except ImportError as error:
        raise ImportError(f"expert_data {shorten(reference)}: {error}. {how_to_install('minari')}") from error
    except Exception as error:  # its own checks, the storage's library, and any failure of the network
        raise FileNotFoundError(
            f"expert_data {shorten(reference)}: Minari can't load this data set ({first_words(error)}). Check the id (`minari "
            "list local`, `minari list remote`) and the network"
        ) from error


def _may_download() -> bool:
    """
    :return: whether the user allows it
    :raises OSError: if the hub can't be reached, which Minari itself finds out after minutes
    """
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "TRUE", "YES", "ON"):
        return False
    if os.environ.get("MINARI_REMOTE", "hf").startswith("hf"):
        with contextlib.suppress(urllib.error.HTTPError):  # an answer, whatever it says
            urllib.request.urlopen(os.environ.get("HF_ENDPOINT", _HUB), timeout=_SECONDS_TO_ANSWER).close()
    return True


def is_minari(source: object) -> bool:
    """
    :param source: any object
    :return: whether it is a ``MinariDataset``
    """
    library = sys.modules.get("minari")  # who has such an object has imported it
    return library is not None and isinstance(source, library.MinariDataset)


def read_minari(dataset: Any, request: Request) -> Loaded:
    """
    :param dataset: a ``MinariDataset``; what ``filter_episodes`` and ``sample`` left out of it is left out
    :param request: what is wanted of it
    :return: the episodes, the spaces and the time limit. Minari records terminated and truncated, so nothing has to be assumed
    :raises ValueError: if it holds no episode, or one is malformed
    """
    reference = f"minari:{dataset.spec.dataset_id}"
    if not dataset.total_episodes:
        raise ValueError(f"expert_data {shorten(reference)}: the data set holds no episode")
    trajectories = []
    for index in request.select(int(dataset.total_episodes)):
        try:
            trajectories.append(_read_episode(dataset[index]))
        except Exception as error:  # ours, and those of the storage's library for a damaged file
            raise ValueError(f"expert_data {shorten(reference)}, episode {index}: {first_words(error)}") from error
    limit = getattr(dataset.env_spec, "max_episode_steps", None)
    return Loaded(trajectories, dataset.observation_space, dataset.action_space, limit)


def _read_episode(episode: Any) -> Trajectory:
    # A terminal state at the time limit is terminated only
    terminated = bool(episode.terminations[-1]) if len(episode.terminations) else False
    truncated = bool(episode.truncations[-1]) if len(episode.truncations) else False
    return Trajectory(
        _arrays("observations", episode.observations),
        _arrays("actions", episode.actions),
        np.asarray(episode.rewards),
        terminated,
        truncated and not terminated,
    )


def _arrays(name: str, value: Any) -> Any:
    """Refuse what SB3 has no networks for: tuples, and dictionaries in dictionaries."""
    if isinstance(value, tuple) or (isinstance(value, dict) and any(isinstance(v, (dict, tuple)) for v in value.values())):
        raise ValueError(f"{name} are nested or a tuple, but Stable-Baselines3 takes arrays or one dictionary of arrays")
    return value
