"""A figure of a set of episodes: lengths, returns, how they end, and their actions."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_iq.demonstrations.errors import how_to_install
from sb3_iq.demonstrations.storage import chunks, extremes
from sb3_iq.demonstrations.trajectory import Trajectory
from sb3_iq.plots import COLORS, text_color

if TYPE_CHECKING:  # matplotlib is only imported for a plot
    from matplotlib.figure import Figure

_MAX_DIMENSIONS = 32  # of the actions, beyond which their labels are left out


def plot_trajectories(trajectories: Sequence[Trajectory], title: str = "") -> "Figure":
    """
    :param trajectories: the episodes
    :param title: what they are
    :return: the figure
    :raises ImportError: if matplotlib is not installed
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(f"matplotlib can't be imported ({error}). {how_to_install('demo')}") from error
    figure = Figure(figsize=(9, 6), layout="constrained")
    (lengths, returns), (ends, actions) = figure.subplots(2, 2)
    figure.suptitle(title, fontsize=9, wrap=True)
    _histogram(lengths, "length (steps)", [len(trajectory) for trajectory in trajectories])
    rewards = [trajectory.rews for trajectory in trajectories if trajectory.rews is not None]
    _histogram(returns, "return", [sum(float(chunk.sum(dtype=np.float64)) for chunk in chunks(rews)) for rews in rewards])
    if len(rewards) < len(trajectories):
        returns.set_title(f"{len(trajectories) - len(rewards)} episodes have no rewards", fontsize=9)
    counts = Counter("terminated" if t.terminated else "truncated" if t.truncated else "open" for t in trajectories)
    names = ("terminated", "truncated", "open")
    ends.bar(names, [counts[name] for name in names], color=COLORS[0])
    ends.set(xlabel="end", ylabel="episodes")
    _plot_actions(actions, trajectories)
    return figure


def _histogram(axes: Any, label: str, values: Sequence[float]) -> None:
    axes.hist(values, bins=min(30, max(5, len(values))), color=COLORS[0])
    axes.set(xlabel=label, ylabel="episodes")
    axes.ticklabel_format(useOffset=False)
    axes.locator_params(axis="x", nbins=5)


def _plot_actions(axes: Any, trajectories: Sequence[Trajectory]) -> None:
    """Draw the share of each discrete action, or the range of each dimension of continuous ones."""
    axes.set_xlabel("action")
    acts = [trajectory.acts for trajectory in trajectories if trajectory.acts is not None]
    if not acts:
        axes.set_title("no actions", fontsize=9)
        return
    if all(array.dtype.kind != "f" for array in acts):
        counts: Counter[int] = Counter()
        for array in acts:
            for chunk in chunks(array):
                counts.update(chunk.reshape(-1).tolist())
        values = sorted(counts)
        axes.bar([str(value) for value in values], [counts[value] / counts.total() for value in values], color=COLORS[0])
        axes.set_ylabel("share")
        return
    if len({array.shape[1:] for array in acts}) > 1:
        axes.set_title("actions of several shapes", fontsize=9)
        return
    lows, highs = zip(*map(extremes, acts), strict=True)
    low, high = np.min(lows, axis=0).reshape(-1).astype(float), np.max(highs, axis=0).reshape(-1).astype(float)
    total = sum(chunk.sum(axis=0, dtype=float) for array in acts for chunk in chunks(array))
    mean = np.reshape(total, -1) / sum(map(len, acts))
    positions = np.arange(len(low))
    axes.bar(positions, high - low, bottom=low, alpha=0.5, color=COLORS[0])
    axes.plot(positions, mean, "_", color=text_color(), markersize=12)
    axes.set(ylabel="range and mean", xlabel="dimension of the action")
    axes.set_xticks(positions if len(low) <= _MAX_DIMENSIONS else [])
