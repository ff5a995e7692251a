"""
The reward of a small grid world, recovered from 30 demonstrations and compared with the exact solution: about ten seconds.

A 5 x 5 grid, five actions (stay, up, down, left, right), a random start, and a reward of 1 for each step from one of three
corners. The expert is the soft-optimal policy of that reward. IQ-Learn sees its episodes, never the reward; its Q-function is
a table. The reward and the value that it recovers are drawn beside the true ones.

    python examples/gridworld.py --out gridworld
"""

import argparse
from pathlib import Path
from typing import Any, NamedTuple

import gymnasium as gym
import numpy as np
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn
from sb3_iq.rewards import LearnedReward

SIZE = 5
N_STATES, N_ACTIONS = SIZE * SIZE, 5
MOVES = np.array([(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)])
CORNERS = [0, SIZE - 1, N_STATES - 1]  # top left, top right, bottom right
GAMMA, TEMPERATURE, LENGTH, N_DEMONSTRATIONS = 0.9, 0.5, 40, 30
SHRINKAGE = 10.0  # how much a small reward is preferred, in transitions


def next_states() -> np.ndarray:
    """:return: where each action leads to, a wall stops, shape (n_states, n_actions)"""
    cells = np.stack(np.divmod(np.arange(N_STATES), SIZE), axis=1)
    moved = np.clip(cells[:, None] + MOVES, 0, SIZE - 1)
    return moved[..., 0] * SIZE + moved[..., 1]


NEXT = next_states()
REWARD = np.isin(np.arange(N_STATES), CORNERS).astype(float)


class GridWorld(gym.Env):
    """The grid as an environment: the observation is the number of the cell, row by row."""

    def __init__(self) -> None:
        self.observation_space, self.action_space = spaces.Discrete(N_STATES), spaces.Discrete(N_ACTIONS)

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self.state, self.time = int(self.np_random.integers(N_STATES)), 0
        return self.state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        reward = REWARD[self.state]
        self.state, self.time = int(NEXT[self.state, int(action)]), self.time + 1
        return self.state, float(reward), False, self.time >= LENGTH, {}


class Solution(NamedTuple):
    """Q, V and policy of a reward, as tables."""

    q: np.ndarray
    v: np.ndarray
    policy: np.ndarray


def soft_value_iteration(reward: np.ndarray) -> Solution:
    """
    :param reward: r(s), shape (n_states,)
    :return: the soft-optimal solution, Q(s, a) = r(s) + gamma V(s'), V = alpha logsumexp(Q / alpha)
    """
    v = np.zeros(N_STATES)
    for _ in range(1_000):
        q = reward[:, None] + GAMMA * v[NEXT]
        largest = q.max(axis=1)
        v = largest + TEMPERATURE * np.log(np.exp((q - largest[:, None]) / TEMPERATURE).sum(axis=1))
    return Solution(q, v, np.exp((q - v[:, None]) / TEMPERATURE))


