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
import itertools
import json
import os
import shlex
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from sb3_iq.compare import comparison, settings
from sb3_iq.compare.algorithms import NAMES, Algorithm
from sb3_iq.compare.comparison import Protocol
from sb3_iq.compare.dispatch import Local
from sb3_iq.compare.driver import load_all
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import random_return
from sb3_iq.compare.provenance import git_commit
from sb3_iq.compare.results import Row, append_line, read_lines
from sb3_iq.compare.suites import RANDOM
from sb3_iq.demonstrations import Demonstrations

__all__ = ["N_EVAL_EPISODES", "RESULTS", "git_commit"]

RESULTS = Path(__file__).parent / "results"
EXPERTS = Path(__file__).parents[1] / "examples" / "experts"
N_EVAL_EPISODES = 20
# Modules that register environments which gymnasium does not know, by how the ids begin
PACKAGES = {"Fetch": "gymnasium_robotics", "CartPoleFrames": "cartpole_frames", "PongFrames": "pong"}
# What a line calls an algorithm of a comparison that has another name there
ALGORITHMS = {"bc": "iq/bc"}
ABLATIONS: list[dict[str, Any]] = [
    {},
    {"policy_kwargs": {"normalize_obs": False}},
    {"reward_prior": 0.0, "penalty_coef": 0.5},
    {"bc_coef": 0.0},
    {"policy_kwargs": {"actor_tau": 1.0}},
    {"objective_kwargs": {"occupancy_term": "expert_states"}},
    {"objective_kwargs": {"critic_bound": "none"}},
    {"policy_kwargs": {"layer_norm": False}},
    {"learning_rate": 5e-4, "actor_learning_rate": 3e-4},
    {"gamma": 0.99},
    {"train_freq": 1},
]


@dataclass(frozen=True)
class Run:
    """One training run; ``settings`` are arguments of IQLearn that differ from its defaults (none in most published runs)."""

    env: str
    demos: str
    n_trajectories: int
    timesteps: int
    seed: int
    algo: str = "iq"
    offline: bool = False
    subsample_freq: int = 1
    eval_freq: int = 5_000
    # So many other episodes of the same expert: at each evaluation the measures of HeldOutCallback stand beside the return
    held_out: int = 0
    n_eval_episodes: int = N_EVAL_EPISODES
    settings: dict[str, Any] = field(default_factory=dict)

    def command(self, suite: str) -> str:
        """The command that repeats this run alone."""
        words = ["python", "benchmarks/run.py", "--suite", suite, "--algo", self.algo, "--env", self.env]
        words += ["--demos", self.demos, "--n-trajectories", str(self.n_trajectories), "--timesteps", str(self.timesteps)]
        words += ["--seed", str(self.seed), "--subsample-freq", str(self.subsample_freq), "--eval-freq", str(self.eval_freq)]
        words += ["--offline"] if self.offline else []
        words += ["--held-out", str(self.held_out)] if self.held_out else []
        words += ["--n-eval-episodes", str(self.n_eval_episodes)] if self.n_eval_episodes != N_EVAL_EPISODES else []
        words += ["--settings", json.dumps(self.settings)] if self.settings else []
        return 'SB3_IQ_DEMOS="$SB3_IQ_DEMOS" OMP_NUM_THREADS=1 ' + shlex.join(words)


