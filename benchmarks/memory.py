"""
Memory: demonstrations larger than memory, what mapping them costs, and what a run takes beyond its replay buffer.

``vectors`` and ``images`` write a data set of ``--gb`` GB, train on it offline and report the peak of the resident memory;
``speed`` trains on a small one, in memory and mapped; ``growth`` compares a model that learns online with the sizes of its
replay buffer and demonstrations; ``stacks`` measures what 100,000 transitions of four stacked frames take. Each run is a
process of its own, and a line of ``results/memory.jsonl``. Linux only.

    OMP_NUM_THREADS=1 python benchmarks/memory.py --folder FOLDER     # with room for the data, which is deleted again
"""

import argparse
import gc
import json
import multiprocessing as mp
import os
import shlex
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from run import RESULTS, git_commit

SHARD_BYTES = 5 * 10**8  # as datasets.Dataset.save_to_disk does
REPLAY_SIZE = 500_000
N_SAMPLED = 100
TIMES = ("wall_s", "cpu_s")


@dataclass(frozen=True)
class Kind:
    """A kind of data and how it is learned; ``acts_shape=()`` stands for six discrete actions."""

    policy: str
    obs_shape: tuple[int, ...]
    obs_dtype: str
    acts_shape: tuple[int, ...]
    episode_length: int
    batch_size: int
    steps: int

    def spaces(self) -> dict[str, Any]:
        from gymnasium import spaces

        box: dict[str, Any] = {"low": 0, "high": 255} if self.obs_dtype == "uint8" else {"low": -np.inf, "high": np.inf}
        return {
            # float64 as Gymnasium's MuJoCo environments have it; their recordings are float32
            "observation_space": spaces.Box(**box, shape=self.obs_shape, dtype=self.space_dtype()),
            "action_space": spaces.Box(-1.0, 1.0, self.acts_shape) if self.acts_shape else spaces.Discrete(6),
        }

    def space_dtype(self) -> Any:
        return np.uint8 if self.obs_dtype == "uint8" else np.float64

    def bytes_per_step(self) -> int:
        n_obs, n_acts = int(np.prod(self.obs_shape)), int(np.prod(self.acts_shape))
        return n_obs * np.dtype(self.obs_dtype).itemsize + (4 * n_acts if self.acts_shape else 8) + 4


KINDS = {
    "vectors": Kind("MlpPolicy", (17,), "float32", (6,), 1000, 256, 3000),  # HalfCheetah-v5
    "images": Kind("CnnPolicy", (4, 84, 84), "uint8", (), 500, 32, 300),  # Atari
    "hopper": Kind("MlpPolicy", (11,), "float32", (3,), 1000, 256, 0),  # Hopper-v5
}


def write(folder: Path, kind: Kind, n_bytes: float) -> None:
    """Write a folder of random episodes as ``datasets`` does, some at a time."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    n_episodes = max(1, round(n_bytes / kind.bytes_per_step() / kind.episode_length))
    per_shard = max(1, int(SHARD_BYTES / kind.bytes_per_step() / kind.episode_length))
    names: list[str] = []
    for first in range(0, n_episodes, per_shard):
        names.append(f"data-{len(names):05}.arrow")
        rows = [episode(kind, rng) for _ in range(first, min(first + per_shard, n_episodes))]
        # datasets makes batches of up to 1000 rows
        table = pa.Table.from_batches(rows).combine_chunks()
        with pa.OSFile(str(folder / names[-1]), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=1000)
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))


def episode(kind: Kind, rng: np.random.Generator) -> pa.RecordBatch:
    """Return one row with the columns of imitation's format."""
    n = kind.episode_length
    obs: np.ndarray
    if kind.obs_dtype == "uint8":
        obs = rng.integers(0, 256, (n + 1, *kind.obs_shape), dtype=np.uint8)
    else:
        obs = rng.standard_normal((n + 1, *kind.obs_shape), dtype=np.float32)
    acts = rng.uniform(-1, 1, (n, *kind.acts_shape)).astype(np.float32) if kind.acts_shape else rng.integers(0, 6, n)
    columns = {
        "obs": lists(obs[None]),
        "acts": lists(acts[None]),
        "infos": pa.array([["{}"] * n]),
        "terminal": pa.array([True]),
        "rews": lists(rng.standard_normal((1, n), dtype=np.float32)),
    }
    return pa.RecordBatch.from_pydict(columns)


def lists(array: np.ndarray) -> pa.Array:
    """Return an array as nested lists."""
    values = pa.array(array.reshape(-1))
    for length in array.shape[:0:-1]:
        values = pa.ListArray.from_arrays(pa.array(np.arange(0, len(values) + 1, length), pa.int32()), values)
    return values


