"""
Run the benchmarks: comparisons of :mod:`sb3_iq.compare`, several environments in a suite. Each run that ends appends one line
of JSON to ``benchmarks/results/<suite>.jsonl``.

    export SB3_IQ_DEMOS=...                         # a folder of demonstrations, see benchmarks/README.md
    python benchmarks/run.py --list
    python benchmarks/run.py offline-discrete --jobs 2
    python benchmarks/run.py --algo iq --env Hopper-v5 --demos demos:Hopper-v5 --n-trajectories 1 --timesteps 100000 --seed 0

Runs that already have a line are skipped, so that an interrupted suite goes on where it stopped.
"""

import argparse
import json
import os
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

from published import N_EVAL_EPISODES, Run, suites

from sb3_iq.compare import comparison, settings
from sb3_iq.compare.algorithms import NAMES, Algorithm
from sb3_iq.compare.comparison import Protocol
from sb3_iq.compare.dispatch import Local
from sb3_iq.compare.driver import load_all
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import random_return
from sb3_iq.compare.provenance import git_commit
from sb3_iq.compare.results import Row, append_line, key_of, read_lines
from sb3_iq.compare.suites import RANDOM
from sb3_iq.demonstrations import Demonstrations

__all__ = ["RESULTS", "git_commit"]

RESULTS = Path(__file__).parent / "results"
EXPERTS = Path(__file__).parents[1] / "examples" / "experts"
# Modules that register environments which gymnasium does not know, by how the ids begin
PACKAGES = {"Fetch": "gymnasium_robotics", "CartPoleFrames": "cartpole_frames", "PongFrames": "pong"}
# What a line calls an algorithm of a comparison that has another name there
ALGORITHMS = {"bc": "iq/bc"}


def environment_of(env_id: str) -> Environment:
    """
    :param env_id: its id
    :return: the environment, with the module that registers it
    """
    return Environment(env_id, packages=tuple(PACKAGES[name] for name in PACKAGES if env_id.startswith(name)))


def current_settings(settings: dict[str, Any]) -> dict[str, Any]:
    """
    :param settings: arguments of IQLearn, also as results from before ``objective_kwargs`` have them
    :return: the same, where IQLearn takes them today
    """
    from sb3_iq.iq_learn.settings import OBJECTIVE_KWARGS

    places = {**dict.fromkeys(OBJECTIVE_KWARGS, "objective_kwargs"), "actor_tau": "policy_kwargs"}
    current = {name: value for name, value in settings.items() if name not in places}
    for name in filter(places.__contains__, settings):
        current[places[name]] = {**current.get(places[name], {}), name: settings[name]}
    return current


def as_compared(run: Run) -> comparison.Run:
    """
    :param run: of a suite
    :return: the run of a comparison that it is
    """
    name = ALGORITHMS.get(run.algo, run.algo)
    own = current_settings(run.settings) | ({"offline": True} if run.algo == "iq" and run.offline else {})
    algorithm = Algorithm(name, own)
    more = settings.read().of(name, run.env) if algorithm.library == "imitation" else {}
    return comparison.Run(
        algorithm, run.n_trajectories, run.seed, run.timesteps, more, run.subsample_freq, run.held_out, detailed=True
    )


def record(run: Run, suite: str, row: Row) -> dict[str, Any]:
    """
    :param run: of a suite
    :param suite: its name
    :param row: of the comparison
    :return: the line of the results file
    """
    means = [point["mean"] for point in row["curve"]]
    measures = [{name: float(f"{value:.6g}") for name, value in each.items()} for each in row.get("held_out_measures", [])]
    return {
        **asdict(run),
        "demos_hash": row["demos_hash"],
        "expert_return": row["demos_return"],
        "n_transitions": row["n_transitions"],
        "final": means[-1] if means else None,
        "last_five_mean": round(sum(means[-5:]) / len(means[-5:]), 3) if means else None,
        "best": max(means) if means else None,
        "evaluations": row["curve"],
        "held_out_measures": measures,
        **({"success_rate": row["curve"][-1]["success_rate"]} if means and "success_rate" in row["curve"][-1] else {}),
        **{name: row.get(name) for name in ("n_eval_episodes", "env_steps", "gradient_steps", "train_s", "wall_s")},
        "error": row["error"],
        "versions": {name: version for name, version in row["versions"].items() if name != "python"},
        "python": row["versions"]["python"],
        "commit": row["commit"],
        "command": run.command(suite),
    }


