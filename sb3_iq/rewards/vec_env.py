"""A vectorised environment that pays a learned reward."""

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space, is_image_space_channels_first
from stable_baselines3.common.vec_env import VecEnv, VecEnvWrapper, VecNormalize, VecTransposeImage
from stable_baselines3.common.vec_env.base_vec_env import VecEnvObs, VecEnvStepReturn

from sb3_iq.rewards.learned_reward import LearnedReward
from sb3_iq.rewards.steps import Steps

TerminalReward = Literal["absorbing", "once"]


class LearnedRewardVecEnv(VecEnvWrapper):
    """
    Any agent of Stable-Baselines3 learns from a recovered reward here as it would from the environment's own. The true reward
    of each step is in ``infos[i]["original_reward"]``; the episode statistics of a ``Monitor`` within stay those of
    true rewards.

    In the model's eyes an episode never ends: a terminal state is an absorbing one, which goes on to pay
    r_T = (1 - gamma) V(s_T) at every step for ever. An agent's episode does end, so all that is left is paid with the last
    reward. For the agent's own discount factor gamma', that is

        r + gamma' r_T + gamma'^2 r_T + ... = r + gamma' / (1 - gamma') r_T,

    which is r / (1 - gamma') where the last transition repeats for ever, r_T = r: the value of terminal states of an online
    model whose demonstrations end too. Without it the end of an episode is worth 0, which is a gift to an agent whose rewards
    are negative, and a fine where they are positive, whatever the model thinks of that state. At a time limit no tail is
    paid: the agent bootstraps there, as ``infos[i]["TimeLimit.truncated"]`` tells it.

    :param venv: the environment, vectorised and raw: a ``VecNormalize`` goes around this wrapper, not into it
    :param reward: the reward
    :param gamma: the discount factor gamma' of the agent that will learn here, in [0, 1)
    :param terminal_reward: ``"absorbing"``, as above, or ``"once"``: r alone
    :raises TypeError: if ``venv`` or ``reward`` is of another type
    :raises ValueError: if the environment's spaces are not those of the reward, or if ``gamma`` is not in [0, 1)
    """

    def __init__(
        self, venv: VecEnv, reward: LearnedReward, gamma: float = 0.99, terminal_reward: TerminalReward = "absorbing"
    ) -> None:
        if not isinstance(venv, VecEnv):
            raise TypeError(f"`venv` is a {type(venv).__name__}, no VecEnv: make it one by DummyVecEnv([lambda: env]).")
        if not isinstance(reward, LearnedReward):
            raise TypeError(f"`reward` is a {type(reward).__name__}: give LearnedReward(model), or LearnedReward.load(path).")
        if not 0 <= gamma < 1:
            raise ValueError(f"`gamma` is {gamma}: give the discount factor of the agent that will learn, in [0, 1).")
        if terminal_reward not in ("absorbing", "once"):
            raise ValueError(f"`terminal_reward` is {str(terminal_reward)[:80]!r}: choose one of absorbing, once.")
        if _find(venv, lambda wrapper: wrapper.norm_obs) is not None:
            raise ValueError(
                "`venv` normalises observations, but rewards are of raw ones: put LearnedRewardVecEnv inside, "
                "VecNormalize(LearnedRewardVecEnv(venv, reward))."
            )
        _check_space("observation", venv.observation_space, reward.observation_space)
        _check_space("action", venv.action_space, reward.action_space)
        if reward.form == "bellman" and not np.isclose(gamma, reward.gamma):
            warnings.warn(
                f"`gamma` is {gamma}, the model's is {reward.gamma}: in the form bellman, its potential then pays "
                f"the agent for states of {'high' if gamma > reward.gamma else 'low'} value. Give the agent and this wrapper "
                f"gamma={reward.gamma}, or take the form bounded."
            )
        super().__init__(venv)
        self._reward_normalizer = _find(venv, lambda wrapper: wrapper.norm_reward)
        self.reward = reward
        self.gamma = gamma
        self.terminal_reward = terminal_reward
        self._steps: Steps | None = None
        self._actions: np.ndarray | None = None

    def reset(self) -> VecEnvObs:
        obs = self.venv.reset()
        self._steps = self._steps or Steps(self.reward)
        self._steps.reset(obs)  # type: ignore[arg-type]
        return obs

    def step_async(self, actions: np.ndarray) -> None:
        if self._steps is None:
            raise ValueError("The environment was stepped before it was reset: call reset() first.")
        self._actions = np.array(actions)
        self.venv.step_async(actions)

    def step_wait(self) -> VecEnvStepReturn:
        obs, true_rewards, dones, infos = self.venv.step_wait()
        if self._reward_normalizer is not None:
            true_rewards = self._reward_normalizer.get_original_reward()
        next_obs, terminated = _before_reset(obs, dones, infos)
        assert self._steps is not None and self._actions is not None
        rewards, absorbing = self._steps.step(self._actions, next_obs, terminated, obs, dones)  # type: ignore[arg-type]
        if self.terminal_reward == "absorbing" and terminated.any():
            rewards = rewards + np.where(terminated, self.gamma / (1 - self.gamma) * absorbing, 0.0)
        for info, true_reward in zip(infos, true_rewards.tolist(), strict=True):
            info["original_reward"] = true_reward
        return obs, rewards.astype(np.float32, copy=False), dones, infos


