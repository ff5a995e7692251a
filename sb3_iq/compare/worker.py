"""
A process for one run on this machine: ``python -m sb3_iq.compare.worker``.

It reads three pickles from its parent's pipe and writes lines of JSON, evaluations and then the row. It is gone as soon as its
parent is, and what a run prints goes to standard error.
"""

import json
import os
import pickle
import sys
import threading
from typing import Any


def main() -> None:
    """Do the run that stands on standard input."""
    # Before anything is imported for the run, which may print: that goes to standard error
    lines = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    try:
        sys.path[:] = pickle.load(sys.stdin.buffer)
        run = pickle.load(sys.stdin.buffer)
        protocol, demonstrations = pickle.load(sys.stdin.buffer)
    except (EOFError, pickle.UnpicklingError):  # the parent was killed while it wrote
        sys.exit(1)

    def wait_for_parent() -> None:
        sys.stdin.buffer.read()  # returns when the parent closes the pipe, or is killed
        os._exit(1)

    threading.Thread(target=wait_for_parent, daemon=True).start()

    def send(kind: str, content: Any) -> None:
        print(json.dumps([kind, content]), file=lines, flush=True)

    from sb3_iq.compare.execution import execute

    send("row", execute(run, protocol, demonstrations, lambda point: send("point", point)))
    lines.close()
    os._exit(0)  # not by the interpreter's end, which would wait for the thread


if __name__ == "__main__":
    main()
