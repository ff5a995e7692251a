"""Settings of imitation's algorithms, from a file that a user may copy and edit."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from sb3_iq.compare.comparison import digest
from sb3_iq.demonstrations.errors import check_number, shorten

BASELINES = Path(str(files("sb3_iq"))) / "imitation" / "baselines.yml"
ALGORITHMS = ("gail", "airl", "sqil", "bc")


@dataclass(frozen=True)
class Baselines:
    """
    :param content: settings of each algorithm: ``default`` and, by the id of an environment, what differs there
    :param digest: a hash of them
    """

    content: Mapping[str, Mapping[str, Mapping[str, Any]]]
    digest: str

    def of(self, name: str, env_id: str) -> dict[str, Any]:
        """
        :param name: an algorithm, ``imitation/gail``
        :param env_id: the environment
        :return: its settings there. Sections of an environment replace those of the default one by one
        """
        entries = self.content[name.partition("/")[2]]
        return {**entries["default"], **entries.get(env_id, {})}


def read(path: str | Path | None = None) -> Baselines:
    """
    :param path: the file; None for the one of this package
    :return: its settings
    :raises ValueError: if it is not of the form of this package's
    :raises TypeError: if a budget is no number
    """
    file = BASELINES if path is None else Path(path)
    try:
        content = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ValueError(
            f"baselines_file={shorten(file)} cannot be read ({error}). Start from a copy of {BASELINES}"
        ) from error
    for name in ALGORITHMS:
        entries = content.get(name) if isinstance(content, dict) else None
        if (
            not isinstance(entries, dict)
            or not all(isinstance(entry, dict) for entry in entries.values())
            or "default" not in entries
        ):
            raise ValueError(
                f"baselines_file={shorten(file)}: expected settings below {name}: default:. Start from a copy of {BASELINES}"
            )
        for key, entry in entries.items():
            _check_budget(f"baselines_file={shorten(file)}: {name}: {key}: budget", entry.get("budget", 1))
    return Baselines(content, digest(json.dumps(content, sort_keys=True)))


def _check_budget(name: str, budget: Any) -> None:
    cure = "It is a multiple of --timesteps"
    if not 0 < check_number(name, budget, 0, cure) < float("inf"):
        raise ValueError(f"{name}={shorten(budget)}: expected a number above 0. {cure}")
