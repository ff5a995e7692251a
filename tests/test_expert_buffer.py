"""What the ExpertBuffer hands to the algorithm: shapes, dtypes, scaling, normalisation and initial observations."""

import warnings

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import DictReplayBuffer, ReplayBuffer
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.type_aliases import DictReplayBufferSamples, ReplayBufferSamples
from stable_baselines3.common.vec_env import VecNormalize
from torch.utils._python_dispatch import TorchDispatchMode

from sb3_iq.demonstrations import Demonstrations, ExpertBuffer, Trajectory, load_demonstrations

BOX = spaces.Box(-1e3, 1e3, (3,))
DISCRETE = spaces.Discrete(4)
FIELDS = ("observations", "actions", "next_observations", "dones", "rewards")


def episode(length=5, obs=None, acts=None, starts_at_reset=True, rews=None, terminated=True, seed=0):
    rng = np.random.default_rng(seed)
    obs = rng.normal(size=(length + 1, 3)) if obs is None else obs
    acts = rng.integers(0, 4, length) if acts is None else acts
    return Trajectory(obs, acts, rews, terminated, not terminated, starts_at_reset)


def demos(*episodes, freq=1):
    return Demonstrations(episodes, freq)


def like_sb3(obs_space, samples):
    """Compare shapes and dtypes with those of SB3's own buffer."""
    kind = DictReplayBuffer if isinstance(obs_space, spaces.Dict) else ReplayBuffer
    buffer = kind(10, obs_space, DISCRETE, device="cpu", **({"handle_timeout_termination": False}))
    obs = obs_space.sample()
    obs = {k: np.asarray(v)[None] for k, v in obs.items()} if isinstance(obs, dict) else np.asarray(obs)[None]
    buffer.add(obs, obs, np.array([[1]]), np.zeros(1), np.zeros(1), [{}])
    expected = buffer.sample(len(samples.actions))
    for name in ("observations", "actions", "next_observations", "dones", "rewards"):
        ours, theirs = getattr(samples, name), getattr(expected, name)
        pairs = [(ours[k], theirs[k]) for k in theirs] if isinstance(theirs, dict) else [(ours, theirs)]
        for mine, other in pairs:
            assert mine.dtype == other.dtype and mine.shape == other.shape, name


def test_samples_are_like_those_of_sb3():
    parts = {
        "box": (BOX, np.zeros((6, 3))),
        "double": (spaces.Box(-1, 1, (2,), np.float64), np.zeros((6, 2), np.float32)),
        "image": (spaces.Box(0, 255, (3, 40, 36), np.uint8), np.zeros((6, 3, 40, 36), np.uint8)),
        "code": (spaces.Discrete(7), np.arange(6)),
        "codes": (spaces.MultiDiscrete([3, 4]), np.ones((6, 2), np.int32)),
        "bits": (spaces.MultiBinary(5), np.ones((6, 5), np.uint8)),
    }
    for space, obs in parts.values():
        samples = ExpertBuffer(demos(episode(obs=obs)), space, DISCRETE).sample(8)
        assert isinstance(samples, ReplayBufferSamples)
        like_sb3(space, samples)
    space = spaces.Dict({key: part for key, (part, _) in parts.items()})
    samples = ExpertBuffer(demos(episode(obs={key: obs for key, (_, obs) in parts.items()})), space, DISCRETE).sample(8)
    assert isinstance(samples, DictReplayBufferSamples)
    like_sb3(space, samples)


