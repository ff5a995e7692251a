"""Models saved by earlier versions: where classes were, what arguments were called, and which optimiser learned what."""

import sys
from collections.abc import Iterator, Mapping, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from torch import nn

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


def migrate_parameters(parameters: Mapping[str, Any], policy: Any, reference: nn.Module | None) -> dict[str, Any]:
    """
    :param parameters: what was saved of networks and optimisers, by name
    :param policy: the policy that they are for
    :param reference: the reference policy, of which earlier there was less, or nothing
    :return: the same, as it is saved today
    """
    migrated = migrate_optimizers(parameters, policy)
    if reference is not None:
        migrated["reference"] = {**reference.state_dict(), **migrated.get("reference", {})}
    return migrated


def migrate_optimizers(parameters: Mapping[str, Any], policy: Any) -> dict[str, Any]:
    """
    :param parameters: what was saved of networks and optimisers, by name
    :param policy: the policy that they are for
    :return: the same, for today's optimisers: earlier the actor's learned a shared features extractor, now the critics' does,
        which begins with no moments of it
    """
    of_actor, of_critic = parameters.get("actor.optimizer"), parameters.get("critic.optimizer")
    if not getattr(policy, "share_features_extractor", False) or of_actor is None or of_critic is None:
        return dict(parameters)
    n_shared = len(of_actor["param_groups"][0]["params"]) - len(policy.actor.optimizer.param_groups[0]["params"])
    if n_shared <= 0:
        return dict(parameters)
    # A network's extractor comes first
    moved = {"actor.optimizer": _shifted(of_actor, -n_shared), "critic.optimizer": _shifted(of_critic, n_shared)}
    return {**parameters, **moved}


def _shifted(state: Mapping[str, Any], shift: int) -> dict[str, Any]:
    """Return the state of an optimiser of as many parameters more or fewer, at the front."""
    (group,) = state["param_groups"]
    moments = {idx + shift: values for idx, values in state["state"].items() if idx + shift >= 0}
    return {"state": moments, "param_groups": [{**group, "params": list(range(len(group["params"]) + shift))}]}
