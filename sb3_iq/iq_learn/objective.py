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

OccupancyTerm = Literal["policy_mix", "expert", "policy", "start_states", "expert_states", "expert_bounded"]
Penalty = Literal["expert", "mixture"]
TerminalValue = Literal["zero", "absorbing"]
CriticBound = Literal["none", "clip", "tanh"]
ExpertTarget = Literal["bootstrap", "fixed"]


class DivergenceError(RuntimeError):
    """A loss or its gradient is not finite. Raised before that loss's optimiser steps, so that all parameters stay finite."""


class SoftValues(NamedTuple):
    """
    What the objective needs to know of the networks, for a batch of which the first ``n_expert`` rows are the expert's.

    :param q: Q(s, a), shape (n_critics, batch)
    :param next_v: V(s') of the bootstrap, shape (batch,)
    :param v: V at the states of the occupancy term, shape (n_states,); empty for ``"policy"``
    """

    q: th.Tensor
    next_v: th.Tensor
    v: th.Tensor


def value_bound(gamma: float, penalty_coef: float, reward_prior: float = 0.0) -> float:
    """
    :param gamma: the discount factor
    :param penalty_coef: the coefficient c
    :param reward_prior: the largest size of a prior reward
    :return: the largest size of values where rewards are at most 1/c from the prior, (|r_0| + 1/c) / (1 - gamma)
        (https://arxiv.org/abs/2303.00599, where r_0 = 0)
    """
    return (reward_prior + 1 / penalty_coef) / (1 - gamma)


def bootstrapped_value(
    q: th.Tensor, next_v: th.Tensor, terminated: th.Tensor, terminal_value: th.Tensor | float | None
) -> th.Tensor:
    """
    V(s') where the episode goes on, the value of terminal states where it ends.

    A time limit is no termination: there V(s') is bootstrapped like anywhere else.

    :param q: Q(s, a), shape (..., batch)
    :param next_v: V(s'), shape (batch,)
    :param terminated: 1 where the episode ended in a terminal state, shape (batch,)
    :param terminal_value: the value of terminal states; None: a terminal state is an absorbing one that remembers how it was
        entered, in which s, a and their reward repeat for ever, V = Q(s, a) (without gradient)
    :return: values, shape (batch,), or that of ``q`` with None
    """
    return th.where(terminated > 0, q.detach() if terminal_value is None else terminal_value, next_v)


def soft_bellman_reward(
    q: th.Tensor, next_v: th.Tensor, terminated: th.Tensor, gamma: float, terminal_value: th.Tensor | float | None = 0.0
) -> th.Tensor:
    """
    The reward that Q stands for, r = Q(s, a) - gamma V(s') (Eq. 11), see :func:`bootstrapped_value`.

    :param q: Q(s, a), shape (..., batch)
    :param next_v: V(s'), shape (batch,)
    :param terminated: 1 where the episode ended in a terminal state, shape (batch,)
    :param gamma: the discount factor
    :param terminal_value: the value of terminal states, a scalar; None: V = Q(s, a)
    :return: rewards, shape of ``q``
    """
    return q - gamma * bootstrapped_value(q, next_v, terminated, terminal_value)


