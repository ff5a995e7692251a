"""The report on demonstrations: what it finds in good and bad data, and its exit status."""

import subprocess
import sys

import numpy as np
import pytest
from gymnasium import spaces

from sb3_iq.demonstrations import Trajectory, load_demonstrations
from sb3_iq.demonstrations.__main__ import main
from sb3_iq.demonstrations.report import make_report
from sb3_iq.demonstrations.saving import save_trajectories
from tests.utils import DICT, DISCRETE, RandomEnv, random_trajectories

BOX_ACTIONS = spaces.Box(-2.0, 2.0, (1,), np.float32)


def make_episode(length=20, seed=0, **flags):
    rng = np.random.default_rng(seed)
    obs = np.stack([rng.normal(size=length + 1), np.full(length + 1, 3.0), rng.uniform(5, 9, length + 1)], axis=1)
    acts = rng.uniform(-1.9, 1.9, (length, 1))
    return Trajectory(obs, acts, np.ones(length), **({"terminated": True, "truncated": False} | flags))


def report(source, *spaces_of_env, **kwargs):
    return {finding.name.strip(): finding for finding in make_report(load_demonstrations(source, **kwargs), *spaces_of_env)}


def test_episodes_and_ends():
    found = report(
        [make_episode(), make_episode(10, 1, terminated=False, truncated=True), make_episode(6, 2, terminated=False)]
    )
    assert found["episodes"].fact == "3, with 36 transitions; 3 start at a reset"
    assert found["lengths"].fact == "12.0 +/- 5.9, from 6 to 20"
    assert found["returns"].fact == "12.0 +/- 5.9, from 6 to 20"
    assert found["ends"].fact == (
        "1 terminated (the data tell), 1 truncated (the data tell), 1 without an end, time limit unknown"
    )
    episode = make_episode()
    same = [{"obs": episode.obs, "acts": episode.acts, "terminal": True}] * 2
    found = report(same)
    assert found["returns"].fact.startswith("unknown")
    assert found["ends"].fact == "2 terminated (assumed, nothing tells), time limit unknown"
    assert "say so (max_episode_steps=20)" in found["ends"].consequence
    found = report(same, max_episode_steps=20)
    assert found["ends"].fact == "2 truncated (the length reaches the time limit), time limit 20"
    assert "max_episode_steps" not in found["ends"].consequence
    assert "1 terminated (assumed, as the time limit is not reached)" in report(same[:1], max_episode_steps=30)["ends"].fact
    piece = make_episode(starts_at_reset=False)
    assert "no episode starts at a reset" in report([piece])["episodes"].consequence


def test_observations():
    found = report([make_episode(500)])
    assert found["observations"].fact.startswith("shape (3,), float64, from -")
    assert found["constant"].fact == "1 of 3 dimensions (1)"
    assert found["normalised"].fact == "mean about 0 and deviation about 1 in 1 of 3 dimensions (0)"
    assert "VecNormalize" in found["normalised"].consequence
    wide = np.random.default_rng(0).normal(size=(500, 4)) * [1, 5, 5, 5]
    found = report({"obs": wide, "acts": np.zeros(499, int)})
    assert found["normalised"].fact.endswith("1 of 4 dimensions (0)")
    assert "by nature" in found["normalised"].consequence
    image = np.random.default_rng(0).uniform(size=(5, 8, 8, 3))
    assert "images between 0 and 1" in report([{"obs": image, "acts": np.zeros(4, int)}])["scaled"].fact
    found = report(random_trajectories(RandomEnv(DICT, DISCRETE)), DICT, DISCRETE)
    assert found["obs['image']"].fact == "shape (36, 36, 3), uint8, from 0 to 255"
    assert found["obs['vector']"].fact.startswith("shape (4,), float32")


def test_actions():
    acts = np.array([[-2.0], [2.0], [0.3], [2.4]])
    episode = {"obs": np.arange(5.0)[:, None], "acts": acts, "terminal": True}
    found = report(episode, spaces.Box(0, 9, (1,)), BOX_ACTIONS)["actions"]
    assert found.fact == (
        "shape (1,), from -2 to 2.4; 50.0 % of the components on the bounds, 25.0 % beyond them by up to 0.4"
    )
    assert "clipped" in found.consequence
    wide = report(episode, spaces.Box(0, 9, (1,)), spaces.Box(-100.0, 100.0, (1,)))["actions"]
    assert wide.consequence.endswith(", 1 of 1 dimensions by what the expert does, as the bounds are far wider")
    assert "50.0 % of the components on the minimum or maximum seen" in report(episode)["actions"].fact
    discrete = episode | {"acts": np.array([0, 0, 2, 0])}
    assert report(discrete, None, spaces.Discrete(4))["actions"].fact == (
        "discrete, 0: 75.0 %, 2: 25.0 %; 2 of 4 actions never"
    )


