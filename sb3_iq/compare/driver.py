"""The comparison from arguments to rows and report."""

import importlib.util
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch as th

from sb3_iq.compare import settings as baselines
from sb3_iq.compare.algorithms import Algorithm, parse, without_imitation
from sb3_iq.compare.baselines.task import UnsuitedError
from sb3_iq.compare.comparison import (
    N_EVAL_EPISODES,
    N_POINTS,
    Protocol,
    Run,
    check_counts,
    expert_return_of,
)
from sb3_iq.compare.dispatch import Dispatcher, Local, Ray
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import random_return
from sb3_iq.compare.execution import check, check_portable
from sb3_iq.compare.progress import Progress
from sb3_iq.compare.report import write_report
from sb3_iq.compare.results import Results, Row, missing
from sb3_iq.demonstrations import Demonstrations, load_demonstrations
from sb3_iq.demonstrations.errors import check_integer, first_words, how_to_install, shorten
from sb3_iq.demonstrations.image_checks import of_card
from sb3_iq.environments import name_of


def compare(
    env: str,
    demos: Any,
    algos: Sequence[str | Algorithm] = ("iq", "sqil", "gail", "airl", "bc"),
    n_demos: Sequence[int] = (1, 3, 10),
    seeds: int = 5,
    timesteps: int = 20_000,
    out: str | Path = "comparison",
    first_seed: int = 0,
    eval_freq: int | None = None,
    n_eval_episodes: int = N_EVAL_EPISODES,
    n_jobs: int = 1,
    ray_address: str | None = None,
    retries: int = 2,
    shard: tuple[int, int] | None = None,
    retry_failed: bool = False,
    expert_return: float | None = None,
    baselines_file: str | Path | None = None,
    env_kwargs: Mapping[str, Any] | None = None,
    gym_packages: Sequence[str] = (),
) -> list[Row]:
    """
    Compare imitation learning algorithms: the same demonstrations, the same budget, the same evaluation.

    Rows are written to ``out/results.jsonl`` as runs end. Called again, it goes on with what is missing. :func:`report` makes
    table, plot and page of them.

    :param env: id of a registered environment
    :param demos: whatever :func:`~sb3_iq.load_demonstrations` takes
    :param algos: words (``"gail"``), names (``"sb3/gail"``) or :class:`~sb3_iq.compare.Algorithm`; a name may carry settings,
        ``"iq:preset=paper"``. See :data:`~sb3_iq.compare.algorithms.WORDS`
    :param n_demos: numbers of demonstrations
    :param seeds: runs of each algorithm from each number of demonstrations. Each has another choice of them
    :param timesteps: environment steps of each run
    :param out: folder of the results, new or that of the same comparison
    :param first_seed: the first seed
    :param eval_freq: steps between two evaluations; by default a twentieth of ``timesteps``
    :param n_eval_episodes: episodes of each evaluation
    :param n_jobs: runs at a time on this machine
    :param ray_address: of a Ray cluster to do the runs on, instead of this machine
    :param retries: how often a run whose process or node died is tried again
    :param shard: ``(i, n)`` for the i-th of n parts of the runs, counted from 1, e.g. of a job array
    :param retry_failed: run again what raised an error before
    :param expert_return: what counts as a score of 1; by default the mean return of all demonstrations
    :param baselines_file: settings of imitation's algorithms, an edited copy of ``sb3_iq/imitation/baselines.yml``
    :param env_kwargs: arguments of the environment
    :param gym_packages: modules to import, which register environments
    :return: all rows, also those of earlier calls
    :raises ValueError: before the first run, if an argument, the demonstrations or the folder do not fit
    :raises TypeError: before the first run, if an argument is of a wrong type
    """
    algorithms, note = without_imitation(parse(algos))
    if note:
        print(note, file=sys.stderr)
    if not algorithms:
        raise ValueError("algos: nothing is left to run on this stack of packages")
    check_integer("seeds", seeds, 1)
    check_integer("first_seed", first_seed, 0)
    check_integer("timesteps", timesteps, 1)
    _check_shard(shard)
    dispatcher = _dispatcher(n_jobs, ray_address, retries)
    settings = baselines.read(baselines_file)
    check_portable("env_kwargs", dict(env_kwargs or {}))
    packages = (gym_packages,) if isinstance(gym_packages, str) else tuple(gym_packages)
    environment = Environment(env, dict(env_kwargs or {}), packages)
    results = Results(Path(out), shard)
    stored = results.read_protocol()
    demonstrations = load_all(demos, environment)
    if isinstance(dispatcher, (Local, Ray)):  # runs are processes of their own
        environment.check_portable()
    counts = check_counts(n_demos, len(demonstrations.trajectories))
    n_eval_episodes = check_integer("n_eval_episodes", n_eval_episodes, 1)
    protocol = Protocol(
        environment,
        timesteps,
        eval_freq if eval_freq is not None else max(1, timesteps // N_POINTS),
        n_eval_episodes,
        expert_return_of(demonstrations, expert_return),
        _random_return(environment, n_eval_episodes, stored),
        demonstrations.content_hash,
        settings.digest,
        demos if isinstance(demos, str) else str(demos) if isinstance(demos, Path) else "DEMONSTRATIONS",
        "" if baselines_file is None else str(baselines_file),
    )
    runs = make_runs(protocol, algorithms, counts, range(first_seed, first_seed + seeds), settings)
    runs = _checked(runs, protocol, demonstrations)
    results.open(protocol)
    todo = missing(runs, results.read(), shard, retry_failed)
    n_runs = len(runs) if shard is None else len(todo)  # of a shard, its own
    with Progress(n_runs, n_runs - len(todo)) as progress:
        for row in dispatcher(todo, protocol, demonstrations, progress.on_point):
            results.append(row)
            progress.on_row(row)
    return results.read()


def load_all(demos: Any, environment: Environment) -> Demonstrations:
    """
    :param demos: whatever :func:`~sb3_iq.load_demonstrations` takes
    :param environment: where they were recorded
    :return: all of them, with the environment's time limit
    """
    env = environment.make()
    spec = env.spec
    env.close()
    demonstrations = load_demonstrations(demos, env_id=environment.env_id)
    recorded_in = (demonstrations.card or {}).get("env_id")
    # An environment that has the wrappers of the recording built in is registered by another name
    wrapped = of_card(demonstrations.card) != ""
    if isinstance(recorded_in, str) and not wrapped and name_of(recorded_in) != name_of(environment.env_id):
        warnings.warn(
            f"demos={shorten(demos)}: by their card they were recorded in {shorten(recorded_in)}, and the environment is "
            f"{environment.env_id}. Scores then compare with the return of another task",
            stacklevel=2,
        )
    if spec is None or spec.max_episode_steps is None:
        return demonstrations
    return demonstrations.with_time_limit(spec.max_episode_steps)


def _random_return(environment: Environment, n_episodes: int, stored: Protocol | None) -> float:
    """Return the one that the folder's comparison has, so that both stacks agree; of another environment it says nothing."""
    if stored is not None and stored.env.env_id == environment.env_id:
        return stored.random_return
    try:
        return random_return(environment, n_episodes)
    except Exception as error:  # of the environment, or of a version of NumPy that it was not written for
        raise ValueError(
            f"env={shorten(environment.env_id)}: this environment fails with random actions ({first_words(error)}). Look at "
            "its step and reset, and at the versions of its packages"
        ) from error


def make_runs(
    protocol: Protocol,
    algorithms: Sequence[Algorithm],
    n_demos: Sequence[int],
    seeds: Sequence[int],
    settings: baselines.Baselines,
) -> list[Run]:
    """
    :param protocol: of the comparison
    :param algorithms: which
    :param n_demos: numbers of demonstrations
    :param seeds: which
    :param settings: of imitation's algorithms
    :return: every combination: seed by seed, so that what is interrupted is still a comparison
    """
    runs = []
    for seed in seeds:
        for number in n_demos:
            for algorithm in algorithms:
                own = settings.of(algorithm.name, protocol.env.env_id) if algorithm.library == "imitation" else {}
                multiple = algorithm.settings.get("budget", own.get("budget", 1))
                budget = max(1, int(protocol.timesteps * multiple))
                runs.append(Run(algorithm, number, seed, algorithm.settings.get("timesteps", budget), own))
    return runs


def _checked(runs: Sequence[Run], protocol: Protocol, demonstrations: Demonstrations) -> list[Run]:
    """Refuse what no run of an algorithm can do, before the first one; leave out what only a word asked for."""
    left_out = []
    smallest = {run.algorithm.label: run for run in reversed(runs)}
    with th.random.fork_rng():
        for label, run in smallest.items():
            try:
                check(run, protocol, demonstrations)
            except UnsuitedError as error:
                if not run.algorithm.by_word:
                    raise
                left_out.append(label)
                print(f"{label}: left out ({error})", file=sys.stderr)
            except (ValueError, TypeError, ImportError):
                raise
            except Exception as error:  # of a library, which an algorithm cannot be made with
                raise ValueError(
                    f"algos: {label} cannot be made for {protocol.env.env_id} ({first_words(error)}). Leave it out, or look "
                    "at its settings and at the environment's spaces"
                ) from error
    kept = [run for run in runs if run.algorithm.label not in left_out]
    if not kept:
        raise ValueError(f"algos: nothing is left that can learn in {protocol.env.env_id}. Try iq")
    return kept


def _check_shard(shard: tuple[int, int] | None) -> None:
    if shard is None:
        return
    if not isinstance(shard, (tuple, list)) or len(shard) != 2 or not all(type(part) is int for part in shard):
        raise TypeError(f"shard={shorten(str(shard))}: expected two integers, (i, n)")
    if not 1 <= shard[0] <= shard[1]:
        raise ValueError(f"shard={shorten(str(shard))}: expected (i, n) with 1 <= i <= n")


def _dispatcher(n_jobs: int, ray_address: str | None, retries: int) -> Dispatcher:
    check_integer("retries", retries, 0)
    check_integer("n_jobs", n_jobs, 1)
    if ray_address is not None:
        return Ray(ray_address, retries)
    if n_jobs > 1 and importlib.util.find_spec("joblib") is None:
        raise ImportError(f"n_jobs={n_jobs}: several runs at a time need joblib. {how_to_install('compare')}")
    return Local(n_jobs, retries)


def report(out: str | Path) -> str:
    """
    Write the table, the plot and the page of the rows in a folder.

    :param out: the folder
    :return: the table in Markdown, or what is missing for it
    """
    return write_report(Results(Path(out)))
