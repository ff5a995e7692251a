"""What IQ-Learn asks of a policy, and which policy is for which action space. A new action space is one policy and one row."""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.type_aliases import PyTorchObs
from torch import nn

from sb3_iq.demonstrations import Demonstrations
from sb3_iq.iq_learn.normalization import ObservationNormalizer
from sb3_iq.iq_learn.objective import Rows, SoftValues
from sb3_iq.iq_learn.random_shift import RandomShift
from sb3_iq.iq_learn.sac_policy import SACCnnPolicy, SACMultiInputPolicy, SACPolicy
from sb3_iq.iq_learn.soft_q_policy import SoftQCnnPolicy, SoftQMultiInputPolicy, SoftQPolicy
from sb3_iq.observations import SMALLEST_OF_CNN, batch_length, has_channels_last, images_of, is_small


class SoftPolicy(Protocol):
    """
    A policy with the soft quantities of IQ-Learn. It owns all that depends on the action space.

    Shapes: observations are batch first, actions as the networks take them are (batch, action_dim), Q(s, a) is
    (n_critics, batch), V(s) and log-probabilities are (batch,).
    """

    continuous: ClassVar[bool]
    """Whether Q has a gradient in the actions, and an actor follows it"""
    normalizer: ObservationNormalizer
    random_shift: RandomShift
    """What changes the images of a batch at random; predictions and rewards are those of images as they are"""

    @property
    def action_space(self) -> spaces.Space:
        """The action space"""

    def set_training_mode(self, mode: bool) -> None:
        """Switch between train and eval mode (this affects batch norm / dropout)"""

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """A features extractor of the policy's kind, of normalised observations"""

    def extract_features(self, obs: PyTorchObs, features_extractor: BaseFeaturesExtractor) -> th.Tensor:
        """Features of observations, preprocessed, shape (batch, features_dim)"""

    @property
    def max_entropy(self) -> float:
        """The largest entropy that the policy can have, in nats"""

    @property
    def default_target_entropy(self) -> float:
        """Where a learned temperature draws the entropy to (``target_entropy="auto"``), in nats"""

    @property
    def n_action_outputs(self) -> int:
        """The number of outputs of a network that tells actions"""

    def action_outputs_loss(self, outputs: th.Tensor, actions: th.Tensor) -> th.Tensor:
        """How far such outputs, shape (batch, n_action_outputs), are from actions, a scalar"""

    def actions_of_outputs(self, outputs: th.Tensor) -> th.Tensor:
        """The actions that such outputs stand for"""

    def critic_networks(self) -> tuple[nn.Module, nn.Module, th.optim.Optimizer]:
        """The networks that the objective is maximised over, their targets, and their optimiser"""

    def fit_actions(self, demonstrations: Demonstrations) -> None:
        """Fit the scale of actions to demonstrations"""

    @property
    def action_range(self) -> spaces.Space:
        """The space that actions are scaled by"""

    def network_actions(self, actions: np.ndarray) -> th.Tensor:
        """Actions in the environment's units, as the networks take them"""

    @property
    def ent_coef(self) -> th.Tensor:
        """The temperature alpha, a scalar without gradient"""

    def set_ent_coef(self, ent_coef: float) -> None:
        """Set the temperature"""

    def q_values(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """Q(s, a) of each critic"""

    def aggregate(self, q_values: th.Tensor) -> th.Tensor:
        """One value of those of all critics, shape (batch,)"""

    def soft_values(self, batch: Rows, ent_coef: th.Tensor, use_target: bool) -> SoftValues:
        """Everything the objective asks of the networks"""

    def expected_state_value(self, obs: PyTorchObs, ent_coef: th.Tensor) -> th.Tensor:
        """V(s), deterministic"""

    def action_log_prob(self, obs: PyTorchObs) -> tuple[th.Tensor, th.Tensor, th.Tensor]:
        """Actions, their log-probabilities and deterministic actions; of discrete actions the expected log-probability"""

    def sample_actions(self, obs: PyTorchObs) -> th.Tensor:
        """Actions of the stochastic policy, without gradient"""

    def log_likelihood(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """log pi(a|s)"""

    def cloning_loss(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """The loss of behavioural cloning, a scalar"""

    def average_actor(self, n_updates: int) -> None:
        """Move the average that deterministic predictions are made by towards the network; it was updated so often before"""

    def action_error(self, obs: PyTorchObs, actions: th.Tensor) -> th.Tensor:
        """How far deterministic actions are from these, a scalar without gradient"""


class PolicyRow(NamedTuple):
    """
    :param base: the class that a user's own policy must be derived from
    :param aliases: SB3's names of policies
    """

    base: type[BasePolicy]
    aliases: dict[str, type[BasePolicy]]


SOFT_Q = PolicyRow(
    SoftQPolicy, {"MlpPolicy": SoftQPolicy, "CnnPolicy": SoftQCnnPolicy, "MultiInputPolicy": SoftQMultiInputPolicy}
)
POLICIES: dict[type[spaces.Space], PolicyRow] = {
    spaces.Discrete: SOFT_Q,
    spaces.MultiDiscrete: SOFT_Q,
    spaces.MultiBinary: SOFT_Q,
    spaces.Box: PolicyRow(
        SACPolicy,
        {"MlpPolicy": SACPolicy, "CnnPolicy": SACCnnPolicy, "MultiInputPolicy": SACMultiInputPolicy},
    ),
}
"""Which policy is for which action space."""
ONLY_CONTINUOUS = (
    *("n_critics", "critic_aggregation", "layer_norm", "share_features_extractor"),
    *("log_std_init", "use_expln", "clip_mean"),
)
"""What only the policy for continuous actions knows of ``policy_kwargs``."""


def policy_class(
    policy: str | type[BasePolicy],
    observation_space: spaces.Space,
    action_space: spaces.Space,
    action_noise: ActionNoise | None = None,
    policy_kwargs: Mapping[str, Any] | None = None,
) -> type[BasePolicy]:
    """
    :param policy: alias or class
    :param observation_space: the observation space
    :param action_space: the action space
    :param action_noise: the user's argument, which only continuous actions have a use for
    :param policy_kwargs: the user's argument
    :return: the policy's class
    :raises ValueError: if an argument is of no use for these actions, the alias is unknown, the class does not go with the
        action space, or this is not served
    """
    check_action_space(action_space)
    row = next(row for kind, row in POLICIES.items() if isinstance(action_space, kind))
    if row is SOFT_Q:
        check_discrete(action_noise, policy_kwargs or {})
    if isinstance(policy, str):
        if policy not in row.aliases:
            raise ValueError(f"`policy` is {policy!r}: choose one of {', '.join(row.aliases)}, or give a class.")
        if isinstance(observation_space, spaces.Dict) and policy != "MultiInputPolicy":
            raise ValueError(f"You must use `MultiInputPolicy` when working with dict observation space, not {policy}")
        own_extractor = "features_extractor_class" in (policy_kwargs or {})
        if policy == "MultiInputPolicy" and not isinstance(observation_space, spaces.Dict) and not own_extractor:
            raise ValueError(
                f"`policy` is 'MultiInputPolicy', which is for Dict observations, and the environment's are "
                f"{str(observation_space)[:80]}: use 'MlpPolicy', or 'CnnPolicy' for images."
            )
        if policy != "MlpPolicy" and not own_extractor:
            check_images(policy, observation_space)
        return row.aliases[policy]
    if not (isinstance(policy, type) and issubclass(policy, row.base)):
        raise ValueError(
            f"`policy` is {str(policy)[:80]}: for {type(action_space).__name__} actions give one of "
            f"{', '.join(row.aliases)} or a class derived from sb3_iq.iq_learn.{row.base.__name__}."
        )
    return policy


def policy_kwargs_for(policy: type[BasePolicy], chosen: dict[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """
    :param policy: the policy's class
    :param chosen: the user's arguments of the policy and, where there are none, the preset's
    :param given: the user's alone
    :return: what the policy is made with: a class of the user's, which may fix its networks, does not get the preset's
    """
    ours = any(policy in row.aliases.values() for row in POLICIES.values())
    return {name: value for name, value in chosen.items() if ours or name != "net_arch" or name in (given or {})}


def check_images(policy: str, observation_space: spaces.Space) -> None:
    """:raises ValueError: if SB3's network for images can't take them, with the wrapper that cures it"""
    for key, space in images_of(observation_space).items():
        name = f"`policy` is {policy!r}, and the images{f' {key!r}' if key else ''} have shape {space.shape}"
        if has_channels_last(space):
            raise ValueError(
                f"{name}: the channels of floats must come first, as SB3 only transposes uint8. Wrap the environment in a "
                "gymnasium.ObservationWrapper that does numpy.moveaxis(obs, -1, 0), or give uint8 from 0 to 255."
            )
        if is_small(space):
            raise ValueError(
                f"{name}: SB3's NatureCNN takes no less than {SMALLEST_OF_CNN} pixels each way. Enlarge them "
                "(gymnasium.wrappers.ResizeObservation), flatten them (FlattenObservation, 'MlpPolicy'), or give a "
                "features_extractor_class in `policy_kwargs`."
            )


def check_discrete(action_noise: ActionNoise | None, policy_kwargs: Mapping[str, Any]) -> None:
    """:raises ValueError: if something is asked for that only continuous actions have"""
    if action_noise is not None:
        raise ValueError(
            f"`action_noise` is {str(action_noise)[:80]}: discrete actions explore by the softmax of their values. Leave it "
            "out, or raise `ent_coef`."
        )
    if isinstance(policy_kwargs.get("net_arch"), dict):
        raise ValueError(
            f"`policy_kwargs` has net_arch={str(policy_kwargs['net_arch'])[:80]}: with discrete actions there is one network, "
            "which is policy and critic. Give a list, e.g. net_arch=[64, 64]."
        )
    for name in ONLY_CONTINUOUS:
        if name in policy_kwargs:
            raise ValueError(f"`policy_kwargs` has {name}, which only the policy for continuous actions knows. Leave it out.")


def check_action_space(action_space: spaces.Space) -> None:
    """
    Called before SB3 is, whose assertions on action spaces do not say what to do.

    :param action_space: the action space
    :raises ValueError: if actions of this space are not learned, with the wrapper that cures it
    """
    name = f"The environment's action space is {str(action_space)[:80]}"
    if isinstance(action_space, (spaces.Tuple, spaces.Dict)):
        raise ValueError(
            f"{name}: of several parts only MultiDiscrete and MultiBinary are supported. Wrap the environment in a "
            "gymnasium.ActionWrapper with one MultiDiscrete (if all parts are continuous, Box) space, whose actions it splits."
        )
    if not isinstance(action_space, tuple(POLICIES)):
        known = ", ".join(kind.__name__ for kind in POLICIES)
        raise ValueError(f"{name}: only {known} are supported.")
    if 0 in (action_space.shape or ()):
        raise ValueError(f"{name}: there is nothing to choose. Use a gymnasium.ActionWrapper with another.")
    if isinstance(action_space, spaces.Box) and not np.isfinite([action_space.low, action_space.high]).all():
        raise ValueError(
            f"{name}: without a finite lower and upper bound there is no scale of actions. Wrap the environment in a "
            "gymnasium.ActionWrapper with a finite Box; the demonstrations tell the range that the expert uses."
        )
    if isinstance(action_space, spaces.Box) and not np.issubdtype(action_space.dtype, np.floating):
        raise ValueError(
            f"{name}: a Box of integers would lose what is between them. Wrap the environment in a gymnasium.ActionWrapper "
            "with a MultiDiscrete space, or with a Box of float32 whose actions it rounds."
        )
    if len(getattr(action_space, "shape", None) or ()) > 1 and not isinstance(action_space, spaces.Box):
        raise ValueError(
            f"{name}: of these spaces only one axis is supported. Wrap the environment in a gymnasium.ActionWrapper that "
            "reshapes the actions of a flat one."
        )
    starts = np.asarray(getattr(action_space, "start", 0))
    if starts.any():
        raise ValueError(
            f"{name}: SB3's policies count actions from 0. Wrap the environment in a gymnasium.ActionWrapper that adds the "
            "start, with a space without it."
        )


def check_observation_space(observation_space: spaces.Space) -> None:
    """:raises ValueError: if SB3 has no features of observations of this space, with the wrapper that cures it"""
    named = observation_space.spaces if isinstance(observation_space, spaces.Dict) else {"": observation_space}
    if not named:
        raise ValueError("The environment's observation space is an empty Dict: there is nothing to learn from.")
    for key, space in named.items():
        name = f"The entry {key!r} of the environment's observation space" if key else "The environment's observation space"
        name = f"{name} is {str(space)[:80]}"
        if not isinstance(space, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            raise ValueError(
                f"{name}: only Box, Discrete, MultiDiscrete, MultiBinary and a Dict of these are supported. Wrap it in "
                "gymnasium.wrappers.FlattenObservation, or in a gymnasium.ObservationWrapper that makes such a space of it."
            )
        if 0 in (space.shape or ()) or (isinstance(space, spaces.MultiDiscrete) and len(space.shape) > 1):
            raise ValueError(
                f"{name}, of shape {space.shape}: SB3 has no features of it. Wrap the environment in a "
                "gymnasium.ObservationWrapper that flattens it, or leaves it out."
            )
        if np.asarray(getattr(space, "start", 0)).any():
            raise ValueError(
                f"{name}: SB3's one-hot codes count from 0. Wrap the environment in a gymnasium.ObservationWrapper that "
                "subtracts the start, with a space without it."
            )


def to_tensors(
    policy: SoftQPolicy | SACPolicy, obs: Any, actions: np.ndarray, next_obs: Any, terminated: np.ndarray
) -> tuple[PyTorchObs, th.Tensor, PyTorchObs, th.Tensor]:
    """
    :param policy: the policy
    :param obs: a batch of observations, an array or a dictionary of arrays
    :param actions: actions in the environment's units, shape (batch, \\*action_shape)
    :param next_obs: next observations, of the form of ``obs``
    :param terminated: whether the episode ended in a terminal state, shape (batch,)
    :return: the same as the networks take them
    :raises ValueError: if the shapes do not fit
    """
    obs_tensor, vectorized = policy.obs_to_tensor(obs)
    next_obs_tensor, _ = policy.obs_to_tensor(next_obs)
    if not vectorized:
        raise ValueError("`obs` is a single observation: give a batch, shape (batch, *obs_shape).")
    dones = th.as_tensor(np.asarray(terminated, dtype=np.float32).reshape(-1), device=policy.device)
    transitions = obs_tensor, policy.network_actions(actions), next_obs_tensor, dones
    lengths = [batch_length(values) for values in transitions]
    if len(set(lengths)) > 1:
        raise ValueError(f"`obs`, `actions`, `next_obs` and `terminated` are of different lengths: {lengths}.")
    return transitions
