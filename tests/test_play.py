"""A person at the keys: ``python -m sb3_iq.play``."""

import json
import os
import shutil
import subprocess
import sys
import time

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.key_maps import find_keys
from tests.utils import BOX, SMALL, RandomEnv

pygame = pytest.importorskip("pygame", reason="pygame is not installed")
if not hasattr(pygame, "KEYDOWN"):
    pytest.skip("pygame is not usable", allow_module_level=True)

from sb3_iq.play import main  # noqa: E402


class Player:
    """Reads the title of the window, and presses keys: those of ``at_start``, then those of ``at_end``, one an episode."""

    def __init__(self, at_start, at_end):
        self.at_start, self.at_end = iter(at_start), iter(at_end)
        self.down = None

    def events(self):
        title = pygame.display.get_caption()[0]
        if "a key starts it" in title and self.down is None:
            self.down = next(self.at_start)
            return [pygame.event.Event(pygame.KEYDOWN, key=self.down)]
        if "Return keeps it" in title and self.down is not None:
            up, self.down = self.down, None
            return [pygame.event.Event(pygame.KEYUP, key=up), pygame.event.Event(pygame.KEYDOWN, key=next(self.at_end))]
        return []


@pytest.fixture
def play(tmp_path, monkeypatch):
    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")

    def run(*arguments, player=None):
        if player is not None:
            monkeypatch.setattr(pygame.event, "get", player.events)
        return main([*map(str, arguments), "--out", str(tmp_path / "mine"), "--fps", "1000"])

    return run


@pytest.mark.slow
@pytest.mark.both_stacks
def test_keeps_and_drops(play, tmp_path, capsys):
    """The first episode is dropped, the others replay exactly, and IQLearn takes them."""
    player = Player([pygame.K_LEFT, pygame.K_LEFT, pygame.K_RIGHT], [pygame.K_BACKSPACE, pygame.K_RETURN, pygame.K_RETURN])
    assert play("--env", "CartPole-v1", "--n-episodes", 2, "--seed", 5, player=player) == 0
    out, err = capsys.readouterr()
    assert "left       action 0" in out and "backspace  drop the episode" in out and "the environment waits" in out
    assert "Episode 1, 0 kept" in err and "dropped" in err
    assert "2 of 3 episodes, played by the keys" in out and "rl_zoo3 train --algo iq --env CartPole-v1" in out
    demos, card = load_demonstrations(tmp_path / "mine"), json.loads((tmp_path / "mine" / "card.json").read_text())
    assert (card["n_episodes"], card["n_attempts"], card["seeds"], card["max_episode_steps"]) == (2, 3, [6, 7], 500)
    assert card["agent"]["keys"] == {"left": "0", "right": "1"} and card["made_by"] == "python -m sb3_iq.play"
    env = gym.make("CartPole-v1")
    for seed, episode, action in zip(card["seeds"], demos, (0, 1), strict=True):
        assert (episode.acts == action).all() and episode.terminated
        obs, _ = env.reset(seed=seed)
        for t in range(len(episode)):
            np.testing.assert_array_equal(episode.obs[t], obs)
            obs = env.step(action)[0]
        np.testing.assert_array_equal(episode.obs[-1], obs)
    IQLearn("MlpPolicy", "CartPole-v1", str(tmp_path / "mine"), offline=True, **SMALL).learn(2)


