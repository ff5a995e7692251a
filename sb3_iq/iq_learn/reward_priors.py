"""
The reward r_0 that is assumed before anything is learned: high where a transition is like the demonstrations.

Which prior there is, the table :data:`PRIORS` says; a new one is one class and one row. With continuous actions it goes by the
distance to the demonstrations in standardised states and actions, as in PWIL (https://arxiv.org/abs/2006.04678), with a tail
that falls like 1 / d instead of exponentially, so that it has a slope far from the demonstrations too. With discrete actions
it is the reward of the offline solution. As the coherent reward of a clone (https://arxiv.org/abs/2305.16498) it makes what
the demonstrations alone say the policy to start from, and the one to return to.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.type_aliases import PyTorchObs
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.batches import assemble
from sb3_iq.iq_learn.diagnostics import minimize
from sb3_iq.iq_learn.normalization import Standardize, own_units_if_constant
from sb3_iq.iq_learn.objective import Objective
from sb3_iq.iq_learn.optimization import polyak_update
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy
from sb3_iq.iq_learn.terminal_value import terminal_value
from sb3_iq.iq_learn.updates import critic_loss, recovered_reward
from sb3_iq.observations import Samples, has_distance

# A reward is halved at this share of sqrt(D), the distance of one standard deviation in each of D numbers
HALF_WAY = 0.2
# With more transitions of the expert than this, only so many are compared with, evenly spread
MAX_TRANSITIONS = 4_096
# What is this near in time is as good as the transition itself, and does not tell how far apart the expert's transitions are.
# Nor does the rest of an episode, where there are others
NEIGHBOURS = 5
MIN_ACTION_STD = 0.05
# Offline training
OFFLINE_STEPS = 3_000
OFFLINE_RATE = 5e-4
OFFLINE_PENALTY = 8.0
OFFLINE_TAU = 0.005
OFFLINE_ENT_COEF = 0.01  # where the temperature is learned
# The demonstrations' own rewards are within 1/c; where nothing was learned they are whatever the network makes of it
MAX_REWARD = 1.0
# How long it takes is told from these gradient steps, at half of which everything that is done once has been done
TIMED_STEPS = 40
# Transitions of the expert whose rewards are computed at a time
PIECE = 4_096


@dataclass(frozen=True)
class PriorInputs:
    """
    What a prior is made of.

    :param expert_buffer: the demonstrations
    :param env: the ``VecNormalize`` whose statistics observations are normalised with, if there is one
    :param policy: the policy, for its spaces and the architecture of its networks
    :param expert_actions_given: whether the expert's actions are read
    :param coefficient: ``reward_prior``, the size of the rewards
    :param gamma: the discount factor
    :param ent_coef: the temperature alpha
    :param batch_size: the number of the expert's transitions in a gradient step
    :param seed: seed of what is random in it
    :param verbose: from 1 on, it is said what takes time
    :param policy_kwargs: what the policy was made with
    """

    expert_buffer: ExpertBuffer
    env: VecNormalize | None
    policy: SoftQPolicy | SACPolicy
    expert_actions_given: bool
    coefficient: float
    gamma: float
    ent_coef: float
    batch_size: int
    seed: int
    verbose: int = field(default=0, compare=False)
    policy_kwargs: Mapping[str, Any] = field(default_factory=dict, compare=False)


class RewardPrior(Protocol):
    """A prior of rewards, made anew from :class:`PriorInputs` where VecNormalize's statistics have changed."""

    bound: ClassVar[float]
    """The largest magnitude of a reward, for a coefficient of 1"""

    def __init__(self, inputs: PriorInputs) -> None: ...

    @staticmethod
    def follows_statistics(n_updates: int) -> bool:
        """Whether to make it anew after so many gradient steps, where VecNormalize's statistics change"""

    def start(self, policy: SoftQPolicy | SACPolicy) -> bool:
        """Let an untrained policy start from what the prior knows; whether there is such a thing"""

    def of_expert(self, samples: Samples) -> th.Tensor:
        """r_0 of transitions of the demonstrations, shape (batch,)"""

    def __call__(self, samples: Samples) -> th.Tensor:
        """r_0 of transitions of the policy, shape (batch,)"""


def near_in_time(expert_buffer: ExpertBuffer, at_most: int) -> np.ndarray:
    """
    :param expert_buffer: the demonstrations
    :param at_most: with more transitions than this, only so many, as ``expert_buffer.all`` takes them
    :return: for each two of these transitions whether they are of one episode or, where there is but one, at most
        :data:`NEIGHBOURS` steps apart, shape (n, n)
    """
    episodes, steps = expert_buffer.places(at_most)
    near = episodes[:, None] == episodes
    return np.abs(steps[:, None] - steps) <= NEIGHBOURS if near.all() else near


