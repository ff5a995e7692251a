"""
The IQ-Learn objective (https://arxiv.org/abs/2106.12142): pure functions of tensors and of one frozen :class:`Objective`.

With V(s) = E_{a~pi}[Q(s, a) - alpha log pi(a|s)] and the inverse soft Bellman operator r = Q(s, a) - gamma V(s'),
IQ-Learn maximises over Q (Eq. 9 for discrete, Eq. 10 for continuous actions)

    J(Q) = E_expert[phi(r)] - (1 - gamma) E_{s0}[V(s0)],

where the last term equals E_mu[V(s) - gamma V(s')] for the occupancy mu of *any* policy (the sum over an episode telescopes).
``iq_loss`` is -J(Q).
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from numbers import Real
from typing import Any, Literal, NamedTuple, Protocol, get_args

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn.divergences import DIVERGENCES, Divergence, DivergenceName

OccupancyTerm = Literal["policy_mix", "expert", "policy", "start_states", "expert_states"]
Penalty = Literal["expert", "mixture"]
TerminalValue = Literal["zero", "absorbing"]
CriticBound = Literal["none", "clip", "tanh"]
ExpertTarget = Literal["bootstrap", "fixed"]


class NonFiniteLossError(RuntimeError):
    """A loss or its gradient is not finite. No optimiser has stepped on it, so that all parameters are finite."""


@dataclass(frozen=True)
class Objective:
    """
    Which form of J(Q) is maximised. Checked when it is made.

    :param gamma: the discount factor, in [0, 1)
    :param divergence: the statistical divergence between expert and policy, a row of
        :data:`~sb3_iq.iq_learn.divergences.DIVERGENCES`
    :param occupancy_term: over which states the term (1 - gamma) E[V(s0)] = E_mu[V(s) - gamma V(s')] runs: the expert's and
        the policy's (``"policy_mix"``), the expert's (``"expert"``), the policy's with the actions it took (``"policy"``,
        E[Q(s, a) - gamma V(s')]), or as it stands, over initial states of both (``"start_states"``), or as if all of the
        expert's states were initial ones (``"expert_states"``)
    :param penalty: whose rewards are penalised: the ``"expert"``'s (the paper's chi-squared divergence) or those of the
        ``"mixture"`` of expert and policy (bounded; the stable choice online, https://arxiv.org/abs/2303.00599)
    :param penalty_coef: the coefficient c of the penalty c r^2: rewards are at most 1/c from the prior
    :param mixture_weight: weight w of the policy's penalty in that of the mixture: chi-squared is that of the expert to the
        mixture of expert and policy by 1 : w. What the policy has done is penalised, what it has not tried isn't: 1 explores,
        0.1 stays with what is rewarded
    :param terminal_value: what terminal states are worth: ``"zero"`` as in RL, which favours or shuns early ends according to
        the sign of rewards, or ``"absorbing"``: as if the last transition repeated for ever
    :param critic_bound: ``"clip"`` clips V(s') to :attr:`value_bound`, ``"tanh"`` lets no Q exceed it
    :param expert_target: ``"bootstrap"``, or ``"fixed"``: the expert's Q-values are drawn to that bound
    :param use_target: whether V(s') is that of the target network, or of the Q-function itself with its gradient
    :param gradient_penalty: coefficient of :func:`~sb3_iq.iq_learn.gradient_penalty.gradient_penalty`
    :param prior_bound: the largest magnitude of a prior reward r_0; 0 without a prior
    :param terminal_v: the value of terminal states where it is one number; None: V = Q(s, a), see :func:`bootstrapped_value`
    :raises ValueError: if a name or number is not allowed, or the combination has no maximiser, with the reason
    """

    gamma: float = 0.99
    divergence: DivergenceName = "chi2"
    occupancy_term: OccupancyTerm = "policy_mix"
    penalty: Penalty = "mixture"
    penalty_coef: float = 0.5
    mixture_weight: float = 1.0
    terminal_value: TerminalValue = "zero"
    critic_bound: CriticBound = "none"
    expert_target: ExpertTarget = "bootstrap"
    use_target: bool = True
    gradient_penalty: float = 0.0
    prior_bound: float = 0.0
    terminal_v: float | None = 0.0

    def __post_init__(self) -> None:
        check_name("divergence", self.divergence, DIVERGENCES)
        for name, literal in LITERALS.items():
            check_name(name, getattr(self, name), get_args(literal))
        for name in ("mixture_weight", "gradient_penalty"):
            check_coefficient(name, getattr(self, name))
        if not (is_number(self.penalty_coef) and 0 < self.penalty_coef < math.inf):
            raise ValueError(
                f"`penalty_coef` is {self.penalty_coef}: it must be positive and finite, else Q has no maximiser."
            )
        if not (is_number(self.gamma) and 0 <= self.gamma < 1):
            raise ValueError(f"`gamma` is {self.gamma}: it must be in [0, 1), else the values of an endless episode diverge.")
        requirement = self.row.requires
        if requirement is not None and not requirement.met(getattr(self, requirement.argument)):
            raise ValueError(f"`divergence` is {self.divergence!r}: {requirement.reason}")
        if self.expert_target == "fixed" and not self.least_squares:
            raise ValueError(
                "`expert_target` is 'fixed': that is a target of least squares, which only divergence='chi2' with "
                "penalty='mixture' is."
            )

    @property
    def row(self) -> Divergence:
        """The divergence's row of the table."""
        return DIVERGENCES[self.divergence]

    @property
    def least_squares(self) -> bool:
        """Whether phi is linear and both halves of the batch carry the penalty, whatever their sizes."""
        return self.row.own_penalty and self.penalty == "mixture"

    @property
    def value_bound(self) -> float:
        """
        The largest magnitude of values where rewards are at most 1/c from the prior, ``(|r_0| + 1/c) / (1 - gamma)``
        (https://arxiv.org/abs/2303.00599, where r_0 = 0).
        """
        return (self.prior_bound + 1 / self.penalty_coef) / (1 - self.gamma)


LITERALS: dict[str, Any] = {
    "occupancy_term": OccupancyTerm,
    "penalty": Penalty,
    "terminal_value": TerminalValue,
    "critic_bound": CriticBound,
    "expert_target": ExpertTarget,
}


def is_number(value: Any) -> bool:
    """:return: whether this is a real number (a bool is not)"""
    return isinstance(value, Real) and not isinstance(value, bool)


def check_name(name: str, value: Any, known: Iterable[str]) -> None:
    """:raises ValueError: if ``value`` is none of the known names"""
    if value not in tuple(known):
        raise ValueError(f"`{name}` is {str(value)[:80]!r}: choose one of {', '.join(known)}.")


def check_coefficient(name: str, value: Any) -> None:
    """:raises ValueError: if ``value`` is not a finite number that is not negative"""
    if not (is_number(value) and 0 <= value < math.inf):
        raise ValueError(f"`{name}` is {str(value)[:80]}: it must be finite and not negative.")


class SoftValues(NamedTuple):
    """
    What the objective needs to know of the networks, for a batch of which the first ``n_expert`` rows are the expert's.

    :param q: Q(s, a), shape (n_critics, batch)
    :param next_v: V(s') of the bootstrap, shape (batch,)
    :param v: V at the states of the occupancy term, shape (n_states,): those of the whole batch for ``"policy_mix"``, of the
        expert's rows for ``"expert"`` and ``"expert_states"``, initial states for ``"start_states"``;
        empty for ``"policy"``
    :param log_prob: log pi(a|s), shape (batch,), where Q itself is the policy; None where an actor is
    """

    q: th.Tensor
    next_v: th.Tensor
    v: th.Tensor
    log_prob: th.Tensor | None = None


class Rows(Protocol):
    """
    What the objective and the networks need to know of a batch, see :class:`~sb3_iq.iq_learn.batches.Batch`.

    The first ``n_expert`` rows are the expert's; ``terminated`` is 1 where the episode ended in a terminal state, shape
    (batch,); ``reward_prior`` is r_0 of each row, shape (batch,), or one number for all. The states of the occupancy term are
    those of the first ``n_value`` rows, or ``value_obs``.
    """

    @property
    def obs(self) -> PyTorchObs: ...

    @property
    def actions(self) -> th.Tensor: ...

    @property
    def next_obs(self) -> PyTorchObs: ...

    @property
    def terminated(self) -> th.Tensor: ...

    @property
    def n_expert(self) -> int: ...

    @property
    def n_value(self) -> int: ...

    @property
    def value_obs(self) -> PyTorchObs | None: ...

    @property
    def reward_prior(self) -> th.Tensor | float: ...


class Rewards(NamedTuple):
    """
    Rewards of both halves of a batch, shape (n_critics, n) each, and what they are made of.

    :param expert: r = Q(s, a) - gamma V(s') of the expert's rows
    :param policy: that of the policy's rows
    :param expert_excess: r - r_0 of the expert's rows
    :param policy_excess: r - r_0 of the policy's rows
    :param next_v: gamma V(s'), shape (batch,) or (n_critics, batch)
    """

    expert: th.Tensor
    policy: th.Tensor
    expert_excess: th.Tensor
    policy_excess: th.Tensor
    next_v: th.Tensor


def bootstrapped_value(q: th.Tensor, next_v: th.Tensor, terminated: th.Tensor, terminal_v: float | None) -> th.Tensor:
    """
    V(s') where the episode goes on, the value of terminal states where it ends.

    A time limit is no termination: there V(s') is bootstrapped like anywhere else.

    :param q: Q(s, a), shape (..., batch)
    :param next_v: V(s'), shape (batch,)
    :param terminated: 1 where the episode ended in a terminal state, shape (batch,)
    :param terminal_v: the value of terminal states; None: a terminal state is an absorbing one that remembers how it was
        entered, in which s, a and their reward repeat for ever, V = Q(s, a) (without gradient)
    :return: values, shape (batch,), or that of ``q`` with None
    """
    return th.where(terminated > 0, q.detach() if terminal_v is None else terminal_v, next_v)


def soft_bellman_reward(
    q: th.Tensor, next_v: th.Tensor, terminated: th.Tensor, gamma: float, terminal_v: float | None = 0.0
) -> th.Tensor:
    """
    The inverse soft Bellman operator, r = Q(s, a) - gamma V(s') (Eq. 11).

    :param q: Q(s, a), shape (..., batch)
    :param next_v: V(s'), shape (batch,)
    :param terminated: 1 where the episode ended in a terminal state, shape (batch,)
    :param gamma: the discount factor
    :param terminal_v: the value of terminal states, see :func:`bootstrapped_value`
    :return: rewards, shape of ``q``
    """
    return q - gamma * bootstrapped_value(q, next_v, terminated, terminal_v)


def split_rewards(values: SoftValues, batch: Rows, objective: Objective) -> Rewards:
    """:return: the rewards of the expert and of the policy, within the bound of values if they are clipped"""
    next_v = bootstrapped_value(values.q, values.next_v, batch.terminated, objective.terminal_v)
    if objective.critic_bound == "clip":
        next_v = next_v.clamp(-objective.value_bound, objective.value_bound)
    next_v = objective.gamma * next_v
    rewards = values.q - next_v
    sizes = [batch.n_expert, rewards.shape[1] - batch.n_expert]
    expert, policy = rewards.split(sizes, dim=1)
    expert_excess, policy_excess = (rewards - batch.reward_prior).split(sizes, dim=1)
    return Rewards(expert, policy, expert_excess, policy_excess, next_v)


def expert_loss(values: SoftValues, rewards: Rewards, objective: Objective) -> th.Tensor:
    """
    :return: -E_expert[phi(r - r_0)], the first term of -J(Q): psi(r) = E_expert[g(r - r_0)] is as convex in r as with a prior
        of 0, and the maximiser is that of the divergence, added to r_0. With a ``"fixed"`` target, half of c times the
        squared distance of the expert's Q from its bound
    """
    if objective.expert_target == "fixed":
        n_expert = rewards.expert.shape[1]
        return 0.5 * objective.penalty_coef * ((values.q[:, :n_expert] - objective.value_bound) ** 2).mean()
    excess, row = rewards.expert_excess, objective.row
    return -row.expectation(excess if objective.least_squares else row.phi(excess, objective.penalty_coef)).mean()


def occupancy_loss(values: SoftValues, rewards: Rewards, batch: Rows, objective: Objective) -> th.Tensor:
    """:return: E_mu[V(s) - gamma V(s')], or (1 - gamma) E[V(s0)]"""
    if objective.occupancy_term in ("start_states", "expert_states"):
        return (1 - objective.gamma) * values.v.mean()
    if objective.occupancy_term == "policy":
        return rewards.policy.mean()
    n_states, v = len(values.v), values.v
    if objective.terminal_v is None:
        # In the absorbing state the occupancy term is one of V = Q(s, a) too, here with its gradient
        v = th.where(batch.terminated[:n_states] > 0, values.q[:, :n_states], v)
    differences = v - rewards.next_v[..., :n_states]
    if objective.occupancy_term == "policy_mix" and n_states != 2 * batch.n_expert:
        # By halves, however many transitions of each there are
        return (differences[..., : batch.n_expert].mean() + differences[..., batch.n_expert :].mean()) / 2
    return differences.mean()


def penalty_loss(rewards: Rewards, objective: Objective) -> th.Tensor:
    """:return: c / 2 (E_expert[(r - r_0)^2] + w E_policy[(r - r_0)^2]); 0 where phi alone penalises the expert's rewards"""
    if objective.penalty == "expert":
        return rewards.expert.new_zeros(())
    squares = objective.mixture_weight * (rewards.policy_excess**2).mean()
    if objective.expert_target == "bootstrap":
        squares = squares + (rewards.expert_excess**2).mean()
    return 0.5 * objective.penalty_coef * squares


def iq_loss(values: SoftValues, batch: Rows, objective: Objective) -> tuple[th.Tensor, dict[str, th.Tensor]]:
    """
    The critic's loss, -J(Q), averaged over the critics (every critic has a loss of its own, V is shared).

    With ``"policy"`` and the ``"mixture"`` by 1 : 1, chi-squared is least squares: up to a constant, the loss is
    c / 2 (E_expert[(r - 1/c)^2] + E_policy[(r + 1/c)^2]) (https://arxiv.org/abs/2303.00599).

    :param values: Q(s, a), V(s') and V at the states of the occupancy term
    :param batch: which rows are the expert's, which ended, and their prior rewards
    :param objective: the form of the objective
    :return: the loss and its parts (scalars without gradient)
    """
    rewards = split_rewards(values, batch, objective)
    expert_term = expert_loss(values, rewards, objective)
    value_term = occupancy_loss(values, rewards, batch, objective)
    penalty_term = penalty_loss(rewards, objective)
    loss = expert_term + value_term + penalty_term

    info = {"critic_loss": loss, "expert_term": expert_term, "value_term": value_term, "penalty_term": penalty_term}
    info = {name: term.detach() for name, term in info.items()}
    q_values = values.q.detach()
    info |= statistics("expert", rewards.expert.detach(), q_values[:, : batch.n_expert])
    if rewards.policy.numel() > 0:
        info |= statistics("policy", rewards.policy.detach(), q_values[:, batch.n_expert :])
    if isinstance(batch.reward_prior, th.Tensor):
        info["expert_prior"] = batch.reward_prior[: batch.n_expert].mean()
        info["policy_prior"] = batch.reward_prior[batch.n_expert :].mean()
    info["q_min"], info["q_max"] = th.aminmax(q_values)
    if objective.critic_bound == "clip":
        info["clip_fraction"] = (values.next_v.detach().abs() > objective.value_bound).float().mean()
    return loss, info


def statistics(who: str, rewards: th.Tensor, q_values: th.Tensor) -> dict[str, th.Tensor]:
    """:return: what is logged of the rewards and Q-values of a batch"""
    least, greatest = th.aminmax(rewards)
    return {
        f"{who}_reward": rewards.mean(),
        f"{who}_reward_min": least,
        f"{who}_reward_max": greatest,
        f"q_{who}": q_values.mean(),
    }
