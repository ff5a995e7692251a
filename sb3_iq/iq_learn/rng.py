"""The states of a run's random number generators, so that it can go on as if there had been no interruption."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch as th


def get_rng_states(device: th.device) -> dict[str, Any]:
    """:return: the states of the generators that a run draws from, besides that of the expert batches"""
    states = {"python": random.getstate(), "numpy": np.random.get_state(), "torch": th.get_rng_state().numpy()}
    if device.type == "cuda":
        states["cuda"] = th.cuda.get_rng_state(device).numpy()
    return states


def set_rng_states(states: dict[str, Any], device: th.device) -> None:
    random.setstate(states["python"])
    np.random.set_state(states["numpy"])
    th.set_rng_state(th.as_tensor(states["torch"]))
    if device.type == "cuda" and "cuda" in states:
        th.cuda.set_rng_state(th.as_tensor(states["cuda"]), device)


@contextmanager
def kept_rng_states(device: th.device) -> Iterator[None]:
    """What is drawn meanwhile changes nothing in a run."""
    states = get_rng_states(device)
    try:
        yield
    finally:
        set_rng_states(states, device)
