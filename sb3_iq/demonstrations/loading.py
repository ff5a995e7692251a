"""From anything that holds expert data to :class:`Demonstrations`."""

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.buffers import BaseBuffer

from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import check_integer, check_number, reading, shorten
from sb3_iq.demonstrations.reference import resolve, split_reference
from sb3_iq.demonstrations.sources import (
    Loaded,
    Request,
    Source,
    arrow,
    dataset,
    hdf5,
    legacy,
    memory,
    minari,
    npz,
    parquet,
    replay,
)

SOURCES = (
    Source(arrow.is_arrow_folder, arrow.read_folder),
    Source(parquet.is_parquet, parquet.read_parquet),
    Source(npz.is_npz, npz.read_npz),
    Source(hdf5.is_hdf5, hdf5.read_hdf5),
    Source(replay.is_replay_buffer, replay.read_replay_buffer),
    Source(dataset.is_dataset, dataset.read_dataset),
    Source(minari.is_minari, minari.read_minari),
    Source(legacy.is_legacy, legacy.read_legacy),
    Source(memory.is_mapping, memory.read_mapping),
    Source(memory.is_transitions, memory.read_transitions),
    Source(memory.is_trajectory, memory.read_trajectory),
    Source(memory.is_sequence, memory.read_trajectories),
)
"""Every kind of expert data: the first that recognises a source reads it. What names stand for is in ``reference.py``."""

