"""How well a training without a reward goes, told by demonstrations that it does not learn from."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, unwrap_vec_normalize

from sb3_iq.demonstrations import Demonstrations, ExpertBuffer
from sb3_iq.demonstrations.errors import check_integer, cut, path_of, shorten
from sb3_iq.demonstrations.expert_data import read_expert_data
from sb3_iq.environments import make_given
from sb3_iq.iq_learn import IQLearn
from sb3_iq.iq_learn.rng import kept_rng_states
from sb3_iq.iq_learn.updates import recovered_reward
from sb3_iq.observations import Samples, has_distance
from sb3_iq.occupancy import coordinates, distance, roll_out

_AT_MOST = 10_000  # transitions of a set that are measured
_BATCH = 512


class Measure(NamedTuple):
    """
    :param sign: 1 if higher is better, -1 if lower is
    :param needs: what it is computed from besides the held-out states
    """

    sign: int
    needs: frozenset[str]


MEASURES = {
    "action_error": Measure(-1, frozenset({"actions"})),
    "log_likelihood": Measure(1, frozenset({"actions"})),
    "advantage": Measure(1, frozenset({"actions"})),
    "reward_gap": Measure(-1, frozenset({"actions", "transitions"})),
    "occupancy_distance": Measure(-1, frozenset({"eval_env"})),
}
"""What the best model can be chosen by."""
_MISSING = {
    "actions": "the held-out demonstrations have no actions",
    "transitions": "there are no transitions of the policy offline. Give eval_env",
    "eval_env": "there are no rollouts. Give eval_env; its observations must not be images, whose distance tells nothing",
}


class HeldOutCallback(BaseCallback):
    """
    Measures an :class:`~sb3_iq.IQLearn` model by demonstrations that it does not learn from, without any reward. It logs

    - ``held_out/action_error``: the share of actions that the deterministic prediction differs from; of continuous ones the
      mean distance in each dimension, scaled to [-1, 1]
    - ``held_out/log_likelihood``: the mean log pi(a|s), in nats
    - ``held_out/advantage``: the mean Q(s, a) - V(s): the recovered reward of the held-out actions against the policy's own in
      the same states
    - ``held_out/reward``, ``held_out/policy_reward`` and their difference ``held_out/reward_gap``: the mean recovered reward
      of the held-out transitions and of the policy's: of rollouts, without ``eval_env`` of the latest in the replay buffer
    - ``held_out/occupancy_distance``: with ``eval_env``, the sliced Wasserstein distance of states and actions in rollouts
      and in the held-out episodes, in standard deviations of these

    An evaluation changes nothing in training. Offline, a call is a gradient step.

    :param held_out: demonstrations that the model does not learn from: what :func:`~sb3_iq.load_demonstrations` takes or
        returns, e.g. the second part of ``demonstrations.split(0.2)``
    :param eval_env: where to roll the policy out, an environment or its id; its reward is never read
    :param eval_freq: evaluate every ``eval_freq`` calls of the callback
    :param n_eval_episodes: the number of rollouts, of deterministic actions and from the same starts each time
    :param best_by: what the best model is chosen by: ``"action_error"``, ``"log_likelihood"``, ``"advantage"``,
        ``"reward_gap"`` or ``"occupancy_distance"``. None: the last of these online with ``eval_env`` and for
        state-only demonstrations, else the first
    :param patience: stop after so many evaluations in a row without a better one; None: never
    :param best_model_save_path: the folder for ``best_model.zip``
    :param log_path: the folder for ``held_out.npz``: ``timesteps`` and an array of each measure
    :param verbose: 0 for no output, 1 for a line each evaluation
    :raises ValueError: if an argument is out of range, ``best_by`` can't be computed from what there is, or ``eval_env`` is
        not of the model's spaces
    :raises TypeError: if the model is no ``IQLearn``
    """

    model: IQLearn
    best_by: str

    def __init__(
        self,
        held_out: Any,
        eval_env: gym.Env | VecEnv | str | None = None,
        eval_freq: int = 1_000,
        n_eval_episodes: int = 5,
        best_by: str | None = None,
        patience: int | None = None,
        best_model_save_path: str | None = None,
        log_path: str | None = None,
        verbose: int = 1,
    ) -> None:
        super().__init__(verbose)
        if held_out is None:
            raise TypeError("held_out=None: give demonstrations, e.g. the second part of demonstrations.split(0.2)")
        if best_by is not None and not (isinstance(best_by, str) and best_by in MEASURES):
            raise ValueError(f"best_by={shorten(best_by)}: expected one of {', '.join(MEASURES)}")
        check_integer("eval_freq", eval_freq, 1)
        check_integer("n_eval_episodes", n_eval_episodes, 1)
        if patience is not None:
            check_integer("patience", patience, 1, cure="Use None to never stop")
        self.held_out = held_out
        self.eval_env = None if eval_env is None else _as_vec_env(eval_env)
        self.eval_freq = eval_freq
        self.n_eval_episodes = n_eval_episodes
        self._best_by = best_by
        self.patience = patience
        folders = {"best_model_save_path": best_model_save_path, "log_path": log_path}
        paths = {name: None if folder is None else str(path_of(name, folder)) for name, folder in folders.items()}
        self.best_model_save_path, self.log_path = paths["best_model_save_path"], paths["log_path"]
        self.evaluations: list[dict[str, float]] = []
        """The measures of each evaluation by name, and its ``timesteps``"""
        self.best: dict[str, float] | None = None
        """The best evaluation"""
        self.n_worse = 0

    def _init_callback(self) -> None:
        if not isinstance(self.model, IQLearn):
            raise TypeError(f"HeldOutCallback measures IQLearn models, not {type(self.model).__name__}")
        for name, path in (("best_model_save_path", self.best_model_save_path), ("log_path", self.log_path)):
            if path is not None:
                try:
                    os.makedirs(path, exist_ok=True)
                except OSError as error:
                    raise ValueError(f"{name}={shorten(path)}: cannot be made ({error}). Give a folder that can be") from error

    def _on_training_start(self) -> None:
        if self.eval_env is not None:
            _check_space("observation", self.eval_env.observation_space, self.model.observation_space)
            _check_space("action", self.eval_env.action_space, self.model.action_space)
        with _naming(f"held_out={shorten(self.held_out)}"):
            demonstrations = read_expert_data(self.held_out, *self.model._env_spec)
            with_actions = all(trajectory.acts is not None for trajectory in demonstrations)
            self.buffer = self._as_buffer(demonstrations, with_actions)
        available = {
            "actions": with_actions,
            "transitions": self.eval_env is not None or not self.model.offline,
            "eval_env": self.eval_env is not None and has_distance(self.model.observation_space),
        }
        rolls_out_online = available["eval_env"] and not self.model.offline
        default = "action_error" if with_actions and not rolls_out_online else "occupancy_distance"
        self.best_by = self._best_by or default
        for need in sorted(MEASURES[self.best_by].needs):
            if not available[need]:
                raise ValueError(f"best_by={self.best_by!r}: {_MISSING[need]}, or choose another of {', '.join(MEASURES)}")
        self._warn_of_known_data()

    def _as_buffer(self, demonstrations: Demonstrations, with_actions: bool) -> ExpertBuffer:
        model = self.model
        known_spaces = model.observation_space, model.policy.action_range
        return ExpertBuffer(demonstrations, *known_spaces, model.device, with_rewards=False, with_actions=with_actions)

    def _warn_of_known_data(self) -> None:
        """Tell of held-out data that is learned from. Observations that are no real numbers may well come again."""
        known, space = self.model.demonstrations, self.model.observation_space
        parts = space.spaces.values() if isinstance(space, spaces.Dict) else [space]
        if known.size() > _AT_MOST or not any(isinstance(part, spaces.Box) for part in parts):
            return
        learned = set(_rows(known.all()))
        share = float(np.mean([row in learned for row in _rows(self.buffer.all(at_most=_AT_MOST))]))
        if share > 0.1:
            warnings.warn(
                f"{100 * share:.0f} % of the held-out transitions are among the demonstrations that are learned from: they do "
                "not tell how well others are imitated. Hold out others, e.g. by demonstrations.split(0.2)."
            )

    def _on_step(self) -> bool:
        if self.n_calls % self.eval_freq != 0:
            return True
        with kept_rng_states(self.model.device):
            self.model.policy.set_training_mode(False)
            measures = self._measure()
        self.evaluations.append({"timesteps": self.num_timesteps, **measures})
        for name, value in measures.items():
            self.logger.record(f"held_out/{name}", value)
        self.model.write_log()
        if self.log_path is not None:
            names = dict.fromkeys(name for evaluation in self.evaluations for name in evaluation)
            columns = {name: np.array([each.get(name, np.nan) for each in self.evaluations]) for name in names}
            np.savez(os.path.join(self.log_path, "held_out.npz"), **columns)  # type: ignore[arg-type]
        return self._compare(self.evaluations[-1])

    def _compare(self, latest: dict[str, float]) -> bool:
        """Keep the model if it is the best so far, and return whether to go on."""
        sign, value = MEASURES[self.best_by].sign, latest[self.best_by]
        is_best = np.isfinite(value) and (self.best is None or sign * value > sign * self.best[self.best_by])
        if self.verbose >= 1:
            listed = ", ".join(f"{name} {latest[name]:.4g}" for name in latest if name != "timesteps")
            print(f"Held out, at {self.num_timesteps}: {listed}" + (f". The best {self.best_by} so far" if is_best else ""))
        self.n_worse = 0 if is_best else self.n_worse + 1
        if is_best:
            self.best = latest
            if self.best_model_save_path is not None:
                self.model.save(os.path.join(self.best_model_save_path, "best_model"))
        if self.patience is None or self.n_worse < self.patience:
            return True
        if self.verbose >= 1:
            print(f"Stopping training: no better {self.best_by} in {self.n_worse} evaluations")
        return False

    def _measure(self) -> dict[str, float]:
        model, measures = self.model, {}
        normalize = model.get_vec_normalize_env()
        played = None
        if self.eval_env is not None:
            with _naming("an episode of eval_env"):
                rollouts = roll_out(_Player(model, normalize), self.eval_env, self.n_eval_episodes)
                played = self._as_buffer(rollouts, self.buffer.has_actions)
        if self.buffer.has_actions:
            measures = _means([fit(model, samples) for samples in _batches(self.buffer, normalize)])
            replay_buffer = None if model.offline else model.replay_buffer
            policy = _batches(played, normalize) if played is not None else _latest(replay_buffer, normalize)
            rewards = [{"policy_reward": _reward(model, samples)} for samples in policy]
            measures |= _means(rewards) if rewards else {} if model.offline else {"policy_reward": np.nan}
            if "policy_reward" in measures:
                measures["reward_gap"] = measures["reward"] - measures["policy_reward"]
        if played is not None and has_distance(model.observation_space):
            measures["occupancy_distance"] = distance(*(coordinates(buffer, _AT_MOST) for buffer in (self.buffer, played)))
        return measures


@contextmanager
def _naming(what: str) -> Iterator[None]:
    """Tell which argument an error of the demonstrations' reader is about."""
    try:
        yield
    except (ValueError, TypeError, FileNotFoundError) as error:
        kind = next(kind for kind in (FileNotFoundError, TypeError, ValueError) if isinstance(error, kind))
        raise kind(f"{what}: {error}") from error


