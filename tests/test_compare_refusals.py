"""What a comparison refuses before its first run, in the words of the argument that does not fit."""

import contextlib
import pickle
import subprocess
import sys
import warnings
from dataclasses import replace

import gymnasium as gym
import pytest

from sb3_iq import load_demonstrations
from sb3_iq.compare import compare
from sb3_iq.compare.driver import load_all
from sb3_iq.compare.environment import Environment
from tests.utils import BOX, RandomEnv

DEMOS = "bundled:CartPole-v1"


class BrokenEnv(RandomEnv):
    """An environment that breaks with its first step."""

    def __init__(self) -> None:
        super().__init__(BOX, gym.spaces.Discrete(2))

    def step(self, action):
        raise AttributeError("`np.float_` was removed in the NumPy 2.0 release")


def test_demonstrations_of_another_environment_are_told():
    with pytest.warns(
        UserWarning, match="by their card they were recorded in 'CartPole-v1', and the environment is Acrobot-v1"
    ):
        with contextlib.suppress(ValueError):  # where spaces differ, they are refused as well
            load_all(DEMOS, Environment("Acrobot-v1"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_all(DEMOS, Environment("CartPole-v1"))
        wrapped = replace(load_demonstrations(DEMOS), card={"env_id": "Base-v0", "frame_stack": 1})
        load_all(wrapped, Environment("CartPole-v1"))
    free = replace(load_demonstrations(DEMOS), card={"env_id": "the pole of our lab"})
    with pytest.warns(UserWarning, match="recorded in 'the pole of our lab'"):
        load_all(free, Environment("CartPole-v1"))


def test_environment_that_breaks_with_random_actions(tmp_path, monkeypatch):
    monkeypatch.setitem(gym.registry, "Broken-v0", gym.envs.registration.EnvSpec("Broken-v0", BrokenEnv))
    message = r"env='Broken-v0': this environment fails with random actions \(AttributeError: `np.float_` was removed"
    with pytest.raises(ValueError, match=message):
        compare("Broken-v0", DEMOS, ["iq"], [1], 1, 40, tmp_path / "out", n_eval_episodes=1)
    assert not (tmp_path / "out").exists()


def test_environment_that_only_this_process_has(tmp_path, monkeypatch):
    """Its class cannot be found by the process of a run."""
    spec = gym.envs.registration.EnvSpec("Mine-v0", lambda: RandomEnv(gym.spaces.Box(-1, 1, (4,)), gym.spaces.Discrete(2)))
    monkeypatch.setitem(gym.registry, "Mine-v0", spec)
    with pytest.raises(ValueError, match=r"env='Mine-v0': this environment is defined in a script.* gym_packages"):
        compare("Mine-v0", DEMOS, ["iq"], [1], 1, 40, tmp_path / "out", n_eval_episodes=1)
    assert not (tmp_path / "out").exists()


def test_packages_may_be_one_name(tmp_path):
    with pytest.raises(ValueError, match="No module named 'no_such_package'"):
        compare("CartPole-v1", DEMOS, ["iq"], [1], 1, 40, tmp_path / "out", gym_packages="no_such_package")


def test_environment_that_this_process_registered_is_known_to_another(monkeypatch):
    """Without the module that registered it."""
    entry_point = "gymnasium.envs.classic_control.cartpole:CartPoleEnv"
    monkeypatch.setitem(gym.registry, "Mine-v0", gym.envs.registration.EnvSpec("Mine-v0", entry_point, max_episode_steps=7))
    environment = Environment("Mine-v0")
    environment.check_portable()
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).make().spec.max_episode_steps)"
    run = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(environment), capture_output=True, check=True)
    assert run.stdout.split() == [b"7"]
    assert pickle.loads(pickle.dumps(environment)) == environment


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"expert_return": "best"}, "expert_return='best': expected a number"),
        ({"shard": 3}, "shard='3': expected two integers"),
        ({"shard": ("1", "2")}, "expected two integers"),
    ],
)
def test_arguments_of_a_wrong_type(tmp_path, changes, message):
    with pytest.raises(TypeError, match=message):
        compare("CartPole-v1", DEMOS, ["iq"], [1], 1, 40, tmp_path / "out", n_eval_episodes=1, **changes)
    assert not (tmp_path / "out").exists()


@pytest.mark.both_stacks
@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("imitation/gail:ppo={'n_step': 16}", "imitation/gail: ppo: 'n_step': PPO has no such argument"),
        ("imitation/airl:trainer={'demos': 16}", "imitation/airl: trainer: 'demos': AIRL has no such argument"),
        ("imitation/sqil:dqn=7", "imitation/sqil: dqn is 7: expected settings"),
        ("imitation/bc:trainer={'lr': 0.1}", "imitation/bc: trainer: 'lr': BC has no such argument"),
    ],
)
def test_sections_of_the_file_of_baselines(tmp_path, setting, message):
    pytest.importorskip("imitation")
    with pytest.raises(ValueError, match=message):
        compare("CartPole-v1", DEMOS, [setting], [1], 1, 40, tmp_path / "out", n_eval_episodes=1)
    assert not (tmp_path / "out").exists()


def test_settings_that_iq_learn_has_not(tmp_path):
    with pytest.raises(
        ValueError, match=r"`penalty` is no argument of IQLearn: choose from learning_rate, .*preset, penalty_coef"
    ):
        compare("CartPole-v1", DEMOS, ["iq:penalty=3"], [1], 1, 40, tmp_path / "out", n_eval_episodes=1)
    assert not (tmp_path / "out").exists()
