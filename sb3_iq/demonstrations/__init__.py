"""Expert data in: episodes from files and memory, and the buffer that IQ-Learn samples them from."""

from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.expert_buffer import ExpertBuffer
from sb3_iq.demonstrations.loading import load_demonstrations
from sb3_iq.demonstrations.recorder import record
from sb3_iq.demonstrations.saving import save_trajectories
from sb3_iq.demonstrations.trajectory import Trajectory

__all__ = ["Demonstrations", "ExpertBuffer", "Trajectory", "load_demonstrations", "record", "save_trajectories"]
