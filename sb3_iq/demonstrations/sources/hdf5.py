"""``.hdf5`` files: D4RL's arrays of transitions, and robomimic's groups of demonstrations."""

from pathlib import Path
from typing import Any

from sb3_iq.demonstrations.errors import cut, reading, shorten
from sb3_iq.demonstrations.sources import Loaded, Request
from sb3_iq.demonstrations.sources.memory import NAMES, read_mapping, read_trajectories

_SIGNATURE = b"\x89HDF\r\n\x1a\n"
_NAMES = {alias for name, aliases in NAMES.items() if name != "infos" for alias in aliases}


def is_hdf5(source: object) -> bool:
    """
    :param source: a path, or anything else
    :return: whether it is an HDF5 file
    """
    if not isinstance(source, Path) or source.is_dir():
        return False
    with open(source, "rb") as file:
        return file.read(8) == _SIGNATURE or source.suffix in (".hdf5", ".h5")


def read_hdf5(path: Path, request: Request) -> Loaded:
    """
    :param path: a file with the arrays of transitions, or with a group ``data`` that holds a group for each demonstration
    :param request: what is wanted of it
    :return: the episodes
    :raises ImportError: if ``h5py`` is not installed
    :raises ValueError: if the file is damaged, or holds neither
    """
    try:
        import h5py
    except ImportError as error:
        raise ImportError(
            f"expert_data {shorten(path)}: h5py, which reads .hdf5 files, can't be imported ({error}). pip install h5py"
        ) from error
    with reading(path, "an HDF5 file"), h5py.File(path, "r") as file:
        keys = list(file)
        group: Any = file["data"] if isinstance(file.get("data"), h5py.Group) else {}
        demos = sorted((name for name in group if isinstance(group[name], h5py.Group)), key=_number)
        chosen = request.select(len(demos)) if demos else []
        content: Any = [_arrays(group[demos[index]]) for index in chosen] if demos else _arrays(file)
    try:
        if not demos:
            return read_mapping(content, request)
        return read_trajectories(content, Request(range, request.max_episode_steps))
    except (ValueError, TypeError) as error:
        raise ValueError(f"expert_data {shorten(path)} with the keys {cut(keys)}: {error}") from error


def _number(name: str) -> tuple[int, str]:
    """Sort demo_2 before demo_10."""
    digits = "".join(character for character in name if character.isdecimal())
    return int(digits or 0), name


def _arrays(group: Any) -> dict[str, Any]:
    """Return the arrays of a group that are read, observations in groups as dictionaries."""
    found = {}
    for name in _NAMES.intersection(group):
        part = group[name]
        found[name] = {key: part[key][()] for key in part} if hasattr(part, "keys") else part[()]
    return found
