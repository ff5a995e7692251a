"""
Film a policy as a GIF, beside the expert that it learned from: the pictures of the README and the gallery are made by this.

    pip install pillow
    python examples/film.py --env LunarLander-v3 --demos "demos:?n_trajectories=3" --steps 5000 --offline \\
        --out docs/_static/lunarlander.gif
    MUJOCO_GL=egl python examples/film.py --env Hopper-v5 --demos demos: --model hopper.zip --beside-expert \\
        --camera track --out hopper.gif

It trains the policy, or loads it (``--model``), and prints what it returns. The expert's side is a demonstration, played again
from the seed that the card beside the data names: one that was recorded without noise. MuJoCo draws without a display where
``MUJOCO_GL`` is ``egl``, or ``osmesa``. Other environments need neither.
"""

import argparse
import importlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
from PIL import Image, ImageDraw

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.environment import Environment, policy_name
from sb3_iq.compare.evaluation import play_with_success
from sb3_iq.demonstrations import Demonstrations

FPS = 20
N_COLOURS = 64


class Start(NamedTuple):
    """
    How the filmed episode starts.

    :param seed: of the reset
    :param options: of the reset
    """

    seed: int = 0
    options: dict[str, Any] | None = None


def film(env: gym.Env, act: Callable[[Any], Any], start: Start, label: str, width: int, every: int) -> Iterator[Image.Image]:
    """
    :param env: the environment, which has ``render_mode="rgb_array"``
    :param act: from an observation to an action
    :param start: of the first episode; later ones follow where it ends
    :param label: who plays, for a corner of the picture
    :param width: of a frame, in pixels
    :param every: one frame for so many steps
    :return: the frames of the film, with the return so far
    """
    obs, _ = env.reset(seed=start.seed, options=start.options)
    step, total = 0, 0.0
    while True:
        if step % every == 0:
            image = Image.fromarray(np.asarray(env.render()))
            image = image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS)
            drawing, text = ImageDraw.Draw(image), f"{label}step {step}   return {total:.0f}"
            drawing.text((8, 6), text, fill="white", stroke_width=1, stroke_fill="black")
            yield image
        obs, reward, terminated, truncated, _ = env.step(act(obs))
        step, total = step + 1, total + float(reward)
        if terminated or truncated:
            yield image  # the end, for a moment longer
            obs, _ = env.reset()
            step, total = 0, 0.0


def start_of(demonstrations: Demonstrations, index: int) -> Start:
    """
    :param demonstrations: all of them, with a card
    :param index: of one
    :return: how its episode started
    :raises ValueError: if the card doesn't tell
    """
    card = demonstrations.card or {}
    seeds = card.get("seeds", [])
    if len(seeds) != len(demonstrations.trajectories):
        raise ValueError("--beside-expert: the card beside the demonstrations does not name the seed of each episode")
    return Start(int(seeds[index]), card.get("reset_options"))


def replay(demonstrations: Demonstrations, index: int) -> Callable[[Any], Any]:
    """
    :param demonstrations: all of them
    :param index: of one
    :return: what does its actions, one after the other. It raises a ValueError if they don't lead where they led before: what
        was recorded with noise does not play again
    """
    episode = demonstrations.trajectories[index]
    if episode.acts is None:
        raise ValueError(f"--episode {index} has no actions to play again")
    acts, step = episode.acts, 0

    def act(obs: Any) -> Any:
        nonlocal step
        now = {"": obs} if not isinstance(obs, dict) else obs
        recorded = {"": episode.obs} if not isinstance(episode.obs, dict) else episode.obs
        if step < len(episode) and not all(np.allclose(now[key], recorded[key][step], atol=1e-3) for key in recorded):
            raise ValueError(
                f"--episode {index}: it does not play again from its seed (step {step}). Was it recorded with noise?"
            )
        step += 1
        return acts[min(step, len(episode)) - 1]  # after its end the last one, until the film ends

    return act


