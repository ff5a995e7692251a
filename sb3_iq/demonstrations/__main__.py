"""
A report on demonstrations: ``python -m sb3_iq.demonstrations PATH [--env ID] [--split 0.2] [--save PATH] [--plot IMAGE]``.

It tells what is in the data and what IQLearn will do about it, and exits with 1, and the reason, if IQLearn would refuse it.
"""

import argparse
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

import gymnasium as gym
from gymnasium import spaces

from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.expert_buffer import ExpertBuffer
from sb3_iq.demonstrations.loading import load_demonstrations
from sb3_iq.demonstrations.report import Finding, make_report
from sb3_iq.environments import make_env


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: the arguments, None for those of the command line
    :return: the exit status: 0, or 1 if IQLearn would refuse the data. Wrong arguments exit with 2, as in argparse
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_iq.demonstrations", description=__doc__.split("\n\n")[1])
    parser.add_argument("path", help="a path, or bundled:NAME, demos:NAME, minari:ID or hf:ORG/NAME")
    parser.add_argument("--env", metavar="ID", help="check the data against this environment, and use its time limit")
    parser.add_argument("--max-episode-steps", type=int, metavar="N", help="the time limit, if the environment has another")
    parser.add_argument("--split", type=float, metavar="SHARE", help="hold out this share of the episodes, e.g. 0.2")
    parser.add_argument("--seed", type=int, metavar="N", help="hold out random episodes; without a seed the last ones")
    parser.add_argument(
        "--save",
        type=Path,
        metavar="PATH",
        help="write a new folder or .parquet file; with --split two of them, whose names end with -train and -held-out",
    )
    parser.add_argument("--plot", type=Path, metavar="IMAGE", help="draw lengths, returns, ends and actions")
    parser.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="PACKAGE", help="to import: they register environments"
    )
    parser.add_argument("--allow-pickle", action="store_true", help="read a pickle: it can run code, so only one you trust")
    args = parser.parse_args(argv)
    if args.seed is not None and args.split is None:
        parser.error("--seed is for --split only")
    if args.seed is not None and args.seed < 0:
        parser.error(f"--seed {args.seed}: expected 0 or more")
    if args.save is not None and not args.save.name:
        parser.error(f"--save {args.save}: expected the name of a new folder or .parquet file")
    if args.split is not None and not 0 < args.split < 1:
        parser.error(f"--split {args.split:g}: expected a number between 0 and 1, e.g. 0.2")

    env = None
    if args.env is not None:
        try:
            env = make_env(args.env, args.gym_packages)
        except ValueError as error:
            parser.error(str(error))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        status = _report(args, env)
    for text in dict.fromkeys(str(warning.message) for warning in caught if issubclass(warning.category, UserWarning)):
        print(Finding("warning", text))
    return status


def _report(args: argparse.Namespace, env: gym.Env | None) -> int:
    try:
        demonstrations = load_demonstrations(
            args.path, max_episode_steps=args.max_episode_steps, env_id=args.env, allow_pickle=args.allow_pickle
        )
    except (ValueError, TypeError, OSError, ImportError, MemoryError) as error:
        return _refuse(error)
    observation_space, action_space = demonstrations.observation_space, demonstrations.action_space
    if env is not None:
        observation_space, action_space = env.observation_space, env.action_space
        if env.spec is not None and env.spec.max_episode_steps:
            demonstrations = demonstrations.with_time_limit(env.spec.max_episode_steps)
    print(Finding("demonstrations", str(args.path)))
    for finding in make_report(demonstrations, observation_space, action_space):
        print(finding)
    status = _check(demonstrations, observation_space, action_space)
    if status and args.save is not None:
        print(f"nothing is saved at {args.save}", file=sys.stderr)
        args.save = None
    try:
        _use(args, demonstrations)
    except (ValueError, ImportError, OSError) as error:
        sys.stdout.flush()
        print(f"python -m sb3_iq.demonstrations: {error}", file=sys.stderr)
        return 2
    return status


def _use(args: argparse.Namespace, demonstrations: Demonstrations) -> None:
    """Split, save and plot, as far as that is asked for."""
    parts = {"": demonstrations}
    if args.split is not None:
        parts = dict(zip(("-train", "-held-out"), demonstrations.split(args.split, args.seed), strict=True))
    for ending, part in parts.items():
        path = args.save
        if path is not None and ending:
            name = path.name.removesuffix(".parquet")
            path = path.with_name(path.name.replace(name, name + ending))
        if path is not None:
            part.save(path)
        if path is not None or ending:
            print(Finding(ending.removeprefix("-") or "saved", part.describe() + (f" -> {path}" if path else "")))
    if args.plot is not None:
        demonstrations.plot(args.plot)
        print(Finding("plot", str(args.plot)))


def _check(demonstrations: Demonstrations, observation_space: spaces.Space | None, action_space: spaces.Space | None) -> int:
    """Do what IQLearn's constructor does with the data."""
    if observation_space is None or action_space is None:
        print(Finding("IQLearn", "reads this data; give --env to check it against an environment"))
        return 0
    try:
        with_actions = any(trajectory.acts is not None for trajectory in demonstrations)
        buffer = ExpertBuffer(demonstrations, observation_space, action_space, with_actions=with_actions)
    except ValueError as error:
        return _refuse(error)
    where = f"{buffer.nbytes / 1e6:.1f} MB of memory"
    if buffer.mapped_bytes:
        where = f"{buffer.mapped_bytes / 1e6:.1f} MB of memory-mapped files"
    print(Finding("IQLearn", f"accepts this data: {buffer.size()} transitions in {where}"))
    return 0


def _refuse(error: Exception) -> int:
    sys.stdout.flush()  # what was found comes before the reason
    print(f"IQLearn refuses this data: {error}", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
