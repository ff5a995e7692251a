"""What the commands that record have in common: their arguments, the card beside the data, and the report on it."""

import argparse
import contextlib
import json
import os
import platform
import shlex
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import __version__
from sb3_iq.demonstrations import ExpertBuffer, Trajectory, load_demonstrations
from sb3_iq.demonstrations.errors import shorten
from sb3_iq.demonstrations.report import Finding, make_report
from sb3_iq.environments import env_kwargs_of, split_id
from sb3_iq.iq_learn.spaces_env import env_spec
from sb3_iq.observations import has_channels_last, images_of, is_small

_PACKAGES = ("stable-baselines3", "sb3-contrib", "gymnasium", "torch", "numpy", "datasets")


def positive(text: str) -> int:
    """
    :param text: an argument
    :return: the positive integer that it is
    :raises argparse.ArgumentTypeError: if it is none
    """
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shorten(text)} is not a positive integer")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """
    :param parser: a command that records: which environment, and where to
    """
    parser.add_argument("--env", required=True, metavar="ID", help="the environment")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="the folder to write, which must be new or empty"
    )
    parser.add_argument("--seed", type=int, default=0, help="episode k is reset with seed + k (default 0)")
    parser.add_argument("--max-episode-steps", type=positive, metavar="N", help="a time limit in place of the environment's")
    parser.add_argument("--env-kwargs", nargs="+", default=[], metavar="KEY:VALUE", help="arguments of the environment")
    parser.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="PACKAGE", help="to import: they register environments"
    )


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """
    Exit with 2 for what can be told before anything is made, and read ``env_kwargs``.

    :param parser: the command
    :param args: its arguments, of :func:`add_arguments`
    """
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        parser.error(f"--out {shorten(args.out)} exists and is not empty: give another folder, or remove it")
    check_seed_and_out(parser, args)
    try:
        args.env_kwargs = env_kwargs_of(args.env_kwargs)
    except ValueError as error:
        parser.error(str(error))


def check_seed_and_out(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """
    Exit with 2 if ``--seed`` is none of Gymnasium's, or ``--out`` no folder that can be written to.

    :param parser: a command that plays, and writes a folder
    :param args: its arguments
    """
    if not 0 <= args.seed < 2**31:
        parser.error(f"--seed {args.seed}: expected 0 or more, and less than 2^31")
    above = next(path for path in (args.out, *args.out.absolute().parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        parser.error(f"--out {shorten(args.out)}: {shorten(above)} is not a folder that can be written to")


def total_reward(episode: Trajectory) -> float:
    """:return: the return of an episode, 0 without rewards"""
    return 0.0 if episode.rews is None else float(episode.rews.sum())


def make_card(
    env_id: str,
    env: gym.Env,
    known_spaces: tuple[spaces.Space, spaces.Space],
    made: Mapping[str, Any],
    agent: Mapping[str, Any],
    kept: Mapping[int, Trajectory],
) -> dict[str, Any]:
    """
    :param env_id: the environment's id
    :param env: the environment
    :param known_spaces: the spaces of the observations and actions that were recorded
    :param made: how it was made, by whom, and how the episodes were chosen
    :param agent: who played
    :param kept: the episodes by the seeds of their resets
    :return: what someone who finds the data should know of it: nothing of the machine that it was recorded on
    """
    episodes = list(kept.values())
    returns = np.array([total_reward(episode) for episode in episodes])
    card = {
        "env_id": env_id,
        **made,
        "observation_space": _one_line(known_spaces[0]),
        "action_space": _one_line(known_spaces[1]),
        "max_episode_steps": env_spec(DummyVecEnv([lambda: env])).max_episode_steps,
        "agent": dict(agent),
        "n_episodes": len(episodes),
        "n_transitions": sum(map(len, episodes)),
        "return": {name: round(float(getattr(returns, name)()), 3) for name in ("mean", "std", "min", "max")},
        "seeds": list(kept),
        "returns": [round(value, 3) for value in returns.tolist()],
        "lengths": [len(episode) for episode in episodes],
        "terminated": [episode.terminated for episode in episodes],
        "versions": {"sb3-iq": __version__, "python": platform.python_version()} | _versions(),
    }
    return json.loads(json.dumps(card, default=str))  # wrappers and arguments may be any Python object


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def print_report(
    args: argparse.Namespace,
    headline: str,
    known_spaces: tuple[spaces.Space, spaces.Space],
    wrappers: Mapping[str, Any],
    env_kwargs: Mapping[str, Any],
) -> None:
    """
    Read what was written, tell what is in it, and print the command that learns from it.

    :param args: the arguments of the command
    :param headline: what was recorded
    :param known_spaces: the spaces of observations and actions
    :param wrappers: RL Zoo's names and values of what the environment is wrapped in
    :param env_kwargs: arguments of the environment
    """
    demonstrations = load_demonstrations(args.out)
    print(Finding("recorded", headline))
    for finding in make_report(demonstrations, *known_spaces):
        print(finding)
    try:
        ExpertBuffer(demonstrations, *known_spaces)
    except ValueError as error:
        print(Finding("IQLearn", f"refuses this data: {error}"))
        return
    module, env_id = split_id(args.env)  # the zoo takes the module apart from the id
    packages = [*args.gym_packages, *([] if module is None or module in args.gym_packages else [module])]
    settings = {"expert_data": str(args.out), **_policy(known_spaces[0]), **wrappers}
    command = f"rl_zoo3 train --algo iq --env {env_id} -params {_zoo_arguments(settings)}"
    command += f" --gym-packages {' '.join(packages)}" if packages else ""
    print(command + (f" --env-kwargs {_zoo_arguments(env_kwargs)}" if env_kwargs else ""))


def _policy(observation_space: spaces.Space) -> dict[str, str]:
    """Return the zoo's setting where its default, of an environment that it doesn't know, would be refused or bad."""
    if isinstance(observation_space, spaces.Dict):
        return {"policy": "MultiInputPolicy"}
    images = images_of(observation_space).values()
    return {"policy": "CnnPolicy"} if any(not (has_channels_last(image) or is_small(image)) for image in images) else {}


def _zoo_arguments(values: Mapping[str, Any]) -> str:
    """Return ``"key:value"`` pairs, quoted for a shell: the zoo evaluates each value as Python."""
    texts = [f"{key}:{value!r}" for key, value in values.items()]
    return " ".join(shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"' for text in texts)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())
