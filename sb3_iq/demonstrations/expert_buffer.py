"""The transitions of an expert, sampled like SB3's ReplayBuffer."""

import copy
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations.conversion import action_column, observation_columns, part_sizes
from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import check_integer, shorten
from sb3_iq.demonstrations.frame_stacks import StackedRows, stacked_rows
from sb3_iq.demonstrations.storage import Column, MappedRows, RowFile, Rows, RowsInMemory, is_mapped, one_in_a_row
from sb3_iq.demonstrations.trajectory import Trajectory

Samples = ReplayBufferSamples | DictReplayBufferSamples
Tensors = th.Tensor | dict[str, th.Tensor]
MAX_DEVICE_BYTES = 10**9


class ExpertBuffer:
    """
    Expert transitions, ready to be sampled.

    Each observation is stored once and raw; it is normalised when sampled, as SB3's own buffer does. Of images that are stacks
    of frames each frame is stored once. The data lives on
    ``device`` below 1 GB, and is moved there batch by batch above. Episodes that are memory-mapped (see
    :func:`load_demonstrations`) stay in their files, and only what is sampled is read. Of any others the buffer makes a
    copy of its own: it doesn't keep ``demonstrations``.

    A transition has a *position*, from 0 to ``size() - 1`` in the order of the data. ``sample(n)`` is ``at(draw(n))``. Use
    the two where you keep a number of your own for each transition::

        positions = buffer.draw(256)
        batch, weights = buffer.at(positions), my_weights[positions]

    :param demonstrations: what :func:`load_demonstrations` returned
    :param observation_space: the observation space, as SB3's vectorised (and image-transposed) environment has it
    :param action_space: the action space: Discrete, or Box with finite bounds
    :param device: where batches are wanted
    :param rng: the generator to sample from; None makes one without a seed
    :param with_rewards: keep the rewards of the data. Without them, which saves memory and time, those of a batch are zeros
    :param with_actions: keep the actions of the data. Without them, for state-only data and where they are never read, they
        are not checked, and those of a batch are zeros
    :param action_range: the box inside of the action space that continuous actions are scaled from; None for the space itself
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
        with_rewards: bool = True,
        with_actions: bool = True,
        action_range: spaces.Space | None = None,
    ) -> None:
        if not isinstance(demonstrations, Demonstrations):
            raise TypeError(f"demonstrations is {shorten(demonstrations)}: pass it through load_demonstrations first")
        self.observation_space = observation_space
        self.action_space = action_space
        self.device = th.device(device)
        self.rng = np.random.default_rng() if rng is None else rng
        self.description = demonstrations.describe()
        """What the demonstrations are, in one line for the log."""

        trajectories, self._freq = demonstrations.trajectories, demonstrations.subsample_freq
        observations = observation_columns(trajectories, observation_space, demonstrations.card)
        actions = action_column(trajectories, action_space, action_range) if with_actions else None
        self._action_range = action_range if isinstance(action_range, spaces.Box) else action_space
        rewards = _reward_column(trajectories) if with_rewards else None
        columns = [*observations.values(), *(column for column in (actions, rewards) if column is not None)]
        mapped = any(is_mapped(episode) for column in columns for episode in column.episodes)
        files: dict[str, RowFile] = {}

        def rows(column: Column, every: int = 1) -> Rows:
            return MappedRows(column, files, every) if mapped else RowsInMemory(column, every)

        def observation_rows(column: Column) -> Rows | StackedRows:
            return (None if mapped else stacked_rows(column)) or rows(column)

        self._observations = {key: observation_rows(column) for key, column in observations.items()}
        self._actions = None if actions is None else rows(actions, self._freq)
        self._rewards = None if rewards is None else rows(rewards, self._freq)
        stores = [*self._observations.values(), *(store for store in (self._actions, self._rewards) if store is not None)]
        self.nbytes = sum(store.nbytes for store in stores)
        """The memory that the transitions take, in bytes."""
        self.mapped_bytes = sum(store.mapped_bytes for store in stores)
        """What is not in memory but in mapped files, in bytes."""
        self._home = th.device("cpu") if mapped or self.nbytes >= MAX_DEVICE_BYTES else self.device
        for store in stores:
            if isinstance(store, (RowsInMemory, StackedRows)):
                store.to(self._home)

        lengths = np.array([len(trajectory) for trajectory in trajectories])
        # A recording without the ends of its episodes is longer than an episode can be
        self.mean_length = float(np.minimum(lengths, demonstrations.max_episode_steps or lengths).mean())
        """The mean number of steps of a demonstration, also of those that subsampling leaves out."""
        self._terminated = np.array([trajectory.terminated for trajectory in trajectories])
        self._places = _Places.of(lengths, self._freq, self._terminated)
        self._places_at_home = self._places.to(self._home)
        self._no_reward = th.zeros(1, 1, device=self.device)
        self._no_action = _zero_action(action_space).to(self.device)
        self._size = int(self._places.ends[-1])
        self._first_rows = np.cumsum(lengths + 1) - (lengths + 1)
        self._initial = np.flatnonzero([trajectory.starts_at_reset for trajectory in trajectories])
        if len(self._initial) == 0:
            warnings.warn(
                "Expert data: no episode is known to start at a reset; the first observation of each piece is taken for an "
                "initial one.",
                stacklevel=2,
            )
            self._initial = np.arange(len(trajectories))

    @property
    def has_actions(self) -> bool:
        """Whether the actions of the data were kept."""
        return self._actions is not None

    @property
    def terminates(self) -> bool:
        """Whether any demonstration ends in a terminal state."""
        return bool(self._terminated.any())

    @property
    def ends(self) -> np.ndarray:
        """Positions of the transitions that lead to terminal states, for :meth:`at`, shape (n,), int64."""
        last = (self._places.ends - 1)[th.as_tensor(self._terminated)]
        # Subsampling may have left the last transition of an episode out
        return last[self._places.find(last)[1].flatten().bool()].numpy()

    def scaled_from(self, action_range: spaces.Space) -> "ExpertBuffer":
        """
        :param action_range: a box to scale continuous actions from; those beyond it are clipped to it
        :return: the same demonstrations, scaled so
        """
        before, now = self._action_range, action_range
        if self._actions is None or not (isinstance(before, spaces.Box) and isinstance(now, spaces.Box)):
            return self
        old, new = ([bound.astype(np.float64).reshape(-1) for bound in (box.low, box.high)] for box in (before, now))
        if np.array_equal(old, new):
            return self

        def scaled_anew(rows: np.ndarray) -> np.ndarray:
            actions = old[0] + 0.5 * (rows.astype(np.float64) + 1.0) * (old[1] - old[0])
            return np.clip(2.0 * (actions - new[0]) / (new[1] - new[0]) - 1.0, -1.0, 1.0).astype(np.float32)

        scaled = copy.copy(self)
        scaled._actions, scaled._action_range = self._actions.changed(scaled_anew), now
        return scaled

    def size(self) -> int:
        """
        :return: the number of transitions after subsampling
        """
        return self._size

    def sample(self, batch_size: int, env: VecNormalize | None = None, rng: np.random.Generator | None = None) -> Samples:
        """
        :param batch_size: the number of transitions to draw, uniformly and with replacement
        :param env: the normalising wrapper whose statistics observations are normalised with, if there is one
        :param rng: another generator than the buffer's own
        :return: tensors on the device: observations, actions (discrete: int64 (B, 1); continuous: float32 (B, action_dim)
            scaled to [-1, 1]; zeros with ``with_actions=False``), next observations, dones (terminated only, (B, 1)) and raw
            rewards ((B, 1), zeros if the data has none or ``with_rewards=False``)
        """
        return self._at(th.from_numpy(self.draw(batch_size, rng)), env)

    def draw(self, batch_size: int, rng: np.random.Generator | None = None) -> np.ndarray:
        """
        :param batch_size: the number of transitions to draw, uniformly and with replacement
        :param rng: another generator than the buffer's own
        :return: their positions, shape (B,), int64: for :meth:`at`, and for whatever you keep for each transition
        """
        check_integer("batch_size", batch_size, 1)
        return (rng or self.rng).integers(self._size, size=batch_size)

    def at(self, positions: np.ndarray | th.Tensor, env: VecNormalize | None = None) -> Samples:
        """
        :param positions: positions of transitions, shape (B,), as :meth:`draw` returns them. Those in a tensor on the device
            are not transferred again, and not checked
        :param env: the normalising wrapper, if there is one
        :return: the transitions, as :meth:`sample` returns them
        :raises ValueError: if a position is out of range
        """
        if isinstance(positions, th.Tensor):
            return self._at(positions, env)
        positions = np.asarray(positions)
        if positions.ndim != 1 or positions.dtype.kind not in "iu":
            raise ValueError(f"positions of shape {positions.shape} and dtype {positions.dtype}: expected a list of integers")
        if len(positions) and not (positions.min() >= 0 and positions.max() < self._size):
            raise ValueError(
                f"positions from {positions.min()} to {positions.max()}: expected integers between 0 and {self._size - 1}"
            )
        return self._at(th.from_numpy(positions.astype(np.int64)), env)

    def all(self, env: VecNormalize | None = None, at_most: int | None = None) -> Samples:
        """
        :param env: the normalising wrapper, if there is one
        :param at_most: with more transitions than this, only so many, evenly spread
        :return: every transition once, in the order of the data
        """
        return self._at(th.from_numpy(self.positions(at_most)), env)

    def places(self, at_most: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """
        :param at_most: as that of :meth:`all`
        :return: the episode of each transition that :meth:`all` returns, and its step in it
        """
        positions = self.positions(at_most)
        ends = self._places.ends.numpy()
        episodes = np.searchsorted(ends, positions, side="right")
        starts = np.concatenate([[0], ends[:-1]])
        return episodes, (positions - starts[episodes]) * self._freq

    def positions(self, at_most: int | None = None) -> np.ndarray:
        """
        :param at_most: with more transitions than this, only so many, evenly spread
        :return: positions of transitions, for :meth:`at`, shape (n,), int64
        """
        n = self._size if at_most is None else min(check_integer("at_most", at_most, 1), self._size)
        return np.linspace(0, self._size - 1, n).round().astype(np.int64)

    def sample_initial_observations(self, batch_size: int, env: VecNormalize | None = None) -> Tensors:
        """
        :param batch_size: the number of observations to draw, uniformly and with replacement
        :param env: the normalising wrapper, if there is one
        :return: first observations of episodes that start at a reset, shape (B, \\*obs_shape)
        """
        check_integer("batch_size", batch_size, 1)
        episode = self._initial[self.rng.integers(len(self._initial), size=batch_size)]
        return self._rows(th.from_numpy(self._first_rows[episode]), env)

    def last_observations(self, at_most: int, env: VecNormalize | None = None) -> tuple[Tensors, Tensors]:
        """
        :param at_most: of so many episodes
        :param env: the normalising wrapper, if there is one
        :return: of the episodes that end in a terminal state the observation before it, and the terminal one, shape
            (n, \\*obs_shape) each: also where subsampling has left the last transition out
        """
        ends = self._places.last_rows[th.as_tensor(self._terminated)][:at_most]
        return self._rows(ends - 1, env), self._rows(ends, env)

    def scan_observations(self, key: str = "") -> Iterator[np.ndarray]:
        """
        :param key: a key of a Dict space
        :return: the raw observations of all transitions once, in order: at once, but in pieces if they are memory-mapped, or
            stacks of frames
        """
        return self._observations[key].scan(self._freq)

    def _at(self, index: th.Tensor, env: VecNormalize | None) -> Samples:
        """Return the transitions of these positions. Moving the index is the only transfer of a batch that lives at home."""
        at_home = index.to(self._home)
        if env is None:
            rows, dones = self._places_at_home.find(at_home)
            observations, next_observations = self._raw(rows), self._raw(rows + 1)
        else:
            rows, dones = self._places.find(index.cpu())
            observations, next_observations = self._normalised(rows, env), self._normalised(rows + 1, env)
        rewards = self._no_reward.expand(len(index), 1) if self._rewards is None else self._rewards.take(at_home)
        actions = self._no_action.expand(len(index), -1) if self._actions is None else self._actions.take(at_home)
        kind: Any = DictReplayBufferSamples if isinstance(self.observation_space, spaces.Dict) else ReplayBufferSamples
        # By name: later versions of SB3 have fields that earlier ones have not.
        return kind(
            observations=observations,
            actions=actions.to(self.device),
            next_observations=next_observations,
            dones=dones.to(self.device),
            rewards=rewards.to(self.device),
        )

    def _rows(self, rows: th.Tensor, env: VecNormalize | None) -> Tensors:
        """Return these rows of the observations, by positions on the CPU."""
        return self._raw(rows.to(self._home)) if env is None else self._normalised(rows, env)

    def _raw(self, rows: th.Tensor) -> Tensors:
        """Return these rows of the observations."""
        batch = {key: store.take(rows).to(self.device) for key, store in self._observations.items()}
        return batch if isinstance(self.observation_space, spaces.Dict) else batch[""]

    def _normalised(self, rows: th.Tensor, env: VecNormalize) -> Tensors:
        """Return these rows of the observations, normalised: the wrapper works on NumPy arrays."""
        raw = {key: store.take_array(rows.numpy()) for key, store in self._observations.items()}
        if isinstance(self.observation_space, spaces.Dict):
            normalised: Any = env.normalize_obs(raw)
            return {key: th.as_tensor(array).to(self.device) for key, array in normalised.items()}
        return th.as_tensor(env.normalize_obs(raw[""])).to(self.device)


class _Places(NamedTuple):
    """
    Where transitions are. An episode of T steps has T + 1 rows of observations.

    :param ends: the number of transitions up to the end of each episode
    :param offsets: in an episode, what has to be added to ``freq * position`` for the row of the observation
    :param last_rows: in an episode, the row of its terminal state, -1 if it does not end in one
    :param freq: one of so many transitions has a position
    """

    ends: th.Tensor
    offsets: th.Tensor
    last_rows: th.Tensor
    freq: int

    @staticmethod
    def of(lengths: np.ndarray, freq: int, terminated: np.ndarray) -> "_Places":
        n_transitions = -(-lengths // freq)
        ends = np.cumsum(n_transitions)
        first_rows = np.cumsum(lengths + 1) - (lengths + 1)
        last_rows = np.where(terminated, first_rows + lengths, -1)
        offsets = first_rows - freq * (ends - n_transitions)
        return _Places(th.from_numpy(ends), th.from_numpy(offsets), th.from_numpy(last_rows), freq)

    def to(self, device: th.device) -> "_Places":
        return _Places(self.ends.to(device), self.offsets.to(device), self.last_rows.to(device), self.freq)

    def find(self, index: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
        """Return the row of each transition's observation, which the next observation follows, and its done, (B, 1)."""
        episode = th.searchsorted(self.ends, index, right=True)
        rows = self.freq * index + self.offsets[episode]
        return rows, (rows + 1 == self.last_rows[episode]).float()[:, None]


def _zero_action(space: spaces.Space) -> th.Tensor:
    """Return what stands for an action that is never read, shape (1, action_dim)."""
    if isinstance(space, spaces.Box):
        return th.zeros(1, int(np.prod(space.shape)))
    return th.zeros(1, len(part_sizes(space)), dtype=th.int64)


def _reward_column(trajectories: tuple[Trajectory, ...]) -> Column:
    """Return the raw rewards, zeros (that take no memory) for an episode without."""
    zero = np.zeros(1, np.float32)
    rewards = [np.broadcast_to(zero, len(t)) if t.rews is None else t.rews for t in trajectories]
    return Column(rewards, (1,), np.dtype(np.float32), one_in_a_row)
