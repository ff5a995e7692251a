"""
Demonstrations of a trained agent: ``python -m sb3_iq.record --algo ppo --env ID -f logs/ --out DIR``.

It takes an agent from RL Zoo's folders (``-f``), or a zip of Stable-Baselines3 or sb3-contrib (``--model``), and writes raw
observations, actions and rewards in the format of ``imitation``, with a card; Dict observations take a column for each key. It
exits with 2 if an argument is wrong, and with 1 if the agent doesn't fit the environment or reaches the minimum return too
rarely. Agents hold pickles, which can run code: only those that you trust.
"""

import argparse
import ast
import contextlib
import json
import os
import platform
import shlex
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import __version__
from sb3_iq.agents import Agent, AgentFiles, algorithms, find_in_zoo, make_env
from sb3_iq.demonstrations import ExpertBuffer, Trajectory, load_demonstrations, record, save_trajectories
from sb3_iq.demonstrations.errors import shorten
from sb3_iq.demonstrations.recorder import play
from sb3_iq.demonstrations.report import Finding, make_report
from sb3_iq.environments import find_spec, import_packages, split_id
from sb3_iq.iq_learn.spaces_env import env_spec

_STOCHASTIC_ENTRY_POINTS = ("AtariEnv", "minigrid")  # RL Zoo draws actions there, and takes the best one elsewhere
_ATTEMPTS_PER_EPISODE = 10
_SECONDS_BETWEEN_REPORTS = 10
_ZOO_OPTIONS = ("exp_id", "load_best", "load_checkpoint", "load_last_checkpoint")
_MODEL_OPTIONS = ("vecnormalize", "env_wrapper", "frame_stack")
_PACKAGES = ("stable-baselines3", "sb3-contrib", "gymnasium", "torch", "numpy", "datasets")


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: the arguments, None for those of the command line
    :return: the exit status: 0, or 1 if nothing was recorded. Wrong arguments exit with 2, as in argparse
    """
    parser = _make_parser()
    args = parser.parse_args(argv)
    _check_arguments(parser, args)
    try:
        import_packages(args.gym_packages)
        files = _agent_files(args)
        env = make_env(files, args.max_episode_steps)
    except (ImportError, OSError, ValueError) as error:
        parser.error(str(error))
    try:
        _record(args, files, env)
    except ValueError as error:
        print(f"nothing recorded: {error}", file=sys.stderr)
        return 1
    finally:
        env.close()
    return 0


def _make_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m sb3_iq.record", description=(__doc__ or "").split("\n\n")[1])
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("-f", "--folder", type=Path, metavar="DIR", help="RL Zoo's folder of agents, e.g. logs/")
    source.add_argument("--model", type=Path, metavar="ZIP", help="an agent that model.save wrote")
    parser.add_argument("--algo", required=True, help="the algorithm, by RL Zoo's name (ppo, tqc, ...) or its class's")
    parser.add_argument("--env", required=True, metavar="ID", help="the environment")
    parser.add_argument(
        "--out", required=True, type=Path, metavar="DIR", help="the folder to write, which must be new or empty"
    )
    parser.add_argument("--n-episodes", type=_positive, default=25, metavar="N", help="episodes to keep (default 25)")
    parser.add_argument("--min-return", type=float, metavar="R", help="keep only episodes with at least this return")
    parser.add_argument(
        "--max-attempts",
        type=_positive,
        metavar="N",
        help=f"episodes to play at most (default {_ATTEMPTS_PER_EPISODE} times --n-episodes)",
    )
    parser.add_argument("--seed", type=int, default=0, help="episode k is reset with seed + k (default 0)")
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--deterministic", action="store_true", help="the agent's best actions (default, but for Atari)")
    actions.add_argument("--stochastic", action="store_true", help="draw actions from the agent's distribution")
    parser.add_argument("--max-episode-steps", type=_positive, metavar="N", help="a time limit in place of the environment's")
    parser.add_argument("--env-kwargs", nargs="+", default=[], metavar="KEY:VALUE", help="arguments of the environment")
    parser.add_argument(
        "--gym-packages", nargs="+", default=[], metavar="PACKAGE", help="to import: they register environments"
    )
    parser.add_argument("--device", default="auto", help="PyTorch device (default auto)")
    zoo = parser.add_argument_group("with -f, as in rl_zoo3 enjoy")
    zoo.add_argument("--exp-id", type=int, default=0, help="the experiment (default 0, the latest; -1: no folder of its own)")
    which = zoo.add_mutually_exclusive_group()
    which.add_argument("--load-best", action="store_true", help="the best model, not the last one")
    which.add_argument("--load-checkpoint", type=int, metavar="STEP", help="the checkpoint of this step")
    which.add_argument("--load-last-checkpoint", action="store_true", help="the last checkpoint")
    model = parser.add_argument_group("with --model")
    model.add_argument("--vecnormalize", type=Path, metavar="PKL", help="statistics that VecNormalize.save wrote")
    model.add_argument("--env-wrapper", metavar="MODULE.CLASS", help="a wrapper of the environment")
    model.add_argument("--frame-stack", type=_positive, metavar="N", help="the agent sees N observations at once")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{shorten(text)} is not a positive integer")
    return int(text)


def _check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with 2 for what can be told before anything is loaded."""
    args.algo = args.algo.lower()
    if args.algo not in algorithms():
        parser.error(f"--algo {shorten(args.algo)}: expected one of {', '.join(sorted(algorithms()))}")
    for name in _MODEL_OPTIONS if args.folder else _ZOO_OPTIONS:
        if getattr(args, name) != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} is for {'--model' if args.folder else '-f'} only")
    if args.seed < 0:
        parser.error(f"--seed {args.seed}: expected 0 or more")
    if args.max_attempts is None:
        args.max_attempts = args.n_episodes if args.min_return is None else _ATTEMPTS_PER_EPISODE * args.n_episodes
    if args.max_attempts < args.n_episodes:
        parser.error(f"--max-attempts {args.max_attempts} is less than --n-episodes {args.n_episodes}")
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        parser.error(f"--out {shorten(args.out)} exists and is not empty: give another folder, or remove it")
    above = next(path for path in (args.out, *args.out.absolute().parents) if path.exists())
    if not (above.is_dir() and os.access(above, os.W_OK)):
        parser.error(f"--out {shorten(args.out)}: {shorten(above)} is not a folder that can be written to")
    for name in ("folder", "model", "vecnormalize"):
        path = getattr(args, name)
        if path is not None and not path.exists():
            parser.error(f"--{name} {shorten(path)}: no such file or folder")
    try:
        pairs = [text.split(":", maxsplit=1) for text in args.env_kwargs]
        args.env_kwargs = {key: ast.literal_eval(value) for key, value in pairs}
    except (ValueError, SyntaxError):
        parser.error(
            f"--env-kwargs {' '.join(args.env_kwargs)}: expected KEY:VALUE with Python values, e.g. gravity:-5.0 \"a:'b'\""
        )


