"""The report on a recovered reward: its statistics by hand, its files, its command; heat maps."""

import json
import sys
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3 import PPO
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import IQLearn
from sb3_iq.demonstrations import record
from sb3_iq.rewards import LearnedReward, Report, epic_distance, heatmap, report
from sb3_iq.rewards.__main__ import main
from sb3_iq.rewards.epic import pendulum
from sb3_iq.rewards.episodes import Actor, graded_actors, play, play_all
from sb3_iq.rewards.reporting import reward_for_episodes
from sb3_iq.rewards.statistics import bootstrap, partial_pearson, pearson, ranks, spearman
from tests.utils import BOX, DICT, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

pytestmark = pytest.mark.slow

SMALL = dict(seed=0, device="cpu", offline=True)


@pytest.fixture(scope="module")
def model():
    return IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", **SMALL).learn(300)


def test_correlations_by_hand():
    x, y = np.array([1.0, 2.0, 3.0, 4.0]), np.array([2.0, 4.0, 6.0, 9.0])
    assert pearson(x, y) == pytest.approx(np.corrcoef(x, y)[0, 1])
    assert pearson(x, -2 * x + 1) == pytest.approx(-1)
    assert np.isnan(pearson(x, np.full(4, 0.1)))
    assert ranks(np.array([5.0, 1.0, 5.0, 3.0])).tolist() == [2.5, 0.0, 2.5, 1.0]
    assert spearman(x, x**5) == pytest.approx(1)


def test_length_is_removed():
    rng = np.random.default_rng(0)
    length, quality = rng.uniform(1, 100, 500), rng.normal(size=500)
    true, recovered = length + quality, 3 * length + quality
    assert pearson(true, recovered) > 0.99
    assert partial_pearson(true, recovered, length) == pytest.approx(1)
    noise = rng.normal(size=500)
    assert abs(partial_pearson(true, length + noise, length)) < 0.1
    assert np.isnan(partial_pearson(length, recovered, length))
    assert partial_pearson(true, recovered, np.full(500, 7.0)) == pearson(true, recovered)


def test_bootstrap_covers_the_value():
    rng = np.random.default_rng(0)
    x = rng.normal(size=200)
    y = x + rng.normal(size=200)
    correlation = bootstrap(pearson, x, y)
    assert correlation.low < 0.707 < correlation.high and correlation.high - correlation.low < 0.25
    assert correlation == bootstrap(pearson, x, y)
    # rows of a group are drawn together: 20 copies of each tell no more
    grouped = bootstrap(pearson, np.repeat(x[:30], 20), np.repeat(y[:30], 20), groups=np.repeat(np.arange(30), 20))
    single = bootstrap(pearson, x[:30], y[:30])
    assert grouped.high - grouped.low == pytest.approx(single.high - single.low, rel=0.25)
    assert np.isnan(bootstrap(pearson, x, np.zeros(200)).low)
    assert bootstrap(pearson, x, np.zeros(200)).as_dict() == {"value": None, "low": None, "high": None}


def test_episodes_are_graded_and_repeatable(model):
    env = gym.make("CartPole-v1")
    actors = graded_actors(LearnedReward(model), [model])
    assert [actor.name for actor in actors] == [
        "imitator", "10% random", "25% random", "50% random", "random", "checkpoint 1"
    ]  # fmt: skip
    episodes = play_all(env, actors, 12, seed=3)
    assert len(episodes) == 12 and len(episodes[0]) > len(episodes[8])
    again = play(env, actors[2], seed=3 + 4)
    assert np.array_equal(again.obs, episodes[4].obs) and np.array_equal(again.actions, episodes[4].actions)
    last = play(env, Actor("random", model, 1.0), seed=0)
    assert last.terminated.tolist() == [False] * (len(last) - 1) + [True]
    assert np.array_equal(last.obs[1:], last.next_obs[:-1]) and last.rewards.sum() == len(last)


def test_epic_sees_neither_shaping_nor_scale():
    model = IQLearn("MlpPolicy", "Pendulum-v1", random_trajectories(gym.make("Pendulum-v1")), **SMALL).learn(5)
    episodes = [play(gym.make("Pendulum-v1"), Actor("random", model, 1.0), seed) for seed in range(3)]

    def shaped(obs, actions, next_obs, terminated):
        potential = lambda states: 20 * states[:, 0] + states[:, 2] ** 2  # noqa: E731
        return 3 * pendulum(obs, actions, next_obs, terminated) + 0.9 * potential(next_obs) - potential(obs)

    def opposite(*batch):
        return -pendulum(*batch)

    assert epic_distance(shaped, pendulum, episodes, gamma=0.9) < 0.12  # exact with all of (A, S') instead of a sample
    assert epic_distance(pendulum, pendulum, episodes, gamma=0.9) == pytest.approx(0, abs=1e-6)
    assert epic_distance(opposite, pendulum, episodes, gamma=0.9) == pytest.approx(1)


