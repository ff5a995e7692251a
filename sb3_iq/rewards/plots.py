"""The picture of a report."""

from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_iq.plots import COLORS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


MAX_POINTS = 4_000


def figure_of(report: Any) -> "Figure":
    """
    :param report: a :class:`~sb3_iq.rewards.reporting.Report`
    :return: scatter plots of episodes and of steps, and both rewards along the best and the worst episode
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 8), layout="constrained")
    axes: Any = figure.subplots(2, 2)
    colors = _colors([row["actor"] for row in report.actors])
    _scatter_of_episodes(axes[0, 0], report, colors)
    _scatter_of_steps(axes[0, 1], report, colors)
    best, worst = int(report.returns.argmax()), int(report.returns.argmin())
    twin = _along(axes[1, 0], report, best, "best")
    _along(axes[1, 1], report, worst, "worst")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside right upper", frameon=False)
    figure.legend(handles=axes[1, 0].get_lines() + twin.get_lines(), loc="outside right lower", frameon=False)
    figure.suptitle(f"{report.env}: recovered reward (form {report.form}) and true one, {len(report.episodes)} episodes")
    return figure


def _colors(names: list[str]) -> dict[str, Any]:
    from matplotlib import colormaps

    # Without the ends that are faint on white
    checkpoints = [name for name in names if name.startswith("checkpoint")]
    others = [name for name in names if name not in checkpoints]
    found: dict[str, Any] = {}
    for group, scale, first, last in ((others, "viridis", 0.0, 0.85), (checkpoints, "YlOrRd", 0.45, 0.9)):
        shades = np.linspace(first, last, len(group))
        found |= {name: colormaps[scale](shade) for name, shade in zip(group, shades, strict=True)}
    return found


def _scatter_of_episodes(axes: "Axes", report: Any, colors: dict[str, Any]) -> None:
    for name, color in colors.items():
        index = [i for i, episode in enumerate(report.episodes) if episode.actor == name]
        sums = report.recovered_returns[index] + report.left[index]
        marker = "^" if name.startswith("checkpoint") else "o"
        axes.scatter(report.returns[index], sums, s=22, color=color, label=name, alpha=0.8, marker=marker)
    name = "pearson, absorbing until the time limit"
    limited = name in report.per_episode
    name = name if limited else "pearson"
    axes.set(
        xlabel="true return", ylabel="recovered, absorbing until the time limit" if limited else "sum of recovered rewards"
    )
    removed = report.per_episode[f"{name}, length removed"]
    axes.set_title(f"episodes: r = {report.per_episode[name]}\nlength removed: {removed}", fontsize=10)


def _scatter_of_steps(axes: "Axes", report: Any, colors: dict[str, Any]) -> None:
    true = np.concatenate([episode.rewards for episode in report.episodes])
    recovered = np.concatenate(report.recovered)
    color = np.concatenate([np.tile(colors[episode.actor], (len(episode), 1)) for episode in report.episodes])
    rows = np.random.default_rng(0).permutation(len(true))[:MAX_POINTS]
    axes.scatter(true[rows], recovered[rows], s=5, c=color[rows], alpha=0.5, linewidths=0)
    # A few steps, such as a crash, must not squeeze all others into a corner
    for values, limits in ((true, axes.set_xlim), (recovered, axes.set_ylim)):
        low, high = np.quantile(values, [0.005, 0.995])
        if high > low:
            limits(low - 0.1 * (high - low), high + 0.1 * (high - low))
    axes.set(xlabel="true reward", ylabel="recovered reward")
    ends = report.per_step["pearson, ends paid for ever"]
    axes.set_title(f"steps: r = {report.per_step['pearson']}\nwith ends paid for ever: {ends} (99 % shown)", fontsize=10)


def _along(axes: "Axes", report: Any, index: int, which: str) -> "Axes":
    """Draw both rewards along an episode; return the axes of the true one."""
    episode, recovered = report.episodes[index], report.recovered[index]
    twin = axes.twinx()
    twin.plot(episode.rewards, color=COLORS[1], linewidth=1, alpha=0.7, label="true (right)")
    axes.plot(recovered, color=COLORS[0], linewidth=1, label="recovered (left)")
    axes.set(xlabel="step", ylabel="recovered reward")
    twin.set_ylabel("true reward")
    end = "terminal state" if episode.terminated[-1] else "time limit"
    axes.set_title(
        f"{which} episode ({episode.actor}): {report.returns[index]:.0f} in {len(episode)} steps, {end}", fontsize=10
    )
    return twin
