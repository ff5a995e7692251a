"""Data sets by name: Minari's, made here by its own recorder, and those of the Hugging Face hub, up to the network."""

import builtins
import os

import datasets
import gymnasium as gym
import huggingface_hub
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.classic_control import CartPoleEnv

from sb3_iq import IQLearn
from sb3_iq.demonstrations import load_demonstrations, record
from sb3_iq.demonstrations.__main__ import main
from sb3_iq.demonstrations.saving import save_trajectories
from tests.test_demonstrations import make_episodes
from tests.utils import BOX, DICT, DISCRETE, WIDE_BOX, RandomEnv

COMMIT = "0" * 40


@pytest.fixture
def minari(tmp_path, monkeypatch):
    library = pytest.importorskip("minari", reason="the minari extra is not installed")
    pytest.importorskip("h5py", reason="the minari extra is not installed")
    pytest.importorskip("jax", reason="jax, which Minari's recorder needs, is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))

    def no_network(*args, **kwargs):
        raise ConnectionError("no network in the tests")

    monkeypatch.setattr("urllib.request.urlopen", no_network)
    monkeypatch.setattr("minari.storage.hosting.download_dataset", lambda *_: pytest.fail("Minari tries for minutes"))
    return library


def collect(minari, env: gym.Env, name: str, n_steps: int) -> list[tuple]:
    """Record steps with Minari's own recorder; the last episode is cut off. Return the transitions."""
    collector = minari.DataCollector(env)
    collector.action_space.seed(0)
    log, seed = [], 0
    obs, _ = collector.reset(seed=seed)
    for _ in range(n_steps):
        action = collector.action_space.sample()
        next_obs, reward, terminated, truncated, _ = collector.step(action)
        log.append((obs, action, next_obs, reward, terminated, truncated))
        obs = next_obs
        if terminated or truncated:
            seed += 1
            obs, _ = collector.reset(seed=seed)
    collector.create_dataset(
        name, eval_env=None, algorithm_name="random", author="tests", author_email="", code_permalink="", description="random"
    )
    collector.close()
    return log


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
@pytest.mark.parametrize("entry_point", [CartPoleEnv, "gymnasium.envs.classic_control:CartPoleEnv"], ids=["class", "text"])
def test_to_minari_of_an_own_environment(tmp_path, monkeypatch, entry_point):
    """Minari can't store how to make an environment that is registered by its class: the spaces are enough."""
    pytest.importorskip("minari", reason="the minari extra is not installed")
    pytest.importorskip("h5py", reason="the minari extra is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    monkeypatch.setattr("gymnasium.envs.registration.registry", dict(gym.registry))
    gym.register("Mine-v0", entry_point, max_episode_steps=20)
    env = gym.make("Mine-v0")
    demonstrations = load_demonstrations(record(lambda obs: int(obs[2] > 0), env, n_episodes=2, seed=0))
    for name, given in (("my/by-id-v0", "Mine-v0"), ("my/by-object-v0", env)):
        dataset = demonstrations.to_minari(name, given)
        assert (dataset.spec.env_spec is None) == (entry_point is CartPoleEnv)
        loaded = load_demonstrations(f"minari:{name}")
        assert loaded.content_hash == demonstrations.content_hash
        assert (loaded.observation_space, loaded.action_space) == (env.observation_space, env.action_space)


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
@pytest.mark.parametrize(("env_id", "n_steps"), [("CartPole-v1", 60), ("Pendulum-v1", 450)])
def test_minari(minari, env_id, n_steps, capsys):
    log = collect(minari, gym.make(env_id), "sb3iq/random-v0", n_steps)
    demonstrations = load_demonstrations("minari:sb3iq/random-v0")
    trajectories = demonstrations.trajectories
    for k, field in ((0, lambda t: t.obs[:-1]), (1, lambda t: t.acts), (2, lambda t: t.obs[1:]), (3, lambda t: t.rews)):
        np.testing.assert_allclose(np.concatenate([field(t) for t in trajectories]), np.array([row[k] for row in log]))
    assert sum(t.terminated for t in trajectories) == sum(row[4] for row in log)
    assert all(t.ending in ("info", "open") for t in trajectories)
    env = gym.make(env_id)
    assert demonstrations.observation_space == env.observation_space
    assert demonstrations.action_space == env.action_space
    assert demonstrations.max_episode_steps == env.spec.max_episode_steps
    assert demonstrations.reference == "minari:sb3iq/random-v0"
    one = load_demonstrations("minari:sb3iq/random-v0", n_trajectories=1, subsample_freq=3)
    assert one.n_transitions == -(-len(trajectories[0]) // 3)

    # No environment at all: the data bring the spaces
    model = IQLearn("MlpPolicy", None, "minari:sb3iq/random-v0", offline=True, device="cpu", seed=0).learn(3)
    assert model.action_space == env.action_space
    assert model.expert_reference == "minari:sb3iq/random-v0"
    assert model.expert_content_hash == demonstrations.content_hash
    model.predict(env.reset(seed=0)[0])

    capsys.readouterr()
    assert main(["minari:sb3iq/random-v0"]) == 0
    assert f"accepts this data: {n_steps} transitions" in capsys.readouterr().out


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
@pytest.mark.parametrize("observation_space", [BOX, DICT, spaces.Discrete(5)], ids=["box", "dict", "discrete"])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX], ids=str)
def test_minari_spaces(minari, observation_space, action_space, tmp_path):
    collect(minari, RandomEnv(observation_space, action_space), "random-v0", 25)
    policy = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"
    model = IQLearn(policy, None, "minari:random-v0", offline=True, batch_size=8, device="cpu").learn(2)
    assert model.expert_buffer.size() == 25
    assert model.expert_buffer.all().dones.sum() == 2
    model.save(tmp_path / "model")
    IQLearn.load(tmp_path / "model", device="cpu").learn(2)


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
def test_minari_that_cannot_be_read(minari, tmp_path, monkeypatch):
    with pytest.raises(FileNotFoundError, match=r"'minari:some/other-v0'.*not found locally.*Check the id"):
        load_demonstrations("minari:some/other-v0")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(FileNotFoundError, match=r"'minari:some/other-v0'.*no network in the tests.*Check the id"):
        load_demonstrations("minari:some/other-v0")
    nested = spaces.Dict({"a": spaces.Dict({"b": BOX}), "c": BOX})
    collect(minari, RandomEnv(nested, DISCRETE), "nested-v0", 12)
    with pytest.raises(ValueError, match=r"episode 0: .*observations are nested or a tuple"):
        load_demonstrations("minari:nested-v0")
    collect(minari, RandomEnv(BOX, DISCRETE), "random-v0", 12)
    for file in (tmp_path / "minari" / "random-v0" / "data").glob("*.hdf5"):
        file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises((ValueError, FileNotFoundError), match="expert_data 'minari:random-v0'"):
        load_demonstrations("minari:random-v0")


def test_without_the_packages(monkeypatch, capsys):
    """The error names the extra, and the report shows it without a traceback."""
    original = builtins.__import__

    def without(name, *args, **kwargs):
        if name in ("minari", "huggingface_hub"):
            raise ImportError(f"No module named {name!r}")
        return original(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ImportError, match=r'pip install "\.\[minari\]"'):
        load_demonstrations("minari:mujoco/hopper/expert-v0")
    with pytest.raises(ImportError, match=r'pip install "\.\[hub\]"'):
        load_demonstrations("hf:org/name")
    assert main(["minari:mujoco/hopper/expert-v0"]) == 1
    assert ".[minari]" in capsys.readouterr().err


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache of the hub as a download leaves it: the real library finds it there, without a network."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def add(name: str):
        repository = tmp_path / "cache" / f"datasets--{name.replace('/', '--')}"
        (repository / "refs").mkdir(parents=True)
        (repository / "refs" / "main").write_text(COMMIT)
        folder = repository / "snapshots" / COMMIT
        folder.mkdir(parents=True)
        return folder

    return add


def test_hub(hub, tmp_path):
    episodes = make_episodes(truncated=1)
    save_trajectories(episodes, tmp_path / "set")
    folder = hub("org/ppo-Some-v1")
    os.mkdir(folder / "data")
    for k in range(2):
        shard = datasets.load_from_disk(str(tmp_path / "set")).shard(2, k, contiguous=True)
        shard.to_parquet(str(folder / "data" / f"train-{k:05d}-of-00002.parquet"))
    (folder / "card.json").write_text('{"max_episode_steps": 8}')
    loaded = load_demonstrations("hf:org/ppo-Some-v1")
    assert loaded.content_hash == load_demonstrations(episodes).content_hash
    assert (loaded.reference, loaded.max_episode_steps) == ("hf:org/ppo-Some-v1", 8)


def test_hub_folder_of_arrow_files(hub, tmp_path):
    episodes = make_episodes()
    save_trajectories(episodes, hub("org/saved"))
    assert load_demonstrations("hf:org/saved").content_hash == load_demonstrations(episodes).content_hash


def test_hub_failures(hub):
    with pytest.raises(FileNotFoundError, match=r"'hf:org/missing': this data set can't be downloaded.*Check the name"):
        load_demonstrations("hf:org/missing")
    (hub("org/texts") / "readme.txt").write_text("nothing")
    with pytest.raises(ValueError, match="not a data set"):
        load_demonstrations("hf:org/texts")
