"""
Plot the evaluations of suites over environment steps, one panel an environment, and below what was logged of the training.

    python benchmarks/curves.py mujoco mujoco-bc --log ep_rew_mean q_expert q_policy --out docs/_static/mujoco.png

Lines are means of the seeds, bands one standard error. Clones take no environment steps: their final return is a level line.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
from table import RANDOM, RESULTS, expert_return, label, of_interest, read_runs

from sb3_iq.plots import Curve, Panel, figure, on_common_steps


def returns_of(runs: list[dict]) -> Curve:
    """:return: the evaluations of runs that differ in their seeds"""
    if runs[0]["algo"] == "bc":
        return Curve(np.zeros(1), np.array([[run["final"]] for run in runs]))
    return on_common_steps([_series(run, "mean") for run in runs])


def log_of(runs: list[dict], key: str) -> Curve | None:
    """:return: a value of the log at the evaluations of runs that differ in their seeds; None where it was not logged"""
    series = [_series({"evaluations": [p["train"] | {"step": p["step"]} for p in run["evaluations"]]}, key) for run in runs]
    return None if any(not steps for steps, _ in series) else on_common_steps(series)


def _series(run: dict, key: str) -> tuple[list[float], list[float]]:
    points = [point for point in run["evaluations"] if key in point]
    return [point["step"] for point in points], [point[key] for point in points]


def plot(runs: list[dict], logs: list[str], out: Path) -> None:
    """
    :param runs: lines of results
    :param logs: names of what was logged at each evaluation (``train`` in the results), a row of panels each
    :param out: the image to write
    """
    cells: dict[str, dict[str, list[dict]]] = defaultdict(lambda: defaultdict(list))
    for run in runs:
        cells[run["env"]][label(run)].append(run)
    rows: list[list[Panel]] = [[] for _ in range(1 + len(logs))]
    for column, (env, groups) in enumerate(cells.items()):
        levels = {"expert": expert_return([run for members in groups.values() for run in members])}
        if env in RANDOM:
            levels["random"] = RANDOM[env]
        curves = {name: returns_of(members) for name, members in groups.items()}
        rows[0].append(Panel(env, curves, levels, "" if column else "return, 20 episodes"))
        logged = {name: members for name, members in groups.items() if "train" in members[0]["evaluations"][0]}
        for row, key in zip(rows[1:], logs, strict=True):
            lines = {name: log_of(members, key) for name, members in logged.items()}
            present = {name: curve for name, curve in lines.items() if curve is not None}
            row.append(Panel("", present, {}, "" if column else key))
    figure(rows, "environment steps", out)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--only", nargs="*", metavar="LABEL", help="of these labels, e.g. IQ-Learn cloning (default: all)")
    parser.add_argument("--log", nargs="*", default=[], help="what was logged, e.g. expert_reward policy_reward")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = [run for suite in arguments.suites for run in read_runs(RESULTS / f"{suite}.jsonl")]
    plot(of_interest(runs, arguments.only), arguments.log, arguments.out)


if __name__ == "__main__":
    main()
