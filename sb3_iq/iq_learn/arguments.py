"""How IQLearn's arguments become an environment, a policy class and demonstrations; and what is refused, with the reason."""

import os
import shutil
import sys
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import BaseCallback, CallbackList, EventCallback, StopTrainingOnMaxEpisodes
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.preprocessing import get_action_dim
from stable_baselines3.common.type_aliases import MaybeCallback, PyTorchObs, Schedule
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq.demonstrations import Demonstrations, load_demonstrations
from sb3_iq.demonstrations.shared import read_shared
from sb3_iq.iq_learn.batches import ExpertActions
from sb3_iq.iq_learn.divergences import DivergenceName
from sb3_iq.iq_learn.objective import CriticBound, ExpertTarget, OccupancyTerm, Penalty, TerminalValue, value_bound
from sb3_iq.iq_learn.observations import batch_length
from sb3_iq.iq_learn.policies import CONTINUOUS_POLICIES, DISCRETE_POLICIES, SACPolicy, SoftQPolicy
from sb3_iq.iq_learn.presets import Settings, settings_for
from sb3_iq.iq_learn.reward_prior import has_distance, is_cloned, largest_size

if TYPE_CHECKING:
    from sb3_iq.iq_learn.iq_learn import IQLearn


def policy_class(policy: str | type[BasePolicy], env: VecEnv | None) -> type[BasePolicy]:
    """
    :param policy: alias or class
    :param env: the environment, None while a model is loaded (then ``policy`` is the saved class)
    :return: the policy's class for the environment's action space
    :raises ValueError: if the alias is unknown, or the class does not go with the action space
    """
    if env is None and not isinstance(policy, str):
        return policy
    if env is None:
        raise ValueError(f"`env` is None: the policy {policy!r} depends on the action space.")
    continuous = isinstance(env.action_space, spaces.Box)
    if not continuous and not isinstance(env.action_space, spaces.Discrete):
        raise ValueError(
            f"The environment's action space is {str(env.action_space)[:80]}: only Discrete and Box are supported."
        )
    aliases = CONTINUOUS_POLICIES if continuous else DISCRETE_POLICIES
    if isinstance(policy, str):
        if policy not in aliases:
            raise ValueError(f"`policy` is {policy!r}: choose one of {', '.join(aliases)}, or give a class.")
        if isinstance(env.observation_space, spaces.Dict) and policy != "MultiInputPolicy":
            raise ValueError(f"You must use `MultiInputPolicy` when working with dict observation space, not {policy}")
        return aliases[policy]
    base = SACPolicy if continuous else SoftQPolicy
    if not (isinstance(policy, type) and issubclass(policy, base)):
        raise ValueError(
            f"`policy` is {str(policy)[:80]}: for {type(env.action_space).__name__} actions give one of "
            f"{', '.join(aliases)} or a class derived from sb3_iq.iq_learn.{base.__name__}."
        )
    return policy


def check_one_step(n_steps: int, replay_buffer_class: type | None) -> None:
    """:raises ValueError: if returns over several steps are asked for"""
    if n_steps != 1:
        raise ValueError(f"`n_steps` is {n_steps}: r = Q(s, a) - gamma V(s') is a one-step relation, only n_steps=1 fits it.")
    names = [base.__name__ for base in getattr(replay_buffer_class, "__mro__", ())]
    if any(name.startswith(("NStep", "Her")) for name in names):
        raise ValueError(
            f"`replay_buffer_class` is {names[0]}: r = Q(s, a) - gamma V(s') holds for single steps of the policy's own "
            "occupancy, not for n-step returns or relabelled goals. Use ReplayBuffer or DictReplayBuffer."
        )


class ObjectiveTerms(NamedTuple):
    """What the preset sets in another way offline."""

    occupancy_term: OccupancyTerm
    penalty: Penalty
    expert_target: ExpertTarget


def settings_of(model: "IQLearn") -> Settings:
    """:return: what the model's preset stands for"""
    return settings_for(model.preset, model.env or model, model._env_spec[0])


