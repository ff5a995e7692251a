"""Comparisons from the command line: rows as they come, what is refused before the first run, and what a kill leaves."""

import importlib.util
import json
import os
import pickle
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from sb3_iq.compare import compare, driver, execution, statistics
from sb3_iq.compare.__main__ import as_typed, main
from sb3_iq.compare.algorithms import Algorithm, parse
from sb3_iq.compare.comparison import Run
from sb3_iq.compare.dispatch import Local
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import Evaluations
from sb3_iq.compare.results import Results
from sb3_iq.demonstrations import load_demonstrations
from tests.compare_utils import BC, PROTOCOL, in_process, make_run
from tests.utils import BOX, RandomEnv, random_trajectories

DEMOS = "bundled:CartPole-v1"
SMALL = ["--env", "CartPole-v1", "--demos", DEMOS, "--timesteps", "40", "--eval-freq", "20", "--eval-episodes", "2"]


@pytest.fixture
def without_processes(monkeypatch):
    monkeypatch.setattr(statistics, "N_BOOTSTRAP", 20)
    monkeypatch.setattr(driver, "_dispatcher", lambda *arguments: in_process)


def rows_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]


@pytest.mark.slow
@pytest.mark.both_stacks
def test_command(tmp_path, without_processes, capsys):
    """All algorithms of this package; a second call adds seeds and demonstrations, and does nothing again."""
    algos = ["iq:learning_starts=10", "sb3/sqil:batch_size=8", "sb3/gail:batch_size=8", BC, "iq:offline=True,timesteps=10"]
    algos.append("iq/bc:timesteps=5")
    assert main([*SMALL, "--n-demos", "2", "--algos", *algos, "--seeds", "1", "--out", str(tmp_path)]) == 0
    rows = rows_of(tmp_path)
    assert [(row["algo"], row["n_demos"], row["seed"]) for row in rows] == [(algo.label, 2, 0) for algo in parse(algos)]
    for row in rows:
        assert row["error"] is None and row["score"] is not None
        assert row["env_steps"] == (0 if row["algo"].startswith(("sb3/bc", "iq:offline", "iq/bc")) else 40)
    assert [point["step"] for point in rows[0]["curve"]] == [20, 40]
    # The same episodes for all algorithms, another choice for another seed
    assert len({row["demos_hash"] for row in rows}) == 1
    before = (tmp_path / "results.jsonl").read_text()
    more = compare("CartPole-v1", DEMOS, [BC], [1, 2], 2, 40, tmp_path, eval_freq=20, n_eval_episodes=2)
    assert (tmp_path / "results.jsonl").read_text().startswith(before)
    assert len(more) == len(rows) + 3 == len(rows_of(tmp_path))
    assert len({row["demos_hash"] for row in more}) == 4
    if importlib.util.find_spec("rliable"):
        assert "| 2 | iq:learning_starts=10 |" in capsys.readouterr().out
        assert (tmp_path / "report.html").exists()


@pytest.mark.slow
def test_words_without_imitation(tmp_path, without_processes, monkeypatch, capsys):
    monkeypatch.setattr(driver, "without_imitation", lambda algos: (parse(["iq"]), "imitation/airl: left out"))
    arguments = ["--n-demos", "1", "--algos", "iq", "airl", "--seeds", "1", "--out", str(tmp_path)]
    assert main([*SMALL, *arguments]) == 0
    assert "imitation/airl: left out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--algos", "iqq"], "'iqq' is not known"),
        (["--algos", "iq:presett=paper"], "presett"),
        (["--algos", "iq:preset=papr"], "papr"),
        (["--algos", "sb3/sqil:gamma=2"], "gamma=2: expected a number between 0 and 1"),
        (["--env", "CartPole-v99"], "--env='CartPole-v99': this environment cannot be made"),
        (["--env", "Pendulum-v1"], "environment's observation space"),
        (["--demos", "bundled:Nothing"], "bundled:Nothing"),
        (["--n-demos", "11"], "--n-demos=11: expected an integer between 1 and 10"),
        (["--seeds", "0"], "--seeds=0"),
        (["--timesteps", "0"], "--timesteps=0"),
        (["--eval-episodes", "0"], "--eval-episodes=0"),
        (["--shard", "3/2"], "expected (i, n) with 1 <= i <= n"),
        (["--shard", "x"], "expected I/N"),
        (["--jobs", "0"], "--jobs=0"),
        (["--env-kwargs", "gravity"], "expected KEY:VALUE"),
        (["--expert-return", "-1"], "the expert's return is -1, that of random actions"),
        (["--baselines", "none.yml"], "--baselines='none.yml' cannot be read"),
    ],
)
def test_refused_before_the_first_run(tmp_path, capsys, changes, message):
    out = tmp_path / "out"
    command = [*SMALL, "--n-demos", "1", "--algos", "iq", "--seeds", "1", "--out", str(out), *changes]
    with pytest.raises(SystemExit) as status:
        main(command)
    assert status.value.code == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_folder_of_another_environment_is_named_as_such(tmp_path, capsys):
    """Whatever random actions return there."""
    Results(tmp_path).open(replace(PROTOCOL, env=Environment("Acrobot-v1"), expert_return=1e9, random_return=1e6))
    with pytest.raises(SystemExit) as status:
        main([*SMALL, "--n-demos", "1", "--algos", BC, "--seeds", "1", "--out", str(tmp_path)])
    assert status.value.code == 2
    assert "holds another comparison (env.env_id Acrobot-v1, not CartPole-v1" in capsys.readouterr().err


