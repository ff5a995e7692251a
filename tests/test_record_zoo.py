"""``python -m sb3_iq.record`` on RL Zoo's folders."""

import os
import shutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import stable_baselines3
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack

from sb3_iq import load_demonstrations
from sb3_iq.record import main
from tests.test_record import PENDULUM, acts_of_sb3, card, record

pytestmark = pytest.mark.slow

pytest.importorskip("rl_zoo3")

ZOO_SETTINGS = """
Pendulum-v1:
  n_timesteps: 64
  policy: MlpPolicy
  n_steps: 32
  batch_size: 32
  normalize: "dict(norm_obs=True, clip_obs=0.5)"
  frame_stack: 2
  env_wrapper:
    - sb3_contrib.common.wrappers.TimeFeatureWrapper:
        test_mode: True
  vec_env_wrapper: stable_baselines3.common.vec_env.VecMonitor
"""


@pytest.fixture(scope="module")
def zoo_folder(tmp_path_factory):
    """What the zoo wrote for two experiments, with all that it can wrap around an environment."""
    folder = tmp_path_factory.mktemp("zoo")
    (folder / "ppo.yml").write_text(ZOO_SETTINGS)
    command = [
        sys.executable,
        "-m",
        "rl_zoo3.train",
        "--algo",
        "ppo",
        "--env",
        PENDULUM,
        "--conf-file",
        "ppo.yml",
        "-f",
        "logs",
    ]
    command += ["--eval-freq", "32", "--eval-episodes", "1", "--save-freq", "32", "--env-kwargs", "g:5.0", "--device", "cpu"]
    result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    shutil.copytree(folder / "logs" / "ppo" / "Pendulum-v1_1", folder / "logs" / "ppo" / "Pendulum-v1_2")
    return folder / "logs"


@pytest.mark.both_stacks
def test_zoo_folder(tmp_path, zoo_folder):
    from rl_zoo3.utils import create_test_env, get_saved_hyperparams

    arguments = ["--algo", "ppo", "--env", PENDULUM, "-f", zoo_folder, "--n-episodes", 2]
    assert record(tmp_path / "set", *arguments) == 0
    demos, written = load_demonstrations(tmp_path / "set"), card(tmp_path / "set")
    assert written["agent"]["file"] == "ppo/Pendulum-v1_2/Pendulum-v1.zip" and written["agent"]["timesteps"] == 64
    assert written["frame_stack"] == 2 and written["env_kwargs"] == {"g": 5.0}

    hyperparams, stats = get_saved_hyperparams(str(zoo_folder / "ppo" / "Pendulum-v1_2" / PENDULUM), test_mode=True)
    env = create_test_env(PENDULUM, 1, stats, 0, should_render=False, hyperparams=hyperparams, env_kwargs={"g": 5.0})
    model = stable_baselines3.PPO.load(zoo_folder / "ppo" / "Pendulum-v1_2" / "Pendulum-v1.zip", device="cpu")
    np.testing.assert_array_equal(demos.trajectories[0].acts, acts_of_sb3(model, env))

    wrapper = lambda env: TimeFeatureWrapper(env, test_mode=True)  # noqa: E731
    raw = VecFrameStack(make_vec_env(PENDULUM, wrapper_class=wrapper, env_kwargs={"g": 5.0}), 2)
    for seed, episode in zip(written["seeds"], demos.trajectories, strict=True):
        raw.seed(seed)
        assert isinstance(episode.obs, np.ndarray) and episode.rews is not None and episode.truncated
        np.testing.assert_array_equal(episode.obs[0], raw.reset()[0])
        for t, action in enumerate(episode.acts):
            obs, reward, _, infos = raw.step(action[None])
            last_obs = infos[0].get("terminal_observation", obs[0])
            np.testing.assert_array_equal(episode.obs[t + 1], last_obs)
            assert np.float32(episode.rews[t]) == reward[0]


@pytest.mark.both_stacks
@pytest.mark.parametrize(
    ("option", "file"),
    [
        (["--exp-id", 1], "Pendulum-v1_1/Pendulum-v1.zip"),
        (["--load-best"], "Pendulum-v1_2/best_model.zip"),
        (["--load-checkpoint", 32], "Pendulum-v1_2/rl_model_32_steps.zip"),
        (["--load-last-checkpoint"], "Pendulum-v1_2/rl_model_64_steps.zip"),
    ],
)
def test_which_agent_of_the_zoo(tmp_path, zoo_folder, option, file):
    arguments = ["--algo", "ppo", "--env", PENDULUM, "-f", zoo_folder, "--n-episodes", 1, "--max-episode-steps", 5]
    assert record(tmp_path / "set", *arguments, *option) == 0
    assert card(tmp_path / "set")["agent"]["file"] == f"ppo/{file}"


@pytest.mark.both_stacks
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Acrobot-v1"], "No model found for ppo on Acrobot-v1"),
        (["--exp-id", "9"], "folder was not found"),
        (["--load-checkpoint", "7"], "No model found for ppo"),
        (["--frame-stack", "2"], "--frame-stack is for --model only"),
    ],
)
def test_wrong_arguments_for_the_zoo(tmp_path, zoo_folder, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        main(["--algo", "ppo", "--env", PENDULUM, "-f", str(zoo_folder), "--out", str(tmp_path / "set"), *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_chain_of_commands(tmp_path):
    """``examples/zoo_chain.sh`` as a reader runs it, on fewer steps."""
    scripts = Path(sys.executable).parent
    if find_spec("_sb3_iq_zoo") is None or not (scripts / "rl_zoo3").exists():
        pytest.skip("needs an installed package: its start-up file makes rl_zoo3 know iq")
    variables = {
        "EXPERT_STEPS": "64",
        "IQ_STEPS": "150",
        "IQ_PARAMS": "reward_prior:0.0",
        "MIN_RETURN": "0",
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
    }
    script = Path(__file__).parents[1] / "examples" / "zoo_chain.sh"
    result = subprocess.run(["bash", script], cwd=tmp_path, env={**os.environ, **variables}, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout[-2000:] + result.stderr[-2000:]
    assert "Mean reward" in result.stdout and (tmp_path / "logs" / "iq" / "CartPole-v1_1" / "CartPole-v1.zip").is_file()
    assert card(tmp_path / "demos" / "CartPole-v1")["agent"]["file"] == "ppo/CartPole-v1_1/CartPole-v1.zip"
