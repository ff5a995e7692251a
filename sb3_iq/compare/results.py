"""The rows of a comparison on disk: appended as runs end, read again by whoever goes on or tabulates."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sb3_iq.compare.comparison import Protocol, Run, check_same
from sb3_iq.compare.environment import Environment
from sb3_iq.demonstrations.errors import shorten

Row = dict[str, Any]
PROTOCOL_FILE = "comparison.json"


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
    drop_unfinished_line(path)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")
        file.flush()
        os.fsync(file.fileno())


def drop_unfinished_line(path: Path) -> None:
    """
    :param path: a file of lines; what a killed process left at its end is cut off
    """
    with path.open("a+b") as file:
        size = file.seek(0, os.SEEK_END)
        if size == 0:
            return
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        file.truncate(file.read().rfind(b"\n") + 1)


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
        """
        stored = self.read_protocol()
        if stored is not None:
            check_same(stored.identity, protocol, self.folder)
            return
        if self.folder.exists() and any(self.folder.iterdir()):
            raise ValueError(
                f"out={shorten(self.folder)} is not empty, and holds no comparison ({PROTOCOL_FILE} is missing): give another "
                "folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        content = json.dumps({**protocol.identity, **protocol.names}, indent=2) + "\n"
        temporary = self.folder / f"{PROTOCOL_FILE}.{os.getpid()}"
        temporary.write_text(content, encoding="utf-8")
        temporary.replace(self.folder / PROTOCOL_FILE)

    def read_protocol(self) -> Protocol | None:
        """
        :return: what the folder's rows share, or None if it holds no comparison
        :raises ValueError: if the file that says so is damaged
        """
        path = self.folder / PROTOCOL_FILE
        if not path.is_file():
            return None
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            env = content.pop("env")
            return Protocol(env=Environment(env["env_id"], env["kwargs"], tuple(env["packages"])), **content)
        except (ValueError, TypeError, KeyError) as error:
            raise ValueError(f"{shorten(path)} is damaged ({error}): give another folder") from error

    def read(self) -> list[Row]:
        """
        :return: the rows of all processes, each run once
        """
        rows: dict[tuple[str, int, int], Row] = {}
        for path in sorted(self.folder.glob("results*.jsonl")):
            for row in read_lines(path):
                rows.setdefault((row["algo"], row["n_demos"], row["seed"]), row)
        return list(rows.values())

    def append(self, row: Mapping[str, Any]) -> None:
        """
        :param row: of a run that has ended; it is on disk when this returns
        """
        append_line(self.path, row)

    def drop_failed(self) -> None:
        """Remove the rows of runs that failed, so that they are run again."""
        for path in self.folder.glob("results*.jsonl"):
            kept = [row for row in read_lines(path) if not row.get("error")]
            temporary = path.with_suffix(".tmp")
            temporary.write_text("".join(json.dumps(row) + "\n" for row in kept), encoding="utf-8")
            temporary.replace(path)


def missing(runs: list[Run], rows: list[Row], shard: tuple[int, int] | None) -> list[Run]:
    """
    :param runs: all runs
    :param rows: what is there
    :param shard: (i, n) for every n-th run from the i-th, counted from 1, or None for all
    :return: the runs to do
    """
    done = {(row["algo"], row["n_demos"], row["seed"]) for row in rows}
    own = runs if shard is None else runs[shard[0] - 1 :: shard[1]]
    return [run for run in own if run.key not in done]
