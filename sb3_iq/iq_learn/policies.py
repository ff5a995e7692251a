"""
SB3's policies with the soft quantities that IQ-Learn needs: Q(s, a), V(s) and V of the target network; and their aliases.
"""

from stable_baselines3.common.policies import BasePolicy

from sb3_iq.iq_learn.networks import LayerNormCritic
from sb3_iq.iq_learn.sac_policies import SACCnnPolicy, SACMultiInputPolicy, SACPolicy
from sb3_iq.iq_learn.soft_q_policies import SoftQCnnPolicy, SoftQMultiInputPolicy, SoftQPolicy

__all__ = [
    "LayerNormCritic",
    "SACCnnPolicy",
    "SACMultiInputPolicy",
    "SACPolicy",
    "SoftQCnnPolicy",
    "SoftQMultiInputPolicy",
    "SoftQPolicy",
]

DISCRETE_POLICIES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": SoftQPolicy,
    "CnnPolicy": SoftQCnnPolicy,
    "MultiInputPolicy": SoftQMultiInputPolicy,
}
CONTINUOUS_POLICIES: dict[str, type[BasePolicy]] = {
    "MlpPolicy": SACPolicy,
    "CnnPolicy": SACCnnPolicy,
    "MultiInputPolicy": SACMultiInputPolicy,
}
