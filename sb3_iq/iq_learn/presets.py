"""Named settings, as data: what an argument of :class:`~sb3_iq.IQLearn` that is left out stands for."""

from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

Preset = Literal["default", "paper", "ls-iq"]


@dataclass(frozen=True)
class LinearDecay:
    """
    A schedule that falls in a straight line to a fifth over ``learn()``. With constant learning rates the policy goes on
    moving as long as it is trained; with none at the end, ``learn()`` in small pieces would learn nothing.

    :param initial: the value at the start
    """

    initial: float

    def __call__(self, progress_remaining: float) -> float:
        return self.initial * (0.2 + 0.8 * progress_remaining)


Named = dict[str, Any]

# What the policy's occupancy is needed for does not exist offline: there the objective is Eq. 12
OFFLINE: Named = {"occupancy_term": "expert", "penalty": "expert", "expert_target": "bootstrap", "bc_coef": 0.0}


@dataclass(frozen=True)
class PresetRow:
    """
    One preset for one kind of action space. Each dictionary maps names of arguments of :class:`~sb3_iq.IQLearn`, or of its
    ``objective_kwargs``, to values; a later one in this list prevails.

    :param settings: what holds unless something below applies
    :param images: observations with images in them, whose distance does not say how alike they are
    :param families: environments, by the name of the id without version
    :param offline: training offline
    :param offline_images: training offline from such observations
    :param solution_fails: online, in place of the preset's own values, once the policy that the demonstrations alone give has
        failed
    :param state_only: demonstrations whose actions are not read
    """

    settings: Named
    images: Named = field(default_factory=dict)
    families: dict[str, Named] = field(default_factory=dict)
    offline: Named = field(default_factory=lambda: OFFLINE)
    offline_images: Named = field(default_factory=dict)
    solution_fails: Named = field(default_factory=dict)
    state_only: Named = field(default_factory=lambda: {"bc_coef": 0.0})


BASE: Named = {
    "train_freq": 1,
    "tau": 0.005,
    "gamma": 0.99,
    "expert_share": 1.0,
    "discounted_share": 0.0,
    "input_lasso": 0.0,
    "ent_coef": 0.01,
    "actor_learning_rate": 1e-4,
    "penalty_coef": 0.5,
    "reward_prior": 0.0,
    "bc_coef": 0.0,
    "occupancy_term": "policy_mix",
    "penalty": "mixture",
    "terminal_value": "zero",
    "critic_bound": "none",
    "use_target": True,
    "policy_kwargs": {},
}

DEFAULT = {
    "discrete": PresetRow(
        {
            **BASE,
            "learning_rate": LinearDecay(5e-4),
            "batch_size": 256,
            # What is learned of the policy's own steps moves rewards by up to 1/c from the prior. With a smaller c the critic
            # tells the few transitions of the expert from the policy's ever more sharply
            "penalty_coef": 32.0,
            "terminal_value": "absorbing",
            "critic_bound": "clip",
            "reward_prior": 1.0,
            "bc_coef": 0.1,
            # What a network makes of states beyond the demonstrations depends on its initial weights, with SB3's two layers
            # of 64 much more than with these
            "policy_kwargs": {"net_arch": [256, 256]},
        },
        # Small batches learn as much of images in a step, and a step takes a quarter of the time. Games in which nothing is
        # random repeat a mistake each time: the average of the network makes fewer
        images={"batch_size": 64, "policy_kwargs": {"actor_tau": 1e-3}},
        offline={**OFFLINE, "learning_rate": 5e-4, "penalty_coef": 8.0},
        offline_images={"learning_rate": LinearDecay(1e-3)},
        # What is held to a solution that fails can't leave it
        solution_fails={"reward_prior": 0.0, "penalty_coef": 0.5},
        # Where nothing can be cloned there is no prior
        state_only={"bc_coef": 0.0, "reward_prior": 0.0, "penalty_coef": 8.0},
    ),
    "continuous": PresetRow(
        {
            **BASE,
            "learning_rate": LinearDecay(5e-4),
            "actor_learning_rate": LinearDecay(1e-4),
            "batch_size": 128,
            "expert_share": 0.25,
            "discounted_share": 0.5,
            "tau": 0.02,
            "ent_coef": 3e-3,
            "penalty_coef": 16.0,
            # What the policy does beyond the expert's share is worth up to 1/c less, however near the demonstrations it is
            "occupancy_term": "policy",
            "terminal_value": "absorbing",
            "critic_bound": "clip",
            "reward_prior": 1.0,
            "bc_coef": 10.0,
            "policy_kwargs": {"n_critics": 2, "actor_tau": 1e-3},
        },
        # Where no distance says what is near the demonstrations, the occupancies' ratio is all there is to go by
        images={
            "batch_size": 64,
            "ent_coef": 0.01,
            "reward_prior": 0.0,
            "penalty_coef": 0.5,
            "occupancy_term": "expert_states",
        },
        # Few demonstrations leave it open which of many numbers an action depends on (FetchPush)
        offline={**OFFLINE, "bc_coef": 10.0, "actor_learning_rate": LinearDecay(1e-3), "input_lasso": 1e-2},
    ),
}

