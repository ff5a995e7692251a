"""An off-policy algorithm with demonstrations: they are read and checked, and never saved."""

import io
import pathlib
import warnings
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback

from sb3_iq.demonstrations import Demonstrations, ExpertBuffer
from sb3_iq.demonstrations.expert_data import read_expert_data
from sb3_iq.iq_learn import migration, replay, rng, spaces_env
from sb3_iq.iq_learn.networks import fingerprint
from sb3_iq.iq_learn.obs_statistics import warn_if_far
from sb3_iq.iq_learn.offline_algorithm import OfflineAlgorithm
from sb3_iq.iq_learn.settings import check_changes, check_file

SelfImitationAlgorithm = TypeVar("SelfImitationAlgorithm", bound="ImitationAlgorithm")


class ImitationAlgorithm(OfflineAlgorithm):
    """
    What an off-policy algorithm needs to imitate demonstrations: they are read, checked and never saved; a run that was saved
    goes on as if there had been no interruption.

    :param args: arguments of :class:`OfflineAlgorithm`
    :param kwargs: more of them
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.expert_buffer: ExpertBuffer | None = None
        # What identifies the demonstrations in a saved model
        self.expert_reference: str | None = None
        self.expert_n_transitions = 0
        self.expert_content_hash: str | None = None
        # Expert batches have a generator of their own, saved with the model
        self.expert_rng = np.random.default_rng(self.seed)
        self._rng_states: dict[str, Any] | None = None
        self._starts_trained = False
        # Of networks that nobody has changed: what a user sets before the first learn() stays
        self._untouched: str | None = None

    def _setup_model(self) -> None:
        # A loaded model's generators are kept
        kept = self.expert_rng, self._rng_states
        super()._setup_model()
        self.expert_rng, self._rng_states = kept

    def set_expert_data(self, expert_data: Any) -> None:
        """
        Read demonstrations, check them against the spaces, and imitate them from now on.

        :param expert_data: whatever :func:`~sb3_iq.load_demonstrations` takes or returns
        :raises ValueError: if they cannot be read or do not fit the spaces, with the reason
        """
        demonstrations = read_expert_data(expert_data, *self._env_spec)
        self._fit_actions(demonstrations)
        if self._replay_buffer is not None and self._replay_buffer.size() == 0:
            self._replay_buffer = None  # made for another range of actions
        self.expert_buffer = ExpertBuffer(
            demonstrations,
            self.observation_space,
            self.action_space,
            device=self.device,
            rng=self.expert_rng,
            with_rewards=False,
            with_actions=self._reads_actions,
            action_range=self._action_range,
        )
        # A reference is only kept where it brings back the same data: a selection made by the caller is not in it
        self.expert_reference = str(expert_data) if isinstance(expert_data, (str, pathlib.Path)) else None
        self.expert_n_transitions = demonstrations.n_transitions
        self.expert_content_hash = demonstrations.content_hash

    @property
    def _reads_actions(self) -> bool:
        """Whether the expert's actions are learned from, so that demonstrations must have them."""
        return getattr(self, "expert_actions", "given") == "given"

    def _fit_actions(self, demonstrations: Demonstrations) -> None:
        """Fit the range of actions to demonstrations, where there is one and nothing has been learned in it."""

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
        # Parameters that were set have brought the range of actions that they were learned with
        self.expert_buffer = self.expert_buffer.scaled_from(self._action_range)
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

    def _start_trained(self, start: Callable[[Any], bool], network: th.nn.Module) -> None:
        """
        Let an untrained policy start from something better, unless the user has set its parameters.

        :param start: sets the parameters of a policy; whether it has something better
        :param network: of the policy's networks the one that tells whether somebody has set parameters
        """
        self._starts_trained = self._is_untouched(network) and start(self.policy)
        if self._starts_trained:
            self._untouched = fingerprint(network)

    def _is_untouched(self, network: th.nn.Module) -> bool:
        """Whether nobody has trained this network, or set its parameters."""
        return self._n_updates == 0 and fingerprint(network) == self._untouched

    def _has_learned(self, network: th.nn.Module) -> bool:
        """Whether this network is more than as it was initialised."""
        return self._starts_trained or not self._is_untouched(network)

    def _warn_if_untrained(self, network: th.nn.Module) -> None:
        """Actions of an untrained policy are no worse than random ones, but its rewards look as if they meant something."""
        if not self._has_learned(network):
            warnings.warn(
                "The model has not learned: these rewards are those of networks as they were initialised. Call learn() first.",
                stacklevel=3,
            )

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # A policy that has learned something, offline for instance, plays from the first step on
        if self._n_updates > 0 or self._starts_trained:
            learning_starts = 0
        action, buffer_action = super()._sample_action(learning_starts, action_noise, n_envs)
        if isinstance(self.action_space, spaces.Box) and np.abs(buffer_action).max() > 1:
            # Random actions of a box that is wider than what the policy uses of it
            low, high = (bound.astype(np.float64) for bound in (self.action_space.low, self.action_space.high))
            fraction = (action - low) / (high - low)
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
        self._switch_env(callback)
        self._check_normalization()
        self._warm_up_statistics(expert_buffer)
        self._setup_imitation(expert_buffer)
        resets = reset_num_timesteps or self._last_obs is None  # when SB3 resets the environment
        timesteps_and_callback = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if resets and isinstance(self._replay_buffer, replay.CompactReplayBuffer):
            self._replay_buffer.cut()
        if self._n_updates == 0 and not self.offline:
            first = self._last_obs if self._vec_normalize_env is None else self._last_original_obs
            warn_if_far(first, expert_buffer)  # type: ignore[arg-type]
        if self._rng_states is not None and not reset_num_timesteps:
            rng.set_rng_states(self._rng_states, self.device)
        self._rng_states = None
        return timesteps_and_callback

    def _setup_imitation(self, expert_buffer: ExpertBuffer) -> None:
        """
        Prepare what depends on the demonstrations, at the beginning of each ``learn``.

        :param expert_buffer: the demonstrations
        """

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
        check_file(path)
        with migration.earlier_modules():
            model = super().load(path, None, device, custom_objects, print_system_info, force_reset, **kwargs)
        if kwargs.get("seed") is not None:
            model.set_random_seed(kwargs["seed"])  # instead of the generators that were saved
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
        return [*super()._excluded_save_params(), "expert_buffer", "_raw_observations"]
