"""
Do held-out demonstrations tell how well the policy does? At each of 20 checkpoints of a run, each measure of
``sb3_iq.HeldOutCallback`` beside the true return; a line of JSON for each run in ``benchmarks/results/held-out.jsonl``.

    export SB3_IQ_DEMOS=...
    python benchmarks/held_out.py                  # the whole study, run after run; those that have a line are skipped
    python benchmarks/held_out.py --env Hopper-v5 --n-trajectories 1 --timesteps 200000 --seed 0
    python benchmarks/held_out.py --env LunarLander-v3 --n-trajectories 10 --timesteps 5000 --seed 0 --offline
    python benchmarks/held_out.py --table          # rank correlations, and the return of the checkpoint that each one chooses

Five other episodes of the same expert are held out. Rollouts and the episodes of the true return have different starts.
"""

import argparse
import itertools
import json
import platform
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from run import EVAL_SEED, N_EVAL_EPISODES, RESULTS, git_commit
from scipy.stats import spearmanr
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import HeldOutCallback, IQLearn, load_demonstrations
from sb3_iq.callbacks.held_out import MEASURES

OUT = RESULTS / "held-out.jsonl"
N_HELD_OUT = 5
N_ROLLOUTS = 5
N_CHECKPOINTS = 20


@dataclass(frozen=True)
class Run:
    env: str
    n_trajectories: int
    timesteps: int
    seed: int
    offline: bool

    def command(self) -> str:
        """:return: what repeats this run alone"""
        text = f"python benchmarks/held_out.py --env {self.env} --n-trajectories {self.n_trajectories}"
        return f"{text} --timesteps {self.timesteps} --seed {self.seed}" + (" --offline" if self.offline else "")


STUDY = [
    *(Run("LunarLander-v3", n, 5_000, seed, True) for n, seed in itertools.product((1, 10), range(3))),
    *(Run(env, 1, 200_000, seed, False) for env, seed in itertools.product(("Hopper-v5", "Walker2d-v5", "Ant-v5"), range(3))),
]


class Checkpoints(HeldOutCallback):
    """Measures the true return, too, which the callback itself never sees."""

    def __init__(self, held_out: Any, env: str, eval_freq: int) -> None:
        super().__init__(held_out, DummyVecEnv([lambda: gym.make(env)] * N_ROLLOUTS), eval_freq, N_ROLLOUTS, verbose=0)
        self.true_env = DummyVecEnv([lambda: gym.make(env)] * N_EVAL_EPISODES)

    def _measure(self) -> dict[str, float]:
        self.true_env.seed(EVAL_SEED)
        result = evaluate_policy(
            self.model, self.true_env, N_EVAL_EPISODES, deterministic=True, return_episode_rewards=True, warn=False
        )
        measures = {"return": float(np.mean(result[0])), **super()._measure()}
        print(self.num_timesteps, {name: float(f"{value:.4g}") for name, value in measures.items()}, flush=True)
        return measures


def execute(run: Run) -> dict[str, Any]:
    """:return: the line of a run"""
    th.set_num_threads(1)
    demonstrations = load_demonstrations(f"demos:{run.env}")
    order = np.random.default_rng(run.seed).permutation(len(demonstrations))
    chosen = demonstrations[order[: run.n_trajectories]]
    held_out = demonstrations[order[run.n_trajectories : run.n_trajectories + N_HELD_OUT]]
    model = IQLearn("MlpPolicy", run.env, chosen, offline=run.offline, seed=run.seed)
    checkpoints = Checkpoints(held_out, run.env, run.timesteps // N_CHECKPOINTS)
    start = time.perf_counter()
    model.learn(run.timesteps, checkpoints)
    returns = [demos.episode_returns for demos in (chosen, held_out)]
    return {
        **asdict(run),
        "expert_return": round(float(np.mean(np.concatenate([r for r in returns if r is not None]))), 2),
        "demos_hash": chosen.content_hash,
        "held_out_hash": held_out.content_hash,
        "checkpoints": [{name: float(f"{value:.6g}") for name, value in row.items()} for row in checkpoints.evaluations],
        "wall_s": round(time.perf_counter() - start, 1),
        "versions": {name: version(name) for name in ("stable-baselines3", "gymnasium", "torch", "numpy", "scipy")},
        "python": platform.python_version(),
        "commit": git_commit(),
        "command": run.command(),
    }


def score(line: dict[str, Any], measure: str) -> tuple[float, float]:
    """:return: the rank correlation of a measure (higher: better) with the return, and the return where the measure is best"""
    returns = np.array([checkpoint["return"] for checkpoint in line["checkpoints"]])
    sign = MEASURES[measure].sign if measure in MEASURES else 1
    values = sign * np.array([checkpoint[measure] for checkpoint in line["checkpoints"]])
    return float(spearmanr(values, returns).statistic), float(returns[np.argmax(values)])


def table(lines: Iterable[dict[str, Any]]) -> str:
    """:return: a Markdown table: a row for each task and measure, numbers in the order of the seeds"""
    groups = defaultdict(list)
    for line in sorted(lines, key=lambda line: line["seed"]):
        groups[line["env"], line["n_trajectories"], line["timesteps"], line["offline"]].append(line)
    rows = [
        "| task | chosen by | rank correlation, each seed | mean | return of the chosen, each seed | mean |",
        "|---|---|---|---|---|---|",
    ]
    for (env, n, timesteps, offline), runs in groups.items():
        task = f"{env}, {n} demonstration{'s' * (n > 1)}, {timesteps:,} steps {'offline' if offline else 'online'}"
        names = {"timesteps": "the last", **{measure: f"`{measure}`" for measure in MEASURES}, "return": "the return itself"}
        for index, (measure, name) in enumerate(names.items()):
            rows.append(_row("" if index else task, name, [score(line, measure) for line in runs]))
    return "\n".join(rows)


def _row(task: str, name: str, scores: list[tuple[float, float]]) -> str:
    correlations, returns = zip(*scores, strict=True)
    cells = [task, name, ", ".join(f"{value:.2f}" for value in correlations), f"{np.mean(correlations):.2f}"]
    return "| " + " | ".join([*cells, ", ".join(f"{value:.0f}" for value in returns), f"**{np.mean(returns):.0f}**"]) + " |"


def read(path: Path = OUT) -> list[dict[str, Any]]:
    """:return: the lines of the results, none if there are none yet"""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", help="one run instead of the study")
    parser.add_argument("--n-trajectories", type=int, default=1)
    parser.add_argument("--timesteps", type=int, default=200_000, help="environment steps, with --offline gradient steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--table", action="store_true", help="print the table of what there is")
    args = parser.parse_args()
    if args.table:
        print(table(read(args.out)))
        return
    runs = STUDY if args.env is None else [Run(args.env, args.n_trajectories, args.timesteps, args.seed, args.offline)]
    for run in runs:
        if any(asdict(run) == {name: line[name] for name in asdict(run)} for line in read(args.out)):
            print(f"done before: {run}")
            continue
        print(run, flush=True)
        line = json.dumps(execute(run))
        with args.out.open("a") as file:
            file.write(line + "\n")


if __name__ == "__main__":
    main()
