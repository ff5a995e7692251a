"""The losses of a gradient step, as pure functions of the policy and a batch, which ``compile=True`` compiles."""

import functools
from collections.abc import Callable
from typing import NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn.batches import Batch
from sb3_iq.iq_learn.gradient_penalty import gradient_penalty, sample_weights
from sb3_iq.iq_learn.objective import Objective, iq_loss, soft_bellman_reward
from sb3_iq.iq_learn.policies import SACPolicy, SoftPolicy
from sb3_iq.observations import take_rows

Loss = tuple[th.Tensor, dict[str, th.Tensor]]


def action_log_prob(policy: SoftPolicy, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
    """
    :param policy: the policy
    :param obs: observations, batch first
    :return: actions of the policy, shape (batch, action_dim), their log-probabilities, shape (batch,), and the policy's
        deterministic actions, shape (batch, action_dim)
    """
    return policy.action_log_prob(obs)


def critic_loss(policy: SoftPolicy, batch: Batch, ent_coef: th.Tensor, objective: Objective, bc_coef: float) -> Loss:
    """
    :param policy: the policy
    :param batch: transitions of the expert and the policy
    :param ent_coef: the temperature alpha
    :param objective: the form of the objective
    :param bc_coef: coefficient of the term of cloning, if Q is the policy
    :return: -J(Q) of Eq. 9 or Eq. 10, and its parts (scalars without gradient)
    """
    values = policy.soft_values(batch, ent_coef, objective.use_target)
    loss, info = iq_loss(values, batch, objective)
    if values.log_prob is None:
        return loss, info
    return add_cloning(loss, info, -values.log_prob[: batch.n_expert].mean(), bc_coef)


def actor_loss(
    policy: SACPolicy,
    batch: Batch,
    actions: th.Tensor,
    log_prob: th.Tensor,
    deterministic_actions: th.Tensor,
    ent_coef: th.Tensor,
    bc_coef: float,
) -> Loss:
    """
    :param policy: the policy
    :param batch: transitions of the expert and the policy
    :param actions: actions of the actor, shape (batch, action_dim)
    :param log_prob: their log-probabilities, shape (batch,)
    :param deterministic_actions: those of the actor's mean, shape (batch, action_dim)
    :param ent_coef: the temperature alpha
    :param bc_coef: coefficient of the term of cloning
    :return: SAC's loss of the actor, E[alpha log pi(a|s) - Q(s, a)] (Eq. 10), and what is logged of it. Online the expert's
        rows are cloned instead, where ``bc_coef`` says so
    """
    # What is cloned does not follow Q: the policy never tries its own actions in the expert's states, so that nothing corrects
    # what Q says of them. Followed there, Q grows steeper and steeper (HalfCheetah-v5)
    first = batch.n_expert if bc_coef > 0 and batch.n_expert < len(actions) else 0
    q_values = policy.aggregate(policy.q_values(take_rows(batch.obs, slice(first, None)), actions[first:]))
    loss = (ent_coef * log_prob[first:] - q_values).mean()
    info = {"actor_loss": loss.detach(), "entropy": -log_prob.detach().mean()}
    return add_cloning(
        loss, info, policy.squared_error(deterministic_actions[: batch.n_expert], batch.expert_actions), bc_coef
    )


def add_cloning(loss: th.Tensor, info: dict[str, th.Tensor], bc_loss: th.Tensor, bc_coef: float) -> Loss:
    """
    :param loss: the policy's loss
    :param info: its parts
    :param bc_loss: the loss of behavioural cloning
    :param bc_coef: its coefficient
    :return: the loss with that term, and its parts
    """
    if bc_coef == 0:
        return loss, info
    return loss + bc_coef * bc_loss, {**info, "bc_loss": bc_loss.detach()}


def recovered_reward(
    policy: SoftPolicy,
    obs: PyTorchObs,
    actions: th.Tensor,
    next_obs: PyTorchObs,
    terminated: th.Tensor,
    gamma: float,
    terminal_v: float | None,
) -> th.Tensor:
    """
    :param policy: the policy
    :param obs: observations, batch first
    :param actions: actions as the networks take them, shape (batch, action_dim)
    :param next_obs: next observations, batch first
    :param terminated: 1 where the episode ended in a terminal state, shape (batch,)
    :param gamma: the discount factor
    :param terminal_v: the value of terminal states
    :return: r = Q(s, a) - gamma V(s') (Eq. 11), deterministic, without gradient, shape (batch,)
    """
    with th.no_grad():
        q_values = policy.aggregate(policy.q_values(obs, actions))
        next_v = policy.expected_state_value(next_obs, policy.ent_coef)
        return soft_bellman_reward(q_values, next_v, terminated, gamma, terminal_v)


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


class Functions(NamedTuple):
    """The functions of this module that have networks in them, as they are or compiled."""

    action_log_prob: Callable[..., tuple[th.Tensor, th.Tensor, th.Tensor]]
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
