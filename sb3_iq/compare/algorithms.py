"""What can be compared: names, the words that stand for several, and settings as typed on a command line."""

import ast
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sb3_iq.demonstrations.errors import check_integer, check_number, how_to_install, shorten

# What one may ask for, and the algorithms that it stands for. ``sb3/`` are of this package, on Stable-Baselines3's
# networks and learners, ``imitation/`` those of the library imitation
WORDS: dict[str, tuple[str, ...]] = {
    "iq": ("iq",),
    "bc": ("sb3/bc", "imitation/bc"),
    "sqil": ("sb3/sqil", "imitation/sqil"),
    "gail": ("sb3/gail", "imitation/gail"),
    "airl": ("imitation/airl",),
}
# By name alone: the ablation of IQ-Learn that differs in the loss
NAMES = (*(name for names in WORDS.values() for name in names), "iq/bc")
DESCRIPTIONS = {
    "iq": "IQ-Learn, `sb3_iq.IQLearn`",
    "sb3/bc": "behavioural cloning of SB3's networks, to convergence: early stopping on held-out data, then all data",
    "sb3/sqil": "SQIL on SB3's SAC (continuous actions) or DQN (discrete ones)",
    "sb3/gail": "off-policy GAIL: SB3's SAC or DQN with a regularised discriminator and absorbing states",
    "iq/bc": "behavioural cloning of IQ-Learn's own networks for `timesteps` gradient steps: only the loss differs",
    "imitation/bc": "BC of the library imitation",
    "imitation/sqil": "SQIL of the library imitation, on SAC or DQN",
    "imitation/gail": "GAIL of the library imitation, on PPO",
    "imitation/airl": "AIRL of the library imitation, on PPO",
}