def suites() -> dict[str, list[Run]]:
    """The published runs: the constructor's defaults, but where a setting is what is compared."""
    seeds, algos = range(3), ("iq", "bc")
    control = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "HalfCheetah-v5")
    discrete = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")
    offline = [("LunarLander-v3", 3), ("Acrobot-v1", 1), ("CartPole-v1", 10), ("MountainCar-v0", 10)]
    few = [("CartPole-v1", 1), ("Acrobot-v1", 1), ("MountainCar-v0", 1), ("LunarLander-v3", 1), ("LunarLander-v3", 3)]
    return {
        "offline-discrete": [
            Run(env, f"demos:{env}", n, 5_000, seed, algo, offline=True, eval_freq=1_000)
            for algo, (env, n), seed in itertools.product(algos, offline, seeds)
        ],
        "cartpole-online": [Run("CartPole-v1", "bundled:CartPole-v1", 10, 20_000, seed, eval_freq=2_000) for seed in seeds],
        "online-discrete": [
            Run(env, f"demos:{env}", 10, 15_000, seed, eval_freq=1_500)
            for env, seed in itertools.product(("LunarLander-v3", "Acrobot-v1"), seeds)
        ],
        "online-discrete-few": [
            Run(env, f"demos:{env}", n, 15_000, seed, eval_freq=1_500) for (env, n), seed in itertools.product(few, seeds)
        ],
        "subsampled-online": [
            Run("CartPole-v1", "demos:CartPole-v1", 1, 15_000, seed, subsample_freq=20, eval_freq=1_500) for seed in seeds
        ],
        "pendulum": [Run("Pendulum-v1", "demos:Pendulum-v1", 5, 20_000, seed, eval_freq=1_000) for seed in seeds],
        "mujoco": [
            *(Run(env, f"demos:{env}", 1, 200_000, 0) for env in control),
            *(Run("Hopper-v5", "demos:Hopper-v5", 1, 200_000, seed) for seed in (1, 2)),
            *(Run(env, f"demos:{env}", 1, 200_000, 0, settings={"preset": "paper"}) for env in control),
        ],
        # Today's default of continuous actions: a demonstration of its own for each seed, and what others of the expert tell.
        # Seeds (and so demonstrations) that chose nothing: the default was tuned on 0, 1, 2, 10 and 11
        "continuous": [
            Run(env, f"demos:{env}", 1, 200_000, seed, eval_freq=10_000, held_out=5)
            for seed, env in itertools.product(range(3, 6), control)
        ],
        "online-continuous": [
            Run(env, f"demos:{env}", n, steps, seed, eval_freq=eval_freq)
            for env, n, steps, eval_freq in (
                ("LunarLanderContinuous-v3", 3, 15_000, 1_500),
                ("Pendulum-v1", 5, 20_000, 1_000),
            )
            for seed in seeds
        ],
        "mujoco-bc": [
            Run(env, f"demos:{env}", 1, 10_000, seed, "bc", True, eval_freq=1_000)
            for env, seed in itertools.product(control, seeds)
        ],
        # Clones of the same demonstrations
        "continuous-bc": [
            Run(env, f"demos:{env}", 1, 10_000, seed, "bc", True, eval_freq=1_000)
            for env, seed in itertools.product(control, range(3, 6))
        ],
        # The default without each of its ingredients, beside the default itself. Not terminal_value: where no demonstration
        # ends, a terminal state is worth 0 either way
        "ablation": [
            Run(env, f"demos:{env}", 1, 60_000, 0, settings=settings)
            for settings in ABLATIONS
            for env in ("Hopper-v5", "Walker2d-v5")
        ],
        "offline-demos": [
            Run(env, f"demos:{env}", n, 5_000, seed, algo, offline=True, eval_freq=1_000)
            for algo, env, n, seed in itertools.product(algos, discrete, (1, 3, 10), range(5))
        ],
        # One demonstration of which every 20th transition is seen: 25 of them, another episode for each seed
        "subsampled": [
            Run("CartPole-v1", "demos:CartPole-v1", 1, 5_000, seed, algo, offline=True, subsample_freq=20, eval_freq=1_000)
            for algo, seed in itertools.product(algos, range(10))
        ],
        "offline-continuous": [
            Run(env, f"demos:{env}", n, steps, seed, algo, True, eval_freq=eval_freq)
            for env, n, steps, eval_freq in (
                ("LunarLanderContinuous-v3", 10, 10_000, 1_000),
                ("BipedalWalker-v3", 5, 15_000, 2_500),
            )
            for algo, seed in itertools.product(algos, seeds)
        ],
        # Offline, from the scripted players of examples/experts: dictionaries of vectors, and frames
        "robots": [
            Run(env, f"demos:{env}", 50, 5_000, seed, algo, True, eval_freq=5_000, n_eval_episodes=100)
            for env, seed, algo in itertools.product(("FetchReach-v4", "FetchPush-v4", "FetchPickAndPlace-v4"), seeds, algos)
        ],
        "frames": [
            Run("CartPoleFrames-v0", "demos:CartPoleFrames-v0", 10, 2_000, seed, algo, True, eval_freq=1_000)
            for seed, algo in itertools.product(seeds, algos)
        ],
        # Long without a GPU. CarRacing-v3 is of today's stack
        "games": [
            Run(env, f"demos:{env}", n, 20_000, seed, algo, True, eval_freq=5_000)
            for env, n, seed, algo in itertools.product(("PongFrames-v0", "CarRacing-v3"), (10, 20), seeds, algos)
        ],
        # What demonstrations that are held out tell, beside the true return, at 20 checkpoints of a run
        "held-out": [
            Run("LunarLander-v3", "demos:LunarLander-v3", n, steps, seed, offline=offline, eval_freq=steps // 20, held_out=5)
            for (steps, offline), n, seed in itertools.product(((15_000, False), (5_000, True)), (1, 10), seeds)
        ],
    }


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
        environment = Environment(env, packages=tuple(PACKAGES[name] for name in PACKAGES if env.startswith(name)))
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
            print(f"{run.algorithm.label} {env} seed {run.seed}: {point}", flush=True)

        for row in Local(n_jobs)([as_compared(run) for run in members.values()], protocol, demonstrations, tell):
            run = members[row["algo"], row["n_demos"], row["seed"]]
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
