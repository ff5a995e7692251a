"""Episodes of policies of graded quality: what a recovered reward is tested on."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import gymnasium as gym
import numpy as np

from sb3_iq.observations import stack_obs
from sb3_iq.rewards.learned_reward import LearnedReward
from sb3_iq.rewards.parts import Obs

# Shares of random actions in the policies that are made from the model's own
RANDOMNESS = (0.0, 0.1, 0.25, 0.5, 1.0)


class Predicts(Protocol):
    """What has SB3's ``predict`` for batches of raw observations: a ``LearnedReward`` acts as its imitator does."""

    def predict(self, observation: Any, *, deterministic: bool = False) -> Any: ...


class Actor(NamedTuple):
    """
    Who acts.

    :param name: what the episodes are called
    :param policy: whose actions are taken
    :param randomness: the share of steps at which a random action is taken instead, in [0, 1]
    """

    name: str
    policy: Predicts
    randomness: float


@dataclass(frozen=True)
class Episode:
    """
    One episode.

    :param actor: the name of the actor
    :param obs: observations, shape (length, \\*obs_shape), or a dictionary of such
    :param actions: actions, shape (length, \\*action_shape)
    :param next_obs: next observations, shape of ``obs``
    :param terminated: whether the step led to a terminal state, shape (length,)
    :param rewards: the true rewards, shape (length,)
    """

    actor: str
    obs: Obs
    actions: np.ndarray
    next_obs: Obs
    terminated: np.ndarray
    rewards: np.ndarray

    def __len__(self) -> int:
        return len(self.rewards)


def graded_actors(reward: LearnedReward, checkpoints: Sequence[Predicts] = ()) -> list[Actor]:
    """
    :param reward: the reward, whose policy acts with no, some and only random actions
    :param checkpoints: earlier states of the policy, each of which acts as well
    :return: the actors
    """
    names = ["imitator", *(f"{share:.0%} random" for share in RANDOMNESS[1:-1]), "random"]
    actors = [Actor(name, reward, share) for name, share in zip(names, RANDOMNESS, strict=True)]
    return actors + [Actor(f"checkpoint {index + 1}", policy, 0.0) for index, policy in enumerate(checkpoints)]


def play(env: gym.Env, actor: Actor, seed: int) -> Episode:
    """
    :param env: the environment
    :param actor: who acts
    :param seed: the seed of the episode and of random actions
    :return: one episode
    """
    rng = np.random.default_rng(seed)
    env.action_space.seed(seed)
    obs = copy.deepcopy(env.reset(seed=seed)[0])
    steps, over = [], False
    while not over:
        if rng.random() < actor.randomness:
            action = np.asarray(env.action_space.sample())
        else:
            action = np.asarray(actor.policy.predict(stack_obs([obs]), deterministic=True)[0])[0]
        next_obs, reward, terminated, truncated, _ = env.step(int(action) if action.ndim == 0 else action)
        # Some environments return the same array each time
        next_obs = copy.deepcopy(next_obs)
        steps.append((obs, np.array(action), next_obs, terminated, float(reward)))
        obs, over = next_obs, terminated or truncated
    all_obs, actions, all_next, all_terminated, rewards = (list(column) for column in zip(*steps, strict=True))
    return Episode(
        actor.name,
        stack_obs(all_obs),
        np.stack(actions),
        stack_obs(all_next),
        np.array(all_terminated, bool),
        np.array(rewards),
    )


def play_all(env: gym.Env, actors: Sequence[Actor], n_episodes: int, seed: int) -> list[Episode]:
    """
    :param env: the environment
    :param actors: who acts
    :param n_episodes: the number of episodes of all actors together, shared out evenly
    :param seed: the seed of the first episode
    :return: the episodes, at least two of each actor
    """
    counts = [max(2, n_episodes // len(actors) + (index < n_episodes % len(actors))) for index in range(len(actors))]
    chosen = [actor for actor, count in zip(actors, counts, strict=True) for _ in range(count)]
    return [play(env, actor, seed + index) for index, actor in enumerate(chosen)]
