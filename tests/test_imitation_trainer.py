"""IQ-Learn by the interface of imitation's algorithms, as that library's own tests use theirs."""

import importlib.util
import warnings
from functools import partial

import numpy as np
import pytest
import torch as th

pytest.importorskip("imitation")

from imitation.algorithms import base
from imitation.algorithms.adversarial.airl import AIRL
from imitation.algorithms.adversarial.gail import GAIL
from imitation.algorithms.sqil import SQIL
from imitation.data import rollout, serialize, types
from imitation.policies.serialize import load_stable_baselines_model, save_stable_model
from imitation.rewards.reward_nets import BasicRewardNet, RewardNet
from imitation.util import logger
from stable_baselines3 import DQN, PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import DummyVecEnv

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.environment import Environment
from sb3_iq.imitation import IQLearnTrainer

VENV = Environment("CartPole-v1").vectorized(2)
ROLLOUTS = load_demonstrations("bundled:CartPole-v1", n_trajectories=2).to_imitation()
SMALL = dict(learning_starts=10, batch_size=16, policy_kwargs=dict(net_arch=[8]), seed=0)


def make_trainer(**kwargs) -> IQLearnTrainer:
    return IQLearnTrainer(**{"venv": VENV, "demonstrations": ROLLOUTS, "policy": "MlpPolicy", "rl_kwargs": SMALL, **kwargs})


@pytest.mark.parametrize("kind", ["trajectories", "transitions", "generator", "view", "lazy"])
def test_train_and_evaluate(kind, tmp_path):
    serialize.save(tmp_path / "rollouts", ROLLOUTS)
    demonstrations = {
        "trajectories": ROLLOUTS,
        "transitions": rollout.flatten_trajectories(ROLLOUTS),
        "generator": (trajectory for trajectory in ROLLOUTS),
        "view": dict(enumerate(ROLLOUTS)).values(),
        "lazy": serialize.load(tmp_path / "rollouts"),
    }
    trainer = make_trainer(demonstrations=demonstrations[kind])
    assert trainer.gen_algo.expert_buffer.size() == sum(map(len, ROLLOUTS))
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
        assert trainer.policy is trainer.rl_algo.policy


def run_adversarial(cls, folder):
    """What imitation's scripts and documentation do with GAIL and AIRL."""
    trainer = cls(
        demonstrations=ROLLOUTS,
        demo_batch_size=32,
        gen_replay_buffer_capacity=64,
        n_disc_updates_per_round=1,
        venv=VENV,
        gen_algo=PPO("MlpPolicy", VENV, batch_size=16, n_steps=8, seed=0),
        reward_net=BasicRewardNet(VENV.observation_space, VENV.action_space),
        gen_train_timesteps=32,
        allow_variable_horizon=True,
        log_dir=folder / "log",
        custom_logger=logger.configure(folder / "csv", ["csv"]),
    )
    rounds = []
    for _ in range(2):
        trainer.train(64, callback=rounds.append)
    assert rounds == [0, 1, 0, 1]
    assert trainer.gen_algo.num_timesteps == 128 and trainer.gen_train_timesteps == 32
    mean, _ = evaluate_policy(trainer.policy, trainer.venv_train, 1)
    assert np.isfinite(mean)
    until = rollout.make_sample_until(min_episodes=2)
    assert len(rollout.generate_trajectories(trainer.policy, VENV, until, np.random.default_rng(0))) >= 2
    transitions = rollout.flatten_trajectories(ROLLOUTS)
    for name, net in (("reward_train", trainer.reward_train), ("reward_test", trainer.reward_test)):
        assert isinstance(net, RewardNet)
        batch = tuple(getattr(transitions, field)[:5] for field in ("obs", "acts", "next_obs", "dones"))
        th.save(net, folder / name)
        expected = net.predict_processed(*batch)
        assert expected.shape == (5,)
        assert np.array_equal(th.load(folder / name, weights_only=False).predict_processed(*batch), expected)
    save_stable_model(folder / "gen_policy", trainer.gen_algo)
    loaded = load_stable_baselines_model(type(trainer.gen_algo), str(folder / "gen_policy"), VENV)
    obs = VENV.reset()
    predictions = [algo.predict(obs, deterministic=True)[0] for algo in (loaded, trainer.gen_algo)]
    assert np.array_equal(*predictions)