def objective_terms(model: "IQLearn") -> ObjectiveTerms:
    """:return: the terms of the objective in force: the user's, else those of the preset for learning online or offline"""
    settings = settings_of(model)
    if model.offline:
        presets = (settings.offline_occupancy_term, settings.offline_penalty, settings.offline_expert_target)
    else:
        presets = (settings.occupancy_term, settings.penalty, settings.expert_target)
    chosen = (model.occupancy_term, model.penalty, model.expert_target)
    return ObjectiveTerms(*(given or preset for given, preset in zip(chosen, presets, strict=True)))  # type: ignore[arg-type]


def describe(model: "IQLearn") -> str:
    """:return: the settings in force, in one line for the console"""
    names = (
        *("terminal_value", "critic_bound", "penalty_coef", "mixture_weight", "reward_prior", "gradient_penalty"),
        *("use_target", "gamma", "ent_coef", "batch_size"),
    )
    settings = {
        "offline": model.offline,
        "preset": model.preset,
        "divergence": model.divergence,
        **objective_terms(model)._asdict(),
        **{name: getattr(model, name) for name in names},
    }
    data = model.expert_buffer.description if model.expert_buffer is not None else "no demonstrations"
    return f"IQ-Learn from {data}: " + ", ".join(f"{name}={value}" for name, value in settings.items())


def value_bound_of(model: "IQLearn") -> float:
    """:return: the largest size of values of the model's rewards"""
    return value_bound(model.gamma, model.penalty_coef, largest_size(model))


def q_bound(model: "IQLearn") -> float:
    """:return: the size that values cannot exceed in theory, infinite if the divergence has no bounded reward"""
    if model.divergence not in ("chi2", "total_variation"):
        return float("inf")
    # Rewards within 1/c of the prior, and the entropy bonus, which for a Box has no bound but is far from 10 nats a dimension
    space = model.action_space
    entropy = np.log(space.n) if isinstance(space, spaces.Discrete) else 10 * get_action_dim(space)
    return value_bound_of(model) + float(model._ent_coef()) * float(entropy) / (1 - model.gamma)


def check_settings(model: "IQLearn") -> None:
    """:raises ValueError: if a name or number is unknown, or the combination has no maximiser, or it can't be compiled"""
    terms = objective_terms(model)
    for name, value, literal in (
        ("divergence", model.divergence, DivergenceName),
        ("occupancy_term", terms.occupancy_term, OccupancyTerm),
        ("penalty", terms.penalty, Penalty),
        ("terminal_value", model.terminal_value, TerminalValue),
        ("critic_bound", model.critic_bound, CriticBound),
        ("expert_target", terms.expert_target, ExpertTarget),
        ("expert_actions", model.expert_actions, ExpertActions),
    ):
        known = get_args(literal)
        if value not in known:
            raise ValueError(f"`{name}` is {str(value)[:80]!r}: choose one of {', '.join(known)}.")
    for name, minimum in (("policy_delay", 1), ("pretrain_steps", 0), ("replay_window", 1)):
        number = getattr(model, name)
        if number is not None and (not isinstance(number, (int, np.integer)) or number < minimum):
            raise ValueError(f"`{name}` is {str(number)[:80]}: give an integer of at least {minimum}.")
    for name in ("mixture_weight", "reward_prior", "gradient_penalty", "obs_noise", "bc_coef"):
        number = getattr(model, name)
        if name == "bc_coef" and (number is None or callable(number)):
            continue
        if callable(number) or not 0 <= number < np.inf:
            raise ValueError(f"`{name}` is {str(number)[:80]}: it must be finite and not negative.")
    if not 0 < model.penalty_coef < np.inf:
        raise ValueError(f"`penalty_coef` is {model.penalty_coef}: it must be positive and finite, else Q has no maximiser.")
    if not 0 <= model.gamma < 1:
        raise ValueError(f"`gamma` is {model.gamma}: it must be in [0, 1), else the values of an endless episode diverge.")
    if not 0 < model.actor_tau <= 1:
        raise ValueError(f"`actor_tau` is {model.actor_tau}: it must be in (0, 1].")
    for refused, reason in refusals(model, terms):
        if refused:
            raise ValueError(reason)


