"""
Arrays that stay in a memory-mapped file (``np.memmap``), for data larger than memory.

The pages of a file that a process has touched count as its memory until it drops them, and around each of them the kernel
maps others that were not asked for. So whoever reads such an array reads it in pieces, and drops the pages behind itself,
or reads single rows from the file. What was read stays in the cache of the operating system, which gives it up when memory
is short.
"""

import mmap
import os
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

import numpy as np

from sb3_iq.demonstrations.errors import shorten

CHUNK_BYTES = 2**24
_ALIGNMENT = 64
# Around a byte that is touched, the kernel maps at most what one page table holds
_BLOCK_BYTES = 2**21


class OwnMemory:
    """Room for copies of many arrays. As small pieces of the heap they would leave holes there when they are freed."""

    def __init__(self) -> None:
        self._block = np.empty(0, np.uint8)
        self._used = 0

    def copy(self, array: np.ndarray) -> np.ndarray:
        """
        :param array: any array
        :return: a copy
        """
        start = self._used - self._used % -_ALIGNMENT
        if start + array.nbytes > len(self._block):
            block = mmap.mmap(-1, max(CHUNK_BYTES, array.nbytes), access=mmap.ACCESS_COPY)  # given back when it is freed
            self._block, start = np.frombuffer(block, np.uint8), 0
        self._used = start + array.nbytes
        copy = self._block[start : self._used].view(array.dtype).reshape(array.shape)
        copy[...] = array
        return copy


def map_file(path: Path) -> np.memmap:
    """
    :param path: a file that isn't empty
    :return: its bytes, of which nothing is read yet
    """
    return np.memmap(path, dtype=np.uint8, mode="r")


def is_mapped(array: np.ndarray) -> bool:
    """
    :param array: any array
    :return: whether it is a contiguous part of a file that was mapped to be read only: what was written may not be dropped
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
    :return: its rows: all at once, but those of a mapped array few at a time, in memory until the next ones are asked for
    """
    if not is_mapped(array):
        yield array
        return
    n_rows = max(1, CHUNK_BYTES // (array.nbytes // len(array)))
    for start in range(0, len(array), n_rows):
        chunk = array[start : start + n_rows]
        yield np.asarray(chunk)
        drop_pages(chunk)


def extremes(array: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """
    :param array: any array, shape (n, \\*shape), n >= 1
    :return: the least and the greatest of each number of a row, shape (\\*shape)
    """
    pairs = [(chunk.min(axis=0), chunk.max(axis=0)) for chunk in chunks(array)]
    lows, highs = zip(*pairs, strict=True)
    return np.min(lows, axis=0), np.max(highs, axis=0)


def drop_pages(array: np.ndarray, whole_file: bool = False) -> None:
    """
    Take the pages of a mapped array, and those around them, from the memory of the process, where the system can.

    :param array: a mapped array; any other is left alone
    :param whole_file: take all pages of the file that it is a view of
    """
    if not is_mapped(array) or not hasattr(mmap, "MADV_DONTNEED"):
        return
    mapping = array._mmap  # type: ignore[attr-defined]
    if whole_file:
        mapping.madvise(mmap.MADV_DONTNEED)
        return
    first = _first_address(array)
    start, stop = _address(array), _address(array) + array.nbytes
    start = max(first, start - start % _BLOCK_BYTES)
    stop = min(first + len(mapping), stop - stop % -_BLOCK_BYTES)
    mapping.madvise(mmap.MADV_DONTNEED, start - first, stop - start)


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


def place_of(array: np.ndarray) -> tuple[str, int]:
    """
    :param array: a mapped array
    :return: the path of its file, and where in the file it starts
    """
    path, offset = str(array.filename), int(array.offset)  # type: ignore[attr-defined]
    first = offset - offset % mmap.ALLOCATIONGRANULARITY  # where np.memmap makes a mapping start that is asked to at offset
    return path, first + _address(array) - _first_address(array)


def _first_address(array: np.ndarray) -> int:
    """Return where the mapping starts that a mapped array is a part of."""
    return _address(np.frombuffer(array._mmap, np.uint8, 1))  # type: ignore[attr-defined]


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
