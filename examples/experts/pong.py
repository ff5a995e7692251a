"""
Pong from pixels: a scripted player of ``ALE/Pong-v5`` that reads the ball and the paddles from the console's memory.

    pip install ale-py opencv-python-headless
    python examples/experts/pong.py --episodes 20 --out demos/Pong

The environment is that of the literature: SB3's ``AtariWrapper`` (84x84 grey frames, four frames a step, up to 30 idle
frames at the start), four frames stacked, no sticky actions (``repeat_action_probability=0``, said in the card). What the
player decides by shows in four frames: where ball and paddles are, and how they move. It aims where the opponent can't get in
time. While the ball flies away from it, its hand slips now and then (``--slip``): without that, all games would be nearly the
same, as the game is deterministic. Once this module is imported, ``gym.make("PongFrames-v0")`` makes the environment with its
frames stacked.
"""

from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
from _common import check_arguments, make_parser, run
from stable_baselines3.common.atari_wrappers import AtariWrapper
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_iq.demonstrations import Trajectory

ENV_ID = "ALE/Pong-v5"
STACKED_ID = "PongFrames-v0"
ENV_KWARGS: dict[str, Any] = {"frameskip": 1, "repeat_action_probability": 0.0}
FRAME_STACK = 4
FRAMES_PER_STEP = 4
ACTIONS = {0: 1, -1: 4, 1: 5}  # stay, up, down, always with the button pressed: it makes the ball faster

# Bytes of the console's memory
BALL_X, BALL_Y, ENEMY_Y, PLAYER_Y = 49, 54, 50, 51
KNOB, FRAME = 4, 8  # each player's knob is read in every second frame; the player's paddle moves after even ones
# Where things happen, in the units of these bytes; each paddle's y is its upper end
BALL_TOP, BALL_BOTTOM = 46, 205
PADDLE_TOP, PADDLE_BOTTOM = 38, 204
KNOB_TOP, KNOB_BOTTOM = 14, 204
PLAYER_X = 188
FLIGHT = 28  # frames from one paddle to the other, at full speed
ENEMY_SPEED = 1.75
ENEMY_ABOVE, ENEMY_BELOW = -3.2, 14.5  # the opponent misses a ball farther off its upper end than this
KNOB_SPEED = 5.85
# The ball's vertical speed after a hit, by its distance from the paddle's upper end, which is -2 to 16
FIRST_OFFSET = -2
SPEED_AFTER_HIT = np.array([-2] * 4 + [-1] * 3 + [0] * 4 + [1] * 4 + [2] * 4)
SPEEDS = (-2, -1, 0, 1, 2)
HORIZON = 12


def make_env(**kwargs: Any) -> gym.Env:
    """
    :param kwargs: further arguments of the environment
    :return: the game with SB3's preprocessing, which ``VecFrameStack`` has to follow for a learner
    """
    if hasattr(gym, "register_envs"):
        gym.register_envs(ale_py)
    return AtariWrapper(gym.make(ENV_ID, **ENV_KWARGS, **kwargs))


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


def fly(y: float, speed: float, n_frames: int) -> tuple[float, float]:
    """
    :param y: the ball's height
    :param speed: its vertical speed
    :param n_frames: for how many frames it flies
    :return: height and speed after these, with all bounces off the walls
    """
    for _ in range(n_frames):
        if y < BALL_TOP and speed < 0:
            speed = -speed
            y += speed + 1
        elif y > BALL_BOTTOM and speed > 0:
            speed = -speed
            y += speed - 1
        else:
            y += speed
    return y, speed


def _plans() -> tuple[np.ndarray, np.ndarray]:
    """Return what the hand can do in the next steps, one plan a column, and what each costs: wait, move, move back."""
    plans, costs = [np.zeros(HORIZON, dtype=int)], [0.0]
    for direction in (-1, 1):
        for wait in range(9):
            for move in range(1, 9):
                for back in range(3):
                    if wait + move + back <= HORIZON:
                        parts = [0] * wait + [direction] * move + [-direction] * back
                        plans.append(np.array(parts + [0] * (HORIZON - len(parts))))
                        costs.append(0.25 * (wait + move) + 0.5 * back)
    return np.array(plans).T, np.array(costs)


