"""Models saved by earlier versions: where classes were, and what arguments were called."""

import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sb3_iq.iq_learn import presets, sac_policy, soft_q_policy, spaces_env
from sb3_iq.iq_learn.settings import OBJECTIVE_KWARGS

MOVED_MODULES = {
    "sb3_iq.iq_learn.environment": spaces_env,
    "sb3_iq.iq_learn.sac_policies": sac_policy,
    "sb3_iq.iq_learn.soft_q_policies": soft_q_policy,
}
REMOVED = ("replay_window", "policy_delay", "pretrain_steps", "obs_noise")


@dataclass(frozen=True)
class QuadraticDecay:
    """
    A learning rate of saved models: it falls to a fiftieth, with the square of what remains.

    :param initial: the value at the start
    """

    initial: float

    def __call__(self, progress_remaining: float) -> float:
        return self.initial * (0.02 + 0.98 * progress_remaining**2)


@contextmanager
def earlier_modules() -> Iterator[None]:
    """Within this context, what a saved model refers to is found where it is now."""
    missing = {name: module for name, module in MOVED_MODULES.items() if name not in sys.modules}
    sys.modules.update(missing)
    presets.QuadraticDecay = QuadraticDecay  # type: ignore[attr-defined]
    try:
        yield
    finally:
        del presets.QuadraticDecay  # type: ignore[attr-defined]
        for name in missing:
            sys.modules.pop(name, None)


def migrate(attributes: MutableMapping[str, Any]) -> None:
    """
    :param attributes: those of a model as they were saved; changed in place
    """
    if "objective_kwargs" in attributes and "divergence" not in attributes:
        return
    given = {name: attributes.pop(name) for name in OBJECTIVE_KWARGS if name in attributes}
    attributes["objective_kwargs"] = {name: value for name, value in given.items() if value is not None}
    policy_kwargs = attributes["policy_kwargs"]
    policy_kwargs.pop("q_bound", None)
    actor_tau = attributes.pop("actor_tau", None)
    if actor_tau is not None and attributes["policy_class"].continuous:
        policy_kwargs["actor_tau"] = actor_tau
    for name in REMOVED:
        attributes.pop(name, None)
