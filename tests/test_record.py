"""``python -m sb3_iq.record``: what is written is what the environment gave, whoever the agent is."""

import json
import sys

import datasets
import gymnasium as gym
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
from gymnasium import spaces
from sb3_contrib.common.wrappers import TimeFeatureWrapper
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecFrameStack, VecNormalize

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.demonstrations.recorder import play
from sb3_iq.record import main
from tests.utils import DICT, DISCRETE, IMAGE, RandomEnv

CART, PENDULUM = "CartPole-v1", "Pendulum-v1"


class ImageEnv(RandomEnv):
    def __init__(self) -> None:
        super().__init__(IMAGE, DISCRETE, length=5)


class DictEnv(RandomEnv):
    def __init__(self) -> None:
        super().__init__(DICT, DISCRETE)


class TupleEnv(RandomEnv):
    def __init__(self) -> None:
        super().__init__(gym.spaces.Tuple([IMAGE]), DISCRETE)


class MaskedEnv(RandomEnv):
    """Allows one action of three, another one in each step."""

    def __init__(self) -> None:
        super().__init__(spaces.Box(-1, 1, (2,)), DISCRETE, length=7, truncates=True)

    def action_masks(self) -> np.ndarray:
        return np.arange(3) == self.step_count % 3

    def step(self, action):
        assert self.action_masks()[action]
        return super().step(action)


gym.register("RecordImageEnv-v0", entry_point=lambda **_: ImageEnv())
gym.register("RecordDictEnv-v0", entry_point=lambda **_: DictEnv())
gym.register("RecordTupleEnv-v0", entry_point=lambda **_: TupleEnv())
gym.register("RecordDiscreteEnv-v0", entry_point=lambda **_: RandomEnv(spaces.Discrete(5), DISCRETE))
gym.register("RecordMaskedEnv-v0", entry_point=lambda **_: MaskedEnv())


def record(out, *arguments: object) -> int:
    return main([*map(str, arguments), "--out", str(out)])


def card(out) -> dict:
    return json.loads((out / "card.json").read_text())


def assert_replays(out, make=None) -> None:
    """Every number and flag is what a fresh environment gives for the recorded actions."""
    demos, written = load_demonstrations(out), card(out)
    env = make() if make else gym.make(written["env_id"])
    assert len(demos.trajectories) == len(written["seeds"]) == written["n_episodes"]
    for seed, episode in zip(written["seeds"], demos.trajectories, strict=True):
        obs, _ = env.reset(seed=seed)
        assert isinstance(episode.obs, np.ndarray) and episode.rews is not None and episode.acts is not None
        for t, action in enumerate(episode.acts):
            np.testing.assert_array_equal(episode.obs[t], obs)
            assert not env.action_space.shape or env.action_space.contains(action)
            obs, reward, terminated, truncated, _ = env.step(action)
            assert episode.rews[t] == reward and (terminated or truncated) == (t == len(episode) - 1)
        np.testing.assert_array_equal(episode.obs[-1], obs)
        assert (episode.terminated, episode.truncated, episode.ending) == (terminated, not terminated, "info")


def acts_of_sb3(model, env, seed: int = 0) -> np.ndarray:
    """The actions of the first episode of SB3's own loop, as in ``rl_zoo3 enjoy``."""
    env.seed(seed)
    obs, state, starts = env.reset(), None, np.ones(1, dtype=bool)
    acts: list[np.ndarray] = []
    while not acts or not starts[0]:
        action, state = model.predict(obs, state=state, episode_start=starts, deterministic=True)
        obs, _, starts, _ = env.step(action)
        acts.append(action[0])
    return np.stack(acts)