def side_by_side(left: Image.Image, right: Image.Image) -> Image.Image:
    """
    :param left: a picture
    :param right: another one of the same size
    :return: both, with a gap
    """
    both = Image.new("RGB", (left.width + right.width + 4, left.height), "white")
    both.paste(left, (0, 0))
    both.paste(right, (left.width + 4, 0))
    return both


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True, metavar="ID", help="the environment")
    parser.add_argument("--gym-packages", nargs="*", default=[], metavar="NAME", help="modules that register environments")
    parser.add_argument("--demos", required=True, metavar="SOURCE", help="its demonstrations, as for IQLearn")
    parser.add_argument("--model", type=Path, metavar="ZIP", help="a policy that has been trained")
    parser.add_argument("--steps", type=int, metavar="N", help="what learn() is given, without --model")
    parser.add_argument("--offline", action="store_true", help="learn from the demonstrations alone")
    parser.add_argument("--seed", type=int, default=0, help="of the training (default 0)")
    parser.add_argument("--episodes", type=int, default=20, metavar="N", help="episodes of the evaluation (default 20)")
    parser.add_argument(
        "--beside-expert",
        nargs="?",
        const="",
        metavar="SOURCE",
        help="show a demonstration at the left; of SOURCE, where those to learn from were recorded with noise",
    )
    parser.add_argument("--episode", type=int, default=0, metavar="K", help="which; the policy starts as it did (default 0)")
    parser.add_argument("--seconds", type=float, default=8.0, metavar="S", help="length of the film (default 8)")
    parser.add_argument("--width", type=int, default=300, help="width of one side in pixels (default 300)")
    parser.add_argument("--camera", metavar="NAME", help="MuJoCo's camera, such as track, which follows the body")
    parser.add_argument("--every", type=int, metavar="N", help="a frame for so many steps (default: true to time)")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the GIF to write; as .mp4, by imageio-ffmpeg")
    args = parser.parse_args()
    if (args.model is None) == (args.steps is None):
        parser.error("give either --model or --steps")

    environment = Environment(args.env, packages=tuple(args.gym_packages))
    venv = environment.vectorized(args.episodes)
    if args.model is None:
        training = environment.vectorized()
        policy = policy_name(training.observation_space)
        model = IQLearn(policy, training, args.demos, offline=args.offline, seed=args.seed, verbose=1)
        model.learn(args.steps, progress_bar=True)
    else:
        model = IQLearn.load(args.model)
    returns, success_rate = play_with_success(model, venv, args.episodes)
    told = "" if success_rate is None else f", {success_rate:.0%} succeed"
    print(f"{args.env}: {returns.mean():.0f} +- {returns.std():.0f} over {args.episodes} episodes{told}")

    camera = {"camera_name": args.camera} if args.camera else {}
    player = Environment(args.env, {"render_mode": "rgb_array", **camera}, environment.packages)
    every = args.every or max(1, round(player.make().metadata.get("render_fps", FPS) / FPS))

    def predict(obs: Any) -> Any:
        return model.predict(obs, deterministic=True)[0]

    pictures: Iterator[Image.Image]
    if args.beside_expert is not None:
        source = args.beside_expert or args.demos.partition("?")[0]  # all, as the card counts them
        demonstrations = load_demonstrations(source, env_id=args.env)
        start = start_of(demonstrations, args.episode)
        expert = film(player.make(), replay(demonstrations, args.episode), start, "expert   ", args.width, every)
        imitator = film(player.make(), predict, start, "IQ-Learn   ", args.width, every)
        pictures = map(side_by_side, expert, imitator)
    else:
        pictures = film(player.make(), predict, Start(), "", args.width, every)
    frames = [next(pictures) for _ in range(round(args.seconds * FPS))]
    save(frames, args.out)
    print(f"{args.out}: {len(frames)} frames, {args.out.stat().st_size / 1e3:.0f} kB")


def save(frames: list[Image.Image], path: Path) -> None:
    """
    :param frames: of the film
    :param path: the file to write
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".mp4":
        mimsave = importlib.import_module("imageio.v2").mimsave
        mimsave(path, [np.asarray(frame) for frame in frames], fps=FPS, macro_block_size=2)
        return
    # Colours may appear later: those of five frames of the film
    together = np.concatenate([np.asarray(frame) for frame in frames[:: max(1, len(frames) // 5)]])
    palette = Image.fromarray(together).quantize(N_COLOURS, dither=Image.Dither.NONE)
    quantized = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    quantized[0].save(path, save_all=True, append_images=quantized[1:], duration=1000 // FPS, loop=0, optimize=True)


if __name__ == "__main__":
    main()
