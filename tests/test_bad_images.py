"""Images that are not the environment's are refused in the constructor, with the wrapper to look at."""

import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.vec_env import DummyVecEnv, VecFrameStack

from sb3_iq import IQLearn, SpacesEnv
from sb3_iq.demonstrations import Demonstrations, Trajectory
from tests.utils import BOX, DISCRETE, SMALL, RandomEnv

LAST = spaces.Box(0, 255, (40, 36, 1), np.uint8)
FLOATS = spaces.Box(0.0, 1.0, (3, 40, 36), np.float32)


def demonstrations(*shape, dtype=np.uint8, high=255, key=None, card=None):
    rng = np.random.default_rng(0)
    obs = (rng.integers(0, 256, (6, *shape)) / 255 * high).astype(dtype)
    episode = Trajectory(obs if key is None else {key: obs}, np.zeros(5, int), None, True, False)
    return Demonstrations((episode,), card=card)


def build(space, data, policy="CnnPolicy", **kwargs):
    return IQLearn(policy, SpacesEnv(space, DISCRETE), data, offline=True, policy_kwargs=kwargs, **SMALL)


def stacked():
    return VecFrameStack(DummyVecEnv([lambda: RandomEnv(LAST, DISCRETE)]), 4)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((40, 36, 1), r"1 instead of 4 channels: the environment stacks 4 frames.*VecFrameStack\(env, 4\)"),
        ((40, 36, 2), r"2 instead of 4 channels: the environment stacks 2 frames"),
        ((8, 40, 36), r"8 instead of 4 channels: the recording stacked 2 frames.*VecFrameStack\(env, 2\)"),
        ((3, 40, 36), r"3 instead of 4 channels.*or one is in colour"),
        ((84, 84, 4), r"frames of 84x84 instead of 40x36 pixels.*ResizeObservation.*AtariWrapper"),
        ((36, 40, 4), "height and width are exchanged"),
        ((4, 40, 36, 1), "an axis too many.*FrameStackObservation.*VecFrameStack"),
        ((40, 36), "no axis of channels"),
        ((5,), "these are vectors, the environment's are images.*AddRenderObservation"),
        ((5760,), "FlattenObservation"),
    ],
)
def test_other_shapes(shape, message):
    with pytest.raises(ValueError, match=message):
        IQLearn("CnnPolicy", stacked(), demonstrations(*shape), **SMALL)


@pytest.mark.parametrize("shape", [(40, 36, 4), (4, 40, 36)])
def test_both_orders_of_channels_fit_an_environment_whose_images_sb3_transposes(shape):
    assert IQLearn("CnnPolicy", stacked(), demonstrations(*shape), **SMALL).expert_n_transitions == 5


def test_an_order_of_channels_that_nothing_transposes():
    floats_last = spaces.Box(0.0, 1.0, (40, 36, 3), np.float32)
    data = demonstrations(3, 40, 36, dtype=np.float32, high=1)
    with pytest.raises(ValueError, match=r"channels first instead of last.*VecTransposeImage"):
        build(floats_last, data, "MlpPolicy")


@pytest.mark.parametrize(
    ("found", "wanted", "message"),
    [
        ((3,), (12,), r"the environment stacks 4 observations and the recording did not.*VecFrameStack\(env, 4\)"),
        ((12,), (3,), r"the recording stacked 4 observations: wrap the environment in VecFrameStack\(env, 4\)"),
        ((3,), (4,), "one number less.*TimeAwareObservation.*TimeFeatureWrapper"),
        ((4,), (3,), "one number more.*TimeAwareObservation"),
        ((1,), (2,), "stacks 2 observations.*or one number less"),
        ((3,), (4, 3), "the environment stacks 4 observations on an axis of their own.*FrameStackObservation"),
        ((4, 3), (3,), "the recording stacked 4 observations on an axis of their own.*FrameStackObservation"),
        ((40, 36, 3), (4, 40, 36, 3), "the environment stacks 4 observations.*FrameStackObservation"),
        ((40, 36, 3), (40, 36), "grey, without an axis of channels.*GrayscaleObservation"),
        ((3,), (5,), "data of another environment, or .* other environment wrappers"),
    ],
)
@pytest.mark.parametrize("key", [None, "sensors"])
def test_other_shapes_of_what_is_not_an_image(found, wanted, message, key):
    """Alone, and under a key of a dictionary."""
    space = spaces.Box(-np.inf, np.inf, wanted, np.float32)
    named = space if key is None else spaces.Dict({key: space})
    with pytest.raises(ValueError, match=message):
        build(named, demonstrations(*found, dtype=np.float32, key=key), "MlpPolicy" if key is None else "MultiInputPolicy")


