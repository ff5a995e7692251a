"""What is compared, checked before the first run, and the runs that it consists of."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from sb3_iq.compare.algorithms import Algorithm
from sb3_iq.compare.environment import Environment
from sb3_iq.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import check_integer, check_number, cut, shorten

N_EVAL_EPISODES = 50
# Evaluations of one run, where their frequency is not given
N_POINTS = 20


def how_many(n_demos: int) -> str:
    """
    :param n_demos: a number of demonstrations
    :return: it in words, "1 demonstration"
    """
    return f"{n_demos} demonstration{'' if n_demos == 1 else 's'}"


def describe(algo: str, n_demos: int, seed: int) -> str:
    """
    :param algo: label of an algorithm
    :param n_demos: a number of demonstrations
    :param seed: of the run
    :return: what a message calls this run
    """
    return f"{algo}, {how_many(n_demos)}, seed {seed}"


@dataclass(frozen=True)
class Run:
    """
    One training run.

    :param algorithm: the algorithm with its settings
    :param n_demos: how many demonstrations
    :param seed: of the choice of demonstrations, and of everything random in training
    :param timesteps: environment steps to take; of offline IQ-Learn, gradient steps
    :param settings: all settings of a baseline of imitation, from the file of baselines
    :param subsample_freq: of the demonstrations every so many transitions one is seen
    :param held_out: so many other episodes of the same expert measure IQ-Learn at each evaluation, beside the return
    :param detailed: whether an evaluation of IQ-Learn also tells what training logged, and the return of the latest actor
    """

    algorithm: Algorithm
    n_demos: int
    seed: int
    timesteps: int
    settings: Mapping[str, Any] = field(default_factory=dict)
    subsample_freq: int = 1
    held_out: int = 0
    detailed: bool = False

    @property
    def key(self) -> tuple[str, int, int]:
        """What tells runs of one comparison apart."""
        return self.algorithm.label, self.n_demos, self.seed

    def __str__(self) -> str:
        return describe(*self.key)


@dataclass(frozen=True)
class Protocol:
    """
    What all runs of a comparison share; rows of different protocols do not belong in one table.

    :param env: the environment
    :param timesteps: the budget of all algorithms, environment steps
    :param eval_freq: steps between two evaluations
    :param n_eval_episodes: episodes of each evaluation
    :param expert_return: mean return of the demonstrations, a score of 1
    :param random_return: mean return of random actions, a score of 0
    :param demos_hash: of the content of all demonstrations
    :param baselines_hash: of the content of the file of baselines
    :param demos: how to repeat it: the name of the demonstrations
    :param baselines: how to repeat it: the file of baselines, empty for this package's
    """

    env: Environment
    timesteps: int
    eval_freq: int
    n_eval_episodes: int
    expert_return: float
    random_return: float
    demos_hash: str
    baselines_hash: str
    demos: str
    baselines: str = ""

    def __post_init__(self) -> None:
        for name in ("timesteps", "eval_freq", "n_eval_episodes"):
            check_integer(name, getattr(self, name), 1)
        if not self.random_return < self.expert_return < float("inf"):  # nor NaN
            raise ValueError(
                f"the expert's return is {self.expert_return:g}, that of random actions {self.random_return:g}: there is "
                "nothing to normalise returns by. By default the first is the demonstrations' mean, and expert_return sets it "
                "by hand. Are these demonstrations of this environment?"
            )

    def score(self, mean_return: float) -> float:
        """
        :param mean_return: a return
        :return: 0 for that of random actions, 1 for the expert's
        """
        return (mean_return - self.random_return) / (self.expert_return - self.random_return)

    @property
    def identity(self) -> dict[str, Any]:
        """What has to agree for rows to be in one table, as JSON."""
        fields = {key: value for key, value in asdict(self).items() if key not in self.names}
        return json.loads(json.dumps(fields, default=str))

    @property
    def names(self) -> dict[str, str]:
        """What tells how to repeat it, and may differ: the same demonstrations may lie elsewhere."""
        return {"demos": self.demos, "baselines": self.baselines}

    def command(self, run: Run, out: str) -> list[str]:
        """
        :param run: one run
        :param out: the folder to name
        :return: the words of the command that repeats it alone
        """
        words = ["python", "-m", "sb3_iq.compare", "--env", self.env.env_id, "--demos", self.demos]
        if self.env.kwargs:
            words += ["--env-kwargs", *(f"{key}:{value!r}" for key, value in self.env.kwargs.items())]
        if self.env.packages:
            words += ["--gym-packages", *self.env.packages]
        words += ["--n-demos", str(run.n_demos), "--algos", run.algorithm.label, "--seeds", "1"]
        words += ["--first-seed", str(run.seed), "--timesteps", str(self.timesteps), "--eval-freq", str(self.eval_freq)]
        words += ["--eval-episodes", str(self.n_eval_episodes), "--expert-return", str(self.expert_return)]
        words += ["--baselines", self.baselines] if self.baselines else []
        return [*words, "--out", out]


def expert_return_of(demonstrations: Demonstrations, given: float | None) -> float:
    """
    :param demonstrations: all of them
    :param given: by the user, or None
    :return: their mean return
    :raises ValueError: if they hold no rewards, and none is given
    :raises TypeError: if what is given is no number
    """
    if given is not None:
        return check_number("expert_return", given, float("-inf"))
    returns = demonstrations.episode_returns
    if returns is None:
        raise ValueError("demos hold no rewards, so that the expert's return is not known: give it by expert_return")
    return round(float(returns.mean()), 3)


def check_counts(n_demos: Iterable[int], n_available: int) -> list[int]:
    """
    :param n_demos: numbers of demonstrations
    :param n_available: how many there are
    :return: the numbers, each once, in order
    :raises ValueError: if one is out of range
    :raises TypeError: if these are no numbers
    """
    if not isinstance(n_demos, Iterable) or isinstance(n_demos, str):
        raise TypeError(f"n_demos is {shorten(n_demos)}: expected a list of numbers of demonstrations, e.g. [1, 3, 10]")
    numbers = list(n_demos)
    if not numbers:
        raise ValueError("n_demos is empty: give one or more numbers of demonstrations")
    cure = f"The demonstrations are {n_available} episodes"
    return sorted({check_integer("n_demos", number, 1, n_available, cure) for number in numbers})


def digest(text: str) -> str:
    """
    :param text: any
    :return: a short hash of it
    """
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def check_same(stored: Mapping[str, Any], protocol: Protocol, folder: object) -> None:
    """
    :param stored: the identity that a folder of results has
    :param protocol: what is to be run
    :param folder: its path, for the message
    :raises ValueError: if they differ
    """
    wanted, stored = _flat(protocol.identity), _flat(stored)
    differences = [
        f"{key} {cut(stored.get(key))}, not {cut(wanted.get(key))}"
        for key in dict.fromkeys([*wanted, *stored])
        if stored.get(key) != wanted.get(key)
    ]
    if differences:
        raise ValueError(
            f"out={shorten(folder)} holds another comparison ({'; '.join(differences)}). Rows of different comparisons are "
            "not mixed: give another folder, or repeat the arguments"
        )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Return the same without mappings inside, whose texts may be too long to show where they differ."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {prefix + key: value}
    return found
