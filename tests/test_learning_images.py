"""Learning from frames: CartPole-v1 as two frames of 42x42 pixels."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

from sb3_iq import IQLearn
from sb3_iq.demonstrations.recorder import play

FOLDER = Path(__file__).parents[1] / "examples" / "experts"


@pytest.mark.slow
def test_cartpole_from_frames(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    frames = importlib.import_module("cartpole_frames")
    env = frames.make_env()
    expert, slipping = frames.Balancer(env), frames.slipping(env)
    demonstrations = []
    for seed in range(10):
        expert.reset(seed)
        demonstrations.append(play(expert, slipping, seed))
    model = IQLearn("CnnPolicy", env, demonstrations, offline=True, seed=0, device="cpu").learn(2_000)
    eval_env = Monitor(frames.make_env())
    eval_env.reset(seed=1_000)
    returns, _ = evaluate_policy(model, eval_env, n_eval_episodes=5, return_episode_rewards=True)
    assert np.mean(returns) >= 300
