"""What the benchmarks print and plot of committed results."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script, *arguments):
    return subprocess.run([sys.executable, BENCHMARKS / script, *arguments], check=True, capture_output=True, text=True).stdout


def test_table_of_a_suite():
    lines = run("table.py", "cartpole-online").splitlines()
    assert any(line.startswith("| CartPole-v1 | 10 | 20,000 | IQ-Learn |") for line in lines)


def test_methods_side_by_side(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    table = importlib.import_module("table")

    def runs(algo, finals, **settings):
        common = {"env": "CartPole-v1", "n_trajectories": 1, "settings": settings, "algo": algo, "expert_return": 500.0}
        return [common | {"final": final, "last_five_mean": final - 1, "best": final + 1} for final in finals]

    lines = [*runs("bc", [100.0]), *runs("iq", [300.0, 400.0, 500.0]), *runs("iq", [7.0, 9.0], preset="paper")]
    header, _, row = table.side_by_side(lines, ["IQ-Learn", "cloning", "IQ-Learn preset=paper"]).splitlines()
    assert header == "| environment | demonstrations | IQ-Learn | cloning | IQ-Learn preset=paper | expert | random |"
    # the interval of three runs: the mean of each draw of three of them
    assert row == "| CartPole-v1 | 1 | **400** [300, 500] | 100 (n = 1) | 8 (n = 2) | 500 | 21 |"
    assert "**399**" in table.side_by_side(lines, last_five=True)
    assert table.by_setting(lines).splitlines()[-1] == "| IQ-Learn preset=paper | 7 (9) |"


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


def test_what_held_out_demonstrations_tell(monkeypatch, tmp_path):
    """A row of each measure: how it ranks the checkpoints of two runs, and which it chooses."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    held_out = importlib.import_module("held_out")

    def a_run(seed, **measures):
        common = {"env": "Walker2d-v5", "offline": False, "n_trajectories": 1, "timesteps": 40, "seed": seed, "settings": {}}
        evaluations = [{"step": 10 * (i + 1), "mean": mean} for i, mean in enumerate((100.0, 2_000.0, 4_000.0, 3_000.0))]
        rows = zip(*([(name, value) for value in values] for name, values in measures.items()), strict=True)
        rows = [{"timesteps": 10.0 * (i + 1), **dict(row)} for i, row in enumerate(rows)]
        return {**common, "evaluations": evaluations, "held_out_measures": rows}

    distances = {"occupancy_distance": [4.0, 3.0, 1.0, 2.0]}
    runs = [
        a_run(1, action_error=[4.0, 3.0, 2.0, 1.0], log_likelihood=[-1.0, -2.0, -3.0, -4.0], **distances),
        # What diverged or never changes ranks nothing; a run offline has no policy to compare rewards with
        a_run(0, action_error=[np.nan, 1.0, 2.0, 3.0], log_likelihood=[-1.0] * 4, **distances),
    ]
    (tmp_path / "runs.jsonl").write_text("".join(json.dumps(run) + "\n" for run in [*runs, {"env": "CartPole-v1"}]))
    task = "Walker2d-v5, 1 demonstration, 40 steps online: preliminary (n = 2)"
    assert held_out.table(held_out.read([tmp_path / "runs.jsonl"])).splitlines()[2:] == [
        f"| {task} | the last | **0.80** (0.80, 0.80) | **3,000** (3,000, 3,000) |",
        "|  | `action_error` | **0.15** (-0.50, 0.80) | **2,500** (2,000, 3,000) |",
        "|  | `log_likelihood` | **-0.80** (-, -0.80) | **100** (100, 100) |",
        "|  | `occupancy_distance` | **1.00** (1.00, 1.00) | **4,000** (4,000, 4,000) |",
        "|  | the return: the best | - | **4,000** (4,000, 4,000) |",
    ]
    single = (
        "--env",
        "CartPole-v1",
        "--demos",
        "bundled:CartPole-v1",
        "--timesteps",
        "100",
        "--eval-freq",
        "50",
        "--held-out",
        "2",
    )
    run("run.py", "--offline", *single, "--out", str(tmp_path))
    [line] = held_out.read([tmp_path / "single.jsonl"])
    assert [row["timesteps"] for row in line["held_out_measures"]] == [50, 100]
    assert line["command"].endswith("--offline --held-out 2")
    rows = held_out.table([line]).splitlines()[2:]
    measures = ["action_error", "log_likelihood", "advantage", "reward_gap", "occupancy_distance"]
    assert [row.split(" | ")[1] for row in rows] == ["the last", *(f"`{name}`" for name in measures), "the return: the best"]
