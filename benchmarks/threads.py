"""
Seconds that trainings side by side take: by default, on one thread, and on as many threads as there are cores.

1, 2 and 4 processes at once run ``IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1").learn(5_000)``. A line of JSON
for each number of processes is appended to ``results/threads.jsonl``: what the clock says, what the processes computed
(threads that wait for each other by spinning compute, too), and the load of the machine before, in processes.

    python benchmarks/threads.py
"""

import argparse
import json
import math
import os
import shlex
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from run import RESULTS, git_commit
from speed import cpu_name

CALL = 'from sb3_iq import IQLearn; IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1").learn({steps})'
TIMED = (
    "import time, sb3_iq; start, cpu = time.perf_counter(), time.process_time(); {call}; "
    "print(time.perf_counter() - start, time.process_time() - cpu)"
)
# The last one is torch's own default, which IQLearn leaves alone where it is chosen
SETTINGS: dict[str, dict[str, str]] = {
    "default": {},
    "1 thread": {"OMP_NUM_THREADS": "1"},
    "a thread for each core": {"OMP_NUM_THREADS": str(os.cpu_count())},
}
VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


def seconds(setting: str, n_processes: int, steps: int, timeout: float) -> dict[str, list[float | None]]:
    """
    :param setting: key of ``SETTINGS``
    :param n_processes: how many trainings run at once
    :param steps: environment steps of each
    :param timeout: seconds after which a training is stopped
    :return: seconds by the clock and of computing, of each training, without imports; None for one that was stopped
    """
    env = {name: value for name, value in os.environ.items() if name not in VARIABLES} | SETTINGS[setting]
    program = TIMED.format(call=CALL.format(steps=steps))
    processes = [
        subprocess.Popen([sys.executable, "-c", program], env=env, stdout=subprocess.PIPE, text=True)
        for _ in range(n_processes)
    ]
    end = time.monotonic() + timeout
    wall, cpu = [], []
    for process in processes:
        try:
            output, _ = process.communicate(timeout=max(0.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            output = "nan nan"
        numbers = [round(float(word), 1) for word in output.split()]
        wall.append(None if math.isnan(numbers[0]) else numbers[0])
        cpu.append(None if math.isnan(numbers[1]) else numbers[1])
    return {"wall_s": wall, "cpu_s": cpu}


def table(lines: list[dict[str, Any]]) -> str:
    """:return: lines of results as a Markdown table: mean seconds by the clock, and in parentheses of computing"""

    def cell(measured: dict[str, list[float | None]], timeout: float) -> str:
        wall = [timeout if value is None else value for value in measured["wall_s"]]
        cpu = [value for value in measured["cpu_s"] if value is not None]
        if len(cpu) < len(wall):
            return f"more than {timeout:.0f}" if not cpu else f"more than {statistics.mean(wall):.0f}"
        return f"{statistics.mean(wall):.0f} ({statistics.mean(cpu):.0f})"

    rows = ["| trainings at once | steps | " + " | ".join(SETTINGS) + " | load before |", "|---" * (3 + len(SETTINGS)) + "|"]
    for line in lines:
        cells = [cell(measured, line["timeout"]) for measured in line["seconds"].values()]
        rows.append(f"| {line['processes']} | {line['steps']:,} | " + " | ".join(cells) + f" | {line['load']} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--timeout", type=float, default=600.0, help="seconds")
    parser.add_argument("--out", type=Path, default=RESULTS / "threads.jsonl")
    args = parser.parse_args()
    lines = []
    for n_processes in args.processes:
        load = round(os.getloadavg()[0], 1)
        measured = {name: seconds(name, n_processes, args.steps, args.timeout) for name in SETTINGS}
        command = ["python", "benchmarks/threads.py", "--processes", str(n_processes)]
        command += ["--steps", str(args.steps), "--timeout", str(args.timeout)]
        line = {
            "processes": n_processes,
            "steps": args.steps,
            "timeout": args.timeout,
            "seconds": measured,
            "load": load,
            "cpus": os.cpu_count(),
            "cpu": cpu_name(),
            "versions": {name: version(name) for name in ("sb3-iq", "stable-baselines3", "gymnasium", "torch", "numpy")},
            "commit": git_commit(),
            "command": shlex.join(command),
        }
        with args.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        lines.append(line)
        print(table(lines), flush=True)


if __name__ == "__main__":
    main()
