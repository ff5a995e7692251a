"""Bad expert data: each kind is refused with a message that names it, before anything is trained."""

import json
import shutil
import types
import zipfile

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch as th

from sb3_iq.demonstrations import Trajectory, load_demonstrations, record, save_trajectories
from tests.utils import BOX, DISCRETE, RandomEnv

OBS, ACTS = np.arange(12.0).reshape(4, 3), np.array([0, 1, 2])


def changed(array, index, value):
    array = array.copy()
    array[index] = value
    return array


@pytest.fixture
def folder(tmp_path):
    save_trajectories([Trajectory(OBS, ACTS, np.ones(3), True, False)] * 3, tmp_path / "set")
    return tmp_path / "set"


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"obs": OBS[:1], "acts": ACTS[:0]}, "at least one step"),
        ({"obs": OBS[:3]}, r"one more observation than actions: len\(obs\) = 3 but len\(acts\) \+ 1 = 4"),
        ({"obs": {"x": OBS, "y": OBS[:2]}}, r"len\(obs\['y'\]\) = 2 but len\(acts\) \+ 1 = 4"),
        ({"obs": {}}, "empty dictionary"),
        ({"obs": changed(OBS, (2, 1), np.nan)}, r"obs holds nan at step 2, column 1:"),
        ({"obs": changed(OBS, (0, 0), np.inf)}, "obs holds inf"),
        ({"acts": changed(np.zeros((3, 2)), (1, 1), -np.inf)}, r"acts holds -inf at step 1, column 1:"),
        ({"rews": np.ones(2)}, r"rews has shape \(2,\)"),
        ({"rews": np.ones((3, 2))}, r"rews has shape \(3, 2\)"),
        ({"obs": np.array(["a", "b", "c", "d"])}, "obs has dtype '<U1', expected numbers"),
        ({"obs": np.array([None] * 4)}, "obs has dtype 'object'"),
        ({"obs": [[1.0], [1.0, 2.0], [1.0], [1.0]]}, "obs is not an array of numbers"),
        ({"acts": np.int64(3)}, "acts is a single number"),
        ({"obs": np.zeros((4, 0))}, "hold no number"),
    ],
)
def test_malformed_episodes(fields, message):
    parts = {"obs": OBS, "acts": ACTS, "rews": None} | fields
    with pytest.raises(ValueError, match=message):
        Trajectory(**parts, terminated=True, truncated=False)
    with pytest.raises(ValueError, match=f"episode 0: .*{message}"):
        load_demonstrations([parts])


def test_flags_of_an_episode():
    with pytest.raises(ValueError, match="both True"):
        Trajectory(OBS, ACTS, None, True, True)
    with pytest.raises(ValueError, match="terminated=1: expected True or False"):
        Trajectory(OBS, ACTS, None, 1, False)
    with pytest.raises(ValueError, match="terminal=1: expected one bool"):
        load_demonstrations({"obs": OBS, "acts": ACTS, "terminal": 1})


def some_function():
    """Stand for an object of a wrong type."""


WRONG_TYPES = [
    *(None, 3, 2.5, True, b"x", some_function, Trajectory, object(), {1, 2}, (i for i in range(3))),
    *(th.zeros(3), np.zeros(3), ["a", "b"], [None], [OBS], pd.DataFrame({"obs": [1.0]})),
    *(types.SimpleNamespace(obs=OBS, acts=ACTS), [types.SimpleNamespace(obs=OBS, acts=ACTS)]),
    th.utils.data.TensorDataset(th.zeros(3)),
    th.utils.data.DataLoader(th.utils.data.TensorDataset(th.zeros(3))),
]


@pytest.mark.parametrize("source", WRONG_TYPES, ids=lambda source: type(source).__name__)
def test_wrong_types(source):
    with pytest.raises(TypeError, match=r"expert_data.*(expected|not a|lacks)"):
        load_demonstrations(source)


