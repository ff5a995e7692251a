"""
A comparison on a Ray cluster of two nodes on loopback, one of which is killed in the middle: every row arrives exactly once.

    python scripts/test_ray.py

It starts the nodes, stops what it started, and exits with 0 if all is well.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

N_RUNS = 6
BC = "sb3/bc:min_steps=1500,max_steps=1500,check_every=500"
COMMAND = [
    *("-m", "sb3_iq.compare", "--env", "CartPole-v1", "--demos", "bundled:CartPole-v1", "--n-demos", "1"),
    *("--algos", BC, "--seeds", str(N_RUNS), "--timesteps", "1000", "--eval-episodes", "2"),
]


def free_port() -> int:
    """
    :return: a port that nothing listens on
    """
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


def start_node(*options: str) -> subprocess.Popen:
    """
    :param options: of ``ray start``
    :return: a node of one core, whose processes are a group of their own
    """
    command = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--num-cpus=1", "--disable-usage-stats"]
    command += ["--node-ip-address=127.0.0.1", "--object-store-memory=100000000", *options]
    return subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def descendants(pid: int) -> list[int]:
    """
    :param pid: a process
    :return: all processes below it, and itself
    """
    parents: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            child, rest = int(stat.parent.name), stat.read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        parents.setdefault(int(rest[1]), []).append(child)
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += parents.get(found[-1], [])
    return found


def kill(node: subprocess.Popen) -> None:
    """
    :param node: what :func:`start_node` returned; all of it is gone at once, as if the machine were
    """
    for pid in reversed(descendants(node.pid)):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue
    node.wait()


def wait_for(condition, seconds: float, what: str) -> None:
    """
    :param condition: a function
    :param seconds: how long at most
    :param what: for the message
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.5)


def n_nodes(address: str) -> int:
    """
    :param address: of the cluster
    :return: how many nodes are alive
    """
    code = f"import ray; ray.init('{address}', log_to_driver=False); print(sum(node['Alive'] for node in ray.nodes()))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    return int(result.stdout.split()[-1]) if result.returncode == 0 else 0


def rows(out: Path) -> list[dict]:
    """
    :param out: folder of the comparison
    :return: the rows there are
    """
    path = out / "results.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    """Run the test."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] = "0"
    address = f"127.0.0.1:{free_port()}"
    nodes = [start_node("--head", f"--port={address.partition(':')[2]}", "--include-dashboard=false")]
    driver = None
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        try:
            wait_for(lambda: n_nodes(address) == 1, 600, "the first node")
            nodes.append(start_node(f"--address={address}"))
            wait_for(lambda: n_nodes(address) == 2, 600, "the second node")
            print("two nodes are up", flush=True)
            driver = subprocess.Popen([sys.executable, *COMMAND, "--out", str(out), "--ray-address", address])
            wait_for(lambda: len(rows(out)) >= 1 or driver.poll() is not None, 1_200, "the first row")
            assert driver.poll() is None, "the driver ended before a node was killed"
            kill(nodes.pop())
            print(f"one node killed, with {len(rows(out))} of {N_RUNS} rows there", flush=True)
            assert driver.wait(1_800) == 0, "the driver failed"
            counts = Counter(row["seed"] for row in rows(out))
            assert counts == Counter(range(N_RUNS)), f"rows by seed: {dict(counts)}"
            assert not any(row["error"] for row in rows(out)), [row["error"] for row in rows(out)]
        finally:
            if driver is not None and driver.poll() is None:
                driver.kill()
            for node in nodes:
                kill(node)
    print(f"{N_RUNS} runs, a row each")


if __name__ == "__main__":
    main()
