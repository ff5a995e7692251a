"""Expert data from SB3's replay buffers, from datasets and imitation objects, and from Parquet files."""

import types
from typing import Any

import datasets
import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer, RolloutBuffer

from sb3_iq import IQLearn
from sb3_iq.demonstrations import ExpertBuffer, Trajectory, load_demonstrations, loading
from sb3_iq.demonstrations.saving import save_trajectories
from sb3_iq.demonstrations.sources import Loaded, Request, Source
from tests.test_demonstrations import as_columns, as_flat, make_episodes
from tests.utils import BOX, DICT, DISCRETE, WIDE_BOX, RandomEnv

LENGTH = 7


def unflatten(obs, index):
    return {key: value[index] for key, value in obs.items()} if isinstance(obs, dict) else obs[index]


def stack(parts: list) -> Any:
    return {key: np.stack([p[key] for p in parts]) for key in parts[0]} if isinstance(parts[0], dict) else np.stack(parts)


def fill(buffer: ReplayBuffer, n_steps: int, truncates: bool = False, seed: int = 0) -> list[list[tuple]]:
    """Fill a buffer as SB3 does, Box actions scaled to [-1, 1], and return what each environment gave."""
    envs = [RandomEnv(buffer.observation_space, buffer.action_space, LENGTH + k, truncates) for k in range(buffer.n_envs)]
    for k, env in enumerate(envs):
        env.action_space.seed(seed + k)
    observations = [env.reset(seed=seed + k)[0] for k, env in enumerate(envs)]
    log: list[list[tuple]] = [[] for _ in envs]
    for _ in range(n_steps):
        rows = []
        for k, env in enumerate(envs):
            action = env.action_space.sample()
            next_obs, _, terminated, truncated, _ = env.step(action)
            reward = float(len(log[k]))
            log[k].append((observations[k], action, next_obs, reward, terminated, truncated))
            scaled = action
            if isinstance(env.action_space, spaces.Box):
                scaled = 2.0 * (action - env.action_space.low) / (env.action_space.high - env.action_space.low) - 1.0
            info = {"TimeLimit.truncated": truncated}
            rows.append((observations[k], next_obs, scaled, reward, terminated or truncated, info))
            observations[k] = env.reset()[0] if terminated or truncated else next_obs
        obs, next_obs, actions, rewards, dones, infos = (list(column) for column in zip(*rows, strict=True))
        buffer.add(stack(obs), stack(next_obs), np.stack(actions), np.array(rewards), np.array(dones), infos)
    return log


def assert_same_transitions(trajectories: tuple[Trajectory, ...], expected: list[tuple]) -> None:
    rows = [
        (
            unflatten(t.obs, i),
            np.asarray(t.acts)[i],
            unflatten(t.obs, i + 1),
            t.rews[i],  # type: ignore[index]
            t.terminated and i == len(t) - 1,
            t.truncated and i == len(t) - 1,
        )
        for t in trajectories
        for i in range(len(t))
    ]
    assert len(rows) == len(expected)
    for row, wanted in zip(rows, expected, strict=True):
        assert row[3:] == wanted[3:]
        np.testing.assert_allclose(row[1], wanted[1], atol=1e-5)
        for found, stored in ((row[0], wanted[0]), (row[2], wanted[2])):
            for key in found if isinstance(found, dict) else [...]:
                np.testing.assert_array_equal(found[key], stored[key])


@pytest.mark.parametrize("truncates", [False, True])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX, spaces.Box(-1.0, 3.0, (2, 2), np.float32)], ids=str)
@pytest.mark.parametrize("observation_space", [BOX, DICT], ids=["box", "dict"])
@pytest.mark.parametrize(("n_envs", "size", "n_steps"), [(1, 100, 30), (3, 300, 30), (1, 25, 60), (2, 50, 60)])
def test_replay_buffer(n_envs, size, n_steps, observation_space, action_space, truncates):
    kind = DictReplayBuffer if isinstance(observation_space, spaces.Dict) else ReplayBuffer
    buffer = kind(size, observation_space, action_space, "cpu", n_envs)
    log = fill(buffer, n_steps, truncates)
    held = buffer.size()
    demonstrations = load_demonstrations(buffer)
    assert_same_transitions(demonstrations.trajectories, [row for env in log for row in env[-held:]])
    # Pieces of episodes of length LENGTH + k: the first of a full ring does not begin at a reset
    first = demonstrations.trajectories[0]
    assert first.starts_at_reset is not buffer.full
    assert sum(not t.starts_at_reset for t in demonstrations.trajectories) == (n_envs if buffer.full else 0)
    assert all(len(t) <= LENGTH + n_envs for t in demonstrations.trajectories)
    # The scaled actions that the policy learns from are those that SB3 stores
    stored = buffer.actions[(np.arange(held) + (buffer.pos if buffer.full else 0)) % buffer.buffer_size].swapaxes(0, 1)
    batch = ExpertBuffer(demonstrations, observation_space, action_space).all()
    np.testing.assert_allclose(batch.actions.numpy(), stored.reshape(batch.actions.shape), atol=1e-5)


