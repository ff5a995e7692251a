"""
Gradient steps per second of IQLearn beside SB3's SAC and DQN, and how much of the machine they use. A table, never a test.

Continuous actions have the sizes of Hopper-v5 (11 observations, 3 actions). Settings are the defaults, so that online the
prior of rewards is part of each step; so are the networks, but DQN's, which are those of IQ-Learn. Replay buffer and
demonstrations are random numbers: no environment is stepped, but as many transitions count as new before each gradient step as
``train_freq`` says. The rows of a block take turns of 10 steps, so that whatever else the machine does meets all of them
alike; a ratio is the median of those within the blocks. With one thread, seconds are those of computing, which other
processes hardly change; with more, those of the clock. A line of JSON for each number of threads is appended to
``results/speed.jsonl``.

    python benchmarks/speed.py --threads 1 --blocks 5 --steps 200
"""

import argparse
import copy
import json
import os
import platform
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from run import RESULTS, git_commit
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.logger import configure
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from torch.utils.flop_counter import FlopCounterMode

from sb3_iq import IQLearn, SpacesEnv
from sb3_iq.demonstrations import Trajectory

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (11,), np.float64)
ACTIONS: dict[str, spaces.Space] = {"continuous": spaces.Box(-1.0, 1.0, (3,), np.float32), "discrete": spaces.Discrete(3)}
BUFFER_SIZE = 500_000
EPISODE_LENGTH = 500
SGEMM_SIZE = 1024
# Steps that a row takes before it is the next one's turn
TURN = 10


@dataclass(frozen=True)
class Row:
    """
    :param name: what is measured
    :param actions: key of ``ACTIONS``
    :param algorithm: its class
    :param batch_size: as given to ``train``: online, IQLearn adds a quarter (continuous) or as many (discrete) of the expert
    :param reference: name of the row that the ratio is to
    :param offline: argument of IQLearn
    :param compile: argument of IQLearn
    """

    name: str
    actions: str
    algorithm: type[OffPolicyAlgorithm]
    batch_size: int
    reference: str
    offline: bool = False
    compile: bool = False


ROWS = [
    Row("IQLearn, continuous, 102 + 410 rows", "continuous", IQLearn, 410, "SAC, 512 rows"),
    Row("IQLearn, continuous, 102 + 410 rows, compiled", "continuous", IQLearn, 410, "SAC, 512 rows", compile=True),
    Row("IQLearn, continuous, offline, 256 rows", "continuous", IQLearn, 256, "SAC, 512 rows", offline=True),
    Row("SAC, 256 rows", "continuous", SAC, 256, "SAC, 512 rows"),
    Row("SAC, 512 rows", "continuous", SAC, 512, "SAC, 512 rows"),
    Row("IQLearn, discrete, 256 + 256 rows", "discrete", IQLearn, 256, "DQN, 512 rows"),
    Row("IQLearn, discrete, 256 + 256 rows, compiled", "discrete", IQLearn, 256, "DQN, 512 rows", compile=True),
    Row("IQLearn, discrete, offline, 256 rows", "discrete", IQLearn, 256, "DQN, 512 rows", offline=True),
    Row("IQLearn, discrete, offline, 256 rows, compiled", "discrete", IQLearn, 256, "DQN, 512 rows", True, True),
    Row("DQN, 256 rows", "discrete", DQN, 256, "DQN, 512 rows"),
    Row("DQN, 512 rows", "discrete", DQN, 512, "DQN, 512 rows"),
]


