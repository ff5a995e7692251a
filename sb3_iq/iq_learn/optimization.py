"""What SB3 does parameter by parameter, in one call for all; defaults and a number of threads that suit small networks."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
from stable_baselines3.common.type_aliases import Schedule
from torch import nn


class InPlaceReLU(nn.ReLU):
    """ReLU for the output of a linear or normalising layer, which nothing else reads: it needs no memory of its own."""

    def __init__(self) -> None:
        super().__init__(inplace=True)


def with_fast_defaults(policy_kwargs: dict[str, Any]) -> dict[str, Any]:
    """
    :param policy_kwargs: arguments of a policy
    :return: the same, and what the user has not chosen: ReLU in place, and Adam's step fused
    """
    defaults: dict[str, Any] = {"activation_fn": InPlaceReLU}
    # Older versions of PyTorch have it for some devices only
    fused = th.__version__ >= (2, 5)  # type: ignore[operator]
    if fused and policy_kwargs.get("optimizer_class", th.optim.Adam) is th.optim.Adam:
        defaults["optimizer_kwargs"] = {"fused": True}
    return {**defaults, **policy_kwargs}


def scheduled(value: float | Schedule, progress_remaining: float) -> float:
    """
    :param value: a number, or a function of the progress remaining
    :param progress_remaining: from 1 (beginning) to 0
    :return: the number of now
    """
    return float(value(progress_remaining) if callable(value) else value)


def set_learning_rate(optimizer: th.optim.Optimizer, learning_rate: float | Schedule, progress_remaining: float) -> None:
    """
    :param optimizer: an optimizer
    :param learning_rate: its learning rate, or a function of the progress remaining
    :param progress_remaining: from 1 (beginning) to 0
    """
    for group in optimizer.param_groups:
        group["lr"] = scheduled(learning_rate, progress_remaining)


def parameters_of(optimizer: th.optim.Optimizer) -> list[nn.Parameter]:
    """:return: what the optimizer steps on"""
    return [parameter for group in optimizer.param_groups for parameter in group["params"]]


@contextmanager
def without_gradient(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """A loss computed inside has no gradient with respect to the parameters, which spares its backward pass the work."""
    learned = [parameter for parameter in parameters if parameter.requires_grad]
    for parameter in learned:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in learned:
            parameter.requires_grad_(True)


def polyak_update(parameters: Iterable[th.Tensor], target_parameters: Iterable[th.Tensor], tau: float) -> None:
    """
    SB3's function of this name, for all tensors at once.

    :param parameters: tensors
    :param target_parameters: as many, which are moved towards them in place
    :param tau: the share of ``parameters`` in the result
    """
    targets = list(target_parameters)
    if targets:
        with th.no_grad():
            th._foreach_lerp_(targets, list(parameters), tau)


def share_of_latest(tau: float, n_updates: int) -> float:
    """
    :param tau: the share of the latest parameters in a moving average
    :param n_updates: how many parameters came before
    :return: that share, or 4 / (n_updates + 4) as long as it is larger: then the average is one of about the last quarter
        (polynomial-decay averaging, https://arxiv.org/abs/1212.1824)
    """
    return max(tau, 4 / (n_updates + 4))


class MovingAverage:
    """
    A network whose parameters follow those of another by a moving average.

    :param network: what is trained
    :param averaged: a network like it, which becomes a copy without gradients, in evaluation mode
    :param tau: the share of the latest parameters, in (0, 1], see :func:`share_of_latest`; 1 for a copy
    """

    def __init__(self, network: nn.Module, averaged: nn.Module, tau: float) -> None:
        averaged.load_state_dict(network.state_dict())
        averaged.requires_grad_(False)
        averaged.train(False)
        self.network, self.averaged, self.tau = network, averaged, tau
        # Modules are walked once
        self._parameters = list(network.parameters()), list(averaged.parameters())

    def update(self, n_updates: int) -> None:
        """
        Move the average towards the network; statistics of normalisation layers are copied (see SB3's GH issue #996).

        :param n_updates: how often the network was updated before
        """
        polyak_update(*self._parameters, share_of_latest(self.tau, n_updates))
        # These are not kept: a module that is moved to another device gets new ones
        for buffer, copied in zip(self.network.buffers(), self.averaged.buffers(), strict=True):
            copied.copy_(buffer)


def check_actor_tau(actor_tau: float) -> None:
    """:raises ValueError: if it is not the coefficient of a moving average"""
    if not 0 < actor_tau <= 1:
        raise ValueError(f"`actor_tau` is {actor_tau}: it must be in (0, 1].")


# With fewer parameters than this, threads cost more than they save
SMALL = 1_000_000
THREAD_VARIABLES = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
_THREADS_AT_IMPORT = th.get_num_threads()


def threads_chosen() -> bool:
    """:return: whether the user has chosen a number of threads, by the environment or ``torch.set_num_threads``"""
    if any(name in os.environ for name in THREAD_VARIABLES):
        return True
    cores = os.cpu_count() or 1
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else cores
    # torch's own default, of logical, physical or usable cores; a change since the import is a choice too
    return th.get_num_threads() not in (cores, cores // 2, usable) or th.get_num_threads() != _THREADS_AT_IMPORT


@contextmanager
def one_thread(policy: nn.Module, device: th.device, verbose: int = 0) -> Iterator[None]:
    """
    On the CPU, small networks are trained on one thread within this context, unless the user chose a number: threads wait by
    spinning, so that a second training on the same cores makes both many times slower.

    :param policy: whose networks are trained
    :param device: where they are
    :param verbose: from 1 on, it is said
    """
    before = th.get_num_threads()
    small = sum(parameter.numel() for parameter in policy.parameters()) < SMALL
    if device.type != "cpu" or not small or before == 1 or threads_chosen():
        yield
        return
    if verbose >= 1:
        print(f"Training on 1 thread instead of {before}: faster for networks of this size. Set OMP_NUM_THREADS to choose.")
    th.set_num_threads(1)
    try:
        yield
    finally:
        th.set_num_threads(before)
