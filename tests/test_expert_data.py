"""Bad demonstrations are refused by IQLearn's constructor, before anything is trained."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn, load_demonstrations
from tests.utils import DICT, DISCRETE, NoStepEnv, random_trajectories

VECTOR = spaces.Box(-np.inf, np.inf, (4,), np.float32)
BOX_ACTIONS = spaces.Box(-2.0, 2.0, (1,), np.float32)
OBS, ACTS = np.arange(24, dtype=np.float32).reshape(6, 4), np.array([0, 1, 0, 1, 2])
NAN, INFINITE = OBS.copy(), OBS.copy()
NAN[2, 1], INFINITE[0, 0] = np.nan, np.inf


def episode(**parts):
    return {"obs": OBS, "acts": ACTS, "terminal": True} | parts


@pytest.mark.parametrize(
    "expert_data, error, message",
    [
        ([], ValueError, "expert_data is empty"),
        ({}, ValueError, "missing"),
        (episode(obs=OBS[:1], acts=ACTS[:0]), ValueError, "an episode needs at least one step"),
        (episode(obs=NAN), ValueError, r"obs holds nan at step 2, column 1:"),
        (episode(obs=INFINITE), ValueError, r"obs holds inf at step 0, column 0:"),
        (episode(obs=OBS[:, :3]), ValueError, r"observations of shape \(3,\).*observation space has shape \(4,\).*wrappers"),
        (episode(acts=np.full((5, 2), 0.5)), ValueError, r"continuous \(a Box\).*Discrete\(3\)"),
        (episode(acts=ACTS + 1), ValueError, r"actions hold 3, which is outside 0\.\.2"),
        (episode(acts=ACTS - 1), ValueError, r"actions hold -1, which is outside 0\.\.2"),
        (episode(acts=ACTS[:4]), ValueError, r"len\(obs\) = 6 but len\(acts\) \+ 1 = 5"),
        ("no/such/folder", FileNotFoundError, "'no/such/folder': no such file or folder.*hf:ORG/NAME"),
        ("bundled:Nothing-v0", ValueError, r"no such bundled set. Use one of \['CartPole-v1'\]"),
        (42, TypeError, "expert_data is 42"),
        (th.zeros(3), TypeError, "expert_data is an object of type torch.Tensor"),
        ([None], TypeError, "episode 0: None is not a trajectory"),
        (random_trajectories(NoStepEnv(DICT, DISCRETE)), ValueError, "dictionary with the keys"),
    ],
)
@pytest.mark.parametrize("offline", [True, False])
def test_refused_in_the_constructor(expert_data, error, message, offline):
    with pytest.raises(error, match=message):
        IQLearn("MlpPolicy", NoStepEnv(VECTOR, DISCRETE), expert_data, offline=offline, device="cpu")


@pytest.mark.parametrize(
    "acts, message",
    [
        (ACTS, "actions are discrete"),
        (np.full((5, 1), 99.0), "the units are wrong"),
        (np.where(np.arange(5) == 2, np.nan, 0.0)[:, None], "acts holds nan"),
        (np.full((5, 1), np.nan), "there are no actions, or only NaN"),
        (np.zeros((5, 2)), r"actions of shape \(2,\), but the environment's action space has shape \(1,\)"),
    ],
)
def test_refused_box_actions(acts, message):
    with pytest.raises(ValueError, match=message):
        IQLearn("MlpPolicy", NoStepEnv(VECTOR, BOX_ACTIONS), episode(acts=acts), offline=True, device="cpu")


def test_slightly_beyond_the_bounds_is_clipped_with_one_warning():
    acts = np.array([[0.0], [1.0], [2.2], [-2.1], [0.5]])
    with pytest.warns(
        UserWarning, match=r"40.0 % of the action components lie beyond .* by up to 0.2; they are clipped"
    ) as caught:
        model = IQLearn("MlpPolicy", NoStepEnv(VECTOR, BOX_ACTIONS), episode(acts=acts), offline=True, device="cpu")
    assert len([warning for warning in caught if "clipped" in str(warning.message)]) == 1
    assert model.expert_buffer.all().actions.flatten().tolist() == [0.0, 0.5, 1.0, -1.0, 0.25]


def test_not_a_folder_of_data(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ValueError, match="not a data set"):
        IQLearn("MlpPolicy", "CartPole-v1", tmp_path, offline=True)
    with pytest.raises(ValueError, match="not a data set, or is damaged"):
        IQLearn("MlpPolicy", "CartPole-v1", tmp_path / "notes.txt", offline=True)


def test_demos_scheme(monkeypatch, tmp_path):
    from sb3_iq.demonstrations.saving import save_trajectories

    monkeypatch.delenv("SB3_IQ_DEMOS", raising=False)
    with pytest.raises(ValueError, match="the environment variable SB3_IQ_DEMOS is not set"):
        IQLearn("MlpPolicy", "CartPole-v1", "demos:CartPole-v1", offline=True)
    monkeypatch.setenv("SB3_IQ_DEMOS", str(tmp_path))
    save_trajectories(load_demonstrations("bundled:CartPole-v1", n_trajectories=1).trajectories, tmp_path / "CartPole-v1")
    # the environment's own id
    model = IQLearn("MlpPolicy", "CartPole-v1", "demos:", offline=True)
    assert model.expert_buffer.size() == 500
    with pytest.raises(FileNotFoundError, match="Check the name and SB3_IQ_DEMOS"):
        IQLearn("MlpPolicy", "CartPole-v1", "demos:Other-v1", offline=True)


def test_a_limit_that_nobody_knows_is_named_once():
    twice = [dict(obs=OBS, acts=ACTS, infos=None, terminal=True)] * 2
    with pytest.warns(UserWarning, match=r"end after 5 steps.*max_episode_steps=5") as caught:
        IQLearn("MlpPolicy", NoStepEnv(VECTOR, DISCRETE), twice, offline=True, device="cpu")
    assert len(caught) == 1
    demonstrations = load_demonstrations(twice, max_episode_steps=5)
    model = IQLearn("MlpPolicy", NoStepEnv(VECTOR, DISCRETE), demonstrations, offline=True, device="cpu")
    assert model.expert_buffer.all().dones.sum() == 0


def test_fewer_transitions_than_the_batch_and_one_step_episodes():
    one_step = episode(obs=OBS[:2], acts=ACTS[:1])
    model = IQLearn("MlpPolicy", NoStepEnv(VECTOR, DISCRETE), [one_step], offline=True, device="cpu").learn(3)
    assert model.expert_buffer.size() == 1