def test_replay_buffer_of_discrete_observations_is_cut_between_environments():
    """All observations are equal, so that only the layout tells where an episode ends."""
    buffer = ReplayBuffer(40, spaces.Discrete(1), DISCRETE, "cpu", n_envs=2)
    fill(buffer, 5)
    assert [len(t) for t in load_demonstrations(buffer).trajectories] == [5, 5]


def test_replay_buffer_without_time_limits():
    buffer = ReplayBuffer(100, BOX, DISCRETE, "cpu", handle_timeout_termination=False)
    fill(buffer, 2 * LENGTH, truncates=True)
    assert {t.ending for t in load_demonstrations(buffer).trajectories} == {"assumed"}
    assert all(t.truncated for t in load_demonstrations(buffer, max_episode_steps=LENGTH).trajectories)


@pytest.mark.parametrize("n_steps", [4, 2 * LENGTH, 2 * LENGTH + 3, 40])
def test_replay_buffer_with_shared_observations(n_steps):
    """The last observation of an episode is overwritten by the next reset: those transitions can't be used."""
    buffer = ReplayBuffer(50, BOX, DISCRETE, "cpu", n_envs=2, optimize_memory_usage=True, handle_timeout_termination=False)
    log = fill(buffer, n_steps)
    expected = []
    for rows in log:
        held = rows[-(buffer.buffer_size - 1) :] if buffer.full else rows
        expected += [row for i, row in enumerate(held) if not (row[4] and i < len(held) - 1)]
    if any(len(rows) > LENGTH + 1 for rows in log):
        with pytest.warns(UserWarning, match="optimize_memory_usage=True.*left out"):
            demonstrations = load_demonstrations(buffer)
    else:
        demonstrations = load_demonstrations(buffer)
    assert_same_transitions(demonstrations.trajectories, expected)


def test_bad_replay_buffers():
    with pytest.raises(ValueError, match="the replay buffer holds no transition"):
        load_demonstrations(ReplayBuffer(10, BOX, DISCRETE, "cpu"))
    unscaled = ReplayBuffer(10, BOX, WIDE_BOX, "cpu")
    unscaled.add(np.zeros(3), np.zeros(3), np.array([1.0, 8.0]), np.zeros(1), np.zeros(1), [{}])
    with pytest.raises(ValueError, match=r"holds the action 8.0, but SB3 stores actions scaled to \[-1, 1\]"):
        load_demonstrations(unscaled)
    unbounded = ReplayBuffer(10, BOX, spaces.Box(-np.inf, np.inf, (1,)), "cpu")
    unbounded.add(np.zeros(3), np.zeros(3), np.zeros(1), np.zeros(1), np.zeros(1), [{}])
    with pytest.raises(ValueError, match="is not bounded"):
        load_demonstrations(unbounded)
    with pytest.raises(TypeError, match="RolloutBuffer, which lacks next observations"):
        load_demonstrations(RolloutBuffer(10, BOX, DISCRETE, "cpu"))


@pytest.fixture
def folder(tmp_path):
    save_trajectories(make_episodes(True, (8, 6, 3), np.uint8, truncated=1), tmp_path / "folder")
    return tmp_path / "folder"


