"""Random shifts of images: what is shifted, by how much, and that nothing but what is learned from is."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn
from sb3_iq.iq_learn.random_shift import RandomShift
from tests.utils import BOX, DICT, DISCRETE, IMAGE, WIDE_BOX, make_model, parameters, sample_batch

FIRST = spaces.Box(0, 255, (3, 24, 30), np.uint8)
LAST = spaces.Box(0, 255, (24, 30, 3), np.uint8)
FLOATS = spaces.Box(0.0, 1.0, (3, 24, 30), np.float32)


def frames(space, n=40):
    """Images of which every pixel is another number, and all channels are the same but for a constant."""
    first = space.shape[0] == 3
    height, width = space.shape[1:] if first else space.shape[:2]
    pixels = np.arange(height * width).reshape(1, height, width) // 4 + 20 * np.arange(3)[:, None, None]
    image = th.as_tensor(pixels if first else np.moveaxis(pixels, 0, -1)).to(th.from_numpy(np.zeros(0, space.dtype)).dtype)
    return image.expand(n, *image.shape).clone()


def shifted_by(image, dx, dy, first):
    """The slow way: pad by replication, and crop."""
    planes = image.numpy() if first else np.moveaxis(image.numpy(), -1, 0)
    height, width = planes.shape[1:]
    padded = np.pad(planes, ((0, 0), (9, 9), (9, 9)), mode="edge")[:, 9 + dy : 9 + dy + height, 9 + dx : 9 + dx + width]
    return th.as_tensor(padded.copy() if first else np.moveaxis(padded, 0, -1).copy())


@pytest.mark.parametrize("space", [FIRST, LAST, FLOATS], ids=["channels first", "channels last", "floats"])
def test_each_image_is_padded_by_replication_and_cropped(space):
    """Each by a shift of its own, but the same one for all of its channels, and so for stacked frames."""
    images = frames(space)
    th.manual_seed(0)
    shift = RandomShift(space, 2)
    shifted = shift(images)
    assert shifted.dtype == images.dtype and shifted.shape == images.shape
    ways = [(dx, dy) for dx in range(-2, 3) for dy in range(-2, 3)]
    found = []
    for before, after in zip(images, shifted, strict=True):
        found += [[way for way in ways if th.equal(after, shifted_by(before, *way, space is not LAST))]]
    assert all(len(ways) == 1 for ways in found)
    for axis in (0, 1):
        assert {ways[0][axis] for ways in found} == {-2, -1, 0, 1, 2}
    assert th.equal(images, frames(space))  # what came in is as it was
    assert not th.equal(shift(images), shifted)
    th.manual_seed(0)
    assert th.equal(shift(images), shifted)


def test_only_images_of_a_dictionary_are_shifted():
    obs = {"vector": th.rand(5, 4), "image": frames(FIRST, 5), "grid": th.zeros(5, 7, 7, 3, dtype=th.uint8)}
    named = {"vector": BOX, "image": FIRST, "grid": spaces.Box(0, 255, (7, 7, 3), np.uint8)}
    shift = RandomShift(spaces.Dict(named))
    assert shift.pixels == {"image": 1}  # the cells of a small grid are no pixels
    shifted = shift(obs)
    assert shifted["vector"] is obs["vector"] and shifted["grid"] is obs["grid"] and list(shifted) == list(obs)
    assert not th.equal(shifted["image"], obs["image"])


@pytest.mark.parametrize(
    "shape, pixels", [((4, 84, 84), 4), ((96, 96, 3), 4), ((3, 64, 64), 3), ((2, 42, 42), 2), ((3, 8, 8), 0)]
)
def test_by_default_it_is_a_twentieth_of_the_shorter_side(shape, pixels):
    assert sum(RandomShift(spaces.Box(0, 255, shape, np.uint8)).pixels.values()) == pixels


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("policy, space", [("CnnPolicy", IMAGE), ("MultiInputPolicy", DICT)])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("offline", [False, True])
def test_what_is_learned_from_is_shifted(policy, space, action_space, offline):
    def model(**kwargs):
        return make_model(policy, space, action_space, offline=offline, reward_prior=0.0, **kwargs)

    def images(obs):
        return obs["image"] if isinstance(obs, dict) else obs

    shifting = model().learn(12)
    plain = model(policy_kwargs=dict(net_arch=[16], random_shift=0)).learn(12)
    positions = shifting.expert_buffer.draw(8, np.random.default_rng(0))
    raw = shifting.expert_buffer.at(positions)
    for learned in (shifting, plain):
        learned.sampler._draw_of_expert = lambda n: th.from_numpy(positions)
    batch, same = sample_batch(shifting), sample_batch(plain)
    # As many of the expert as of the policy, each of which and of whose next observations is shifted for itself
    assert th.equal(images(same.obs)[:8], images(raw.observations))
    assert th.equal(images(same.next_obs)[:8], images(raw.next_observations))
    assert not th.equal(images(batch.obs)[:8], images(raw.observations))
    assert not th.equal(images(batch.next_obs)[:8], images(raw.next_observations))
    assert th.equal(images(batch.expert_obs), images(batch.obs)[:8])
    if isinstance(batch.obs, dict):
        assert th.equal(batch.obs["vector"][:8], raw.observations["vector"])
    again = model().learn(12)
    assert th.equal(parameters(again), parameters(shifting))
    assert not th.equal(parameters(plain), parameters(shifting))


def test_initial_observations_are_shifted():
    options = dict(reward_prior=0.0, objective_kwargs=dict(occupancy_term="start_states"))
    model = make_model("CnnPolicy", IMAGE, DISCRETE, **options).learn(12)
    stored = {image.numpy().tobytes() for image in model.expert_buffer.all().observations}
    stored |= {image[0].tobytes() for image in model.replay_buffer.observations[: model.replay_buffer.pos]}
    assert any(image.numpy().tobytes() not in stored for image in sample_batch(model).value_obs)


def test_predictions_and_rewards_are_those_of_images_as_they_are():
    model = make_model("CnnPolicy", IMAGE, DISCRETE, offline=True).learn(3)
    obs = model.expert_buffer.all().observations.numpy()
    rewards = [model.predict_reward(obs, np.zeros(len(obs), int), obs, np.zeros(len(obs))) for _ in range(2)]
    np.testing.assert_array_equal(*rewards)
    np.testing.assert_array_equal(*(model.predict(obs, deterministic=True)[0] for _ in range(2)))


def test_it_is_saved_and_goes_on_as_if_there_had_been_no_interruption(tmp_path):
    # The default's rate falls over each learn()
    options = dict(offline=True, learning_rate=1e-3, policy_kwargs=dict(net_arch=[16], random_shift=2))
    whole = make_model("CnnPolicy", IMAGE, DISCRETE, **options).learn(4)
    make_model("CnnPolicy", IMAGE, DISCRETE, **options).learn(2).save(tmp_path / "model")
    demonstrations = make_model("CnnPolicy", IMAGE, DISCRETE, **options)
    loaded = IQLearn.load(tmp_path / "model", device="cpu")
    assert loaded.policy.random_shift.pixels == {"": 2}
    loaded.expert_buffer = demonstrations.expert_buffer
    loaded.expert_buffer.rng = loaded.expert_rng
    loaded.learn(2, reset_num_timesteps=False)
    assert th.equal(parameters(loaded), parameters(whole))


@pytest.mark.parametrize("preset", ["paper", "ls-iq"])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_published_configurations_have_none(preset, action_space):
    assert make_model("CnnPolicy", IMAGE, action_space, preset=preset).policy.random_shift.pixels == {}
    kwargs = dict(policy_kwargs=dict(net_arch=[16], random_shift=3))
    assert make_model("CnnPolicy", IMAGE, action_space, preset=preset, **kwargs).policy.random_shift.pixels == {"": 3}


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_values_that_are_refused(action_space):
    for value, error in ((-1, ValueError), (36, ValueError), (1.5, TypeError)):
        with pytest.raises(error, match=f"random_shift={value}"):
            make_model("CnnPolicy", IMAGE, action_space, policy_kwargs=dict(random_shift=value))
    with pytest.raises(ValueError, match="random_shift=4: there are no images"):
        make_model("MlpPolicy", BOX, action_space, policy_kwargs=dict(random_shift=4))
