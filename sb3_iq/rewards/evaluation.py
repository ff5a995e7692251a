"""From batches of checked observations to Q, V and the rewards that are made of them."""

import warnings
from typing import Any, NamedTuple

import numpy as np
import torch as th

from sb3_iq.rewards.arrays import q_function
from sb3_iq.rewards.parts import Obs, RewardParts
from sb3_iq.rewards.values import is_continuous, q_and_value_samples, q_values, typical, value_samples

# A Q-function that is the same for all actions has no unit of its own
MIN_UNIT = 1e-6


class Evaluation(NamedTuple):
    """
    :param rewards: r(s, a, s'), shape (batch,)
    :param absorbing: the reward of each further step in an absorbing state, if s' is one, shape (batch,)
    :param errors: the standard errors of the rewards, shape (batch,); None with discrete actions, where V is exact
    """

    rewards: np.ndarray
    absorbing: np.ndarray
    errors: np.ndarray | None


class Evaluator:
    """
    Computes what a reward is made of. All observations are raw rows as ``checks.checked_obs`` returns them, all actions as
    ``checks.checked_actions`` does.

    :param parts: what the reward is made of
    """

    def __init__(self, parts: RewardParts) -> None:
        self.parts = parts
        self.continuous = is_continuous(parts.policy)
        # What Q says of a state is not enough for its reward: V is a mean over draws, or nothing is read off Q
        self.reads_states = self.continuous or parts.form == "occupancy"
        self._device = parts.policy.device  # which a policy looks for among its parameters each time
        self._ent_coef = th.tensor(parts.ent_coef, device=self._device)
        self._typical = parts.typical
        if parts.form == "bounded" and self._typical is None:
            warnings.warn(
                "The demonstrations of this reward are not known, so that it takes random states for typical ones, and V for "
                "what an end is worth: load the model with them, IQLearn.load(path, expert_data=...)."
            )
            self._typical = typical(parts.policy, self._ent_coef, None)
        self._q_function = None if self.continuous else q_function(parts.policy)
        networks: Any = parts.policy
        self._starts = [0] if self.continuous else [0, *np.cumsum(networks.sizes)[:-1].tolist()]

    def normalized(self, rows: Obs) -> Obs:
        """:return: observations as the networks were trained on"""
        return rows if self.parts.statistics is None else self.parts.statistics(rows)

    def outputs(self, rows: Obs) -> np.ndarray:
        """:return: Q(s, .) of every choice of discrete actions, shape (batch, n_outputs)"""
        if self._q_function is not None:
            return self._q_function(self.normalized(rows))  # type: ignore[arg-type]
        networks: Any = self.parts.policy
        with th.inference_mode():
            return networks.q_net(self._tensor(rows)).cpu().numpy()

    def q_of(self, outputs: np.ndarray, actions: np.ndarray) -> np.ndarray:
        """:return: Q(s, a) of discrete actions, the sum over their parts, shape (batch,)"""
        rows = np.arange(len(outputs))
        if len(self._starts) == 1:
            return outputs[rows, actions.reshape(-1)]
        return outputs[rows[:, None], actions.reshape(len(outputs), -1) + self._starts].sum(axis=1)

    def value_of(self, outputs: np.ndarray) -> np.ndarray:
        """:return: V(s) = alpha logsumexp(Q(s, .) / alpha) of discrete actions, the sum over their parts, shape (batch,)"""
        if len(self._starts) == 1:
            return self._soft_maximum(outputs)
        return np.sum([self._soft_maximum(values) for values in np.split(outputs, self._starts[1:], axis=1)], axis=0)

    def _soft_maximum(self, values: np.ndarray) -> np.ndarray:
        highest = values.max(axis=1)
        return highest + self.parts.ent_coef * np.log(np.exp((values - highest[:, None]) / self.parts.ent_coef).sum(axis=1))

    def q(self, rows: Obs, actions: np.ndarray) -> np.ndarray:
        """:return: Q(s, a), shape (batch,)"""
        if not self.continuous:
            return self.q_of(self.outputs(rows), actions)
        with th.inference_mode():
            return q_values(self.parts.policy, self._tensor(rows), self._scaled(actions)).cpu().numpy()

    def value(self, rows: Obs) -> np.ndarray:
        """:return: V(s), shape (batch,)"""
        if not self.continuous:
            return self.value_of(self.outputs(rows))
        with th.inference_mode():
            return value_samples(self.parts.policy, self._tensor(rows), self._ent_coef).mean(dim=0).cpu().numpy()

    def evaluate(self, rows: Obs, actions: np.ndarray, next_rows: Obs, over: np.ndarray) -> Evaluation:
        """:return: the rewards of transitions, of which those that are ``over`` end in terminal states"""
        if self.parts.form == "occupancy":
            return self._of_occupancy(rows, next_rows, over)
        bellman = self.parts.form == "bellman"
        if not self.continuous:
            outputs = self.outputs(rows)
            return self.of_outputs(outputs, actions, self.outputs(next_rows) if bellman else outputs, next_rows, over)
        with th.inference_mode():
            tensor = self._tensor(rows)
            value_obs = self._tensor(next_rows) if bellman else tensor
            q, samples = q_and_value_samples(self.parts.policy, tensor, self._scaled(actions), value_obs, self._ent_coef)
            errors = samples.std(dim=0) / len(samples) ** 0.5
            v = samples.mean(dim=0)
        return self._combined(q.cpu().numpy(), v.cpu().numpy(), errors.cpu().numpy(), next_rows, over)

    def _of_occupancy(self, rows: Obs, next_rows: Obs, over: np.ndarray) -> Evaluation:
        occupancy, ends = self.parts.occupancy, self.parts.ends
        assert occupancy is not None and ends is not None
        rewards = occupancy.likeness(rows)
        errors = np.zeros_like(rewards) if self.continuous else None
        return Evaluation(rewards, ends.likeness(next_rows) * over, errors)

    def of_outputs(
        self, outputs: np.ndarray, actions: np.ndarray, next_outputs: np.ndarray, next_rows: Obs, over: np.ndarray
    ) -> Evaluation:
        """:return: as ``evaluate``, of discrete actions, from what ``outputs`` returns for s and s'"""
        values = self.value_of(next_outputs if self.parts.form == "bellman" else outputs)
        return self._combined(self.q_of(outputs, actions), values, None, next_rows, over)

    def _combined(
        self, q: np.ndarray, v: np.ndarray, errors: np.ndarray | None, next_rows: Obs, over: np.ndarray
    ) -> Evaluation:
        """Return rewards from Q(s, a) and V: that of s' in the form bellman, that of s in the others."""
        parts = self.parts
        terminal_v = q if parts.terminal_v is None else np.full_like(q, parts.terminal_v)
        if parts.form == "bellman":
            rewards = q - parts.gamma * np.where(over, terminal_v, v)
            errors = None if errors is None else np.where(over, 0.0, parts.gamma * errors)
            return Evaluation(rewards, (1 - parts.gamma) * terminal_v, errors)
        if parts.form == "advantage":
            return Evaluation(q - v, np.zeros_like(q), errors)
        assert self._typical is not None
        unit = max(self._typical.regret, MIN_UNIT)
        rewards = 1.0 + np.minimum(np.maximum((q - v) / unit, -1.0), 1.0)
        if not over.any():
            absorbing = np.zeros_like(q)
        elif parts.ends is not None:
            absorbing = parts.ends.likeness(next_rows) * over
        else:
            absorbing = np.minimum(np.maximum(1.0 + (terminal_v - self._typical.value) / unit, 0.0), 1.0) * over
        return Evaluation(rewards, absorbing, None if errors is None else errors / unit)

    def _tensor(self, rows: Obs) -> Any:
        normalized = self.normalized(rows)
        if isinstance(normalized, dict):
            return {key: th.as_tensor(values, device=self._device) for key, values in normalized.items()}
        return th.as_tensor(normalized, device=self._device)

    def _scaled(self, actions: np.ndarray) -> th.Tensor:
        """Return continuous actions as the Q-function takes them: clipped to the box on which alone it is defined."""
        policy: Any = self.parts.policy
        return policy.network_actions(actions)