def test_datasets_objects(folder, tmp_path):
    expected = load_demonstrations(folder)
    dataset = datasets.load_from_disk(str(folder))
    loaded = load_demonstrations(dataset)
    assert loaded.content_hash == expected.content_hash
    assert loaded.trajectories[0].obs.dtype == np.uint8
    assert load_demonstrations(dataset.with_format("numpy")).content_hash == expected.content_hash
    assert load_demonstrations(datasets.DatasetDict(train=dataset)).content_hash == expected.content_hash
    # A table with a choice of rows: the choice counts, not the table
    chosen = load_demonstrations(dataset.select([2, 0]))
    assert [len(t) for t in chosen.trajectories] == [len(expected.trajectories[i]) for i in (2, 0)]
    assert load_demonstrations(dataset, n_trajectories=1).n_transitions == len(expected.trajectories[0])
    with pytest.raises(ValueError, match=r"DatasetDict with the splits .*\['a', 'b'\]"):
        load_demonstrations(datasets.DatasetDict(a=dataset, b=dataset))
    with pytest.raises(TypeError, match="stream without a length"):
        load_demonstrations(dataset.to_iterable_dataset())
    with pytest.raises(ValueError, match="empty"):
        load_demonstrations(dataset.select([]))
    with pytest.raises(ValueError, match=r"the columns \['terminal'\] are missing"):
        load_demonstrations(datasets.Dataset.from_dict({"obs": [[1.0]]}))


def test_infos_are_never_decoded(tmp_path):
    """What imitation would run with jsonpickle stays text, in objects as in files."""
    columns = as_columns(make_episodes())
    sign = tmp_path / "ran"
    code = '{"py/reduce": [{"py/function": "posix.system"}, {"py/tuple": ["touch SIGN"]}]}'.replace("SIGN", str(sign))
    columns["infos"] = [[code] * len(infos) for infos in columns["infos"]]
    dataset = datasets.Dataset.from_dict(columns)
    dataset.to_parquet(str(tmp_path / "set.parquet"))
    for source in (dataset, tmp_path / "set.parquet"):
        assert len(load_demonstrations(source).trajectories) == 3
    assert not sign.exists()


def test_what_lacks_something_is_refused():
    flat = as_flat(make_episodes())
    minimal = types.SimpleNamespace(obs=flat["obs"], acts=flat["acts"], infos=None)
    with pytest.raises(TypeError, match=r"lacks next_obs and dones.*Pass imitation's Transitions"):
        load_demonstrations(minimal)
    loader = th.utils.data.DataLoader(th.utils.data.TensorDataset(th.zeros(3)))
    with pytest.raises(TypeError, match="DataLoader, whose shuffled batches lack the order and the ends of episodes"):
        load_demonstrations(loader)


def test_parquet(folder, tmp_path):
    expected = load_demonstrations(folder)
    dataset = datasets.load_from_disk(str(folder))
    dataset.to_parquet(str(tmp_path / "set.parquet"))
    loaded = load_demonstrations(tmp_path / "set.parquet")
    assert loaded.content_hash == expected.content_hash
    assert loaded.trajectories[0].obs.dtype == np.uint8
    chosen, from_folder = (load_demonstrations(s, n_trajectories=2, seed=3) for s in (tmp_path / "set.parquet", folder))
    assert chosen.content_hash == from_folder.content_hash
    # A folder of shards, as on the hub; with more than one split, "train" is taken
    hub = tmp_path / "hub" / "data"
    hub.mkdir(parents=True)
    for k in range(3):
        dataset.select([k]).to_parquet(str(hub / f"train-{k:05d}-of-00003.parquet"))
    assert load_demonstrations(tmp_path / "hub").content_hash == expected.content_hash
    assert load_demonstrations(tmp_path / "hub", n_trajectories=2, seed=3).content_hash == chosen.content_hash
    dataset.to_parquet(str(hub / "test-00000-of-00001.parquet"))
    assert load_demonstrations(tmp_path / "hub").content_hash == expected.content_hash
    (hub / "test-00000-of-00001.parquet").rename(hub / "validation.parquet")
    for shard in hub.glob("train*"):
        shard.rename(hub / shard.name.replace("train", "first"))
    with pytest.raises(ValueError, match=r"there are the Parquet files .*data/first.*data/validation.*give the path of one"):
        load_demonstrations(tmp_path / "hub")


