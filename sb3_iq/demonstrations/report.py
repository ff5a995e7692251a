"""What is in a set of demonstrations, and what IQLearn will do about it."""

import hashlib
import textwrap
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
from gymnasium import spaces

from sb3_iq.demonstrations.conversion import ROUNDING, action_column, range_of_expert
from sb3_iq.demonstrations.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import cut
from sb3_iq.demonstrations.storage import chunks, extremes
from sb3_iq.demonstrations.trajectory import Ending, Trajectory

RULES: dict[Ending, str] = {
    "info": "the data tell",
    "limit": "the length reaches the time limit",
    "assumed": "assumed, nothing tells",
}
VALUE_OF_ENDS = (
    "the value after a terminated episode is that of an absorbing state, or 0 with terminal_value='zero'; after any other it "
    "is that of the last observation"
)
"""What the end of an episode means for the values that are learned: the one source of this sentence."""
REFUSED = "refused: all episodes must come from one environment"
_MAX_LISTED = 12
_WIDTH, _LABEL = 110, 16


@dataclass(frozen=True)
class Finding:
    """
    One line of a report.

    :param name: what it is about
    :param fact: what was found
    :param consequence: what IQLearn does about it, or what the user may do; empty if there is nothing to do
    """

    name: str
    fact: str
    consequence: str = ""

    def __str__(self) -> str:
        """
        :return: the finding as text, and below it what follows from it
        """
        indent = " " * _LABEL
        text = textwrap.fill(self.fact, _WIDTH, initial_indent=self.name.ljust(_LABEL), subsequent_indent=indent)
        if not self.consequence:
            return text
        below = textwrap.fill(self.consequence, _WIDTH, initial_indent=indent + "-> ", subsequent_indent=indent + "   ")
        return f"{text}\n{below}"


def make_report(
    demonstrations: Demonstrations, observation_space: spaces.Space | None = None, action_space: spaces.Space | None = None
) -> list[Finding]:
    """
    :param demonstrations: what ``load_demonstrations`` returned
    :param observation_space: the environment's, if it is known
    :param action_space: the environment's, if it is known
    :return: what was found, in the order to read it
    """
    findings = [*_episodes(demonstrations), *_ends(demonstrations)]
    first = demonstrations.trajectories[0].obs
    kinds = {tuple(sorted(t.obs)) if isinstance(t.obs, dict) else None for t in demonstrations.trajectories}
    if len(kinds) > 1:
        findings.append(Finding("observations", "of several kinds", REFUSED))
        first = {}
    for key in sorted(first) if isinstance(first, dict) else [None]:
        part = observation_space
        if key is not None and isinstance(observation_space, spaces.Dict):
            part = observation_space.spaces.get(key)
        findings += _observations(demonstrations.trajectories, key, part)
    return [*findings, _actions(demonstrations.trajectories, action_space), *_duplicates(demonstrations.trajectories)]


def _episodes(demonstrations: Demonstrations) -> list[Finding]:
    trajectories = demonstrations.trajectories
    n_resets = sum(trajectory.starts_at_reset for trajectory in trajectories)
    lengths = np.array([len(trajectory) for trajectory in trajectories])
    use = f"initial states are the first observations of {n_resets} episodes"
    if n_resets == 0:
        use = "no episode starts at a reset: the first observation of each piece is taken for an initial state"
    fact = f"{len(trajectories)}, with {lengths.sum()} transitions; {n_resets} start at a reset"
    returns = demonstrations.episode_returns
    return [
        Finding("episodes", fact, use),
        Finding("lengths", _spread(lengths)),
        Finding("returns", "unknown, not every episode has rewards" if returns is None else _spread(returns), "never read"),
    ]


def _ends(demonstrations: Demonstrations) -> list[Finding]:
    trajectories = demonstrations.trajectories
    counts = Counter((t.ending, "terminated" if t.terminated else "truncated") for t in trajectories)
    limit = demonstrations.max_episode_steps
    rules = RULES | ({} if limit is None else {"assumed": "assumed, as the time limit is not reached"})
    parts = [
        f"{counts[rule, end]} {end} ({text})"
        for end in ("terminated", "truncated")
        for rule, text in rules.items()
        if counts[rule, end]
    ]
    n_open = sum(trajectory.ending == "open" for trajectory in trajectories)
    parts += [f"{n_open} without an end"] if n_open else []
    parts.append(f"time limit {limit or 'unknown'}")
    use = VALUE_OF_ENDS
    length = demonstrations.unknown_limit_length()
    if length is not None:
        use += (
            f"; nothing tells how the episodes of {length} steps, the maximum, end: if that is a time limit, say so "
            f"(max_episode_steps={length}), else their ends are learned as terminal states"
        )
    return [Finding("ends", ", ".join(parts), use)]


