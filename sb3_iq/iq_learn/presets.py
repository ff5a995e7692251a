"""
Named settings, as data: what an argument of :class:`~sb3_iq.IQLearn` that is left at ``None`` stands for.

``"default"`` is one setting for all tasks with discrete actions and one for all with Box actions. ``"paper"`` is the published
configuration (https://arxiv.org/abs/2106.12142 and its authors' settings for each family of environments), ``"ls-iq"``
that of https://arxiv.org/abs/2303.00599.
"""

import re
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

from gymnasium import spaces
from stable_baselines3.common.preprocessing import is_image_space
from stable_baselines3.common.type_aliases import Schedule
from torch import nn

from sb3_iq.iq_learn.objective import CriticBound, ExpertTarget, OccupancyTerm, Penalty, TerminalValue
from sb3_iq.iq_learn.reward_prior import has_distance

Preset = Literal["default", "paper", "ls-iq"]


@dataclass(frozen=True)
class QuadraticDecay:
    """
    A schedule that falls to a fiftieth over ``learn()``, with the square of what remains. With constant learning rates
    the policy goes on moving as long as it is trained; with none at the end, ``learn()`` in small pieces would learn nothing.

    :param initial: the value at the start
    """

    initial: float

    def __call__(self, progress_remaining: float) -> float:
        return self.initial * (0.02 + 0.98 * progress_remaining**2)


@dataclass(frozen=True)
class Settings:
    """
    What arguments left at ``None`` stand for; the names are those of :class:`~sb3_iq.IQLearn`'s arguments.

    Offline there are no policy transitions, so that terms under the policy's occupancy do not exist: three settings have
    a second value for that. So has ``bc_coef``: the objective of discrete actions is then itself the log-likelihood of the
    demonstrations and a penalty (Eq. 12).
    """

    learning_rate: float | Schedule
    batch_size: int
    gamma: float
    ent_coef: float
    use_target: bool
    penalty_coef: float
    occupancy_term: OccupancyTerm
    penalty: Penalty
    terminal_value: TerminalValue
    critic_bound: CriticBound
    expert_target: ExpertTarget = "bootstrap"
    train_freq: int = 1
    mixture_weight: float = 1.0
    reward_prior: float = 0.0
    gradient_penalty: float = 0.0
    obs_noise: float = 0.0
    actor_learning_rate: float | Schedule = 1e-4
    actor_tau: float = 2e-4
    bc_coef: float = 0.0
    offline_occupancy_term: OccupancyTerm = "expert"
    offline_penalty: Penalty = "expert"
    offline_expert_target: ExpertTarget = "bootstrap"
    offline_bc_coef: float = 0.0
    policy_kwargs: dict[str, Any] = field(default_factory=dict)
    """What ``policy_kwargs`` are completed by"""


DISCRETE = Settings(
    learning_rate=5e-4,
    batch_size=256,
    gamma=0.99,
    ent_coef=0.01,
    use_target=True,
    penalty_coef=0.5,
    occupancy_term="policy_mix",
    penalty="mixture",
    terminal_value="absorbing",
    critic_bound="clip",
    reward_prior=1.0,
    bc_coef=0.1,
)

CONTINUOUS = Settings(
    learning_rate=QuadraticDecay(5e-4),
    actor_learning_rate=QuadraticDecay(3e-4),
    batch_size=128,
    train_freq=2,
    gamma=0.97,
    ent_coef=0.01,
    use_target=True,
    penalty_coef=32.0,
    occupancy_term="expert_bounded",
    penalty="mixture",
    terminal_value="absorbing",
    critic_bound="clip",
    reward_prior=1.0,
    bc_coef=1.0,
    offline_bc_coef=1.0,
)

# Box actions where no distance says what is near the demonstrations: the occupancies' ratio is all there is to go by
NO_PRIOR: dict[str, Any] = {"reward_prior": 0.0, "penalty_coef": 0.5, "occupancy_term": "expert_states"}

