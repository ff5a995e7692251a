"""
SB3's Q-network as a soft policy for discrete actions: pi = softmax(Q / alpha), V = alpha logsumexp(Q / alpha) (Eq. 9).

Actions of several parts (MultiDiscrete, MultiBinary) are factored, Q(s, a) = sum_i Q_i(s, a_i): then the policy is the product
of the softmaxes of the parts, and V the sum of their logsumexps, with as many outputs as there are choices in all.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.type_aliases import PyTorchObs, Schedule
from stable_baselines3.dqn import policies as dqn
from torch import nn

from sb3_iq.demonstrations import Demonstrations
from sb3_iq.demonstrations.conversion import part_sizes
from sb3_iq.iq_learn.networks import ScaledTanh, Temperature, TreatedObservations
from sb3_iq.iq_learn.normalization import current_names
from sb3_iq.iq_learn.objective import Rows, SoftValues
from sb3_iq.iq_learn.optimization import MovingAverage, check_actor_tau, with_fast_defaults
from sb3_iq.observations import batch_length, concatenate_obs, integer_pixels

SelfSoftQPolicy = TypeVar("SelfSoftQPolicy", bound="SoftQPolicy")


class SoftQPolicy(Temperature, TreatedObservations, dqn.DQNPolicy):
    """
    Policy for discrete actions: SB3's Q-network, softmax(Q / alpha) as stochastic and argmax Q as deterministic prediction.
    An action has one part, or several of which each has values of its own.

    The parameters are those of SB3's ``DQNPolicy`` and

    :param q_bound: bound Q to this size by a tanh, if given
    :param normalize_obs: whether vectors are standardised by the mean and standard deviation of the demonstrations, and
        the background of images, the median of each channel, is 0
    :param random_shift: how many pixels images are shifted by, at most, in the batches that are learned from, see
        :class:`~sb3_iq.iq_learn.random_shift.RandomShift`; None: a twentieth of the shorter side; 0 for none
    :param actor_tau: coefficient of the moving average of the network which deterministic predictions are made by, in (0, 1],
        see :class:`~sb3_iq.iq_learn.SACPolicy`; 1 for the network itself
    :raises ValueError: if ``actor_tau`` is not in its range
    """

    default_features_extractor: ClassVar[type[BaseFeaturesExtractor]] = FlattenExtractor
    continuous: ClassVar[bool] = False
    action_space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary

    def __init__(
        self,
        observation_space: spaces.Space,
        action_space: spaces.Discrete | spaces.MultiDiscrete | spaces.MultiBinary,
        lr_schedule: Schedule,
        *,
        features_extractor_class: type[BaseFeaturesExtractor] | None = None,
        q_bound: float | None = None,
        normalize_obs: bool = True,
        random_shift: int | None = None,
        actor_tau: float = 1.0,
        **kwargs: Any,
    ) -> None:
        check_actor_tau(actor_tau)
        self.q_bound, self.actor_tau = q_bound, actor_tau
        kwargs.setdefault("normalize_images", integer_pixels(observation_space))
        self._treat_observations(observation_space, normalize_obs, random_shift)
        self.sizes = list(part_sizes(action_space))
        super().__init__(
            observation_space,
            action_space,  # type: ignore[arg-type]
            lr_schedule,
            features_extractor_class=features_extractor_class or self.default_features_extractor,
            **with_fast_defaults(kwargs),
        )

    def _build(self, lr_schedule: Schedule) -> None:
        self._make_normalizer()
        self._make_temperature()
        # One output for each choice of each part
        self.net_args["action_space"] = spaces.Discrete(sum(self.sizes))
        super()._build(lr_schedule)
        # In SB3 before 2.4 it has the target network's parameters too, and could not be loaded by later versions
        self.optimizer = self.optimizer_class(  # type: ignore[call-arg]
            self.q_net.parameters(), lr=lr_schedule(1), **self.optimizer_kwargs
        )
        self.averaged_q_net = self.make_q_net() if self.actor_tau < 1 else None
        if self.averaged_q_net is not None:
            self._average = MovingAverage(self.q_net, self.averaged_q_net, self.actor_tau)

    def make_q_net(self) -> dqn.QNetwork:
        q_net = super().make_q_net()
        if self.q_bound is not None:
            q_net.q_net = nn.Sequential(*q_net.q_net.children(), ScaledTanh(self.q_bound)).to(self.device)
        return q_net

    def untrained(
        self: SelfSoftQPolicy, learning_rate: float, ent_coef: float, policy_kwargs: Mapping[str, Any]
    ) -> SelfSoftQPolicy:
        """
        :param learning_rate: its learning rate
        :param ent_coef: its temperature alpha
        :param policy_kwargs: what this one was made with: a derived class may have arguments of its own, or fix some
        :return: another policy like this one, before any gradient step. Observations are standardised alike
        """
        kwargs = {**policy_kwargs, **({} if self.q_bound is None else {"q_bound": self.q_bound})}
        kwargs.pop("actor_tau", None)  # what it predicts nobody asks
        policy = type(self)(self.observation_space, self.action_space, lambda _: learning_rate, **kwargs).to(self.device)
        policy.normalizer.load_state_dict(self.normalizer.state_dict())
        policy.set_ent_coef(ent_coef)
        policy.set_training_mode(True)
        return policy

    def _get_constructor_parameters(self) -> dict[str, Any]:
        return {**super()._get_constructor_parameters(), "q_bound": self.q_bound, "actor_tau": self.actor_tau}

    def load_state_dict(self, state_dict: Mapping[str, Any], *args: Any, **kwargs: Any) -> Any:
        state = current_names(state_dict)
        if self.averaged_q_net is not None and not any(name.startswith("averaged_q_net.") for name in state):
            # Saved by an earlier version, which predicted by the network itself
            state |= {f"averaged_{name}": value for name, value in state.items() if name.startswith("q_net.")}
        return super().load_state_dict(state, *args, **kwargs)

    def _predict(self, obs: PyTorchObs, deterministic: bool = True) -> th.Tensor:
        averaged = self.averaged_q_net if deterministic else None
        parts = self._parts(self.q_net(obs) if averaged is None else averaged(obs))
        if deterministic:
            actions = th.stack([q_values.argmax(dim=1) for q_values in parts], dim=1)
        else:
            actions = th.stack(
                [th.distributions.Categorical(logits=q_values / self.ent_coef).sample() for q_values in parts], dim=1
            )
        return actions.squeeze(1) if isinstance(self.action_space, spaces.Discrete) else actions

    def _parts(self, outputs: th.Tensor) -> tuple[th.Tensor, ...]:
        """Return the outputs of each part of the action, shape (batch, n_i)."""
        return outputs.split(self.sizes, dim=1) if len(self.sizes) > 1 else (outputs,)

    def _log_probs(self, outputs: th.Tensor, ent_coef: th.Tensor | float) -> list[th.Tensor]:
        """Return the log-probabilities of the choices of each part, shape (batch, n_i)."""
        return [th.log_softmax(q_values / ent_coef, dim=1) for q_values in self._parts(outputs)]

    def _gather(self, parts: Sequence[th.Tensor], actions: th.Tensor) -> th.Tensor:
        """Return the sum over the parts of the values of the actions, shape (batch, 1)."""
        chosen = [values.gather(1, actions[:, [idx]].long()) for idx, values in enumerate(parts)]
        return chosen[0] if len(chosen) == 1 else th.stack(chosen).sum(dim=0)

    @property
    def max_entropy(self) -> float:
        """The entropy of the uniform policy, the sum of log n_i, in nats."""
        return float(np.log(self.sizes).sum())

    @property
    def default_target_entropy(self) -> float:
        """A tenth of the largest entropy."""
        return 0.1 * self.max_entropy

    @property
    def n_action_outputs(self) -> int:
        """The number of logits of a network that tells actions."""
        return sum(self.sizes)

    def action_outputs_loss(self, outputs: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param outputs: logits, shape (batch, n_action_outputs)
        :param actions: indices of actions, shape (batch, n_parts)
        :return: their negative log-likelihood, a scalar
        """
        return -self.outputs_log_likelihood(outputs, actions).mean()

    def outputs_log_likelihood(self, outputs: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """
        :param outputs: logits, shape (batch, n_action_outputs)
        :param actions: indices of actions, shape (batch, n_parts)
        :return: their log-likelihood, shape (batch,)
        """
        return self._gather(self._log_probs(outputs, 1.0), actions).squeeze(1)

    def actions_of_outputs(self, outputs: th.Tensor) -> th.Tensor:
        """
        :param outputs: logits, shape (batch, n_action_outputs)
        :return: the most likely actions, shape (batch, n_parts)
        """
        return th.stack([part.argmax(dim=1) for part in self._parts(outputs)], dim=1)

    def critic_networks(self) -> tuple[nn.Module, nn.Module, th.optim.Optimizer]:
        """:return: the network that the objective is maximised over, its target, and its optimizer"""
        return self.q_net, self.q_net_target, self.optimizer

    def fit_actions(self, demonstrations: Demonstrations) -> None:
        """:param demonstrations: not needed here"""

    @property
    def action_range(self) -> spaces.Space:
        """The action space, which needs no scale"""
        return self.action_space

    def average_actor(self, n_updates: int) -> None:
        """
        Move the averaged network, if there is one, towards the network.

        :param n_updates: how often the network was updated before
        """
        if self.averaged_q_net is not None:
            self._average.update(n_updates)

    def network_actions(self, actions: np.ndarray) -> th.Tensor:
        """
        :param actions: the environment's actions, shape (batch,) or, of several parts, (batch, n_parts)
        :return: indices of actions, shape (batch, n_parts)
        :raises ValueError: if one is not in the action space
        """
        actions = np.asarray(actions).reshape(-1, len(self.sizes))
        valid = ((actions >= 0) & (actions < self.sizes) & (actions == np.floor(actions))).all(axis=1)
        if not valid.all():
            found = actions[~valid][0].tolist()
            raise ValueError(f"`actions` holds {found if len(found) > 1 else found[0]}, which is not in {self.action_space}.")
        return th.as_tensor(actions.astype(np.int64), device=self.device)

    def aggregate(self, q_values: th.Tensor) -> th.Tensor:
        """
        :param q_values: Q(s, a), shape (1, batch)
        :return: that of the only critic, shape (batch,)
        """
        return q_values[0]

    def _value(self, outputs: th.Tensor, ent_coef: th.Tensor) -> th.Tensor:
        values = [th.logsumexp(q_values / ent_coef, dim=1) for q_values in self._parts(outputs)]
        return ent_coef * (values[0] if len(values) == 1 else th.stack(values).sum(dim=0))

    def q_values(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: indices of actions, shape (batch, n_parts)
        :return: Q(s, a), shape (n_critics, batch); here n_critics is 1
        """
        return self._gather(self._parts(self.q_net(obs)), actions).T

    def expected_state_value(self, obs: PyTorchObs, ent_coef: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param ent_coef: the temperature alpha
        :return: V(s) = alpha logsumexp(Q(s, .) / alpha), exact, shape (batch,)
        """
        return self._value(self.q_net(obs), ent_coef)

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """
        :param obs: observations, batch first
        :return: no actions, shape (batch, 0), for there is no actor to be led by them; E_{a~pi}[log pi(a|s)], minus the
            entropy, exact, without gradient, shape (batch,); and again no actions
        """
        with th.no_grad():
            parts = self._log_probs(self.q_net(obs), self.ent_coef)
            expected = th.stack([(log_probs.exp() * log_probs).sum(dim=1) for log_probs in parts]).sum(dim=0)
        no_actions = expected.new_empty((len(expected), 0))
        return no_actions, expected, no_actions

    def sample_actions(self, obs: PyTorchObs) -> th.Tensor:
        """
        :param obs: observations, batch first
        :return: actions of the stochastic policy, without gradient, shape (batch, n_parts)
        """
        with th.no_grad():
            return self._predict(obs, deterministic=False).reshape(batch_length(obs), -1)

    def log_likelihood(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """
        :param obs: observations, batch first
        :param actions: indices of actions, shape (batch, n_parts)
        :return: log pi(a|s), shape (batch,)
        """
        return self._gather(self._log_probs(self.q_net(obs), self.ent_coef), actions).squeeze(1)

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
        :param actions: indices of actions, shape (batch, n_parts)
        :return: the share of (parts of) actions that the deterministic prediction differs from, a scalar without gradient
        """
        with th.no_grad():
            return (self.actions_of_outputs(self.q_net(obs)) != actions).float().mean()

    def soft_values(self, batch: Rows, ent_coef: th.Tensor, use_target: bool) -> SoftValues:
        """
        Everything the objective asks of the network, in one pass where the inputs can be concatenated.

        :param batch: transitions, and the states of the occupancy term
        :param ent_coef: the temperature alpha
        :param use_target: bootstrap with the target network, or through the gradient of the online one
        :return: Q(s, a), V(s'), V of the states of the occupancy term, and log pi(a|s) = (Q(s, a) - V(s)) / alpha
        """
        separate = [] if batch.value_obs is None else [batch.value_obs]
        batches = [batch.obs, *separate, *([] if use_target else [batch.next_obs])]
        outputs = [self.q_net(concatenate_obs(*batches))]
        if len(batches) > 1:
            outputs = outputs[0].split([batch_length(obs) for obs in batches])
        if use_target:
            with th.no_grad():
                next_v = self._value(self.q_net_target(batch.next_obs), ent_coef)
        else:
            next_v = self._value(outputs[-1], ent_coef)
        q_values, v = self._gather(self._parts(outputs[0]), batch.actions).T, self._value(outputs[0], ent_coef)
        value_v = self._value(outputs[1], ent_coef) if separate else v if batch.n_value == len(v) else v[: batch.n_value]
        return SoftValues(q_values, next_v, value_v, (q_values[0] - v) / ent_coef)


class SoftQCnnPolicy(SoftQPolicy):
    """:class:`SoftQPolicy` for images."""

    default_features_extractor = NatureCNN


class SoftQMultiInputPolicy(SoftQPolicy):
    """:class:`SoftQPolicy` for Dict observations."""

    default_features_extractor = CombinedExtractor
