"""The losses of a gradient step as functions of the policy, which ``compile=True`` compiles."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn.batches import Batch
from sb3_iq.iq_learn.objective import iq_loss
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy


def action_log_prob(policy: SACPolicy, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
    """
    :param policy: the policy
    :param obs: observations, batch first
    :return: actions of the actor, shape (batch, action_dim), and their log-probabilities, shape (batch,)
    """
    return policy.actor.action_log_prob(obs)


def critic_loss(
    policy: SoftQPolicy | SACPolicy, batch: Batch, ent_coef: th.Tensor, use_target: bool, *objective: Any
) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """
    :param policy: the policy
    :param batch: transitions of the expert and the policy
    :param ent_coef: the temperature alpha
    :param use_target: bootstrap with the target network, or through the gradient of the online one
    :param objective: the parameters of :func:`~sb3_iq.iq_learn.objective.iq_loss` from ``gamma`` on
    :return: -J(Q) and its parts (scalars without gradient)
    """
    states = (batch.obs, batch.actions, batch.next_obs, batch.value_obs)
    values = policy.soft_values(*states, ent_coef, use_target)
    return iq_loss(values, batch.terminated, batch.n_expert, *objective)


def gradient_penalty(policy: SoftQPolicy | SACPolicy, batch: Batch) -> th.Tensor:
    """
    How far Q is from a Lipschitz constant of 1, E[max(0, |grad Q| - 1)^2], between the expert's and the policy's transitions
    (offline: between the expert's). The gradient is that with respect to observations and Box actions; each critic counts.

    :param policy: the policy
    :param batch: transitions of the expert and the policy
    :return: the penalty, a scalar
    """
    obs, actions, n_rows = batch.obs, batch.actions, len(batch.actions)
    # The partner of each row: the policy's row of the same number, or another of the expert's
    partner = th.roll(th.arange(n_rows, device=actions.device), batch.n_expert if batch.n_expert < n_rows else n_rows // 2)
    weight = th.rand(n_rows, device=actions.device)

    def between(rows: th.Tensor) -> th.Tensor:
        w = weight.view(-1, *[1] * (rows.dim() - 1))
        return (w * rows.float() + (1 - w) * rows[partner].float()).requires_grad_()

    mixed_obs = {key: between(rows) for key, rows in obs.items()} if isinstance(obs, dict) else between(obs)
    inputs = list(mixed_obs.values()) if isinstance(mixed_obs, dict) else [mixed_obs]
    if isinstance(policy, SACPolicy):
        actions = between(actions)
        inputs.append(actions)
    penalties = []
    for q_values in policy.q_values(mixed_obs, actions):
        gradients = th.autograd.grad(q_values.sum(), inputs, create_graph=True)
        squares = th.stack([gradient.flatten(1).square().sum(dim=1) for gradient in gradients]).sum(dim=0)
        # The root has no gradient at 0
        penalties.append(((squares + 1e-12).sqrt() - 1).clamp(min=0).square().mean())
    return th.stack(penalties).mean()


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
    q_values = policy.aggregate(policy.q_values(obs, actions))
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
