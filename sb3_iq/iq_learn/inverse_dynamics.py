"""Actions for demonstrations of states alone: what the policy would have had to do to get from s to s'."""

import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import create_mlp
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn
from torch.nn import functional as F

from sb3_iq.iq_learn.objective import NonFiniteLossError
from sb3_iq.iq_learn.policies import SoftPolicy


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
        self.discrete = isinstance(policy.action_space, spaces.Discrete)
        self.preprocess = policy.extract_features
        self.features_extractor = policy.make_features_extractor()
        n_outputs = int(policy.action_space.n) if self.discrete else get_action_dim(policy.action_space)  # type: ignore[attr-defined]
        layers = create_mlp(2 * self.features_extractor.features_dim, n_outputs, [256, 256], squash_output=not self.discrete)
        self.network = nn.Sequential(*layers)
        self.optimizer = th.optim.Adam(self.parameters(), lr=learning_rate)

    def forward(self, obs: PyTorchObs, next_obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param next_obs: next observations, batch first
        :return: logits of the actions, shape (batch, n_actions), or actions scaled to [-1, 1], shape (batch, action_dim)
        """
        features = [self.preprocess(batch, self.features_extractor) for batch in (obs, next_obs)]
        return self.network(th.cat(features, dim=1))

    def train_step(self, obs: PyTorchObs, next_obs: PyTorchObs, actions: th.Tensor) -> None:
        """
        Fit the actions that were taken: their likelihood, or the squared error of continuous ones.

        :param obs: observations, batch first
        :param next_obs: next observations, batch first
        :param actions: actions as the networks take them, shape (batch, action_dim)
        :raises NonFiniteLossError: if the loss is not finite
        """
        output = self(obs, next_obs)
        loss = F.cross_entropy(output, actions.flatten().long()) if self.discrete else F.mse_loss(output, actions)
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
            output = self(obs, next_obs)
            return output.argmax(dim=1, keepdim=True) if self.discrete else output
