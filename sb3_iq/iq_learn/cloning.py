"""Behavioural cloning: a start for the policy, and a term of its loss that keeps what was cloned."""

from typing import TYPE_CHECKING

from sb3_iq.iq_learn.arguments import settings_of
from sb3_iq.iq_learn.optimization import polyak_update
from sb3_iq.iq_learn.policies import SACPolicy

if TYPE_CHECKING:
    from sb3_iq.iq_learn.iq_learn import IQLearn


def coefficient(model: "IQLearn") -> float:
    """
    :param model: the algorithm
    :return: the coefficient of now: by the user's ``bc_coef``, else the preset's for learning online or offline
    """
    if callable(model.bc_coef):
        return float(model.bc_coef(model._current_progress_remaining))
    if model.bc_coef is not None:
        return model.bc_coef
    if model.expert_actions != "given":  # where the demonstrations' actions are not read there is nothing to clone
        return 0.0
    settings = settings_of(model)
    return settings.offline_bc_coef if model.offline else settings.bc_coef


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