AGENTS = [
    ("a2c", CART, {}),
    ("ppo", CART, {"n_steps": 64}),
    ("dqn", CART, {}),
    ("sac", PENDULUM, {}),
    ("td3", PENDULUM, {}),
    ("ddpg", PENDULUM, {}),
    ("qrdqn", CART, {}),
    ("tqc", PENDULUM, {}),
    ("trpo", PENDULUM, {"n_steps": 64, "batch_size": 64}),
    ("ars", PENDULUM, {}),
    ("crossq", PENDULUM, {}),
    ("recurrentppo", CART, {"n_steps": 64}),
]


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize(("algo", "env_id", "settings"), AGENTS, ids=[agent[0] for agent in AGENTS])
def test_agents_of_both_libraries(tmp_path, algo, env_id, settings):
    classes = {name.lower(): getattr(module, name) for module in (stable_baselines3, sb3_contrib) for name in module.__all__}
    if algo not in classes:
        pytest.skip("this sb3-contrib has no such algorithm")
    policy = "MlpLstmPolicy" if algo == "recurrentppo" else "MlpPolicy"
    model = classes[algo](policy, env_id, seed=3, device="cpu", **settings)
    model.save(tmp_path / "agent.zip")
    name = "ppo_lstm" if algo == "recurrentppo" else algo
    assert record(tmp_path / "set", "--algo", name, "--model", tmp_path / "agent.zip", "--env", env_id, "--n-episodes", 2) == 0
    assert_replays(tmp_path / "set")
    episodes = load_demonstrations(tmp_path / "set").trajectories
    np.testing.assert_array_equal(episodes[0].acts, acts_of_sb3(model, make_vec_env(env_id)))
    assert {e.truncated for e in episodes} == {env_id == PENDULUM}
    assert card(tmp_path / "set")["agent"] == {
        "algorithm": classes[algo].__name__,
        "file": "agent.zip",
        "timesteps": 0,
        "normalised_observations": False,
        "deterministic": True,
    }


def test_normalisation_is_undone(tmp_path):
    env = VecNormalize(make_vec_env(PENDULUM, 2, seed=0), clip_obs=0.5)  # clips: it can't be undone after the fact
    model = stable_baselines3.PPO("MlpPolicy", env, n_steps=64, seed=0).learn(128)
    model.save(tmp_path / "agent")
    env.save(str(tmp_path / "stats.pkl"))
    arguments = ["--algo", "PPO", "--model", tmp_path / "agent.zip", "--vecnormalize", tmp_path / "stats.pkl"]
    assert record(tmp_path / "set", *arguments, "--env", PENDULUM, "--n-episodes", 2, "--seed", 7) == 0
    assert_replays(tmp_path / "set")
    demos = load_demonstrations(tmp_path / "set")
    test_env = VecNormalize.load(str(tmp_path / "stats.pkl"), make_vec_env(PENDULUM))
    test_env.training = False
    np.testing.assert_array_equal(demos.trajectories[0].acts, acts_of_sb3(model, test_env, seed=7))
    assert np.abs(demos.trajectories[0].obs).max() > 1
    assert card(tmp_path / "set")["agent"]["normalised_observations"]


@pytest.mark.parametrize("n_stack", [1, 3])
def test_images_stay_as_the_environment_gives_them(tmp_path, capsys, n_stack):
    env = make_vec_env("RecordImageEnv-v0", seed=0)
    env = env if n_stack == 1 else VecFrameStack(env, n_stack)
    model = stable_baselines3.PPO("CnnPolicy", env, n_steps=8, seed=0)  # wraps it in VecTransposeImage
    model.save(tmp_path / "agent")
    stack = [] if n_stack == 1 else ["--frame-stack", n_stack]
    arguments = ["--algo", "ppo", "--model", tmp_path / "agent.zip", "--env", "RecordImageEnv-v0", *stack]
    assert record(tmp_path / "set", *arguments, "--n-episodes", 2) == 0
    assert '''"policy:'CnnPolicy'"''' in capsys.readouterr().out
    episode = load_demonstrations(tmp_path / "set").trajectories[0]
    assert episode.obs.shape == (6, 36, 36, 3 * n_stack) and episode.obs.dtype == np.uint8
    env.seed(0)
    np.testing.assert_array_equal(episode.obs[0], env.reset()[0])
    for t, action in enumerate(episode.acts):
        obs, _, _, infos = env.step(np.array([action]))
        np.testing.assert_array_equal(episode.obs[t + 1], infos[0].get("terminal_observation", obs[0]))
    np.testing.assert_array_equal(episode.acts, acts_of_sb3(model, env))
    learner = IQLearn("CnnPolicy", env, str(tmp_path / "set"), buffer_size=100)
    assert learner.expert_buffer.size() == 10


