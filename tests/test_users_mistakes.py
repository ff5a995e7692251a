"""What users get wrong with sets of episodes, the held-out callback and the window: told by the argument's name, and nothing
is written or lost."""

import json
from pathlib import Path

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces

from sb3_iq import Demonstrations, HeldOutCallback, IQLearn, Trajectory, load_demonstrations, play, save_trajectories
from sb3_iq.demonstrations import export
from tests.utils import BOX, DISCRETE, RandomEnv, random_trajectories


def episode(obs_dim=3, acts=None, **kwargs):
    acts = np.zeros(4, int) if acts is None else acts
    return Trajectory(np.zeros((len(acts) + 1, obs_dim)), acts, np.ones(len(acts)), True, False, **kwargs)


@pytest.fixture
def demonstrations():
    return Demonstrations((episode(), episode()))


def test_a_start_that_is_no_reset_goes_through_imitation_s_infos():
    piece = episode(starts_at_reset=False)
    row = {"obs": piece.obs, "acts": piece.acts, "rews": piece.rews, "infos": np.array(piece.infos), "terminal": True}
    assert load_demonstrations([row])[0].starts_at_reset is False
    assert load_demonstrations([{**row, "infos": np.array(episode().infos)}])[0].starts_at_reset is True


def test_episodes_of_other_environments_are_not_joined(demonstrations):
    of_keys = Demonstrations((Trajectory({"a": np.zeros((5, 3))}, np.zeros(4, int), None, True, False),))
    for other in (Demonstrations((episode(obs_dim=7),)), Demonstrations((episode(acts=np.zeros((4, 2))),)), of_keys):
        with pytest.raises(ValueError, match="can't be joined"):
            demonstrations + other
    single = Demonstrations((Trajectory(np.zeros((5, 3)), np.zeros((4, 1), int), np.ones(4), True, False),))
    assert len(demonstrations + single) == 3  # an axis of one number is no other environment


@pytest.mark.parametrize("path", ["", "plain", "folder/", "demos.txt"])
def test_an_image_needs_its_ending(demonstrations, path, tmp_path):
    pytest.importorskip("matplotlib")
    with pytest.raises(ValueError, match="path="):
        demonstrations.plot(str(tmp_path / path) if path else path)
    assert not any(tmp_path.parent.glob("*.png")) and not any(tmp_path.rglob("*.png"))


@pytest.mark.parametrize(
    ("card", "kind"),
    [
        ({"x": object()}, ValueError),
        ({"x": np.nan}, ValueError),
        ({"max_episode_steps": -3}, ValueError),
        ([1], TypeError),
    ],
)
def test_a_card_is_checked_before_anything_is_written(demonstrations, card, kind, tmp_path):
    with pytest.raises(kind, match="card"):
        demonstrations.save(tmp_path / "demos", card=card)
    assert not any(tmp_path.iterdir())
    demonstrations.save(tmp_path / "demos", card={"note": "mine"})
    assert json.loads((tmp_path / "demos" / "card.json").read_text())["note"] == "mine"


def test_the_home_folder(demonstrations, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    demonstrations.save("~/demos")
    assert (tmp_path / "demos" / "card.json").exists() and not (tmp_path / "~").exists()


@pytest.mark.parametrize("path", [3, None, "a\0b", "x" * 300])
def test_what_is_no_path(demonstrations, path):
    with pytest.raises((TypeError, ValueError), match="path="):
        demonstrations.save(path)


def test_what_are_no_episodes(demonstrations, tmp_path):
    for wrong in (5, [5], {"a": 1}, (one for one in demonstrations)):
        with pytest.raises(TypeError, match="trajectories="):
            save_trajectories(wrong, tmp_path / "demos")
    with pytest.raises(TypeError, match="trajectories"):
        Demonstrations(5)
    with pytest.raises(ValueError, match="max_episode_steps"):
        Demonstrations((episode(),), max_episode_steps=-1)
    with pytest.raises(ValueError, match="ending='foo'"):
        episode(ending="foo")
    with pytest.raises(TypeError, match="function returns"):
        demonstrations.filter(lambda one: one.rews > 0)
    with pytest.raises(ValueError, match=r"fraction=-0.1: .* 0\.2"):
        demonstrations.split(-0.1)


def test_what_is_no_index(demonstrations):
    with pytest.raises(TypeError, match="index True"):
        demonstrations[True]
    assert len(demonstrations[[True, False]]) == 1


@pytest.mark.parametrize("wrong", [["--split", "0.2", "--seed", "-1"], ["--save", "."], ["--save", ""]])
def test_arguments_of_the_report(wrong, capsys):
    from sb3_iq.demonstrations.__main__ import main

    with pytest.raises(SystemExit) as stopped:
        main(["bundled:CartPole-v1", *wrong])
    assert stopped.value.code == 2 and wrong[-2] in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kwargs", "message"), [(dict(total_timesteps=-5), "total_timesteps=-5"), (dict(log_interval=-1), "`log_interval` is -1")]
)
def test_arguments_of_learn(kwargs, message):
    env = RandomEnv(BOX, DISCRETE)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, device="cpu")
    with pytest.raises(ValueError, match=message):
        model.learn(**{"total_timesteps": 1, **kwargs})


