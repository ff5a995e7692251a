"""What the benchmarks print and plot of committed results."""

import subprocess
import sys
from pathlib import Path

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script, *arguments):
    return subprocess.run([sys.executable, BENCHMARKS / script, *arguments], check=True, capture_output=True, text=True).stdout


def test_table_of_a_suite():
    lines = run("table.py", "cartpole-online").splitlines()
    assert any(line.startswith("| CartPole-v1 | 10 | 20,000 | iq |") for line in lines)


def test_curves_of_a_suite(tmp_path):
    run("curves.py", "cartpole-online", "offline-discrete", "--out", str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")
