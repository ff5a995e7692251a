"""The summary of a comparison as Markdown and as CSV."""

import csv
import inspect
import io
from collections.abc import Sequence
from typing import Any

from sb3_iq import IQLearn
from sb3_iq.compare.algorithms import DESCRIPTIONS
from sb3_iq.compare.comparison import Protocol, how_many
from sb3_iq.compare.results import Row
from sb3_iq.compare.statistics import MIN_RUNS, Censored, Estimate, Summary, figure_of_merit, without_any

HEADER = (
    "demonstrations",
    "algorithm",
    "seeds",
    "return",
    "score, IQM [95 %]",
    "own budget",
    "score there",
    "steps to 90 %",
    "steps to stay there",
    "runs that got there (never fell below)",
    "seconds to 90 %",
    "P(first is better)",
)
SCORE = HEADER.index("score, IQM [95 %]")
# Environment steps before the first gradient step online, by default
LEARNING_STARTS = inspect.signature(IQLearn).parameters["learning_starts"].default


def cells(summary: Summary, protocol: Protocol) -> list[str]:
    """
    :param summary: of one algorithm
    :param protocol: of the comparison
    :return: its cells, below :data:`HEADER`
    """
    n_seeds = len(summary.seeds)
    has_own = summary.timesteps != protocol.timesteps
    return [
        str(summary.n_demos),
        summary.algo,
        f"{n_seeds}"
        + (f", {summary.n_failed} failed" if summary.n_failed else "")
        + (" (preliminary)" if n_seeds < MIN_RUNS else ""),
        f"{summary.return_at_budget:.1f}",
        str(summary.score_at_budget),
        f"{summary.timesteps:,}" if has_own else "",
        str(summary.score_final) if has_own else "",
        _steps(summary.steps),
        _steps(summary.steps_to_stay),
        f"{summary.n_reached} ({summary.n_stayed})",
        str(summary.seconds),
        "" if summary.improvement is None else str(summary.improvement),
    ]


def body_of(summaries: Sequence[Summary], protocol: Protocol) -> list[list[str]]:
    """
    :param summaries: of one comparison
    :param protocol: of the comparison
    :return: their cells, the best score of each number of demonstrations in bold, as in Markdown
    """
    body = []
    scores = [(summary.n_demos, round(summary.score_at_budget.value, 2)) for summary in summaries]
    best = dict(sorted(scores))  # of each number of demonstrations the last, which is the highest
    for summary, (n_demos, score) in zip(summaries, scores, strict=True):
        texts = cells(summary, protocol)
        if score == best[n_demos]:
            texts[SCORE] = in_bold(texts[SCORE])
        body.append(texts)
    return body


def filled(rows: Sequence[Sequence[str]]) -> tuple[list[str], list[list[str]]]:
    """
    :param rows: of cells
    :return: header and rows without the columns in which no row has anything
    """
    kept = [i for i in range(len(HEADER)) if any(row[i] for row in rows)]
    return [HEADER[i] for i in kept], [[row[i] for i in kept] for row in rows]


def in_bold(text: str) -> str:
    """:return: a cell whose first word, the value, is bold"""
    value, _, interval = text.partition(" ")
    return f"**{value}** {interval}".rstrip()


def _steps(steps: Censored) -> str:
    """Return steps; what takes none never gets there by more of them."""
    return "never" if steps.is_censored and steps.value == 0 else str(steps)


