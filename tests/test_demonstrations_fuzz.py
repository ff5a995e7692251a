"""Damaged files: they are refused with our errors or loaded as valid data, without a crash or a hang."""

import io
import json
import tempfile
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from sb3_iq.demonstrations import ExpertBuffer, Trajectory, load_demonstrations
from sb3_iq.demonstrations.saving import save_trajectories

pytestmark = pytest.mark.slow

ARROW = "data-00000-of-00001.arrow"
SETTINGS = settings(max_examples=300, derandomize=True, deadline=None, database=None)
BYTE_EDITS = st.lists(
    st.tuples(
        st.sampled_from(["flip", "overwrite", "insert", "delete", "truncate"]),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(
            [b"\x00", b"\xff", b"\x7f", b"\x00" * 8, b"\xff" * 4, b"\xff" * 8, b"\xff\xff\xff\x7f", b"\x01\x00\x00\x00"]
        ),
    ),
    min_size=1,
    max_size=4,
)


def make_episodes() -> list[Trajectory]:
    rng = np.random.default_rng(0)
    return [
        Trajectory(rng.normal(size=(n + 1, 4)).astype(np.float32), rng.integers(0, 2, n), np.ones(n), k < 2, k == 2)
        for k, n in enumerate((4, 2, 6))
    ]


VALID = make_episodes()
VALID_HASH = load_demonstrations(VALID).content_hash


def _folder_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        save_trajectories(VALID, folder, {"env_id": "CartPole-v1", "max_episode_steps": 500})
        return {file.name: file.read_bytes() for file in Path(folder).iterdir()}


FOLDER = _folder_files()
LEGACY = {
    "obs": np.concatenate([np.asarray(e.obs) for e in VALID]),
    "acts": np.concatenate([e.acts for e in VALID]),
    "rews": np.ones(12),
    "infos": np.array([{}] * 12, dtype=object),
    "terminal": np.array([True] * 3),
    "indices": np.array([4, 6]),
}
FLAT = {
    "obs": np.concatenate([np.asarray(e.obs)[:-1] for e in VALID]),
    "acts": LEGACY["acts"],
    "next_obs": np.concatenate([np.asarray(e.obs)[1:] for e in VALID]),
    "terminated": np.isin(np.arange(12), (3, 5)),
    "truncated": np.arange(12) == 11,
    "rews": LEGACY["rews"],
}


def edit(data: bytes, edits: list[tuple[str, float, bytes]]) -> bytes:
    for kind, share, value in edits:
        at = int(share * len(data))
        if kind == "flip" and data:
            data = data[:at] + bytes([data[at] ^ (value[0] | 1)]) + data[at + 1 :]
        elif kind == "overwrite":
            data = data[:at] + value + data[at + len(value) :]
        elif kind == "insert":
            data = data[:at] + value + data[at:]
        elif kind == "delete":
            data = data[:at] + data[at + len(value) :]
        elif kind == "truncate":
            data = data[:at]
    return data


