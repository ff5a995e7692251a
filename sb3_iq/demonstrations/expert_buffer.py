"""The transitions of an expert, sampled like SB3's ReplayBuffer."""

import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations.columns import Column, MappedRows, Rows, RowsInMemory, one_in_a_row
from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import check_integer, shorten
from sb3_iq.demonstrations.mapped import RowFile, is_mapped
from sb3_iq.demonstrations.spaces import action_column, observation_columns
from sb3_iq.demonstrations.trajectory import Trajectory

Tensors = th.Tensor | dict[str, th.Tensor]
MAX_DEVICE_BYTES = 10**9


class ExpertBuffer:
    """
    Expert transitions, ready to be sampled.

    Each observation is stored once and raw; it is normalised when sampled, as SB3's own buffer does. The data lives on
    ``device`` below 1 GB, and is moved there batch by batch above. Episodes that are memory-mapped (see
    :func:`load_demonstrations`) stay in their files, and only what is sampled is read. Of any others the buffer makes a
    copy of its own: it doesn't keep ``demonstrations``.

    :param demonstrations: what :func:`load_demonstrations` returned
    :param observation_space: the observation space, as SB3's vectorised (and image-transposed) environment has it
    :param action_space: the action space: Discrete, or Box with finite bounds
    :param device: where batches are wanted
    :param rng: the generator to sample from; None makes one without a seed
    :raises TypeError: if ``demonstrations`` is not :class:`Demonstrations`
    :raises ValueError: if observations or actions don't fit the spaces, with what differs and the likely cause
    """

    def __init__(
        self,
        demonstrations: Demonstrations,
        observation_space: spaces.Space,
        action_space: spaces.Space,
        device: th.device | str = "cpu",
        rng: np.random.Generator | None = None,
    ) -> None:
        if not isinstance(demonstrations, Demonstrations):
            raise TypeError(f"demonstrations is {shorten(demonstrations)}: pass it through load_demonstrations first")
        self.observation_space = observation_space
        self.action_space = action_space
        self.device = th.device(device)
        self.rng = np.random.default_rng() if rng is None else rng
        self.description = demonstrations.describe()
        """What the demonstrations are, in one line for the log."""

        trajectories, freq = demonstrations.trajectories, demonstrations.subsample_freq
        observations = observation_columns(trajectories, observation_space)
        actions, rewards = action_column(trajectories, action_space), _reward_column(trajectories)
        columns = [*observations.values(), actions, rewards]
        mapped = any(is_mapped(episode) for column in columns for episode in column.episodes)

        files: dict[str, RowFile] = {}

        def rows(column: Column, every: int = 1) -> Rows:
            return MappedRows(column, files) if mapped else RowsInMemory(column, every)

        self._observations = {key: rows(column) for key, column in observations.items()}
        self._actions, self._rewards = rows(actions, freq), rows(rewards, freq)
        stores = [*self._observations.values(), self._actions, self._rewards]
        self.nbytes = sum(store.nbytes for store in stores)
        """The memory that the transitions take, in bytes."""
        self.mapped_bytes = sum(store.mapped_bytes for store in stores)
        """What is not in memory but in mapped files, in bytes."""
        for store in stores:
            if isinstance(store, RowsInMemory) and self.nbytes < MAX_DEVICE_BYTES:
                store.to(self.device)

        self._freq = freq
        self._lengths = np.array([len(trajectory) for trajectory in trajectories])
        self._ends = np.cumsum(-(-self._lengths // freq))  # the number of transitions up to the end of each episode
        self._terminated = np.array([trajectory.terminated for trajectory in trajectories])
        self._initial = np.flatnonzero([trajectory.starts_at_reset for trajectory in trajectories])
        if len(self._initial) == 0:
            warnings.warn(
                "Expert data: no episode is known to start at a reset; the first observation of each piece is taken for an "
                "initial one.",
                stacklevel=2,
            )
            self._initial = np.arange(len(trajectories))

    @property
    def terminates(self) -> bool:
        """Whether any demonstration ends in a terminal state."""
        return bool(self._terminated.any())

    def size(self) -> int:
        """
        :return: the number of transitions after subsampling
        """
        return int(self._ends[-1])

    def sample(
        self, batch_size: int, env: VecNormalize | None = None, rng: np.random.Generator | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        :param batch_size: the number of transitions to draw, uniformly and with replacement
        :param env: the normalising wrapper whose statistics observations are normalised with, if there is one
        :param rng: another generator than the buffer's own
        :return: tensors on the device: observations, actions (Discrete: int64 (B, 1); Box: float32 (B, action_dim) scaled to
            [-1, 1]), next observations, dones (terminated only, (B, 1)) and raw rewards ((B, 1), zeros if the data has none)
        """
        check_integer("batch_size", batch_size, 1)
        return self._batch((rng or self.rng).integers(self.size(), size=batch_size), env)

    def all(
        self, env: VecNormalize | None = None, at_most: int | None = None
    ) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        :param env: the normalising wrapper, if there is one
        :param at_most: with more transitions than this, only so many, evenly spread
        :return: every transition once, in the order of the data
        """
        return self._batch(self._spread(at_most), env)

    def positions(self, at_most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """
        :param at_most: as that of :meth:`all`
        :return: the episode of each transition that :meth:`all` returns, and its step in it
        """
        return self._locate(self._spread(at_most))

    def sample_initial_observations(self, batch_size: int, env: VecNormalize | None = None) -> Tensors:
        """
        :param batch_size: the number of observations to draw, uniformly and with replacement
        :param env: the normalising wrapper, if there is one
        :return: first observations of episodes that start at a reset, shape (B, \\*obs_shape)
        """
        check_integer("batch_size", batch_size, 1)
        episode = self._initial[self.rng.integers(len(self._initial), size=batch_size)]
        return self._gather(episode, np.zeros_like(episode), env)

    def scan_observations(self, key: str = "") -> Iterator[np.ndarray]:
        """
        :param key: a key of a Dict space
        :return: the raw observations of all transitions once, in order: at once, but in pieces if they are memory-mapped
        """
        return self._observations[key].scan(self._freq)

    def _spread(self, at_most: int | None) -> np.ndarray:
        """Return so many transitions, evenly spread."""
        n = self.size() if at_most is None else min(at_most, self.size())
        return np.linspace(0, self.size() - 1, n).round().astype(np.int64)

    def _locate(self, index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the episodes and steps of transitions."""
        episode = np.searchsorted(self._ends, index, side="right")
        start = self._ends[episode] - -(-self._lengths[episode] // self._freq)
        return episode, (index - start) * self._freq

    def _batch(self, index: np.ndarray, env: VecNormalize | None) -> ReplayBufferSamples | DictReplayBufferSamples:
        """Return these transitions."""
        episode, step = self._locate(index)
        dones = self._terminated[episode] & (step == self._lengths[episode] - 1)
        kind: Any = DictReplayBufferSamples if isinstance(self.observation_space, spaces.Dict) else ReplayBufferSamples
        # By name: later versions of SB3 have fields that earlier ones have not.
        return kind(
            observations=self._gather(episode, step, env),
            actions=self._actions.take(episode, step).to(self.device),
            next_observations=self._gather(episode, step + 1, env),
            dones=th.from_numpy(dones.astype(np.float32)[:, None]).to(self.device),
            rewards=self._rewards.take(episode, step).to(self.device),
        )

    def _gather(self, episode: np.ndarray, step: np.ndarray, env: VecNormalize | None) -> Tensors:
        """Return the observations of these steps."""
        if env is None:
            batch = {key: store.take(episode, step) for key, store in self._observations.items()}
        else:  # the wrapper works on NumPy arrays
            raw = {key: store.take_array(episode, step) for key, store in self._observations.items()}
            normalised = env.normalize_obs(raw if isinstance(self.observation_space, spaces.Dict) else raw[""])
            arrays = normalised if isinstance(normalised, dict) else {"": normalised}
            batch = {key: th.as_tensor(array) for key, array in arrays.items()}
        batch = {key: tensor.to(self.device) for key, tensor in batch.items()}
        return batch if isinstance(self.observation_space, spaces.Dict) else batch[""]


def _reward_column(trajectories: tuple[Trajectory, ...]) -> Column:
    """Return the raw rewards, zeros (that take no memory) for an episode without."""
    zero = np.zeros(1, np.float32)
    rewards = [np.broadcast_to(zero, len(t)) if t.rews is None else t.rews for t in trajectories]
    return Column(rewards, (1,), np.dtype(np.float32), one_in_a_row)
