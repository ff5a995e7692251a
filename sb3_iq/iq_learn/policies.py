"""
SB3's policies with the three soft quantities that IQ-Learn needs: Q(s, a), V(s) and V of the target network.

Discrete actions: a Q-network whose policy is softmax(Q / alpha), so that V = alpha logsumexp(Q / alpha) (Eq. 9).
Continuous actions: SAC's actor and critics, V(s) = Q(s, a) - alpha log pi(a|s) with a ~ pi (Eq. 10).
"""

from typing import Any, ClassVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BasePolicy, ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn import policies as dqn
from stable_baselines3.sac import policies as sac
from torch import nn

from sb3_iq.iq_learn.objective import SoftValues
from sb3_iq.iq_learn.observations import batch_length, concatenate_obs
from sb3_iq.iq_learn.optimization import polyak_update, with_fast_defaults


class SoftQPolicy(dqn.DQNPolicy):
    """
    Policy for discrete actions: SB3's Q-network, softmax(Q / alpha) as stochastic and argmax Q as deterministic prediction.

    The parameters are those of SB3's ``DQNPolicy``.
    """

    default_features_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    ent_coef: th.Tensor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete,
        lr_schedule: Schedule,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class or self.default_features_extractor,
            **with_fast_defaults(kwargs),
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        # In SB3 before 2.4 it has the target network's parameters too, and could not be loaded by later versions
        self.optimizer = self.optimizer_class(  # type: ignore[call-arg]
            self.q_net.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )
        # The temperature belongs to the policy: a saved policy predicts without the algorithm
        self.register_buffer("ent_coef", th.ones(()))

    def _predict(self, obs: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        q_values = self.q_net(obs)
        if deterministic:
            return q_values.argmax(dim=1)
        return th.distributions.Categorical(logits=q_values / self.ent_coef).sample()

    def critic_networks(self) -> tuple[nn.Module, nn.Module, th.optim.Optimizer]:
        """:return: the network that the objective is maximised over, its target, and its optimizer"""
        return self.q_net, self.q_net_target, self.optimizer

    def _value(self, q_values: th.Tensor, ent_coef: th.Tensor) -> th.Tensor:
        return ent_coef * th.logsumexp(q_values / ent_coef, dim=1)

    def q_values(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: indices of actions, shape (batch, 1)
        :return: Q(s, a), shape (n_critics, batch); here n_critics is 1
        """
        return self.q_net(obs).gather(1, actions.long()).T

    def state_value(self, obs: PyTorchObs, ent_coef: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param ent_coef: the temperature alpha
        :return: V(s) = alpha logsumexp(Q(s, .) / alpha), shape (batch,)
        """
        return self._value(self.q_net(obs), ent_coef)

    # V is exact here, no sampling is involved
    expected_state_value = state_value

    def target_state_value(self, obs: PyTorchObs, ent_coef: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param ent_coef: the temperature alpha
        :return: V(s) of the target network without gradient, shape (batch,)
        """
        with th.no_grad():
            return self._value(self.q_net_target(obs), ent_coef)

    def expected_log_prob(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations, batch first
        :return: E_{a~pi}[log pi(a|s)], minus the entropy, without gradient, shape (batch,)
        """
        with th.no_grad():
            log_probs = th.log_softmax(self.q_net(obs) / self.ent_coef, dim=1)
            return (log_probs.exp() * log_probs).sum(dim=1)

    def soft_values(
        self,
        obs: PyTorchObs,
        actions: th.Tensor,
        next_obs: PyTorchObs,
        value_obs: PyTorchObs,
        ent_coef: th.Tensor,
        use_target: bool,
    ) -> SoftValues:
        """
        Everything the objective asks of the network, in one pass where the inputs can be concatenated.

        :param obs: observations, batch first
        :param actions: indices of actions, shape (batch, 1)
        :param next_obs: next observations, batch first
        :param value_obs: the states of the occupancy term; ``obs`` itself is not evaluated twice
        :param ent_coef: the temperature alpha
        :param use_target: bootstrap with the target network, or through the gradient of the online one
        :return: Q(s, a), V(s') and V of ``value_obs``
        """
        batches = [obs] if value_obs is obs else [obs, value_obs]
        if not use_target:
            batches.append(next_obs)
        q_all = self.q_net(concatenate_obs(*batches)).split([batch_length(batch) for batch in batches])
        q_values, value_q = q_all[0], q_all[0] if value_obs is obs else q_all[1]
        next_v = self.target_state_value(next_obs, ent_coef) if use_target else self._value(q_all[-1], ent_coef)
        return SoftValues(q_values.gather(1, actions.long()).T, next_v, self._value(value_q, ent_coef))


class LayerNormCritic(ContinuousCritic):
    """
    SB3's critics with a LayerNorm after every hidden linear layer, which bounds how fast Q grows away from the data.

    The parameters are those of SB3's ``ContinuousCritic``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for idx, q_net in enumerate(self.q_networks):
            layers: list[nn.Module] = []
            *hidden, last = q_net.children()
            for layer in hidden:
                layers.append(layer)
                if isinstance(layer, nn.Linear):
                    layers.append(nn.LayerNorm(layer.out_features))
            self.q_networks[idx] = nn.Sequential(*layers, last)
            setattr(self, f"qf{idx}", self.q_networks[idx])


class SACPolicy(sac.SACPolicy):
    """
    Policy for continuous actions: SAC's actor and critics, and a moving average of the actor for deterministic prediction
    (exploration samples from the actor itself). The parameters are those of SB3's ``SACPolicy`` and

    :param n_critics: number of critics, of which the smallest value counts; typically 1 or 2
    :param layer_norm: whether the critics' hidden layers are normalised (LayerNorm); typically True
    """

    default_features_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    averaged_actor: sac.Actor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        n_critics: int = 1,
        layer_norm: bool = True,
        **kwargs: Any,
    ) -> None:
        self.layer_norm = layer_norm
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class or self.default_features_extractor,
            n_critics=n_critics,
            **with_fast_defaults(kwargs),
        )

    def _build(self, lr_schedule: Schedule) -> None:
        super()._build(lr_schedule)
        self.averaged_actor = self.make_actor()
        self.averaged_actor.load_state_dict(self.actor.state_dict())
        self.averaged_actor.requires_grad_(False)
        self.averaged_actor.set_training_mode(False)
        self.critic_target.requires_grad_(False)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        if not self.layer_norm:
            return super().make_critic(features_extractor)
        return LayerNormCritic(**self._update_features_extractor(self.critic_kwargs, features_extractor)).to(self.device)

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "layer_norm": self.layer_norm}

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.averaged_actor(observation, deterministic=True) if deterministic else self.actor(observation)

    def critic_networks(self) -> tuple[nn.Module, nn.Module, th.optim.Optimizer]:
        """:return: the networks that the objective is maximised over, their targets, and their optimizer"""
        return self.critic, self.critic_target, self.critic.optimizer

    def average_actor(self, tau: float) -> None:
        """
        Move the averaged actor towards the actor; statistics of normalisation layers are copied (see SB3's GH issue #996).

        :param tau: the share of the actor in the new average
        """
        polyak_update(self.actor.parameters(), self.averaged_actor.parameters(), tau)
        for buffer, averaged in zip(self.actor.buffers(), self.averaged_actor.buffers(), strict=True):
            averaged.copy_(buffer)

    def q_values(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: actions scaled to [-1, 1], shape (batch, \\*action_shape)
        :return: Q(s, a), shape (n_critics, batch)
        """
        return th.cat(self.critic(obs, actions), dim=1).T

    def _sampled_value(self, q_values: th.Tensor, log_prob: th.Tensor, ent_coef: th.Tensor) -> th.Tensor:
        return q_values.min(dim=0).values - ent_coef * log_prob

    def state_value(self, obs: PyTorchObs, ent_coef: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param ent_coef: the temperature alpha
        :return: one-sample estimate of V(s) = E_{a~pi}[Q(s, a) - alpha log pi(a|s)], shape (batch,).
            The gradient is that of the critic: the actor has a loss of its own (Eq. 10).
        """
        with th.no_grad():
            actions, log_prob = self.actor.action_log_prob(obs)
        return self._sampled_value(self.q_values(obs, actions), log_prob, ent_coef)

    def target_state_value(self, obs: PyTorchObs, ent_coef: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param ent_coef: the temperature alpha
        :return: one-sample estimate of V(s) of the target critics without gradient, shape (batch,)
        """
        with th.no_grad():
            actions, log_prob = self.actor.action_log_prob(obs)
            return self._sampled_value(th.cat(self.critic_target(obs, actions), dim=1).T, log_prob, ent_coef)

    def soft_values(
        self,
        obs: PyTorchObs,
        actions: th.Tensor,
        next_obs: PyTorchObs,
        value_obs: PyTorchObs,
        ent_coef: th.Tensor,
        use_target: bool,
    ) -> SoftValues:
        """
        Everything the objective asks of the networks, in one critic pass where the inputs can be concatenated.

        :param obs: observations, batch first
        :param actions: actions scaled to [-1, 1], shape (batch, \\*action_shape)
        :param next_obs: next observations, batch first
        :param value_obs: the states of the occupancy term
        :param ent_coef: the temperature alpha
        :param use_target: bootstrap with the target critics, or through the gradient of the online ones
        :return: Q(s, a), V(s') and V of ``value_obs``
        """
        n, n_next, n_value = batch_length(obs), batch_length(next_obs), batch_length(value_obs)
        policy_obs = concatenate_obs(next_obs, value_obs)
        with th.no_grad():
            policy_actions, log_prob = self.actor.action_log_prob(policy_obs)
        (next_actions, value_actions), (next_log_prob, value_log_prob) = (
            tensor.split([n_next, n_value]) for tensor in (policy_actions, log_prob)
        )
        if use_target:
            with th.no_grad():
                next_q = th.cat(self.critic_target(next_obs, next_actions), dim=1).T
            all_q = self.q_values(concatenate_obs(obs, value_obs), th.cat([actions, value_actions]))
            q_values, value_q = all_q.split([n, n_value], dim=1)
        else:
            all_q = self.q_values(concatenate_obs(obs, policy_obs), th.cat([actions, policy_actions]))
            q_values, next_q, value_q = all_q.split([n, n_next, n_value], dim=1)
        return SoftValues(
            q_values,
            self._sampled_value(next_q, next_log_prob, ent_coef),
            self._sampled_value(value_q, value_log_prob, ent_coef),
        )

    def expected_state_value(self, obs: PyTorchObs, ent_coef: th.Tensor, n_samples: int = 16) -> th.Tensor:
        """
        V(s) as a mean over the same few draws of noise for every state: deterministic, and independent of the rest of a batch.

        :param obs: observations, batch first
        :param ent_coef: the temperature alpha
        :param n_samples: number of actions per state, made of antithetic pairs
        :return: V(s), shape (batch,)
        """
        mean_actions, log_std, kwargs = self.actor.get_action_dist_params(obs)
        gaussian = self.actor.action_dist.proba_distribution(mean_actions, log_std, **kwargs).distribution
        noise = th.randn(n_samples // 2, mean_actions.shape[1], generator=th.Generator().manual_seed(0))
        values = []
        for eps in th.cat([noise, -noise]).to(mean_actions.device):
            pre_tanh = gaussian.mean + gaussian.stddev * eps
            # log(1 - tanh(x)^2) without cancellation
            log_det = 2 * (np.log(2.0) - pre_tanh - nn.functional.softplus(-2 * pre_tanh))
            log_prob = (gaussian.log_prob(pre_tanh) - log_det).sum(dim=1)
            values.append(self._sampled_value(self.q_values(obs, th.tanh(pre_tanh)), log_prob, ent_coef))
        return th.stack(values).mean(dim=0)


class SoftQCnnPolicy(SoftQPolicy):
    """:class:`SoftQPolicy` for images."""

    default_features_extractor = NatureCNN


class SoftQMultiInputPolicy(SoftQPolicy):
    """:class:`SoftQPolicy` for Dict observations."""

    default_features_extractor = CombinedExtractor


class SACCnnPolicy(SACPolicy):
    """:class:`SACPolicy` for images."""

    default_features_extractor = NatureCNN


class SACMultiInputPolicy(SACPolicy):
    """:class:`SACPolicy` for Dict observations."""

    default_features_extractor = CombinedExtractor


DISCRETE_POLICIES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": SoftQPolicy,
    "CnnPolicy": SoftQCnnPolicy,
    "MultiInputPolicy": SoftQMultiInputPolicy,
}
CONTINUOUS_POLICIES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": SACPolicy,
    "CnnPolicy": SACCnnPolicy,
    "MultiInputPolicy": SACMultiInputPolicy,
}
