"""``python -m sb3_iq.rewards --model model.zip --env ID --out DIR``: a report on a recovered reward."""

import argparse
import pathlib
import sys
from typing import get_args

import gymnasium as gym
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import IQLearn
from sb3_iq.agents import check_statistics, load_statistics
from sb3_iq.demonstrations.errors import first_words, shorten
from sb3_iq.environments import env_kwargs_of, make_env
from sb3_iq.iq_learn.settings import is_reward
from sb3_iq.recording import check_seed_and_out, positive
from sb3_iq.rewards import LearnedReward, report
from sb3_iq.rewards.parts import Form
from sb3_iq.rewards.reporting import reward_for_episodes


def main() -> int:
    """
    :return: the exit status: 1, with the reason on the standard error, where something does not fit. Wrong arguments exit
        with 2, as in argparse
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_iq.rewards", description="A report on a recovered reward")
    parser.add_argument("--model", type=pathlib.Path, required=True, help="a saved IQLearn model or LearnedReward")
    parser.add_argument("--env", required=True, help="the environment's id")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder of report.json, report.png and report.html")
    parser.add_argument("--env-kwargs", nargs="+", default=[], metavar="KEY:VALUE", help="arguments of the environment")
    parser.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="PACKAGE", help="to import: they register environments"
    )
    parser.add_argument("--n-episodes", type=positive, default=60, metavar="N", help="at least 10 (default 60)")
    parser.add_argument("--checkpoints", type=pathlib.Path, nargs="*", default=[], help="earlier models, which act as well")
    parser.add_argument("--demos", help="the model's demonstrations, where it cannot read them again by their name")
    parser.add_argument(
        "--vecnormalize",
        type=pathlib.Path,
        metavar="PKL",
        help="statistics that VecNormalize.save wrote, if it was trained so",
    )
    parser.add_argument(
        "--form",
        choices=get_args(Form),
        help="how the reward is read (default: occupancy with continuous actions and vectors, else bounded)",
    )
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    check_seed_and_out(parser, args)
    for option in ("model", "vecnormalize"):
        path = getattr(args, option)
        if path is not None and not path.is_file() and not pathlib.Path(f"{path}.zip").is_file():
            parser.error(f"--{option} {shorten(path)}: no such file")
    try:
        with make_env(args.env, args.gym_packages, **env_kwargs_of(args.env_kwargs)) as env:
            statistics = _statistics(args.vecnormalize, env, args.env)
            reward = _read("--model", args.model, statistics, args.demos, args.form)
            checkpoints = [_read("--checkpoints", path, statistics, form="bellman") for path in args.checkpoints]
            result = report(reward, env, args.n_episodes, checkpoints, seed=args.seed)
    except (ValueError, FileNotFoundError) as error:
        print(error, file=sys.stderr)
        return 1
    result.save(args.out)
    print(f"The reward in the form {result.form}:")
    for title, correlations in (("per episode", result.per_episode), ("per step", result.per_step)):
        for name, correlation in correlations.items():
            print(f"{title:<13}{name:<56}{correlation}")
    if result.epic is not None:
        print(f"{'EPIC distance':<69}{result.epic:.2f}")
    print(f"Picture, page and numbers: {args.out / 'report.html'}")
    return 0


def _statistics(path: pathlib.Path | None, env: gym.Env, env_id: str) -> VecNormalize | None:
    return None if path is None else load_statistics(path, DummyVecEnv([lambda: env]), env_id)


def _read(
    option: str, path: pathlib.Path, statistics: VecNormalize | None, demos: str | None = None, form: Form | None = None
) -> LearnedReward:
    try:
        loaded = LearnedReward.load(path) if is_reward(path) else IQLearn.load(path)
    except Exception as error:  # whatever zipfile, pickle and torch raise, and SB3's asserts
        raise ValueError(
            f"{option} {shorten(path)}: cannot be loaded as a model of IQLearn or a LearnedReward ({first_words(error)}). "
            "Give what their save() wrote"
        ) from error
    if isinstance(loaded, LearnedReward):
        return loaded.with_form(form or ("occupancy" if loaded.form == "occupancy" else "bounded"))
    check_statistics(loaded, statistics)
    if demos is not None:
        loaded.set_expert_data(demos)
    return reward_for_episodes(loaded, statistics) if form is None else LearnedReward(loaded, form, statistics)


if __name__ == "__main__":
    sys.exit(main())