@pytest.mark.parametrize(
    "step", [(OBS[0], ACTS[0], 1.0, OBS[1], False), {"obs": OBS[0], "acts": ACTS[0], "next_obs": OBS[1], "dones": False}]
)
def test_single_steps_are_refused_with_the_cure(step):
    with pytest.raises(
        (TypeError, ValueError), match=r"episode 0: .*Of single steps pass one dictionary with an array of each"
    ):
        load_demonstrations([step, step])


def test_a_generator_is_refused_with_the_cure():
    episodes = [{"obs": OBS, "acts": ACTS, "terminated": True}]
    for source in (iter(episodes), (episode for episode in episodes), map(dict, episodes)):
        with pytest.raises(TypeError, match=r"can be read only once.*Give list\(expert_data\) if it yields trajectories"):
            load_demonstrations(source)
    assert len(load_demonstrations(list(iter(episodes)))) == 1


FLAT = {"obs": OBS[:3], "acts": ACTS, "next_obs": OBS[1:], "dones": np.array([False, False, True])}


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ([], "empty"),
        ((), "empty"),
        ({}, "obs missing: found the keys"),
        ({"obs": OBS, "act": ACTS}, "acts missing: found the keys"),
        ({"obs": [], "acts": [], "terminal": []}, "empty"),
        ({"obs": [OBS], "acts": [ACTS, ACTS], "terminal": [True, True]}, "obs and terminal have different lengths"),
        ({"obs": [OBS, OBS[:2]], "acts": [ACTS, ACTS], "terminal": [True, True]}, "episode 1: expected one more observation"),
        (FLAT | {"observations": OBS}, "both 'obs' and 'observations'"),
        (FLAT | {"obs": OBS}, "different lengths"),
        (FLAT | {"obs": {"x": OBS[:3]}}, "not alike"),
        (FLAT | {"dones": None}, "no array tells where episodes end"),
        (FLAT | {"dones": np.array([0, 2, 1])}, "dones holds numbers other than 0 and 1"),
        (FLAT | {"dones": np.array([True])}, r"dones has shape \(1,\), but there are 3 actions"),
        (FLAT | {"rews": np.ones((3, 2))}, "rews has shape"),
        (FLAT | {"obs": np.array(["a"] * 3)}, "obs has dtype '<U1'"),
        (FLAT | {"obs": [[1], [1, 2], [3]]}, "obs is not an array"),
        (FLAT | {"next_obs": changed(OBS[1:], (2, 0), np.nan)}, r"episode 0 \(transitions 0 to 2\): obs holds nan"),
        ({name: array[:0] for name, array in FLAT.items()}, "empty"),
    ],
)
def test_bad_collections(source, message):
    with pytest.raises(ValueError, match=message):
        load_demonstrations(source)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"n_trajectories": 0}, ValueError, "n_trajectories=0"),
        ({"n_trajectories": 11}, ValueError, "n_trajectories=11: expected an integer between 1 and 10.*holds 10 episodes"),
        ({"n_trajectories": True}, TypeError, "n_trajectories=True"),
        ({"n_trajectories": 2.0}, TypeError, "n_trajectories=2.0"),
        ({"subsample_freq": 0}, ValueError, "subsample_freq=0"),
        ({"subsample_freq": None}, TypeError, "subsample_freq=None"),
        ({"seed": "x"}, TypeError, "seed='x'"),
        ({"seed": -1}, ValueError, "seed=-1"),
        ({"max_episode_steps": 0}, ValueError, "max_episode_steps=0"),
        ({"max_episode_steps": 5.0}, TypeError, "max_episode_steps=5.0"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        load_demonstrations("bundled:CartPole-v1", **arguments)


@pytest.mark.slow
def test_bad_names(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match=r"'bundled:CartPole'.*Use one of \['CartPole-v1'\]"):
        load_demonstrations("bundled:CartPole")
    with pytest.raises(ValueError, match="no such bundled set"):
        load_demonstrations("bundled:../bundled/CartPole-v1")
    for name in ("minari:some/name", "minari:../x-v0", "hf:name", "hf:/etc/passwd"):
        with pytest.raises(ValueError, match=f"expert_data '{name}': not the (id|name) of a data set. Use "):
            load_demonstrations(name)
    for name in ("s3://bucket/set", "https://example.org/set", "nonsense:x"):
        with pytest.raises(ValueError, match="unknown scheme"):
            load_demonstrations(name)
    monkeypatch.delenv("SB3_IQ_DEMOS", raising=False)
    with pytest.raises(ValueError, match="SB3_IQ_DEMOS is not set"):
        load_demonstrations("demos:CartPole-v1")
    monkeypatch.setenv("SB3_IQ_DEMOS", str(tmp_path))
    with pytest.raises(ValueError, match="no environment id"):
        load_demonstrations("demos:")
    with pytest.raises(FileNotFoundError, match="Check the name and SB3_IQ_DEMOS"):
        load_demonstrations("demos:Nothing-v0")
    for missing in (tmp_path / "nothing", tmp_path / "nothing.npz", "", "nothing", "\0", "x" * 5000):
        with pytest.raises((FileNotFoundError, ValueError), match="expert_data") as caught:
            load_demonstrations(missing)
        assert len(str(caught.value)) < 500


def test_folders_that_are_no_data_sets(tmp_path, folder):
    with pytest.raises(ValueError, match=r"not a data set \(no state.json"):
        load_demonstrations(tmp_path)
    with pytest.raises(ValueError, match="Give the folder that holds this file"):
        load_demonstrations(folder / "data-00000-of-00001.arrow")
    for name, content in (("agent.zip", b"no zip"), ("notes.txt", b""), ("fake.npz", b"\x00" * 100)):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="not a data set, or is damaged"):
            load_demonstrations(tmp_path / name)
    (tmp_path / "old.pkl").write_bytes(b"\x80\x04N.")
    with pytest.raises(ValueError, match=r"a pickle, which can run code and is not read.*allow_pickle=True"):
        load_demonstrations(tmp_path / "old.pkl")
    two = datasets.DatasetDict({name: datasets.load_from_disk(str(folder)) for name in ("train", "test")})
    two.save_to_disk(str(tmp_path / "two"))
    with pytest.raises(ValueError, match=r"there are the splits \['train', 'test'\]"):
        load_demonstrations(tmp_path / "two")
    assert len(load_demonstrations(tmp_path / "two" / "test").trajectories) == 3


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("state.json", "{", "cannot be read as JSON"),
        ("state.json", "[]", "lists no data files"),
        ("state.json", '{"_data_files": []}', "holds no episode"),
        ("state.json", '{"_data_files": [{"filename": "../set/data-00000-of-00001.arrow"}]}', "does not lie in the folder"),
        ("state.json", '{"_data_files": [{"filename": "other.arrow"}]}', "no such file"),
        ("data-00000-of-00001.arrow", "", "cannot be read as an Arrow stream"),
        ("data-00000-of-00001.arrow", "version https://git-lfs.github.com/spec/v1", "cannot be read as an Arrow stream"),
        ("card.json", "{", "cannot be read as JSON"),
        ("card.json", "[]", "not a JSON object"),
        ("card.json", '{"max_episode_steps": "many"}', "max_episode_steps is 'many' in card.json"),
    ],
)
def test_damaged_folders(folder, name, content, message):
    (folder / name).write_text(content)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        load_demonstrations(folder)