def test_transitions_and_sampling():
    episodes = [episode(5, rews=np.arange(5.0)), episode(3, terminated=False, seed=1)]
    buffer = ExpertBuffer(demos(*episodes), BOX, DISCRETE, rng=np.random.default_rng(0))
    everything = buffer.all()
    assert buffer.size() == 8
    assert everything.dones.flatten().tolist() == [0, 0, 0, 0, 1, 0, 0, 0]  # the second one was cut off
    assert everything.rewards.flatten().tolist() == [0, 1, 2, 3, 4, 0, 0, 0]
    np.testing.assert_array_equal(everything.observations, np.concatenate([e.obs[:-1] for e in episodes]).astype(np.float32))
    np.testing.assert_array_equal(
        everything.next_observations, np.concatenate([e.obs[1:] for e in episodes]).astype(np.float32)
    )
    again = ExpertBuffer(demos(*episodes), BOX, DISCRETE, rng=np.random.default_rng(0))
    batch = buffer.sample(1000)  # more than there are: with replacement
    assert th.equal(batch.observations, again.sample(1000).observations)
    rows = {tuple(row.tolist()) for row in batch.observations}
    assert rows == {tuple(row.tolist()) for row in everything.observations}
    assert buffer.nbytes == 10 * 3 * 4 + 8 * (8 + 4)  # observations, and for each transition an action and a reward
    with pytest.raises(ValueError, match="batch_size=0"):
        buffer.sample(0)


def test_positions():
    """What belongs to a transition can be looked up by its position."""
    episodes = [episode(7, rews=np.arange(7.0)), episode(4, rews=10 + np.arange(4.0), seed=1)]
    buffer, other = (ExpertBuffer(demos(*episodes, freq=2), BOX, DISCRETE, rng=np.random.default_rng(0)) for _ in range(2))
    for _ in range(3):
        positions = buffer.draw(9)
        batch = buffer.at(positions)
        assert positions.shape == (9,) and positions.dtype == np.int64
        np.testing.assert_array_equal(batch.rewards.flatten(), np.array([0, 2, 4, 6, 10, 12])[positions])
        for drawn in (other.sample(9), buffer.at(th.from_numpy(positions))):
            assert all(th.equal(getattr(batch, name), getattr(drawn, name)) for name in FIELDS)
    everything = buffer.at(np.arange(buffer.size()))
    assert all(th.equal(getattr(everything, name), getattr(buffer.all(), name)) for name in FIELDS)
    assert len(buffer.at(np.zeros(0, int)).actions) == 0
    positions = buffer.draw(5, rng=np.random.default_rng(1))
    assert th.equal(buffer.at(positions).observations, other.sample(5, rng=np.random.default_rng(1)).observations)
    assert other.draw(3).tolist() == buffer.draw(3).tolist()  # another generator leaves the buffer's own alone
    for wrong, message in (([6], "from 6 to 6"), ([-1], "from -1"), ([0.5], "list of integers"), ([[0]], r"shape \(1, 1\)")):
        with pytest.raises(ValueError, match=f"positions .*{message}"):
            buffer.at(np.array(wrong))


def test_ends():
    """Positions of the transitions that lead to terminal states, without those that subsampling leaves out."""
    episodes = [episode(7, rews=np.arange(7.0)), episode(4, rews=10 + np.arange(4.0), terminated=False), episode(4)]
    for freq, expected in ((1, [6, 14]), (2, [3]), (8, [])):
        buffer = ExpertBuffer(demos(*episodes, freq=freq), BOX, DISCRETE)
        assert buffer.ends.tolist() == expected and buffer.ends.dtype == np.int64
        assert bool(buffer.at(buffer.ends).dones.all())
        assert len(buffer.ends) == int(buffer.all().dones.sum())
        for found, row in zip(buffer.last_observations(9), (-2, -1), strict=True):
            np.testing.assert_array_equal(
                found, [episodes[0].obs[row].astype(np.float32), episodes[2].obs[row].astype(np.float32)]
            )
        assert len(buffer.last_observations(1)[0]) == 1


def test_without_rewards():
    with_rewards, without = (
        ExpertBuffer(demos(episode(rews=np.ones(5))), BOX, DISCRETE, with_rewards=keep) for keep in (True, False)
    )
    assert with_rewards.all().rewards.tolist() == [[1.0]] * 5
    assert without.all().rewards.tolist() == [[0.0]] * 5 and without.all().rewards.dtype == th.float32
    assert with_rewards.nbytes - without.nbytes == 5 * 4


class CountTransfers(TorchDispatchMode):
    """Counts the tensors that are copied to another device."""

    count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        device = (kwargs or {}).get("device")
        if function is th.ops.aten._to_copy.default and device is not None and device != args[0].device:
            self.count += 1
        return function(*args, **(kwargs or {}))


