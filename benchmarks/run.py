"""
Run the benchmarks and append one line of JSON for each run to ``benchmarks/results/<suite>.jsonl``.

    export SB3_IQ_DEMOS=...                         # a folder of demonstrations, see benchmarks/README.md
    python benchmarks/run.py --list
    python benchmarks/run.py offline-discrete --jobs 2
    python benchmarks/run.py --algo iq --env Hopper-v5 --demos demos:Hopper-v5 --n-trajectories 1 --timesteps 100000 --seed 0

Runs that already have a line are skipped, so that an interrupted suite goes on where it stopped.
"""

import argparse
import itertools
import json
import multiprocessing as mp
import os
import platform
import shlex
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
N_EVAL_EPISODES = 20
EVAL_SEED = 10_000
# What an evaluation notes of the training at that step, where the algorithm logs it
TRAIN_KEYS = ("expert_reward", "policy_reward", "q_expert", "q_policy", "entropy", "expert_log_likelihood", "critic_grad_norm")
ABLATIONS: list[dict[str, Any]] = [
    {},
    {"policy_kwargs": {"normalize_obs": False}},
    {"reward_prior": 0.0, "penalty_coef": 0.5},
    {"bc_coef": 0.0},
    {"policy_kwargs": {"actor_tau": 1.0}},
    {"objective_kwargs": {"occupancy_term": "expert_states"}},
    {"objective_kwargs": {"critic_bound": "none"}},
    {"policy_kwargs": {"layer_norm": False}},
    {"learning_rate": 5e-4, "actor_learning_rate": 3e-4},
    {"gamma": 0.99},
    {"train_freq": 1},
]


@dataclass(frozen=True)
class Run:
    """One training run; ``settings`` are arguments of IQLearn that differ from its defaults (none in most published runs)."""

    env: str
    demos: str
    n_trajectories: int
    timesteps: int
    seed: int
    algo: str = "iq"
    offline: bool = False
    subsample_freq: int = 1
    eval_freq: int = 5_000
    # So many other episodes of the same expert: at each evaluation the measures of HeldOutCallback stand beside the return
    held_out: int = 0
    settings: dict[str, Any] = field(default_factory=dict)

    def command(self, suite: str) -> str:
        """The command that repeats this run alone."""
        words = ["python", "benchmarks/run.py", "--suite", suite, "--algo", self.algo, "--env", self.env]
        words += ["--demos", self.demos, "--n-trajectories", str(self.n_trajectories), "--timesteps", str(self.timesteps)]
        words += ["--seed", str(self.seed), "--subsample-freq", str(self.subsample_freq), "--eval-freq", str(self.eval_freq)]
        words += ["--offline"] if self.offline else []
        words += ["--held-out", str(self.held_out)] if self.held_out else []
        words += ["--settings", json.dumps(self.settings)] if self.settings else []
        return 'SB3_IQ_DEMOS="$SB3_IQ_DEMOS" OMP_NUM_THREADS=1 ' + shlex.join(words)


