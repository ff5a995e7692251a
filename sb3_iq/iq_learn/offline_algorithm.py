"""SB3's off-policy algorithm, which also learns offline, without an environment to step."""

import time
from typing import Any, Literal, TypeVar

from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq.demonstrations.errors import check_flag, check_number
from sb3_iq.iq_learn import replay, spaces_env
from sb3_iq.iq_learn.normalized_algorithm import NormalizedAlgorithm
from sb3_iq.iq_learn.optimization import one_thread

SelfOfflineAlgorithm = TypeVar("SelfOfflineAlgorithm", bound="OfflineAlgorithm")
LogInterval = int | Literal["auto"] | None
AUTO_LOG_STEPS = 1_000
# For as many gradient steps online as it had offline, but no more than this, the actor waits for the critic
ACTOR_WAITS = 5_000


class OfflineAlgorithm(NormalizedAlgorithm):
    """
    An off-policy algorithm whose ``learn`` takes environment steps, or offline gradient steps alone. The replay buffer is
    allocated by the first online ``learn``.

    :param policy: the policy's class
    :param env: the environment
    :param learning_rate: as in SB3
    :param env_spec: the environment's id and time limit
    :param offline: whether to learn without an environment
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
        # The environment that learn(offline=True) replaced by a stand-in
        self._env_aside: VecEnv | None = None
        # The number of gradient steps that the actor waits for
        self._actor_waits_until = 0
        # When the log was last written by the schedule, and by a callback
        self._log_steps, self._logged_at, self._written_at = 0, 0, 0

    def _setup_model(self) -> None:
        # The replay buffer is allocated by the first online learn()
        kept = self._replay_buffer
        self.replay_buffer = replay.NOT_ALLOCATED
        super()._setup_model()
        self.replay_buffer = kept

    @property
    def _action_range(self) -> spaces.Space:
        """The space that stored actions are scaled from."""
        return self.action_space

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
            self._action_range,  # who reads the buffer scales actions back by it
            device=self.device,
            n_envs=self.n_envs,
            optimize_memory_usage=self.optimize_memory_usage,
            **self.replay_buffer_kwargs,
        )

    def _switch_env(self, callback: MaybeCallback) -> None:
        """Offline, put a stand-in in the environment's place; online, put that back."""
        if self.offline:
            spaces_env.check_callback(callback)
            if not spaces_env.is_spaces_env(self.env):
                env = self.env
                self.set_env(spaces_env.make_spaces_env(self.observation_space, self.action_space, env))
                self._env_aside = env
            return
        spaces_env.check_copy(self.env if self._env_aside is None else self._env_aside)
        if self._env_aside is not None:
            self.set_env(self._env_aside)
        if self.env is None or spaces_env.is_spaces_env(self.env):
            what = "None" if self.env is None else "only a pair of spaces"
            known = self._env_spec[0]
            example = f", e.g. model.set_env(gymnasium.make({known!r}))" if known else ""
            raise ValueError(
                f"`env` is {what}, and offline=False: give load(..., env=...) the environment, or the model by "
                f"set_env(){example}."
            )

    def _record_means(self) -> None:
        """Log what was noted of the gradient steps since the last time."""

    def learn(
        self: SelfOfflineAlgorithm,
        total_timesteps: int = 20_000,
        callback: MaybeCallback = None,
        log_interval: LogInterval = "auto",
        tb_log_name: str = "IQLearn",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
        offline: bool | None = None,
    ) -> SelfOfflineAlgorithm:
        """
        Return a trained model.

        :param total_timesteps: The number of environment steps to train on; offline, the number of gradient steps
        :param callback: callback(s) called at every step with state of the algorithm; offline, at every gradient step
        :param log_interval: the number of episodes before logging, offline hundreds of gradient steps; None for no log,
            ``"auto"`` for the first end of an episode after 1,000 steps, offline every 1,000 gradient steps, and the end
        :param tb_log_name: the name of the run for TensorBoard logging
        :param reset_num_timesteps: whether or not to reset the current timestep number (used in logging)
        :param progress_bar: Display a progress bar using tqdm and rich.
        :param offline: learn this time from the demonstrations alone, or not; None: as the model's ``offline`` says
        :return: the trained model
        :raises ValueError: if there are no demonstrations, or no environment and ``offline`` is False
        :raises NonFiniteLossError: if a loss is not finite; no optimiser has stepped on it
        """
        if isinstance(log_interval, str) and log_interval != "auto":
            raise ValueError(f"`log_interval` is {log_interval[:80]!r}: give a number, 'auto', or None for no log.")
        if not isinstance(log_interval, str) and log_interval is not None and log_interval <= 0:
            raise ValueError(f"`log_interval` is {log_interval}: give a positive number, 'auto', or None for no log.")
        check_number("total_timesteps", total_timesteps, 0)
        if offline is not None:
            check_flag("offline", offline)
        of_model, automatic = self.offline, log_interval == "auto"
        self.offline = of_model if offline is None else offline
        self._log_steps = AUTO_LOG_STEPS * automatic
        self._logged_at = self._written_at = 0 if reset_num_timesteps else self.num_timesteps
        try:
            with one_thread(self.policy, self.device, self.verbose):
                if self.offline:
                    steps = AUTO_LOG_STEPS if automatic else None if log_interval is None else 100 * int(log_interval)
                    self._learn_offline(total_timesteps, callback, steps, tb_log_name, reset_num_timesteps, progress_bar)
                else:
                    # At the end of each episode, whereof dump_logs() leaves out some
                    interval: Any = 1 if automatic else log_interval
                    super().learn(total_timesteps, callback, interval, tb_log_name, reset_num_timesteps, progress_bar)
                self._log_steps = 0
                if automatic and not self._is_written():
                    self.dump_logs()
                self._record_means()
        finally:
            self.offline, self._log_steps = of_model, 0
        return self

    def _learn_offline(
        self,
        total_timesteps: int,
        callback: MaybeCallback,
        log_steps: int | None,
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
            longer = max(self._actor_waits_until, self._n_updates - 1) + 2
            self._actor_waits_until = min(longer, self._n_updates + ACTOR_WAITS)
            self.num_timesteps += 1
            callback.update_locals(locals())
            if not callback.on_step():
                break
            if log_steps is not None and self.num_timesteps % log_steps == 0 and not self._is_written():
                self.dump_logs()
        if log_steps is not None and not self._is_written():
            self.dump_logs()
        callback.on_rollout_end()
        callback.on_training_end()

    def _actor_waits(self, n_updates: int) -> bool:
        """
        Whether the actor is left as it is, because the critic would mislead it. Features that the actor takes from the critic
        do not wait.
        """
        return self._critic_warms_up(n_updates) and not getattr(self.policy, "share_features_extractor", False)

    def _critic_warms_up(self, n_updates: int) -> bool:
        """
        Whether the critic is on its way to other values: online, from those of offline training to those of the prior reward
        (a warm-up as in WSRL, https://arxiv.org/abs/2412.07762).
        """
        return not self.offline and n_updates < self._actor_waits_until

    def dump_logs(self) -> None:
        """Write log, with the means of the gradient steps up to now."""
        if self.num_timesteps - self._logged_at < self._log_steps:
            return
        self._logged_at = self.num_timesteps
        if self.offline:
            self.write_log()
            return
        self._record_means()
        (getattr(super(), "dump_logs", None) or super()._dump_logs)()

    # Its name in SB3 2.2
    _dump_logs = dump_logs

    def write_log(self) -> None:
        """Write what was recorded up to this step, as callbacks that evaluate do: ``learn`` does not write it again."""
        self._written_at = self.num_timesteps
        self._record_means()
        if self.offline:
            seconds = max((time.time_ns() - self.start_time) / 1e9, 1e-9)
            n_steps = self.num_timesteps - self._num_timesteps_at_start
            self.logger.record("time/gradient_steps/s", round(n_steps / seconds, 1))
            self.logger.record("time/time_elapsed", int(seconds), exclude="tensorboard")
        self.logger.record("time/total_timesteps", self.num_timesteps, exclude="tensorboard")
        self.logger.dump(step=self.num_timesteps)

    def _is_written(self) -> bool:
        """Whether the log of this step is written, so that another table would be all but empty."""
        return self.num_timesteps <= max(self._logged_at, self._written_at)

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
            self._env_aside = None

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "_replay_buffer", "_env_aside"]
