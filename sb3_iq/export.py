"""Trained policies for use without Stable-Baselines3: as one module that ONNX and TorchScript can export."""

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize
from torch import nn

from sb3_iq.iq_learn import SACPolicy, SoftQPolicy
from sb3_iq.iq_learn.obs_statistics import ObsStatistics


class ExportablePolicy(nn.Module):
    """
    What ``predict(obs, deterministic=True)`` computes, from observations to the environment's actions, without NumPy: the
    standardised observations and the one-hot codes that the networks see, the averaged actor of continuous actions, which is
    not ``policy.actor``, and their scale.

    :param policy: the policy of a trained model, ``model.policy``; it is put into evaluation mode
    :param vec_normalize: the ``VecNormalize`` that the model was trained with, if any, ``model.get_vec_normalize_env()``.
        Its statistics become part of the module, which then takes raw observations
    """

    def __init__(self, policy: SoftQPolicy | SACPolicy, vec_normalize: VecNormalize | None = None) -> None:
        super().__init__()
        self.policy = policy
        self.dtype = th.as_tensor(np.zeros(0, policy.action_space.dtype)).dtype
        self.clip, self._normalized = np.inf, []
        if vec_normalize is not None and vec_normalize.norm_obs:
            statistics = ObsStatistics.of(vec_normalize)
            self.clip, self._normalized = statistics.clip, list(statistics.mean)
            for key, mean in statistics.mean.items():
                std = np.sqrt(statistics.var[key] + statistics.epsilon)
                self.register_buffer(f"mean_{key}", th.as_tensor(mean, device=policy.device))
                self.register_buffer(f"std_{key}", th.as_tensor(std, device=policy.device))
        self.eval()
        self(self.example_obs())  # what is decided once is decided before the module is traced

    def example_obs(self, batch_size: int = 1) -> PyTorchObs:
        """
        :param batch_size: how many
        :return: observations of zeros, of the shape and type that the module takes: batch first, images channel first
        """

        def zeros(space: spaces.Space) -> th.Tensor:
            return th.as_tensor(np.zeros((batch_size, *(space.shape or ())), space.dtype), device=self.policy.device)

        space = self.policy.observation_space
        return {key: zeros(part) for key, part in space.items()} if isinstance(space, spaces.Dict) else zeros(space)

    def forward(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations, shape (batch, \\*obs_shape), or a dictionary of such
        :return: actions as the environment takes them, shape (batch, \\*action_shape)
        """
        obs, shape = self._normalize(obs), self.policy.action_space.shape or ()
        if not isinstance(self.policy, SACPolicy):
            return self.policy(obs, deterministic=True).reshape(-1, *shape)
        # The mode of the action distribution, without its checks of arguments, which can't be exported
        mean_actions, _, _ = self.policy.averaged_actor.get_action_dist_params(obs)
        scale = self.policy.action_scale
        actions = scale.low + 0.5 * (th.tanh(mean_actions).reshape(-1, *shape) + 1.0) * (scale.high - scale.low)
        return actions.to(self.dtype)

    def _normalize(self, obs: PyTorchObs) -> PyTorchObs:
        def normalize(values: th.Tensor, key: str) -> th.Tensor:
            mean, std = getattr(self, f"mean_{key}"), getattr(self, f"std_{key}")
            return ((values - mean) / std).clamp(-self.clip, self.clip).float()

        if isinstance(obs, dict):
            return {key: normalize(values, key) if key in self._normalized else values for key, values in obs.items()}
        return normalize(obs, "") if self._normalized else obs
