"""
Arrow tables that are not a folder: ``datasets.Dataset`` objects (also inside imitation's lazy sequence of trajectories)
and Parquet files, one row for each episode. As in ``arrow.py``, lists become arrays by their offsets.
"""

import re
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

from sb3_iq.demonstrations.errors import reading, shorten
from sb3_iq.demonstrations.mapped import OwnMemory
from sb3_iq.demonstrations.sources import Select
from sb3_iq.demonstrations.sources.arrow import COLUMNS, check_schema, read_row, valid_columns
from sb3_iq.demonstrations.trajectory import Trajectory

_ROWS_AT_A_TIME = 16  # episodes that are decoded together
_SHARD = re.compile(r"(-\d+-of-\d+|/\d+)$")  # data/train-00000-of-00002, default/train/0000


def as_dataset(source: Any) -> Any | None:
    """
    :param source: any object
    :return: the ``datasets.Dataset`` that it is, or that imitation's lazy sequence is made of, else None
    :raises ValueError: if it is a ``DatasetDict`` of several splits
    :raises TypeError: if it is a stream without a length
    """
    library = sys.modules.get("datasets")  # who has such an object has imported it
    if library is None:
        return None
    if isinstance(source, library.DatasetDict):
        if len(source) != 1:
            raise ValueError(f"expert_data is a DatasetDict with the splits {shorten(str(list(source)))}: pass one of them")
        return next(iter(source.values()))
    if isinstance(source, (library.IterableDataset, library.IterableDatasetDict)):
        raise TypeError(f"expert_data is {shorten(source)}, a stream without a length. Load it with streaming=False")
    if not isinstance(source, library.Dataset) and type(source).__module__.split(".")[0] == "imitation":
        source = getattr(source, "dataset", None)
    return source if isinstance(source, library.Dataset) else None


def read_dataset(dataset: Any, select: Select, max_episode_steps: int | None) -> list[Trajectory]:
    """
    :param dataset: a ``datasets.Dataset`` with one row for each episode; ``select``, ``shuffle`` and ``filter`` are honoured
    :param select: from the number of episodes to the indices of those wanted
    :param max_episode_steps: the time limit, if known
    :return: the episodes, with the dtypes that are stored
    :raises ValueError: if the rows are not episodes
    """
    names = [name for name in COLUMNS if name in dataset.column_names]
    schema = dataset.data.schema
    check_schema(dataset, schema, {field.name: str(field.type) for field in schema})
    if not len(dataset):
        raise ValueError("expert_data is empty: expected at least one episode")
    # Rows as Arrow tables: Python lists would take a hundred times as long, and lose the dtypes
    rows = dataset.select_columns(names).with_format("arrow")
    memory = OwnMemory()
    trajectories = []
    for index in select(len(dataset)):
        with reading(dataset, f"a data set (episode {index})"):
            columns = valid_columns(rows[index].combine_chunks().to_batches()[0])
        trajectories.append(read_row(dataset, index, columns, 0, max_episode_steps, memory.copy))
    return trajectories


def parquet_files(folder: Path) -> list[Path]:
    """
    :param folder: any folder, e.g. a download from the hub
    :return: the Parquet files in it or below, in the order of their shards; those of the split "train" if there are several
        splits
    :raises ValueError: if there are several splits, and none is called "train"
    """
    splits: dict[str, list[Path]] = defaultdict(list)
    for file in sorted(folder.rglob("*.parquet")):
        splits[_SHARD.sub("", file.relative_to(folder).with_suffix("").as_posix())].append(file)
    if len(splits) <= 1:
        return [file for files in splits.values() for file in files]
    trains = [name for name in splits if "train" in name.split("/")]
    if len(trains) != 1:
        raise ValueError(
            f"expert_data {shorten(folder)}: there are the Parquet files {shorten(str(sorted(splits)))}; give the path of one"
        )
    return splits[trains[0]]


def read_parquet(files: list[Path], select: Select, max_episode_steps: int | None) -> list[Trajectory]:
    """
    :param files: the Parquet files, e.g. one
    :param select: from the number of episodes to the indices of those wanted
    :param max_episode_steps: the time limit, if known
    :return: the episodes, with the dtypes that are stored
    :raises ValueError: if a file is damaged, or its rows are not episodes
    """
    import pyarrow.parquet as pq

    lengths = []
    for file in files:
        with reading(file, "a Parquet file"), pq.ParquetFile(file) as parquet:
            schema = parquet.schema_arrow
            types = {field.name: str(field.type) for field in schema}
        check_schema(file, schema, types)
        with reading(file, "a Parquet file"), pq.ParquetFile(file) as parquet:
            lengths.append(len(parquet.read(["terminal"])))  # counted: a damaged header may claim any number
    if not sum(lengths):
        raise ValueError(f"expert_data {shorten(files[0])}: the data set holds no episode")
    wanted = list(select(sum(lengths)))
    found: dict[int, Trajectory] = {}
    first = 0
    for file, length in zip(files, lengths, strict=True):
        if any(first <= index < first + length for index in wanted):
            found |= _read_parquet_rows(file, first, set(wanted), max_episode_steps)
        first += length
    missing = [index for index in wanted if index not in found]
    if missing:
        raise ValueError(
            f"expert_data {shorten(files[0])}: cannot be read as a Parquet file; episode {missing[0]} is missing in "
            "some columns. Copy or download it again"
        )
    return [found[index] for index in wanted]


def _read_parquet_rows(file: Path, first: int, wanted: set[int], limit: int | None) -> dict[int, Trajectory]:
    """Return the episodes of one file that are wanted, by their number; its first row is number ``first``."""
    import pyarrow.parquet as pq

    found: dict[int, Trajectory] = {}
    memory = OwnMemory()
    with pq.ParquetFile(file) as parquet:
        names = [name for name in COLUMNS if name in parquet.schema_arrow.names]
        batches = parquet.iter_batches(_ROWS_AT_A_TIME, columns=names)
        while True:
            with reading(file, "a Parquet file"):
                batch = next(batches, None)
                columns = {} if batch is None else valid_columns(batch)
            if batch is None:
                return found
            for index in sorted(wanted.intersection(range(first, first + len(batch)))):
                found[index] = read_row(file, index, columns, index - first, limit, memory.copy)
            first += len(batch)
