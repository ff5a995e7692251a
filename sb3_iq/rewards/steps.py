"""The rewards of a vectorised environment's steps, one after another."""

import numpy as np

from sb3_iq.observations import concatenate_obs, map_obs, take_rows
from sb3_iq.rewards import checks
from sb3_iq.rewards.evaluation import Evaluator
from sb3_iq.rewards.learned_reward import LearnedReward, Tail
from sb3_iq.rewards.parts import Obs


class Steps:
    """
    With discrete actions the networks see each state once: what they say of a state that a step leads to is kept for the
    next step, which starts there. Nothing of an array that an environment returns is kept, which it may write to again.

    :param reward: the reward
    """

    def __init__(self, reward: LearnedReward) -> None:
        self._evaluator: Evaluator = reward._evaluator
        self._observation_space, self._action_space = reward.observation_space, reward.action_space
        # Q(s, .) of discrete actions; s with continuous ones, and where nothing is read off Q
        self._current: np.ndarray | Obs | None = None

    def reset(self, obs: Obs) -> None:
        """
        :param obs: the first observations
        """
        rows = checks.checked_obs(obs, self._observation_space, "obs")
        self._current = map_obs(np.copy, rows) if self._evaluator.reads_states else self._evaluator.outputs(rows)

    def step(self, actions: np.ndarray, next_obs: Obs, terminated: np.ndarray, obs: Obs, dones: np.ndarray) -> Tail:
        """
        :param actions: what was done in the states before, in the environment's units
        :param next_obs: what it led to, before any automatic reset
        :param terminated: whether that is a terminal state
        :param obs: what the next step starts from, after any automatic reset
        :param dones: whether there was a reset
        :return: the rewards of the step and those of absorbing states
        """
        assert self._current is not None  # reset() comes first
        action_rows = checks.checked_actions(actions, self._action_space)
        next_rows = checks.checked_obs(next_obs, self._observation_space, "next_obs")
        rows = checks.checked_obs(obs, self._observation_space, "obs") if dones.any() else next_rows
        if self._evaluator.reads_states:
            result = self._evaluator.evaluate(self._current, action_rows, next_rows, terminated)
            self._current = map_obs(np.copy, rows)
            return Tail(*result[:2])
        n, states = len(dones), next_rows
        if rows is not next_rows:
            states = concatenate_obs(next_rows, take_rows(rows, np.flatnonzero(dones)))
        outputs = self._evaluator.outputs(states)
        result = self._evaluator.of_outputs(self._current, action_rows, outputs[:n], next_rows, terminated)  # type: ignore[arg-type]
        self._current = outputs[:n]
        if len(outputs) > n:
            self._current = self._current.copy()
            self._current[dones] = outputs[n:]
        return Tail(*result[:2])
