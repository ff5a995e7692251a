"""``python -m sb3_iq.rewards --model model.zip --env ID --out DIR``: a report on a recovered reward."""

import argparse
import pathlib
import sys

from sb3_iq import IQLearn
from sb3_iq.environments import env_kwargs_of, make_env
from sb3_iq.rewards import LearnedReward, report
from sb3_iq.rewards.storage import is_reward


def main() -> int:
    """
    :return: the exit status: 1, with the reason on the standard error, where something does not fit
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_iq.rewards", description="A report on a recovered reward")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a saved IQLearn model or LearnedReward")
    parser.add_argument("--env", required=True, help="the environment's id")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of report.json, report.png and report.html")
    parser.add_argument("--env-kwargs", nargs="+", default=[], metavar="KEY:VALUE", help="arguments of the environment")
    parser.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="PACKAGE", help="to import: they register environments"
    )
    parser.add_argument("--n-episodes", type=int, default=60)
    parser.add_argument("--checkpoints", type=pathlib.Path, nargs="*", default=[], help="earlier models, which act as well")
    parser.add_argument("--demos", help="the model's demonstrations, where it cannot read them again by their name")
    parser.add_argument("--form", choices=("bellman", "advantage", "bounded"), default="bounded")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    try:
        reward = _read(args.model, args.demos).with_form(args.form)
        checkpoints = [_read(path, None) for path in args.checkpoints]
        with make_env(args.env, args.gym_packages, **env_kwargs_of(args.env_kwargs)) as env:
            result = report(reward, env, args.n_episodes, checkpoints, seed=args.seed)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    result.save(args.out)
    for title, correlations in (("per episode", result.per_episode), ("per step", result.per_step)):
        for name, correlation in correlations.items():
            print(f"{title:<13}{name:<56}{correlation}")
    if result.epic is not None:
        print(f"{'EPIC distance':<69}{result.epic:.2f}")
    print(f"Picture, page and numbers: {args.out / 'report.html'}")
    return 0


def _read(path: pathlib.Path, demos: str | None) -> LearnedReward:
    if is_reward(path):
        return LearnedReward.load(path)
    return LearnedReward(IQLearn.load(path) if demos is None else IQLearn.load(path, expert_data=demos))


if __name__ == "__main__":
    sys.exit(main())
