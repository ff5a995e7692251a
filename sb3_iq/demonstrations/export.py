"""Episodes as the objects of other libraries: imitation's trajectories, and Minari's data sets."""

import inspect
import warnings
from collections.abc import Sequence
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_iq.demonstrations.errors import cut, first_words, how_to_install, shorten
from sb3_iq.demonstrations.trajectory import Trajectory
from sb3_iq.environments import make_given
from sb3_iq.observations import images_of


def to_imitation(trajectories: Sequence[Trajectory]) -> list[Any]:
    """
    :param trajectories: the episodes
    :return: imitation's ``TrajectoryWithRew`` for those with rewards, and its ``Trajectory`` for the others
    :raises ImportError: if imitation is not installed
    """
    try:
        from imitation.data import types
    except ImportError as error:
        raise ImportError(f"imitation can't be imported ({error}). {how_to_install('imitation')}") from error
    converted = []
    for index, trajectory in enumerate(trajectories):
        if trajectory.acts is None:
            raise ValueError(f"episode {index} has no actions, which imitation needs. Save state-only data by save(path)")
        arguments: dict[str, Any] = {
            "obs": types.DictObs(trajectory.obs) if isinstance(trajectory.obs, dict) else trajectory.obs,
            "acts": trajectory.acts,
            "infos": np.array(trajectory.infos),
            "terminal": trajectory.terminated or trajectory.truncated,
        }
        if trajectory.rews is None:
            converted.append(types.Trajectory(**arguments))
        else:
            converted.append(types.TrajectoryWithRew(**arguments, rews=trajectory.rews.astype(float)))
    return converted


def to_minari(
    trajectories: Sequence[Trajectory],
    dataset_id: str,
    known_spaces: tuple[spaces.Space | None, spaces.Space | None],
    env: gym.Env | str | None = None,
    **kwargs: Any,
) -> Any:
    """
    :param trajectories: the episodes
    :param dataset_id: the id to give
    :param known_spaces: observation and action space, where they are known
    :param env: the environment, or its id
    :param kwargs: more for ``minari.create_dataset_from_buffers``
    :return: the ``MinariDataset``, which is stored on this machine. It has the environment's spaces, and makes the environment
        again where this was registered by text, e.g. ``entry_point="my_package:MyEnv"``
    :raises ImportError: if Minari is not installed
    :raises ValueError: if the spaces are unknown, an episode has no rewards, or Minari refuses the data
    """
    try:
        import minari
        from minari.data_collector import EpisodeBuffer
    except ImportError as error:
        raise ImportError(f"Minari can't be imported ({error}). {how_to_install('minari')}") from error
    if not isinstance(dataset_id, str) or not dataset_id:
        raise ValueError(f"dataset_id={shorten(dataset_id)}: expected a name and a version, e.g. 'my/cartpole-v0'")
    made = _made(env)
    observation_space, action_space = known_spaces if made is None else (made.observation_space, made.action_space)
    if observation_space is None or action_space is None:
        raise ValueError("env=None: the demonstrations don't carry their spaces, which Minari needs. Give the environment")
    if not all(trajectory.starts_at_reset for trajectory in trajectories):
        warnings.warn("Some episodes don't start at a reset, which Minari can't tell: read again, they are taken to.")
    buffers = []
    for index, trajectory in enumerate(trajectories):
        if trajectory.rews is None or trajectory.acts is None:
            what = "rewards" if trajectory.rews is None else "actions"
            raise ValueError(f"dataset_id={shorten(dataset_id)}: episode {index} has no {what}, which Minari needs")
        for what, values, space in (("obs", trajectory.obs, observation_space), ("acts", trajectory.acts, action_space)):
            if not _fits(values, space):
                raise ValueError(
                    f"env={shorten(env)}: the {what} of episode {index} are none of {cut(space)}. Give the environment that "
                    "the episodes are of"
                )
        last = np.arange(len(trajectory)) == len(trajectory) - 1
        obs = {key: list(array) for key, array in trajectory.obs.items()} if isinstance(trajectory.obs, dict) else None
        buffers.append(
            EpisodeBuffer(
                id=index,
                observations=list(trajectory.obs) if obs is None else obs,
                actions=list(trajectory.acts.reshape(len(trajectory), *(action_space.shape or ()))),
                rewards=trajectory.rews.tolist(),
                terminations=(last & trajectory.terminated).tolist(),
                truncations=(last & trajectory.truncated).tolist(),
            )
        )
    if "jpeg_encoding" in inspect.signature(minari.create_dataset_from_buffers).parameters:
        kwargs.setdefault("jpeg_encoding", False)  # else images come back changed
    elif images_of(observation_space):
        warnings.warn("This Minari stores images as JPEG, which changes them. Use 0.5.4 or newer, which needs Python 3.11.")
    stored_env = env if _can_be_stored(made) else None
    known = {"env": stored_env, "observation_space": observation_space, "action_space": action_space}
    try:
        return minari.create_dataset_from_buffers(dataset_id, buffers, **known, **kwargs)
    except Exception as error:  # its checks, its asserts, and the storage's library
        raise ValueError(f"dataset_id={shorten(dataset_id)}: Minari refuses the data ({first_words(error)})") from error


def _made(env: Any) -> gym.Env | None:
    if env is None or isinstance(env, gym.Env):
        return env
    if not isinstance(env, str):
        raise TypeError(f"env={shorten(env)}: expected an environment of gymnasium, its id, or None")
    return make_given("env", env)


def _fits(values: Any, space: spaces.Space) -> bool:
    """Tell whether the values of an episode can be of a space, by their shape, or of a discrete one by its numbers."""
    if isinstance(space, spaces.Dict) and isinstance(values, dict):
        return values.keys() == space.keys() and all(_fits(values[key], space[key]) for key in values)
    if isinstance(space, spaces.Dict) or isinstance(values, dict):
        return False
    if int(np.prod(values.shape[1:])) != int(np.prod(space.shape or ())):
        return False
    return not isinstance(space, spaces.Discrete) or all(map(space.contains, np.unique(values)))


def _can_be_stored(env: gym.Env | None) -> bool:
    """Tell whether Minari can store how the environment is made, which it can't where a class or a function is registered."""
    try:
        return env is not None and env.spec is not None and bool(env.spec.to_json())
    except (ValueError, TypeError):
        return False
