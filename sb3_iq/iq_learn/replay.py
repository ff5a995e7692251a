"""What IQ-Learn asks of SB3's replay buffer beyond SB3: to be allocated late, and its initial observations."""

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.iq_learn import objective
from sb3_iq.iq_learn.observations import concatenate_obs

if TYPE_CHECKING:
    from sb3_iq.iq_learn.arguments import ObjectiveTerms
    from sb3_iq.iq_learn.iq_learn import IQLearn

# Stands where SB3 would otherwise allocate a buffer while it builds the model
NOT_ALLOCATED: Any = object()


def make_replay_buffer(model: "IQLearn", buffer_size: int | None = None) -> ReplayBuffer:
    """
    :param model: the algorithm, with its spaces and number of environments
    :param buffer_size: its size, by default the model's
    :return: an empty replay buffer as SB3's ``OffPolicyAlgorithm`` makes it
    """
    default = DictReplayBuffer if isinstance(model.observation_space, spaces.Dict) else ReplayBuffer
    buffer_class = model.replay_buffer_class or default
    return buffer_class(
        buffer_size or model.buffer_size,
        model.observation_space,  # type: ignore[arg-type]
        model.action_space,
        device=model.device,
        n_envs=model.n_envs,
        optimize_memory_usage=model.optimize_memory_usage,
        **model.replay_buffer_kwargs,
    )


def sample(model: "IQLearn", batch_size: int) -> ReplayBufferSamples | DictReplayBufferSamples:
    """
    :param model: the algorithm, with a replay buffer that is not empty
    :param batch_size: how many transitions to draw, with replacement
    :return: transitions of the whole buffer, or of its ``replay_window`` newest
    """
    buffer, env = model.replay_buffer, model.get_vec_normalize_env()
    assert buffer is not None
    rows = None if model.replay_window is None else -(-model.replay_window // buffer.n_envs)
    if rows is None or rows >= buffer.size():
        return buffer.sample(batch_size, env=env)
    newest = buffer.pos - 1 - np.random.randint(rows, size=batch_size)
    return buffer._get_samples(newest % buffer.buffer_size, env=env)


def terminal_value(model: "IQLearn", terms: "ObjectiveTerms") -> float | None:
    """
    :param model: the algorithm, with its demonstrations
    :param terms: the terms of the objective in force
    :return: V of terminal states; None where both the expert and the policy may end, alike or not
    """
    assert model.expert_buffer is not None
    if model.terminal_value == "zero":
        return 0.0
    if not model.offline and model.expert_buffer.terminates:
        return None
    shares = (1.0, 0.0) if model.offline else (0.0, 1.0)
    weights = (model.penalty_coef, model.mixture_weight)
    reward = objective.absorbing_reward(*shares, model.divergence, terms.occupancy_term, terms.penalty, *weights)
    return reward / (1 - model.gamma)


def sample_initial_observations(model: "IQLearn", batch_size: int) -> PyTorchObs:
    """
    :param model: the algorithm, with its demonstrations and, online, its replay buffer
    :param batch_size: how many to draw
    :return: true initial observations: half of the demonstrations', half of the replay buffer's; offline, all of the former
    """
    expert_buffer, env = model.expert_buffer, model.get_vec_normalize_env()
    assert expert_buffer is not None
    if model.offline:
        return expert_buffer.sample_initial_observations(batch_size, env=env)
    assert model.replay_buffer is not None
    n_expert = (batch_size + 1) // 2
    expert_obs = expert_buffer.sample_initial_observations(n_expert, env=env)
    if n_expert == batch_size:
        return expert_obs
    return concatenate_obs(expert_obs, sample_episode_starts(model.replay_buffer, batch_size - n_expert, env))


def sample_episode_starts(buffer: ReplayBuffer, batch_size: int, env: VecNormalize | None = None) -> PyTorchObs:
    """
    Draw from the first observations of the episodes in a replay buffer.

    :param buffer: a replay buffer that holds at least one transition
    :param batch_size: how many to draw, with replacement
    :param env: the ``VecNormalize`` to normalise with, if any
    :return: observations, shape (batch_size, *obs_shape), or a dictionary of such
    """
    rows, envs = _EPISODE_STARTS.setdefault(buffer, EpisodeStarts()).draw(buffer, batch_size)
    if isinstance(buffer.observations, dict):
        obs: Any = {key: values[rows, envs] for key, values in buffer.observations.items()}
    else:
        obs = buffer.observations[rows, envs]
    obs = buffer._normalize_obs(obs, env)
    if isinstance(obs, dict):
        return {key: buffer.to_torch(values) for key, values in obs.items()}
    return buffer.to_torch(obs)


class EpisodeStarts:
    """
    Where the episodes in a replay buffer start; it follows the buffer at the cost of what was added since the last draw.

    An episode starts where the buffer does, and after each step that ended one (SB3 stores done for terminated and truncated).
    Rows are counted on where the buffer goes round: row n is stored at n % buffer_size.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self._n_rows = 0
        # n * n_envs + env of each start, ascending, in an array that has room to grow
        self._starts = np.empty(0, dtype=np.int64)
        self._begin = self._end = 0

    def draw(self, buffer: ReplayBuffer, batch_size: int) -> tuple[np.ndarray, np.ndarray]:
        """
        :param buffer: the replay buffer, always the same
        :param batch_size: how many to draw, with replacement
        :return: where they are stored: rows and environments, both of shape (batch_size,)
        """
        self._follow(buffer)
        if self._begin == self._end:
            # One episode longer than the buffer: its oldest rows are all there is
            return np.full(batch_size, buffer.pos), np.random.randint(buffer.n_envs, size=batch_size)
        drawn = self._starts[np.random.randint(self._begin, self._end, size=batch_size)]
        rows, envs = np.divmod(drawn, buffer.n_envs)
        if ((rows > 0) & (buffer.dones[(rows - 1) % buffer.buffer_size, envs] == 0)).any():
            # The buffer was emptied, or went round more than once: what is known of it is of no use
            self.reset()
            return self.draw(buffer, batch_size)
        return rows % buffer.buffer_size, envs

    def _follow(self, buffer: ReplayBuffer) -> None:
        """Add the starts of the rows that are new, and leave out those of the rows that are gone."""
        size, n_envs = buffer.buffer_size, buffer.n_envs
        n_rows = self._n_rows + (buffer.pos - self._n_rows) % size
        if (n_rows >= size) != buffer.full:
            self.reset()
            n_rows = buffer.pos + size * buffer.full
        if n_rows == self._n_rows:
            return
        new = np.arange(max(self._n_rows, n_rows - size), n_rows)
        starts = buffer.dones[(new - 1) % size] != 0
        starts[new == 0] = True
        rows, envs = np.nonzero(starts)
        self._append(new[rows] * n_envs + envs)
        # The step before the oldest row is gone, and with it whether an episode starts there
        first = n_rows - size + 1 if buffer.full else 0
        self._begin += int(np.searchsorted(self._starts[self._begin : self._end], first * n_envs))
        self._n_rows = n_rows

    def _append(self, starts: np.ndarray) -> None:
        if self._end + len(starts) > len(self._starts):
            known = self._starts[self._begin : self._end]
            self._starts = np.concatenate([known, np.empty(len(known) + len(starts), dtype=np.int64)])
            self._begin, self._end = 0, len(known)
        self._starts[self._end : self._end + len(starts)] = starts
        self._end += len(starts)


# Nothing but what can be found out again: it is neither saved nor copied with a model
_EPISODE_STARTS: WeakKeyDictionary[ReplayBuffer, EpisodeStarts] = WeakKeyDictionary()
