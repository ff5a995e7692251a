"""
Stacked frames, each stored once: what ``VecFrameStack`` makes of n frames holds every frame n times.

Whether observations are such stacks is seen by their content, exactly: the older frames of each are the newer ones of the one
before, in every episode. What is handed out is therefore what was read, whoever stacked it and however.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch as th

from sb3_iq.demonstrations.storage import Column, stored_dtype

N_COMPARED = 64  # rows at a time: the result of a comparison takes memory too


class Stacking(NamedTuple):
    """
    How frames are stacked.

    :param axis: the axis of an observation along which they are, 0 or -1
    :param n_frames: their number
    :param newest_last: whether the newest one is the last or the first
    """

    axis: int
    n_frames: int
    newest_last: bool

    def split(self, rows: np.ndarray) -> np.ndarray:
        """
        :param rows: observations, shape (n, \\*shape)
        :return: their frames from the oldest to the newest, shape (n, n_frames, \\*frame_shape), if possible without a copy
        """
        rows = np.moveaxis(rows, -1, 1) if self.axis == -1 else rows
        frames = rows.reshape(len(rows), self.n_frames, -1, *rows.shape[2:])
        return frames if self.newest_last else frames[:, ::-1]

    def holds(self, rows: np.ndarray) -> bool:
        """
        :param rows: the observations of an episode, or some in a row
        :return: whether each one's older frames are the newer ones of the one before
        """
        frames = self.split(rows)
        return np.array_equal(frames[1:, :-1], frames[:-1, 1:])


def find_stacking(column: Column) -> Stacking | None:
    """
    :param column: observations
    :return: how each of them is stacked of frames that it shares with the one before, or None if they are not
    """
    if len(column.shape) < 3:
        return None
    for axis in (0, -1):
        length = column.shape[axis]
        for n_frames in (n for n in range(length, 1, -1) if length % n == 0 and _saves(column, n)):
            for newest_last in (True, False):
                stacking = Stacking(axis, n_frames, newest_last)
                # Most are ruled out by the first two observations
                if stacking.holds(column.convert(column.episodes[0][:2])) and all(map(stacking.holds, _pieces(column))):
                    return stacking
    return None


def _saves(column: Column, n_frames: int) -> bool:
    """Return whether a frame and the numbers of those that an observation is made of take less than the observation."""
    n_bytes = int(np.prod(column.shape)) * stored_dtype(column).itemsize
    return n_bytes // n_frames + 4 * n_frames < n_bytes


def _pieces(column: Column) -> Iterator[np.ndarray]:
    """Return the observations of all episodes, some at a time; the last of a piece is the first of the next one."""
    for episode in column.episodes:
        for start in range(0, len(episode) - 1, N_COMPARED):
            yield column.convert(episode[start : start + N_COMPARED + 1])


class StackedRows:
    """
    Observations that are stacks of frames: the frames, each once, and which of them each observation is made of. At the start
    of an episode, where there was no frame before, all episodes share what stands in its place.

    :param column: what is stored
    :param stacking: how frames are stacked
    """

    mapped_bytes = 0

    def __init__(self, column: Column, stacking: Stacking) -> None:
        self._stacking = stacking
        self._dtype, self._torch_dtype = column.dtype, column.torch_dtype
        lengths = np.array([len(episode) for episode in column.episodes])
        self._ends = np.cumsum(lengths)
        n = stacking.n_frames
        firsts = [stacking.split(column.convert(episode[:1]))[0] for episode in column.episodes]
        places: dict[bytes, int] = {}
        older = [[places.setdefault(frame.tobytes(), len(places)) for frame in first[:-1]] for first in firsts]
        dtype = stored_dtype(column)
        self.array = np.empty((len(places) + self._ends[-1], *firsts[0].shape[1:]), dtype)
        self._index = np.empty((self._ends[-1], n), np.int32)
        self._length = n * self.array.shape[1]  # of the axis along which frames are stacked
        for episode, first, before, end, length in zip(column.episodes, firsts, older, self._ends, lengths, strict=True):
            self.array[before] = first[:-1]
            start = len(places) + end - length
            self.array[start : start + length] = stacking.split(column.convert(episode))[:, -1]
            frames = np.append(before, np.arange(start, start + length))
            stacks = np.lib.stride_tricks.sliding_window_view(frames, n)
            self._index[end - length : end] = stacks if stacking.newest_last else stacks[:, ::-1]
        self.nbytes = self.array.nbytes + self._index.nbytes
        self.tensor, self._index_tensor = th.from_numpy(self.array), th.from_numpy(self._index)

    def to(self, device: th.device) -> None:
        """
        :param device: where the frames shall be
        """
        self.tensor, self._index_tensor = self.tensor.to(device), self._index_tensor.to(device)

    def take(self, rows: th.Tensor) -> th.Tensor:
        """
        :param rows: numbers of rows, counted through all episodes, where the rows are stored
        :return: these rows, shape (len(rows), \\*shape)
        """
        frames = self.tensor.index_select(0, self._index_tensor.index_select(0, rows).flatten())
        stacked = frames.reshape(len(rows), self._length, *frames.shape[2:])
        stacked = stacked.movedim(1, -1).contiguous() if self._stacking.axis == -1 else stacked
        return stacked.to(self._torch_dtype)

    def take_array(self, rows: np.ndarray) -> np.ndarray:
        """
        :param rows: numbers of rows
        :return: these rows as an array
        """
        frames = self.array[self._index[rows]]
        stacked = frames.reshape(len(rows), self._length, *frames.shape[3:])
        stacked = np.moveaxis(stacked, 1, -1) if self._stacking.axis == -1 else stacked
        return stacked.astype(self._dtype, copy=False)

    def scan(self, every: int) -> Iterator[np.ndarray]:
        """
        :param every: give one of so many rows of each episode, and never its last one
        :return: these rows, an episode at a time
        """
        for start, end in zip(np.append(0, self._ends[:-1]), self._ends, strict=True):
            yield self.take_array(np.arange(start, end - 1, every))


def stacked_rows(column: Column) -> StackedRows | None:
    """
    :param column: observations in memory
    :return: the same by their frames, or None if they are no stacks
    """
    stacking = find_stacking(column)
    return None if stacking is None else StackedRows(column, stacking)