@pytest.mark.parametrize("with_rewards", [True, False])
@pytest.mark.parametrize("as_dict", [False, True])
def test_a_batch_costs_one_transfer(as_dict, with_rewards):
    """Torch's meta device stands for a GPU."""
    obs = np.zeros((6, 3), np.float32)
    space = spaces.Dict({"x": BOX, "y": BOX}) if as_dict else BOX
    data = demos(episode(obs={"x": obs, "y": obs} if as_dict else obs), freq=2)
    buffer = ExpertBuffer(data, space, DISCRETE, device="meta", with_rewards=with_rewards)
    positions = th.from_numpy(buffer.draw(8)).to("meta")
    for expected, draw in ((1, lambda: buffer.sample(8)), (0, lambda: buffer.at(positions))):
        with CountTransfers() as transfers:
            batch = draw()
        assert transfers.count == expected
        assert batch.dones.device.type == batch.rewards.device.type == batch.actions.device.type == "meta"
        assert batch.rewards.shape == batch.dones.shape == (8, 1)


def test_above_the_limit_data_stays_on_the_cpu(monkeypatch):
    small = ExpertBuffer(demos(episode()), BOX, DISCRETE, device="meta")
    assert small._observations[""].tensor.device.type == "meta"
    monkeypatch.setattr("sb3_iq.demonstrations.expert_buffer.MAX_DEVICE_BYTES", 10)
    large = ExpertBuffer(demos(episode()), BOX, DISCRETE, device="meta")
    assert large._observations[""].tensor.device.type == "cpu"
    assert large.sample(4).observations.device.type == "meta"


def test_initial_observations():
    first, piece = episode(seed=1), episode(starts_at_reset=False, seed=2)
    buffer = ExpertBuffer(demos(piece, first), BOX, DISCRETE)
    drawn = buffer.sample_initial_observations(50)
    assert drawn.shape == (50, 3)
    np.testing.assert_array_equal(drawn, np.tile(first.obs[0].astype(np.float32), (50, 1)))
    with pytest.warns(UserWarning, match="no episode is known to start at a reset"):
        pieces = ExpertBuffer(demos(piece), BOX, DISCRETE)
    np.testing.assert_array_equal(pieces.sample_initial_observations(1)[0], piece.obs[0].astype(np.float32))
    space = spaces.Dict({"x": BOX})
    with_dict = ExpertBuffer(demos(episode(obs={"x": first.obs})), space, DISCRETE).sample_initial_observations(3)
    assert with_dict["x"].shape == (3, 3)


@pytest.mark.parametrize("as_dict", [False, True])
def test_normalised_at_sampling(as_dict):
    env = VecNormalize(make_vec_env("CartPole-v1"), norm_reward=False)
    space = env.observation_space
    if as_dict:
        space = spaces.Dict({"x": env.observation_space, "y": spaces.Discrete(3)})
        env = VecNormalize.__new__(VecNormalize)  # only its normalisation is used
        env.norm_obs, env.norm_obs_keys, env.clip_obs, env.epsilon = True, ["x"], 10.0, 1e-8
        env.observation_space = space
        env.obs_rms = {"x": type("Rms", (), {"mean": np.ones(4), "var": np.full(4, 4.0)})()}
    else:
        env.obs_rms.mean, env.obs_rms.var = np.ones(4), np.full(4, 4.0)
    raw = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    obs = {"x": raw, "y": np.zeros(6, int)} if as_dict else raw
    buffer = ExpertBuffer(demos(episode(obs=obs)), space, DISCRETE)
    samples = buffer.all(env)
    seen = samples.observations["x"] if as_dict else samples.observations
    ahead = samples.next_observations["x"] if as_dict else samples.next_observations
    assert seen.dtype == th.float32
    np.testing.assert_allclose(seen, (raw[:-1] - 1) / 2, rtol=1e-5)
    np.testing.assert_allclose(ahead, (raw[1:] - 1) / 2, rtol=1e-5)
    start = buffer.sample_initial_observations(1, env)
    np.testing.assert_allclose((start["x"] if as_dict else start)[0], (raw[0] - 1) / 2, rtol=1e-5)
    plain = buffer.all()
    np.testing.assert_array_equal(plain.observations["x"] if as_dict else plain.observations, raw[:-1])  # kept raw


