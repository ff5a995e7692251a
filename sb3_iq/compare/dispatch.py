"""Where runs are done: in processes of this machine, or on a Ray cluster. Either way each gives exactly one row."""

import importlib.util
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import IO, Any
from typing import Protocol as Interface

from sb3_iq.compare.comparison import Protocol, Run
from sb3_iq.compare.evaluation import Point
from sb3_iq.compare.execution import execute, failed
from sb3_iq.compare.results import Row
from sb3_iq.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import how_to_install

OnPoint = Callable[[Run, Point], None]


class Dispatcher(Interface):
    """Does runs, and yields their rows as they end, in any order."""

    def __call__(
        self, runs: list[Run], protocol: Protocol, demonstrations: Demonstrations, on_point: OnPoint
    ) -> Iterator[Row]:
        """
        :param runs: what to do
        :param protocol: of the comparison
        :param demonstrations: all of them
        :param on_point: called with evaluations of runs that go on, and step 0 as they start, where they can be seen
        """


class Local:
    """
    Processes of this machine, a new one for each run. One that is killed loses its run, which is tried again.

    :param n_jobs: runs at a time
    :param retries: how often a run whose process died is tried again
    """

    def __init__(self, n_jobs: int = 1, retries: int = 2) -> None:
        self.n_jobs, self.retries = n_jobs, retries
        self._processes: set[subprocess.Popen] = set()
        self._stopped = False

    def __call__(
        self, runs: list[Run], protocol: Protocol, demonstrations: Demonstrations, on_point: OnPoint
    ) -> Iterator[Row]:
        shared = pickle.dumps((protocol, demonstrations))

        def work(run: Run) -> Row:
            return self._in_process(run, protocol, shared, on_point)

        try:
            if self.n_jobs == 1:
                yield from map(work, runs)
            else:
                # Threads, that each wait for a process
                from joblib import Parallel, delayed

                parallel = Parallel(self.n_jobs, backend="threading", return_as="generator_unordered", pre_dispatch="n_jobs")
                yield from parallel(delayed(work)(run) for run in runs)
        finally:
            self._stopped = True
            for process in list(self._processes):
                process.kill()

    def _in_process(self, run: Run, protocol: Protocol, shared: bytes, on_point: OnPoint) -> Row:
        status = 0
        for _ in range(1 + self.retries):
            if self._stopped:
                break
            row, status = self._attempt(run, shared, on_point)
            if row is not None:
                return row
        attempts = f"{1 + self.retries} times" if self.retries else "once"
        return failed(run, protocol, f"the process of this run died {attempts}, the last time with exit status {status}")

    def _attempt(self, run: Run, shared: bytes, on_point: OnPoint) -> tuple[Row | None, int]:
        command = [sys.executable, "-m", "sb3_iq.compare.worker"]
        # imitation's bars would be in the middle of this process's lines, and tqdm reads this when it is imported
        env = {"TQDM_DISABLE": "1", **os.environ}
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=env)
        self._processes.add(process)
        try:
            on_point(run, {"step": 0.0})  # cloning, for one, has no evaluation but the last
            _send(process.stdin, run, shared)
            row = None
            for line in process.stdout or ():
                kind, content = _message(line)
                if kind == "row":
                    row = content
                elif kind == "point":
                    on_point(run, content)
            return row, process.wait()
        except BrokenPipeError:  # it died while it read
            process.kill()
            return None, process.wait()
        finally:
            self._processes.discard(process)
            for pipe in (process.stdin, process.stdout):
                if pipe is not None:
                    pipe.close()


def _message(line: bytes) -> tuple[str, Any]:
    """Return what a worker says, ``("", None)`` for anything else: what an import printed, or half a line of one that died."""
    try:
        kind, content = json.loads(line)
    except (ValueError, TypeError):
        return "", None
    return (kind, content) if kind in ("row", "point") and isinstance(content, dict) else ("", None)


def _send(pipe: IO[bytes] | None, run: Run, shared: bytes) -> None:
    """Write a run. The pipe stays open: that it closes tells the worker that its parent is gone."""
    assert pipe is not None
    pipe.write(pickle.dumps(sys.path))  # of the script, whose folder may hold the environment's module, or that of a setting
    pipe.write(pickle.dumps(run))
    pipe.write(shared)
    pipe.flush()


class Ray:
    """
    Tasks of a Ray cluster, one core each. Those of a lost node are tried again on another.

    :param address: of the cluster, e.g. ``auto`` or ``10.0.0.1:6379``
    :param retries: how often a run whose process or node died is tried again
    :raises ImportError: if Ray is not installed
    """

    def __init__(self, address: str, retries: int = 2) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ImportError(f"ray_address needs Ray, on every machine of the cluster. {how_to_install('ray')}")
        self.address, self.retries = address, retries

    def __call__(
        self, runs: list[Run], protocol: Protocol, demonstrations: Demonstrations, on_point: OnPoint
    ) -> Iterator[Row]:
        import ray

        ray.init(address=self.address, log_to_driver=False, ignore_reinit_error=True)
        try:
            # A new process for each run, as on one machine
            task: Any = ray.remote(num_cpus=1, max_retries=self.retries, max_calls=1)(execute)
            shared = ray.put(demonstrations)
            pending = {task.remote(run, protocol, shared): run for run in runs}
            while pending:
                (done,), _ = ray.wait(list(pending), num_returns=1)
                run = pending.pop(done)
                try:
                    yield ray.get(done)
                except ray.exceptions.RayError as error:
                    yield failed(run, protocol, f"lost by the cluster: {type(error).__name__}: {str(error)[:500]}")
        finally:
            ray.shutdown()
