"""Images of floats are images and not vectors, and SB3's networks do not divide them by 255."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import NatureCNN

from sb3_iq.observations import has_distance, is_image
from tests.utils import BOX, DISCRETE, WIDE_BOX, assert_finite, make_model

FLOATS = spaces.Box(0.0, 1.0, (3, 40, 36), np.float32)


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (FLOATS, True),
        (spaces.Box(-1.0, 1.0, (40, 36, 3), np.float64), True),
        (spaces.Box(0, 255, (3, 40, 36), np.uint8), True),
        (spaces.Box(0, 9, (3, 40, 36), np.uint8), False),
        (spaces.Box(-np.inf, np.inf, (3, 40, 36)), False),
        (spaces.Box(np.zeros((2, 2, 2)), np.arange(1.0, 9.0).reshape(2, 2, 2), dtype=np.float64), False),
        (BOX, False),
        (spaces.Discrete(3), False),
    ],
)
def test_what_is_an_image(space, expected):
    assert is_image(space) == expected and has_distance(space) != expected
    assert has_distance(spaces.Dict(x=BOX, y=space)) != expected


@pytest.mark.parametrize("policy, space", [("CnnPolicy", FLOATS), ("MultiInputPolicy", spaces.Dict(image=FLOATS, vector=BOX))])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("offline", [False, True])
def test_learning(policy, space, action_space, offline):
    kwargs = dict(policy_kwargs=dict(net_arch=[16]))
    model = make_model(policy, space, action_space, offline=offline, **kwargs).learn(14)
    assert_finite(model)
    assert not model.policy.normalize_images
    # Pixels are centred in their own unit, and what lies beside an image is standardised
    parts = model.policy.normalizer.parts
    assert list(parts) == (["obs"] if policy == "CnnPolicy" else ["image", "vector"])
    assert parts["obs" if policy == "CnnPolicy" else "image"].std.unique().tolist() == [1.0]
    extractors = [module for module in model.policy.modules() if isinstance(module, NatureCNN)]
    assert extractors and model.policy.random_shift.pixels == {"image" if policy == "MultiInputPolicy" else "": 1}
    # The distance of pixels is no prior
    if action_space is WIDE_BOX:
        assert model.prior is None and model.settings.reward_prior == 0
        with pytest.raises(ValueError, match=r"`reward_prior` is 1\.0: the distance of two images"):
            make_model(policy, space, action_space, reward_prior=1.0, **kwargs)
    batch = model.expert_buffer.sample(4)
    images = batch.observations["image"] if isinstance(batch.observations, dict) else batch.observations
    assert images.dtype == th.float32 and 0 <= images.min() and images.max() <= 1


def test_the_gradient_penalty_measures_them_by_their_range():
    kwargs = dict(policy_kwargs=dict(net_arch=[16], normalize_images=False), objective_kwargs=dict(gradient_penalty=1.0))
    model = make_model("CnnPolicy", FLOATS, DISCRETE, offline=True, **kwargs).learn(2)
    assert model.policy.normalizer.units() == {"obs": 1.0}
    assert_finite(model)
