"""What the benchmarks print and plot of committed results."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_iq.compare import curves, suites

pytestmark = pytest.mark.slow

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"


def run(script, *arguments):
    return subprocess.run([sys.executable, BENCHMARKS / script, *arguments], check=True, capture_output=True, text=True).stdout


def test_table_of_a_suite():
    lines = run("table.py", "cartpole-online").splitlines()
    assert any(line.startswith("| CartPole-v1 | 10 | 20,000 | IQ-Learn |") for line in lines)


def test_methods_side_by_side():
    def runs(algo, finals, **settings):
        common = {"env": "CartPole-v1", "n_trajectories": 1, "settings": settings, "algo": algo, "expert_return": 500.0}
        return [common | {"final": final, "last_five_mean": final - 1, "best": final + 1} for final in finals]

    lines = [*runs("bc", [100.0]), *runs("iq", [300.0, 400.0, 500.0]), *runs("iq", [7.0, 9.0], preset="paper")]
    header, _, row = suites.side_by_side(lines, ["IQ-Learn", "cloning", "IQ-Learn preset=paper"]).splitlines()
    assert header == "| environment | demonstrations | IQ-Learn | cloning | IQ-Learn preset=paper | expert (random) |"
    # the interval of three runs: the mean of each draw of three of them
    assert row == "| CartPole-v1 | 1 | **400** [300, 500] | 100 (n = 1) | 8 (n = 2) | 500 (21) |"
    assert "**399**" in suites.side_by_side(lines, last_five=True)
    assert suites.by_setting(lines).splitlines()[-1] == "| IQ-Learn preset=paper | 7 (9) |"


def test_successes_of_a_suite():
    def run(seed, rate, algo="iq", timesteps=9_000):
        common = {"env": "Reach", "n_trajectories": 5, "timesteps": timesteps, "settings": {}}
        return {**common, "algo": algo, "seed": seed, "success_rate": rate}

    lines = [run(1, 0.9), run(0, 1.0), run(2, 0.95), run(0, 0.5, "bc"), run(0, 0.2, timesteps=100)]
    header, _, row, shorter = suites.successes(lines).splitlines()
    assert header == "| environment | demonstrations | steps | IQ-Learn | cloning |"
    assert row == "| Reach | 5 | 9,000 | 95% (100%, 90%, 95%) | 50% (n = 1) |"
    assert shorter == "| Reach | 5 | 100 | 20% (n = 1) |  |"


def test_steadiness_of_a_suite():
    """Shares are of the run's own demonstrations. Of the evaluations after the first of 0.9, four of five are 0.85 or more."""

    def line(seed, means, expert_return):
        curve = [{"step": 10_000.0 * (1 + i), "mean": mean, "min": mean - 10 * i} for i, mean in enumerate(means)]
        for point in curve:
            point["latest_actor_mean"] = point["mean"] / 2
        fields = {"env": "Hopper-v5", "seed": seed, "timesteps": 70_000}
        return fields | {"expert_return": expert_return, "evaluations": curve}

    lines = [line(1, [10, 90, 100, 85, 80, 95, 90], 100.0), line(0, [170] * 7, 200.0)]
    lines[1]["evaluations"][-1].pop("latest_actor_mean")
    first, second = suites.steadiness(lines).splitlines()[2:]
    assert first == "| Hopper-v5 | 0 | 200 | **0.85** | 110 | 0.42 | > 70,000 |  |"
    assert second == "| Hopper-v5 | 1 | 100 | **0.90** | 30 | 0.45 | 20,000 | 0.80 |"


def test_curves_of_a_suite(tmp_path):
    logs = ("--log", "expert_reward", "ep_rew_mean")
    run("curves.py", "cartpole-online", "offline-discrete", *logs, "--out", str(tmp_path / "curves.png"))
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("n_environments, width, n_blank", [(3, 3, 0), (4, 2, 0), (5, 3, 1)])
def test_many_environments_are_in_several_rows(monkeypatch, tmp_path, n_environments, width, n_blank):
    drawn = []
    monkeypatch.setattr("sb3_iq.compare.curves.figure", lambda rows, *_: drawn.append(rows))
    names = [f"Env{index}-v0" for index in range(n_environments)]
    evaluations = [{"step": step, "mean": 1.0} for step in (10, 20)]
    run = dict(n_trajectories=1, algo="iq", settings={}, expert_return=1.0, final=1.0, evaluations=evaluations, env_steps=20)
    curves.plot_suites([{**run, "env": name} for name in names], [], tmp_path / "curves.png")
    (rows,) = drawn
    assert {len(row) for row in rows} == {width}
    titles = [panel.title for row in rows for panel in row]
    assert titles == names + [""] * n_blank
    assert [row[0].ylabel for row in rows] == ["return"] * len(rows) and rows[0][1].ylabel == ""


