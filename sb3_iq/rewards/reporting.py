"""How far a recovered reward is the true one: correlations on episodes of graded quality, as JSON, a picture and a page."""

import json
import pathlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.rewards import statistics
from sb3_iq.rewards.epic import TRUE_REWARDS, RewardFunction, epic_distance
from sb3_iq.rewards.episodes import Episode, Predicts, graded_actors, play_all
from sb3_iq.rewards.learned_reward import LearnedReward
from sb3_iq.rewards.parts import Form
from sb3_iq.rewards.statistics import Correlation, bootstrap

if TYPE_CHECKING:
    from sb3_iq.iq_learn import IQLearn


@dataclass(frozen=True)
class Report:
    """
    Correlations of the recovered with the true reward.

    :param env: the environment's id
    :param episodes: the episodes
    :param recovered: the recovered rewards of each episode's steps
    :param per_episode: correlations of the sums over episodes, by name
    :param per_step: correlations of the rewards of single steps, by name
    :param epic: the EPIC distance; None where the true reward is not known as a function of any transition
    :param left: what the absorbing state adds to each episode's sum from its end until the time limit, shape (n_episodes,);
        zeros without a time limit
    :param form: the form of the reward
    """

    env: str
    episodes: list[Episode]
    recovered: list[np.ndarray]
    per_episode: dict[str, Correlation]
    per_step: dict[str, Correlation]
    epic: float | None
    left: np.ndarray
    form: Form

    @classmethod
    def of(
        cls,
        env: str,
        episodes: list[Episode],
        reward: LearnedReward,
        max_episode_steps: int | None = None,
        true_reward: RewardFunction | None = None,
    ) -> "Report":
        """
        :param env: the environment's id
        :param episodes: the episodes
        :param reward: the reward, in the form that is to be compared
        :param max_episode_steps: the time limit, if there is one
        :param true_reward: the true reward as a function of any transition, if it is known
        :return: the report
        """
        tails = [reward.with_tail(e.obs, e.actions, e.next_obs, e.terminated) for e in episodes]
        recovered = [tail.rewards for tail in tails]
        per_episode = _per_episode(episodes, recovered)
        left = np.zeros(len(episodes))
        # What is known without telling one action from another
        same = [np.full(len(rewards), np.concatenate(recovered).mean(dtype=np.float64)) for rewards in recovered]
        if max_episode_steps is not None:
            # An ended episode goes on in its absorbing state until the time limit, like all others
            left += [
                (max_episode_steps - len(e)) * t.absorbing[-1] * e.terminated[-1] for e, t in zip(episodes, tails, strict=True)
            ]
            sums = np.array([rewards.sum(dtype=np.float64) for rewards in recovered]) + left
            true = np.array([episode.rewards.sum() for episode in episodes])
            lengths = np.array([len(episode) for episode in episodes], dtype=np.float64)
            name = "pearson, absorbing until the time limit"
            per_episode[name] = bootstrap(statistics.pearson, true, sums)
            per_episode[f"{name}, length removed"] = bootstrap(statistics.partial_pearson, true, sums, lengths)
            alone = np.array([rewards.sum() for rewards in same]) + left
            per_episode["pearson of ends alone, absorbing until the time limit"] = bootstrap(statistics.pearson, true, alone)
        # What an agent is paid by LearnedRewardVecEnv
        ends = reward.gamma / (1 - reward.gamma)
        paid, alone_paid = (
            [r + ends * t.absorbing * e.terminated for e, t, r in zip(episodes, tails, rewards, strict=True)]
            for rewards in (recovered, same)
        )
        per_step = {
            **_per_step(episodes, recovered),
            "pearson, ends paid for ever": _of_steps(episodes, paid, statistics.pearson),
            "pearson of ends alone, paid for ever": _of_steps(episodes, alone_paid, statistics.pearson),
            "pearson, last steps left out": _of_steps(
                [_without_last_step(e) for e in episodes], [rewards[:-1] for rewards in recovered], statistics.pearson
            ),
        }
        epic = None if true_reward is None else epic_distance(reward, true_reward, episodes, reward.gamma)
        return cls(env, episodes, recovered, per_episode, per_step, epic, left, reward.form)

    @property
    def returns(self) -> np.ndarray:
        """The true return of each episode, shape (n_episodes,)."""
        return np.array([episode.rewards.sum() for episode in self.episodes])

    @property
    def recovered_returns(self) -> np.ndarray:
        """The sum of recovered rewards of each episode, shape (n_episodes,)."""
        return np.array([rewards.sum() for rewards in self.recovered])

    @property
    def actors(self) -> list[dict[str, Any]]:
        """For each actor, its number of episodes and its means of length, true return and recovered return."""
        rows = []
        for name in dict.fromkeys(episode.actor for episode in self.episodes):
            index = [i for i, episode in enumerate(self.episodes) if episode.actor == name]
            rows.append(
                {
                    "actor": name,
                    "episodes": len(index),
                    "length": round(float(np.mean([len(self.episodes[i]) for i in index])), 1),
                    "true return": round(float(self.returns[index].mean()), 2),
                    "recovered return": round(float(self.recovered_returns[index].mean()), 3),
                }
            )
        return rows

    def as_dict(self) -> dict[str, Any]:
        """:return: all numbers as JSON has them"""
        return {
            "env": self.env,
            "form": self.form,
            "n_episodes": len(self.episodes),
            "n_steps": sum(map(len, self.episodes)),
            "per_episode": {name: correlation.as_dict() for name, correlation in self.per_episode.items()},
            "per_step": {name: correlation.as_dict() for name, correlation in self.per_step.items()},
            "epic_distance": None if self.epic is None else round(self.epic, 4),
            "actors": self.actors,
        }

    def save(self, folder: str | pathlib.Path) -> None:
        """
        :param folder: where ``report.json``, ``report.png`` and ``report.html`` go
        """
        from sb3_iq.rewards.pages import html_page
        from sb3_iq.rewards.plots import figure_of

        path = pathlib.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / "report.json").write_text(json.dumps(self.as_dict(), indent=2) + "\n")
        figure_of(self).savefig(path / "report.png", dpi=110)
        (path / "report.html").write_text(html_page(self, (path / "report.png").read_bytes()))