class _Player:
    """
    :param model: the model that plays
    :param normalize: what its observations are normalised by
    """

    def __init__(self, model: IQLearn, normalize: VecNormalize | None) -> None:
        self.model, self.normalize = model, normalize

    def predict(self, obs: Any, **kwargs: Any) -> Any:
        return self.model.predict(obs if self.normalize is None else self.normalize.normalize_obs(obs), **kwargs)


def fit(model: IQLearn, samples: Samples) -> dict[str, th.Tensor]:
    """
    :param model: the model
    :param samples: held-out transitions
    :return: how well it explains each, shape (batch,)
    """
    policy: Any = model.policy
    obs, actions = samples.observations, samples.actions
    with th.no_grad():
        predicted = policy._predict(obs, deterministic=True).reshape(actions.shape)
        error = (predicted - actions).abs() if policy.continuous else (predicted != actions).float()
        q_values = policy.aggregate(policy.q_values(obs, actions))
        return {
            "action_error": error.mean(dim=1),
            "log_likelihood": policy.log_likelihood(obs, actions),
            "advantage": q_values - policy.expected_state_value(obs, model.policy.ent_coef),
            "reward": _reward(model, samples),
        }


def _reward(model: IQLearn, samples: Samples) -> th.Tensor:
    transitions = samples.observations, samples.actions, samples.next_observations, samples.dones.reshape(-1)
    return recovered_reward(model.policy, *transitions, model.gamma, model.terminal_v)


