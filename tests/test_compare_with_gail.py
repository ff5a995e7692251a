"""The example that compares with GAIL, at a small budget: on today's stack, and beside the library imitation."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.both_stacks]

EXAMPLE = Path(__file__).parents[1] / "examples" / "compare_with_gail.py"


def test_compare_with_gail(tmp_path):
    env_id = "seals/CartPole-v0" if importlib.util.find_spec("seals") else "CartPole-v1"
    command = [sys.executable, str(EXAMPLE), "--env", env_id, "--timesteps", "100", "--eval-episodes", "2", "--algos", "gail"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    rows = [json.loads(line) for line in (tmp_path / "comparison" / "results.jsonl").read_text().splitlines()]
    expected = ["sb3/gail", "imitation/gail"] if importlib.util.find_spec("imitation") else ["sb3/gail"]
    assert [(row["algo"], row["error"]) for row in rows] == [(algo, None) for algo in expected]
    assert f"{len(expected)} runs; the page is" in result.stdout
    assert ("imitation/gail: left out" in result.stderr) == (len(expected) == 1)
