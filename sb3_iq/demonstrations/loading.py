"""From anything that holds expert data to :class:`Demonstrations`."""

import json
import os
import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import BaseBuffer, ReplayBuffer

from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import check_integer, check_number, reading, shorten
from sb3_iq.demonstrations.reference import split_reference
from sb3_iq.demonstrations.sources import Select
from sb3_iq.demonstrations.sources.arrow import read_folder, split_folder
from sb3_iq.demonstrations.sources.legacy import is_legacy, is_pickle, read_legacy, unpickle
from sb3_iq.demonstrations.sources.memory import read_mapping, read_trajectories
from sb3_iq.demonstrations.sources.npz import read_npz
from sb3_iq.demonstrations.sources.remote import download_from_hub, read_minari
from sb3_iq.demonstrations.sources.replay import read_replay_buffer
from sb3_iq.demonstrations.sources.tables import as_dataset, parquet_files, read_dataset, read_parquet
from sb3_iq.demonstrations.trajectory import Trajectory

BUNDLED = Path(__file__).parent / "bundled"
DEMOS_VARIABLE = "SB3_IQ_DEMOS"
_EXPECTED = (
    "a path, 'bundled:NAME', 'demos:NAME', 'minari:ID', 'hf:ORG/NAME', a sequence of trajectories with obs, acts and "
    "terminal (as imitation's), a dictionary of arrays, an SB3 ReplayBuffer, a datasets.Dataset, or what "
    "load_demonstrations returned"
)


