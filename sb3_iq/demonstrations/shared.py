"""Demonstrations that several models of one process share, as the trials of a hyperparameter search do."""

import threading
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from sb3_iq.demonstrations.demonstrations import Demonstrations


class SharedDemonstrations:
    """
    What was read while this was in use; kept as long as this object. Several threads may use it: the first one reads, the
    others wait. A file that changes in between is not read again, so that the trials of one study compare.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._read: dict[Hashable, Demonstrations] = {}

    @contextmanager
    def in_use(self) -> Iterator[None]:
        """Within this context, and in this thread alone, :func:`read_shared` reads nothing twice."""
        token = _IN_USE.set(self)
        try:
            yield
        finally:
            _IN_USE.reset(token)

    def get(self, key: Hashable, read: Callable[[], Demonstrations]) -> Demonstrations:
        with self._lock:
            if key not in self._read:
                self._read[key] = read()
            return self._read[key]


_IN_USE: ContextVar[SharedDemonstrations | None] = ContextVar("_IN_USE", default=None)


def read_shared(key: Hashable, read: Callable[[], Demonstrations]) -> Demonstrations:
    """
    :param key: what identifies the data
    :param read: reads it
    :return: what ``read`` returns, or returned before for this key where a :class:`SharedDemonstrations` is in use
    """
    shared = _IN_USE.get()
    return read() if shared is None else shared.get(key, read)