def comparisons(runs: list[Run]) -> Iterator[tuple[Protocol, Demonstrations, dict[Any, Run]]]:
    """
    :param runs: of a suite
    :return: what runs on the same terms, with all demonstrations, by the keys of their rows
    """
    groups = defaultdict(list)
    for run in runs:
        common = (run.env, run.demos, run.timesteps, run.eval_freq, run.n_eval_episodes)
        groups[common, run.subsample_freq, run.held_out].append(run)
    for ((env, demos, timesteps, eval_freq, n_eval_episodes), *_), members in groups.items():
        environment = environment_of(env)
        demonstrations = load_all(demos, environment)
        protocol = Protocol(
            environment,
            timesteps,
            eval_freq,
            n_eval_episodes,
            comparison.expert_return_of(demonstrations, None),
            RANDOM[env] if env in RANDOM else random_return(environment, N_EVAL_EPISODES),
            demonstrations.content_hash,
            settings.read().digest,
            demos,
        )
        yield protocol, demonstrations, {as_compared(run).key: run for run in members}


def do(suite: str, runs: list[Run], out: Path, n_jobs: int) -> list[str]:
    """
    :param suite: its name
    :param runs: what to do
    :param out: the file of the results
    :param n_jobs: runs at a time
    :return: errors of runs that did not end, which have no line. A loss that was not finite is a result
    """
    errors = []
    for protocol, demonstrations, members in comparisons(runs):

        def tell(run: comparison.Run, point: dict[str, Any], env: str = protocol.env.env_id) -> None:
            print(f"{run.algorithm.label} {env} seed {run.seed}: {point if 'mean' in point else 'started'}", flush=True)

        for row in Local(n_jobs)([as_compared(run) for run in members.values()], protocol, demonstrations, tell):
            run = members[key_of(row)]
            kind, _, reason = (row["error"] or "").partition(": ")
            if row["error"] and kind != "NonFiniteLossError":
                errors.append(f"{suite}: {run}: {row['error']}")
                print(errors[-1], file=sys.stderr, flush=True)
                continue
            append_line(out, record(run, suite, {**row, "error": reason or None}))
    return errors


def identity(run: dict[str, Any]) -> dict[str, Any]:
    """:return: the fields of a run, equal for records of the same run from before a field or by older names of settings"""
    fields = {name: run[name] for name in Run.__dataclass_fields__ if name in run}
    return {"held_out": 0, "n_eval_episodes": N_EVAL_EPISODES, **fields, "settings": current_settings(run["settings"])}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", help="suites to run; none: the single run given by the options")
    parser.add_argument("--list", action="store_true", help="list the suites and what is done")
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one core each")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--suite", default="single", help="name of the results file of a single run")
    parser.add_argument("--algo", choices=("bc", *NAMES), default="iq", help="an algorithm of sb3_iq.compare, or bc: iq/bc")
    parser.add_argument("--env")
    parser.add_argument("--demos", help="whatever load_demonstrations takes, e.g. demos:Hopper-v5")
    parser.add_argument("--n-trajectories", type=int, default=1)
    parser.add_argument("--subsample-freq", type=int, default=1)
    parser.add_argument("--timesteps", type=int, default=20_000, help="environment steps; offline, gradient steps")
    parser.add_argument("--eval-freq", type=int, default=5_000)
    parser.add_argument("--held-out", type=int, default=0, help="so many other episodes, to measure the policy by")
    parser.add_argument("--n-eval-episodes", type=int, default=N_EVAL_EPISODES, help="episodes of an evaluation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--offline", action="store_true")
    parser.add_argument("--settings", type=json.loads, default={}, help="arguments of IQLearn, as JSON")
    return parser.parse_args()


def main() -> int:
    arguments = parse_arguments()
    arguments.out.mkdir(parents=True, exist_ok=True)
    known = suites()
    chosen = {name: known[name] for name in (known if arguments.list and not arguments.suites else arguments.suites)}
    if arguments.env:
        chosen[arguments.suite] = [Run(**{name: getattr(arguments, name) for name in Run.__dataclass_fields__})]
    if not chosen:
        sys.exit(f"Name a suite ({', '.join(known)}) or give --env and --demos.")

    os.environ["OMP_NUM_THREADS"] = "1"  # of the processes of the runs
    # Some register environments
    sys.path.append(str(EXPERTS))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [os.environ.get("PYTHONPATH"), str(EXPERTS)]))
    errors = []
    for suite, runs in chosen.items():
        out = arguments.out / f"{suite}.jsonl"
        done = [identity(line) for line in read_lines(out) if "final" in line]
        missing = [run for run in runs if identity(asdict(run)) not in done]
        print(f"{suite}: {len(runs)} runs, {len(runs) - len(missing)} done", flush=True)
        if not arguments.list:
            errors += do(suite, missing, out, arguments.jobs)
    return 1 if errors else 0


if __name__ == "__main__":
    sys.exit(main())
