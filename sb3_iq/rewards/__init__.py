"""The recovered reward out of a model: an object that is saved and loaded, an environment that pays it, a report on it."""

from sb3_iq.rewards.epic import epic_distance
from sb3_iq.rewards.heatmaps import heatmap
from sb3_iq.rewards.learned_reward import LearnedReward
from sb3_iq.rewards.reporting import Report, report
from sb3_iq.rewards.vec_env import LearnedRewardVecEnv

__all__ = ["LearnedReward", "LearnedRewardVecEnv", "Report", "epic_distance", "heatmap", "report"]