def load_demonstrations(
    source: Any,
    n_trajectories: int | None = None,
    subsample_freq: int = 1,
    seed: int | None = None,
    max_episode_steps: int | None = None,
    env_id: str | None = None,
    allow_pickle: bool = False,
    max_memory_gb: float = 2.0,
) -> Demonstrations:
    """
    Load expert demonstrations.

    No source runs code: nothing is unpickled unless you ask for it, and infos are not decoded beyond plain JSON.

    A folder of Arrow files may be larger than memory: above ``max_memory_gb`` its arrays stay memory-mapped, in training
    too. It must then stay where it is, unchanged, as long as it is used. Anything else is read into memory; to map e.g.
    Parquet files, convert them once by ``datasets.load_dataset(...).save_to_disk(folder)``.

    :param source: a folder written by ``imitation.data.serialize.save``, or Parquet files with the same columns;
        imitation's ``.npz`` or one that holds the arrays of flat transitions; ``"bundled:NAME"`` for a set inside this
        package (e.g. ``"bundled:CartPole-v1"``); ``"demos:NAME"`` for the folder ``NAME`` in the folder that the variable
        ``SB3_IQ_DEMOS`` names; ``"minari:ID"`` and ``"hf:ORG/NAME"`` for a data set of Minari or of the Hugging Face hub,
        which are downloaded once; a sequence of trajectories (imitation's ``Trajectory`` or ``TrajectoryWithRew``, or
        alike, also its lazy one from a file); imitation's ``Transitions``; a ``datasets.Dataset`` of episodes; a dictionary of
        arrays (flat transitions, one episode, or columns of episodes); SB3's ``ReplayBuffer`` or ``DictReplayBuffer``; or
        :class:`Demonstrations`. A string may end with a choice of its own, ``"demos:Hopper-v5?n_trajectories=1&seed=0"``, of
        ``n_trajectories``, ``subsample_freq``, ``seed`` and ``max_episode_steps``; arguments then choose among what it chose
    :param n_trajectories: how many episodes to use (typically 1 to 10), None for all
    :param subsample_freq: keep one of so many transitions of each episode, each with its own next observation (the
        papers use 5 to 20), 1 for all
    :param seed: draw the ``n_trajectories`` episodes at random with this seed; None takes the first ones. With one seed
        a smaller choice is part of a larger one
    :param max_episode_steps: the time limit of the environment (e.g. 500 for CartPole-v1): an episode of this length whose
        data don't tell is taken as truncated. None takes the limit of the ``card.json`` beside the data, if there is one
    :param env_id: the environment's id, which ``"demos:"`` alone stands for
    :param allow_pickle: also read pickles: ``.pkl`` and ``.npy`` files with the dictionary of lists (``states``,
        ``next_states``, ``actions``, ``rewards``, ``dones``, ``lengths``) that the IQ-Learn paper's data comes in, or with
        trajectories. A pickle can run any code: only for files that you trust
    :param max_memory_gb: memory-map a folder of Arrow files if observations, actions and rewards of the chosen episodes are
        larger, in GB (1e9 bytes). 0 maps any folder, ``float("inf")`` none. ``IQLearn`` itself takes the default for a path
    :return: the chosen episodes, validated
    :raises TypeError: if the source, or another argument, is of a type that can't be used
    :raises ValueError: if the data is damaged, empty or malformed, or an argument is out of range
    :raises FileNotFoundError: if a path, or a name, does not exist
    :raises ImportError: if a package for this kind of source is not installed, with the extra to install
    """
    if not isinstance(allow_pickle, bool):
        raise TypeError(f"allow_pickle={shorten(allow_pickle)}: expected True or False")
    check_integer("subsample_freq", subsample_freq, 1, cure="Use 1 to keep every transition")
    if n_trajectories is not None:
        check_integer("n_trajectories", n_trajectories, 1, cure="Use None for all episodes")
    if seed is not None:
        check_integer("seed", seed, 0, cure="Use None for the first episodes")
    if max_episode_steps is not None:
        check_integer("max_episode_steps", max_episode_steps, 1, cure="Use None if there is no time limit")
    max_bytes = 1e9 * check_number("max_memory_gb", max_memory_gb, 0, cure="Use 0 to map any folder, inf to map none")

    def select(n_available: int) -> Sequence[int]:
        if n_trajectories is None:
            return range(n_available)
        check_integer("n_trajectories", n_trajectories, 1, n_available, f"The expert data holds {n_available} episodes")
        if seed is None:
            return range(n_trajectories)
        return sorted(np.random.default_rng(seed).permutation(n_available)[:n_trajectories].tolist())

    if isinstance(source, str):
        source = _with_choice(source, max_episode_steps, env_id=env_id, allow_pickle=allow_pickle, max_memory_gb=max_memory_gb)
    if isinstance(source, Demonstrations):
        trajectories = tuple(source.trajectories[i] for i in select(len(source.trajectories)))
        chosen = replace(source, trajectories=trajectories, subsample_freq=source.subsample_freq * subsample_freq)
        if max_episode_steps is None:
            return chosen
        return replace(chosen, max_episode_steps=None).with_time_limit(max_episode_steps)
    reference, card, carried = None, None, {}
    if isinstance(source, (str, Path)):
        reference = str(source)
        if isinstance(source, str) and source.startswith("minari:"):
            data = read_minari(source.removeprefix("minari:"), select)
            loaded, limit = data.trajectories, max_episode_steps or data.max_episode_steps
            carried = {"observation_space": data.observation_space, "action_space": data.action_space}
        else:
            path = _resolve(reference, env_id) if isinstance(source, str) else source
            card = _read_card(path)
            limit = max_episode_steps if max_episode_steps is not None else _card_limit(path, card)
            loaded = _read_path(path, select, limit, allow_pickle, max_bytes)
        n_bytes = sum(trajectory.nbytes for trajectory in loaded)
        if n_bytes > max_bytes:
            warnings.warn(
                f"Expert data {shorten(reference)}: {n_bytes / 1e9:.3g} GB are read into memory, more than "
                f"max_memory_gb={max_memory_gb:g}: only the numbers in a folder of uncompressed Arrow files can be "
                "memory-mapped. datasets.load_dataset(...).save_to_disk(folder) writes one.",
                stacklevel=2,
            )
    else:
        limit = max_episode_steps
        loaded = _read_object(source, select, limit)
        if isinstance(source, ReplayBuffer):
            carried = {"observation_space": source.observation_space, "action_space": source.action_space}
    return Demonstrations(tuple(loaded), subsample_freq, reference, card, limit, **carried)


