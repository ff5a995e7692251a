"""
Do held-out demonstrations tell how well the policy does? ``run.py --held-out 5`` notes the measures of
``sb3_iq.HeldOutCallback`` beside the true return at each evaluation. For each measure this script prints the rank correlation
with the return, and the return of the checkpoint that the measure chooses.

    python benchmarks/run.py held-out continuous   # the runs, of discrete and of continuous actions
    python benchmarks/held_out.py                  # the table, of other files: python benchmarks/held_out.py FILE...
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from run import RESULTS
from scipy.stats import spearmanr

from sb3_iq.callbacks.held_out import MEASURES
from sb3_iq.compare.results import read_lines

# Of discrete and of continuous actions
SUITES = "held-out", "continuous"
HEADER = ["| task | checkpoint chosen by | rank correlation | return of the chosen checkpoint |", "|---|---|---|---|"]


def scores(line: dict[str, Any]) -> dict[str, tuple[float, float]]:
    """
    :param line: a run
    :return: by what a checkpoint is chosen: the rank correlation of that (higher: better) with the return over the
        checkpoints, and the return of the one chosen, which is the first of equals. NaN where there is nothing to rank
    """
    returns = {evaluation["step"]: evaluation["mean"] for evaluation in line["evaluations"]}
    rows = [row for row in line["held_out_measures"] if row["timesteps"] in returns]
    true = np.array([returns[row["timesteps"]] for row in rows])
    values = {"the last": np.array([row["timesteps"] for row in rows], dtype=float)}
    for name, measure in MEASURES.items():
        if any(name in row for row in rows):
            values[f"`{name}`"] = measure.sign * np.array([row.get(name, np.nan) for row in rows])
    return {
        **{name: _score(value, true) for name, value in values.items()},
        "the return: the best": (np.nan, float(true.max())),
    }


def _score(values: np.ndarray, returns: np.ndarray) -> tuple[float, float]:
    finite = np.isfinite(values)
    values, returns = values[finite], returns[finite]
    ranked = len(set(values)) > 1 and len(set(returns)) > 1
    correlation = float(spearmanr(values, returns).statistic) if ranked else np.nan
    return correlation, float(returns[np.argmax(values)]) if finite.any() else np.nan


def table(lines: Iterable[dict[str, Any]]) -> str:
    """
    :param lines: runs
    :return: a Markdown table: a row for each task and measure, the mean of its runs, then each in the order of the seeds
    """
    groups = defaultdict(list)
    for line in sorted(lines, key=lambda line: (line["env"], line["offline"], line["n_trajectories"], line["seed"])):
        key = (
            line["env"],
            line["offline"],
            line["n_trajectories"],
            line["timesteps"],
            json.dumps(line["settings"], sort_keys=True),
        )
        groups[key].append(scores(line))
    rows = list(HEADER)
    for (env, offline, n, timesteps, settings), runs in groups.items():
        task = f"{env}, {n} demonstration{'s' * (n > 1)}, {timesteps:,} steps {'offline' if offline else 'online'}"
        task += f", `{settings}`" if settings != "{}" else ""
        task += f": preliminary (n = {len(runs)})" if len(runs) < 3 else ""
        for name in dict.fromkeys(name for run in runs for name in run):
            correlations, returns = zip(*(run.get(name, (np.nan, np.nan)) for run in runs), strict=True)
            rows.append(f"| {task} | {name} | {_cell(correlations, '.2f')} | {_cell(returns, ',.0f')} |")
            task = ""
    return "\n".join(rows)


def _cell(values: tuple[float, ...], form: str) -> str:
    """Return the mean, and what it is the mean of. NaN, which no run has a value for, is a hyphen."""
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return "-"
    each = ", ".join(format(value, form) if np.isfinite(value) else "-" for value in values)
    return f"**{np.mean(known):{form}}**" + (f" ({each})" if len(values) > 1 else "")


def read(paths: Iterable[Path] = ()) -> list[dict[str, Any]]:
    """
    :param paths: files of results, none: those of today's default
    :return: the lines of runs that held demonstrations out
    """
    paths = paths or [RESULTS / f"{suite}.jsonl" for suite in SUITES]
    return [line for path in paths for line in read_lines(path) if line.get("held_out_measures")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, help="files of results, none: those of today's default")
    print(table(read(parser.parse_args().paths)))


if __name__ == "__main__":
    main()
