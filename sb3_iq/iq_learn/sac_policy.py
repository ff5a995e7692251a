"""
SAC's actor and critics, for continuous actions: V(s) = Q(s, a) - alpha log pi(a|s) with a ~ pi (Eq. 10).

What differs from SB3's policy is that the critics may be normalised, bounded, and aggregated in two ways, and that
deterministic predictions are made by a moving average of the actor.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import ContinuousCritic
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.sac import policies as sac
from torch import nn
from torch.nn import functional as F

from sb3_iq.demonstrations import Demonstrations
from sb3_iq.demonstrations.conversion import range_of_expert
from sb3_iq.iq_learn.action_range import ActionScale
from sb3_iq.iq_learn.networks import FollowingActor, LayerNormCritic, ScaledTanh, Temperature, TreatedObservations
from sb3_iq.iq_learn.normalization import current_names
from sb3_iq.iq_learn.objective import Rows, SoftValues
from sb3_iq.iq_learn.optimization import MovingAverage, check_actor_tau, with_fast_defaults
from sb3_iq.observations import batch_length, concatenate_obs, integer_pixels, take_rows

Aggregation = Literal["min", "mean"]
# An action on the bound is infinitely far out before the tanh
MAX_ACTION = 0.999


class SACPolicy(Temperature, TreatedObservations, sac.SACPolicy):
    """
    Policy for continuous actions: SAC's actor and critics, and a moving average of the actor for deterministic prediction
    (exploration samples from the actor itself). A shared features extractor is learned by the critics' loss, and the actor
    follows. The parameters are those of SB3's ``SACPolicy`` and

    :param n_critics: number of critics, each with a loss of its own; typically 1 or 2
    :param critic_aggregation: whether V and the actor take the minimum (``"min"``) or the ``"mean"`` value of the critics
    :param layer_norm: whether the critics' hidden layers are normalised (LayerNorm); typically True
    :param q_bound: bound Q to this size by a tanh, if given
    :param normalize_obs: whether vectors are standardised by the mean and standard deviation of the demonstrations, and
        the background of images, the median of each channel, is 0
    :param random_shift: how many pixels images are shifted by, at most, in the batches that are learned from, see
        :class:`~sb3_iq.iq_learn.random_shift.RandomShift`; None: a twentieth of the shorter side; 0 for none
    :param actor_tau: coefficient of the moving average of the actor which deterministic predictions are made by, in (0, 1],
        typically 2e-4 (before 4 / ``actor_tau`` updates it is the average of about the last quarter); 1 for the actor itself
    """

    default_features_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    continuous: ClassVar[bool] = True
    action_space: spaces.Box
    averaged_actor: sac.Actor

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Box,
        lr_schedule: Schedule,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        n_critics: int = 1,
        critic_aggregation: Aggregation = "min",
        layer_norm: bool = True,
        q_bound: float | None = None,
        normalize_obs: bool = True,
        random_shift: int | None = None,
        actor_tau: float = 2e-4,
        **kwargs: Any,
    ) -> None:
        if critic_aggregation not in ("min", "mean"):
            raise ValueError(f"`critic_aggregation` is {critic_aggregation!r}: choose one of min, mean.")
        check_actor_tau(actor_tau)
        self.actor_tau = actor_tau
        self.critic_aggregation, self.layer_norm = critic_aggregation, layer_norm
        self.q_bound = q_bound
        kwargs.setdefault("normalize_images", integer_pixels(observation_space))
        self._treat_observations(observation_space, normalize_obs, random_shift)
        super().__init__(
            observation_space,
            action_space,
            lr_schedule,
            features_extractor_class=features_extractor_class or self.default_features_extractor,
            n_critics=n_critics,
            **with_fast_defaults(kwargs),
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self._make_normalizer()
        self._make_temperature()
        super()._build(lr_schedule)
        if self.share_features_extractor:
            own = [values for name, values in self.actor.named_parameters() if not name.startswith("features_extractor.")]
            for network, learned in ((self.actor, own), (self.critic, list(self.critic.parameters()))):
                network.optimizer = self.optimizer_class(  # type: ignore[call-arg]
                    learned, lr=lr_schedule(1), **self.optimizer_kwargs
                )
        self.averaged_actor = self.make_actor()
        self._average = MovingAverage(self.actor, self.averaged_actor, self.actor_tau)
        self.critic_target.requires_grad_(False)
        self.action_scale = ActionScale(self.action_space)

    def make_actor(self, features_extractor: BaseFeaturesExtractor | None = None) -> sac.Actor:
        actor_class = FollowingActor if self.share_features_extractor else sac.Actor
        return actor_class(**self._update_features_extractor(self.actor_kwargs, features_extractor)).to(self.device)

    def make_critic(self, features_extractor: BaseFeaturesExtractor | None = None) -> ContinuousCritic:
        critic_class = LayerNormCritic if self.layer_norm else ContinuousCritic
        # What SB3 calls so is whether a critic leaves its extractor to the actor
        kwargs = {**self.critic_kwargs, "share_features_extractor": False}
        critic = critic_class(**self._update_features_extractor(kwargs, features_extractor)).to(self.device)
        if self.q_bound is not None:
            for idx, q_net in enumerate(critic.q_networks):
                critic.q_networks[idx] = nn.Sequential(*q_net.children(), ScaledTanh(self.q_bound))  # type: ignore[call-overload]
                setattr(critic, f"qf{idx}", critic.q_networks[idx])
        return critic

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = ("critic_aggregation", "layer_norm", "q_bound", "actor_tau", "share_features_extractor")
        return {**super()._get_constructor_parameters(), **{name: getattr(self, name) for name in own}}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        state = {"log_ent_coef": self.log_ent_coef.detach(), **current_names(state_dict)}  # earlier it was elsewhere
        if not any(name.startswith("action_scale.") for name in state):
            state |= self.action_scale.state_dict(prefix="action_scale.")  # what earlier versions scaled by
        return super().load_state_dict(state, *args, **kwargs)

    def fit_actions(self, demonstrations: Demonstrations) -> None:
        """:param demonstrations: what the range of actions is to be fitted to"""
        self.action_scale.set(range_of_expert(self.action_space, demonstrations.trajectories))

    @property
    def action_range(self) -> spaces.Box:
        """The box that actions are scaled to [-1, 1] from, inside of the action space"""
        return self.action_scale.within(self.action_space)

    def scale_action(self, action: np.ndarray) -> np.ndarray:
        return self.action_scale.scale(action)

    def unscale_action(self, scaled_action: np.ndarray) -> np.ndarray:
        return self.action_scale.unscale(scaled_action).astype(self.action_space.dtype)

    def _predict(self, observation: PyTorchObs, deterministic: bool = False) -> th.Tensor:
        return self.averaged_actor(observation, deterministic=True) if deterministic else self.actor(observation)

    @property
    def max_entropy(self) -> float:
        """A density has no largest entropy, but a sensible one is far from 10 nats a dimension."""
        return 10.0 * get_action_dim(self.action_space)

    @property
    def default_target_entropy(self) -> float:
        """Minus the number of dimensions, as in SAC."""
        return -float(get_action_dim(self.action_space))

    @property
    def n_action_outputs(self) -> int:
        """The number of outputs of a network that tells actions: one a dimension."""
        return get_action_dim(self.action_space)

    def action_outputs_loss(self, outputs: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param outputs: actions before the tanh, shape (batch, action_dim)
        :param actions: actions scaled to [-1, 1], shape (batch, action_dim)
        :return: the mean squared error, a scalar
        """
        return F.mse_loss(th.tanh(outputs), actions)

    def actions_of_outputs(self, outputs: th.Tensor) -> th.Tensor:
        """
        :param outputs: actions before the tanh, shape (batch, action_dim)
        :return: actions scaled to [-1, 1], shape (batch, action_dim)
        """
        return th.tanh(outputs)

    def critic_networks(self) -> tuple[nn.Module, nn.Module, th.optim.Optimizer]:
        """:return: the networks that the objective is maximised over, their targets, and their optimizer"""
        return self.critic, self.critic_target, self.critic.optimizer

    def network_actions(self, actions: np.ndarray) -> th.Tensor:
        """
        :param actions: actions in the environment's units, shape (batch, \\*action_shape); as those of demonstrations they are
            clipped to the box, on which alone Q is defined
        :return: actions scaled to [-1, 1], shape (batch, action_dim)
        """
        actions = np.asarray(actions).reshape(-1, *self.action_space.shape)
        scaled = self.scale_action(np.clip(actions, *self.action_scale.bounds))
        return th.as_tensor(scaled.astype(np.float32).reshape(len(actions), -1), device=self.device)

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param obs: observations, batch first
        :return: actions of the actor, shape (batch, action_dim), their log-probabilities, shape (batch,), and its
            deterministic actions, shape (batch, action_dim)
        """
        actions, log_prob = self.actor.action_log_prob(obs)
        return actions, log_prob, self.actor.action_dist.mode()

    def average_actor(self, n_updates: int) -> None:
        """
        Move the averaged actor towards the actor; statistics of normalisation layers are copied (see SB3's GH issue #996).

        :param n_updates: how often the actor was updated before
        """
        self._average.update(n_updates)

    def q_values(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: actions scaled to [-1, 1], shape (batch, \\*action_shape)
        :return: Q(s, a), shape (n_critics, batch)
        """
        return th.cat(self.critic(obs, actions), dim=1).T

    def aggregate(self, q_values: th.Tensor) -> th.Tensor:
        """
        :param q_values: Q(s, a), shape (n_critics, batch)
        :return: the smallest or the mean value of the critics, shape (batch,)
        """
        return q_values.min(dim=0).values if self.critic_aggregation == "min" else q_values.mean(dim=0)

    def _sampled_value(self, q_values: th.Tensor, log_prob: th.Tensor, ent_coef: th.Tensor) -> th.Tensor:
        return self.aggregate(q_values) - ent_coef * log_prob

    def _distribution(self, obs: PyTorchObs) -> Any:
        mean_actions, log_std, kwargs = self.actor.get_action_dist_params(obs)
        return self.actor.action_dist.proba_distribution(mean_actions, log_std, **kwargs)

    def sample_actions(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations, batch first
        :return: actions of the actor, without gradient, shape (batch, action_dim)
        """
        with th.no_grad():
            return self.actor(obs)

    def log_likelihood(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: actions scaled to [-1, 1], shape (batch, action_dim); what is beyond 0.999 is taken there
        :return: log pi(a|s) of the actor, shape (batch,)
        """
        return self._distribution(obs).log_prob(actions.clamp(-MAX_ACTION, MAX_ACTION))

    def cloning_loss(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: the expert's observations, batch first
        :param actions: the expert's actions, scaled to [-1, 1], shape (batch, action_dim)
        :return: the squared distance of the actor's deterministic actions, a scalar. Unlike a likelihood it leaves the entropy
            alone, and its gradient gives way to that of Q where this is large
        """
        return self.squared_error(self.actor(obs, deterministic=True), actions)

    def squared_error(self, actions: th.Tensor, expert_actions: th.Tensor) -> th.Tensor:
        """
        :param actions: actions scaled to [-1, 1], shape (batch, action_dim)
        :param expert_actions: others, of the same shape
        :return: the mean squared distance, a scalar
        """
        return (actions - expert_actions).square().sum(dim=1).mean()

    def action_error(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: actions scaled to [-1, 1], shape (batch, action_dim)
        :return: the mean distance of the actor's deterministic actions in each dimension, a scalar without gradient
        """
        with th.no_grad():
            return (self.actor(obs, deterministic=True) - actions).abs().mean()

    def soft_values(self, batch: Rows, ent_coef: th.Tensor, use_target: bool) -> SoftValues:
        """
        Everything the objective asks of the networks, in one critic pass where the inputs can be concatenated.

        :param batch: transitions, and the states of the occupancy term
        :param ent_coef: the temperature alpha
        :param use_target: bootstrap with the target critics, or through the gradient of the online ones
        :return: Q(s, a), V(s') and V of the states of the occupancy term
        """
        obs, actions, next_obs = batch.obs, batch.actions, batch.next_obs
        value_obs = take_rows(obs, slice(batch.n_value)) if batch.value_obs is None else batch.value_obs
        value_batches = [value_obs] if batch_length(value_obs) > 0 else []
        n, n_next, n_value = batch_length(obs), batch_length(next_obs), sum(map(batch_length, value_batches))
        policy_obs = concatenate_obs(next_obs, *value_batches)
        with th.no_grad():
            policy_actions, log_prob = self.actor.action_log_prob(policy_obs)
        (next_actions, value_actions), (next_log_prob, value_log_prob) = (
            tensor.split([n_next, n_value]) for tensor in (policy_actions, log_prob)
        )
        if use_target:
            with th.no_grad():
                next_q = th.cat(self.critic_target(next_obs, next_actions), dim=1).T
            all_q = self.q_values(concatenate_obs(obs, *value_batches), th.cat([actions, value_actions]))
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
        gaussian = self._distribution(obs).distribution
        noise = th.randn(n_samples // 2, gaussian.mean.shape[1], generator=th.Generator().manual_seed(0))
        values = []
        for eps in th.cat([noise, -noise]).to(gaussian.mean.device):
            pre_tanh = gaussian.mean + gaussian.stddev * eps
            # log(1 - tanh(x)^2) without cancellation
            log_det = 2 * (np.log(2.0) - pre_tanh - nn.functional.softplus(-2 * pre_tanh))
            log_prob = (gaussian.log_prob(pre_tanh) - log_det).sum(dim=1)
            values.append(self._sampled_value(self.q_values(obs, th.tanh(pre_tanh)), log_prob, ent_coef))
        return th.stack(values).mean(dim=0)


class SACCnnPolicy(SACPolicy):
    """:class:`SACPolicy` for images."""

    default_features_extractor = NatureCNN


class SACMultiInputPolicy(SACPolicy):
    """:class:`SACPolicy` for Dict observations."""

    default_features_extractor = CombinedExtractor