def test_images_are_transposed_only_if_needed():
    last = np.random.default_rng(0).integers(0, 256, (6, 40, 36, 3)).astype(np.uint8)
    first = np.moveaxis(last, -1, 1)
    space = spaces.Box(0, 255, (3, 40, 36), np.uint8)
    for obs in (last, first, last.astype(np.int64), last.astype(np.float64)):
        samples = ExpertBuffer(demos(episode(obs=obs)), space, DISCRETE).all()
        assert samples.observations.dtype == th.uint8
        np.testing.assert_array_equal(samples.observations, first[:-1])
    unwrapped = spaces.Box(0, 255, (40, 36, 3), np.uint8)
    np.testing.assert_array_equal(ExpertBuffer(demos(episode(obs=last)), unwrapped, DISCRETE).all().observations, last[:-1])
    cube = np.random.default_rng(0).integers(0, 256, (6, 3, 3, 3)).astype(np.uint8)  # fits both ways: taken as it is
    samples = ExpertBuffer(demos(episode(obs=cube)), spaces.Box(0, 255, (3, 3, 3), np.uint8), DISCRETE).all()
    np.testing.assert_array_equal(samples.observations, cube[:-1])
    nested = ExpertBuffer(demos(episode(obs={"img": last})), spaces.Dict({"img": space}), DISCRETE).all()
    np.testing.assert_array_equal(nested.observations["img"], first[:-1])


def test_lossless_casts_are_silent():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for acts in (
            np.arange(4, dtype=np.int32),
            np.arange(4.0),
            np.arange(4, dtype=np.uint8)[:, None],
            np.arange(4.0)[:, None],
        ):
            samples = ExpertBuffer(demos(episode(4, acts=acts)), BOX, DISCRETE).all()
            assert samples.actions.dtype == th.int64 and samples.actions.tolist() == [[0], [1], [2], [3]]
        obs = np.arange(15).reshape(5, 3)
        assert ExpertBuffer(demos(episode(4, obs=obs)), BOX, DISCRETE).all().observations.dtype == th.float32


