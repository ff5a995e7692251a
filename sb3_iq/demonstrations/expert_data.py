"""The demonstrations of one environment, as an algorithm is given them: with that environment's id and time limit."""

import warnings
from pathlib import Path
from typing import Any

from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.loading import load_demonstrations
from sb3_iq.demonstrations.shared import read_shared


def read_expert_data(expert_data: Any, env_id: str | None, max_episode_steps: int | None) -> Demonstrations:
    """
    :param expert_data: whatever ``load_demonstrations`` takes or returns
    :param env_id: the environment's id, which ``demos:`` stands for
    :param max_episode_steps: the environment's time limit
    :return: the demonstrations, with terminated and truncated told apart by that limit where nothing better is known
    """
    if isinstance(expert_data, (str, Path)):
        key = (str(expert_data), env_id, max_episode_steps)
        return read_shared(key, lambda: _read(expert_data, env_id, max_episode_steps))
    return _read(expert_data, env_id, max_episode_steps)


def _read(expert_data: Any, env_id: str | None, max_episode_steps: int | None) -> Demonstrations:
    demonstrations = load_demonstrations(expert_data, env_id=env_id)
    if max_episode_steps:
        demonstrations = demonstrations.with_time_limit(max_episode_steps)
    length = demonstrations.unknown_limit_length()
    if length is not None:
        warnings.warn(
            f"Demonstrations end after {length} steps, the maximum length, and no time limit is known: nothing tells how they "
            "end, so that these ends are taken for terminal states. If they are a limit, use "
            f"load_demonstrations(..., max_episode_steps={length}); else say so by terminated=True, or "
            "'TimeLimit.truncated': False in the last info."
        )
    return demonstrations
