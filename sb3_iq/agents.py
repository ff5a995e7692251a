"""Trained agents of Stable-Baselines3, sb3-contrib and RL Zoo, with the environment that each was trained in."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import sb3_contrib
import stable_baselines3
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.vec_env import DummyVecEnv, VecEnv, VecNormalize
from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

from sb3_iq.demonstrations.errors import cut, first_words, how_to_install, shorten
from sb3_iq.demonstrations.trajectory import Trajectory
from sb3_iq.environments import not_made
from sb3_iq.iq_learn import IQLearn
from sb3_iq.observations import map_obs, stack_obs, take_rows

# What a zip holds only for training: memory, schedules and their pickled functions
_TRAINING_ONLY = {
    "buffer_size": 1,
    "optimize_memory_usage": False,
    "learning_rate": 0.0,
    "lr_schedule": lambda _: 0.0,
    "clip_range": lambda _: 0.0,
}


def algorithms() -> dict[str, type[BaseAlgorithm]]:
    """
    :return: every algorithm of SB3 and sb3-contrib, as installed, by its name in lower case, and by RL Zoo's name where
        that is another
    """
    exported = [getattr(module, name) for module in (stable_baselines3, sb3_contrib) for name in module.__all__]
    found = {cls.__name__.lower(): cls for cls in exported if isinstance(cls, type) and issubclass(cls, BaseAlgorithm)}
    return {**found, "ppo_lstm": sb3_contrib.RecurrentPPO, "iq": IQLearn}


@dataclass(frozen=True)
class AgentFiles:
    """
    Where a trained agent is, and what its environment is made of.

    :param algo: the algorithm's name, a key of :func:`algorithms`
    :param env_id: the environment's id
    :param model: the agent's zip
    :param name: how to call the agent in a card: its path within the folder of agents
    :param vecnormalize: the pickled statistics of its ``VecNormalize``, if it was trained with normalised observations
    :param env_kwargs: arguments of the environment
    :param wrappers: RL Zoo's settings ``env_wrapper``, ``vec_env_wrapper`` and ``frame_stack``, those that are there
    """

    algo: str
    env_id: str
    model: Path
    name: str
    vecnormalize: Path | None = None
    env_kwargs: dict[str, Any] = field(default_factory=dict)
    wrappers: dict[str, Any] = field(default_factory=dict)

    @property
    def n_stack(self) -> int:
        """The number of observations that the agent sees at once."""
        return self.wrappers.get("frame_stack") or 1


def find_in_zoo(
    folder: Path,
    algo: str,
    env_id: str,
    exp_id: int = 0,
    load_best: bool = False,
    load_checkpoint: int | None = None,
    load_last_checkpoint: bool = False,
) -> AgentFiles:
    """
    Find an agent as ``rl_zoo3 enjoy`` does. The zoo's files hold pickles, which can run code: only agents that you trust.

    :param folder: the zoo's folder of logs
    :param algo: the zoo's name of the algorithm
    :param env_id: the environment's id
    :param exp_id: the number of the experiment, 0 for the latest, -1 for an agent without a folder of its own
    :param load_best: take the best model, not the last one
    :param load_checkpoint: take the checkpoint of this step
    :param load_last_checkpoint: take the last checkpoint
    :return: the agent's files and the settings of its environment
    :raises ImportError: if RL Zoo is not installed
    :raises FileNotFoundError: if there is no such agent
    """
    try:
        import rl_zoo3.import_envs  # noqa: F401  (registers the environments that RL Zoo knows)
        from huggingface_sb3 import EnvironmentName
        from rl_zoo3.utils import get_model_path, get_saved_hyperparams
    except ImportError as error:
        raise ImportError(
            f"-f {shorten(folder)}: RL Zoo, which wrote this folder, can't be imported ({error}). {how_to_install('zoo')}"
        ) from error
    name = EnvironmentName(env_id)
    try:
        _, model, log_path = get_model_path(exp_id, str(folder), algo, name, load_best, load_checkpoint, load_last_checkpoint)  # type: ignore[arg-type]
    except (AssertionError, ValueError) as error:
        raise FileNotFoundError(f"-f {shorten(folder)}: {error}. Check --algo, --env and --exp-id") from error
    settings, stats_path = get_saved_hyperparams(str(Path(log_path) / name), test_mode=True)
    vecnormalize = Path(log_path) / name / "vecnormalize.pkl" if settings.get("normalize") and stats_path else None
    return AgentFiles(
        algo=algo,
        env_id=name.gym_id,
        model=Path(model),
        name=Path(model).relative_to(folder).as_posix(),
        vecnormalize=vecnormalize,
        env_kwargs={**(settings.get("env_kwargs") or {}), **_env_kwargs_of_args(Path(log_path) / name / "args.yml")},
        wrappers={key: settings[key] for key in ("env_wrapper", "vec_env_wrapper", "frame_stack") if settings.get(key)},
    )


def _env_kwargs_of_args(path: Path) -> dict[str, Any]:
    """Return the arguments of the environment that were given on the zoo's command line."""
    import yaml

    if not path.is_file():
        return {}
    with open(path, encoding="utf-8") as file:
        # The zoo writes Python objects into this file
        return yaml.load(file, Loader=yaml.UnsafeLoader).get("env_kwargs") or {}


