"""SQIL (https://arxiv.org/abs/1905.11108): SAC or DQN with reward 1 for the expert's transitions and 0 for one's own."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch as th
from gymnasium import spaces

from sb3_iq.compare.baselines.networks import (
    buffer_class,
    check_spaces,
    expert_buffer,
    join,
    learn,
    learner_class,
    make_learner,
)
from sb3_iq.compare.baselines.task import Task, check_between, settings_of
from sb3_iq.compare.evaluation import Evaluations
from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.demonstrations.errors import check_integer


@dataclass(frozen=True)
class SQILSettings:
    """
    :param learning_rate: of actor and critics
    :param batch_size: transitions of a gradient step, half of them the expert's
    :param gamma: the discount factor
    """

    learning_rate: float = 3e-4
    batch_size: int = 256
    gamma: float = 0.99

    def __post_init__(self) -> None:
        check_between(self, 0.0, 1.0, "learning_rate", "gamma")
        check_integer("batch_size", self.batch_size, 2)


class ExpertRewards:
    """
    Makes a replay buffer SQIL's: half of a batch is the expert's.

    :param expert: the expert's transitions; actions scaled and time limits told apart as SB3's own buffers do
    """

    def __init__(self, *args: Any, expert: ExpertBuffer, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expert = expert

    def sample(self, batch_size: int, env: Any = None) -> Any:
        """
        :param batch_size: the number of transitions, both together
        :param env: a VecNormalize, if there is one
        :return: the batch
        """
        own = super().sample(batch_size - batch_size // 2, env)  # type: ignore[misc]
        expert = self.expert.sample(batch_size // 2, env)
        return join(own, expert, rewards=th.cat((th.zeros_like(own.rewards), th.ones_like(expert.rewards))))


def sqil_buffer(space: spaces.Space) -> type:
    """
    :param space: an observation space
    :return: SQIL's replay buffer for it
    """
    return type("SQILReplayBuffer", (ExpertRewards, buffer_class(space)), {})


def check(task: Task, given: Mapping[str, Any]) -> None:
    """
    :param task: what to imitate
    :param given: settings
    :raises ValueError: if they, the spaces or the demonstrations do not fit
    """
    settings_of(SQILSettings, "sb3/sqil", given)
    check_spaces(task)


def train(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    :param task: what to imitate
    :param given: settings that differ from :class:`SQILSettings`' defaults
    :param evaluations: what to add to
    """
    settings = settings_of(SQILSettings, "sb3/sqil", given)
    env = task.venv()
    expert = expert_buffer(task, env)
    model = make_learner(
        learner_class(env.action_space),
        env,
        expert,
        task,
        learning_rate=settings.learning_rate,
        batch_size=settings.batch_size,
        gamma=settings.gamma,
        replay_buffer_class=sqil_buffer(env.observation_space),
        replay_buffer_kwargs={"expert": expert},
    )
    learn(model, task, evaluations)
