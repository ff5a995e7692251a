"""ResumeCheckpointCallback: a run that is killed goes on by the same script, and loses at most the interval."""

import copy
import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch as th
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import SubprocVecEnv, VecNormalize

from sb3_iq import IQLearn, ResumeCheckpointCallback
from tests.utils import BOX, DISCRETE, WIDE_BOX, RandomEnv, parameters, random_trajectories

# Without a prior of rewards, which takes longer to make than these runs
SMALL = dict(batch_size=8, learning_starts=10, buffer_size=300, seed=0, device="cpu", policy_kwargs=dict(net_arch=[8]))
SMALL |= dict(reward_prior=0)


class Killed(Exception):
    pass


class KillAt(BaseCallback):
    """Ends a run, without its last words, at this step."""

    def __init__(self, step):
        super().__init__()
        self.step = step

    def _on_step(self):
        if self.num_timesteps >= self.step:
            raise Killed
        return True


class Record(BaseCallback):
    """Notes the steps, the progress remaining and the learning rates."""

    def __init__(self):
        super().__init__()
        self.steps, self.progress, self.rates = [], [], []

    def _on_step(self):
        self.steps.append(self.num_timesteps)
        self.progress.append(self.model._current_progress_remaining)
        optimizer = self.model.policy.critic_networks()[2]
        self.rates.append(optimizer.param_groups[0]["lr"])
        return True


def cart_pole(**kwargs):
    return IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", **{**SMALL, **kwargs})


def learn(model, folder, total, *callbacks, save_freq=10):
    return model.learn(total, [ResumeCheckpointCallback(save_freq, folder), *callbacks])


def interrupted(make, folder, total, at, save_freq=10):
    model = make()
    with pytest.raises(Killed):
        learn(model, folder, total, KillAt(at), save_freq=save_freq)
    if model.env is not None:
        model.env.close()


def only_checkpoint(folder):
    (path,) = folder.iterdir()
    return path


@pytest.mark.slow
def test_a_run_goes_on(tmp_path):
    """Counters, the progress of the whole, learning rate, replay buffer, episodes; and then the run is complete."""

    def make():
        return cart_pole(learning_rate=lambda progress: 1e-3 * progress, ent_coef="auto_0.1")

    interrupted(make, tmp_path, 100, at=58)
    path = only_checkpoint(tmp_path)
    assert path.name == "checkpoint_50_steps"
    assert {file.name for file in path.iterdir()} == {"model.zip", "replay_buffer.pkl", "run.json"}
    stored = pickle.loads((path / "replay_buffer.pkl").read_bytes())
    assert stored.size() == 50  # the transition of the last step included

    record, model = Record(), make()
    learn(model, tmp_path, 100, record)
    assert record.steps == list(range(51, 101))
    assert (model.num_timesteps, model._n_updates, model.replay_buffer.size()) == (100, 90, 100)
    assert np.array_equal(model.replay_buffer.observations[:50], stored.observations[:50])
    assert record.progress == pytest.approx([1 - step / 100 for step in range(50, 100)])
    assert record.rates[1:] == pytest.approx([1e-3 * (1 - step / 100) for step in range(51, 100)])
    assert only_checkpoint(tmp_path).name == "checkpoint_100_steps"
    saved = IQLearn.load(only_checkpoint(tmp_path) / "model.zip", device="cpu")
    assert th.equal(parameters(saved), parameters(model))
    assert saved.log_ent_coef.item() == model.log_ent_coef.item() != pytest.approx(np.log(0.1))
    assert len(model.ep_info_buffer) == len(saved.ep_info_buffer) == model._episode_num > 0

    again = make()
    with pytest.warns(UserWarning, match=r"has taken 100 of 100 steps: nothing is left to learn. Raise `total_timesteps`"):
        learn(again, tmp_path, 100)
    assert th.equal(parameters(again), parameters(model))
    assert learn(make(), tmp_path, 120).num_timesteps == 120


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_offline_nothing_differs(tmp_path, action_space):
    env = RandomEnv(BOX, action_space)

    def make():
        kwargs = {**SMALL, "policy_kwargs": {}}
        return IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, ent_coef="auto_0.1", **kwargs)

    whole = make().learn(30)
    interrupted(make, tmp_path, 30, at=18)
    th.manual_seed(123)  # whatever happens in between
    np.random.seed(123)
    resumed = learn(make(), tmp_path, 30)
    assert (resumed.num_timesteps, resumed._n_updates) == (30, 30)
    assert th.equal(parameters(whole), parameters(resumed))
    assert not (only_checkpoint(tmp_path) / "replay_buffer.pkl").exists()


