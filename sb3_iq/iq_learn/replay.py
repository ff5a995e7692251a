"""What IQ-Learn asks of SB3's replay buffer beyond SB3: late allocation, time limits, what is new, prior rewards."""

from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.observations import Samples, map_obs, take_rows, take_samples

# Prior rewards of stored transitions are computed for at least, and at most, so many rows at a time
BLOCK, PIECE = 16, 4_096
# Draws before the transitions that can be sampled are looked up
MAX_DRAWS = 100
# Stands where SB3 would otherwise allocate a buffer while it builds the model
NOT_ALLOCATED: Any = object()


def check_replay_buffer_class(replay_buffer_class: type | None) -> None:
    """:raises ValueError: if returns over several steps, or relabelled goals, are asked for"""
    names = [base.__name__ for base in getattr(replay_buffer_class, "__mro__", ())]
    if any(name.startswith(("NStep", "Her")) for name in names):
        raise ValueError(
            f"`replay_buffer_class` is {names[0]}: r = Q(s, a) - gamma V(s') holds for single steps of the policy's own "
            "occupancy, not for n-step returns or relabelled goals. Use ReplayBuffer or DictReplayBuffer."
        )


def check_finite(obs: np.ndarray | dict[str, np.ndarray]) -> None:
    """:raises ValueError: if an environment gives observations that nothing can be learned from"""
    for key, values in obs.items() if isinstance(obs, dict) else [("", obs)]:
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            where = tuple(int(i) for i in np.argwhere(~np.isfinite(values))[0])
            name = f"an observation {key!r}" if key else "an observation"
            raise ValueError(
                f"`env` gave {name} with {values[where]} in environment {where[0]}, column "
                f"{', '.join(map(str, where[1:]))}: nothing can be learned from it. Mend the environment; "
                "VecCheckNan(env, raise_exception=True) tells after which action."
            )


def check_memory_usage(optimize_memory_usage: bool, replay_buffer_kwargs: Mapping[str, Any]) -> None:
    """:raises ValueError: if SB3's buffer is to save memory and to handle time limits, which it refuses, with the cure"""
    if optimize_memory_usage and replay_buffer_kwargs.get("handle_timeout_termination", True):
        raise ValueError(
            "`optimize_memory_usage` is True, which SB3's replay buffers cannot have with their default, "
            "handle_timeout_termination=True: add replay_buffer_kwargs=dict(handle_timeout_termination=False). Time limits "
            "stay time limits: their transitions, which lack the next observation, are not sampled."
        )


class CompactReplayBuffer(ReplayBuffer):
    """
    SB3's ``ReplayBuffer`` with ``optimize_memory_usage=True``, in which the next observation of a transition is where the
    following one begins, and is gone at the end of an episode. At a terminal state it isn't needed; transitions that ended by
    a time limit are never sampled, and all others are equally likely.
    """

    def add(
        self, obs: np.ndarray, next_obs: np.ndarray, action: np.ndarray, reward: np.ndarray, done: np.ndarray, infos: list
    ) -> None:
        self.timeouts[self.pos] = [info.get("TimeLimit.truncated", False) for info in infos]
        super().add(obs, next_obs, action, reward, done, infos)

    def cut(self) -> None:
        """The next transition does not go on where the last one ended: the environment may have been reset meanwhile."""
        self.timeouts[self.pos - 1] = 1.0

    def _get_samples(self, batch_inds: np.ndarray, env: VecNormalize | None = None) -> ReplayBufferSamples:
        first, n = (self.pos + 1, self.buffer_size - 1) if self.full else (0, self.pos)
        rows, envs = batch_inds.copy(), np.random.randint(self.n_envs, size=len(batch_inds))
        for _ in range(MAX_DRAWS):
            lost = np.flatnonzero(self.timeouts[rows, envs])
            if not len(lost):
                break
            rows[lost] = (first + np.random.randint(n, size=len(lost))) % self.buffer_size
            envs[lost] = np.random.randint(self.n_envs, size=len(lost))
        else:
            stored = (first + np.arange(n)) % self.buffer_size
            kept_rows, kept_envs = np.nonzero(self.timeouts[stored] == 0)
            if not len(kept_rows):
                raise ValueError(
                    "The replay buffer holds nothing but the last transitions of episodes that a time limit ended, which lack "
                    "the next observation: leave out optimize_memory_usage, or raise `learning_starts`."
                )
            drawn = np.random.randint(len(kept_rows), size=len(lost))
            rows[lost], envs[lost] = stored[kept_rows[drawn]], kept_envs[drawn]
        return cast(ReplayBufferSamples, transitions_at(self, rows, envs, env))


class Additions:
    """
    Tells what is new in a replay buffer.

    :param buffer: the replay buffer
    """

    def __init__(self, buffer: ReplayBuffer) -> None:
        self.buffer = buffer
        self._n_added, self._pos = -1, 0

    def rows(self, n_added: int) -> tuple[np.ndarray, bool]:
        """
        :param n_added: how many rows were added to the buffer so far, by any count
        :return: the rows that are new since the last call, in the order of time, and whether these are all there are: at the
            first call, and where the buffer was filled from outside
        """
        buffer = self.buffer
        size, n_new = buffer.buffer_size, n_added - self._n_added
        is_all = self._n_added < 0 or n_new >= size or n_new != (buffer.pos - self._pos) % size
        if is_all:
            n_new = buffer.size()
        self._n_added, self._pos = n_added, buffer.pos
        return newest_rows(buffer, n_new), is_all


