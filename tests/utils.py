"""Small environments and demonstrations for the tests."""

import copy
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn
from sb3_iq.demonstrations import Trajectory
from sb3_iq.iq_learn.batches import Batch


class RandomEnv(gym.Env):
    """
    Random observations of any space, reward 1, an end after ``length`` steps.

    :param observation_space: observation space
    :param action_space: action space
    :param length: number of steps of an episode
    :param truncates: whether the end is a time limit or a terminal state
    """

    def __init__(
        self, observation_space: spaces.Space, action_space: spaces.Space, length: int = 10, truncates: bool = False
    ) -> None:
        # Copies: a space has a random number generator of its own
        self.observation_space, self.action_space = copy.deepcopy(observation_space), copy.deepcopy(action_space)
        self.length, self.truncates, self.step_count = length, truncates, 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        self.step_count = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.step_count += 1
        ends = self.step_count >= self.length
        return self.observation_space.sample(), 1.0, ends and not self.truncates, ends and self.truncates, {}


class NoStepEnv(RandomEnv):
    """An environment whose ``step`` raises: offline training must never call it."""

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        raise AssertionError("the environment was stepped")


def random_trajectories(env: gym.Env, n_episodes: int = 3, length: int = 10, seed: int = 0) -> list[Trajectory]:
    """
    :param env: an environment, of which only the spaces are used
    :param n_episodes: how many
    :param length: number of steps of each
    :param seed: seed of both spaces' samples
    :return: episodes of random observations and actions that end in a terminal state
    """
    observation_space, action_space = copy.deepcopy(env.observation_space), copy.deepcopy(env.action_space)
    observation_space.seed(seed)
    action_space.seed(seed)
    trajectories = []
    for _ in range(n_episodes):
        samples = [observation_space.sample() for _ in range(length + 1)]
        if isinstance(observation_space, spaces.Dict):
            obs: Any = {key: np.stack([sample[key] for sample in samples]) for key in samples[0]}
        else:
            obs = np.stack(samples)
        acts = np.stack([action_space.sample() for _ in range(length)])
        trajectories.append(Trajectory(obs=obs, acts=acts, rews=np.ones(length), terminated=True, truncated=False))
    return trajectories


BOX = spaces.Box(-1.0, 1.0, (3,), np.float32)
WIDE_BOX = spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 10.0]), dtype=np.float64)
IMAGE = spaces.Box(0, 255, (36, 36, 3), np.uint8)
DICT = spaces.Dict({"vector": spaces.Box(-1.0, 1.0, (4,), np.float32), "image": IMAGE})
DISCRETE = spaces.Discrete(3)

# Every combination that IQLearn is for: policy, observation space, action space
COMBINATIONS = [
    ("MlpPolicy", BOX, DISCRETE),
    ("MlpPolicy", BOX, WIDE_BOX),
    ("MlpPolicy", spaces.Discrete(5), DISCRETE),
    ("MlpPolicy", spaces.MultiBinary(4), WIDE_BOX),
    ("CnnPolicy", IMAGE, DISCRETE),
    ("CnnPolicy", IMAGE, WIDE_BOX),
    ("MultiInputPolicy", DICT, DISCRETE),
    ("MultiInputPolicy", DICT, WIDE_BOX),
    ("MlpPolicy", BOX, spaces.Box(-1.0, 1.0, (2, 2), np.float32)),
    ("MlpPolicy", BOX, spaces.MultiDiscrete([3, 2])),
    ("MlpPolicy", spaces.Discrete(5), spaces.MultiBinary(2)),
]

# A model that learns within a fraction of a second
SMALL: dict[str, Any] = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu")


def make_model(
    policy: str,
    observation_space: spaces.Space,
    action_space: spaces.Space,
    env_class: type[RandomEnv] = RandomEnv,
    **kwargs: Any,
) -> IQLearn:
    """
    :param policy: alias of a policy
    :param observation_space: observation space
    :param action_space: action space
    :param env_class: class of the environment
    :param kwargs: arguments of the constructor besides :data:`SMALL`
    :return: a model with demonstrations of random actions
    """
    env = env_class(observation_space, action_space)
    if policy != "MlpPolicy":
        kwargs.setdefault("policy_kwargs", dict(net_arch=[16]))
    return IQLearn(policy, env, random_trajectories(env), **{**SMALL, **kwargs})


def parameters(model: IQLearn) -> th.Tensor:
    """:return: a copy of all parameters of the policy, targets included, as one vector"""
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


def assert_finite(model: IQLearn) -> None:
    """All parameters are finite numbers."""
    assert th.isfinite(parameters(model)).all()


def sample_batch(model: IQLearn, n: int = 8) -> Batch:
    """
    :param model: a model that has learned for a step or more
    :param n: number of transitions of the expert, and online as many of the policy
    :return: a batch as ``train`` draws it
    """
    assert model.sampler is not None
    return model.sampler.sample(n, model.num_timesteps // model.n_envs, model._actions_of_expert)


class Rows(NamedTuple):
    """What the objective asks of a batch."""

    terminated: th.Tensor
    n_expert: int
    reward_prior: th.Tensor | float = 0.0


def check_learning(policy: str, observation_space: spaces.Space, action_space: spaces.Space, offline: bool) -> None:
    """Online or offline, every parameter is learned, stays finite, and predictions are in the action space."""
    env_class = NoStepEnv if offline else RandomEnv
    model = make_model(policy, observation_space, action_space, env_class, offline=offline)
    before = {name: parameter.clone() for name, parameter in model.policy.named_parameters()}
    assert model.learn(20) is model
    assert model.num_timesteps == 20
    # Online after ten random steps
    assert model._n_updates == (20 if offline else 10)
    assert_finite(model)
    same = [name for name, parameter in model.policy.named_parameters() if th.equal(parameter, before[name])]
    assert same == ([] if str(model.ent_coef).startswith("auto") else ["log_ent_coef"])
    obs = model.get_env().reset()  # type: ignore[union-attr]
    for deterministic in (True, False):
        action, _ = model.predict(obs, deterministic=deterministic)  # type: ignore[arg-type]
        assert model.action_space.contains(action[0])
