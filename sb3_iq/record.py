"""
Demonstrations of a trained agent: ``python -m sb3_iq.record --algo ppo --env ID -f logs/ --out DIR``.

It takes an agent from RL Zoo's folders (``-f``), or a zip of Stable-Baselines3 or sb3-contrib (``--model``), and writes raw
observations, actions and rewards in the format of ``imitation``, with a card; Dict observations take a column for each key. It
exits with 2 if an argument is wrong, and with 1 if the agent doesn't fit the environment or reaches the minimum return too
rarely. Agents hold pickles, which can run code: only those that you trust.
"""

import argparse
import math
import sys
import time
import types
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import gymnasium as gym
import numpy as np
from stable_baselines3.common.utils import set_random_seed

from sb3_iq.agents import Agent, AgentFiles, algorithms, find_in_zoo, make_env
from sb3_iq.demonstrations import Trajectory, record, save_trajectories
from sb3_iq.demonstrations.errors import shorten
from sb3_iq.demonstrations.recorder import play
from sb3_iq.environments import find_spec, import_packages
from sb3_iq.recording import add_arguments, check_arguments, make_card, positive, print_report, total_reward

_STOCHASTIC_ENTRY_POINTS = ("AtariEnv", "minigrid")  # RL Zoo draws actions there, and takes the best one elsewhere
_ATTEMPTS_PER_EPISODE = 10
_SECONDS_BETWEEN_REPORTS = 10
_ZOO_OPTIONS = ("exp_id", "load_best", "load_checkpoint", "load_last_checkpoint")
_MODEL_OPTIONS = ("vecnormalize", "env_wrapper", "frame_stack")


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
    add_arguments(parser)
    parser.add_argument("--n-episodes", type=positive, default=25, metavar="N", help="episodes to keep (default 25)")
    parser.add_argument("--min-return", type=float, metavar="R", help="keep only episodes with at least this return")
    parser.add_argument(
        "--max-attempts",
        type=positive,
        metavar="N",
        help=f"episodes to play at most (default {_ATTEMPTS_PER_EPISODE} times --n-episodes)",
    )
    actions = parser.add_mutually_exclusive_group()
    actions.add_argument("--deterministic", action="store_true", help="the agent's best actions (default, but for Atari)")
    actions.add_argument("--stochastic", action="store_true", help="draw actions from the agent's distribution")
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
    model.add_argument("--frame-stack", type=positive, metavar="N", help="the agent sees N observations at once")
    return parser


def _check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """Exit with 2 for what can be told before anything is loaded."""
    args.algo = args.algo.lower()
    if args.algo not in algorithms():
        parser.error(f"--algo {shorten(args.algo)}: expected one of {', '.join(sorted(algorithms()))}")
    for name in _MODEL_OPTIONS if args.folder else _ZOO_OPTIONS:
        if getattr(args, name) != parser.get_default(name):
            option = f"--{name.replace('_', '-')}"
            parser.error(f"{option} is for {'--model' if args.folder else '-f'} only")
    if args.min_return is not None and not math.isfinite(args.min_return):
        parser.error(f"--min-return {args.min_return}: expected a finite number. Leave it out to keep every episode")
    if args.max_attempts is None:
        args.max_attempts = args.n_episodes if args.min_return is None else _ATTEMPTS_PER_EPISODE * args.n_episodes
    if args.max_attempts < args.n_episodes:
        parser.error(f"--max-attempts {args.max_attempts} is less than --n-episodes {args.n_episodes}")
    for name in ("folder", "model", "vecnormalize"):
        path = getattr(args, name)
        if path is not None and not path.exists():
            parser.error(f"--{name} {shorten(path)}: no such file or folder")
    check_arguments(parser, args)


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
        returns.append(total_reward(episode))
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
    made = {
        "env_kwargs": files.env_kwargs,
        **files.wrappers,
        "made_by": "python -m sb3_iq.record",
        "n_attempts": len(returns),
        "min_return": args.min_return,
        "seed": args.seed,
    }
    player = {
        "algorithm": type(agent.model).__name__,
        "file": files.name,
        "timesteps": int(agent.model.num_timesteps),
        "normalised_observations": agent.sees_normalised,
        "deterministic": agent.deterministic,
    }
    spaces = agent.observation_space, agent.env.action_space
    card = make_card(files.env_id, agent.env, spaces, made, player, kept)
    save_trajectories(list(kept.values()), args.out, card)
    headline = f"{len(kept)} episodes of {files.name} in {args.out}; {played}"
    print_report(args, headline, spaces, files.wrappers, files.env_kwargs)


class _CallableModule(types.ModuleType):
    """``sb3_iq.record`` names a function and this module: whoever imported the module can call it as the function."""

    __call__ = staticmethod(record)


sys.modules[__name__].__class__ = _CallableModule


if __name__ == "__main__":
    sys.exit(main())
