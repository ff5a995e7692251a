"""The hyperparameters and the search space for RL Zoo, without RL Zoo."""

import inspect
import json
import re
from pathlib import Path

import pytest
import yaml

from sb3_iq import IQLearn, zoo

ROOT = Path(__file__).parents[1]
CONFIG = (ROOT / "hyperparams" / "iq.yml").read_text()
ENTRIES = yaml.safe_load(CONFIG)
# What RL Zoo takes out before it calls the constructor
OF_THE_ZOO = {"n_timesteps", "n_envs", "normalize", "frame_stack", "env_wrapper"}


def test_the_packaged_file_is_found():
    assert zoo.default_config().read_text() == CONFIG


@pytest.mark.parametrize("name", ENTRIES)
def test_entry(name):
    entry = ENTRIES[name]
    assert {"policy", "n_timesteps", "expert_data"} <= set(entry)
    assert set(entry) - OF_THE_ZOO <= set(inspect.signature(IQLearn).parameters)
    # Names that mean the same on every machine
    assert entry["expert_data"].startswith(("bundled:", "demos:"))


@pytest.mark.parametrize("name", re.findall(r"^# Tuned.*\n([\w-]+):", CONFIG, flags=re.MULTILINE))
def test_tuned_entries_are_what_was_measured(name):
    entry = dict(ENTRIES[name])
    n_trajectories = re.search(r"\?n_trajectories=(\d+)$", entry["expert_data"])
    expected = {
        "algo": "iq",
        "env": name,
        "timesteps": int(entry.pop("n_timesteps")),
        "n_trajectories": int(n_trajectories.group(1)) if n_trajectories else 10,
        "offline": entry.pop("offline", False),
        "subsample_freq": 1,
        "error": None,
    }
    del entry["policy"], entry["expert_data"]
    expected["settings"] = entry
    rows = [json.loads(line) for path in (ROOT / "benchmarks" / "results").glob("*.jsonl") for line in path.open()]
    assert any(expected.items() <= row.items() for row in rows)


@pytest.mark.parametrize("n_actions", [None, 0, 3])
def test_search_space_gives_arguments_of_the_constructor(n_actions):
    optuna = pytest.importorskip("optuna")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    for _ in range(20):
        trial = study.ask()
        sampled = zoo.sample_iq_params(trial, n_actions, 1, {})
        assert set(sampled) <= set(inspect.signature(IQLearn).parameters)
        assert ("actor_learning_rate" in sampled) == bool(n_actions)
        assert zoo.convert_iq_params(trial.params) == sampled


def test_search_space_is_frozen():
    # Studies that users store hold these names: a change needs a new number of the search space in sb3_iq/zoo.py
    hyperparams = zoo.convert_iq_params({"one_minus_gamma": 0.01, "batch_size_pow": 8, "net_arch": "medium", "tau": 0.005})
    expected = {"gamma": 0.99, "batch_size": 256, "policy_kwargs": {"net_arch": [256, 256]}, "tau": 0.005}
    assert hyperparams == expected
