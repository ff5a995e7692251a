"""
Plot the evaluations of suites over environment steps, one panel an environment, and below what was logged of the training.

    python benchmarks/curves.py mujoco mujoco-bc --log ep_rew_mean q_expert q_policy expert_log_likelihood \\
        --out docs/_static/mujoco.png
"""

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from table import RESULTS, label, read_runs


def plot(runs: list[dict], logs: list[str], out: Path) -> None:
    """
    :param runs: lines of results. Clones take no environment steps: a horizontal line is the mean of their final returns
    :param logs: names of what was logged at each evaluation (``train`` in the results), a row of panels each
    :param out: the image to write
    """
    environments = list(dict.fromkeys(run["env"] for run in runs))
    names = list(dict.fromkeys(label(run) for run in runs))
    n_rows, n_columns, heights = 1 + len(logs), len(environments), [3.5] + [2.2] * len(logs)
    figure, axes = plt.subplots(
        n_rows,
        n_columns,
        figsize=(4.5 * n_columns, sum(heights)),
        height_ratios=heights,
        squeeze=False,
        sharex="col",
        layout="constrained",
    )
    for column, env in zip(axes.T, environments, strict=True):
        groups = defaultdict(list)
        for run in runs:
            if run["env"] == env:
                groups[label(run)].append(run)
        for name, members in groups.items():
            color = f"C{names.index(name)}"
            if members[0]["algo"] == "bc":
                final = np.mean([run["final"] for run in members])
                column[0].axhline(final, color=color, linestyle=":", label=f"{name} (final)")
                continue
            for run in members:
                points = run["evaluations"]
                line_label = name if run is members[0] else None
                steps = [point["step"] for point in points]
                column[0].plot(steps, [point["mean"] for point in points], color=color, linewidth=1, label=line_label)
                for axis, key in zip(column[1:], logs, strict=True):
                    values = [point.get("train", {}).get(key, np.nan) for point in points]
                    axis.plot(steps, values, color=color, linewidth=1)
        expert = np.mean([run["expert_return"] for members in groups.values() for run in members])
        column[0].axhline(expert, color="black", linestyle="--", label="expert")
        column[0].set(title=env, ylabel="return, 20 episodes")
        column[0].legend(fontsize="small")
        for axis, key in zip(column[1:], logs, strict=True):
            axis.set_ylabel(key)
        column[-1].set_xlabel("environment steps")
    figure.savefig(out, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--log", nargs="*", default=[], help="what was logged, e.g. expert_reward policy_reward")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = [run for suite in arguments.suites for run in read_runs(RESULTS / f"{suite}.jsonl")]
    plot(runs, arguments.log, arguments.out)


if __name__ == "__main__":
    main()
