"""
Rows of numbers, one array an episode: in memory, or left in a memory-mapped file (``np.memmap``), for data larger than memory.

A mapped array says where its numbers are. They are read from the file, a chunk or a row at a time, never through the
mapping: the pages that a process has touched count as its memory, and the kernel maps others around each of them. Measured
on 1 GB, beyond the imports: loading, hashing and 1000 batches of 256 rows peak at 34 MB by reading, at 1170 MB through the
mapping, and at 1030 MB if only the rows of batches are taken through it.
"""

import copy
import mmap
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from io import FileIO
from pathlib import Path

import numpy as np
import torch as th

from sb3_iq.demonstrations.errors import reading, shorten

CHUNK_BYTES = 2**24
# What torch can index, so that data need not be stored in a wider type of the space
_COMPACT = (np.uint8, np.int8, np.int16, np.int32, np.float16, np.float32)


class RowFile(FileIO):
    """
    A file to read rows from.

    :param path: an existing file
    """

    def read_at(self, start: int, n_bytes: int) -> bytes:
        """
        :param start: where in the file to read
        :param n_bytes: how much
        :return: what is there
        :raises ValueError: if the file has become shorter
        """
        if hasattr(os, "pread"):
            data = os.pread(self.fileno(), n_bytes, start)
        else:
            self.seek(start)
            data = self.read(n_bytes)
        if len(data) != n_bytes:
            raise ValueError(
                f"expert_data {shorten(str(self.name))}: the file has become shorter since it was loaded. Load the data again"
            )
        return data

    def __del__(self) -> None:
        self.close()


def map_file(path: Path) -> np.memmap:
    """
    :param path: a file that isn't empty
    :return: its bytes, of which nothing is read yet
    """
    return np.memmap(path, dtype=np.uint8, mode="r")


def is_mapped(array: np.ndarray) -> bool:
    """
    :param array: any array
    :return: whether it is a contiguous part of a file that was mapped to be read only, so that the file holds what it shows
    """
    return isinstance(array, np.memmap) and array.mode == "r" and bool(array.filename) and array.flags.c_contiguous


def view_of(file: np.memmap, array: np.ndarray) -> np.ndarray:
    """
    :param file: what :func:`map_file` returned
    :param array: a contiguous array that may share the memory of the file
    :return: the same numbers as a mapped array; the array itself if they are elsewhere (they were decompressed, or are bits)
    """
    start = _address(array) - _address(file)
    if not 0 <= start <= file.nbytes - array.nbytes:
        return array
    return file[start : start + array.nbytes].view(array.dtype).reshape(array.shape)


def chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """
    :param array: any array with at least one axis
    :return: its rows: all at once, but those of a mapped array few at a time
    """
    if not is_mapped(array) or not len(array):
        yield array
        return
    path, start = _place_of(array)
    n_bytes = array.nbytes // len(array)
    n_rows = max(1, CHUNK_BYTES // n_bytes)
    with RowFile(path) as file:
        for first in range(0, len(array), n_rows):
            n = min(n_rows, len(array) - first)
            data = file.read_at(start + first * n_bytes, n * n_bytes)
            yield np.frombuffer(data, array.dtype).reshape(n, *array.shape[1:])


def extremes(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    :param array: any array, shape (n, \\*shape), n >= 1
    :return: the minimum and the maximum of each number of a row, shape (\\*shape)
    """
    pairs = [(chunk.min(axis=0), chunk.max(axis=0)) for chunk in chunks(array)]
    lows, highs = zip(*pairs, strict=True)
    return np.min(lows, axis=0), np.max(highs, axis=0)


@dataclass(frozen=True)
class Column:
    """
    Rows as they were read, and what makes them those that the spaces want.

    :param episodes: an array for each episode, one entry for each row
    :param shape: the shape of a row, as it is handed out
    :param dtype: the dtype that is handed out
    :param convert: from rows as they were read to rows of ``shape``; the cast to ``dtype`` is not its part
    """

    episodes: list[np.ndarray]
    shape: tuple[int, ...]
    dtype: np.dtype
    convert: Callable[[np.ndarray], np.ndarray]

    @property
    def torch_dtype(self) -> th.dtype:
        """``dtype``, as torch calls it."""
        return th.from_numpy(np.empty(0, self.dtype)).dtype


def stored_dtype(column: Column) -> np.dtype:
    """
    :param column: what is stored
    :return: the dtype that it was read in, where that is narrower than the one that is handed out, and torch can index it
    """
    read = np.result_type(*(column.convert(episode[:1]).dtype for episode in column.episodes))
    return read if read in _COMPACT and np.can_cast(read, column.dtype) else column.dtype


def one_in_a_row(numbers: np.ndarray) -> np.ndarray:
    """:return: single numbers, shape (n,) or (n, 1), as rows of shape (1,)"""
    return numbers.reshape(-1, 1)


class RowsInMemory:
    """
    The rows of a column, one episode after the other, on a device.

    :param column: what is stored
    :param every: keep only one of so many rows of each episode
    """

    mapped_bytes = 0

    def __init__(self, column: Column, every: int = 1) -> None:
        lengths = np.array([-(-len(episode) // every) for episode in column.episodes])
        self._ends = np.cumsum(lengths)
        self._dtype, self._torch_dtype = column.dtype, column.torch_dtype
        self.array = np.empty((int(lengths.sum()), *column.shape), stored_dtype(column))
        for episode, end, length in zip(column.episodes, self._ends, lengths, strict=True):
            self.array[end - length : end] = column.convert(episode[::every])
        self.nbytes = self.array.nbytes
        self.tensor = th.from_numpy(self.array)

    def to(self, device: th.device) -> None:
        """
        :param device: where the rows shall be
        """
        self.tensor = self.tensor.to(device)

    def changed(self, function: Callable[[np.ndarray], np.ndarray]) -> "RowsInMemory":
        """
        :param function: from rows to others of the same shape and dtype
        :return: the same with these rows
        """
        rows = copy.copy(self)
        rows.array = function(self.array)
        rows.tensor = th.from_numpy(rows.array).to(self.tensor.device)
        return rows

    def take(self, rows: th.Tensor) -> th.Tensor:
        """
        :param rows: numbers of rows, counted through all episodes, where the rows are stored
        :return: these rows, shape (len(rows), \\*shape)
        """
        return self.tensor.index_select(0, rows).to(self._torch_dtype)

    def take_array(self, rows: np.ndarray) -> np.ndarray:
        """
        :param rows: numbers of rows
        :return: these rows as an array
        """
        return self.array[rows].astype(self._dtype, copy=False)

    def scan(self, every: int) -> Iterator[np.ndarray]:
        """
        :param every: give one of so many rows of each episode, and never its last one
        :return: these rows, in one piece
        """
        starts = np.append(0, self._ends[:-1])
        pieces = [self.array[start : end - 1 : every] for start, end in zip(starts, self._ends, strict=True)]
        yield np.concatenate(pieces).astype(self._dtype, copy=False)


class MappedRows:
    """
    The rows of a column, left where they are, read and converted when they are asked for.

    :param column: what is stored, some of it mapped
    :param files: the files that are open, by name: others are added
    :param every: count only one of so many rows of each episode
    """

    def __init__(self, column: Column, files: dict[str, RowFile], every: int = 1) -> None:
        self._column, self._every = column, every
        places = [_place_of(episode) if is_mapped(episode) else None for episode in column.episodes]
        for path in {place[0] for place in places if place is not None} - files.keys():
            with reading(path, "a data file"):
                files[path] = RowFile(path)
        row_bytes = [episode.nbytes // len(episode) for episode in column.episodes]
        self._places = [
            None if place is None else (files[place[0]], place[1], n_bytes)
            for place, n_bytes in zip(places, row_bytes, strict=True)
        ]
        lengths = np.array([-(-len(episode) // every) for episode in column.episodes])
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        layouts = [(episode.dtype, episode.shape[1:]) for episode in column.episodes]
        self._layouts = list(dict.fromkeys(layouts))
        self._layout = np.array([self._layouts.index(layout) for layout in layouts])
        # Zeros that stand for rewards take no memory
        self.nbytes = sum(episode.nbytes for episode in column.episodes if not is_mapped(episode) and any(episode.strides))
        self.mapped_bytes = sum(episode.nbytes for episode in column.episodes if is_mapped(episode))

    def take(self, rows: th.Tensor) -> th.Tensor:
        """
        :param rows: numbers of rows, counted through all episodes, on the CPU
        :return: these rows, shape (len(rows), \\*shape), on the CPU
        """
        return th.from_numpy(self.take_array(rows.numpy()))

    def take_array(self, rows: np.ndarray) -> np.ndarray:
        """
        :param rows: numbers of rows
        :return: these rows as an array
        """
        episode = np.searchsorted(self._ends, rows, side="right")
        step = (rows - self._starts[episode]) * self._every
        taken = np.empty((len(rows), *self._column.shape), self._column.dtype)
        for number, (dtype, shape) in enumerate(self._layouts):  # one, but for data put together by hand
            where = np.flatnonzero(self._layout[episode] == number)
            if not len(where):
                continue
            data = map(self._read, episode[where].tolist(), step[where].tolist())
            taken[where] = self._column.convert(np.frombuffer(b"".join(data), dtype).reshape(len(where), *shape))
        return taken

    def changed(self, function: Callable[[np.ndarray], np.ndarray]) -> "MappedRows":
        """
        :param function: from rows to others of the same shape and dtype
        :return: the same with these rows
        """
        rows, convert = copy.copy(self), self._column.convert
        rows._column = replace(self._column, convert=lambda read: function(convert(read)))
        return rows

    def _read(self, episode: int, step: int) -> bytes:
        """Return the bytes of a row as it was stored."""
        place = self._places[episode]
        if place is None:
            return self._column.episodes[episode][step].tobytes()
        file, start, n_bytes = place
        return file.read_at(start + step * n_bytes, n_bytes)

    def scan(self, every: int) -> Iterator[np.ndarray]:
        """
        :param every: give one of so many rows of each episode, and never its last one
        :return: these rows, in pieces
        """
        for episode in self._column.episodes:
            first = 0  # of the rows that are wanted, in the chunk
            for chunk in chunks(episode[:-1]):
                if first < len(chunk):
                    yield self._column.convert(chunk[first::every]).astype(self._column.dtype, copy=False)
                first = (first - len(chunk)) % every


Rows = RowsInMemory | MappedRows


def _place_of(array: np.ndarray) -> tuple[str, int]:
    """Return the path of a mapped array's file, and where in the file it starts."""
    path, offset = str(array.filename), int(array.offset)  # type: ignore[attr-defined]
    first = offset - offset % mmap.ALLOCATIONGRANULARITY  # where np.memmap makes a mapping start that is asked to at offset
    return path, first + _address(array) - _address(np.frombuffer(array._mmap, np.uint8, 1))  # type: ignore[attr-defined]


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
