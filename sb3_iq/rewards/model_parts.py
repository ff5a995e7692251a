"""From a model to what its reward is made of: the only file here that looks inside a model."""

from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn import IQLearn
from sb3_iq.iq_learn.obs_statistics import named_rms
from sb3_iq.observations import batch_length, map_obs
from sb3_iq.rewards.ends import are_vectors
from sb3_iq.rewards.occupancy import StateOccupancy
from sb3_iq.rewards.parts import ExpertEnds, Form, Obs, ObsStatistics, RewardParts, Typical
from sb3_iq.rewards.storage import copy_of_policy
from sb3_iq.rewards.values import n_typical, q_values, typical


def parts_of(model: IQLearn, form: Form, vec_normalize: VecNormalize | None) -> RewardParts:
    """
    :param model: a trained model
    :param form: the form of the reward
    :param vec_normalize: what the model's observations are normalised by; None: that of the model's environment, if any
    :return: the parts, which share nothing with the model
    :raises TypeError: if the model is no IQLearn, or what normalises no VecNormalize
    :raises ValueError: if the model has not learned, or if its VecNormalize is missing or another environment's
    """
    if not isinstance(model, IQLearn):
        raise TypeError(f"`model` is a {type(model).__name__}, no IQLearn: a saved one is IQLearn.load(path).")
    if vec_normalize is not None and not isinstance(vec_normalize, VecNormalize):
        raise TypeError(
            f"`vec_normalize` is a {type(vec_normalize).__name__}: a saved one is VecNormalize.load(path, venv), without "
            "which leave it None."
        )
    policy: Any = model.policy
    if not model._has_learned(policy.critic_networks()[0]):
        raise ValueError("`model` has not learned, so its Q-function is as it was initialised: call model.learn() first.")
    env = vec_normalize if vec_normalize is not None else model.get_vec_normalize_env()
    normalizes = env is not None and env.norm_obs
    if getattr(model, "_normalizes_obs", False) and not normalizes:
        raise ValueError(
            "`vec_normalize` is None, but the model was trained on observations normalised by VecNormalize, whose statistics "
            "are not saved with it: pass vec_normalize=VecNormalize.load(path, venv)."
        )
    if normalizes and env is not None:
        _check_statistics(env, model.observation_space)
    networks = copy_of_policy(policy)
    typical_states, ends = _of_demonstrations(model, networks, env if normalizes else None)
    return RewardParts(
        networks,
        float(model.gamma),
        float(policy.ent_coef),
        None if model.terminal_v is None else float(model.terminal_v),
        form,
        ObsStatistics.of(env) if normalizes and env is not None else None,
        typical_states,
        ends,
        _occupancy(model) if form == "occupancy" else None,
    )


def _occupancy(model: IQLearn) -> StateOccupancy | None:
    """Return how the states of the demonstrations are spread; None if these are not known, or no vectors of numbers."""
    try:
        return StateOccupancy.of(model.demonstrations) if are_vectors(model.observation_space) else None
    except (ValueError, OSError):
        return None


def _check_statistics(env: VecNormalize, space: spaces.Space) -> None:
    for key, rms in named_rms(env).items():
        part = space.spaces.get(key) if isinstance(space, spaces.Dict) else space
        # Images have their channels first or last
        if part is None or sorted(rms.mean.shape) != sorted(part.shape or ()):
            raise ValueError(
                f"`vec_normalize` has statistics of shape {rms.mean.shape}{f' for {key!r}' if key else ''}, but the model's "
                f"observation space is {str(space)[:80]}: load those that were saved with the model."
            )


def _of_demonstrations(
    model: IQLearn, networks: Any, env: VecNormalize | None
) -> tuple[Typical, ExpertEnds | None] | tuple[None, None]:
    """
    Return what is typical of the demonstrations and how they end, which a loaded model reads again if they have a name; Nones
    if it can't.
    """
    if model.expert_buffer is None and model.expert_reference is None:
        return None, None
    n = n_typical(model.observation_space)
    try:
        demonstrations = model.demonstrations
        samples = demonstrations.all(env, at_most=n)
    except (ValueError, OSError):
        return None, None
    found = typical(networks, networks.ent_coef, samples.observations)
    if not demonstrations.terminates:
        return found, ExpertEnds.none()
    if are_vectors(model.observation_space):
        _, terminal = demonstrations.last_observations(n)
        return found, ExpertEnds.of(_arrays(terminal), _arrays(demonstrations.all(at_most=n).observations))
    if model.terminal_v is None:
        # An end like the expert's own is not worse than a typical state, whatever the rest of an episode is worth
        found = found._replace(value=min(found.value, _value_of_last_actions(demonstrations, networks, env, n)))
    return found, None


def _value_of_last_actions(demonstrations: ExpertBuffer, networks: Any, env: VecNormalize | None, at_most: int) -> float:
    """Return the mean Q of the transitions to terminal states; of actions that subsampling left out the imitator's instead."""
    positions = demonstrations.ends[:at_most]
    with th.no_grad():
        if len(positions):
            last = demonstrations.at(positions, env)
            obs, actions = last.observations, last.actions
        else:
            obs, _ = demonstrations.last_observations(at_most, env)
            actions = networks._predict(obs, deterministic=True).reshape(batch_length(obs), -1)
        return float(q_values(networks, obs, actions).mean())


def _arrays(obs: PyTorchObs) -> Obs:
    return map_obs(lambda values: values.cpu().numpy(), obs)  # type: ignore[arg-type, return-value]
