"""
Folders in the format of Hugging Face ``datasets``, which ``imitation.data.serialize`` writes: one row for each episode.

The Arrow files that ``state.json`` lists are opened as ``datasets.load_from_disk(folder).data`` does, but validated
before anything looks at an offset (a damaged one can crash the process), without cache files, and whatever version of
``datasets`` wrote the metadata. Lists become arrays by their offsets, never through Python objects: copies of what the
file holds, or, where that is much, views of the memory-mapped file.
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_iq.demonstrations.errors import reading, shorten
from sb3_iq.demonstrations.mapped import CHUNK_BYTES, OwnMemory, drop_pages, map_file, view_of
from sb3_iq.demonstrations.sources import Select
from sb3_iq.demonstrations.trajectory import Trajectory, make_trajectory

if TYPE_CHECKING:  # pyarrow is only imported when a folder is read
    import pyarrow as pa

COLUMNS = ("obs", "acts", "terminal", "rews", "infos")
_ARRAYS = ("obs", "acts", "rews")
_MAX_NESTING = 8
# Episodes that are read, if they are small, before the pages with their offsets and infos are dropped
_ROWS_AT_A_TIME = 16
# Written by every Arrow stream writer when it closes: a file cut between two messages would else look complete.
_END_OF_STREAM = b"\xff\xff\xff\xff\x00\x00\x00\x00"


def read_folder(folder: Path, select: Select, max_episode_steps: int | None, max_bytes: float) -> list[Trajectory]:
    """
    :param folder: a folder with a ``state.json``, or with a ``dataset_dict.json`` that names a single split
    :param select: from the number of episodes to the indices of those wanted
    :param max_episode_steps: the time limit, if known
    :param max_bytes: leave the arrays in the mapped files if those of the chosen episodes take more
    :return: the episodes, with the dtypes that are stored
    :raises ValueError: if the folder is not a data set of episodes, or is damaged
    """
    folder = split_folder(folder)
    batches = [batch for file in _arrow_files(folder) for batch in _read_batches(file)]
    rows = [(file, batch, row) for file, batch, _ in batches for row in range(len(batch["terminal"]))]
    if not rows:
        raise ValueError(f"expert_data {shorten(folder)}: the data set holds no episode")
    chosen = select(len(rows))
    mapped = sum(n_bytes for _, _, n_bytes in batches) > max_bytes
    if mapped and len(chosen) < len(rows):
        n_bytes = 0
        for file, batch, row in (rows[index] for index in chosen):
            n_bytes += _n_bytes({name: column.slice(row, 1) for name, column in batch.items()})
            drop_pages(file, whole_file=True)
        mapped = n_bytes > max_bytes
    copy = OwnMemory().copy  # so that the file is not held open
    trajectories = []
    for count, index in enumerate(chosen, start=1):
        file, batch, row = rows[index]
        keep = partial(view_of, file) if mapped else copy
        trajectories.append(read_row(folder, index, batch, row, max_episode_steps, keep))
        large = np.asarray(trajectories[-1].obs).nbytes > CHUNK_BYTES // _ROWS_AT_A_TIME
        if mapped and (large or count % _ROWS_AT_A_TIME == 0):
            drop_pages(file, whole_file=True)
    return trajectories


def split_folder(folder: Path) -> Path:
    """
    :param folder: a data set folder, or a folder of splits
    :return: the folder that holds ``state.json``
    :raises ValueError: if there is none, or there are several splits
    """
    if (folder / "state.json").is_file():
        return folder
    if not (folder / "dataset_dict.json").is_file():
        raise ValueError(
            f"expert_data {shorten(folder)}: not a data set (no state.json in this folder). Give the folder that "
            "imitation.data.serialize.save or datasets' save_to_disk wrote"
        )
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
        types = {field.name: str(field.type) for field in schema}  # decodes every name: a damaged one raises here
    check_schema(file, schema, types)
    with reading(file, "an Arrow stream"):
        for batch in reader:
            columns = valid_columns(batch)
            batches.append((content, columns, _n_bytes(columns)))
            drop_pages(content, whole_file=True)
    return batches


def valid_columns(batch: "pa.RecordBatch") -> dict[str, "pa.Array"]:
    """
    :param batch: rows of episodes
    :return: the columns that matter
    :raises pyarrow.ArrowInvalid: if lengths or offsets are damaged
    """
    batch.validate()  # columns of equal lengths
    columns = {name: batch.column(name) for name in COLUMNS if name in batch.schema.names}
    for column in columns.values():
        column.validate(full=True)
    return columns


def check_schema(file: object, schema: "pa.Schema", types: dict[str, str]) -> None:
    """
    :param file: what is read, for the message
    :param schema: its schema
    :param types: the type of each column as text
    :raises ValueError: if columns are missing, doubled or of a type that is not a list of numbers
    """
    import pyarrow as pa

    missing = [name for name in ("obs", "acts", "terminal") if name not in schema.names]
    if missing:
        raise ValueError(
            f"expert_data {shorten(file)}: the columns {missing} are missing (found {shorten(str(list(types)))}); expected "
            "one row for each episode with obs, acts and terminal"
        )
    for name in ("obs", "acts", "terminal", "rews"):
        if schema.names.count(name) > 1:
            raise ValueError(f"expert_data {shorten(file)}: there are several columns {name!r}")
    if not pa.types.is_boolean(schema.field("terminal").type):
        found = shorten(types["terminal"])
        raise ValueError(f"expert_data {shorten(file)}: the column 'terminal' is {found}, expected one bool for each episode")
    for name in _ARRAYS:
        if name in schema.names:
            inner = schema.field(name).type
            depth = 0
            while _is_list(inner) or isinstance(inner, pa.ExtensionType):
                depth += _is_list(inner)
                inner = inner.storage_type if isinstance(inner, pa.ExtensionType) else inner.value_type
            kinds = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_null)
            nested = 0 < depth <= _MAX_NESTING or pa.types.is_null(inner)  # a column of nulls only has no lists
            if not nested or not any(is_kind(inner) for is_kind in kinds):
                found = shorten(types[name])
                raise ValueError(f"expert_data {shorten(file)}: the column {name!r} is {found}, expected lists of numbers")


def _is_list(arrow_type: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type) or pa.types.is_fixed_size_list(arrow_type)


def _n_bytes(columns: dict[str, "pa.Array"]) -> int:
    """Return the size that the numbers will have in memory."""
    import pyarrow as pa

    total = 0
    for name in _ARRAYS:
        values = columns.get(name)
        while values is not None and (isinstance(values, pa.ExtensionArray) or _is_list(values.type)):
            values = values.storage if isinstance(values, pa.ExtensionArray) else values.flatten()
        if values is not None and not pa.types.is_null(values.type):
            total += len(values) * max(1, values.type.bit_width // 8)  # a bit becomes a byte
    return total


def read_row(
    folder: object,
    index: int,
    batch: dict[str, "pa.Array"],
    row: int,
    limit: int | None,
    keep: Callable[[np.ndarray], np.ndarray],
) -> Trajectory:
    """
    :param folder: what is read, for messages
    :param index: the number of the episode, for messages
    :param batch: columns that were validated
    :param row: the row of the episode in the batch
    :param limit: the time limit, if known
    :param keep: what makes an array to keep of one that shares the batch's memory
    :return: the episode
    :raises ValueError: if the episode is malformed
    """
    with reading(folder, f"an Arrow data set (episode {index})"):
        terminal = batch["terminal"][row].as_py()
        cells = {name: _list_values(batch[name], row) for name in _ARRAYS if name in batch}
        info = _last_info(batch["infos"], row) if "infos" in batch else None
    try:
        if terminal is None:
            raise ValueError("terminal is null")
        arrays = {name: None if cell is None else keep(_to_numpy(name, cell)) for name, cell in cells.items()}
        for name in ("obs", "acts"):
            if arrays[name] is None:
                raise ValueError(f"{name} is null")
        return make_trajectory(arrays["obs"], arrays["acts"], arrays.get("rews"), terminal, info, limit)
    except ValueError as error:
        raise ValueError(f"expert_data {shorten(folder)}, episode {index}: {error}") from error


def _list_values(column: "pa.Array", row: int) -> "pa.Array | None":
    """Return the elements of one row of a list column, or None for a null."""
    import pyarrow as pa

    column = column.slice(row, 1)
    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    return None if column.null_count else column.flatten()


def _to_numpy(name: str, array: "pa.Array") -> np.ndarray:
    """Return nested lists of equal lengths as an array of the dtype that is stored, if possible without a copy."""
    import pyarrow as pa

    shape = [len(array)]
    while True:
        if isinstance(array, pa.ExtensionArray):
            array = array.storage
            continue
        if array.null_count:
            raise ValueError(f"{name} holds nulls: expected numbers only")
        if not _is_list(array.type):
            break  # numbers, or the null type of lists that are all empty
        if pa.types.is_fixed_size_list(array.type):
            shape.append(array.type.list_size)
        else:
            lengths = np.diff(array.offsets.to_numpy())
            if len(lengths) and (lengths != lengths[0]).any():
                raise ValueError(f"{name} is ragged: lists of {lengths.min()} to {lengths.max()} numbers, expected one shape")
            shape.append(int(lengths[0]) if len(lengths) else 0)
        array = array.flatten()
    numbers = np.zeros(0) if pa.types.is_null(array.type) else array.to_numpy(zero_copy_only=False)
    return numbers.reshape(shape)


def _last_info(column: "pa.Array", row: int) -> str | dict[str, Any] | None:
    """Return the info of the last step if it is plain text or a plain structure. It is not decoded here."""
    import pyarrow as pa

    if not _is_list(column.type):
        return None
    values = _list_values(column, row)
    kind = column.type.value_type
    if values is None or not len(values) or not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        return None
    return values[-1].as_py()