def status() -> dict[str, float]:
    """Return the memory of this process: the peak and what is resident now, of which files are a part, in MB (1e6 bytes)."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    names = {"peak": "VmHWM", "resident": "VmRSS", "files": "RssFile"}
    return {name: round(int(lines[key].split()[0]) * 1024 / 1e6, 1) for name, key in names.items()}


def times() -> np.ndarray:
    """Return the seconds that have passed, and those that this process was computing (the machine may be shared)."""
    return np.array([time.perf_counter(), time.process_time()])


def train(folder: Path, name: str, steps: int, max_memory_gb: float) -> dict[str, Any]:
    """Learn offline."""
    import torch as th

    from sb3_iq import IQLearn, load_demonstrations

    th.set_num_threads(1)
    kind = KINDS[name]
    imports = status()
    start = times()
    data = replace(load_demonstrations(folder, max_memory_gb=max_memory_gb), **kind.spaces())
    model = IQLearn(kind.policy, None, data, offline=True, seed=0, batch_size=kind.batch_size, device="cpu")
    del data
    load, loaded = times() - start, status()
    assert model.expert_buffer is not None
    buffer = model.expert_buffer
    start = times()
    for _ in range(N_SAMPLED):
        buffer.sample(kind.batch_size)
    sampling = (times() - start) / N_SAMPLED
    model.learn(10)  # what is only done once
    start = times()
    model.learn(steps, reset_num_timesteps=False)
    learning = (times() - start) / steps
    return {
        "n_transitions": buffer.size(),
        "data_mb": round((buffer.nbytes + buffer.mapped_bytes) / 1e6, 1),
        "mapped": bool(buffer.mapped_bytes),
        "batch_size": kind.batch_size,
        "steps": steps,
        **{f"load_{name}": round(seconds, 2) for name, seconds in zip(TIMES, load, strict=True)},
        **{f"sample_{name}": round(seconds, 5) for name, seconds in zip(TIMES, sampling, strict=True)},
        **{f"step_{name}": round(seconds, 5) for name, seconds in zip(TIMES, learning, strict=True)},
        "mb": {"imported": imports, "loaded": loaded, "trained": status()},
    }


def growth(folder: Path, warm_up_folder: Path) -> dict[str, Any]:
    """Compare the growth of the resident memory with the replay buffer and the demonstrations that it holds."""
    import gymnasium as gym

    from sb3_iq import IQLearn, load_demonstrations

    class RandomEnv(gym.Env):
        def __init__(self) -> None:
            self.__dict__.update(KINDS["hopper"].spaces())
            self.count = 0

        def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
            super().reset(seed=seed)
            return self.observation_space.sample(), {}

        def step(self, action: Any) -> Any:
            self.count += 1
            return self.observation_space.sample(), 1.0, False, self.count % 100 == 0, {}

    def build(data: Path, buffer_size: int) -> IQLearn:
        model = IQLearn("MlpPolicy", RandomEnv(), data, buffer_size=buffer_size, learning_starts=100, seed=0, device="cpu")
        return model.learn(200)

    for _ in range(2):  # libraries are loaded late
        build(warm_up_folder, 1000)
    gc.collect()
    before = status()
    model = build(folder, REPLAY_SIZE)
    replay = model.replay_buffer
    assert replay is not None
    arrays = [value for value in vars(replay).values() if isinstance(value, np.ndarray)]
    for array in arrays:  # as if all transitions had been stored
        array.fill(1)
    gc.collect()
    after = status()
    n_transitions = model.expert_n_transitions
    model = None  # type: ignore[assignment]
    replay_mb = sum(array.nbytes for array in arrays) / 1e6
    demos_mb = sum(trajectory.nbytes for trajectory in load_demonstrations(folder).trajectories) / 1e6
    grown = after["resident"] - before["resident"]
    return {
        "n_transitions": n_transitions,
        "replay_size": REPLAY_SIZE,
        "replay_mb": round(replay_mb, 1),
        "demonstrations_mb": round(demos_mb, 1),
        "growth_mb": round(grown, 1),
        "allowed_mb": round(1.05 * replay_mb + 1.2 * demos_mb, 1),
        "growth_by_size": round(grown / (replay_mb + demos_mb), 3),
        "mb": {"before": before, "after": after},
    }


def stacks(n_episodes: int, episode_length: int, n_stack: int) -> dict[str, Any]:
    """Compare the demonstrations of an environment in VecFrameStack with their single frames."""
    import torch as th
    from gymnasium import spaces
    from stable_baselines3.common.vec_env.stacked_observations import StackedObservations

    from sb3_iq.demonstrations import Demonstrations, ExpertBuffer, Trajectory

    th.set_num_threads(1)
    kind, rng = KINDS["images"], np.random.default_rng(0)
    frame_space = spaces.Box(0, 255, (84, 84, 1), np.uint8)
    episodes, frame_bytes = [], 0
    for _ in range(n_episodes):
        frames = rng.integers(0, 256, (episode_length + 1, *frame_space.shape), dtype=np.uint8)
        stack = StackedObservations(1, n_stack, frame_space)
        obs = np.empty((episode_length + 1, 84, 84, n_stack), np.uint8)
        obs[0] = stack.reset(frames[:1])[0]
        for t, frame in enumerate(frames[1:], start=1):
            obs[t] = stack.update(frame[None], np.array([False]), [{}])[0][0]
        frame_bytes += frames.nbytes
        episodes.append(Trajectory(obs, rng.integers(0, 6, episode_length), None, True, False))
    del frames, obs
    demonstrations = Demonstrations(tuple(episodes))
    stacked_bytes = sum(episode.nbytes for episode in episodes)
    gc.collect()
    before, start = status(), times()
    buffer = ExpertBuffer(demonstrations, spaces.Box(0, 255, kind.obs_shape, np.uint8), spaces.Discrete(6), with_rewards=False)
    building, after = times() - start, status()
    start = times()
    for _ in range(N_SAMPLED):
        buffer.sample(kind.batch_size)
    sampling = (times() - start) / N_SAMPLED
    observation_bytes = buffer._observations[""].nbytes
    return {
        "n_transitions": buffer.size(),
        "frames_mb": round(frame_bytes / 1e6, 1),
        "stacks_mb": round(stacked_bytes / 1e6, 1),
        "observations_mb": round(observation_bytes / 1e6, 1),
        "observations_by_frames": round(observation_bytes / frame_bytes, 4),
        "growth_mb": round(after["resident"] - before["resident"], 1),
        "batch_size": kind.batch_size,
        **{f"build_{name}": round(seconds, 2) for name, seconds in zip(TIMES, building, strict=True)},
        **{f"sample_{name}": round(seconds, 5) for name, seconds in zip(TIMES, sampling, strict=True)},
    }


def in_child(function: Callable[..., dict[str, Any]], *arguments: Any) -> dict[str, Any]:
    """Return what a process of its own computes."""
    with mp.get_context("spawn").Pool(1) as pool:
        return pool.apply(function, arguments)


def run_part(part: str, folder: Path, gb: float, steps: int | None) -> list[dict[str, Any]]:
    if part == "growth":
        write(folder / "growth", KINDS["hopper"], 200_000 * KINDS["hopper"].bytes_per_step())
        write(folder / "warm-up", KINDS["hopper"], 1)
        return [in_child(growth, folder / "growth", folder / "warm-up")]
    if part == "stacks":
        return [in_child(stacks, n_episodes, 100_000 // n_episodes, 4) for n_episodes in (100, 1_000)]
    if part == "speed":
        lines = []
        for name in ("vectors", "images"):
            write(folder / "speed", KINDS[name], 2e8)
            # Two of each, in turns: the machine may be shared
            for limit in (float("inf"), 0.0) * 2:
                arguments = (folder / "speed", name, steps or KINDS[name].steps // 3, limit)
                lines.append({"kind": name, **in_child(train, *arguments)})
        return lines
    write(folder / part, KINDS[part], gb * 1e9)
    # All of it would fit the default's 2 GB where --gb is less
    return [{"kind": part, **in_child(train, folder / part, part, steps or KINDS[part].steps, min(2.0, gb / 2))}]


def main() -> None:
    parts = ("vectors", "images", "speed", "growth", "stacks")
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(parts)}; all if none is given")
    parser.add_argument("--folder", type=Path, required=True, help="where the data are written, and deleted afterwards")
    parser.add_argument("--gb", type=float, default=4.0, help="size of the data set larger than memory")
    parser.add_argument("--steps", type=int, help="gradient steps")
    parser.add_argument("--out", type=Path, default=RESULTS / "memory.jsonl")
    args = parser.parse_args()
    if not set(args.parts) <= set(parts):
        parser.error(f"PART {args.parts}: choose of {', '.join(parts)}")
    os.environ["OMP_NUM_THREADS"] = "1"
    folder = args.folder / "sb3-iq-memory"
    for part in args.parts or parts:
        command = ["python", "benchmarks/memory.py", part, "--folder", "FOLDER", "--gb", str(args.gb)]
        command += ["--steps", str(args.steps)] if args.steps else []
        try:
            lines = run_part(part, folder, args.gb, args.steps)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        for line in lines:
            line = {"part": part, **line, "versions": {name: version(name) for name in ("torch", "numpy", "pyarrow")}}
            line |= {"commit": git_commit(), "command": "OMP_NUM_THREADS=1 " + shlex.join(command)}
            print(json.dumps(line), flush=True)
            with args.out.open("a") as file:
                file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
