"""
Correlations of recovered with true rewards on episodes of graded quality: one line of ``results/reward-correlation.jsonl``
for each form of the reward. Episodes are those of the imitator, of the same with 10, 25, 50 and 100 % random actions, and of
checkpoints.

    export SB3_IQ_DEMOS=... OMP_NUM_THREADS=1
    python benchmarks/reward_correlation.py --env LunarLander-v3 --seeds 0 1 2

Models come from ``reward_models.py``. With ``--out-reports DIR``, each report goes there as a page and a picture.
"""

import argparse
import json
from pathlib import Path

import gymnasium as gym
import torch as th
from reward_models import SOURCES, loaded, trained
from run import RESULTS, git_commit

from sb3_iq import IQLearn
from sb3_iq.rewards import LearnedReward, Report, report
from sb3_iq.rewards.epic import TRUE_REWARDS
from sb3_iq.rewards.parts import Form

FORMS: tuple[Form, ...] = ("bellman", "advantage", "bounded", "occupancy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="LunarLander-v3", choices=sorted(SOURCES))
    parser.add_argument("--mode", default="online", choices=("online", "offline"))
    parser.add_argument("--n-episodes", type=int, default=48)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "reward-correlation.jsonl")
    parser.add_argument("--out-reports", type=Path)
    args = parser.parse_args()
    th.set_num_threads(1)
    limit = gym.spec(args.env).max_episode_steps

    for seed in args.seeds:
        path = trained(args.env, args.mode, seed)
        steps = sorted(path.parent.glob("checkpoint-*.zip"), key=lambda file: int(file.stem.split("-")[1]))
        reward = LearnedReward(loaded(args.env, args.mode, seed), form="occupancy")
        checkpoints = [LearnedReward(IQLearn.load(file, device="cpu")) for file in steps]
        first = report(reward, args.env, args.n_episodes, checkpoints, seed=20_000)
        for form in FORMS:
            result = Report.of(args.env, first.episodes, reward.with_form(form), limit, TRUE_REWARDS.get(args.env))
            line = {
                "mode": args.mode,
                "seed": seed,
                "form": form,
                **result.as_dict(),
                "commit": git_commit(),
                "command": f"python benchmarks/reward_correlation.py --env {args.env} --mode {args.mode} "
                f"--n-episodes {args.n_episodes} --seeds {seed}",
            }
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(form, {name: str(value) for name, value in result.per_episode.items()}, flush=True)
            print("per step", {name: str(value) for name, value in result.per_step.items()}, "EPIC", result.epic, flush=True)
            if args.out_reports is not None:
                result.save(args.out_reports / f"{args.env}-{args.mode}-{seed}-{form}")


if __name__ == "__main__":
    main()