def iq_loss(
    values: SoftValues,
    terminated: th.Tensor,
    n_expert: int,
    gamma: float,
    divergence: str = "chi2",
    occupancy_term: OccupancyTerm = "policy_mix",
    penalty: Penalty = "mixture",
    penalty_coef: float = 0.5,
    terminal_value: th.Tensor | float | None = 0.0,
    critic_bound: CriticBound = "none",
    expert_target: ExpertTarget = "bootstrap",
    mixture_weight: float = 1.0,
    reward_prior: th.Tensor | float = 0.0,
) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """
    The critic's loss, -J(Q), averaged over the critics (every critic has a loss of its own, V is shared).

    ``values.v`` holds V at the states over which the occupancy term runs: the whole batch for ``"policy_mix"``,
    the expert's rows for ``"expert"``, ``"expert_states"`` and ``"expert_bounded"``, initial states for ``"start_states"``.

    ``"expert_bounded"`` is ``"expert"``, of which only what exceeds r_0 - 1/c counts, the least reward that there is. The
    gradient of V(s) - gamma V(s') is that of V(s), and the policy's own actions at the expert's states are in no batch, so
    that no penalty holds them: unbounded, V of the expert's states sinks below that of the policy's, which then does not
    return to them.

    The penalty draws rewards to the prior r_0, which is 0 in the paper: psi(r) = E_expert[g(r - r_0)] is as convex in r, and
    the maximiser is that of the divergence, added to r_0.

    With ``"policy"`` and the ``"mixture"`` by 1 : 1, chi-squared is least squares: up to a constant, the loss is
    c / 2 (E_expert[(r - 1/c)^2] + E_policy[(r + 1/c)^2]) (https://arxiv.org/abs/2303.00599).

    :param values: Q(s, a), V(s') and V at the states of the occupancy term
    :param terminated: shape (batch,), 1 where the episode ended in a terminal state
    :param n_expert: the number of expert transitions, the first rows of the batch
    :param gamma: the discount factor
    :param divergence: name of a row of :data:`~sb3_iq.iq_learn.divergences.DIVERGENCES`
    :param occupancy_term: which occupancy mu the term E_mu[V(s) - gamma V(s')] is taken under
    :param penalty: on which batch the rewards are penalised by ``penalty_coef`` r^2: the expert's (the paper's own form, in
        phi) or the mixture of expert and policy (with chi-squared, the divergence to the mixture)
    :param penalty_coef: c, rewards are of size 1/c; typically 0.5
    :param terminal_value: the value of terminal states, a scalar; None: V = Q(s, a), see :func:`bootstrapped_value`
    :param critic_bound: with ``"clip"``, V(s') is clipped to what rewards in [-1/c, 1/c] can amount to
    :param expert_target: with ``"fixed"``, the expert's Q(s, a) is drawn to that bound instead of r to 1/c
    :param mixture_weight: weight w of the policy's penalty in that of the mixture: chi-squared is that of the expert to the
        mixture of expert and policy by 1 : w
    :param reward_prior: r_0 of each transition, shape (batch,), nowhere larger than the expert's; or one for all
    :return: the loss and its parts (scalars without gradient)
    """
    prior = th.as_tensor(reward_prior, device=values.q.device).expand(values.q.shape[1])
    bound = value_bound(gamma, penalty_coef, prior.abs().max())  # type: ignore[arg-type]
    next_v, v = bootstrapped_value(values.q, values.next_v, terminated, terminal_value), values.v
    if terminal_value is None and occupancy_term in ("policy_mix", "expert", "expert_bounded"):
        # In the absorbing state the occupancy term is one of V = Q(s, a) too, here with its gradient
        v = th.where(terminated[: len(v)] > 0, values.q[:, : len(v)], v)
    if critic_bound == "clip":
        next_v = next_v.clamp(-bound, bound)
    next_v = gamma * next_v
    rewards = values.q - next_v
    expert_rewards, policy_rewards = rewards[:, :n_expert], rewards[:, n_expert:]
    excess = rewards - prior

    row = DIVERGENCES[divergence]
    # chi-squared to the mixture: phi is linear and both halves carry the penalty, whatever their sizes
    linear = divergence == "chi2" and penalty == "mixture"
    phi = excess[:, :n_expert] if linear else row.phi(excess[:, :n_expert], penalty_coef)
    expert_term = -row.expectation(phi).mean()
    penalty_term = th.zeros((), device=rewards.device)
    if penalty == "mixture":
        squares = (excess[:, :n_expert] ** 2).mean() + mixture_weight * (excess[:, n_expert:] ** 2).mean()
        penalty_term = 0.5 * penalty_coef * squares
    if expert_target == "fixed":
        expert_term = 0.5 * penalty_coef * ((values.q[:, :n_expert] - bound) ** 2).mean()
        penalty_term = 0.5 * penalty_coef * mixture_weight * (excess[:, n_expert:] ** 2).mean()

    if occupancy_term in ("start_states", "expert_states"):
        value_term = (1 - gamma) * v.mean()
    elif occupancy_term == "expert_bounded":
        least = prior[:n_expert] - 1 / penalty_coef
        value_term = th.maximum(v - next_v[..., :n_expert], least).mean()
    elif occupancy_term == "policy":
        value_term = policy_rewards.mean()
    else:
        value_term = (v - next_v[..., : v.shape[-1]]).mean()

    loss = expert_term + value_term + penalty_term
    info = {"critic_loss": loss, "expert_term": expert_term, "value_term": value_term, "penalty_term": penalty_term}
    info |= statistics("expert", expert_rewards, values.q[:, :n_expert])
    if policy_rewards.numel() > 0:
        info |= statistics("policy", policy_rewards, values.q[:, n_expert:])
    info |= {"q_min": values.q.min(), "q_max": values.q.max()}
    if critic_bound == "clip":
        info["clip_fraction"] = (values.next_v.abs() > bound).float().mean()
    return loss, {name: term.detach() for name, term in info.items()}