@pytest.mark.parametrize(
    "acts, space, fact",
    [
        (np.array([[-2.0], [2.0], [0.3], [1.4]]), spaces.Discrete(2), "shape (1,), from -2 to 2; 50.0 % of the components"),
        (np.array([0, 1, 2, 2]), spaces.Discrete(2), "discrete, 0: 25.0 %, 1: 25.0 %, 2: 50.0 %"),
        (np.eye(4, dtype=int), spaces.Discrete(4), "discrete, 4 parts; part 0: 0: 75.0 %, 1: 25.0 %"),
        (np.array([0, 1, 1, 1]), spaces.MultiDiscrete([2, 2]), "discrete, 0: 25.0 %, 1: 75.0 %"),
        (np.array([0, 1, 1, 1]), BOX_ACTIONS, "discrete, 0: 25.0 %, 1: 75.0 %"),
        (np.zeros((4, 2)), BOX_ACTIONS, "shape (2,), from 0 to 0"),
    ],
    ids=["continuous", "beyond", "one-hot", "one part", "discrete", "shape"],
)
def test_actions_of_another_environment(acts, space, fact):
    """What they are by themselves, and not what they would be as the environment's."""
    found = report({"obs": np.arange(5.0)[:, None], "acts": acts, "terminal": True}, None, space)["actions"]
    assert found.fact.startswith(fact)
    assert found.consequence == f"refused: they do not fit the environment, whose action space is {space}"


def test_actions_of_several_parts():
    acts = np.array([[0, 1], [2, 1], [0, 1], [0, 0]])
    episode = {"obs": np.arange(5.0)[:, None], "acts": acts, "terminal": True}
    expected = "discrete, 2 parts; part 0: 0: 75.0 %, 2: 25.0 %; part 1: 0: 25.0 %, 1: 75.0 %"
    assert report(episode, None, spaces.MultiDiscrete([3, 2]))["actions"].fact == expected == report(episode)["actions"].fact
    bits = report(episode | {"acts": np.ones((4, 20), np.int8)}, None, spaces.MultiBinary(20))["actions"].fact
    assert bits.startswith("discrete, 20 parts; part 0: 1: 100.0 %;") and bits.endswith("; part 11: 1: 100.0 %; ...")


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8])
def test_duplicates(dtype):
    obs = np.random.default_rng(0).permutation(200)[:21].astype(dtype).reshape(7, 3)
    first = Trajectory(obs, np.arange(6), None, True, False)
    # Another episode of which two transitions are those of the first, and a copy of the first
    other = Trajectory(np.concatenate([obs[2:5], obs[:1]]), np.array([2, 3, 5]), None, True, False)
    assert report([first])["duplicates"].fact.startswith("0 episodes repeat another, 0 transitions")
    fact = report([first, other, first])["duplicates"].fact
    assert fact == "1 episodes repeat another, 8 transitions (53.3 %) repeat one"


def test_episodes_of_several_environments():
    episodes = [make_episode(), Trajectory(np.zeros((3, 2)), np.zeros((2, 2)), None, True, False)]
    found = report(episodes)
    assert found["observations"].fact == found["actions"].fact == "of several shapes"
    found = report([episodes[0], Trajectory({"x": np.zeros((3, 2))}, np.zeros(2), None, True, False)])
    assert found["observations"].consequence.startswith("refused")


def test_command(capsys, tmp_path):
    assert main(["bundled:CartPole-v1", "--env", "CartPole-v1"]) == 0
    out = capsys.readouterr().out
    assert "10 truncated (the data tell), time limit 500" in out
    assert "accepts this data: 5000 transitions" in out
    assert max(len(line) for line in out.splitlines()) <= 110
    assert main(["bundled:CartPole-v1"]) == 0
    assert "give --env" in capsys.readouterr().out

    assert main(["bundled:CartPole-v1", "--env", "Pendulum-v1"]) == 1
    out, err = capsys.readouterr()
    assert "5000 transitions" in out
    assert "IQLearn refuses this data: expert_data, episode 0: observations of shape (4,)" in err

    save_trajectories([Trajectory(np.zeros((4, 3)), np.full((3, 1), 2.2), None, True, False)], tmp_path / "set")
    assert main([str(tmp_path / "set"), "--env", "Pendulum-v1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "100.0 % beyond them by up to 0.2" in out
    assert "warning Expert data: 100.0 % of the action components" in out


@pytest.mark.parametrize("path", ["no/such/file", "bundled:Nothing", "minari:", "nonsense:x", "", "\0", "demos:"])
def test_command_refuses(path, capsys):
    assert main([path]) == 1
    assert capsys.readouterr().err.startswith("IQLearn refuses this data: ")


@pytest.mark.parametrize("arguments", [[], ["bundled:CartPole-v1", "--env", "Nothing-v0"], ["x", "--env", "a:b:c"]])
def test_wrong_arguments(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.slow
def test_as_a_module(tmp_path):
    """A damaged file: exit status 1, one line, no traceback."""
    (tmp_path / "set.parquet").write_bytes(b"PAR1")
    command = [sys.executable, "-m", "sb3_iq.demonstrations", str(tmp_path / "set.parquet"), "--max-episode-steps", "5"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1
    assert "cannot be read as a Parquet file" in result.stderr
    assert "Traceback" not in result.stderr
