"""The comparison with GAIL, AIRL and behavioural cloning, at a small budget, where the `imitation` library is installed."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

EXAMPLE = Path(__file__).parents[1] / "examples" / "compare_with_gail.py"


@pytest.mark.parametrize("env_id", ["seals/CartPole-v0", "CartPole-v1"])
def test_compare_with_gail(tmp_path, env_id):
    pytest.importorskip("imitation")
    command = [sys.executable, str(EXAMPLE), "--steps", "2048", "--env", env_id]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    rows = dict(re.findall(r"^(IQ-Learn|GAIL|AIRL|BC) +\d+ +(-?[\d.]+) \+- [\d.]+$", result.stdout, re.MULTILINE))
    assert list(rows) == ["IQ-Learn", "GAIL", "AIRL", "BC"]
    assert all(0 < float(mean) <= 500 for mean in rows.values())
    assert "10 demonstrations, expert 500.0" in result.stdout