def test_offline_then_online(tmp_path):
    """Two calls of learn, each with a folder of its own, in one script."""

    def script(kill_at=None):
        model = cart_pole(offline=True)
        learn(model, tmp_path / "offline", 20)
        model.set_env(gym.make("CartPole-v1"))
        model.offline = False
        return learn(model, tmp_path / "online", 40, *([KillAt(kill_at)] if kill_at else []))

    with pytest.raises(Killed):
        script(kill_at=35)
    with pytest.warns(UserWarning, match="offline/checkpoint_20_steps is of a run that has taken 20 of 20 steps"):
        model = script()
    assert (model.num_timesteps, model._n_updates, model.replay_buffer.size()) == (40, 20 + 30, 40)


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("env_id", ["CartPole-v1", "Pendulum-v1"])
def test_going_on_is_repeatable(tmp_path, env_id):
    """All random generators are restored, those of the environment and of random actions included."""

    def make(seed=0):
        env = gym.make(env_id)
        expert_data = "bundled:CartPole-v1" if env_id == "CartPole-v1" else random_trajectories(env)
        return IQLearn("MlpPolicy", env, expert_data, **{**SMALL, "learning_starts": 30, "seed": seed})

    interrupted(make, tmp_path / "a", 60, at=25)
    (tmp_path / "b").mkdir()
    only_checkpoint(tmp_path / "a").rename(tmp_path / "b" / "checkpoint_20_steps")
    shutil.copytree(tmp_path / "b" / "checkpoint_20_steps", tmp_path / "a" / "checkpoint_20_steps")
    first = learn(make(), tmp_path / "a", 60)
    second = learn(make(seed=7), tmp_path / "b", 60)
    assert np.array_equal(first.replay_buffer.observations[:60], second.replay_buffer.observations[:60])
    assert th.equal(parameters(first), parameters(second))


@pytest.mark.parametrize("offline", [False, True])
def test_statistics_of_vec_normalize(tmp_path, offline):
    def make():
        env = VecNormalize(make_vec_env("CartPole-v1", n_envs=2, seed=0), norm_reward=False)
        return env, IQLearn("MlpPolicy", env, "bundled:CartPole-v1", offline=offline, **SMALL)

    interrupted(lambda: make()[1], tmp_path, 100, at=44, save_freq=40)
    path = only_checkpoint(tmp_path) / "vecnormalize.pkl"
    saved = VecNormalize.load(str(path), make_vec_env("CartPole-v1", n_envs=2))
    env, model = make()
    assert env.obs_rms.count < 1
    with pytest.warns(UserWarning, match="nothing is left to learn"):
        learn(model, tmp_path, 40, save_freq=40)
    # and the two observations that the new episodes begin with
    assert env.obs_rms.count == saved.obs_rms.count + (0 if offline else 2) > 4_000
    assert np.allclose(env.obs_rms.mean, saved.obs_rms.mean, atol=1e-2)


@pytest.mark.slow
@pytest.mark.both_stacks
def test_environments_in_processes(tmp_path):
    def make():
        env = make_vec_env("CartPole-v1", n_envs=2, vec_env_cls=SubprocVecEnv, vec_env_kwargs=dict(start_method="fork"))
        return IQLearn("MlpPolicy", env, "bundled:CartPole-v1", **SMALL)

    interrupted(make, tmp_path, 60, at=42)
    states = json.loads((only_checkpoint(tmp_path) / "run.json").read_text())["env_generators"]
    assert len(states) == 2 and states[0] != states[1]
    model = make()
    learn(model, tmp_path, 60)
    assert model.num_timesteps == 60
    model.env.close()


def test_an_incomplete_checkpoint_is_none(tmp_path):
    interrupted(cart_pole, tmp_path, 60, at=35)
    (tmp_path / ".writing").mkdir()
    (tmp_path / ".writing" / "model.zip").write_bytes(b"half")
    (tmp_path / ".removing").mkdir()
    (tmp_path / ".removing" / "model.zip").write_bytes(b"half")
    (tmp_path / "checkpoint_99_steps.old").mkdir()
    assert ResumeCheckpointCallback(10, tmp_path).checkpoint().name == "checkpoint_30_steps"
    assert learn(cart_pole(), tmp_path, 60).num_timesteps == 60
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint_60_steps", "checkpoint_99_steps.old"}


def test_another_run_is_refused(tmp_path):
    interrupted(cart_pole, tmp_path, 60, at=35)
    others = {
        "its demonstrations is": lambda: IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1?n_trajectories=2", **SMALL),
        "its parameters do not fit": lambda: cart_pole(policy_kwargs=dict(net_arch=[9])),
        "its number of environments is 1, and not 2": lambda: IQLearn(
            "MlpPolicy", make_vec_env("CartPole-v1", n_envs=2), "bundled:CartPole-v1", **SMALL
        ),
        "its use of VecNormalize is False, and not True": lambda: IQLearn(
            "MlpPolicy", VecNormalize(make_vec_env("CartPole-v1")), "bundled:CartPole-v1", **SMALL
        ),
    }
    for reason, make in others.items():
        with pytest.raises(ValueError, match=f"`save_path` holds .*checkpoint_30_steps.*{reason}.*a folder of its own"):
            learn(make(), tmp_path, 60)
    model = cart_pole().learn(20)
    with pytest.raises(ValueError, match="its number of steps when `learn` began is 0, and not 20"):
        model.learn(20, ResumeCheckpointCallback(10, tmp_path), reset_num_timesteps=False)


