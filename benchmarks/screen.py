"""
Screens of a setting: a short run, evaluated often and in two ways, on seeds and demonstrations that no published run uses.

    export SB3_IQ_DEMOS=...                         # a folder of demonstrations, see benchmarks/README.md
    python benchmarks/screen.py lead --env Walker2d-v5 --seed 10 --settings '{"gamma": 0.99}' --folder /tmp/screens

Appends one line of JSON to ``benchmarks/results/screens.jsonl``, also for a run that is stopped (SIGTERM) before its end, and
saves the model in ``--folder``. Each evaluation is of the averaged actor, which ``predict`` uses, of the actor itself,
and of averages over fewer steps, which cost next to nothing beside.
"""

import argparse
import json
import signal
import sys
import time
from copy import deepcopy
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from run import RESULTS, git_commit
from stable_baselines3.common.callbacks import BaseCallback

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.details import ByActor, logged
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import returns_of
from sb3_iq.iq_learn.optimization import polyak_update

N_EVAL_EPISODES = 6
# Coefficients of further averages of the actor
TAUS = (1e-3, 5e-3)


class SlowDecay:
    """
    A rate that falls in a straight line to a share of its initial value.

    :param initial: the value at the start
    :param floor: the share at the end
    """

    def __init__(self, initial: float, floor: float) -> None:
        self.initial, self.floor = initial, floor

    def __call__(self, progress_remaining: float) -> float:
        return self.initial * (self.floor + (1 - self.floor) * progress_remaining)


def prior_of_replay(model: IQLearn, n: int = 2_000) -> float | None:
    """:return: the mean prior reward of the newest transitions of the replay buffer; None without a prior"""
    buffer: Any = model.replay_buffer
    if model.prior is None or buffer is None or buffer.size() < n:
        return None
    samples = buffer._get_samples((buffer.pos - 1 - np.arange(n)) % buffer.buffer_size, env=model.get_vec_normalize_env())
    return round(float(model.prior(samples).mean()), 3)


class Evaluations(BaseCallback):
    """Evaluates every so many steps."""

    model: IQLearn

    def __init__(self, env_id: str, every: int) -> None:
        super().__init__()
        self.env_id, self.every = env_id, every
        self.evaluations: list[dict[str, Any]] = []
        self.eval_time = 0.0
        self.averages: dict[float, Any] = {}

    def _on_step(self) -> bool:
        actor: Any = getattr(self.model.policy, "actor", None)
        for tau in TAUS if actor is not None else ():
            if tau not in self.averages:
                self.averages[tau] = deepcopy(actor).requires_grad_(False)
            polyak_update(actor.parameters(), self.averages[tau].parameters(), tau)
        if self.num_timesteps % self.every == 0:
            self.evaluate()
        return True

    def evaluate(self) -> None:
        """Add an evaluation of now."""
        start = time.perf_counter()
        environment = Environment(self.env_id)
        mean = returns_of(self.model, environment, N_EVAL_EPISODES)
        figures = {"mean": mean.mean(), "min": mean.min()}
        if isinstance(self.model.action_space, gym.spaces.Box):
            actors: dict[Any, Any] = {"raw": self.model.policy.actor, **self.averages}
            for name, actor in actors.items():
                returns = returns_of(ByActor(self.model, actor), environment, N_EVAL_EPISODES)
                figures |= {f"{name}_mean": returns.mean(), f"{name}_min": returns.min()}
        record = {"step": self.num_timesteps, **{key: round(float(value), 1) for key, value in figures.items()}}
        self.evaluations.append({**record, "prior_replay": prior_of_replay(self.model), "train": logged(self.model)})
        self.eval_time += time.perf_counter() - start
        print(self.evaluations[-1], flush=True)


def rates(settings: dict[str, Any]) -> dict[str, Any]:
    """:return: arguments of IQLearn, in which ``rate_floor`` has become a schedule of both learning rates"""
    settings = dict(settings)
    if "rate_floor" in settings:
        floor = settings.pop("rate_floor")
        for name in ("learning_rate", "actor_learning_rate"):
            settings[name] = SlowDecay(settings[name], floor)
    return settings


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", help="what the line is called")
    parser.add_argument("--env", required=True)
    parser.add_argument("--seed", type=int, required=True, help="of the run and of the choice of its demonstration")
    parser.add_argument("--timesteps", type=int, default=60_000)
    parser.add_argument("--eval-freq", type=int, default=5_000)
    parser.add_argument("--settings", type=json.loads, default={}, help="arguments of IQLearn, as JSON; also rate_floor")
    parser.add_argument("--n-trajectories", type=int, default=1)
    parser.add_argument("--note", default="", help="what the settings don't say")
    parser.add_argument("--folder", type=Path, default=Path("/tmp/screens"), help="where the model is saved")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    th.set_num_threads(1)
    demonstrations = load_demonstrations(
        f"demos:{arguments.env}", n_trajectories=arguments.n_trajectories, seed=arguments.seed
    )
    model = IQLearn("MlpPolicy", arguments.env, demonstrations, seed=arguments.seed, **rates(arguments.settings))
    callback = Evaluations(arguments.env, arguments.eval_freq)
    commit, start, stopped = git_commit(), time.perf_counter(), "before its end"
    try:
        model.learn(arguments.timesteps, callback)
        stopped = ""
    finally:
        wall_time = time.perf_counter() - start
        line = {
            "name": arguments.name,
            **{key: getattr(arguments, key) for key in ("env", "seed", "timesteps", "n_trajectories", "settings", "note")},
            "demos_hash": demonstrations.content_hash,
            "expert_return": round(float(np.mean(demonstrations.episode_returns)), 1),  # type: ignore[arg-type]
            "steps": model.num_timesteps,
            "stopped": stopped,
            "n_eval_episodes": N_EVAL_EPISODES,
            "evaluations": callback.evaluations,
            "train_s": round(wall_time - callback.eval_time, 1),
            "cpu_s": round(time.process_time(), 1),
            "commit": commit,
        }
        with (RESULTS / "screens.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        arguments.folder.mkdir(parents=True, exist_ok=True)
        model.save(arguments.folder / f"{arguments.name}-{arguments.env}-{arguments.seed}")


if __name__ == "__main__":
    main()
