"""
Arrays that stay in a memory-mapped file (``np.memmap``), for data larger than memory.

The pages of a file that a process has touched count as its memory until it drops them, and around each of them the kernel
maps others that were not asked for. So whoever reads such an array reads it in pieces, and drops the pages behind itself.
They stay in the cache of the operating system, which gives them up when memory is short.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

import numpy as np

CHUNK_BYTES = 2**24
# Around a byte that is touched, the kernel maps at most what one page table holds
_BLOCK_BYTES = 2**21


def map_file(path: Path) -> np.memmap:
    """
    :param path: a file that isn't empty
    :return: its bytes, of which nothing is read yet
    """
    return np.memmap(path, dtype=np.uint8, mode="r")


def is_mapped(array: np.ndarray) -> bool:
    """
    :param array: any array
    :return: whether it is (a view of) a file that was mapped to be read only: what was written may not be dropped
    """
    return isinstance(array, np.memmap) and array.mode == "r"


def view_of(file: np.memmap, array: np.ndarray) -> np.ndarray:
    """
    :param file: what :func:`map_file` returned
    :param array: a contiguous array of one axis that may share the memory of the file
    :return: the same numbers as a mapped array; the array itself if they are elsewhere (they were decompressed, or are bits)
    """
    start = _address(array) - _address(file)
    if not 0 <= start <= file.nbytes - array.nbytes:
        return array
    return file[start : start + array.nbytes].view(array.dtype)


def chunks(array: np.ndarray) -> Iterator[np.ndarray]:
    """
    :param array: any array with at least one axis
    :return: its rows: all at once, but those of a mapped array few at a time, in memory until the next ones are asked for
    """
    if not is_mapped(array):
        yield array
        return
    n_rows = max(1, CHUNK_BYTES // max(1, abs(array.strides[0])))
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
    first = _address(np.frombuffer(mapping, np.uint8, 1))
    spans = [(n - 1) * stride for n, stride in zip(array.shape, array.strides, strict=True)]
    start = _address(array) + sum(span for span in spans if span < 0)
    stop = _address(array) + sum(span for span in spans if span > 0) + array.itemsize
    start = max(first, start - start % _BLOCK_BYTES)
    stop = min(first + len(mapping), stop - stop % -_BLOCK_BYTES)
    mapping.madvise(mmap.MADV_DONTNEED, start - first, stop - start)


def _address(array: np.ndarray) -> int:
    return array.__array_interface__["data"][0]
