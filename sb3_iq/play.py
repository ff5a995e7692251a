"""
Demonstrations of your own, by the keys: ``python -m sb3_iq.play --env ID --out DIR``.

It opens a window on the environment, and writes the episodes that you keep in the format of ``imitation``, with a card. An
episode starts with the first key. Return keeps it at its end, Backspace drops it at any time, and Escape ends the
command. It exits with 2 if an argument is wrong, and with 1 if no episode was kept.
"""

import argparse
import ast
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym

from sb3_iq.demonstrations import Trajectory, save_trajectories
from sb3_iq.demonstrations.errors import how_to_install, shorten
from sb3_iq.environments import make_env
from sb3_iq.key_maps import KeyMap, find_keys
from sb3_iq.recording import add_arguments, check_arguments, make_card, positive, print_report

MAX_ZOOM = 20


def main(argv: Sequence[str] | None = None) -> int:
    """
    :param argv: the arguments, None for those of the command line
    :return: the exit status: 0, or 1 if nothing was recorded. Wrong arguments exit with 2, as in argparse
    """
    parser = argparse.ArgumentParser(prog="python -m sb3_iq.play", description=(__doc__ or "").split("\n\n")[1])
    add_arguments(parser)
    parser.add_argument("--n-episodes", type=positive, metavar="N", help="end when so many are kept (default: at Escape)")
    parser.add_argument("--fps", type=positive, metavar="N", help="steps a second (default: the environment's)")
    parser.add_argument("--zoom", type=float, default=1.0, metavar="F", help="enlarge the picture by this factor (default 1)")
    parser.add_argument(
        "--keys",
        nargs="+",
        default=[],
        metavar="KEY:ACTION",
        help="which key is which action, e.g. left:0 right:1 or w:[0,0.5] a+w:[-1,0.5]; keys by pygame's names",
    )
    parser.add_argument(
        "--noop", metavar="ACTION", help="the action without a key, or 'wait': the environment waits for the next one"
    )
    args = parser.parse_args(argv)
    check_arguments(parser, args)
    if not 0 < args.zoom <= MAX_ZOOM:
        parser.error(f"--zoom {args.zoom:g}: expected a number above 0, and at most {MAX_ZOOM}")
    try:
        import pygame

        from sb3_iq.game import Game, play_episodes
    except (ImportError, gym.error.DependencyNotInstalled) as error:
        parser.error(f"pygame, which opens the window, can't be imported ({error}). {how_to_install('play')}")
    env = _make_env(parser, args)
    try:
        keys = find_keys(env, _given_keys(args.keys), _noop(args.noop))
    except ValueError as error:
        parser.error(str(error))
    print(keys)
    try:
        game = Game(env, keys, args.fps, args.zoom)
    except pygame.error as error:
        parser.error(f"no window can be opened: {error}")
    except ValueError as error:
        parser.error(f"--keys {error}. Keys have pygame's names, e.g. a, left, space, left shift")
    try:
        kept, n_attempts = play_episodes(game, args.seed, args.n_episodes)
    finally:
        game.close()
    return _save(args, env, keys, game.fps, kept, n_attempts)


def _make_env(parser: argparse.ArgumentParser, args: argparse.Namespace) -> gym.Env:
    limit = {} if args.max_episode_steps is None else {"max_episode_steps": args.max_episode_steps}
    try:
        env = make_env(args.env, args.gym_packages, render_mode="rgb_array", **limit, **args.env_kwargs)
    except ValueError as error:
        parser.error(str(error))
    modes = env.metadata.get("render_modes") or []
    if "rgb_array" not in modes:
        parser.error(f"--env {args.env}: it draws no pictures to play by: its render_modes {modes} lack rgb_array")
    return env


def _given_keys(texts: Sequence[str]) -> dict[str, Any]:
    keys: dict[str, Any] = {}
    for text in texts:
        name, colon, action = text.rpartition(":")
        if not colon or not name:
            raise ValueError(f"--keys {shorten(text)}: expected KEY:ACTION, e.g. left:0")
        if name in keys:
            raise ValueError(f"--keys {name}: given twice. Give one action for each key")
        keys[name] = _literal(f"--keys {name}:", action)
    return keys


def _noop(text: str | None) -> Any:
    return text if text is None or text == "wait" else _literal("--noop", text)


def _literal(option: str, text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        raise ValueError(f"{option} {shorten(text)}: expected an action as Python writes it, e.g. 2 or [0.0, 0.5]") from None


def _save(args: argparse.Namespace, env: gym.Env, keys: KeyMap, fps: int, kept: dict[int, Trajectory], n_attempts: int) -> int:
    """Write, read again and report."""
    if not kept:
        print(f"nothing recorded: none of {n_attempts} episodes was kept", file=sys.stderr)
        return 1
    made = {
        "env_kwargs": args.env_kwargs,
        "made_by": "python -m sb3_iq.play",
        "n_attempts": n_attempts,
        "seed": args.seed,
    }
    player = {"algorithm": "a person at the keys", "keys": keys.as_text(), "noop": str(keys.noop), "fps": fps}
    spaces = env.observation_space, env.action_space
    card, episodes = make_card(args.env, env, spaces, made, player, kept), list(kept.values())
    try:
        save_trajectories(episodes, args.out, card)
    except ValueError as error:  # what was played can't be played again
        print(f"--out: {error}", file=sys.stderr)
        args.out = Path(tempfile.mkdtemp(prefix="sb3-iq-play-")) / "episodes"
        save_trajectories(episodes, args.out, card)
    headline = f"{len(kept)} of {n_attempts} episodes, played by the keys, in {args.out}"
    print_report(args, headline, spaces, {}, args.env_kwargs)
    return 0


if __name__ == "__main__":
    sys.exit(main())