@pytest.mark.parametrize("share", [0.01, 0.3, 0.6, 0.9, 0.999])
def test_truncated_files(tmp_path, folder, share):
    file = folder / "data-00000-of-00001.arrow"
    file.write_bytes(file.read_bytes()[: int(share * file.stat().st_size)])
    with pytest.raises(ValueError, match="truncated, damaged"):
        load_demonstrations(folder)
    np.savez(tmp_path / "set.npz", **FLAT)
    data = (tmp_path / "set.npz").read_bytes()
    (tmp_path / "set.npz").write_bytes(data[: int(share * len(data))])
    with pytest.raises(ValueError, match="truncated, damaged"):
        load_demonstrations(tmp_path / "set.npz")


def test_stream_that_is_cut_between_batches(tmp_path, folder):
    file = folder / "data-00000-of-00001.arrow"
    table = pa.ipc.open_stream(file.read_bytes()).read_all()
    with pa.OSFile(str(file), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table, max_chunksize=1)
    assert len(load_demonstrations(folder).trajectories) == 3
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match="the end of the stream is missing"):
        load_demonstrations(folder)


COLUMNS = {"obs": [OBS.tolist()], "acts": [ACTS.tolist()], "terminal": [True]}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"terminal": None}, r"the columns \['terminal'\] are missing"),
        ({"terminal": [1]}, "the column 'terminal' is 'int64'"),
        ({"terminal": [None]}, "'terminal' is 'null'"),
        ({"terminal": pa.array([None], pa.bool_())}, "episode 0: terminal is null"),
        ({"obs": ["text"]}, "the column 'obs' is 'string'"),
        ({"obs": [1.0]}, "the column 'obs' is 'double'"),
        ({"obs": [[["a"]]]}, "expected lists of numbers"),
        ({"obs": [[{"x": 1.0}]]}, "expected lists of numbers"),
        ({"obs": pa.array([1]).dictionary_encode()}, "expected lists of numbers"),
        ({"obs": pa.array([None], pa.list_(pa.float32()))}, "obs is null"),
        ({"obs": [[[1.0], [1.0, 2.0], [1.0], [1.0]]]}, "obs is ragged: lists of 1 to 2"),
        ({"obs": [[[1.0], None, [1.0], [1.0]]]}, "obs holds nulls"),
        ({"obs": [[[1.0], [None], [1.0], [1.0]]]}, "obs holds nulls"),
        ({"obs": [[]], "acts": [[]]}, "at least one step"),
        ({"acts": [[0, 1]]}, "one more observation than actions"),
        ({"rews": [[1.0]]}, r"rews has shape \(1,\)"),
        ({"obs": [[1.0, 2.0, float("nan"), 3.0]]}, "obs holds nan"),
    ],
)
def test_malformed_columns(tmp_path, columns, message):
    merged = {name: values for name, values in (COLUMNS | columns).items() if values is not None}
    batch = pa.RecordBatch.from_pydict(
        {name: pa.array(values) if isinstance(values, list) else values for name, values in merged.items()}
    )
    with pa.OSFile(str(tmp_path / "x.arrow"), "wb") as file, pa.ipc.new_stream(file, batch.schema) as writer:
        writer.write_batch(batch)
    (tmp_path / "state.json").write_text(json.dumps({"_data_files": [{"filename": "x.arrow"}]}))
    with pytest.raises(ValueError, match=message):
        load_demonstrations(tmp_path)