def test_messages_name_the_options_of_the_command():
    """And leave paths and words alone."""
    names = ["env", "n_demos", "n_jobs", "expert_return"]
    told = "env='/data/n_demos/x': give it by expert_return, or another env. Is n_jobs=2 too much? my_n_demos is none"
    expected = "--env='/data/n_demos/x': give it by --expert-return, or another env. Is --jobs=2 too much? my_n_demos is none"
    assert as_typed(told, names) == expected


def test_missing_argument(capsys):
    with pytest.raises(SystemExit) as status:
        main(["--env", "CartPole-v1"])
    assert status.value.code == 2 and "--demos is required" in capsys.readouterr().err


@pytest.mark.slow
def test_run_that_raises_is_a_row(tmp_path, without_processes, monkeypatch, capsys):
    def fail(task, given, evaluations):
        evaluations.points.append({"step": 20.0, "mean": 9.0})
        raise RuntimeError("the simulator crashed")

    monkeypatch.setitem(execution.OWN, "sb3/sqil", fail)
    command = [*SMALL, "--n-demos", "1", "--algos", "sb3/sqil", BC, "--seeds", "1", "--out", str(tmp_path)]
    assert main(command) == 1
    assert "failed: sb3/sqil, 1 demonstration, seed 0: RuntimeError: the simulator crashed" in capsys.readouterr().err
    errors = {row["algo"]: row["error"] for row in rows_of(tmp_path)}
    assert errors == {"sb3/sqil": "RuntimeError: the simulator crashed", BC: None}
    assert [point["mean"] for point in rows_of(tmp_path)[0]["curve"]] == [9.0]  # what it came to
    assert main(command) == 1 and len(rows_of(tmp_path)) == 2  # not run again
    monkeypatch.undo()
    monkeypatch.setattr(driver, "_dispatcher", lambda *arguments: in_process)
    assert main([*command, "--retry-failed"]) == 0
    assert [row["error"] for row in Results(tmp_path).read()] == [None, None]
    assert len(rows_of(tmp_path)) == 3  # what failed stays on disk


@pytest.mark.slow
def test_shards_together_are_the_comparison(tmp_path, without_processes):
    command = [*SMALL, "--n-demos", "1", "--algos", BC, "--seeds", "3", "--out", str(tmp_path)]
    for shard in ("1/2", "2/2"):
        assert main([*command, "--shard", shard]) == 0
    assert sorted(row["seed"] for row in Results(tmp_path).read()) == [0, 1, 2]
    assert main(command) == 0 and not (tmp_path / "results.jsonl").exists()


@pytest.mark.slow
def test_killed_worker_loses_one_run():
    """The process of the first attempt is killed at its first evaluation; the run has one row all the same."""
    dispatcher, killed = Local(retries=1), []

    def on_point(run, point):
        if not killed and "mean" in point:
            (process,) = dispatcher._processes
            killed.append(process.pid)
            process.kill()

    demonstrations = load_demonstrations(DEMOS)
    protocol = PROTOCOL
    run = Run(parse(["iq:learning_starts=10,reward_prior=0.0"])[0], 1, 0, 200)
    rows = list(dispatcher([run], protocol, demonstrations, on_point))
    assert len(killed) == 1
    assert [(row["seed"], row["error"]) for row in rows] == [(0, None)]


