"""
Learn from demonstrations, print what the policy returns, and film it as a GIF: the picture of the README is made by this.

    pip install pillow
    python examples/film.py --env LunarLander-v3 --demos "demos:?n_trajectories=3" --steps 5000 --offline \\
        --out docs/_static/lunarlander.gif

MuJoCo draws without a display where ``MUJOCO_GL`` is ``egl``, or ``osmesa``. Other environments need neither.
"""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_iq import IQLearn

FPS = 20


def film(model: IQLearn, env_id: str, seed: int, seconds: float, width: int) -> list[Image.Image]:
    """
    :param model: the policy
    :param env_id: the environment, which has ``render_mode="rgb_array"``
    :param seed: of the first episode; later ones follow where it ends early
    :param seconds: length of the film, in the time of the environment
    :param width: of a frame, in pixels
    :return: the frames, with the return so far in a corner
    """
    env = gym.make(env_id, render_mode="rgb_array")
    every = max(1, round(env.metadata.get("render_fps", FPS) / FPS))
    obs, _ = env.reset(seed=seed)
    frames: list[Image.Image] = []
    step, total = 0, 0.0
    while len(frames) < seconds * FPS:
        if step % every == 0:
            image = Image.fromarray(np.asarray(env.render()))
            image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
            ImageDraw.Draw(image).text((8, 6), f"step {step}   return {total:.0f}", fill="white")
            frames.append(image.quantize(64, dither=Image.Dither.NONE))
        obs, reward, terminated, truncated, _ = env.step(model.predict(obs, deterministic=True)[0])
        step, total = step + 1, total + float(reward)
        if terminated or truncated:
            obs, _ = env.reset()
            step, total = 0, 0.0
    env.close()
    return frames


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True, metavar="ID", help="the environment")
    parser.add_argument("--demos", required=True, metavar="SOURCE", help="its demonstrations, as for IQLearn")
    parser.add_argument("--steps", type=int, required=True, metavar="N", help="what learn() is given")
    parser.add_argument("--offline", action="store_true", help="learn from the demonstrations alone")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default 0)")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="episodes of the evaluation (default 20)")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="length of the film (default 8)")
    parser.add_argument("--width", type=int, default=300, help="width of the film in pixels (default 300)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the GIF to write")
    args = parser.parse_args()

    model = IQLearn("MlpPolicy", args.env, args.demos, offline=args.offline, seed=args.seed, verbose=1)
    model.learn(args.steps, progress_bar=True)
    env = Monitor(gym.make(args.env))
    env.reset(seed=10_000)
    mean, std = evaluate_policy(model, env, args.episodes, deterministic=True)
    print(f"{args.env}: {mean:.0f} +- {std:.0f} over {args.episodes} episodes, seed {args.seed}")

    frames = film(model, args.env, 0, args.seconds, args.width)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    frames[0].save(args.out, save_all=True, append_images=frames[1:], duration=1000 // FPS, loop=0, optimize=True)
    print(f"{args.out}: {len(frames)} frames, {args.out.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
