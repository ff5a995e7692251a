"""What a gradient step is made of: transitions of the expert and of the policy, and the states of the occupancy term."""

from typing import TYPE_CHECKING, Literal, NamedTuple

import torch as th
from stable_baselines3.common.type_aliases import PyTorchObs

from sb3_iq.iq_learn import replay
from sb3_iq.iq_learn.objective import OccupancyTerm
from sb3_iq.iq_learn.observations import concatenate_obs, first_rows

if TYPE_CHECKING:
    from sb3_iq.iq_learn.iq_learn import IQLearn

ExpertActions = Literal["given", "policy", "inverse_dynamics"]


class Batch(NamedTuple):
    """
    Transitions, of which the first ``n_expert`` are the expert's.

    :param obs: observations, batch first
    :param actions: actions as the networks take them, shape (batch, action_dim)
    :param next_obs: next observations, batch first
    :param terminated: 1 where the episode ended in a terminal state, shape (batch,)
    :param n_expert: the number of the expert's transitions
    :param value_obs: the states of the occupancy term, ``obs`` itself where these are all of them; None if there are none
    :param expert_obs: the expert's observations
    :param reward_prior: the prior of their rewards, shape (batch,), or 0 if there is none
    """

    obs: PyTorchObs
    actions: th.Tensor
    next_obs: PyTorchObs
    terminated: th.Tensor
    n_expert: int
    value_obs: PyTorchObs | None
    expert_obs: PyTorchObs
    reward_prior: th.Tensor | float = 0.0

    @property
    def expert_actions(self) -> th.Tensor:
        """The expert's actions, shape (n_expert, action_dim)."""
        return self.actions[: self.n_expert]


def sample(model: "IQLearn", batch_size: int, occupancy_term: OccupancyTerm) -> Batch:
    """
    :param model: the algorithm, with its demonstrations and, online, its replay buffer
    :param batch_size: the number of transitions of the expert and, online, of the policy
    :param occupancy_term: which states are wanted for the occupancy term E_mu[V(s) - gamma V(s')]
    :return: a batch
    """
    assert model.expert_buffer is not None
    n_expert = batch_size if model.offline else model.expert_batch_size or batch_size
    expert = model.expert_buffer.sample(n_expert, env=model._vec_normalize_env)
    expert_actions = expert.actions
    parts = [expert]
    if not model.offline:
        parts.append(replay.sample(model, batch_size))
    if model.expert_actions == "policy":
        expert_actions = model.policy.sample_actions(expert.observations)
    elif model.inverse_dynamics is not None:
        model.inverse_dynamics.train_step(parts[1].observations, parts[1].next_observations, parts[1].actions)
        expert_actions = model.inverse_dynamics.predict(expert.observations, expert.next_observations)
    reward_prior: th.Tensor | float = 0.0
    if model.prior is not None:
        reward_prior = th.cat([model.prior.of_expert(expert), model.prior(parts[1])])
    obs = concatenate_obs(*(part.observations for part in parts))
    next_obs = concatenate_obs(*(part.next_observations for part in parts))
    if model.obs_noise > 0:
        obs, next_obs = model.policy.normalizer.add_noise(model.obs_noise, obs, next_obs)
    expert_obs = first_rows(obs, n_expert)
    value_obs: PyTorchObs | None = None
    if occupancy_term == "policy_mix":
        value_obs = obs
    elif occupancy_term in ("expert", "expert_states", "expert_bounded"):
        value_obs = expert_obs
    elif occupancy_term == "start_states":
        value_obs = replay.sample_initial_observations(model, batch_size)
    return Batch(
        obs,
        th.cat([expert_actions, *(part.actions for part in parts[1:])]),
        next_obs,
        th.cat([part.dones for part in parts]).flatten(),
        n_expert,
        value_obs,
        expert_obs,
        reward_prior,
    )
