"""Behavioural cloning of IQ-Learn's own networks: the baseline that differs from offline IQ-Learn in the loss alone."""

from collections.abc import Mapping
from typing import Any

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_iq import IQLearn
from sb3_iq.compare.baselines import iq
from sb3_iq.compare.baselines.task import Task
from sb3_iq.compare.evaluation import EvaluationCallback, Evaluations
from sb3_iq.iq_learn import SACPolicy


def check(task: Task, given: Mapping[str, Any]) -> None:
    """
    :param task: what to imitate
    :param given: arguments of :class:`~sb3_iq.IQLearn`
    :raises ValueError: if they, the spaces or the demonstrations do not fit
    """
    iq.check(task, {**given, "offline": True})


def train(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    :param task: what to imitate; its timesteps are gradient steps
    :param given: arguments of :class:`~sb3_iq.IQLearn` that differ from its defaults
    :param evaluations: what to add to
    """
    env = task.venv()
    model = iq.make(task, {**given, "offline": True}, env)
    clone(model, task.timesteps, EvaluationCallback(evaluations))
    evaluations.gradient_steps = model.num_timesteps
    evaluations.finish(model, model.num_timesteps)
    env.close()


def clone(model: IQLearn, n_steps: int, callback: BaseCallback) -> None:
    """
    Maximise the likelihood of the expert's actions, with the model's policy network, its size of batches, and Adam at the
    model's initial learning rate.

    :param model: an offline IQLearn model with demonstrations; its policy is changed
    :param n_steps: number of gradient steps
    :param callback: called after each of them
    """
    assert model.expert_buffer is not None
    callback.init_callback(model)
    model.policy.normalizer.fit(model.expert_buffer.all(at_most=2_000).observations)
    network = model.q_net if model.actor is None else model.actor
    optimizer = th.optim.Adam(network.parameters(), lr=model.lr_schedule(1))
    for step in range(1, n_steps + 1):
        model.policy.set_training_mode(True)
        batch = model.expert_buffer.sample(model.batch_size)
        observations = model.policy.random_shift(batch.observations)
        if model.actor is None:
            loss = model.policy.action_outputs_loss(model.q_net(observations), batch.actions)
        else:
            loss = -model.policy.log_likelihood(observations, batch.actions).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        model.num_timesteps = step
        if isinstance(model.policy, SACPolicy):
            # Deterministic predictions are the averaged actor's, which has no part in behavioural cloning
            model.policy.averaged_actor.load_state_dict(model.policy.actor.state_dict())
        if not callback.on_step():
            break
