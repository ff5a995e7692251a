"""Behavioural cloning of IQ-Learn's own networks: the baseline that differs from offline IQ-Learn in the loss alone."""

from collections.abc import Mapping
from contextlib import closing
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq import IQLearn
from sb3_iq.compare.baselines import iq
from sb3_iq.compare.baselines.task import Task
from sb3_iq.compare.evaluation import EvaluationCallback, Evaluations
from sb3_iq.iq_learn import SACPolicy


def make(task: Task, given: Mapping[str, Any], env: VecEnv) -> IQLearn:
    """
    :param task: what to imitate
    :param given: arguments of :class:`~sb3_iq.IQLearn` that differ from its defaults
    :param env: the task's
    :return: the model whose policy is to be cloned
    :raises ValueError: if they do not fit
    """
    settings, own = {**given, "offline": True}, given.get("policy_kwargs") or {}
    if isinstance(env.action_space, spaces.Box) and isinstance(own, Mapping):
        # There is no critic to learn the features of images
        settings["policy_kwargs"] = {**own, "share_features_extractor": False}
    return iq.make(task, settings, env)


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
    :param task: what to imitate; its timesteps are gradient steps
    :param given: arguments of :class:`~sb3_iq.IQLearn` that differ from its defaults
    :param evaluations: what to add to
    """
    env = task.venv()
    model = make(task, given, env)
    clone(model, task.timesteps, EvaluationCallback(evaluations))
    evaluations.gradient_steps = model.num_timesteps
    evaluations.finish(model, model.num_timesteps)
    env.close()


def clone(model: IQLearn, n_steps: int, callback: BaseCallback) -> None:
    """
    Train the model's policy network to take the expert's actions: by their likelihood if they are discrete, by the squared
    error of the actor's deterministic actions if they are continuous, as the term of cloning in IQ-Learn's own loss. The size
    of batches is the model's, so is the initial learning rate, of Adam, and so is the average of the actor that predicts.

    :param model: an offline IQLearn model with demonstrations; its policy is changed
    :param n_steps: number of gradient steps
    :param callback: called after each of them
    """
    assert model.expert_buffer is not None
    callback.init_callback(model)
    model.policy.normalizer.fit(model.expert_buffer.all(at_most=2_000).observations)
    network = model.q_net if model.actor is None else model.actor
    optimizer = th.optim.Adam(network.parameters(), lr=model.lr_schedule(1))
    for n_updates in range(n_steps):
        model.policy.set_training_mode(True)
        batch = model.expert_buffer.sample(model.batch_size)
        observations = model.policy.random_shift(batch.observations)
        if isinstance(model.policy, SACPolicy):
            loss = model.policy.cloning_loss(observations, batch.actions)
        else:
            loss = model.policy.action_outputs_loss(model.q_net(observations), batch.actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.num_timesteps += 1
        model.policy.average_actor(n_updates)
        if not callback.on_step():
            break
