"""
Plot the evaluations of suites over environment steps, one panel an environment, and below what was logged of the training.

    python benchmarks/curves.py mujoco --out docs/_static/mujoco.png

Lines are means of the seeds, bands one standard error. Clones take no environment steps: their final return is a level line.
"""

import argparse
from pathlib import Path

from run import RESULTS

from sb3_iq.compare.curves import plot_suites
from sb3_iq.compare.suites import of_interest, read_runs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="+")
    parser.add_argument("--only", nargs="*", metavar="LABEL", help="of these labels, e.g. IQ-Learn cloning (default: all)")
    parser.add_argument("--log", nargs="*", default=[], help="what was logged, e.g. expert_reward policy_reward")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    runs = [run for suite in arguments.suites for run in read_runs(RESULTS / f"{suite}.jsonl")]
    plot_suites(of_interest(runs, arguments.only), arguments.log, arguments.out)


if __name__ == "__main__":
    main()
