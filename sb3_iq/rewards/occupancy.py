"""
How much of their time the demonstrations spend near a state.

For the divergence "reverse_kl", phi(r) = -exp(-(r + 1)), the reward that maximises E_expert[phi(r)] - E_policy[r] is
log rho_E - log rho_pi - 1. What is computed here is its part log rho_E: the reward against a policy that visits all states
alike.
"""

from dataclasses import dataclass

import numpy as np
from scipy.spatial.distance import cdist

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.obs_statistics import Obs
from sb3_iq.iq_learn.reward_priors import near_in_time
from sb3_iq.observations import map_obs
from sb3_iq.rewards.ends import vectors

# So many states of the demonstrations are kept, evenly spread
MAX_STATES = 1_000
# A state so many standard deviations below the demonstrations' own mean of log rho is as good as never visited
SPREAD = 4.0
# What is constant in the demonstrations counts in its own units, and where log rho is, in nats
MIN_STD = 1e-6
MIN_UNIT = 1.0


@dataclass(frozen=True)
class StateOccupancy:
    """
    The demonstrations' occupancy of states rho as a kernel density: the mean of Gaussians around their states, in standard
    deviations, of the width by Scott's rule n^(-1 / (D + 4)) for n states of D numbers.

    :param mean: the mean of the demonstrations' states, shape (n_numbers,)
    :param std: their standard deviations, shape of ``mean``
    :param states: some of these states, standardised, shape (n_states, n_numbers)
    :param typical: the mean of log rho in the demonstrations' own states, each by the others
    :param unit: how far below it a state is as good as never visited
    """

    mean: np.ndarray
    std: np.ndarray
    states: np.ndarray
    typical: float
    unit: float

    @classmethod
    def of(cls, demonstrations: ExpertBuffer) -> "StateOccupancy":
        """
        :param demonstrations: whose observations are vectors of numbers
        :return: their occupancy
        """
        raw = demonstrations.all(at_most=MAX_STATES).observations
        rows = vectors(map_obs(lambda values: values.cpu().numpy(), raw))  # type: ignore[arg-type]
        mean, std = rows.mean(axis=0), rows.std(axis=0)
        std = np.where(std < MIN_STD, 1.0, std)
        states = ((rows - mean) / std).astype(np.float32)
        near = near_in_time(demonstrations, MAX_STATES)
        # A demonstration of a few steps has no others
        near &= ~near.all(axis=1, keepdims=True)
        own = _log_densities(states, states, near)
        return cls(mean, std, states, float(own.mean()), max(SPREAD * float(own.std()), MIN_UNIT))

    def likeness(self, obs: Obs) -> np.ndarray:
        """
        :param obs: observations, raw, shape (batch, \\*obs_shape), or a dictionary of such
        :return: 1 + (log rho(s) - typical) / unit within [0, 2], shape (batch,)
        """
        rows = ((vectors(obs) - self.mean) / self.std).astype(np.float32)
        densities = _log_densities(rows, self.states)
        return np.clip(1 + (densities - self.typical) / self.unit, 0.0, 2.0).astype(np.float32)


def _log_densities(rows: np.ndarray, states: np.ndarray, left_out: np.ndarray | None = None) -> np.ndarray:
    """Return log rho of rows, up to a constant, by the states that are not left out, shape (n_rows, n_states)."""
    n_states, n_numbers = states.shape
    width = n_states ** (-1 / (n_numbers + 4))
    exponents = cdist(rows, states, "sqeuclidean") * (-0.5 / width**2)
    n = np.full(len(rows), n_states)
    if left_out is not None:
        exponents[left_out] = -np.inf
        n -= left_out.sum(axis=1)
    highest = exponents.max(axis=1)
    return highest + np.log(np.exp(exponents - highest[:, None]).sum(axis=1) / n)