def notes(summaries: Sequence[Summary], protocol: Protocol, rows: Sequence[Row] = ()) -> list[str]:
    """
    :param summaries: of one comparison
    :param protocol: of the comparison
    :param rows: the runs, of which some algorithms' may all have failed
    :return: what a reader has to know to read the table fairly, a sentence or two each
    """
    # It differs where no run of IQ-Learn ended well from one of the numbers of demonstrations
    firsts = set({summary.n_demos: summary.algo for summary in reversed(summaries)}.values())
    first = firsts.pop() if len(firsts) == 1 else "the first algorithm from as many demonstrations"
    names = dict.fromkeys(summary.algo.partition(":")[0] for summary in summaries)
    # Of columns that the table has
    own_budget = less_often = next_one = ""
    if any(summary.timesteps != protocol.timesteps for summary in summaries):
        own_budget = ", or the one in the column of their own"
    if any(summary.timesteps > protocol.timesteps for summary in summaries):
        less_often = "; beyond the common budget less often, by as much as a run is longer"
        next_one = "; where a longer run has no evaluation there, at its next one"
    lines = [
        "All algorithms have the same demonstrations, another choice for each seed, and the same budget of "
        f"{protocol.timesteps:,} environment steps{own_budget}. Evaluations are "
        f"{protocol.n_eval_episodes} deterministic episodes from the same starts, of the environment's own reward, every "
        f"{protocol.eval_freq:,} steps{less_often}.",
        f"Return: the mean over seeds at {protocol.timesteps:,} steps{next_one}. Score: 0 is random "
        f"actions ({protocol.random_return:.1f}), 1 the demonstrations ({protocol.expert_return:.1f}). IQM: interquartile "
        f"mean, with a stratified bootstrap interval (rliable) where there are {MIN_RUNS} runs or more.",
        "Steps and seconds to 90 %: the median over runs (of an even number the upper one) of the first evaluation with a "
        "score of 0.9; to stay there: of the first one from which on all are. `> N`: the median run "
        "did not get there within N; runs that did not count, as more than any that did. Steps are all interactions of "
        "training with the environment, without those of evaluations; a run ends with the rollout in which its budget does. "
        "`never`: it takes no steps, and did not get there without. Seconds are training's alone, and depend on what else "
        "the machine did.",
    ]
    if any(summary.improvement is not None for summary in summaries):
        lines.append(
            f"P(first is better): the probability that a run of {first} has a higher score than one of this algorithm; ties "
            "count half."
        )
    lines += [f"{name}: {DESCRIPTIONS[name]}." for name in names]
    steps = [summary.steps for summary in summaries if summary.algo.partition(":")[0] == "iq" and summary.steps.value > 0]
    if any(protocol.timesteps <= LEARNING_STARTS or (not own.is_censored and own.value <= LEARNING_STARTS) for own in steps):
        lines.append(
            f"IQ-Learn takes no gradient step online before `learning_starts`, {LEARNING_STARTS:,} steps unless set. Steps to "
            "90 % up to there do not measure how fast it learns from experience: it begins with what the demonstrations "
            "alone have taught it."
        )
    if any(summary.n_failed for summary in summaries):
        lines.append(
            "Runs that failed have no return and no score. In steps and seconds to 90 % they count as runs that did not get "
            "there within their budget."
        )
    for (n_demos, algo), n_failed in without_any(rows).items():
        lines.append(f"Not in the table, as no run ended well: {algo} from {how_many(n_demos)}, {n_failed} failed.")
    on_policy = [summary for summary in summaries if summary.algo.partition(":")[0] in ("imitation/gail", "imitation/airl")]
    if on_policy:
        longer = any(summary.timesteps > protocol.timesteps for summary in on_policy)
        lines.append(
            "GAIL and AIRL of imitation are on-policy: published runs take 10 million steps and 100 demonstrations. Here "
            f"they have {'a longer budget than the others, and ' if longer else ''}observations normalised by running "
            "statistics. Where an episode's length depends on how good it is, they can read the reward from it "
            "(allow_variable_horizon=True)."
        )
    if "sb3/sqil" in names or "imitation/sqil" in names:
        lines.append("SQIL favours long episodes where they can end in a terminal state: its rewards are 0 or 1.")
    if "imitation/sqil" in names:
        lines.append(
            "SQIL of imitation runs as it is: version 1.0.1 stores the expert's continuous actions in the environment's units "
            "beside the policy's scaled ones, and takes time limits for terminal states."
        )
    return lines


def markdown(summaries: Sequence[Summary], protocol: Protocol, runs: Sequence[Row] = ()) -> str:
    """
    :param summaries: of one comparison
    :param protocol: of the comparison
    :param runs: their rows, of which some algorithms' may all have failed
    :return: title, table with the best scores in bold, steps against the best of the others, and notes
    """
    header, body = filled(body_of(summaries, protocol))
    rows = ["| " + " | ".join(header) + " |", "|---" * len(header) + "|", *("| " + " | ".join(row) + " |" for row in body)]
    merits = [f"- {text}" for text in merit_lines(summaries)]
    parts = [f"# {protocol.env.env_id}", "\n".join(rows)]
    if merits:
        parts.append("Environment steps to 90 % of the expert:\n\n" + "\n".join(merits))
    return "\n\n".join([*parts, "\n".join(f"- {note}" for note in notes(summaries, protocol, runs))]) + "\n"


def merit_lines(summaries: Sequence[Summary]) -> list[str]:
    """
    :param summaries: of one comparison
    :return: a sentence for each number of demonstrations, where IQ-Learn is among the algorithms
    """
    texts = {n: figure_of_merit(summaries, n) for n in dict.fromkeys(summary.n_demos for summary in summaries)}
    return [f"{how_many(n)}: {text}." for n, text in texts.items() if text]


def as_csv(summaries: Sequence[Summary], protocol: Protocol) -> str:
    """
    :param summaries: of one comparison
    :param protocol: of the comparison
    :return: the same with a column for each number, for spreadsheets and scripts
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    head = ["env", "n_demos", "algo", "n_seeds", "n_failed", "timesteps", "own_timesteps", "return_at_budget"]
    for name in ("score", "score_final", "probability_of_improvement"):
        head += [name, f"{name}_low", f"{name}_high"]
    head += [
        "steps_to_90",
        "steps_censored",
        "steps_to_stay",
        "steps_to_stay_censored",
        "seconds_to_90",
        "seconds_censored",
        "n_reached",
        "n_stayed",
    ]
    writer.writerow([*head, "expert_return", "random_return"])
    for item in summaries:
        row: list[Any] = [
            protocol.env.env_id,
            item.n_demos,
            item.algo,
            len(item.seeds),
            item.n_failed,
            protocol.timesteps,
            item.timesteps,
        ]
        row.append(round(item.return_at_budget, 3))
        for estimate in (item.score_at_budget, item.score_final, item.improvement):
            row += _numbers(estimate)
        for censored in (item.steps, item.steps_to_stay, item.seconds):
            row += [round(censored.value, 1), int(censored.is_censored)]
        writer.writerow([*row, item.n_reached, item.n_stayed, protocol.expert_return, protocol.random_return])
    return text.getvalue()


def _numbers(estimate: Estimate | None) -> list[Any]:
    """Return value and bounds; what there is none of is empty."""
    numbers = (None, None, None) if estimate is None else (estimate.value, estimate.low, estimate.high)
    return ["" if number is None else round(number, 4) for number in numbers]
