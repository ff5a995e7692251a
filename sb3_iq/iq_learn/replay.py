"""What IQ-Learn asks of SB3's replay buffer beyond SB3: to be allocated late, and its initial observations."""

from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.iq_learn.observations import concatenate_obs

if TYPE_CHECKING:
    from sb3_iq.iq_learn.iq_learn import IQLearn

# Stands where SB3 would otherwise allocate a buffer while it builds the model
NOT_ALLOCATED: Any = object()


def make_replay_buffer(model: "IQLearn", buffer_size: int | None = None) -> ReplayBuffer:
    """
    :param model: the algorithm, with its spaces and number of environments
    :param buffer_size: its size, by default the model's
    :return: an empty replay buffer as SB3's ``OffPolicyAlgorithm`` makes it
    """
    default = DictReplayBuffer if isinstance(model.observation_space, spaces.Dict) else ReplayBuffer
    buffer_class = model.replay_buffer_class or default
    return buffer_class(
        buffer_size or model.buffer_size,
        model.observation_space,  # type: ignore[arg-type]
        model.action_space,
        device=model.device,
        n_envs=model.n_envs,
        optimize_memory_usage=model.optimize_memory_usage,
        **model.replay_buffer_kwargs,
    )


def sample_initial_observations(model: "IQLearn", batch_size: int) -> PyTorchObs:
    """
    :param model: the algorithm, with its demonstrations and, online, its replay buffer
    :param batch_size: how many to draw
    :return: true initial observations: half of the demonstrations', half of the replay buffer's; offline, all of the former
    """
    expert_buffer, env = model.expert_buffer, model.get_vec_normalize_env()
    assert expert_buffer is not None
    if model.offline:
        return expert_buffer.sample_initial_observations(batch_size, env=env)
    assert model.replay_buffer is not None
    n_expert = (batch_size + 1) // 2
    expert_obs = expert_buffer.sample_initial_observations(n_expert, env=env)
    if n_expert == batch_size:
        return expert_obs
    return concatenate_obs(expert_obs, sample_episode_starts(model.replay_buffer, batch_size - n_expert, env))


def sample_episode_starts(buffer: ReplayBuffer, batch_size: int, env: VecNormalize | None = None) -> PyTorchObs:
    """
    Draw from the first observations of the episodes in a replay buffer.

    An episode starts where the buffer does, and after each step that ended one (terminated or truncated).

    :param buffer: a replay buffer that holds at least one transition
    :param batch_size: how many to draw, with replacement
    :param env: the ``VecNormalize`` to normalise with, if any
    :return: observations, shape (batch_size, *obs_shape), or a dictionary of such
    """
    # SB3 stores done for both ways of ending, and row t + 1 follows row t, around the ring once it is full
    rows, envs = np.nonzero(buffer.dones[: buffer.size()])
    rows = rows + 1
    if buffer.full:
        rows = rows % buffer.buffer_size
        # The oldest row follows none that is still there
        known = rows != buffer.pos
    else:
        # What would follow the newest row isn't there yet
        known = rows < buffer.pos
        rows, envs = (
            np.concatenate([np.zeros(buffer.n_envs, dtype=int), rows]),
            np.concatenate([np.arange(buffer.n_envs), envs]),
        )
        known = np.concatenate([np.ones(buffer.n_envs, dtype=bool), known])
    rows, envs = rows[known], envs[known]
    if len(rows) == 0:
        # One episode longer than the buffer: its oldest rows are all there is
        rows, envs = np.full(buffer.n_envs, buffer.pos), np.arange(buffer.n_envs)
    draw = np.random.randint(len(rows), size=batch_size)
    rows, envs = rows[draw], envs[draw]
    if isinstance(buffer.observations, dict):
        obs: Any = {key: values[rows, envs] for key, values in buffer.observations.items()}
    else:
        obs = buffer.observations[rows, envs]
    obs = buffer._normalize_obs(obs, env)
    if isinstance(obs, dict):
        return {key: buffer.to_torch(values) for key, values in obs.items()}
    return buffer.to_torch(obs)
