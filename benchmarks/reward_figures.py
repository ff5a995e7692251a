"""
The pictures of the documentation's page on rewards: heat maps of MountainCar-v0 and Pendulum-v1, from short offline training.

    export SB3_IQ_DEMOS=... OMP_NUM_THREADS=1
    python benchmarks/reward_figures.py
"""

from pathlib import Path

import numpy as np
import torch as th
from reward_models import trained

from sb3_iq import IQLearn
from sb3_iq.rewards import heatmap

OUT = Path(__file__).parents[1] / "docs" / "_static"


def mountain_car(obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """:return: the next observations of MountainCar-v0"""
    position, speed = obs.T
    speed = np.clip(speed + (actions - 1) * 0.001 - 0.0025 * np.cos(3 * position), -0.07, 0.07)
    position = np.clip(position + speed, -1.2, 0.6)
    return np.stack([position, np.where((position == -1.2) & (speed < 0), 0, speed)], axis=1).astype(np.float32)


def pendulum(obs: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """:return: the next observations of Pendulum-v1"""
    angle, speed = np.arctan2(obs[:, 1], obs[:, 0]), obs[:, 2]
    speed = np.clip(speed + (15 * np.sin(angle) + 3 * np.clip(actions[:, 0], -2, 2)) * 0.05, -8, 8)
    angle = angle + speed * 0.05
    return np.stack([np.cos(angle), np.sin(angle), speed], axis=1).astype(np.float32)


def pendulum_obs(points: np.ndarray) -> np.ndarray:
    """:return: observations of Pendulum-v1 for pairs of angle (0 is upright) and angular speed"""
    return np.stack([np.cos(points[:, 0]), np.sin(points[:, 0]), points[:, 1]], axis=1).astype(np.float32)


def main() -> None:
    th.set_num_threads(1)
    model = IQLearn.load(trained("MountainCar-v0", "offline", 0), device="cpu")
    labels = ("position", "speed")
    heatmap(model, labels=labels, dynamics=mountain_car, out=OUT / "reward-mountaincar.png")
    model = IQLearn.load(trained("Pendulum-v1", "offline", 0), device="cpu")
    labels = ("angle from upright", "angular speed")
    bounds = ((-np.pi, np.pi), (-8.0, 8.0))
    heatmap(model, bounds=bounds, labels=labels, to_obs=pendulum_obs, dynamics=pendulum, out=OUT / "reward-pendulum.png")


if __name__ == "__main__":
    main()