def _before_reset(obs: Any, dones: np.ndarray, infos: list[dict[str, Any]]) -> tuple[Any, np.ndarray]:
    """Return the observations that the actions led to, before any automatic reset, and which of them are terminal states."""
    terminated = np.array(dones, dtype=bool)
    if not terminated.any():
        return obs, terminated
    next_obs = {key: values.copy() for key, values in obs.items()} if isinstance(obs, dict) else np.array(obs)
    for index in np.flatnonzero(dones):
        if "terminal_observation" not in infos[index]:
            raise ValueError(
                f"`infos[{index}]` has no terminal_observation at the end of an episode, so that its last reward is unknown: "
                "use DummyVecEnv or SubprocVecEnv, and wrappers that keep it."
            )
        last = infos[index]["terminal_observation"]
        if isinstance(next_obs, dict):
            for key, values in next_obs.items():
                values[index] = last[key]
        else:
            next_obs[index] = last
        terminated[index] = not infos[index].get("TimeLimit.truncated", False)
    return next_obs, terminated


def _find(venv: VecEnv, wanted: Callable[[VecNormalize], bool]) -> VecNormalize | None:
    while isinstance(venv, VecEnvWrapper):
        if isinstance(venv, VecNormalize) and wanted(venv):
            return venv
        venv = venv.venv
    return None


def _check_space(kind: str, found: spaces.Space, expected: spaces.Space) -> None:
    if not _fits(found, expected):
        raise ValueError(
            f"`venv` has the {kind} space {str(found)[:80]}, but the reward was learned with {str(expected)[:80]}: use the "
            "environment, with the same wrappers, that the model was trained in."
        )


def _fits(found: spaces.Space, expected: spaces.Space) -> bool:
    """Whether a space is the expected one, but for bounds at infinity, which gymnasium's versions write in different ways."""
    if isinstance(found, spaces.Dict) and isinstance(expected, spaces.Dict):
        return found.spaces.keys() == expected.spaces.keys() and all(
            _fits(found.spaces[key], part) for key, part in expected.spaces.items()
        )
    if isinstance(found, spaces.Box) and isinstance(expected, spaces.Box):
        if is_image_space(found) and not is_image_space_channels_first(found) and found.shape != expected.shape:
            found = VecTransposeImage.transpose_space(found)
        if found.shape != expected.shape or found.dtype != expected.dtype:
            return False
        return all(
            np.allclose(_finite(ours), _finite(theirs))
            for ours, theirs in ((found.low, expected.low), (found.high, expected.high))
        )
    return found == expected


def _finite(bound: np.ndarray) -> np.ndarray:
    return np.clip(bound.astype(np.float64), -1e30, 1e30)