def statistics(who: str, rewards: th.Tensor, q_values: th.Tensor) -> dict[str, th.Tensor]:
    """:return: what is logged of the rewards and Q-values of a batch"""
    return {
        f"{who}_reward": rewards.mean(),
        f"{who}_reward_min": rewards.min(),
        f"{who}_reward_max": rewards.max(),
        f"q_{who}": q_values.mean(),
    }


def absorbing_reward(
    expert_share: float,
    policy_share: float,
    divergence: str,
    occupancy_term: OccupancyTerm,
    penalty: Penalty,
    penalty_coef: float,
    mixture_weight: float = 1.0,
) -> float:
    """
    The reward of a terminal state, as IQ-Learn would learn it if an episode went on for ever there, in an absorbing state.

    There nothing is left to choose, V = Q, and the objective is a function of one reward r that is paid for ever: with the
    shares e and p of terminations in this state among the expert's and the policy's transitions (the occupancies of entering
    it, both times 1 / (1 - gamma) for being in it), its derivative is

        e phi'(r) - w - [c (e + m p) r],    w = 0, e, (e + p) / 2, p

    for initial states (and those of the expert that stand for them), ``"expert"`` (as which ``"expert_bounded"`` counts),
    ``"policy_mix"`` and ``"policy"``; the bracket is the penalty of the mixture by 1 : m. As the derivative falls with r, its
    zero is found by bisection, in [-1/c, 1/c], the bounds of a reward (https://arxiv.org/abs/2303.00599). Donsker and
    Varadhan's reward has a free constant, which is chosen here as in ``"reverse_kl_shifted"``.

    :param expert_share: terminations among the expert's transitions, in [0, 1]
    :param policy_share: terminations among the policy's transitions, in [0, 1]
    :param divergence: the objective's, as are the others
    :param occupancy_term: the occupancy term
    :param penalty: the penalty
    :param penalty_coef: the coefficient c
    :param mixture_weight: the weight m of the policy in the mixture
    :return: the reward r, and thus V = r / (1 - gamma)
    """
    expert, policy = expert_share, policy_share
    row = DIVERGENCES["reverse_kl_shifted" if divergence == "donsker_varadhan" else divergence]
    weights = {"expert": expert, "expert_bounded": expert, "policy_mix": (expert + policy) / 2, "policy": policy}
    weight = weights.get(occupancy_term, 0.0)

    def derivative(reward: float) -> float:
        mixture = penalty == "mixture"
        linear = divergence == "chi2" and mixture
        r = th.tensor(reward, dtype=th.float64)
        slope = 1.0 if linear else float(row.phi_prime(r, penalty_coef))
        return expert * slope - weight - mixture * penalty_coef * (expert + mixture_weight * policy) * reward

    low, high = -1 / penalty_coef, 1 / penalty_coef
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if derivative(middle) > 0 else (low, middle)
    return (low + high) / 2
