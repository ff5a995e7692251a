"""What a reward is made of: the only file here that looks inside a model."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, get_args

import numpy as np
import torch as th
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.rewards.storage import copy_of_policy

if TYPE_CHECKING:
    from sb3_iq.iq_learn import IQLearn

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


def parts_of(model: "IQLearn", form: Form, vec_normalize: VecNormalize | None) -> RewardParts:
    """
    :param model: a trained model
    :param form: the form of the reward
    :param vec_normalize: what the model's observations are normalised by; None: that of the model's environment, if any
    :return: the parts, which share nothing with the model
    :raises ValueError: if the model has not learned, or if its VecNormalize is missing
    """
    policy: Any = model.policy
    if getattr(policy, "normalize_obs", False) and not policy.normalizer.fitted:
        raise ValueError(
            "`model` has no statistics of demonstrations, so its Q-function is untrained: call model.learn() first."
        )
    env = vec_normalize if vec_normalize is not None else model.get_vec_normalize_env()
    normalizes = env is not None and env.norm_obs
    if getattr(model, "_normalizes_obs", False) and not normalizes:
        raise ValueError(
            "`vec_normalize` is None, but the model was trained on observations normalised by VecNormalize, whose statistics "
            "are not saved with it: pass vec_normalize=VecNormalize.load(path, venv)."
        )
    temperature = model.ent_coef_tensor if model.log_ent_coef is None else th.exp(model.log_ent_coef.detach())
    return RewardParts(
        copy_of_policy(policy),
        float(model.gamma),
        float(temperature),
        None if model.terminal_v is None else float(model.terminal_v),
        form,
        ObsStatistics.of(env) if normalizes and env is not None else None,
    )
