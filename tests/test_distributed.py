"""Hyperparameter search by several worker processes on one Optuna study."""

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from sb3_iq.demonstrations import load_demonstrations
from sb3_iq.demonstrations.saving import save_trajectories

pytestmark = pytest.mark.slow

optuna = pytest.importorskip("optuna")
pytest.importorskip("rl_zoo3")

# A worker is ``rl_zoo3 train``, and tells of every data file that it opens
WORKER = """
import sys
sys.addaudithook(lambda event, args: event == "open" and str(args[0]).endswith(".arrow") and print("READ", args[0]))
from sb3_iq.zoo import main
main()
"""
SEARCH = ["train", "--algo", "iq", "--env", "CartPole-v1", "-n", "150", "-optimize", "--n-evaluations", "1"]
SEARCH += ["--eval-episodes", "1", "--no-optim-plots", "-params", "expert_data:'demos/set'", "reward_prior:0"]
POSTGRESQL = "SB3_IQ_TEST_POSTGRESQL"


def storages(kind: str) -> tuple[str, Callable[[], Any]]:
    """What to give to ``--storage``, and how to look into it. RL Zoo 2.2 takes no journal, but SQLite."""
    if kind == "file" and tuple(map(int, version("rl_zoo3").split(".")[:2])) >= (2, 6):
        journal = optuna.storages.journal
        return "logs/search.log", lambda: optuna.storages.JournalStorage(journal.JournalFileBackend("logs/search.log"))
    url = "sqlite:///search.db" if kind == "file" else os.environ.get(POSTGRESQL, "")
    if not url:
        pytest.skip("needs a PostgreSQL server: make test-distributed")
    return url, lambda: optuna.storages.RDBStorage(url)


def run_workers(folder: Path, *options: str) -> None:
    """Two workers at the same time; each reads the demonstrations once, or not at all if there is nothing left to do."""
    command = [sys.executable, "-c", WORKER, *SEARCH, *options]
    workers = [
        subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(2)
    ]
    for worker in workers:
        output = worker.communicate()[0]
        assert worker.returncode == 0, output[-3000:]
        print(output)
        assert output.count("READ") == ("Trial " in output), output[-3000:]


@pytest.mark.parametrize("kind", ["file", "postgresql"])
def test_two_workers_on_one_study(tmp_path, monkeypatch, kind):
    monkeypatch.chdir(tmp_path)
    storage, look_into = storages(kind)
    save_trajectories(load_demonstrations("bundled:CartPole-v1", n_trajectories=2).trajectories, tmp_path / "demos" / "set")
    options = ["--storage", storage, "--study-name", "search"]
    if "://" in storage:  # the tables of a data base are made once, before workers start
        create = ["create-study", "--direction", "maximize", "--skip-if-exists", *options]
        subprocess.run([sys.executable, "-c", "from optuna.cli import main; main()", *create], check=True)
    run_workers(tmp_path, *options, "--n-trials", "1")  # for each worker
    study = optuna.load_study(study_name="search", storage=look_into())
    assert [trial.number for trial in study.trials] == [0, 1]
    run_workers(tmp_path, *options, "--max-total-trials", "4")  # for all together
    trials = optuna.load_study(study_name="search", storage=look_into()).trials
    assert sum(trial.state.name in ("COMPLETE", "PRUNED") for trial in trials) == 4


def test_workers_that_start_the_last_trial_together():
    """RL Zoo counts trials before it starts one. Here three workers have counted one of two, and all start."""
    from sb3_iq import zoo

    zoo.register()
    from rl_zoo3.exp_manager import ExperimentManager

    study = optuna.create_study()
    study.add_trial(optuna.trial.create_trial(value=1.0))
    workers = [study.ask() for _ in range(3)]
    manager = SimpleNamespace(algo="iq", max_total_trials=2)
    assert [zoo._is_surplus(trial, 2) for trial in workers] == [False, True, True]
    with pytest.raises(KeyboardInterrupt):
        ExperimentManager.objective(manager, workers[1])
