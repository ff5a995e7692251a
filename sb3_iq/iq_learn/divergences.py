"""
The statistical divergences between expert and policy occupancy that IQ-Learn can minimise.

Each is given by the concave function ``phi`` of the regulariser psi(r) = E_expert[r - phi(r)] (paper, Eq. 8 and
section 5.3), such that max_r E_expert[phi(r)] - E_policy[r] is the divergence. In terms of f-divergences
D_f = E_expert[f(u)] of the ratio u = rho_policy / rho_expert, phi(r) = -f*(-r) and the maximum is at r* = -f'(u), which
is where phi'(r*) = u. Nothing outside this table knows a divergence: a new one is one row, and its name.

**Guard.** Where its slope would exceed :data:`MAX_SLOPE`, ``phi`` goes on as a straight line, and so is defined, concave,
differentiable and finite for any reward. Because phi'(r*) = u, divergence and optimal reward are exact for every ratio of
occupancies up to ``MAX_SLOPE``; where the policy goes more than that many times as often as the expert, they saturate.
"""

import math
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch as th

DivergenceName = Literal[
    "chi2",
    "reverse_kl",
    "reverse_kl_shifted",
    "donsker_varadhan",
    "forward_kl",
    "jensen_shannon",
    "squared_hellinger",
    "total_variation",
    "wasserstein",
]
MAX_SLOPE = 100.0

Elementwise = Callable[[th.Tensor, float], th.Tensor]


def mean(phi: th.Tensor) -> th.Tensor:
    return phi.mean(dim=-1)


class Requirement(NamedTuple):
    """
    What a divergence without a bound of its own asks of the objective, else Q goes to infinity.

    :param argument: name of a field of :class:`~sb3_iq.iq_learn.objective.Objective`
    :param met: whether a value of that field is enough
    :param reason: why it is asked for, and the cure
    """

    argument: str
    met: Callable[[Any], bool]
    reason: str


class Divergence(NamedTuple):
    """
    One row of the table. The second argument of the functions is the coefficient c (``penalty_coef``), where the divergence
    has one.

    :param phi: phi(r, c), elementwise and concave
    :param phi_prime: derivative of ``phi`` with respect to r
    :param optimal_reward: r*(u, c) for the ratio of occupancies u = rho_policy / rho_expert; None if the divergence is no
        function of ratios
    :param generator: f(u, c), the divergence being E_expert[f(u)]; None as above
    :param expectation: from ``phi`` of a batch of expert rewards, shape (..., batch), to the estimate of the objective's
        first term, shape (...); the mean for all but Donsker and Varadhan's
    :param bounded: whether the optimal reward is at most of magnitude 1 / c above 0, so that values have a bound
    :param own_penalty: whether phi(r) = r - c r^2 carries a penalty of its own, which that of the mixture replaces: with
        rewards penalised on both batches the objective is then least squares
    :param requires: what the objective must have besides
    :param absorbing_phi_prime: the slope of the objective's first term for one reward that is paid for ever, if it is not
        ``phi_prime``
    """

    phi: Elementwise
    phi_prime: Elementwise
    optimal_reward: Elementwise | None
    generator: Elementwise | None
    expectation: Callable[[th.Tensor], th.Tensor] = mean
    bounded: bool = False
    own_penalty: bool = False
    requires: Requirement | None = None
    absorbing_phi_prime: Elementwise | None = None


def guarded(phi: Elementwise, phi_prime: Elementwise, start: float) -> tuple[Elementwise, Elementwise]:
    """
    :param phi: concave, defined at and above ``start``
    :param phi_prime: its derivative
    :param start: the reward below which ``phi`` goes on as its tangent
    :return: both, defined everywhere
    """

    def line_below(r: th.Tensor, coef: float) -> th.Tensor:
        inside = r.clamp(min=start)
        return phi(inside, coef) + MAX_SLOPE * (r - inside)

    return line_below, lambda r, coef: phi_prime(r.clamp(min=start), coef)


def _total_variation(r: th.Tensor, coef: float) -> th.Tensor:
    """phi(r) = r for |r| <= 1 / c; outside, a line so steep that leaving the interval never pays."""
    inside = r.clamp(-1 / coef, 1 / coef)
    return inside - MAX_SLOPE * (r - inside).abs()


