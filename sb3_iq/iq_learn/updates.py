"""The losses of a gradient step, as pure functions of the policy and a batch, which ``compile=True`` compiles."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn.batches import Batch
from sb3_iq.iq_learn.gradient_penalty import gradient_penalty, sample_weights
from sb3_iq.iq_learn.objective import Objective, iq_loss
from sb3_iq.iq_learn.policies import SoftPolicy

Loss = tuple[th.Tensor, dict[str, th.Tensor]]


def action_log_prob(policy: SoftPolicy, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
    """
    :param policy: the policy
    :param obs: observations, batch first
    :return: actions of the policy, shape (batch, action_dim), and their log-probabilities, shape (batch,)
    """
    return policy.action_log_prob(obs)


def critic_loss(policy: SoftPolicy, batch: Batch, ent_coef: th.Tensor, objective: Objective) -> Loss:
    """
    :param policy: the policy
    :param batch: transitions of the expert and the policy
    :param ent_coef: the temperature alpha
    :param objective: the form of the objective
    :return: -J(Q) of Eq. 9 or Eq. 10, and its parts (scalars without gradient)
    """
    states = (batch.obs, batch.actions, batch.next_obs, batch.value_obs)
    return iq_loss(policy.soft_values(*states, ent_coef, objective.use_target), batch, objective)


def actor_loss(policy: SoftPolicy, obs: PyTorchObs, actions: th.Tensor, log_prob: th.Tensor, ent_coef: th.Tensor) -> Loss:
    """
    :param policy: the policy
    :param obs: observations, batch first
    :param actions: actions of the actor, shape (batch, action_dim)
    :param log_prob: their log-probabilities, shape (batch,)
    :param ent_coef: the temperature alpha
    :return: SAC's loss of the actor, E[alpha log pi(a|s) - Q(s, a)] (Eq. 10), and what is logged of it
    """
    q_values = policy.aggregate(policy.q_values(obs, actions))
    loss = (ent_coef * log_prob - q_values).mean()
    return loss, {"actor_loss": loss.detach(), "entropy": -log_prob.detach().mean()}


def ent_coef_loss(log_ent_coef: th.Tensor, log_prob: th.Tensor, target_entropy: float) -> th.Tensor:
    """
    :param log_ent_coef: the logarithm of the temperature
    :param log_prob: log-probabilities of the policy's actions, shape (batch,)
    :param target_entropy: where the entropy is to go
    :return: SAC's loss of the temperature, a scalar
    """
    return -(log_ent_coef * (log_prob.detach() + target_entropy)).mean()


def add_gradient_penalty(
    loss: th.Tensor, info: dict[str, th.Tensor], policy: SoftPolicy, batch: Batch, objective: Objective, value_bound: float
) -> th.Tensor:
    """
    :param loss: the critic's loss
    :param info: its parts, to which the penalty is added
    :param policy: the policy
    :param batch: transitions of the expert and the policy
    :param objective: the form of the objective
    :param value_bound: the bound of values
    :return: the loss with the penalty of steep values, where the objective has one
    """
    if objective.gradient_penalty == 0:
        return loss
    weights = sample_weights(len(batch.actions), batch.actions.device)
    penalty = gradient_penalty(policy, batch.obs, batch.actions, batch.n_expert, weights, value_bound)
    info["gradient_penalty"] = penalty.detach()
    return loss + objective.gradient_penalty * penalty


def add_cloning(
    loss: th.Tensor,
    info: dict[str, th.Tensor],
    policy: SoftPolicy,
    batch: Batch,
    optimizer: th.optim.Optimizer,
    coefficient: float,
) -> th.Tensor:
    """
    :param loss: a loss
    :param info: its parts, to which the term is added
    :param policy: the policy
    :param batch: transitions, the expert's first
    :param optimizer: the optimiser that the loss is for
    :param coefficient: that of the term
    :return: the loss with the term of behavioural cloning, if it is that optimiser's
    """
    if coefficient == 0 or optimizer is not policy.cloning_optimizer:
        return loss
    bc_loss = policy.cloning_loss(batch.expert_obs, batch.expert_actions)
    info["bc_loss"] = bc_loss.detach()
    return loss + coefficient * bc_loss


class Functions(NamedTuple):
    """The functions of this module that have networks in them, as they are or compiled."""

    action_log_prob: Callable[..., tuple[th.Tensor, th.Tensor]]
    critic_loss: Callable[..., Loss]
    actor_loss: Callable[..., Loss]


@functools.cache
def functions(compile: bool) -> Functions:
    """
    Functions are compiled, no modules: nothing compiled is a part of a model, of its copies or of its zip.

    :param compile: whether to compile them, which happens at their first call
    :return: the three functions
    """
    eager = Functions(action_log_prob, critic_loss, actor_loss)
    # The random numbers of a compiled actor are those of the same actor when it isn't
    return Functions._make(th.compile(f, options={"fallback_random": True}) for f in eager) if compile else eager
