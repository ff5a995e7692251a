"""Where batches come from: the demonstrations, the replay buffer, and the prior rewards of both."""

from collections.abc import Callable

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.batches import Batch, assemble
from sb3_iq.iq_learn.discounted import ExpertOccupancy, ReplayOccupancy
from sb3_iq.iq_learn.replay import StoredPrior, sample_initial_observations, transitions_at
from sb3_iq.iq_learn.reward_priors import RewardPrior, rewards_of_expert
from sb3_iq.iq_learn.settings import Settings
from sb3_iq.observations import Samples, concatenate_samples

ActionsOfExpert = Callable[[Samples, Samples | None], th.Tensor]


class Sampler:
    """
    Draws the batches of one ``learn``.

    :param expert_buffer: the demonstrations
    :param replay_buffer: the transitions of the policy, None offline
    :param env: the ``VecNormalize`` whose statistics observations are normalised with, if there is one
    :param settings: which states are wanted for the occupancy term, how many of the expert's transitions are drawn for each of
        the policy's, and which share of both by the discounted occupancy
    :param augment: how the observations of a batch are changed at random; prior rewards, and the actions that are told for
        demonstrations without, are those of the observations as they are
    """

    def __init__(
        self,
        expert_buffer: ExpertBuffer,
        replay_buffer: ReplayBuffer | None,
        env: VecNormalize | None,
        settings: Settings,
        augment: Callable[[PyTorchObs], PyTorchObs] | None = None,
    ) -> None:
        self.expert_buffer = expert_buffer
        self.replay_buffer = replay_buffer
        self.env = env
        self.occupancy_term = settings.objective.occupancy_term
        # The terms of the objective are means: what the expert's transitions weigh does not depend on how many there are
        self.expert_share = settings.expert_share if replay_buffer is not None else 1.0
        self.discounted_share = settings.discounted_share if replay_buffer is not None else 0.0
        if replay_buffer is not None and self.discounted_share > 0:
            self.expert_occupancy = ExpertOccupancy(expert_buffer, settings.gamma)
            self.replay_occupancy = ReplayOccupancy(replay_buffer, settings.gamma)
        self.augment = augment
        self.prior: RewardPrior | None = None
        self.stored_prior: StoredPrior | None = None

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
        :param batch_size: the number of transitions of the policy; offline, of the expert
        :param n_added: how many rows were added to the replay buffer so far
        :param actions_of_expert: from transitions of the expert and of the policy to the actions that count as the expert's
        :return: a batch
        """
        positions = self._draw_of_expert(max(1, round(batch_size * self.expert_share)))
        expert = self.expert_buffer.at(positions, self.env)
        policy: Samples | None = None
        reward_prior: th.Tensor | float = 0.0
        if self.replay_buffer is not None:
            policy, prior_of_policy = self._sample_of_policy(self.replay_buffer, batch_size, n_added)
            if self.prior is not None:
                reward_prior = th.cat([self.expert_prior[positions], *prior_of_policy])
        actions = actions_of_expert(expert, policy)
        initial_obs = None
        if self.occupancy_term == "start_states":
            initial_obs = sample_initial_observations(batch_size, self.expert_buffer, self.replay_buffer, self.env)
        return assemble(expert, policy, actions, self.occupancy_term, initial_obs, reward_prior, self.augment)

    def _draw_of_expert(self, n: int) -> th.Tensor:
        n_discounted = round(n * self.discounted_share)
        positions = self.expert_buffer.draw(n)
        if n_discounted > 0:
            positions[:n_discounted] = self.expert_occupancy.draw(n_discounted)
        return th.from_numpy(positions).to(self.expert_buffer.device)

    def _sample_of_policy(self, buffer: ReplayBuffer, n: int, n_added: int) -> tuple[Samples, list[th.Tensor]]:
        """Return transitions and, where there is a prior, their prior rewards in parts."""
        n_discounted = round(n * self.discounted_share)
        parts: list[Samples] = []
        prior_rewards: list[th.Tensor] = []
        if self.stored_prior is not None:
            self.stored_prior.follow(n_added)
        if n > n_discounted:
            if self.stored_prior is not None:
                uniform, stored = self.stored_prior.sample(n - n_discounted)
                prior_rewards.append(stored)
            else:
                uniform = buffer.sample(n - n_discounted, env=self.env)
            parts.append(uniform)
        if n_discounted > 0:
            self.replay_occupancy.follow(n_added)
            rows, envs = self.replay_occupancy.draw(n_discounted)
            parts.append(transitions_at(buffer, rows, envs, self.env))
            if self.stored_prior is not None:
                prior_rewards.append(self.stored_prior.at(rows, envs, parts[-1]))
        policy = concatenate_samples(*parts)
        if self.prior is not None and self.stored_prior is None:
            prior_rewards = [self.prior(policy)]
        return policy, prior_rewards