def test_arguments(tmp_path):
    for freq, error in {"run/": TypeError, 1.5: TypeError, True: TypeError, 0: ValueError}.items():
        with pytest.raises(error, match="`save_freq` is"):
            ResumeCheckpointCallback(freq, tmp_path)
    with pytest.raises(TypeError, match="the model is of DQN"):
        DQN("MlpPolicy", "CartPole-v1").learn(10, ResumeCheckpointCallback(10, tmp_path))


SCRIPT = """
import sys
from sb3_iq import IQLearn, ResumeCheckpointCallback
from stable_baselines3.common.callbacks import ConvertCallback

def tell(locals_, globals_):
    print(locals_["self"].num_timesteps, flush=True)
    return True

small = dict(batch_size=8, learning_starts=10, reward_prior=0.0, device="cpu")
model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", **small)
model.learn(200, callback=[ResumeCheckpointCallback(save_freq=50, save_path="run/"), ConvertCallback(tell)])
"""


@pytest.mark.slow
def test_the_same_command_goes_on(tmp_path):
    """As a user does it: one script, killed, and started again."""
    (tmp_path / "train.py").write_text(SCRIPT)
    environ = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])}
    command = dict(cwd=tmp_path, env=environ, stdout=subprocess.PIPE, text=True)
    with subprocess.Popen([sys.executable, "train.py"], **command) as process:
        for line in process.stdout:
            if int(line) == 130:
                process.kill()
                break
        assert process.wait() == -signal.SIGKILL
    output = subprocess.run([sys.executable, "train.py"], check=True, **command).stdout.split()
    assert [int(step) for step in output] == list(range(101, 201))


def run_and_tell(folder, total, save_freq, steps):
    """The run that is killed: tells where it goes on, and where it is."""

    class Tell(BaseCallback):
        def _on_training_start(self):
            steps[0] = steps[1] = self.model.num_timesteps

        def _on_step(self):
            steps[1] = self.num_timesteps
            return True

    learn(cart_pole(buffer_size=2_000), folder, total, Tell(), save_freq=save_freq)


@pytest.mark.slow
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="forks, which spares 20 imports")
def test_twenty_kills(tmp_path):
    """Killed at random moments, the writing of checkpoints among them, it goes on from a complete one each time."""
    context, generator = multiprocessing.get_context("fork"), np.random.default_rng(0)
    total, save_freq, reached, writing = 1_500, 5, 0, 0
    for _ in range(20):
        steps = context.Array("i", 2, lock=False)
        process = context.Process(target=run_and_tell, args=(tmp_path, total, save_freq, steps))
        process.start()
        wanted = reached + int(generator.integers(1, 60))
        while steps[1] < wanted:
            assert process.is_alive(), "the run failed"
            time.sleep(0.001)
        time.sleep(generator.uniform(0, 0.05))
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        began, was_at = steps
        assert reached - save_freq <= began <= reached
        assert began == 0 or began % save_freq == 0
        writing += (tmp_path / ".writing").exists() or (tmp_path / ".removing").exists()
        reached = was_at
    assert writing > 0
    steps = context.Array("i", 2, lock=False)
    process = context.Process(target=run_and_tell, args=(tmp_path, total, save_freq, steps))
    process.start()
    process.join()
    assert process.exitcode == 0 and steps[1] == total
    assert reached - save_freq <= steps[0] <= reached
    model = IQLearn.load(only_checkpoint(tmp_path) / "model.zip")
    assert (model.num_timesteps, model._n_updates) == (total, total - 10)


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("offline", [False, True])
def test_copies_of_trained_models(action_space, offline):
    """copy.deepcopy, and pickle (of SB3 2.2, whose schedules are closures, the policy alone)."""
    env = RandomEnv(BOX, action_space)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=offline, **{**SMALL, "policy_kwargs": {}}).learn(20)
    copies = [copy.deepcopy(model)]
    if not stable_baselines3.__version__.startswith("2.2."):
        copies.append(pickle.loads(pickle.dumps(model)))
    obs = np.stack([env.observation_space.sample() for _ in range(5)])
    before, actions = parameters(model), model.predict(obs, deterministic=True)[0]
    for other in copies:
        assert np.array_equal(other.predict(obs, deterministic=True)[0], actions)
        other.learn(20, reset_num_timesteps=False)
        assert other.num_timesteps == 40
        assert not th.equal(parameters(other), before)
    assert th.equal(parameters(model), before)
    assert np.array_equal(model.predict(obs, deterministic=True)[0], actions)