def newest_rows(buffer: ReplayBuffer, n: int) -> np.ndarray:
    """
    :param buffer: the replay buffer
    :param n: a number of rows
    :return: the newest n rows, or as many as there are, in the order of time
    """
    n = min(n, buffer.size())
    return (buffer.pos - n + np.arange(n)) % buffer.buffer_size


def observations_at(buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray, env: VecNormalize | None = None) -> PyTorchObs:
    """
    :param buffer: the replay buffer
    :param rows: rows in it, shape (n,)
    :param envs: the environment of each, shape (n,)
    :param env: the ``VecNormalize`` to normalise with, if any
    :return: the observations there
    """
    return _observations(buffer, buffer.observations, rows, envs, env)


def _observations(buffer: ReplayBuffer, stored: Any, rows: np.ndarray, envs: np.ndarray, env: VecNormalize | None) -> Any:
    return map_obs(buffer.to_torch, buffer._normalize_obs(take_rows(stored, (rows, envs)), env))


def transitions_at(buffer: ReplayBuffer, rows: np.ndarray, envs: np.ndarray, env: VecNormalize | None = None) -> Samples:
    """
    :param buffer: the replay buffer
    :param rows: rows in it, shape (n,)
    :param envs: the environment of each, shape (n,)
    :param env: the ``VecNormalize`` to normalise with, if any
    :return: these transitions, as the buffer samples them
    """
    obs = observations_at(buffer, rows, envs, env)
    if buffer.optimize_memory_usage:
        next_obs = observations_at(buffer, (rows + 1) % buffer.buffer_size, envs, env)
    else:
        next_obs = _observations(buffer, buffer.next_observations, rows, envs, env)
    kind: Any = DictReplayBufferSamples if isinstance(obs, dict) else ReplayBufferSamples
    ended = buffer.dones[rows, envs] * (1 - buffer.timeouts[rows, envs])  # a time limit is no end
    return kind(
        observations=obs,
        actions=buffer.to_torch(buffer.actions[rows, envs]),
        next_observations=next_obs,
        dones=buffer.to_torch(ended.reshape(-1, 1)),
        rewards=buffer.to_torch(buffer._normalize_reward(buffer.rewards[rows, envs].reshape(-1, 1), env)),
    )


def prior_rewards_at(
    buffer: ReplayBuffer, rows: np.ndarray, prior: Callable[[Samples], th.Tensor], env: VecNormalize | None = None
) -> np.ndarray:
    """
    :param buffer: the replay buffer
    :param rows: rows in it, shape (n,), at least one
    :param prior: from transitions to their prior rewards, shape (batch,)
    :param env: the ``VecNormalize`` to normalise with, if any
    :return: the prior rewards of all environments there, shape (n, n_envs)
    """
    every_env, rewards = np.arange(buffer.n_envs), []
    for piece in np.array_split(rows, -(-len(rows) // PIECE)):
        of_all = transitions_at(buffer, piece.repeat(len(every_env)), np.tile(every_env, len(piece)), env)
        rewards.append(prior(of_all).cpu().numpy().reshape(len(piece), -1))
    return np.concatenate(rewards)


class StoredPrior:
    """
    The prior rewards of the transitions in a replay buffer, each computed once: for a prior that doesn't change.

    :param buffer: the replay buffer
    :param prior: from transitions to their prior rewards, shape (batch,)
    """

    def __init__(self, buffer: ReplayBuffer, prior: Callable[[Samples], th.Tensor]) -> None:
        self.buffer = buffer
        self.prior = prior
        self.rewards = np.zeros_like(buffer.rewards)
        self._additions = Additions(buffer)
        self._pending: list[np.ndarray] = []

    def follow(self, n_added: int) -> None:
        """
        Note what is new, and compute it in blocks: a network takes as long for one row as for many.

        :param n_added: how many rows were added to the buffer so far, by any count
        """
        new, is_all = self._additions.rows(n_added)
        if is_all:
            self._pending = []
        self.rewards[new] = np.nan
        self._pending.append(new)
        if sum(map(len, self._pending)) < BLOCK:
            return
        rows = np.concatenate(self._pending)[-self.buffer.buffer_size :]
        self._pending = []
        self.rewards[rows] = prior_rewards_at(self.buffer, rows, self.prior)

    def sample(self, batch_size: int) -> tuple[Samples, th.Tensor]:
        """
        :param batch_size: how many transitions to draw, with replacement
        :return: transitions as the buffer samples them, and their prior rewards, shape (batch,)
        """
        # The environment's rewards are never read: the prior's stand in their place while the buffer gathers its columns
        rewards, self.buffer.rewards = self.buffer.rewards, self.rewards
        try:
            samples = self.buffer.sample(batch_size)
        finally:
            self.buffer.rewards = rewards
        return samples, self._completed(samples.rewards.squeeze(1), samples)

    def at(self, rows: np.ndarray, envs: np.ndarray, samples: Samples) -> th.Tensor:
        """
        :param rows: rows in the buffer, shape (n,)
        :param envs: the environment of each, shape (n,)
        :param samples: the transitions there
        :return: their prior rewards, shape (n,)
        """
        return self._completed(self.buffer.to_torch(self.rewards[rows, envs]), samples)

    def _completed(self, rewards: th.Tensor, samples: Samples) -> th.Tensor:
        """Compute those that are not computed yet."""
        missing = rewards.isnan()
        if missing.any():
            rewards[missing] = self.prior(take_samples(samples, missing))
        return rewards
