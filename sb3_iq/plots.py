"""
Curves of returns, for all figures of this project.

Means with bands, colours that the colour-blind tell apart, the legend beside the panels, and thin lines for the expert and for
random actions. A figure has its own ground, white by default, so it can be read on any page. Where matplotlib's style is dark
(``matplotlib.style.use("dark_background")``), ground and text follow it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Panel:
    """
    One panel of a figure.

    :param title: above it
    :param curves: by label
    :param levels: values that are a thin line, by name, e.g. of the expert
    :param ylabel: label of the vertical axis
    """

    title: str
    curves: Mapping[str, Curve]
    levels: Mapping[str, float] = field(default_factory=dict)
    ylabel: str = ""


def on_common_steps(curves: Sequence[tuple[Sequence[float], Sequence[float]]]) -> Curve:
    """
    :param curves: steps and values of each run
    :return: their curve, interpolated at the steps of all, as far as the shortest run goes
    """
    end = min(steps[-1] for steps, _ in curves)
    steps = np.unique([step for run_steps, _ in curves for step in run_steps if step <= end])
    return Curve(steps, np.array([np.interp(steps, *curve) for curve in curves]))


def text_color() -> str:
    """:return: that of matplotlib's style: black, or a light one where the style is dark"""
    from matplotlib import rcParams

    return str(rcParams["text.color"])


def draw(axes: "Axes", curves: Mapping[str, Curve], labels: Sequence[str]) -> None:
    """
    Draw means, with bands of one standard error where there are several runs. A curve of one point is a level line at step 0,
    elsewhere a dot.

    :param axes: where
    :param curves: by label
    :param labels: all labels of the figure, which colours go by
    """
    colors = [text_color() if color == "#000000" else color for color in COLORS]
    for label, curve in curves.items():
        index = list(labels).index(label)
        style: dict[str, Any] = {"color": colors[index % len(colors)], "linestyle": DASHES[index // len(colors) % len(DASHES)]}
        mean = curve.values.mean(axis=0)
        n_runs = len(curve.values)
        error = curve.values.std(axis=0, ddof=1) / np.sqrt(n_runs) if n_runs > 1 else np.zeros_like(mean)
        if len(curve.steps) == 1 and curve.steps[0] == 0:
            # Below the curves, which it would hide where they have the same value
            axes.axhline(mean[0], label=label, linewidth=1.8, color=style["color"], linestyle=DASHES[1], zorder=1.5)
            axes.axhspan(mean[0] - error[0], mean[0] + error[0], color=style["color"], alpha=0.15, linewidth=0)
            continue
        axes.plot(curve.steps, mean, label=label, linewidth=1.8, marker="o" if len(curve.steps) == 1 else "", **style)
        axes.fill_between(curve.steps, mean - error, mean + error, color=style["color"], alpha=0.2, linewidth=0)


def draw_levels(axes: "Axes", levels: Mapping[str, float]) -> None:
    """
    :param axes: where
    :param levels: values to draw as thin lines, by name, e.g. of the expert
    """
    style: dict[str, Any] = {"color": text_color(), "alpha": 0.65}
    for name, level in levels.items():
        axes.axhline(level, linewidth=0.9, linestyle=DASHES[2], zorder=1, **style)
        axes.annotate(
            name, (1.0, level), xycoords=("axes fraction", "data"), xytext=(-3, 2), textcoords="offset points",
            ha="right", va="bottom", fontsize=8, bbox={"color": axes.get_facecolor(), "alpha": 0.6, "pad": 0.5}, **style,
        )  # fmt: skip


def figure(
    rows: Sequence[Sequence[Panel]],
    xlabel: str,
    path: Path | str,
    xlim: float | None = None,
    xscale: str = "linear",
    known: Sequence[str] = (),
) -> None:
    """
    Write a figure.

    :param rows: of panels, equally many in each. A row whose panels have no titles shows more of what is above it, and shares
        its horizontal axes
    :param xlabel: label of the horizontal axis
    :param path: the image to write
    :param xlim: the end of the horizontal axis, which starts at 0; by default that of the longest curve
    :param xscale: ``"linear"`` or ``"log"``
    :param known: labels that have the same colours in all figures, whether or not they are in this one
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter

    shown = list(dict.fromkeys(label for row in rows for panel in row for label in panel.curves))
    labels = list(dict.fromkeys([*known, *shown]))
    shared = any(not row[0].title for row in rows[1:])
    heights = [3.4] + [2.2 if shared else 3.4] * (len(rows) - 1)
    figure: Figure = Figure(figsize=(3.6 * len(rows[0]) + 2.2, sum(heights)), layout="constrained")
    grid = figure.subplots(len(rows), len(rows[0]), squeeze=False, sharex="col" if shared else False, height_ratios=heights)
    for axes_row, row in zip(grid, rows, strict=True):
        for axes, panel in zip(axes_row, row, strict=True):
            axes.set_visible(bool(panel.curves))
            draw(axes, panel.curves, labels)
            draw_levels(axes, panel.levels)
            axes.set(title=panel.title, ylabel=panel.ylabel, xscale=xscale)
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(alpha=0.25)
            if xscale == "linear":
                axes.set_xlim(0, xlim)
                axes.xaxis.set_major_locator(MaxNLocator(5))
            else:
                low, high = axes.get_xlim()
                # Over more powers of ten, labels between them run into each other
                axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if high < 500 * low else (1.0,)))
                axes.xaxis.set_minor_formatter(NullFormatter())
            axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
    for axes in grid[-1]:
        axes.set_xlabel(xlabel)
    lines = {line.get_label(): line for axes in figure.axes for line in axes.get_lines()}
    figure.legend([lines[label] for label in shown], shown, loc="outside right upper", frameon=False)
    figure.savefig(path, dpi=120)
