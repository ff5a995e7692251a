"""What is logged, and when."""

import numpy as np
import pytest
from stable_baselines3.common.logger import configure

from sb3_iq import IQLearn
from tests.utils import BOX, DISCRETE, SMALL, make_model


def test_logs(tmp_path):
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(250, log_interval=1)
    rows = np.genfromtxt(tmp_path / "progress.csv", delimiter=",", names=True)
    assert rows["timetotal_timesteps"].tolist() == [100, 200, 250]
    for name in ("critic_loss", "expert_reward", "ent_coef", "learning_rate"):
        assert np.isfinite(rows[f"train{name}"]).all()


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


def test_prints_the_settings_in_force(capsys):
    make_model("MlpPolicy", BOX, DISCRETE, offline=True, verbose=1).learn(1)
    assert "occupancy_term=expert, penalty=expert" in capsys.readouterr().out
