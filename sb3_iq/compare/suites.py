"""
Runs of several environments in one table: the lines of ``benchmarks/results``, of any date.

A line is a row of a comparison (see :mod:`sb3_iq.compare.execution`) with the demonstrations' name and the frequency of
evaluations, which the rows of one comparison share. :func:`as_rows` makes rows of lines.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import trim_mean

from sb3_iq.compare.comparison import Protocol
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.results import Row, read_lines
from sb3_iq.compare.statistics import Censored, at_budget, median, to_goal
from sb3_iq.compare.tables import in_bold

Line = dict[str, Any]

# In tables. ``bc`` is the name that ``iq/bc`` has in lines
NAMES = {
    "iq": "IQ-Learn",
    "bc": "cloning",
    "sb3/bc": "cloning to convergence",
    "sb3/sqil": "SQIL",
    "sb3/gail": "off-policy GAIL",
    "imitation/bc": "imitation's BC",
    "imitation/sqil": "imitation's SQIL",
    "imitation/gail": "imitation's GAIL",
    "imitation/airl": "imitation's AIRL",
}
# Mean returns of uniformly random actions, see benchmarks/README.md
RANDOM = {
    "CartPole-v1": 21.4,
    "Acrobot-v1": -500.0,
    "MountainCar-v0": -200.0,
    "LunarLander-v3": -179.9,
    "LunarLanderContinuous-v3": -169.5,
    "BipedalWalker-v3": -102.3,
    "Pendulum-v1": -1241.7,
    "Hopper-v5": 16.6,
    "Walker2d-v5": 2.0,
    "Ant-v5": -40.6,
    "HalfCheetah-v5": -263.0,
    "PongFrames-v0": -19.9,
    "CarRacing-v3": -31.9,
}
N_BOOTSTRAP = 5_000


def label(line: Line) -> str:
    """
    :param line: a run
    :return: the algorithm, with the settings that differ from the default
    """
    settings = (f"{name}={value}" for name, value in line["settings"].items())
    name: str = line["algo"]
    return " ".join([NAMES.get(name, name), *settings])


def of_interest(lines: list[Line], labels: list[str] | None) -> list[Line]:
    """
    :param lines: runs
    :param labels: of those to keep, None for all
    :return: the runs, in the order of the labels
    """
    if not labels:
        return lines
    return sorted((line for line in lines if label(line) in labels), key=lambda line: labels.index(label(line)))


def expert_return(lines: list[Line]) -> float:
    """
    :param lines: runs
    :return: of the demonstrations that the first algorithm among the runs learned from, so that figures and tables agree
    """
    return float(np.mean([line["expert_return"] for line in lines if label(line) == label(lines[0])]))


def estimate(values: list[float]) -> str:
    """
    :param values: of runs
    :return: the interquartile mean, with its 95 % bootstrap interval where there are three runs or more: what rliable computes
        for a comparison, of one task and many times as fast
    """
    mean = f"{trim_mean(values, 0.25):.0f}"
    if len(values) < 3:
        return f"{mean} (n = {len(values)})"
    draws = np.random.default_rng(0).choice(values, (N_BOOTSTRAP, len(values)))
    low, high = np.quantile(trim_mean(draws, 0.25, axis=1), [0.025, 0.975])
    return f"{mean} [{low:.0f}, {high:.0f}]"


def side_by_side(lines: list[Line], labels: list[str] | None = None, last_five: bool = False) -> str:
    """
    :param lines: runs
    :param labels: a column for each of these algorithms; None for all that there are
    :param last_five: the mean of the last five evaluations in place of the final one
    :return: a row for each environment and number of demonstrations; the best mean in bold
    """
    lines = of_interest(lines, labels)
    columns = labels or list(dict.fromkeys(map(label, lines)))
    rows = [f"| environment | demonstrations | {' | '.join(columns)} | expert (random) |", "|---" * (len(columns) + 3) + "|"]
    tasks = dict.fromkeys((line["env"], line["n_trajectories"]) for line in lines)
    for env, n_trajectories in tasks:
        runs = [line for line in lines if (line["env"], line["n_trajectories"]) == (env, n_trajectories)]
        key = "last_five_mean" if last_five else "final"
        values = {name: [run[key] for run in runs if label(run) == name] for name in columns}
        best = max(round(trim_mean(column, 0.25)) for column in values.values() if column)
        cells = []
        for column in values.values():
            text = estimate(column) if column else ""
            cells.append(in_bold(text) if column and round(trim_mean(column, 0.25)) == best else text)
        random = f" ({RANDOM[env]:.0f})" if env in RANDOM else ""
        count = n_trajectories or "all"
        rows.append(f"| {env} | {count} | {' | '.join(cells)} | {expert_return(runs):.0f}{random} |")
    return "\n".join(rows)


def successes(lines: list[Line]) -> str:
    """
    :param lines: runs of environments that tell whether an episode succeeded
    :return: a row for each environment, number of demonstrations and budget: the share of the episodes that succeed, and each
        seed
    """
    columns = list(dict.fromkeys(map(label, lines)))
    rows = [f"| environment | demonstrations | steps | {' | '.join(columns)} |", "|---" * (len(columns) + 3) + "|"]
    for key in dict.fromkeys((line["env"], line["n_trajectories"], line["timesteps"]) for line in lines):
        cells = []
        for name in columns:
            runs = [run for run in lines if (run["env"], run["n_trajectories"], run["timesteps"], label(run)) == (*key, name)]
            shares = [run["success_rate"] for run in sorted(runs, key=lambda run: run["seed"])]
            each = f"n = {len(shares)}" if len(shares) < 3 else ", ".join(f"{share:.0%}" for share in shares)
            cells.append(f"{np.mean(shares):.0%} ({each})" if shares else "")
        env, n_trajectories, timesteps = key
        rows.append(f"| {env} | {n_trajectories} | {timesteps:,} | {' | '.join(cells)} |")
    return "\n".join(rows)


def by_setting(lines: list[Line]) -> str:
    """
    :param lines: runs
    :return: a row for each setting, a column for each environment: the mean of the last five evaluations, and the best
    """
    environments, labels = (list(dict.fromkeys(of(line) for line in lines)) for of in (lambda line: line["env"], label))
    rows = [f"| | {' | '.join(environments)} |", "|---" * (1 + len(environments)) + "|"]
    for name in labels:
        cells = []
        for env in environments:
            runs = [line for line in lines if (line["env"], label(line)) == (env, name)]
            last, best = (np.mean([run[key] for run in runs]) if runs else np.nan for key in ("last_five_mean", "best"))
            cells.append(f"{last:.0f} ({best:.0f})" if runs else "")
        rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(rows)


def table(lines: list[Line]) -> str:
    """
    :param lines: runs
    :return: one row for each environment, number of demonstrations and setting; seeds in the order of their numbers
    """
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


def steadiness(lines: Sequence[Line]) -> str:
    """
    :param lines: runs of a whole horizon
    :return: a row a run: its last five evaluations as a share of its own demonstrations' return, with their worst episode;
        the share of the latest actor in place of its average; the first evaluation of 0.9 or more, and how many of those after
        it are 0.85 or more
    """
    heads = "environment", "seed", "demonstration", "last five", "worst episode", "latest actor", "0.9 after steps", "stays"
    rows = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    environments = list(dict.fromkeys(line["env"] for line in lines))
    for line in sorted(lines, key=lambda line: (environments.index(line["env"]), line["seed"])):
        curve, expert = line["evaluations"], line["expert_return"]
        share = [point["mean"] / expert for point in curve]
        first = next((idx for idx, value in enumerate(share) if value >= 0.9), None)
        later = [] if first is None else share[first + 1 :]
        latest = [point["latest_actor_mean"] / expert for point in curve[-5:] if "latest_actor_mean" in point]
        cells = [
            line["env"],
            line["seed"],
            f"{expert:,.0f}",
            f"**{np.mean(share[-5:]):.2f}**",
            f"{min(point['min'] for point in curve[-5:]):,.0f}",
            f"{np.mean(latest):.2f}" if latest else "",
            f"> {line['timesteps']:,}" if first is None else f"{curve[first]['step']:,.0f}",
            f"{np.mean([value >= 0.85 for value in later]):.2f}" if later else "",
        ]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def steps_to_goal(lines: Sequence[Line]) -> str:
    """
    :param lines: runs
    :return: one row for each environment, number of demonstrations and algorithm: environment steps to 90 % of the expert, of
        the expert's return that the runs of a task share. A run that never gets there counts as longer than any that does
    """
    rows = ["| environment | demos | algorithm | runs | steps to 90 %, median | each seed |", "|---" * 6 + "|"]
    groups = defaultdict(list)
    for line in sorted(lines, key=lambda line: line["seed"]):
        if line["env"] in RANDOM and line["evaluations"]:
            groups[line["env"], line["n_trajectories"], label(line)].append(line)
    for (env, n_trajectories, name), members in groups.items():
        task = [line for line in lines if (line["env"], line["n_trajectories"]) == (env, n_trajectories)]
        protocol = protocol_of(task)
        steps: list[Censored] = [to_goal(row, protocol, "step") for row in as_rows(members)]
        cells = [env, n_trajectories, name, len(members), median(steps), "; ".join(map(str, steps))]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def protocol_of(lines: Sequence[Line]) -> Protocol:
    """
    :param lines: runs of one environment and number of demonstrations
    :return: what their rows are measured by
    """
    first = lines[0]
    return Protocol(
        Environment(first["env"]),
        min(line["timesteps"] for line in lines),
        first["eval_freq"],
        first["n_eval_episodes"],
        expert_return(list(lines)),
        RANDOM[first["env"]],
        demos_hash="",
        baselines_hash="",
        demos=first["demos"],
    )


def as_rows(lines: Sequence[Line]) -> list[Row]:
    """
    :param lines: runs
    :return: rows of comparisons, as :mod:`sb3_iq.compare.statistics` takes them
    """
    return [
        {
            **line,
            "algo": "iq/bc" if line["algo"] == "bc" else line["algo"],
            "n_demos": line["n_trajectories"],
            "demos_return": line["expert_return"],
            "curve": [{"train_s": 0.0, **point} for point in line["evaluations"]],
            "return_mean": line["final"],
            "env_steps": _env_steps(line),
        }
        for line in lines
    ]


def _env_steps(line: Line) -> int:
    """Return the field, or in lines from before it, or of a run that diverged: the steps, unless they are gradient steps."""
    found = line.get("env_steps")
    return found if found is not None else 0 if line["offline"] or line["algo"] == "bc" else line["timesteps"]


def read_comparison(folder: Path) -> list[Line]:
    """
    :param folder: of a comparison
    :return: its runs that ended well as lines: ``final`` is the return at the budget that all algorithms share
    """
    protocol = json.loads((folder / "comparison.json").read_text())
    return [
        {
            **row,
            "n_trajectories": row["n_demos"],
            "expert_return": row.get("demos_return") or protocol["expert_return"],
            "final": at_budget(row, protocol["timesteps"]),
        }
        for row in read_lines(folder / "results.jsonl")
        if row["error"] is None
    ]


def read_runs(path: Path) -> list[Line]:
    """
    :param path: a file of lines
    :return: the training runs in it
    """
    return [line for line in read_lines(path) if "final" in line]