def test_minari_gets_the_environment_of_the_episodes(demonstrations):
    pytest.importorskip("minari")
    known = (spaces.Box(-1, 1, (4,)), spaces.Discrete(2))
    with pytest.raises(ValueError, match="the obs of episode 0 are none of Box"):
        export.to_minari(tuple(demonstrations), "my/test-v0", known)
    with pytest.raises(ValueError, match="the acts of episode 0 are none of Discrete"):
        export.to_minari((episode(acts=np.full(4, 2)),), "my/test-v0", (spaces.Box(-1, 1, (3,)), spaces.Discrete(2)))
    for env, kind in (("Nope-v0", ValueError), (5, TypeError)):
        with pytest.raises(kind, match="env="):
            demonstrations.to_minari("my/test-v0", env)
    for dataset_id in (None, ""):
        with pytest.raises(ValueError, match="dataset_id="):
            demonstrations.to_minari(dataset_id, "CartPole-v1")


@pytest.mark.parametrize("held_out", [5, [], "nope", Demonstrations((episode(obs_dim=7),))])
def test_held_out_names_itself(held_out):
    env = RandomEnv(BOX, DISCRETE)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, device="cpu")
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match="held_out"):
        model.learn(1, HeldOutCallback(held_out))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        (dict(held_out=None), "held_out=None"),
        (dict(best_by=[1]), "best_by="),
        (dict(best_model_save_path=5), "best_model_save_path=5"),
        (dict(log_path=5), "log_path=5"),
        (dict(eval_env="Nope-v0"), "eval_env='Nope-v0'"),
        (dict(eval_env=5), "eval_env=5"),
    ],
)
def test_arguments_of_the_callback(kwargs, message):
    with pytest.raises((ValueError, TypeError), match=message):
        HeldOutCallback(**{"held_out": "bundled:CartPole-v1", **kwargs})


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    env = RandomEnv(BOX, DISCRETE)
    trajectories = random_trajectories(env)
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, device="cpu")
    with pytest.raises(ValueError, match="log_path="):
        model.learn(1, HeldOutCallback(trajectories, log_path=str(tmp_path / "file")))


def test_the_working_folder_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    env = RandomEnv(BOX, DISCRETE)
    trajectories = random_trajectories(env)
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, device="cpu")
    with pytest.warns(UserWarning, match="among the demonstrations"):
        model.learn(1, HeldOutCallback(trajectories, eval_freq=1, best_model_save_path=".", log_path="./", verbose=0))
    assert {"best_model.zip", "held_out.npz"} <= {path.name for path in tmp_path.iterdir()}


@pytest.mark.parametrize("offline", ["False", "yes", [], 1])
def test_offline_is_true_or_false(offline):
    env = RandomEnv(BOX, DISCRETE)
    with pytest.raises(TypeError, match="`offline` is"):
        IQLearn("MlpPolicy", env, random_trajectories(env), offline=offline)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, device="cpu")
    with pytest.raises(TypeError, match="`offline` is"):
        model.learn(1, offline=offline)


def test_demonstrations_in_the_environment_s_place_offline_too():
    demonstrations = random_trajectories(RandomEnv(BOX, DISCRETE))
    for wrong in (demonstrations, Path("demos"), "bundled:CartPole-v1"):
        with pytest.raises(TypeError, match="Demonstrations are the third argument"):
            IQLearn("MlpPolicy", wrong, offline=True)


def test_no_environment_to_step_with_its_name_in_the_cure():
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, device="cpu")
    with pytest.raises(ValueError, match=r"set_env\(gymnasium.make\('CartPole-v1'\)\)"):
        model.learn(1, offline=False)


class Unseen(gym.Env):
    """An environment that draws nothing."""

    observation_space, action_space = BOX, DISCRETE
    metadata = {"render_modes": ["human"]}  # noqa: RUF012

    def __init__(self, render_mode=None):
        self.render_mode = render_mode


def test_an_environment_without_pictures_can_t_be_played(tmp_path, capsys, monkeypatch):
    pytest.importorskip("pygame")
    monkeypatch.setitem(gym.registry, "Unseen-v0", gym.envs.registration.EnvSpec("Unseen-v0", entry_point=Unseen))
    for arguments in (["--env", "Unseen-v0"], ["--env", "CartPole-v1", "--zoom", "inf"]):
        with pytest.raises(SystemExit) as stopped:
            play.main([*arguments, "--out", str(tmp_path / "out")])
        assert stopped.value.code == 2
    told = capsys.readouterr().err
    assert "lack rgb_array" in told
    assert "--zoom inf" in told


def test_the_report_does_not_save_what_it_refuses(tmp_path, capsys):
    from sb3_iq.demonstrations.__main__ import main

    assert main(["bundled:CartPole-v1", "--env", "Acrobot-v1", "--save", str(tmp_path / "demos")]) == 1
    assert not (tmp_path / "demos").exists() and "nothing is saved" in capsys.readouterr().err
