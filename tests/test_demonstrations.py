"""Expert data: every kind of source gives the same content, subsampling and the ends of episodes are exact, nothing runs."""

import json
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import datasets
import gymnasium as gym
import numpy as np
import pyarrow as pa
import pytest
import torch as th

from sb3_iq.demonstrations import Demonstrations, ExpertBuffer, Trajectory, load_demonstrations
from sb3_iq.demonstrations.saving import save_trajectories

LENGTHS = (5, 1, 8)
N_STEPS = sum(LENGTHS)


def make_episodes(
    continuous: bool = False, obs_shape: tuple[int, ...] = (3,), obs_dtype: type = np.float32, truncated: int = -1
):
    """Return episodes of distinct numbers; the one numbered ``truncated`` was cut off."""
    rng = np.random.default_rng(0)
    episodes = []
    for k, length in enumerate(LENGTHS):
        obs = rng.normal(size=(length + 1, *obs_shape)) * 50 + 100
        acts = rng.uniform(-1, 1, (length, 2)).astype(np.float32) if continuous else rng.integers(0, 3, length)
        rews = rng.normal(size=length)
        episodes.append(Trajectory(obs.astype(obs_dtype), acts, rews, k != truncated, k == truncated))
    return episodes


@dataclass(frozen=True)
class ForeignTrajectory:
    """Has the attributes of imitation's TrajectoryWithRew."""

    obs: object
    acts: np.ndarray
    infos: object
    terminal: bool
    rews: np.ndarray


class DictObs:
    """Unwraps as imitation's DictObs does."""

    def __init__(self, arrays: dict[str, np.ndarray]) -> None:
        self.arrays = arrays

    def unwrap(self) -> dict[str, np.ndarray]:
        return self.arrays


def as_foreign(episodes):
    infos = [[{}] * (len(e) - 1) + [{"TimeLimit.truncated": e.truncated}] for e in episodes]
    return [ForeignTrajectory(e.obs, e.acts, i, True, e.rews) for e, i in zip(episodes, infos, strict=True)]


def as_flat(episodes):
    return {
        "obs": np.concatenate([e.obs[:-1] for e in episodes]),
        "acts": np.concatenate([e.acts for e in episodes]),
        "next_obs": np.concatenate([e.obs[1:] for e in episodes]),
        "rews": np.concatenate([e.rews for e in episodes]),
        "terminated": np.concatenate(
            [np.arange(len(e)) == len(e) - 1 if e.terminated else np.zeros(len(e), bool) for e in episodes]
        ),
        "truncated": np.concatenate(
            [np.arange(len(e)) == len(e) - 1 if e.truncated else np.zeros(len(e), bool) for e in episodes]
        ),
    }


def as_legacy_arrays(episodes):
    """Return the arrays of imitation's legacy ``.npz`` files."""
    infos = np.array([{"x": 1}] * sum(len(e) for e in episodes), dtype=object)
    return {
        "obs": np.concatenate([e.obs for e in episodes]),
        "acts": np.concatenate([e.acts for e in episodes]),
        "rews": np.concatenate([e.rews for e in episodes]),
        "infos": infos,
        "terminal": np.array([e.terminated or e.truncated for e in episodes]),
        "indices": np.cumsum([len(e) for e in episodes[:-1]]),
    }