def test_true_reward_of_pendulum():
    episode = play(gym.make("Pendulum-v1"), Actor("random", None, 1.0), 0)
    assert pendulum(episode.obs, episode.actions, episode.next_obs, episode.terminated) == pytest.approx(
        episode.rewards, abs=1e-4
    )


def test_ends_paid_for_ever(model):
    """The rewards of single steps as an agent gets them: with what is left at the end."""
    reward, env = LearnedReward(model, form="bounded"), gym.make("CartPole-v1")
    episodes = [play(env, Actor("random", reward, 1.0), seed) for seed in range(3)]
    episodes = [replace(episode, rewards=np.arange(len(episode)) ** 2.0) for episode in episodes]
    paid = []
    for episode in episodes:
        rewards, absorbing = reward.with_tail(episode.obs, episode.actions, episode.next_obs, episode.terminated)
        paid += [*rewards[:-1], rewards[-1] + 99 * absorbing[-1]]
    expected = np.corrcoef(paid, np.concatenate([episode.rewards for episode in episodes]))[0, 1]
    result = Report.of("CartPole-v1", episodes, reward)
    assert result.per_step["pearson, ends paid for ever"].value == pytest.approx(expected, abs=1e-4)
    assert result.per_step["pearson of ends alone, paid for ever"].as_dict()["value"] is None  # which pay nothing here
    inner = [values[:-1] for values in result.recovered]
    expected = np.corrcoef(np.concatenate(inner), np.concatenate([episode.rewards[:-1] for episode in episodes]))[0, 1]
    assert result.per_step["pearson, last steps left out"].value == pytest.approx(expected, abs=1e-4)


def test_report(model, tmp_path):
    result = report(model, "CartPole-v1", n_episodes=10)
    assert result.per_episode["pearson of length alone"].value == pytest.approx(1)  # a reward of 1 a step is length
    assert result.per_episode["pearson, length removed"].as_dict()["value"] is None
    assert result.epic is None
    first = result.episodes[0]
    reward = LearnedReward(model, form="bounded")(first.obs, first.actions, first.next_obs, first.terminated)
    assert np.array_equal(result.recovered[0], reward)
    result.save(tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "report.json").read_text())
    assert saved["n_episodes"] == 10 and saved["per_episode"]["pearson"]["low"] <= saved["per_episode"]["pearson"]["value"]
    assert sum(row["episodes"] for row in saved["actors"]) == 10
    page = (tmp_path / "out" / "report.html").read_text()
    assert "data:image/png;base64" in page and "length removed" in page and "imitator" in page
    assert (tmp_path / "out" / "report.png").stat().st_size > 20_000


def test_form_of_a_report(tmp_path, monkeypatch, capsys):
    """With continuous actions Q hardly tells good episodes from bad ones; where the expert spends its time does."""
    env = gym.make("Pendulum-v1")
    trajectories = record(lambda obs: -2 * obs[1:2], env, n_episodes=2, seed=0)
    model = IQLearn("MlpPolicy", env, trajectories, **SMALL).learn(5)
    assert reward_for_episodes(model).form == "occupancy"
    result = report(model, "Pendulum-v1", n_episodes=10)
    assert result.as_dict()["form"] == "occupancy"
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model", device="cpu")  # of arrays that have no name to read them again by
    with pytest.warns(UserWarning, match="demonstrations of this reward are not known"):
        assert reward_for_episodes(loaded).form == "bounded"
    LearnedReward(model, form="occupancy").save(tmp_path / "reward")
    words = ["--env", "Pendulum-v1", "--out", str(tmp_path / "out"), "--n-episodes", "10"]
    for given, form in ((), "occupancy"), (("--form", "advantage"), "advantage"):
        monkeypatch.setattr(sys, "argv", ["rewards", *words, "--model", str(tmp_path / "reward.zip"), *given])
        assert main() == 0
        assert f"in the form {form}:" in capsys.readouterr().out
        assert f"has the form {form}." in (tmp_path / "out" / "report.html").read_text()
    for space, action_space in ((spaces.Discrete(3), WIDE_BOX), (BOX, DISCRETE)):
        env = RandomEnv(space, action_space)
        assert reward_for_episodes(IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL).learn(5)).form == "bounded"


