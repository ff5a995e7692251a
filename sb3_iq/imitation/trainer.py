"""IQ-Learn as an algorithm of the library imitation."""

import inspect
import warnings
from collections.abc import Callable, Iterable
from typing import Any

from imitation.algorithms import base
from imitation.algorithms.adversarial.common import AdversarialTrainer
from imitation.algorithms.sqil import SQIL
from imitation.data import types
from imitation.rewards.reward_nets import RewardNet
from imitation.util import logger as imit_logger
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv
from torch.utils.data import DataLoader

from sb3_iq import IQLearn
from sb3_iq.demonstrations.errors import shorten

# The environment steps of a round, which callbacks of GAIL and AIRL count
ROUND_TIMESTEPS = 2_048


class _RoundCallback(BaseCallback):
    """
    Calls a function with the number of each round, as imitation's adversarial trainers do.

    :param function: takes the number, counted from 0 in each call of ``train``
    :param n_steps: environment steps of a round
    """

    def __init__(self, function: Callable[[int], None], n_steps: int) -> None:
        super().__init__()
        self.function, self.n_steps = function, n_steps

    def _on_training_start(self) -> None:
        self.n_rounds, self.began_at = 0, self.num_timesteps

    def _on_step(self) -> bool:
        while self.num_timesteps - self.began_at >= (self.n_rounds + 1) * self.n_steps:
            self.function(self.n_rounds)
            self.n_rounds += 1
        return True


class IQLearnTrainer(base.DemonstrationAlgorithm[types.Transitions]):
    """
    IQ-Learn with the interface of imitation's algorithms: in code that is written for ``SQIL``, ``GAIL`` or ``AIRL``, change
    the class. IQ-Learn has no generator besides its own model, and no discriminator: what that code says of these is named
    in a warning, and not used.

    IQ-Learn treats terminal states in its target, so that episodes of different lengths are no problem, and are not refused.

    :param venv: the vectorised environment to train in
    :param demonstrations: whatever imitation's algorithms take, but for data loaders and transitions without next
        observations; also whatever :class:`~sb3_iq.IQLearn` takes
    :param policy: policy of :class:`~sb3_iq.IQLearn`
    :param custom_logger: where to log to; if None, a new logger, or SB3's if ``rl_kwargs`` has a ``tensorboard_log``
    :param rl_kwargs: more arguments of :class:`~sb3_iq.IQLearn`; those that only SB3's SAC or DQN has are named in a warning
    :param gen_train_timesteps: the environment steps of a round, which functions given to :meth:`train` count; None: those of
        a ``gen_algo`` that is given, as with ``GAIL``, else 2,048
    :param unused: what ``SQIL``, ``GAIL`` and ``AIRL`` take besides
    :raises ValueError: if an argument or the demonstrations do not fit
    :raises TypeError: if an argument is none of those algorithms'
    """

    def __init__(
        self,
        *,
        venv: VecEnv,
        demonstrations: Any,
        policy: str | type[BasePolicy] = "MlpPolicy",
        custom_logger: imit_logger.HierarchicalLogger | None = None,
        rl_kwargs: dict[str, Any] | None = None,
        gen_train_timesteps: int | None = None,
        **unused: Any,
    ) -> None:
        kwargs, not_ours = _split(rl_kwargs or {})
        _check_unused(unused, not_ours)
        self.venv = venv
        self.gen_train_timesteps = gen_train_timesteps or _round_of(unused.get("gen_algo"))
        self.gen_algo = IQLearn(policy, venv, _as_sequence(demonstrations), **kwargs)
        super().__init__(demonstrations=None, custom_logger=custom_logger)
        # Not by the constructor, which would then warn of a bias that other algorithms have
        self.allow_variable_horizon = True
        if custom_logger is not None or self.gen_algo.tensorboard_log is None:
            self.gen_algo.set_logger(self.logger)

    @property
    def rl_algo(self) -> IQLearn:
        """The model, by the name that ``SQIL`` has for it."""
        return self.gen_algo

    @property
    def venv_train(self) -> VecEnv:
        """The environment: no reward is put into it, as IQ-Learn reads none."""
        return self.venv

    @property
    def logger(self) -> imit_logger.HierarchicalLogger:
        """Where the model logs to."""
        return self._logger

    @logger.setter
    def logger(self, value: imit_logger.HierarchicalLogger) -> None:
        self._logger = value
        self.gen_algo.set_logger(value)

    def set_demonstrations(self, demonstrations: Any) -> None:
        """
        Imitate these from now on.

        :param demonstrations: see the constructor
        """
        self.gen_algo.set_expert_data(_as_sequence(demonstrations))

    def train(
        self,
        total_timesteps: int,
        callback: Any = None,
        tb_log_name: str = "IQLearn",
        **learn_kwargs: Any,
    ) -> None:
        """
        Train for so many environment steps, or gradient steps with ``offline=True``. Called again, it trains on.

        :param total_timesteps: how many
        :param callback: SB3's, as for ``SQIL``; or a function of the number of the round, as for ``GAIL`` and ``AIRL``
        :param tb_log_name: the name of the run for TensorBoard logging
        :param learn_kwargs: more arguments of :meth:`IQLearn.learn <sb3_iq.IQLearn.learn>`
        """
        if callable(callback) and _takes_rounds(callback):
            callback = _RoundCallback(callback, self.gen_train_timesteps)
        learn_kwargs.setdefault("reset_num_timesteps", self.gen_algo.num_timesteps == 0)
        self.gen_algo.learn(total_timesteps, callback, tb_log_name=tb_log_name, **learn_kwargs)

    @property
    def policy(self) -> BasePolicy:
        """The policy that imitates the demonstrations."""
        return self.gen_algo.policy

    @property
    def reward_train(self) -> RewardNet:
        """The recovered reward, r = Q(s, a) - gamma V(s')."""
        from sb3_iq.imitation.reward_net import IQRewardNet
        from sb3_iq.rewards import LearnedReward

        return IQRewardNet(LearnedReward(self.gen_algo))

    @property
    def reward_test(self) -> RewardNet:
        """The same: IQ-Learn has one reward."""
        return self.reward_train


