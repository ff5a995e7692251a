"""Whether a run is healthy, and its log: finite losses, alarms, means."""

import math
import warnings
from dataclasses import dataclass

import torch as th
from stable_baselines3.common.logger import Logger

from sb3_iq.iq_learn.batches import Batch
from sb3_iq.iq_learn.objective import NonFiniteLossError
from sb3_iq.iq_learn.optimization import parameters_of
from sb3_iq.iq_learn.policies import SoftPolicy

# Gradient steps between two looks at the logs, the alarms, and how well the policy fits
UPDATE_INTERVAL = 100
SKIPPED = "skipped_step"
CONSOLE = ("critic_loss", "actor_loss", "expert_reward", "policy_reward", "expert_log_likelihood", "bc_action_error")
"""What the console shows of a gradient step with ``verbose=1``; with 2, and in any other log, it is all."""


def skips_on_device(optimizer: th.optim.Optimizer) -> bool:
    """:return: whether the optimiser itself can leave out a step, so that an accelerator need not be waited for"""
    return all(group.get("fused", False) and group["params"][0].device.type != "cpu" for group in optimizer.param_groups)


def minimize(loss: th.Tensor, info: dict[str, th.Tensor], optimizer: th.optim.Optimizer, n_updates: int) -> th.Tensor:
    """
    A step of an optimiser; none on a loss or gradient that isn't finite.

    :param loss: the loss
    :param info: its parts, for the message. Where the step may only be left out on the device, the entry ``skipped_step``
        of it says so, and :func:`check_steps` raises
    :param optimizer: the optimiser
    :param n_updates: the number of gradient steps so far
    :return: the norm of the gradient, a scalar
    :raises NonFiniteLossError: if one of them is not finite, naming the terms
    """
    parameters = parameters_of(optimizer)
    for parameter in parameters:  # optimizer.zero_grad(), without its hooks for profilers
        parameter.grad = None
    loss.backward()
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    norm = th.stack(th._foreach_norm(gradients)).norm()
    total = loss.detach() + norm
    if skips_on_device(optimizer):
        # Of a fused optimiser, as for torch.amp's GradScaler
        skipped = (~th.isfinite(total)).float().reshape(())
        optimizer.found_inf = skipped  # type: ignore[attr-defined]
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf  # type: ignore[attr-defined]
        info[SKIPPED] = info[SKIPPED] + skipped if SKIPPED in info else skipped
    else:
        if not math.isfinite(total.item()):
            raise_non_finite({**info, "norm of the gradient": norm}, n_updates)
        optimizer.step()
    return norm


def raise_non_finite(info: dict[str, th.Tensor], n_updates: int) -> None:
    """
    :param info: a loss and its parts
    :param n_updates: the number of gradient steps before it
    :raises NonFiniteLossError: naming the terms
    """
    values = {name: value.item() for name, value in info.items() if name != SKIPPED}
    culprits = ", ".join(name for name, value in values.items() if not math.isfinite(value))
    terms = ", ".join(f"{name} = {value:.3g}" for name, value in values.items())
    raise NonFiniteLossError(
        f"Training diverged at gradient step {n_updates}, before the optimiser's step. "
        f"Not finite: {culprits or 'their sum'}. ({terms}.) Lower `learning_rate` or `gamma`, or raise `penalty_coef`."
    )


def check_steps(infos: list[dict[str, th.Tensor]], n_updates: int) -> None:
    """
    :param infos: what was noted of the latest gradient steps
    :param n_updates: the number of gradient steps after them
    :raises NonFiniteLossError: if a step was left out on the device
    """
    skipped = [info[SKIPPED] for info in infos if SKIPPED in info]
    if not skipped or th.stack(skipped).sum().item() == 0:
        return
    for idx, info in enumerate(infos):
        if info[SKIPPED].item() > 0:
            raise_non_finite(info, n_updates - len(infos) + idx)


def fit(policy: SoftPolicy, batch: Batch, cloned: bool) -> dict[str, float]:
    """
    :param policy: the policy
    :param batch: a batch of the expert and the policy
    :param cloned: whether the batch holds the expert's own actions
    :return: how well the policy fits the expert's actions, and for discrete actions its entropy over the batch
    """
    values: dict[str, float] = {}
    # What is only looked at leaves statistics and random numbers of layers alone (this affects batch norm / dropout)
    policy.set_training_mode(False)
    with th.no_grad():
        if cloned:
            values["expert_log_likelihood"] = policy.log_likelihood(batch.expert_obs, batch.expert_actions).mean().item()
            values["bc_action_error"] = policy.action_error(batch.expert_obs, batch.expert_actions).item()
        if not policy.continuous:
            values["entropy"] = -policy.action_log_prob(batch.obs)[1].mean().item()
    policy.set_training_mode(True)
    return values


class TrainingLog:
    """What is noted of each gradient step, fetched from the device only when it is logged."""

    def __init__(self) -> None:
        self.infos: list[dict[str, th.Tensor]] = []
        self.fit: dict[str, float] = {}
        """Further numbers to log, see :func:`fit`"""

    def note(self, info: dict[str, th.Tensor]) -> None:
        """
        :param info: scalars of one gradient step; a name may be absent in some steps
        """
        self.infos.append(info)

    def record(self, logger: Logger, n_updates: int, verbose: int) -> dict[str, float]:
        """
        :param logger: where to log
        :param n_updates: the number of gradient steps so far
        :param verbose: verbosity level
        :return: the means over the steps since the last time, and the further numbers; empty if there was none
        :raises NonFiniteLossError: if a step was left out on the device
        """
        infos, self.infos = self.infos, []
        if not infos:
            return {}
        check_steps(infos, n_updates)
        named = [(name, value) for info in infos for name, value in info.items() if name != SKIPPED]
        fetched = th.stack([value for _, value in named]).tolist()
        columns: dict[str, list[float]] = {}
        for (name, _), number in zip(named, fetched, strict=True):
            columns.setdefault(name, []).append(number)
        values = {name: sum(column) / len(column) for name, column in columns.items()} | self.fit
        for name, mean in values.items():
            logger.record(f"train/{name}", mean, exclude=None if verbose > 1 or name in CONSOLE else "stdout")
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
        :param q_bound: the magnitude that values cannot exceed in theory
        :param n_updates: the number of gradient steps so far
        """
        if "q_max" not in means:
            return
        magnitude = max(means["q_max"], -means["q_min"])
        self.q_since = self._since(self.q_since, magnitude > 1.5 * q_bound, n_updates)
        # A policy may come nearer to the demonstrations than they are to each other: the prior pays it more, and r follows
        more_prior = means.get("policy_prior", 0.0) - means.get("expert_prior", 0.0)
        crossing = means.get("policy_reward", -math.inf) > means["expert_reward"] + max(more_prior, 0.0)
        self.crossing_since = self._since(self.crossing_since, crossing, n_updates)
        self._tell(
            "q",
            self.q_since,
            n_updates,
            f"Q-values are as large as {magnitude:.3g}, beyond {q_bound:.3g}, what the rewards can amount to: Q is diverging. "
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
