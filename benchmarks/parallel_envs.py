"""
Whether parallel environments change what is learned: returns after the same numbers of gradient steps and environment steps,
with 1 environment and with 8, which take 8 gradient steps after each step of all (``train_freq=1, gradient_steps=-1``).

A line of JSON for each run is appended to ``results/parallel-envs.jsonl``, and all lines are printed as a table. Runs that
already have a line are skipped, so that an interrupted benchmark goes on where it stopped.

    python benchmarks/parallel_envs.py
"""

import argparse
import shlex
import statistics
import sys
from importlib.metadata import version

from run import RESULTS, git_commit
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.results import append_line, read_lines

PATH = RESULTS / "parallel-envs.jsonl"


def learn(env_id: str, demos: str, n_envs: int, seed: int, steps: list[int]) -> dict[str, list[float]]:
    """
    :param env_id: the environment
    :param demos: the demonstrations, of which one episode is used
    :param n_envs: how many environments run in parallel
    :param seed: the seed
    :param steps: environment steps after which the model is evaluated
    :return: gradient steps, and mean returns of 20 episodes, at each evaluation
    """
    env = make_vec_env(env_id, n_envs=n_envs, seed=seed)
    expert = load_demonstrations(demos, n_trajectories=1, seed=seed)
    model = IQLearn("MlpPolicy", env, expert, learning_starts=200, train_freq=1, gradient_steps=-1, seed=seed, device="cpu")
    eval_env = make_vec_env(env_id, n_envs=10, seed=1_000 + seed)
    result: dict[str, list[float]] = {"gradient_steps": [], "returns": []}
    for at in steps:
        model.learn(at - model.num_timesteps, reset_num_timesteps=False)
        result["gradient_steps"].append(model._n_updates)
        mean_return, _ = evaluate_policy(model, eval_env, n_eval_episodes=20)
        assert isinstance(mean_return, float)
        result["returns"].append(round(float(mean_return), 1))
    return result


def table(lines: list[dict]) -> str:
    """:return: lines of results as a Markdown table: means over the seeds, and the returns of each"""
    rows = ["| environment | environments | gradient steps | mean return | of each seed |", "|---|---|---|---|---|"]
    for env_id, n_envs in sorted({(line["env"], line["n_envs"]) for line in lines}):
        runs = [line for line in lines if (line["env"], line["n_envs"]) == (env_id, n_envs)]
        for idx, steps in enumerate(runs[0]["gradient_steps"]):
            returns = [run["returns"][idx] for run in runs]
            each = ", ".join(f"{value:.0f}" for value in returns)
            rows.append(f"| {env_id} | {n_envs} | {steps:,} | {statistics.mean(returns):.0f} | {each} |")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="CartPole-v1")
    parser.add_argument("--demos", default="bundled:CartPole-v1")
    parser.add_argument("--steps", type=int, nargs="+", default=[600, 1_200, 2_200])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    known = {"env": args.env, "demos": args.demos, "commit": git_commit(), "sb3": version("stable-baselines3")}
    known["command"] = shlex.join(["python", "benchmarks/parallel_envs.py", *sys.argv[1:]])
    lines = read_lines(PATH)
    for seed in args.seeds:
        for n_envs in (1, 8):
            of_run = {"env": args.env, "demos": args.demos, "n_envs": n_envs, "seed": seed}
            if not any(all(line[name] == value for name, value in of_run.items()) for line in lines):
                line = {**known, **of_run, **learn(args.env, args.demos, n_envs, seed, args.steps)}
                append_line(PATH, line)
                lines.append(line)
    print(table(lines))


if __name__ == "__main__":
    main()
