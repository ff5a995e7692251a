"""Offline training: gradient steps are the steps, the environment is never stepped, and online training can follow."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import IQLearn
from tests.utils import BOX, DISCRETE, IMAGE, WIDE_BOX, NoStepEnv, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, seed=0, device="cpu")
CARTPOLE = gym.make("CartPole-v1")
CARTPOLE_SPACES = dict(observation_space=CARTPOLE.observation_space, action_space=CARTPOLE.action_space)


class Counter(BaseCallback):
    def __init__(self):
        super().__init__()
        self.steps = []

    def _on_step(self):
        self.steps.append(self.num_timesteps)
        return True


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_counts_gradient_steps(action_space):
    env = NoStepEnv(BOX, action_space)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, **SMALL)
    counter, left = Counter(), []
    model.learning_rate = lambda progress: left.append(progress) or 1e-3
    model._setup_lr_schedule()
    model.learn(10, counter, progress_bar=True)
    assert counter.steps == list(range(1, 11))
    assert model.num_timesteps == model._n_updates == 10
    assert left[0] == pytest.approx(1.0) and left[-1] == pytest.approx(0.1)
    model.learn(5, reset_num_timesteps=False)
    assert model.num_timesteps == model._n_updates == 15
    model.learn(3)
    assert model.num_timesteps == 3
    assert model._n_updates == 18
    assert model.replay_buffer is None


def test_without_environment():
    model = IQLearn("MlpPolicy", None, "bundled:CartPole-v1", offline=True, **CARTPOLE_SPACES, **SMALL).learn(5)
    assert model.predict(np.zeros(4, dtype=np.float32))[0] in (0, 1)
    images = random_trajectories(RandomEnv(IMAGE, DISCRETE))
    options = dict(offline=True, observation_space=IMAGE, action_space=DISCRETE, policy_kwargs=dict(net_arch=[8]))
    IQLearn("CnnPolicy", None, images, **options, **SMALL).learn(3)


def test_callbacks(tmp_path):
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL)
    evaluate = EvalCallback(
        Monitor(gym.make("CartPole-v1")),
        callback_on_new_best=StopTrainingOnRewardThreshold(1.0),
        eval_freq=10,
        n_eval_episodes=2,
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path),
        verbose=0,
    )
    checkpoint = CheckpointCallback(5, str(tmp_path / "checkpoints"))
    every = Counter()
    model.learn(100, [evaluate, checkpoint, EveryNTimesteps(4, every)])
    # the threshold is passed at the first evaluation
    assert model.num_timesteps == 10
    assert (tmp_path / "best" / "best_model.zip").exists()
    assert len(list((tmp_path / "checkpoints").glob("*.zip"))) == 2
    assert every.steps == [4, 8]
    IQLearn.load(tmp_path / "best" / "best_model.zip").predict(np.zeros(4, dtype=np.float32))


@pytest.mark.parametrize("wrap", [lambda c: c, lambda c: [c], lambda c: CallbackList([c]), lambda c: EveryNTimesteps(2, c)])
def test_refuses_to_count_episodes(wrap):
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL)
    with pytest.raises(ValueError, match="StopTrainingOnMaxEpisodes: offline there are no episodes"):
        model.learn(5, wrap(StopTrainingOnMaxEpisodes(3)))


def test_logs(tmp_path):
    from stable_baselines3.common.logger import configure

    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(250, log_interval=1)
    rows = np.genfromtxt(tmp_path / "progress.csv", delimiter=",", names=True)
    assert rows["timetotal_timesteps"].tolist() == [100, 200, 250]
    for name in ("critic_loss", "expert_reward", "ent_coef", "learning_rate"):
        assert np.isfinite(rows[f"train{name}"]).all()


def test_offline_then_online():
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, learning_starts=10, **SMALL).learn(20)
    model.offline = False
    with pytest.raises(ValueError, match=r"give the model an environment by set_env"):
        model.learn(20)
    model.set_env(make_vec_env("CartPole-v1", n_envs=2, seed=0))
    model.learn(30)
    assert model.n_envs == model.replay_buffer.n_envs == 2
    assert model.replay_buffer.size() == 15
    with pytest.raises(AssertionError, match="number of environments"):
        model.set_env(make_vec_env("CartPole-v1", n_envs=3, seed=0))
    model.offline = True
    model.learn(5)
    assert model.replay_buffer.size() == 15


def test_bounds_that_differ_as_infinite_and_huge():
    largest = float(np.finfo(np.float32).max)
    huge = spaces.Box(-largest, largest, (3,), np.float32)
    infinite = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    trajectories = random_trajectories(RandomEnv(BOX, DISCRETE))
    model = IQLearn("MlpPolicy", RandomEnv(huge, DISCRETE), trajectories, offline=True, **SMALL).learn(2)
    model.set_env(RandomEnv(infinite, DISCRETE))
    model.offline = False
    model.learn(20)
    with pytest.raises(ValueError, match="Observation spaces do not match"):
        model.set_env(RandomEnv(BOX, DISCRETE))


@pytest.mark.parametrize("offline", [True, False])
def test_vec_normalize(offline):
    """Demonstrations are kept raw and normalised with the environment's statistics, which they warm up once."""

    def make_env():
        return VecNormalize(DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"))]))

    env = make_env()
    model = IQLearn("MlpPolicy", env, "bundled:CartPole-v1", offline=offline, learning_starts=10, buffer_size=100, **SMALL)
    raw = model.expert_buffer.all().observations
    model.learn(20)
    assert env.obs_rms.count >= 5000
    if offline:
        assert env.obs_rms.mean == pytest.approx(raw.double().mean(dim=0).numpy(), abs=1e-3)
    count = env.obs_rms.count
    normalised = model.expert_buffer.all(env=model.get_vec_normalize_env()).observations
    assert normalised.std(dim=0).numpy() == pytest.approx(np.ones(4), abs=0.1)
    assert th.equal(raw, model.expert_buffer.all().observations)
    model.learn(10)
    assert env.obs_rms.count <= count + 12
    eval_env = make_env()
    eval_env.training = False
    model.learn(10, EvalCallback(eval_env, eval_freq=5, n_eval_episodes=1, verbose=0))
    assert eval_env.obs_rms.mean == pytest.approx(env.obs_rms.mean)
