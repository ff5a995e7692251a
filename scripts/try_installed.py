"""Trains for ten seconds with the *installed* package, saves, loads and predicts: the last check of a wheel."""

import argparse
from pathlib import Path

import gymnasium as gym
import numpy as np
import stable_baselines3
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.monitor import Monitor

import sb3_iq
from sb3_iq import IQLearn

N_STEPS = 5_000

parser = argparse.ArgumentParser(description=__doc__)
parser.add_argument("--not-in", type=Path, required=True, help="the source tree, which must not be what is imported")
args = parser.parse_args()
installed = Path(sb3_iq.__file__).resolve()
assert not installed.is_relative_to(args.not_in.resolve()), f"{installed} is in the source tree"

model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, seed=0)
model.learn(N_STEPS)
assert model.num_timesteps == N_STEPS
model.save("model")

env = gym.make("CartPole-v1")
loaded = IQLearn.load("model", env=env)
observations = np.random.default_rng(0).uniform(-0.05, 0.05, size=(16, 4)).astype(np.float32)
actions, _ = model.predict(observations, deterministic=True)
np.testing.assert_array_equal(actions, loaded.predict(observations, deterministic=True)[0])

mean = np.mean(evaluate_policy(loaded, Monitor(env), n_eval_episodes=10)[0])
assert mean >= 475, f"{N_STEPS} gradient steps reached a mean return of {mean:.0f}"
stack = f"Stable-Baselines3 {stable_baselines3.__version__}, gymnasium {gym.__version__}"
print(f"sb3_iq {sb3_iq.__version__} from {installed.parent}, {stack}: return {mean:.0f} after {N_STEPS} gradient steps")
