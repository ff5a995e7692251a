"""Behavioural cloning to convergence."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional as F

from sb3_iq.compare.baselines.networks import check_spaces, expert_buffer, learner_class, make_learner
from sb3_iq.compare.baselines.task import Task, check_between, settings_of
from sb3_iq.compare.evaluation import Evaluations
from sb3_iq.demonstrations import Demonstrations, ExpertBuffer, Trajectory
from sb3_iq.demonstrations.errors import check_integer

# Rows of a loss on held-out data
MAX_HELD_OUT = 4_096


@dataclass(frozen=True)
class BCSettings:
    """
    :param learning_rate: of Adam
    :param batch_size: transitions of a gradient step
    :param weight_decay: of AdamW
    :param held_out: share of the episodes that early stopping looks at, at least one; of the transitions, if there is one
        episode only
    :param check_every: gradient steps between two looks
    :param patience: looks without a better one before it stops
    :param min_steps: fewest gradient steps
    :param max_steps: most gradient steps
    """

    learning_rate: float = 1e-3
    batch_size: int = 256
    weight_decay: float = 1e-4
    held_out: float = 0.2
    check_every: int = 100
    patience: int = 10
    min_steps: int = 2_000
    max_steps: int = 20_000

    def __post_init__(self) -> None:
        check_between(self, 0.0, 1.0, "learning_rate", "weight_decay")
        check_between(self, 0.05, 0.5, "held_out")
        for name in ("batch_size", "check_every", "patience", "min_steps"):
            check_integer(name, getattr(self, name), 1)
        check_integer("max_steps", self.max_steps, self.min_steps, cure="It is at least min_steps")


def split(demonstrations: Demonstrations, share: float, rng: np.random.Generator) -> tuple[Demonstrations, Demonstrations]:
    """
    :param demonstrations: the episodes
    :param share: how much to hold out
    :param rng: draws what is held out
    :return: episodes to train on, and those held out. Of a single episode, one piece in the middle is held out
    """
    episodes = demonstrations.trajectories
    if len(episodes) > 1:
        n_held_out = max(1, round(share * len(episodes)))
        held_out = set(rng.permutation(len(episodes))[:n_held_out].tolist())
        parts = [[episode for i, episode in enumerate(episodes) if (i in held_out) is chosen] for chosen in (False, True)]
        return replace(demonstrations, trajectories=tuple(parts[0])), replace(demonstrations, trajectories=tuple(parts[1]))
    length = max(1, round(share * len(episodes[0])))
    if length >= len(episodes[0]):
        return demonstrations, demonstrations
    start = int(rng.integers(len(episodes[0]) - length + 1))
    bounds = [(0, start), (start + length, len(episodes[0]))]
    rest = tuple(_piece(episodes[0], *bound) for bound in bounds if bound[0] < bound[1])
    held = (_piece(episodes[0], start, start + length),)
    return replace(demonstrations, trajectories=rest), replace(demonstrations, trajectories=held)


def _piece(episode: Trajectory, start: int, end: int) -> Trajectory:
    """Return some steps of an episode."""
    obs = {key: values[start : end + 1] for key, values in episode.obs.items()} if isinstance(episode.obs, dict) else None
    return replace(
        episode,
        obs=episode.obs[start : end + 1] if obs is None else obs,  # type: ignore[index]
        acts=None if episode.acts is None else episode.acts[start:end],
        rews=None if episode.rews is None else episode.rews[start:end],
        terminated=False,
        truncated=False,
    )


class Cloning:
    """
    A policy, and the loss of cloning: cross-entropy of the Q-network's outputs as logits, the squared error of SAC's actor.

    :param task: budget and seed
    :param env: of the environment
    :param settings: of cloning
    :param expert: the transitions to train on
    """

    def __init__(self, task: Task, env: VecEnv, settings: BCSettings, expert: ExpertBuffer) -> None:
        self.model: OffPolicyAlgorithm = make_learner(learner_class(env.action_space), env, expert, task, buffer_size=1)
        self.discrete = isinstance(env.action_space, spaces.Discrete)
        self.expert, self.batch_size = expert, settings.batch_size
        policy: Any = self.model.policy
        self.network = policy.q_net if self.discrete else policy.actor
        self.optimizer = th.optim.AdamW(
            self.network.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )

    def loss(self, batch: Any) -> th.Tensor:
        """
        :param batch: transitions
        :return: the mean loss
        """
        if self.discrete:
            return F.cross_entropy(self.network(batch.observations), batch.actions.flatten())
        mean, _, _ = self.network.get_action_dist_params(batch.observations)
        return F.mse_loss(th.tanh(mean), batch.actions)

    def train(self, n_steps: int, on_step: Callable[[int], bool] = lambda step: True) -> None:
        """
        :param n_steps: most gradient steps
        :param on_step: called after each; False stops
        """
        self.model.policy.set_training_mode(True)
        for step in range(1, n_steps + 1):
            loss = self.loss(self.expert.sample(self.batch_size))
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            if not on_step(step):
                break


def converge(cloning: Cloning, held_out: ExpertBuffer, settings: BCSettings) -> int:
    """
    Train until the loss on held-out data stops to fall; the policy is then the best one.

    :param cloning: what to train
    :param held_out: transitions that it does not see
    :param settings: of cloning
    :return: the gradient steps of the best policy, and at least the least
    """
    rows = held_out.all(at_most=MAX_HELD_OUT)
    best_loss, best_step, best = float("inf"), 0, copy.deepcopy(cloning.network.state_dict())

    def look(step: int) -> bool:
        nonlocal best_loss, best_step, best
        if step % settings.check_every:
            return True
        cloning.model.policy.set_training_mode(False)
        with th.no_grad():
            loss = float(cloning.loss(rows))
        cloning.model.policy.set_training_mode(True)
        if loss < best_loss:
            best_loss, best_step, best = loss, step, copy.deepcopy(cloning.network.state_dict())
        return step < settings.min_steps or step - best_step < settings.patience * settings.check_every

    cloning.train(settings.max_steps, look)
    cloning.network.load_state_dict(best)
    return max(best_step, settings.min_steps)


def check(task: Task, given: Mapping[str, Any]) -> None:
    """
    :param task: what to imitate
    :param given: settings
    :raises ValueError: if they, the spaces or the demonstrations do not fit
    """
    settings_of(BCSettings, "sb3/bc", given)
    check_spaces(task)


def train(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    Find the number of gradient steps by early stopping, then train for so many on all demonstrations.

    :param task: what to imitate
    :param given: settings that differ from :class:`BCSettings`' defaults
    :param evaluations: what to add to: one point, as no environment step is taken
    """
    settings = settings_of(BCSettings, "sb3/bc", given)
    env = task.venv()
    parts = split(task.demonstrations, settings.held_out, np.random.default_rng(task.seed))
    seen, held_out = (expert_buffer(replace(task, demonstrations=part), env) for part in parts)
    n_steps = converge(Cloning(task, env, settings, seen), held_out, settings)
    cloning = Cloning(task, env, settings, expert_buffer(task, env))
    cloning.train(n_steps)
    evaluations.gradient_steps = n_steps
    evaluations.finish(cloning.model, 0)
    env.close()
