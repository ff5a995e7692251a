"""
Print the results as Markdown tables, one a suite.

    python benchmarks/table.py [SUITE ...]
    python benchmarks/table.py --steps mujoco    # environment steps to 90 % of the expert
"""

import argparse

from run import RESULTS

from sb3_iq.compare.suites import read_runs, steps_to_goal, table


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", default=sorted(path.stem for path in RESULTS.glob("*.jsonl")))
    parser.add_argument("--steps", action="store_true", help="environment steps to 90 %% of the expert instead")
    arguments = parser.parse_args()
    for suite in arguments.suites:
        runs = read_runs(RESULTS / f"{suite}.jsonl")
        if runs:
            print(f"\n### {suite}\n\n{(steps_to_goal if arguments.steps else table)(runs)}")


if __name__ == "__main__":
    main()
