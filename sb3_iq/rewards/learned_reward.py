"""The recovered reward as an object of its own: frozen, saved, loaded, in NumPy."""

import pathlib
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq.iq_learn.obs_statistics import MARGIN
from sb3_iq.observations import batch_length
from sb3_iq.rewards import checks, storage
from sb3_iq.rewards.evaluation import Evaluation, Evaluator
from sb3_iq.rewards.model_parts import parts_of
from sb3_iq.rewards.parts import Form, Obs, RewardParts

if TYPE_CHECKING:
    from sb3_iq.iq_learn import IQLearn


class Tail(NamedTuple):
    """
    Rewards of transitions, and of the absorbing states behind them.

    :param rewards: r(s, a, s'), shape (batch,)
    :param absorbing: the reward of each further step in an absorbing state, if s' is one, shape (batch,)
    """

    rewards: np.ndarray
    absorbing: np.ndarray


class LearnedReward:
    """
    The reward that a model has recovered from demonstrations, for batches of transitions. It keeps copies of the networks, of
    the statistics of ``VecNormalize``, and of nothing else: no optimiser, no environment, and no demonstrations, except that
    ``"occupancy"`` keeps up to 1,000 of their states.

    With the model's own discount factor gamma, temperature alpha and V(s) = E_{a~pi}[Q(s, a) - alpha log pi(a|s)], it is

    - ``form="bellman"``: r(s, a, s') = Q(s, a) - gamma V(s') (Eq. 11 of the paper), where V of a terminal state is that of an
      absorbing one. It is defined up to a potential: r + gamma F(s') - F(s) explains the same behaviour
    - ``form="advantage"``: A(s, a) = r + gamma V(s') - V(s) = Q(s, a) - V(s), in which no potential is left. With
      discrete actions this is alpha log pi(a|s): it asks for the imitator's own actions, whatever they lead to
    - ``form="bounded"``: 1 + A(s, a) / b, where b is the mean cost of a random action in the demonstrations' states, and
      A(s, a) / b is clipped to [-1, 1]: 1 for acting like the expert, 0 for what costs as much as a random action. The
      absorbing state after an end pays between 1, if the end is like those of the demonstrations, and 0, if it is unlike
      them or none of them ends. This is the form to train a fresh agent on
    - ``form="occupancy"``: 1 + (log rho(s) - m) / u within [0, 2], where rho is the demonstrations' occupancy of states as a
      kernel density, m the mean of its logarithm in their own states, and u four standard deviations of that: more than 1
      where they spend most of their time, 0 where they never are. Nothing is read off Q. Ends are as in ``"bounded"``.
      Observations must be vectors of numbers. With continuous actions, this is the form to compare whole episodes by

    It is deterministic: with continuous actions, V is a mean over fixed draws of the policy's noise.

    :param model: a trained model
    :param form: ``"bellman"``, ``"advantage"``, ``"bounded"`` or ``"occupancy"``
    :param vec_normalize: the ``VecNormalize`` that the model was trained with; None: the one of the model's environment,
        if any. Observations are given raw, never normalised
    :raises ValueError: if the model has not learned, if its ``VecNormalize`` is missing, or if the form needs demonstrations
        or vectors that there are not
    """

    def __init__(self, model: "IQLearn", form: Form = "bellman", vec_normalize: VecNormalize | None = None) -> None:
        self._set_parts(parts_of(model, form, vec_normalize))

    @classmethod
    def _from_parts(cls, parts: RewardParts) -> "LearnedReward":
        reward = cls.__new__(cls)
        reward._set_parts(parts)
        return reward

    def _set_parts(self, parts: RewardParts) -> None:
        self._evaluator = Evaluator(parts)
        self._parts = parts

    def __setattr__(self, name: str, value: Any) -> None:
        if hasattr(self, "_parts"):
            raise AttributeError(f"A LearnedReward is frozen: `{name}` cannot be set. Make a new one from the model.")
        super().__setattr__(name, value)

    @property
    def observation_space(self) -> spaces.Space:
        """The space of raw observations; that of images has the channels first."""
        return self._parts.policy.observation_space

    @property
    def action_space(self) -> spaces.Space:
        """The space of actions, in the environment's units."""
        return self._parts.policy.action_space

    @property
    def gamma(self) -> float:
        """The discount factor of the model."""
        return self._parts.gamma

    @property
    def form(self) -> Form:
        """The form of the reward."""
        return self._parts.form

    def with_form(self, form: Form) -> "LearnedReward":
        """
        :param form: ``"bellman"``, ``"advantage"``, ``"bounded"`` or, of a reward that was made in it, ``"occupancy"``
        :return: the reward in this form, of the same networks
        :raises ValueError: if it is ``"occupancy"``, and this reward does not hold the demonstrations' states
        """
        return self._from_parts(replace(self._parts, form=form))

    def __call__(
        self, obs: Obs, actions: np.ndarray, next_obs: Obs, terminated: np.ndarray, standard_error: bool = False
    ) -> Any:
        """
        :param obs: raw observations, shape (batch, \\*obs_shape), or a dictionary of such
        :param actions: actions in the environment's units, shape (batch, \\*action_shape)
        :param next_obs: next observations, the terminal one where an episode ended, shape of ``obs``
        :param terminated: whether the episode ended in a terminal state (a time limit is none), shape (batch,)
        :param standard_error: whether to return standard errors too: how much a reward would change with other draws of
            the policy's noise in V; continuous actions only
        :return: rewards, shape (batch,); with ``standard_error`` a pair of rewards and standard errors
        :raises ValueError: if the arguments are no batches of the spaces of the reward
        """
        if standard_error and not self._evaluator.continuous:
            raise ValueError("`standard_error` is True, but V is exact with discrete actions: leave it False.")
        rewards, _, errors = self._evaluate(obs, actions, next_obs, terminated)
        self._check_raw(obs)
        return (rewards, errors) if standard_error else rewards

    def with_tail(self, obs: Obs, actions: np.ndarray, next_obs: Obs, terminated: np.ndarray) -> Tail:
        """
        Rewards, and what an absorbing state behind each transition would pay at each further step: (1 - gamma) V(s') with V of
        a terminal state. As an advantage that is 0, r_T + gamma V - V; how ``"bounded"`` and ``"occupancy"`` have it is said
        above, and 0 where the episode goes on.

        :param obs: as in a call, as are the others
        :param actions: actions
        :param next_obs: next observations
        :param terminated: whether the episode ended in a terminal state
        :return: the rewards and those of absorbing states
        """
        return Tail(*self._evaluate(obs, actions, next_obs, terminated)[:2])

    def predict_q(self, obs: Obs, actions: np.ndarray) -> np.ndarray:
        """
        :param obs: raw observations, shape (batch, \\*obs_shape), or a dictionary of such
        :param actions: actions in the environment's units, shape (batch, \\*action_shape)
        :return: Q(s, a), shape (batch,)
        """
        rows = checks.checked_obs(obs, self.observation_space, "obs")
        action_rows = checks.checked_actions(actions, self.action_space)
        checks.check_lengths(obs=batch_length(rows), actions=len(action_rows))
        self._check_raw(rows)
        return self._evaluator.q(rows, action_rows)

    def predict_value(self, obs: Obs) -> np.ndarray:
        """
        :param obs: raw observations, shape (batch, \\*obs_shape), or a dictionary of such
        :return: V(s), shape (batch,)
        """
        rows = checks.checked_obs(obs, self.observation_space, "obs")
        self._check_raw(rows)
        return self._evaluator.value(rows)

    def predict(
        self, observation: Obs, state: None = None, episode_start: np.ndarray | None = None, deterministic: bool = False
    ) -> tuple[np.ndarray, None]:
        """
        What the imitator does, as SB3's ``predict`` has it, also for ``evaluate_policy``.

        :param observation: raw observations, shape (batch, \\*obs_shape), or a dictionary of such
        :param state: not used
        :param episode_start: not used
        :param deterministic: whether to take the most likely action or to draw one
        :return: actions in the environment's units, shape (batch, \\*action_shape), and None
        """
        rows = self._evaluator.normalized(checks.checked_obs(observation, self.observation_space, "observation"))
        return self._parts.policy.predict(rows, deterministic=deterministic)[0], None

    def save(self, path: str | pathlib.Path) -> None:
        """
        :param path: the file to write, a zip of JSON and tensors (.zip is appended if there is no suffix)
        """
        storage.save(self._parts, pathlib.Path(path))

    @classmethod
    def load(
        cls, path: str | pathlib.Path, device: th.device | str = "auto", custom_objects: dict[str, Any] | None = None
    ) -> "LearnedReward":
        """
        Load a reward without executing anything from the file: JSON, and tensors by ``torch.load(weights_only=True)``.

        :param path: the file
        :param device: device (cpu, cuda, ...) on which the networks run
        :param custom_objects: classes that are neither PyTorch's, SB3's nor of this package, by the names that the message
            of an attempt without them tells
        :return: the reward
        :raises ValueError: if the file is no saved reward, or needs ``custom_objects``
        """
        return cls._from_parts(storage.load(pathlib.Path(path), device, custom_objects or {}))

    def _evaluate(self, obs: Obs, actions: np.ndarray, next_obs: Obs, terminated: np.ndarray) -> Evaluation:
        rows = checks.checked_obs(obs, self.observation_space, "obs")
        next_rows = checks.checked_obs(next_obs, self.observation_space, "next_obs")
        action_rows = checks.checked_actions(actions, self.action_space)
        over = checks.checked_terminated(terminated)
        n, n_next = batch_length(rows), batch_length(next_rows)
        checks.check_lengths(obs=n, actions=len(action_rows), next_obs=n_next, terminated=len(over))
        return self._evaluator.evaluate(rows, action_rows, next_rows, over)

    def _check_raw(self, obs: Obs) -> None:
        statistics = self._parts.statistics
        if statistics is not None and statistics.evidence(obs) < -MARGIN:
            warnings.warn(
                "`obs` looks as if VecNormalize had normalised it, and the reward does so itself: rewards of what is "
                "normalised twice mean nothing. Give raw observations, env.get_original_obs() or env.unnormalize_obs(obs)."
            )
