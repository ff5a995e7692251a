"""
Train fresh agents on recovered rewards, and on the true one: one line of ``results/reward-retraining.jsonl`` for each run.

    export SB3_IQ_DEMOS=... OMP_NUM_THREADS=1
    python benchmarks/reward_retraining.py --env CartPole-v1 --agent ppo --seeds 0 1 2

Models come from ``reward_models.py``, one for each seed. Runs that already have a line are skipped.
"""

import argparse
import itertools
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from reward_models import SOURCES, loaded, untrained
from run import RESULTS, git_commit
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.iq_learn.reward_priors import PRIORS
from sb3_iq.rewards import LearnedReward, LearnedRewardVecEnv

N_EVAL_EPISODES = 20
# A reward: its form and what is paid at a terminal state; "true" is the environment's own, "prior" that of the model before
# its first step: with discrete actions the offline solution
REWARDS = {
    "true": None,
    "prior": ("bounded", "absorbing"),
    "bellman": ("bellman", "absorbing"),
    "bellman-once": ("bellman", "once"),
    "advantage": ("advantage", "absorbing"),
    "bounded": ("bounded", "absorbing"),
    "occupancy": ("occupancy", "absorbing"),
}
# How the bounded form of earlier lines took ends: V(s_T) compared with the values of typical states, as a fine for bad ends
EARLIER = {"draws": ", ends by V, drawn states", "demonstrations": ", ends by V"}
AGENTS: dict[tuple[str, str], dict[str, Any]] = {
    ("CartPole-v1", "ppo"): dict(
        timesteps=100_000, n_envs=8, n_steps=64, batch_size=256, n_epochs=8, gae_lambda=0.95, learning_rate=1e-3
    ),
    ("CartPole-v1", "dqn"): dict(
        timesteps=50_000,
        n_envs=8,
        learning_rate=1e-3,
        batch_size=64,
        learning_starts=1_000,
        train_freq=32,
        gradient_steps=128,
        target_update_interval=64,
        exploration_fraction=0.16,
        exploration_final_eps=0.04,
        policy_kwargs=dict(net_arch=[128, 128]),
    ),
    ("Acrobot-v1", "ppo"): dict(timesteps=100_000, n_envs=16, n_steps=256, batch_size=512, n_epochs=4, gae_lambda=0.94),
    ("Pendulum-v1", "sac"): dict(timesteps=10_000, n_envs=1, learning_starts=1_000, learning_rate=1e-3),
    ("LunarLander-v3", "ppo"): dict(
        timesteps=500_000,
        n_envs=16,
        n_steps=512,
        batch_size=512,
        n_epochs=6,
        gae_lambda=0.98,
        learning_rate=1e-3,
        ent_coef=0.01,
    ),
    ("Hopper-v5", "sac"): dict(timesteps=300_000, n_envs=1, learning_starts=5_000),
}
ALGORITHMS: dict[str, type[BaseAlgorithm]] = {"ppo": PPO, "dqn": DQN, "sac": SAC}


def changed(env: gym.Env, physics: dict[str, float]) -> gym.Env:
    """:return: the environment with other physics"""
    for name, value in physics.items():
        assert hasattr(env.unwrapped, name), f"the environment has no {name}"
        setattr(env.unwrapped, name, value)
    return env


class Curve(BaseCallback):
    """
    The mean true return of the latest episodes at each tenth of the training.

    :param timesteps: of the training
    """

    def __init__(self, timesteps: int) -> None:
        super().__init__()
        self.every = timesteps // 10
        self.returns: list[float] = []

    def _on_step(self) -> bool:
        infos: Any = self.model.ep_info_buffer
        if self.num_timesteps >= self.every * (len(self.returns) + 1) and infos:
            self.returns.append(round(float(np.mean([info["r"] for info in infos])), 1))
        return True


def prior_name(env_id: str) -> str | None:
    """:return: which prior of rewards is the default there; None if there is none"""
    env = gym.make(env_id)
    applies = (name for name, row in PRIORS.items() if row.applies(env.observation_space, env.action_space, True))
    return next(applies, None)