def _observations(trajectories: tuple[Trajectory, ...], key: str | None, space: spaces.Space | None) -> list[Finding]:
    parts = ((t.obs[key] if key is not None else None) if isinstance(t.obs, dict) else t.obs for t in trajectories)
    arrays = [part for part in parts if part is not None]
    name = "observations" if key is None else f"obs[{key!r}]"
    shape, dtype = arrays[0].shape[1:], arrays[0].dtype
    if any(array.shape[1:] != shape for array in arrays):
        return [Finding(name, "of several shapes", REFUSED)]
    lows, highs = zip(*map(extremes, arrays), strict=True)
    minimum, maximum = np.min(lows, axis=0), np.max(highs, axis=0)
    low, high = minimum.min(), maximum.max()
    findings = [Finding(name, f"shape {shape}, {dtype}, from {low:.4g} to {high:.4g}")]
    if len(shape) >= 2:
        if dtype.kind == "f" and low >= 0 and high <= 1:
            findings.append(Finding("  scaled", "images between 0 and 1", "record them as the environment gives them"))
        return findings
    mean, std = _moments(arrays)
    constant = np.reshape(minimum == maximum, -1)
    if constant.any():
        use = "kept; they tell nothing, and values that differ from them in the environment are new to the networks"
        findings.append(Finding("  constant", _listed(constant), use))
    continuous = dtype.kind == "f" and not isinstance(space, (spaces.Discrete, spaces.MultiDiscrete, spaces.MultiBinary))
    normalised = ~constant & (np.abs(mean) < 0.3) & (std > 0.7) & (std < 1.4) & continuous
    if normalised.any():
        use = (
            "taken as raw, and normalised again if the environment is a VecNormalize: if the recording was normalised, record "
            "raw observations, or use an environment that gives normalised ones"
        )
        if 2 * normalised.sum() < (~constant).sum():
            use = "taken as raw: so few may well have this magnitude by nature"
        findings.append(Finding("  normalised", f"mean about 0 and deviation about 1 in {_listed(normalised)}", use))
    return findings


def _actions(trajectories: tuple[Trajectory, ...], space: spaces.Space | None) -> Finding:
    arrays = [trajectory.acts for trajectory in trajectories if trajectory.acts is not None]
    n_without = len(trajectories) - len(arrays)
    if n_without:
        use = "state-only: IQLearn takes it with expert_actions='policy' or 'inverse_dynamics', which never read actions"
        return Finding("actions", f"none in {n_without} of {len(trajectories)} episodes", use)
    shapes = {array.shape[1:] for array in arrays}
    if len(shapes) > 1:
        return Finding("actions", "of several shapes", REFUSED)
    if space is not None and not _fit(trajectories, space):
        found = _actions(trajectories, None)
        use = f"refused: they do not fit the environment, whose action space is {cut(space)}"
        return replace(found, consequence=use)
    dtype = np.result_type(*(array.dtype for array in arrays))
    if not isinstance(space, spaces.Box) and (space is not None or dtype.kind != "f"):
        return _discrete_actions(arrays, dtype, space)

    def share(function: Callable[[np.ndarray], np.ndarray]) -> float:
        parts = [(function(chunk).sum(), chunk.size) for chunk in _action_chunks(arrays, np.dtype(np.float64))]
        return sum(count for count, _ in parts) / sum(size for _, size in parts)

    pairs = [extremes(chunk) for chunk in _action_chunks(arrays, np.dtype(np.float64))]
    minimum, maximum = np.min([low for low, _ in pairs], axis=0), np.max([high for _, high in pairs], axis=0)
    fact = f"shape {next(iter(shapes))}, from {minimum.min():.4g} to {maximum.max():.4g}"
    if not isinstance(space, spaces.Box) or space.low.size != len(minimum):
        ends = share(lambda acts: (acts == minimum) | (acts == maximum))
        fact += f"; {_percent(ends)} of the components on the minimum or maximum seen (no bounds are known)"
        return Finding("actions", fact, "scaled to [-1, 1] by the environment's bounds, and clipped to them")
    low, high = space.low.reshape(-1).astype(np.float64), space.high.reshape(-1).astype(np.float64)
    tolerance = np.where(np.isfinite(high - low), ROUNDING * (high - low), 0)
    beyond = share(lambda acts: (acts < low - tolerance) | (acts > high + tolerance))
    on_bounds = share(lambda acts: (acts <= low + tolerance) | (acts >= high - tolerance)) - beyond
    fact += f"; {_percent(on_bounds)} of the components on the bounds"
    if beyond:
        fact += f", {_percent(beyond)} beyond them by up to {np.maximum(low - minimum, maximum - high).max():.3g}"
    fitted = range_of_expert(space, trajectories)
    n_fitted = int(((fitted.low > space.low) | (fitted.high < space.high)).sum())
    use = "scaled to [-1, 1] by the bounds"
    if n_fitted:
        use += f", {n_fitted} of {low.size} dimensions by what the expert does, as the bounds are far wider"
    use += "; those beyond are clipped, with a warning" if beyond else ""
    return Finding("actions", fact, use)