def _agent_files(args: argparse.Namespace) -> AgentFiles:
    if args.folder is not None:
        found = find_in_zoo(args.folder, args.algo, args.env, **{name: getattr(args, name) for name in _ZOO_OPTIONS})
        return replace(found, env_kwargs={**found.env_kwargs, **args.env_kwargs})
    wrappers = {"env_wrapper": args.env_wrapper, "frame_stack": args.frame_stack}
    return AgentFiles(
        algo=args.algo,
        env_id=args.env,
        model=args.model,
        name=args.model.name,
        vecnormalize=args.vecnormalize,
        env_kwargs=args.env_kwargs,
        wrappers={key: value for key, value in wrappers.items() if value is not None},
    )


def _record(args: argparse.Namespace, files: AgentFiles, env: gym.Env) -> None:
    """Play, write, read again and report."""
    draws = any(name in str(find_spec(files.env_id).entry_point) for name in _STOCHASTIC_ENTRY_POINTS)
    agent = Agent(files, env, deterministic=args.deterministic or not (args.stochastic or draws), device=args.device)
    set_random_seed(args.seed)
    agent.model.action_space.seed(args.seed)

    kept: dict[int, Trajectory] = {}
    returns: list[float] = []
    reported = time.monotonic()
    while len(kept) < args.n_episodes and len(returns) < args.max_attempts:
        seed = args.seed + len(returns)
        agent.start_episode()
        episode = play(agent, env, seed)
        returns.append(_return(episode))
        if args.min_return is None or returns[-1] >= args.min_return:
            kept[seed] = agent.as_stacked(episode)
        if time.monotonic() - reported > _SECONDS_BETWEEN_REPORTS:
            reported = time.monotonic()
            print(f"{len(returns)} episodes played, {len(kept)} of {args.n_episodes} kept", file=sys.stderr)
    played = f"{len(returns)} episodes played, with returns of {np.mean(returns):.1f} +/- {np.std(returns):.1f}"
    if len(kept) < args.n_episodes:
        raise ValueError(
            f"only {len(kept)} of {args.n_episodes} episodes reach --min-return {args.min_return:g} ({played}, at most "
            f"{max(returns):.1f}). Lower it, raise --max-attempts, or train the agent longer"
        )
    save_trajectories(list(kept.values()), args.out, _card(args, files, agent, kept, len(returns)))
    _report(args, files, agent, played)


