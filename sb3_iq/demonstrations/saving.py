"""
Episodes on disk: a folder in the format of ``imitation.data.serialize``, or a Parquet file with the same columns.

One row for each episode of T steps: ``obs`` (T + 1 observations), ``acts`` (T actions; state-only data lack the
column, which imitation then refuses), ``infos`` (T texts of plain JSON),
``terminal`` (whether it ended, in either way) and, where all episodes have them, ``rews`` (T rewards). Dict observations, for
which imitation has no format, take a column for each key in the place of ``obs``: ``obs.image``, ``obs.desired_goal``. Images
are lists of a fixed size, which take no more than their numbers; others take an offset for each list, twice as much for
frames of a few channels.

What imitation's columns can't tell is in the infos. The last one of an episode whose end is known holds
``{"TimeLimit.truncated": true}`` or ``false``, which imitation reads right too; the first one of an episode that doesn't start
at a reset holds ``{"sb3_iq.starts_at_reset": false}``.
"""

import json
import tempfile
from collections.abc import Mapping, Sequence, Sized
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sb3_iq.demonstrations.errors import check_integer, cut, path_of, shorten
from sb3_iq.demonstrations.storage import chunks, is_mapped
from sb3_iq.demonstrations.trajectory import Trajectory

if TYPE_CHECKING:  # they are only imported when something is written
    import datasets
    import pyarrow as pa

OBS_PREFIX = "obs."
MAX_NUMBERS = 2**27  # in a column of a table: an Arrow array holds at most 2^31 numbers
_ROWS_AT_A_TIME = 16  # episodes in a row group of a Parquet file, which are decoded together


def save_trajectories(trajectories: Sequence[Trajectory], path: str | Path, card: Mapping[str, Any] | None = None) -> None:
    """
    Write episodes for :func:`~sb3_iq.load_demonstrations`, and for imitation, which reads all but Dict observations.

    A folder is in the format of ``imitation.data.serialize``. Dict observations are written with one column for each key,
    e.g. ``obs.image``.

    :param trajectories: the episodes: all with rewards, or all without; likewise actions
    :param path: the folder to write, which is made, or a file whose name ends with ``.parquet``
    :param card: what to write in ``card.json`` beside the data (``NAME.card.json`` beside ``NAME.parquet``), e.g. ``env_id``
        and ``max_episode_steps``
    :raises ValueError: if there is no episode, if only some have rewards, if their observations have different keys, or if
        ``path`` can't be written
    """
    import datasets

    path = path_of("path", path)
    text = None if card is None else _card(card)
    if not isinstance(trajectories, Sized) or not all(isinstance(trajectory, Trajectory) for trajectory in trajectories):
        raise TypeError(f"trajectories={shorten(trajectories)}: expected a list of Trajectory")
    if not len(trajectories):
        raise ValueError("trajectories is empty: expected at least one episode")
    with_rewards = [trajectory.rews is not None for trajectory in trajectories]
    if any(with_rewards) and not all(with_rewards):
        raise ValueError("trajectories: only some episodes have rewards, expected all or none")
    with_actions = [trajectory.acts is not None for trajectory in trajectories]
    if any(with_actions) and not all(with_actions):
        raise ValueError("trajectories: only some episodes have actions, expected all or none")
    kinds = {tuple(sorted(t.obs)) if isinstance(t.obs, dict) else None for t in trajectories}
    if len(kinds) > 1:
        raise ValueError(
            f"trajectories: the observations of the episodes have different keys, {cut(sorted(map(str, kinds)))}. "
            "Save those of one environment"
        )
    shown = not datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".sb3-iq-") as folder:
            table = _table(_pieces(trajectories), Path(folder))
            if path.suffix == ".parquet":
                table.to_parquet(str(path), batch_size=_ROWS_AT_A_TIME)
            else:
                table.save_to_disk(str(path))
        if text is not None:
            beside = path.with_suffix(".card.json") if path.suffix == ".parquet" else path / "card.json"
            beside.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"path={shorten(path)}: cannot be written ({error}). Give a folder that can be") from error
    finally:
        if shown:
            datasets.enable_progress_bars()


