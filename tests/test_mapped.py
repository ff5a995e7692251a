"""Data larger than memory: a memory-mapped folder gives what the same folder gives in memory, and takes little of it."""

import gc
import mmap
import os
import subprocess
import sys
import textwrap
import weakref

import numpy as np
import pyarrow as pa
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from sb3_iq import IQLearn
from sb3_iq.demonstrations import ExpertBuffer, Trajectory, load_demonstrations
from sb3_iq.demonstrations.__main__ import main
from sb3_iq.demonstrations.report import make_report
from sb3_iq.demonstrations.saving import save_trajectories
from sb3_iq.demonstrations.storage import is_mapped
from tests.utils import DISCRETE, NoStepEnv

LENGTHS = (7, 20, 1, 20)
BOX, WIDE = spaces.Box(-np.inf, np.inf, (5,)), spaces.Box(np.array([-2.0, 0.0]), np.array([2.0, 4.0]), dtype=np.float64)
CASES = {
    "vectors": (BOX, WIDE, lambda rng, n: rng.normal(size=(n, 5)), lambda rng, n: rng.uniform(-0.1, 2.1, (n, 2))),
    "narrow": (
        spaces.Box(-np.inf, np.inf, (5,), np.float64),
        spaces.Box(-1, 1, (2, 2)),
        lambda rng, n: rng.normal(size=(n, 5)).astype(np.float32),
        lambda rng, n: rng.uniform(-1, 1, (n, 2, 2)).astype(np.float32),
    ),
    "transposed": (
        spaces.Box(0, 255, (3, 8, 6), np.uint8),
        DISCRETE,
        lambda rng, n: rng.integers(0, 256, (n, 8, 6, 3)).astype(np.uint8),
        lambda rng, n: rng.integers(0, 3, n),
    ),
    "codes": (
        spaces.Discrete(7),
        DISCRETE,
        lambda rng, n: rng.integers(0, 7, n),
        lambda rng, n: rng.integers(0, 3, (n, 1)) * 1.0,
    ),
    "bits": (
        spaces.MultiBinary(4),
        spaces.Box(0, 1, (1,)),
        lambda rng, n: rng.integers(0, 2, (n, 4)).astype(bool),
        lambda rng, n: rng.uniform(0, 1, n),
    ),
}
SELECTIONS = [{}, {"subsample_freq": 3}, {"n_trajectories": 2, "seed": 1, "max_episode_steps": 20}]


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Several chunks for each episode."""
    monkeypatch.setattr("sb3_iq.demonstrations.storage.CHUNK_BYTES", 100)


def make_arrays(case):
    """Return observations, actions and rewards of some episodes."""
    _, _, make_obs, make_acts = CASES[case]
    rng = np.random.default_rng(0)
    return [(make_obs(rng, n + 1), make_acts(rng, n), rng.normal(size=n)) for n in LENGTHS]


def save(folder, case="vectors"):
    """Write a folder; the ends of its episodes are only assumed, so that a time limit counts."""
    save_trajectories([Trajectory(*arrays, True, False, ending="assumed") for arrays in make_arrays(case)], folder)
    return folder


def both(folder, **kwargs):
    """Return the same demonstrations in memory and mapped."""
    return tuple(load_demonstrations(folder, max_memory_gb=limit, **kwargs) for limit in (float("inf"), 0))


def arrays_of(samples):
    return {name: getattr(samples, name) for name in ("observations", "actions", "next_observations", "dones", "rewards")}


@pytest.mark.parametrize("selection", SELECTIONS)
@pytest.mark.parametrize("case", CASES)
@pytest.mark.filterwarnings("ignore:Expert data")  # actions beyond the bounds, and bits, which can't be mapped
def test_mapped_is_as_in_memory(tmp_path, case, selection):
    in_memory, mapped = both(save(tmp_path / "set", case), **selection)
    for one, other in zip(in_memory.trajectories, mapped.trajectories, strict=True):
        assert not is_mapped(one.obs) and is_mapped(other.rews) and is_mapped(other.obs) == (case != "bits")
        assert (one.terminated, one.truncated, one.ending) == (other.terminated, other.truncated, other.ending)
        for name in ("obs", "acts", "rews"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name), strict=False)
            assert getattr(one, name).dtype == getattr(other, name).dtype
    assert in_memory.content_hash == mapped.content_hash
    assert in_memory.describe() == mapped.describe()
    obs_space, action_space = CASES[case][:2]
    assert make_report(in_memory, obs_space, action_space) == make_report(mapped, obs_space, action_space)
    assert make_report(in_memory) == make_report(mapped)

    first, second = (ExpertBuffer(d, obs_space, action_space, rng=np.random.default_rng(0)) for d in (in_memory, mapped))
    assert first.mapped_bytes == 0 and (second.nbytes == 0) == (case != "bits") and second.mapped_bytes > 0
    for draw in (lambda buffer: arrays_of(buffer.all()), lambda buffer: arrays_of(buffer.sample(50))):
        for ours, theirs in zip(draw(first).values(), draw(second).values(), strict=True):
            assert ours.dtype == theirs.dtype and th.equal(ours, theirs)
    assert th.equal(first.sample_initial_observations(9), second.sample_initial_observations(9))
    everything = [np.concatenate(list(buffer.scan_observations())) for buffer in (first, second)]
    np.testing.assert_array_equal(*everything)
    np.testing.assert_array_equal(everything[0], first.all().observations)


def test_dictionaries(tmp_path):
    """One column for each key, of which each may be mapped."""
    space = spaces.Dict({"image": CASES["transposed"][0], "x.y": BOX})
    rng, episodes = np.random.default_rng(0), []
    for n in LENGTHS:
        obs = {"image": CASES["transposed"][2](rng, n + 1), "x.y": CASES["vectors"][2](rng, n + 1)}
        episodes.append(Trajectory(obs, rng.integers(0, 3, n), rng.normal(size=n), True, False))
    save_trajectories(episodes, tmp_path / "set")
    in_memory, mapped = both(tmp_path / "set")
    assert all(is_mapped(array) for array in mapped[1].obs.values())
    assert in_memory.content_hash == mapped.content_hash == load_demonstrations(episodes).content_hash
    first, second = (ExpertBuffer(d, space, DISCRETE, rng=np.random.default_rng(0)) for d in (in_memory, mapped))
    for ours, theirs in zip(arrays_of(first.sample(50)).values(), arrays_of(second.sample(50)).values(), strict=True):
        for key in ours if isinstance(ours, dict) else [...]:
            assert th.equal(ours[key], theirs[key])
    mapped[1:].save(tmp_path / "again")
    assert load_demonstrations(tmp_path / "again").content_hash == in_memory[1:].content_hash


@pytest.mark.parametrize("missing", ["MADV_DONTNEED", "pread"])
def test_without_what_only_some_systems_have(tmp_path, monkeypatch, missing):
    monkeypatch.delattr(mmap if missing == "MADV_DONTNEED" else os, missing)
    buffers = [ExpertBuffer(d, *CASES["transposed"][:2]) for d in both(save(tmp_path / "set", "transposed"))]
    assert th.equal(*(buffer.all().observations for buffer in buffers))


@pytest.mark.parametrize(
    ("case", "column", "index", "value", "obs_space", "action_space"),
    [
        ("vectors", "obs", (18, 2), np.nan, BOX, WIDE),
        ("vectors", "acts", (19, 1), np.inf, BOX, WIDE),
        ("vectors", "obs", (18, 2), 1e60, BOX, WIDE),
        ("vectors", "acts", (19, 1), 1e3, BOX, WIDE),
        ("vectors", "obs", 0, 0, spaces.Box(-1, 1, (6,)), WIDE),
        ("vectors", "obs", 0, 0, spaces.Box(0, 255, (5,), np.uint8), WIDE),
        ("vectors", "obs", 0, 0, BOX, DISCRETE),
        ("codes", "obs", 18, 7, spaces.Discrete(7), DISCRETE),
        ("codes", "acts", (19, 0), 3, spaces.Discrete(7), DISCRETE),
        ("transposed", "obs", (20, 0, 0, 0), 256, CASES["transposed"][0], DISCRETE),
        ("vectors", "obs", None, "ragged", BOX, WIDE),
        ("vectors", "obs", None, "null", BOX, WIDE),
    ],
)
@pytest.mark.filterwarnings("ignore:Expert data")
def test_refused_with_the_same_words(tmp_path, case, column, index, value, obs_space, action_space):
    columns = dict(zip(("obs", "acts", "rews"), map(list, zip(*make_arrays(case), strict=True)), strict=True))
    columns = {name: [array.tolist() for array in arrays] for name, arrays in columns.items()}
    if value == "ragged":
        columns[column][3][4].pop()
    elif value == "null":
        columns[column][3] = None
    else:
        changed = np.array(columns[column][3])
        changed[index] = value
        columns[column][3] = changed.tolist()
    write_arrow(tmp_path, columns | {"terminal": [True] * len(LENGTHS)})

    def refusal(limit):
        with pytest.raises(ValueError, match=r"episode [03]") as caught:
            ExpertBuffer(load_demonstrations(tmp_path, max_memory_gb=limit), obs_space, action_space)
        return str(caught.value)

    assert refusal(float("inf")) == refusal(0)


def write_arrow(folder, columns):
    table = pa.table(columns)
    with pa.OSFile(str(folder / "data.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    (folder / "state.json").write_text('{"_data_files": [{"filename": "data.arrow"}]}')


def test_a_damaged_file_is_refused(tmp_path):
    save(tmp_path / "set")
    (file,) = (tmp_path / "set").glob("*.arrow")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="damaged"):
        load_demonstrations(tmp_path / "set", max_memory_gb=0)


def test_a_file_that_becomes_shorter_is_told(tmp_path):
    buffer = ExpertBuffer(load_demonstrations(save(tmp_path / "set", "transposed"), max_memory_gb=0), *CASES["transposed"][:2])
    (file,) = (tmp_path / "set").glob("*.arrow")
    os.truncate(file, 100)
    with pytest.raises(ValueError, match="has become shorter"):
        buffer.sample(4)


def test_the_chosen_episodes_decide(tmp_path):
    folder = save(tmp_path / "set")
    n_bytes = [trajectory.nbytes for trajectory in load_demonstrations(folder).trajectories]  # the default is much more
    assert n_bytes == [8 * (5 * (n + 1) + 2 * n + n) for n in LENGTHS]
    for limit, n, mapped in ((sum(n_bytes), 4, False), (sum(n_bytes) - 1, 4, True), (sum(n_bytes[:2]), 2, False)):
        chosen = load_demonstrations(folder, n_trajectories=n, max_memory_gb=limit / 1e9).trajectories
        assert {is_mapped(trajectory.obs) for trajectory in chosen} == {mapped}


@pytest.mark.parametrize(
    ("value", "error"), [("2", TypeError), (True, TypeError), (None, TypeError), (-1, ValueError), (float("nan"), ValueError)]
)
def test_wrong_limits(value, error):
    with pytest.raises(error, match="max_memory_gb="):
        load_demonstrations("bundled:CartPole-v1", max_memory_gb=value)


def test_what_cannot_be_mapped_is_told(tmp_path):
    arrays = {"obs": np.zeros((6, 3)), "acts": np.zeros(5, int), "rews": np.zeros(5)}
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.warns(UserWarning, match=r"2\.24e-07 GB are read into memory, more than max_memory_gb=1e-07.*save_to_disk"):
        load_demonstrations(tmp_path / "set.npz", max_memory_gb=1e-7)


def test_arrays_mapped_by_the_user(tmp_path):
    rng = np.random.default_rng(0)
    expected = Trajectory(rng.normal(size=(6, 5)), rng.integers(0, 3, 5), None, True, False)
    np.save(tmp_path / "obs.npy", expected.obs)
    obs = np.load(tmp_path / "obs.npy", mmap_mode="r")
    mapped = Trajectory(obs, expected.acts, None, True, False)
    assert mapped.nbytes == expected.acts.nbytes
    mixed = ExpertBuffer(load_demonstrations([mapped, expected]), BOX, DISCRETE).all()  # side by side with one in memory
    plain = ExpertBuffer(load_demonstrations([expected] * 2), BOX, DISCRETE).all()
    assert all(th.equal(a, b) for a, b in zip(arrays_of(mixed).values(), arrays_of(plain).values(), strict=True))
    copied = Trajectory(np.load(tmp_path / "obs.npy", mmap_mode="c"), expected.acts, None, True, False)
    assert not is_mapped(copied.obs)  # what is changed in such an array is nowhere else


@pytest.mark.parametrize("normalised", [False, True])
def test_learning_is_the_same(tmp_path, normalised):
    parameters = []
    for demonstrations in both(save(tmp_path / "set"), subsample_freq=2):
        env = DummyVecEnv([lambda: NoStepEnv(BOX, WIDE)])
        env = VecNormalize(env, norm_reward=False) if normalised else env
        model = IQLearn("MlpPolicy", env, demonstrations, offline=True, seed=0, batch_size=8, device="cpu").learn(5)
        parameters.append(np.concatenate([p.detach().flatten().numpy() for p in model.policy.parameters()]))
        if normalised:
            assert env.obs_rms.count > 20
    # Statistics of all and of pieces differ by rounding
    np.testing.assert_allclose(*parameters, rtol=1e-3 if normalised else 0, atol=1e-5 if normalised else 0)


def test_the_report(tmp_path, capsys, monkeypatch):
    save(tmp_path / "set")
    monkeypatch.setattr(
        "sb3_iq.demonstrations.__main__.load_demonstrations", lambda *a, **k: load_demonstrations(*a, max_memory_gb=0, **k)
    )
    monkeypatch.setattr("gymnasium.make", lambda _: NoStepEnv(BOX, WIDE))
    assert main([str(tmp_path / "set"), "--env", "x"]) == 0
    assert "48 transitions in 0.0 MB of memory-mapped files" in capsys.readouterr().out


def test_the_buffer_keeps_no_second_copy():
    demonstrations = load_demonstrations([Trajectory(*arrays, True, False) for arrays in make_arrays("narrow")])
    kept = weakref.ref(demonstrations.trajectories[0])
    buffer = ExpertBuffer(demonstrations, *CASES["narrow"][:2])
    own = sum(trajectory.nbytes for trajectory in demonstrations.trajectories)
    del demonstrations
    gc.collect()
    assert kept() is None
    assert buffer.nbytes < own  # rewards of float64 are the wider ones here; observations of float32 stay as they are
    assert buffer.sample(2).observations.dtype == th.float64


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_resident_memory(tmp_path):
    n_episodes, n, shape = 16, 500, (4, 84, 84)  # 226 MB
    values = pa.array(np.random.default_rng(0).integers(0, 256, n_episodes * (n + 1) * int(np.prod(shape)), dtype=np.uint8))
    for length in shape[::-1]:
        values = pa.FixedSizeListArray.from_arrays(values, length)
    obs = pa.ListArray.from_arrays(pa.array(np.arange(n_episodes + 1) * (n + 1), pa.int32()), values)
    acts = [[number % 3] * n for number in range(n_episodes)]
    write_arrow(tmp_path, {"obs": obs, "acts": acts, "terminal": [True] * n_episodes})
    script = """
        import sys, numpy as np
        from gymnasium import spaces
        from sb3_iq.demonstrations import ExpertBuffer, load_demonstrations
        import pyarrow

        def peak():
            return int(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))) / 1024

        before = peak()
        demonstrations = load_demonstrations(sys.argv[1], max_memory_gb=0.1)
        buffer = ExpertBuffer(demonstrations, spaces.Box(0, 255, (4, 84, 84), np.uint8), spaces.Discrete(3))
        demonstrations.content_hash
        for _ in range(100):
            buffer.sample(32)
        print(peak() - before)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)]
    out = subprocess.run(command, capture_output=True, text=True, check=True)
    assert float(out.stdout) < 100
