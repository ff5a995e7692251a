"""A set of episodes, with the choice of transitions to learn from."""

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_iq.demonstrations.errors import check_integer, shorten
from sb3_iq.demonstrations.storage import chunks, extremes
from sb3_iq.demonstrations.trajectory import Trajectory


@dataclass(frozen=True, eq=False)
class Demonstrations:
    """
    What :func:`load_demonstrations` returns: episodes and how densely to sample them.

    :param trajectories: the episodes, at least one
    :param subsample_freq: keep the transitions at t = 0, f, 2f, ... of each episode, each with its own next observation
    :param reference: the string that the data was loaded with, or None for objects in memory
    :param card: the content of the ``card.json`` beside the data, if there is one
    :param max_episode_steps: the time limit that was applied, or None if none is known
    :param observation_space: the observation space, where the source carries it
    :param action_space: the action space, where the source carries it
    :raises ValueError: if there is no episode, or ``subsample_freq`` is less than 1
    :raises TypeError: if an episode isn't a :class:`Trajectory`
    """

    trajectories: tuple[Trajectory, ...]
    subsample_freq: int = 1
    reference: str | None = None
    card: dict[str, Any] | None = None
    max_episode_steps: int | None = None
    observation_space: spaces.Space | None = None
    action_space: spaces.Space | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "trajectories", tuple(self.trajectories))
        for trajectory in self.trajectories:
            if not isinstance(trajectory, Trajectory):
                raise TypeError(f"trajectories holds {shorten(trajectory)}, expected Trajectory. Use load_demonstrations")
        if not self.trajectories:
            raise ValueError("trajectories=(): expected at least one episode")
        object.__setattr__(self, "subsample_freq", check_integer("subsample_freq", self.subsample_freq, 1))

    @property
    def n_transitions(self) -> int:
        """The number of transitions after subsampling."""
        return sum(-(-len(trajectory) // self.subsample_freq) for trajectory in self.trajectories)

    @property
    def episode_returns(self) -> np.ndarray | None:
        """The sum of rewards of each whole episode, shape (n_episodes,), or None if an episode has no rewards."""
        rewards = [trajectory.rews for trajectory in self.trajectories if trajectory.rews is not None]
        if len(rewards) < len(self.trajectories):
            return None
        return np.array([sum(chunk.sum(dtype=np.float64) for chunk in chunks(rews)) for rews in rewards])

    @cached_property
    def content_hash(self) -> str:
        """A SHA-256 of arrays, flags and subsampling: the same content from any kind of source gives the same hash."""
        digest = hashlib.sha256(f"sb3-iq demonstrations 1, every {self.subsample_freq}".encode())
        for trajectory in self.trajectories:
            flags = (trajectory.terminated, trajectory.truncated, trajectory.starts_at_reset)
            digest.update(repr(flags).encode())
            obs = trajectory.obs if isinstance(trajectory.obs, dict) else {"": trajectory.obs}
            arrays = [(f"obs {key}", obs[key]) for key in sorted(obs)] + [("acts", trajectory.acts)]
            if trajectory.rews is not None:
                arrays.append(("rews", trajectory.rews))
            for name, array in arrays:
                dtype = _canonical_dtype(array)
                digest.update(f"{name} {array.shape} {dtype.str}".encode())
                for chunk in chunks(array):
                    digest.update(np.ascontiguousarray(chunk, dtype=dtype).data)
        return digest.hexdigest()

    def with_time_limit(self, max_episode_steps: int) -> "Demonstrations":
        """
        :param max_episode_steps: the time limit of the environment, e.g. ``env.spec.max_episode_steps``
        :return: the same data, with the episodes that reach the limit, and whose end was only assumed, taken as truncated.
            A limit that is known already (from the user or the card) is kept
        """
        limit = check_integer("max_episode_steps", max_episode_steps, 1)
        if self.max_episode_steps is not None:
            return self
        trajectories = tuple(trajectory.with_time_limit(limit) for trajectory in self.trajectories)
        return replace(self, trajectories=trajectories, max_episode_steps=limit)

    def unknown_limit_length(self) -> int | None:
        """
        :return: the maximum length, if no time limit is known, all ends are assumed, and two or more episodes share
            that length, so that it may well be a time limit; else None
        """
        if self.max_episode_steps is not None or any(trajectory.ending != "assumed" for trajectory in self.trajectories):
            return None
        lengths = Counter(len(trajectory) for trajectory in self.trajectories)
        longest = max(lengths)
        return longest if lengths[longest] >= 2 else None

    def describe(self) -> str:
        """
        :return: one line for the log: episodes, transitions, returns and how the episodes ended
        """
        n_terminated = sum(trajectory.terminated for trajectory in self.trajectories)
        n_truncated = sum(trajectory.truncated for trajectory in self.trajectories)
        n_open = len(self.trajectories) - n_terminated - n_truncated
        parts = [f"{len(self.trajectories)} episodes", f"{self.n_transitions} transitions"]
        if self.subsample_freq > 1:
            parts[-1] += f" (one of {self.subsample_freq})"
        returns = self.episode_returns
        if returns is not None:
            parts.append(f"return {returns.mean():.1f} +/- {returns.std():.1f}")
        parts.append(f"{n_terminated} terminated, {n_truncated} truncated, {n_open} open")
        return f"{self.reference or 'demonstrations in memory'}: " + ", ".join(parts)


def _canonical_dtype(array: np.ndarray) -> np.dtype:
    """Return one dtype for equal numbers: libraries on the way widen float32 to float64 and uint8 to int64."""
    if array.dtype.kind == "f":
        return np.dtype("<f8")
    if array.dtype not in (np.uint8, np.bool_):
        minimum, maximum = extremes(array)
        if minimum.min() < 0 or maximum.max() > 255:
            return np.dtype("<i8")
    return np.dtype("|u1")  # images: eight times less to hash than int64
