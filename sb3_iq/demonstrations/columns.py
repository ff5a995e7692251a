"""What an expert buffer holds one row of for each step (observations, actions, rewards): in memory, or in mapped files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch as th

from sb3_iq.demonstrations.mapped import chunks, drop_pages, is_mapped

# Rows that are gathered before the pages they lie on are dropped: at 2 MiB a row, 128 MiB of the file
_ROWS_AT_A_TIME = 64
# What torch can index, so that data need not be stored in a wider type of the space
_COMPACT = (np.uint8, np.int8, np.int16, np.int32, np.float16, np.float32)


def as_is(rows: np.ndarray) -> np.ndarray:
    """:return: the same rows"""
    return rows


@dataclass(frozen=True)
class Column:
    """
    Rows as they were read, and what makes them those that the spaces want.

    :param episodes: an array for each episode, shape (number of rows, \\*shape) but for what ``convert`` changes
    :param shape: the shape of a row, as it is handed out
    :param dtype: the dtype that is handed out
    :param convert: from rows as they were read to rows of ``shape``; the cast to ``dtype`` is not its part
    """

    episodes: list[np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype
    convert: Callable[[np.ndarray], np.ndarray] = as_is


class RowsInMemory:
    """
    The rows of a column, one episode after the other, on a device.

    :param column: what is stored
    :param every: store only one of so many rows of each episode
    """

    mapped_bytes = 0

    def __init__(self, column: Column, every: int = 1) -> None:
        lengths = np.array([-(-len(episode) // every) for episode in column.episodes])
        self._starts = np.cumsum(lengths) - lengths
        self._every = every
        self._dtype = column.dtype
        read = np.result_type(*(episode.dtype for episode in column.episodes))
        compact = column.convert is as_is and read in _COMPACT and np.can_cast(read, column.dtype)
        self.array = np.empty((int(lengths.sum()), *column.shape), read if compact else column.dtype)
        for episode, start, length in zip(column.episodes, self._starts, lengths, strict=True):
            self.array[start : start + length] = column.convert(episode[::every])
        self.nbytes = self.array.nbytes
        self.tensor = th.from_numpy(self.array)

    def to(self, device: th.device) -> None:
        """
        :param device: where the rows shall be
        """
        self.tensor = self.tensor.to(device)

    def take(self, episode: np.ndarray, step: np.ndarray) -> th.Tensor:
        """
        :param episode: numbers of episodes
        :param step: a step in each of them
        :return: the rows, shape (len(step), \\*shape), where they are stored
        """
        index = th.from_numpy(self._index(episode, step)).to(self.tensor.device)
        return self.tensor[index].to(th.from_numpy(np.empty(0, self._dtype)).dtype)

    def take_array(self, episode: np.ndarray, step: np.ndarray) -> np.ndarray:
        """
        :param episode: numbers of episodes
        :param step: a step in each of them
        :return: the rows as an array
        """
        return self.array[self._index(episode, step)].astype(self._dtype, copy=False)

    def scan(self, every: int) -> Iterator[np.ndarray]:
        """
        :param every: give one of so many rows of each episode, and never its last one
        :return: these rows, in one piece
        """
        ends = np.append(self._starts[1:], len(self.array))
        pieces = [self.array[start : end - 1 : every] for start, end in zip(self._starts, ends, strict=True)]
        yield np.concatenate(pieces).astype(self._dtype, copy=False)

    def _index(self, episode: np.ndarray, step: np.ndarray) -> np.ndarray:
        return self._starts[episode] + step // self._every


class MappedRows:
    """
    The rows of a column, left where they are and converted when they are asked for.

    :param column: what is stored
    """

    nbytes = 0

    def __init__(self, column: Column) -> None:
        self._column = column
        self._read_dtype = np.result_type(*(episode.dtype for episode in column.episodes))
        self._arrays = [np.asarray(episode) for episode in column.episodes]  # memmap is slow to index
        # One of each file stands for all
        files = {id(episode._mmap): episode for episode in column.episodes if is_mapped(episode)}  # type: ignore[attr-defined]
        self._files = list(files.values())
        self.mapped_bytes = sum(episode.nbytes for episode in column.episodes if is_mapped(episode))

    def take(self, episode: np.ndarray, step: np.ndarray) -> th.Tensor:
        """
        :param episode: numbers of episodes
        :param step: a step in each of them
        :return: the rows, shape (len(step), \\*shape), on the CPU
        """
        return th.from_numpy(self.take_array(episode, step))

    def take_array(self, episode: np.ndarray, step: np.ndarray) -> np.ndarray:
        """
        :param episode: numbers of episodes
        :param step: a step in each of them
        :return: the rows as an array
        """
        read = np.empty((len(step), *self._arrays[0].shape[1:]), self._read_dtype)
        for row, (number, index) in enumerate(zip(episode.tolist(), step.tolist(), strict=True), start=1):
            read[row - 1] = self._arrays[number][index]
            if row % _ROWS_AT_A_TIME == 0 or row == len(step):
                for file in self._files:
                    drop_pages(file, whole_file=True)
        return self._column.convert(read).astype(self._column.dtype, copy=False)

    def scan(self, every: int) -> Iterator[np.ndarray]:
        """
        :param every: give one of so many rows of each episode, and never its last one
        :return: these rows, in pieces
        """
        for episode in self._column.episodes:
            for chunk in chunks(episode[:-1:every]):
                yield self._column.convert(chunk).astype(self._column.dtype, copy=False)


Rows = RowsInMemory | MappedRows
