"""
Plot the evaluations of suites over environment steps, one panel an environment.

    python benchmarks/curves.py mujoco mujoco-bc --out docs/_static/mujoco.png
"""

import argparse
from collections import defaultdict
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from table import RESULTS, label, read_runs


def plot(runs: list[dict], out: Path) -> None:
    """
    :param runs: lines of results. Clones take no environment steps: a horizontal line is the mean of their final returns
    :param out: the image to write
    """
    environments = list(dict.fromkeys(run["env"] for run in runs))
    size = (4.5 * len(environments), 3.5)
    figure, axes = plt.subplots(1, len(environments), figsize=size, squeeze=False, layout="constrained")
    for axis, env in zip(axes[0], environments, strict=True):
        groups = defaultdict(list)
        for run in runs:
            if run["env"] == env:
                groups[label(run)].append(run)
        for number, (name, members) in enumerate(groups.items()):
            color = f"C{number}"
            if members[0]["algo"] == "bc":
                axis.axhline(np.mean([run["final"] for run in members]), color=color, linestyle=":", label=f"{name} (final)")
                continue
            for run in members:
                steps, means = zip(*((point["step"], point["mean"]) for point in run["evaluations"]), strict=True)
                axis.plot(steps, means, color=color, linewidth=1, label=name if run is members[0] else None)
        expert = np.mean([run["expert_return"] for members in groups.values() for run in members])
        axis.axhline(expert, color="black", linestyle="--", label="expert")
        axis.set(title=env, xlabel="environment steps", ylabel="return, 20 episodes")
        axis.legend(fontsize="small")
    figure.savefig(out, dpi=100)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    plot([run for suite in arguments.suites for run in read_runs(RESULTS / f"{suite}.jsonl")], arguments.out)


if __name__ == "__main__":
    main()
