"""Data sets that we write: the recorder, the bundled set, names of sets, and folders that must stay as they are."""

import os
import subprocess
import sys
from pathlib import Path

import datasets
import gymnasium as gym
import numpy as np
import pytest

from sb3_iq.demonstrations import load_demonstrations, record, save_trajectories
from tests.test_demonstrations import endings, make_episodes

needs_demos = pytest.mark.skipif(
    not os.environ.get("SB3_IQ_DEMOS"), reason="needs $SB3_IQ_DEMOS, the folder of recorded experts (see the README)"
)


def test_read_only_folder_stays_as_it_is(tmp_path):
    folder = tmp_path / "set"
    save_trajectories(make_episodes(), folder)
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir())
    folder.chmod(0o555)
    try:
        load_demonstrations(folder)
    finally:
        folder.chmod(0o755)
    assert sorted((p.name, p.stat().st_mtime_ns) for p in folder.iterdir()) == before


def test_bundled_cartpole():
    folder = Path(load_demonstrations.__code__.co_filename).parent / "bundled" / "CartPole-v1"
    assert sum(file.stat().st_size for file in folder.iterdir()) < 260_000
    demos = load_demonstrations("bundled:CartPole-v1")
    assert demos.reference == "bundled:CartPole-v1" and demos.card is not None
    assert demos.episode_returns is not None and demos.episode_returns.tolist() == [500.0] * 10 == demos.card["returns"]
    assert endings(demos) == [(False, True, "info")] * 10
    assert demos.card["expert_return"]["mean"] >= 475 > demos.card["random_return"]["mean"]
    env = gym.make("CartPole-v1")
    options = demos.card["reset_options"]
    for seed, trajectory in zip(demos.card["seeds"][:2], demos.trajectories, strict=False):  # the actions replay
        obs, _ = env.reset(seed=seed, options=options)
        for t, action in enumerate(trajectory.acts):
            np.testing.assert_allclose(trajectory.obs[t], obs, atol=1e-4)
            obs, *_ = env.step(int(action))
    starts = np.stack([t.obs[0] for t in demos.trajectories])
    assert np.abs(starts).max() > 0.15  # wider than the environment's own 0.05


def test_demos_scheme(tmp_path, monkeypatch):
    episodes = make_episodes()
    save_trajectories(episodes, tmp_path / "Some-v0", {"env_id": "Some-v0"})
    monkeypatch.setenv("SB3_IQ_DEMOS", str(tmp_path))
    named = load_demonstrations("demos:Some-v0")
    assert named.content_hash == load_demonstrations(episodes).content_hash and named.card == {"env_id": "Some-v0"}
    assert load_demonstrations("demos:", env_id="Some-v0").content_hash == named.content_hash


@needs_demos
@pytest.mark.parametrize("name", ["CartPole-v1", "LunarLander-v3", "Hopper-v5"])
def test_recorded_experts(name):
    demos = load_demonstrations(f"demos:{name}")
    assert demos.card is not None and demos.episode_returns is not None
    assert demos.episode_returns.mean() == pytest.approx(demos.card["return"]["mean"], rel=1e-3)
    assert [t.terminated for t in demos.trajectories] == demos.card["terminated"]


class Countdown(gym.Env):
    """Ends after four steps; the observation is a dictionary if asked for."""

    def __init__(self, as_dict: bool = False) -> None:
        box = gym.spaces.Box(-10, 10, (2,))
        self.observation_space = gym.spaces.Dict({"x": box}) if as_dict else box
        self.action_space = gym.spaces.Discrete(2)
        self.as_dict = as_dict

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.left = 4
        self.x = self.np_random.normal(size=2).astype(np.float32)
        return self._obs(), {}

    def _obs(self):
        return {"x": self.x} if self.as_dict else self.x

    def step(self, action):
        self.left -= 1
        self.x = self.x + 1
        return self._obs(), 1.0, self.left == 0, False, {}


def test_recorder_round_trip(tmp_path):
    limited = gym.wrappers.TimeLimit(Countdown(), 3)
    episodes = record(lambda obs: 1, limited, 2) + record(lambda obs: 0, Countdown(), 2, seed=5)
    assert [(len(e), e.terminated, e.truncated) for e in episodes] == [(3, False, True)] * 2 + [(4, True, False)] * 2
    assert all(e.starts_at_reset for e in episodes)
    save_trajectories(episodes, tmp_path / "set", {"max_episode_steps": 4})
    loaded = load_demonstrations(tmp_path / "set")
    assert loaded.content_hash == load_demonstrations(episodes).content_hash
    assert {t.ending for t in loaded.trajectories} == {"info"}  # no limit turns the terminal states into truncations
    stored = datasets.load_from_disk(str(tmp_path / "set"))
    assert stored.column_names == ["obs", "acts", "infos", "terminal", "rews"] and stored[0]["terminal"] is True
    assert stored[0]["infos"] == ["{}", "{}", '{"TimeLimit.truncated": true}']
    with_dict = record(lambda obs: 1, Countdown(as_dict=True), 1)
    assert with_dict[0].obs["x"].shape == (5, 2)
    save_trajectories(with_dict, tmp_path / "dict")
    assert load_demonstrations(tmp_path / "dict").content_hash == load_demonstrations(with_dict).content_hash
    with pytest.raises(ValueError, match="different keys"):
        save_trajectories(with_dict + episodes, tmp_path / "mixed")
    with pytest.raises(ValueError, match="empty"):
        save_trajectories([], tmp_path / "none")


@pytest.mark.parametrize(
    ("predict", "env", "seed", "error", "message"),
    [
        (Countdown(), Countdown(), 0, TypeError, r"predict is .*model\.predict\(obs, deterministic=True\)\[0\]"),
        (
            lambda obs: (1, None),
            Countdown(),
            0,
            TypeError,
            r"predict returned an action and a state, .* model\.predict\(obs\)\[0\]",
        ),
        (lambda obs: 1, "CartPole-v1", 0, TypeError, r"env is 'CartPole-v1': expected .* gymnasium\.make\(ID\)"),
        (lambda obs: 1, Countdown(), None, TypeError, "seed=None: expected an integer"),
        (lambda obs: 1, Countdown(), -1, ValueError, "seed=-1: expected an integer at least 0"),
    ],
)
def test_mistakes_of_who_records(predict, env, seed, error, message):
    with pytest.raises(error, match=message):
        record(predict, env, 1, seed=seed)


def test_more_numbers_than_one_arrow_array_holds(tmp_path, monkeypatch):
    episodes = make_episodes()
    monkeypatch.setattr("sb3_iq.demonstrations.saving.MAX_NUMBERS", 2 * np.asarray(episodes[0].obs).size)
    save_trajectories(episodes, tmp_path / "set")
    assert load_demonstrations(tmp_path / "set").content_hash == load_demonstrations(episodes).content_hash


def test_describe_and_card():
    text = load_demonstrations("bundled:CartPole-v1", n_trajectories=2, subsample_freq=5).describe()
    assert "bundled:CartPole-v1: 2 episodes, 200 transitions (one of 5), return 500.0" in text and "2 truncated" in text
    assert "\n" not in load_demonstrations(make_episodes()).describe()


@pytest.mark.slow
def test_import_is_light():
    """Stable-Baselines3 itself may bring pandas, and pandas pyarrow."""
    heavy = "{'datasets', 'pandas', 'pyarrow', 'imitation'}"
    code = f"import sys, stable_baselines3; old = set(sys.modules); import sb3_iq; print((set(sys.modules) - old) & {heavy})"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