def _fit(trajectories: tuple[Trajectory, ...], space: spaces.Space) -> bool:
    """Return whether actions can be those of an environment, as the expert buffer sees it."""
    with warnings.catch_warnings():  # it gives them again
        warnings.simplefilter("ignore", UserWarning)
        try:
            action_column(trajectories, space)
        except ValueError:
            return False
    return True


def _discrete_actions(arrays: list[np.ndarray], dtype: np.dtype, space: spaces.Space | None) -> Finding:
    """Tell the shares of discrete actions, in each part of those that have several."""
    n_parts = int(np.prod(arrays[0].shape[1:]))
    facts = []
    for part in range(min(n_parts, _MAX_LISTED)):
        counts: Counter[np.generic] = Counter()
        for chunk in _action_chunks(arrays, dtype):
            counts.update(dict(zip(*np.unique(chunk[:, part], return_counts=True), strict=True)))
        total = sum(counts.values())
        shares = [f"{value}: {_percent(count / total)}" for value, count in sorted(counts.items())]
        shares[_MAX_LISTED:] = ["..."] if len(shares) > _MAX_LISTED else []
        n_actions = int(space.n) if isinstance(space, spaces.Discrete) else 0
        never = f"; {n_actions - len(counts)} of {n_actions} actions never" if n_actions > len(counts) else ""
        facts.append(", ".join(shares) + never)
    if n_parts == 1:
        return Finding("actions", f"discrete, {facts[0]}")
    more = ["..."] if n_parts > _MAX_LISTED else []
    parts = [f"part {part}: {fact}" for part, fact in enumerate(facts)]
    return Finding("actions", f"discrete, {n_parts} parts; {'; '.join(parts + more)}")


def _action_chunks(arrays: list[np.ndarray], dtype: np.dtype) -> Iterator[np.ndarray]:
    """Return the actions as rows of numbers, in pieces."""
    for array in arrays:
        for chunk in chunks(array):
            yield chunk.reshape(len(chunk), -1).astype(dtype)


def _duplicates(trajectories: tuple[Trajectory, ...]) -> list[Finding]:
    n_rows = sum(len(trajectory) for trajectory in trajectories)
    hashes = np.empty(n_rows, np.int64)
    episodes = set()
    first = 0
    for trajectory in trajectories:
        rows = _transition_hashes(trajectory)
        hashes[first : first + len(rows)] = rows
        episodes.add(hashlib.sha256(rows.data).digest())
        first += len(rows)
    hashes.sort()
    n_episodes = len(trajectories) - len(episodes)
    n_transitions = int((hashes[1:] == hashes[:-1]).sum())
    fact = f"{n_episodes} episodes repeat another, {n_transitions} transitions ({_percent(n_transitions / n_rows)}) repeat one"
    return [Finding("duplicates", fact, "kept: what is there twice is drawn twice as often" if n_transitions else "")]


def _transition_hashes(trajectory: Trajectory) -> np.ndarray:
    """Return a number for each transition (observation, action, next observation), equal for equal transitions."""
    obs = trajectory.obs if isinstance(trajectory.obs, dict) else {"": trajectory.obs}
    columns = [] if trajectory.acts is None else [_row_hashes(trajectory.acts)]
    for key in sorted(obs):
        rows = _row_hashes(obs[key])
        columns += [rows[:-1], rows[1:]]
    return np.fromiter(map(hash, zip(*columns, strict=True)), np.int64, len(trajectory))


def _row_hashes(array: np.ndarray) -> list[int]:
    """Return a number of 64 bits for each row: unequal ones are equal by a chance that can be neglected."""
    return [hash(row.tobytes()) for chunk in chunks(array) for row in chunk]


def _moments(arrays: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and standard deviation of each number of an observation, one episode or less in memory at a time."""

    def each(function: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        pieces = (chunk for array in arrays for chunk in chunks(array))
        return np.array([function(piece.reshape(len(piece), -1).astype(np.float64)) for piece in pieces])

    n_rows = sum(len(array) for array in arrays)
    mean = each(lambda rows: rows.sum(axis=0)).sum(axis=0) / n_rows
    variance = each(lambda rows: ((rows - mean) ** 2).sum(axis=0)).sum(axis=0) / n_rows
    return mean, np.sqrt(variance)


def _listed(mask: np.ndarray) -> str:
    """Return how many, and which, are chosen."""
    indices = np.flatnonzero(mask)
    more = ", ..." if len(indices) > _MAX_LISTED else ""
    return f"{len(indices)} of {mask.size} dimensions ({', '.join(map(str, indices[:_MAX_LISTED].tolist()))}{more})"


def _spread(values: np.ndarray) -> str:
    return f"{values.mean():.1f} +/- {values.std():.1f}, from {values.min():.5g} to {values.max():.5g}"


def _percent(share: float) -> str:
    return f"{100 * float(share):.1f} %"