# Soft Q-learning from vectors: two layers of 64 ELUs, no target network, the objective of Eq. 12 online and offline
PAPER_DISCRETE = Settings(
    learning_rate=1e-4,
    batch_size=32,
    gamma=0.99,
    ent_coef=0.01,
    use_target=False,
    penalty_coef=0.5,
    occupancy_term="expert",
    penalty="expert",
    terminal_value="zero",
    critic_bound="none",
    policy_kwargs={"net_arch": [64, 64], "activation_fn": nn.ELU, "normalize_obs": False},
)

# Soft actor-critic: one critic, a slow actor, the penalty of both batches, every expert state counted as an initial one
PAPER_CONTINUOUS = Settings(
    learning_rate=3e-4,
    batch_size=256,
    gamma=0.99,
    ent_coef=0.01,
    use_target=True,
    penalty_coef=0.5,
    occupancy_term="expert_states",
    penalty="mixture",
    terminal_value="zero",
    critic_bound="none",
    actor_learning_rate=3e-5,
    actor_tau=1.0,
    policy_kwargs={"n_critics": 1, "layer_norm": False, "normalize_obs": False},
)

PAPER_FAMILIES: dict[str, dict[str, Any]] = {
    "CartPole": {"ent_coef": 1e-3},
    "LunarLander": {"ent_coef": 1e-3},
    "HalfCheetah": {"occupancy_term": "policy_mix"},
    "Ant": {"occupancy_term": "policy_mix", "ent_coef": 1e-3},
    "Humanoid": {"ent_coef": 1.0},
}
"""What the published settings change for a family of environments, by the name of its id without version."""
# Atari: SB3's NatureCNN, whose head of 512 units is the published network
PAPER_ATARI: dict[str, Any] = {"batch_size": 64, "ent_coef": 1e-3, "policy_kwargs": {"normalize_obs": False}}

# Least squares with targets of +-1/c, the expert's Q-values drawn to their bound, absorbing states
LS_IQ = Settings(
    learning_rate=3e-4,
    batch_size=256,
    gamma=0.99,
    ent_coef=1e-3,
    use_target=True,
    penalty_coef=0.5,
    occupancy_term="policy_mix",
    penalty="mixture",
    terminal_value="absorbing",
    critic_bound="clip",
    expert_target="fixed",
    actor_learning_rate=3e-5,
    actor_tau=1.0,
    policy_kwargs={"normalize_obs": False},
)
LS_IQ_CONTINUOUS = replace(LS_IQ, policy_kwargs={"n_critics": 1, "layer_norm": False, "normalize_obs": False})


def settings_for(preset: Preset, model_or_env: Any, env_id: str | None) -> Settings:
    """
    :param preset: the name
    :param model_or_env: whatever has the spaces; None while a saved model is loaded, which brings its own settings
    :param env_id: the environment's id, if it is known; the published settings differ between families
    :return: the settings
    :raises ValueError: if there is no such preset
    """
    continuous = isinstance(getattr(model_or_env, "action_space", None), spaces.Box)
    if preset == "default":
        if not continuous:
            return DISCRETE
        return CONTINUOUS if has_distance(model_or_env.observation_space) else replace(CONTINUOUS, **NO_PRIOR)
    if preset == "ls-iq":
        return LS_IQ_CONTINUOUS if continuous else LS_IQ
    if preset != "paper":
        raise ValueError(f"`preset` is {str(preset)[:80]!r}: choose one of {', '.join(get_args(Preset))}.")
    settings = PAPER_CONTINUOUS if continuous else PAPER_DISCRETE
    if not continuous and model_or_env is not None and is_image_space(model_or_env.observation_space):
        settings = replace(settings, **PAPER_ATARI)
    family = re.match(r"(?:.*/)?([A-Za-z]*?)(?:Continuous)?(?:-v\d+)?$", env_id or "")
    return replace(settings, **PAPER_FAMILIES.get(family[1], {})) if family else settings
