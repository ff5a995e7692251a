"""
Rows of Arrow tables, one for each episode: imitation's columns, or those of ``saving.py`` for Dict observations.

Lists become arrays by their offsets, never through Python objects, after a check of every offset (a damaged one can crash
the process).
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_iq.demonstrations.endings import FLAGS, STARTS_AT_RESET, flag_of_info
from sb3_iq.demonstrations.errors import cut, reading, shorten
from sb3_iq.demonstrations.saving import OBS_PREFIX
from sb3_iq.demonstrations.trajectory import Trajectory, make_trajectory

if TYPE_CHECKING:  # pyarrow is only imported when a table is read
    import pyarrow as pa

_MAX_NESTING = 8
ENDS = ("terminal", "terminated", "truncated")


def columns_of_episodes(names: list[str]) -> list[str]:
    """
    :param names: names of columns
    :return: those that are read: one column of observations, or one for each key
    """
    obs = ["obs"] if "obs" in names else [name for name in names if name.startswith(OBS_PREFIX) and name != OBS_PREFIX]
    return [name for name in names if name in (*ENDS, "acts", "rews", "infos", *obs)]


def _is_array(name: str) -> bool:
    return name not in (*ENDS, "infos")


def n_rows(columns: Mapping[str, Any]) -> int:
    """
    :param columns: columns that were validated
    :return: the number of episodes
    """
    return len(columns[next(name for name in ENDS if name in columns)])


def check_schema(file: object, schema: "pa.Schema") -> None:
    """
    :param file: what is read, for the message
    :param schema: its schema
    :raises ValueError: if columns are missing, doubled or of a type that is not a list of numbers
    """
    import pyarrow as pa

    with reading(file, "an Arrow table"):  # decodes every name: a damaged one raises here
        types = {field.name: str(field.type) for field in schema}
    read = columns_of_episodes(list(types))
    ends = "terminated" if "terminated" in read else "terminal"
    missing = [name for name in ("obs", ends) if not any(column.split(".")[0] == name for column in read)]
    if missing:
        raise ValueError(
            f"expert_data {shorten(file)}: the columns {missing} are missing (found {cut(list(types))}); expected "
            "one row for each episode with obs (or obs.KEY for each key of Dict observations), terminal (or terminated and "
            "truncated) and, if they were recorded, acts"
        )
    for name in read:
        if schema.names.count(name) > 1:
            raise ValueError(f"expert_data {shorten(file)}: there are several columns {name!r}")
    for name in [name for name in read if name in ENDS]:
        kind = schema.field(name).type
        # Flags that tell the two ends apart may be there for each step
        if not pa.types.is_boolean(kind.value_type if name != "terminal" and _is_list(kind) else kind):
            found = shorten(types[name])
            raise ValueError(
                f"expert_data {shorten(file)}: the column {name!r} is {found}, expected one bool for each episode"
            )
    for name in filter(_is_array, read):
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


def valid_columns(batch: "pa.RecordBatch") -> dict[str, "pa.Array"]:
    """
    :param batch: rows of episodes
    :return: the columns that are read
    :raises pyarrow.ArrowInvalid: if lengths or offsets are damaged
    """
    batch.validate()  # columns of equal lengths
    columns = {name: batch.column(name) for name in columns_of_episodes(batch.schema.names)}
    for column in columns.values():
        column.validate(full=True)
    return columns


def n_bytes(columns: dict[str, "pa.Array"]) -> int:
    """
    :param columns: columns that were validated
    :return: the size that their numbers will have in memory
    """
    import pyarrow as pa

    total = 0
    for values in [column for name, column in columns.items() if _is_array(name)]:
        while isinstance(values, pa.ExtensionArray) or _is_list(values.type):
            values = values.storage if isinstance(values, pa.ExtensionArray) else values.flatten()
        if not pa.types.is_null(values.type):
            total += len(values) * max(1, values.type.bit_width // 8)  # a bit becomes a byte
    return total


def read_row(
    source: object,
    index: int,
    columns: dict[str, "pa.Array"],
    row: int,
    limit: int | None,
    keep: Callable[[np.ndarray], np.ndarray] = np.array,
) -> Trajectory:
    """
    :param source: what is read, for messages
    :param index: the number of the episode, for messages
    :param columns: columns that were validated
    :param row: the row of the episode in them
    :param limit: the time limit, if known
    :param keep: what makes an array to keep of one that shares the columns' memory: a copy, unless something else is wanted
    :return: the episode
    :raises ValueError: if the episode is malformed
    """
    with reading(source, f"an Arrow data set (episode {index})"):
        ends = {name: columns[name][row].as_py() for name in ENDS if name in columns}
        cells = {name: _list_values(column, row) for name, column in columns.items() if _is_array(name)}
        first_info, last_info = _first_and_last_info(columns["infos"], row) if "infos" in columns else (None, None)
    try:
        ends = {name: flag[-1] if isinstance(flag, list) and flag else flag for name, flag in ends.items()}
        for name, flag in ends.items():
            if not isinstance(flag, bool):
                raise ValueError(f"{name} is {'null' if flag is None else 'empty'}")
        arrays = {name: None if cell is None else keep(_to_numpy(name, cell)) for name, cell in cells.items()}
        for name, array in arrays.items():
            if array is None and name not in ("rews", "acts"):
                raise ValueError(f"{name} is null")
        parts = {name.removeprefix(OBS_PREFIX): array for name, array in arrays.items() if name.startswith(OBS_PREFIX)}
        at_reset = flag_of_info(STARTS_AT_RESET, first_info) is not False
        obs = arrays.get("obs", parts)
        acts, rews = arrays.get("acts"), arrays.get("rews")
        if "terminated" in ends or "truncated" in ends:
            truncated = ends.get("truncated", False)
            terminated = ends.get("terminated", ends.get("terminal", False) and not truncated)
            return Trajectory(obs, acts, rews, terminated, truncated and not terminated, at_reset)  # type: ignore[arg-type]
        return make_trajectory(obs, acts, rews, ends["terminal"], last_info, limit, at_reset)
    except ValueError as error:
        raise ValueError(f"expert_data {shorten(source)}, episode {index}: {error}") from error


def _is_list(arrow_type: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_list(arrow_type) or pa.types.is_large_list(arrow_type) or pa.types.is_fixed_size_list(arrow_type)


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


def _first_and_last_info(column: "pa.Array", row: int) -> tuple[object, object]:
    """Return two infos of an episode: plain text, which is not decoded here, or the flags of structures."""
    import pyarrow as pa

    while isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_struct(column.type):  # a column for each key
        fields = {field.name: column.field(field.name) for field in column.type if field.name in FLAGS}
        cells = {name: _list_values(field, row) for name, field in fields.items() if _is_list(field.type)}
        known = {name: cell for name, cell in cells.items() if cell is not None and len(cell)}
        first, last = ({name: cell[i].as_py() for name, cell in known.items()} for i in (0, -1))
        return first, last
    if not _is_list(column.type):
        return None, None
    values = _list_values(column, row)
    while isinstance(values, pa.ExtensionArray):
        values = values.storage
    if values is None or not len(values):
        return None, None
    if pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return values[0].as_py(), values[-1].as_py()
    if not pa.types.is_struct(values.type):
        return None, None
    fields = {field.name: values.field(field.name) for field in values.type if field.name in FLAGS}
    first, last = ({name: field[i].as_py() for name, field in fields.items()} for i in (0, len(values) - 1))
    return first, last
