"""Parquet files, or a folder of them: one row for each episode."""

import re
from collections import defaultdict
from pathlib import Path

from sb3_iq.demonstrations.errors import cut, reading, shorten
from sb3_iq.demonstrations.sources import Loaded, Request
from sb3_iq.demonstrations.sources.rows import ENDS, check_schema, columns_of_episodes, read_row, valid_columns
from sb3_iq.demonstrations.trajectory import Trajectory

_ROWS_AT_A_TIME = 16  # episodes that are decoded together
_SHARD = re.compile(r"(-\d+-of-\d+|/\d+)$")  # data/train-00000-of-00002, default/train/0000


def is_parquet(source: object) -> bool:
    """
    :param source: a path, or anything else
    :return: whether it is a Parquet file, or a folder that holds some
    """
    if not isinstance(source, Path):
        return False
    if source.is_dir():
        return next(source.rglob("*.parquet"), None) is not None
    with open(source, "rb") as file:
        return file.read(4) == b"PAR1" or source.suffix == ".parquet"


def read_parquet(path: Path, request: Request) -> Loaded:
    """
    :param path: a Parquet file, or a folder of them
    :param request: what is wanted of it
    :return: the episodes, with the dtypes that are stored
    :raises ValueError: if a file is damaged, or its rows are not episodes
    """
    import pyarrow.parquet as pq

    if path.is_dir() and (path / "meta" / "info.json").is_file():
        raise ValueError(
            f"expert_data {shorten(path)}: this is a LeRobot data set, with one row for each frame, images in videos, and no "
            "observation after the last action. Pass a list with dict(obs=states, acts=actions[:-1], terminal=False) for each "
            "episode, from its columns observation.state and action"
        )
    files = _files(path) if path.is_dir() else [path]
    lengths = []
    for file in files:
        with reading(file, "a Parquet file"), pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
        check_schema(file, schema)
        with reading(file, "a Parquet file"), pq.ParquetFile(file) as parquet:
            ends = [name for name in ENDS if name in schema.names][:1]
            lengths.append(len(parquet.read(ends)))  # counted: a damaged header may claim any number
    if not sum(lengths):
        raise ValueError(f"expert_data {shorten(path)}: the data set holds no episode")
    wanted = list(request.select(sum(lengths)))
    found: dict[int, Trajectory] = {}
    first = 0
    for file, length in zip(files, lengths, strict=True):
        if any(first <= index < first + length for index in wanted):
            found |= _read_rows(file, first, set(wanted), request.max_episode_steps)
        first += length
    missing = [index for index in wanted if index not in found]
    if missing:
        raise ValueError(
            f"expert_data {shorten(path)}: cannot be read as a Parquet file; episode {missing[0]} is missing in "
            "some columns. Copy or download it again"
        )
    return Loaded([found[index] for index in wanted])


def _files(folder: Path) -> list[Path]:
    """Return the Parquet files in or below a folder, in the order of their shards; of several splits those of "train"."""
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*.parquet")):
        splits[_SHARD.sub("", file.relative_to(folder).with_suffix("").as_posix())].append(file)
    if len(splits) == 1:
        return next(iter(splits.values()))
    trains = [name for name in splits if "train" in name.split("/")]
    if len(trains) != 1:
        raise ValueError(
            f"expert_data {shorten(folder)}: there are the Parquet files {cut(sorted(splits))}; give the path of one"
        )
    return splits[trains[0]]


def _read_rows(file: Path, first: int, wanted: set[int], limit: int | None) -> dict[int, Trajectory]:
    """Return the episodes of one file that are wanted, by their number; its first row is number ``first``."""
    import pyarrow.parquet as pq

    found: dict[int, Trajectory] = {}
    with pq.ParquetFile(file) as parquet:
        batches = parquet.iter_batches(_ROWS_AT_A_TIME, columns=columns_of_episodes(parquet.schema_arrow.names))
        while True:
            with reading(file, "a Parquet file"):
                batch = next(batches, None)
                columns = {} if batch is None else valid_columns(batch)
            if batch is None:
                return found
            for index in sorted(wanted.intersection(range(first, first + len(batch)))):
                found[index] = read_row(file, index, columns, index - first, limit)
            first += len(batch)
