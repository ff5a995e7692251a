"""IQ-Learn (inverse soft-Q learning, https://arxiv.org/abs/2106.12142) for Stable-Baselines3."""

from pathlib import Path

from sb3_iq.callbacks import HeldOutCallback, ResumeCheckpointCallback
from sb3_iq.demonstrations import (
    Demonstrations,
    ExpertBuffer,
    Trajectory,
    load_demonstrations,
    record,
    save_trajectories,
)
from sb3_iq.iq_learn import IQLearn, SpacesEnv

__version__ = (Path(__file__).parent / "version.txt").read_text().strip()

__all__ = [
    "Demonstrations",
    "ExpertBuffer",
    "HeldOutCallback",
    "IQLearn",
    "ResumeCheckpointCallback",
    "SpacesEnv",
    "Trajectory",
    "__version__",
    "load_demonstrations",
    "record",
    "save_trajectories",
]