LEGACY = {"obs": np.zeros((7, 2)), "acts": np.zeros(5, int), "terminal": np.array([True, True]), "indices": np.array([3])}


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"acts": None}, r"the arrays \['acts'\] are missing"),
        ({"terminal": np.array([True])}, "do not split 5 actions"),
        ({"terminal": np.array([1, 1])}, "one bool for each episode"),
        ({"indices": np.array([9])}, "do not split 5 actions"),
        ({"indices": np.array([-1])}, "do not split 5 actions"),
        ({"indices": np.array([0.5])}, "list of integers"),
        ({"indices": np.array([0])}, "episode 0: an episode needs at least one step"),
        ({"obs": np.zeros((6, 2))}, "obs and acts have different lengths: 6 observations and 5 actions in 2 episodes"),
        ({"rews": np.zeros(4)}, "as many rewards"),
        ({"acts": np.int64(0)}, "acts is a single number"),
        ({"obs": np.array([None] * 7)}, "pickled objects are never read"),
        ({"obs": np.array(["x"] * 7)}, "expected numbers"),
    ],
)
def test_malformed_npz(tmp_path, arrays, message):
    merged = {name: array for name, array in (LEGACY | arrays).items() if array is not None}
    np.savez(tmp_path / "set.npz", **merged)
    with pytest.raises(ValueError, match=message):
        load_demonstrations(tmp_path / "set.npz")


