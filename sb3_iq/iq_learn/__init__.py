"""The algorithm: a policy and a reward from one Q-function."""

from sb3_iq.iq_learn.iq_learn import IQLearn
from sb3_iq.iq_learn.objective import DivergenceError
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy

__all__ = ["DivergenceError", "IQLearn", "SACPolicy", "SoftQPolicy"]
