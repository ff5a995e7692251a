"""Whether a run is healthy, and its log."""

import math
import warnings
from dataclasses import dataclass

import torch as th
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_iq.iq_learn.batches import Batch
from sb3_iq.iq_learn.objective import DivergenceError
from sb3_iq.iq_learn.optimization import parameters_of
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy


def check_finite(info: dict[str, th.Tensor], optimizer: th.optim.Optimizer, n_updates: int) -> th.Tensor:
    """
    To be called between ``backward`` and the optimiser's step.

    :param info: the loss and its parts
    :param optimizer: the optimiser that is about to use the gradients
    :param n_updates: the number of gradient steps so far
    :return: the norm of the gradient, a scalar
    :raises DivergenceError: if one of them is not finite, naming the terms
    """
    gradients = [parameter.grad for parameter in parameters_of(optimizer) if parameter.grad is not None]
    norm = th.stack(th._foreach_norm(gradients)).norm()
    if not math.isfinite(th.stack([*info.values(), norm]).sum().item()):
        values = {name: value.item() for name, value in info.items()} | {"norm of the gradient": norm.item()}
        culprits = ", ".join(name for name, value in values.items() if not math.isfinite(value))
        terms = ", ".join(f"{name} = {value:.3g}" for name, value in values.items())
        raise DivergenceError(
            f"Training diverged at gradient step {n_updates}, before the optimiser's step. "
            f"Not finite: {culprits or 'their sum'}. ({terms}.) Lower `learning_rate` or `gamma`, or raise `penalty_coef`."
        )
    return norm


def fit(policy: SoftQPolicy | SACPolicy, batch: Batch, cloned: bool) -> dict[str, float]:
    """
    :param policy: the policy
    :param batch: a batch of the expert and the policy
    :param cloned: whether the batch holds the expert's own actions
    :return: how well the policy fits the expert's actions, and for discrete actions its entropy over the batch
    """
    values: dict[str, float] = {}
    with th.no_grad():
        if cloned:
            values["expert_log_likelihood"] = policy.log_likelihood(batch.expert_obs, batch.expert_actions).mean().item()
            values["bc_action_error"] = policy.action_error(batch.expert_obs, batch.expert_actions).item()
        if isinstance(policy, SoftQPolicy):
            values["entropy"] = -policy.expected_log_prob(batch.obs).mean().item()
    return values


def record_means(logger: Logger, infos: list[dict[str, th.Tensor]], values: dict[str, float]) -> dict[str, float]:
    """
    :param logger: where to log
    :param infos: scalars for each gradient step, fetched from the device only here; a name may be absent in some of them
    :param values: further numbers to log
    :return: the means over the steps, and the further numbers
    """
    if infos:
        fetched = th.stack([value for info in infos for value in info.values()]).tolist()
        columns: dict[str, list[float]] = {}
        for name, value in zip([name for info in infos for name in info], fetched, strict=True):
            columns.setdefault(name, []).append(value)
        values = {name: sum(column) / len(column) for name, column in columns.items()} | values
        for name, mean in values.items():
            logger.record(f"train/{name}", mean)
    return values


@dataclass
class Alarms:
    """
    Signs of a run that goes wrong without a NaN; each is told once.

    :param patience: how many gradient steps in a row a sign has to stand
    """

    patience: int = 2_000
    q_since: int | None = None
    crossing_since: int | None = None
    told: tuple[str, ...] = ()

    def check(self, means: dict[str, float], q_bound: float, n_updates: int) -> None:
        """
        :param means: what was logged last
        :param q_bound: the size that values cannot exceed in theory
        :param n_updates: the number of gradient steps so far
        """
        if "q_max" not in means:
            return
        size = max(means["q_max"], -means["q_min"])
        self.q_since = self._since(self.q_since, size > 1.5 * q_bound, n_updates)
        crossing = means.get("policy_reward", -math.inf) > means["expert_reward"]
        self.crossing_since = self._since(self.crossing_since, crossing, n_updates)
        self._tell(
            "q",
            self.q_since,
            n_updates,
            f"Q-values are as large as {size:.3g}, beyond {q_bound:.3g}, what the rewards can amount to: Q is diverging. "
            "Use critic_bound='clip', lower `learning_rate` or `gamma`, or raise `penalty_coef`.",
        )
        self._tell(
            "crossing",
            self.crossing_since,
            n_updates,
            "the policy's transitions are rated above the expert's (train/policy_reward > train/expert_reward): Q has lost "
            "the demonstrations. Check that they are of this environment (python -m sb3_iq.demonstrations), lower "
            "`learning_rate` or raise `penalty_coef`.",
        )

    @staticmethod
    def _since(since: int | None, stands: bool, n_updates: int) -> int | None:
        if not stands:
            return None
        return n_updates if since is None else since

    def _tell(self, name: str, since: int | None, n_updates: int, message: str) -> None:
        if since is not None and n_updates - since >= self.patience and name not in self.told:
            self.told += (name,)
            warnings.warn(f"For {n_updates - since} gradient steps {message}")


def dump_logs(model: OffPolicyAlgorithm) -> None:
    """Write the log, by SB3's own method, which has another name in SB3 2.2."""
    (model.dump_logs if hasattr(model, "dump_logs") else model._dump_logs)()
