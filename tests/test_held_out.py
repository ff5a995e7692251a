"""Training without a reward, measured by demonstrations that are held out."""

import argparse

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import SAC
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import HeldOutCallback, IQLearn, load_demonstrations
from sb3_iq.callbacks.held_out import MEASURES
from sb3_iq.demonstrations import Trajectory
from sb3_iq.iq_learn import offline_algorithm
from sb3_iq.occupancy import distance
from tests.utils import (
    BOX,
    COMBINATIONS,
    DICT,
    DISCRETE,
    SMALL,
    WIDE_BOX,
    RandomEnv,
    make_model,
    parameters,
    random_trajectories,
)

FIT = ["action_error", "log_likelihood", "advantage", "reward"]
ROLLED_OUT = [*FIT, "policy_reward", "reward_gap", "occupancy_distance"]


def random_held_out(observation_space, action_space):
    return random_trajectories(RandomEnv(observation_space, action_space), seed=1)


class Blind(RandomEnv):
    """Its reward must not matter: it is not a number."""

    def step(self, action):
        obs, _, terminated, truncated, info = super().step(action)
        return obs, float("nan"), terminated, truncated, info


@pytest.mark.parametrize(("policy", "observation_space", "action_space"), [COMBINATIONS[i] for i in (0, 1, 2, 6, 9)])
def test_spaces(policy, observation_space, action_space):
    """Rewards are never read, and images have no distance."""
    held_out = random_held_out(observation_space, action_space)
    env = Blind(observation_space, action_space)
    callback = HeldOutCallback(held_out, env, 10, n_eval_episodes=2, best_by="action_error", verbose=0)
    make_model(policy, observation_space, action_space).learn(20, callback)
    assert [evaluation["timesteps"] for evaluation in callback.evaluations] == [10, 20]
    names = [*ROLLED_OUT] if policy == "MlpPolicy" else ROLLED_OUT[:-1]
    for evaluation in callback.evaluations:
        assert [name for name in evaluation if name in ROLLED_OUT] == names
        assert all(np.isfinite(value) for value in evaluation.values())


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_the_measures_are_those_of_the_model(action_space):
    held_out = random_held_out(BOX, action_space)
    model = make_model("MlpPolicy", BOX, action_space, offline=True)
    callback = HeldOutCallback(held_out, eval_freq=30, verbose=0)
    model.learn(30, callback)
    (measures,) = callback.evaluations
    obs, next_obs = (np.concatenate([t.obs[i : len(t) + i] for t in held_out]) for i in (0, 1))
    acts = np.concatenate([t.acts for t in held_out])
    ends = np.concatenate([np.arange(len(t)) == len(t) - 1 for t in held_out])
    rewards = model.predict_reward(obs, acts, next_obs, ends)
    predicted = model.predict(obs, deterministic=True)[0]
    if isinstance(action_space, spaces.Box):
        error = np.abs(model.policy.scale_action(predicted) - model.policy.scale_action(acts)).mean()
    else:
        error = (predicted != acts).mean()
    assert measures["reward"] == pytest.approx(rewards.mean(), rel=1e-4)
    assert measures["action_error"] == pytest.approx(error, rel=1e-4)
    with th.no_grad():
        log_likelihood = model.policy.log_likelihood(th.as_tensor(obs), model.policy.network_actions(acts)).mean().item()
    assert measures["log_likelihood"] == pytest.approx(log_likelihood, rel=1e-3)
    assert "policy_reward" not in measures and "occupancy_distance" not in measures


@pytest.mark.slow
def test_knows_a_good_policy_from_a_bad_one():
    """On CartPole-v1 each measure finds the trained policy better than the untrained one."""
    demonstrations, held_out = load_demonstrations("bundled:CartPole-v1").split(0.2, seed=0)
    callback = HeldOutCallback(held_out, "CartPole-v1", 300, n_eval_episodes=2, verbose=0)
    IQLearn("MlpPolicy", "CartPole-v1", demonstrations, offline=True, seed=0, device="cpu").learn(300, callback)
    early = HeldOutCallback(held_out, "CartPole-v1", 1, n_eval_episodes=2, verbose=0)
    IQLearn("MlpPolicy", "CartPole-v1", demonstrations, offline=True, seed=0, device="cpu").learn(1, early)
    for name in ("action_error", "log_likelihood", "occupancy_distance"):
        sign = MEASURES[name].sign
        assert sign * callback.evaluations[-1][name] > sign * early.evaluations[0][name], name


