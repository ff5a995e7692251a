"""A regularised discriminator of expert and policy, with absorbing states."""

from dataclasses import dataclass
from typing import Any

import torch as th
from gymnasium import spaces
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from sb3_iq.compare.baselines.task import check_between
from sb3_iq.demonstrations.errors import check_integer
from sb3_iq.iq_learn.normalization import Standardize


@dataclass(frozen=True)
class DiscriminatorSettings:
    """
    The regularisation that off-policy GAIL needs, see "A Pragmatic Look at Deep Imitation Learning", Arulkumaran and Lillrank
    (https://arxiv.org/abs/2108.01867).

    :param discriminator_units: units of the hidden layer
    :param discriminator_learning_rate: of AdamW
    :param weight_decay: of AdamW
    :param input_dropout: share of the inputs left out in training
    :param dropout: share of the hidden units left out in training
    :param gradient_penalty: coefficient of (norm of the gradient - 1)^2 between expert and policy
    :param mixup_alpha: expert and policy are mixed by Beta(alpha, alpha)
    :param max_reward: rewards are clipped to this magnitude
    """

    discriminator_units: int = 64
    discriminator_learning_rate: float = 3e-4
    weight_decay: float = 8.5
    input_dropout: float = 0.24
    dropout: float = 0.48
    gradient_penalty: float = 0.28
    mixup_alpha: float = 1.0
    max_reward: float = 10.0

    def __post_init__(self) -> None:
        check_integer("discriminator_units", self.discriminator_units, 1)
        check_between(self, 0.0, 1.0, "discriminator_learning_rate")
        check_between(self, 0.0, 0.99, "input_dropout", "dropout")
        check_between(self, 0.0, 1e3, "weight_decay", "gradient_penalty")
        check_between(self, 1e-3, 1e3, "mixup_alpha", "max_reward")


class Discriminator(nn.Module):
    """
    The logit of "the expert did this", of (s, a) and of the absorbing state that follows a terminal one: without it, the sign
    of rewards alone decides whether episodes should end (https://arxiv.org/abs/1809.02925).

    :param rows: the demonstrations' observations, shape (n, \\*obs_shape)
    :param action_space: Box, whose actions are scaled to [-1, 1], or Discrete
    :param settings: regularisation
    """

    def __init__(self, rows: th.Tensor, action_space: spaces.Space, settings: DiscriminatorSettings) -> None:
        super().__init__()
        self.settings = settings
        self.n_actions = int(action_space.n) if isinstance(action_space, spaces.Discrete) else 0
        flat = rows.float().flatten(1)
        self.standardize = Standardize(flat.shape[1:]).fit(flat)
        n_inputs = rows.flatten(1).shape[1] + (self.n_actions or spaces.flatdim(action_space)) + 1
        self.net = nn.Sequential(
            nn.Dropout(settings.input_dropout),
            spectral_norm(nn.Linear(n_inputs, settings.discriminator_units)),
            nn.ReLU(),
            nn.Dropout(settings.dropout),
            spectral_norm(nn.Linear(settings.discriminator_units, 1)),
        )
        self.optimizer = th.optim.AdamW(
            self.net.parameters(), lr=settings.discriminator_learning_rate, weight_decay=settings.weight_decay
        )

    def inputs(self, batch: Any) -> th.Tensor:
        """
        :param batch: transitions of SB3
        :return: what the network sees of them, shape (n, n_inputs)
        """
        obs = self.standardize(batch.observations.float().flatten(1))
        actions = F.one_hot(batch.actions.flatten(), self.n_actions).float() if self.n_actions else batch.actions
        return th.cat((obs, actions, th.zeros(len(obs), 1)), dim=1)

    def with_absorbing(self, batch: Any) -> th.Tensor:
        """
        :param batch: transitions
        :return: what the network sees of them, and of one absorbing state for each that is terminal
        """
        inputs = self.inputs(batch)
        return th.cat((inputs, self._absorbing(inputs).expand(int(batch.dones.sum()), -1)))

    def _absorbing(self, inputs: th.Tensor) -> th.Tensor:
        row = th.zeros(1, inputs.shape[1])
        row[0, -1] = 1.0
        return row

    def update(self, expert: Any, policy: Any) -> float:
        """
        Take a gradient step.

        :param expert: transitions of the expert
        :param policy: transitions of the policy
        :return: the loss
        """
        self.train()
        first, second = self.with_absorbing(expert), self.with_absorbing(policy)
        n = max(len(first), len(second))
        first, second = (
            rows[th.randint(len(rows), (n,))] if len(rows) < n else rows[th.randperm(n)] for rows in (first, second)
        )
        alpha = self.settings.mixup_alpha
        share = th.distributions.Beta(alpha, alpha).sample((n, 1))
        mixed = (share * first + (1 - share) * second).requires_grad_()
        logits = self.net(mixed)
        loss = F.binary_cross_entropy_with_logits(logits, share)
        if self.settings.gradient_penalty > 0:
            (gradient,) = th.autograd.grad(logits.sum(), mixed, create_graph=True)
            loss = loss + self.settings.gradient_penalty * (gradient.norm(dim=1) - 1).square().mean()
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        return loss.item()

    @th.no_grad()
    def rewards(self, batch: Any, gamma: float) -> th.Tensor:
        """
        :param batch: transitions
        :param gamma: the discount factor
        :return: log D - log(1 - D), and for a terminal transition the discounted sum of the absorbing state's rewards as well,
            shape (n, 1)
        """
        self.eval()
        inputs, limit = self.inputs(batch), self.settings.max_reward
        absorbing = self.net(self._absorbing(inputs)).clamp(-limit, limit)
        return self.net(inputs).clamp(-limit, limit) + batch.dones * gamma / (1 - gamma) * absorbing