def _card(card: Mapping[str, Any]) -> str:
    """Return a card as JSON, one entry a line: lists of returns and seeds are long."""
    if not isinstance(card, Mapping):
        raise TypeError(f"card={shorten(card)}: expected a dictionary")
    if card.get("max_episode_steps") is not None:
        check_integer("card['max_episode_steps']", card["max_episode_steps"], 1)
    try:
        lines = ",\n".join(f"  {json.dumps(str(key))}: {json.dumps(value, allow_nan=False)}" for key, value in card.items())
    except (TypeError, ValueError) as error:
        raise ValueError(f"card: cannot be written as JSON ({error}). Give texts, numbers, lists and dictionaries") from error
    return f"{{\n{lines}\n}}\n"


def _table(pieces: list[list[Trajectory]], folder: Path) -> "datasets.Dataset":
    """Return the table of all pieces. If there are several, they are written to the folder, one at a time, and mapped."""
    import datasets

    images = _images([trajectory for piece in pieces for trajectory in piece])
    if len(pieces) == 1:
        return datasets.Dataset.from_dict(_columns(pieces[0], images))
    for number, piece in enumerate(pieces):
        datasets.Dataset.from_dict(_columns(piece, images)).save_to_disk(str(folder / str(number)))
    return datasets.concatenate_datasets([datasets.load_from_disk(str(folder / str(n))) for n in range(len(pieces))])


def _pieces(trajectories: Sequence[Trajectory]) -> list[list[Trajectory]]:
    """Return the episodes in groups, none of which holds too many numbers for an Arrow array."""
    pieces: list[list[Trajectory]] = []
    n_numbers = 0
    for trajectory in trajectories:
        arrays = trajectory.obs.values() if isinstance(trajectory.obs, dict) else [trajectory.obs]
        n_more = max(int(np.prod(array.shape)) for array in [*arrays, trajectory.acts] if array is not None)
        if not pieces or n_numbers + n_more > MAX_NUMBERS:
            pieces.append([])
            n_numbers = 0
        pieces[-1].append(trajectory)
        n_numbers += n_more
    return pieces


def _parts(trajectory: Trajectory) -> dict[str, np.ndarray]:
    """Return the observations by the names of their columns."""
    if isinstance(trajectory.obs, dict):
        return {f"{OBS_PREFIX}{key}": array for key, array in trajectory.obs.items()}
    return {"obs": trajectory.obs}


def _images(trajectories: Sequence[Trajectory]) -> list[str]:
    """Return the columns of images that are alike in all episodes."""
    kinds: dict[str, set[Any]] = {}
    for trajectory in trajectories:
        for name, array in _parts(trajectory).items():
            kinds.setdefault(name, set()).add((array.shape[1:], array.dtype))
    return [name for name, found in kinds.items() if len(found) == 1 and len(next(iter(found))[0]) >= 3]


def _of_fixed_size(arrays: list[np.ndarray]) -> "pa.Array":
    """Return the images of some episodes as a column of lists, of which only the outermost differ in length."""
    import pyarrow as pa

    values: Any = pa.array(np.concatenate([array.reshape(-1) for array in arrays]))
    for length in arrays[0].shape[:0:-1]:
        values = pa.FixedSizeListArray.from_arrays(values, length)
    ends = np.cumsum([0, *map(len, arrays)])
    return pa.ListArray.from_arrays(pa.array(ends, pa.int32()), values)


def _columns(trajectories: Sequence[Trajectory], images: Sequence[str]) -> dict[str, Any]:
    """Return the columns of a table, one entry for each episode."""
    columns: dict[str, Any] = {}
    for trajectory in trajectories:
        for name, array in _parts(trajectory).items():
            columns.setdefault(name, []).append(_in_memory(array))
        if trajectory.acts is not None:
            columns.setdefault("acts", []).append(_in_memory(trajectory.acts))
    columns |= {name: _of_fixed_size(columns[name]) for name in images}
    columns |= {
        "infos": [_infos(trajectory) for trajectory in trajectories],
        "terminal": [trajectory.terminated or trajectory.truncated for trajectory in trajectories],
    }
    if trajectories[0].rews is not None:
        columns["rews"] = [_in_memory(trajectory.rews) for trajectory in trajectories if trajectory.rews is not None]
    return columns


def _in_memory(array: np.ndarray) -> np.ndarray:
    """Return an array as it is, but what is mapped as read from its file."""
    return np.concatenate(list(chunks(array))) if is_mapped(array) else array


def _infos(trajectory: Trajectory) -> list[str]:
    """Return plain JSON infos. The last one of an episode that ended tells how, so that no length has to decide later."""
    return [json.dumps(info) if info else "{}" for info in trajectory.infos]
