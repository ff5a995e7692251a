"""The transitions of an expert, sampled like SB3's ReplayBuffer."""

import warnings
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import check_integer, shorten
from sb3_iq.demonstrations.spaces import encode_actions, encode_observations

Tensors = th.Tensor | dict[str, th.Tensor]
MAX_DEVICE_BYTES = 10**9


class ExpertBuffer:
    """
    Expert transitions, ready to be sampled.

    Each observation is stored once and raw; it is normalised when sampled, as SB3's own buffer does. The data lives on
    ``device`` below 1 GB, and is moved there batch by batch above.

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
        self.demonstrations = demonstrations
        self.observation_space = observation_space
        self.action_space = action_space
        self.device = th.device(device)
        self.rng = np.random.default_rng() if rng is None else rng

        trajectories, freq = demonstrations.trajectories, demonstrations.subsample_freq
        stored = encode_observations(trajectories, observation_space)
        self._observations = stored if isinstance(stored, dict) else {"": stored}
        acts = encode_actions(trajectories, action_space)
        self._actions = np.concatenate([episode[::freq] for episode in acts])
        # As in SB3's buffer: one row for each action, whatever its shape
        self._actions = self._actions.reshape(len(self._actions), -1)
        lengths = np.array([len(trajectory) for trajectory in trajectories])
        # Each episode has one observation more than steps, so its rows start at (all steps before) + (episodes before).
        starts = np.cumsum(lengths) - lengths + np.arange(len(lengths))
        steps = [np.arange(0, length, freq) for length in lengths]
        self._obs_index = np.concatenate([start + step for start, step in zip(starts, steps, strict=True)])
        ends = np.concatenate([step == length - 1 for length, step in zip(lengths, steps, strict=True)])
        terminated = np.repeat([trajectory.terminated for trajectory in trajectories], [len(step) for step in steps])
        self._dones = (ends & terminated).astype(np.float32)[:, None]
        rewards = [np.zeros(len(t), dtype=np.float32) if t.rews is None else t.rews for t in trajectories]
        self._rewards = np.concatenate([episode[::freq] for episode in rewards]).astype(np.float32)[:, None]

        self._initial_index = starts[[trajectory.starts_at_reset for trajectory in trajectories]]
        if len(self._initial_index) == 0:
            warnings.warn(
                "Expert data: no episode is known to start at a reset; the first observation of each piece is taken for an "
                "initial one.",
                stacklevel=2,
            )
            self._initial_index = starts
        arrays = [*self._observations.values(), self._actions, self._dones, self._rewards]
        self.nbytes = sum(array.nbytes for array in arrays)
        """The memory that the transitions take, in bytes."""
        storage = self.device if self.nbytes < MAX_DEVICE_BYTES else th.device("cpu")
        self._obs_tensors = {key: th.from_numpy(array).to(storage) for key, array in self._observations.items()}
        self._columns = tuple(th.from_numpy(array).to(storage) for array in (self._actions, self._dones, self._rewards))

    def size(self) -> int:
        """
        :return: the number of transitions after subsampling
        """
        return len(self._obs_index)

    def sample(self, batch_size: int, env: VecNormalize | None = None) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        :param batch_size: the number of transitions to draw, uniformly and with replacement
        :param env: the normalising wrapper whose statistics observations are normalised with, if there is one
        :return: tensors on the device: observations, actions (Discrete: int64 (B, 1); Box: float32 (B, action_dim) scaled to
            [-1, 1]), next observations, dones (terminated only, (B, 1)) and raw rewards ((B, 1), zeros if the data has none)
        """
        check_integer("batch_size", batch_size, 1)
        return self._batch(self.rng.integers(self.size(), size=batch_size), env)

    def all(self, env: VecNormalize | None = None) -> ReplayBufferSamples | DictReplayBufferSamples:
        """
        :param env: the normalising wrapper, if there is one
        :return: every transition once, in the order of the data
        """
        return self._batch(np.arange(self.size()), env)

    def sample_initial_observations(self, batch_size: int, env: VecNormalize | None = None) -> Tensors:
        """
        :param batch_size: the number of observations to draw, uniformly and with replacement
        :param env: the normalising wrapper, if there is one
        :return: first observations of episodes that start at a reset, shape (B, \\*obs_shape)
        """
        check_integer("batch_size", batch_size, 1)
        return self._gather(self._initial_index[self.rng.integers(len(self._initial_index), size=batch_size)], env)

    def _batch(self, index: np.ndarray, env: VecNormalize | None) -> ReplayBufferSamples | DictReplayBufferSamples:
        """Return the transitions of these positions."""
        rows = self._obs_index[index]
        where = th.from_numpy(index).to(self._columns[0].device)
        actions, dones, rewards = (column[where].to(self.device) for column in self._columns)
        kind: Any = DictReplayBufferSamples if isinstance(self.observation_space, spaces.Dict) else ReplayBufferSamples
        # By name: later versions of SB3 have fields that earlier ones have not.
        return kind(
            observations=self._gather(rows, env),
            actions=actions,
            next_observations=self._gather(rows + 1, env),
            dones=dones,
            rewards=rewards,
        )

    def _gather(self, rows: np.ndarray, env: VecNormalize | None) -> Tensors:
        """Return the observations of these rows of the store."""
        if env is None:
            batch = {key: tensor[th.from_numpy(rows).to(tensor.device)] for key, tensor in self._obs_tensors.items()}
        else:  # the wrapper works on NumPy arrays
            raw = {key: array[rows] for key, array in self._observations.items()}
            normalised = env.normalize_obs(raw if isinstance(self.observation_space, spaces.Dict) else raw[""])
            arrays = normalised if isinstance(normalised, dict) else {"": normalised}
            batch = {key: th.as_tensor(array) for key, array in arrays.items()}
        batch = {key: tensor.to(self.device) for key, tensor in batch.items()}
        return batch if isinstance(self.observation_space, spaces.Dict) else batch[""]
