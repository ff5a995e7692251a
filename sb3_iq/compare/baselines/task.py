"""What a run hands to an algorithm."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from stable_baselines3.common.vec_env import VecEnv

from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import Evaluations
from sb3_iq.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import check_number, shorten

SettingsType = TypeVar("SettingsType")


class UnsuitedError(ValueError):
    """An algorithm cannot serve the environment's spaces, whatever its settings and the demonstrations."""


@dataclass(frozen=True)
class Task:
    """
    :param environment: where to act
    :param demonstrations: the chosen episodes
    :param timesteps: environment steps to take
    :param seed: of everything random
    :param held_out: other episodes of the same expert, to measure IQ-Learn by
    """

    environment: Environment
    demonstrations: Demonstrations
    timesteps: int
    seed: int
    held_out: Demonstrations | None = None

    def venv(self, n_envs: int = 1) -> VecEnv:
        """
        :param n_envs: how many
        :return: new environments, side by side
        """
        return self.environment.vectorized(n_envs)


# Trains, evaluates on the way and at the end
Train = Callable[[Task, Mapping[str, Any], Evaluations], None]


def settings_of(cls: type[SettingsType], name: str, given: Mapping[str, Any]) -> SettingsType:
    """
    :param cls: a frozen dataclass, which checks its values
    :param name: the algorithm's name, for messages
    :param given: the settings that differ from the defaults
    :return: the settings
    :raises ValueError: if a setting is not known or out of range
    """
    known = [field.name for field in fields(cls)]  # type: ignore[arg-type]
    for key in given:
        if key not in known:
            raise ValueError(f"algos: {name} has no setting {shorten(key)}. It has {', '.join(known)}, and timesteps")
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise type(error)(f"algos: {name}: {error}") from error


def check_between(settings: object, low: float, high: float, *names: str) -> None:
    """
    :param settings: a dataclass
    :param low: the least value allowed
    :param high: the greatest value allowed
    :param names: the fields to check
    :raises ValueError: if one is out of range
    """
    for name in names:
        value = getattr(settings, name)
        if check_number(name, value, low) > high:
            raise ValueError(f"{name}={shorten(value)}: expected a number between {low:g} and {high:g}")