def _with_choice(reference: str, max_episode_steps: int | None, **how: Any) -> str | Demonstrations:
    """Return what was chosen by the reference itself, if it holds a choice."""
    base, choice = split_reference(reference)
    if not choice:
        return reference
    arguments = how | choice
    if max_episode_steps is not None:
        arguments["max_episode_steps"] = max_episode_steps
    return replace(load_demonstrations(base, **arguments), reference=reference)


def _read_object(source: Any, select: Select, limit: int | None) -> list[Trajectory]:
    """Return the episodes of something in memory."""
    if isinstance(source, ReplayBuffer):
        return read_replay_buffer(source, select, limit)
    dataset = as_dataset(source)
    if dataset is not None:
        return read_dataset(dataset, select, limit)
    if isinstance(source, Mapping):
        try:
            return read_mapping(source, select, limit)
        except ValueError as error:
            raise ValueError(f"expert_data: {error}") from error
    if all(hasattr(source, name) for name in ("obs", "acts", "next_obs", "dones")):  # imitation's Transitions
        names = ("obs", "acts", "next_obs", "dones", "rews", "infos")
        return _read_object({name: getattr(source, name, None) for name in names}, select, limit)
    if all(hasattr(source, name) for name in ("obs", "acts", "terminal")) or isinstance(source, Trajectory):
        return read_trajectories([source], select, limit)
    if hasattr(source, "obs") and hasattr(source, "acts"):  # imitation's TransitionsMinimal
        raise TypeError(
            f"expert_data is {shorten(source)}, which lacks next_obs and dones: a Q-function needs whole transitions. Pass "
            "imitation's Transitions, or the trajectories they were made of"
        )
    if isinstance(source, BaseBuffer):
        raise TypeError(f"expert_data is {shorten(source)}, which lacks next observations. Pass a ReplayBuffer, not that")
    if hasattr(source, "batch_size") and hasattr(source, "__iter__"):  # torch's DataLoader
        raise TypeError(
            f"expert_data is {shorten(source)}, whose shuffled batches lack the order and the ends of episodes; expected what "
            "it was made of: trajectories or Transitions"
        )
    array_like = isinstance(source, (bytes, bytearray, np.ndarray)) or hasattr(source, "detach")
    if isinstance(source, type) or array_like or not (hasattr(source, "__len__") and hasattr(source, "__getitem__")):
        raise TypeError(f"expert_data is {shorten(source)}: expected {_EXPECTED}")
    return read_trajectories(source, select, limit)


def _resolve(reference: str, env_id: str | None) -> Path:
    """Return the path that a string stands for."""
    scheme, colon, name = reference.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", scheme):  # one letter is a drive of Windows
        return Path(reference)
    if scheme == "bundled":
        names = sorted(folder.name for folder in BUNDLED.iterdir() if folder.is_dir()) if BUNDLED.is_dir() else []
        if name not in names:
            raise ValueError(f"expert_data {shorten(reference)}: there is no such bundled set. Use one of {names}")
        return BUNDLED / name
    if scheme == "demos":
        root = os.environ.get(DEMOS_VARIABLE)
        if not root:
            raise ValueError(
                f"expert_data {shorten(reference)}: the environment variable {DEMOS_VARIABLE} is not set. Set it to the "
                f"folder that holds one data set folder for each environment. {_how_to_get(name or env_id)}"
            )
        if not name and env_id is None:
            raise ValueError(f"expert_data {shorten(reference)}: no environment id is known here. Use 'demos:NAME'")
        path = Path(root) / (name or str(env_id))
        if not path.exists():
            raise FileNotFoundError(
                f"expert_data {shorten(reference)}: {shorten(path)} does not exist. Check the name and {DEMOS_VARIABLE}. "
                f"{_how_to_get(name or env_id)}"
            )
        return path
    if scheme == "hf":
        return download_from_hub(name)
    if Path(reference).exists():
        return Path(reference)
    raise ValueError(
        f"expert_data {shorten(reference)}: unknown scheme {shorten(scheme)}. Use bundled:NAME, demos:NAME, "
        "minari:ID, hf:ORG/NAME or a path"
    )


