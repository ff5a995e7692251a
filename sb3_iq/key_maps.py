"""Which key is which action of an environment."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import gymnasium as gym
import numpy as np
from gymnasium import spaces

from sb3_iq.demonstrations.errors import shorten
from sb3_iq.environments import name_of

WAIT: Literal["wait"] = "wait"
RESERVED = ("return", "enter", "backspace", "escape")
"""The keys that keep, drop and end."""
KEYS: dict[str, tuple[dict[str, Any], Any]] = {
    "LunarLander": ({"left": 1, "up": 2, "right": 3}, 0),
    "LunarLanderContinuous": ({"up": [1.0, 0.0], "left": [-1.0, -1.0], "right": [-1.0, 1.0]}, [-1.0, 0.0]),
    "CartPole": ({"left": 0, "right": 1}, WAIT),
    "Acrobot": ({"left": 0, "right": 2}, 1),
    "MountainCarContinuous": ({"left": [-1.0], "right": [1.0]}, [0.0]),
    "Pendulum": ({"left": [2.0], "right": [-2.0]}, [0.0]),
    "CarRacing": ({"left": [-1, 0, 0], "right": [1, 0, 0], "up": [0, 0.5, 0], "down": [0, 0, 0.5]}, [0, 0, 0]),
    "FrozenLake": ({"left": 0, "down": 1, "right": 2, "up": 3}, WAIT),
    "CliffWalking": ({"up": 0, "right": 1, "down": 2, "left": 3}, WAIT),
}
"""Environments of Gymnasium that bring no keys: the keys by pygame's names, and the action without a key."""
_NAMES_OF_SDL1 = {273: "up", 274: "down", 275: "right", 276: "left"}  # by which some environments still count
_MAX_DIGITS = 10


@dataclass(frozen=True)
class KeyMap:
    """
    :param actions: actions by the names of the keys that are down, several joined by a plus sign
    :param noop: the action without a key, or ``"wait"``
    :param space: the action space
    """

    actions: Mapping[str, Any]
    noop: Any
    space: spaces.Space

    def action(self, down: list[str]) -> Any:
        """
        :param down: the keys that are down, in the order in which they were pressed
        :return: the action: that of the combination; else the sum of continuous ones, clipped to the bounds, or the latest of
            discrete ones; None to wait
        """
        combination = _normal("+".join(down))
        if combination in self.actions:
            return self.actions[combination]
        single = [self.actions[name] for name in down if name in self.actions]
        if not single:
            return None if isinstance(self.noop, str) else self.noop
        if isinstance(self.space, spaces.Box):
            return np.clip(np.sum(single, axis=0), self.space.low, self.space.high).astype(self.space.dtype)
        return single[-1]

    def as_text(self) -> dict[str, str]:
        """:return: the actions as text"""
        return {name: str(action) for name, action in self.actions.items()}

    def __str__(self) -> str:
        """
        :return: a line a key
        """
        width = max(len(name) for name in (*self.actions, "backspace"))
        lines = [f"  {name:{width}}  action {action}" for name, action in self.actions.items()]
        lines += [
            f"  {'no key':{width}}  " + ("the environment waits" if isinstance(self.noop, str) else f"action {self.noop}")
        ]
        lines += [f"  {'return':{width}}  keep the episode, at its end", f"  {'backspace':{width}}  drop the episode"]
        return "\n".join(["The keys:", *lines, f"  {'escape':{width}}  end"])


def find_keys(env: gym.Env, given: Mapping[str, Any], noop: Any = None) -> KeyMap:
    """
    The given keys, else those of :data:`KEYS`, else the environment's own, else a digit for each discrete action.

    :param env: the environment
    :param given: the user's keys
    :param noop: the user's action without a key, ``"wait"``, or None for the default
    :return: the keys
    :raises ValueError: if there are none, a key is reserved, or an action is not in the action space
    """
    space = env.action_space
    known = KEYS.get(name_of(env.spec.id) if env.spec is not None else "")
    own = _own_keys(env)
    default: Any = WAIT
    if given:
        found, default = given, known[1] if known is not None else own.get("", WAIT)
    elif known is not None and all(_is_action(space, action) for action in known[0].values()):
        found, default = known
    elif own:
        found, default = own, own.get("", 0)
    elif isinstance(space, spaces.Discrete) and space.n <= _MAX_DIGITS:
        found = {str(i): int(space.start) + i for i in range(int(space.n))}
    else:
        raise ValueError(
            f"the environment has no keys, and its actions are {str(space)[:80]}: say by --keys which key is which action, "
            f"e.g. --keys {_example(space)}"
        )
    actions = {_normal(name): _as_action(space, action, f"--keys {name}") for name, action in found.items() if name}
    for name in actions:
        if set(name.split("+")) & set(RESERVED):
            raise ValueError(f"--keys {name}: {', '.join(RESERVED)} keep, drop and end. Choose another key")
    if noop is None:
        noop = default
        if isinstance(noop, str) and isinstance(space, spaces.Box):
            noop = np.clip(np.zeros(space.shape), space.low, space.high)
    return KeyMap(actions, noop if isinstance(noop, str) else _as_action(space, noop, "--noop"), space)


def _own_keys(env: gym.Env) -> dict[str, Any]:
    """Return the keys that the environment brings, under "" the action without a key."""
    try:
        own = env.get_wrapper_attr("get_keys_to_action")()
    except AttributeError:
        return {}
    import pygame

    def name(key: str | int) -> str:
        code = ord(key) if isinstance(key, str) else key
        return _NAMES_OF_SDL1.get(code) or pygame.key.name(code)

    combinations = {keys: keys if isinstance(keys, tuple) else (keys,) for keys in own}
    return {"+".join(map(name, combination)): own[keys] for keys, combination in combinations.items()}


def _normal(name: str) -> str:
    """Return a combination of keys with its names in one order."""
    return "+".join(sorted(part.strip().lower() for part in name.split("+")))


def _is_action(space: spaces.Space, action: Any) -> bool:
    try:
        _as_action(space, action, "")
    except ValueError:
        return False
    return True


def _as_action(space: spaces.Space, action: Any, where: str) -> Any:
    converted = action
    if isinstance(space, (spaces.Box, spaces.MultiDiscrete, spaces.MultiBinary)):
        try:
            converted = np.asarray(action, dtype=space.dtype).reshape(space.shape)
        except (ValueError, TypeError):
            raise ValueError(f"{where}: {shorten(str(action))} is not an action of {str(space)[:80]}") from None
    if not space.contains(converted):
        raise ValueError(f"{where}: {shorten(str(action))} is not an action of {str(space)[:80]}")
    return converted


def _example(space: spaces.Space) -> str:
    """Return what a mapping may look like for these actions."""
    sample = np.round(np.asarray(space.sample(), dtype=float), 1).tolist() if space.shape is not None else 0
    if not isinstance(space, spaces.Box):
        sample = np.asarray(space.sample()).tolist()
    return f'"w:{sample}"'.replace(" ", "")
