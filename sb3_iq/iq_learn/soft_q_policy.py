"""SB3's Q-network as a soft policy for discrete actions: pi = softmax(Q / alpha), V = alpha logsumexp(Q / alpha) (Eq. 9)."""

from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn import policies as dqn
from torch import nn
from torch.nn import functional as F

from sb3_iq.iq_learn.networks import ScaledTanh
from sb3_iq.iq_learn.normalization import NormalizedExtractor, ObservationNormalizer
from sb3_iq.iq_learn.objective import SoftValues
from sb3_iq.iq_learn.optimization import with_fast_defaults
from sb3_iq.observations import batch_length, concatenate_obs


class SoftQPolicy(dqn.DQNPolicy):
    """
    Policy for discrete actions: SB3's Q-network, softmax(Q / alpha) as stochastic and argmax Q as deterministic prediction.

    The parameters are those of SB3's ``DQNPolicy`` and

    :param q_bound: bound Q to this size by a tanh, if given
    :param normalize_obs: whether vectors are standardised by the mean and standard deviation of the demonstrations
    """

    default_features_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    continuous: ClassVar[bool] = False
    action_space: spaces.Discrete
    ent_coef: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        q_bound: float | None = None,
        normalize_obs: bool = True,
        **kwargs: Any,
    ) -> None:
        self.q_bound = q_bound
        self.normalize_obs = normalize_obs
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class or self.default_features_extractor,
            **with_fast_defaults(kwargs),
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self.normalizer = ObservationNormalizer(self.observation_space)
        super()._build(lr_schedule)
        # In SB3 before 2.4 it has the target network's parameters too, and could not be loaded by later versions
        self.optimizer = self.optimizer_class(  # type: ignore[call-arg]
            self.q_net.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )
        # The temperature belongs to the policy: a saved policy predicts without the algorithm
        self.register_buffer("ent_coef", th.ones(()))

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        extractor = super().make_features_extractor()
        return NormalizedExtractor(self.observation_space, extractor, self.normalizer) if self.normalize_obs else extractor

    def make_q_net(self) -> dqn.QNetwork:
        q_net = super().make_q_net()
        if self.q_bound is not None:
            q_net.q_net = nn.Sequential(*q_net.q_net.children(), ScaledTanh(self.q_bound)).to(self.device)
        return q_net

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "q_bound": self.q_bound, "normalize_obs": self.normalize_obs}

    def _predict(self, obs: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        q_values = self.q_net(obs)
        if deterministic:
            return q_values.argmax(dim=1)
        return th.distributions.Categorical(logits=q_values / self.ent_coef).sample()

    @property
    def max_entropy(self) -> float:
        """The entropy of the uniform policy, log n, in nats."""
        return float(np.log(self.action_space.n))

    @property
    def default_target_entropy(self) -> float:
        """A tenth of the largest entropy."""
        return 0.1 * self.max_entropy

    @property
    def n_action_outputs(self) -> int:
        """The number of logits of a network that tells actions."""
        return int(self.action_space.n)

    def action_outputs_loss(self, outputs: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param outputs: logits, shape (batch, n_action_outputs)
        :param actions: indices of actions, shape (batch, 1)
        :return: their negative log-likelihood, a scalar
        """
        return F.cross_entropy(outputs, actions.flatten().long())

    def actions_of_outputs(self, outputs: th.Tensor) -> th.Tensor:
        """
        :param outputs: logits, shape (batch, n_action_outputs)
        :return: the most likely actions, shape (batch, 1)
        """
        return outputs.argmax(dim=1, keepdim=True)

    @property
    def cloning_optimizer(self) -> th.optim.Optimizer:
        """That of the Q-network, which is the policy."""
        return self.optimizer

    def critic_networks(self) -> tuple[nn.Module, nn.Module, th.optim.Optimizer]:
        """:return: the network that the objective is maximised over, its target, and its optimizer"""
        return self.q_net, self.q_net_target, self.optimizer

    def network_actions(self, actions: np.ndarray) -> th.Tensor:
        """
        :param actions: the environment's actions, shape (batch,)
        :return: indices of actions, shape (batch, 1)
        :raises ValueError: if one is not in the action space
        """
        actions = np.asarray(actions)
        valid = np.isin(actions, np.arange(self.action_space.n))
        if not valid.all():
            raise ValueError(f"`actions` holds {actions[~valid][0]}, which is not in {self.action_space}.")
        return th.as_tensor(actions.reshape(-1, 1).astype(np.int64), device=self.device)

    def set_ent_coef(self, ent_coef: th.Tensor) -> None:
        """
        :param ent_coef: the temperature alpha, of which softmax(Q / alpha) is
        """
        self.ent_coef.copy_(ent_coef.squeeze())

    def aggregate(self, q_values: th.Tensor) -> th.Tensor:
        """
        :param q_values: Q(s, a), shape (1, batch)
        :return: that of the only critic, shape (batch,)
        """
        return q_values[0]

    def _value(self, q_values: th.Tensor, ent_coef: th.Tensor) -> th.Tensor:
        return ent_coef * th.logsumexp(q_values / ent_coef, dim=1)

    def q_values(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: indices of actions, shape (batch, 1)
        :return: Q(s, a), shape (n_critics, batch); here n_critics is 1
        """
        return self.q_net(obs).gather(1, actions.long()).T

    def expected_state_value(self, obs: PyTorchObs, ent_coef: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param ent_coef: the temperature alpha
        :return: V(s) = alpha logsumexp(Q(s, .) / alpha), exact, shape (batch,)
        """
        return self._value(self.q_net(obs), ent_coef)

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor]:
        """
        :param obs: observations, batch first
        :return: no actions, shape (batch, 0), for there is no actor to be led by them; and E_{a~pi}[log pi(a|s)], minus the
            entropy, exact, without gradient, shape (batch,)
        """
        with th.no_grad():
            log_probs = th.log_softmax(self.q_net(obs) / self.ent_coef, dim=1)
            expected = (log_probs.exp() * log_probs).sum(dim=1)
        return expected.new_empty((len(expected), 0)), expected

    def sample_actions(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations, batch first
        :return: actions of the stochastic policy, without gradient, shape (batch, 1)
        """
        with th.no_grad():
            return self._predict(obs, deterministic=False)[:, None]

    def log_likelihood(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: indices of actions, shape (batch, 1)
        :return: log pi(a|s), shape (batch,)
        """
        return th.log_softmax(self.q_net(obs) / self.ent_coef, dim=1).gather(1, actions.long()).squeeze(1)

    def cloning_loss(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: the expert's observations, batch first
        :param actions: indices of the expert's actions, shape (batch, 1)
        :return: the loss of behavioural cloning, -E[log pi(a|s)], a scalar
        """
        return -self.log_likelihood(obs, actions).mean()

    def action_error(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: indices of actions, shape (batch, 1)
        :return: the share of states where the deterministic prediction is another action, a scalar without gradient
        """
        with th.no_grad():
            return (self.q_net(obs).argmax(dim=1, keepdim=True) != actions).float().mean()

    def soft_values(
        self,
        obs: PyTorchObs,
        actions: th.Tensor,
        next_obs: PyTorchObs,
        value_obs: PyTorchObs | None,
        ent_coef: th.Tensor,
        use_target: bool,
    ) -> SoftValues:
        """
        Everything the objective asks of the network, in one pass where the inputs can be concatenated.

        :param obs: observations, batch first
        :param actions: indices of actions, shape (batch, 1)
        :param next_obs: next observations, batch first
        :param value_obs: the states of the occupancy term, None for none; ``obs`` itself is not evaluated twice
        :param ent_coef: the temperature alpha
        :param use_target: bootstrap with the target network, or through the gradient of the online one
        :return: Q(s, a), V(s') and V of ``value_obs``
        """
        separate = [] if value_obs is None or value_obs is obs else [value_obs]
        batches = [obs, *separate, *([] if use_target else [next_obs])]
        q_all = self.q_net(concatenate_obs(*batches)).split([batch_length(batch) for batch in batches])
        q_values, value_q = q_all[0], q_all[0][:0] if value_obs is None else q_all[len(separate)]
        if use_target:
            with th.no_grad():
                next_v = self._value(self.q_net_target(next_obs), ent_coef)
        else:
            next_v = self._value(q_all[-1], ent_coef)
        return SoftValues(q_values.gather(1, actions.long()).T, next_v, self._value(value_q, ent_coef))


class SoftQCnnPolicy(SoftQPolicy):
    """:class:`SoftQPolicy` for images."""

    default_features_extractor = NatureCNN


class SoftQMultiInputPolicy(SoftQPolicy):
    """:class:`SoftQPolicy` for Dict observations."""

    default_features_extractor = CombinedExtractor