@pytest.mark.slow
def test_an_evaluation_changes_nothing():
    env = RandomEnv(BOX, WIDE_BOX)

    def train(callback):
        return parameters(make_model("MlpPolicy", BOX, WIDE_BOX, ent_coef="auto").learn(60, callback))

    callback = HeldOutCallback(random_held_out(BOX, WIDE_BOX), env, 7, n_eval_episodes=2, verbose=0)
    assert th.equal(train(callback), train(None))
    assert len(callback.evaluations) == 8


def test_saves_the_best_and_logs_all(tmp_path):
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True)
    model.set_logger(configure(str(tmp_path / "log"), ["csv"]))
    callback = HeldOutCallback(
        random_held_out(BOX, DISCRETE),
        eval_freq=10,
        best_by="log_likelihood",
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path),
        verbose=0,
    )
    model.learn(50, callback)
    written = np.load(tmp_path / "held_out.npz")
    assert written["timesteps"].tolist() == [10, 20, 30, 40, 50]
    best = int(np.argmax(written["log_likelihood"]))
    assert callback.best["timesteps"] == written["timesteps"][best]
    # Random actions can't be learned: what fits held-out ones best is not the last model
    assert IQLearn.load(tmp_path / "best" / "best_model").num_timesteps == written["timesteps"][best]
    rows = np.genfromtxt(tmp_path / "log" / "progress.csv", delimiter=",", names=True)
    np.testing.assert_allclose(rows["held_outlog_likelihood"], written["log_likelihood"], rtol=1e-4)


@pytest.mark.parametrize("offline", [True, False])
def test_the_log_of_an_evaluation_is_not_written_again(tmp_path, offline, monkeypatch):
    """Neither by the schedule at the same step, offline, nor at the end: nothing but times would be left for it."""
    monkeypatch.setattr(offline_algorithm, "AUTO_LOG_STEPS", 15)
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=offline)
    model.set_logger(configure(str(tmp_path), ["csv"]))
    model.learn(35, HeldOutCallback(random_held_out(BOX, DISCRETE), eval_freq=5, verbose=0))
    rows = np.genfromtxt(tmp_path / "progress.csv", delimiter=",", names=True)
    # Online, at the first ends of episodes after 15 steps each, with what is known of these
    assert rows["timetotal_timesteps"].tolist() == [5, 10, 15, 20, *([] if offline else [20]), 25, 30, 35]
    assert ("rolloutep_rew_mean" in rows.dtype.names) is not offline
    logged = rows["timegradient_stepss" if offline else "held_outadvantage"]
    assert np.isfinite(logged).sum() == 7


def test_what_the_best_is_chosen_by(tmp_path):
    """By default by rollouts online, else by actions; a measure that was not there has no number in the file."""
    model = make_model("MlpPolicy", BOX, DISCRETE)
    alone = HeldOutCallback(random_held_out(BOX, DISCRETE), eval_freq=10, log_path=str(tmp_path), verbose=0)
    rolled_out = HeldOutCallback(random_held_out(BOX, DISCRETE), RandomEnv(BOX, DISCRETE), 10, 1, verbose=0)
    model.learn(20, [alone, rolled_out])
    assert (alone.best_by, rolled_out.best_by) == ("action_error", "occupancy_distance")
    model.learn(10, [alone, rolled_out], offline=True)
    assert (alone.best_by, rolled_out.best_by) == ("action_error", "action_error")
    written = np.load(tmp_path / "held_out.npz")
    assert np.isnan(written["policy_reward"]).tolist() == [False, False, True]
    assert np.isfinite(written["action_error"]).all()


def test_stops_early(capsys):
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True, learning_rate=0.0)
    callback = HeldOutCallback(random_held_out(BOX, DISCRETE), eval_freq=5, patience=3)
    model.learn(100, callback)
    # the first is the best, as nothing is learned, and three that are no better follow
    assert model.num_timesteps == 20 and callback.best["timesteps"] == 5
    out = capsys.readouterr().out
    assert "Held out, at 5: action_error" in out and "The best action_error so far" in out
    assert "Stopping training: no better action_error in 3 evaluations" in out


def test_vec_normalize():
    """Held-out observations are normalised as those of training are, and rollouts by the same statistics."""
    held_out = random_held_out(BOX, DISCRETE)

    def make(normalized):
        env = DummyVecEnv([lambda: Monitor(RandomEnv(BOX, DISCRETE))])
        return VecNormalize(env) if normalized else env

    measured = []
    for eval_env in (make(True), make(False)):
        model = IQLearn("MlpPolicy", make(True), random_trajectories(RandomEnv(BOX, DISCRETE)), **SMALL)
        callback = HeldOutCallback(held_out, eval_env, 40, n_eval_episodes=2, verbose=0)
        model.learn(40, callback)
        measured.append(callback.evaluations)
    assert measured[0] == measured[1]