def make_env(files: AgentFiles, max_episode_steps: int | None = None) -> gym.Env:
    """
    :param files: an agent
    :param max_episode_steps: a time limit in place of the registered one
    :return: its environment, wrapped as RL Zoo does below normalisation and frame stacking
    :raises ValueError: if the environment can't be made, or gives observations that can't be recorded
    """
    limit = {} if max_episode_steps is None else {"max_episode_steps": max_episode_steps}
    try:
        env = gym.make(files.env_id, **{**files.env_kwargs, **limit})
    except Exception as error:  # an id that is unknown or deprecated, a package that is missing, the environment itself
        raise ValueError(not_made(files.env_id, error)) from error
    try:
        env = _wrapper(files, "env_wrapper")(env)
        if "vec_env_wrapper" in files.wrappers:
            env = _EnvOfVecEnv(_wrapper(files, "vec_env_wrapper")(DummyVecEnv([lambda: env])))
    except Exception as error:  # a name that can't be imported, a wrapper that wants another environment
        given = ", ".join(str(files.wrappers[key]) for key in ("env_wrapper", "vec_env_wrapper") if key in files.wrappers)
        raise ValueError(
            f"--env-wrapper {cut(given)}: {files.env_id} can't be wrapped in it ({first_words(error)}). Give MODULE.CLASS"
        ) from error
    space = env.observation_space
    for key, part in space.spaces.items() if isinstance(space, spaces.Dict) else [("", space)]:
        if not isinstance(part, (spaces.Box, spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary)):
            label = f"its observations of the key {key!r}" if key else "its observations"
            raise ValueError(
                f"--env {files.env_id}: {label} are of a {type(part).__name__} space, for which Stable-Baselines3 has no "
                "networks. Flatten them with a wrapper"
            )
    return env


def _wrapper(files: AgentFiles, key: str) -> Callable[[Any], Any]:
    """Return what wraps the environment: a dotted name here, or all that RL Zoo's settings allow."""
    value = files.wrappers.get(key)
    if isinstance(value, str):
        module, _, name = value.rpartition(".")
        return getattr(importlib.import_module(module), name)
    wrap: Callable[[Any], Any] | None = None
    if value is not None:
        from rl_zoo3.utils import get_wrapper_class

        wrap = get_wrapper_class({key: value}, key)
    return wrap or (lambda env: env)


class _EnvOfVecEnv(gym.Env):
    """
    One environment of a vectorised one, for wrappers that only those have.

    :param venv: a vectorised environment of one
    """

    def __init__(self, venv: VecEnv) -> None:
        self.venv = venv
        self.observation_space, self.action_space = venv.observation_space, venv.action_space
        self.spec = venv.get_attr("spec")[0]

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        self.venv.seed(seed)
        return self.venv.reset()[0], {}  # type: ignore[index]

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        obs, rewards, dones, infos = self.venv.step(np.stack([action]))
        truncated = bool(dones[0]) and infos[0]["TimeLimit.truncated"]
        last_obs = infos[0]["terminal_observation"] if dones[0] else obs[0]  # type: ignore[index]
        return last_obs, float(rewards[0]), bool(dones[0]) and not truncated, truncated, infos[0]


