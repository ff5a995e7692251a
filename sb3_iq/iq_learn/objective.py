"""
The IQ-Learn objective (https://arxiv.org/abs/2106.12142): pure functions of tensors.

With V(s) = E_{a~pi}[Q(s, a) - alpha log pi(a|s)] and the inverse soft Bellman operator r = Q(s, a) - gamma V(s'),
IQ-Learn maximises over Q (Eq. 9 for discrete, Eq. 10 for continuous actions)

    J(Q) = E_expert[phi(r)] - (1 - gamma) E_{s0}[V(s0)],

where the last term equals E_mu[V(s) - gamma V(s')] for the occupancy mu of *any* policy (the sum over an episode telescopes).
``iq_loss`` is -J(Q).
"""

from typing import Literal, NamedTuple

import torch as th

from sb3_iq.iq_learn.divergences import DIVERGENCES

OccupancyTerm = Literal["policy_mix", "expert", "start_states"]
Penalty = Literal["expert", "mixture"]


class DivergenceError(RuntimeError):
    """A loss or its gradient is not finite. Raised before that loss's optimiser steps, so that all parameters stay finite."""


class SoftValues(NamedTuple):
    """
    What the objective needs to know of the networks, for a batch of which the first ``n_expert`` rows are the expert's.

    :param q: Q(s, a), shape (n_critics, batch)
    :param next_v: V(s') of the bootstrap, shape (batch,)
    :param v: V at the states of the occupancy term, shape (n_states,)
    """

    q: th.Tensor
    next_v: th.Tensor
    v: th.Tensor


def soft_bellman_reward(q: th.Tensor, next_v: th.Tensor, terminated: th.Tensor, gamma: float) -> th.Tensor:
    """
    The reward that Q stands for, r = Q(s, a) - gamma (1 - terminated) V(s') (Eq. 11).

    A time limit is no termination: there V(s') is bootstrapped like anywhere else.

    :param q: Q(s, a), shape (..., batch)
    :param next_v: V(s'), shape (batch,)
    :param terminated: 1 where the episode ended in a terminal state, shape (batch,)
    :param gamma: the discount factor
    :return: rewards, shape of ``q``
    """
    return q - gamma * (1 - terminated) * next_v


def iq_loss(
    values: SoftValues,
    terminated: th.Tensor,
    n_expert: int,
    gamma: float,
    divergence: str = "chi2",
    occupancy_term: OccupancyTerm = "policy_mix",
    penalty: Penalty = "mixture",
    penalty_coef: float = 0.5,
) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """
    The critic's loss, -J(Q), averaged over the critics (every critic has a loss of its own, V is shared).

    ``values.v`` holds V at the states over which the occupancy term runs: the whole batch for ``"policy_mix"``,
    the expert's rows for ``"expert"``, initial states for ``"start_states"``.

    :param values: Q(s, a), V(s') and V at the states of the occupancy term
    :param terminated: shape (batch,), 1 where the episode ended in a terminal state
    :param n_expert: the number of expert transitions, the first rows of the batch
    :param gamma: the discount factor
    :param divergence: name of a row of :data:`~sb3_iq.iq_learn.divergences.DIVERGENCES`
    :param occupancy_term: which occupancy mu the term E_mu[V(s) - gamma V(s')] is taken under
    :param penalty: on which batch the rewards are penalised by ``penalty_coef`` r^2: the expert's (the paper's chi-squared,
        in phi) or the mixture of expert and policy (chi-squared to the mixture, https://arxiv.org/abs/2303.00599)
    :param penalty_coef: c, rewards are of size 1/c; typically 0.5
    :return: the loss and its parts (scalars without gradient)
    """
    next_v = gamma * (1 - terminated) * values.next_v
    rewards = soft_bellman_reward(values.q, values.next_v, terminated, gamma)
    expert_rewards, policy_rewards = rewards[:, :n_expert], rewards[:, n_expert:]

    row = DIVERGENCES[divergence]
    # chi-squared to the mixture: phi is linear and both halves carry the penalty, whatever their sizes
    linear = divergence == "chi2" and penalty == "mixture"
    phi = expert_rewards if linear else row.phi(expert_rewards, penalty_coef)
    expert_term = -row.expectation(phi).mean()
    penalty_term = th.zeros((), device=rewards.device)
    if penalty == "mixture":
        penalty_term = 0.5 * penalty_coef * ((expert_rewards**2).mean() + (policy_rewards**2).mean())

    if occupancy_term == "start_states":
        value_term = (1 - gamma) * values.v.mean()
    else:
        value_term = (values.v - next_v[: len(values.v)]).mean()

    loss = expert_term + value_term + penalty_term
    info = {
        "critic_loss": loss,
        "expert_term": expert_term,
        "value_term": value_term,
        "penalty_term": penalty_term,
        "expert_reward": expert_rewards.mean(),
        "q_expert": values.q[:, :n_expert].mean(),
    }
    if policy_rewards.numel() > 0:
        info["policy_reward"] = policy_rewards.mean()
        info["q_policy"] = values.q[:, n_expert:].mean()
    return loss, {name: term.detach() for name, term in info.items()}