@dataclass(frozen=True)
class Algorithm:
    """
    An algorithm with the settings that differ from its defaults.

    :param name: one of :data:`NAMES`
    :param settings: arguments of :class:`~sb3_iq.IQLearn`, or settings of the baseline; ``timesteps``, for any, is a budget
        of its own; ``budget``, for imitation's, is one as a multiple of the common budget
    :param by_word: whether a word stood for it, so that it is left out where it cannot serve the environment's spaces
    :raises ValueError: if there is no such algorithm, or its budget is not positive
    :raises TypeError: if its budget is no number
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    by_word: bool = field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.name not in NAMES:
            hint = ". Separate them by spaces" if "," in self.name else ""
            known = ", ".join([*WORDS, *NAMES[1:]])
            raise ValueError(f"algos: {shorten(self.name)} is not known. Choose among {known}{hint}")
        object.__setattr__(self, "settings", dict(self.settings))
        if "seed" in self.settings:
            raise ValueError(
                f"algos: {self.name}: seed={shorten(self.settings['seed'])}: a run has the seed of its demonstrations. Give "
                "--seeds and --first-seed"
            )
        if "timesteps" in self.settings:
            check_integer(f"algos: {self.name}: timesteps", self.settings["timesteps"], 1)
        if "budget" in self.settings:
            self._check_budget(self.settings["budget"])

    def _check_budget(self, budget: Any) -> None:
        cure = "Give timesteps=..., the number of steps"
        if self.library != "imitation" or "timesteps" in self.settings:
            why = "beside timesteps" if self.library == "imitation" else "which only imitation's algorithms have"
            raise ValueError(f"algos: {self.name}: budget={shorten(budget)}, {why}. {cure}")
        name = f"algos: {self.name}: budget"
        if not 0 < check_number(name, budget, 0, cure) < float("inf"):
            raise ValueError(f"{name}={shorten(budget)}: expected a number above 0, a multiple of --timesteps. {cure}")

    @property
    def label(self) -> str:
        """The name and settings as :func:`parse` takes them, e.g. ``iq:preset=paper``."""
        if not self.settings:
            return self.name
        pairs = (f"{key}={value if _is_plain(value) else repr(value)}" for key, value in plain(self.settings).items())
        return f"{self.name}:{','.join(pairs)}"

    @property
    def library(self) -> str:
        """``"imitation"``, or ``"sb3"`` for what this package brings."""
        return "imitation" if self.name.startswith("imitation/") else "sb3"


def _is_plain(value: Any) -> bool:
    """Whether a string needs no quotes."""
    return isinstance(value, str) and value.replace("-", "_").isidentifier() and value not in ("None", "True", "False")


def _is_primitive(value: Any) -> bool:
    """Whether JSON has a form of it. NumPy's floats are Python's as well, but print as another type."""
    return value is None or (isinstance(value, (bool, int, float, str)) and not isinstance(value, np.generic))


def plain(value: Any) -> Any:
    """
    :param value: a setting
    :return: the same of Python's own numbers, strings and containers, for JSON and for labels that are the same in each
        process: classes and functions by their names, other objects by their text
    """
    if _is_primitive(value):
        return value
    if isinstance(value, Mapping):
        return {key if _is_primitive(key) else str(plain(key)): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(map(plain, value)) if type(value) in (list, tuple) else list(map(plain, value))
    if isinstance(value, (np.generic, np.ndarray)):
        return plain(value.tolist())
    named = value if hasattr(value, "__qualname__") else type(value)
    if named is value or type(value).__repr__ is object.__repr__:  # which tells an address
        return f"{named.__module__}.{named.__qualname__}"
    return repr(value)


def parse(texts: Sequence[str | Algorithm]) -> tuple[Algorithm, ...]:
    """
    :param texts: words (``gail``), names (``sb3/gail``), either with settings (``iq:preset=paper,gamma=0.98``), or algorithms
    :return: the algorithms, each once. A word that stands for several is all of them
    :raises ValueError: if there is no such algorithm, or its settings cannot be read
    """
    if isinstance(texts, str) or not texts:
        raise ValueError(f"algos={shorten(texts)}: expected a list of one or more of {', '.join(WORDS)}")
    found: dict[str, Algorithm] = {}
    for text in texts:
        if isinstance(text, Algorithm):
            found[text.label] = text
            continue
        if not isinstance(text, str):
            raise TypeError(f"algos holds {shorten(text)}: expected strings such as 'iq' or 'iq:preset=paper'")
        name, _, rest = text.partition(":")
        names = WORDS.get(name, (name,))
        settings = parse_settings(text, rest) if rest else {}
        if settings and len(names) > 1:
            raise ValueError(f"algos: {shorten(text)}: {name} stands for {' and '.join(names)}, name the one that you set up")
        for algorithm in (Algorithm(each, settings, by_word=name in WORDS and not settings) for each in names):
            if not algorithm.by_word or algorithm.label not in found:
                found[algorithm.label] = algorithm
    return tuple(found.values())


def parse_settings(text: str, settings: str) -> dict[str, Any]:
    """
    :param text: the whole, for messages
    :param settings: ``KEY=VALUE,...`` with Python values; what is none is a string
    :return: the settings
    :raises ValueError: if they are not of this form
    """
    source = f"f({settings})"
    try:
        call = ast.parse(source, mode="eval").body
    except SyntaxError:
        call = None
    names = [keyword.arg for keyword in call.keywords] if isinstance(call, ast.Call) else []
    if not isinstance(call, ast.Call) or call.args or not names or None in names or len(set(names)) < len(names):
        raise ValueError(
            f"algos: {shorten(text)}: expected NAME:KEY=VALUE,..., e.g. iq:preset=paper,gamma=0.98. Spaces separate algorithms"
        )
    values = {}
    for keyword in call.keywords:
        try:
            values[str(keyword.arg)] = ast.literal_eval(keyword.value)
        except TypeError as error:  # a key or a member that cannot be one
            raise ValueError(f"algos: {shorten(text)}: {keyword.arg} cannot be read ({error})") from error
        except ValueError:
            values[str(keyword.arg)] = ast.get_source_segment(source, keyword.value)
    return values


def without_imitation(algorithms: Sequence[Algorithm]) -> tuple[tuple[Algorithm, ...], str]:
    """
    :param algorithms: what was asked for
    :return: what can run here, and a note on what cannot, and how to install it; empty if all can
    """
    missing = [algorithm.label for algorithm in algorithms if algorithm.library == "imitation"]
    if not missing or importlib.util.find_spec("imitation") is not None:
        return tuple(algorithms), ""
    note = (
        f"{', '.join(missing)}: left out, as the library imitation is not installed. It needs older packages, in a virtual "
        f"environment of their own. {how_to_install('imitation,compare')}. The same command there, with the same --out, adds "
        "what is missing."
    )
    return tuple(algorithm for algorithm in algorithms if algorithm.library != "imitation"), note
