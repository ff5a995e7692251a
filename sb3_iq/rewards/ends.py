"""Which ends of an episode are like those of the demonstrations."""

from dataclasses import dataclass

import numpy as np
from gymnasium import spaces

from sb3_iq.iq_learn.obs_statistics import Obs
from sb3_iq.observations import batch_length

# An end within so many standard deviations is one of the demonstrations' own
WITHIN = 2.0
# What is constant in the demonstrations counts in its own units
MIN_STD = 1e-6


@dataclass(frozen=True)
class ExpertEnds:
    """
    The terminal states of the demonstrations, as a Gaussian without correlations. With few of them their spread is hardly
    known: the variance is as if there were one more, as far from their mean as the demonstrations' states are from theirs.

    :param mean: the mean of terminal states, shape (n_numbers,); empty if no demonstration ends
    :param std: their standard deviations, shape of ``mean``
    """

    mean: np.ndarray
    std: np.ndarray

    @classmethod
    def of(cls, terminal: Obs, states: Obs) -> "ExpertEnds":
        """
        :param terminal: the terminal states of the demonstrations, at least one, raw, shape (n_ends, \\*obs_shape), or a
            dictionary of such
        :param states: states of the demonstrations, raw, as ``terminal``
        :return: their ends
        """
        ends, rows = vectors(terminal), vectors(states)
        scale = rows.std(axis=0)
        scale = np.where(scale < MIN_STD, 1.0, scale)
        variance = (len(ends) * ends.var(axis=0) + scale**2) / (len(ends) + 1)
        return cls(ends.mean(axis=0), np.sqrt(variance))

    @classmethod
    def none(cls) -> "ExpertEnds":
        """:return: the ends of demonstrations of which none ends"""
        return cls(np.zeros(0), np.zeros(0))

    def likeness(self, obs: Obs) -> np.ndarray:
        """
        :param obs: terminal states, raw, shape (batch, \\*obs_shape), or a dictionary of such
        :return: 1 for an end that is like the demonstrations' own, and down to 0 the less it is, min(1, (2 / d)^2) at a root
            mean square of d standard deviations; 0 if no demonstration ends; shape (batch,)
        """
        if len(self.mean) == 0:
            return np.zeros(batch_length(obs))
        rows = vectors(obs)
        squares = np.mean(((rows - self.mean) / self.std) ** 2, axis=1)
        return np.minimum(1.0, WITHIN**2 / np.maximum(squares, WITHIN**2))


def are_vectors(space: spaces.Space) -> bool:
    """:return: whether observations are vectors of numbers, or dictionaries of such, so that a Gaussian tells of them"""
    if isinstance(space, spaces.Dict):
        return all(are_vectors(part) for part in space.spaces.values())
    return isinstance(space, spaces.Box) and len(space.shape) <= 1


def vectors(obs: Obs) -> np.ndarray:
    """
    :param obs: observations that are vectors of numbers, or dictionaries of such, batch first
    :return: all of their numbers, shape (batch, n_numbers), float64
    """
    parts = [obs[key] for key in sorted(obs)] if isinstance(obs, dict) else [obs]
    return np.concatenate([part.reshape(len(part), -1).astype(np.float64) for part in parts], axis=1)
