"""Training without an environment: a stand-in that has only spaces, what it refuses, and what is known of environments."""

import contextlib
import os
import re
from typing import Any, NamedTuple, NoReturn

import gymnasium as gym
import numpy as np
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm, maybe_make_env
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecEnvWrapper, VecNormalize, unwrap_vec_normalize

from sb3_iq.demonstrations import load_demonstrations
from sb3_iq.demonstrations.errors import check_flag, shorten
from sb3_iq.demonstrations.reference import SCHEMES
from sb3_iq.iq_learn.policies import check_observation_space


class SpacesEnv(gym.Env):
    """
    An environment that has spaces and can be reset (SB3 does so before learning), but cannot be stepped: for
    ``IQLearn(policy, SpacesEnv(observation_space, action_space), expert_data, offline=True)``.

    :param observation_space: observation space
    :param action_space: action space
    """

    def __init__(self, observation_space: spaces.Space, action_space: spaces.Space) -> None:
        self.observation_space = observation_space
        self.action_space = action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        if isinstance(self.observation_space, spaces.Dict):
            return {key: np.zeros(space.shape, space.dtype) for key, space in self.observation_space.items()}, {}
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}

    def step(self, action: Any) -> NoReturn:
        raise RuntimeError("Training is offline: there is no environment to step. Use set_env() to give the model one.")


class _Shell(VecEnvWrapper):
    """Stands for a wrapper around VecNormalize, so that SB3 finds the statistics at the same depth in both environments."""

    def reset(self) -> Any:
        return self.venv.reset()

    def step_wait(self) -> Any:
        return self.venv.step_wait()


class SharedVecNormalize(VecNormalize):
    """
    A stand-in for the user's ``VecNormalize``: the same statistics, around an environment without dynamics, whose zeros never
    enter them.

    :param venv: the environment without dynamics
    :param source: the user's own
    """

    def __init__(self, venv: VecEnv, source: VecNormalize) -> None:
        super().__init__(
            venv,
            training=False,
            norm_obs=source.norm_obs,
            norm_reward=False,
            clip_obs=source.clip_obs,
            gamma=source.gamma,
            epsilon=source.epsilon,
            norm_obs_keys=source.norm_obs_keys,
        )
        if source.norm_obs:
            self.obs_rms = source.obs_rms
        self.ret_rms = source.ret_rms
        self.source = source

    # SB3 leaves the environment out of copies. This one has nothing but spaces
    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "venv": self.venv}

    def __setstate__(self, state: dict[str, Any]) -> None:
        state = dict(state)
        venv = state.pop("venv")
        super().__setstate__(state)
        self.set_venv(venv)

    def save(self, save_path: str) -> None:
        # What is saved, by CheckpointCallback for instance, is the user's own
        self.source.save(save_path)


def updates_statistics(env: VecNormalize) -> bool:
    """
    :param env: a normalising wrapper
    :return: whether its statistics follow what it sees; of a stand-in, those of the user's own
    """
    return updates_statistics(env.source) if isinstance(env, SharedVecNormalize) else env.training


def make_spaces_env(observation_space: spaces.Space, action_space: spaces.Space, env: VecEnv | None = None) -> VecEnv:
    """
    :param observation_space: observation space, as the policy sees it
    :param action_space: action space
    :param env: the environment the spaces come from; the statistics of its ``VecNormalize``, if it has one, are shared
    :return: a vectorised :class:`SpacesEnv`
    """
    spaces_env: VecEnv = DummyVecEnv([lambda: SpacesEnv(observation_space, action_space)])
    normalize = unwrap_vec_normalize(env) if env is not None else None
    if normalize is None:
        return spaces_env
    spaces_env = SharedVecNormalize(spaces_env, normalize)
    while env is not normalize:
        spaces_env, env = _Shell(spaces_env), env.venv  # type: ignore[union-attr]
    return spaces_env


class EnvSpec(NamedTuple):
    """What is known of an environment beyond its spaces: its registered id and its time limit."""

    env_id: str | None
    max_episode_steps: int | None


def env_spec(env: VecEnv) -> EnvSpec:
    """
    :param env: a vectorised environment, of which the first is asked
    :return: what is known of it: its registration's id and time limit, else the limit of a ``TimeLimit`` wrapper
    """
    env_id, max_episode_steps = None, None
    if hasattr(env.unwrapped, "envs"):
        spec = getattr(env.unwrapped.envs[0], "spec", None)
        env_id, max_episode_steps = getattr(spec, "id", None), getattr(spec, "max_episode_steps", None)
    else:
        # Another process is not asked for its specification: with a lambda in it, that can't be sent, and the process dies.
        # Gymnasium's description of an environment ends with its id: <TimeLimit<CartPoleEnv<CartPole-v1>>>
        with contextlib.suppress(AttributeError, NotImplementedError):
            described = re.search(r"<([^<>]+)>+$", str(env.env_method("__str__", indices=[0])[0]))
            env_id = described[1] if described and not described[1].endswith(" instance") else None
    with contextlib.suppress(AttributeError, NotImplementedError):
        if max_episode_steps is None and env.env_is_wrapped(gym.wrappers.TimeLimit)[0]:
            # Not get_attr: the wrappers of gymnasium 0.29 hide what begins with an underscore
            max_episode_steps = env.env_method("get_wrapper_attr", "_max_episode_steps")[0]
    return EnvSpec(env_id, max_episode_steps)


