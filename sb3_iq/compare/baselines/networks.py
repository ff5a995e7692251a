"""What all baselines share: SB3's networks on standardised observations, and its SAC or DQN."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.torch_layers import CombinedExtractor, FlattenExtractor, NatureCNN
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq.compare.baselines.task import Task, UnsuitedError
from sb3_iq.compare.environment import policy_name
from sb3_iq.compare.evaluation import EvaluationCallback, Evaluations
from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.normalization import CenterImages, Standardize
from sb3_iq.observations import integer_pixels


class StandardizedExtractor(FlattenExtractor):
    """
    Flattens an observation vector and standardises it by the demonstrations' statistics.

    :param observation_space: the observation space
    :param rows: the demonstrations' observations, shape (n, \\*obs_shape)
    """

    def __init__(self, observation_space: spaces.Space, rows: th.Tensor) -> None:
        super().__init__(observation_space)  # type: ignore[arg-type]
        flat = rows.flatten(1)
        self.standardize = Standardize(flat.shape[1:]).fit(flat)

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return self.standardize(super().forward(observations))


class CenteredCNN(NatureCNN):
    """
    NatureCNN of images whose background is 0, as IQ-Learn sees them.

    :param observation_space: the observation space
    :param center: fitted to the demonstrations, shared by all networks
    :param kwargs: more arguments of ``NatureCNN``
    """

    def __init__(self, observation_space: spaces.Box, center: CenterImages, **kwargs: Any) -> None:
        super().__init__(observation_space, **kwargs)
        self.center = center

    def forward(self, observations: th.Tensor) -> th.Tensor:
        return super().forward(self.center(observations))


def expert_buffer(task: Task, env: VecEnv) -> ExpertBuffer:
    """
    :param task: with the demonstrations
    :param env: of the environment
    :return: the demonstrations' transitions
    :raises ValueError: if they do not fit the environment, or hold no actions
    """
    if any(episode.acts is None for episode in task.demonstrations):
        raise ValueError(
            "demos hold episodes without actions (state-only data), but the baselines learn from actions. Give data with "
            "acts, or compare IQ-Learn alone: iq:expert_actions=policy, iq:expert_actions=inverse_dynamics"
        )
    rng = np.random.default_rng(task.seed)
    return ExpertBuffer(task.demonstrations, env.observation_space, env.action_space, rng=rng)


def policy_kwargs(expert: ExpertBuffer) -> dict[str, Any]:
    """
    :param expert: the demonstrations' transitions
    :return: two layers of 256 units, as IQ-Learn has, on standardised vectors and centred images; dictionaries have SB3's
        extractor
    """
    space = expert.observation_space
    kwargs: dict[str, Any] = {"net_arch": [256, 256]}
    if isinstance(space, spaces.Dict):
        return {**kwargs, "features_extractor_class": CombinedExtractor}
    if policy_name(space) == "CnnPolicy":
        images: Any = expert.all(at_most=2_000).observations
        center = CenterImages(space, integer_pixels(space)).fit(images)  # type: ignore[arg-type]
        own = {"features_extractor_class": CenteredCNN, "features_extractor_kwargs": {"center": center}}
        return {**kwargs, **own, "normalize_images": integer_pixels(space)}
    if isinstance(space, spaces.Box):
        rows = th.as_tensor(expert.all(at_most=10_000).observations).float()
        kwargs |= {"features_extractor_class": StandardizedExtractor, "features_extractor_kwargs": {"rows": rows}}
        kwargs["normalize_images"] = False  # images too small for NatureCNN are standardised as they are
    return kwargs


def buffer_class(space: spaces.Space) -> type[ReplayBuffer]:
    """
    :param space: an observation space
    :return: SB3's replay buffer for it
    """
    return DictReplayBuffer if isinstance(space, spaces.Dict) else ReplayBuffer


def learner_class(action_space: spaces.Space) -> type[OffPolicyAlgorithm]:
    """
    :param action_space: the action space
    :return: SAC or DQN
    :raises UnsuitedError: for actions that neither has
    """
    if isinstance(action_space, spaces.Box):
        return SAC
    if isinstance(action_space, spaces.Discrete):
        return DQN
    raise UnsuitedError(
        f"the action space is {type(action_space).__name__}, but the baselines learn by SAC or DQN, which only take Box and "
        "Discrete. Compare algorithms that take it"
    )


def check_spaces(task: Task) -> spaces.Space:
    """
    :param task: what to imitate
    :return: the observation space
    :raises ValueError: if the demonstrations do not fit the environment, or SAC and DQN do not take its actions
    """
    env = task.venv()
    cls = learner_class(env.action_space)
    make_learner(cls, env, expert_buffer(task, env), task, buffer_size=1)
    env.close()
    return env.observation_space


def make_learner(
    cls: type[OffPolicyAlgorithm], env: VecEnv, expert: ExpertBuffer, task: Task, **kwargs: Any
) -> OffPolicyAlgorithm:
    """
    :param cls: SAC or DQN, or derived from one
    :param env: the environment
    :param expert: the demonstrations' transitions
    :param task: budget and seed
    :param kwargs: more arguments of the class
    :return: the learner: a gradient step for each environment step, after a thousand random ones
    """
    common = dict(
        buffer_size=task.timesteps,
        learning_starts=min(1_000, task.timesteps // 4),
        tau=0.005,
        train_freq=1,
        gradient_steps=1,
        policy_kwargs=policy_kwargs(expert),
        seed=task.seed,
        device="cpu",  # where the expert's transitions are; a run has one core
    )
    if issubclass(cls, DQN):
        common |= dict(target_update_interval=1, exploration_fraction=0.1, exploration_final_eps=0.02)
    return cls(policy_name(env.observation_space), env, **{**common, **kwargs})  # type: ignore[arg-type]


def learn(model: OffPolicyAlgorithm, task: Task, evaluations: Evaluations) -> None:
    """
    Spend the budget of environment steps, evaluated on the way and at the end.

    :param model: what :func:`make_learner` returned
    :param task: budget
    :param evaluations: what to add to
    """
    model.learn(task.timesteps, EvaluationCallback(evaluations))
    evaluations.env_steps, evaluations.gradient_steps = model.num_timesteps, model._n_updates
    evaluations.finish(model, model.num_timesteps)
    assert model.env is not None
    model.env.close()


def join(first: Any, second: Any, **changes: th.Tensor) -> Any:
    """
    :param first: a batch of SB3
    :param second: another of the same kind
    :param changes: fields of the whole that are something else
    :return: both in one, by field: some are dictionaries, and some None, depending on SB3's version
    """

    def cat(a: Any, b: Any) -> Any:
        if a is None:
            return None
        return {key: th.cat((a[key], b[key])) for key in a} if isinstance(a, dict) else th.cat((a, b))

    joined = {name: cat(getattr(first, name), getattr(second, name)) for name in first._fields}
    return type(first)(**{**joined, **changes})