def test_state_only():
    states = [Trajectory(t.obs, None, None, t.terminated, t.truncated) for t in random_held_out(BOX, DISCRETE)]
    callback = HeldOutCallback(states, RandomEnv(BOX, DISCRETE), 10, n_eval_episodes=2, verbose=0)
    make_model("MlpPolicy", BOX, DISCRETE, offline=True).learn(10, callback)
    assert set(callback.evaluations[0]) == {"timesteps", "occupancy_distance"}


def test_distance():
    rng = np.random.default_rng(0)
    points = rng.normal(size=(500, 3)) * [1, 100, 0]
    assert distance(points, points) == 0
    near, far = points + np.array([0.1, 0, 0]), points + np.array([0, 200, 0])
    assert 0 < distance(points, near) < distance(points, far)
    # In standard deviations: the unit of a coordinate does not matter
    scaled = np.array([1, 0.01, 1])
    assert distance(points * scaled, far * scaled) == pytest.approx(distance(points, far))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(best_by="loss"), "best_by='loss': expected one of action_error, log_likelihood"),
        (dict(eval_freq=0), "eval_freq=0: expected an integer at least 1"),
        (dict(patience=0), "patience=0: .* Use None to never stop"),
        (dict(best_by="occupancy_distance"), "best_by='occupancy_distance': there are no rollouts. Give eval_env"),
        (dict(best_by="reward_gap"), "best_by='reward_gap': there are no transitions of the policy offline"),
    ],
)
def test_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        model = make_model("MlpPolicy", BOX, DISCRETE, offline=True)
        model.learn(1, HeldOutCallback(random_held_out(BOX, DISCRETE), **arguments))


def test_refused_models_and_data():
    with pytest.raises(TypeError, match="HeldOutCallback measures IQLearn models, not SAC"):
        SAC("MlpPolicy", "Pendulum-v1").learn(1, HeldOutCallback("bundled:CartPole-v1"))
    states = [Trajectory(t.obs, None, None, t.terminated, t.truncated) for t in random_held_out(BOX, DISCRETE)]
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True)
    with pytest.raises(ValueError, match="best_by='action_error': the held-out demonstrations have no actions"):
        model.learn(1, HeldOutCallback(states, best_by="action_error"))
    with pytest.warns(UserWarning, match="100 % of the held-out transitions are among the demonstrations"):
        model.learn(1, HeldOutCallback(random_trajectories(RandomEnv(BOX, DISCRETE))))
    for other, message in ((RandomEnv(DICT, DISCRETE), "observation space Dict"), (RandomEnv(BOX, BOX), "action space Box")):
        with pytest.raises(ValueError, match=f"eval_env has the {message}.* with the same wrappers"):
            model.learn(1, HeldOutCallback(random_held_out(BOX, DISCRETE), other))
    inside = DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"))])
    assert HeldOutCallback("bundled:CartPole-v1", VecNormalize(inside)).eval_env is inside


@pytest.mark.slow
@pytest.mark.both_stacks
def test_in_the_zoo(tmp_path, monkeypatch):
    """By ``callback:`` in the yml, with the demonstrations by name."""
    yaml = pytest.importorskip("yaml")
    pytest.importorskip("rl_zoo3.cli", reason="RL Zoo is not installed", exc_type=ImportError)
    from rl_zoo3.exp_manager import ExperimentManager

    import sb3_iq.zoo

    sb3_iq.zoo.register()
    monkeypatch.chdir(tmp_path)
    training, held_out = load_demonstrations("bundled:CartPole-v1").split(0.2)
    training.save("mine-train")
    held_out.save("mine-held-out")
    options = {"held_out": "mine-held-out", "eval_env": "CartPole-v1", "eval_freq": 50, "n_eval_episodes": 1}
    options |= {"best_model_save_path": "best", "log_path": "best", "verbose": 0}
    hyperparams = {"policy": "MlpPolicy", "n_timesteps": 100, "expert_data": "mine-train", "offline": True}
    hyperparams["callback"] = [{"sb3_iq.HeldOutCallback": options}]
    (tmp_path / "my.yml").write_text(yaml.dump({"CartPole-v1": hyperparams}))
    manager = ExperimentManager(
        argparse.Namespace(),
        "iq",
        "CartPole-v1",
        "logs",
        eval_freq=-1,
        log_interval=-1,
        config="my.yml",
        device="cpu",
        verbose=0,
    )
    manager.learn(manager.setup_experiment()[0])
    assert np.load("best/held_out.npz")["timesteps"].tolist() == [50, 100]
    IQLearn.load("best/best_model.zip").predict(np.zeros(4, dtype=np.float32))