@pytest.mark.parametrize(
    ("space", "dtype", "high", "message"),
    [
        (LAST, np.float32, 1, "numbers from .* to 1, but the environment's are uint8 from 0 to 255.*normalize_images=False"),
        (LAST, np.int64, 1000, "reach beyond"),
        (FLOATS, np.uint8, 255, "uint8 hold numbers from 0 to 255, but the environment's are from 0 to 1.*RescaleObservation"),
        (FLOATS, np.float64, 255, "scales frames, which the recording lacks"),
        (FLOATS, np.float32, 255, "scales frames, which the recording lacks"),
    ],
)
def test_other_units(space, dtype, high, message):
    with pytest.raises(ValueError, match=message):
        build(space, demonstrations(*space.shape, dtype=dtype, high=high), normalize_images=space is LAST)


def test_black_and_white_that_was_scaled():
    """Whole numbers, so that a cast would not change them."""
    data = demonstrations(*LAST.shape, dtype=np.float32, high=1)
    data.trajectories[0].obs[:] = np.round(data.trajectories[0].obs)
    with pytest.raises(ValueError, match=r"Were images scaled to \[0, 1\]"):
        build(LAST, data)


def test_a_dtype_that_holds_the_same_numbers():
    assert build(LAST, demonstrations(*LAST.shape, dtype=np.int32)).expert_buffer.all().observations.max() > 200
    assert build(FLOATS, demonstrations(*FLOATS.shape, dtype=np.float64, high=1), normalize_images=False)


@pytest.mark.parametrize(
    ("space", "data", "message"),
    [
        (spaces.Dict(image=LAST, goal=BOX), demonstrations(40, 36, 1, key="image"), r"missing \['goal'\].*FilterObservation"),
        (spaces.Dict(image=LAST), demonstrations(40, 36, 1, key="picture"), r"missing \['image'\], extra \['picture'\]"),
        (spaces.Dict(image=LAST), demonstrations(40, 36, 1), "one array.*FlattenObservation, AddRenderObservation"),
        (LAST, demonstrations(40, 36, 1, key="image"), "a dictionary with the keys.*FlattenObservation"),
        (spaces.Dict(image=LAST), demonstrations(40, 36, 3, key="image"), r"observations\['image'\].*grey"),
        (BOX, demonstrations(40, 36, 1), "these are images, the environment's are vectors.*AddRenderObservation"),
    ],
)
def test_keys_and_kinds(space, data, message):
    policy = "MultiInputPolicy" if isinstance(space, spaces.Dict) else "MlpPolicy"
    with pytest.raises(ValueError, match=message):
        build(space, data, policy)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(0.0, 1.0, (40, 36, 3), np.float32), "channels of floats must come first.*moveaxis"),
        (spaces.Box(0.0, 1.0, (3, 40, 35), np.float32), "no less than 36 pixels.*ResizeObservation"),
        (spaces.Box(0, 255, (20, 36, 3), np.uint8), "no less than 36 pixels.*FlattenObservation"),
    ],
)
def test_images_that_the_network_cannot_take(space, message):
    for policy, whole in (("CnnPolicy", space), ("MultiInputPolicy", spaces.Dict(image=space, goal=BOX))):
        with pytest.raises(ValueError, match=message):
            IQLearn(policy, RandomEnv(whole, DISCRETE), **SMALL)
    assert IQLearn("MlpPolicy", RandomEnv(space, DISCRETE), **SMALL).policy


def test_the_card_says_how_they_were_recorded():
    card = {"env_wrapper": "stable_baselines3.common.atari_wrappers.AtariWrapper", "frame_stack": 4}
    with pytest.raises(ValueError, match=r"The card .* with env_wrapper=stable.*AtariWrapper and frame_stack=4$"):
        build(LAST, demonstrations(84, 84, 4, card=card))
