"""
Print what four healthy runs log, as the Markdown table of docs/guide/logs.md: the keys as means over the last tenth of the
logged lines, with the return of 20 deterministic episodes after training.

    SB3_IQ_DEMOS=... OMP_NUM_THREADS=1 python benchmarks/healthy_logs.py
"""

import argparse
import math

import numpy as np
import torch as th
from stable_baselines3.common.logger import KVWriter, Logger

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import returns_of

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


def column(env: str, n_trajectories: int, timesteps: int, offline: bool) -> list[str]:
    """
    Train with the constructor's defaults and seed 0.

    :return: the cells of one run, from top to bottom
    """
    demonstrations = load_demonstrations(f"demos:{env}", n_trajectories=n_trajectories, seed=0)
    model = IQLearn("MlpPolicy", env, demonstrations, offline=offline, seed=0)
    writer = Lines()
    model.set_logger(Logger(None, [writer]))
    model.learn(timesteps, log_interval=1)
    mean = returns_of(model, Environment(env), N_EVAL_EPISODES).mean()
    assert demonstrations.episode_returns is not None
    last = writer.lines[-math.ceil(len(writer.lines) / 10) :]
    cells = [f"{mean:.0f} ({demonstrations.episode_returns.mean():.0f})"]
    for key in KEYS:
        values = [line[key] for line in last if key in line]
        cells.append(f"{np.mean(values):.3g}" if values else "")
    return [f"{env}, {'offline' if offline else 'online'}", *cells]


def main() -> None:
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    th.set_num_threads(1)
    columns = [["", "return (expert)", *(f"`{key}`" for key in KEYS)], *(column(*run) for run in RUNS)]
    rows = ["| " + " | ".join(cells) + " |" for cells in zip(*columns, strict=True)]
    print("\n".join([rows[0], "|---" * len(columns) + "|", *rows[1:]]))


if __name__ == "__main__":
    main()
