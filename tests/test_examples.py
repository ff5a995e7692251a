"""The examples run as a reader would run them."""

import subprocess
import sys
from pathlib import Path

import pytest

Image = pytest.importorskip("PIL.Image", reason="Pillow is not installed: pip install pillow")
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


@pytest.mark.parametrize("source", [[], ["bundled:CartPole-v1"]])
def test_film_of_a_policy_beside_its_expert(source, tmp_path):
    pytest.importorskip("pygame", reason="pygame is not installed: pip install pygame")
    demos = "bundled:CartPole-v1?n_trajectories=2" if source else "bundled:CartPole-v1"
    arguments = ["--env", "CartPole-v1", "--demos", demos, "--offline", "--steps", "20", "--episodes", "2"]
    arguments += ["--beside-expert", *source, "--seconds", "0.5", "--width", "100", "--out", "film.gif"]
    command = [sys.executable, str(ROOT / "examples" / "film.py"), *arguments]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    assert "CartPole-v1: " in result.stdout and "over 2 episodes" in result.stdout
    picture = Image.open(tmp_path / "film.gif")
    assert picture.n_frames > 1 and picture.width == 204
