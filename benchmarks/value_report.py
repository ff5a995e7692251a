"""
Whether a model's critic is right about its own policy, and what its reward does before a fall.

    SB3_IQ_DEMOS=... python benchmarks/value_report.py model.zip Walker2d-v5 "demos:Walker2d-v5?n_trajectories=1&seed=10"

For episodes of the deterministic policy: Q(s, a) beside the discounted sum of the prior rewards from there on, which the
learned rewards are drawn to (where this goes on for 3 / (1 - gamma) steps, or to a terminal state); the
prior reward in the steps before a terminal state; returns of the averaged actor beside those of the actor itself.
"""

import json
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from episodes import Episode, model_parser, play
from reward_gate import samples_of

from sb3_iq import IQLearn
from sb3_iq.compare.details import ByActor

SEED = 30_000
BEFORE_A_FALL = ((160, 120), (120, 80), (80, 40), (40, 20), (20, 0))


def prior_of(model: IQLearn) -> Any:
    """:return: the prior of a trained model (package internals)"""
    model._setup_imitation(model.demonstrations)
    return model.prior


def q_values(model: IQLearn, episode: Episode) -> np.ndarray:
    """:return: Q(s, a) along an episode, that of the critics' aggregate, shape (T,)"""
    samples = samples_of(model, [episode])
    model.policy.set_training_mode(False)
    with th.no_grad():
        return model.policy.aggregate(model.policy.q_values(samples.observations, samples.actions)).cpu().numpy()


def value_of_end(model: IQLearn, rewards: np.ndarray) -> float:
    """:return: the value of the terminal state of an episode, as the model counts it (package internals)"""
    return float(rewards[-1]) / (1 - model.gamma) if model.terminal_v is None else model.terminal_v


def discounted_sums(rewards: np.ndarray, gamma: float, end: float | None) -> np.ndarray:
    """
    :param rewards: along an episode, shape (T,)
    :param gamma: the discount factor
    :param end: the value of the terminal state; None: the episode ended in none
    :return: their discounted sums from each step on, shape (T,); NaN where too little of the sum is known
    """
    sums = np.empty(len(rewards))
    following = end or 0.0
    for step in reversed(range(len(rewards))):
        sums[step] = following = rewards[step] + gamma * following
    if end is None:
        sums[max(0, len(rewards) - round(3 / (1 - gamma))) :] = np.nan
    return sums


def report(model: IQLearn, env_id: str, n_episodes: int) -> dict[str, Any]:
    """:return: what the script prints"""
    model.policy.set_training_mode(False)
    episodes = play(env_id, lambda obs, _: model.predict(obs, deterministic=True)[0], n_episodes, SEED)
    prior = prior_of(model)
    returns = [round(episode.ret) for episode in episodes]
    result: dict[str, Any] = {"env": env_id, "returns": returns, "lengths": [len(episode.rewards) for episode in episodes]}
    if hasattr(model.policy, "averaged_actor"):
        raw = ByActor(model, model.policy.actor)
        episodes_of_raw = play(env_id, lambda obs, _: raw.predict(obs)[0][0], n_episodes, SEED)
        result["raw_actor_returns"] = [round(episode.ret) for episode in episodes_of_raw]
    q, sums, rewards, falls = [], [], [], []
    for episode in episodes:
        with th.no_grad():
            r0 = prior(samples_of(model, [episode])).cpu().numpy()
        rewards.append(r0)
        q.append(q_values(model, episode))
        sums.append(discounted_sums(r0, model.gamma, value_of_end(model, r0) if episode.terminated else None))
        if episode.terminated:
            falls.append([r0[max(0, len(r0) - a) : max(0, len(r0) - b)].mean() for a, b in BEFORE_A_FALL if len(r0) > a])
    known = ~np.isnan(np.concatenate(sums))
    result["q"] = round(float(np.concatenate(q)[known].mean()), 2) if known.any() else None
    result["discounted_sum_of_r0"] = round(float(np.concatenate(sums)[known].mean()), 2) if known.any() else None
    result["r0"] = round(float(np.concatenate(rewards).mean()), 3)
    whole = [fall for fall in falls if len(fall) == len(BEFORE_A_FALL)]
    result["falls"] = len(falls)
    if whole:
        means = np.mean(whole, axis=0)
        result["r0_before_falls"] = {
            f"-{a} to -{b}": round(float(m), 3) for (a, b), m in zip(BEFORE_A_FALL, means, strict=True)
        }
    return result


def main() -> None:
    parser = model_parser(__doc__)
    parser.add_argument("--n-episodes", type=int, default=8)
    arguments = parser.parse_args()
    th.set_num_threads(1)
    model = IQLearn.load(arguments.model, env=gym.make(arguments.env), expert_data=arguments.demos)
    print(json.dumps(report(model, arguments.env, arguments.n_episodes)))


if __name__ == "__main__":
    main()
