"""
Short videos of the scripted experts: an MP4 and a GIF each.

    pip install imageio imageio-ffmpeg
    MUJOCO_GL=egl python examples/experts/gallery.py --only arm --out gallery

MuJoCo draws without a display by OSMesa or EGL: set ``MUJOCO_GL`` to ``osmesa`` or ``egl``. Pong and CarRacing need neither.
"""

import argparse
import importlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import gymnasium as gym
import imageio.v2 as imageio
import numpy as np
from PIL import Image

FPS = 15
WIDTH = 240


def pong() -> tuple[gym.Env, Any, int]:
    """
    :return: Pong, its player, and every how many steps to take a frame
    """
    module = importlib.import_module("pong")
    env = module.make_env(render_mode="rgb_array")
    return env, module.PongPlayer(env), 1


def car_racing() -> tuple[gym.Env, Any, int]:
    """
    :return: CarRacing, its driver, and every how many steps to take a frame
    """
    module = importlib.import_module("car_racing")
    env = gym.make(module.env_id(), render_mode="rgb_array")
    return env, module.Driver(env), 4


def arm(task: str) -> tuple[gym.Env, Any, int]:
    """
    :param task: one of ``arm.TASKS``
    :return: the task, its player, and every how many steps to take a frame
    """
    module = importlib.import_module("arm")
    env = gym.make(module.env_id(task), render_mode="rgb_array")
    return env, module.Arm(task), 1


SCENES: dict[str, Callable[[], tuple[gym.Env, Any, int]]] = {
    "pong": pong,
    "car_racing": car_racing,
    "push": partial(arm, "FetchPush"),
    "arm": partial(arm, "FetchPickAndPlace"),
}


def film(name: str, n_frames: int, seed: int) -> list[Any]:
    """
    :param name: a key of ``SCENES``
    :param n_frames: frames at most
    :param seed: the seed of the episode
    :return: the frames, ``WIDTH`` pixels wide
    """
    env, expert, every = SCENES[name]()
    expert.reset(seed)
    obs, _ = env.reset(seed=seed)
    frames: list[Any] = []
    step, done = 0, False
    while not done and len(frames) < n_frames:
        if step % every == 0:
            image = Image.fromarray(np.asarray(env.render()))
            size = (WIDTH, round(image.height * WIDTH / image.width / 2) * 2)
            frames.append(np.asarray(image.resize(size)))
        obs, _, terminated, truncated, _ = env.step(expert(obs))
        step, done = step + 1, terminated or truncated
    env.close()
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write")
    parser.add_argument("--only", nargs="+", choices=sorted(SCENES), default=sorted(SCENES), help="which (default all)")
    parser.add_argument("--frames", type=int, default=90, metavar="N", help="frames at most (default 90)")
    parser.add_argument("--seed", type=int, default=0, help="the seed of the episode (default 0)")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in args.only:
        frames = film(name, args.frames, args.seed)
        imageio.mimsave(args.out / f"{name}.mp4", frames, fps=FPS, macro_block_size=2)
        palette = [Image.fromarray(frame).quantize(64, dither=Image.Dither.NONE) for frame in frames]
        path = args.out / f"{name}.gif"
        palette[0].save(path, save_all=True, append_images=palette[1:], duration=1000 // FPS, loop=0, optimize=True)
        print(f"{path}: {len(frames)} frames, {path.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
