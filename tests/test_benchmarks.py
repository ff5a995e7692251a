"""What the benchmarks print and plot of committed results."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script, *arguments):
    return subprocess.run([sys.executable, BENCHMARKS / script, *arguments], check=True, capture_output=True, text=True).stdout


def test_table_of_a_suite():
    lines = run("table.py", "cartpole-online").splitlines()
    assert any(line.startswith("| CartPole-v1 | 10 | 20,000 | iq |") for line in lines)


def test_curves_of_a_suite(tmp_path):
    logs = ("--log", "expert_reward", "ep_rew_mean")
    run("curves.py", "cartpole-online", "offline-discrete", *logs, "--out", str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


def test_a_run_is_written_once_with_what_was_logged(tmp_path):
    single = ("run.py", "--env", "CartPole-v1", "--demos", "bundled:CartPole-v1", "--timesteps", "1300", "--eval-freq", "1300")
    assert "single: 1 runs, 0 done" in run(*single, "--out", str(tmp_path))
    assert "single: 1 runs, 1 done" in run(*single, "--out", str(tmp_path))
    lines = (tmp_path / "single.jsonl").read_text().splitlines()
    assert len(lines) == 1
    [evaluation] = json.loads(lines[0])["evaluations"]
    assert evaluation["step"] == 1300 and -7 <= evaluation["train"]["policy_reward"] <= 2
    assert evaluation["train"]["ep_rew_mean"] > 0


def test_a_clone_has_nothing_logged(tmp_path):
    single = ("--env", "CartPole-v1", "--demos", "bundled:CartPole-v1", "--timesteps", "100", "--eval-freq", "100")
    run("run.py", "--algo", "bc", "--offline", *single, "--out", str(tmp_path))
    [evaluation] = json.loads((tmp_path / "single.jsonl").read_text())["evaluations"]
    assert evaluation["step"] == 100 and "train" not in evaluation
