"""Behavioural cloning: a start for the policy, and a term of its loss that keeps what was cloned."""

from typing import TYPE_CHECKING

from stable_baselines3.common.type_aliases import Schedule

from sb3_iq.iq_learn.optimization import polyak_update
from sb3_iq.iq_learn.policies import SACPolicy

if TYPE_CHECKING:
    from sb3_iq.iq_learn.iq_learn import IQLearn


def coefficient(bc_coef: float | Schedule, progress_remaining: float) -> float:
    """
    :param bc_coef: the argument
    :param progress_remaining: from 1 to 0
    :return: the coefficient of now
    """
    return float(bc_coef(progress_remaining)) if callable(bc_coef) else bc_coef


def pretrain(model: "IQLearn", n_steps: int) -> None:
    """
    Minimise the policy's ``cloning_loss``, before anything else is learned.

    The target network and the averaged actor follow at the end; the optimizer's state is that of a new one afterwards.

    :param model: the algorithm, with its demonstrations
    :param n_steps: the number of gradient steps
    """
    assert model.expert_buffer is not None
    policy = model.policy
    policy.set_training_mode(True)
    optimizer = policy.actor.optimizer if isinstance(policy, SACPolicy) else policy.optimizer
    before = optimizer.state_dict()
    for _ in range(n_steps):
        batch = model.expert_buffer.sample(model.batch_size, env=model._vec_normalize_env)
        loss = policy.cloning_loss(batch.observations, batch.actions)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    optimizer.load_state_dict(before)
    if isinstance(policy, SACPolicy):
        policy.average_actor(1.0, 0)
    else:
        polyak_update(policy.q_net.parameters(), policy.q_net_target.parameters(), 1.0)
