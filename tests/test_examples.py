"""The examples run as a reader would run them."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]


def test_demo(tmp_path):
    command = [sys.executable, str(ROOT / "examples" / "demo.py"), "--steps", "400", "--out", "demo"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    for word in ("random", "expert (demonstrations)", "IQ-Learn, offline", "learning_curve.png"):
        assert word in result.stdout
    assert (tmp_path / "demo" / "learning_curve.png").stat().st_size > 10_000
    assert (tmp_path / "demo" / "iq_cartpole.zip").exists()
