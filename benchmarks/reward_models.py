"""
Train the models whose rewards the other scripts read, with checkpoints on the way: ``benchmarks/models/ENV-MODE-SEED/``.

    export SB3_IQ_DEMOS=... OMP_NUM_THREADS=1
    python benchmarks/reward_models.py CartPole-v1 LunarLander-v3 --seeds 0 1 2

A model that is there already is not trained again.
"""

import argparse
import time
from dataclasses import dataclass
from pathlib import Path

import torch as th
from stable_baselines3.common.callbacks import BaseCallback

from sb3_iq import Demonstrations, IQLearn, load_demonstrations

MODELS = Path(__file__).parent / "models"
# Checkpoints at these shares of the training: the graded half of the mixtures that rewards are tested on
SHARES = (0.1, 0.2, 0.4)


@dataclass(frozen=True)
class Source:
    """
    Which demonstrations a model is trained on, and how long; everything else is the constructor's default.

    :param n_trajectories: the number of demonstrations
    :param online: environment steps of online training
    :param offline: gradient steps of offline training
    """

    n_trajectories: int
    online: int
    offline: int = 5_000


SOURCES = {
    "CartPole-v1": Source(5, 15_000),
    "LunarLander-v3": Source(10, 15_000),
    "Acrobot-v1": Source(5, 15_000),
    "Pendulum-v1": Source(5, 20_000, 2_000),
    "MountainCar-v0": Source(5, 15_000, 2_000),
    "Hopper-v5": Source(1, 60_000),
    "Walker2d-v5": Source(1, 60_000),
    "HalfCheetah-v5": Source(1, 60_000),
}


class Checkpoints(BaseCallback):
    """
    Saves the model at shares of its training.

    :param folder: where to, as ``checkpoint-STEPS.zip``
    :param steps: after which numbers of timesteps
    """

    def __init__(self, folder: Path, steps: list[int]) -> None:
        super().__init__()
        self.folder, self.steps = folder, steps

    def _on_step(self) -> bool:
        if self.num_timesteps in self.steps:
            self.model.save(self.folder / f"checkpoint-{self.num_timesteps}.zip")
        return True


def untrained(env_id: str, mode: str, seed: int) -> IQLearn:
    """
    :param env_id: one of ``SOURCES``
    :param mode: ``"online"`` or ``"offline"``
    :param seed: the seed of the training and of the choice of demonstrations
    :return: the model before its training; of discrete actions, ``learn(0)`` makes it what the prior of rewards stands for
    """
    return IQLearn("MlpPolicy", env_id, demonstrations_of(env_id, seed), offline=mode == "offline", seed=seed, device="cpu")


def loaded(env_id: str, mode: str, seed: int) -> IQLearn:
    """:return: the trained model and its demonstrations; the arguments are those of ``trained``"""
    return IQLearn.load(trained(env_id, mode, seed), expert_data=demonstrations_of(env_id, seed), device="cpu")


def demonstrations_of(env_id: str, seed: int) -> Demonstrations:
    return load_demonstrations(f"demos:{env_id}", n_trajectories=SOURCES[env_id].n_trajectories, seed=seed)


def trained(env_id: str, mode: str, seed: int) -> Path:
    """
    :param env_id: one of ``SOURCES``
    :param mode: ``"online"`` or ``"offline"``
    :param seed: the seed of the training and of the choice of demonstrations
    :return: the saved model, trained first if it is not there; its checkpoints lie beside it
    """
    folder = MODELS / f"{env_id}-{mode}-{seed}"
    path = folder / "model.zip"
    if path.exists():
        return path
    source = SOURCES[env_id]
    timesteps = source.online if mode == "online" else source.offline
    model = untrained(env_id, mode, seed)
    start = time.perf_counter()
    model.learn(timesteps, callback=Checkpoints(folder, [int(share * timesteps) for share in SHARES]))
    model.save(path)
    print(f"{path}: {timesteps} steps, {time.perf_counter() - start:.0f} s", flush=True)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("envs", nargs="+", choices=sorted(SOURCES))
    parser.add_argument("--modes", nargs="+", choices=("online", "offline"), default=["online"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    args = parser.parse_args()
    th.set_num_threads(1)
    for env_id in args.envs:
        for mode in args.modes:
            for seed in args.seeds:
                trained(env_id, mode, seed)


if __name__ == "__main__":
    main()
