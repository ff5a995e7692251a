"""IQ-Learn by the interface of imitation's algorithms, as that library's own tests use theirs."""

import importlib.util

import numpy as np
import pytest

pytest.importorskip("imitation")

from imitation.algorithms import base
from imitation.algorithms.sqil import SQIL
from imitation.data import rollout, types
from imitation.util import logger
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import load_demonstrations
from sb3_iq.compare.environment import Environment
from sb3_iq.imitation import IQLearnTrainer
from sb3_iq.imitation.baselines import trajectories

VENV = Environment("CartPole-v1").vectorized(2)
ROLLOUTS = trajectories(load_demonstrations("bundled:CartPole-v1", n_trajectories=2), VENV.action_space)
SMALL = dict(learning_starts=10, batch_size=16, policy_kwargs=dict(net_arch=[8]), seed=0)


def make_trainer(**kwargs) -> IQLearnTrainer:
    return IQLearnTrainer(**{"venv": VENV, "demonstrations": ROLLOUTS, "policy": "MlpPolicy", "rl_kwargs": SMALL, **kwargs})


@pytest.mark.parametrize(
    "demonstrations", [ROLLOUTS, rollout.flatten_trajectories(ROLLOUTS)], ids=["trajectories", "transitions"]
)
def test_train_and_evaluate(demonstrations):
    trainer = make_trainer(demonstrations=demonstrations)
    assert isinstance(trainer, base.DemonstrationAlgorithm)
    trainer.train(total_timesteps=40)
    mean, _ = evaluate_policy(trainer.policy, VENV, 2)
    assert mean > 0
    assert trainer.policy is trainer.gen_algo.policy is trainer.rl_algo.policy
    trainer.train(total_timesteps=20)
    assert trainer.gen_algo.num_timesteps == 60


def test_class_swaps_with_sqil():
    """The same call, and the same transitions in the same number."""
    for cls in (SQIL, IQLearnTrainer):
        trainer = cls(venv=VENV, demonstrations=ROLLOUTS, policy="MlpPolicy", rl_kwargs=dict(learning_starts=10))
        trainer.train(total_timesteps=20)
        trainer.set_demonstrations(rollout.flatten_trajectories(ROLLOUTS))
        assert trainer.policy.predict(VENV.reset())[0].shape == (2,)


def test_demonstrations_are_replaced():
    trainer = make_trainer(demonstrations=None)
    with pytest.raises(ValueError, match="expert_data"):
        trainer.train(total_timesteps=10)
    trainer.set_demonstrations(ROLLOUTS[:1])
    assert trainer.gen_algo.expert_buffer.size() == len(ROLLOUTS[0])
    trainer.set_demonstrations(ROLLOUTS)
    assert trainer.gen_algo.expert_buffer.size() == sum(map(len, ROLLOUTS))


def test_custom_logger(tmp_path):
    custom = logger.configure(tmp_path, ["csv"])
    trainer = make_trainer(custom_logger=custom)
    assert trainer.logger is custom is trainer.gen_algo.logger
    trainer.train(total_timesteps=200, log_interval=1)
    assert "train/critic_loss" in (tmp_path / "progress.csv").read_text().splitlines()[0]
    trainer.logger = other = logger.configure(tmp_path / "other", [])
    assert trainer.gen_algo.logger is other


def test_callbacks(monkeypatch):
    """Functions count rounds, as with GAIL; SB3's see every step, as with SQIL."""
    monkeypatch.setattr("sb3_iq.imitation.trainer.ROUND_TIMESTEPS", 10)
    rounds = []
    make_trainer().train(40, callback=rounds.append)
    assert rounds == [0, 1, 2, 3]

    class Steps(BaseCallback):
        def _on_step(self) -> bool:
            return self.num_timesteps < 20

    trainer = make_trainer()
    trainer.train(total_timesteps=40, callback=Steps())
    assert trainer.gen_algo.num_timesteps == 20


def test_episodes_of_different_lengths():
    short = types.TrajectoryWithRew(
        obs=ROLLOUTS[0].obs[:11], acts=ROLLOUTS[0].acts[:10], infos=None, terminal=True, rews=np.ones(10)
    )
    make_trainer(demonstrations=[*ROLLOUTS, short]).train(20)


def test_offline():
    trainer = make_trainer(rl_kwargs={**SMALL, "offline": True}, venv=DummyVecEnv([Environment("CartPole-v1").make]))
    trainer.train(total_timesteps=20)
    assert trainer.gen_algo._n_updates == 20


@pytest.mark.skipif(importlib.util.find_spec("sb3_iq.rewards") is None, reason="without the package of rewards")
def test_rewards():
    from imitation.rewards.reward_nets import RewardNet
    from imitation.rewards.reward_wrapper import RewardVecEnvWrapper

    trainer = make_trainer()
    trainer.train(total_timesteps=40)
    for net in (trainer.reward_train, trainer.reward_test):
        assert isinstance(net, RewardNet)
        env = RewardVecEnvWrapper(Environment("CartPole-v1").vectorized(2), net.predict_processed)
        env.reset()
        rewards = env.step(np.zeros(2, dtype=np.int64))[1]
        assert np.isfinite(rewards).all() and (rewards != 1).all()
