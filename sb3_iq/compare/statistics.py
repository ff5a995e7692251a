"""What rows say of algorithms: scores with intervals, and how much experience it takes to get to the expert."""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th

from sb3_iq.compare.comparison import Protocol
from sb3_iq.compare.results import Row
from sb3_iq.iq_learn.rng import kept_rng_states

GOAL = 0.9
N_BOOTSTRAP = 2_000
# Of fewer, there is no interval, and the table says that they are preliminary
MIN_RUNS = 3


@dataclass(frozen=True)
class Censored:
    """
    How much it took, or that it took more than a run had.

    :param value: the amount, or the budget
    :param is_censored: whether the goal was not reached within it
    """

    value: float
    is_censored: bool

    def __str__(self) -> str:
        number = f"{self.value:,.0f}"
        return f"> {number}" if self.is_censored else number


@dataclass(frozen=True)
class Estimate:
    """
    :param value: of the runs there are
    :param low: the lower bound of the 95 % interval; None of fewer than three runs, whose interval tells nothing
    :param high: the upper bound
    """

    value: float
    low: float | None = None
    high: float | None = None

    def __str__(self) -> str:
        numbers = [self.value] if self.low is None or self.high is None else [self.value, self.low, self.high]
        # Zero has no sign
        value, *interval = (f"{round(number, 2) + 0.0:.2f}" for number in numbers)
        return f"{value} [{', '.join(interval)}]" if interval else value


@dataclass(frozen=True)
class Summary:
    """
    One algorithm, from one number of demonstrations.

    :param algo: its label
    :param n_demos: the number
    :param seeds: of the runs that ended well
    :param n_failed: how many did not
    :param timesteps: the budget of these runs
    :param return_at_budget: mean return at the budget that all algorithms share, of the runs that ended well
    :param score_at_budget: interquartile mean of normalised returns there
    :param score_final: the same at the end of the algorithm's own budget
    :param steps: environment steps to the goal, the median of all runs: one that failed did not get there within its budget
    :param n_reached: how many got there
    :param steps_to_stay: environment steps to where all evaluations from then on are at the goal, the median of the runs
    :param n_stayed: how many were at the goal at every evaluation from the first one on
    :param seconds: training time to the goal, the median of the runs
    :param improvement: probability that the first algorithm has the higher score at the budget; None for itself
    """

    algo: str
    n_demos: int
    seeds: tuple[int, ...]
    n_failed: int
    timesteps: int
    return_at_budget: float
    score_at_budget: Estimate
    score_final: Estimate
    steps: Censored
    n_reached: int
    steps_to_stay: Censored
    n_stayed: int
    seconds: Censored
    improvement: Estimate | None = None


def at_budget(row: Row, timesteps: int) -> float:
    """
    :param row: of a run that ended well
    :param timesteps: the budget that all algorithms share
    :return: its return there: that of the first evaluation at or after it, else of the last one
    """
    points = [point["mean"] for point in row["curve"] if point["step"] >= timesteps]
    return float(points[0] if points else row["curve"][-1]["mean"])


def to_goal(row: Row, protocol: Protocol, what: str) -> Censored:
    """
    :param row: of a run that ended well
    :param protocol: of the comparison
    :param what: ``step`` for environment steps, ``train_s`` for seconds of training
    :return: how much it took to the first evaluation with 90 % of the expert
    """
    takes_steps = row["env_steps"] > 0 or what == "train_s"
    for point in row["curve"]:
        if protocol.score(point["mean"]) >= GOAL:
            return Censored(point[what] if takes_steps else 0.0, False)
    return Censored(row["curve"][-1][what] if takes_steps else 0.0, True)


def to_stay(row: Row, protocol: Protocol) -> Censored:
    """
    :param row: of a run that ended well
    :param protocol: of the comparison
    :return: environment steps to the first evaluation from which on all are at the goal
    """
    last_below = max((i for i, point in enumerate(row["curve"]) if protocol.score(point["mean"]) < GOAL), default=-1)
    curve = row["curve"][last_below + 1 :] or row["curve"][-1:]
    return to_goal({**row, "curve": curve}, protocol, "step")


