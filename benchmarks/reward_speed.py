"""
What LearnedRewardVecEnv adds to a step of 8 environments: one line of ``results/reward-speed.jsonl``.

The environments replay random numbers of Hopper-v5's size (11 observations, 3 actions), of which one in a hundred ends an
episode, and cost next to nothing; their own time is taken off. Networks are untrained, which changes nothing: small ones of
discrete actions (64, 64), the default ones (256, 256), and the default ones of continuous actions (256, 256, LayerNorm, 16
draws of the policy's noise for each V). Beside each is a pass of its network for 8 rows, by PyTorch. Times are CPU times of
one thread, the best of many short turns: other processes on the machine still slow them down, by the caches.

    OMP_NUM_THREADS=1 python benchmarks/reward_speed.py
"""

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from run import RESULTS, git_commit
from speed import ACTIONS, OBSERVATIONS, StandStill, cpu_name, random_demonstrations
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq import IQLearn
from sb3_iq.rewards import LearnedReward, LearnedRewardVecEnv

N_ENVS = 8
N_RECORDED = 64
EPISODE_LENGTH = 100
TURN = 20
ROWS: dict[str, tuple[str, dict[str, Any]]] = {
    "discrete, (64, 64)": ("discrete", {}),
    "discrete, (256, 256)": ("discrete", {"policy_kwargs": {"net_arch": [256, 256]}}),
    "continuous, (256, 256)": ("continuous", {}),
}


class Recorded(VecEnv):
    """
    Environments that replay random numbers.

    :param action_space: their action space
    """

    def __init__(self, action_space: spaces.Space) -> None:
        super().__init__(N_ENVS, OBSERVATIONS, action_space)
        rng = np.random.default_rng(0)
        self.obs = rng.normal(size=(N_RECORDED, N_ENVS, *OBSERVATIONS.shape))
        self.dones = rng.random((N_RECORDED, N_ENVS)) < 1 / EPISODE_LENGTH
        self.rewards = np.zeros(N_ENVS, np.float32)
        self.index = 0

    def reset(self) -> np.ndarray:
        return self.obs[0].copy()

    def step_async(self, actions: np.ndarray) -> None:
        self.index = (self.index + 1) % N_RECORDED

    def step_wait(self) -> Any:
        dones = self.dones[self.index]
        infos: list[dict[str, Any]] = [{"terminal_observation": self.obs[0, 0]} if done else {} for done in dones]
        return self.obs[self.index].copy(), self.rewards, dones.copy(), infos

    def close(self) -> None:
        pass

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        return [None] * N_ENVS

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        pass

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        return [None] * N_ENVS

    def env_is_wrapped(self, wrapper_class: Any, indices: Any = None) -> list[bool]:
        return [False] * N_ENVS


def milliseconds(function: Callable[[], Any], n_turns: int) -> float:
    """:return: the CPU time of a call, in the best of the turns"""
    best = np.inf
    for _ in range(n_turns):
        start = time.process_time()
        for _ in range(TURN):
            function()
        best = min(best, (time.process_time() - start) / TURN)
    return best * 1e3


def measure(name: str, n_turns: int) -> dict[str, Any]:
    """:return: what a row of the table costs, in milliseconds"""
    kind, kwargs = ROWS[name]
    space = ACTIONS[kind]
    demonstrations = random_demonstrations(kind, np.random.default_rng(0), n_episodes=1)
    model = IQLearn("MlpPolicy", StandStill(space), demonstrations, offline=True, seed=0, device="cpu", **kwargs).learn(1)
    actions = np.stack([np.asarray(space.sample()) for _ in range(N_ENVS)])
    plain = Recorded(space)
    plain.reset()
    plain_ms = milliseconds(lambda: plain.step(actions), n_turns)
    added = {}
    for form in ("bellman", "bounded"):
        venv = LearnedRewardVecEnv(Recorded(space), LearnedReward(model, form), gamma=model.gamma)  # type: ignore[arg-type]
        venv.reset()
        added[form] = round(milliseconds(lambda venv=venv: venv.step(actions), n_turns) - plain_ms, 4)  # type: ignore[misc]
    policy: Any = model.policy
    obs = policy.obs_to_tensor(plain.reset())[0]
    network = policy.q_net if kind == "discrete" else lambda rows: policy.critic(rows, rows[:, :3].float())
    with th.inference_mode():
        forward = milliseconds(lambda: network(obs), n_turns)
    return {"name": name, "added_ms": added, "forward_of_8_rows_ms": round(forward, 4)}


def table(lines: list[dict[str, Any]]) -> str:
    """:return: the lines as a Markdown table"""
    cells = [["networks", "commit", "added, bellman", "added, bounded", "a pass of 8 rows by PyTorch"], ["---"] * 5]
    for line in lines:
        for row in line["rows"]:
            times = [*row["added_ms"].values(), row["forward_of_8_rows_ms"]]
            cells.append([row["name"], f"`{line['commit']}`", *(f"{time:.3f} ms" for time in times)])
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=300)
    parser.add_argument("--out", type=Path, default=RESULTS / "reward-speed.jsonl")
    args = parser.parse_args()
    th.set_num_threads(1)
    rows = [measure(name, args.turns) for name in ROWS]
    line = {"n_envs": N_ENVS, "clock": "process_time", "rows": rows, "cpu": cpu_name(), "commit": git_commit()}
    line["command"] = f"OMP_NUM_THREADS=1 python benchmarks/reward_speed.py --turns {args.turns}"
    with args.out.open("a") as file:
        file.write(json.dumps(line) + "\n")
    print(json.dumps(line, indent=1))


if __name__ == "__main__":
    main()
