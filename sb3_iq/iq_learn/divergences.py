"""
The statistical divergences between expert and policy occupancy that IQ-Learn can minimise.

Each is given by the concave function ``phi`` of the regulariser psi(r) = E_expert[r - phi(r)] (paper, Eq. 8 and
section 5.3), such that max_r E_expert[phi(r)] - E_policy[r] is the divergence. Nothing outside this table knows a divergence.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
import torch as th

DivergenceName = Literal["chi2"]


class Divergence(NamedTuple):
    """
    One row of the table. ``coef`` is the coefficient c of the penalty where the divergence has one.

    :param phi: phi(r, coef), elementwise and concave
    :param phi_prime: derivative of ``phi`` with respect to r
    :param domain: open interval of rewards on which ``phi`` is defined
    :param optimal_reward: r*(u, coef) for the ratio of occupancies u = rho_policy / rho_expert
    """

    phi: Callable[[th.Tensor, float], th.Tensor]
    phi_prime: Callable[[th.Tensor, float], th.Tensor]
    domain: tuple[float, float]
    optimal_reward: Callable[[th.Tensor, float], th.Tensor]


DIVERGENCES: dict[str, Divergence] = {
    # Pearson chi-squared, phi(r) = r - c r^2; the paper writes c = 1 / (4 alpha)
    "chi2": Divergence(
        phi=lambda r, coef: r - coef * r**2,
        phi_prime=lambda r, coef: 1 - 2 * coef * r,
        domain=(-np.inf, np.inf),
        optimal_reward=lambda u, coef: (1 - u) / (2 * coef),
    ),
}
"""The divergences by name."""
