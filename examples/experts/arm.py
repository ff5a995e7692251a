"""
A robot arm with a goal: gymnasium-robotics' Fetch tasks, played by their geometry. Observations are dictionaries.

    pip install gymnasium-robotics "mujoco<3.9"
    python examples/experts/arm.py --task FetchPush --episodes 50 --noise 0.4 --out demos/FetchPush

Newer versions of MuJoCo don't load these tasks with gymnasium-robotics 1.4.2. The player sees what the learner sees, the
observation and the goal, and has no memory. With ``--noise`` somebody jostles the arm, and the player shows how to recover.
What is recorded are the player's actions, without the noise, as in DART (https://arxiv.org/abs/1703.09327): the same noise in
the recorded actions would hide what the player wants.
"""

from typing import Any

import gymnasium as gym
import numpy as np
from _common import check_arguments, make_parser, run

from sb3_iq.demonstrations import Trajectory

TASKS = ("FetchReach", "FetchPush", "FetchPickAndPlace")
GAIN = 10.0  # of the gripper's speed on its distance: an action of 1 moves it by about 3 cm
TOLERANCE = 0.05  # the tasks' own: the goal is reached within 5 cm


def env_id(task: str) -> str:
    """
    :param task: one of ``TASKS``
    :return: the newest registered version of the task
    """
    import gymnasium_robotics

    if hasattr(gym, "register_envs"):
        gym.register_envs(gymnasium_robotics)
    versions = [spec.version or 0 for spec in gym.registry.values() if spec.name == task]
    return f"{task}-v{max(versions)}"


class Arm:
    """
    The scripted player.

    :param task: one of ``TASKS``
    """

    def __init__(self, task: str) -> None:
        self.act = {"FetchReach": _reach, "FetchPush": _push, "FetchPickAndPlace": _pick_and_place}[task]

    def reset(self, seed: int) -> None:
        """
        :param seed: not used: nothing is random in it
        """

    def __call__(self, obs: dict[str, np.ndarray]) -> np.ndarray:
        """
        :param obs: the observation
        :return: the gripper's motion in x, y and z, and its opening
        """
        return np.clip(self.act(obs["observation"], obs["desired_goal"]), -1.0, 1.0).astype(np.float32)


class Jostled(gym.ActionWrapper):
    """
    An arm that somebody jostles as it moves.

    :param env: the arm
    :param noise: the standard deviation of what is added to each direction of the motion, as a share of the action's length
    """

    def __init__(self, env: gym.Env, noise: float) -> None:
        super().__init__(env)
        self.noise = noise

    def action(self, action: np.ndarray) -> np.ndarray:
        """
        :param action: what the player does
        :return: what the arm does
        """
        jolt = np.zeros(4)
        jolt[:3] = self.noise * np.linalg.norm(action[:3]) * self.np_random.standard_normal(3)
        return np.clip(action + jolt, -1.0, 1.0).astype(np.float32)


def _towards(target: np.ndarray, gripper: np.ndarray, opening: float) -> np.ndarray:
    return np.append(GAIN * (target - gripper), opening)


def _reach(seen: np.ndarray, goal: np.ndarray) -> np.ndarray:
    return _towards(goal, seen[:3], 0.0)


def _push(seen: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """
    Go behind the block, as seen from the goal, above it; lower the gripper there; push along the line.

    These three blend into each other without a threshold: a learner can copy a smooth function.
    """
    gripper, block = seen[:3], seen[3:6]
    way = (goal - block)[:2]
    distance = float(np.linalg.norm(way))
    direction = way / max(distance, 1e-6)
    side = np.array([-direction[1], direction[0]])
    # Where the gripper is, in the block's frame: along the way, beside it, above the block
    offset = gripper[:2] - block[:2]
    along, beside, above = float(offset @ direction), float(offset @ side), float(gripper[2] - block[2])
    aligned = _ramp(-along, 0.0, 0.035) * _ramp(-abs(beside), -0.04, -0.02)
    pushing = aligned * _ramp(-above, -0.04, -0.02)
    near = _ramp(-float(np.linalg.norm(offset)), -0.12, -0.08)
    free = max(1.0 - near, _ramp(above, 0.02, 0.05), aligned)  # no way sideways through the block
    to_start = free * (block[:2] - 0.08 * direction - gripper[:2])
    to_goal = min(distance, 0.06) * direction - beside * side
    height = block[2] + 0.07 * (1.0 - aligned)
    motion = np.append((1.0 - pushing) * to_start + pushing * to_goal, height - gripper[2])
    return np.append(GAIN * _ramp(distance, 0.015, 0.03) * motion, 0.0)  # and stop where it is good enough


def _ramp(value: float, start: float, end: float) -> float:
    """Return 0 below ``start``, 1 above ``end``, and what lies between them in between."""
    return float(np.clip((value - start) / (end - start), 0.0, 1.0))


def _pick_and_place(seen: np.ndarray, goal: np.ndarray) -> np.ndarray:
    """Open above the block, lower, close, carry."""
    gripper, block, opening = seen[:3], seen[3:6], float(seen[9] + seen[10])
    offset = block - gripper
    beside = float(np.linalg.norm(offset[:2]))
    if beside < 0.02 and abs(offset[2]) < 0.015:
        closed = opening < 0.055
        return _towards(goal if closed else block, gripper, -1.0)
    if beside < 0.015:
        return _towards(block, gripper, 1.0)
    return _towards(block + np.array([0.0, 0.0, 0.06]), gripper, 1.0)


def reached(episode: Trajectory) -> bool:
    """
    :param episode: an episode
    :return: whether it ends at its goal
    """
    assert isinstance(episode.obs, dict)
    return bool(np.linalg.norm(episode.obs["achieved_goal"][-1] - episode.obs["desired_goal"][-1]) < TOLERANCE)


def main() -> None:
    parser = make_parser(__doc__, episodes=50)
    parser.add_argument("--task", choices=TASKS, default="FetchPush", help="the task (default FetchPush)")
    parser.add_argument("--noise", type=float, default=0.0, help="how much the arm is jostled (default 0: not at all)")
    args = parser.parse_args()
    check_arguments(parser, args)
    name = env_id(args.task)
    env = Jostled(gym.make(name), args.noise)
    command = (
        f"python examples/experts/arm.py --task {args.task} --episodes {args.episodes} --seed {args.seed} --noise {args.noise}"
    )
    card: dict[str, Any] = {"env_id": name, "env_kwargs": {}, "gym_packages": ["gymnasium_robotics"], "made_by": command}
    run(args, env, Arm(args.task), card, succeeded=reached)


if __name__ == "__main__":
    main()
