"""Where batches come from: the demonstrations, the replay buffer, and the prior rewards of both."""

from collections.abc import Callable, Sequence

import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.batches import Batch, assemble
from sb3_iq.iq_learn.discounted import ExpertOccupancy, ReplayOccupancy
from sb3_iq.iq_learn.replay import StoredPrior, observations_at, transitions_at
from sb3_iq.iq_learn.reward_priors import RewardPrior, rewards_of_expert
from sb3_iq.iq_learn.settings import Settings
from sb3_iq.observations import Samples, concatenate_obs, concatenate_samples

ActionsOfExpert = Callable[[Samples, Sequence[Samples]], th.Tensor]


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
        self.replay_occupancy: ReplayOccupancy | None = None
        if replay_buffer is not None and (self.discounted_share > 0 or self.occupancy_term == "start_states"):
            self.replay_occupancy = ReplayOccupancy(replay_buffer, settings.gamma)
        if self.discounted_share > 0:
            self.expert_occupancy = ExpertOccupancy(expert_buffer, settings.gamma)
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
        self.expert_level = self.expert_prior.mean()
        fixed = self.env is None and self.replay_buffer is not None
        self.stored_prior = StoredPrior(self.replay_buffer, prior) if fixed else None  # type: ignore[arg-type]

    @property
    def statistics_change(self) -> bool:
        """Whether observations are normalised by statistics of ``VecNormalize`` that change."""
        return self.env is not None and self.env.training

    def prior_is_outdated(self, n_updates: int) -> bool:
        """
        :param n_updates: the number of gradient steps so far
        :return: whether there is a prior that VecNormalize's statistics, which have changed, are to be followed by
        """
        return self.statistics_change and self.prior is not None and n_updates > 0 and self.prior.follows_statistics(n_updates)

    def sample(self, batch_size: int, n_added: int, actions_of_expert: ActionsOfExpert) -> Batch:
        """
        :param batch_size: the number of transitions of the policy; offline, of the expert
        :param n_added: how many rows were added to the replay buffer so far
        :param actions_of_expert: from transitions of the expert and, in parts, of the policy to the actions that count as the
            expert's
        :return: a batch
        """
        positions = self._draw_of_expert(max(1, round(batch_size * self.expert_share)))
        expert = self.expert_buffer.at(positions, self.env)
        of_policy: list[Samples] = []
        reward_prior: th.Tensor | float = 0.0
        if self.replay_buffer is not None:
            if self.replay_occupancy is not None:
                self.replay_occupancy.follow(n_added)
            of_policy, prior_of_policy = self._sample_of_policy(self.replay_buffer, batch_size, n_added)
            if self.prior is not None:
                reward_prior = th.cat([self.expert_prior[positions], *prior_of_policy])
        actions = actions_of_expert(expert, of_policy)
        initial_obs = self._sample_initial_observations(batch_size) if self.occupancy_term == "start_states" else None
        return assemble([expert, *of_policy], actions, self.occupancy_term, initial_obs, reward_prior, self.augment)

    def _sample_initial_observations(self, n: int) -> PyTorchObs:
        """Return true initial observations: half of the demonstrations', half of the policy's; offline, all of the former."""
        n_expert = n if self.replay_buffer is None else (n + 1) // 2
        parts = [self.expert_buffer.sample_initial_observations(n_expert, env=self.env)]
        if self.replay_buffer is not None and self.replay_occupancy is not None and n > n_expert:
            rows, envs = self.replay_occupancy.draw_starts(n - n_expert)
            parts.append(observations_at(self.replay_buffer, rows, envs, self.env))
        return concatenate_obs(*parts)

    def _draw_of_expert(self, n: int) -> th.Tensor:
        n_discounted = round(n * self.discounted_share)
        positions = self.expert_buffer.draw(n)
        if n_discounted > 0:
            positions[:n_discounted] = self.expert_occupancy.draw(n_discounted)
        return th.from_numpy(positions).to(self.expert_buffer.device)

    def _sample_of_policy(self, buffer: ReplayBuffer, n: int, n_added: int) -> tuple[list[Samples], list[th.Tensor]]:
        """Return transitions and, where there is a prior, their prior rewards: both in parts, joined once."""
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
        if n_discounted > 0 and self.replay_occupancy is not None:
            rows, envs = self.replay_occupancy.draw(n_discounted)
            parts.append(transitions_at(buffer, rows, envs, self.env))
            if self.stored_prior is not None:
                prior_rewards.append(self.stored_prior.at(rows, envs, parts[-1]))
        if self.prior is not None and self.stored_prior is None:
            prior_rewards = [self.prior(concatenate_samples(*parts))]
        return parts, prior_rewards
