"""An off-policy algorithm in VecNormalize: the demonstrations warm up its statistics, and the model is not used without it."""

import io
import pathlib
from typing import Any

import numpy as np
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn import vec_normalize
from sb3_iq.iq_learn.obs_statistics import MARGIN, ObsStatistics, RawObservationsWarning


class NormalizedAlgorithm(OffPolicyAlgorithm):
    """
    What an off-policy algorithm knows of the ``VecNormalize`` that it is trained in, if there is one.

    :param args: arguments of ``OffPolicyAlgorithm``
    :param kwargs: more of them
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        # The wrapper is not in the zip, but that it is needed is, and its statistics to tell observations that lack it
        self._normalizes_obs = False
        self._statistics_warmed_up = False
        self._obs_statistics: ObsStatistics | None = None
        self._raw_observations = RawObservationsWarning()

    @property
    def _obs_normalize_env(self) -> VecNormalize | None:
        """The ``VecNormalize`` that normalises observations, if there is one: some normalise rewards alone."""
        env = self.get_vec_normalize_env()
        return env if env is not None and env.norm_obs else None

    @property
    def _current_statistics(self) -> ObsStatistics | None:
        """What observations are normalised by before the model sees them, as far as it is known."""
        env = self._obs_normalize_env
        if self._normalizes_obs and env is not None:
            self._obs_statistics = ObsStatistics.of(env)
        return self._obs_statistics

    def _check_normalization(self) -> None:
        env = self.get_vec_normalize_env()
        self._normalizes_obs = vec_normalize.normalizes_observations(env, self.observation_space, self._normalizes_obs)

    def _warm_up_statistics(self, expert_buffer: ExpertBuffer) -> None:
        env = self._obs_normalize_env
        if env is not None and not self._statistics_warmed_up:
            vec_normalize.warm_up(env, expert_buffer)
            self._statistics_warmed_up = True

    def _check_normalized(self, **observations: np.ndarray | dict[str, np.ndarray]) -> None:
        """:raises ValueError: if observations look raw, and should be normalised"""
        statistics = self._current_statistics
        for name, obs in observations.items():
            if statistics is not None and statistics.evidence(obs) > MARGIN:
                raise ValueError(
                    f"`{name}` looks raw, and the model was trained on observations normalised by VecNormalize: give "
                    "env.normalize_obs(obs), or take sb3_iq.rewards.LearnedReward(model), which normalises by itself."
                )

    def predict(
        self,
        observation: np.ndarray | dict[str, np.ndarray],
        state: tuple[np.ndarray, ...] | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, tuple[np.ndarray, ...] | None]:
        """
        Get the policy's action from observations, normalised ones if the model was trained in ``VecNormalize``; warns once if
        they look raw.

        :param observation: the input observation, or a batch of such
        :param state: not used
        :param episode_start: not used
        :param deterministic: whether to return deterministic actions
        :return: the actions, and None
        """
        actions_and_state = super().predict(observation, state, episode_start, deterministic)
        if self._normalizes_obs and not self._raw_observations.warned:
            statistics = self._obs_statistics or self._current_statistics
            if statistics is not None:
                self._raw_observations.note(statistics, observation)
        return actions_and_state

    def save(self, path: str | pathlib.Path | io.BufferedIOBase, exclude: Any = None, include: Any = None) -> None:
        self._obs_statistics = self._current_statistics
        super().save(path, exclude, include)