def _batches(buffer: ExpertBuffer, normalize: VecNormalize | None) -> Iterator[Samples]:
    positions = buffer.positions(_AT_MOST)
    for first in range(0, len(positions), _BATCH):
        yield buffer.at(positions[first : first + _BATCH], normalize)


def _latest(buffer: ReplayBuffer | None, normalize: VecNormalize | None) -> list[Samples]:
    """Return the latest transitions of the policy, if there are any."""
    n = 0 if buffer is None else min(buffer.size(), _BATCH)
    if buffer is None or n == 0:
        return []
    return [buffer._get_samples((buffer.pos - 1 - np.arange(n)) % buffer.buffer_size, normalize)]


def _means(batches: list[dict[str, th.Tensor]]) -> dict[str, float]:
    return {name: float(th.cat([batch[name] for batch in batches]).mean()) for name in batches[0]}


def _rows(samples: Samples) -> list[bytes]:
    """Return each transition as bytes."""
    parts: list[th.Tensor] = []
    for obs in (samples.observations, samples.next_observations):
        parts += [obs[key] for key in sorted(obs)] if isinstance(obs, dict) else [obs]
    arrays = [part.reshape(len(part), -1).cpu().numpy() for part in parts]
    return [b"".join(array[i].tobytes() for array in arrays) for i in range(len(arrays[0]))]


