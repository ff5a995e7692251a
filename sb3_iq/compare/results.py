"""The rows of a comparison on disk: appended as runs end, read again by whoever goes on or tabulates."""

import json
import os
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from sb3_iq.compare.comparison import Protocol, Run, check_same
from sb3_iq.compare.environment import Environment
from sb3_iq.demonstrations.errors import shorten

Row = dict[str, Any]
PROTOCOL_FILE = "comparison.json"


def key_of(row: Mapping[str, Any]) -> tuple[str, int, int]:
    """
    :param row: of a run
    :return: what tells runs of one comparison apart, the same as :attr:`~sb3_iq.compare.comparison.Run.key`
    """
    return row["algo"], row["n_demos"], row["seed"]


def read_lines(path: Path) -> list[Row]:
    """
    :param path: a file with an object of JSON on each line; one that does not exist holds none
    :return: the objects, without a line that another process is writing, or that a killed one left
    """
    found = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except ValueError:
            continue
    return [row for row in found if isinstance(row, dict)]


def append_line(path: Path, row: Mapping[str, Any]) -> None:
    """
    :param path: the file, of lines as :func:`read_lines` reads them
    :param row: what to add; it is on disk when this returns
    """
    with path.open("a+b") as file, _locked(file):
        _end_last_line(file)
        file.write((json.dumps(row) + "\n").encode())
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _locked(file: IO[bytes]) -> Iterator[None]:
    """Keep other processes that append from this file, where the system and the file system can."""
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    with suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX)
    try:
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_UN)


def _end_last_line(file: IO[bytes]) -> None:
    """Cut off what a killed process left at the end; a row that lacks nothing but the end of its line is one."""
    if file.seek(0, os.SEEK_END) == 0:
        return
    file.seek(-1, os.SEEK_END)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    try:
        json.loads(content[start:])
    except ValueError:
        file.truncate(start)
    else:
        file.write(b"\n")


class Results:
    """
    A folder of rows, one JSON line each. Each process appends to a file of its own, and reads those of all.

    :param folder: where they are
    :param shard: part of the runs that this process does, which has a file of its own; None for all of them
    :raises ValueError: if the folder holds something else
    """

    def __init__(self, folder: Path, shard: tuple[int, int] | None = None) -> None:
        self.folder = folder
        suffix = "" if shard is None else f"-{shard[0]}-of-{shard[1]}"
        self.path = folder / f"results{suffix}.jsonl"
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"out={shorten(folder)} is a file: give a folder")

    def open(self, protocol: Protocol) -> None:
        """
        Begin, or go on with what is there.

        :param protocol: of the runs to come
        :raises ValueError: if the folder holds another comparison, or other files
        :raises PermissionError: if rows can't be written there
        """
        stored = self.read_protocol()
        if stored is not None:
            check_same(stored.identity, protocol, self.folder)
            self._check_writable()
            return
        # In this order, since another process may begin here at the same time: it writes rows last
        if any(path.stat().st_size for path in self.folder.glob("results*")) and not (self.folder / PROTOCOL_FILE).exists():
            raise ValueError(
                f"out={shorten(self.folder)} holds rows, but {PROTOCOL_FILE}, which says of what comparison, is missing: give "
                "another folder"
            )
        # Another shard may be at this point as well, or was killed here
        own = (PROTOCOL_FILE, "results")
        if self.folder.exists() and not all(path.name.startswith(own) for path in self.folder.iterdir()):
            raise ValueError(
                f"out={shorten(self.folder)} is not empty, and holds no comparison ({PROTOCOL_FILE} is missing): give another "
                "folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({**protocol.identity, **protocol.names}, indent=2) + "\n"
        temporary = self.folder / f"{PROTOCOL_FILE}.{uuid.uuid4().hex}"
        temporary.write_text(content, encoding="utf-8")
        try:
            os.link(temporary, self.folder / PROTOCOL_FILE)  # whole at once, and never over that of another process
        except FileExistsError:
            self.open(protocol)
        except OSError:  # a file system without links
            temporary.replace(self.folder / PROTOCOL_FILE)
        finally:
            temporary.unlink(missing_ok=True)

    def _check_writable(self) -> None:
        """Refuse what would only be noticed when the first run has ended."""
        for path in (self.folder, self.path):
            if path.exists() and not os.access(path, os.W_OK):
                raise PermissionError(f"out={shorten(self.folder)}: no permission to write to {path.name}. Change its mode")

    def read_protocol(self) -> Protocol | None:
        """
        :return: what the folder's rows share, or None if it holds no comparison
        :raises ValueError: if the file that says so is damaged
        """
        path = self.folder / PROTOCOL_FILE
        if not path.exists():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            env = content.pop("env")
            return Protocol(env=Environment(env["env_id"], env["kwargs"], tuple(env["packages"])), **content)
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{shorten(path)} is damaged ({error}): give another folder") from error

    def read(self) -> list[Row]:
        """
        :return: the rows of all processes, each run once: the first one that ended well, else the last one that failed
        """
        rows: dict[tuple[str, int, int], Row] = {}
        for path in sorted(self.folder.glob("results*.jsonl")):
            for row in read_lines(path):
                key = key_of(row)
                if key not in rows or rows[key].get("error"):
                    rows[key] = row
        return list(rows.values())

    def append(self, row: Mapping[str, Any]) -> None:
        """
        :param row: of a run that has ended; it is on disk when this returns
        """
        append_line(self.path, row)


def missing(runs: list[Run], rows: list[Row], shard: tuple[int, int] | None, retry_failed: bool = False) -> list[Run]:
    """
    :param runs: all runs
    :param rows: what is there
    :param shard: (i, n) for every n-th run from the i-th, counted from 1, or None for all
    :param retry_failed: whether runs that failed are to be done again
    :return: the runs to do
    """
    done = {key_of(row) for row in rows if not (retry_failed and row.get("error"))}
    own = runs if shard is None else runs[shard[0] - 1 :: shard[1]]
    return [run for run in own if run.key not in done]
