"""VecNormalize: its statistics start from the demonstrations, and a model that was trained with it is not used without."""

from typing import Any

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.obs_statistics import named_rms
from sb3_iq.iq_learn.spaces_env import updates_statistics

# Statistics of fewer observations than this count as not yet learned
MIN_COUNT = 1_000


def normalizes_observations(env: VecNormalize | None, observation_space: spaces.Space, before: bool) -> bool:
    """
    :param env: the ``VecNormalize`` of the environment, if there is one
    :param observation_space: the observation space that the policy sees
    :param before: whether the networks were trained on normalised observations before
    :return: whether they are from now on
    :raises ValueError: if they were, and there is nothing to normalise with, or if they are changed after normalisation
    """
    if env is not None and env.norm_obs:
        # Of the statistics: offline, a stand-in has the spaces that the policy sees
        shapes = getattr(getattr(env.obs_rms, "mean", None), "shape", None), observation_space.shape
        if None not in shapes and shapes[0] != shapes[1] and not is_image_space(observation_space):
            raise ValueError(
                f"`env` normalises observations of shape {shapes[0]} by VecNormalize, and a wrapper around it, such as "
                f"VecFrameStack, makes others of them, {shapes[1]}, as the demonstrations have: normalise after stacking, "
                "VecNormalize(VecFrameStack(env, n))."
            )
        return True
    if before:
        raise ValueError(
            "The model was trained on observations normalised by VecNormalize, whose statistics are not saved with it, and "
            "`env` has none: load the model with env=VecNormalize.load(...)."
        )
    return False


def warm_up(env: VecNormalize, expert_buffer: ExpertBuffer) -> None:
    """
    Give the statistics the demonstrations to start from: an early policy's states are far from the expert's.

    :param env: a wrapper that normalises observations
    :param expert_buffer: the demonstrations
    """
    # The user's own wrapper decides, a stand-in never updates by itself
    if not updates_statistics(env):
        return
    for key, obs_rms in named_rms(env).items():
        if obs_rms.count < MIN_COUNT:
            for observations in expert_buffer.scan_observations(key):
                obs_rms.update(observations)


def take_over_statistics(env: VecNormalize, saved: VecNormalize) -> None:
    """
    :param env: a wrapper whose statistics are replaced, in place: a stand-in shares them with the user's own
    :param saved: a wrapper of the same spaces
    """
    pairs: list[tuple[Any, Any]] = [(env.ret_rms, saved.ret_rms)]
    if env.norm_obs and saved.norm_obs:
        saved_rms = named_rms(saved)
        pairs += [(obs_rms, saved_rms[key]) for key, obs_rms in named_rms(env).items()]
    for statistics, taken in pairs:
        vars(statistics).update(vars(taken))