def _as_vec_env(env: gym.Env | VecEnv | str) -> VecEnv:
    """Return an environment with raw observations, which is wrapped as SB3 wraps it."""
    if not isinstance(env, (str, gym.Env, VecEnv)):
        raise TypeError(f"eval_env={shorten(env)}: expected an environment, or its id")
    made = make_given("eval_env", env) if isinstance(env, str) else env
    vec_env = BaseAlgorithm._wrap_env(made.venv if isinstance(made, VecNormalize) else made, 0)
    if unwrap_vec_normalize(vec_env) is not None:
        raise ValueError("eval_env has a VecNormalize below other wrappers: give it without. Observations are normalised here")
    return vec_env


def _check_space(kind: str, found: spaces.Space, expected: spaces.Space) -> None:
    """Refuse an environment of other wrappers before the training, not in its first evaluation. Bounds may differ."""
    if _shape(found) != _shape(expected):
        raise ValueError(
            f"eval_env has the {kind} space {cut(found)}, but the model {cut(expected)}: give the environment that the model "
            "learns in, with the same wrappers"
        )


def _shape(space: spaces.Space) -> Any:
    if isinstance(space, spaces.Dict):
        return {key: _shape(part) for key, part in space.spaces.items()}
    return type(space), space.shape, getattr(space, "n", None)