def test_backspace_drops_a_running_episode_and_escape_ends(play, tmp_path, capsys):
    frames = [[pygame.K_LEFT], [pygame.K_LEFT], [pygame.K_BACKSPACE], [], [pygame.K_RIGHT], [], [pygame.K_ESCAPE]]
    presses = iter(frames)

    class Script:
        def events(self):
            return [pygame.event.Event(pygame.KEYDOWN, key=key) for key in next(presses)]

    assert play("--env", "CartPole-v1", player=Script()) == 1
    err = capsys.readouterr().err
    assert "Episode 1, 0 kept: dropped" in err and "nothing recorded: none of 2 episodes was kept" in err
    assert not (tmp_path / "mine").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "CartPole-v1", "--keys", "left"], "expected KEY:ACTION, e.g. left:0"),
        (["--env", "CartPole-v1", "--keys", "left:7"], "--keys left: '7' is not an action of Discrete(2)"),
        (["--env", "CartPole-v1", "--keys", "left:go"], "expected an action as Python writes it"),
        (["--env", "CartPole-v1", "--keys", "escape:0"], "keep, drop and end. Choose another key"),
        (["--env", "CartPole-v1", "--keys", "nokey:0"], "--keys nokey: unknown key name. Keys have pygame's names"),
        (["--env", "CartPole-v1", "--keys", "a:0", "a:1"], "--keys a: given twice"),
        (["--env", "CartPole-v1", "--noop", "5"], "--noop: '5' is not an action"),
        (["--env", "CartPole-v1", "--zoom", "0"], "expected a number above 0"),
        (["--env", "Nowhere-v0"], "name a package that registers it with --gym-packages"),
        (["--env", "CartPole-v1", "--seed", "-1"], "expected 0 or more"),
    ],
)
def test_wrong_arguments(play, capsys, arguments, message):
    with pytest.raises(SystemExit) as stop:
        play(*arguments)
    assert stop.value.code == 2 and message in capsys.readouterr().err


def test_keys_of_environments():
    """The user's, those that are known, the environment's own, digits; continuous actions without any are refused."""
    cart = gym.make("CartPole-v1")
    assert find_keys(cart, {"a": 0}).action(["a"]) == 0
    assert find_keys(cart, {}).action([]) is None
    own = find_keys(gym.make("MountainCar-v0"), {})
    assert [own.action(down) for down in ([], ["left"], ["right"], ["right", "left"])] == [1, 0, 2, 1]
    digits = find_keys(RandomEnv(BOX, spaces.Discrete(3)), {})
    assert [digits.action(down) for down in ([], ["2"], ["2", "0"])] == [None, 2, 0]
    box = spaces.Box(-1.0, 1.0, (2,), np.float32)
    for space in (box, spaces.MultiDiscrete([2, 2])):
        with pytest.raises(ValueError, match=r"has no keys, and its actions are .*: say by --keys which key .* --keys \"w:"):
            find_keys(RandomEnv(BOX, space), {})
    keys = find_keys(RandomEnv(BOX, box), {"a": [-1, 0], "d": [1, 0.5], "w": [0, 1], "w+a": [-0.5, 0.5]})
    for down, action in (([], [0, 0]), (["d", "w"], [1, 1]), (["a", "w"], [-0.5, 0.5]), (["a", "d"], [0, 0.5])):
        np.testing.assert_array_equal(keys.action(down), action)
        assert box.contains(keys.action(down))


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.skipif(
    not all(map(shutil.which, ("Xvfb", "xdotool"))), reason="keys are sent to a real window by Xvfb and xdotool"
)
def test_keys_sent_to_a_real_window(tmp_path):
    read, write = os.pipe()
    server = subprocess.Popen(["Xvfb", "-displayfd", str(write), "-screen", "0", "800x600x24"], pass_fds=[write])
    os.close(write)
    environ = {key: value for key, value in os.environ.items() if key != "SDL_VIDEODRIVER"}
    environ["DISPLAY"] = f":{os.fdopen(read).readline().strip()}"
    arguments = ["--env", "CartPole-v1", "--n-episodes", "1", "--fps", "30", "--out", str(tmp_path / "mine")]
    command = [sys.executable, "-m", "sb3_iq.play", *arguments]
    game = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def xdotool(*words):
        return subprocess.run(["xdotool", *words], env=environ, capture_output=True, text=True).stdout.split()

    try:
        deadline = time.monotonic() + 120
        while game.poll() is None and time.monotonic() < deadline:
            for window in xdotool("search", "--class", ""):
                title = " ".join(xdotool("getwindowname", window))
                if title.startswith("Episode"):
                    xdotool("windowfocus", window)
                if "Return keeps it" in title:
                    xdotool("keyup", "Right")
                    xdotool("key", "Return")
                elif "a key starts it" in title:
                    xdotool("keydown", "Right")
            time.sleep(0.2)
        out, err = game.communicate(timeout=10)
    finally:
        game.kill()
        server.kill()
    assert game.returncode == 0, err
    (episode,) = load_demonstrations(tmp_path / "mine")
    assert episode.terminated and (episode.acts == 1).all() and "rl_zoo3 train --algo iq --env CartPole-v1" in out
