"""What an evaluation of IQ-Learn may tell beside the return: what training logged, and the latest actor's own return."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch as th

from sb3_iq.iq_learn import SACPolicy

# What an evaluation notes of the training at that step, where the algorithm logs it
TRAIN_KEYS = ("expert_reward", "policy_reward", "q_expert", "q_policy", "entropy", "expert_log_likelihood", "critic_grad_norm")


@dataclass(frozen=True)
class ByActor:
    """
    Predicts by an actor that it is given, where the model's own deterministic predictions are those of a moving average.

    :param model: of continuous actions
    :param actor: the actor
    """

    model: Any
    actor: Any

    def predict(self, obs: Any, *_: Any, **__: Any) -> tuple[np.ndarray, None]:
        """
        :param obs: observations
        :return: deterministic actions, and no state
        """
        policy = self.model.policy
        policy.set_training_mode(False)
        with th.no_grad():
            actions = self.actor(policy.obs_to_tensor(obs)[0], deterministic=True)
        return policy.unscale_action(actions.cpu().numpy()), None


def logged(model: Any) -> dict[str, float]:
    """
    :param model: of IQ-Learn, in training
    :return: the means of the latest gradient steps, and the return of the latest 100 episodes
    """
    model._record_means()  # as before each line of the log
    values = model.logger.name_to_value
    train = {key: float(f"{values[f'train/{key}']:.4g}") for key in TRAIN_KEYS if f"train/{key}" in values}
    returns = [episode["r"] for episode in model.ep_info_buffer or []]
    return {**train, "ep_rew_mean": round(sum(returns) / len(returns), 2)} if returns else train


def details_of(model: Any, returns_of: Callable[[Any], np.ndarray]) -> dict[str, Any]:
    """
    :param model: of IQ-Learn, in training
    :param returns_of: plays by whatever has SB3's ``predict``, and returns the returns
    :return: what to add to an evaluation
    """
    found: dict[str, Any] = {}
    if isinstance(model.policy, SACPolicy):
        latest = returns_of(ByActor(model, model.policy.actor))
        found = {"latest_actor_mean": round(float(latest.mean()), 3), "latest_actor_min": round(float(latest.min()), 3)}
    return {**found, "train": logged(model)}