def test_command(model, tmp_path, monkeypatch, capsys):
    model.save(tmp_path / "model.zip")
    LearnedReward(model).save(tmp_path / "reward.zip")
    words = ["--model", str(tmp_path / "reward.zip"), "--env", "CartPole-v1", "--out", str(tmp_path / "out")]
    words += ["--n-episodes", "12", "--checkpoints", str(tmp_path / "model.zip")]
    monkeypatch.setattr(sys, "argv", ["rewards", *words])
    assert main() == 0
    assert "pearson, length removed" in capsys.readouterr().out
    assert json.loads((tmp_path / "out" / "report.json").read_text())["actors"][-1]["actor"] == "checkpoint 1"
    monkeypatch.setattr(sys, "argv", ["rewards", *words, "--env", "Pendulum-v1"])
    assert main() == 1
    assert "`env` has the action space Box" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["rewards", *words, "--model", str(tmp_path / "model.zip"), "--demos", "bundled:Nothing"])
    assert main() == 1
    assert "Nothing" in capsys.readouterr().err


def test_command_with_an_environment_of_ones_own(model, tmp_path, monkeypatch, capsys):
    model.save(tmp_path / "model.zip")
    (tmp_path / "my_package.py").write_text(
        "import gymnasium as gym\n"
        "gym.register('Slow-v0', 'gymnasium.envs.classic_control.cartpole:CartPoleEnv', max_episode_steps=20)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    words = ["--model", str(tmp_path / "model.zip"), "--env", "Slow-v0", "--n-episodes", "10", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", ["rewards", *words])
    assert main() == 1
    assert "--env Slow-v0: this environment can't be made" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["rewards", *words, "--gym-packages", "my_package", "--env-kwargs", "gravity"])
    assert main() == 1
    assert "--env-kwargs gravity: expected KEY:VALUE" in capsys.readouterr().err
    words += ["--gym-packages", "my_package", "--env-kwargs", "render_mode:None"]
    monkeypatch.setattr(sys, "argv", ["rewards", *words])
    assert main() == 0
    lengths = [row["length"] for row in json.loads((tmp_path / "out" / "report.json").read_text())["actors"]]
    assert max(lengths) <= 20


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--model", "nothing.zip"], 2, "--model 'nothing.zip': no such file"),
        (["--model", "."], 2, "--model '.': no such file"),
        (["--model", "agent.zip"], 1, "--model 'agent.zip': cannot be loaded as a model of IQLearn or a LearnedReward"),
        (["--checkpoints", "a_file"], 1, "--checkpoints 'a_file': cannot be loaded as a model of IQLearn"),
        (["--out", "a_file"], 2, "--out 'a_file': 'a_file' is not a folder that can be written to"),
        (["--seed", "-1"], 2, "--seed -1: expected 0 or more"),
        (["--n-episodes", "-3"], 2, "'-3' is not a positive integer"),
        (["--vecnormalize", "nothing.pkl"], 2, "--vecnormalize 'nothing.pkl': no such file"),
        (["--vecnormalize", "a_file"], 1, "'a_file': the statistics of VecNormalize cannot be loaded for CartPole-v1"),
    ],
)
def test_mistakes_at_the_command(model, tmp_path, monkeypatch, capsys, words, status, message):
    monkeypatch.chdir(tmp_path)
    model.save("model.zip")
    PPO("MlpPolicy", "CartPole-v1", n_steps=8, batch_size=8, device="cpu").save("agent")
    (tmp_path / "a_file").touch()
    monkeypatch.setattr(sys, "argv", ["rewards", "--model", "model.zip", "--env", "CartPole-v1", "--out", "out", *words])
    try:
        found = main()
    except SystemExit as stop:
        found = stop.code
    error = capsys.readouterr().err
    assert found == status and message in error and "Traceback" not in error and not (tmp_path / "out").exists()


