"""Models saved by earlier versions: where classes were, and what arguments were called."""

import sys
from collections.abc import Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

from sb3_iq.iq_learn import sac_policy, soft_q_policy, spaces_env
from sb3_iq.iq_learn.settings import OBJECTIVE_KWARGS

MOVED_MODULES = {
    "sb3_iq.iq_learn.environment": spaces_env,
    "sb3_iq.iq_learn.sac_policies": sac_policy,
    "sb3_iq.iq_learn.soft_q_policies": soft_q_policy,
}
REMOVED = ("replay_window", "policy_delay", "pretrain_steps", "obs_noise")


@contextmanager
def earlier_modules() -> Iterator[None]:
    """Within this context, what a saved model refers to is found where it is now."""
    missing = {name: module for name, module in MOVED_MODULES.items() if name not in sys.modules}
    sys.modules.update(missing)
    try:
        yield
    finally:
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
