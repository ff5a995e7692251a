"""From a model to what its reward is made of: the only file here that looks inside a model."""

from typing import Any

from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.iq_learn import IQLearn
from sb3_iq.rewards.parts import Form, ObsStatistics, RewardParts
from sb3_iq.rewards.storage import copy_of_policy


def parts_of(model: IQLearn, form: Form, vec_normalize: VecNormalize | None) -> RewardParts:
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
    return RewardParts(
        copy_of_policy(policy),
        float(model.gamma),
        float(policy.ent_coef),
        None if model.terminal_v is None else float(model.terminal_v),
        form,
        ObsStatistics.of(env) if normalizes and env is not None else None,
    )
