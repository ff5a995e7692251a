"""Rows as curves over environment steps, for the figure of a comparison and for those of suites."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from sb3_iq.compare.results import Row
from sb3_iq.compare.suites import RANDOM, Line, as_rows, expert_return, label
from sb3_iq.plots import Curve, Panel, figure, on_common_steps


def curve_of(rows: Sequence[Row], key: str = "mean") -> Curve | None:
    """
    :param rows: runs that differ in their seeds
    :param key: a value of their evaluations, or of what training logged at them
    :return: their curve; a single point if they take no environment steps; None where a run has no such value
    """
    series = [_points(row, key) for row in rows]
    if any(not steps for steps, _ in series):
        return None
    if rows[0]["env_steps"] == 0 and key == "mean":
        return Curve(np.zeros(1), np.array([[values[-1]] for _, values in series]))
    return on_common_steps(series)


def _points(row: Row, key: str) -> tuple[list[float], list[float]]:
    points = [{**point.get("train", {}), **point} for point in row["curve"]]
    points = [point for point in points if key in point]
    return [point["step"] for point in points], [point[key] for point in points]


def plot_suites(lines: Sequence[Line], logs: Sequence[str], out: Path) -> None:
    """
    Write a figure, one panel an environment: without logs in rows of two or three.

    :param lines: runs, see :mod:`sb3_iq.compare.suites`
    :param logs: names of what was logged at each evaluation (``train`` in the lines), a row of panels each
    :param out: the image to write
    """
    cells: dict[str, dict[str, list[Line]]] = defaultdict(lambda: defaultdict(list))
    for line in lines:
        cells[line["env"]][label(line)].append(line)
    panels: list[list[Panel]] = [[] for _ in range(1 + len(logs))]
    for column, (env, groups) in enumerate(cells.items()):
        levels = {"expert": expert_return([line for members in groups.values() for line in members])}
        if env in RANDOM:
            levels["random"] = RANDOM[env]
        rows = {name: as_rows(members) for name, members in groups.items()}
        for index, key in enumerate(("mean", *logs)):
            curves = {name: curve_of(members, key) for name, members in rows.items()}
            present = {name: curve for name, curve in curves.items() if curve is not None}
            ylabel = "" if column else "return" if index == 0 else key
            panels[index].append(Panel("" if index else env, present, {} if index else levels, ylabel))
    figure(panels if logs else _folded(panels[0]), "environment steps", out)


def _folded(panels: Sequence[Panel]) -> list[list[Panel]]:
    width = len(panels) if len(panels) < 4 else 2 if len(panels) == 4 else 3
    filled = [*panels, *[Panel("", {})] * (-len(panels) % width)]
    rows = [filled[start : start + width] for start in range(0, len(filled), width)]
    return [[replace(panel, ylabel="" if column else "return") for column, panel in enumerate(row)] for row in rows]