def test_bad_parquet(folder, tmp_path):
    dataset = datasets.load_from_disk(str(folder))
    file = tmp_path / "set.parquet"
    dataset.to_parquet(str(file))
    content = file.read_bytes()
    for share in (0.01, 0.5, 0.99):
        file.write_bytes(content[: int(share * len(content))])
        with pytest.raises(ValueError, match="cannot be read as a Parquet file"):
            load_demonstrations(file)
    dataset.remove_columns("terminal").to_parquet(str(file))
    with pytest.raises(ValueError, match=r"the columns \['terminal'\] are missing"):
        load_demonstrations(file)
    datasets.Dataset.from_dict({"obs": [[1.0, 2.0]], "acts": [[1.0, 2.0]], "terminal": [True]}).to_parquet(str(file))
    with pytest.raises(ValueError, match="episode 0: expected one more observation than actions"):
        load_demonstrations(file)
    dataset.select([]).to_parquet(str(file))
    with pytest.raises(ValueError, match="holds no episode"):
        load_demonstrations(file)


def test_damaged_parquet(tmp_path):
    """Any byte may be wrong, also one that makes the columns differ in length."""
    datasets.Dataset.from_dict(as_columns(make_episodes())).to_parquet(str(tmp_path / "set.parquet"))
    content = (tmp_path / "set.parquet").read_bytes()
    rng = np.random.default_rng(0)
    n_refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] = rng.integers(256)
        (tmp_path / "damaged.parquet").write_bytes(damaged)
        try:
            load_demonstrations(tmp_path / "damaged.parquet")
        except ValueError as error:
            assert "expert_data" in str(error)
            n_refused += 1
    assert n_refused > 50


def test_a_trained_model_is_an_expert():
    """The replay buffer that SB3 itself has filled."""
    from stable_baselines3 import SAC

    model = SAC("MlpPolicy", gym.make("Pendulum-v1"), learning_starts=1000, buffer_size=300, seed=0, device="cpu").learn(450)
    demonstrations = load_demonstrations(model.replay_buffer)
    assert [(len(t), t.truncated, t.starts_at_reset) for t in demonstrations.trajectories] == [
        (50, True, False),
        (200, True, True),
        (50, False, True),
    ]
    assert 1.5 < np.abs(demonstrations.trajectories[1].acts).max() <= 2.0


@pytest.mark.parametrize("observation_space", [BOX, DICT], ids=["box", "dict"])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX], ids=str)
def test_replay_buffer_brings_its_spaces(observation_space, action_space):
    kind = DictReplayBuffer if isinstance(observation_space, spaces.Dict) else ReplayBuffer
    buffer = kind(50, observation_space, action_space, "cpu")
    fill(buffer, 30)
    policy = "MultiInputPolicy" if kind is DictReplayBuffer else "MlpPolicy"
    model = IQLearn(policy, None, buffer, offline=True, batch_size=8, device="cpu").learn(2)
    assert model.action_space == action_space
    assert model.expert_buffer.size() == 30


def test_a_source_of_somebody_else(monkeypatch, tmp_path):
    """A new kind of data is one row of a table: whether something is of this kind, and how it is read."""

    def read_csv(path, request: Request) -> Loaded:
        numbers = np.loadtxt(path, delimiter=",", skiprows=1)  # a row for each step: episode, observation, action
        episodes = np.split(numbers, np.flatnonzero(np.diff(numbers[:, 0])) + 1)
        chosen = [episodes[index] for index in request.select(len(episodes))]
        trajectories = [Trajectory(e[:, 1:2], e[:-1, 2].astype(int), None, True, False) for e in chosen]
        return Loaded(trajectories, spaces.Box(-9, 9, (1,)), DISCRETE)

    row = Source(lambda source: str(source).endswith(".csv"), read_csv)
    monkeypatch.setattr(loading, "SOURCES", (row, *loading.SOURCES))
    (tmp_path / "demos.csv").write_text("episode,obs,act\n0,1,0\n0,2,1\n0,3,0\n1,4,2\n1,5,0\n")
    loaded = load_demonstrations(tmp_path / "demos.csv")
    assert [len(trajectory) for trajectory in loaded] == [2, 1] and loaded.action_space == DISCRETE
    assert load_demonstrations(f"{tmp_path / 'demos.csv'}?n_trajectories=1")[0].acts.tolist() == [0, 1]
    IQLearn("MlpPolicy", None, tmp_path / "demos.csv", offline=True, device="cpu").learn(2)
