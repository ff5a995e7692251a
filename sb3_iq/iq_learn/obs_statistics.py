"""What VecNormalize does to observations, and whether observations have gone through it."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations import ExpertBuffer

Obs: TypeAlias = np.ndarray | dict[str, np.ndarray]

# So few observations can't be told apart, be they raw or normalised
MIN_ROWS = 16
# How much likelier one must make each number than the other, in nats on average
MARGIN = 0.5
# How much one number can count
MOST = 2.0
# Of the demonstrations, how many standard deviations, of at least so much, beyond their range is another place
FAR = 10.0
LEAST_STD = 0.1
# Of the demonstrations' transitions
MOST_COMPARED = 2_000
# Where the mean and the logarithm of the standard deviation are nearer to 0, normalised numbers are as they were
SAME = 0.3


def named_rms(env: VecNormalize) -> dict[str, Any]:
    """
    :param env: an environment that normalises observations
    :return: its running means and variances, by the keys of a Dict space; under ``""`` for any other space
    """
    return env.obs_rms if isinstance(env.obs_rms, dict) else {"": env.obs_rms}


@dataclass(frozen=True)
class ObsStatistics:
    """
    What ``VecNormalize`` does to observations, with its statistics as they are now.

    :param mean: means, by the keys of a Dict space; under ``""`` for any other space
    :param var: variances, of the same keys and shapes
    :param clip: the largest magnitude of a normalised observation
    :param epsilon: what is added to variances
    """

    mean: Mapping[str, np.ndarray]
    var: Mapping[str, np.ndarray]
    clip: float
    epsilon: float

    @classmethod
    def of(cls, env: VecNormalize) -> "ObsStatistics":
        """
        :param env: an environment that normalises observations
        :return: its statistics, copied
        """
        named = named_rms(env)
        mean = {key: rms.mean.copy() for key, rms in named.items()}
        return cls(mean, {key: rms.var.copy() for key, rms in named.items()}, float(env.clip_obs), float(env.epsilon))

    def __call__(self, obs: Obs) -> Obs:
        """
        :param obs: raw observations, batch first
        :return: observations as the model was trained on
        """
        if isinstance(obs, dict):
            return {key: self._normalize(key, values) if key in self.mean else values for key, values in obs.items()}
        return self._normalize("", obs)

    def _normalize(self, key: str, values: np.ndarray) -> np.ndarray:
        scaled = (values - self.mean[key]) / np.sqrt(self.var[key] + self.epsilon)
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)

    def evidence(self, obs: Obs) -> float:
        """
        How much likelier observations are if they are raw, with the mean and variance of the statistics, than if they are
        normalised, with mean 0 and variance 1. Both are Student's distributions with four degrees of freedom, and no number
        counts more than ``MOST``, so that what is far out counts little; what never changes, or is the same when it is
        normalised, says nothing.

        :param obs: observations, shape (batch, \\*obs_shape), or a dictionary of such
        :return: nats on average over all numbers: positive if they seem to be raw, negative if they seem to be normalised;
            infinity where a number is beyond what normalised ones are clipped to; 0 if they are too few
        """
        named = {key: obs[key] for key in self.mean} if isinstance(obs, dict) else {"": np.asarray(obs)}
        gains = []
        for key, values in named.items():
            mean, std = self.mean[key].ravel(), np.sqrt(self.var[key] + self.epsilon).ravel()
            rows = np.asarray(values, dtype=np.float64).reshape(-1, mean.size)
            if np.abs(rows).max(initial=0) > self.clip + 1e-3:
                return np.inf
            if len(np.unique(rows, axis=0)) >= MIN_ROWS:
                tells = (np.ptp(rows, axis=0) > 0) & ((np.abs(np.log(std)) > SAME) | (np.abs(mean) > SAME))
                raw, normalised = 1 + ((rows - mean) / std) ** 2 / 4, 1 + rows**2 / 4
                gains.append((2.5 * np.log(normalised / raw) - np.log(std))[:, tells].ravel())
        found = np.concatenate([*gains, []])
        return float(found.clip(-MOST, MOST).mean()) if len(found) else 0.0


def warn_if_far(obs: Obs, demonstrations: ExpertBuffer) -> None:
    """
    Warn if an environment begins far from all that the demonstrations hold: they are in other units, or of other wrappers.

    :param obs: the first observations of the environments, raw, batch first
    :param demonstrations: the demonstrations
    """
    named = obs if isinstance(obs, dict) else {"": obs}
    floats = {key: values for key, values in named.items() if values.dtype.kind == "f"}
    # Images in bytes, which would be large, are not even gathered
    shown: Any = demonstrations.all(at_most=MOST_COMPARED).observations if floats else None
    for key, values in floats.items():
        known = (shown[key] if isinstance(obs, dict) else shown).flatten(1).cpu().numpy().astype(np.float64)
        rows = values.astype(np.float64).reshape(len(values), -1)
        low, high = known.min(axis=0), known.max(axis=0)
        excess = np.maximum(low - rows, rows - high) / np.maximum(known.std(axis=0), LEAST_STD)
        if excess.max(initial=0.0) > FAR:
            row, column = np.unravel_index(excess.argmax(), excess.shape)
            name = f"its observation {key!r}" if key else "its observation"
            warnings.warn(
                f"`env` begins where the demonstrations never are: in column {column} of {name} it gives "
                f"{rows[row, column]:.4g}, and they lie between {low[column]:.4g} and {high[column]:.4g}. Give demonstrations "
                "as the environment's observations are, recorded with the same wrappers; in VecNormalize give raw ones, and "
                "instead of gymnasium's NormalizeObservation use VecNormalize."
            )
            return


class RawObservationsWarning:
    """Warns once if the observations given to ``predict``, one by one perhaps, have not been normalised."""

    N_ROWS = 64

    def __init__(self) -> None:
        self.seen: list[dict[str, np.ndarray]] = []
        self.n_rows = 0
        self.warned = False

    def note(self, statistics: ObsStatistics, obs: Obs) -> None:
        """
        :param statistics: what they should have been normalised by
        :param obs: observations as given to ``predict``, one or a batch
        """
        rows = {
            key: np.array(obs[key] if isinstance(obs, dict) else obs).reshape(-1, *mean.shape)
            for key, mean in statistics.mean.items()
        }
        self.seen.append(rows)
        self.n_rows += max(map(len, rows.values()), default=0)
        if self.n_rows < self.N_ROWS:
            return
        named = {key: np.concatenate([each[key] for each in self.seen]) for key in statistics.mean}
        self.seen, self.n_rows = [], 0
        if statistics.evidence(named.get("", named)) > MARGIN:
            self.warned = True
            warnings.warn(
                "The model was trained on observations normalised by VecNormalize, and those that predict() gets look as if "
                "they had not been: its actions mean nothing. Put the environment in VecNormalize.load(path, venv) with "
                "training=False, or normalise by its normalize_obs(obs)."
            )
