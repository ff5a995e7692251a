"""Where batches come from: the demonstrations, the replay buffer, and the prior rewards of both."""

from collections.abc import Callable

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.batches import Batch, assemble
from sb3_iq.iq_learn.objective import OccupancyTerm
from sb3_iq.iq_learn.replay import StoredPrior, sample_initial_observations
from sb3_iq.iq_learn.reward_priors import RewardPrior, rewards_of_expert
from sb3_iq.observations import Samples

ActionsOfExpert = Callable[[Samples, Samples | None], th.Tensor]


class Sampler:
    """
    Draws the batches of one ``learn``.

    :param expert_buffer: the demonstrations
    :param replay_buffer: the transitions of the policy, None offline
    :param env: the ``VecNormalize`` whose statistics observations are normalised with, if there is one
    :param occupancy_term: which states are wanted for the occupancy term
    :param augment: how the observations of a batch are changed at random; prior rewards, and the actions that are told for
        demonstrations without, are those of the observations as they are
    """

    def __init__(
        self,
        expert_buffer: ExpertBuffer,
        replay_buffer: ReplayBuffer | None,
        env: VecNormalize | None,
        occupancy_term: OccupancyTerm,
        augment: Callable[[PyTorchObs], PyTorchObs] | None = None,
    ) -> None:
        self.expert_buffer = expert_buffer
        self.replay_buffer = replay_buffer
        self.env = env
        self.occupancy_term = occupancy_term
        self.augment = augment
        self.prior: RewardPrior | None = None

    def set_prior(self, prior: RewardPrior) -> None:
        """
        Compute the prior rewards of the demonstrations, once, and those of the policy's transitions from now on: once each
        where observations don't change with VecNormalize's statistics.

        :param prior: the prior
        """
        self.prior = prior
        self.expert_prior = rewards_of_expert(prior, self.expert_buffer, self.env)
        fixed = self.env is None and self.replay_buffer is not None
        self.stored_prior = StoredPrior(self.replay_buffer, prior) if fixed else None  # type: ignore[arg-type]

    def sample(self, batch_size: int, n_added: int, actions_of_expert: ActionsOfExpert) -> Batch:
        """
        :param batch_size: the number of transitions of the expert and, online, of the policy
        :param n_added: how many rows were added to the replay buffer so far
        :param actions_of_expert: from transitions of the expert and of the policy to the actions that count as the expert's
        :return: a batch
        """
        positions = th.from_numpy(self.expert_buffer.draw(batch_size)).to(self.expert_buffer.device)
        expert = self.expert_buffer.at(positions, self.env)
        policy: Samples | None = None
        reward_prior: th.Tensor | float = 0.0
        if self.prior is None and self.replay_buffer is not None:
            policy = self.replay_buffer.sample(batch_size, env=self.env)
        elif self.prior is not None and self.replay_buffer is not None:
            if self.stored_prior is not None:
                self.stored_prior.follow(n_added)
                policy, prior_of_policy = self.stored_prior.sample(batch_size)
            else:
                policy = self.replay_buffer.sample(batch_size, env=self.env)
                prior_of_policy = self.prior(policy)
            reward_prior = th.cat([self.expert_prior[positions], prior_of_policy])
        actions = actions_of_expert(expert, policy)
        initial_obs = None
        if self.occupancy_term == "start_states":
            initial_obs = sample_initial_observations(batch_size, self.expert_buffer, self.replay_buffer, self.env)
        return assemble(expert, policy, actions, self.occupancy_term, initial_obs, reward_prior, self.augment)
