"""
CarRacing from its 96x96 images: a scripted driver that follows the track.

    pip install "gymnasium[box2d]"
    python examples/experts/car_racing.py --episodes 20 --out demos/CarRacing

The driver steers towards a point of the road a little ahead and slows down before bends. It looks no farther ahead than the
image shows. Its hand is a bit unsteady (``--noise``), so that the demonstrations also show how to get back to the middle of
the road. The version is CarRacing-v3, or CarRacing-v2 with gymnasium 0.29.
"""

import math
from typing import Any

import gymnasium as gym
import numpy as np
from _common import check_arguments, make_parser, run

LOOK_AHEAD = 17.0  # units of length along the road to the point that the driver steers to; the image shows about 35
VIEW = 32.0
CRUISE_SPEED = 66.0
BEND_ACCELERATION = 140.0  # the largest lateral acceleration that the driver allows, in units of length per square second
WHEELBASE = 3.24
HALF_LIFE = 10.0  # of a deviation of the hand, in steps


def env_id() -> str:
    """
    :return: the newest version of the task that gymnasium registers
    """
    return f"CarRacing-v{max(spec.version or 0 for spec in gym.registry.values() if spec.name == 'CarRacing')}"


class Driver:
    """
    The scripted driver.

    :param env: the environment
    :param noise: the standard deviation of the hand's deviations, in units of the steering action
    """

    def __init__(self, env: gym.Env, noise: float = 0.05) -> None:
        self.env: Any = env.unwrapped
        self.noise = noise
        self.reset(0)

    def reset(self, seed: int) -> None:
        """
        :param seed: the seed of the hand's deviations
        """
        self.rng = np.random.default_rng(seed)
        self.deviation = 0.0
        self.nearest: int | None = None

    def __call__(self, obs: Any) -> np.ndarray:
        """
        :param obs: not used: the track says the same in numbers
        :return: steering, gas and brake
        """
        hull = self.env.car.hull
        position, velocity = np.array(hull.position), np.array(hull.linearVelocity)
        forward = np.array(hull.GetWorldVector((0.0, 1.0)))
        right = np.array([forward[1], -forward[0]])
        speed = float(velocity @ forward)
        road = self._road_ahead(position)
        steps = np.linalg.norm(np.diff(road, axis=0), axis=1)
        along = np.concatenate([[0.0], np.cumsum(steps)])
        target = np.array([np.interp(LOOK_AHEAD, along, road[:, i]) for i in (0, 1)]) - position
        angle = math.atan2(float(target @ right), float(target @ forward))
        steer = math.atan(2.0 * WHEELBASE * math.sin(angle) / max(float(np.linalg.norm(target)), 1.0))
        allowed = self._allowed_speed(road, along)
        grip = 1.0 - min(abs(angle), 0.9)  # full gas in a bend would make the car spin
        gas = float(np.clip(0.1 * (allowed - speed), 0.0, grip))
        brake = float(np.clip(0.04 * (speed - allowed), 0.0, 0.8))
        keep = 0.5 ** (1.0 / HALF_LIFE)
        self.deviation = keep * self.deviation + self.noise * math.sqrt(1.0 - keep**2) * self.rng.standard_normal()
        return np.array([np.clip(2.0 * steer + self.deviation, -1.0, 1.0), gas, brake], dtype=np.float32)

    def _road_ahead(self, position: np.ndarray) -> np.ndarray:
        """Return the middle of the road from the tile nearest to the car on, as far as the image shows it."""
        track = np.array([tile[2:4] for tile in self.env.track])
        indices = np.arange(len(track))
        if self.nearest is not None:  # not a tile of another part of the road that comes near
            indices = (self.nearest + np.arange(-5, 15)) % len(track)
        self.nearest = int(indices[np.argmin(np.linalg.norm(track[indices] - position, axis=1))])
        return track[(self.nearest + np.arange(12)) % len(track)]

    @staticmethod
    def _allowed_speed(road: np.ndarray, along: np.ndarray) -> float:
        """Return the speed that the sharpest bend in view allows, more for one that is still far."""
        ways = np.diff(road, axis=0)
        headings = np.unwrap(np.arctan2(ways[:, 1], ways[:, 0]))
        bends = np.abs(headings[2:] - headings[:-2]) / (along[3:] - along[1:-2])
        distance = along[1:-2]
        in_view = distance < VIEW
        limits = np.sqrt(BEND_ACCELERATION / np.maximum(bends, 1e-3)) + 0.6 * distance
        return float(min(CRUISE_SPEED, limits[in_view].min()))


def main() -> None:
    parser = make_parser(__doc__, episodes=20)
    parser.add_argument("--noise", type=float, default=0.05, help="how unsteady the hand is (default 0.05)")
    args = parser.parse_args()
    check_arguments(parser, args)
    env = gym.make(env_id())
    command = f"python examples/experts/car_racing.py --episodes {args.episodes} --seed {args.seed} --noise {args.noise}"
    run(args, env, Driver(env, args.noise), {"env_id": env_id(), "env_kwargs": {}, "made_by": command})


if __name__ == "__main__":
    main()