def refusals(model: "IQLearn", terms: ObjectiveTerms) -> list[tuple[bool, str]]:
    """:return: combinations that have no maximiser or no data, each with the reason"""
    compiler = os.environ.get("CXX", {"darwin": "clang++", "win32": "cl"}.get(sys.platform, "g++"))
    space = model.observation_space
    observation_spaces = space.values() if isinstance(space, spaces.Dict) else [space]
    absent = "offline there are no transitions of the policy."
    return [
        (
            model.offline and terms.occupancy_term in ("policy_mix", "policy"),
            f"`occupancy_term` is {terms.occupancy_term!r}: {absent} Use 'expert'.",
        ),
        (model.offline and terms.penalty == "mixture", f"`penalty` is 'mixture': {absent} Use 'expert'."),
        (
            model.offline and model.expert_actions == "inverse_dynamics",
            f"`expert_actions` is 'inverse_dynamics': {absent} There is nothing to learn the dynamics from; use 'policy'.",
        ),
        (
            terms.expert_target == "fixed" and (model.divergence != "chi2" or terms.penalty != "mixture"),
            "`expert_target` is 'fixed': that is a target of least squares, which only divergence='chi2' with "
            "penalty='mixture' is.",
        ),
        (
            model.divergence == "total_variation" and model.critic_bound != "tanh",
            "`divergence` is 'total_variation': its reward has no bound of its own, Q would go to infinity. "
            "Use critic_bound='tanh'.",
        ),
        (
            model.divergence == "wasserstein" and model.gradient_penalty == 0,
            "`divergence` is 'wasserstein': without a Lipschitz constant Q would go to infinity. Use gradient_penalty=10.",
        ),
        (
            model.expert_actions != "given"
            and (model.pretrain_steps > 0 or callable(model.bc_coef) or (model.bc_coef or 0) > 0),
            f"`expert_actions` is {model.expert_actions!r}: `pretrain_steps` and `bc_coef` clone the expert's actions, which "
            "are then not read. Leave them at 0.",
        ),
        (
            model.gradient_penalty > 0
            and not any(isinstance(space, spaces.Box) for space in [*observation_spaces, model.action_space]),
            f"`gradient_penalty` is {model.gradient_penalty}: observations of {str(model.observation_space)[:80]} cannot be "
            "interpolated. Use 0.",
        ),
        (
            model.reward_prior > 0 and not is_cloned(model) and not has_distance(space),
            f"`reward_prior` is {model.reward_prior}: the distance of two images does not say how alike they are. Use 0.",
        ),
        (
            model.compile and shutil.which(compiler) is None,
            f"`compile` is True, and there is no C++ compiler ({compiler}) for torch.compile: install it, name another by the "
            "environment variable CXX, or use compile=False.",
        ),
    ]


def check_callback(callback: MaybeCallback, offline: bool) -> None:
    """:raises ValueError: if a callback counts episodes, and there are none"""
    if not offline:
        return
    pending: list[Any] = list(callback) if isinstance(callback, list) else [callback]
    while pending:
        current = pending.pop()
        if isinstance(current, StopTrainingOnMaxEpisodes):
            raise ValueError("`callback` holds StopTrainingOnMaxEpisodes: offline there are no episodes to count.")
        if isinstance(current, CallbackList):
            pending.extend(current.callbacks)
        elif isinstance(current, EventCallback) and isinstance(current.callback, BaseCallback):
            pending.append(current.callback)


def read_expert_data(expert_data: Any, env_id: str | None, max_episode_steps: int | None) -> Demonstrations:
    """
    :param expert_data: whatever ``load_demonstrations`` takes or returns
    :param env_id: the environment's id, which ``demos:`` stands for
    :param max_episode_steps: the environment's time limit
    :return: the demonstrations, with terminated and truncated told apart by that limit where nothing better is known
    """
    if isinstance(expert_data, (str, Path)):
        key = (str(expert_data), env_id, max_episode_steps)
        return read_shared(key, lambda: _read_expert_data(expert_data, env_id, max_episode_steps))
    return _read_expert_data(expert_data, env_id, max_episode_steps)