def stayed(row: Row, protocol: Protocol) -> bool:
    """
    :param row: of a run that ended well
    :param protocol: of the comparison
    :return: whether all evaluations from the first one at the goal on are there
    """
    reached = [protocol.score(point["mean"]) >= GOAL for point in row["curve"]]
    return any(reached) and all(reached[reached.index(True) :])


def lost(row: Row, what: str, takes_steps: bool) -> Censored:
    """
    :param row: of a run that failed
    :param what: ``step`` for environment steps, ``train_s`` for seconds of training
    :param takes_steps: whether runs of this algorithm do
    :return: that it did not get there: within its budget, or within the time that it was trained for
    """
    if what == "step":
        return Censored(float(row["timesteps"]) if takes_steps else 0.0, True)
    return Censored(row["curve"][-1].get("train_s", 0.0) if row["curve"] else row.get("wall_s", 0.0), True)


def median(values: Sequence[Censored]) -> Censored:
    """
    :param values: one for each run
    :return: the upper median. Where a run did not get there it counts as more than any that did
    """
    ordered = sorted(values, key=lambda item: (item.is_censored, item.value))
    return ordered[len(ordered) // 2]


def groups(rows: Sequence[Row]) -> dict[tuple[int, str], list[Row]]:
    """
    :param rows: of one comparison
    :return: the runs of each number of demonstrations and algorithm, by seed; algorithms in the order of their first row,
        IQ-Learn first
    """
    order = {algo: i for i, algo in enumerate(sorted({row["algo"] for row in rows}, key=_rank))}
    found: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["n_demos"], order[row["algo"]], row["seed"])):
        found[row["n_demos"], row["algo"]].append(row)
    return dict(found)


def _rank(algo: str) -> tuple[bool, bool, str]:
    return algo.partition(":")[0] != "iq", ":" in algo, algo


def summarize(rows: Sequence[Row], protocol: Protocol) -> list[Summary]:
    """
    :param rows: of one comparison, each run once
    :param protocol: of the comparison
    :return: a line for each number of demonstrations and algorithm of which a run ended well
    :raises ImportError: if rliable is not installed
    """
    summaries = []
    by_group = groups(rows)
    for n_demos in dict.fromkeys(number for number, _ in by_group):
        own = {algo: members for (number, algo), members in by_group.items() if number == n_demos}
        good = {algo: [row for row in members if not row["error"]] for algo, members in own.items()}
        good = {algo: members for algo, members in good.items() if members}
        scores = {
            algo: _scores(members, lambda row: at_budget(row, protocol.timesteps), protocol) for algo, members in good.items()
        }
        finals = {algo: _scores(members, lambda row: row["return_mean"], protocol) for algo, members in good.items()}
        iqm, better = _intervals(scores), _improvements(scores)
        # Those that ended at the common budget have the same numbers at their end
        longer = {algo: values for algo, values in finals.items() if not np.array_equal(values, scores[algo])}
        iqm_final = {**iqm, **_intervals(longer)}
        for algo, members in good.items():
            bad = [row for row in own[algo] if row["error"]]
            acts = any(row["env_steps"] > 0 for row in members)
            steps_lost = [lost(row, "step", acts) for row in bad]
            summaries.append(
                Summary(
                    algo,
                    n_demos,
                    tuple(row["seed"] for row in members),
                    len(bad),
                    max(row["timesteps"] for row in members),
                    float(np.mean([at_budget(row, protocol.timesteps) for row in members])),
                    iqm[algo],
                    iqm_final[algo],
                    median([*(to_goal(row, protocol, "step") for row in members), *steps_lost]),
                    sum(not to_goal(row, protocol, "step").is_censored for row in members),
                    median([*(to_stay(row, protocol) for row in members), *steps_lost]),
                    sum(stayed(row, protocol) for row in members),
                    median(
                        [
                            *(to_goal(row, protocol, "train_s") for row in members),
                            *(lost(row, "train_s", acts) for row in bad),
                        ]
                    ),
                    better.get(algo),
                )
            )
    return summaries


