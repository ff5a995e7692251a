"""IQ-Learn, as any user calls it."""

from collections.abc import Mapping
from typing import Any

from sb3_iq import IQLearn
from sb3_iq.compare.baselines.task import Task
from sb3_iq.compare.environment import policy_name
from sb3_iq.compare.evaluation import EvaluationCallback, Evaluations


def make(task: Task, given: Mapping[str, Any]) -> IQLearn:
    """
    :param task: what to imitate
    :param given: arguments of :class:`~sb3_iq.IQLearn` that differ from its defaults
    :return: the model
    :raises ValueError: if they do not fit
    """
    env = task.venv()
    try:
        return IQLearn(policy_name(env.observation_space), env, task.demonstrations, **{"seed": task.seed, **given})
    except TypeError as error:  # an argument that there is none of
        raise ValueError(f"algos: iq: {error}") from error


def check(task: Task, given: Mapping[str, Any]) -> None:
    """
    :param task: what to imitate
    :param given: arguments of :class:`~sb3_iq.IQLearn`
    :raises ValueError: if they, the spaces or the demonstrations do not fit
    """
    make(task, given)


def train(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    :param task: what to imitate
    :param given: arguments of :class:`~sb3_iq.IQLearn` that differ from its defaults
    :param evaluations: what to add to; offline, steps are gradient steps
    """
    model = make(task, given)
    model.learn(task.timesteps, EvaluationCallback(evaluations))
    evaluations.env_steps = 0 if model.offline else model.num_timesteps
    evaluations.gradient_steps = model._n_updates
    evaluations.finish(model, model.num_timesteps)
