"""Curves of returns: means with bands, colours that the colour-blind tell apart, the legend beside the panels."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# Okabe and Ito's colours without yellow, which is too light for lines
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")
DASHES = ("-", (0, (5, 1.5)), (0, (1.5, 1.2)), (0, (5, 1.5, 1.5, 1.5)))


@dataclass(frozen=True)
class Curve:
    """
    Runs of one kind.

    :param steps: where there are values, shape (n,)
    :param values: of each run, shape (n_runs, n)
    """

    steps: np.ndarray
    values: np.ndarray

    def __post_init__(self) -> None:
        if self.values.ndim != 2 or self.steps.shape != self.values.shape[1:]:
            raise ValueError(f"values has shape {self.values.shape}, expected (n_runs, {len(self.steps)})")


def on_common_steps(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Curve:
    """
    :param curves: steps and values of each run
    :return: their curve, interpolated at the steps of all, as far as the shortest run goes
    """
    end = min(steps[-1] for steps, _ in curves)
    steps = np.unique([step for run_steps, _ in curves for step in run_steps if step <= end])
    return Curve(steps, np.array([np.interp(steps, *curve) for curve in curves]))


def draw(axes: "Axes", curves: Mapping[str, Curve], labels: Sequence[str]) -> None:
    """
    Draw means, with bands of one standard error where there are several runs. A curve of one point is a level line.

    :param axes: where
    :param curves: by label
    :param labels: all labels of the figure, which colours go by
    """
    for label, curve in curves.items():
        index = list(labels).index(label)
        style: dict[str, Any] = {"color": COLORS[index % len(COLORS)], "linestyle": DASHES[index // len(COLORS) % len(DASHES)]}
        mean = curve.values.mean(axis=0)
        n_runs = len(curve.values)
        error = curve.values.std(axis=0, ddof=1) / np.sqrt(n_runs) if n_runs > 1 else np.zeros_like(mean)
        if len(curve.steps) == 1:
            axes.axhline(mean[0], label=label, linewidth=1.8, color=style["color"], linestyle=DASHES[1])
            axes.axhspan(mean[0] - error[0], mean[0] + error[0], color=style["color"], alpha=0.15, linewidth=0)
            continue
        axes.plot(curve.steps, mean, label=label, linewidth=1.8, **style)
        axes.fill_between(curve.steps, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)


def draw_levels(axes: "Axes", levels: Mapping[str, float]) -> None:
    """
    :param axes: where
    :param levels: values to draw as thin lines, by name, e.g. of the expert
    """
    for name, level in levels.items():
        axes.axhline(level, color="0.35", linewidth=0.9, linestyle=DASHES[2], zorder=1)
        axes.annotate(
            name, (1.0, level), xycoords=("axes fraction", "data"), xytext=(-3, 2), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, color="0.35", bbox={"color": "white", "alpha": 0.6, "pad": 0.5},
        )  # fmt: skip


def figure(
    panels: Mapping[str, Mapping[str, Curve]],
    levels: Mapping[str, float],
    ylabel: str,
    xlabel: str,
    path: Path | str,
    xlim: float | None = None,
) -> None:
    """
    Write a figure with one row of panels.

    :param panels: curves of each panel, by its title
    :param levels: values that are a line in each panel
    :param ylabel: label of the vertical axis
    :param xlabel: label of the horizontal axis
    :param path: the image to write
    :param xlim: the end of the horizontal axis, which starts at 0; by default that of the longest curve
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    labels = list(dict.fromkeys(label for curves in panels.values() for label in curves))
    figure: Figure = Figure(figsize=(4.0 * len(panels) + 2.4, 3.6), layout="constrained")
    for i, (title, curves) in enumerate(panels.items()):
        axes = figure.add_subplot(1, len(panels), i + 1)
        draw(axes, curves, labels)
        draw_levels(axes, levels)
        axes.set(title=title, xlabel=xlabel)
        axes.set_xlim(0, xlim)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.xaxis.set_major_locator(MaxNLocator(5))
        axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
        if i == 0:
            axes.set_ylabel(ylabel)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    figure.legend([lines[label] for label in labels], labels, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)