def test_box_actions_are_scaled():
    low, high = np.array([-2.0, 0.0], np.float32), np.array([2.0, 1.0], np.float32)
    space = spaces.Box(low, high)
    acts = np.array([[-2, 0], [2, 1], [0, 0.5], [1, 0.25]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # on the bounds is within them, and so is what float32 rounds beyond
        samples = ExpertBuffer(demos(episode(4, acts=acts)), BOX, space).all()
        assert samples.actions.dtype == th.float32
        np.testing.assert_allclose(samples.actions, [[-1, -1], [1, 1], [0, 0], [0.5, -0.5]])
        acts[1, 0] = np.nextafter(np.float32(2), np.float32(3))
        assert ExpertBuffer(demos(episode(4, acts=acts)), BOX, space).all().actions.max() == 1
        column = ExpertBuffer(demos(episode(4, acts=np.array([0.0, 0.5, 1.0, 0.25]))), BOX, spaces.Box(0, 1, (1,))).all()
        assert column.actions.flatten().tolist() == [-1, 0, 1, -0.5]
    acts[:, 0] = [-2.5, 2.25, 0, 1]
    with pytest.warns(UserWarning, match=r"25.0 % of the action components.*by up to 0\.5; they are clipped") as caught:
        samples = ExpertBuffer(demos(episode(4, acts=acts)), BOX, space).all()
    assert len(caught) == 1 and samples.actions[:, 0].tolist() == [-1, 1, 0, 0.5]


@pytest.mark.parametrize(
    ("obs_space", "action_space", "parts", "message"),
    [
        (spaces.Box(-1, 1, (5,)), DISCRETE, {}, r"episode 0: observations of shape \(3,\).*has shape \(5,\).*wrappers"),
        (spaces.Dict({"x": BOX}), DISCRETE, {}, "the observations are one array.*Dict with the keys \\['x'\\]"),
        (BOX, DISCRETE, {"obs": {"x": np.zeros((6, 3))}}, "the observations are a dictionary with the keys \\['x'\\]"),
        (
            spaces.Dict({"x": BOX, "y": BOX}),
            DISCRETE,
            {"obs": {"x": np.zeros((6, 3)), "z": np.zeros((6, 3))}},
            "missing \\['y'\\], extra \\['z'\\]",
        ),
        (spaces.Dict({"x": BOX}), DISCRETE, {"obs": {"x": np.zeros((6, 2))}}, r"observations\['x'\] of shape \(2,\)"),
        (BOX, DISCRETE, {"acts": np.zeros((5, 2))}, r"actions of shape \(2,\).*other than this space's.*Discrete\(4\)"),
        (BOX, DISCRETE, {"acts": np.full(5, 0.5)}, "continuous"),
        (BOX, DISCRETE, {"acts": np.array([0, 1, 4, 0, 0])}, r"actions hold 4, which is outside 0\.\.3"),
        (BOX, DISCRETE, {"acts": np.array([0, 1, -1, 0, 0])}, r"actions hold -1, which is outside 0\.\.3"),
        (BOX, spaces.Box(-1, 1, (1,)), {}, "actions are discrete.*is a Box of shape \\(1,\\)"),
        (BOX, spaces.Box(-1, 1, (2,)), {"acts": np.zeros((5, 3))}, r"actions of shape \(3,\).*has shape \(2,\)"),
        (BOX, spaces.Box(-1, 1, (2,)), {"acts": np.full((5, 2), 3.5)}, "the units are wrong"),
        (
            spaces.Box(0, 255, (3,), np.uint8),
            DISCRETE,
            {"obs": np.full((6, 3), 0.5)},
            "not whole numbers.*scaled to \\[0, 1\\]",
        ),
        (spaces.Box(0, 255, (3,), np.uint8), DISCRETE, {"obs": np.full((6, 3), 256)}, "from 256 to 256 reach beyond"),
        (spaces.Discrete(3), DISCRETE, {"obs": np.full(6, 3)}, "from 3 to 3 reach beyond"),
        (spaces.MultiDiscrete([2, 5]), DISCRETE, {"obs": np.full((6, 2), 2)}, "from 2 to 2 reach beyond"),
        (BOX, DISCRETE, {"obs": np.full((6, 3), 1e60)}, "too large for the space's dtype float32"),
        (BOX, spaces.Discrete(4, start=1), {}, "action_space=.* does not start at 0"),
        (BOX, spaces.MultiDiscrete([2, 2]), {}, r"actions of shape \(\).*other than this space's.*MultiDiscrete\(\[2 2\]\)"),
        (BOX, spaces.MultiDiscrete(np.array([[2, 2]])), {}, "MultiDiscrete and MultiBinary spaces of one axis are supported"),
        (BOX, spaces.Tuple([DISCRETE]), {}, "action_space=Tuple.*only Discrete, Box, and MultiDiscrete and MultiBinary"),
        (BOX, spaces.Box(-np.inf, np.inf, (2,)), {"acts": np.zeros((5, 2))}, "infinite or empty bounds"),
        (spaces.Tuple([BOX]), DISCRETE, {}, "observation_space is Tuple"),
    ],
)
def test_refused_with_the_reason(obs_space, action_space, parts, message):
    with pytest.raises(ValueError, match=message):
        ExpertBuffer(demos(episode(**parts)), obs_space, action_space)


def test_wrong_demonstrations_are_refused():
    with pytest.raises(TypeError, match="load_demonstrations"):
        ExpertBuffer([episode()], BOX, DISCRETE)
    with pytest.raises(TypeError, match="trajectories holds"):
        Demonstrations(("bundled:CartPole-v1",))
    with pytest.raises(ValueError, match="at least one episode"):
        Demonstrations(())


def test_bundled_fits_its_environment():
    env = make_vec_env("CartPole-v1")
    buffer = ExpertBuffer(load_demonstrations("bundled:CartPole-v1"), env.observation_space, env.action_space)
    assert buffer.size() == 5000 and buffer.all().dones.sum() == 0
