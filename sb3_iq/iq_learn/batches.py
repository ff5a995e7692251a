"""What a gradient step is made of: transitions of the expert and of the policy, and the states of the occupancy term."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn.objective import OccupancyTerm
from sb3_iq.observations import Samples, concatenate_obs, take_rows


class Batch(NamedTuple):
    """
    Transitions, of which the first ``n_expert`` are the expert's.

    :param obs: observations, batch first
    :param actions: actions as the networks take them, shape (batch, action_dim)
    :param next_obs: next observations, batch first
    :param terminated: 1 where the episode ended in a terminal state, shape (batch,)
    :param n_expert: the number of the expert's transitions
    :param n_value: how many of the first rows' states are those of the occupancy term
    :param value_obs: the states of the occupancy term where they are no rows of the batch, else None
    :param expert_obs: the expert's observations
    :param reward_prior: the prior reward r_0 of each transition, shape (batch,), or 0 if there is none
    """

    obs: PyTorchObs
    actions: th.Tensor
    next_obs: PyTorchObs
    terminated: th.Tensor
    n_expert: int
    n_value: int
    value_obs: PyTorchObs | None
    expert_obs: PyTorchObs
    reward_prior: th.Tensor | float = 0.0

    @property
    def expert_actions(self) -> th.Tensor:
        """The expert's actions, shape (n_expert, action_dim)."""
        return self.actions[: self.n_expert]


def assemble(
    parts: Sequence[Samples],
    expert_actions: th.Tensor,
    occupancy_term: OccupancyTerm,
    initial_obs: PyTorchObs | None = None,
    reward_prior: th.Tensor | float = 0.0,
    augment: Callable[[PyTorchObs], PyTorchObs] | None = None,
) -> Batch:
    """
    :param parts: transitions of the demonstrations, and after them, online, those of the policy
    :param expert_actions: the actions that count as the expert's, shape (n_expert, action_dim)
    :param occupancy_term: which states are wanted for the occupancy term E_mu[V(s) - gamma V(s')]
    :param initial_obs: initial observations, for ``"start_states"``
    :param reward_prior: the prior reward of each transition, shape (batch,)
    :param augment: how observations are changed at random, if they are; those of s and s' differ
    :return: one batch
    """
    obs = concatenate_obs(*(part.observations for part in parts))
    next_obs = concatenate_obs(*(part.next_observations for part in parts))
    if augment is not None:
        obs, next_obs = augment(obs), augment(next_obs)
        initial_obs = None if initial_obs is None else augment(initial_obs)
    n_expert = len(expert_actions)
    terminated = th.cat([part.dones for part in parts]).flatten()
    n_value = {"policy_mix": len(terminated), "policy": 0, "start_states": 0}.get(occupancy_term, n_expert)
    return Batch(
        obs,
        th.cat([expert_actions, *(part.actions for part in parts[1:])]),
        next_obs,
        terminated,
        n_expert,
        n_value,
        initial_obs,
        take_rows(obs, slice(n_expert)),
        reward_prior,
    )