DIVERGENCES: dict[str, Divergence] = {
    # Pearson's chi-squared, phi(r) = r - c r^2; the paper writes c = 1 / (4 alpha). It needs no guard
    "chi2": Divergence(
        phi=lambda r, coef: r - coef * r**2,
        phi_prime=lambda r, coef: 1 - 2 * coef * r,
        optimal_reward=lambda u, coef: (1 - u) / (2 * coef),
        generator=lambda u, coef: (u - 1) ** 2 / (4 * coef),
        bounded=True,
        own_penalty=True,
    ),
    # KL(rho_policy || rho_expert), phi(r) = -exp(-r - 1)
    "reverse_kl": Divergence(
        *guarded(lambda r, _: -th.exp(-r - 1), lambda r, _: th.exp(-r - 1), start=-1 - math.log(MAX_SLOPE)),
        optimal_reward=lambda u, _: -1 - th.log(u),
        generator=lambda u, _: u * th.log(u),
    ),
    # the same divergence, its reward shifted such that r* = 0 where policy and expert agree: phi(r) = 1 - exp(-r)
    "reverse_kl_shifted": Divergence(
        *guarded(lambda r, _: -th.expm1(-r), lambda r, _: th.exp(-r), start=-math.log(MAX_SLOPE)),
        optimal_reward=lambda u, _: -th.log(u),
        generator=lambda u, _: u * th.log(u) - u + 1,
    ),
    # the same divergence in the form of Donsker and Varadhan, -log E[exp(-r)], r* up to a constant; biased in mini-batches
    "donsker_varadhan": Divergence(
        phi=lambda r, _: r,
        phi_prime=lambda r, _: th.ones_like(r),
        optimal_reward=lambda u, _: -th.log(u),
        generator=lambda u, _: u * th.log(u),
        expectation=lambda r: math.log(r.shape[-1]) - th.logsumexp(-r, dim=-1),
        # The reward's free constant is chosen as in "reverse_kl_shifted"
        absorbing_phi_prime=lambda r, _: th.exp(-r.clamp(min=-math.log(MAX_SLOPE))),
    ),
    # KL(rho_expert || rho_policy), phi(r) = 1 + log r for r > 0
    "forward_kl": Divergence(
        *guarded(lambda r, _: 1 + th.log(r), lambda r, _: 1 / r, start=1 / MAX_SLOPE),
        optimal_reward=lambda u, _: 1 / u,
        generator=lambda u, _: -th.log(u),
    ),
    # phi(r) = log(2 - exp(-r)) for r > -log 2
    "jensen_shannon": Divergence(
        *guarded(
            lambda r, _: th.log(2 - th.exp(-r)),
            lambda r, _: 1 / (2 * th.exp(r) - 1),
            start=math.log((1 + 1 / MAX_SLOPE) / 2),
        ),
        optimal_reward=lambda u, _: th.log((1 + u) / (2 * u)),
        generator=lambda u, _: u * th.log(u) - (u + 1) * th.log((u + 1) / 2),
    ),
    # phi(r) = r / (1 + r) for r > -1
    "squared_hellinger": Divergence(
        *guarded(lambda r, _: r / (1 + r), lambda r, _: (1 + r) ** -2, start=MAX_SLOPE**-0.5 - 1),
        optimal_reward=lambda u, _: u**-0.5 - 1,
        generator=lambda u, _: (th.sqrt(u) - 1) ** 2,
    ),
    # phi(r) = r for |r| <= 1 / c, the total variation times 2 / c
    "total_variation": Divergence(
        phi=_total_variation,
        phi_prime=lambda r, coef: th.where(r.abs() <= 1 / coef, 1.0, -MAX_SLOPE * th.sign(r)),
        optimal_reward=lambda u, coef: th.sign(1 - u) / coef,
        generator=lambda u, coef: (u - 1).abs() / coef,
        bounded=True,
        requires=Requirement(
            "critic_bound",
            lambda bound: bound == "tanh",
            "its reward has no bound of its own, Q would go to infinity. Use critic_bound='tanh'.",
        ),
    ),
    # Wasserstein-1: phi(r) = r for rewards with a Lipschitz constant, which a gradient penalty sees to
    "wasserstein": Divergence(
        phi=lambda r, _: r,
        phi_prime=lambda r, _: th.ones_like(r),
        optimal_reward=None,
        generator=None,
        requires=Requirement(
            "gradient_penalty",
            lambda coefficient: coefficient > 0,
            "without a Lipschitz constant Q would go to infinity. Use gradient_penalty=10.",
        ),
    ),
}
"""The divergences by name."""
