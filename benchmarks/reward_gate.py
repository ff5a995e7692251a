"""
Score a prior of rewards before anything is trained with it: seconds instead of hours.

    SB3_IQ_DEMOS=... python benchmarks/reward_gate.py Walker2d-v5 --n-trajectories 1 --seed 10
    SB3_IQ_DEMOS=... python benchmarks/reward_gate.py Ant-v5 --settings '{"reward_prior": 1.0}'

The mean prior reward of a step, of the demonstrations as training rates them, of the same expert's other episodes, of these
with noise on the actions (Box: 0.3 and 1 standard deviations of the demonstrations' actions; discrete: so often a random one),
of standing still (action 0), of random actions, and of a clone that takes the action at the nearest state of the
demonstrations, beside its return. It passes where

- the other episodes are worth at least 0.8 of the demonstrations: the reward is not for knowing these by heart,
- noise of 0.3 costs at least 10 %,
- standing, and a clone that fails (less than half of the expert's return), earn at most 0.5 of the other episodes.

The gate is necessary, not sufficient: a reward that passes may still be too sharp to be found.
"""

import argparse
import json
from typing import Any

import gymnasium as gym
import numpy as np
import torch as th
from episodes import Episode, play
from stable_baselines3.common.buffers import ReplayBufferSamples

from sb3_iq import IQLearn, load_demonstrations

N_HELD_OUT = 5
N_EPISODES = 5
SEED = 30_000


def prior_of(model: IQLearn) -> tuple[Any, Any]:
    """:return: the prior of a model that was not trained, and all transitions of its demonstrations (package internals)"""
    model._setup_imitation(model.demonstrations)
    assert model.prior is not None, "these settings have no prior"
    return model.prior, model.demonstrations.all()


def samples_of(model: IQLearn, episodes: list[Episode]) -> ReplayBufferSamples:
    """:return: the transitions of episodes as the replay buffer gives them"""
    policy: Any = model.policy
    actions = np.concatenate([episode.actions for episode in episodes])
    if isinstance(model.action_space, gym.spaces.Box):
        actions = model.policy.scale_action(actions).astype(np.float32)
    return ReplayBufferSamples(
        observations=policy.obs_to_tensor(np.concatenate([episode.obs[:-1] for episode in episodes]))[0],
        actions=th.as_tensor(actions, device=model.device).reshape(len(actions), -1),
        next_observations=policy.obs_to_tensor(np.concatenate([episode.obs[1:] for episode in episodes]))[0],
        dones=th.as_tensor(np.concatenate([episode.dones for episode in episodes])[:, None], device=model.device),
        rewards=th.zeros(len(actions), 1, device=model.device),
    )


def as_episodes(demonstrations: Any) -> list[Episode]:
    """:return: the episodes of demonstrations"""
    return [Episode(t.obs, np.asarray(t.acts), np.asarray(t.rews), t.terminated) for t in demonstrations.trajectories]


def noisy(episode: Episode, space: gym.Space, std: np.ndarray, noise: float, rng: np.random.Generator) -> Episode:
    """:return: the episode's states with noise on its actions"""
    shape = episode.actions.shape
    if isinstance(space, gym.spaces.Box):
        actions = np.clip(episode.actions + noise * std * rng.standard_normal(shape), space.low, space.high)
    else:
        actions = np.where(rng.random(shape) < noise, rng.integers(space.n, size=shape), episode.actions)  # type: ignore[attr-defined]
    return Episode(episode.obs, actions.astype(episode.actions.dtype), episode.rewards, episode.terminated)


def nearest_neighbour(episodes: list[Episode]) -> Any:
    """:return: a policy that takes the action of the nearest state of the episodes, in standard deviations of these"""
    states = np.concatenate([episode.obs[:-1] for episode in episodes])
    actions = np.concatenate([episode.actions for episode in episodes])
    std = states.std(axis=0)
    std[std < 1e-3] = 1.0
    return lambda obs, _: actions[(((states - obs) / std) ** 2).sum(axis=1).argmin()]


def gate(env_id: str, model: IQLearn, demonstrations: Any, held_out: Any) -> dict[str, Any]:
    """:return: the scores of a prior and the verdicts"""
    prior, demonstration_rows = prior_of(model)
    rng = np.random.default_rng(SEED)
    space: Any = model.action_space
    demos, others = as_episodes(demonstrations), as_episodes(held_out)
    std = np.concatenate([episode.actions for episode in demos]).std(axis=0)
    standing = np.zeros(space.shape, space.dtype)
    space.seed(SEED)
    clone = play(env_id, nearest_neighbour(demos), N_EPISODES, SEED)
    played = {
        "held_out": others,
        **{f"noise_{noise}": [noisy(episode, space, std, noise, rng) for episode in others] for noise in (0.3, 1.0)},
        "standing": play(env_id, lambda *_: standing, N_EPISODES, SEED),
        "random": play(env_id, lambda *_: space.sample(), N_EPISODES, SEED),
        "clone": clone,
    }
    with th.no_grad():
        scores = {"demonstration": float(prior.of_expert(demonstration_rows).mean())}
        scores |= {name: float(prior(samples_of(model, episodes)).mean()) for name, episodes in played.items()}
    # Rewards may have any sign: shares are taken above what random actions earn where that is negative
    base = min(0.0, scores["random"])
    share = {name: (score - base) / (scores["held_out"] - base) for name, score in scores.items()}
    expert_return, clone_return = (float(np.mean([e.ret for e in episodes])) for episodes in (others, clone))
    verdicts = {
        "held_out": 1 / share["demonstration"] >= 0.8,
        "noise": share["noise_0.3"] <= 0.9,
        "standing": share["standing"] <= 0.5,
        "clone": share["clone"] <= 0.5 or clone_return >= 0.5 * expert_return,
    }
    return {
        "env": env_id,
        "scores": {name: round(score, 3) for name, score in scores.items()},
        "expert_return": round(expert_return, 1),
        "clone_return": round(clone_return, 1),
        "passes": verdicts,
        "pass": all(verdicts.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("env")
    parser.add_argument("--n-trajectories", type=int, default=1)
    parser.add_argument("--seed", type=int, default=10, help="of the choice of demonstrations")
    parser.add_argument("--settings", type=json.loads, default={}, help="arguments of IQLearn, as JSON")
    arguments = parser.parse_args()
    th.set_num_threads(1)
    demonstrations = load_demonstrations(f"demos:{arguments.env}", arguments.n_trajectories, seed=arguments.seed)
    # With one seed a smaller choice is the beginning of a larger one
    more = load_demonstrations(f"demos:{arguments.env}", arguments.n_trajectories + N_HELD_OUT, seed=arguments.seed)
    chosen = [np.asarray(trajectory.obs) for trajectory in demonstrations.trajectories]
    others = [t for t in more.trajectories if not any(np.array_equal(np.asarray(t.obs), obs) for obs in chosen)]
    model = IQLearn("MlpPolicy", arguments.env, demonstrations, seed=arguments.seed, **arguments.settings)
    print(json.dumps(gate(arguments.env, model, demonstrations, type(more)(tuple(others)))))


if __name__ == "__main__":
    main()