def test_runs_of_a_comparison_as_lines(tmp_path):
    (tmp_path / "comparison.json").write_text(json.dumps({"timesteps": 100, "expert_return": 9.0}))
    curve = [{"step": step, "mean": float(step)} for step in (50, 120, 1_000)]
    row = dict(env="Env-v0", n_demos=3, seed=0, algo="iq", settings={}, error=None, curve=curve)
    rows = [row, {**row, "seed": 1, "demos_return": 7.0}, {**row, "seed": 2, "error": "RuntimeError: lost"}]
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(each) + "\n" for each in rows))
    lines = suites.read_comparison(tmp_path)
    assert [(each["n_trajectories"], each["expert_return"], each["final"]) for each in lines] == [
        (3, 9.0, 120.0),
        (3, 7.0, 120.0),
    ]


def test_steps_to_the_goal():
    """The goal is 0.9 of the way from 21.4 to 500. Earlier lines don't say how many steps were the environment's."""

    def line(seed, returns, **changes):
        points = [{"step": 100.0 * (1 + i), "mean": mean} for i, mean in enumerate(returns)]
        fields = {"env": "CartPole-v1", "demos": "x", "n_trajectories": 1, "seed": seed, "algo": "iq", "settings": {}}
        more = {"timesteps": 300, "eval_freq": 100, "n_eval_episodes": 20, "offline": False, "expert_return": 500.0}
        return {**fields, **more, "evaluations": points, "final": returns[-1], **changes}

    lines = [line(0, [20.0, 460.0, 20.0]), line(1, [20.0, 20.0, 20.0]), line(2, [500.0, 20.0, 20.0])]
    lines += [line(0, [20.0, 500.0], algo="bc", offline=True)]
    rows = suites.steps_to_goal(lines).splitlines()[2:]
    assert rows == ["| CartPole-v1 | 1 | IQ-Learn | 3 | 200 | 200; > 300; 100 |", "| CartPole-v1 | 1 | cloning | 1 | 0 | 0 |"]


def test_committed_lines_are_of_one_form():
    """Every suite's lines can be put into every table."""
    for path in (BENCHMARKS / "results").glob("*.jsonl"):
        lines = suites.read_runs(path)
        if lines:
            suites.table(lines), suites.side_by_side(lines), suites.steps_to_goal(lines)


def test_a_run_is_written_once_with_what_was_logged(tmp_path):
    single = ["--env", "CartPole-v1", "--demos", "bundled:CartPole-v1", "--offline", "--held-out", "2", "--out", str(tmp_path)]
    single += ["--timesteps", "40", "--eval-freq", "20"]
    assert "single: 1 runs, 0 done" in run("run.py", *single)
    assert "single: 1 runs, 1 done" in run("run.py", *single)
    (line,) = map(json.loads, (tmp_path / "single.jsonl").read_text().splitlines())
    assert [evaluation["step"] for evaluation in line["evaluations"]] == [20, 40]
    assert -2 <= line["evaluations"][1]["train"]["expert_reward"] <= 2
    assert [measures["timesteps"] for measures in line["held_out_measures"]] == [20, 40]
    assert (line["offline"], line["held_out"], line["settings"], line["error"]) == (True, 2, {}, None)
    assert line["final"] == line["evaluations"][1]["mean"] and "--held-out 2" in line["command"]


def test_a_clone_has_nothing_logged(tmp_path):
    single = ("--env", "CartPole-v1", "--demos", "bundled:CartPole-v1", "--timesteps", "20", "--eval-freq", "20")
    run("run.py", "--algo", "bc", "--offline", *single, "--out", str(tmp_path))
    (line,) = map(json.loads, (tmp_path / "single.jsonl").read_text().splitlines())
    assert line["algo"] == "bc" and [evaluation["step"] for evaluation in line["evaluations"]] == [20]
    assert "train" not in line["evaluations"][0]


def test_a_run_that_raises_has_no_line(tmp_path):
    single = ("--env", "CartPole-v1", "--demos", "bundled:CartPole-v1", "--offline", "--settings", '{"gamma": 2}')
    with pytest.raises(subprocess.CalledProcessError) as error:
        run("run.py", *single, "--out", str(tmp_path))
    assert error.value.returncode == 1 and "gamma" in error.value.stderr
    assert not (tmp_path / "single.jsonl").exists()


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
    single = ("--env", "CartPole-v1", "--demos", "bundled:CartPole-v1", "--timesteps", "100", "--eval-freq", "50")
    run("run.py", "--offline", *single, "--held-out", "2", "--out", str(tmp_path))
    [line] = held_out.read([tmp_path / "single.jsonl"])
    assert [row["timesteps"] for row in line["held_out_measures"]] == [50, 100]
    assert line["command"].endswith("--offline --held-out 2")
    rows = held_out.table([line]).splitlines()[2:]
    measures = ["action_error", "log_likelihood", "advantage", "reward_gap", "occupancy_distance"]
    assert [row.split(" | ")[1] for row in rows] == ["the last", *(f"`{name}`" for name in measures), "the return: the best"]
