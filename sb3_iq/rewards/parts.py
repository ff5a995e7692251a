"""What a reward is made of."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import numpy as np
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecNormalize

Obs: TypeAlias = np.ndarray | dict[str, np.ndarray]
Form = Literal["bellman", "advantage", "bounded"]


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
        named = env.obs_rms if isinstance(env.obs_rms, dict) else {"": env.obs_rms}
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


@dataclass(frozen=True)
class RewardParts:
    """
    Everything a reward is computed from.

    :param policy: the networks, of which no parameter changes any more
    :param gamma: the discount factor of the model
    :param ent_coef: the temperature alpha
    :param terminal_v: V of terminal states; None: an absorbing state in which the last transition repeats, V = Q(s, a)
    :param form: ``"bellman"``, ``"advantage"`` or ``"bounded"``
    :param statistics: what observations are normalised by before the networks, if by anything
    """

    policy: BasePolicy
    gamma: float
    ent_coef: float
    terminal_v: float | None
    form: Form = "bellman"
    statistics: ObsStatistics | None = None

    def __post_init__(self) -> None:
        if self.form not in get_args(Form):
            raise ValueError(f"`form` is {str(self.form)[:80]!r}: choose one of {', '.join(get_args(Form))}.")
