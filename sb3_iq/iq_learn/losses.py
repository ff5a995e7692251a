"""The losses of a gradient step as functions of the policy, which ``compile=True`` compiles."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn.batches import Batch
from sb3_iq.iq_learn.objective import iq_loss
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy

# The gradient of a gradient is dear, and some of the rows show it as well as all do
PENALIZE_EVERY = 4


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


def distance_to_nearest(points: th.Tensor, rows: th.Tensor) -> th.Tensor:
    """
    :param points: shape (n, d)
    :param rows: which of them are asked for, shape (m,)
    :return: the distance of these to the nearest other point, at most sqrt(d), shape (m,). What was drawn twice is one point
    """
    distances = th.cdist(points[rows], points, compute_mode="donot_use_mm_for_euclid_dist")  # else 0 is not 0
    farthest = points.shape[1] ** 0.5
    return distances.masked_fill(distances < 1e-3 * farthest, farthest).amin(dim=1).clamp(max=farthest)


def gradient_penalty(policy: SoftQPolicy | SACPolicy, batch: Batch, q_bound: float) -> th.Tensor:
    """
    How much steeper Q is than K, ``E[max(0, |grad Q| / K - 1)^2]``, between the expert's and the policy's transitions
    (offline: between the expert's). The gradient is that with respect to observations and Box actions; each critic counts.

    Observations count in standard deviations of the demonstrations, images in units of 255. K is such that Q changes by no
    more than its bound on the way from one transition of the expert to the next one in the batch, or over a distance of
    sqrt(d), one unit for each of the d numbers, where that is less: what lies between its own samples is not told from them.

    :param policy: the policy
    :param batch: transitions of the expert and the policy
    :param q_bound: the bound of Q-values, 1 / (c (1 - gamma))
    :return: the penalty, a scalar
    """
    n_rows = len(batch.actions)
    rows = th.arange(0, n_rows, PENALIZE_EVERY, device=batch.actions.device)
    # The partner of each row: the policy's row of the same number, or another of the expert's
    partners = (rows + (batch.n_expert if batch.n_expert < n_rows else n_rows // 2)) % n_rows
    weight = th.rand(len(rows), device=batch.actions.device)

    def between(values: th.Tensor) -> th.Tensor:
        w = weight.view(-1, *[1] * (values.dim() - 1))
        return (w * values[rows].float() + (1 - w) * values[partners].float()).requires_grad_()

    named_obs = batch.obs if isinstance(batch.obs, dict) else {"obs": batch.obs}
    units = policy.normalizer.units()
    mixed = {key: between(values) if key in units else values[rows] for key, values in named_obs.items()}
    inputs, scales, actions = [mixed[key] for key in units], list(units.values()), batch.actions[rows]
    if isinstance(policy, SACPolicy):
        actions = between(batch.actions)
        inputs.append(actions)
        scales.append(1.0)
    measured = [named_obs[key] for key in units] + ([batch.actions] if isinstance(policy, SACPolicy) else [])
    scaled_rows = [(values[: batch.n_expert] / scale).flatten(1) for values, scale in zip(measured, scales, strict=True)]
    expert = th.cat(scaled_rows, dim=1)
    steepest = q_bound / distance_to_nearest(expert, rows % batch.n_expert)
    penalties = []
    for q_values in policy.q_values(mixed if isinstance(batch.obs, dict) else mixed["obs"], actions):
        # A features extractor shared with the actor is trained by the actor: there Q has no gradient in observations
        gradients = th.autograd.grad(q_values.sum(), inputs, create_graph=True, allow_unused=True)
        scaled = [g * scale for g, scale in zip(gradients, scales, strict=True) if g is not None]
        squares = [gradient.flatten(1).square().sum(dim=1) for gradient in scaled]
        # The root has no gradient at 0
        norms = (th.stack(squares).sum(dim=0) + 1e-12).sqrt()
        penalties.append((norms / steepest - 1).clamp(min=0).square().mean())
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
