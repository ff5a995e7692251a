"""One run, from demonstrations to a row: the same function in this process, in a worker and on a cluster."""

import shlex
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np
import torch as th

from sb3_iq.compare.algorithms import plain
from sb3_iq.compare.baselines import bc, gail, iq, iq_bc, sqil
from sb3_iq.compare.baselines.task import Task, Train
from sb3_iq.compare.comparison import Protocol, Run
from sb3_iq.compare.details import details_of
from sb3_iq.compare.environment import is_portable
from sb3_iq.compare.evaluation import Evaluations, Point
from sb3_iq.compare.provenance import git_commit, versions
from sb3_iq.compare.results import Row
from sb3_iq.demonstrations import Demonstrations, Trajectory, load_demonstrations
from sb3_iq.demonstrations.errors import cut

_MODULES = {"iq": iq, "iq/bc": iq_bc, "sb3/bc": bc, "sb3/sqil": sqil, "sb3/gail": gail}
OWN: dict[str, Train] = {name: module.train for name, module in _MODULES.items()}
# What each refuses, before the first run
CHECKS = {name: module.check for name, module in _MODULES.items()}


def train_function(name: str) -> Train:
    """
    :param name: of an algorithm
    :return: what trains it
    """
    if name in OWN:
        return OWN[name]
    from sb3_iq.imitation.baselines import BASELINES

    return BASELINES[name]


def check(run: Run, protocol: Protocol, demonstrations: Demonstrations) -> None:
    """
    :param run: one of an algorithm
    :param protocol: of the comparison
    :param demonstrations: all of them
    :raises ValueError: if its settings, the spaces or the demonstrations do not fit
    :raises TypeError: if a setting cannot be sent to another process
    """
    for key, value in run.algorithm.settings.items():
        check_portable(f"algos: {run.algorithm.name}: {key}", value)
    task = Task(protocol.env, choose(run, demonstrations), run.timesteps, run.seed)
    given, name = _settings(run), run.algorithm.name
    if name in CHECKS:
        CHECKS[name](task, given)
    else:
        from sb3_iq.imitation.baselines import check as check_imitation

        check_imitation(name, task, given)


def check_portable(name: str, value: Any) -> None:
    """
    :param name: what it is, for the message
    :param value: what a process of its own, which does the run, is given
    :raises TypeError: if another process cannot read it
    """
    if not is_portable(value):
        raise TypeError(
            f"{name}={cut(plain(value), 120)} cannot be sent to the process of a run. Lambdas, "
            "and functions and classes of a script or a notebook, have to be defined in a module of their own, and imported"
        )


def choose(run: Run, demonstrations: Demonstrations) -> Demonstrations:
    """
    :param run: says how many, and the seed of the choice
    :param demonstrations: all of them
    :return: the same for every algorithm
    """
    return load_demonstrations(demonstrations, run.n_demos, run.subsample_freq, run.seed)


def choose_held_out(run: Run, demonstrations: Demonstrations, chosen: Demonstrations) -> Demonstrations | None:
    """
    :param run: says how many
    :param demonstrations: all of them
    :param chosen: those to learn from
    :return: others, None for none
    """
    if not run.held_out:
        return None
    # A smaller choice is a part of a larger one
    more = load_demonstrations(demonstrations, run.n_demos + run.held_out, run.subsample_freq, run.seed)
    return more.filter(lambda episode: not any(_same_observations(episode, seen) for seen in chosen))


def _same_observations(first: Trajectory, second: Trajectory) -> bool:
    one, other = (obs if isinstance(obs, dict) else {"": obs} for obs in (first.obs, second.obs))
    return all(np.array_equal(values, other[key]) for key, values in one.items())


def failed(run: Run, protocol: Protocol, reason: str) -> Row:
    """
    :param run: a run that did not end well
    :param protocol: of the comparison
    :param reason: why
    :return: its row
    """
    return {
        "algo": run.algorithm.label,
        "env": protocol.env.env_id,
        "n_demos": run.n_demos,
        "seed": run.seed,
        "timesteps": run.timesteps,
        "settings": plain({**run.settings, **run.algorithm.settings}),
        "curve": [],
        "return_mean": None,
        "score": None,
        "error": reason,
        "command": shlex.join(protocol.command(run, "again")),
    }


def execute(
    run: Run, protocol: Protocol, demonstrations: Demonstrations, on_point: Callable[[Point], None] = lambda point: None
) -> Row:
    """
    Train and evaluate. What goes wrong is in the row: this raises nothing but what ends the process.

    :param run: what to do
    :param protocol: of the comparison
    :param demonstrations: all of them, with the environment's time limit
    :param on_point: called with each evaluation as it comes
    :return: the row, ready for JSON
    """
    row = failed(run, protocol, "")
    row["n_eval_episodes"] = protocol.n_eval_episodes
    row["versions"] = versions()
    row["commit"] = git_commit()
    start = time.perf_counter()
    evaluations = None
    try:
        th.set_num_threads(1)
        chosen = choose(run, demonstrations)
        row |= {"demos_hash": chosen.content_hash, "n_transitions": chosen.n_transitions}
        row["demos_return"] = None if chosen.episode_returns is None else round(float(chosen.episode_returns.mean()), 3)
        held_out = choose_held_out(run, demonstrations, chosen)
        task = Task(protocol.env, chosen, run.timesteps, run.seed, held_out)
        details = details_of if run.detailed and run.algorithm.name == "iq" else None
        evaluations = Evaluations(
            protocol.env,
            protocol.n_eval_episodes,
            protocol.eval_freq,
            on_point,
            details,
            common_budget=protocol.timesteps,
            own_budget=run.timesteps,
        )
        train_function(run.algorithm.name)(task, _settings(run), evaluations)
    except Exception as error:  # of the user's environment, of a library, or a loss that is not finite
        row["error"] = f"{type(error).__name__}: {error}"[:2_000]
        row["traceback"] = traceback.format_exc()[-4_000:]
    else:
        last = evaluations.points[-1]
        row |= {
            "error": None,
            "return_mean": last["mean"],
            "return_std": last["std"],
            "score": round(protocol.score(last["mean"]), 4),
            "env_steps": evaluations.env_steps,
            "gradient_steps": evaluations.gradient_steps,
            "train_s": last["train_s"],
        }
    if evaluations is not None:  # also what a run came to before it failed
        row["curve"] = evaluations.points
        row |= {"held_out_measures": evaluations.held_out_measures} if run.held_out else {}
    row["wall_s"] = round(time.perf_counter() - start, 1)
    return row


def _settings(run: Run) -> dict[str, Any]:
    settings = {**run.settings, **run.algorithm.settings}
    return {key: value for key, value in settings.items() if key not in ("timesteps", "budget")}
