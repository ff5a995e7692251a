"""One episode of an expert."""

import copy
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np

from sb3_iq.demonstrations.endings import STARTS_AT_RESET, TIME_LIMIT, flag_of_info
from sb3_iq.demonstrations.errors import check_integer, shorten
from sb3_iq.demonstrations.storage import chunks, is_mapped

Ending = Literal["info", "limit", "assumed", "open"]
Observations = np.ndarray | dict[str, np.ndarray]


@dataclass(frozen=True, eq=False, repr=False)
class Trajectory:
    """
    One episode, or a piece of one, validated. An array that is an ``np.memmap`` opened to be read only stays in its file.

    :param obs: the observations as the environment gave them, the last one included: shape (T + 1, \\*obs_shape),
        or a dictionary of such arrays for a ``Dict`` space
    :param acts: the actions in the units of the environment: shape (T, \\*action_shape), T >= 1; None for state-only data.
        An array of NaN alone stands for None
    :param rews: the rewards, shape (T,) or (T, 1), or None. IQ-Learn never reads them, reports do: those that hold NaN or
        infinity are dropped, with a warning
    :param terminated: the last observation is a terminal state
    :param truncated: the episode was cut off (by a time limit): it would have gone on from the last observation
    :param starts_at_reset: the first observation comes from ``env.reset``
    :param ending: the rule by which ``terminated`` and ``truncated`` were told apart: the data say so ("info"), the
        length reaches the time limit ("limit"), nothing is known and it is taken as terminated ("assumed"), or the
        episode has no end ("open": neither flag is set, which replaces any other value)
    :raises ValueError: if lengths disagree, a number is NaN or infinite, a type is not numeric or both flags are set
    """

    obs: Observations
    acts: np.ndarray | None
    rews: np.ndarray | None
    terminated: bool
    truncated: bool
    starts_at_reset: bool = True
    ending: Ending = "info"

    def __post_init__(self) -> None:
        set_field = object.__setattr__  # the way to normalise a field of a frozen dataclass
        acts = None if self.acts is None or _is_all_nan(self.acts) else _numeric("acts", self.acts)
        if isinstance(self.obs, Mapping):
            if not self.obs:
                raise ValueError("obs is an empty dictionary: expected one array for each key of the Dict space")
            obs: Observations = {str(key): _numeric(f"obs[{key!r}]", value) for key, value in self.obs.items()}
        else:
            obs = _numeric("obs", self.obs)
        n_steps = len(next(iter(obs.values())) if isinstance(obs, dict) else obs) - 1 if acts is None else len(acts)
        if n_steps <= 0:
            what = "acts is empty" if acts is not None else "obs has fewer than two entries"
            raise ValueError(f"an episode needs at least one step, but {what}. Leave the episode out")
        for name, array in obs.items() if isinstance(obs, dict) else [("", obs)]:
            if len(array) != n_steps + 1:
                label = f"obs[{name!r}]" if name else "obs"
                raise ValueError(
                    f"expected one more observation than actions: len({label}) = {len(array)} but len(acts) + 1 = "
                    f"{n_steps + 1}. The observation after the last action belongs to the episode. Where it was not recorded, "
                    "leave out the last action"
                )
        if self.rews is not None:
            set_field(self, "rews", _rewards(self.rews, n_steps))
        set_field(self, "acts", acts)
        set_field(self, "obs", obs)
        for flag in ("terminated", "truncated", "starts_at_reset"):
            value = getattr(self, flag)
            if not isinstance(value, (bool, np.bool_)):
                raise ValueError(f"{flag}={shorten(value)}: expected True or False")
            set_field(self, flag, bool(value))
        if self.ending not in get_args(Ending):
            raise ValueError(f"ending={shorten(self.ending)}: expected one of {', '.join(get_args(Ending))}")
        if self.terminated and self.truncated:
            raise ValueError("terminated and truncated are both True: a terminal state at the time limit is terminated only")
        if not (self.terminated or self.truncated):
            set_field(self, "ending", "open")

    def __repr__(self) -> str:
        end = "terminated" if self.terminated else "truncated" if self.truncated else "open"
        obs = self.obs if isinstance(self.obs, dict) else {"": self.obs}
        parts = [f"obs{f'[{key!r}]' if key else ''} {array.shape} {array.dtype}" for key, array in obs.items()]
        rews = "no rewards" if self.rews is None else f"return {self.rews.sum():.1f}"
        acts = "no acts" if self.acts is None else f"acts {self.acts.shape} {self.acts.dtype}"
        return f"<Trajectory {len(self)} steps, {end}, {rews}, {', '.join(parts)}, {acts}>"

    def __len__(self) -> int:
        """
        :return: the number of steps T
        """
        obs = next(iter(self.obs.values())) if isinstance(self.obs, dict) else self.obs
        return len(obs) - 1

    @property
    def infos(self) -> list[dict[str, bool]]:
        """Infos of the steps, which tell what imitation's columns can't: a time limit, and a start that is no reset."""
        infos: list[dict[str, bool]] = [{} for _ in range(len(self))]
        if not self.starts_at_reset:
            infos[0][STARTS_AT_RESET] = False
        if self.ending not in ("open", "assumed"):
            infos[-1][TIME_LIMIT] = self.truncated
        return infos

    @property
    def nbytes(self) -> int:
        """The memory that the arrays take, in bytes. Mapped ones take none."""
        arrays = [*(self.obs.values() if isinstance(self.obs, dict) else [self.obs]), self.acts, self.rews]
        return sum(array.nbytes for array in arrays if array is not None and not is_mapped(array))

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
    :param acts: actions, (T, \\*action_shape), or None
    :param rews: rewards, (T,), or None
    :param terminal: whether the episode ended, in either way
    :param last_info: the info of the last step: a dictionary, plain JSON, or anything else, which is ignored
    :param max_episode_steps: the time limit, if known
    :param starts_at_reset: whether the first observation comes from ``env.reset``
    :return: the episode, ``terminated`` and ``truncated`` being told apart by the info, else by the length, else
        taken as terminated
    """
    truncated = flag_of_info(TIME_LIMIT, last_info) if terminal else False
    ending: Ending = "info"
    if truncated is None:
        truncated, ending = False, "assumed"
    trajectory = Trajectory(obs, acts, rews, bool(terminal) and not truncated, truncated, starts_at_reset, ending)
    return trajectory if max_episode_steps is None else trajectory.with_time_limit(max_episode_steps)


def _is_all_nan(acts: Any) -> bool:
    """Return whether there is nothing but NaN, which stands for actions that were not recorded."""
    array = acts if isinstance(acts, np.ndarray) and not is_mapped(acts) else None
    return array is not None and array.dtype.kind == "f" and array.size > 0 and bool(np.isnan(array).all())


def _rewards(value: Any, n_steps: int) -> np.ndarray | None:
    """Return one number for each step, or None, with a warning, if some are not finite: they are never learned from."""
    rews = _array("rews", value)
    if rews.shape == (n_steps, 1):
        rews = rews.reshape(n_steps)
    if rews.shape != (n_steps,):
        raise ValueError(f"rews has shape {rews.shape}, expected one reward for each action: ({n_steps},)")
    if rews.dtype.kind == "f" and not all(np.isfinite(chunk).all() for chunk in chunks(rews)):
        warnings.warn(
            "Expert data: rewards that hold NaN or infinity are dropped. IQ-Learn never reads rewards, only reports do."
        )
        return None
    return rews


def _array(name: str, value: Any) -> np.ndarray:
    """Return ``value`` as an array of numbers with at least one axis, or raise ``ValueError``."""
    try:
        array = value if is_mapped(value) else np.asarray(value)
        if array.dtype.kind == "O" and array.ndim:
            array = np.stack([np.asarray(entry) for entry in array])  # an array of arrays
    except Exception as error:  # a ragged list, a tensor on a GPU, an object of the user
        raise ValueError(f"{name} is not an array of numbers ({error})") from error
    if array.dtype.kind not in "biuf":
        raise ValueError(f"{name} has dtype {shorten(str(array.dtype))}, expected numbers. Episodes must not be ragged")
    if array.ndim == 0:
        raise ValueError(f"{name} is a single number, expected one entry for each step")
    if 0 in array.shape[1:]:
        raise ValueError(f"{name} has shape {array.shape}: its entries hold no number")
    return array


def _numeric(name: str, value: Any) -> np.ndarray:
    """Return ``value`` as an array of finite numbers with at least one axis, or raise ``ValueError``."""
    array = _array(name, value)
    n_checked = 0
    for chunk in chunks(array) if array.dtype.kind == "f" else ():
        if not np.isfinite(chunk).all():
            first = np.argwhere(~np.isfinite(chunk))[0]
            where = f"step {n_checked + int(first[0])}"
            if len(first) > 1:
                columns = [int(i) for i in first[1:]]
                where += f", column {columns[0] if len(columns) == 1 else tuple(columns)}"
            raise ValueError(
                f"{name} holds {chunk[tuple(first)]} at {where}: only finite numbers can be learned from. Remove the "
                "episode or repair the recording"
            )
        n_checked += len(chunk)
    return array
