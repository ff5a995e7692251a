"""What makes observations, most of all images, differ from the environment's: which wrapper one of the two lacks."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from gymnasium import spaces

from sb3_iq.demonstrations.errors import cut
from sb3_iq.observations import channels_first, is_image

_OF_CARD = ("env_wrapper", "frame_stack")  # what `record` writes of the wrappers of a recording


def of_card(card: Mapping[str, Any] | None) -> str:
    """
    :param card: the card beside the data, if there is one
    :return: what it says of the wrappers of the recording, as a sentence that follows another; empty if nothing
    """
    known = {name: (card or {}).get(name) for name in _OF_CARD}
    named = [f"{name}={cut(value)}" for name, value in known.items() if value]
    return f". The card beside the data says that they were recorded with {' and '.join(named)}" if named else ""


def why_shapes_differ(found: tuple[int, ...], space: spaces.Space) -> str | None:
    """
    :param found: the shape of a recorded observation
    :param space: what the environment's should be in, as the model sees it
    :return: what differs and the wrapper to look at, as the rest of a sentence; None if nothing is known
    """
    if not is_image(space):
        if len(found) == 3 and sorted(found)[1] > 8 and isinstance(space, spaces.Box) and len(space.shape) == 1:
            return (
                "these are images, the environment's are vectors: either the environment lacks the wrapper that renders them "
                "(gymnasium.wrappers.AddRenderObservation), or it flattens them (FlattenObservation)"
            )
        return _why_others_differ(found, space.shape) if isinstance(space, spaces.Box) else None
    assert isinstance(space, spaces.Box)
    if len(found) == 1:
        return (
            "these are vectors, the environment's are images: they were recorded before a wrapper that the environment now "
            "has (such as gymnasium.wrappers.AddRenderObservation), or flattened (FlattenObservation)"
        )
    if len(found) == 2:
        return (
            "these have no axis of channels: give obs[..., None], or record with "
            "gymnasium.wrappers.GrayscaleObservation(env, keep_dim=True)"
        )
    if len(found) > 3:
        return (
            "these have an axis too many, as gymnasium.wrappers.FrameStackObservation makes one: stack frames by SB3's "
            "VecFrameStack, in the recording and here, or give both the same wrapper"
        )
    first = found[0] <= found[-1]
    n, size = (found[0], found[1:]) if first else (found[-1], found[:2])
    shape = space.shape
    n_wanted, wanted = (shape[0], shape[1:]) if channels_first(space) else (shape[-1], shape[:2])
    if size != wanted:
        if size == wanted[::-1]:
            return (
                "height and width are exchanged: look at the wrapper that resizes, whose shape is (height, width) in gymnasium"
            )
        return (
            f"frames of {_pixels(size)} instead of {_pixels(wanted)} pixels: look at the wrapper that resizes "
            "(gymnasium.wrappers.ResizeObservation, or SB3's WarpFrame and AtariWrapper), which must be the same in both"
        )
    if n == n_wanted:
        return (
            f"channels {'first instead of last' if first else 'last instead of first'}: look at the wrapper that transposes "
            "(VecTransposeImage), or move the axis of the data by np.moveaxis"
        )
    reasons = []
    if n_wanted % n == 0 and n_wanted // n > 1:
        reasons.append(
            f"{n} instead of {n_wanted} channels: the environment stacks {n_wanted // n} frames and the recording did not: "
            f"record with VecFrameStack(env, {n_wanted // n}), in sb3_iq.record --frame-stack {n_wanted // n}"
        )
    if n % n_wanted == 0 and n // n_wanted > 1:
        reasons.append(
            f"{n} instead of {n_wanted} channels: the recording stacked {n // n_wanted} frames: wrap the environment in "
            f"VecFrameStack(env, {n // n_wanted})"
        )
    if not reasons:
        reasons.append(
            f"{n} instead of {n_wanted} channels: look at the wrapper that stacks frames (VecFrameStack), whose number of "
            "frames must be the same in both"
        )
    if {n, n_wanted} & {3, 4}:
        reasons.append("or one is in colour and the other grey (gymnasium.wrappers.GrayscaleObservation, SB3's WarpFrame)")
    return ", ".join(reasons)


def _why_others_differ(found: tuple[int, ...], wanted: tuple[int, ...]) -> str | None:
    """The same of observations that are not taken for images: vectors, stacks on an axis of their own, frames in grey."""
    own_axis = "on an axis of their own (gymnasium.wrappers.FrameStackObservation)"
    if found and wanted[1:] == found:
        return f"the environment stacks {wanted[0]} observations {own_axis} and the recording did not: record with the wrapper"
    if wanted and found[1:] == wanted:
        return f"the recording stacked {found[0]} observations {own_axis}: wrap the environment likewise"
    if len(found) == 3 and found[:2] == wanted:
        return (
            "the environment's frames are grey, without an axis of channels (gymnasium.wrappers.GrayscaleObservation without "
            "keep_dim=True), those of the recording are in colour: record with the wrapper"
        )
    if len(found) != 1 or len(wanted) != 1 or 0 in found + wanted:
        return None
    reasons, (n,), (n_wanted,) = [], found, wanted
    if n_wanted % n == 0:
        times = n_wanted // n
        reasons.append(
            f"the environment stacks {times} observations and the recording did not: record with VecFrameStack(env, {times}), "
            f"in sb3_iq.record --frame-stack {times}"
        )
    if n % n_wanted == 0:
        times = n // n_wanted
        reasons.append(f"the recording stacked {times} observations: wrap the environment in VecFrameStack(env, {times})")
    if abs(n - n_wanted) == 1:
        reasons.append(
            f"one number {'more' if n > n_wanted else 'less'}: look at the wrapper that adds the time "
            "(gymnasium.wrappers.TimeAwareObservation, sb3_contrib's TimeFeatureWrapper), which must be the same in both"
        )
    return ", or ".join(reasons) + ", or this is data of another environment" if reasons else None


def check_range(label: str, dtype: np.dtype, minimum: float, maximum: float, space: spaces.Space) -> None:
    """
    Refuse images in other units than the environment's: 0 to 255 and 0 to 1.

    :param label: what is checked, for the message
    :param dtype: the dtype that was read
    :param minimum: the smallest number
    :param maximum: the largest number
    :param space: the space
    :raises ValueError: with the wrapper to look at
    """
    if not is_image(space):
        return
    assert isinstance(space, spaces.Box)
    high = float(space.high.flat[0])
    # Images that VecNormalize has normalised have other bounds, and the data are raw
    if space.dtype.kind == "f" and space.low.flat[0] == 0 and (minimum < -1e-3 or maximum > 1.001 * high):
        raise ValueError(
            f"{label} of dtype {dtype} hold numbers from {minimum:.4g} to {maximum:.4g}, but the environment's are from 0 to "
            f"{high:.4g}: it has a wrapper that scales frames, which the recording lacks "
            "(gymnasium.wrappers.RescaleObservation, TransformObservation). Record with the same wrappers, or scale the data"
        )
    if space.dtype.kind != "f" and dtype.kind == "f" and 0 < maximum <= 1:
        raise ValueError(
            f"{label} of dtype {dtype} hold numbers from {minimum:.4g} to {maximum:.4g}, but the environment's are "
            f"{space.dtype} from 0 to {high:.0f}. Were images scaled to [0, 1]? Record them as the environment gives them, or "
            "wrap the environment likewise (gymnasium.wrappers.RescaleObservation), with the policy's normalize_images=False"
        )


def _pixels(size: tuple[int, ...]) -> str:
    return "x".join(map(str, size))
