"""
The reward that is assumed before anything is learned: high where a transition is like the demonstrations.

With Box actions it goes by the distance to them in standardised states and actions, as in PWIL
(https://arxiv.org/abs/2006.04678), with a tail that falls like 1 / d instead of exponentially, so that it has a slope far from
the demonstrations too. With discrete actions it is the log-likelihood of a clone, up to the entropy the coherent reward of
https://arxiv.org/abs/2305.16498: a policy that knows nothing else then acts like the clone.
"""

from typing import TYPE_CHECKING

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, preprocess_obs
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, PyTorchObs, ReplayBufferSamples
from torch.nn import functional as F

from sb3_iq.iq_learn.normalization import MAX_SIZE

if TYPE_CHECKING:
    from sb3_iq.iq_learn.iq_learn import IQLearn

Samples = ReplayBufferSamples | DictReplayBufferSamples

# A reward is halved at this share of sqrt(D), the distance of one standard deviation in each of D numbers
HALF_WAY = 0.2
# With more transitions of the expert than this, only so many are compared with, evenly spread
MAX_TRANSITIONS = 4_096
# What is this near in time is as good as the transition itself, and doesn't tell how far apart the expert's transitions are
NEIGHBOURS = 5
# What is constant in the demonstrations counts in its own units
MIN_STD = 1e-3
MIN_ACTION_STD = 0.05
# The clone: few steps, since one that has learned a demonstration by heart is sure of itself everywhere
CLONING_STEPS = 300
CLONING_RATE = 5e-4
# All actions that are less likely than e^-5, 0.7 %, are as good
MIN_LOG_LIKELIHOOD = -5.0


def has_distance(observation_space: spaces.Space) -> bool:
    """:return: whether the distance of two observations says how alike they are, as it doesn't with images"""
    named = observation_space.spaces.values() if isinstance(observation_space, spaces.Dict) else [observation_space]
    return not any(is_image_space(space) for space in named)


class DistancePrior:
    """
    r_0 = height / (1 + 5 d / sqrt(D)), for the distance d to the nearest transition of the expert in D numbers: observations
    and Box actions in standard deviations of the demonstrations, discrete observations as one-hot codes. Where the expert's
    actions are not read, the next observation stands in for them.

    The expert's own transitions are rated like the policy's: by the distance to the nearest *other* one, those within five
    steps left out. At a distance of 0 they would be worth more than the same expert's next episode, and the critic, which sees
    them in every batch, would expect of their surroundings what nobody can earn there.

    :param model: the algorithm, with its demonstrations; its ``reward_prior`` is the height
    """

    def __init__(self, model: "IQLearn") -> None:
        assert model.expert_buffer is not None
        self.height = model.reward_prior
        self.observation_space = model.policy.observation_space
        expert = model.expert_buffer.all(model.get_vec_normalize_env(), at_most=MAX_TRANSITIONS)
        self.statistics = {key: _mean_and_std(values) for key, values in self._vectors(expert.observations).items()}
        self.action_std: th.Tensor | None = None
        if model.expert_actions == "given":
            self.action_std = expert.actions.std(dim=0, unbiased=False) + MIN_ACTION_STD
        self.expert = self._coordinates(expert)
        episode, step = (
            th.as_tensor(column, device=model.device) for column in model.expert_buffer.positions(MAX_TRANSITIONS)
        )
        near = (episode[:, None] == episode) & ((step[:, None] - step).abs() <= NEIGHBOURS)
        distance = th.cdist(self.expert, self.expert).masked_fill(near, th.inf).amin(dim=1)
        # A demonstration of a few steps has no others
        self.expert_rewards = self._reward(distance.where(distance.isfinite(), 0.0))

    def _vectors(self, obs: PyTorchObs) -> dict[str, th.Tensor]:
        """Return observations as vectors, discrete ones as one-hot codes."""
        named_obs = obs if isinstance(obs, dict) else {"": obs}
        space = self.observation_space
        named_spaces = space.spaces if isinstance(space, spaces.Dict) else {"": space}
        return {key: preprocess_obs(values, named_spaces[key]).flatten(1) for key, values in named_obs.items()}  # type: ignore

    def _coordinates(self, samples: Samples) -> th.Tensor:
        parts = self._standardized(samples.observations)
        if self.action_std is None:
            parts += self._standardized(samples.next_observations)
        else:
            parts.append(samples.actions / self.action_std)
        return th.cat(parts, dim=1)

    def _standardized(self, obs: PyTorchObs) -> list[th.Tensor]:
        parts = []
        for key, values in self._vectors(obs).items():
            mean, std = self.statistics[key]
            parts.append(((values - mean) / std).clamp(-MAX_SIZE, MAX_SIZE))
        return parts

    def _reward(self, distance: th.Tensor) -> th.Tensor:
        return self.height / (1 + distance / (HALF_WAY * self.expert.shape[1] ** 0.5))

    def of_expert(self, samples: Samples) -> th.Tensor:
        """
        :param samples: transitions of the demonstrations
        :return: their prior rewards, shape (batch,), each by the distance to the nearest other one. What is not among the
            transitions that are compared with is worth what the nearest of these is
        """
        return self.expert_rewards[th.cdist(self._coordinates(samples), self.expert).argmin(dim=1)]

    def __call__(self, samples: Samples) -> th.Tensor:
        """
        :param samples: transitions of the policy
        :return: their prior rewards, shape (batch,)
        """
        return self._reward(th.cdist(self._coordinates(samples), self.expert).amin(dim=1))


