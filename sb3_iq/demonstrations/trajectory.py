"""One episode of an expert."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from sb3_iq.demonstrations.errors import check_integer, shorten
from sb3_iq.demonstrations.storage import chunks, is_mapped

Ending = Literal["info", "limit", "assumed", "open"]
Observations = np.ndarray | dict[str, np.ndarray]
STARTS_AT_RESET = "sb3_iq.starts_at_reset"  # in the first info of an episode on disk that doesn't start at a reset


@dataclass(frozen=True, eq=False)
class Trajectory:
    """
    One episode, or a piece of one, validated. An array that is an ``np.memmap`` opened to be read only stays in its file.

    :param obs: the observations as the environment gave them, the last one included: shape (T + 1, \\*obs_shape),
        or a dictionary of such arrays for a ``Dict`` space
    :param acts: the actions in the units of the environment: shape (T, \\*action_shape), T >= 1
    :param rews: the rewards, shape (T,), or None. IQ-Learn never reads them, reports do
    :param terminated: the last observation is a terminal state
    :param truncated: the episode was cut off (by a time limit): it would have gone on from the last observation
    :param starts_at_reset: the first observation comes from ``env.reset``
    :param ending: the rule by which ``terminated`` and ``truncated`` were told apart: the data say so ("info"), the
        length reaches the time limit ("limit"), nothing is known and it is taken as terminated ("assumed"), or the
        episode has no end ("open": neither flag is set, which replaces any other value)
    :raises ValueError: if lengths disagree, a number is NaN or infinite, a type is not numeric or both flags are set
    """

    obs: Observations
    acts: np.ndarray
    rews: np.ndarray | None
    terminated: bool
    truncated: bool
    starts_at_reset: bool = True
    ending: Ending = "info"

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the way to normalise a field of a frozen dataclass
        acts = _numeric("acts", self.acts)
        n_steps = len(acts)
        if n_steps == 0:
            raise ValueError("an episode needs at least one step, but acts is empty. Leave the episode out")
        if isinstance(self.obs, Mapping):
            if not self.obs:
                raise ValueError("obs is an empty dictionary: expected one array for each key of the Dict space")
            obs: Observations = {str(key): _numeric(f"obs[{key!r}]", value) for key, value in self.obs.items()}
        else:
            obs = _numeric("obs", self.obs)
        for name, array in obs.items() if isinstance(obs, dict) else [("", obs)]:
            if len(array) != n_steps + 1:
                label = f"obs[{name!r}]" if name else "obs"
                raise ValueError(
                    f"expected one more observation than actions: len({label}) = {len(array)} but len(acts) + 1 = "
                    f"{n_steps + 1}. The observation after the last action belongs to the episode"
                )
        if self.rews is not None:
            rews = _numeric("rews", self.rews)
            if rews.shape != (n_steps,):
                raise ValueError(f"rews has shape {rews.shape}, expected one reward for each action: ({n_steps},)")
            set_field(self, "rews", rews)
        set_field(self, "obs", obs)
        set_field(self, "acts", acts)
        for flag in ("terminated", "truncated", "starts_at_reset"):
            value = getattr(self, flag)
            if not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{flag}={shorten(value)}: expected True or False")
            set_field(self, flag, bool(value))
        if self.terminated and self.truncated:
            raise ValueError("terminated and truncated are both True: a terminal state at the time limit is terminated only")
        if not (self.terminated or self.truncated):
            set_field(self, "ending", "open")

    def __len__(self) -> int:
        """
        :return: the number of steps T
        """
        return len(self.acts)

    @property
    def nbytes(self) -> int:
        """The memory that the arrays take, in bytes. Mapped ones take none."""
        arrays = [*(self.obs.values() if isinstance(self.obs, dict) else [self.obs]), self.acts]
        return sum(array.nbytes for array in [*arrays, *([] if self.rews is None else [self.rews])] if not is_mapped(array))

    def with_time_limit(self, max_episode_steps: int) -> "Trajectory":
        """
        :param max_episode_steps: the time limit of the environment, e.g. ``env.spec.max_episode_steps``
        :return: the same episode, taken as truncated if its end was only assumed and it reaches the limit
        """
        check_integer("max_episode_steps", max_episode_steps, 1)
        if self.ending != "assumed" or len(self) < max_episode_steps:
            return self
        limited = copy.copy(self)  # not a new one: all numbers of a mapped episode would be read and checked again
        for name, value in (("terminated", False), ("truncated", True), ("ending", "limit")):
            object.__setattr__(limited, name, value)
        return limited


def make_trajectory(
    obs: Any,
    acts: Any,
    rews: Any,
    terminal: bool,
    last_info: object = None,
    max_episode_steps: int | None = None,
    starts_at_reset: bool = True,
) -> Trajectory:
    """
    Build an episode of which only imitation's ``terminal`` is known, which is True at a time limit too.

    :param obs: observations, (T + 1, \\*obs_shape)
    :param acts: actions, (T, \\*action_shape)
    :param rews: rewards, (T,), or None
    :param terminal: whether the episode ended, in either way
    :param last_info: the info of the last step: a dictionary, plain JSON, or anything else, which is ignored
    :param max_episode_steps: the time limit, if known
    :param starts_at_reset: whether the first observation comes from ``env.reset``
    :return: the episode, ``terminated`` and ``truncated`` being told apart by the info, else by the length, else
        taken as terminated
    """
    truncated = flag_of_info("TimeLimit.truncated", last_info) if terminal else False
    ending: Ending = "info"
    if truncated is None:
        truncated, ending = False, "assumed"
    trajectory = Trajectory(obs, acts, rews, bool(terminal) and not truncated, truncated, starts_at_reset, ending)
    return trajectory if max_episode_steps is None else trajectory.with_time_limit(max_episode_steps)


def flag_of_info(name: str, info: object) -> bool | None:
    """
    Read a flag without decoding anything but plain JSON (jsonpickle would run code from the data).

    :param name: ``"TimeLimit.truncated"`` of the last step, or :data:`STARTS_AT_RESET` of the first
    :param info: the info of a step
    :return: the flag, or None if the info doesn't tell
    """
    if isinstance(info, str):
        if name not in info:
            return None
        try:
            info = json.loads(info)
        except (ValueError, RecursionError):
            return None
    flag = info.get(name) if isinstance(info, Mapping) else None
    return bool(flag) if isinstance(flag, (bool, np.bool_)) else None


def _numeric(name: str, value: Any) -> np.ndarray:
    """Return ``value`` as an array of finite numbers with at least one axis, or raise ``ValueError``."""
    try:
        array = value if is_mapped(value) else np.asarray(value)
    except Exception as error:  # a ragged list, a tensor on a GPU, an object of the user
        raise ValueError(f"{name} is not an array of numbers ({error})") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {shorten(str(array.dtype))}, expected numbers. Episodes must not be ragged")
    if array.ndim == 0:
        raise ValueError(f"{name} is a single number, expected one entry for each step")
    if 0 in array.shape[1:]:
        raise ValueError(f"{name} has shape {array.shape}: its entries hold no number")
    n_checked = 0
    for chunk in chunks(array) if array.dtype.kind == "f" else ():
        if not np.isfinite(chunk).all():
            first = np.argwhere(~np.isfinite(chunk))[0]
            index = (n_checked + int(first[0]), *(int(i) for i in first[1:]))
            raise ValueError(
                f"{name} holds {chunk[tuple(first)]} at index {index}: only finite numbers can be learned from. Remove the "
                "episode or repair the recording"
            )
        n_checked += len(chunk)
    return array