def suites() -> dict[str, list[Run]]:
    """The published runs: the constructor's defaults, but where a setting is what is compared."""
    seeds = range(3)
    control = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "HalfCheetah-v5")
    discrete = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")
    offline = [("LunarLander-v3", 3), ("Acrobot-v1", 1), ("CartPole-v1", 10), ("MountainCar-v0", 10)]
    few = [("CartPole-v1", 1), ("Acrobot-v1", 1), ("MountainCar-v0", 1), ("LunarLander-v3", 1), ("LunarLander-v3", 3)]
    return {
        "offline-discrete": [
            Run(env, f"demos:{env}", n, 5_000, seed, algo, offline=True, eval_freq=1_000)
            for algo, (env, n), seed in itertools.product(("iq", "bc"), offline, seeds)
        ],
        "cartpole-online": [Run("CartPole-v1", "bundled:CartPole-v1", 10, 20_000, seed, eval_freq=2_000) for seed in seeds],
        "online-discrete": [
            Run(env, f"demos:{env}", 10, 15_000, seed, eval_freq=1_500)
            for env, seed in itertools.product(("LunarLander-v3", "Acrobot-v1"), seeds)
        ],
        "online-discrete-few": [
            Run(env, f"demos:{env}", n, 15_000, seed, eval_freq=1_500) for (env, n), seed in itertools.product(few, seeds)
        ],
        "subsampled-online": [
            Run("CartPole-v1", "demos:CartPole-v1", 1, 15_000, seed, subsample_freq=20, eval_freq=1_500) for seed in seeds
        ],
        "pendulum": [Run("Pendulum-v1", "demos:Pendulum-v1", 5, 20_000, seed, eval_freq=1_000) for seed in seeds],
        "mujoco": [
            *(Run(env, f"demos:{env}", 1, 200_000, 0) for env in control),
            *(Run("Hopper-v5", "demos:Hopper-v5", 1, 200_000, seed) for seed in (1, 2)),
            *(Run(env, f"demos:{env}", 1, 200_000, 0, settings={"preset": "paper"}) for env in control),
        ],
        "mujoco-bc": [
            Run(env, f"demos:{env}", 1, 10_000, seed, "bc", True, eval_freq=1_000)
            for env, seed in itertools.product(control, seeds)
        ],
        # The default without each of its ingredients, beside the default itself. Not terminal_value: where no demonstration
        # ends, a terminal state is worth 0 either way
        "ablation": [
            Run(env, f"demos:{env}", 1, 60_000, 0, settings=settings)
            for settings in ABLATIONS
            for env in ("Hopper-v5", "Walker2d-v5")
        ],
        "offline-demos": [
            Run(env, f"demos:{env}", n, 5_000, seed, algo, offline=True, eval_freq=1_000)
            for algo, env, n, seed in itertools.product(("iq", "bc"), discrete, (1, 3, 10), range(5))
        ],
        # One demonstration of which every 20th transition is seen: 25 of them, another episode for each seed
        "subsampled": [
            Run("CartPole-v1", "demos:CartPole-v1", 1, 5_000, seed, algo, offline=True, subsample_freq=20, eval_freq=1_000)
            for algo, seed in itertools.product(("iq", "bc"), range(10))
        ],
        "offline-continuous": [
            Run(env, f"demos:{env}", n, steps, seed, algo, True, eval_freq=eval_freq)
            for env, n, steps, eval_freq in (
                ("LunarLanderContinuous-v3", 10, 10_000, 1_000),
                ("BipedalWalker-v3", 5, 15_000, 2_500),
            )
            for algo, seed in itertools.product(("iq", "bc"), seeds)
        ],
        # What demonstrations that are held out tell, beside the true return, at 20 checkpoints of a run
        "held-out": [
            Run("LunarLander-v3", "demos:LunarLander-v3", n, steps, seed, offline=offline, eval_freq=steps // 20, held_out=5)
            for (steps, offline), n, seed in itertools.product(((15_000, False), (5_000, True)), (1, 10), seeds)
        ],
    }


def current_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """
    :param settings: arguments of IQLearn, also as results from before ``objective_kwargs`` have them
    :return: the same, where IQLearn takes them today
    """
    from sb3_iq.iq_learn.settings import OBJECTIVE_KWARGS

    places = {**dict.fromkeys(OBJECTIVE_KWARGS, "objective_kwargs"), "actor_tau": "policy_kwargs"}
    current = {name: value for name, value in settings.items() if name not in places}
    for name in filter(places.__contains__, settings):
        current[places[name]] = {**current.get(places[name], {}), name: settings[name]}
    return current


def logged(model: Any) -> dict[str, float]:
    """:return: the means of the latest gradient steps, and the return of the latest 100 episodes"""
    model._record_means()  # as before each line of the log
    values = model.logger.name_to_value
    train = {key: float(f"{values[f'train/{key}']:.4g}") for key in TRAIN_KEYS if f"train/{key}" in values}
    returns = [episode["r"] for episode in model.ep_info_buffer or []]
    return {**train, "ep_rew_mean": round(sum(returns) / len(returns), 2)} if returns else train


@dataclass(frozen=True)
class ByActor:
    """Predicts by an actor that it is given, where the model's own deterministic predictions are those of a moving average."""

    model: Any
    actor: Any

    def predict(self, obs: Any, *_: Any, **__: Any) -> tuple[Any, None]:
        """:return: deterministic actions, and no state"""
        import torch as th

        policy = self.model.policy
        policy.set_training_mode(False)
        with th.no_grad():
            actions = self.actor(policy.obs_to_tensor(obs)[0], deterministic=True)
        return policy.unscale_action(actions.cpu().numpy()), None


def returns_of(predictor: Any, env_id: str, n_episodes: int = N_EVAL_EPISODES) -> Any:
    """:return: returns of deterministic episodes, an array. One episode an environment: no preference for short episodes"""
    import gymnasium as gym
    import numpy as np
    from stable_baselines3.common.evaluation import evaluate_policy
    from stable_baselines3.common.vec_env import DummyVecEnv

    env = DummyVecEnv([lambda: gym.make(env_id)] * n_episodes)
    env.seed(EVAL_SEED)
    result = evaluate_policy(predictor, env, n_episodes, deterministic=True, return_episode_rewards=True, warn=False)
    env.close()
    return np.array(result[0])


def evaluations_callback(run: Run, evaluations: list[dict[str, Any]]) -> Any:
    """Evaluate deterministically every ``eval_freq`` steps, outside of the run's own random numbers."""
    import gymnasium as gym
    from stable_baselines3.common.callbacks import BaseCallback

    class Evaluations(BaseCallback):
        eval_time = 0.0

        def _on_step(self) -> bool:
            if self.num_timesteps % run.eval_freq == 0:
                start = time.perf_counter()
                returns = returns_of(self.model, run.env)
                record = {"step": self.num_timesteps, "mean": returns.mean(), "std": returns.std(), "min": returns.min()}
                if run.algo == "iq" and isinstance(self.model.action_space, gym.spaces.Box):
                    latest = returns_of(ByActor(self.model, self.model.policy.actor), run.env)
                    record |= {"latest_actor_mean": latest.mean(), "latest_actor_min": latest.min()}
                evaluations.append({key: round(float(value), 2) for key, value in record.items()})
                if run.algo == "iq":
                    evaluations[-1]["train"] = logged(self.model)
                self.eval_time += time.perf_counter() - start
                print(f"{run.algo} {run.env} seed {run.seed}: {evaluations[-1]}", flush=True)
            return True

    return Evaluations()


def execute(run: Run, suite: str) -> dict[str, Any]:
    """
    Train and evaluate.

    :return: the line of the results file
    """
    import numpy as np
    import torch as th
    from behavioural_cloning import train_behavioural_cloning

    from sb3_iq import HeldOutCallback, IQLearn, load_demonstrations
    from sb3_iq.iq_learn import NonFiniteLossError

    th.set_num_threads(1)
    demonstrations = load_demonstrations(run.demos, run.n_trajectories, run.subsample_freq, run.seed)
    model = IQLearn("MlpPolicy", run.env, demonstrations, offline=run.offline, seed=run.seed, **current_settings(run.settings))
    evaluations: list[dict[str, Any]] = []
    callback = evaluations_callback(run, evaluations)
    callbacks, measures = [callback], None
    if run.held_out:
        # A smaller choice is a part of a larger one
        more = load_demonstrations(run.demos, run.n_trajectories + run.held_out, run.subsample_freq, run.seed)
        chosen = [np.asarray(episode.obs) for episode in demonstrations]
        others = more.filter(lambda episode: not any(np.array_equal(np.asarray(episode.obs), obs) for obs in chosen))
        measures = HeldOutCallback(others, run.env, run.eval_freq, n_eval_episodes=5, verbose=0)
        callbacks += [measures]
    commit = git_commit()
    start = time.perf_counter()
    error = None
    try:
        if run.algo == "bc":
            train_behavioural_cloning(model, run.timesteps, callback)
        else:
            model.learn(run.timesteps, callbacks)
    except NonFiniteLossError as exception:  # a run that diverged is a result
        error = str(exception)
    wall_time = time.perf_counter() - start
    returns = demonstrations.episode_returns
    means = [evaluation["mean"] for evaluation in evaluations]
    rows = measures.evaluations if measures is not None else []
    return {
        **asdict(run),
        "demos_hash": demonstrations.content_hash,
        "expert_return": None if returns is None else round(float(returns.mean()), 2),
        "n_transitions": demonstrations.n_transitions,
        "final": means[-1] if means else None,
        "last_five_mean": round(sum(means[-5:]) / len(means[-5:]), 2) if means else None,
        "best": max(means) if means else None,
        "evaluations": evaluations,
        "held_out_measures": [{name: float(f"{value:.6g}") for name, value in row.items()} for row in rows],
        "n_eval_episodes": N_EVAL_EPISODES,
        "error": error,
        "train_s": round(wall_time - callback.eval_time, 1),
        "wall_s": round(wall_time, 1),
        "versions": {
            name: version(name) for name in ("sb3-iq", "stable-baselines3", "gymnasium", "torch", "numpy", "mujoco", "box2d")
        },
        "python": platform.python_version(),
        "commit": commit,
        "command": run.command(suite),
    }


def git_commit() -> str:
    """The checkout's commit, marked where tracked code differs from it."""
    arguments = ["git", "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(arguments, capture_output=True, text=True, cwd=RESULTS.parent, check=False).stdout.strip()


def identity(run: dict[str, Any]) -> dict[str, Any]:
    """:return: the fields of a run, equal for records of the same run from before a field or by older names of settings"""
    fields = {name: run[name] for name in Run.__dataclass_fields__ if name in run}
    return {"held_out": 0, **fields, "settings": current_settings(run["settings"])}


def work(job: tuple[Run, str, Path]) -> None:
    run, suite, out = job
    line = json.dumps(execute(run, suite))
    with out.open("a") as file:
        file.write(line + "\n")


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", help="suites to run; none: the single run given by the options")
    parser.add_argument("--list", action="store_true", help="list the suites and what is done")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one core each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--suite", default="single", help="name of the results file of a single run")
    parser.add_argument("--algo", choices=("iq", "bc"), default="iq")
    parser.add_argument("--env")
    parser.add_argument("--demos", help="whatever load_demonstrations takes, e.g. demos:Hopper-v5")
    parser.add_argument("--n-trajectories", type=int, default=1)
    parser.add_argument("--subsample-freq", type=int, default=1)
    parser.add_argument("--timesteps", type=int, default=20_000, help="environment steps; offline, gradient steps")
    parser.add_argument("--eval-freq", type=int, default=5_000)
    parser.add_argument("--held-out", type=int, default=0, help="so many other episodes, to measure the policy by")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={}, help="arguments of IQLearn, as JSON")
    return parser.parse_args()


def main() -> None:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = suites()
    chosen = {name: known[name] for name in (known if arguments.list and not arguments.suites else arguments.suites)}
    if arguments.env:
        chosen[arguments.suite] = [Run(**{name: getattr(arguments, name) for name in Run.__dataclass_fields__})]
    if not chosen:
        sys.exit(f"Name a suite ({', '.join(known)}) or give --env and --demos.")

    jobs = []
    for suite, runs in chosen.items():
        out = arguments.out / f"{suite}.jsonl"
        lines = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
        done = [identity(line) for line in lines]
        jobs += [(run, suite, out) for run in runs if identity(asdict(run)) not in done]
        print(f"{suite}: {len(runs)} runs, {sum(identity(asdict(run)) in done for run in runs)} done")
    if arguments.list:
        return
    os.environ["OMP_NUM_THREADS"] = "1"
    with mp.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        for _ in pool.imap_unordered(work, jobs):
            pass


if __name__ == "__main__":
    main()