def _scores(rows: Sequence[Row], value: Callable[[Row], float], protocol: Protocol) -> np.ndarray:
    """Return normalised returns as rliable takes them, shape (runs, 1 task)."""
    return np.array([[protocol.score(value(row))] for row in rows])


def _intervals(scores: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Return the interquartile mean of each algorithm, with its bootstrap interval."""
    from rliable import metrics

    def iqm(values: np.ndarray) -> np.ndarray:
        return np.array([metrics.aggregate_iqm(values)])

    return _estimates(scores, iqm)


def _improvements(scores: dict[str, np.ndarray]) -> dict[str, Estimate]:
    """Return the probability that the first algorithm is better than each of the others."""
    from rliable import metrics

    first, *others = scores
    if not others:
        return {}

    def probability(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.array([metrics.probability_of_improvement(x, y)])

    pairs: Any = {algo: [scores[first], scores[algo]] for algo in others}
    return _estimates(pairs, probability)


def _estimates(scores: Any, function: Callable[..., np.ndarray]) -> dict[str, Estimate]:
    """Return values and stratified bootstrap intervals, always the same for the same scores, whatever others there are."""
    from rliable import library

    found = {}
    for key, runs in scores.items():
        with kept_rng_states(th.device("cpu")):
            np.random.seed(0)  # rliable draws by this one, also where it is given another
            values, bounds = library.get_interval_estimates({key: runs}, function, reps=N_BOOTSTRAP)
        enough = min(map(len, runs if isinstance(runs, list) else [runs])) >= MIN_RUNS
        found[key] = Estimate(float(values[key][0]), *(float(bound[0]) for bound in bounds[key] if enough))
    return found


def figure_of_merit(summaries: Sequence[Summary], n_demos: int) -> str:
    """
    :param summaries: of one comparison
    :param n_demos: a number of demonstrations
    :return: environment steps of IQ-Learn to the goal against the best of the others, both that take steps and that do not.
        Of several settings of IQ-Learn the first that takes steps, without settings if there is that
    """
    own = {summary.algo: summary for summary in summaries if summary.n_demos == n_demos}
    mine = [summary for algo, summary in own.items() if algo.partition(":")[0] == "iq" and summary.steps.value > 0]
    if not mine:
        return ""
    ours = mine[0]
    name = "IQ-Learn" if ours.algo == "iq" else ours.algo
    others = {algo: summary for algo, summary in own.items() if algo.partition(":")[0] != "iq"}
    sentences = []
    clones = [algo for algo, summary in others.items() if not summary.steps.is_censored and summary.steps.value == 0]
    if clones:
        sentences.append(f"{' and '.join(clones)} got there without any step")
    acting = {algo: summary for algo, summary in others.items() if summary.steps.value > 0}
    if acting:
        reached = {algo: summary.steps for algo, summary in acting.items()}
        sentences.append(_against(name, ours.steps, reached, ", the best of the others that act"))
        stayed = {algo: summary.steps_to_stay for algo, summary in acting.items()}
        sentences.append(f"to stay there, {_against(name, ours.steps_to_stay, stayed)}")
    return "; ".join(sentences)


def _against(name: str, ours: Censored, others: Mapping[str, Censored], remark: str = "") -> str:
    """Return a comparison of steps with the best of others, with the direction in which censoring bounds it."""
    best = min(others, key=lambda algo: (others[algo].is_censored, others[algo].value))
    other = others[best]
    if other.is_censored:
        none = "none of the others that act did it"
        return f"{none}, nor did {name} ({ours})" if ours.is_censored else f"{name} took {ours} steps, and {none} ({other})"
    ratio = ours.value / other.value
    bound = "more than " if ours.is_censored else ""
    return f"{name} took {ours} steps, {bound}{ratio:.2f} times those of {best}{remark} ({other})"


def without_any(rows: Sequence[Row]) -> dict[tuple[int, str], int]:
    """
    :param rows: of one comparison
    :return: of each number of demonstrations and algorithm of which no run ended well, how many failed
    """
    return {key: len(members) for key, members in groups(rows).items() if all(row["error"] for row in members)}
