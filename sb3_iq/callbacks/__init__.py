"""Callbacks beyond those of SB3."""

from sb3_iq.callbacks.held_out import HeldOutCallback
from sb3_iq.callbacks.resume import ResumeCheckpointCallback

__all__ = ["HeldOutCallback", "ResumeCheckpointCallback"]
