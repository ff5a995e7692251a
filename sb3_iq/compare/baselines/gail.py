"""Off-policy GAIL: SAC or DQN rewarded by a regularised discriminator, which is as strong as published adversaries get."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_iq.compare.baselines.discriminator import Discriminator, DiscriminatorSettings
from sb3_iq.compare.baselines.networks import (
    buffer_class,
    check_spaces,
    expert_buffer,
    join,
    learn,
    learner_class,
    make_learner,
)
from sb3_iq.compare.baselines.task import Task, UnsuitedError, check_between, settings_of
from sb3_iq.compare.evaluation import Evaluations
from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.demonstrations.errors import check_integer


@dataclass(frozen=True)
class GAILSettings(DiscriminatorSettings):
    """
    :param learning_rate: of actor and critics
    :param batch_size: transitions of a gradient step
    :param gamma: the discount factor
    :param expert_share: share of a batch of actor and critics that is the expert's
    """

    learning_rate: float = 3e-4
    batch_size: int = 256
    gamma: float = 0.977
    expert_share: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        check_between(self, 0.0, 1.0, "learning_rate")
        check_between(self, 0.0, 0.9999, "gamma")
        check_between(self, 0.0, 0.75, "expert_share")
        check_integer("batch_size", self.batch_size, 2)


class LearnedRewards:
    """
    Makes a replay buffer one whose rewards are the discriminator's of the moment.

    :param discriminator: the discriminator
    :param expert: the expert's transitions, a share of each batch
    :param settings: the discount factor and that share
    """

    def __init__(
        self, *args: Any, discriminator: Discriminator, expert: ExpertBuffer, settings: GAILSettings, **kwargs: Any
    ) -> None:
        super().__init__(*args, **kwargs)
        self.discriminator, self.expert, self.settings = discriminator, expert, settings

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """
        :param batch_size: the number of transitions
        :param env: a VecNormalize, if there is one
        :return: the batch
        """
        n_expert = int(self.settings.expert_share * batch_size)
        batch = super().sample(batch_size - n_expert, env)  # type: ignore[misc]
        if n_expert > 0:
            batch = join(batch, self.expert.sample(n_expert, env))
        return batch._replace(rewards=self.discriminator.rewards(batch, self.settings.gamma))

    def sample_own(self, batch_size: int) -> Any:
        """
        :param batch_size: the number of transitions
        :return: transitions of the policy
        """
        return super().sample(batch_size)  # type: ignore[misc]


class Adversarial:
    """Makes a learner of SB3 take a step of the discriminator before each gradient step."""

    def train(self, gradient_steps: int, batch_size: int) -> None:
        """
        :param gradient_steps: how many
        :param batch_size: transitions of each
        """
        buffer: Any = self.replay_buffer  # type: ignore[attr-defined]
        for _ in range(gradient_steps):
            loss = buffer.discriminator.update(buffer.expert.sample(batch_size), buffer.sample_own(batch_size))
            self.logger.record("train/discriminator_loss", loss)  # type: ignore[attr-defined]
            super().train(1, batch_size)  # type: ignore[misc]


def check(task: Task, given: Mapping[str, Any]) -> None:
    """
    :param task: what to imitate
    :param given: settings
    :raises ValueError: if they, the spaces or the demonstrations do not fit
    """
    settings_of(GAILSettings, "sb3/gail", given)
    space = check_spaces(task)
    if not isinstance(space, spaces.Box) or len(space.shape) == 3:
        raise UnsuitedError(
            f"algos: sb3/gail: its discriminator only takes vectors as observations, but those of {task.environment.env_id} "
            f"are a {type(space).__name__} of shape {space.shape}. Leave it out"
        )


def train(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    :param task: what to imitate
    :param given: settings that differ from :class:`GAILSettings`' defaults
    :param evaluations: what to add to
    """
    settings = settings_of(GAILSettings, "sb3/gail", given)
    env = task.venv()
    expert = expert_buffer(task, env)
    base: type[OffPolicyAlgorithm] = learner_class(env.action_space)
    with th.random.fork_rng():  # SB3 seeds torch itself, later
        th.manual_seed(task.seed)
        rows = th.as_tensor(expert.all(at_most=10_000).observations)
        discriminator = Discriminator(rows, env.action_space, settings)
    model = make_learner(
        type(f"Adversarial{base.__name__}", (Adversarial, base), {}),
        env,
        expert,
        task,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        gamma=settings.gamma,
        replay_buffer_class=type("AdversarialReplayBuffer", (LearnedRewards, buffer_class(env.observation_space)), {}),
        replay_buffer_kwargs={"discriminator": discriminator, "expert": expert, "settings": settings},
    )
    learn(model, task, evaluations)
