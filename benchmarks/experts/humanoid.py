"""
Train the expert of Humanoid-v5: CrossQ (sb3-contrib) on positions and velocities, four environments, one core.

    python benchmarks/experts/humanoid.py --folder /tmp/humanoid            # trains, evaluates and saves every 50,000 steps
    python benchmarks/experts/humanoid.py --folder /tmp/humanoid --resume   # goes on from the last checkpoint
    python benchmarks/experts/humanoid.py --folder /tmp/humanoid --export benchmarks/experts/Humanoid-v5.zip

The networks read the first 45 of the 348 numbers of an observation, the positions and velocities, which are the whole state of
the simulation. The exported policy takes all 348, with weights of 0 for the others: plain sb3-contrib loads and records it.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from sb3_contrib import CrossQ
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

ENV = "Humanoid-v5"
N_STATE = 45
N_ENVS = 4
SEED = 100
EVAL_SEED = 20_000
N_EVAL_EPISODES = 10
NET_ARCH = {"pi": [256, 256], "qf": [256, 256]}


class StateOnly(gym.ObservationWrapper):
    """Positions and velocities alone."""

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(-np.inf, np.inf, (N_STATE,), np.float64)

    def observation(self, observation: np.ndarray) -> np.ndarray:
        return observation[:N_STATE]


def make_env() -> gym.Env:
    return StateOnly(gym.make(ENV))


def evaluate(model: Any, make: Any) -> dict[str, float]:
    """:return: mean, standard deviation and minimum of the deterministic policy's returns"""
    env = DummyVecEnv([make] * N_EVAL_EPISODES)
    env.seed(EVAL_SEED)
    returns = np.array(
        evaluate_policy(model, env, N_EVAL_EPISODES, deterministic=True, return_episode_rewards=True, warn=False)[0]
    )
    env.close()
    figures = {"mean": returns.mean(), "std": returns.std(), "min": returns.min()}
    return {name: round(float(figure), 1) for name, figure in figures.items()}


class Checkpoints(BaseCallback):
    """Evaluates, keeps the best policy, and saves what ``--resume`` needs."""

    def __init__(self, folder: Path, every: int) -> None:
        super().__init__()
        self.folder, self.every = folder, every
        self.start = time.perf_counter()

    def _on_step(self) -> bool:
        if self.num_timesteps % self.every < N_ENVS:
            result: dict[str, Any] = {"step": self.num_timesteps, **evaluate(self.model, make_env)}
            result["updates"] = self.model._n_updates  # type: ignore[attr-defined]
            result["train_mean"] = round(
                float(np.mean([episode["r"] for episode in self.model.ep_info_buffer or [{"r": 0}]])), 1
            )
            result["wall_s"] = round(time.perf_counter() - self.start)
            log = self.folder / "evaluations.jsonl"
            best = (
                max((json.loads(line)["mean"] for line in log.read_text().splitlines()), default=-np.inf)
                if log.exists()
                else -np.inf
            )
            with log.open("a") as file:
                file.write(json.dumps(result) + "\n")
            print(result, flush=True)
            if result["mean"] > best:
                self.model.save(self.folder / "best.zip")
            self.model.save(self.folder / "last.zip")
            self.model.save_replay_buffer(self.folder / "replay_buffer.pkl")  # type: ignore[attr-defined]
        return True


def make_model(env: Any, **arguments: Any) -> CrossQ:
    return CrossQ("MlpPolicy", env, policy_kwargs={"net_arch": NET_ARCH}, device="cpu", **arguments)


def train(arguments: argparse.Namespace) -> None:
    arguments.folder.mkdir(parents=True, exist_ok=True)
    env = make_vec_env(make_env, N_ENVS, seed=SEED + 1000 * arguments.resume)
    if arguments.resume:
        model = CrossQ.load(arguments.folder / "last.zip", env, device="cpu")
        model.load_replay_buffer(arguments.folder / "replay_buffer.pkl")
    else:
        model = make_model(
            env, batch_size=128, learning_starts=5_000, train_freq=1, gradient_steps=arguments.gradient_steps, seed=SEED
        )
    callback = Checkpoints(arguments.folder, arguments.every)
    model.learn(arguments.timesteps, callback, reset_num_timesteps=not arguments.resume)


def widened(parameter: th.Tensor, shape: th.Size, fill: float) -> th.Tensor:
    """
    :param parameter: a parameter or statistic of the networks that read ``N_STATE`` numbers
    :param shape: its shape where they read all
    :param fill: what is put in for the numbers that are not read
    :return: the parameter in that shape: the numbers follow the first ``N_STATE``, actions the observation
    """
    if parameter.shape == shape:
        return parameter
    wide = th.full(shape, fill, dtype=parameter.dtype)
    wide[..., :N_STATE] = parameter[..., :N_STATE]
    n_actions = parameter.shape[-1] - N_STATE
    if n_actions:
        wide[..., -n_actions:] = parameter[..., N_STATE:]
    return wide


def export(arguments: argparse.Namespace) -> None:
    """Save the best policy as one that takes whole observations, without optimisers."""
    narrow = CrossQ.load(arguments.folder / "best.zip", device="cpu")
    model = make_model(gym.make(ENV), buffer_size=1, seed=0)
    wide = model.policy.state_dict()
    for name, parameter in narrow.policy.state_dict().items():
        statistic = name.endswith(("running_var", "running_std"))
        # Inputs that are not read count 0 in the first layer; their statistics are those of a standard normal
        wide[name] = widened(parameter, wide[name].shape, 1.0 if statistic else 0.0)
    model.policy.load_state_dict(wide)
    arguments.export.parent.mkdir(parents=True, exist_ok=True)
    model.save(arguments.export, exclude=["ep_info_buffer", "ep_success_buffer", "ent_coef_optimizer"])
    print({"narrow": evaluate(narrow, make_env), "exported": evaluate(CrossQ.load(arguments.export), lambda: gym.make(ENV))})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True, help="checkpoints and evaluations, outside of the repository")
    parser.add_argument("--timesteps", type=int, default=5_000_000)
    parser.add_argument("--every", type=int, default=50_000, help="steps between evaluations")
    parser.add_argument("--gradient-steps", type=int, default=1, help=f"for each {N_ENVS} environment steps")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--export", type=Path, help="save the best policy there, and train nothing")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    if arguments.export:
        export(arguments)
    else:
        train(arguments)


if __name__ == "__main__":
    main()
