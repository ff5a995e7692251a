"""The recovered reward as a reward network of the `imitation` library."""

from typing import Any, cast

import numpy as np
import torch as th
from imitation.data import types
from imitation.rewards.reward_nets import RewardNet

from sb3_iq.observations import map_obs
from sb3_iq.rewards import LearnedReward


class IQRewardNet(RewardNet):
    """
    A learned reward for imitation's wrappers and scripts: ``RewardVecEnvWrapper(venv, net.predict_processed)``,
    ``NormalizedRewardNet(net, RunningNorm)``, ``th.save(net, path)``. It is frozen: it has no parameters to train.

    imitation marks time limits and terminal states alike by ``done``. Here ``done`` is a terminal state, as the documentation
    of ``RewardNet`` says. Where episodes end by time limits, train on :class:`~sb3_iq.rewards.LearnedRewardVecEnv` instead,
    which tells the two apart.

    :param reward: the reward
    :param gamma: the discount factor gamma' of the agent that will learn, in [0, 1): rewards of terminal states include the
        absorbing tail, r + gamma' / (1 - gamma') r_T, see :class:`~sb3_iq.rewards.LearnedRewardVecEnv`; None: r alone
    :raises TypeError: if ``reward`` is no ``LearnedReward``
    :raises ValueError: if ``gamma`` is not in [0, 1)
    """

    def __init__(self, reward: LearnedReward, gamma: float | None = None) -> None:
        if not isinstance(reward, LearnedReward):
            raise TypeError(f"`reward` is a {type(reward).__name__}: give LearnedReward(model), or LearnedReward.load(path).")
        if gamma is not None and not 0 <= gamma < 1:
            raise ValueError(f"`gamma` is {gamma}: give the discount factor of the agent that will learn, in [0, 1), or None.")
        super().__init__(reward.observation_space, reward.action_space)
        self.reward = reward
        self.gamma = gamma

    def preprocess(self, state: Any, action: Any, next_state: Any, done: Any) -> tuple[th.Tensor, ...]:  # type: ignore[override]
        """:return: the transitions as tensors, with nothing scaled or encoded: the reward does that itself"""
        obs, next_obs = (map_obs(th.as_tensor, _unwrapped(values)) for values in (state, next_state))
        tensors = [obs, th.as_tensor(action), next_obs, th.as_tensor(done)]
        return cast(tuple[th.Tensor, ...], tuple(tensors))

    def forward(self, state: Any, action: th.Tensor, next_state: Any, done: th.Tensor) -> th.Tensor:
        """:return: rewards of transitions from :meth:`preprocess`, without gradients, shape (batch,)"""
        obs, next_obs = (map_obs(lambda tensor: tensor.cpu().numpy(), values) for values in (state, next_state))
        return self.predict_th(obs, action.cpu().numpy(), next_obs, done.cpu().numpy())

    def predict_th(self, state: Any, action: np.ndarray, next_state: Any, done: np.ndarray) -> th.Tensor:
        """:return: rewards of transitions as imitation's wrappers give them, shape (batch,)"""
        rewards, absorbing = self.reward.with_tail(_unwrapped(state), action, _unwrapped(next_state), done)
        if self.gamma is not None:
            rewards = rewards + np.where(done, self.gamma / (1 - self.gamma) * absorbing, 0.0)
        return th.as_tensor(rewards, dtype=th.float32)


def _unwrapped(obs: Any) -> Any:
    return types.maybe_unwrap_dictobs(obs) if isinstance(obs, types.DictObs) else obs
