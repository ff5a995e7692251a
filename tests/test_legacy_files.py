"""Pickled expert data: the format of the IQ-Learn paper's files, and only when the caller trusts the file."""

import pickle

import numpy as np
import pytest

from sb3_iq import IQLearn
from sb3_iq.demonstrations import Trajectory, load_demonstrations
from tests.test_demonstrations import LENGTHS, ForeignTrajectory, as_foreign, make_episodes


def as_legacy(episodes: list[Trajectory]) -> dict:
    """Return lists of per-trajectory sequences, as tuples and arrays, with Python and NumPy numbers."""
    return {
        "states": [tuple(np.asarray(e.obs)[:-1]) for e in episodes],
        "next_states": [list(np.asarray(e.obs)[1:]) for e in episodes],
        "actions": [tuple(np.asarray(e.acts).tolist()) for e in episodes],
        "rewards": [list(np.asarray(e.rews)) for e in episodes],
        "dones": [[False] * (len(e) - 1) + [True] for e in episodes],
        "lengths": [len(e) for e in episodes],
    }


def write(path, content):
    if path.suffix == ".npy":
        np.save(path, content, allow_pickle=True)
    else:
        path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize("name", ["expert.npy", "expert.pkl", "expert"])
def test_equal_to_the_arrays(tmp_path, name):
    episodes = make_episodes()
    path = write(tmp_path / name, as_legacy(episodes))
    loaded = load_demonstrations(path, allow_pickle=True)
    assert loaded.content_hash == load_demonstrations(episodes).content_hash
    assert load_demonstrations(as_legacy(episodes)).content_hash == loaded.content_hash  # in memory there is no pickle
    assert [t.ending for t in loaded.trajectories] == ["assumed"] * 3
    limited = load_demonstrations(str(path), allow_pickle=True, max_episode_steps=max(LENGTHS))
    assert [t.truncated for t in limited.trajectories] == [False, False, True]
    assert load_demonstrations(path, n_trajectories=1, allow_pickle=True).n_transitions == LENGTHS[0]


def test_images_and_no_rewards(tmp_path):
    episodes = make_episodes(True, (8, 6, 3), np.uint8)
    content = as_legacy(episodes)
    del content["rewards"], content["lengths"]
    loaded = load_demonstrations(write(tmp_path / "expert.pkl", content), allow_pickle=True)
    assert loaded.episode_returns is None
    assert loaded.trajectories[2].obs.dtype == np.uint8
    np.testing.assert_array_equal(loaded.trajectories[2].obs, episodes[2].obs)


def test_lists_of_trajectories(tmp_path):
    episodes = make_episodes()
    expected = load_demonstrations(as_foreign(episodes)).content_hash
    path = write(tmp_path / "old.pkl", [ForeignTrajectory(*vars(e).values()) for e in as_foreign(episodes)])
    assert load_demonstrations(path, allow_pickle=True).content_hash == expected


def test_only_with_permission(tmp_path):
    sign = tmp_path / "ran"

    class Code:
        def __reduce__(self):
            return (open, (str(sign), "w"))

    for name in ("expert.npy", "expert.pkl", "expert.dat"):
        path = write(tmp_path / name, np.array(Code()) if name.endswith("npy") else Code())
        for read in (load_demonstrations, lambda path: IQLearn("MlpPolicy", "CartPole-v1", path, offline=True)):
            with pytest.raises(ValueError, match=r"can run code and is not read.*allow_pickle=True"):
                read(path)
    assert not sign.exists()
    with pytest.raises(TypeError, match="allow_pickle=1: expected True or False"):
        load_demonstrations(path, allow_pickle=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dones": None, "next_states": None}, r"\['next_states', 'dones'\] are missing"),
        ({"states": []}, r"\['states'\] and actions have different lengths"),
        ({"actions": [], "states": [], "next_states": [], "dones": [], "rewards": [], "lengths": []}, "empty"),
        ({"lengths": [5, 1]}, "expected one positive number for each of 3 episodes"),
        ({"lengths": [5, 0, 8]}, "expected one positive number"),
        ({"lengths": [5, 1, 9]}, "episode 2: states has fewer than 9 entries"),
        ({"actions": 3}, "actions holds 3: expected lists"),
        ({"states": [[[1.0], [1.0, 2.0]]] * 3}, "episode 0: states is not an array of numbers"),
        ({"states": [np.zeros((5, 2)), np.zeros((1, 3)), np.zeros((8, 2))]}, "states has entries of different shapes"),
        ({"dones": [["x"] * n for n in LENGTHS]}, "dones holds 'x': expected True or False"),
    ],
)
def test_malformed(tmp_path, change, message):
    content = {name: value for name, value in (as_legacy(make_episodes()) | change).items() if value is not None}
    with pytest.raises(ValueError, match=f"expert_data .*expert.pkl'.*{message}"):
        load_demonstrations(write(tmp_path / "expert.pkl", content), allow_pickle=True)


def test_other_content(tmp_path):
    for content in (3, np.zeros(3), {"x": 1}, None):
        with pytest.raises(ValueError, match=r"expert_data .*expert\.pkl"):
            load_demonstrations(write(tmp_path / "expert.pkl", content), allow_pickle=True)
    (tmp_path / "expert.pkl").write_bytes(b"\x80\x04N")
    with pytest.raises(ValueError, match="cannot be read as a pickle"):
        load_demonstrations(tmp_path / "expert.pkl", allow_pickle=True)
