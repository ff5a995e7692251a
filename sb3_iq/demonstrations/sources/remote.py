"""Data sets by name, which their own libraries find on this machine or download: Minari, and the Hugging Face hub."""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces

from sb3_iq.demonstrations.errors import shorten
from sb3_iq.demonstrations.sources import Select
from sb3_iq.demonstrations.trajectory import Trajectory

# What is read of a repository; anything else in it stays where it is
_HUB_PATTERNS = ["*.parquet", "*.arrow", "*state.json", "*dataset_dict.json", "*card.json"]


class MinariData(NamedTuple):
    """
    What a Minari data set tells.

    :param trajectories: the episodes
    :param observation_space: observation space
    :param action_space: action space
    :param max_episode_steps: the time limit of the environment it was recorded in, if it is known
    """

    trajectories: list[Trajectory]
    observation_space: spaces.Space
    action_space: spaces.Space
    max_episode_steps: int | None


def read_minari(name: str, select: Select) -> MinariData:
    """
    :param name: the id of a data set, e.g. ``mujoco/hopper/expert-v0``; it is downloaded if it is not on this machine
    :param select: from the number of episodes to the indices of those wanted
    :return: the episodes and the spaces. Minari records terminated and truncated, so nothing has to be assumed
    :raises ImportError: if Minari, or what it needs for the data set, is not installed
    :raises FileNotFoundError: if the data set is neither on this machine nor can be downloaded
    :raises ValueError: if the id or the data is malformed
    """
    reference = f"minari:{name}"
    if not re.fullmatch(r"([\w-]+/)*[\w-]+-v\d+", name):
        raise ValueError(f"expert_data {shorten(reference)}: not the id of a data set. Use minari:NAMESPACE/NAME-vVERSION")
    try:
        import minari
    except ImportError as error:
        raise ImportError(
            f'expert_data {shorten(reference)}: Minari can\'t be imported ({error}). Install it: pip install "sb3-iq[minari]"'
        ) from error
    try:
        dataset = minari.load_dataset(name, download=True)
    except ImportError as error:
        raise ImportError(f'expert_data {shorten(reference)}: {error}. Use pip install "sb3-iq[minari]"') from error
    except Exception as error:  # its own checks, the storage's library, and any failure of the network
        raise FileNotFoundError(
            f"expert_data {shorten(reference)}: Minari can't load this data set ({_reason(error)}). Check the id (`minari "
            "list local`, `minari list remote`) and the network"
        ) from error
    if not dataset.total_episodes:
        raise ValueError(f"expert_data {shorten(reference)}: the data set holds no episode")
    trajectories = []
    for index in select(int(dataset.total_episodes)):
        try:
            trajectories.append(_minari_episode(dataset[index]))
        except Exception as error:  # ours, and those of the storage's library for a damaged file
            raise ValueError(f"expert_data {shorten(reference)}, episode {index}: {_reason(error)}") from error
    limit = getattr(dataset.env_spec, "max_episode_steps", None)
    return MinariData(trajectories, dataset.observation_space, dataset.action_space, limit)


def _minari_episode(episode: Any) -> Trajectory:
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


def download_from_hub(name: str) -> Path:
    """
    :param name: ``ORG/NAME`` of a data set on the Hugging Face hub
    :return: the folder with its Parquet or Arrow files; a later call finds them there without a network
    :raises ImportError: if ``huggingface_hub`` is not installed
    :raises FileNotFoundError: if there is no such data set, or it can't be downloaded
    :raises ValueError: if the name is malformed
    """
    reference = f"hf:{name}"
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", name):
        raise ValueError(f"expert_data {shorten(reference)}: not the name of a data set. Use hf:ORG/NAME")
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            f'expert_data {shorten(reference)}: huggingface_hub can\'t be imported ({error}). Use pip install "sb3-iq[hub]"'
        ) from error
    try:
        return Path(huggingface_hub.snapshot_download(name, repo_type="dataset", allow_patterns=_HUB_PATTERNS))
    except Exception as error:  # no such name, no permission, no network, and each of these in several kinds
        raise FileNotFoundError(
            f"expert_data {shorten(reference)}: this data set can't be downloaded ({_reason(error)}). Check the name and the "
            "network, or download its Parquet files and give their folder"
        ) from error


def _reason(error: Exception) -> str:
    """Return the first words of an error that may run over a page."""
    return f"{type(error).__name__}: {error}".replace("\n", " ")[:200]