def demonstrations(policy: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """:return: episodes of a policy, as flat arrays of transitions"""
    rng = np.random.default_rng(seed)
    obs, acts, next_obs = [], [], []
    for _ in range(N_DEMONSTRATIONS):
        state = int(rng.integers(N_STATES))
        for _ in range(LENGTH):
            action = int(rng.choice(N_ACTIONS, p=policy[state]))
            obs.append(state)
            acts.append(action)
            state = int(NEXT[state, action])
            next_obs.append(state)
    ends = np.arange(len(obs)) % LENGTH == LENGTH - 1
    columns = {"obs": np.array(obs), "acts": np.array(acts), "next_obs": np.array(next_obs)}
    return {**columns, "terminated": np.zeros(len(obs), bool), "truncated": ends}


def recover(data: dict[str, np.ndarray], seed: int, steps: int = 1_500) -> LearnedReward:
    """:return: the advantages A = r + gamma V(s') - V(s) that IQ-Learn has recovered offline, with a table for a Q-function"""
    # Observations are one-hot codes, so that a linear network is a table
    model = IQLearn(
        "MlpPolicy",
        GridWorld(),
        data,
        gamma=GAMMA,
        ent_coef=TEMPERATURE,
        penalty_coef=0.5,
        learning_rate=1e-2,
        objective_kwargs={"use_target": False},
        policy_kwargs=dict(net_arch=[]),
        offline=True,
        seed=seed,
        device="cpu",
    )
    return LearnedReward(model.learn(steps), form="advantage")


def reward_of_states(reward: LearnedReward, data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """
    A reward is recovered up to a potential: A(s, a) = r + gamma V(s') - V(s) holds for many pairs of r and V. Of these, take a
    reward of states alone, and the smallest one: least squares, weighted by how often the demonstrations take an action.

    :param reward: the advantages
    :param data: the demonstrations
    :return: r(s) and V(s), shape (n_states,) each; the constant that is still free makes the median of r zero
    """
    states, actions = np.repeat(np.arange(N_STATES), N_ACTIONS), np.tile(np.arange(N_ACTIONS), N_STATES)
    next_ = NEXT.reshape(-1)
    advantages = reward(states, actions, next_, np.zeros(len(states), bool))
    counts = np.full((N_STATES, N_ACTIONS), 0.3)
    np.add.at(counts, (data["obs"], data["acts"]), 1)
    one_hot = np.eye(N_STATES)
    equations = np.hstack([one_hot[states], GAMMA * one_hot[next_] - one_hot[states]]) * np.sqrt(counts).reshape(-1, 1)
    smallest = np.hstack([SHRINKAGE**0.5 * one_hot, np.zeros((N_STATES, N_STATES))])
    right = np.concatenate([advantages * np.sqrt(counts).reshape(-1), np.zeros(N_STATES)])
    solution = np.linalg.lstsq(np.vstack([equations, smallest]), right, rcond=1e-8)[0]
    r, v = solution[:N_STATES], solution[N_STATES:]
    return r - np.median(r), v - np.median(r) / (1 - GAMMA)


def draw(maps: dict[str, np.ndarray], path: Path) -> None:
    """Draw maps of the grid side by side, those of rewards above those of values."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.5, 7), layout="constrained")
    axes: Any = figure.subplots(2, 2)
    for panel, (title, values) in zip(axes.flat, maps.items(), strict=True):
        kind = title.split(":")[0]
        shown = np.concatenate([other for name, other in maps.items() if name.startswith(kind)])
        image = panel.imshow(values.reshape(SIZE, SIZE), cmap="viridis", vmin=shown.min(), vmax=shown.max())
        for cell, value in enumerate(values):
            color = "black" if value > (shown.min() + shown.max()) / 2 else "white"
            panel.text(cell % SIZE, cell // SIZE, f"{round(value, 1) + 0:.1f}", ha="center", va="center", color=color)
        panel.set(title=title, xticks=[], yticks=[])
        figure.colorbar(image, ax=panel, shrink=0.8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("gridworld"), help="folder of the picture")
    args = parser.parse_args()
    th.set_num_threads(1)
    exact = soft_value_iteration(REWARD)
    data = demonstrations(exact.policy, args.seed)
    r, v = reward_of_states(recover(data, args.seed), data)
    for name, found, true in (("reward", r, REWARD), ("value", v, exact.v)):
        error, correlation = np.abs(found - true), np.corrcoef(found, true)[0, 1]
        print(
            f"{name:<8}mean error {error.mean():.2f}, largest {error.max():.2f}, of a range of {np.ptp(true):.2f}; "
            f"r = {correlation:.2f}"
        )
    print(
        f"corners: {', '.join(f'{r[corner]:.2f}' for corner in CORNERS)}; elsewhere at most {np.delete(r, CORNERS).max():.2f}"
    )
    draw(
        {"reward: true": REWARD, "reward: recovered": r, "value: true": exact.v, "value: recovered": v},
        args.out / "gridworld.png",
    )
    print(f"Maps: {args.out / 'gridworld.png'}")


if __name__ == "__main__":
    main()
