"""Names of demonstrations that carry a choice of episodes, and the help for who has none."""

import numpy as np
import pytest

from sb3_iq import IQLearn, load_demonstrations

CARTPOLE = "bundled:CartPole-v1"


def test_the_choice_is_that_of_the_arguments():
    by_name = load_demonstrations(f"{CARTPOLE}?n_trajectories=3&subsample_freq=5&seed=1")
    by_arguments = load_demonstrations(CARTPOLE, n_trajectories=3, subsample_freq=5, seed=1)
    assert by_name.content_hash == by_arguments.content_hash
    assert by_name.reference == f"{CARTPOLE}?n_trajectories=3&subsample_freq=5&seed=1"


def test_arguments_choose_among_what_was_chosen():
    assert load_demonstrations(f"{CARTPOLE}?n_trajectories=3", n_trajectories=2, subsample_freq=5).n_transitions == 200
    with pytest.raises(ValueError, match="holds 3 episodes"):
        load_demonstrations(f"{CARTPOLE}?n_trajectories=3", n_trajectories=4)


def test_time_limit(tmp_path):
    np.savez(
        tmp_path / "a.npz", obs=np.zeros((5, 2)), next_obs=np.zeros((5, 2)), acts=np.zeros(5, int), dones=np.arange(5) == 4
    )
    path = str(tmp_path / "a.npz")
    assert not load_demonstrations(path).trajectories[0].truncated
    assert load_demonstrations(f"{path}?max_episode_steps=5").trajectories[0].truncated
    # the argument is the last word
    assert not load_demonstrations(f"{path}?max_episode_steps=5", max_episode_steps=6).trajectories[0].truncated


def test_the_choice_comes_back_with_a_saved_model(tmp_path):
    reference = f"{CARTPOLE}?n_trajectories=2"
    model = IQLearn("MlpPolicy", "CartPole-v1", reference, offline=True)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model").learn(1)
    assert (loaded.expert_reference, loaded.expert_n_transitions) == (reference, 1000)
    assert loaded.expert_content_hash == model.expert_content_hash


def test_the_environments_own_id(monkeypatch, tmp_path):
    from sb3_iq.demonstrations.reference import BUNDLED

    (tmp_path / "CartPole-v1").symlink_to(BUNDLED / "CartPole-v1")
    monkeypatch.setenv("SB3_IQ_DEMOS", str(tmp_path))
    model = IQLearn("MlpPolicy", "CartPole-v1", "demos:?n_trajectories=2")
    assert model.expert_n_transitions == 1000


def test_a_path_may_hold_a_question_mark(tmp_path):
    path = tmp_path / "what?seed=3"
    path.mkdir()
    with pytest.raises(ValueError, match="seed=3"):  # an empty folder, found
        load_demonstrations(str(path))
    arrays = {
        "obs": np.zeros((2, 2)),
        "next_obs": np.zeros((2, 2)),
        "acts": np.zeros(2, int),
        "dones": np.array([False, True]),
    }
    np.savez(path / "a.npz", **arrays)
    assert load_demonstrations(str(path / "a.npz")).n_transitions == 2
    assert load_demonstrations(f"{path / 'a.npz'}?subsample_freq=2").n_transitions == 1


@pytest.mark.parametrize(
    "query", ["", "n=3", "n_trajectories", "n_trajectories=-1", "n_trajectories=x", "seed=1&seed=2", "seed="]
)
def test_malformed_choice(query):
    with pytest.raises(ValueError, match="n_trajectories, subsample_freq, seed"):
        load_demonstrations(f"{CARTPOLE}?{query}")


def test_choice_out_of_range():
    with pytest.raises(ValueError, match="n_trajectories=0"):
        load_demonstrations(f"{CARTPOLE}?n_trajectories=0")


@pytest.mark.parametrize("set_variable", [False, True])
def test_the_ways_to_demonstrations(monkeypatch, tmp_path, set_variable):
    monkeypatch.delenv("SB3_IQ_DEMOS", raising=False)
    if set_variable:
        monkeypatch.setenv("SB3_IQ_DEMOS", str(tmp_path))
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        IQLearn("MlpPolicy", "Pendulum-v1", "demos:")
    message = str(error.value)
    assert "python -m sb3_iq.record --algo ppo --env Pendulum-v1 -f logs/" in message
    assert all(way in message for way in ("minari:ID", "hf:ORG/NAME", "SB3_IQ_DEMOS"))
