"""All settings of a model in one frozen value: what the user gave, and what the preset says for the rest."""

import inspect
import os
import pathlib
import re
import shutil
import sys
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, get_args

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.type_aliases import Schedule

from sb3_iq.demonstrations.errors import check_integer
from sb3_iq.iq_learn.objective import Objective, check_coefficient, check_name
from sb3_iq.iq_learn.presets import PRESETS, Named, Preset
from sb3_iq.iq_learn.reward_priors import prior_class
from sb3_iq.observations import has_distance

ExpertActions = Literal["given", "policy", "inverse_dynamics"]

OBJECTIVE_KWARGS = (
    *("divergence", "occupancy_term", "penalty", "mixture_weight", "terminal_value"),
    *("critic_bound", "expert_target", "use_target", "gradient_penalty"),
)
"""What ``objective_kwargs`` may hold."""
DESCRIBED = (*OBJECTIVE_KWARGS, "penalty_coef", "gamma")


@dataclass(frozen=True)
class Settings:
    """
    What is in force; the names are those of :class:`~sb3_iq.IQLearn`'s arguments.

    :param objective: the form of the objective, for learning online or offline as it was asked for
    :param q_bound: the bound of values online, which ``critic_bound="tanh"`` builds into the network
    :param expert_share: online, how many of the expert's transitions are drawn for each one of the policy
    :param discounted_share: online, the share of transitions that are drawn by the discounted occupancy, the others uniformly
    :param input_lasso: in the term of cloning, coefficient of ``networks.input_norm``
    """

    learning_rate: float | Schedule
    actor_learning_rate: float | Schedule
    batch_size: int
    tau: float
    gamma: float
    train_freq: int | tuple[int, str]
    ent_coef: str | float
    penalty_coef: float
    reward_prior: float
    bc_coef: float | Schedule
    policy_kwargs: dict[str, Any]
    objective: Objective
    q_bound: float
    expert_share: float
    discounted_share: float
    input_lasso: float

    @property
    def clones(self) -> bool:
        """Whether the expert's actions are cloned, at some time at least."""
        return callable(self.bc_coef) or self.bc_coef > 0


PRESET_ONLY = ("expert_share", "discounted_share", "input_lasso")
"""What presets set and no argument does."""
ARGUMENTS = tuple(f.name for f in fields(Settings) if f.name not in ("objective", "q_bound", *PRESET_ONLY))
"""The arguments of IQLearn that a preset sets where they are left out."""


@dataclass(frozen=True)
class Context:
    """
    What settings depend on besides the arguments that they resolve.

    :param preset: name of a row of :data:`~sb3_iq.iq_learn.presets.PRESETS`
    :param observation_space: the observation space
    :param action_space: the action space
    :param env_id: the environment's id, if it is known; the published settings differ between families
    :param offline: whether learning is offline
    :param expert_actions: what counts as the expert's actions
    """

    preset: Preset
    observation_space: spaces.Space
    action_space: spaces.Space
    env_id: str | None
    offline: bool
    expert_actions: ExpertActions

    @property
    def continuous(self) -> bool:
        """Whether actions are continuous."""
        return isinstance(self.action_space, spaces.Box)


def of_preset(context: Context) -> Named:
    """
    :param context: what the preset's values depend on
    :return: the preset's value of each argument and of what ``objective_kwargs`` hold
    :raises ValueError: if there is no such preset
    """
    check_name("preset", context.preset, PRESETS)
    row = PRESETS[context.preset]["continuous" if context.continuous else "discrete"]
    family = re.match(r"(?:.*/)?([A-Za-z]*?)(?:Continuous)?(?:-v\d+)?$", context.env_id or "")
    has_images = not has_distance(context.observation_space)
    return {
        **row.settings,
        **(row.images if has_images else {}),
        **(row.families.get(family[1], {}) if family else {}),
        **(row.offline if context.offline else {}),
        **(row.offline_images if context.offline and has_images else {}),
        **(row.state_only if context.expert_actions != "given" else {}),
    }


