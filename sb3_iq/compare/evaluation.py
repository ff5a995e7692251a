"""One way to evaluate, whatever the algorithm: deterministic actions, the same starts, the environment's own reward."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.policies import BasePolicy

from sb3_iq.compare.environment import Environment

EVAL_SEED = 10_000
Point = dict[str, Any]


@dataclass
class Evaluations:
    """
    The returns of one run as it goes on. Call it with a policy to add a point; the time that takes is not training's.

    :param environment: where to evaluate
    :param n_episodes: episodes of each evaluation
    :param frequency: steps between two evaluations
    :param on_point: called with each new point
    :param common_budget: the steps that all algorithms have. There a longer run is evaluated in any case, and less often from
        there on; None: it is the same throughout
    :param own_budget: the steps of this run
    :param details: of a policy, and of what plays by another one: what to add to its points
    """

    environment: Environment
    n_episodes: int
    frequency: int
    on_point: Callable[[Point], None]
    details: Callable[[Any, Callable[[Any], np.ndarray]], dict[str, Any]] | None = None
    common_budget: int | None = None
    own_budget: int = 0

    def __post_init__(self) -> None:
        self.points: list[Point] = []
        self.seconds = 0.0
        self.env_steps = 0
        self.gradient_steps = 0
        # Of demonstrations that are held out, by whoever measures them
        self.held_out_measures: list[dict[str, float]] = []
        self._started = time.perf_counter()
        # One episode an environment: batched predictions, and no preference for short episodes
        self._env = self.environment.vectorized(self.n_episodes)

    @property
    def train_seconds(self) -> float:
        """The wall time so far, without that of the evaluations."""
        return time.perf_counter() - self._started - self.seconds

    def __call__(self, policy: BasePolicy | BaseAlgorithm, step: int) -> None:
        """
        :param policy: what is evaluated
        :param step: how many steps it was trained for
        """
        train_seconds, start = self.train_seconds, time.perf_counter()
        returns, success_rate = play_with_success(policy, self._env, self.n_episodes)
        point = {"step": step, "mean": returns.mean(), "std": returns.std(), "min": returns.min(), "train_s": train_seconds}
        point |= {} if success_rate is None else {"success_rate": success_rate}
        self.points.append({key: round(float(value), 3) for key, value in point.items()})
        if self.details is not None:
            self.points[-1] |= self.details(policy, self._play)
        self.seconds += time.perf_counter() - start
        self.on_point(self.points[-1])

    def _play(self, policy: Any) -> np.ndarray:
        return play(policy, self._env, self.n_episodes)

    def is_due(self, step: int) -> bool:
        """
        :param step: the present one
        :return: whether a multiple of the frequency lies between the latest evaluation and this step. Beyond the common budget
            the frequency is as much lower as the run is longer, so that most of its time is not spent on evaluations
        """
        last, frequency = int(self.points[-1]["step"]) if self.points else 0, self.frequency
        if self.common_budget is not None and step >= self.common_budget:
            if last < self.common_budget:
                return True
            frequency *= max(1, self.own_budget // self.common_budget)
        return step // frequency > last // frequency

    def finish(self, policy: BasePolicy | BaseAlgorithm, step: int) -> None:
        """
        Evaluate the final policy, if that has not been done.

        :param policy: what is evaluated
        :param step: how many steps it was trained for
        """
        if not self.points or self.points[-1]["step"] != step:
            self(policy, step)
        self._env.close()


class EvaluationCallback(BaseCallback):
    """
    Evaluates an algorithm of SB3 while it learns.

    :param evaluations: what to add to
    """

    def __init__(self, evaluations: Evaluations) -> None:
        super().__init__()
        self.evaluations = evaluations

    def _on_step(self) -> bool:
        if self.evaluations.is_due(self.num_timesteps):
            self.evaluations(self.model, self.num_timesteps)
        return True


def play(policy: Any, env: Any, n_episodes: int) -> np.ndarray:
    """
    :param policy: whatever has SB3's ``predict``
    :param env: a vectorised environment
    :param n_episodes: how many episodes
    :return: the return of each, of deterministic actions, from the same starts whenever it is called
    """
    return play_with_success(policy, env, n_episodes)[0]


def play_with_success(policy: Any, env: Any, n_episodes: int) -> tuple[np.ndarray, float | None]:
    """
    :param policy: whatever has SB3's ``predict``
    :param env: a vectorised environment
    :param n_episodes: how many episodes
    :return: what :func:`play` returns, and the share of the episodes that end in a success (``is_success`` in the last info,
        as SB3's ``EvalCallback`` reads it); None where the environment doesn't say
    """
    successes: list[bool] = []

    def note(local_variables: dict[str, Any], _: dict[str, Any]) -> None:
        if local_variables["done"] and "is_success" in local_variables["info"]:
            successes.append(bool(local_variables["info"]["is_success"]))

    env.seed(EVAL_SEED)
    options: dict[str, Any] = dict(deterministic=True, return_episode_rewards=True, warn=False)
    returns = evaluate_policy(policy, env, n_episodes, callback=note, **options)[0]
    return np.array(returns), float(np.mean(successes)) if successes else None


def returns_of(policy: Any, environment: Environment, n_episodes: int) -> np.ndarray:
    """
    :param policy: whatever has SB3's ``predict``
    :param environment: where to play
    :param n_episodes: how many episodes
    :return: what :func:`play` returns, of one episode an environment: no preference for short episodes
    """
    env = environment.vectorized(n_episodes)
    returns = play(policy, env, n_episodes)
    env.close()
    return returns


def random_return(environment: Environment, n_episodes: int) -> float:
    """
    :param environment: where to play
    :param n_episodes: how many episodes
    :return: the mean return of uniformly random actions
    """
    env = environment.vectorized(n_episodes)
    env.action_space.seed(EVAL_SEED)

    class Random:
        def predict(self, obs: Any, **_: Any) -> tuple[np.ndarray, None]:
            return np.array([env.action_space.sample() for _ in range(n_episodes)]), None

    mean = play(Random(), env, n_episodes).mean()
    env.close()
    return round(float(mean), 3)