def _return(episode: Trajectory) -> float:
    return 0.0 if episode.rews is None else float(episode.rews.sum())


def _card(
    args: argparse.Namespace, files: AgentFiles, agent: Agent, kept: dict[int, Trajectory], n_attempts: int
) -> dict[str, Any]:
    """Return what someone who finds the data should know of it: nothing of the machine that it was recorded on."""
    episodes = list(kept.values())
    returns = np.array([_return(episode) for episode in episodes])
    card = {
        "env_id": files.env_id,
        "env_kwargs": files.env_kwargs,
        **files.wrappers,
        "observation_space": _one_line(agent.observation_space),
        "action_space": _one_line(agent.env.action_space),
        "max_episode_steps": env_spec(DummyVecEnv([lambda: agent.env])).max_episode_steps,
        "agent": {
            "algorithm": type(agent.model).__name__,
            "file": files.name,
            "timesteps": int(agent.model.num_timesteps),
            "normalised_observations": agent.sees_normalised,
            "deterministic": agent.deterministic,
        },
        "made_by": "python -m sb3_iq.record",
        "n_episodes": len(episodes),
        "n_transitions": sum(map(len, episodes)),
        "n_attempts": n_attempts,
        "min_return": args.min_return,
        "seed": args.seed,
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


def _report(args: argparse.Namespace, files: AgentFiles, agent: Agent, played: str) -> None:
    """Read what was written, and tell what is in it."""
    demonstrations = load_demonstrations(args.out)
    print(Finding("recorded", f"{len(demonstrations.trajectories)} episodes of {files.name} in {args.out}; {played}"))
    for finding in make_report(demonstrations, agent.observation_space, agent.env.action_space):
        print(finding)
    try:
        ExpertBuffer(demonstrations, agent.observation_space, agent.env.action_space)
    except ValueError as error:
        print(Finding("IQLearn", f"refuses this data: {error}"))
        return
    settings = {"expert_data": str(args.out), **files.wrappers}
    module, env_id = split_id(files.env_id)  # the zoo takes the module apart from the id
    packages = [*args.gym_packages, *([] if module is None or module in args.gym_packages else [module])]
    command = f"rl_zoo3 train --algo iq --env {env_id} -params {_zoo_arguments(settings)}"
    command += f" --gym-packages {' '.join(packages)}" if packages else ""
    print(command + (f" --env-kwargs {_zoo_arguments(files.env_kwargs)}" if files.env_kwargs else ""))


def _zoo_arguments(values: dict[str, Any]) -> str:
    """Return ``"key:value"`` pairs, quoted for a shell: the zoo evaluates each value as Python."""
    texts = [f"{key}:{value!r}" for key, value in values.items()]
    return " ".join(shlex.quote(text) if set(text) & set('"$`\\!') else f'"{text}"' for text in texts)


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


class _CallableModule(types.ModuleType):
    """``sb3_iq.record`` names a function and this module: whoever imported the module can call it as the function."""

    __call__ = staticmethod(record)


sys.modules[__name__].__class__ = _CallableModule


if __name__ == "__main__":
    sys.exit(main())