@pytest.mark.slow
@pytest.mark.parametrize("read", [b"", pickle.dumps(make_run())[:20]], ids=["nothing", "a piece"])
def test_worker_ends_quietly_where_its_parent_was_killed(read):
    """While it wrote what to do."""
    result = subprocess.run([sys.executable, "-m", "sb3_iq.compare.worker"], input=read, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (1, b"")


def test_worker_that_always_dies(monkeypatch):
    monkeypatch.setattr(Local, "_attempt", lambda *arguments: (None, -9))
    (row,) = Local(retries=2)([make_run()], PROTOCOL, load_demonstrations(DEMOS), lambda run, point: None)
    assert row["error"] == "the process of this run died 3 times, the last time with exit status -9"


def alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for processes in /proc")
def test_kill_9_and_resume(tmp_path):
    """The rows that are there stay; workers end with their parent; the same command does the rest, each run once."""
    out = tmp_path / "out"
    slow = "sb3/bc:min_steps=9999,max_steps=9999"
    # Two at a time where joblib is installed
    jobs = ["--jobs", "2"] if importlib.util.find_spec("joblib") else []
    command = [sys.executable, "-m", "sb3_iq.compare", *SMALL, "--n-demos", "1", "--seeds", "1", "--out", str(out), *jobs]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    process = subprocess.Popen([*command, "--algos", BC, slow], env=environment)
    deadline = time.monotonic() + 500
    while not (out / "results.jsonl").exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = [
        int(stat.parent.name)
        for stat in Path("/proc").glob("[0-9]*/stat")
        if stat.read_text().rpartition(")")[2].split()[1] == str(process.pid)
    ]
    process.send_signal(signal.SIGKILL)
    process.wait()
    before = (out / "results.jsonl").read_text()
    assert [row["algo"] for row in rows_of(out)] == [BC]
    while any(map(alive, children)) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not any(map(alive, children))
    with (out / "results.jsonl").open("a") as file:
        file.write(before[:40])  # as if it had been killed while it wrote
    other = BC.replace("max_steps=40", "max_steps=60")
    result = subprocess.run([*command, "--algos", BC, other], env=environment, check=False)
    assert result.returncode == 0
    assert (out / "results.jsonl").read_text().startswith(before)
    assert [row["algo"] for row in rows_of(out)] == [BC, other]


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("name", ["gail", "airl", "sqil", "bc"])
def test_algorithms_of_imitation(tmp_path, without_processes, name):
    pytest.importorskip("imitation")
    small = {
        "gail": "{'n_steps': 16, 'batch_size': 16, 'n_epochs': 1}",
        "airl": "{'n_steps': 16, 'batch_size': 16, 'n_epochs': 1}",
    }
    settings = {"gail": f"ppo={small['gail']},n_envs=2", "airl": f"ppo={small['airl']},n_envs=2", "bc": "n_batches=5"}
    algo = f"imitation/{name}" + (f":{settings[name]}" if name in settings else "")
    rows = compare("CartPole-v1", DEMOS, [algo], [1], 1, 40, tmp_path, eval_freq=20, n_eval_episodes=2)
    assert [row["error"] for row in rows] == [None]
    steps = {"gail": 416, "airl": 416, "sqil": 40, "bc": 0}[name]  # ten times the budget, in whole rounds of 32
    assert steps - 32 <= rows[0]["env_steps"] <= steps
    with pytest.raises(ValueError, match="has no setting 'lr'"):
        compare("CartPole-v1", DEMOS, [f"imitation/{name}:lr=1"], [1], 1, 40, tmp_path / "other", n_eval_episodes=2)


@pytest.mark.slow
def test_settings_without_a_form_in_json(tmp_path):
    """By the process of the run as well; what no other process can read is refused before the first run."""
    settings = dict(offline=True, timesteps=2, gamma=np.float64(0.9), policy_kwargs=dict(activation_fn=th.nn.Tanh))
    options = dict(n_demos=[1], seeds=1, timesteps=40, n_eval_episodes=1)
    for _ in range(2):
        (row,) = compare("CartPole-v1", DEMOS, [Algorithm("iq", settings)], out=tmp_path / "out", **options)
        assert row["error"] is None and row["settings"]["gamma"] == 0.9
        assert row["settings"]["policy_kwargs"] == {"activation_fn": "torch.nn.modules.activation.Tanh"}


def test_settings_that_no_other_process_can_read(tmp_path):
    options = dict(n_demos=[1], seeds=1, timesteps=40, n_eval_episodes=1, out=tmp_path / "out")
    with pytest.raises(TypeError, match=r"algos: iq: learning_rate=.*<lambda>.* cannot be sent .* module of their own"):
        compare("CartPole-v1", DEMOS, [Algorithm("iq", dict(learning_rate=lambda _: 1e-3))], **options)
    with pytest.raises(TypeError, match=r"env_kwargs=.* cannot be sent"):
        compare("CartPole-v1", DEMOS, ["iq"], env_kwargs=dict(callback=lambda: None), **options)
    with pytest.raises(TypeError, match="n_demos is 3: expected a list"):
        compare("CartPole-v1", DEMOS, ["iq"], **{**options, "n_demos": 3})
    assert not (tmp_path / "out").exists()


gym.register("ManyParts-v0", lambda **_: RandomEnv(BOX, gym.spaces.MultiDiscrete([2, 3])))


def test_words_leave_out_what_cannot_serve_the_spaces(tmp_path, monkeypatch, capsys):
    done = []
    monkeypatch.setattr(driver, "_dispatcher", lambda *_: lambda runs, *arguments: iter(done.extend(runs) or ()))
    demos = random_trajectories(RandomEnv(BOX, gym.spaces.MultiDiscrete([2, 3])))
    options = dict(n_demos=[1], seeds=1, timesteps=40, n_eval_episodes=1, expert_return=100.0, out=tmp_path / "out")
    compare("ManyParts-v0", demos, ["iq", "iq/bc", "bc", "sqil", "gail"], **options)
    names = {run.algorithm.name for run in done}
    assert names - {"imitation/bc", "imitation/gail"} == {"iq", "iq/bc"}
    assert "sb3/sqil: left out (the action space is MultiDiscrete, but the baselines" in capsys.readouterr().err
    for algos, message in ((["iq", "sb3/sqil"], "learn by SAC or DQN"), (["sqil"], "nothing is left that can learn")):
        with pytest.raises(ValueError, match=message):
            compare("ManyParts-v0", demos, algos, **options)


def test_any_error_of_a_check_is_a_refusal(tmp_path, monkeypatch):
    def check(task, given):
        raise RuntimeError("kernel size can't be greater than actual input size")

    monkeypatch.setitem(execution.CHECKS, "iq", check)
    with pytest.raises(
        ValueError, match=r"algos: iq cannot be made for CartPole-v1 \(RuntimeError: kernel size.* Leave it out"
    ):
        compare("CartPole-v1", DEMOS, ["iq"], [1], 1, 40, tmp_path / "out", n_eval_episodes=1)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_what_an_import_prints_is_no_message(tmp_path, monkeypatch):
    """Nor is a line that JSON can read."""
    (tmp_path / "sitecustomize.py").write_text('print("Hello from the community")\nprint([1, 2])')
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), str(Path(__file__).parents[1])]))
    run = Run(parse(["iq:offline=True"])[0], 1, 0, 2)
    (row,) = Local(retries=0)([run], replace(PROTOCOL, n_eval_episodes=1), load_demonstrations(DEMOS), lambda *_: None)
    assert row["error"] is None


