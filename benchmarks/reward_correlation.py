"""
How well the recovered reward agrees with the true one: offline IQ-Learn on LunarLander-v3, 3 demonstrations.

For each seed, episodes of three policies (the learned one, the same with a share of random actions, a random one) are scored
by the sum of ``predict_reward`` and by the true return; their correlation is appended to ``results/reward-correlation.jsonl``.

    SB3_IQ_DEMOS="$SB3_IQ_DEMOS" OMP_NUM_THREADS=1 python benchmarks/reward_correlation.py --seeds 0 1 2
"""

import argparse
import json
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from run import RESULTS, git_commit

from sb3_iq import IQLearn, load_demonstrations

COMMAND = 'SB3_IQ_DEMOS="$SB3_IQ_DEMOS" OMP_NUM_THREADS=1 python benchmarks/reward_correlation.py'
# Share of random actions of the three policies
RANDOMNESS = {"learned": 0.0, "perturbed": 0.3, "random": 1.0}


def play(model: IQLearn, env: gym.Env, randomness: float, seed: int) -> dict[str, Any]:
    """:return: the true return, the sum of recovered rewards and the length of one episode"""
    rng = np.random.default_rng(seed)
    steps = []
    obs, _ = env.reset(seed=seed)
    over = False
    while not over:
        if rng.random() < randomness:
            action = int(rng.integers(env.action_space.n))  # type: ignore[attr-defined]
        else:
            action = int(model.predict(obs, deterministic=True)[0])
        next_obs, reward, terminated, truncated, _ = env.step(action)
        steps.append((obs, action, next_obs, terminated, float(reward)))
        obs, over = next_obs, terminated or truncated
    observations, actions, next_observations, dones, rewards = map(np.array, zip(*steps, strict=True))
    recovered = model.predict_reward(observations, actions, next_observations, dones)
    step_correlation = np.corrcoef(recovered, rewards)[0, 1]
    return {"true": rewards.sum(), "recovered": recovered.sum(), "length": len(rewards), "step": step_correlation}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="LunarLander-v3")
    parser.add_argument("--n-trajectories", type=int, default=3)
    parser.add_argument("--timesteps", type=int, default=5_000)
    parser.add_argument("--n-episodes", type=int, default=30, help="for each of the three policies")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "reward-correlation.jsonl")
    args = parser.parse_args()
    th.set_num_threads(1)

    for seed in args.seeds:
        demonstrations = load_demonstrations(f"demos:{args.env}", n_trajectories=args.n_trajectories, seed=seed)
        model = IQLearn("MlpPolicy", args.env, demonstrations, offline=True, seed=seed).learn(args.timesteps)
        env = gym.make(args.env)
        episodes = [
            {"policy": policy, **play(model, env, randomness, 20_000 + episode)}
            for policy, randomness in RANDOMNESS.items()
            for episode in range(args.n_episodes)
        ]
        columns = (np.array([episode[key] for episode in episodes]) for key in ("true", "recovered", "length"))
        true, recovered, length = columns
        rank_true, rank_recovered = true.argsort().argsort(), recovered.argsort().argsort()
        line = {
            "env": args.env,
            "n_trajectories": args.n_trajectories,
            "timesteps": args.timesteps,
            "seed": seed,
            "n_episodes": len(episodes),
            "pearson": round(float(np.corrcoef(true, recovered)[0, 1]), 4),
            "spearman": round(float(np.corrcoef(rank_true, rank_recovered)[0, 1]), 4),
            "pearson_of_length_and_return": round(float(np.corrcoef(true, length)[0, 1]), 4),
            "mean_pearson_of_steps": round(float(np.nanmean([episode["step"] for episode in episodes])), 4),
            "mean_true": {p: round(float(np.mean([e["true"] for e in episodes if e["policy"] == p])), 1) for p in RANDOMNESS},
            "mean_recovered": {
                p: round(float(np.mean([e["recovered"] for e in episodes if e["policy"] == p])), 2) for p in RANDOMNESS
            },
            "demos_hash": demonstrations.content_hash,
            "commit": git_commit(),
            "command": f"{COMMAND} --env {args.env} --n-trajectories {args.n_trajectories} --timesteps {args.timesteps} "
            f"--n-episodes {args.n_episodes} --seeds {seed}",
        }
        with args.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
