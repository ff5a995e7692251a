"""What is logged, and when."""

import numpy as np
import pytest
from stable_baselines3.common.logger import configure

from sb3_iq import IQLearn
from sb3_iq.iq_learn import offline_algorithm
from tests.utils import BOX, DISCRETE, SMALL, make_model


def test_logs(tmp_path):
    kwargs = dict(policy_kwargs=dict(net_arch=[8]), **SMALL)
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **kwargs)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(250, log_interval=1)
    rows = np.genfromtxt(tmp_path / "progress.csv", delimiter=",", names=True)
    assert rows["timetotal_timesteps"].tolist() == [100, 200, 250]
    for name in ("critic_loss", "expert_reward", "ent_coef", "learning_rate"):
        assert np.isfinite(rows[f"train{name}"]).all()


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("log_interval, steps", [(1, [100, 200]), (None, [])])
def test_each_step_is_logged_once(tmp_path, log_interval, steps):
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(200, log_interval=log_interval)
    text = (tmp_path / "progress.csv").read_text()
    column = text.splitlines()[0].split(",").index("time/total_timesteps") if text else 0
    assert [int(line.split(",")[column]) for line in text.splitlines()[1:]] == steps


def test_means_of_the_steps_since_the_last_dump(tmp_path):
    """Every hundred gradient steps, before every dump and at the end of learn()."""
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(150, log_interval=None)
    assert model.logger.name_to_value["train/n_updates"] == 150
    assert model.training_log.infos == []
    losses = []
    for _ in range(3):
        model.train(1, 16)
        losses.append(model.training_log.infos[-1]["critic_loss"].item())
    model.dump_logs()
    rows = np.genfromtxt(tmp_path / "progress.csv", delimiter=",", names=True)
    assert rows["traincritic_loss"] == pytest.approx(np.mean(losses), rel=1e-4)
    assert rows["trainn_updates"] == 153


def test_prints_settings_and_a_short_table(capsys):
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True, verbose=1).learn(1)
    lines = [line.strip(" |") for line in capsys.readouterr().out.splitlines()]
    assert "IQ-Learn from demonstrations in memory: 3 episodes, 30 transitions, return 10.0 +/- 0.0, 3 terminated" in "".join(
        lines
    )
    settings = dict(line.split() for line in lines if len(line.split()) == 2)
    assert settings["offline"] == "True" and settings["occupancy_term"] == settings["penalty"] == "expert"
    assert "reward_prior" not in settings  # it has no part in offline training
    table = "".join(lines[lines.index("time/") :])
    assert "gradient_steps/s" in table and "critic_loss" in table
    # neither of these is in the table, and the second is in any other log
    assert "episodes" not in table and "critic_grad_norm" not in table
    model.verbose = 2
    model.learn(1)
    assert "critic_grad_norm" in capsys.readouterr().out
    make_model("MlpPolicy", BOX, DISCRETE, verbose=1).learn(1)
    assert "reward_prior      1.0\n" in capsys.readouterr().out


def steps_logged(folder):
    rows = np.genfromtxt(folder / "progress.csv", delimiter=",", names=True)
    return rows["timetotal_timesteps"].tolist()


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("log_interval, expected", [("auto", [40, 80, 100]), (None, None), (1, list(range(10, 101, 10)))])
def test_automatic_interval(tmp_path, monkeypatch, log_interval, expected):
    """The first end of an episode after so many steps, and the end of training."""
    monkeypatch.setattr(offline_algorithm, "AUTO_LOG_STEPS", 35)
    model = make_model("MlpPolicy", BOX, DISCRETE)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(100, log_interval=log_interval)
    assert ((tmp_path / "progress.csv").read_text() == "") if expected is None else steps_logged(tmp_path) == expected


def test_automatic_interval_offline(tmp_path, monkeypatch):
    monkeypatch.setattr(offline_algorithm, "AUTO_LOG_STEPS", 35)
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(100)
    assert steps_logged(tmp_path) == [35, 70, 100]
    assert "time/gradient_steps/s" in (tmp_path / "progress.csv").read_text().splitlines()[0]
    assert "episodes" not in (tmp_path / "progress.csv").read_text()
    with pytest.raises(ValueError, match="`log_interval` is 'often': give a number, 'auto', or None"):
        model.learn(1, log_interval="often")


@pytest.mark.parametrize("offline", [True, False])
def test_an_interval_of_0_is_refused(offline):
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=offline)
    with pytest.raises(ValueError, match="`log_interval` is 0: give a positive number"):
        model.learn(20, log_interval=0)