def random_actions(actions: str, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(-1, 1, (n, 3)).astype(np.float32) if actions == "continuous" else rng.integers(3, size=n)


def random_replay_buffer(actions: str, rng: np.random.Generator) -> ReplayBuffer:
    """:return: a full replay buffer of random transitions, in episodes of random lengths"""
    buffer = ReplayBuffer(BUFFER_SIZE, OBSERVATIONS, ACTIONS[actions], device="cpu")
    buffer.observations[:] = rng.normal(size=buffer.observations.shape)
    buffer.next_observations[:] = rng.normal(size=buffer.observations.shape)
    buffer.actions[:] = random_actions(actions, BUFFER_SIZE, rng).reshape(buffer.actions.shape)
    buffer.dones[:] = rng.random(buffer.dones.shape) < 1 / EPISODE_LENGTH
    buffer.full = True
    return buffer


def random_demonstrations(actions: str, rng: np.random.Generator, n_episodes: int = 10) -> list[Trajectory]:
    return [
        Trajectory(
            obs=rng.normal(size=(EPISODE_LENGTH + 1, 11)),
            acts=random_actions(actions, EPISODE_LENGTH, rng),
            rews=None,
            terminated=False,
            truncated=True,
        )
        for _ in range(n_episodes)
    ]


class StandStill(gym.Env):
    """
    An environment that is reset and never stepped.

    :param action_space: its action space
    """

    observation_space = OBSERVATIONS

    def __init__(self, action_space: spaces.Space) -> None:
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[np.ndarray, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(OBSERVATIONS.shape), {}


def make_model(row: Row, buffer: ReplayBuffer) -> OffPolicyAlgorithm:
    """:return: a model as it is when ``learn`` begins: with the prior and the prior rewards of all that is stored"""
    kwargs: dict[str, Any] = {}
    if row.algorithm is IQLearn:
        kwargs = {"expert_data": random_demonstrations(row.actions, np.random.default_rng(0)), "offline": row.offline}
    elif row.algorithm is DQN:
        kwargs = {"policy_kwargs": {"net_arch": [256, 256]}}  # as IQ-Learn's, its own are 64 wide
    action_space = ACTIONS[row.actions]
    env: Any = SpacesEnv(OBSERVATIONS, action_space) if row.offline else StandStill(action_space)
    model = row.algorithm("MlpPolicy", env, buffer_size=BUFFER_SIZE if row.offline else 1, seed=0, device="cpu", **kwargs)
    if not row.offline:
        # The arrays are shared, the position isn't
        model.replay_buffer = copy.copy(buffer)
    model.set_logger(configure(None, []))
    model._setup_learn(1)
    assert not isinstance(model, IQLearn) or row.offline or model.prior is not None
    return model


def step(model: OffPolicyAlgorithm, batch_size: int) -> None:
    """A gradient step as SB3 calls it while it collects experience, with transitions that came in since the last one."""
    if isinstance(model, IQLearn) and not model.offline:
        frequency: Any = model.train_freq
        n_new, buffer = frequency.frequency, model.replay_buffer
        model.num_timesteps += n_new
        buffer.pos = (buffer.pos + n_new) % buffer.buffer_size  # type: ignore[union-attr]
    model.train(1, batch_size)


def flop_per_step(model: OffPolicyAlgorithm, batch_size: int) -> int:
    """:return: multiplications and additions of the matrix products in one gradient step, by torch's counter"""
    with FlopCounterMode(display=False) as counter:
        step(model, batch_size)
    return counter.get_total_flops()


def seconds(function: Callable[[], Any], n_calls: int) -> float:
    clock = time.process_time if th.get_num_threads() == 1 else time.perf_counter
    start = clock()
    for _ in range(n_calls):
        function()
    return clock() - start


def measure(rows: list[Row], n_threads: int, n_blocks: int, n_steps: int) -> dict[str, Any]:
    """
    :return: the line of the results file
    """
    th.set_num_threads(n_threads)
    buffers = {actions: random_replay_buffer(actions, np.random.default_rng(0)) for actions in ACTIONS}
    models = {row: make_model(row, buffers[row.actions]) for row in rows}
    for row, model in models.items():
        step(model, row.batch_size)  # the prior rewards of all that is stored
    flop = {row: flop_per_step(model, row.batch_size) for row, model in models.items()}
    for row, model in models.items():
        if isinstance(model, IQLearn):
            model.compile = row.compile
        seconds(partial(step, model, row.batch_size), 20)

    matrix = th.rand(SGEMM_SIZE, SGEMM_SIZE)
    rates: dict[str, list[float]] = {row.name: [] for row in rows}
    sgemm = []
    for block in range(n_blocks):
        times, sgemm_time = dict.fromkeys(rates, 0.0), 0.0
        for _ in range(0, n_steps, TURN):
            sgemm_time += seconds(lambda: matrix @ matrix, TURN)
            for row, model in models.items():
                times[row.name] += seconds(partial(step, model, row.batch_size), TURN)
        n_calls = TURN * len(range(0, n_steps, TURN))
        sgemm.append(n_calls * 2 * SGEMM_SIZE**3 / sgemm_time)
        for name, elapsed in times.items():
            rates[name].append(n_calls / elapsed)
        print(f"{n_threads} threads: block {block + 1} of {n_blocks}", file=sys.stderr, flush=True)

    median = {name: statistics.median(series) for name, series in rates.items()}
    return {
        "threads": n_threads,
        "clock": "process_time" if n_threads == 1 else "perf_counter",
        "steps": n_steps,
        "sgemm_gflop_per_s": round(statistics.median(sgemm) / 1e9, 1),
        "rows": [
            {
                **{key: value for key, value in asdict(row).items() if key != "algorithm"},
                "steps_per_s": [round(rate, 2) for rate in rates[row.name]],
                "median": round(median[row.name], 2),
                "ratio": round(statistics.median(np.divide(rates[row.name], rates[row.reference])), 3),
                "mflop_per_step": round(flop[row] / 1e6, 2),
                "gflop_per_s": round(flop[row] * median[row.name] / 1e9, 2),
            }
            for row in rows
        ],
        "cpus": os.cpu_count(),
        "cpu": cpu_name(),
        "versions": {name: version(name) for name in ("sb3-iq", "stable-baselines3", "gymnasium", "torch", "numpy")},
        "python": platform.python_version(),
        "commit": git_commit(),
    }


def cpu_name() -> str:
    """:return: the processor's model; on Linux, :mod:`platform` doesn't know it"""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.processor())


def table(line: dict[str, Any]) -> str:
    """:return: the line as a Markdown table"""
    sgemm = line["sgemm_gflop_per_s"]
    rows = [
        f"{line['threads']} thread(s), sgemm {sgemm:.0f} GFLOP/s, blocks of {line['steps']} steps:\n",
        "| | steps/s: median (min - max) | ratio | to the rate of | MFLOP a step | GFLOP/s | share of sgemm |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in line["rows"]:
        cells = [
            row["name"],
            f"{row['median']:.1f} ({min(row['steps_per_s']):.1f} - {max(row['steps_per_s']):.1f})",
            f"{row['ratio']:.2f}",
            row["reference"],
            f"{row['mflop_per_step']:.1f}",
            f"{row['gflop_per_s']:.1f}",
            f"{row['gflop_per_s'] / sgemm:.0%}",
        ]
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--steps", type=int, default=500, help="gradient steps of a block")
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled rows")
    parser.add_argument("--out", type=Path, default=RESULTS / "speed.jsonl")
    args = parser.parse_args()
    rows = [row for row in ROWS if not (row.compile and args.no_compile)]
    for n_threads in args.threads:
        command = ["python", "benchmarks/speed.py", "--threads", str(n_threads)]
        command += ["--blocks", str(args.blocks), "--steps", str(args.steps), *["--no-compile"] * args.no_compile]
        line = {**measure(rows, n_threads, args.blocks, args.steps), "command": shlex.join(command)}
        with args.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(table(line), flush=True)


if __name__ == "__main__":
    main()
