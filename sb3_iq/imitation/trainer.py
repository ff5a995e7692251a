"""IQ-Learn as an algorithm of the library imitation."""

from collections.abc import Callable
from typing import Any

from imitation.algorithms import base
from imitation.data import types
from imitation.rewards.reward_nets import RewardNet
from imitation.util import logger as imit_logger
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq import IQLearn

# The environment steps of a round, which callbacks of GAIL and AIRL count
ROUND_TIMESTEPS = 2_048


class _RoundCallback(BaseCallback):
    """
    Calls a function with the number of each round, as imitation's adversarial trainers do.

    :param function: takes the number, counted from 0
    :param n_steps: environment steps of a round
    """

    def __init__(self, function: Callable[[int], None], n_steps: int) -> None:
        super().__init__()
        self.function, self.n_steps, self.n_rounds = function, n_steps, 0

    def _on_step(self) -> bool:
        while self.num_timesteps >= (self.n_rounds + 1) * self.n_steps:
            self.function(self.n_rounds)
            self.n_rounds += 1
        return True


class IQLearnTrainer(base.DemonstrationAlgorithm[types.Transitions]):
    """
    IQ-Learn with the interface of imitation's algorithms: in code that is written for ``SQIL``, change the class; in code for
    ``GAIL`` and ``AIRL``, leave out ``gen_algo``, ``reward_net`` and the discriminator's arguments as well.

    IQ-Learn treats terminal states in its target, so that episodes of different lengths are no problem, and are not refused.

    :param venv: the vectorised environment to train in
    :param demonstrations: whatever imitation's algorithms take, but for data loaders and transitions without next
        observations; also whatever :class:`~sb3_iq.IQLearn` takes
    :param policy: policy of :class:`~sb3_iq.IQLearn`
    :param custom_logger: where to log to; if None, a new logger
    :param rl_kwargs: more arguments of :class:`~sb3_iq.IQLearn`
    :raises ValueError: if an argument or the demonstrations do not fit
    """

    def __init__(
        self,
        *,
        venv: VecEnv,
        demonstrations: Any,
        policy: str | type[BasePolicy] = "MlpPolicy",
        custom_logger: imit_logger.HierarchicalLogger | None = None,
        rl_kwargs: dict[str, Any] | None = None,
    ) -> None:
        self.venv = venv
        self.gen_algo = IQLearn(policy, venv, demonstrations, **(rl_kwargs or {}))
        super().__init__(demonstrations=None, custom_logger=custom_logger, allow_variable_horizon=True)
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
        self.gen_algo.set_expert_data(demonstrations)

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
        :param callback: SB3's, as for ``SQIL``; or a function of the number of the round, as for ``GAIL`` and ``AIRL``: a
            round is 2,048 steps
        :param tb_log_name: the name of the run for TensorBoard logging
        :param learn_kwargs: more arguments of :meth:`IQLearn.learn <sb3_iq.IQLearn.learn>`
        """
        if callable(callback) and not isinstance(callback, (BaseCallback, list)):
            callback = _RoundCallback(callback, ROUND_TIMESTEPS)
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
