"""SB3's off-policy algorithm with demonstrations: it learns online, or offline without an environment."""

import io
import pathlib
import warnings
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule

from sb3_iq.demonstrations import Demonstrations, ExpertBuffer
from sb3_iq.demonstrations.expert_data import read_expert_data
from sb3_iq.iq_learn import migration, replay, rng, spaces_env
from sb3_iq.iq_learn.normalized_algorithm import NormalizedAlgorithm
from sb3_iq.iq_learn.optimization import one_thread
from sb3_iq.iq_learn.settings import check_changes

SelfImitationAlgorithm = TypeVar("SelfImitationAlgorithm", bound="ImitationAlgorithm")


class ImitationAlgorithm(NormalizedAlgorithm):
    """
    What an off-policy algorithm needs to imitate demonstrations: they are read, checked and never saved; the replay buffer is
    allocated by the first online ``learn``; ``learn`` without an environment takes gradient steps; a run that was saved goes
    on as if there had been no interruption.

    :param policy: the policy's class
    :param env: the environment
    :param learning_rate: as in SB3
    :param env_spec: the environment's id and time limit
    :param offline: whether to learn from the demonstrations alone
    :param kwargs: arguments of ``OffPolicyAlgorithm``
    """

    _replay_buffer: ReplayBuffer | None

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        learning_rate: float | Schedule,
        env_spec: spaces_env.EnvSpec,
        offline: bool,
        **kwargs: Any,
    ) -> None:
        super().__init__(policy, env, learning_rate, support_multi_env=True, **kwargs)  # type: ignore[arg-type]
        self.offline = offline
        self._env_spec = env_spec
        self.expert_buffer: ExpertBuffer | None = None
        # What identifies the demonstrations in a saved model
        self.expert_reference: str | None = None
        self.expert_n_transitions = 0
        self.expert_content_hash: str | None = None
        # Expert batches have a generator of their own, saved with the model
        self.expert_rng = np.random.default_rng(self.seed)
        self._rng_states: dict[str, Any] | None = None
        self._starts_trained = False

    def _setup_model(self) -> None:
        # The replay buffer is allocated by the first online learn(), see _setup_learn; a loaded model's generators are kept
        kept = self._replay_buffer, self.expert_rng, self._rng_states
        self.replay_buffer = replay.NOT_ALLOCATED
        super()._setup_model()
        self.replay_buffer, self.expert_rng, self._rng_states = kept

    @property
    def replay_buffer(self) -> ReplayBuffer | None:  # type: ignore[override]
        """The replay buffer, allocated when it is first asked for; None offline, and without an environment."""
        online = not getattr(self, "offline", True) and self.env is not None and not spaces_env.is_spaces_env(self.env)
        if self._replay_buffer is None and online:
            self._replay_buffer = self._make_replay_buffer(self.buffer_size)
        return self._replay_buffer

    @replay_buffer.setter
    def replay_buffer(self, replay_buffer: ReplayBuffer | None) -> None:
        self._replay_buffer = replay_buffer

    def _make_replay_buffer(self, buffer_size: int) -> ReplayBuffer:
        """Return a replay buffer as ``OffPolicyAlgorithm`` makes it."""
        replay.check_memory_usage(self.optimize_memory_usage, self.replay_buffer_kwargs)
        default = DictReplayBuffer if isinstance(self.observation_space, spaces.Dict) else ReplayBuffer
        buffer_class = self.replay_buffer_class or default
        if self.optimize_memory_usage and buffer_class is ReplayBuffer:
            buffer_class = replay.CompactReplayBuffer
        return buffer_class(
            buffer_size,
            self.observation_space,  # type: ignore[arg-type]
            self.action_space,
            device=self.device,
            n_envs=self.n_envs,
            optimize_memory_usage=self.optimize_memory_usage,
            **self.replay_buffer_kwargs,
        )

    def set_expert_data(self, expert_data: Any) -> None:
        """
        Read demonstrations, check them against the spaces, and imitate them from now on.

        :param expert_data: whatever :func:`~sb3_iq.load_demonstrations` takes or returns
        :raises ValueError: if they cannot be read or do not fit the spaces, with the reason
        """
        demonstrations = read_expert_data(expert_data, *self._env_spec)
        action_space = self._fit_actions(demonstrations)
        self.expert_buffer = ExpertBuffer(
            demonstrations,
            self.observation_space,
            action_space,
            device=self.device,
            rng=self.expert_rng,
            with_rewards=False,
            with_actions=self._reads_actions,
        )
        # A reference is only kept where it brings back the same data: a selection made by the caller is not in it
        self.expert_reference = str(expert_data) if isinstance(expert_data, (str, pathlib.Path)) else None
        self.expert_n_transitions = demonstrations.n_transitions
        self.expert_content_hash = demonstrations.content_hash

    @property
    def _reads_actions(self) -> bool:
        """Whether the expert's actions are learned from, so that demonstrations must have them."""
        return getattr(self, "expert_actions", "given") == "given"

    def _fit_actions(self, demonstrations: Demonstrations) -> spaces.Space:
        """Return the space that actions are scaled by, here the environment's."""
        return self.action_space

    @property
    def demonstrations(self) -> ExpertBuffer:
        """The demonstrations. They are not saved with a model: of a loaded one they are read again, if they have a name."""
        if self.expert_buffer is None:
            if self.expert_reference is None:
                raise ValueError(
                    "`expert_data` is None: there is nothing to imitate. Give IQLearn(...), IQLearn.load(...) or "
                    "set_expert_data(...) the demonstrations; they are not saved with a model."
                )
            saved_hash = self.expert_content_hash
            self.set_expert_data(self.expert_reference)
            if self.expert_content_hash != saved_hash:
                warnings.warn(f"The demonstrations of {self.expert_reference!r} are not those that the model was saved with.")
        assert self.expert_buffer is not None
        return self.expert_buffer

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Set the seed of all random generators (python, numpy, pytorch, gym, action_space), and of the expert batches.

        :param seed: the seed; with None nothing changes
        """
        super().set_random_seed(seed)
        if seed is not None:
            self.expert_rng = np.random.default_rng(seed)
            self._rng_states = None
            if self.expert_buffer is not None:
                self.expert_buffer.rng = self.expert_rng

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # A policy that has learned something, offline for instance, plays from the first step on
        if self._n_updates > 0 or self._starts_trained:
            learning_starts = 0
        action, buffer_action = super()._sample_action(learning_starts, action_noise, n_envs)
        if isinstance(self.action_space, spaces.Box) and np.abs(buffer_action).max() > 1:
            # Random actions of a box that is wider than what the policy uses of it
            fraction = (action - self.action_space.low) / (self.action_space.high - self.action_space.low)
            buffer_action = (2.0 * fraction - 1.0).astype(np.float32)
            action = self.policy.unscale_action(buffer_action)
        return action, buffer_action

    def _store_transition(self, replay_buffer: Any, buffer_action: Any, new_obs: Any, *args: Any) -> None:  # type: ignore[override]
        replay.check_finite(new_obs)
        super()._store_transition(replay_buffer, buffer_action, new_obs, *args)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        expert_buffer = self.demonstrations
        self._check_normalization()
        if self.offline:
            spaces_env.check_callback(callback)
            if not spaces_env.is_spaces_env(self.env):
                self.set_env(spaces_env.make_spaces_env(self.observation_space, self.action_space, self.env))
        elif self.env is None or spaces_env.is_spaces_env(self.env):
            what = "None" if self.env is None else "only a pair of spaces"
            raise ValueError(
                f"`env` is {what}, and offline=False: give load(..., env=...) the environment, or the model by set_env()."
            )
        self._warm_up_statistics(expert_buffer)
        self._setup_imitation(expert_buffer)
        timesteps_and_callback = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if isinstance(self._replay_buffer, replay.CompactReplayBuffer):
            self._replay_buffer.cut()
        if self._rng_states is not None and not reset_num_timesteps:
            rng.set_rng_states(self._rng_states, self.device)
        self._rng_states = None
        return timesteps_and_callback

    def _setup_imitation(self, expert_buffer: ExpertBuffer) -> None:
        """
        Prepare what depends on the demonstrations, at the beginning of each ``learn``.

        :param expert_buffer: the demonstrations
        """

    def _record_means(self) -> None:
        """Log what was noted of the gradient steps since the last time."""

    def learn(
        self: SelfImitationAlgorithm,
        total_timesteps: int = 20_000,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "IQLearn",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfImitationAlgorithm:
        """
        Return a trained model.

        :param total_timesteps: The number of environment steps to train on; offline, the number of gradient steps
        :param callback: callback(s) called at every step with state of the algorithm; offline, at every gradient step
        :param log_interval: the number of episodes before logging; offline, hundreds of gradient steps
        :param tb_log_name: the name of the run for TensorBoard logging
        :param reset_num_timesteps: whether or not to reset the current timestep number (used in logging)
        :param progress_bar: Display a progress bar using tqdm and rich.
        :return: the trained model
        :raises ValueError: if there are no demonstrations, or no environment and ``offline`` is False
        :raises NonFiniteLossError: if a loss is not finite; no optimiser has stepped on it
        """
        with one_thread(self.policy, self.device, self.verbose):
            arguments = (total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)
            if self.offline:
                self._learn_offline(*arguments)
            else:
                super().learn(*arguments)
            self._record_means()
        return self

    def _learn_offline(
        self,
        total_timesteps: int,
        callback: MaybeCallback,
        log_interval: int,
        tb_log_name: str,
        reset_num_timesteps: bool,
        progress_bar: bool,
    ) -> None:
        """Take gradient steps on the demonstrations alone: SB3's ``learn``, without rollouts."""
        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        callback.on_rollout_start()
        while self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train(gradient_steps=1, batch_size=self.batch_size)
            self.num_timesteps += 1
            callback.update_locals(locals())
            if not callback.on_step():
                break
            if log_interval is not None and self.num_timesteps % (100 * log_interval) == 0:
                self.dump_logs()
        if log_interval is not None and self.num_timesteps % (100 * log_interval) != 0:
            self.dump_logs()
        callback.on_rollout_end()
        callback.on_training_end()

    def dump_logs(self) -> None:
        """Write log, with the means of the gradient steps up to now."""
        self._record_means()
        (getattr(super(), "dump_logs", None) or super()._dump_logs)()

    # Its name in SB3 2.2
    _dump_logs = dump_logs

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        env = self._wrap_env(env, self.verbose)
        previous = self.n_envs, self.observation_space
        if self._replay_buffer is not None and self._replay_buffer.size() == 0:
            self._replay_buffer = None
        # Only stored transitions tie an environment to the number of the previous ones
        tied = self._replay_buffer is not None and not spaces_env.is_spaces_env(env)
        self.n_envs = self._replay_buffer.n_envs if tied else env.num_envs  # type: ignore[union-attr]
        if spaces_env.same_but_for_infinity(self.observation_space, env.observation_space):
            self.observation_space = env.observation_space
        try:
            super().set_env(env, force_reset)
        except (AssertionError, ValueError):
            self.n_envs, self.observation_space = previous
            raise
        if not spaces_env.is_spaces_env(env):
            env_id, max_episode_steps = spaces_env.env_spec(env)
            self._env_spec = spaces_env.EnvSpec(env_id or self._env_spec[0], max_episode_steps or self._env_spec[1])

    def save(self, path: str | pathlib.Path | io.BufferedIOBase, exclude: Any = None, include: Any = None) -> None:
        # For learn(reset_num_timesteps=False) after load() to go on as if there had been no interruption
        self._rng_states = rng.get_rng_states(self.device)
        super().save(path, exclude, include)
        self._rng_states = None

    @classmethod
    def load(  # type: ignore[override]
        cls: type[SelfImitationAlgorithm],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        expert_data: Any = None,
        **kwargs: Any,
    ) -> SelfImitationAlgorithm:
        """
        Load the model from a zip-file, see SB3's ``BaseAlgorithm.load`` for the other parameters.

        :param expert_data: the demonstrations to go on with. Without them the model predicts, and learns on if they came from
            a name or path (``bundled:CartPole-v1``) that can still be read
        :return: new model instance with loaded parameters
        :raises ValueError: if an argument is unknown, or cannot be changed in a saved model
        """
        check_changes(kwargs, cls)
        with migration.earlier_modules():
            model = super().load(path, None, device, custom_objects, print_system_info, force_reset, **kwargs)
        if env is not None:
            model.set_env(env, force_reset)
            if model.env is not None and model.seed is not None:
                model.env.seed(model.seed)
        elif model.offline:
            model.set_env(spaces_env.make_spaces_env(model.observation_space, model.action_space), force_reset)
        if expert_data is not None:
            model.set_expert_data(expert_data)
        return model

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "expert_buffer", "_replay_buffer", "_raw_observations"]