class DistancePrior:
    """
    r_0 = height / (1 + 5 d / sqrt(D)), for the distance d to the nearest transition of the expert in D numbers: observations
    and continuous actions in standard deviations of the demonstrations, discrete observations as one-hot codes. Where the
    expert's actions are not read, the next observation stands in for them.

    The expert's own transitions are rated like the policy's: by the distance to the nearest one of *another* demonstration; of
    a single demonstration, to the nearest other one, those within five steps left out. At a distance of 0 they would be worth
    more than the same expert's next episode, and the critic, which sees them in every batch, would expect of their
    surroundings what nobody can earn there.

    :param inputs: what it is made of; the coefficient is the height
    """

    bound: ClassVar[float] = 1.0

    def __init__(self, inputs: PriorInputs) -> None:
        self.height = inputs.coefficient
        self.observation_space = inputs.policy.observation_space
        expert = inputs.expert_buffer.all(inputs.env, at_most=MAX_TRANSITIONS)
        self.standardize = {
            key: Standardize(values.shape[1:], own_units_if_constant).to(values.device).fit(values)
            for key, values in self._vectors(expert.observations).items()
        }
        self.action_std: th.Tensor | None = None
        if inputs.expert_actions_given:
            self.action_std = expert.actions.std(dim=0, unbiased=False) + MIN_ACTION_STD
        self.expert = self._coordinates(expert)
        near = th.from_numpy(near_in_time(inputs.expert_buffer, MAX_TRANSITIONS))
        distance = th.cdist(self.expert, self.expert).masked_fill(near.to(self.expert.device), th.inf).amin(dim=1)
        # A demonstration of a few steps has no others
        self.expert_rewards = self._reward(distance.where(distance.isfinite(), 0.0))

    @staticmethod
    def follows_statistics(n_updates: int) -> bool:
        return True

    def start(self, policy: SoftQPolicy | SACPolicy) -> bool:
        """:return: False: a distance knows no actions to start from"""
        return False

    def _vectors(self, obs: PyTorchObs) -> dict[str, th.Tensor]:
        """Return observations as vectors, discrete ones as one-hot codes."""
        named_obs = obs if isinstance(obs, dict) else {"": obs}
        space = self.observation_space
        named_spaces = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        return {key: preprocess_obs(values, named_spaces[key]).flatten(1) for key, values in named_obs.items()}  # type: ignore

    def _standardized(self, obs: PyTorchObs) -> list[th.Tensor]:
        return [self.standardize[key](values) for key, values in self._vectors(obs).items()]

    def _coordinates(self, samples: Samples) -> th.Tensor:
        parts = self._standardized(samples.observations)
        if self.action_std is None:
            parts += self._standardized(samples.next_observations)
        else:
            parts.append(samples.actions / self.action_std)
        return th.cat(parts, dim=1)

    def of_expert(self, samples: Samples) -> th.Tensor:
        """
        :param samples: transitions of the demonstrations
        :return: their prior rewards, shape (batch,), each by the distance to another one. One that is not among those that are
            compared with is worth what the nearest of these is
        """
        return self.expert_rewards[th.cdist(self._coordinates(samples), self.expert).argmin(dim=1)]

    def __call__(self, samples: Samples) -> th.Tensor:
        """
        :param samples: transitions of the policy
        :return: their prior rewards, shape (batch,)
        """
        return self._reward(th.cdist(self._coordinates(samples), self.expert).amin(dim=1))

    def _reward(self, distance: th.Tensor) -> th.Tensor:
        return self.height / (1 + distance / (HALF_WAY * self.expert.shape[1] ** 0.5))