def is_spaces_env(env: VecEnv | None) -> bool:
    """:return: whether this is a stand-in made by :func:`make_spaces_env`"""
    return env is not None and isinstance(getattr(env.unwrapped, "envs", [None])[0], SpacesEnv)


def make_env(env: GymEnv | str | None, offline: bool, verbose: int, expert_data: Any = None) -> tuple[VecEnv, EnvSpec]:
    """
    Make and wrap the environment before SB3 does, since the policy's class depends on the action space.

    :param env: the environment, its id, or None
    :param offline: whether the environment is only needed for its spaces
    :param verbose: verbosity level
    :param expert_data: without an environment, the demonstrations, which may carry the spaces (Minari, a replay buffer)
    :return: the environment, offline a stand-in that cannot be stepped, and what is known of it
    :raises ValueError: if there is neither an environment nor spaces, or offline no demonstrations, or SB3 has no features of
        its observations
    :raises TypeError: if it is no environment
    """
    check_flag("offline", offline)
    check_env(env)
    if offline and expert_data is None:
        raise ValueError(
            "`expert_data` is None, and offline=True: there is nothing to learn from. Give IQLearn(policy, env, expert_data, "
            "offline=True) the demonstrations."
        )
    if env is None:
        env = _spaces_of_data(expert_data)
        if not offline:
            raise ValueError("`env` is None: only offline=True learns without an environment.")
    made = maybe_make_env(env, verbose)
    check_observation_space(made.observation_space)
    if isinstance(made, SpacesEnv):
        return BaseAlgorithm._wrap_env(made, 0, monitor_wrapper=False), EnvSpec(None, None)
    vec_env = BaseAlgorithm._wrap_env(made, verbose)
    spec = env_spec(vec_env)
    if not offline:
        return vec_env, spec
    spaces_env = make_spaces_env(vec_env.observation_space, vec_env.action_space, vec_env)
    if isinstance(env, str):
        vec_env.close()
    return spaces_env, spec


def check_env(env: Any) -> None:
    """
    :param env: what the user gave as the environment
    :raises TypeError: if it is none; in its place stand the demonstrations, more often than anything else
    """
    if isinstance(env, gym.vector.VectorEnv):  # in gymnasium 0.29 this is a gym.Env, too
        raise TypeError(
            f"`env` is {shorten(env)}, a vector environment of gymnasium, which SB3 does not take: use "
            "stable_baselines3.common.env_util.make_vec_env(env_id, n_envs)."
        )
    if env is None or isinstance(env, (gym.Env, VecEnv)):
        return
    if callable(env):
        raise TypeError(f"`env` is {shorten(env)}: expected an environment, not what makes one. Call it.")
    of_data = isinstance(env, str) and env.startswith(tuple(f"{scheme}:" for scheme in SCHEMES))
    if not isinstance(env, str) or of_data or (os.path.exists(env) and env not in gym.registry):
        raise TypeError(
            f"`env` is {shorten(env)}: expected an environment, its id, or None. Demonstrations are the third argument: "
            "IQLearn(policy, env, expert_data)."
        )


def _spaces_of_data(expert_data: Any) -> SpacesEnv:
    """Return an environment with the spaces that the data carries."""
    if expert_data is not None:
        one_episode = load_demonstrations(expert_data, n_trajectories=1)
        if one_episode.observation_space is not None and one_episode.action_space is not None:
            return SpacesEnv(one_episode.observation_space, one_episode.action_space)
    raise ValueError(
        "`env` is None: give env=SpacesEnv(observation_space, action_space). Spaces are never guessed from data (only Minari "
        "data sets and replay buffers carry them)."
    )


def check_callback(callback: MaybeCallback) -> None:
    """:raises ValueError: if a callback counts episodes, of which there are none offline"""
    pending: list[Any] = list(callback) if isinstance(callback, list) else [callback]
    while pending:
        current = pending.pop()
        if isinstance(current, StopTrainingOnMaxEpisodes):
            raise ValueError("`callback` holds StopTrainingOnMaxEpisodes: offline there are no episodes to count.")
        if isinstance(current, CallbackList):
            pending.extend(current.callbacks)
        elif isinstance(current, EventCallback) and isinstance(current.callback, BaseCallback):
            pending.append(current.callback)


def check_copy(env: VecEnv | None) -> None:
    """:raises ValueError: if this is a copy of a VecNormalize, which SB3 makes without the environment in it"""
    normalize = unwrap_vec_normalize(env) if env is not None else None
    if normalize is not None and normalize.venv is None:
        raise ValueError(
            "`env` is a copy of a VecNormalize, which SB3 makes without the environment in it: give it one by its "
            "set_venv(venv), or the model another by set_env()."
        )


def same_but_for_infinity(old: spaces.Space, new: spaces.Space) -> bool:
    """
    Gymnasium 1.0 turned the bounds of some spaces from the largest float to infinity: such a difference is none.

    :param old: a space
    :param new: another
    :return: whether they are equal but for bounds that are infinite in one and huge in the other
    """
    if isinstance(old, spaces.Dict) and isinstance(new, spaces.Dict):
        return old.keys() == new.keys() and all(same_but_for_infinity(old[key], new[key]) for key in old.keys())
    if not (isinstance(old, spaces.Box) and isinstance(new, spaces.Box)):
        return bool(old == new)
    if old.shape != new.shape or old.dtype != new.dtype or not np.issubdtype(old.dtype, np.floating):
        return bool(old == new)
    huge = 1e37
    return all(
        np.array_equal(np.clip(a, -huge, huge), np.clip(b, -huge, huge)) for a, b in ((old.low, new.low), (old.high, new.high))
    )
