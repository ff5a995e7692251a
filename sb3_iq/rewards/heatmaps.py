"""Recovered reward and value over two axes of the observation."""

import pathlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces

from sb3_iq.rewards.learned_reward import LearnedReward

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from sb3_iq.iq_learn import IQLearn


def heatmap(
    model: "IQLearn | LearnedReward",
    axes: tuple[int, int] = (0, 1),
    bounds: tuple[tuple[float, float], tuple[float, float]] | None = None,
    base: np.ndarray | None = None,
    labels: tuple[str, str] | None = None,
    resolution: int = 60,
    to_obs: Callable[[np.ndarray], np.ndarray] | None = None,
    dynamics: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    out: str | pathlib.Path | None = None,
) -> "Figure":
    """
    Draw reward and value over two axes of the observation. With ``dynamics``, the reward is r(s, a, s') of the imitator's
    action. Without it there is no next state, and the map shows the mean of Q(s, a) - V(s) over actions spread over their
    space: how much a random action costs.

    :param model: a trained model, or a reward
    :param axes: which numbers of the observation are varied
    :param bounds: their ranges, (low, high) each; None: those of the observation space, which must be finite
    :param base: the observation whose other numbers are kept, shape (obs_dim,); None: zeros
    :param labels: the names of both axes
    :param resolution: points along each axis, typically 60
    :param to_obs: turns points with the two numbers, shape (n, 2), into observations; None: they are put into ``base``
    :param dynamics: the next observations of (obs, actions), if they are known as a function
    :param out: the picture to write, if any
    :return: the figure
    :raises ValueError: if the observation is no vector, or has no such axes, or they are unbounded and no ``bounds`` are given
    """
    from matplotlib.figure import Figure

    reward = model if isinstance(model, LearnedReward) else LearnedReward(model)
    x, y = (np.linspace(*limits, resolution) for limits in _bounds(reward, axes, bounds, to_obs is not None))
    points = np.stack(np.meshgrid(x, y), axis=-1).reshape(-1, 2)
    obs = _observations(reward, axes, base, points) if to_obs is None else np.asarray(to_obs(points))
    value = reward.predict_value(obs)
    if dynamics is None:
        title, shown = "advantage of a random action", _mean_advantage(reward, obs, value)
    else:
        actions = reward.predict(obs, deterministic=True)[0]
        title, shown = "reward r(s, a, s')", reward(obs, actions, dynamics(obs, actions), np.zeros(len(obs), dtype=bool))
    figure = Figure(figsize=(10, 4), layout="constrained")
    panels: Any = figure.subplots(1, 2)
    names = labels or tuple(f"observation {axis}" for axis in axes)
    for panel, values, name in zip(panels, (shown, value), (title, "value V(s)"), strict=True):
        mesh = panel.pcolormesh(x, y, values.reshape(resolution, resolution), cmap="viridis", shading="auto")
        figure.colorbar(mesh, ax=panel)
        panel.set(xlabel=names[0], ylabel=names[1], title=name)
    if out is not None:
        pathlib.Path(out).parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(out, dpi=110)
    return figure


def _mean_advantage(reward: LearnedReward, obs: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Return the mean of Q(s, a) - V(s) over actions spread over their space."""
    tiled = [np.tile(action, (len(obs), *[1] * np.ndim(action))) for action in _actions(reward)]
    return np.mean(
        [reward.predict_q(obs, actions.reshape(len(obs), *np.shape(actions)[1:])) - value for actions in tiled], axis=0
    )


def _actions(reward: LearnedReward) -> list[Any]:
    """Actions spread over the space: all of a Discrete one, else a fixed sample."""
    space = reward.action_space
    if isinstance(space, spaces.Discrete):
        return list(range(int(space.start), int(space.start + space.n)))
    rng = np.random.default_rng(0)
    if isinstance(space, spaces.Box):
        return list(rng.uniform(space.low, space.high, (16, *space.shape)).astype(space.dtype))  # type: ignore[arg-type]
    return [space.sample() for _ in range(16)]


def _bounds(
    reward: LearnedReward, axes: tuple[int, int], bounds: Any, mapped: bool
) -> tuple[tuple[float, float], tuple[float, float]]:
    space = reward.observation_space
    if mapped:
        if bounds is None:
            raise ValueError(
                "`bounds` is None, but `to_obs` maps two numbers of your own: give the range (low, high) of each."
            )
        return bounds
    if not isinstance(space, spaces.Box) or len(space.shape) != 1:
        raise ValueError(f"`model` has the observation space {str(space)[:80]}, no vector: give `to_obs` and `bounds`.")
    if len(axes) != 2 or not all(0 <= axis < space.shape[0] for axis in axes):
        raise ValueError(
            f"`axes` is {str(axes)[:80]}: give two of the {space.shape[0]} numbers of an observation, counted from 0."
        )
    found = bounds or tuple((float(space.low[axis]), float(space.high[axis])) for axis in axes)
    if not (np.isfinite(found).all() and np.abs(found).max() < 1e6):
        raise ValueError(
            f"`bounds` is None, but the observation space is unbounded: give the range (low, high) of axes {axes}."
        )
    return found  # type: ignore[return-value]


def _observations(reward: LearnedReward, axes: tuple[int, int], base: np.ndarray | None, points: np.ndarray) -> np.ndarray:
    """Return observations with the points' numbers at the axes."""
    shape: tuple[int, ...] = reward.observation_space.shape  # type: ignore[assignment]
    row = np.zeros(shape) if base is None else np.asarray(base, dtype=np.float64)
    if row.shape != shape:
        raise ValueError(f"`base` has shape {row.shape}: give one observation, shape {shape}.")
    obs = np.tile(row, (len(points), 1))
    obs[:, list(axes)] = points
    return obs.astype(np.float32)
