"""Rollouts of a policy, and how far their states and actions are from those of other episodes."""

from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.preprocessing import preprocess_obs
from stable_baselines3.common.vec_env import VecEnv
from torch.nn import functional as F

from sb3_iq.demonstrations import Demonstrations, ExpertBuffer, Trajectory
from sb3_iq.demonstrations.conversion import part_sizes
from sb3_iq.observations import map_obs, stack_obs

EVAL_SEED = 20_000
N_PROJECTIONS = 64
_MIN_STD = 1e-3  # of a coordinate, below which it counts as constant and keeps its unit


def coordinates(buffer: ExpertBuffer, at_most: int) -> np.ndarray:
    """
    :param buffer: transitions
    :param at_most: with more transitions than this, only so many, evenly spread
    :return: states and actions as numbers, shape (n, n_coordinates), float64: raw observations, one-hot where they are
        discrete, and actions, one-hot or scaled to [-1, 1], left out where the buffer has none
    """
    samples = buffer.all(at_most=at_most)
    obs: Any = preprocess_obs(samples.observations, buffer.observation_space, normalize_images=False)  # type: ignore[arg-type]
    parts = [obs[key] for key in sorted(obs)] if isinstance(obs, dict) else [obs]
    if buffer.has_actions and isinstance(buffer.action_space, spaces.Box):
        parts.append(samples.actions)
    elif buffer.has_actions:
        parts += [F.one_hot(samples.actions[:, i], n) for i, n in enumerate(part_sizes(buffer.action_space))]
    return th.cat([part.reshape(len(part), -1).double().cpu() for part in parts], dim=1).numpy()


def distance(reference: np.ndarray, others: np.ndarray) -> float:
    """
    The sliced Wasserstein distance of two sets of points.

    :param reference: points, shape (n, n_coordinates), whose means and standard deviations are the unit of all coordinates
    :param others: points, shape (m, n_coordinates)
    :return: the mean 1-Wasserstein distance of the projections to random directions, the same ones in each call
    """
    from scipy.stats import wasserstein_distance  # not for who never asks for a distance

    std = reference.std(axis=0)
    std[std < _MIN_STD] = 1.0
    directions = np.random.default_rng(0).standard_normal((reference.shape[1], N_PROJECTIONS))
    directions = directions / np.linalg.norm(directions, axis=0) / std[:, None]
    projected = (reference @ directions).T, (others @ directions).T
    return float(np.mean([wasserstein_distance(one, other) for one, other in zip(*projected, strict=True)]))


def roll_out(policy: Any, env: VecEnv, n_episodes: int) -> Demonstrations:
    """
    :param policy: what has SB3's ``predict``; its deterministic actions are taken
    :param env: the environment
    :param n_episodes: how many episodes
    :return: the episodes, without rewards, from the same starts whenever it is called
    """
    open_steps: list[list[tuple[Any, np.ndarray]]] = [[] for _ in range(env.num_envs)]
    episodes: list[Trajectory] = []

    def collect(step: dict[str, Any], _: dict[str, Any]) -> None:
        i, info = step["i"], step["info"]
        open_steps[i].append((map_obs(lambda rows: np.array(rows[i]), step["observations"]), np.array(step["actions"][i])))
        if step["done"]:
            truncated = bool(info.get("TimeLimit.truncated", False))
            observations = [*(obs for obs, _ in open_steps[i]), info["terminal_observation"]]
            actions = np.stack([action for _, action in open_steps[i]])
            episodes.append(Trajectory(stack_obs(observations), actions, None, not truncated, truncated))
            open_steps[i] = []

    env.seed(EVAL_SEED)
    evaluate_policy(policy, env, n_episodes, deterministic=True, callback=collect, warn=False)
    return Demonstrations(tuple(episodes))