def test_npz_without_arrays(tmp_path):
    np.savez(tmp_path / "weights.npz", w=np.zeros(3))
    with pytest.raises(ValueError, match=r"no arrays obs and acts in this file, only .*w\.npy"):
        load_demonstrations(tmp_path / "weights.npz")


@pytest.mark.slow
@pytest.mark.both_stacks
def test_npz_that_claims_too_much(tmp_path):
    """A header that asks for a hundred terabytes, a bomb, and a compression that numpy does not write."""
    np.savez(tmp_path / "set.npz", **LEGACY)
    with zipfile.ZipFile(tmp_path / "set.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    huge = members["obs.npy"].replace(b"(7, 2), }" + b" " * 12, b"(70000000000, 200), }")
    assert huge != members["obs.npy"]
    with zipfile.ZipFile(tmp_path / "huge.npz", "w") as archive:
        for name, data in (members | {"obs.npy": huge}).items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match=r"'obs' has shape \(70000000000, 200\)"):
        load_demonstrations(tmp_path / "huge.npz")
    bomb = members["obs.npy"].replace(b"(7, 2), }" + b" " * 6, b"(4000000, 2), }") + bytes(64_000_000 - 7 * 16)
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (members | {"obs.npy": bomb}).items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="4000000 observations and 5 actions"):  # as large as it says: honest, and refused
        load_demonstrations(tmp_path / "bomb.npz")
    claim = (tmp_path / "bomb.npz").read_bytes()
    size = (len(bomb)).to_bytes(4, "little")
    (tmp_path / "claim.npz").write_bytes(claim.replace(size, b"\xff\xff\xff\x7f"))
    with pytest.raises(ValueError, match="claims 2147483647 bytes"):
        load_demonstrations(tmp_path / "claim.npz")
    with zipfile.ZipFile(tmp_path / "bzip.npz", "w", zipfile.ZIP_BZIP2) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    with pytest.raises(ValueError, match="compressed in a way that numpy does not write"):
        load_demonstrations(tmp_path / "bzip.npz")


def test_unreadable_output(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot be written"):
        save_trajectories([Trajectory(OBS, ACTS, None, True, False)], tmp_path / "file" / "set")
    with pytest.raises(ValueError, match="only some episodes have rewards"):
        episodes = [Trajectory(OBS, ACTS, rews, True, False) for rews in (None, np.ones(3))]
        save_trajectories(episodes, tmp_path / "set")
    with pytest.raises(ValueError, match="n_episodes=0"):
        record(lambda obs: 0, RandomEnv(BOX, DISCRETE), 0)
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (PermissionError(13, "Permission denied"), "no permission to read it. Check the owner and the mode"),
        (MemoryError("malloc of size 10"), r"not enough memory to read it as an Arrow stream \(.*Choose fewer episodes"),
        (FileNotFoundError(2, "No such file"), "no such file"),
    ],
)
def test_errors_of_the_system_are_not_called_damage(folder, monkeypatch, error, message):
    def refuse(path):
        raise error

    monkeypatch.setattr("sb3_iq.demonstrations.sources.arrow.map_file", refuse)
    with pytest.raises(type(error), match=rf"expert_data .*arrow': {message}") as caught:
        load_demonstrations(folder)
    assert "damaged" not in str(caught.value)


def test_a_folder_in_the_place_of_a_file(folder):
    (file,) = folder.glob("*.arrow")
    file.unlink()
    file.mkdir()
    with pytest.raises(IsADirectoryError, match="this is a folder, but a file is expected"):
        load_demonstrations(folder)
