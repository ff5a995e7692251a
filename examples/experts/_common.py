"""What the scripted experts share: play, check, write with a card, and say what was recorded."""

import argparse
import contextlib
import platform
import time
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Protocol

import gymnasium as gym
import numpy as np

from sb3_iq.demonstrations import Trajectory, save_trajectories
from sb3_iq.demonstrations.recorder import play

RANDOM_EPISODES = 5
RANDOM_SEED = 20_000
PACKAGES = (
    "sb3-iq",
    "stable-baselines3",
    "gymnasium",
    "gymnasium-robotics",
    "ale-py",
    "box2d",
    "mujoco",
    "opencv-python-headless",
    "opencv-python",
    "pygame",
    "pygame-ce",
    "numpy",
    "datasets",
)


class Expert(Protocol):
    """A scripted player: it may look at the environment's state, but what it does must show in the observation."""

    def reset(self, seed: int) -> None:
        """
        :param seed: the seed of the episode, for players that draw random numbers
        """

    def __call__(self, obs: Any) -> Any:
        """
        :param obs: the observation
        :return: the action
        """


class SlippingHand(gym.ActionWrapper):
    """
    The player's hand slips now and then, and makes another move for some steps. Recorded is what the player wants, as in DART
    (https://arxiv.org/abs/1703.09327): demonstrations show how to recover, and not how to slip.

    :param env: the environment
    :param moves: what the hand may do when it slips
    :param share: of the steps in which it begins to slip, asked at each step
    :param longest: the largest number of steps that it slips for
    """

    def __init__(self, env: gym.Env, moves: Sequence[int], share: Callable[[], float], longest: int = 1) -> None:
        super().__init__(env)
        self.moves, self.share, self.longest = moves, share, longest
        self.rng = np.random.default_rng()
        self.n_left, self.move = 0, 0

    def reset(self, *, seed: int | None = None, **kwargs: Any) -> tuple[Any, dict[str, Any]]:
        """
        :param seed: of the environment and of the slips
        :param kwargs: of the environment's ``reset``
        :return: the observation and the info
        """
        if seed is not None:
            self.rng = np.random.default_rng(seed)
        self.n_left = 0
        return self.env.reset(seed=seed, **kwargs)

    def action(self, action: int) -> int:
        """
        :param action: what the player wants
        :return: what the hand does
        """
        if self.n_left == 0 and self.rng.random() < self.share():
            self.n_left, self.move = int(self.rng.integers(1, self.longest + 1)), int(self.rng.choice(self.moves))
        if self.n_left == 0:
            return action
        self.n_left -= 1
        return self.move


def make_parser(description: str | None, episodes: int) -> argparse.ArgumentParser:
    """
    :param description: the docstring of the script
    :param episodes: how many episodes it records by default
    :return: a parser with the options that all scripts have
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write: new or empty")
    parser.add_argument("--episodes", type=int, default=episodes, metavar="N", help=f"episodes to record (default {episodes})")
    parser.add_argument("--seed", type=int, default=0, help="episode k is reset with seed + k (default 0)")
    parser.add_argument(
        "--random-episodes",
        type=int,
        default=RANDOM_EPISODES,
        metavar="N",
        help=f"episodes of random actions, for the card (default {RANDOM_EPISODES})",
    )
    return parser


def check_arguments(parser: argparse.ArgumentParser, args: argparse.Namespace) -> None:
    """
    Exit with status 2 if an argument is wrong, before anything is played.

    :param parser: the parser, for its error message
    :param args: the arguments
    """
    if args.episodes < 1 or args.random_episodes < 0 or args.seed < 0:
        parser.error("expected --episodes of at least 1, and --random-episodes and --seed of at least 0")
    if args.out.exists() and not (args.out.is_dir() and not any(args.out.iterdir())):
        parser.error(f"--out {args.out} exists and is not empty: give another folder, or remove it")


def run(
    args: argparse.Namespace,
    env: gym.Env,
    expert: Expert,
    card: dict[str, Any],
    finish: Callable[[Trajectory], Trajectory] | None = None,
    succeeded: Callable[[Trajectory], bool] | None = None,
) -> list[Trajectory]:
    """
    Play the expert and random actions, write the expert's episodes with a card, and print a summary.

    :param args: the arguments of :func:`make_parser`
    :param env: the environment, which makes the observations as the learner will see them
    :param expert: the scripted player
    :param card: ``env_id``, ``env_kwargs`` and what else a learner needs to make the same environment
    :param finish: applied to each episode before it is stored, e.g. to stack frames
    :param succeeded: whether an episode reached its goal, for tasks whose return says too little
    :return: the episodes, as stored
    """
    begun = time.monotonic()
    episodes = []
    for seed in range(args.seed, args.seed + args.episodes):
        expert.reset(seed)
        episode = play(expert, env, seed)
        episodes.append(finish(episode) if finish is not None else episode)
        print(f"seed {seed}: return {_return(episode):.1f} in {len(episode)} steps", flush=True)
    seconds = time.monotonic() - begun
    env.action_space.seed(RANDOM_SEED)
    random = [play(lambda _: env.action_space.sample(), env, RANDOM_SEED + k) for k in range(args.random_episodes)]
    full = {
        "agent": {"algorithm": "scripted", "file": card["made_by"].split()[1]},
        **card,
        "observation_space": _one_line(env.observation_space),
        "action_space": _one_line(env.action_space),
        "max_episode_steps": _time_limit(env),
        "n_episodes": len(episodes),
        "n_transitions": sum(map(len, episodes)),
        "return": _summary(episodes),
        "random_return": {**_summary(random), "n_episodes": len(random)} if random else None,
        "seed": args.seed,
        "seeds": list(range(args.seed, args.seed + args.episodes)),
        "returns": [round(_return(episode), 3) for episode in episodes],
        "lengths": [len(episode) for episode in episodes],
        "terminated": [episode.terminated for episode in episodes],
        "versions": {"python": platform.python_version()} | _versions(),
    }
    if succeeded is not None:
        full["success_rate"] = float(np.mean([succeeded(episode) for episode in episodes]))
        full["random_success_rate"] = float(np.mean([succeeded(episode) for episode in random])) if random else None
    save_trajectories(episodes, args.out, full)
    n_bytes = sum(file.stat().st_size for file in args.out.iterdir())
    score = full["return"]
    print(f"{card['env_id']}: {len(episodes)} episodes, {full['n_transitions']} transitions in {seconds:.0f} s")
    print(f"expert: return {score['mean']:.1f} +/- {score['std']:.1f}, at least {score['min']:.1f}")
    if succeeded is not None:
        print(f"expert: {full['success_rate']:.0%} of the episodes reach the goal")
    if random:
        print(f"random actions: return {full['random_return']['mean']:.1f}")
    print(f"{args.out}: {n_bytes / 1e6:.1f} MB")
    return episodes


def _return(episode: Trajectory) -> float:
    return 0.0 if episode.rews is None else float(episode.rews.sum())


def _summary(episodes: list[Trajectory]) -> dict[str, float]:
    returns = np.array([_return(episode) for episode in episodes])
    return {name: round(float(getattr(returns, name)()), 3) for name in ("mean", "std", "min", "max")}


def _time_limit(env: gym.Env) -> int | None:
    return None if env.spec is None else env.spec.max_episode_steps


def _one_line(value: object) -> str:
    return " ".join(str(value).split())


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        with contextlib.suppress(PackageNotFoundError):
            found[package] = version(package)
    return found
