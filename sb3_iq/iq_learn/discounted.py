"""
Transitions by the discounted occupancy (Sec. 2 of https://arxiv.org/abs/2106.12142), in which step t of an episode weighs
gamma^t: what the objective's expectations are taken over. Drawn uniformly, the first steps of long episodes hardly ever come,
and a policy forgets how to begin.
"""

import numpy as np
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.replay import Additions

# Draws are made among so many transitions, drawn uniformly
CANDIDATES = 1_024
# Rows of the replay buffer that are compared at a time: they may be images
PIECE = 256


class ExpertOccupancy:
    """
    The discounted occupancy of demonstrations.

    :param buffer: the demonstrations
    :param gamma: the discount factor
    """

    def __init__(self, buffer: ExpertBuffer, gamma: float) -> None:
        self.buffer = buffer
        weights = gamma ** buffer.places()[1].astype(np.float64)
        self._cumulative = np.cumsum(weights / weights.sum())

    def draw(self, n: int) -> np.ndarray:
        """
        :param n: how many transitions to draw, with replacement
        :return: their positions in the demonstrations, shape (n,), int64
        """
        drawn = np.searchsorted(self._cumulative, self.buffer.rng.random(n), side="right")
        return np.minimum(drawn, len(self._cumulative) - 1)


class ReplayOccupancy:
    """
    The discounted occupancy of the policies whose transitions are in a replay buffer, and where their episodes start.

    :param buffer: the replay buffer
    :param gamma: the discount factor
    """

    def __init__(self, buffer: ReplayBuffer, gamma: float) -> None:
        self.buffer = buffer
        self.gamma = gamma
        self.steps = np.zeros(buffer.dones.shape, dtype=np.int32)
        """The step in its episode of each transition"""
        self._additions = Additions(buffer)

    def follow(self, n_added: int) -> None:
        """
        Count the steps of what is new.

        :param n_added: how many rows were added to the buffer so far, by any count
        """
        rows, is_all = self._additions.rows(n_added)
        if not len(rows):
            return
        before = (rows - 1) % self.buffer.buffer_size
        begins = (self.buffer.dones[before] != 0) | self._jumps(before, rows)
        begins[0] |= is_all  # what came before the oldest row is gone
        number = np.arange(len(rows))[:, None]
        latest = np.maximum.accumulate(np.where(begins, number, -1), axis=0)
        self.steps[rows] = np.where(latest >= 0, number - latest, self.steps[before[0]] + 1 + number)

    def _jumps(self, before: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Return where the environment was reset in the middle of an episode, as by another call of ``learn``."""
        buffer, jumps = self.buffer, np.zeros((len(rows), self.buffer.n_envs), dtype=bool)
        if buffer.optimize_memory_usage:
            return jumps  # there SB3 notes it as an end, for want of the next observation
        ended, begun = buffer.next_observations, buffer.observations
        pairs = [(ended[key], begun[key]) for key in begun] if isinstance(begun, dict) else [(ended, begun)]
        for piece in (slice(start, start + PIECE) for start in range(0, len(rows), PIECE)):
            for last, first in pairs:
                changed = last[before[piece]] != first[rows[piece]]
                jumps[piece] |= changed.reshape(*changed.shape[:2], -1).any(axis=2)
        return jumps

    def draw_starts(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """
        :param n: how many first transitions of episodes to draw, with replacement
        :return: their rows and environments in the buffer, shape (n,) each
        """
        buffer = self.buffer
        starts = self.steps[: buffer.size()] == 0
        if buffer.full:
            # Nobody may know what came before the oldest row, and with memory optimised its observation is gone
            starts[buffer.pos] = False
        rows, envs = np.nonzero(starts)
        if len(rows) == 0:
            # One episode longer than the buffer: its oldest rows are all there is
            oldest = (buffer.pos + buffer.optimize_memory_usage) % buffer.buffer_size
            rows, envs = np.full(buffer.n_envs, oldest), np.arange(buffer.n_envs)
        drawn = np.random.randint(len(rows), size=n)
        return rows[drawn], envs[drawn]

    def draw(self, n: int) -> tuple[np.ndarray, np.ndarray]:
        """
        :param n: how many transitions to draw, with replacement
        :return: their rows and environments in the buffer, shape (n,) each
        """
        buffer, n_candidates = self.buffer, max(CANDIDATES, 4 * n)
        compact = buffer.optimize_memory_usage
        # With memory optimised, the row that is written next has lost its observation
        first, size = (buffer.pos + 1, buffer.size() - 1) if compact and buffer.full else (0, buffer.size())
        rows = (first + np.random.randint(size, size=n_candidates)) % buffer.buffer_size
        envs = np.random.randint(buffer.n_envs, size=n_candidates)
        steps = self.steps[rows, envs]
        # Relative to the earliest: of an episode without an end all weights would be 0
        weights = self.gamma ** (steps - steps.min()).astype(np.float64)
        if compact:
            # and a transition that a time limit ended has lost its next observation
            weights *= buffer.timeouts[rows, envs] == 0
        cumulative = np.cumsum(weights)
        drawn = np.searchsorted(cumulative, np.random.random(n) * cumulative[-1], side="right")
        drawn = np.minimum(drawn, n_candidates - 1)
        return rows[drawn], envs[drawn]