@pytest.mark.parametrize("cls", [GAIL, AIRL])
def test_class_swaps_with_adversarial_trainers(cls, tmp_path, monkeypatch):
    run_adversarial(cls, tmp_path / "theirs")
    monkeypatch.setattr(IQLearn, "_make_prior", lambda self: None)  # the number of steps is theirs
    unused = "demo_batch_size, gen_replay_buffer_capacity, n_disc_updates_per_round, gen_algo, reward_net, log_dir"
    with pytest.warns(UserWarning, match=f"IQLearnTrainer does not use {unused}: IQ-Learn has no discriminator"):
        # A reward takes a model that has learned
        run_adversarial(partial(IQLearnTrainer, rl_kwargs={"learning_starts": 8}), tmp_path / "ours")


def test_demonstrations_that_lack_something():
    """Which SQIL refuses, too; GAIL needs no order of transitions."""
    transitions = rollout.flatten_trajectories(ROLLOUTS)
    minimal = types.TransitionsMinimal(obs=transitions.obs, acts=transitions.acts, infos=transitions.infos)
    for demonstrations, lacks in ((minimal, "next_obs and dones"), (base.make_data_loader(transitions, 32), "the order")):
        with pytest.raises(TypeError, match=f"lack.*{lacks}"):
            make_trainer(demonstrations=demonstrations)


def test_arguments_that_no_algorithm_of_imitation_has():
    with pytest.raises(TypeError, match="unexpected keyword argument 'expert_data'"):
        make_trainer(expert_data=ROLLOUTS)
    with pytest.raises(TypeError, match="rl_kwargs holds 'epsilon': IQLearn has no such argument"):
        make_trainer(rl_kwargs={**SMALL, "epsilon": 0.1})
    with pytest.raises(TypeError, match="rl_kwargs holds 'env': give it to IQLearnTrainer itself, as venv"):
        make_trainer(rl_kwargs={"env": VENV})


def test_arguments_of_the_learners_of_sqil():
    """IQ-Learn samples from its policy, and has no schedule of exploration."""
    with pytest.warns(UserWarning, match="does not use rl_algo_class, exploration_fraction, max_grad_norm: IQ-Learn"):
        trainer = make_trainer(rl_algo_class=DQN, rl_kwargs={**SMALL, "exploration_fraction": 0.5, "max_grad_norm": 1.0})
    assert trainer.gen_algo.learning_starts == SMALL["learning_starts"]


@pytest.mark.parametrize(("make", "expected"), [(lambda: PPO("MlpPolicy", VENV, n_steps=8, batch_size=8), 8), (None, 2_048)])
def test_rounds_are_those_of_the_generator(make, expected):
    """So that the callbacks of a short run are called as often as those of GAIL."""
    n_envs = VENV.num_envs if make else 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trainer = make_trainer(gen_algo=make()) if make else make_trainer()
    assert trainer.gen_train_timesteps == expected * n_envs
    if make:
        rounds = []
        trainer.train(24 * n_envs, callback=rounds.append)
        assert rounds == [0, 1, 2]


def test_nothing_is_said_of_episodes_of_different_lengths(capsys):
    """imitation warns of a bias of its algorithms where these are allowed."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        trainer = make_trainer(allow_variable_horizon=True)
    assert trainer.allow_variable_horizon and "variable" not in capsys.readouterr().out


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


def test_tensorboard(tmp_path):
    """As with SQIL, whose learner logs by itself."""
    pytest.importorskip("tensorboard")
    trainer = make_trainer(rl_kwargs={**SMALL, "tensorboard_log": str(tmp_path)})
    trainer.train(total_timesteps=20, tb_log_name="mine")
    assert list(tmp_path.glob("mine_1/events.*"))


def test_callbacks(monkeypatch):
    """Functions count rounds, as with GAIL; SB3's see every step, as with SQIL."""
    monkeypatch.setattr("sb3_iq.imitation.trainer.ROUND_TIMESTEPS", 10)
    rounds = []
    trainer = make_trainer()
    trainer.train(40, callback=rounds.append)
    trainer.train(20, callback=rounds.append)
    assert rounds == [0, 1, 2, 3, 0, 1]
    make_trainer(gen_train_timesteps=20).train(40, callback=rounds.append)
    assert rounds[6:] == [0, 1]
    trainer = make_trainer()
    trainer.train(40, callback=lambda of_learn, _: of_learn["self"].num_timesteps < 10)  # SB3's function
    assert trainer.gen_algo.num_timesteps == 10

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
    from imitation.rewards.reward_wrapper import RewardVecEnvWrapper

    trainer = make_trainer()
    trainer.train(total_timesteps=40)
    for net in (trainer.reward_train, trainer.reward_test):
        assert isinstance(net, RewardNet)
        env = RewardVecEnvWrapper(Environment("CartPole-v1").vectorized(2), net.predict_processed)
        env.reset()
        rewards = env.step(np.zeros(2, dtype=np.int64))[1]
        assert np.isfinite(rewards).all() and (rewards != 1).all()