@pytest.mark.parametrize("n_stack", [1, 3])
def test_dictionaries_have_a_column_for_each_key(tmp_path, capsys, n_stack):
    raw = make_vec_env("RecordDictEnv-v0")
    normalised = VecNormalize(make_vec_env("RecordDictEnv-v0"), norm_obs_keys=["vector"], norm_reward=False, training=False)
    normalised.obs_rms["vector"].mean += 0.5
    normalised.save(str(tmp_path / "statistics.pkl"))
    if n_stack > 1:
        raw, env = VecFrameStack(raw, n_stack), VecFrameStack(normalised, n_stack)
    else:
        env = normalised
    model = stable_baselines3.PPO("MultiInputPolicy", env, n_steps=8, seed=0)
    model.save(tmp_path / "agent")
    arguments = ["--algo", "ppo", "--model", tmp_path / "agent.zip", "--env", "RecordDictEnv-v0", "--n-episodes", 2]
    arguments += ["--vecnormalize", tmp_path / "statistics.pkl", *([] if n_stack == 1 else ["--frame-stack", n_stack])]
    assert record(tmp_path / "set", *arguments) == 0
    assert '''"policy:'MultiInputPolicy'"''' in capsys.readouterr().out  # the zoo's default is MlpPolicy
    first = load_demonstrations(tmp_path / "set")[0]
    assert first.obs["image"].shape == (11, 36, 36, 3 * n_stack) and first.obs["image"].dtype == np.uint8
    assert first.obs["vector"].shape == (11, 4 * n_stack)
    np.testing.assert_array_equal(first.acts, acts_of_sb3(model, env))
    raw.seed(0)
    obs = raw.reset()
    for t, action in enumerate(first.acts):
        for key, values in obs.items():
            np.testing.assert_array_equal(first.obs[key][t], values[0])
        obs = raw.step(np.array([action]))[0]
    learner = IQLearn("MultiInputPolicy", raw, str(tmp_path / "set"), buffer_size=100)
    assert learner.expert_buffer.size() == 20


def test_action_masks(tmp_path):
    model = sb3_contrib.MaskablePPO("MlpPolicy", "RecordMaskedEnv-v0", n_steps=8)
    model.save(tmp_path / "agent")
    arguments = ["--algo", "maskableppo", "--model", tmp_path / "agent.zip", "--env", "RecordMaskedEnv-v0"]
    assert record(tmp_path / "set", *arguments, "--n-episodes", 1) == 0
    assert load_demonstrations(tmp_path / "set").trajectories[0].acts.tolist() == [0, 1, 2, 0, 1, 2, 0]


@pytest.fixture(scope="module")
def agent(tmp_path_factory):
    """An untrained agent of CartPole-v1, as arguments: its first episodes have 8, 10, 10, 9, 10 and 9 steps."""
    path = tmp_path_factory.mktemp("agent") / "a2c.zip"
    stable_baselines3.A2C("MlpPolicy", CART, seed=1).save(path)
    return ["--algo", "a2c", "--model", path, "--env", CART]


def test_iq_learn_agent(tmp_path):
    IQLearn("MlpPolicy", CART, "bundled:CartPole-v1", seed=0).save(tmp_path / "agent")
    assert record(tmp_path / "set", "--algo", "iq", "--model", tmp_path / "agent.zip", "--env", CART, "--n-episodes", 1) == 0
    assert_replays(tmp_path / "set")


def test_statistics_that_are_missing(tmp_path, capsys):
    """A model of another library tells nothing of VecNormalize, but IQLearn's does."""
    env = VecNormalize(make_vec_env(CART))
    model = IQLearn("MlpPolicy", env, "bundled:CartPole-v1", seed=0, learning_starts=10).learn(2)
    model.save(tmp_path / "agent")
    env.save(str(tmp_path / "statistics.pkl"))
    arguments = ["--algo", "iq", "--model", tmp_path / "agent.zip", "--env", CART, "--n-episodes", 1]
    assert record(tmp_path / "set", *arguments) == 1
    error = capsys.readouterr().err
    assert "give what VecNormalize.save wrote by --vecnormalize" in error and not (tmp_path / "set").exists()
    assert record(tmp_path / "set", *arguments, "--vecnormalize", tmp_path / "statistics.pkl") == 0


