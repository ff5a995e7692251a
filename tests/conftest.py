"""What all tests share. Nothing large is imported here: the process that only hands tests to others starts at once."""

import multiprocessing
import os
from importlib.metadata import version

import hypothesis
import pytest

# Nothing here may need the network
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"

# The same examples in every run; no deadline, as the machine may be busy
hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None)
hypothesis.settings.load_profile("repeatable")


def pytest_report_header() -> str:
    """:return: which of the two stacks is tested"""
    return "stack: " + ", ".join(f"{name} {version(name)}" for name in ("stable_baselines3", "gymnasium", "torch", "numpy"))


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Small networks: more threads only cost time, and sums in another order change the numbers."""
    import torch

    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def short_offline_training(request, monkeypatch):
    """Online training begins with what the demonstrations alone tell, which only tests that are to learn something need."""
    from sb3_iq.iq_learn import reference_policy, reward_priors

    if request.node.get_closest_marker("learns") is None:
        monkeypatch.setattr(reward_priors, "OFFLINE_STEPS", 10)
        monkeypatch.setattr(reference_policy, "CLONING_STEPS", 10)
        monkeypatch.setattr(reference_policy, "EPISODES", 0)


@pytest.fixture(autouse=True)
def no_process_stays():
    """
    A process that outlives its test is killed. If it was forked, it would keep the pipes of the whole run open, which then
    never ends: it has pytest-xdist's handler of SIGTERM, and so survives its parent.
    """
    yield
    for child in multiprocessing.active_children():
        child.kill()
        child.join()
