"""
Offline IQ-Learn on the bundled demonstrations of CartPole-v1: about a minute, no step of the environment for training.

While it learns, the policy is evaluated now and then; the learning curve goes to ``demo/``. Run it with ``make demo``.
"""

import argparse
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import torch
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.plots import Curve, Panel, figure

ENV_ID = "CartPole-v1"
DEMONSTRATIONS = f"bundled:{ENV_ID}"


def episode_returns(model: BaseAlgorithm, env: VecEnv, n_episodes: int) -> np.ndarray:
    """Returns of the deterministic policy."""
    return np.array(evaluate_policy(model, env, n_episodes, deterministic=True, return_episode_rewards=True)[0])


class LearningCurve(BaseCallback):
    """Evaluates the policy after the given numbers of gradient steps."""

    def __init__(self, eval_env: VecEnv, at: np.ndarray):
        super().__init__()
        self.eval_env, self.at = eval_env, {int(step) for step in at}
        self.points: list[tuple[int, float]] = []

    def _on_step(self) -> bool:
        if self.num_timesteps in self.at:
            self.points.append((self.num_timesteps, float(np.mean(episode_returns(self.model, self.eval_env, 10)))))
        return True


def random_returns(n_episodes: int, seed: int) -> np.ndarray:
    """Returns of uniformly random actions."""
    env = gym.make(ENV_ID)
    env.action_space.seed(seed)
    returns = []
    for episode in range(n_episodes):
        env.reset(seed=seed + episode)
        total, over = 0.0, False
        while not over:
            _, reward, terminated, truncated, _ = env.step(env.action_space.sample())
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return np.array(returns)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=10_000, help="number of gradient steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder of the figure and of the model")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)  # the networks are small

    demonstrations = load_demonstrations(DEMONSTRATIONS)
    expert_returns = demonstrations.episode_returns
    assert expert_returns is not None, "these demonstrations have rewards, for the table below; IQ-Learn never reads them"
    model = IQLearn("MlpPolicy", ENV_ID, demonstrations, offline=True, seed=args.seed)

    eval_env = make_vec_env(ENV_ID, n_envs=10, seed=args.seed + 1_000)
    curve = LearningCurve(eval_env, at=np.geomspace(10, args.steps, 60).round())  # most is learned early
    start = time.perf_counter()
    model.learn(args.steps, callback=curve, progress_bar=True)
    duration = time.perf_counter() - start
    model.save(args.out / "iq_cartpole")

    eval_env.seed(args.seed + 2_000)
    results = {
        "random": random_returns(50, args.seed),
        "expert (demonstrations)": expert_returns,
        "IQ-Learn, offline": episode_returns(model, eval_env, 50),
    }
    means = {name: float(np.mean(returns)) for name, returns in results.items()}
    print(f"\n{ENV_ID}: {args.steps} gradient steps and {len(curve.points)} evaluations in {duration:.0f} s\n")
    print(f"{'return':<24}{'mean':>8}{'std':>8}{'min':>8}{'episodes':>10}")
    for name, returns in results.items():
        print(f"{name:<24}{means[name]:>8.1f}{np.std(returns):>8.1f}{np.min(returns):>8.1f}{len(returns):>10}")

    steps, points = np.array(curve.points).T
    levels = {"expert": means["expert (demonstrations)"], "random": means["random"]}
    curves = {"IQ-Learn, offline": Curve(steps, points[None])}
    panel = Panel(f"{ENV_ID}, {len(expert_returns)} demonstrations", curves, levels, "return, mean of 10 episodes")
    figure([[panel]], "gradient steps", args.out / "learning_curve.png", xscale="log")
    print(f"\nLearning curve: {args.out / 'learning_curve.png'}\nModel:          {args.out / 'iq_cartpole.zip'}")


if __name__ == "__main__":
    main()