# Networks as published: of observations as they are, and of continuous actions one critic and no average of the actor
PLAIN: Named = {"normalize_obs": False, "random_shift": 0}
PLAIN_CONTINUOUS: Named = {**PLAIN, "n_critics": 1, "layer_norm": False, "actor_tau": 1.0}

# The published configuration (https://arxiv.org/abs/2106.12142 and its authors' settings for each family of environments)
PAPER = {
    # Soft Q-learning from vectors: two layers of 64 ELUs, no target network, the objective of Eq. 12 online and offline.
    # Atari: SB3's NatureCNN, whose head of 512 units is the published network
    "discrete": PresetRow(
        {
            **BASE,
            "learning_rate": 1e-4,
            "batch_size": 32,
            "occupancy_term": "expert",
            "penalty": "expert",
            "use_target": False,
            "policy_kwargs": {**PLAIN, "net_arch": [64, 64], "activation_fn": nn.ELU},
        },
        images={"batch_size": 64, "ent_coef": 1e-3, "policy_kwargs": PLAIN},
        families={"CartPole": {"ent_coef": 1e-3}, "LunarLander": {"ent_coef": 1e-3}},
    ),
    # Soft actor-critic: one critic, a slow actor, the penalty of both batches, every expert state counted as an initial one
    "continuous": PresetRow(
        {
            **BASE,
            "learning_rate": 3e-4,
            "actor_learning_rate": 3e-5,
            "batch_size": 256,
            "occupancy_term": "expert_states",
            "policy_kwargs": PLAIN_CONTINUOUS,
        },
        families={
            "LunarLander": {"ent_coef": 1e-3},
            "HalfCheetah": {"occupancy_term": "policy_mix"},
            "Ant": {"occupancy_term": "policy_mix", "ent_coef": 1e-3},
            "Humanoid": {"ent_coef": 1.0},
        },
    ),
}

# https://arxiv.org/abs/2303.00599: least squares with targets of +-1/c, the expert's Q-values drawn to their bound, absorbing
# states
LS_IQ_SETTINGS: Named = {
    **BASE,
    "learning_rate": 3e-4,
    "actor_learning_rate": 3e-5,
    "batch_size": 256,
    "ent_coef": 1e-3,
    "terminal_value": "absorbing",
    "critic_bound": "clip",
    "expert_target": "fixed",
}
LS_IQ = {
    "discrete": PresetRow({**LS_IQ_SETTINGS, "policy_kwargs": PLAIN}),
    "continuous": PresetRow(
        {
            **LS_IQ_SETTINGS,
            "policy_kwargs": PLAIN_CONTINUOUS,
        },
        families={"Humanoid": {"ent_coef": 0.1}},
    ),
}

PRESETS: dict[str, dict[str, PresetRow]] = {"default": DEFAULT, "paper": PAPER, "ls-iq": LS_IQ}
"""The presets by name, each for discrete and for continuous actions."""