def _how_to_get(name: str | None) -> str:
    """Return the ways to demonstrations, for who has none."""
    env_id = name or "ENV"
    return (
        f"To get demonstrations, record an agent of RL Zoo (python -m sb3_iq.record --algo ppo --env {env_id} -f logs/ "
        f'--n-episodes 25 --out "${DEMOS_VARIABLE}/{env_id}"), or use those of Minari (minari:ID) or of the Hugging Face hub '
        "(hf:ORG/NAME)"
    )


def _read_path(path: Path, select: Select, limit: int | None, allow_pickle: bool, max_bytes: float) -> list[Trajectory]:
    """Return the episodes of a folder or file."""
    if path.is_dir():
        files = [] if _holds_arrow(path) else parquet_files(path)
        return read_parquet(files, select, limit) if files else read_folder(path, select, limit, max_bytes)
    if not path.is_file():
        raise FileNotFoundError(f"expert_data {shorten(path)}: no such file or folder. Check the path, or use bundled:NAME")
    with reading(path, "a data file"), open(path, "rb") as file:
        start = file.read(4)
    if start[:2] == b"PK" or (path.suffix == ".npz" and zipfile.is_zipfile(path)):
        return read_npz(path, select, limit)
    if start == b"PAR1" or path.suffix == ".parquet":
        return read_parquet([path], select, limit)
    if is_pickle(path, start):
        if not allow_pickle:
            raise ValueError(
                f"expert_data {shorten(path)}: this is a pickle, which can run code and is not read. If you trust the file, "
                "use load_demonstrations(path, allow_pickle=True)"
            )
        content = unpickle(path)
        try:
            return read_legacy(content, select, limit) if is_legacy(content) else _read_object(content, select, limit)
        except (ValueError, TypeError) as error:
            raise ValueError(f"expert_data {shorten(path)}: {error}") from error
    cure = "Give the folder of a data set, a .parquet or an .npz file"
    if path.suffix in (".arrow", ".json"):
        cure = "Give the folder that holds this file"
    raise ValueError(f"expert_data {shorten(path)}: this file is not a data set, or is damaged. {cure}")


def _holds_arrow(folder: Path) -> bool:
    return (folder / "state.json").is_file() or (folder / "dataset_dict.json").is_file()


def _read_card(path: Path) -> dict[str, Any] | None:
    """Return the content of the ``card.json`` beside the data."""
    with reading(path, "a path"):  # a name that is too long or holds a null is an OSError or ValueError
        is_folder = path.is_dir()
    folders = [path] if is_folder else [path.parent]
    if is_folder and _holds_arrow(path):
        folders.insert(0, split_folder(path))
    cards = [folder / "card.json" for folder in folders if (folder / "card.json").is_file()]
    if not cards:
        return None
    with reading(cards[0], "JSON"):
        card = json.loads(cards[0].read_text(encoding="utf-8"))
    if not isinstance(card, dict):
        raise ValueError(f"expert_data {shorten(cards[0])}: the card is not a JSON object. Repair or remove it")
    return card


def _card_limit(path: Path, card: dict[str, Any] | None) -> int | None:
    """Return the time limit that a card names."""
    value = card.get("max_episode_steps") if card else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"expert_data {shorten(path)}: max_episode_steps is {shorten(value)} in card.json, expected a positive integer or "
            "null"
        )
    return value
