"""Actions for demonstrations of states alone: what the policy would have had to do to get from s to s'."""

from collections.abc import Sequence

import torch as th
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_iq.iq_learn.objective import NonFiniteLossError
from sb3_iq.iq_learn.policies import SoftPolicy
from sb3_iq.observations import Samples, concatenate_samples


class InverseDynamics(nn.Module):
    """
    A model of a = f(s, s'), fitted to the transitions of the policy and asked for the actions of the expert
    (see https://arxiv.org/abs/2303.00599): the most likely one of discrete actions, the mean of continuous ones.

    Its features extractor is one of the policy's kind, its network two layers of 256.

    :param policy: the policy, for the spaces and the class of features extractor
    :param learning_rate: of its Adam optimizer
    """

    def __init__(self, policy: SoftPolicy, learning_rate: float) -> None:
        super().__init__()
        self.policy = (policy,)  # a tuple: it is no part of this module
        self.features_extractor = policy.make_features_extractor()
        self.network = nn.Sequential(
            *create_mlp(2 * self.features_extractor.features_dim, policy.n_action_outputs, [256, 256])
        )
        self.optimizer = th.optim.Adam(self.parameters(), lr=learning_rate)

    def forward(self, obs: PyTorchObs, next_obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param next_obs: next observations, batch first
        :return: what actions are made of, shape (batch, n_action_outputs)
        """
        features = [self.policy[0].extract_features(batch, self.features_extractor) for batch in (obs, next_obs)]
        return self.network(th.cat(features, dim=1))

    def train_step(self, obs: PyTorchObs, next_obs: PyTorchObs, actions: th.Tensor) -> None:
        """
        Fit the actions that were taken: their likelihood, or the squared error of continuous ones.

        :param obs: observations, batch first
        :param next_obs: next observations, batch first
        :param actions: actions as the networks take them, shape (batch, action_dim)
        :raises NonFiniteLossError: if the loss is not finite
        """
        loss = self.policy[0].action_outputs_loss(self(obs, next_obs), actions)
        if not th.isfinite(loss):
            raise NonFiniteLossError(f"The loss of the inverse dynamics is {loss.item()}, before its optimiser's step.")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()

    def predict(self, obs: PyTorchObs, next_obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param next_obs: next observations, batch first
        :return: actions as the networks take them, without gradient, shape (batch, action_dim)
        """
        with th.no_grad():
            return self.policy[0].actions_of_outputs(self(obs, next_obs))

    def actions_of(self, expert: Samples, of_policy: Sequence[Samples]) -> th.Tensor:
        """
        Take a step of training on what the policy did, if that is given, and predict the expert's actions.

        :param expert: transitions of the expert
        :param of_policy: transitions of the policy, in parts; none offline: then the expert's actions are those it has
        :return: actions as the networks take them, without gradient, shape (batch, action_dim)
        """
        if not of_policy:
            return expert.actions
        policy = concatenate_samples(*of_policy)
        self.train_step(policy.observations, policy.next_observations, policy.actions)
        return self.predict(expert.observations, expert.next_observations)
