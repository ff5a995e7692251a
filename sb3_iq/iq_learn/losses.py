"""The losses of a gradient step as functions of the policy, which ``compile=True`` compiles."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn.objective import OccupancyTerm, Penalty, iq_loss
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy


def action_log_prob(policy: SACPolicy, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
    """
    :param policy: the policy
    :param obs: observations, batch first
    :return: actions of the actor, shape (batch, action_dim), and their log-probabilities, shape (batch,)
    """
    return policy.actor.action_log_prob(obs)


def critic_loss(
    policy: SoftQPolicy | SACPolicy,
    obs: PyTorchObs,
    actions: th.Tensor,
    next_obs: PyTorchObs,
    terminated: th.Tensor,
    value_obs: PyTorchObs,
    ent_coef: th.Tensor,
    use_target: bool,
    n_expert: int,
    gamma: float,
    divergence: str,
    occupancy_term: OccupancyTerm,
    penalty: Penalty,
    penalty_coef: float,
) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """
    The parameters are those of the policy's ``soft_values`` and of :func:`~sb3_iq.iq_learn.objective.iq_loss`.

    :return: -J(Q) and its parts (scalars without gradient)
    """
    values = policy.soft_values(obs, actions, next_obs, value_obs, ent_coef, use_target)
    return iq_loss(values, terminated, n_expert, gamma, divergence, occupancy_term, penalty, penalty_coef)


def actor_loss(
    policy: SACPolicy, obs: PyTorchObs, actions: th.Tensor, log_prob: th.Tensor, ent_coef: th.Tensor
) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """
    :param policy: the policy
    :param obs: observations, batch first
    :param actions: actions of the actor, shape (batch, action_dim)
    :param log_prob: their log-probabilities, shape (batch,)
    :param ent_coef: the temperature alpha
    :return: SAC's loss of the actor, and what is logged of it (scalars without gradient)
    """
    q_values = policy.q_values(obs, actions).min(dim=0).values
    loss = (ent_coef * log_prob - q_values).mean()
    return loss, {"actor_loss": loss.detach(), "entropy": -log_prob.detach().mean()}


class Functions(NamedTuple):
    """The functions of this module, as they are or compiled."""

    action_log_prob: Callable[..., tuple[th.Tensor, th.Tensor]]
    critic_loss: Callable[..., tuple[th.Tensor, dict[str, th.Tensor]]]
    actor_loss: Callable[..., tuple[th.Tensor, dict[str, th.Tensor]]]


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