def where_solution_fails(context: Context, current: Mapping[str, Any]) -> Named:
    """
    :param context: what the preset's values depend on
    :param current: the values of arguments that are in force
    :return: what changes online where the offline solution fails: what the user has set otherwise than the preset stays
    """
    presets = [of_preset(replace(context, offline=offline)) for offline in (True, False)]
    row = PRESETS[context.preset]["continuous" if context.continuous else "discrete"]
    return {name: value for name, value in row.solution_fails.items() if current[name] in [preset[name] for preset in presets]}


def resolve(context: Context, given: Mapping[str, Any], objective_kwargs: Mapping[str, Any] | None) -> Settings:
    """
    :param context: preset, spaces, online or offline
    :param given: the user's values of :data:`ARGUMENTS`; None, or absent, where the preset's is wanted
    :param objective_kwargs: the user's values of :data:`OBJECTIVE_KWARGS`
    :return: what is in force
    :raises ValueError: if a name or number is not allowed, or the combination has no maximiser or no data, with the reason
    """
    check_name("expert_actions", context.expert_actions, get_args(ExpertActions))
    for name in objective_kwargs or {}:
        if name not in OBJECTIVE_KWARGS:
            raise ValueError(
                f"`objective_kwargs` has the key {str(name)[:80]!r}: choose from {', '.join(OBJECTIVE_KWARGS)}. Other "
                "settings are arguments of IQLearn."
            )
    preset = of_preset(context)
    chosen = {name: value for name, value in given.items() if value is not None}
    values = {**preset, **chosen, **{k: v for k, v in (objective_kwargs or {}).items() if v is not None}}
    values["policy_kwargs"] = {**preset["policy_kwargs"], **(given.get("policy_kwargs") or {})}
    check_coefficient("reward_prior", values["reward_prior"])
    check_integer("batch_size", values["batch_size"], 1)
    if not callable(values["bc_coef"]):
        check_coefficient("bc_coef", values["bc_coef"])

    prior = prior_class(context.observation_space, context.action_space, context.expert_actions == "given")
    prior_bound = values["reward_prior"] * prior.bound if prior is not None else 0.0
    own = {name: values[name] for name in (*OBJECTIVE_KWARGS, "gamma", "penalty_coef") if name in values}
    online = Objective(**own, prior_bound=prior_bound)
    # It has no part in offline training
    objective = replace(online, prior_bound=0.0) if context.offline else online
    preset_only = {name: preset[name] for name in PRESET_ONLY}
    if not has_distance(context.observation_space):
        preset_only["input_lasso"] = 0.0  # the inputs are features, not numbers of the environment
    named = {name: values[name] for name in ARGUMENTS}
    settings = Settings(**named, objective=objective, q_bound=online.value_bound, **preset_only)
    for refused, reason in refusals(settings, context, has_prior=prior is not None):
        if refused:
            raise ValueError(reason)
    return settings


def refusals(settings: Settings, context: Context, has_prior: bool) -> list[tuple[bool, str]]:
    """:return: combinations of settings and spaces that have no data or no meaning, each with the reason"""
    objective, offline, expert_actions = settings.objective, context.offline, context.expert_actions
    space = context.observation_space
    observation_spaces = list(space.values()) if isinstance(space, spaces.Dict) else [space]
    absent = "offline there are no transitions of the policy."
    return [
        (
            offline and objective.occupancy_term in ("policy_mix", "policy"),
            f"`occupancy_term` is {objective.occupancy_term!r}: {absent} Use 'expert'.",
        ),
        (offline and objective.penalty == "mixture", f"`penalty` is 'mixture': {absent} Use 'expert'."),
        (
            offline and expert_actions == "inverse_dynamics",
            f"`expert_actions` is 'inverse_dynamics': {absent} There is nothing to learn the dynamics from; use 'policy'.",
        ),
        (
            expert_actions != "given" and settings.clones,
            f"`expert_actions` is {expert_actions!r}: `bc_coef` clones the expert's actions, which are then not read. "
            "Use bc_coef=0.",
        ),
        (
            objective.gradient_penalty > 0
            and not any(isinstance(space, spaces.Box) for space in [*observation_spaces, context.action_space]),
            f"`gradient_penalty` is {objective.gradient_penalty}: observations of {str(space)[:80]} cannot be "
            "interpolated. Use 0.",
        ),
        (
            settings.reward_prior > 0 and not has_prior,
            f"`reward_prior` is {settings.reward_prior}: the distance of two images does not say how alike they are. Use 0.",
        ),
    ]


