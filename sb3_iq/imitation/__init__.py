"""Beside the library imitation: IQ-Learn as one of its algorithms, and its own algorithms for comparison."""

try:
    import imitation  # noqa: F401
except ImportError as error:
    from sb3_iq.demonstrations.errors import how_to_install

    raise ImportError(
        f"sb3_iq.imitation needs the library imitation, in a virtual environment of its own. {how_to_install('imitation')}"
    ) from error

from sb3_iq.imitation.reward_net import IQRewardNet
from sb3_iq.imitation.trainer import IQLearnTrainer

__all__ = ["IQLearnTrainer", "IQRewardNet"]