def report(
    model: "IQLearn | LearnedReward",
    env: gym.Env | str,
    n_episodes: int = 60,
    checkpoints: Sequence[Predicts] = (),
    true_reward: RewardFunction | None = None,
    seed: int = 0,
) -> Report:
    """
    Compare a recovered with the true reward on episodes of policies from the imitator's to a random one.

    :param model: a trained model, whose reward is read as :func:`reward_for_episodes` does, or a reward in the form that is to
        be compared
    :param env: the environment or its id, raw, with the wrappers that the model was trained with
    :param n_episodes: the number of episodes, typically 60
    :param checkpoints: earlier states of the policy, in the order of training, which act as well: anything with ``predict``
    :param true_reward: the true reward as a function of any transition, for the EPIC distance; known for Pendulum-v1
    :param seed: the seed of the episodes
    :return: the report; its ``save(folder)`` writes JSON, a picture and a page
    :raises ValueError: if there are fewer than 10 episodes, or if the environment is not that of the reward
    :raises TypeError: if the environment is none of Gymnasium, or a vectorised one
    """
    if n_episodes < 10:
        raise ValueError(f"`n_episodes` is {n_episodes}: a correlation needs at least 10 episodes, 60 tell more.")
    reward = model if isinstance(model, LearnedReward) else reward_for_episodes(model)
    if not isinstance(env, (str, gym.Env)):
        raise TypeError(
            f"`env` is a {type(env).__name__}: give a single environment of Gymnasium, gymnasium.make(ID), or its id."
        )
    made = gym.make(env) if isinstance(env, str) else env
    _check_env(made, reward)
    episodes = play_all(made, graded_actors(reward, checkpoints), n_episodes, seed)
    env_id = made.spec.id if made.spec is not None else type(made.unwrapped).__name__
    limit = made.spec.max_episode_steps if made.spec is not None else None
    if isinstance(env, str):
        made.close()
    return Report.of(env_id, episodes, reward, limit, true_reward or TRUE_REWARDS.get(env_id))


def reward_for_episodes(model: "IQLearn", vec_normalize: VecNormalize | None = None) -> LearnedReward:
    """
    :param model: a trained model
    :param vec_normalize: the ``VecNormalize`` that it was trained with; None: the one of the model's environment, if any
    :return: its reward in the form that tells good episodes from bad ones: with continuous actions, vectors for observations
        and demonstrations that can be read ``"occupancy"``, else ``"bounded"``
    :raises ValueError: as :class:`LearnedReward` does
    """
    if isinstance(getattr(model, "action_space", None), spaces.Box):
        try:
            return LearnedReward(model, "occupancy", vec_normalize)
        except ValueError:
            pass  # what is wrong in any form is raised below
    return LearnedReward(model, "bounded", vec_normalize)


def _check_env(env: gym.Env, reward: LearnedReward) -> None:
    found, expected = env.action_space, reward.action_space
    if type(found) is not type(expected) or found.shape != expected.shape:
        raise ValueError(
            f"`env` has the action space {str(found)[:80]}, but the reward was learned with {str(expected)[:80]}: use the "
            "environment, with the same wrappers, that the model was trained in."
        )


def _per_episode(episodes: Sequence[Episode], recovered: Sequence[np.ndarray]) -> dict[str, Correlation]:
    true = np.array([episode.rewards.sum() for episode in episodes])
    sums = np.array([rewards.sum(dtype=np.float64) for rewards in recovered])
    lengths = np.array([len(episode) for episode in episodes], dtype=np.float64)
    return {
        "pearson": bootstrap(statistics.pearson, true, sums),
        "spearman": bootstrap(statistics.spearman, true, sums),
        "pearson, length removed": bootstrap(statistics.partial_pearson, true, sums, lengths),
        "pearson of length alone": bootstrap(statistics.pearson, true, lengths),
    }


def _of_steps(episodes: Sequence[Episode], recovered: Sequence[np.ndarray], statistic: Callable[..., float]) -> Correlation:
    """Return a correlation of single steps, drawn by whole episodes."""
    true = np.concatenate([episode.rewards for episode in episodes])
    if len(true) == 0:
        return Correlation(*[float("nan")] * 3)
    groups = np.repeat(np.arange(len(episodes)), [len(episode) for episode in episodes])
    return bootstrap(statistic, true, np.concatenate(recovered).astype(np.float64), groups=groups)


def _without_last_step(episode: Episode) -> Episode:
    return replace(episode, rewards=episode.rewards[:-1])


def _per_step(episodes: Sequence[Episode], recovered: Sequence[np.ndarray]) -> dict[str, Correlation]:
    within = np.array(
        [
            statistics.pearson(episode.rewards, rewards.astype(np.float64))
            for episode, rewards in zip(episodes, recovered, strict=True)
        ]
    )
    within = within[np.isfinite(within)]
    return {
        "pearson": _of_steps(episodes, recovered, statistics.pearson),
        "spearman": _of_steps(episodes, recovered, statistics.spearman),
        "pearson within episodes, mean": bootstrap(_mean, within) if len(within) > 0 else Correlation(*[float("nan")] * 3),
    }


def _mean(values: np.ndarray) -> float:
    return float(values.mean())
