"""SB3's callbacks, offline too: there a step is a gradient step."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    EveryNTimesteps,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.monitor import Monitor

from sb3_iq import IQLearn
from tests.utils import BOX, DISCRETE, SMALL, WIDE_BOX, NoStepEnv, random_trajectories


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
