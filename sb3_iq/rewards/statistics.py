"""Correlations of a recovered with a true reward: pure functions of arrays."""

from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

N_BOOTSTRAP = 1_000


@dataclass(frozen=True)
class Correlation:
    """
    A correlation and its 95 % interval; NaN where one of the two does not vary.

    :param value: the correlation, in [-1, 1]
    :param low: the 2.5 % quantile of the bootstrap
    :param high: the 97.5 % quantile of the bootstrap
    """

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        if np.isnan(self.value):
            return "undefined: no variation"
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"

    def as_dict(self) -> dict[str, float | None]:
        """:return: the three numbers as JSON has them, rounded, with None for NaN"""
        return {name: round(value, 4) if np.isfinite(value) else None for name, value in asdict(self).items()}


def pearson(x: np.ndarray, y: np.ndarray) -> float:
    """
    :param x: numbers, shape (n,)
    :param y: numbers, shape (n,)
    :return: their linear correlation; NaN where one of them does not vary
    """
    x, y = x - x.mean(), y - y.mean()
    norm = np.sqrt((x @ x) * (y @ y))
    # A constant has a variance of rounding errors
    return float(np.clip((x @ y) / norm, -1, 1)) if norm > 1e-12 * max(1.0, len(x)) else float("nan")


def ranks(x: np.ndarray) -> np.ndarray:
    """:return: the rank of each number, equal numbers sharing the mean of their ranks, shape (n,)"""
    values, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    del values
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2 - 1)[inverse.reshape(-1)]


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """:return: the correlation of ranks of two arrays of shape (n,)"""
    return pearson(ranks(x), ranks(y))


def partial_pearson(x: np.ndarray, y: np.ndarray, z: np.ndarray) -> float:
    """
    :param x: numbers, shape (n,)
    :param y: numbers, shape (n,)
    :param z: what is to be removed from both, shape (n,)
    :return: the correlation of what linear regressions on z leave of x and of y; that of x and y where z does not vary
    """
    if np.ptp(z) == 0:
        return pearson(x, y)
    design = np.stack([np.ones_like(z), z], axis=1)
    residuals = [values - design @ np.linalg.lstsq(design, values, rcond=None)[0] for values in (x, y)]
    # What is linear in z leaves rounding errors
    if any(np.std(rest) < 1e-6 * max(np.std(values), 1e-12) for rest, values in zip(residuals, (x, y), strict=True)):
        return float("nan")
    return pearson(*residuals)


def bootstrap(
    statistic: Callable[..., float], *columns: np.ndarray, groups: np.ndarray | None = None, seed: int = 0
) -> Correlation:
    """
    :param statistic: a function of the columns
    :param columns: arrays of shape (n,)
    :param groups: what is drawn together, such as the steps of an episode, shape (n,); None: rows one by one
    :param seed: the seed of the draws
    :return: the statistic and its percentile interval
    """
    rng = np.random.default_rng(seed)
    if groups is None:
        members = [np.array([row]) for row in range(len(columns[0]))]
        n_draws = N_BOOTSTRAP
    else:
        members = [np.flatnonzero(groups == group) for group in np.unique(groups)]
        n_draws = N_BOOTSTRAP // 5  # many rows in each
    values = []
    for _ in range(n_draws):
        drawn = rng.integers(len(members), size=len(members))
        rows = np.concatenate([members[i] for i in drawn])
        values.append(statistic(*(column[rows] for column in columns)))
    finite = np.array(values)[np.isfinite(values)]
    low, high = np.quantile(finite, [0.025, 0.975]) if len(finite) > 0 else (np.nan, np.nan)
    return Correlation(statistic(*columns), float(low), float(high))
