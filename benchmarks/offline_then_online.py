"""
Whether a policy that was trained offline is kept when the same model goes on online: its return at the end of the offline
training, and at evaluations over the environment steps that follow.

    SB3_IQ_DEMOS=... python benchmarks/offline_then_online.py --env LunarLander-v3 --n-trajectories 10

A line of JSON for each run is appended to ``results/offline-then-online.jsonl``, and all lines are printed as a table. Runs
that already have a line are skipped. In lines with ``"actor_waits": false``, of an earlier version, the actor followed the
critic from the first step online.
"""

import argparse
import shlex
import sys
from importlib.metadata import version
from typing import Any

import torch as th
from published import N_EVAL_EPISODES
from run import RESULTS, git_commit

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import EvaluationCallback, Evaluations, random_return, returns_of
from sb3_iq.compare.results import append_line, read_lines

PATH = RESULTS / "offline-then-online.jsonl"


def learn(args: argparse.Namespace, seed: int) -> dict[str, Any]:
    """
    :param args: the arguments of the script
    :param seed: the seed, also that of the choice of demonstrations
    :return: the mean return of the deterministic policy at the end of the offline training, and at each evaluation after it
    """
    environment = Environment(args.env)
    expert = load_demonstrations(args.demos or f"demos:{args.env}", n_trajectories=args.n_trajectories, seed=seed)
    model = IQLearn("MlpPolicy", environment.make(), expert, seed=seed, device="cpu")
    model.learn(args.offline_steps, offline=True)
    offline = float(returns_of(model, environment, N_EVAL_EPISODES).mean())
    evaluations = Evaluations(environment, N_EVAL_EPISODES, args.eval_freq, on_point=print)
    # As a user does it: the offline phase has its own schedule, the environment steps are counted from 0
    model.learn(args.timesteps, callback=EvaluationCallback(evaluations))
    return {
        "random": random_return(environment, N_EVAL_EPISODES),
        "offline": round(offline, 1),
        "steps": [int(point["step"]) for point in evaluations.points],
        "returns": [round(point["mean"], 1) for point in evaluations.points],
        "lowest_episodes": [round(point["min"], 1) for point in evaluations.points],
    }


def table(rows: list[dict[str, Any]]) -> str:
    """:return: lines of results as a Markdown table, of the same seed the latest"""
    lines = [
        "| environment | demonstrations | seed | offline | online, lowest | last | commit |",
        "|---|---|---|---|---|---|---|",
    ]
    latest = {(row["env"], row["n_trajectories"], row["seed"]): row for row in rows}
    for row in latest.values():
        numbers = f"{row['offline']:.0f} | {min(row['returns']):.0f} | {row['returns'][-1]:.0f}"
        note = "" if row.get("actor_waits", True) else ", the actor does not wait"
        lines.append(f"| {row['env']}{note} | {row['n_trajectories']} | {row['seed']} | {numbers} | {row['commit'][:7]} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True)
    parser.add_argument("--demos", help="whatever load_demonstrations takes; without it, the task's in $SB3_IQ_DEMOS")
    parser.add_argument("--n-trajectories", type=int, default=10)
    parser.add_argument("--offline-steps", type=int, default=5_000, help="gradient steps")
    parser.add_argument("--timesteps", type=int, default=10_000, help="environment steps after them")
    parser.add_argument("--eval-freq", type=int, default=1_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    th.set_num_threads(1)
    kind = {"env": args.env, "n_trajectories": args.n_trajectories, "offline_steps": args.offline_steps}
    like = [row for row in read_lines(PATH) if all(row[name] == value for name, value in kind.items())]
    finished = {row["seed"] for row in like if row["steps"][-1] == args.timesteps and row.get("actor_waits", True)}
    known = kind | {"commit": git_commit(), "sb3": version("stable-baselines3")}
    known["command"] = shlex.join(["python", "benchmarks/offline_then_online.py", *sys.argv[1:]])
    for seed in sorted(set(args.seeds) - finished):
        append_line(PATH, {**known, "seed": seed, **learn(args, seed)})
    print(table(read_lines(PATH)))


if __name__ == "__main__":
    main()
