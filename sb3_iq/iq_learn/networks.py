"""Layers and networks that SB3 doesn't have."""

from typing import Any

import torch as th
from stable_baselines3.common.policies import ContinuousCritic
from torch import nn


class ScaledTanh(nn.Module):
    """
    x -> b tanh(x / b): the identity near zero, and never larger than the bound.

    :param bound: the bound b
    """

    def __init__(self, bound: float) -> None:
        super().__init__()
        self.bound = bound

    def forward(self, x: th.Tensor) -> th.Tensor:
        return self.bound * th.tanh(x / self.bound)


class LayerNormCritic(ContinuousCritic):
    """
    SB3's critics with a LayerNorm after every hidden linear layer, which bounds how fast Q grows away from the data.

    The parameters are those of SB3's ``ContinuousCritic``.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for idx, q_net in enumerate(self.q_networks):
            layers: list[nn.Module] = []
            *hidden, last = q_net.children()
            for layer in hidden:
                layers.append(layer)
                if isinstance(layer, nn.Linear):
                    layers.append(nn.LayerNorm(layer.out_features))
            self.q_networks[idx] = nn.Sequential(*layers, last)
            setattr(self, f"qf{idx}", self.q_networks[idx])