def write_arrow(folder: Path, batches: list[dict], types: dict[str, pa.DataType] | None = None) -> Path:
    """Write a data set by hand: one Arrow file for each batch."""
    folder.mkdir(parents=True, exist_ok=True)
    names = []
    for k, columns in enumerate(batches):
        arrays = {name: pa.array(values, type=(types or {}).get(name)) for name, values in columns.items()}
        batch = pa.RecordBatch.from_pydict(arrays)
        names.append(f"data-{k:05d}-of-{len(batches):05d}.arrow")
        with pa.OSFile(str(folder / names[-1]), "wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
            writer.write_batch(batch)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def as_columns(episodes, truncated_info: bool = True):
    last = [{"TimeLimit.truncated": True} if e.truncated and truncated_info else {} for e in episodes]
    return {
        "obs": [e.obs.tolist() for e in episodes],
        "acts": [e.acts.tolist() for e in episodes],
        "infos": [["{}"] * (len(e) - 1) + [json.dumps(info)] for e, info in zip(episodes, last, strict=True)],
        "terminal": [e.terminated or e.truncated for e in episodes],
        "rews": [e.rews.tolist() for e in episodes],
    }


@pytest.mark.parametrize("continuous", [False, True])
@pytest.mark.parametrize(("obs_shape", "obs_dtype"), [((3,), np.float32), ((3,), np.float64), ((8, 6, 3), np.uint8)])
def test_sources_are_equal(tmp_path, continuous, obs_shape, obs_dtype):
    episodes = make_episodes(continuous, obs_shape, obs_dtype)
    save_trajectories(episodes, tmp_path / "folder")
    table = datasets.load_from_disk(str(tmp_path / "folder"))
    table.save_to_disk(str(tmp_path / "shards"), num_shards=3)
    datasets.DatasetDict({"train": table}).save_to_disk(str(tmp_path / "splits"))
    np.savez(tmp_path / "legacy.npz", **as_legacy_arrays(episodes))
    np.savez_compressed(tmp_path / "flat.npz", **as_flat(episodes))
    flat = as_flat(episodes)
    done = flat["terminated"] | flat["truncated"]
    sources = {
        "folder": str(tmp_path / "folder"),
        "path object": tmp_path / "folder",
        "shards": tmp_path / "shards",
        "splits": tmp_path / "splits",
        "legacy npz": tmp_path / "legacy.npz",
        "legacy npz, opened": np.load(tmp_path / "legacy.npz"),
        "flat npz": tmp_path / "flat.npz",
        "ours": tuple(episodes),
        "foreign": as_foreign(episodes),
        "foreign, widened": [
            ForeignTrajectory(
                e.obs.astype(np.float64) if e.obs.dtype.kind == "f" else e.obs.astype(np.int64), e.acts, None, True, e.rews
            )
            for e in episodes
        ],
        "mixed": [episodes[0], *as_foreign(episodes[1:])],
        "flat": flat,
        "gymnasium and D4RL names": {
            "observations": flat["obs"],
            "actions": flat["acts"],
            "next_observations": flat["next_obs"],
            "rewards": flat["rews"][:, None],
            "terminals": flat["terminated"],
            "timeouts": flat["truncated"],
        },
        "dones": {"obs": flat["obs"], "acts": flat["acts"], "next_obs": flat["next_obs"], "rews": flat["rews"], "dones": done},
        "transitions object": namedtuple("Transitions", "obs acts next_obs dones rews infos")(
            flat["obs"], flat["acts"], flat["next_obs"], done, flat["rews"], None
        ),
        "columns": {
            "obs": [e.obs for e in episodes],
            "acts": [e.acts for e in episodes],
            "rews": [e.rews for e in episodes],
            "terminal": [True] * 3,
        },
        "demonstrations": load_demonstrations(episodes),
    }
    expected = load_demonstrations(episodes)
    for name, source in sources.items():
        loaded = load_demonstrations(source)
        assert loaded.content_hash == expected.content_hash, name
        for trajectory, episode in zip(loaded.trajectories, episodes, strict=True):
            np.testing.assert_array_equal(trajectory.obs, episode.obs, err_msg=name)
            if "widened" not in name:
                assert trajectory.obs.dtype == obs_dtype, name
    assert [str(p) for p in (tmp_path / "folder").iterdir() if "cache" in p.name] == []


def test_content_hash_tells_apart():
    episodes = make_episodes()
    first = episodes[0]
    base = load_demonstrations(episodes)
    others = [
        load_demonstrations(episodes, subsample_freq=2),
        load_demonstrations(episodes[:2]),
        load_demonstrations([episodes[1], episodes[0], episodes[2]]),
        load_demonstrations([Trajectory(first.obs, first.acts, first.rews, False, True), *episodes[1:]]),
        load_demonstrations([Trajectory(first.obs + 1, first.acts, first.rews, True, False), *episodes[1:]]),
        load_demonstrations([Trajectory(first.obs, first.acts, None, True, False), *episodes[1:]]),
    ]
    assert len({base.content_hash, *(other.content_hash for other in others)}) == len(others) + 1
    assert base.content_hash == load_demonstrations(make_episodes()).content_hash


def test_single_episode_forms():
    episode = make_episodes()[2]
    expected = load_demonstrations([episode]).content_hash
    single = {"obs": episode.obs, "acts": episode.acts, "rews": episode.rews}
    assert load_demonstrations(episode).content_hash == expected
    assert load_demonstrations(as_foreign([episode])[0]).content_hash == expected
    assert load_demonstrations(single | {"terminal": True}).content_hash == expected
    assert load_demonstrations(single | {"terminated": True, "truncated": False}).content_hash == expected
    assert load_demonstrations([single | {"terminal": np.bool_(True)}]).content_hash == expected
    assert (
        load_demonstrations({name: th.as_tensor(a) for name, a in single.items()} | {"terminal": True}).content_hash
        == expected
    )
    assert load_demonstrations(single).trajectories[0].ending == "open"


def test_dict_observations():
    episodes = make_episodes()
    images = [np.arange(np.prod([len(e.obs), 4, 4, 3]), dtype=np.uint8).reshape(len(e.obs), 4, 4, 3) for e in episodes]
    parts = [{"vec": e.obs, "img": image} for e, image in zip(episodes, images, strict=True)]
    ours = [Trajectory(part, e.acts, e.rews, True, False) for part, e in zip(parts, episodes, strict=True)]
    foreign = [ForeignTrajectory(DictObs(part), e.acts, None, True, e.rews) for part, e in zip(parts, episodes, strict=True)]
    flat = as_flat(episodes)
    flat["obs"] = {key: np.concatenate([part[key][:-1] for part in parts]) for key in ("vec", "img")}
    flat["next_obs"] = {key: np.concatenate([part[key][1:] for part in parts]) for key in ("vec", "img")}
    expected = load_demonstrations(ours)
    assert load_demonstrations(foreign).content_hash == expected.content_hash
    assert load_demonstrations(flat).content_hash == expected.content_hash


def test_flat_is_cut_where_it_does_not_continue():
    episode = make_episodes()[2]
    flat = as_flat([episode])
    kept = [0, 1, 2, 5, 6, 7]  # two transitions are missing
    demos = load_demonstrations({name: array[kept] for name, array in flat.items()})
    first, second = demos.trajectories
    assert (len(first), len(second)) == (3, 3)
    assert (first.ending, first.starts_at_reset, second.terminated, second.starts_at_reset) == ("open", True, True, False)
    np.testing.assert_array_equal(first.obs, episode.obs[:4])
    # the infos of flat transitions tell how an episode ended
    infos = [{}] * 7 + [{"TimeLimit.truncated": True}]
    dones = {name: flat[name] for name in ("obs", "acts", "next_obs")} | {"dones": flat["terminated"], "infos": infos}
    assert load_demonstrations(dones).trajectories[0].truncated
    # float64 observations beside float32 next observations are no gap
    assert len(load_demonstrations(flat | {"obs": flat["obs"].astype(np.float64)}).trajectories) == 1
    shuffled = load_demonstrations({name: array[[4, 1, 6]] for name, array in flat.items()})
    assert [len(t) for t in shuffled.trajectories] == [1, 1, 1]


@pytest.mark.parametrize("freq", [1, 2, 3, 7, 100])
def test_subsampling_keeps_successors_and_ends(freq):
    episodes = make_episodes(truncated=2)
    demos = load_demonstrations(episodes, subsample_freq=freq)
    samples = ExpertBuffer(demos, gym.spaces.Box(-1e3, 1e3, (3,)), gym.spaces.Discrete(3)).all()
    expected = [(e, t) for e in episodes for t in range(0, len(e), freq)]
    assert demos.n_transitions == len(samples.actions) == len(expected)
    for k, (episode, t) in enumerate(expected):
        np.testing.assert_array_equal(samples.observations[k], episode.obs[t])
        np.testing.assert_array_equal(samples.next_observations[k], episode.obs[t + 1])
        assert samples.actions[k].item() == episode.acts[t]
        assert samples.rewards[k].item() == np.float32(episode.rews[t])
        assert samples.dones[k].item() == (episode.terminated and t == len(episode) - 1)


def test_selection():
    episodes = make_episodes()
    hashes = [load_demonstrations([e]).content_hash for e in episodes]

    def chosen(demos: Demonstrations) -> list[int]:
        return [hashes.index(load_demonstrations([t]).content_hash) for t in demos.trajectories]

    assert chosen(load_demonstrations(episodes, n_trajectories=2)) == [0, 1]
    draws = {seed: chosen(load_demonstrations(episodes, n_trajectories=1, seed=seed)) for seed in range(20)}
    assert {index for draw in draws.values() for index in draw} == {0, 1, 2}
    assert draws[3] == chosen(load_demonstrations(episodes, n_trajectories=np.int64(1), seed=np.int64(3)))
    for seed in range(5):  # nested, and without replacement
        two = chosen(load_demonstrations(episodes, n_trajectories=2, seed=seed))
        assert set(draws[seed]) <= set(two) and len(set(two)) == 2
    again = load_demonstrations(load_demonstrations(episodes, subsample_freq=2), n_trajectories=1, subsample_freq=2)
    assert (chosen(again), again.subsample_freq, again.n_transitions) == ([0], 4, 2)


def endings(demos: Demonstrations) -> list[tuple[bool, bool, str]]:
    return [(t.terminated, t.truncated, t.ending) for t in demos.trajectories]


def test_terminal_rules(tmp_path):
    cut, ended = (False, True), (True, False)
    episodes = make_episodes(truncated=2)
    told = write_arrow(tmp_path / "told", [as_columns(episodes)])
    assert endings(load_demonstrations(told)) == [(*ended, "assumed"), (*ended, "assumed"), (*cut, "info")]
    # A limit does not overrule what an info says, and rules where none does
    assert endings(load_demonstrations(told, max_episode_steps=5))[0] == (*cut, "limit")
    assert endings(load_demonstrations(told, max_episode_steps=100))[2] == (*cut, "info")
    silent = write_arrow(tmp_path / "silent", [as_columns(episodes, truncated_info=False)])
    demos = load_demonstrations(silent)
    assert endings(demos) == [(*ended, "assumed")] * 3
    expected = [(*ended, "assumed"), (*ended, "assumed"), (*cut, "limit")]
    assert endings(demos.with_time_limit(8)) == endings(load_demonstrations(silent, max_episode_steps=8)) == expected
    (silent / "card.json").write_text('{"max_episode_steps": 8}')
    from_card = load_demonstrations(silent)
    assert endings(from_card) == expected and from_card.max_episode_steps == 8
    assert from_card.with_time_limit(5) is from_card  # the card knows better than the environment
    assert endings(load_demonstrations(silent, max_episode_steps=100)) == [(*ended, "assumed")] * 3
    (silent / "card.json").write_text('{"max_episode_steps": null}')
    assert load_demonstrations(silent).max_episode_steps is None
    # terminal=False bootstraps, whatever an info or a limit says
    columns = as_columns(episodes) | {"terminal": [False] * 3}
    open_ended = load_demonstrations(write_arrow(tmp_path / "open", [columns]), max_episode_steps=5)
    assert endings(open_ended) == [(False, False, "open")] * 3
    # An info that says False is exact; a jsonpickled NumPy bool is not decoded
    columns = as_columns(episodes)
    columns["infos"][2][-1] = '{"TimeLimit.truncated": false}'
    columns["infos"][0][-1] = '{"TimeLimit.truncated": {"py/reduce": [{"py/type": "numpy.bool"}, {"py/tuple": [true]}]}}'
    exact = endings(load_demonstrations(write_arrow(tmp_path / "exact", [columns]), max_episode_steps=8))
    assert exact == [(*ended, "assumed"), (*ended, "assumed"), (*ended, "info")]


def test_unknown_limit():
    episode = make_episodes()[0]
    foreign = [ForeignTrajectory(e.obs, e.acts, None, True, e.rews) for e in (episode, episode, make_episodes()[1])]
    demos = load_demonstrations(foreign)
    assert demos.unknown_limit_length() == 5
    assert demos.with_time_limit(10).unknown_limit_length() is None
    assert load_demonstrations(foreign[1:]).unknown_limit_length() is None
    assert load_demonstrations(as_foreign([episode, episode])).unknown_limit_length() is None


def test_arrow_variants(tmp_path):
    episodes = make_episodes(continuous=True)
    expected = load_demonstrations(episodes).content_hash
    columns = as_columns(episodes)
    large = {"obs": pa.large_list(pa.large_list(pa.float32())), "acts": pa.large_list(pa.list_(pa.float32(), 2))}
    fixed = {
        "obs": pa.list_(pa.list_(pa.float32(), 3)),
        "acts": pa.list_(pa.list_(pa.float32(), 2)),
        "infos": pa.list_(pa.large_string()),
    }
    assert load_demonstrations(write_arrow(tmp_path / "large", [columns], large)).content_hash == expected
    assert load_demonstrations(write_arrow(tmp_path / "fixed", [columns], fixed)).content_hash == expected
    # several files with several widths of lists; no infos; rewards that are null throughout; columns that are not ours
    parts = [{name: values[k : k + 1] for name, values in columns.items()} for k in range(3)]
    mixed = [
        write_arrow(tmp_path / f"part{k}", [part], kind)
        for k, (part, kind) in enumerate(zip(parts, (large, fixed, fixed), strict=True))
    ]
    for k in (1, 2):
        (mixed[k] / "data-00000-of-00001.arrow").rename(mixed[0] / f"{k}.arrow")
    names = ["data-00000-of-00001.arrow", "1.arrow", "2.arrow"]
    (mixed[0] / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    assert load_demonstrations(mixed[0]).content_hash == expected
    bare = {name: columns[name] for name in ("obs", "acts", "terminal")} | {"rews": [None] * 3, "id": ["a", "b", "c"]}
    loaded = load_demonstrations(write_arrow(tmp_path / "bare", [bare], fixed))
    assert loaded.episode_returns is None and len(loaded.trajectories) == 3
    assert (
        load_demonstrations(write_arrow(tmp_path / "some", [bare | {"rews": [None, [1.0], None]}], fixed)).episode_returns
        is None
    )
    # the shaped arrays of `datasets`
    features = datasets.Features(
        {"obs": datasets.Array2D((None, 3), "float32"), "acts": datasets.Array2D((None, 2), "float32")}
    )
    features |= {"terminal": datasets.Value("bool"), "rews": datasets.List(datasets.Value("float64"))}
    shaped = {name: values for name, values in columns.items() if name != "infos"}
    datasets.Dataset.from_dict(shaped, features=datasets.Features(features)).save_to_disk(str(tmp_path / "shaped"))
    assert load_demonstrations(tmp_path / "shaped").content_hash == expected


def test_metadata_of_older_datasets(tmp_path):
    episodes = make_episodes()
    save_trajectories(episodes, tmp_path / "set")
    info = tmp_path / "set" / "dataset_info.json"
    info.write_text(info.read_text().replace('"List"', '"Sequence"').replace('"_type": "Value"', '"_type": "Unheard"'))
    assert load_demonstrations(tmp_path / "set").content_hash == load_demonstrations(episodes).content_hash


def test_infos_run_nothing(tmp_path):
    """A decoder of jsonpickle would run the command in these infos."""
    victim = tmp_path / "victim"
    command = f"touch {victim}"
    reduce = {"py/reduce": [{"py/function": "posix.system"}, {"py/tuple": [command]}]}
    episodes = make_episodes()
    columns = as_columns(episodes)
    columns["infos"] = [
        [json.dumps({"x": reduce, "TimeLimit.truncated": reduce})] * (len(e) - 1)
        + [json.dumps({"TimeLimit.truncated": reduce})]
        for e in episodes
    ]
    demos = load_demonstrations(write_arrow(tmp_path / "evil", [columns]))
    assert demos.content_hash == load_demonstrations(episodes).content_hash
    np.savez(tmp_path / "evil.npz", **as_legacy_arrays(episodes))
    assert load_demonstrations(tmp_path / "evil.npz").content_hash == demos.content_hash

    class LazyInfos(list):  # imitation decodes an info when it is touched
        _encoded_list = ('{"TimeLimit.truncated": true}',)

        def __getitem__(self, index):
            raise AssertionError("an info was decoded")

    lazy = [ForeignTrajectory(e.obs, e.acts, LazyInfos([0]), True, e.rews) for e in episodes]
    assert all(t.truncated for t in load_demonstrations(lazy).trajectories)
    assert not victim.exists()
