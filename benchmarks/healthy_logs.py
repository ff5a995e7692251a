"""
What four healthy runs log: the keys as means over the last tenth of the logged lines, with the return of 20 deterministic
episodes after training. One line of ``results/healthy-logs.jsonl`` for each run.

    export SB3_IQ_DEMOS=... OMP_NUM_THREADS=1
    python benchmarks/healthy_logs.py
"""

import argparse
import math
from typing import Any

import numpy as np
import torch as th
from run import RESULTS, git_commit
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import returns_of
from sb3_iq.compare.results import append_line

PATH = RESULTS / "healthy-logs.jsonl"
N_EVAL_EPISODES = 20
# Environment, demonstrations, steps, offline
RUNS = (
    ("LunarLander-v3", 3, 5_000, True),
    ("LunarLanderContinuous-v3", 10, 5_000, True),
    ("CartPole-v1", 10, 20_000, False),
    ("Pendulum-v1", 5, 20_000, False),
)
TRAIN_KEYS = (
    *("critic_loss", "expert_term", "value_term", "penalty_term", "bc_loss", "reference_loss"),
    *("expert_reward", "policy_reward", "expert_prior", "policy_prior"),
    *("q_expert", "q_policy", "critic_grad_norm", "actor_loss", "entropy", "expert_log_likelihood", "bc_action_error"),
)
KEYS = ("rollout/ep_rew_mean", *(f"train/{key}" for key in TRAIN_KEYS))


class Lines(KVWriter):
    """Keeps what is logged."""

    def __init__(self) -> None:
        self.lines: list[dict[str, float]] = []

    def write(self, key_values: dict, key_excluded: dict, step: int = 0) -> None:
        self.lines.append(dict(key_values))

    def close(self) -> None:
        pass


def run(env: str, n_trajectories: int, timesteps: int, offline: bool) -> dict[str, Any]:
    """
    Train with the constructor's defaults and seed 0.

    :return: the line of results
    """
    demonstrations = load_demonstrations(f"demos:{env}", n_trajectories=n_trajectories, seed=0)
    model = IQLearn("MlpPolicy", env, demonstrations, offline=offline, seed=0)
    writer = Lines()
    model.set_logger(Logger(None, [writer]))
    model.learn(timesteps, log_interval=1)
    assert demonstrations.episode_returns is not None
    last = writer.lines[-math.ceil(len(writer.lines) / 10) :]
    logged = {key: [line[key] for line in last if key in line] for key in KEYS}
    return {
        "env": env,
        "n_demos": n_trajectories,
        "timesteps": timesteps,
        "offline": offline,
        "return": round(float(returns_of(model, Environment(env), N_EVAL_EPISODES).mean()), 1),
        "expert_return": round(float(demonstrations.episode_returns.mean()), 1),
        "logged": {key: float(f"{np.mean(values):.3g}") for key, values in logged.items() if values},
        "commit": git_commit(),
        "command": "python benchmarks/healthy_logs.py",
    }


def table(lines: list[dict[str, Any]]) -> str:
    """:return: the latest line of each run as a column of a Markdown table"""
    columns = [["", "demonstrations", "steps", "return (expert)", *(f"`{key}`" for key in KEYS)]]
    for line in {(line["env"], line["offline"]): line for line in lines}.values():
        steps = f"{line['timesteps']:,} {'gradient' if line['offline'] else 'environment'} steps"
        cells = [str(line["n_demos"]), steps, f"{line['return']:.0f} ({line['expert_return']:.0f})"]
        cells += [f"{line['logged'][key]:.3g}" if key in line["logged"] else "" for key in KEYS]
        columns.append([f"{line['env']}, {'offline' if line['offline'] else 'online'}", *cells])
    rows = ["| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True)]
    return "\n".join([rows[0], "|---" * len(columns) + "|", *rows[1:]])


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    th.set_num_threads(1)
    lines = []
    for arguments in RUNS:
        lines.append(run(*arguments))
        append_line(PATH, lines[-1])
    print(table(lines))


if __name__ == "__main__":
    main()
