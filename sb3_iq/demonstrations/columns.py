"""What an expert buffer holds one row of for each step (observations, actions, rewards): in memory, or in mapped files."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import torch as th

from sb3_iq.demonstrations.errors import reading
from sb3_iq.demonstrations.mapped import RowFile, chunks, is_mapped, place_of

# What torch can index, so that data need not be stored in a wider type of the space
_COMPACT = (np.uint8, np.int8, np.int16, np.int32, np.float16, np.float32)


def one_in_a_row(numbers: np.ndarray) -> np.ndarray:
    """:return: single numbers, shape (n,) or (n, 1), as rows of shape (1,)"""
    return numbers.reshape(-1, 1)


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
        read = np.result_type(*(column.convert(episode[:1]).dtype for episode in column.episodes))
        compact = read in _COMPACT and np.can_cast(read, column.dtype)
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

    Rows at random places are read from the file, as a page that is touched in the mapping brings many others into memory.

    :param column: what is stored, some of it mapped
    :param files: the files that are open, by name: others are added
    """

    def __init__(self, column: Column, files: dict[str, RowFile]) -> None:
        self._column = column
        places = [place_of(episode) if is_mapped(episode) else None for episode in column.episodes]
        for path in {place[0] for place in places if place is not None} - files.keys():
            with reading(path, "a data file"):
                files[path] = RowFile(path)
        row_bytes = [episode.nbytes // len(episode) for episode in column.episodes]
        self._places = [
            None if place is None else (files[place[0]], place[1], n_bytes)
            for place, n_bytes in zip(places, row_bytes, strict=True)
        ]
        layouts = [(episode.dtype, episode.shape[1:]) for episode in column.episodes]
        self._layouts = list(dict.fromkeys(layouts))
        self._layout = np.array([self._layouts.index(layout) for layout in layouts])
        # Zeros that stand for rewards take no memory
        self.nbytes = sum(episode.nbytes for episode in column.episodes if not is_mapped(episode) and any(episode.strides))
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
        rows = np.empty((len(step), *self._column.shape), self._column.dtype)
        for number, (dtype, shape) in enumerate(self._layouts):  # one, but for data put together by hand
            where = np.flatnonzero(self._layout[episode] == number)
            if not len(where):
                continue
            data = map(self._read, episode[where].tolist(), step[where].tolist())
            rows[where] = self._column.convert(np.frombuffer(b"".join(data), dtype).reshape(len(where), *shape))
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
