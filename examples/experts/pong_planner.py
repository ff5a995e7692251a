"""
A scripted player of Pong: it plans the moves of the next steps with a model of the game, from the console's memory.

It wins, but it can't be imitated. It keeps an account of its knob, draws where to aim, and plans the very step to move in: a
network that sees the numbers of the last four steps doesn't learn to play from its games. So it is the teacher of the player
that ``train_pong.py`` trains, which decides by these numbers alone.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from pong_memory import BALL_X, BALL_Y, ENEMY_Y, FRAMES_PER_STEP, PLAYER_Y

MOVES = {0: 0, -1: 1, 1: 2}  # of pong_memory.ACTIONS: stay, up, down

# More bytes of the memory: each knob is read in every second frame; the player's paddle moves after even ones
KNOB, FRAME = 4, 8
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


class PongPlanner:
    """
    The scripted player.

    :param env: the game
    :param slip: the share of the steps in which the hand slips to another move
    """

    def __init__(self, env: gym.Env, slip: float) -> None:
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
        if self.rng.random() < self.slip:
            move = int(self.rng.integers(-1, 2))
        self.last = move
        return MOVES[move]

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
