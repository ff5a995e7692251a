"""Whether a run is healthy, and its log."""

import math

import torch as th
from stable_baselines3.common.logger import Logger
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm

from sb3_iq.iq_learn.objective import DivergenceError
from sb3_iq.iq_learn.optimization import parameters_of


def check_finite(info: dict[str, th.Tensor], optimizer: th.optim.Optimizer, n_updates: int) -> None:
    """
    To be called between ``backward`` and the optimiser's step.

    :param info: the loss and its parts
    :param optimizer: the optimiser that is about to use the gradients
    :param n_updates: the number of gradient steps so far
    :raises DivergenceError: if one of them is not finite, naming the terms
    """
    gradients = [parameter.grad for parameter in parameters_of(optimizer) if parameter.grad is not None]
    total = th.stack([*info.values(), *th._foreach_norm(gradients)]).sum()
    if not math.isfinite(total.item()):
        terms = ", ".join(f"{name} = {value.item():.3g}" for name, value in info.items())
        raise DivergenceError(
            f"Training diverged at gradient step {n_updates}, before the optimiser's step: {terms}. "
            "Lower `learning_rate` or `gamma`, or raise `penalty_coef`."
        )


def record_means(logger: Logger, infos: list[dict[str, th.Tensor]]) -> None:
    """
    :param logger: where to log
    :param infos: scalars of the same names for each gradient step, fetched from the device only here
    """
    if infos:
        values = th.stack([th.stack(list(info.values())) for info in infos]).mean(dim=0)
        for name, mean in zip(infos[0], values.tolist(), strict=True):
            logger.record(f"train/{name}", mean)


def dump_logs(model: OffPolicyAlgorithm) -> None:
    """Write the log, by SB3's own method, which has another name in SB3 2.2."""
    (model.dump_logs if hasattr(model, "dump_logs") else model._dump_logs)()
