"""What SB3 does parameter by parameter, in one call for all of them, and other defaults that save time on small networks."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch as th
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
