"""What a kind of expert data offers: whether a source is of this kind, and its episodes."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from gymnasium import spaces

from sb3_iq.demonstrations.trajectory import Trajectory

Select = Callable[[int], Sequence[int]]


@dataclass(frozen=True)
class Request:
    """
    What is wanted of a source.

    :param select: from the number of episodes to the indices of those wanted, so that no other episode is decoded
    :param max_episode_steps: the time limit, if known
    :param max_bytes: leave the arrays in their files if those of the chosen episodes take more and the files allow it
    """

    select: Select
    max_episode_steps: int | None = None
    max_bytes: float = float("inf")


class Loaded(NamedTuple):
    """
    What a source gives.

    :param trajectories: the episodes that were chosen
    :param observation_space: the observation space, where the source carries it
    :param action_space: the action space, where the source carries it
    :param max_episode_steps: the time limit, where the source carries it
    """

    trajectories: list[Trajectory]
    observation_space: spaces.Space | None = None
    action_space: spaces.Space | None = None
    max_episode_steps: int | None = None


class Source(NamedTuple):
    """
    A kind of expert data.

    :param recognises: whether something is of this kind: a ``Path``, or an object of the user
    :param read: reads it
    """

    recognises: Callable[[Any], bool]
    read: Callable[[Any, Request], Loaded]
