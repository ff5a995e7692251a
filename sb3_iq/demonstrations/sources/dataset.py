"""``datasets.Dataset`` objects, also inside imitation's lazy sequence of trajectories: one row for each episode."""

import sys
from typing import Any

from sb3_iq.demonstrations.errors import cut, reading, shorten
from sb3_iq.demonstrations.sources import Loaded, Request
from sb3_iq.demonstrations.sources.rows import check_schema, columns_of_episodes, read_row, valid_columns


def is_dataset(source: object) -> bool:
    """
    :param source: any object
    :return: whether it is of the library ``datasets``, or imitation's lazy sequence
    """
    library = sys.modules.get("datasets")  # who has such an object has imported it
    if library is None:
        return False
    kinds = (library.Dataset, library.DatasetDict, library.IterableDataset, library.IterableDatasetDict)
    return isinstance(source, kinds) or _inside_imitation(source) is not None


def _inside_imitation(source: Any) -> Any | None:
    """Return what imitation's lazy sequence is made of."""
    dataset = getattr(source, "dataset", None) if type(source).__module__.split(".")[0] == "imitation" else None
    return dataset if isinstance(dataset, sys.modules["datasets"].Dataset) else None


def read_dataset(source: Any, request: Request) -> Loaded:
    """
    :param source: a data set with one row for each episode; ``select``, ``shuffle`` and ``filter`` are honoured
    :param request: what is wanted of it
    :return: the episodes, with the dtypes that are stored
    :raises ValueError: if the rows are not episodes, or there are several splits
    :raises TypeError: if it is a stream without a length
    """
    import datasets

    if isinstance(source, datasets.DatasetDict):
        if len(source) != 1:
            raise ValueError(f"expert_data is a DatasetDict with the splits {cut(list(source))}: pass one of them")
        source = next(iter(source.values()))
    if isinstance(source, (datasets.IterableDataset, datasets.IterableDatasetDict)):
        raise TypeError(f"expert_data is {shorten(source)}, a stream without a length. Load it with streaming=False")
    dataset: Any = source if isinstance(source, datasets.Dataset) else _inside_imitation(source)
    check_schema(dataset, dataset.data.schema)
    if not len(dataset):
        raise ValueError("expert_data is empty: expected at least one episode")
    # Rows as Arrow tables: Python lists would take a hundred times as long, and lose the dtypes
    rows = dataset.select_columns(columns_of_episodes(dataset.column_names)).with_format("arrow")
    trajectories = []
    for index in request.select(len(dataset)):
        with reading(dataset, f"a data set (episode {index})"):
            columns = valid_columns(rows[index].combine_chunks().to_batches()[0])
        trajectories.append(read_row(dataset, index, columns, 0, request.max_episode_steps))
    return Loaded(trajectories)
