"""A hash of what episodes hold, however they were stored."""

import hashlib
from collections.abc import Sequence

import numpy as np

from sb3_iq.demonstrations.storage import chunks, extremes
from sb3_iq.demonstrations.trajectory import Trajectory


def hash_trajectories(trajectories: Sequence[Trajectory], subsample_freq: int) -> str:
    """
    :param trajectories: the episodes
    :param subsample_freq: how densely they are sampled
    :return: a SHA-256 of arrays and flags, the same for the same numbers of any dtype
    """
    digest = hashlib.sha256(f"sb3-iq demonstrations 1, every {subsample_freq}".encode())
    for trajectory in trajectories:
        flags = (trajectory.terminated, trajectory.truncated, trajectory.starts_at_reset)
        digest.update(repr(flags).encode())
        obs = trajectory.obs if isinstance(trajectory.obs, dict) else {"": trajectory.obs}
        arrays = [(f"obs {key}", obs[key]) for key in sorted(obs)]
        if trajectory.acts is not None:
            arrays.append(("acts", trajectory.acts))
        if trajectory.rews is not None:
            arrays.append(("rews", trajectory.rews))
        for name, array in arrays:
            dtype = _canonical_dtype(array)
            digest.update(f"{name} {array.shape} {dtype.str}".encode())
            for chunk in chunks(array):
                digest.update(np.ascontiguousarray(chunk, dtype=dtype).data)
    return digest.hexdigest()


def _canonical_dtype(array: np.ndarray) -> np.dtype:
    """Return one dtype for equal numbers: libraries on the way widen float32 to float64 and uint8 to int64."""
    if array.dtype.kind == "f":
        return np.dtype("<f8")
    if array.dtype not in (np.uint8, np.bool_):
        minimum, maximum = extremes(array)
        if minimum.min() < 0 or maximum.max() > 255:
            return np.dtype("<i8")
    return np.dtype("|u1")  # images: eight times less to hash than int64
