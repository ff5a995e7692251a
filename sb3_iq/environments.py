"""The ids of environments, as ``gymnasium.make`` takes them: ``ID``, or ``module:ID`` where the module registers the id."""

import ast
import importlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import gymnasium as gym
from gymnasium.envs.registration import EnvSpec

from sb3_iq.demonstrations.errors import first_words, shorten


def split_id(env_id: str) -> tuple[str | None, str]:
    """
    :param env_id: ``"ID"`` or ``"module:ID"``
    :return: the module, None if there is none, and the id
    """
    module, _, name = env_id.rpartition(":")
    return module or None, name


def name_of(env_id: str) -> str:
    """
    :param env_id: an id, or what else somebody calls an environment
    :return: the id without its module, its namespace and its version
    """
    return re.sub(r"-v\d+$", "", split_id(env_id)[1].rpartition("/")[2])


def find_spec(env_id: str) -> EnvSpec:
    """
    :param env_id: ``"ID"`` or ``"module:ID"``
    :return: what is registered under it
    """
    module, name = split_id(env_id)
    if module is not None:
        importlib.import_module(module)
    return gym.spec(name)


def not_made(env_id: str, error: Exception) -> str:
    """
    :param env_id: the id of an environment that can't be made
    :param error: why
    :return: the message of a command
    """
    return (
        f"--env {env_id}: this environment can't be made ({first_words(error)}). Check the id and its arguments, "
        "and name a package that registers it with --gym-packages"
    )


def import_packages(names: Iterable[str]) -> None:
    """
    :param names: packages that register environments when they are imported
    :raises ImportError: if one can't be imported, with its name
    """
    for name in names:
        try:
            importlib.import_module(name)
        except ImportError as error:
            raise ImportError(f"--gym-packages {name}: this package can't be imported ({error}). Install it") from error


def make_env(env_id: str, packages: Iterable[str] = (), **kwargs: Any) -> gym.Env:
    """
    :param env_id: the id of an environment
    :param packages: what to import first
    :param kwargs: arguments of ``gymnasium.make``
    :return: the environment
    :raises ValueError: if it can't be made, with the message of a command
    """
    try:
        import_packages(packages)
    except ImportError as error:
        raise ValueError(str(error)) from error
    try:
        return gym.make(env_id, **kwargs)
    except Exception as error:  # an id that is unknown or deprecated, a package that is missing, the environment itself
        raise ValueError(not_made(env_id, error)) from error


def make_given(name: str, env_id: str) -> gym.Env:
    """
    :param name: the argument's name, for the message
    :param env_id: the id of an environment, which the user gave in its place
    :return: the environment
    :raises ValueError: if it can't be made
    """
    try:
        return gym.make(env_id)
    except Exception as error:  # whatever registering, importing and making it raises
        raise ValueError(f"{name}={shorten(env_id)}: can't be made ({first_words(error)}). Check the id") from error


def env_kwargs_of(texts: Sequence[str]) -> dict[str, Any]:
    """
    :param texts: arguments of an environment, as ``KEY:VALUE`` with Python values
    :return: the arguments
    :raises ValueError: if one is not of this form
    """
    try:
        return {key: ast.literal_eval(value) for key, value in (text.split(":", maxsplit=1) for text in texts)}
    except (ValueError, SyntaxError) as error:
        raise ValueError(
            f"--env-kwargs {' '.join(texts)[:80]}: expected KEY:VALUE with Python values, e.g. gravity:-5.0 \"a:'b'\""
        ) from error