class SolutionPrior:
    """
    r_0 = Q_0(s, a) - gamma V_0(s'), the reward that IQ-Learn recovers from the demonstrations alone (Eq. 12): of a soft
    Q-network like the policy's, trained offline. For this reward the offline solution is optimal: a policy starts from it, and
    only what the demonstrations say of the states that it comes to changes it. It draws no random numbers of the run: a loaded
    model gets the same again.

    :param inputs: what it is made of; the coefficient is a factor
    """

    bound: ClassVar[float] = MAX_REWARD

    def __init__(self, inputs: PriorInputs) -> None:
        assert isinstance(inputs.policy, SoftQPolicy)  # as the table says
        self.weight, self.gamma, expert_buffer = inputs.coefficient, inputs.gamma, inputs.expert_buffer
        objective = Objective(
            inputs.gamma, occupancy_term="expert", penalty="expert", penalty_coef=OFFLINE_PENALTY, critic_bound="clip"
        )
        terminal_v = terminal_value(replace(objective, terminal_value="absorbing"), True, expert_buffer.terminates)
        objective = replace(objective, terminal_v=terminal_v)
        expert_rng = np.random.default_rng(inputs.seed)
        with th.random.fork_rng([expert_buffer.device] if expert_buffer.device.type == "cuda" else []):
            th.manual_seed(inputs.seed)
            self.policy = inputs.policy.untrained(OFFLINE_RATE, inputs.ent_coef, inputs.policy_kwargs)
            q_net, q_net_target, optimizer = self.policy.critic_networks()
            started = 0.0
            for n_updates in range(OFFLINE_STEPS):
                if n_updates == TIMED_STEPS // 2:
                    started = time.perf_counter()
                elif n_updates == TIMED_STEPS and inputs.verbose >= 1:
                    seconds = (time.perf_counter() - started) * 2 / TIMED_STEPS * OFFLINE_STEPS
                    steps = f"{OFFLINE_STEPS} gradient steps, about {seconds:.0f} s"
                    print(f"Learning the prior of rewards from the demonstrations alone: {steps}.", flush=True)
                expert = expert_buffer.sample(inputs.batch_size, env=inputs.env, rng=expert_rng)
                augment = self.policy.random_shift
                batch = assemble([expert], expert.actions, objective.occupancy_term, augment=augment)
                loss, info = critic_loss(self.policy, batch, self.policy.ent_coef, objective, bc_coef=0.0)
                minimize(loss, info, optimizer, n_updates)
                polyak_update(q_net.parameters(), q_net_target.parameters(), OFFLINE_TAU)
        self.policy.set_training_mode(False)

    @staticmethod
    def follows_statistics(n_updates: int) -> bool:
        # Training is dear, and the statistics change less each time: at every doubling, 100, 200, 400, ...
        return n_updates % 100 == 0 and (n_updates // 100) & (n_updates // 100 - 1) == 0

    def start(self, policy: SoftQPolicy | SACPolicy) -> bool:
        """
        :param policy: a policy before its first gradient step, whose networks become those of the offline solution
        :return: True
        """
        for network, trained in zip(policy.critic_networks()[:2], self.policy.critic_networks()[:2], strict=True):
            network.load_state_dict(trained.state_dict())
        policy.average_actor(0)
        return True

    def __call__(self, samples: Samples) -> th.Tensor:
        """
        :param samples: transitions, the policy's or the expert's
        :return: their prior rewards, shape (batch,). An end is an absorbing state, in which its reward is paid for ever
        """
        transitions = samples.observations, samples.actions, samples.next_observations, samples.dones.flatten()
        rewards = recovered_reward(self.policy, *transitions, self.gamma, terminal_v=None)
        return self.weight * rewards.clamp(-MAX_REWARD, MAX_REWARD)

    of_expert = __call__


class PriorRow(NamedTuple):
    """
    :param prior: the class
    :param applies: whether it is for this observation space, action space, and expert actions that are read
    """

    prior: type[RewardPrior]
    applies: Callable[[spaces.Space, spaces.Space, bool], bool]


PRIORS: dict[str, PriorRow] = {
    "solution": PriorRow(SolutionPrior, lambda obs, actions, given: not isinstance(actions, spaces.Box) and given),
    "distance": PriorRow(DistancePrior, lambda obs, actions, given: has_distance(obs)),
}
"""The priors; the first that applies is taken."""


def prior_class(observation_space: spaces.Space, action_space: spaces.Space, given: bool) -> type[RewardPrior] | None:
    """
    :param observation_space: the observation space
    :param action_space: the action space
    :param given: whether the expert's actions are read
    :return: which prior there is; None if none applies, as with images and continuous actions
    """
    return next((row.prior for row in PRIORS.values() if row.applies(observation_space, action_space, given)), None)


def rewards_of_expert(prior: RewardPrior, expert_buffer: ExpertBuffer, env: VecNormalize | None) -> th.Tensor:
    """
    :param prior: the prior
    :param expert_buffer: the demonstrations
    :param env: the ``VecNormalize`` whose statistics observations are normalised with, if there is one
    :return: r_0 of every transition of the demonstrations, shape (n_transitions,)
    """
    size = expert_buffer.size()
    pieces = [np.arange(start, min(start + PIECE, size)) for start in range(0, size, PIECE)]
    return th.cat([prior.of_expert(expert_buffer.at(piece, env)) for piece in pieces])
