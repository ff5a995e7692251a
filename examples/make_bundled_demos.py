"""
Make the demonstrations inside the package: train PPO on CartPole-v1 with Stable-Baselines3, record ten episodes.

The episodes start from wider ranges than the environment's own, so that recoveries are seen: from its usual starts an
expert hardly leaves the upright position, and a learner could not tell what to do elsewhere.

    python examples/make_bundled_demos.py --out CartPole-v1
"""

import argparse
import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import gymnasium as gym
import numpy as np
import stable_baselines3
import torch as th
from stable_baselines3 import PPO
from stable_baselines3.common.env_util import make_vec_env

from sb3_iq.demonstrations import record, save_trajectories
from sb3_iq.demonstrations.trajectory import Trajectory

ENV_ID = "CartPole-v1"
N_ENVS = 8
# RL Zoo's settings for PPO on CartPole-v1; the two rates fall linearly to zero.
LEARNING_RATE, CLIP_RANGE = 1e-3, 0.2
HYPERPARAMETERS: dict[str, Any] = {
    "n_steps": 32,
    "batch_size": 256,
    "gae_lambda": 0.8,
    "gamma": 0.98,
    "n_epochs": 20,
    "ent_coef": 0.0,
}


def linear(initial: float) -> Callable[[float], float]:
    return lambda progress_remaining: progress_remaining * initial


def with_float32_rewards(trajectory: Trajectory) -> Trajectory:
    rews = np.ones(len(trajectory), dtype=np.float32) if trajectory.rews is None else trajectory.rews.astype(np.float32)
    return Trajectory(trajectory.obs, trajectory.acts, rews, trajectory.terminated, trajectory.truncated)


def mean_return(trajectories: list[Trajectory]) -> float:
    return float(np.mean([0.0 if t.rews is None else t.rews.sum() for t in trajectories]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the training")
    parser.add_argument("--timesteps", type=int, default=100_000, help="environment steps of the training")
    parser.add_argument("--episodes", type=int, default=10, help="episodes to record")
    parser.add_argument("--first-seed", type=int, default=0, help="the seed of the first recorded episode")
    parser.add_argument(
        "--start-range", type=float, default=0.18, help="the start state is uniform in +/- this, 0.05 by default"
    )
    args = parser.parse_args()

    th.set_num_threads(1)
    vec_env = make_vec_env(ENV_ID, n_envs=N_ENVS, seed=args.seed)
    model = PPO(
        "MlpPolicy",
        vec_env,
        learning_rate=linear(LEARNING_RATE),
        clip_range=linear(CLIP_RANGE),
        seed=args.seed,
        device="cpu",
        **HYPERPARAMETERS,
    ).learn(args.timesteps)

    env = gym.make(ENV_ID)
    predict = lambda obs: int(model.predict(obs, deterministic=True)[0])  # noqa: E731
    expert = mean_return(record(predict, env, 50, seed=10_000))
    env.action_space.seed(args.seed)
    random = mean_return(record(lambda _: int(env.action_space.sample()), env, 50, seed=10_000))
    wide = {"low": -args.start_range, "high": args.start_range}
    trajectories = [with_float32_rewards(t) for t in record(predict, env, args.episodes, args.first_seed, reset_options=wide)]
    returns = [float(t.rews.sum()) for t in trajectories if t.rews is not None]
    assert env.spec is not None
    card = {
        "env_id": ENV_ID,
        "max_episode_steps": env.spec.max_episode_steps,
        "agent": {
            "algorithm": "PPO",
            "library": "stable-baselines3",
            "hyperparameters": {
                **HYPERPARAMETERS,
                "learning_rate": f"linear from {LEARNING_RATE}",
                "clip_range": f"linear from {CLIP_RANGE}",
                "n_envs": N_ENVS,
            },
            "seed": args.seed,
            "timesteps": args.timesteps,
            "deterministic": True,
        },
        "made_by": "examples/make_bundled_demos.py",
        "n_episodes": len(trajectories),
        "returns": returns,
        "lengths": [len(t) for t in trajectories],
        "seeds": list(range(args.first_seed, args.first_seed + args.episodes)),
        "reset_options": wide,
        "random_return": {"mean": round(random, 3), "n_episodes": 50, "reset_options": None},
        "expert_return": {"mean": round(expert, 3), "n_episodes": 50, "reset_options": None},
        "versions": {
            "python": platform.python_version(),
            "stable-baselines3": stable_baselines3.__version__,
            "gymnasium": gym.__version__,
            "torch": th.__version__,
            "numpy": np.__version__,
            "datasets": datasets.__version__,
        },
    }
    save_trajectories(trajectories, args.out, card)
    n_bytes = sum(file.stat().st_size for file in args.out.iterdir())
    print(f"expert {expert:.1f}, random {random:.1f}, recorded returns {returns}")
    for label, column in zip(("x", "x'", "theta", "theta'"), np.concatenate([t.obs for t in trajectories]).T, strict=True):
        print(f"{label:>6}: {column.min():+.3f} to {column.max():+.3f}, std {column.std():.3f}")
    print(f"{args.out}: {n_bytes} bytes in all")
    if min(returns) < 500:
        raise SystemExit("an episode is below 500: try another --seed or a smaller --start-range")


if __name__ == "__main__":
    main()
