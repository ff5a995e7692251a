"""
Pong from pixels: a player of ``ALE/Pong-v5`` that reads the ball and the paddles from the console's memory.

    pip install ale-py opencv-python-headless
    python examples/experts/pong.py --episodes 20 --out demos/Pong

The environment is that of the literature: SB3's ``AtariWrapper`` (84x84 grey frames, four frames a step, up to 30 idle
frames at the start), four frames stacked, no sticky actions (``repeat_action_probability=0``, said in the card). The player
is a network that ``train_pong.py`` trained; what it decides by shows in four frames. Its hand slips now and then for up to
eight steps, mostly while no ball comes (``--slip``); recorded is what it wanted to do. Without that, all games would be nearly
the same, as the game is deterministic, and a learner would not see what to do wherever the paddle is when the ball comes back,
and after a lost point. Once this module is imported, ``gym.make("PongFrames-v0")`` makes the environment with its
frames stacked.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from _common import SlippingHand, check_arguments, make_parser, run
from pong_memory import ACTIONS, ENV_ID, PongPlayer, make_game
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_iq.demonstrations import Trajectory

STACKED_ID = "PongFrames-v0"
ENV_KWARGS: dict[str, Any] = {"frameskip": 1, "repeat_action_probability": 0.0}
FRAME_STACK = 4
LONGEST_SLIP = 8  # steps
# How often the hand slips while the ball comes, of how often it does otherwise
CARE = 0.05


def make_env(**kwargs: Any) -> gym.Env:
    """
    :param kwargs: further arguments of the environment
    :return: the game with SB3's preprocessing, which ``VecFrameStack`` has to follow for a learner
    """
    return AtariWrapper(make_game(**ENV_KWARGS, **kwargs))


def stack_frames(episode: Trajectory, n_stack: int = FRAME_STACK) -> Trajectory:
    """
    :param episode: an episode of single frames, (T + 1, height, width, channels)
    :param n_stack: how many frames make one observation
    :return: the same episode with frames stacked as ``VecFrameStack`` does
    """
    frames = np.asarray(episode.obs)
    space = gym.spaces.Box(0, 255, frames.shape[1:], np.uint8)
    stack = StackedObservations(1, n_stack, space)
    rows = [stack.reset(frames[:1])[0].copy()]
    rows += [stack.update(frame[None], np.array([False]), [{}])[0][0].copy() for frame in frames[1:]]
    return Trajectory(np.stack(rows), episode.acts, episode.rews, episode.terminated, episode.truncated)


class StackFrames(gym.ObservationWrapper):
    """
    Stack frames as ``VecFrameStack`` does, in one environment.

    :param env: the game
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.stack = StackedObservations(1, FRAME_STACK, env.observation_space)  # type: ignore[arg-type]
        self.observation_space = self.stack.stacked_observation_space

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param kwargs: those of the environment's ``reset``
        :return: the first frame after black ones, and the info
        """
        frame, info = self.env.reset(**kwargs)
        return self.stack.reset(np.asarray(frame)[None])[0].copy(), info

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """
        :param observation: a frame
        :return: the frames up to this one
        """
        stacked, _ = self.stack.update(np.asarray(observation)[None], np.array([False]), [{}])
        return stacked[0].copy()


if STACKED_ID not in gym.registry:
    gym.register(STACKED_ID, entry_point=lambda **kwargs: StackFrames(make_env(**kwargs)))


def main() -> None:
    parser = make_parser(__doc__, episodes=20)
    parser.add_argument("--slip", type=float, default=0.2, help="how often the hand slips while no ball comes (default 0.2)")
    parser.add_argument("--frame-stack", type=int, default=FRAME_STACK, metavar="N", help="frames stacked (default 4)")
    args = parser.parse_args()
    check_arguments(parser, args)
    game = make_env()
    player = PongPlayer(game)

    def share() -> float:
        return args.slip * (CARE if player.numbers.ball_comes else 1.0)

    env = SlippingHand(game, ACTIONS, share, LONGEST_SLIP)
    stacked = args.frame_stack > 1
    command = f"python examples/experts/pong.py --episodes {args.episodes} --seed {args.seed} --slip {args.slip}"
    card = {
        "env_id": ENV_ID,
        "env_kwargs": ENV_KWARGS,
        "gym_packages": ["ale_py"],
        "env_wrapper": "stable_baselines3.common.atari_wrappers.AtariWrapper",
        "agent": {"algorithm": "DQN on numbers of the console's memory", "file": "examples/experts/train_pong.py"},
        **({"frame_stack": args.frame_stack} if stacked else {}),
        "made_by": f"{command} --frame-stack {args.frame_stack}",
    }
    finish = (lambda episode: stack_frames(episode, args.frame_stack)) if stacked else None
    run(args, env, player, card, finish)


if __name__ == "__main__":
    main()
