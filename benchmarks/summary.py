"""
The table and the figure of the README and of the documentation's front page, from the results.

    python benchmarks/summary.py            # prints the table
    python benchmarks/summary.py --write    # puts it into README.md, and the figures into docs/_static
"""

import argparse
from collections.abc import Callable
from pathlib import Path

from sb3_iq.compare.suites import read_comparison, read_runs, side_by_side

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
# The comparisons and suites, and which of their tasks: environment, number of demonstrations. Change these when the results do
NUMBERS = {"CartPole-v1": [1], "LunarLander-v3": [1], "Pendulum-v1": [1, 3]}
COMPARED = {env: [(env, n) for n in numbers] for env, numbers in NUMBERS.items()}
MUJOCO = [(f"{name}-v5", 1) for name in ("Hopper", "Walker2d", "HalfCheetah", "Ant")]
ONLINE = {"continuous": MUJOCO, "continuous-bc": MUJOCO}
# The algorithms of the comparisons by the names of the table; what is on-policy has ten times the steps, and all count here
ON_POLICY = {"imitation/gail": "GAIL, 10x", "imitation/airl": "AIRL, 10x"}
LABELS = ["IQ-Learn", "cloning", "SQIL", "off-policy GAIL", *ON_POLICY.values()]
# The figure on light and on dark pages, by matplotlib's style
FIGURES = {"curves.png": "default", "curves-dark.png": "dark_background"}
START, END = "<!-- table of benchmarks/summary.py -->\n", "<!-- end of the table -->\n"


def runs_of(
    suites: dict, read: Callable[[str], list[dict]] = lambda suite: read_runs(RESULTS / f"{suite}.jsonl")
) -> list[dict]:
    """
    :param suites: the tasks of each
    :param read: what reads the runs of one
    :return: their runs, in the order of the tasks
    """
    lines = {suite: read(suite) for suite in suites}
    each = [(task, run) for suite, tasks in suites.items() for task in tasks for run in lines[suite]]
    return [run for task, run in each if (run["env"], run["n_trajectories"]) == task]


def named(runs: list[dict]) -> list[dict]:
    """
    :param runs: of comparisons or suites
    :return: those of the table, by its names of algorithms; its clones are those to convergence
    """
    found = []
    for run in runs:
        if run["algo"] in ON_POLICY:
            # Its settings are those of the file that comes with the package
            found.append({**run, "algo": ON_POLICY[run["algo"]], "settings": {}, "final": run["return_mean"]})
        elif run["algo"] != "bc":
            found.append({**run, "algo": "bc"} if run["algo"] == "sb3/bc" else run)
    return found


def summary() -> str:
    """:return: the table: first the tasks of comparisons, then those of suites"""
    compared = runs_of(COMPARED, lambda env: read_comparison(RESULTS / "compare" / env))
    return side_by_side(named(compared + runs_of(ONLINE)), LABELS)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the table and the figure")
    if not parser.parse_args().write:
        print(summary())
        return
    readme = ROOT / "README.md"
    before, _, rest = readme.read_text().partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(f"{before}{START}\n{summary()}\n\n{END}{after}")
    from matplotlib import style

    from sb3_iq.compare.curves import plot_suites

    interesting = [run for run in named(runs_of(ONLINE)) if not run["settings"]]
    for name, look in FIGURES.items():
        with style.context(look):
            plot_suites(interesting, [], ROOT / "docs" / "_static" / name)


if __name__ == "__main__":
    main()
