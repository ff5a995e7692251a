"""The algorithm: a policy and a reward from one Q-function."""

from sb3_iq.iq_learn.iq_learn import IQLearn
from sb3_iq.iq_learn.objective import NonFiniteLossError, Objective
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy
from sb3_iq.iq_learn.spaces_env import SpacesEnv

__all__ = ["IQLearn", "NonFiniteLossError", "Objective", "SACPolicy", "SoftQPolicy", "SpacesEnv"]
