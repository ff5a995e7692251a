"""
``.npz`` files: imitation's legacy format, or a dictionary of arrays.

The members are read one by one and without pickle: ``infos``, which imitation pickles, is never touched. A header is
checked against the size of its member before memory is allocated.
"""

import io
import itertools
import math
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from sb3_iq.demonstrations.errors import cut, reading, shorten
from sb3_iq.demonstrations.sources import Loaded, Request, Select
from sb3_iq.demonstrations.sources.memory import NAMES, read_arrays
from sb3_iq.demonstrations.trajectory import Trajectory, make_trajectory

_WANTED = {alias for name, aliases in NAMES.items() if name != "infos" for alias in aliases} | {"indices"}
_MAX_DEFLATE_RATIO = 1100  # deflate can't shrink by more than 1032; a claim beyond is a bomb or damage


def is_npz(source: object) -> bool:
    """
    :param source: a path, or anything else
    :return: whether it is an ``.npz`` file, or one that ``np.load`` opened
    """
    if isinstance(source, np.lib.npyio.NpzFile):
        return True
    if not isinstance(source, Path) or source.is_dir():
        return False
    with open(source, "rb") as file:
        return file.read(2) == b"PK" or (source.suffix == ".npz" and zipfile.is_zipfile(source))


def read_npz(path: Any, request: Request) -> Loaded:
    """
    :param path: an ``.npz`` file, also one that ``np.load`` opened
    :param request: what is wanted of it
    :return: the episodes
    :raises ValueError: if the file holds no episodes, or is damaged
    """
    if isinstance(path, np.lib.npyio.NpzFile):
        with reading(path, "an .npz file"):
            arrays = {name: path[name] for name in path.files if name in _WANTED}
    else:
        arrays = _read_members(path)
    read = _read_legacy if "indices" in arrays else read_arrays
    try:
        return Loaded(read(arrays, request.select, request.max_episode_steps))
    except (ValueError, TypeError) as error:
        raise ValueError(f"expert_data {shorten(path)}: {error}") from error


def _read_members(path: Path) -> dict[str, np.ndarray]:
    """Return the arrays that matter; ``infos`` is not among them."""
    arrays: dict[str, np.ndarray] = {}
    with reading(path, "an .npz file"), zipfile.ZipFile(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name not in _WANTED:
                continue
            if name in arrays:
                raise ValueError(f"there are two arrays {name!r}")
            if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{name!r} is compressed in a way that numpy does not write")
            if member.file_size > _MAX_DEFLATE_RATIO * member.compress_size or member.compress_size > path.stat().st_size:
                raise ValueError(f"{name!r} claims {member.file_size} bytes in {member.compress_size}")
            arrays[name] = _decode_array(name, archive.read(member))
        names = archive.namelist()
    if not arrays:
        raise ValueError(f"expert_data {shorten(path)}: no arrays obs and acts in this file, only {cut(names)}")
    return arrays


def _decode_array(name: str, data: bytes) -> np.ndarray:
    """Return an array from the content of an ``.npy`` file."""
    stream = io.BytesIO(data)
    version = np.lib.format.read_magic(stream)
    read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read_header is None:
        raise ValueError(f"{name!r} has an unknown version of numpy's format")
    shape, fortran_order, dtype = read_header(stream)
    if dtype.kind not in "biuf":
        raise ValueError(f"{name!r} has dtype {shorten(str(dtype))}, expected numbers: pickled objects are never read")
    offset = stream.tell()
    if any(n < 0 for n in shape) or math.prod(shape) * dtype.itemsize != len(data) - offset:
        raise ValueError(f"{name!r} has shape {cut(shape)} and {len(data) - offset} bytes of data")
    array = np.frombuffer(data, dtype=dtype, offset=offset)
    return array.reshape(shape, order="F" if fortran_order else "C")


def _read_legacy(arrays: dict[str, Any], select: Select, limit: int | None) -> list[Trajectory]:
    """Return the episodes of imitation's legacy format: all episodes one after the other, and where to split them."""
    missing = [name for name in ("obs", "acts", "terminal") if name not in arrays]
    if missing:
        raise ValueError(f"the arrays {missing} are missing; found {sorted(arrays)}")
    obs, acts, terminal, rews = arrays["obs"], arrays["acts"], arrays["terminal"], arrays.get("rews")
    indices = arrays["indices"].astype(np.int64) if arrays["indices"].size == 0 else arrays["indices"]
    for name, array in (("obs", obs), ("acts", acts), ("rews", rews)):
        if array is not None and array.ndim == 0:
            raise ValueError(f"{name} is a single number")
    if indices.ndim != 1 or indices.dtype.kind not in "iu" or terminal.dtype.kind != "b":
        raise ValueError("indices must be a list of integers and terminal one bool for each episode")
    # Zero-step episodes fall out of these bounds in Trajectory, with a message of their own.
    bounds = [0, *indices.tolist(), len(acts)]
    n_episodes = len(bounds) - 1
    if any(start > end for start, end in itertools.pairwise(bounds)) or terminal.shape != (n_episodes,):
        raise ValueError(f"indices and terminal (shape {terminal.shape}) do not split {len(acts)} actions into episodes")
    if len(obs) != len(acts) + n_episodes or (rews is not None and len(rews) != len(acts)):
        raise ValueError(
            f"obs and acts have different lengths: {len(obs)} observations and {len(acts)} actions in {n_episodes} episodes; "
            "expected one more observation than actions in each, and as many rewards as actions"
        )
    trajectories = []
    for index in select(n_episodes):
        start, end = bounds[index], bounds[index + 1]
        try:
            trajectories.append(
                make_trajectory(
                    obs[start + index : end + index + 1],
                    acts[start:end],
                    None if rews is None else rews[start:end],
                    bool(terminal[index]),
                    max_episode_steps=limit,
                )
            )
        except ValueError as error:
            raise ValueError(f"episode {index}: {error}") from error
    return trajectories