def _parameters(*classes: type) -> set[str]:
    return {name for cls in classes for name in inspect.signature(cls).parameters}


def _split(rl_kwargs: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """Return the arguments of IQLearn, and the names of those that only the learners of ``SQIL`` have."""
    set_here = {"policy": "policy", "env": "venv", "expert_data": "demonstrations"}
    ours, theirs = _parameters(IQLearn), _parameters(SAC, DQN)
    for name in rl_kwargs:
        if name in set_here:
            raise TypeError(f"rl_kwargs holds {name!r}: give it to IQLearnTrainer itself, as {set_here[name]}")
        if name not in ours | theirs:
            raise TypeError(f"rl_kwargs holds {shorten(name)}: IQLearn has no such argument. Leave it out")
    return {name: value for name, value in rl_kwargs.items() if name in ours}, [name for name in rl_kwargs if name not in ours]


def _round_of(generator: BaseAlgorithm | None) -> int:
    """Return the environment steps of a round, as imitation's adversarial trainers count them for their generator."""
    env = None if generator is None else generator.get_env()
    return ROUND_TIMESTEPS if env is None else env.num_envs * getattr(generator, "n_steps", 1)


def _check_unused(unused: dict[str, Any], of_rl_kwargs: list[str]) -> None:
    """Tell of arguments of imitation's algorithms that mean nothing here; others are errors, as they are everywhere."""
    theirs = _parameters(SQIL, AdversarialTrainer)
    for name in unused:
        if name not in theirs:
            raise TypeError(f"IQLearnTrainer.__init__() got an unexpected keyword argument {name!r}")
    # Episodes of different lengths are never refused
    if names := [*(name for name in unused if name != "allow_variable_horizon"), *of_rl_kwargs]:
        warnings.warn(
            f"IQLearnTrainer does not use {', '.join(names)}: IQ-Learn has no discriminator, and no generator besides its own "
            "model, trainer.gen_algo, whose arguments are rl_kwargs. What learns, and is to be evaluated, is trainer.policy.",
            stacklevel=3,
        )


def _as_sequence(demonstrations: Any) -> Any:
    """Return demonstrations that can be read more than once: imitation's algorithms take any iterable of trajectories."""
    if not isinstance(demonstrations, Iterable) or hasattr(demonstrations, "__getitem__"):
        return demonstrations
    return demonstrations if isinstance(demonstrations, DataLoader) else list(demonstrations)


def _takes_rounds(function: Callable[..., Any]) -> bool:
    """Return whether this is called with the number of a round, and not with locals and globals, as SB3's functions are."""
    try:
        inspect.signature(function).bind(0)
    except TypeError:
        return False
    except ValueError:  # a builtin does not tell
        return True
    return True
