"""
CartPole from pixels: two frames of 42x42 grey pixels, and a balance controller of one line.

    python examples/experts/cartpole_frames.py --episodes 10 --out demos/CartPoleFrames

The frames are drawn by a few lines of numpy, so that nothing but gymnasium is needed, and thousands of them take a second.
The channels are the frame before and the frame now, so that velocities show. ``make_env()`` makes the environment, and
``gym.make("CartPoleFrames-v0")`` too once this module is imported. The hand slips now and then (``--slip``), and what it meant
is recorded: without slips, the pole hardly leaves the vertical, and the demonstrations don't show how to bring it back.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from _common import SlippingHand, check_arguments, make_parser, run

ENV_ID = "CartPoleFrames-v0"
MAX_EPISODE_STEPS = 500
SIZE = 42
POLE_PIXELS = 24.0
ROW_OF_CART = 33
VIEW = 2.6  # the frame shows positions within this
ANGLE_SCALE = 4.0  # the pole is drawn tilted by this times its angle: an episode ends at 12 degrees
# Half of the widths of the two blurred strokes, in pixels
CART_WIDTH, CART_HEIGHT, POLE_WIDTH = 4.0, 2.0, 1.0
GAINS = np.array([0.2, 0.4, 2.5, 1.0])


class CartPoleFrames(gym.ObservationWrapper):
    """
    Draw CartPole's state.

    :param env: CartPole
    """

    def __init__(self, env: gym.Env) -> None:
        super().__init__(env)
        self.observation_space = gym.spaces.Box(0, 255, (2, SIZE, SIZE), np.uint8)
        self.rows, self.columns = np.mgrid[0:SIZE, 0:SIZE].astype(np.float64)
        self.frame = np.zeros((SIZE, SIZE), np.uint8)

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param kwargs: those of the environment's ``reset``
        :return: the first frame twice, and the info
        """
        state, info = self.env.reset(**kwargs)
        self.frame = self.draw(state)
        return np.stack([self.frame, self.frame]), info

    def observation(self, observation: np.ndarray) -> np.ndarray:
        """
        :param observation: CartPole's state
        :return: the frame before and the frame now
        """
        before, self.frame = self.frame, self.draw(observation)
        return np.stack([before, self.frame])

    def draw(self, state: np.ndarray) -> np.ndarray:
        """
        :param state: CartPole's state
        :return: a frame, whose edges are smooth: it shows motions of less than a pixel
        """
        x = (float(state[0]) / VIEW + 1.0) * (SIZE - 1) / 2.0
        across, down = self.columns - x, self.rows - ROW_OF_CART
        cart = np.minimum(CART_WIDTH - np.abs(across), CART_HEIGHT - np.abs(down))
        angle = ANGLE_SCALE * float(state[2])
        along = across * np.sin(angle) - down * np.cos(angle)
        beside = np.abs(across * np.cos(angle) + down * np.sin(angle))
        pole = np.minimum(POLE_WIDTH - beside, np.minimum(along, POLE_PIXELS - along))
        brightness = np.maximum(np.clip(cart + 0.5, 0.0, 1.0), 0.6 * np.clip(pole + 0.5, 0.0, 1.0))
        return (255.0 * brightness).round().astype(np.uint8)


def make_env() -> gym.Env:
    """
    :return: CartPole-v1 as frames, at most 500 steps an episode
    """
    return CartPoleFrames(gym.make("CartPole-v1"))


def _entry_point(**kwargs: Any) -> gym.Env:
    return CartPoleFrames(gym.make("CartPole-v1", **kwargs).unwrapped)


if ENV_ID not in gym.registry:
    gym.register(ENV_ID, entry_point=_entry_point, max_episode_steps=MAX_EPISODE_STEPS)


class Balancer:
    """
    A linear controller: push to the side to which the pole falls.

    :param env: the environment
    """

    def __init__(self, env: gym.Env) -> None:
        self.env: Any = env.unwrapped

    def reset(self, seed: int) -> None:
        """
        :param seed: not used: nothing is random
        """

    def __call__(self, obs: Any) -> int:
        """
        :param obs: not used: the state says the same in numbers
        :return: the action
        """
        return int(GAINS @ np.array(self.env.state) > 0.0)


def slipping(env: gym.Env, slip: float = 0.2) -> gym.Env:
    """
    :param env: the environment
    :param slip: how often the hand slips, and pushes to either side
    :return: where demonstrations are recorded
    """
    return SlippingHand(env, (0, 1), lambda: slip)


def main() -> None:
    parser = make_parser(__doc__, episodes=10)
    parser.add_argument("--slip", type=float, default=0.2, help="share of the steps with a slip (default 0.2)")
    args = parser.parse_args()
    check_arguments(parser, args)
    env = gym.make(ENV_ID)
    options = f"--episodes {args.episodes} --seed {args.seed} --slip {args.slip}"
    command = f"python examples/experts/cartpole_frames.py {options}"
    card = {"env_id": ENV_ID, "env_kwargs": {}, "made_by": command}
    run(args, slipping(env, args.slip), Balancer(env), card)


if __name__ == "__main__":
    main()