def load_or_refuse(path: Path, max_memory_gb: float = 1.0) -> str | None:
    """Load what is at ``path`` as far as a training would, and return the hash; None if it is refused with our errors."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NumPy warns of odd headers
        try:
            demos = load_demonstrations(path, max_memory_gb=max_memory_gb)
        except (ValueError, TypeError, FileNotFoundError) as error:
            assert "expert_data" in str(error), error
            return None
        for trajectory in demos.trajectories:  # valid, whatever was changed
            obs = np.asarray(trajectory.obs)
            assert len(obs) == len(trajectory) + 1 and np.isfinite(obs).all()
            assert trajectory.acts is None or np.isfinite(trajectory.acts).all()
        try:
            samples = ExpertBuffer(demos, spaces.Box(-np.inf, np.inf, (4,)), spaces.Discrete(2)).sample(4)
            assert samples.actions.min() >= 0 and samples.actions.max() <= 1
        except ValueError as error:
            assert "expert_data" in str(error)
        return demos.content_hash


def load_folder(files: dict[str, bytes]) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        for name, data in files.items():
            (Path(folder) / name).write_bytes(data)
        result = load_or_refuse(Path(folder))
        assert load_or_refuse(Path(folder), max_memory_gb=0) == result  # memory-mapped
        return result


def load_npz(data: bytes) -> str | None:
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "set.npz").write_bytes(data)
        return load_or_refuse(Path(folder) / "set.npz")


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    return stream.getvalue()


def test_unchanged_files_load():
    assert load_folder(FOLDER) == VALID_HASH
    assert load_npz(npz_bytes(FLAT)) == VALID_HASH
    assert load_npz(npz_bytes(LEGACY)) is not None


@SETTINGS
@given(st.sampled_from([*sorted(FOLDER), ARROW, ARROW, ARROW]), BYTE_EDITS)
def test_bytes_of_a_folder(name, edits):
    result = load_folder(FOLDER | {name: edit(FOLDER[name], edits)})
    if name == "dataset_info.json":
        assert result == VALID_HASH  # this file is not needed


@SETTINGS
@given(st.sampled_from([LEGACY, FLAT]), BYTE_EDITS)
def test_bytes_of_an_npz(arrays, edits):
    load_npz(edit(npz_bytes(arrays), edits))


@SETTINGS
@given(st.sampled_from([LEGACY, FLAT]), st.data())
def test_bytes_of_an_npz_member(arrays, data):
    """The checksums of the archive are right, so that the damage reaches the reader of arrays."""
    stream = io.BytesIO()
    damaged = data.draw(st.sampled_from(sorted(arrays)))
    # Most of the damage is in the header
    edits = data.draw(BYTE_EDITS)
    with (
        zipfile.ZipFile(io.BytesIO(npz_bytes(arrays))) as source,
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as target,
    ):
        for member in source.namelist():
            content = source.read(member)
            if member == f"{damaged}.npy":
                head = data.draw(st.sampled_from([96, len(content)]))
                content = edit(content[:head], edits) + content[head:]
            target.writestr(member, content)
    load_npz(stream.getvalue())


def retype(array: np.ndarray, how: str) -> np.ndarray:
    if how == "object":
        return array.astype(object)
    if how == "void":
        return np.zeros(array.shape, dtype=[("x", "<f4")])
    with np.errstate(invalid="ignore"):
        return array.astype({"text": "U8", "half": "<f2", "big": ">f8", "complex": "c16", "bool": "?", "int8": "i1"}[how])


def reshape(array: np.ndarray, how: str) -> np.ndarray:
    if array.ndim == 0:
        return array[None]
    changes: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "scalar": lambda a: a.reshape(-1)[0],
        "empty": lambda a: a[:0],
        "shorter": lambda a: a[:-1],
        "longer": lambda a: np.concatenate([a, a[-1:]]),
        "flat": lambda a: a.reshape(-1),
        "column": lambda a: a.reshape(-1, 1),
        "deeper": lambda a: a[..., None, None],
        "nothing": lambda a: np.zeros((len(a), 0)),
        "fortran": np.asfortranarray,
        "transposed": np.transpose,
    }
    return np.asarray(changes[how](array))


@SETTINGS
@given(st.sampled_from([LEGACY, FLAT]), st.data())
def test_columns_of_an_npz(arrays, data):
    changed = dict(arrays)
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(changed)))
        kind = data.draw(st.sampled_from(["drop", "rename", "retype", "reshape"]))
        if kind == "drop":
            del changed[name]
        elif kind == "rename":
            changed[data.draw(st.sampled_from(["obs", "acts", "dones", "terminal", "indices", "other"]))] = changed.pop(name)
        elif changed[name].dtype != object and changed[name].dtype.kind in "biuf" and changed[name].size:
            how = ["object", "void", "text", "half", "big", "complex", "bool", "int8"]
            shapes = ["scalar", "empty", "shorter", "longer", "flat", "column", "deeper", "nothing", "fortran", "transposed"]
            change, choices = (retype, how) if kind == "retype" else (reshape, shapes)
            changed[name] = change(changed[name], data.draw(st.sampled_from(choices)))
        if not changed:
            break
    load_npz(npz_bytes(changed))


ARROW_TYPES = [
    pa.list_(pa.list_(pa.float64())),
    pa.list_(pa.list_(pa.float16(), 4)),
    pa.large_list(pa.list_(pa.float32(), 4)),
    pa.list_(pa.list_(pa.int8())),
    pa.list_(pa.int64()),
    pa.large_list(pa.float32()),
    pa.list_(pa.string()),
    pa.list_(pa.bool_()),
    pa.string(),
    pa.bool_(),
    pa.int8(),
]


@SETTINGS
@given(st.data())
def test_columns_of_a_folder(data):
    table = pa.ipc.open_stream(FOLDER[ARROW]).read_all()
    columns = {name: table[name].combine_chunks() for name in table.column_names}
    for _ in range(data.draw(st.integers(1, 3))):
        name = data.draw(st.sampled_from(sorted(columns)))
        kind = data.draw(st.sampled_from(["drop", "rename", "retype", "null", "cut", "empty"]))
        values = columns[name].to_pylist()
        if kind == "drop":
            del columns[name]
        elif kind == "rename":
            columns[data.draw(st.sampled_from(["obs", "acts", "terminal", "rews", "other"]))] = columns.pop(name)
        elif kind == "retype":
            try:
                columns[name] = pa.array(values, type=data.draw(st.sampled_from(ARROW_TYPES)))
            except (pa.ArrowInvalid, pa.ArrowTypeError, TypeError):
                continue
        else:
            row = data.draw(st.integers(0, len(values) - 1))
            if kind == "null" or not isinstance(values[row], list):
                values[row] = None
            elif kind == "cut":
                values[row] = values[row][:-1]
            else:
                values[row] = []
            columns[name] = pa.array(values, type=columns[name].type)
        if not columns:
            break
    sink = pa.BufferOutputStream()
    batch = pa.RecordBatch.from_pydict(columns)
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(batch)
    load_folder(FOLDER | {ARROW: sink.getvalue().to_pybytes()})


@SETTINGS
@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5), lambda inner: st.lists(inner, max_size=2))
)
def test_json_of_a_folder(value):
    for name, content in (
        ("state.json", value),
        ("state.json", {"_data_files": value}),
        ("state.json", {"_data_files": [{"filename": value}]}),
        ("card.json", value),
        ("card.json", {"max_episode_steps": value}),
    ):
        load_folder(FOLDER | {name: json.dumps(content).encode()})
