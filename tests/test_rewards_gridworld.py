"""The example of the grid world recovers the three corners."""

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

PATH = Path(__file__).parents[1] / "examples" / "gridworld.py"


@pytest.fixture(scope="module")
def gridworld():
    spec = importlib.util.spec_from_file_location("gridworld", PATH)
    module = sys.modules["gridworld"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_exact_solution_is_read_exactly(gridworld):
    exact = gridworld.soft_value_iteration(gridworld.REWARD)
    assert exact.q == pytest.approx(gridworld.REWARD[:, None] + gridworld.GAMMA * exact.v[gridworld.NEXT])
    assert exact.policy.sum(axis=1) == pytest.approx(np.ones(gridworld.N_STATES))
    assert set(exact.v.argsort()[-3:]) == set(gridworld.CORNERS)


def test_peaks(gridworld):
    exact = gridworld.soft_value_iteration(gridworld.REWARD)
    data = gridworld.demonstrations(exact.policy, 1)
    r, v = gridworld.reward_of_states(gridworld.recover(data, 1), data)
    assert min(r[gridworld.CORNERS]) > 0.6 and max(np.delete(r, gridworld.CORNERS)) < 0.4
    assert np.abs(r - gridworld.REWARD).mean() < 0.1
    assert np.corrcoef(v, exact.v)[0, 1] > 0.9


def test_command(gridworld, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["gridworld.py", "--out", str(tmp_path)])
    gridworld.main()
    assert "corners: 0." in capsys.readouterr().out
    assert (tmp_path / "gridworld.png").stat().st_size > 10_000
