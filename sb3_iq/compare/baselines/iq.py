"""IQ-Learn, as any user calls it."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq import HeldOutCallback, IQLearn
from sb3_iq.compare.baselines.task import Task
from sb3_iq.compare.environment import policy_name
from sb3_iq.compare.evaluation import EvaluationCallback, Evaluations
from sb3_iq.iq_learn.settings import check_changes

# The arguments that the comparison sets
FIXED = ("policy", "env", "expert_data", "seed")
# Rollouts that are compared with demonstrations that are held out
N_ROLLOUTS = 5


def make(task: Task, given: Mapping[str, Any], env: VecEnv) -> IQLearn:
    """
    :param task: what to imitate
    :param given: arguments of :class:`~sb3_iq.IQLearn` that differ from its defaults
    :param env: the task's, which an offline model does not keep
    :return: the model
    :raises ValueError: if they do not fit
    """
    settings = {"seed": task.seed, "device": "cpu", **given}
    if not given.get("offline"):
        # SB3 allocates all of it. One row more than there will be: nothing is overwritten
        settings.setdefault("buffer_size", min(1_000_000, task.timesteps + 1))
    check_changes(given, IQLearn, FIXED)
    try:
        return IQLearn(policy_name(env.observation_space), env, task.demonstrations, **settings)
    except TypeError as error:
        raise ValueError(f"algos: iq: {error}") from error


def check(task: Task, given: Mapping[str, Any]) -> None:
    """
    :param task: what to imitate
    :param given: arguments of :class:`~sb3_iq.IQLearn`
    :raises ValueError: if they, the spaces or the demonstrations do not fit
    """
    with closing(task.venv()) as env:
        make(task, given, env)


def train(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    :param task: what to imitate
    :param given: arguments of :class:`~sb3_iq.IQLearn` that differ from its defaults
    :param evaluations: what to add to; offline, steps are gradient steps
    """
    env = task.venv()
    model = make(task, given, env)
    callbacks: list[BaseCallback] = [EvaluationCallback(evaluations)]
    measures = None
    if task.held_out is not None:
        measures = HeldOutCallback(task.held_out, task.venv(), evaluations.frequency, N_ROLLOUTS, verbose=0)
        callbacks.append(measures)
    model.learn(task.timesteps, callbacks)
    if measures is not None:
        evaluations.held_out_measures = measures.evaluations
    evaluations.env_steps = 0 if model.offline else model.num_timesteps
    evaluations.gradient_steps = model._n_updates
    evaluations.finish(model, model.num_timesteps)
    env.close()