def run(
    env_id: str, mode: str, seed: int, agent: str, reward: str, physics: dict[str, float], timesteps: int
) -> dict[str, Any]:
    """
    :param env_id: the environment
    :param mode: how the model was trained, ``"online"`` or ``"offline"``
    :param seed: the seed of model and agent
    :param agent: ``"ppo"``, ``"dqn"`` or ``"sac"``
    :param reward: a key of ``REWARDS``
    :param physics: attributes of the environment that the agent learns and is evaluated in, such as gravity
    :param timesteps: environment steps of the agent's training
    :return: the true returns of the agent, and of the imitator in the same environment
    """
    settings = {name: value for name, value in AGENTS[env_id, agent].items() if name not in ("timesteps", "n_envs")}
    n_envs = AGENTS[env_id, agent]["n_envs"]
    model = loaded(env_id, mode, seed)
    gamma = model.gamma
    changes = partial(changed, physics=physics)
    venv: Any = make_vec_env(env_id, n_envs, seed=seed, wrapper_class=changes)
    if (form := REWARDS[reward]) is not None:
        source = untrained(env_id, mode, seed).learn(0) if reward == "prior" else model
        venv = LearnedRewardVecEnv(venv, LearnedReward(source, form[0]), gamma=gamma, terminal_reward=form[1])  # type: ignore
    # The scale of rewards is arbitrary, also that of the true ones: each agent sees them at variance 1
    venv = VecNormalize(venv, norm_obs=False, gamma=gamma)
    learner = ALGORITHMS[agent]("MlpPolicy", venv, gamma=gamma, seed=seed, device="cpu", **settings)  # type: ignore[call-arg]
    curve = Curve(timesteps)
    start = time.perf_counter()
    learner.learn(timesteps, curve)
    seconds = time.perf_counter() - start
    eval_env = make_vec_env(env_id, N_EVAL_EPISODES, seed=10_000 + seed, wrapper_class=changes)
    returns = evaluate_policy(learner, eval_env, N_EVAL_EPISODES, return_episode_rewards=True)[0]
    eval_env.seed(10_000 + seed)
    imitator = evaluate_policy(model, eval_env, N_EVAL_EPISODES, return_episode_rewards=True)[0]
    return {
        "return": round(float(np.mean(returns)), 1),
        "worst": round(float(np.min(returns)), 1),
        "curve": curve.returns,
        "imitator": round(float(np.mean(imitator)), 1),
        "gamma": gamma,
        "seconds": round(seconds),
        "settings": {key: value for key, value in settings.items() if key != "policy_kwargs"},
    }


def table(lines: list[dict[str, Any]]) -> str:
    """:return: the lines as a Markdown table, the returns of all seeds in a row"""
    rows: dict[tuple[str, ...], dict[int, dict[str, Any]]] = {}
    for line in lines:
        env = line["env"] + "".join(f", {name} {value:g}" for name, value in line["physics"].items())
        prior = f"{line['model_prior']} prior" if line.get("model_prior") else "offline"
        reward = line["reward"] + EARLIER.get(line.get("ends") or line.get("typical") or "", "")
        model = "" if line["reward"] == "true" else prior
        rows.setdefault((env, line["agent"].upper(), reward, model, f"{line['timesteps']:,}"), {})[line["seed"]] = line
    header = ["environment", "agent", "reward", "model", "steps", "seeds", "true return", "the imitator"]
    cells = [header, ["---"] * len(header)]
    for key, seeds in sorted(rows.items()):
        runs = [seeds[seed] for seed in sorted(seeds)]
        texts = [", ".join(f"{run[name]:.0f}" for run in runs) for name in ("return", "imitator")]
        cells.append([*key, ", ".join(map(str, sorted(seeds))), *texts])
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1", choices=sorted(SOURCES))
    parser.add_argument("--modes", nargs="+", choices=("online", "offline"), default=["online"])
    parser.add_argument("--agent", default="ppo", choices=sorted(ALGORITHMS))
    parser.add_argument("--rewards", nargs="+", choices=sorted(REWARDS), default=["true", "bellman", "bounded"])
    parser.add_argument("--timesteps", type=int, help="environment steps of the agents; by default those of AGENTS")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--physics", type=json.loads, default={}, help="attributes of the environment, as JSON")
    parser.add_argument("--out", type=Path, default=RESULTS / "reward-retraining.jsonl")
    args = parser.parse_args()
    th.set_num_threads(1)

    lines = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    timesteps = args.timesteps or AGENTS[args.env, args.agent]["timesteps"]
    for mode, seed, reward in itertools.product(args.modes, args.seeds, args.rewards):
        key = {"env": args.env, "mode": mode, "agent": args.agent, "reward": reward, "seed": seed, "physics": args.physics}
        key["timesteps"] = timesteps
        if reward != "true":
            # There are lines of models with an earlier default
            key["model_prior"] = prior_name(args.env) if mode == "online" else None
        if REWARDS[reward] == ("bounded", "absorbing"):
            # There are lines of earlier forms
            key["ends"] = "likeness"
        if any(all(line.get(name) == value for name, value in key.items()) for line in lines):
            continue
        command = (
            f"python benchmarks/reward_retraining.py --env {args.env} --modes {mode} --agent {args.agent} "
            f"--rewards {reward} --timesteps {timesteps} --seeds {seed}"
        )
        if args.physics:
            command += f" --physics '{json.dumps(args.physics)}'"
        result = run(args.env, mode, seed, args.agent, reward, args.physics, timesteps)
        line = {**key, **result, "commit": git_commit(), "command": command, "gymnasium": gym.__version__}
        with args.out.open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(line, flush=True)


if __name__ == "__main__":
    main()
