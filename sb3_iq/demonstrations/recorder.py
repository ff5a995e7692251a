"""From an agent to a data set that imitation, and :func:`load_demonstrations`, can read."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np

from sb3_iq.demonstrations.errors import check_integer, shorten
from sb3_iq.demonstrations.trajectory import Trajectory

MAX_NUMBERS = 2**27


def record(
    predict: Callable[[Any], Any],
    env: gym.Env,
    n_episodes: int,
    seed: int = 0,
    reset_options: dict[str, Any] | None = None,
) -> list[Trajectory]:
    """
    Play whole episodes and record them.

    :param predict: from one observation, as the environment gives it, to one action, as the environment takes it, e.g.
        ``lambda obs: model.predict(obs, deterministic=True)[0]``
    :param env: a Gymnasium environment whose episodes end
    :param n_episodes: the number of episodes (typically 1 to 50)
    :param seed: episode k is reset with ``seed + k``
    :param reset_options: the ``options`` of every reset
    :return: the episodes, with raw observations and exact flags
    """
    check_integer("n_episodes", n_episodes, 1)
    return [play(predict, env, seed + episode, reset_options) for episode in range(n_episodes)]


def play(
    predict: Callable[[Any], Any], env: gym.Env, seed: int | None = None, reset_options: dict[str, Any] | None = None
) -> Trajectory:
    """
    Play one episode and record it.

    :param predict: from one observation to one action, as in :func:`record`
    :param env: a Gymnasium environment whose episodes end
    :param seed: the seed of the reset, None to go on with the environment's generator
    :param reset_options: the ``options`` of the reset
    :return: the episode
    """
    obs, _ = env.reset(seed=seed, options=reset_options)
    observations, actions, rewards = [copy.deepcopy(obs)], [], []  # copies: an environment may write into its own arrays
    terminated = truncated = False
    while not (terminated or truncated):
        action = predict(obs)
        actions.append(copy.deepcopy(action))
        obs, reward, terminated, truncated, _ = env.step(action)
        observations.append(copy.deepcopy(obs))
        rewards.append(float(reward))
    stacked: Any = np.stack(observations) if not isinstance(obs, dict) else None
    if isinstance(obs, dict):
        stacked = {key: np.stack([step[key] for step in observations]) for key in obs}
    terminated = bool(terminated)
    return Trajectory(stacked, np.stack(actions), np.array(rewards), terminated, not terminated)


def save_trajectories(trajectories: Sequence[Trajectory], path: str | Path, card: dict[str, Any] | None = None) -> None:
    """
    Write episodes in the format of ``imitation.data.serialize``.

    An episode cut by a time limit is written as ``terminal`` with ``{"TimeLimit.truncated": true}`` as its last info,
    which imitation reads right too.

    :param trajectories: the episodes: all with rewards, or all without
    :param path: the folder to write, which is made
    :param card: what to write in ``card.json`` beside the data, e.g. ``env_id`` and ``max_episode_steps``
    :raises ValueError: if there is no episode, if only some have rewards, or if observations are dictionaries, for which
        imitation has no format
    """
    import datasets

    if not trajectories:
        raise ValueError("trajectories is empty: expected at least one episode")
    if any(isinstance(trajectory.obs, dict) for trajectory in trajectories):
        raise ValueError("trajectories hold Dict observations, for which imitation's format has no place. Flatten them")
    with_rewards = [trajectory.rews is not None for trajectory in trajectories]
    if any(with_rewards) and not all(with_rewards):
        raise ValueError("trajectories: only some episodes have rewards, expected all or none")
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        tables = [datasets.Dataset.from_dict(_columns(piece)) for piece in _pieces(trajectories)]
        datasets.concatenate_datasets(tables).save_to_disk(str(path))
    except OSError as error:
        raise ValueError(f"path={shorten(path)}: cannot be written ({error}). Give a folder that can be") from error
    finally:
        if shown:
            datasets.enable_progress_bars()
    if card is not None:
        lines = ",\n".join(f"  {json.dumps(key)}: {json.dumps(value)}" for key, value in card.items())
        (Path(path) / "card.json").write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def _pieces(trajectories: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """Return the episodes in groups, as an Arrow array can hold no more than 2^31 numbers."""
    pieces: list[list[Trajectory]] = []
    n_numbers = 0
    for trajectory in trajectories:
        size = np.asarray(trajectory.obs).size
        if not pieces or n_numbers + size > MAX_NUMBERS:
            pieces.append([])
            n_numbers = 0
        pieces[-1].append(trajectory)
        n_numbers += size
    return pieces


def _columns(trajectories: Sequence[Trajectory]) -> dict[str, list[Any]]:
    """Return imitation's columns, one entry for each episode."""
    columns: dict[str, list[Any]] = {
        "obs": [trajectory.obs for trajectory in trajectories],
        "acts": [trajectory.acts for trajectory in trajectories],
        "infos": [_infos(trajectory) for trajectory in trajectories],
        "terminal": [trajectory.terminated or trajectory.truncated for trajectory in trajectories],
    }
    if trajectories[0].rews is not None:
        columns["rews"] = [trajectory.rews for trajectory in trajectories]
    return columns


def _infos(trajectory: Trajectory) -> list[str]:
    """Return plain JSON infos. The last one of an episode that ended tells how, so that no length has to decide later."""
    last = {} if trajectory.ending in ("open", "assumed") else {"TimeLimit.truncated": trajectory.truncated}
    return ["{}"] * (len(trajectory) - 1) + [json.dumps(last)]
