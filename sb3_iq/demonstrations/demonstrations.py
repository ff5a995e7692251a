"""A set of episodes, with the choice of transitions to learn from: a container that never changes."""

import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_iq.demonstrations import export
from sb3_iq.demonstrations.errors import check_integer, check_number, cut, path_of, shorten
from sb3_iq.demonstrations.hashing import hash_trajectories
from sb3_iq.demonstrations.plot import plot_trajectories
from sb3_iq.demonstrations.saving import save_trajectories
from sb3_iq.demonstrations.storage import chunks
from sb3_iq.demonstrations.trajectory import Trajectory

if TYPE_CHECKING:  # matplotlib is only imported for a plot
    from matplotlib.figure import Figure

# What a card tells of any part of the data
_LASTING = ("env_id", "env_kwargs", "env_wrapper", "vec_env_wrapper", "frame_stack", "observation_space", "action_space")


@dataclass(frozen=True, eq=False, repr=False)
class Demonstrations:
    """
    What :func:`load_demonstrations` returns: episodes and how densely to sample them.

    It is a container of :class:`Trajectory`, and each of its methods returns another one::

        demonstrations = load_demonstrations("bundled:CartPole-v1")
        len(demonstrations), demonstrations[0], demonstrations[:3], demonstrations[[0, 4]]
        good = demonstrations.filter(lambda episode: episode.rews.sum() >= 475)
        training, held_out = good.split(0.2, seed=0)
        (training + held_out).subsample(5).save("my_demos")

    :param trajectories: the episodes, at least one
    :param subsample_freq: keep the transitions at t = 0, f, 2f, ... of each episode, each with its own next observation
    :param reference: the string that the data was loaded with, of which this may be a part; None for objects in memory
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
        if not isinstance(self.trajectories, Iterable):
            raise TypeError(f"trajectories={shorten(self.trajectories)}: expected several Trajectory. Use load_demonstrations")
        object.__setattr__(self, "trajectories", tuple(self.trajectories))
        if self.max_episode_steps is not None:
            check_integer("max_episode_steps", self.max_episode_steps, 1)
        for trajectory in self.trajectories:
            if not isinstance(trajectory, Trajectory):
                raise TypeError(f"trajectories holds {shorten(trajectory)}, expected Trajectory. Use load_demonstrations")
        if not self.trajectories:
            raise ValueError("trajectories=(): expected at least one episode")
        object.__setattr__(self, "subsample_freq", check_integer("subsample_freq", self.subsample_freq, 1))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.describe()}>"

    def __len__(self) -> int:
        """
        :return: the number of episodes
        """
        return len(self.trajectories)

    def __iter__(self) -> Iterator[Trajectory]:
        """
        :return: the episodes
        """
        return iter(self.trajectories)

    @overload
    def __getitem__(self, index: int) -> Trajectory: ...

    @overload
    def __getitem__(self, index: "slice | Sequence[int] | Sequence[bool] | np.ndarray") -> "Demonstrations": ...

    def __getitem__(self, index: Any) -> "Trajectory | Demonstrations":
        """
        :param index: the number of an episode, a slice, a list of numbers, or one bool for each episode
        :return: the episode, or the demonstrations with those that are chosen
        :raises IndexError: if there is no such episode
        :raises ValueError: if none is chosen
        :raises TypeError: if it is something else
        """
        if isinstance(index, slice):
            return self._with(self.trajectories[index], f"[{index}]")
        if np.ndim(index) == 0 and not isinstance(index, (bool, np.bool_)):
            try:
                return self.trajectories[operator.index(index)]
            except IndexError:
                raise IndexError(f"there is no episode {index}: there are {len(self)}") from None
            except TypeError:
                pass
        if np.ndim(index) == 1:
            numbers = np.asarray(index)
            if numbers.dtype.kind == "b" and len(numbers) == len(self):
                numbers = np.flatnonzero(numbers)
            if numbers.dtype.kind in "iu" or not len(numbers):
                return self._with([self[number] for number in numbers.tolist()], f"[{cut(index)}]")
        raise TypeError(
            f"index {shorten(index)}: expected the number of an episode, a slice, a list of numbers, or one bool for each of "
            f"{len(self)} episodes"
        )

    def _with(self, trajectories: Sequence[Trajectory], what: str) -> "Demonstrations":
        """Return the same with a choice of the episodes."""
        if not trajectories:
            raise ValueError(f"{what} leaves none of {len(self)} episodes: demonstrations hold at least one")
        return replace(self, trajectories=tuple(trajectories))

    def __add__(self, other: "Demonstrations") -> "Demonstrations":
        """
        :param other: more episodes of the same environment
        :return: the episodes of both
        :raises ValueError: if the two differ in their subsampling, time limits or spaces
        """
        if not isinstance(other, Demonstrations):
            return NotImplemented
        if self.subsample_freq != other.subsample_freq:
            raise ValueError(
                f"demonstrations with subsample_freq={self.subsample_freq} and {other.subsample_freq} can't be joined. "
                "Subsample the sum"
            )
        for what, layout in (("observations", _layout_of_obs), ("actions", _layout_of_actions)):
            mine, others = layout(self[0]), layout(other[0])
            if mine is not None and others is not None and mine != others:
                raise ValueError(
                    f"demonstrations with {what} of {cut(mine)} and {cut(others)} can't be joined. "
                    "Join those of one environment"
                )
        joined: dict[str, Any] = {}
        for name in ("observation_space", "action_space", "max_episode_steps"):
            mine, others = getattr(self, name), getattr(other, name)
            if mine is not None and others is not None and mine != others:
                raise ValueError(
                    f"demonstrations with {name}={cut(mine)} and {cut(others)} can't be joined. Join those of one environment"
                )
            joined[name] = others if mine is None else mine
        if self.max_episode_steps != other.max_episode_steps:
            joined["max_episode_steps"] = None  # one may still tell how the episodes of the other ended
        reference = self.reference if self.reference == other.reference else None
        card = self.card if self.card == other.card else None
        return Demonstrations((*self.trajectories, *other.trajectories), self.subsample_freq, reference, card, **joined)

    def filter(self, function: Callable[[Trajectory], bool]) -> "Demonstrations":
        """
        :param function: whether to keep an episode, e.g. ``lambda episode: len(episode) > 100``
        :return: the demonstrations with the episodes that are kept
        :raises TypeError: if it is not a function
        :raises ValueError: if no episode is kept
        """
        if not callable(function):
            raise TypeError(f"function={shorten(function)}: expected a function of an episode that returns a bool")
        kept = [(trajectory, function(trajectory)) for trajectory in self.trajectories]
        for _, keeps in kept:
            if isinstance(keeps, str) or np.ndim(keeps) > 0:
                raise TypeError(f"function returns {shorten(keeps)} for an episode, expected a bool, e.g. len(episode) > 100")
        return self._with([trajectory for trajectory, keeps in kept if keeps], "filter(function)")

    def split(self, fraction: float = 0.2, seed: int | None = None) -> "tuple[Demonstrations, Demonstrations]":
        """
        :param fraction: the share of the episodes to hold out, rounded, but at least one episode on each side
        :param seed: hold out random episodes; None holds out the last ones
        :return: the demonstrations to learn from and those that are held out, each in the order of the data
        :raises ValueError: if the fraction is not between 0 and 1, or there is only one episode
        """
        if not 0 < check_number("fraction", fraction, 0, cure="Give one between 0 and 1, e.g. 0.2") < 1:
            raise ValueError(f"fraction={fraction}: expected a number between 0 and 1, e.g. 0.2")
        if seed is not None:
            check_integer("seed", seed, 0, cure="Use None for the last episodes")
        if len(self) < 2:
            raise ValueError("one episode can't be split. Load or record more")
        n_held_out = min(max(1, round(fraction * len(self))), len(self) - 1)
        order = np.arange(len(self)) if seed is None else np.random.default_rng(seed).permutation(len(self))
        held_out = np.isin(np.arange(len(self)), order[len(self) - n_held_out :])
        return self[~held_out], self[held_out]

    def subsample(self, freq: int) -> "Demonstrations":
        """
        :param freq: keep one of so many of the transitions that are kept now, each with its own next observation
        :return: the same episodes, sampled less densely
        """
        return replace(self, subsample_freq=self.subsample_freq * check_integer("freq", freq, 1))

    def save(self, path: str | Path, card: dict[str, Any] | None = None) -> None:
        """
        Write a folder, or a Parquet file, that :func:`load_demonstrations` reads back: the same content hash. imitation
        reads it too, but Dict observations.

        :param path: a folder that is new or empty, or a new file whose name ends with ``.parquet``
        :param card: what to add to the ``card.json`` beside the data, or to change in it
        :raises ValueError: if there is something at ``path``, if it can't be written, or if only some episodes have rewards
        """
        path = path_of("path", path)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            raise ValueError(f"path={shorten(path)}: there is something already. Give another path, or remove it")
        content = {name: value for name, value in (self.card or {}).items() if name in _LASTING}
        content |= {"max_episode_steps": self.max_episode_steps, "subsample_freq": self.subsample_freq}
        content |= {"n_episodes": len(self), "n_transitions": sum(map(len, self.trajectories))}
        if card is not None and not isinstance(card, dict):
            raise TypeError(f"card={shorten(card)}: expected a dictionary")
        save_trajectories(self.trajectories, path, content | (card or {}))

    def to_imitation(self) -> list[Any]:
        """
        :return: the episodes as imitation's ``TrajectoryWithRew``, or ``Trajectory`` where there are no rewards. Infos tell
            what a time limit cut off
        :raises ImportError: if imitation is not installed
        :raises ValueError: if the demonstrations are subsampled: trajectories have every step
        """
        self._check_whole("imitation's trajectories")
        return export.to_imitation(self.trajectories)

    def to_minari(self, dataset_id: str, env: gym.Env | str | None = None, **kwargs: Any) -> Any:
        """
        :param dataset_id: the id to give, e.g. ``"my/cartpole-v0"``
        :param env: the environment, or its id. None where the demonstrations carry their spaces
        :param kwargs: more for ``minari.create_dataset_from_buffers``, e.g. ``description=`` and ``author=``
        :return: the ``MinariDataset``, which is stored on this machine
        :raises ImportError: if Minari is not installed
        :raises ValueError: if the spaces are unknown, an episode has no rewards, the demonstrations are subsampled, or Minari
            refuses the data
        """
        self._check_whole("Minari's episodes")
        found = self.observation_space, self.action_space
        return export.to_minari(self.trajectories, dataset_id, found, env, **kwargs)

    def _check_whole(self, kind: str) -> None:
        if self.subsample_freq != 1:
            raise ValueError(f"the demonstrations have subsample_freq={self.subsample_freq}, but {kind} hold every step")

    def plot(self, path: str | Path | None = None) -> "Figure":
        """
        :param path: the image to write, e.g. ``"demos.png"``, if there shall be one
        :return: a figure of lengths, returns, how the episodes end, and the actions
        :raises ImportError: if matplotlib is not installed
        :raises ValueError: if the image can't be written, for instance as its name has no ending of an image
        """
        written = None if path is None else path_of("path", path)
        figure = plot_trajectories(self.trajectories, self.describe())
        if written is not None:
            try:
                if written.suffix.removeprefix(".").lower() not in figure.canvas.get_supported_filetypes():
                    raise ValueError("its name has no ending of an image")
                written.parent.mkdir(parents=True, exist_ok=True)
                figure.savefig(written)
            except (OSError, ValueError) as error:
                raise ValueError(f"path={shorten(path)}: cannot be written ({error}). Give a path like demos.png") from error
        return figure

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
        return hash_trajectories(self.trajectories, self.subsample_freq)

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
        :return: the maximum length of the episodes whose end is only assumed, if no time limit is known, and two or more of
            them share it or there is no other to compare with, so that it may well be a time limit; else None
        """
        lengths = Counter(len(trajectory) for trajectory in self.trajectories if trajectory.ending == "assumed")
        if self.max_episode_steps is not None or not lengths:
            return None
        longest = max(lengths)
        return longest if lengths[longest] >= 2 or lengths.total() == 1 else None

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


def _layout_of_obs(trajectory: Trajectory) -> Any:
    """Return the shapes of an observation, by key where there are several; a single number may have an axis or not."""
    if isinstance(trajectory.obs, dict):
        return {key: array.shape[1:] for key, array in sorted(trajectory.obs.items())}
    return () if trajectory.obs.shape[1:] == (1,) else trajectory.obs.shape[1:]


def _layout_of_actions(trajectory: Trajectory) -> tuple[int, str] | None:
    """Return how many numbers an action has, and whether they are whole; None without actions."""
    acts = trajectory.acts
    return None if acts is None else (int(np.prod(acts.shape[1:])), "floats" if acts.dtype.kind == "f" else "integers")