class Agent:
    """
    A trained agent that acts on raw observations: what it was trained with (normalisation, frame stacking, a recurrent
    state, action masks) happens inside.

    :param files: the agent. Its zip and statistics hold pickles, which can run code: only agents that you trust
    :param env: its environment, from :func:`make_env`
    :param deterministic: whether it takes its best action, or draws one
    :param device: PyTorch device
    :raises ValueError: if a file is of another kind or does not fit the environment
    """

    def __init__(self, files: AgentFiles, env: gym.Env, deterministic: bool = True, device: str = "auto") -> None:
        self.env, self.deterministic, self._n_stack = env, deterministic, files.n_stack
        known = algorithms()
        try:
            self.model = known[files.algo].load(files.model, device=device, custom_objects=_TRAINING_ONLY)
        except Exception as error:  # whatever zipfile, pickle and torch raise, and SB3's asserts
            raise ValueError(
                f"{shorten(files.model)}: cannot be loaded as an agent of {files.algo} ({first_words(error)}). Check --algo "
                "and --device"
            ) from error
        venv: VecEnv = DummyVecEnv([lambda: env])
        self._normalize: VecNormalize | None = None
        if files.vecnormalize is not None:
            venv = self._normalize = load_statistics(files.vecnormalize, venv, files.env_id)
        check_statistics(self.model, self._normalize)
        self.sees_normalised = self._normalize is not None and bool(self._normalize.norm_obs)
        """Whether the agent was trained with normalised observations."""
        self._stack = self._new_stack(venv.observation_space)
        seen = venv.observation_space if self._stack is None else self._stack.stacked_observation_space
        _check_spaces(self.model, seen, env.action_space)
        raw_stack = self._new_stack(env.observation_space)
        self.observation_space = env.observation_space if raw_stack is None else raw_stack.stacked_observation_space
        """The space of recorded observations: raw, and stacked as the agent's were."""
        self.start_episode()

    def start_episode(self) -> None:
        """Forget the episode before."""
        self._state: tuple[np.ndarray, ...] | None = None
        self._starts = True

    def __call__(self, obs: Any) -> Any:
        """
        :param obs: one observation of the environment
        :return: the action, in the units of the environment and within its bounds
        """
        batch: Any = map_obs(lambda part: np.asarray(part)[None], obs)
        if self._normalize is not None:
            batch = self._normalize.normalize_obs(batch)
        if self._stack is not None:
            batch = _push(self._stack, batch, self._starts)
        masks = {}
        if isinstance(self.model, sb3_contrib.MaskablePPO):
            masks = {"action_masks": self.env.get_wrapper_attr("action_masks")()}
        actions, self._state = self.model.predict(
            batch, state=self._state, episode_start=np.array([self._starts]), deterministic=self.deterministic, **masks
        )
        self._starts = False
        return actions[0]

    def as_stacked(self, trajectory: Trajectory) -> Trajectory:
        """
        :param trajectory: an episode of single observations
        :return: the same episode with raw observations stacked as the agent's were, shape (T + 1, \\*stacked_shape)
        """
        stack = self._new_stack(self.env.observation_space)
        if stack is None:
            return trajectory
        rows: list[Any] = []
        for t in range(len(trajectory) + 1):
            seen = _push(stack, take_rows(trajectory.obs, slice(t, t + 1)), first=t == 0)
            rows.append(map_obs(lambda part: part[0].copy(), seen))
        return replace(trajectory, obs=stack_obs(rows))

    def _new_stack(self, space: spaces.Space) -> StackedObservations | None:
        try:
            return None if self._n_stack == 1 else StackedObservations(1, self._n_stack, space)  # type: ignore[arg-type]
        except TypeError as error:
            raise ValueError(
                f"--frame-stack {self._n_stack}: these observations can't be stacked ({error}). Leave it out"
            ) from error


def load_statistics(path: Path, venv: VecEnv, env_id: str) -> VecNormalize:
    """
    :param path: what ``VecNormalize.save`` wrote: a pickle, so only one that you trust
    :param venv: the environment
    :param env_id: its id
    :return: the environment, with observations normalised
    :raises ValueError: if they can't be read, or are those of another environment
    """
    try:
        return VecNormalize.load(str(path), venv)
    except Exception as error:  # whatever pickle raises, and a shape that differs
        raise ValueError(
            f"{shorten(path)}: the statistics of VecNormalize cannot be loaded for {env_id} ({first_words(error)})"
        ) from error


def check_statistics(model: BaseAlgorithm, normalize: VecNormalize | None) -> None:
    """
    :param model: a model, of which only an IQLearn knows whether it needs statistics
    :param normalize: the statistics that are known
    :raises ValueError: if they are missing
    """
    if normalize is None and getattr(model, "_normalizes_obs", False):
        raise ValueError(
            "the model was trained on observations normalised by VecNormalize, whose statistics are not saved with it: give "
            "what VecNormalize.save wrote by --vecnormalize"
        )


def _push(stack: StackedObservations, obs: Any, first: bool) -> Any:
    """Return the stack after one more observation, as ``VecFrameStack`` fills it."""
    return stack.reset(obs) if first else stack.update(obs, np.array([False]), [{}])[0]


def _check_spaces(model: BaseAlgorithm, observation_space: spaces.Space, action_space: spaces.Space) -> None:
    """Refuse an environment that the agent was not trained in. Bounds may differ: Gymnasium's releases do."""
    pairs = [("observation", model.observation_space, observation_space), ("action", model.action_space, action_space)]
    if isinstance(model.observation_space, spaces.Dict) and isinstance(observation_space, spaces.Dict):
        seen, given = model.observation_space.spaces, observation_space.spaces
        if seen.keys() == given.keys():
            pairs[:1] = [(f"observation[{key!r}]", seen[key], given[key]) for key in seen]
    for name, trained, found in pairs:
        shape, wanted = found.shape, trained.shape
        same_shape = shape == wanted or (shape is not None and len(shape) == 3 and (shape[-1], *shape[:-1]) == wanted)
        if not (same_shape if isinstance(trained, spaces.Box) and isinstance(found, spaces.Box) else trained == found):
            raise ValueError(
                f"the agent was trained with the {name} space {shorten(str(trained))}, but its environment has "
                f"{shorten(str(found))}: "
                "use the same environment, arguments and wrappers as in training"
            )