def test_min_return(tmp_path, agent, capsys):
    assert record(tmp_path / "all", *agent, "--n-episodes", 20) == 0
    returns = card(tmp_path / "all")["returns"]
    limit = sorted(returns)[-8]  # at least 8 of the 20 reach it
    assert record(tmp_path / "best", *agent, "--n-episodes", 6, "--min-return", limit) == 0
    written = card(tmp_path / "best")
    passed = [(seed, value) for seed, value in enumerate(returns) if value >= limit][:6]
    assert list(zip(written["seeds"], written["returns"], strict=True)) == passed
    assert written["n_attempts"] == passed[-1][0] + 1 and written["min_return"] == limit
    assert_replays(tmp_path / "best")
    capsys.readouterr()
    assert record(tmp_path / "none", *agent, "--n-episodes", 3, "--min-return", 400, "--max-attempts", 5) == 1
    error = capsys.readouterr().err
    assert "only 0 of 3 episodes reach --min-return 400 (5 episodes played" in error and not (tmp_path / "none").exists()


def test_time_limit_and_stochastic_actions(tmp_path, agent):
    limit = ["--max-episode-steps", 6, "--n-episodes", 3]
    assert record(tmp_path / "a", *agent, *limit, "--stochastic") == 0
    assert record(tmp_path / "b", *agent, *limit, "--stochastic") == 0
    assert record(tmp_path / "c", *agent, *limit) == 0
    a, b, c = (load_demonstrations(tmp_path / name) for name in "abc")
    assert a.content_hash == b.content_hash != c.content_hash and not card(tmp_path / "a")["agent"]["deterministic"]
    assert [(len(t), t.terminated, t.truncated) for t in c.trajectories] == [(6, False, True)] * 3
    assert_replays(tmp_path / "a", lambda: gym.make(CART, max_episode_steps=6))
    assert card(tmp_path / "a")["max_episode_steps"] == 6


def test_card_and_report(tmp_path, agent, capsys):
    assert record(tmp_path / "set", *agent, "--n-episodes", 2, "--seed", 4) == 0
    out = capsys.readouterr().out
    assert "2 episodes of a2c.zip" in out and "2 terminated (the data tell), time limit 500" in out
    assert f"""rl_zoo3 train --algo iq --env CartPole-v1 -params "expert_data:'{tmp_path / "set"}'" """.strip() in out
    written, demos = card(tmp_path / "set"), load_demonstrations(tmp_path / "set")
    assert written["seeds"] == [4, 5] and written["max_episode_steps"] == 500 and written["env_id"] == CART
    assert demos.episode_returns.tolist() == written["returns"] and written["lengths"] == [len(t) for t in demos.trajectories]
    assert written["return"]["mean"] == pytest.approx(np.mean(written["returns"])) and written["n_transitions"] == sum(
        written["lengths"]
    )
    assert {"sb3-iq", "stable-baselines3", "gymnasium"} <= written["versions"].keys()
    assert str(tmp_path) not in (tmp_path / "set" / "card.json").read_text()
    stored = datasets.load_from_disk(str(tmp_path / "set"))
    assert stored[0]["terminal"] is True and stored[0]["infos"][-1] == '{"TimeLimit.truncated": false}'


