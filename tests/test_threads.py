"""Small networks are trained on one thread of the CPU, unless the user chose a number."""

import os

import pytest
import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_iq.iq_learn import optimization
from tests.utils import BOX, DISCRETE, make_model


class Threads(BaseCallback):
    """The number of threads while learning; ends it by an exception, if one is given."""

    def __init__(self, error=None):
        super().__init__()
        self.found, self.error = set(), error

    def _on_step(self):
        self.found.add(th.get_num_threads())
        if self.error is not None:
            raise self.error
        return True


@pytest.fixture
def two_threads(monkeypatch):
    """PyTorch as it comes, on a machine of two cores; the number is only noted, for threads that wait make tests slow."""
    for name in optimization.THREAD_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    number = [2]
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    monkeypatch.setattr(optimization, "_THREADS_AT_IMPORT", 2)
    monkeypatch.setattr(th, "get_num_threads", lambda: number[0])
    monkeypatch.setattr(th, "set_num_threads", lambda n: number.__setitem__(0, n))


def threads_of_learn(offline=False, **kwargs):
    """:return: the numbers of threads during and after"""
    threads = Threads()
    make_model("MlpPolicy", BOX, DISCRETE, offline=offline, **{"policy_kwargs": dict(net_arch=[8]), **kwargs}).learn(
        12, threads
    )
    (during,) = threads.found
    return during, th.get_num_threads()


@pytest.mark.parametrize("offline", [False, True])
def test_one_while_learning(two_threads, offline, capsys):
    assert threads_of_learn(offline) == (1, 2)
    assert "thread" not in capsys.readouterr().out
    threads_of_learn(offline, verbose=1)
    assert "Training on 1 thread instead of 2" in capsys.readouterr().out


def test_put_back_on_an_exception(two_threads):
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True)
    with pytest.raises(KeyboardInterrupt):
        model.learn(5, Threads(KeyboardInterrupt()))
    assert th.get_num_threads() == 2


@pytest.mark.parametrize("name", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_chosen_by_the_environment(two_threads, name, monkeypatch, capsys):
    monkeypatch.setenv(name, "2")
    assert threads_of_learn(verbose=1) == (2, 2)
    assert "Training on 1 thread" not in capsys.readouterr().out


def test_chosen_by_a_call(two_threads):
    th.set_num_threads(3)
    assert threads_of_learn() == (3, 3)


def test_large_networks_keep_all_threads(two_threads, monkeypatch):
    monkeypatch.setattr(optimization, "SMALL", 10)
    assert threads_of_learn() == (2, 2)
