"""The scripted experts play, write demonstrations that load again, and do the same with the same seed."""

import importlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from sb3_iq import load_demonstrations

pytestmark = pytest.mark.slow

FOLDER = Path(__file__).parents[1] / "examples" / "experts"


@pytest.fixture
def module(monkeypatch):
    """Import a script, which imports its neighbour ``_common``."""
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module


def run_script(name, out, *arguments):
    command = [sys.executable, str(FOLDER / name), "--out", str(out), *arguments]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-2000:]
    return result.stdout


def test_cartpole_frames_script(tmp_path):
    printed = run_script("cartpole_frames.py", tmp_path / "a", "--episodes", "2", "--random-episodes", "1")
    assert "expert: return 500.0" in printed
    run_script("cartpole_frames.py", tmp_path / "b", "--episodes", "2", "--random-episodes", "0")
    first, second = (load_demonstrations(tmp_path / name).trajectories for name in "ab")
    assert [len(episode) for episode in first] == [500, 500]
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.obs, other.obs)
        np.testing.assert_array_equal(one.acts, other.acts)
    card = json.loads((tmp_path / "a" / "card.json").read_text())
    assert card["env_id"] == "CartPoleFrames-v0" and card["max_episode_steps"] == 500
    assert card["return"]["mean"] == 500.0 and card["random_return"]["mean"] < 100
    assert card["seeds"] == [0, 1] and card["terminated"] == [False, False] and "gymnasium" in card["versions"]


def test_a_slipping_hand_does_another_move_for_some_steps_and_the_wish_is_recorded(module):
    common = module("_common")

    class Noted(common.gym.ActionWrapper):
        done = ()

        def action(self, action):
            self.done = (*self.done, action)
            return action

    noted = Noted(common.gym.make("CartPole-v1"))
    env = common.SlippingHand(noted, moves=(1,), share=lambda: 0.3, longest=3)
    episodes = [common.play(lambda obs: 0, env, seed=seed) for seed in (0, 1, 0)]
    wishes, first = np.concatenate([episode.acts for episode in episodes]), episodes[0]
    assert set(wishes) == {0} and set(noted.done) == {0, 1} and len(noted.done) == len(wishes)
    np.testing.assert_array_equal(noted.done[: len(first)], noted.done[-len(first) :])
    np.testing.assert_array_equal(first.obs, episodes[2].obs)


def test_script_refuses_a_full_folder(tmp_path):
    (tmp_path / "file").touch()
    command = [sys.executable, str(FOLDER / "cartpole_frames.py"), "--out", str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 2 and "not empty" in result.stderr


def test_cartpole_frames_show_the_state(module):
    cartpole_frames = module("cartpole_frames")
    env = cartpole_frames.make_env()
    obs, _ = env.reset(seed=0)
    assert env.observation_space.contains(obs) and obs.shape == (2, 42, 42)
    upright = env.draw(np.zeros(4))
    assert np.array_equal(upright, upright[:, ::-1])
    for state in ([0.02, 0, 0, 0], [0, 0, 0.01, 0]):  # less than a pixel
        assert not np.array_equal(upright, env.draw(np.array(state)))
    after, *_ = env.step(0)
    assert np.array_equal(after[0], obs[1])


def test_pong_planner_and_the_player_it_taught_hit_the_ball(module):
    pytest.importorskip("ale_py", reason="ale_py is not installed: pip install ale-py")
    memory, planner = module("pong_memory"), module("pong_planner")
    env = memory.PongNumbers()
    game = env.env.env  # whose actions are the console's
    teacher, player = planner.PongPlanner(env, slip=0.0), memory.PongPlayer(game)
    for play, step in ((teacher, env.step), (player, game.step)):
        obs, _ = env.reset(seed=0)
        assert env.observation_space.contains(obs)
        play.reset(0)
        assert sum(step(play(obs))[1] for _ in range(250)) >= 0


def test_pong_from_pixels(module):
    for package in ("ale_py", "cv2"):
        pytest.importorskip(package, reason=f"{package} is not installed: pip install ale-py opencv-python-headless")
    pong = module("pong")
    env = pong.make_env()
    player = pong.PongPlayer(env)
    player.reset(0)
    obs, _ = env.reset(seed=0)
    rewards, frames, actions = [], [obs], []
    for _ in range(250):
        actions.append(player(obs))
        obs, reward, *_ = env.step(actions[-1])
        rewards.append(reward)
        frames.append(obs)
    assert sum(rewards) >= 0 and set(actions) <= {1, 4, 5}
    episode = pong.stack_frames(pong.Trajectory(np.stack(frames), np.array(actions), None, True, False))
    assert episode.obs.shape == (251, 84, 84, 4) and episode.obs.dtype == np.uint8
    np.testing.assert_array_equal(episode.obs[0, ..., :3], 0)
    np.testing.assert_array_equal(episode.obs[10, ..., 0], frames[7][..., 0])
    np.testing.assert_array_equal(episode.obs[10, ..., 3], frames[10][..., 0])
    stacked = pong.gym.make(pong.STACKED_ID)
    observations = [stacked.reset(seed=0)[0], *(stacked.step(action)[0] for action in actions[:20])]
    assert all(stacked.observation_space.contains(obs) for obs in observations)
    np.testing.assert_array_equal(observations, episode.obs[:21])


def test_driver_stays_on_the_road(module):
    pytest.importorskip("Box2D", reason="Box2D is not installed: pip install gymnasium[box2d]")
    car_racing = module("car_racing")
    if car_racing.gym.__version__.startswith("0.") and np.__version__ >= "2":
        pytest.skip("CarRacing-v2 of gymnasium 0.29 cannot be stepped with NumPy 2")
    env = car_racing.gym.make(car_racing.env_id())
    driver = car_racing.Driver(env)
    driver.reset(0)
    obs, _ = env.reset(seed=0)
    total = 0.0
    for _ in range(150):
        action = driver(obs)
        assert env.action_space.contains(action)
        obs, reward, *_ = env.step(action)
        total += reward
    assert total > 80


@pytest.mark.parametrize("task", ["FetchReach", "FetchPush", "FetchPickAndPlace"])
def test_arm_reaches_its_goal(module, task):
    pytest.importorskip("gymnasium_robotics", reason="gymnasium-robotics is not installed: pip install gymnasium-robotics")
    arm = module("arm")
    try:
        env = arm.gym.make(arm.env_id(task))
    except AssertionError:
        pytest.skip("gymnasium-robotics does not load its models with this MuJoCo: pip install 'mujoco<3.9'")
    player = arm.Arm(task)
    recorder = module("sb3_iq.demonstrations.recorder")
    episodes = recorder.record(player, env, 3, seed=0)
    assert sum(arm.reached(episode) for episode in episodes) >= 2
    assert all(env.action_space.contains(action) for action in episodes[0].acts)
