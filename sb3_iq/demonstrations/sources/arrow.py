"""
Folders in the format of Hugging Face ``datasets``, which ``imitation.data.serialize`` writes: one row for each episode.

The Arrow files that ``state.json`` lists are opened as ``datasets.load_from_disk(folder).data`` does, but without cache
files, and whatever version of ``datasets`` wrote the metadata. What is kept of them is a copy, or, where that is much, a view
of the memory-mapped file.
"""

import json
import mmap
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_iq.demonstrations.errors import reading, shorten
from sb3_iq.demonstrations.sources import Loaded, Request
from sb3_iq.demonstrations.sources.rows import check_schema, n_bytes, n_rows, read_row, valid_columns
from sb3_iq.demonstrations.storage import CHUNK_BYTES, map_file, view_of

if TYPE_CHECKING:  # pyarrow is only imported when a folder is read
    import pyarrow as pa

# Written by every Arrow stream writer when it closes: a file cut between two messages would else look complete
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def is_arrow_folder(source: object) -> bool:
    """
    :param source: a path, or anything else
    :return: whether it is a folder that ``datasets`` wrote
    """
    return isinstance(source, Path) and any((source / name).is_file() for name in ("state.json", "dataset_dict.json"))


def read_folder(folder: Path, request: Request) -> Loaded:
    """
    :param folder: a folder with a ``state.json``, or with a ``dataset_dict.json`` that names a single split
    :param request: what is wanted of it
    :return: the episodes, with the dtypes that are stored
    :raises ValueError: if the folder is not a data set of episodes, or is damaged
    """
    folder = split_folder(folder)
    batches = [batch for file in _arrow_files(folder) for batch in _read_batches(file)]
    rows = [(content, columns, row) for content, columns, _ in batches for row in range(n_rows(columns))]
    if not rows:
        raise ValueError(f"expert_data {shorten(folder)}: the data set holds no episode")
    chosen = request.select(len(rows))
    mapped = sum(size for _, _, size in batches) > request.max_bytes
    if mapped and len(chosen) < len(rows):
        size = 0
        for content, columns, row in (rows[index] for index in chosen):
            size += n_bytes({name: column.slice(row, 1) for name, column in columns.items()})
            _drop_pages(content)
        mapped = size > request.max_bytes
    trajectories = []
    touched = 0
    for index in chosen:
        content, columns, row = rows[index]
        keep = partial(view_of, content) if mapped else np.array
        trajectories.append(read_row(folder, index, columns, row, request.max_episode_steps, keep))
        if mapped:
            touched += n_bytes({name: column.slice(row, 1) for name, column in columns.items()})
            if touched > CHUNK_BYTES:
                _drop_pages(content)
                touched = 0
    if mapped:
        for content, _, _ in batches:
            _drop_pages(content)
    return Loaded(trajectories)


def split_folder(folder: Path) -> Path:
    """
    :param folder: a data set folder, or a folder of splits
    :return: the folder that holds ``state.json``
    :raises ValueError: if there are several splits, or the one has no data
    """
    if (folder / "state.json").is_file():
        return folder
    content = _read_json(folder / "dataset_dict.json")
    splits = content.get("splits") if isinstance(content, dict) else None
    if not isinstance(splits, list) or not splits or not all(isinstance(split, str) for split in splits):
        raise ValueError(f"expert_data {shorten(folder)}: dataset_dict.json names no split")
    if len(splits) > 1:
        raise ValueError(f"expert_data {shorten(folder)}: there are the splits {splits}; give the folder of one of them")
    if not (_inside(folder, splits[0]) / "state.json").is_file():
        raise ValueError(f"expert_data {shorten(folder)}: the folder of the split {shorten(splits[0])} is not a data set")
    return folder / splits[0]


def _arrow_files(folder: Path) -> list[Path]:
    """Return the Arrow files that ``state.json`` lists."""
    state = _read_json(folder / "state.json")
    entries = state.get("_data_files") if isinstance(state, dict) else None
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"expert_data {shorten(folder)}: state.json lists no data files")
    return [_inside(folder, entry.get("filename")) for entry in entries]


def _read_json(path: Path) -> Any:
    with reading(path, "JSON"):
        return json.loads(path.read_text(encoding="utf-8"))


def _inside(folder: Path, name: Any) -> Path:
    """Return ``folder / name``, provided that it lies in the folder: data must not point at other files."""
    if not isinstance(name, str) or not name or "\0" in name or Path(name).name != name:
        raise ValueError(
            f"expert_data {shorten(folder)}: the file name {shorten(name)} in its JSON does not lie in the folder"
        )
    return folder / name


def _read_batches(file: Path) -> list[tuple[np.memmap, dict[str, "pa.Array"], int]]:
    """Return, for each record batch of an Arrow stream: the mapped file, validated columns and their size in memory."""
    import pyarrow as pa

    batches = []
    with reading(file, "an Arrow stream"):
        content = map_file(file)
        if content[-len(_END_OF_STREAM) :].tobytes() != _END_OF_STREAM:
            raise ValueError("the end of the stream is missing")
        reader = pa.ipc.open_stream(pa.py_buffer(content))
        schema = reader.schema
    check_schema(file, schema)
    with reading(file, "an Arrow stream"):
        for batch in reader:
            columns = valid_columns(batch)
            batches.append((content, columns, n_bytes(columns)))
            _drop_pages(content)
    return batches


def _drop_pages(content: np.memmap) -> None:
    """
    Take the pages of a mapped file that were touched from the memory of the process, where the system can. Without that the
    offsets and infos of 1 GB of small vectors stay resident: 181 MB beyond the imports instead of 34.
    """
    if hasattr(mmap, "MADV_DONTNEED"):
        content._mmap.madvise(mmap.MADV_DONTNEED)  # type: ignore[attr-defined]