class ClonePrior:
    """
    r_0 = weight * max(log pi_c(a|s), -5), for a clone pi_c of the demonstrations: a new Q-network of the policy, as logits,
    after some steps of behavioural cloning. It draws no random numbers of the run: a loaded model gets the same again.

    :param model: the algorithm, with its demonstrations; its ``reward_prior`` is the weight
    """

    def __init__(self, model: "IQLearn") -> None:
        assert model.expert_buffer is not None
        self.weight = model.reward_prior
        seed = model.seed or 0
        expert_rng = np.random.default_rng(seed)
        devices = [model.device] if model.device.type == "cuda" else []
        with th.random.fork_rng(devices):
            th.manual_seed(seed)
            self.network = model.policy.make_q_net().to(model.device)  # type: ignore[operator]
            self.network.set_training_mode(True)
            optimizer = th.optim.Adam(self.network.parameters(), lr=CLONING_RATE)
            for _ in range(CLONING_STEPS):
                batch = model.expert_buffer.sample(model.batch_size, env=model._vec_normalize_env, rng=expert_rng)
                loss = F.cross_entropy(self.network(batch.observations), batch.actions.flatten().long())
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        self.network.set_training_mode(False)

    def __call__(self, samples: Samples) -> th.Tensor:
        """
        :param samples: transitions, the policy's or the expert's
        :return: their prior rewards, shape (batch,)
        """
        with th.no_grad():
            log_likelihood = F.log_softmax(self.network(samples.observations), dim=1)
        return self.weight * log_likelihood.gather(1, samples.actions.long()).squeeze(1).clamp(min=MIN_LOG_LIKELIHOOD)

    of_expert = __call__


class SolutionPrior:
    """
    r_0 = Q_0(s, a) - gamma V_0(s'), the reward that a soft Q-network of discrete actions stands for when it begins to learn
    online, e.g. after offline training: nothing is to be unlearned, and only the demonstrations and what is tried change it.

    :param model: the algorithm, trained
    """

    def __init__(self, model: "IQLearn") -> None:
        self.weight, self.gamma, self.ent_coef = model.reward_prior, model.gamma, model.policy.ent_coef.clone()
        self.network = model.policy.make_q_net().to(model.device)  # type: ignore[operator]
        self.network.load_state_dict(model.policy.q_net.state_dict())  # type: ignore[union-attr]
        self.network.set_training_mode(False)

    def __call__(self, samples: Samples) -> th.Tensor:
        """
        :param samples: transitions, the policy's or the expert's
        :return: their prior rewards, shape (batch,); an end repeats its reward for ever, as ``"absorbing"`` has it
        """
        with th.no_grad():
            q = self.network(samples.observations).gather(1, samples.actions.long()).squeeze(1)
            v = self.ent_coef * th.logsumexp(self.network(samples.next_observations) / self.ent_coef, dim=1)
        return self.weight * (q - self.gamma * th.where(samples.dones.flatten() > 0, q, v))

    of_expert = __call__


RewardPrior = DistancePrior | ClonePrior | SolutionPrior


def is_cloned(model: "IQLearn") -> bool:
    """:return: whether a clone says what is like the demonstrations: of discrete actions, if they are read"""
    return not isinstance(model.action_space, spaces.Box) and model.expert_actions == "given"


def preset_coefficient(model: "IQLearn", coefficient: float) -> float:
    """:return: the preset's ``reward_prior`` for a model: of discrete actions there is none where nothing can be cloned"""
    # While a saved model is loaded, which brings its own, there are no spaces yet
    return coefficient if model.expert_actions == "given" or isinstance(model.action_space, spaces.Box) else 0.0


def largest_size(model: "IQLearn") -> float:
    """:return: the largest size of a model's prior rewards"""
    return model.reward_prior * (-MIN_LOG_LIKELIHOOD if is_cloned(model) else 1.0)


def reward_prior_of(model: "IQLearn") -> RewardPrior | None:
    """:return: the prior of a model with its demonstrations; None where it has none, and offline"""
    if model.offline or model.reward_prior == 0:
        return None
    if model.keep_solution and is_cloned(model):
        return model.prior if isinstance(model.prior, SolutionPrior) else SolutionPrior(model)
    return ClonePrior(model) if is_cloned(model) else DistancePrior(model)


def _mean_and_std(values: th.Tensor) -> tuple[th.Tensor, th.Tensor]:
    std = values.std(dim=0, unbiased=False)
    return values.mean(dim=0), th.where(std < MIN_STD, 1.0, std)
