"""Q and V of a policy's networks, for batches of tensors."""

import copy
import functools
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import PyTorchObs
from torch.nn import functional as F

from sb3_iq.observations import batch_length, concatenate_obs, has_distance, map_obs
from sb3_iq.rewards.parts import Typical

# Draws of the policy's noise for each state, in antithetic pairs: those that the model itself takes
N_SAMPLES = 16
N_TYPICAL = 512


def is_continuous(policy: BasePolicy) -> bool:
    """:return: whether the policy's actions are continuous, so that V is a mean over draws of its noise"""
    return isinstance(policy.action_space, spaces.Box)


def q_values(policy: BasePolicy, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
    """
    :param policy: the networks
    :param obs: observations, batch first
    :param actions: actions as the Q-function takes them, shape (batch, action_dim)
    :return: Q(s, a), that of all critics together, shape (batch,)
    """
    networks: Any = policy
    return networks.aggregate(networks.q_values(obs, actions))


def value_samples(policy: BasePolicy, obs: PyTorchObs, ent_coef: th.Tensor) -> th.Tensor:
    """
    V(s) = E_{a~pi}[Q(s, a) - alpha log pi(a|s)] as independent estimates. With discrete actions there is one, which is
    exact; with continuous actions there is one for each antithetic pair of the policy's noise, the same noise for every state.

    :param policy: the networks
    :param obs: observations, batch first
    :param ent_coef: the temperature alpha
    :return: estimates of V(s), shape (n_estimates, batch)
    """
    networks: Any = policy
    if not is_continuous(policy):
        return networks.expected_state_value(obs, ent_coef)[None]
    actions, log_prob = _drawn_actions(policy, obs)
    q = q_values(policy, map_obs(_repeat, obs), actions.flatten(0, 1))
    return _in_pairs(q, log_prob, ent_coef)


def q_and_value_samples(
    policy: BasePolicy, obs: PyTorchObs, actions: th.Tensor, value_obs: PyTorchObs, ent_coef: th.Tensor
) -> tuple[th.Tensor, th.Tensor]:
    """
    Q and V of continuous actions in one pass of the critics.

    :param policy: the networks
    :param obs: observations, batch first
    :param actions: actions as the Q-function takes them, shape (batch, action_dim)
    :param value_obs: observations whose value is asked for, batch first
    :param ent_coef: the temperature alpha
    :return: Q(s, a), shape (batch,), and estimates of V(s) as ``value_samples`` has them
    """
    drawn, log_prob = _drawn_actions(policy, value_obs)
    q = q_values(policy, concatenate_obs(obs, map_obs(_repeat, value_obs)), th.cat([actions.to(drawn), drawn.flatten(0, 1)]))
    return q[: len(actions)], _in_pairs(q[len(actions) :], log_prob, ent_coef)


def _drawn_actions(policy: BasePolicy, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
    """Return actions by fixed noise, shape (N_SAMPLES, batch, action_dim), the second half of them antithetic, and log pi."""
    networks: Any = policy
    mean_actions, log_std, kwargs = networks.actor.get_action_dist_params(obs)
    gaussian = networks.actor.action_dist.proba_distribution(mean_actions, log_std, **kwargs).distribution
    pre_tanh = gaussian.mean + gaussian.stddev * _noise(mean_actions.shape[1]).to(mean_actions)
    # log(1 - tanh(x)^2) without cancellation
    log_det = 2 * (np.log(2.0) - pre_tanh - F.softplus(-2 * pre_tanh))
    return th.tanh(pre_tanh), (gaussian.log_prob(pre_tanh) - log_det).sum(dim=2)


def _in_pairs(q: th.Tensor, log_prob: th.Tensor, ent_coef: th.Tensor) -> th.Tensor:
    values = q.reshape(log_prob.shape) - ent_coef * log_prob
    return (values[: N_SAMPLES // 2] + values[N_SAMPLES // 2 :]) / 2


def n_typical(space: spaces.Space) -> int:
    """:return: how many states tell what is typical: few where there are images"""
    return N_TYPICAL if has_distance(space) else N_TYPICAL // 8


def typical(policy: BasePolicy, ent_coef: th.Tensor, obs: PyTorchObs | None) -> Typical:
    """
    :param policy: the networks
    :param ent_coef: the temperature alpha
    :param obs: observations of the demonstrations, batch first; None: draws with their mean and standard deviation
    :return: what is typical of these states, for actions that are drawn, the same in each call
    """
    if obs is None:
        obs = _typical_observations(policy, n_typical(policy.observation_space))
    n = batch_length(obs)
    generator = th.Generator().manual_seed(1)
    space: Any = policy.action_space
    if is_continuous(policy):
        actions = 2 * th.rand(n, int(np.prod(space.shape)), generator=generator) - 1
    else:
        seeded = copy.deepcopy(space)
        seeded.seed(1)
        actions = th.as_tensor(np.stack([np.asarray(seeded.sample()) for _ in range(n)]).reshape(n, -1))
    with th.no_grad():
        value = value_samples(policy, obs, ent_coef).mean(dim=0)
        regret = (value - q_values(policy, obs, actions.to(policy.device))).clamp(min=0)
    return Typical(float(value.mean()), float(regret.mean()))


def _typical_observations(policy: BasePolicy, n: int) -> PyTorchObs:
    """Return draws from the space, and in place of vectors with known statistics draws from a Gaussian of these."""
    space = copy.deepcopy(policy.observation_space)
    space.seed(1)
    samples = [space.sample() for _ in range(n)]
    named = {key: np.stack([row[key] for row in samples]) for key in samples[0]} if isinstance(space, spaces.Dict) else None
    tensors = {key: th.as_tensor(rows, device=policy.device) for key, rows in (named or {"obs": np.stack(samples)}).items()}
    generator = th.Generator().manual_seed(0)
    networks: Any = policy
    for key, part in networks.normalizer.parts.items():
        if part.fitted and key not in networks.normalizer.ranges:
            noise = th.randn(n, *part.mean.shape, generator=generator).to(part.mean)
            tensors[key] = part.mean + part.std * noise
    return tensors if named is not None else tensors["obs"]


@functools.lru_cache
def _noise(action_dim: int) -> th.Tensor:
    """Return the draws of the policy's noise and their antithetic ones, shape (N_SAMPLES, 1, action_dim)."""
    with th.inference_mode(False):  # also where it is first asked for within inference
        noise = th.randn(N_SAMPLES // 2, action_dim, generator=th.Generator().manual_seed(0))
        return th.cat([noise, -noise])[:, None]


def _repeat(values: th.Tensor) -> th.Tensor:
    return values.repeat(N_SAMPLES, *[1] * (values.dim() - 1))
