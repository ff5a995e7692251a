"""Layers and networks that SB3 doesn't have."""

import hashlib
from typing import Any

import torch as th
from gymnasium import spaces
from stable_baselines3.common.policies import BaseModel, ContinuousCritic
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.sac.policies import Actor
from torch import nn

from sb3_iq.iq_learn.normalization import ObservationNormalizer
from sb3_iq.iq_learn.random_shift import RandomShift


def fingerprint(module: nn.Module) -> str:
    """
    :param module: networks
    :return: a SHA-256 of their parameters and statistics, which tells whether anybody has changed them
    """
    digest = hashlib.sha256()
    for name, values in module.state_dict().items():
        digest.update(name.encode())
        digest.update(values.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


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


class FollowingActor(Actor):
    """SB3's actor on features that somebody else learns: its loss has no gradient with respect to the features extractor."""

    def extract_features(self, *args: Any, **kwargs: Any) -> th.Tensor:
        with th.no_grad():
            return super().extract_features(*args, **kwargs)


class Temperature(nn.Module):
    """
    The temperature alpha of a policy, a part of it: what predicts, gives rewards or learns reads it here. It is kept as its
    logarithm, which ``ent_coef="auto"`` learns.
    """

    log_ent_coef: nn.Parameter

    def _make_temperature(self) -> None:
        self.log_ent_coef = nn.Parameter(th.zeros(1), requires_grad=False)

    @property
    def ent_coef(self) -> th.Tensor:
        """The temperature alpha, a scalar without gradient."""
        return self.log_ent_coef.detach().exp().squeeze()

    def set_ent_coef(self, ent_coef: float) -> None:
        """
        :param ent_coef: the temperature alpha
        """
        with th.no_grad():
            self.log_ent_coef.copy_(th.tensor([ent_coef]).log())


class TreatedObservations(BaseModel):
    """
    What a policy does with observations: its features extractors get standardised vectors and centred images, and the batches
    that it learns from hold shifted images.
    """

    normalizer: ObservationNormalizer

    def _treat_observations(self, observation_space: spaces.Space, normalize_obs: bool, random_shift: int | None) -> None:
        self.normalize_obs = normalize_obs
        self.max_shift = random_shift
        self.random_shift = RandomShift(observation_space, random_shift)

    def _make_normalizer(self) -> None:
        self.normalizer = ObservationNormalizer(self.observation_space, self.normalize_images)

    def make_features_extractor(self) -> BaseFeaturesExtractor:
        """
        :return: a features extractor of the policy's kind, of normalised observations
        """
        extractor = super().make_features_extractor()
        if self.normalize_obs:
            extractor.register_forward_pre_hook(self.normalizer.before_extractor)
        return extractor

    def _get_constructor_parameters(self) -> dict[str, Any]:
        own = {"normalize_obs": self.normalize_obs, "random_shift": self.max_shift}
        return {**super()._get_constructor_parameters(), **own}


def input_norm(actor: Actor) -> th.Tensor:
    """
    :param actor: an actor
    :return: the norm of the weights by which each number of the features enters it, summed over these, a scalar: a group lasso
        (Yuan and Lin, 2006), which leaves out those that it can do without
    """
    layers = [*actor.latent_pi.modules(), *actor.mu.modules()]
    first = next(layer for layer in layers if isinstance(layer, nn.Linear))
    return first.weight.norm(dim=0).sum()