class PongPlayer:
    """
    The scripted player.

    :param env: the game
    :param slip: how often the hand slips in a step in which the ball flies away
    """

    def __init__(self, env: gym.Env, slip: float = 0.2) -> None:
        self.ale = env.unwrapped.ale  # type: ignore[attr-defined]
        self.slip = slip
        self.plans, self.costs = _plans()
        self.reset(0)

    def reset(self, seed: int) -> None:
        """
        :param seed: the seed of the slips
        """
        self.rng = np.random.default_rng(seed)
        self.before: tuple[int, int, int] | None = None
        self.last = 0
        self.knob = 0.0
        self.aim = 0

    def __call__(self, obs: Any) -> int:
        """
        :param obs: not used: the memory holds the same in numbers
        :return: the action
        """
        ram = self.ale.getRAM()
        x, y, enemy, player = (int(ram[i]) for i in (BALL_X, BALL_Y, ENEMY_Y, PLAYER_Y))
        before, self.before = self.before, (x, y, player)
        self._follow_knob(ram, None if before is None else before[2])
        move = 0
        if y > 0:  # there is a ball
            seen_before = before is not None and before[1] > 0
            dx = x - before[0] if before is not None and seen_before else 0
            if dx > 0 and x < PLAYER_X:
                assert before is not None
                move = self._meet(x, y, max(1, round(dx / FRAMES_PER_STEP)), _speed(before[1], y), ram, enemy)
            elif dx <= 0:
                self.aim = int(self.rng.choice(SPEEDS))  # of the next hit: always the same one can go on for ever
                away = y - 8 - self.knob
                move = int(np.sign(away)) if abs(away) > 13 else 0
                if dx < 0 and self.rng.random() < self.slip:
                    move = int(self.rng.integers(-1, 2))
        self.last = move
        return ACTIONS[move]

    def _follow_knob(self, ram: np.ndarray, player_before: int | None) -> None:
        """Keep an account of the knob, which the paddle goes half of the way to after each even frame."""
        turned = KNOB_SPEED * self.last
        self.knob = float(np.clip(self.knob + FRAMES_PER_STEP * turned, KNOB_TOP, KNOB_BOTTOM))
        if player_before is None:
            self.knob = float(ram[PLAYER_Y])
        elif ram[FRAME] % 2 == 0:
            if PADDLE_TOP < ram[KNOB] < PADDLE_BOTTOM:
                self.knob = float(np.clip(self.knob, ram[KNOB], ram[KNOB] + 1.0))
        elif 40 < ram[PLAYER_Y] < 200:
            # It was read one frame ago, and three
            seen = (float(ram[PLAYER_Y]) + 0.5 - player_before / 4 + 1.25 * turned) / 0.75
            self.knob = float(np.clip(self.knob, seen - 1.0, seen + 1.0))

    def _paddle(self, ram: np.ndarray, n_frames: int) -> np.ndarray:
        """Return where the paddle is in a frame, the one before and the one after, shape (3, plans)."""
        paddle = np.full(len(self.costs), float(ram[PLAYER_Y]))
        knob = np.full(len(self.costs), self.knob)
        positions = [paddle]
        for frame in range(n_frames + 1):
            if (frame + int(ram[FRAME])) % 2 == 0:
                paddle = np.floor((paddle + np.clip(np.floor(knob), PADDLE_TOP, PADDLE_BOTTOM)) / 2)
            plan = self.plans[min(frame // FRAMES_PER_STEP, HORIZON - 1)]
            knob = np.clip(knob + KNOB_SPEED * plan, KNOB_TOP, KNOB_BOTTOM)
            positions.append(paddle)
        return np.array(positions[-3:])

    def _meet(self, x: int, y: int, dx: int, dy: float, ram: np.ndarray, enemy: int) -> int:
        """Return the next move of the plan that hits the ball best."""
        n_frames = -(-(PLAYER_X - x) // dx)
        meeting, opponent = float(y), float(enemy)
        for _ in range(n_frames):
            meeting, dy = fly(meeting, dy, 1)
            opponent += np.clip(meeting - opponent, -ENEMY_SPEED, ENEMY_SPEED)
        wins = np.array([_margin(meeting, speed, opponent) for speed in SPEEDS]) > 0.2
        offset = np.round(meeting - self._paddle(ram, min(n_frames, HORIZON * FRAMES_PER_STEP))).astype(int)
        around = offset[1:2] if dx == 4 else offset
        least, most = around.min(axis=0), around.max(axis=0)
        speed = SPEED_AFTER_HIT[np.clip(offset - FIRST_OFFSET, 0, len(SPEED_AFTER_HIT) - 1)]
        cost = self.costs + 0.3 * (most - least)
        cost += np.where((least < -1) | (most > 15), 100.0, 0.0)  # a miss
        cost += np.where((least < 0) | (most > 14), 4.0, 0.0)  # a close one
        cost += 10.0 * np.maximum(np.abs((least + most) / 2 - 7) - 7, 0)  # if it can't be reached: come near
        cost -= np.where(wins[speed[1] + 2], 20.0, 0.0)
        cost += 1.5 * np.abs(speed[1] - self.aim)
        return int(self.plans[0, np.argmin(cost)])


def _speed(before: int, now: int) -> float:
    """Return the ball's vertical speed after a step in which it may have bounced off a wall."""
    for speed in (0, 1, -1, 2, -2, 3, -3):
        y, after = fly(before, speed, FRAMES_PER_STEP)
        if y == now:
            return after
    return round((now - before) / FRAMES_PER_STEP)


def _margin(y: float, speed: float, enemy: float) -> float:
    """Return by how much the opponent misses a ball that leaves the player's paddle like this."""
    for _ in range(FLIGHT):
        y, speed = fly(y, speed, 1)
        enemy += np.clip(y - enemy, -ENEMY_SPEED, ENEMY_SPEED)
    return max(y - enemy - ENEMY_BELOW, ENEMY_ABOVE - (y - enemy))


def main() -> None:
    parser = make_parser(__doc__, episodes=20)
    parser.add_argument("--slip", type=float, default=0.2, help="share of the steps with a slip (default 0.2)")
    parser.add_argument("--frame-stack", type=int, default=FRAME_STACK, metavar="N", help="frames stacked (default 4)")
    args = parser.parse_args()
    check_arguments(parser, args)
    env = make_env()
    stacked = args.frame_stack > 1
    command = f"python examples/experts/pong.py --episodes {args.episodes} --seed {args.seed} --slip {args.slip}"
    card = {
        "env_id": ENV_ID,
        "env_kwargs": ENV_KWARGS,
        "gym_packages": ["ale_py"],
        "env_wrapper": "stable_baselines3.common.atari_wrappers.AtariWrapper",
        **({"frame_stack": args.frame_stack} if stacked else {}),
        "made_by": f"{command} --frame-stack {args.frame_stack}",
    }
    finish = (lambda episode: stack_frames(episode, args.frame_stack)) if stacked else None
    run(args, env, PongPlayer(env, args.slip), card, finish)


if __name__ == "__main__":
    main()