@pytest.mark.slow
def test_a_module_beside_the_script_is_found_by_the_process_of_a_run(tmp_path, monkeypatch):
    register = "gym.register('Own-v0', entry_point='gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=9)"
    (tmp_path / "own_environments.py").write_text(f"import gymnasium as gym\n{register}")
    monkeypatch.syspath_prepend(tmp_path)
    protocol = replace(PROTOCOL, env=Environment("Own-v0", {}, ("own_environments",)), n_eval_episodes=1)
    run = Run(parse(["iq:offline=True"])[0], 1, 0, 2)
    (row,) = Local(retries=0)([run], protocol, load_demonstrations(DEMOS), lambda *_: None)
    assert row["error"] is None


class OddGoal(gym.Env):
    """Every other seed leads to success; without seed none does."""

    observation_space = gym.spaces.Box(-1.0, 1.0, (1,))
    action_space = gym.spaces.Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.succeeds = bool(seed is not None and seed % 2)
        return np.zeros(1, np.float32), {}

    def step(self, action):
        return np.zeros(1, np.float32), 1.0, False, True, {"is_success": self.succeeds}


gym.register("OddGoal-v0", lambda **_: OddGoal())


@pytest.mark.both_stacks
def test_longer_runs_are_evaluated_at_the_common_budget_and_less_often_from_there_on():
    """In rounds of seven steps, as on-policy algorithms have them."""
    runs = [(dict(), range(7, 211, 7)), (dict(common_budget=60, own_budget=210), range(7, 211, 7))]
    found = []
    for budgets, steps in runs:
        evaluations = Evaluations(Environment("CartPole-v1"), 1, 20, lambda point: None, **budgets)
        for step in steps:
            if evaluations.is_due(step):
                evaluations.points.append({"step": step})
        found.append([point["step"] for point in evaluations.points])
    assert found == [[21, 42, 63, 84, 105, 126, 140, 161, 182, 203], [21, 42, 63, 126, 182]]


@pytest.mark.both_stacks
def test_an_evaluation_tells_how_many_episodes_succeed():
    class Idle:
        def predict(self, obs, **_):
            return np.zeros(len(obs), int), None

    points = {}
    for env_id in ("OddGoal-v0", "CartPole-v1"):
        evaluations = Evaluations(Environment(env_id), 4, 10, lambda point: None)
        evaluations.finish(Idle(), 10)
        (points[env_id],) = evaluations.points
    assert points["OddGoal-v0"]["success_rate"] == 0.5 and points["OddGoal-v0"]["mean"] == 1.0
    assert "success_rate" not in points["CartPole-v1"]
