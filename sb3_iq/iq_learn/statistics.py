"""What observations are normalised by, inside of the networks and in VecNormalize: it starts from the demonstrations."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sb3_iq.iq_learn.iq_learn import IQLearn


def check_vec_normalize(model: "IQLearn") -> None:
    """:raises ValueError: if the networks were trained on normalised observations, and there is nothing to normalise with"""
    env = model.get_vec_normalize_env()
    if env is not None and env.norm_obs:
        model._normalizes_obs = True
    elif model._normalizes_obs:
        raise ValueError(
            "The model was trained on observations normalised by VecNormalize, whose statistics are not saved with it, and "
            "`env` has none: load the model with env=VecNormalize.load(...)."
        )


def warm_up_statistics(model: "IQLearn") -> None:
    """Give VecNormalize the demonstrations to start from, once: an early policy's states are far from the expert's."""
    env = model.get_vec_normalize_env()
    if env is None or not env.norm_obs or model._statistics_warmed_up:
        return
    model._statistics_warmed_up = True
    # The user's own wrapper decides, a stand-in never updates by itself
    if not getattr(env, "updates_statistics", env.training):
        return
    assert model.expert_buffer is not None
    for key, obs_rms in env.obs_rms.items() if isinstance(env.obs_rms, dict) else [("", env.obs_rms)]:
        if obs_rms.count < 1000:
            for observations in model.expert_buffer.scan_observations(key):
                obs_rms.update(observations)


def fit_normalizer(model: "IQLearn") -> None:
    """Give the networks the mean and standard deviation of the demonstrations' observations, once."""
    if not model.policy.normalizer.fitted:
        assert model.expert_buffer is not None
        model.policy.normalizer.fit(model.expert_buffer.all(model.get_vec_normalize_env(), at_most=2_000).observations)
