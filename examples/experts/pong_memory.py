"""
Pong in numbers: where ball and paddles are, read from the console's memory, and a player that decides by them.

    pip install ale-py
"""

from collections import deque
from pathlib import Path
from typing import Any

import ale_py
import gymnasium as gym
import numpy as np
import torch as th
from stable_baselines3.common.atari_wrappers import NoopResetEnv
from stable_baselines3.common.torch_layers import create_mlp

ENV_ID = "ALE/Pong-v5"
FRAMES_PER_STEP = 4
N_STEPS = 4  # what four stacked frames show
ACTIONS = (1, 4, 5)  # stay, up, down, always with the button pressed: it makes the ball faster
# Bytes of the console's memory
BALL_X, BALL_Y, ENEMY_Y, PLAYER_Y = 49, 54, 50, 51
N_NUMBERS = 5
NET_ARCH = [256, 256]
PLAYER = Path(__file__).with_name("pong_player.pt")


def make_game(**kwargs: Any) -> gym.Env:
    """
    :param kwargs: further arguments of the environment
    :return: the game
    """
    if hasattr(gym, "register_envs"):
        gym.register_envs(ale_py)
    return gym.make(ENV_ID, **kwargs)


class Numbers:
    """
    What shows of the game in the last steps, as numbers.

    :param env: the game
    """

    def __init__(self, env: gym.Env) -> None:
        self.ale = env.unwrapped.ale  # type: ignore[attr-defined]
        self.steps: deque[np.ndarray] = deque(maxlen=N_STEPS)

    def reset(self) -> None:
        """Forget the steps so far."""
        self.steps.clear()

    def look(self) -> np.ndarray:
        """
        Take what shows now as the latest step; the first one stands for those before it, too.

        :return: shape (20,), the oldest step first: the ball, the opponent's paddle, the player's, and whether there is a ball
        """
        memory = self.ale.getRAM()
        x, y, enemy, player = (float(memory[i]) for i in (BALL_X, BALL_Y, ENEMY_Y, PLAYER_Y))
        ball = [(x - 128) / 64, (y - 125) / 64] if y > 0 else [0.0, 0.0]
        self.steps.append(np.array([*ball, (enemy - 125) / 64, (player - 121) / 64, y > 0], dtype=np.float32))
        while len(self.steps) < N_STEPS:
            self.steps.append(self.steps[-1])
        return np.concatenate(self.steps)

    @property
    def ball_comes(self) -> bool:
        """Whether the ball flies towards the player, of what was looked at."""
        before, now = self.steps[-2], self.steps[-1]
        return bool(before[-1] > 0 and now[-1] > 0 and now[0] > before[0])


class PongNumbers(gym.Wrapper):
    """
    The game in numbers, with three actions and four frames a step, without sticky actions.

    :param slip: the share of the steps in which the hand slips to another move
    """

    def __init__(self, slip: float = 0.0) -> None:
        game = make_game(obs_type="ram", frameskip=FRAMES_PER_STEP, repeat_action_probability=0.0)
        super().__init__(NoopResetEnv(game))
        self.slip = slip
        self.numbers = Numbers(game)
        self.observation_space = gym.spaces.Box(-2, 2, (N_NUMBERS * N_STEPS,), np.float32)
        self.action_space = gym.spaces.Discrete(len(ACTIONS))

    def reset(self, **kwargs: Any) -> tuple[np.ndarray, dict[str, Any]]:
        """
        :param kwargs: those of the environment's ``reset``
        :return: the numbers, and the info
        """
        _, info = self.env.reset(**kwargs)
        self.numbers.reset()
        return self.numbers.look(), info

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """
        :param action: of ``ACTIONS``
        :return: the numbers, the points, whether the game has ended or was cut, and the info
        """
        if self.np_random.random() < self.slip:
            action = int(self.np_random.integers(len(ACTIONS)))
        _, reward, terminated, truncated, info = self.env.step(ACTIONS[action])
        return self.numbers.look(), float(reward), terminated, truncated, info


class PongPlayer:
    """
    The trained player: a network of the numbers.

    :param env: the game, in whatever form
    :param file: the weights, of ``train_pong.py``
    """

    def __init__(self, env: gym.Env, file: Path = PLAYER) -> None:
        self.numbers = Numbers(env)
        self.q_net = th.nn.Sequential(*create_mlp(N_NUMBERS * N_STEPS, len(ACTIONS), NET_ARCH))
        self.q_net.load_state_dict(th.load(file, weights_only=True))
        self.reset(0)

    def reset(self, seed: int) -> None:
        """
        :param seed: not used: nothing is random
        """
        self.numbers.reset()

    def __call__(self, obs: Any) -> int:
        """
        :param obs: not used: the memory holds the same in numbers
        :return: the action of the game
        """
        with th.no_grad():
            return ACTIONS[int(self.q_net(th.as_tensor(self.numbers.look())).argmax())]
