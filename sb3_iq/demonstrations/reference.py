"""Strings that name data: ``demos:Hopper-v5``, also with a choice of episodes, ``demos:Hopper-v5?n_trajectories=1``."""

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sb3_iq.demonstrations.errors import reading, shorten
from sb3_iq.demonstrations.sources.hub import download_from_hub
from sb3_iq.demonstrations.sources.minari import open_minari
from sb3_iq.environments import split_id

BUNDLED = Path(__file__).parent / "bundled"
DEMOS_VARIABLE = "SB3_IQ_DEMOS"
CHOICES = ("n_trajectories", "subsample_freq", "seed", "max_episode_steps")


def split_reference(reference: str) -> tuple[str, dict[str, int]]:
    """
    :param reference: what names the data, with or without ``?NAME=NUMBER&NAME=NUMBER`` at its end
    :return: the reference without that, and the arguments of :func:`~sb3_iq.load_demonstrations` in it
    :raises ValueError: if it is malformed, with the names that there are
    """
    base, mark, query = reference.rpartition("?")
    if not mark:
        return reference, {}
    with reading(reference, "a path"):
        if Path(reference).exists():
            return reference, {}
    choice: dict[str, int] = {}
    for part in query.split("&"):
        name, _, number = part.partition("=")
        if name not in CHOICES or name in choice or not number.isdecimal():
            raise ValueError(
                f"expert_data {shorten(reference)}: there is no such path, and {shorten(part)} is not understood. After '?' "
                f"give each of {', '.join(CHOICES)} at most once, e.g. '?n_trajectories=10&seed=0'"
            )
        choice[name] = int(number)
    return base, choice


def resolve(reference: str, env_id: str | None) -> Any:
    """
    :param reference: a name with one of the :data:`SCHEMES`, or a path
    :param env_id: the environment's id, which ``demos:`` alone stands for
    :return: what it stands for: a path, or an object of another library
    :raises ValueError: if there is no such scheme, or no such name
    :raises FileNotFoundError: if the data is not there
    :raises ImportError: if the scheme's library is not installed
    """
    scheme, colon, name = reference.partition(":")
    if not colon or not re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]+", scheme):  # one letter is a drive of Windows
        return Path(reference)
    if scheme in SCHEMES:
        return SCHEMES[scheme](name, env_id)
    if Path(reference).exists():
        return Path(reference)
    raise ValueError(
        f"expert_data {shorten(reference)}: unknown scheme {shorten(scheme)}. Use bundled:NAME, demos:NAME, "
        "minari:ID, hf:ORG/NAME or a path"
    )


def _bundled(name: str, _: str | None) -> Path:
    names = sorted(folder.name for folder in BUNDLED.iterdir() if folder.is_dir()) if BUNDLED.is_dir() else []
    if name not in names:
        raise ValueError(f"expert_data {shorten('bundled:' + name)}: there is no such bundled set. Use one of {names}")
    return BUNDLED / name


def _demos(name: str, env_id: str | None) -> Path:
    reference, root = f"demos:{name}", os.environ.get(DEMOS_VARIABLE)
    if not root:
        raise ValueError(
            f"expert_data {shorten(reference)}: the environment variable {DEMOS_VARIABLE} is not set. Set it to the "
            f"folder that holds one data set folder for each environment. {_how_to_get(name or env_id)}"
        )
    if not name and env_id is None:
        raise ValueError(f"expert_data {shorten(reference)}: no environment id is known here. Use 'demos:NAME'")
    path = Path(root) / (name or split_id(str(env_id))[1])
    if not path.exists():
        raise FileNotFoundError(
            f"expert_data {shorten(reference)}: {shorten(path)} does not exist. Check the name and {DEMOS_VARIABLE}. "
            f"{_how_to_get(name or env_id)}"
        )
    return path


def _how_to_get(name: str | None) -> str:
    """Return the ways to demonstrations, for who has none."""
    env_id = name or "ENV"
    return (
        f"To get demonstrations, record an agent of RL Zoo (python -m sb3_iq.record --algo ppo --env {env_id} -f logs/ "
        f'--n-episodes 25 --out "${DEMOS_VARIABLE}/{env_id}"), or use those of Minari (minari:ID) or of the Hugging Face hub '
        "(hf:ORG/NAME)"
    )


SCHEMES: dict[str, Callable[[str, str | None], Any]] = {
    "bundled": _bundled,
    "demos": _demos,
    "minari": lambda name, _: open_minari(name),
    "hf": lambda name, _: download_from_hub(name),
}
"""From the name and the environment's id to a path, or to an object that one of the sources reads."""