def _read_expert_data(expert_data: Any, env_id: str | None, max_episode_steps: int | None) -> Demonstrations:
    demonstrations = load_demonstrations(expert_data, env_id=env_id)
    if max_episode_steps:
        demonstrations = demonstrations.with_time_limit(max_episode_steps)
    length = demonstrations.unknown_limit_length()
    if length is not None:
        warnings.warn(
            f"Two or more demonstrations end after {length} steps, the greatest length, and no time limit is known: these "
            "ends are taken for terminal states. If they are a limit, use "
            f"load_demonstrations(..., max_episode_steps={length})."
        )
    return demonstrations


def read_expert_data_again(model: "IQLearn") -> None:
    """
    Read the demonstrations of a loaded model, which are not saved with it.

    :raises ValueError: if they did not come from a name or a path
    """
    if model.expert_reference is None:
        raise ValueError(
            "`expert_data` is None: there is nothing to imitate. Give IQLearn(...), IQLearn.load(...) or set_expert_data(...) "
            "the demonstrations; they are not saved with a model."
        )
    saved_hash = model.expert_content_hash
    model.set_expert_data(model.expert_reference)
    if model.expert_content_hash != saved_hash:
        warnings.warn(f"The demonstrations of {model.expert_reference!r} are not those that the model was saved with.")


def auto_target_entropy(action_space: spaces.Space) -> float:
    if isinstance(action_space, spaces.Discrete):
        return 0.1 * float(np.log(action_space.n))
    return -float(np.prod(action_space.shape))  # type: ignore[arg-type]


def initial_ent_coef(ent_coef: str | float) -> float:
    """:raises ValueError: if the temperature is not a positive number, "auto" or "auto_<number>\""""
    value: str | float = ent_coef
    if ent_coef == "auto":
        value = 1.0
    elif isinstance(ent_coef, str) and ent_coef.startswith("auto_"):
        value = ent_coef.partition("_")[2]
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not 0 < number < np.inf:
        raise ValueError(f"`ent_coef` is {str(ent_coef)[:80]!r}: it must be a positive number, 'auto' or 'auto_0.1'.")
    return number


def update_learning_rate(optimizer: th.optim.Optimizer, learning_rate: float | Schedule, progress_remaining: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = float(learning_rate(progress_remaining) if callable(learning_rate) else learning_rate)


def reward_arguments(
    model: "IQLearn", obs: PyTorchObs, actions: np.ndarray, next_obs: PyTorchObs, terminated: np.ndarray
) -> tuple[th.Tensor, th.Tensor]:
    """
    :return: actions as the Q-function takes them, shape (batch, action_dim), and terminated as floats, shape (batch,)
    :raises ValueError: if the four are not of the same length
    """
    actions = np.asarray(actions)
    if isinstance(model.action_space, spaces.Box):
        actions = actions.reshape(-1, *model.action_space.shape)
        # As demonstrations are: Q is only defined on the box
        actions = np.clip(actions, model.action_space.low, model.action_space.high)
        actions = model.policy.scale_action(actions).astype(np.float32).reshape(len(actions), -1)
    else:
        valid = np.isin(actions, np.arange(model.action_space.n))  # type: ignore[attr-defined]
        if not valid.all():
            raise ValueError(f"`actions` holds {actions[~valid][0]}, which is not in {model.action_space}.")
        actions = actions.reshape(-1, 1).astype(np.int64)
    terminated = np.asarray(terminated, dtype=np.float32).reshape(-1)
    lengths = [batch_length(obs), len(actions), batch_length(next_obs), len(terminated)]
    if len(set(lengths)) > 1:
        raise ValueError(f"`obs`, `actions`, `next_obs` and `terminated` are of different lengths: {lengths}.")
    return th.as_tensor(actions, device=model.device), th.as_tensor(terminated, device=model.device)