def test_imitation_reads_it(tmp_path, agent):
    pytest.importorskip("imitation")
    from imitation.data import rollout, serialize

    assert record(tmp_path / "set", *agent, "--n-episodes", 3, "--max-episode-steps", 9) == 0
    theirs = serialize.load(tmp_path / "set")
    for trajectory, ours in zip(theirs, load_demonstrations(tmp_path / "set").trajectories, strict=True):
        np.testing.assert_array_equal(trajectory.obs, ours.obs)
        np.testing.assert_array_equal(trajectory.acts, ours.acts)
        np.testing.assert_array_equal(trajectory.rews, ours.rews)
        assert trajectory.terminal and trajectory.infos[-1] == {"TimeLimit.truncated": ours.truncated}
    assert rollout.flatten_trajectories(theirs).dones.sum() == 3
    assert rollout.rollout_stats(theirs)["return_mean"] == pytest.approx(card(tmp_path / "set")["return"]["mean"], abs=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--algo", "reinforce"], "--algo 'reinforce': expected one of a2c, "),
        (["--env", "CartPole-v99"], "--env CartPole-v99: this environment can't be made"),
        (["--env", "RecordTupleEnv-v0"], "its observations are of a Tuple space"),
        (["--model", "missing.zip"], "--model 'missing.zip': no such file"),
        (["--n-episodes", "0"], "'0' is not a positive integer"),
        (["--exp-id", "2"], "--exp-id is for -f only"),
        (["--max-attempts", "3"], "--max-attempts 3 is less than --n-episodes 25"),
        (["--env-kwargs", "gravity=3"], "expected KEY:VALUE"),
        (["--env-kwargs", "no_such:3"], "this environment can't be made"),
        (["--gym-packages", "no_such_package"], "No module named 'no_such_package'"),
        (["--out", "."], "exists and is not empty"),
        (["--out", "a_file/set"], "a_file' is not a folder that can be written to"),
        (["--vecnormalize", "missing.pkl"], "--vecnormalize 'missing.pkl': no such file"),
        (["--min-return", "nan"], "--min-return nan: expected a finite number"),
        (["--seed", "3000000000"], "--seed 3000000000: expected 0 or more, and less than 2^31"),
        (["--env-wrapper", "no_such.Wrapper"], "--env-wrapper no_such.Wrapper: CartPole-v1 can't be wrapped in it"),
        (["--env-wrapper", "gymnasium.wrappers.NoSuch"], "has no attribute 'NoSuch'). Give MODULE.CLASS"),
    ],
)
def test_wrong_arguments(tmp_path, monkeypatch, agent, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    with pytest.raises(SystemExit) as stop:
        main([*map(str, agent), "--out", "set", *arguments])
    assert stop.value.code == 2 and message in capsys.readouterr().err and not (tmp_path / "set").exists()


def test_folder_of_the_zoo_without_the_zoo(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "rl_zoo3", None)
    with pytest.raises(SystemExit) as stop:
        record(tmp_path / "set", "--algo", "ppo", "--env", CART, "-f", tmp_path)
    assert stop.value.code == 2 and 'pip install ".[zoo]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--env", "Pendulum-v1"], "the agent was trained with the observation space"),
        (["--frame-stack", "2"], "the agent was trained with the observation space"),
        (["--algo", "sac"], "cannot be loaded as an agent of sac"),
        (["--device", "gpu"], "Check --algo and --device"),
        (["--env", "RecordDiscreteEnv-v0", "--frame-stack", "2"], "--frame-stack 2: these observations can't be stacked"),
        (["--vecnormalize", "a_file"], "the statistics of VecNormalize cannot be loaded"),
    ],
)
def test_agent_does_not_fit(tmp_path, monkeypatch, agent, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_file").touch()
    assert main([*map(str, agent), "--out", "set", *arguments]) == 1
    assert message in capsys.readouterr().err and not (tmp_path / "set").exists()


def test_wrapper_and_arguments_of_the_environment(tmp_path):
    env = make_vec_env(PENDULUM, wrapper_class=TimeFeatureWrapper, env_kwargs={"g": 5.0})
    stable_baselines3.SAC("MlpPolicy", env).save(tmp_path / "agent")
    wrapper = "sb3_contrib.common.wrappers.TimeFeatureWrapper"
    arguments = ["--algo", "sac", "--model", tmp_path / "agent.zip", "--env", PENDULUM, "--env-wrapper", wrapper]
    assert record(tmp_path / "set", *arguments, "--env-kwargs", "g:5.0", "--n-episodes", 1) == 0
    assert_replays(tmp_path / "set", lambda: TimeFeatureWrapper(gym.make(PENDULUM, g=5.0)))
    assert card(tmp_path / "set")["env_kwargs"] == {"g": 5.0} and card(tmp_path / "set")["env_wrapper"] == wrapper


def test_environment_that_reuses_its_arrays():
    class Reusing(gym.Env):
        observation_space, action_space = spaces.Box(-9, 9, (1,)), spaces.Box(-1, 1, (1,))

        def reset(self, *, seed=None, options=None):
            self.obs = np.zeros(1, dtype=np.float32)
            return self.obs, {}

        def step(self, action):
            self.obs += 1
            action *= 0
            return self.obs, 1.0, bool(self.obs[0] == 3), False, {}

    episode = play(lambda obs: np.ones(1), Reusing())
    assert episode.obs.ravel().tolist() == [0, 1, 2, 3] and episode.acts.ravel().tolist() == [1, 1, 1]