def check_compiler(compile: bool) -> None:
    """:raises ValueError: if losses are to be compiled, and there is nothing that torch.compile could do it with"""
    compiler = os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
    if compile and shutil.which(compiler) is None:
        raise ValueError(
            f"`compile` is True, and there is no C++ compiler ({compiler}) for torch.compile: install it, name another by the "
            "environment variable CXX, or use compile=False."
        )


def check_changes(changes: Mapping[str, Any], algorithm: type, fixed: Sequence[str] = ("policy", "preset")) -> None:
    """
    :param changes: what a saved model is to be loaded with, or a new one made with
    :param algorithm: its class
    :param fixed: the arguments that can't be chosen
    :raises ValueError: if a name is none of its arguments
    """
    known = [name for name in _arguments(algorithm) if name not in (*fixed, "_init_setup_model")]
    for name in changes:
        if name not in known:
            raise ValueError(f"`{name[:80]}` is no argument of {algorithm.__name__}: choose from {', '.join(known)}.")


def check_file(path: Any) -> None:
    """:raises ValueError: if a file that is to be loaded as a model is a saved reward"""
    if not isinstance(path, (str, pathlib.Path)):
        return
    file = pathlib.Path(path)
    file = file if file.suffix else file.with_suffix(".zip")
    if is_reward(file):
        raise ValueError(
            f"`path` is {str(path)[:80]!r}, which is a saved reward and no model: use sb3_iq.rewards.LearnedReward.load(path)."
        )


def is_reward(path: pathlib.Path) -> bool:
    """:return: whether a file is a saved reward, rather than a saved model"""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "reward.json" in archive.namelist()


def _arguments(algorithm: type) -> list[str]:
    """Return the names of a constructor's arguments, and of those that it passes on by ``**kwargs``."""
    names: list[str] = []
    for init in (vars(base)["__init__"] for base in algorithm.__mro__ if "__init__" in vars(base)):
        parameters = list(inspect.signature(init).parameters.values())[1:]
        names += [
            parameter.name
            for parameter in parameters
            if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        ]
        if not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
            break
    return list(dict.fromkeys(names))


def check_preset(saved: str, preset: str | None) -> None:
    """:raises ValueError: if a saved model is to get another preset: its networks and optimisers are those of its own"""
    if preset is not None and preset != saved:
        raise ValueError(
            f"`preset` is {str(preset)[:80]!r}, and the model was made with {saved!r}, whose networks it has: give load() the "
            "settings that you want to change, or make a new model."
        )


def initial_ent_coef(ent_coef: str | float) -> float:
    """:raises ValueError: if the temperature is not a positive number, "auto" or "auto_<number>\""""
    value: str | float = ent_coef
    if ent_coef == "auto":
        value = 1.0
    elif isinstance(ent_coef, str) and ent_coef.startswith("auto_"):
        value = ent_coef.partition("_")[2]
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 < number < np.inf:
        raise ValueError(f"`ent_coef` is {str(ent_coef)[:80]!r}: it must be a positive number, 'auto' or 'auto_0.1'.")
    return number


def describe(settings: Settings, context: Context, data: str) -> str:
    """
    :param settings: what is in force
    :param context: what it depends on
    :param data: the demonstrations, in one line
    :return: the settings for the console, one a line
    """
    named = {name: getattr(settings.objective, name) for name in DESCRIBED}
    # The prior has no part in offline training
    prior = () if context.offline else ("reward_prior",)
    named |= {name: getattr(settings, name) for name in (*prior, "bc_coef", "ent_coef", "batch_size")}
    named = {"offline": context.offline, "preset": context.preset, **named}
    width = max(map(len, named))
    return "\n".join([f"IQ-Learn from {data}", *(f"    {name:{width}}  {value}" for name, value in named.items())])