def test_command_for_a_model_in_vec_normalize(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    env = VecNormalize(DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    IQLearn("MlpPolicy", env, "bundled:CartPole-v1", seed=0, device="cpu", learning_starts=10).learn(2).save("model")
    env.save("statistics.pkl")
    words = ["--model", "model", "--env", "CartPole-v1", "--n-episodes", "10", "--out", "out"]
    monkeypatch.setattr(sys, "argv", ["rewards", *words])
    assert main() == 1
    assert "give what VecNormalize.save wrote by --vecnormalize" in capsys.readouterr().err
    monkeypatch.setattr(sys, "argv", ["rewards", *words, "--vecnormalize", "statistics.pkl"])
    assert main() == 0
    assert "pearson, length removed" in capsys.readouterr().out


class OneArrayEnv(RandomEnv):
    """Returns the same array at each step, with other numbers in it."""

    def reset(self, **kwargs):
        self.state, info = super().reset(**kwargs)
        return self.state, info

    def step(self, action):
        obs, *others = super().step(action)
        self.state[:] = obs
        return self.state, *others


def test_environments_that_return_the_same_array():
    space = spaces.Box(-1.0, 1.0, (3,), np.float32)
    of_one, usual = (
        play(env, Actor("random", None, 1.0), seed=0) for env in (OneArrayEnv(space, DISCRETE), RandomEnv(space, DISCRETE))
    )
    assert np.array_equal(of_one.obs, usual.obs) and np.array_equal(of_one.next_obs, usual.next_obs)


def test_bad_arguments(model):
    with pytest.raises(ValueError, match="`n_episodes` is 3: a correlation needs at least 10"):
        report(model, "CartPole-v1", n_episodes=3)
    with pytest.raises(TypeError, match="`env` is a DummyVecEnv: give a single environment of Gymnasium"):
        report(model, DummyVecEnv([lambda: gym.make("CartPole-v1")]), n_episodes=10)
    with pytest.raises(ValueError, match="`observation` has shape"):
        report(model, RandomEnv(spaces.Box(-1, 1, (3,)), spaces.Discrete(2)), n_episodes=10)


def test_heatmap(model, tmp_path):
    figure = heatmap(model, (0, 2), ((-1.0, 1.0), (-0.2, 0.2)), resolution=5, out=tmp_path / "maps" / "cartpole.png")
    assert (tmp_path / "maps" / "cartpole.png").exists()
    reward = LearnedReward(model)
    obs = np.zeros((1, 4), np.float32)
    obs[0, [0, 2]] = -1.0, -0.2
    value = reward.predict_value(obs)
    advantages = [reward.predict_q(obs, np.array([action])) - value for action in (0, 1)]
    shown = [axes.collections[0].get_array().ravel()[0] for axes in figure.axes[:2]]
    assert shown == pytest.approx([np.mean(advantages), value[0]], abs=1e-5)
    moved = heatmap(model, (0, 2), ((-1.0, 1.0), (-0.2, 0.2)), resolution=5, dynamics=lambda obs, actions: obs + 0.01)
    expected = reward(obs, reward.predict(obs, deterministic=True)[0], obs + 0.01, np.array([False]))
    assert moved.axes[0].collections[0].get_array().ravel()[0] == pytest.approx(expected[0], abs=1e-5)


def test_heatmap_of_continuous_actions_and_own_coordinates():
    model = IQLearn("MlpPolicy", "Pendulum-v1", random_trajectories(gym.make("Pendulum-v1")), **SMALL).learn(5)

    def to_obs(points):
        return np.stack([np.cos(points[:, 0]), np.sin(points[:, 0]), points[:, 1]], axis=1)

    figure = heatmap(model, bounds=((-3.1, 3.1), (-8, 8)), labels=("angle", "speed"), resolution=4, to_obs=to_obs)
    assert figure.axes[0].get_xlabel() == "angle"
    with pytest.raises(ValueError, match="`bounds` is None, but `to_obs`"):
        heatmap(model, to_obs=to_obs)


def test_bad_heatmaps(model):
    with pytest.raises(ValueError, match="unbounded: give the range"):
        heatmap(model, (0, 1))
    with pytest.raises(ValueError, match=r"`axes` is \(0, 4\): give two of the 4"):
        heatmap(model, (0, 4))
    with pytest.raises(ValueError, match=r"`base` has shape \(3,\)"):
        heatmap(model, (0, 2), ((-1, 1), (-1, 1)), base=np.zeros(3))
    env = RandomEnv(DICT, DISCRETE)
    images = IQLearn("MultiInputPolicy", env, random_trajectories(env), policy_kwargs=dict(net_arch=[8]), **SMALL).learn(1)
    with pytest.raises(ValueError, match="no vector: give `to_obs`"):
        heatmap(images)
