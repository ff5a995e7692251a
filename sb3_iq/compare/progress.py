"""What is going on: live on a terminal, else a line for each run that ends."""

import sys
import time
from types import TracebackType
from typing import Any

from sb3_iq.compare.comparison import Run, describe
from sb3_iq.compare.evaluation import Point
from sb3_iq.compare.results import Row, key_of

SECONDS_BETWEEN_LINES = 30


class Progress:
    """
    Tells of runs, on standard error.

    :param n_runs: how many there are to do
    :param n_done: how many were done before
    """

    def __init__(self, n_runs: int, n_done: int) -> None:
        self.n_runs, self.n_done, self.n_failed = n_runs, n_done, 0
        self._running: dict[tuple[str, int, int], tuple[Run, Point]] = {}
        self._started = self._told = time.monotonic()
        self._live: Any = None

    def __enter__(self) -> "Progress":
        if self.n_done:
            print(f"{self.n_done} runs are done already", file=sys.stderr)
        if sys.stderr.isatty() and self.n_runs:
            try:
                from rich.console import Console
                from rich.live import Live

                self._live = Live(get_renderable=self._table, console=Console(stderr=True), refresh_per_second=2)
                self._live.start()
            except ImportError:  # lines do
                self._live = None
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._live is not None:
            self._live.stop()

    def on_point(self, run: Run, point: Point) -> None:
        """
        :param run: that goes on
        :param point: its latest evaluation, or step 0 alone where it starts
        """
        self._running[run.key] = run, point
        if self._live is None and time.monotonic() - self._told > SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            print(f"{run}: {_of(run, point)}", file=sys.stderr, flush=True)

    def on_row(self, row: Row) -> None:
        """
        :param row: of a run that has ended
        """
        self.n_done += 1
        self.n_failed += bool(row["error"])
        self._running.pop(key_of(row), None)
        end = row["error"] or f"return {row['return_mean']:.1f}, score {row['score']:.2f}"
        line = f"{describe(*key_of(row))}: {end}"
        if self._live is not None:
            self._live.console.print(line, markup=False, highlight=False)
        else:
            print(f"[{self.n_done}] {line}", file=sys.stderr, flush=True)

    def _table(self) -> Any:
        from rich.console import Group
        from rich.progress_bar import ProgressBar
        from rich.table import Table

        total = max(self.n_runs, self.n_done)
        minutes = (time.monotonic() - self._started) / 60
        head = Table.grid(padding=(0, 1))
        head.add_row(
            ProgressBar(total, self.n_done, width=40),
            f"{self.n_done} of {total} runs" + (f", {self.n_failed} failed" if self.n_failed else "") + f", {minutes:.0f} min",
        )
        table = Table.grid(padding=(0, 2))
        for run, point in list(self._running.values()):
            table.add_row(str(run), _of(run, point))
        return Group(head, table)


def _of(run: Run, point: Point) -> str:
    if "mean" not in point:
        return "started"
    return f"{point['step']:,.0f} of {run.timesteps:,} steps, return {point['mean']:.1f}"
