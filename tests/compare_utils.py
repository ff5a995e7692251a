"""What the tests of comparisons share: runs in this process, and rows that nobody had to train for."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np

from sb3_iq.compare.algorithms import Algorithm
from sb3_iq.compare.comparison import Protocol, Run
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.execution import execute

PROTOCOL = Protocol(
    Environment("CartPole-v1"),
    timesteps=1_000,
    eval_freq=100,
    n_eval_episodes=50,
    expert_return=500.0,
    random_return=20.0,
    demos_hash="0",
    baselines_hash="0",
    demos="bundled:CartPole-v1",
)
# Returns of evaluations
UP = [20.0, 200.0, 460.0, 400.0, 500.0, 500.0, 500.0, 500.0, 500.0, 500.0]
DOWN = [20.0] * 10
# Small enough for tests
BC = "sb3/bc:min_steps=20,max_steps=40,check_every=20"


def in_process(runs: list[Run], protocol: Protocol, demonstrations: Any, on_point: Any) -> Iterator[dict[str, Any]]:
    """A dispatcher without processes."""
    for run in runs:
        yield execute(run, protocol, demonstrations, partial(on_point, run))


def make_row(algo: str, seed: int, returns: list[float], n_demos: int = 1, **changes: Any) -> dict[str, Any]:
    """
    :param algo: label of the algorithm
    :param seed: its seed
    :param returns: of its evaluations, one every 100 steps; a single one is of an algorithm that takes no steps
    :param n_demos: how many demonstrations
    :param changes: other fields
    :return: a row
    """
    acts = len(returns) > 1
    steps = 100 * np.arange(1, 1 + len(returns)) if acts else np.zeros(1)
    points = zip(steps.tolist(), returns, strict=True)
    curve = [{"step": step, "mean": mean, "std": 0.0, "min": mean, "train_s": step / 10} for step, mean in points]
    row = {
        **{"algo": algo, "env": "CartPole-v1", "n_demos": n_demos, "seed": seed, "timesteps": 1_000, "settings": {}},
        **{"curve": curve, "return_mean": returns[-1], "score": PROTOCOL.score(returns[-1]), "error": None},
        **{"env_steps": int(steps[-1]) if acts else 0, "command": f"python -m sb3_iq.compare --first-seed {seed}"},
    }
    return {**row, **changes}


def make_run(algo: str = "iq", seed: int = 0, n_demos: int = 1, timesteps: int = 60) -> Run:
    """:return: a run of an algorithm without settings"""
    return Run(Algorithm(algo), n_demos, seed, timesteps)
