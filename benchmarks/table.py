"""
Print the results as Markdown tables, one a suite.

    python benchmarks/table.py [SUITE ...]
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results"


def label(line: dict) -> str:
    """:return: the algorithm, with the settings that differ from the default"""
    return " ".join([line["algo"], *(f"{name}={value}" for name, value in line["settings"].items())])


def table(lines: list[dict]) -> str:
    """:return: one row for each environment, number of demonstrations and setting; seeds in the order of their numbers"""
    groups = defaultdict(list)
    for line in sorted(lines, key=lambda line: line["seed"]):
        groups[line["env"], line["n_trajectories"], line["timesteps"], label(line)].append(line)
    rows = [
        "| environment | demos | steps | algorithm | final (mean) | final, each seed | last five | best | expert | seconds |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for (env, n_trajectories, timesteps, name), runs in groups.items():
        finals = [run["final"] for run in runs]
        note = "" if len(runs) >= 3 else f" preliminary (n = {len(runs)})"
        cells = [
            env,
            n_trajectories,
            f"{timesteps:,}",
            name + note,
            f"{np.mean(finals):.1f}",
            ", ".join(f"{final:.0f}" for final in finals),
            f"{np.mean([run['last_five_mean'] for run in runs]):.1f}",
            f"{np.mean([run['best'] for run in runs]):.1f}",
            f"{np.mean([run['expert_return'] for run in runs]):.1f}",
            f"{np.mean([run['train_s'] for run in runs]):.0f}",
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def read_runs(path: Path) -> list[dict]:
    """:return: the training runs in a file of results"""
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if "final" in line]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", default=sorted(path.stem for path in RESULTS.glob("*.jsonl")))
    for suite in parser.parse_args().suites:
        runs = read_runs(RESULTS / f"{suite}.jsonl")
        if runs:
            print(f"\n### {suite}\n\n{table(runs)}")


if __name__ == "__main__":
    main()