_EXPECTED = (
    "a path, 'bundled:NAME', 'demos:NAME', 'minari:ID', 'hf:ORG/NAME', a sequence of trajectories with obs, acts and "
    "terminal (as imitation's), a dictionary of arrays, an SB3 ReplayBuffer, a datasets.Dataset, a MinariDataset, or what "
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
        imitation's ``.npz`` or one that holds the arrays of flat transitions (also SB2's and baselines'); D4RL's or
        robomimic's ``.hdf5``; ``"bundled:NAME"`` for a set inside this
        package (e.g. ``"bundled:CartPole-v1"``); ``"demos:NAME"`` for the folder ``NAME`` in the folder that the variable
        ``SB3_IQ_DEMOS`` names; ``"minari:ID"`` and ``"hf:ORG/NAME"`` for a data set of Minari or of the Hugging Face hub,
        which are downloaded once; a sequence of trajectories (imitation's ``Trajectory`` or ``TrajectoryWithRew``, or
        alike, also its lazy one from a file); imitation's ``Transitions``; a ``datasets.Dataset`` of episodes; a
        ``MinariDataset``; a dictionary of arrays (flat transitions, one episode, or columns of episodes); SB3's
        ``ReplayBuffer`` or ``DictReplayBuffer``; or :class:`Demonstrations`. A string may end with a choice of its own,
        ``"demos:Hopper-v5?n_trajectories=1&seed=0"``, of ``n_trajectories``, ``subsample_freq``, ``seed`` and
        ``max_episode_steps``; arguments then choose among what it chose
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
    :raises PermissionError: if a file may not be read by this user
    :raises MemoryError: if the data needs more memory than there is
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
    reference = str(source) if isinstance(source, (str, Path)) else None
    found = resolve(source, env_id) if isinstance(source, str) else source
    card = None
    request = Request(select, max_episode_steps, max_bytes)
    if isinstance(found, Path):
        card = _read_card(found)
        if max_episode_steps is None:
            request = replace(request, max_episode_steps=_card_number(found, card, "max_episode_steps"))
        loaded = _read_path(found, request, allow_pickle)
    else:
        loaded = _read(found, request)
    if reference is not None:
        _warn_of_memory(reference, loaded, max_memory_gb)
    subsample_freq *= _card_number(found, card, "subsample_freq") or 1
    limit = loaded.max_episode_steps if request.max_episode_steps is None else request.max_episode_steps
    return Demonstrations(
        tuple(loaded.trajectories), subsample_freq, reference, card, limit, loaded.observation_space, loaded.action_space
    )


def _with_choice(reference: str, max_episode_steps: int | None, **how: Any) -> str | Demonstrations:
    """Return what was chosen by the reference itself, if it holds a choice."""
    base, choice = split_reference(reference)
    if not choice:
        return reference
    arguments = how | choice
    if max_episode_steps is not None:
        arguments["max_episode_steps"] = max_episode_steps
    return replace(load_demonstrations(base, **arguments), reference=reference)


def _read_path(path: Path, request: Request, allow_pickle: bool) -> Loaded:
    """Return the episodes of a folder or file."""
    if not path.exists():
        names = "bundled:NAME, demos:NAME, minari:ID or hf:ORG/NAME"
        raise FileNotFoundError(f"expert_data {shorten(path)}: no such file or folder. Check the path, or use {names}")
    with reading(path, "a data file"):
        pickled = legacy.is_pickle(path)
    if not pickled:
        return _read(path, request)
    if not allow_pickle:
        raise ValueError(
            f"expert_data {shorten(path)}: this is a pickle, which can run code and is not read. If you trust the file, "
            "use load_demonstrations(path, allow_pickle=True)"
        )
    content = legacy.unpickle(path)
    try:
        return _read(content, request)
    except (ValueError, TypeError) as error:
        raise ValueError(f"expert_data {shorten(path)}: {error}") from error


def _read(source: Any, request: Request) -> Loaded:
    """Return the episodes of a path or an object."""
    for kind in SOURCES:
        if kind.recognises(source):
            return kind.read(source, request)
    raise _refusal(source)


def _refusal(source: Any) -> Exception:
    """Return why a source can't be used, for who expected that it can."""
    if isinstance(source, Path):
        if source.is_dir():
            return ValueError(
                f"expert_data {shorten(source)}: not a data set (no state.json and no Parquet file in this folder). Give the "
                "folder that imitation.data.serialize.save or datasets' save_to_disk wrote"
            )
        return _refusal_of_file(source)
    if isinstance(source, type):
        return TypeError(f"expert_data is {shorten(source)}: expected {_EXPECTED}")
    if hasattr(source, "obs") and hasattr(source, "acts"):  # imitation's TransitionsMinimal
        return TypeError(
            f"expert_data is {shorten(source)}, which lacks next_obs and dones: a Q-function needs whole transitions. Pass "
            "imitation's Transitions, or the trajectories they were made of"
        )
    if isinstance(source, BaseBuffer):
        return TypeError(f"expert_data is {shorten(source)}, which lacks next observations. Pass a ReplayBuffer, not that")
    if hasattr(source, "batch_size") and hasattr(source, "__iter__"):  # torch's DataLoader
        return TypeError(
            f"expert_data is {shorten(source)}, whose shuffled batches lack the order and the ends of episodes; expected what "
            "it was made of: trajectories or Transitions"
        )
    if isinstance(source, Iterator):
        return TypeError(
            f"expert_data is {shorten(source)}, which can be read only once, in one direction; expected a sequence. Give "
            "list(expert_data) if it yields trajectories"
        )
    return TypeError(f"expert_data is {shorten(source)}: expected {_EXPECTED}")


def _refusal_of_file(path: Path) -> ValueError:
    """Return why a file can't be used, with a cure that works for it."""
    if any((path.parent / name).is_file() for name in ("state.json", "dataset_dict.json")):
        cure = "this is a part of a data set. Give the folder that holds this file"
    elif path.suffix == ".json":
        cure = (
            "JSON files are not read, as their layouts differ. Read it by json.load, and pass a list with a dictionary of obs "
            "and acts for each episode"
        )
    elif path.suffix in (".csv", ".pt", ".pth"):
        cure = f"{path.suffix} files are not read. Pass a dictionary of its arrays: obs, acts, next_obs and dones"
    else:
        cure = "this file is not a data set, or is damaged. Give the folder of a data set, a .parquet, .npz or .hdf5 file"
    return ValueError(f"expert_data {shorten(path)}: {cure}")


def _warn_of_memory(reference: str, loaded: Loaded, max_memory_gb: float) -> None:
    """Tell of data in a format that can't be mapped, where it is much."""
    n_gb = sum(trajectory.nbytes for trajectory in loaded.trajectories) / 1e9
    if n_gb > max_memory_gb:
        warnings.warn(
            f"Expert data {shorten(reference)}: {n_gb:.3g} GB are read into memory, more than "
            f"max_memory_gb={max_memory_gb:g}: only the numbers in a folder of uncompressed Arrow files can be "
            "memory-mapped. datasets.load_dataset(...).save_to_disk(folder) writes one.",
            stacklevel=3,
        )


def _read_card(path: Path) -> dict[str, Any] | None:
    """Return the content of the ``card.json`` beside the data."""
    with reading(path, "a path"):  # a name that is too long or holds a null is an OSError or ValueError
        is_folder = path.is_dir()
    cards = [path / "card.json"] if is_folder else [path.with_suffix(".card.json"), path.parent / "card.json"]
    if arrow.is_arrow_folder(path):
        cards.insert(0, arrow.split_folder(path) / "card.json")
    cards = [card for card in cards if card.is_file()]
    if not cards:
        return None
    with reading(cards[0], "JSON"):
        card = json.loads(cards[0].read_text(encoding="utf-8"))
    if not isinstance(card, dict):
        raise ValueError(f"expert_data {shorten(cards[0])}: the card is not a JSON object. Repair or remove it")
    return card


def _card_number(path: Any, card: dict[str, Any] | None, name: str) -> int | None:
    """Return a positive integer of a card, e.g. the time limit, if it is there."""
    value = card.get(name) if card else None
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(
            f"expert_data {shorten(path)}: {name} is {shorten(value)} in card.json, expected a positive integer or null"
        )
    return value
