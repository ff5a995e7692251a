"""IQ-Learn (inverse soft-Q learning, https://arxiv.org/abs/2106.12142) for Stable-Baselines3."""

from pathlib import Path

from sb3_iq.demonstrations import ExpertBuffer, load_demonstrations
from sb3_iq.iq_learn import IQLearn, SpacesEnv

__version__ = (Path(__file__).parent / "version.txt").read_text().strip()

__all__ = ["ExpertBuffer", "IQLearn", "SpacesEnv", "__version__", "load_demonstrations"]
