"""LearnedReward: the recovered reward as an object of its own."""

import json
import pickle
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize
from torch import nn

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.observations import stack_obs
from sb3_iq.rewards import LearnedReward
from tests.utils import BOX, COMBINATIONS, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu")
FLOAT_IMAGE = spaces.Box(0.0, 1.0, (1, 36, 36), np.float32)


def make(policy="MlpPolicy", observation_space=BOX, action_space=DISCRETE, env=None, **kwargs):
    env = env or RandomEnv(observation_space, action_space)
    if policy != "MlpPolicy":
        kwargs.setdefault("policy_kwargs", dict(net_arch=[16]))
    trajectories = random_trajectories(RandomEnv(observation_space, action_space))
    return IQLearn(policy, env, trajectories, offline=True, **SMALL, **kwargs).learn(20)


def rows(obs, index):
    return {key: value[index] for key, value in obs.items()} if isinstance(obs, dict) else obs[index]


def batch_of(observation_space, action_space, n=10):
    trajectory = random_trajectories(RandomEnv(observation_space, action_space), length=n)[0]
    terminated = np.zeros(n, dtype=bool)
    terminated[-1] = True
    return rows(trajectory.obs, slice(None, -1)), trajectory.acts, rows(trajectory.obs, slice(1, None)), terminated


@pytest.mark.slow
@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
def test_is_the_models_reward_and_survives_saving(policy, observation_space, action_space, tmp_path):
    model = make(policy, observation_space, action_space)
    batch = batch_of(observation_space, action_space)
    reward = LearnedReward(model)
    rewards = reward(*batch)
    assert rewards.shape == (10,) and rewards.dtype == np.float32
    # observations as the model has them, images channels first
    model_batch = batch_of(model.observation_space, model.action_space)
    assert reward(*model_batch) == pytest.approx(model.predict_reward(*model_batch), abs=1e-5)
    reward.save(tmp_path / "reward")
    loaded = LearnedReward.load(tmp_path / "reward", device="cpu")
    assert np.array_equal(loaded(*batch), rewards)
    assert np.array_equal(loaded.predict_q(*batch[:2]), reward.predict_q(*batch[:2]))
    assert np.array_equal(loaded.predict_value(batch[0]), reward.predict_value(batch[0]))
    assert loaded.observation_space == reward.observation_space and loaded.action_space == reward.action_space


def test_by_hand():
    model = make(ent_coef=0.3)
    reward, (obs, acts, next_obs, terminated) = LearnedReward(model), batch_of(BOX, DISCRETE)
    with th.no_grad():
        q_all, next_q_all = (model.q_net(th.as_tensor(values)).numpy() for values in (obs, next_obs))
    q = q_all[np.arange(10), acts]
    v, next_v = (0.3 * np.log(np.exp(values / 0.3).sum(axis=1)) for values in (q_all, next_q_all))
    assert reward.predict_q(obs, acts) == pytest.approx(q, abs=1e-5)
    assert reward.predict_value(obs) == pytest.approx(v, abs=1e-5)
    # offline, a terminal state is worth 0
    assert reward(obs, acts, next_obs, terminated) == pytest.approx(q - model.gamma * ~terminated * next_v, abs=1e-5)
    assert reward.with_tail(obs, acts, next_obs, terminated).absorbing == pytest.approx(np.zeros(10))
    advantage = reward.with_form("advantage")
    assert advantage(obs, acts, next_obs, terminated) == pytest.approx(q - v, abs=1e-5)
    assert advantage.form == "advantage" and reward.form == "bellman"


@pytest.mark.parametrize("terminal_v", [None, -3.0])
def test_terminal_states(terminal_v):
    """r + gamma r_T + gamma^2 r_T + ... is Q(s, a) at a terminal state, with the model's own gamma."""
    model = make()
    model.terminal_v = terminal_v
    obs, acts, next_obs, _ = batch_of(BOX, DISCRETE)
    reward = LearnedReward(model)
    q = reward.predict_q(obs, acts)
    value = q if terminal_v is None else np.full(10, terminal_v)
    rewards, absorbing = reward.with_tail(obs, acts, next_obs, np.ones(10))
    assert rewards == pytest.approx(q - model.gamma * value, abs=1e-5)
    assert absorbing == pytest.approx((1 - model.gamma) * value, abs=1e-5)
    assert rewards + model.gamma / (1 - model.gamma) * absorbing == pytest.approx(q, abs=1e-4)
    advantage = reward.with_form("advantage").with_tail(obs, acts, next_obs, np.ones(10))
    assert advantage.rewards == pytest.approx(q - reward.predict_value(obs), abs=1e-5)
    assert (advantage.absorbing == 0).all()


@pytest.mark.slow
def test_actions_beyond_the_experts():
    """Q is only defined on the range that the demonstrations have: what lies beyond is clipped to it, as the model does."""
    env = RandomEnv(BOX, spaces.Box(-100.0, 100.0, (2,), np.float32))
    trajectories = random_trajectories(env)
    trajectories = [replace(t, acts=np.clip(t.acts, -1, 1)) for t in trajectories]
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, **SMALL).learn(20)
    obs, _, next_obs, terminated = batch_of(env.observation_space, env.action_space)
    far, farther = np.full((10, 2), 50, np.float32), np.full((10, 2), 90, np.float32)
    reward = LearnedReward(model)
    assert reward(obs, far, next_obs, terminated) == pytest.approx(reward(obs, farther, next_obs, terminated))
    expected = model.predict_reward(obs, far, next_obs, terminated)
    assert reward(obs, far, next_obs, terminated) == pytest.approx(expected, abs=1e-5)


def test_standard_error():
    """With twice the noise in V comes twice the error; the true value is within a few of them."""
    model = make(action_space=WIDE_BOX, ent_coef=0.2)
    obs, acts, next_obs, terminated = batch_of(BOX, WIDE_BOX)
    reward = LearnedReward(model)
    rewards, errors = reward(obs, acts, next_obs, terminated, standard_error=True)
    assert np.array_equal(rewards, reward(obs, acts, next_obs, terminated))
    assert (errors[:-1] > 0).all() and errors[-1] == 0  # the value of the terminal state is known
    with th.no_grad():
        exact = model.policy.expected_state_value(th.as_tensor(next_obs), th.tensor(0.2), n_samples=4000).numpy()
    exact_rewards = reward.predict_q(obs, acts) - model.gamma * ~terminated * exact
    assert (np.abs(rewards - exact_rewards) <= 5 * errors + 1e-5).all()
    with pytest.raises(ValueError, match="`standard_error` is True, but V is exact"):
        LearnedReward(make())(*batch_of(BOX, DISCRETE), standard_error=True)


@pytest.mark.parametrize("activation_fn", [nn.Tanh, nn.GELU])
def test_networks_of_known_and_of_other_layers(activation_fn):
    """Small networks of known layers are evaluated by NumPy, all others by PyTorch: the same rewards."""
    model = make(policy_kwargs=dict(activation_fn=activation_fn, q_bound=3.0, net_arch=[8, 8]))
    batch = batch_of(BOX, DISCRETE)
    assert LearnedReward(model)(*batch) == pytest.approx(model.predict_reward(*batch), abs=1e-5)


class FiveFeatures(BaseFeaturesExtractor):
    """Another number of features than an observation has numbers."""

    def __init__(self, observation_space):
        super().__init__(observation_space, 5)
        self.linear = nn.Linear(int(np.prod(observation_space.shape)), 5)

    def forward(self, observations):
        return self.linear(observations.flatten(1))


@pytest.mark.parametrize(
    "policy, observation_space, policy_kwargs",
    [
        ("MlpPolicy", BOX, dict(features_extractor_class=FiveFeatures)),
        ("CnnPolicy", FLOAT_IMAGE, dict(normalize_images=False)),
        ("MlpPolicy", FLOAT_IMAGE, dict(normalize_images=False)),
    ],
)
def test_features_extractors(policy, observation_space, policy_kwargs):
    model = make(policy, observation_space, policy_kwargs={"net_arch": [8], **policy_kwargs})
    obs, actions, next_obs, terminated = batch_of(observation_space, DISCRETE)
    expected = model.predict_reward(obs, actions, next_obs, terminated)
    assert LearnedReward(model)(obs, actions, next_obs, terminated) == pytest.approx(expected, abs=1e-5)


def test_is_frozen_and_keeps_nothing_of_the_training():
    model = make()
    reward, batch = LearnedReward(model), batch_of(BOX, DISCRETE)
    before, state = reward(*batch), th.get_rng_state()
    LearnedReward(model)
    assert th.equal(th.get_rng_state(), state)
    model.learn(20)
    assert np.array_equal(reward(*batch), before)
    with pytest.raises(AttributeError, match="frozen"):
        reward.gamma = 0.5
    with pytest.raises(AttributeError, match="frozen"):
        reward.scale = 0.5


def test_the_file_holds_json_and_tensors_only(tmp_path):
    LearnedReward(make(policy_kwargs=dict(net_arch=[64, 64]))).save(tmp_path / "reward.zip")
    with zipfile.ZipFile(tmp_path / "reward.zip") as archive:
        assert sorted(archive.namelist()) == ["reward.json", "tensors.pth"]
        assert "optimizer" not in archive.read("reward.json").decode()
    assert (tmp_path / "reward.zip").stat().st_size < 200_000


class Shout:
    def __reduce__(self):
        return print, ("executed",)


def rewrite(path, **changes):
    with zipfile.ZipFile(path) as archive:
        data, tensors = json.loads(archive.read("reward.json")), archive.read("tensors.pth")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("reward.json", json.dumps({**data, **{k: v for k, v in changes.items() if k != "tensors"}}))
        archive.writestr("tensors.pth", changes.get("tensors", tensors))


def test_loading_executes_nothing(tmp_path, capsys):
    path = tmp_path / "reward.zip"
    LearnedReward(make()).save(path)
    rewrite(path, policy_class="os:system")
    with pytest.raises(ValueError, match=r"`custom_objects` lacks 'os:system'"):
        LearnedReward.load(path)
    LearnedReward(make()).save(path)
    rewrite(path, tensors=pickle.dumps(Shout()))
    with pytest.raises(Exception, match=r"(?i)weights"):
        LearnedReward.load(path)
    assert "executed" not in capsys.readouterr().out


class MyActivation(nn.Tanh):
    pass


def test_custom_classes(tmp_path):
    reward = LearnedReward(make(policy_kwargs=dict(activation_fn=MyActivation)))
    reward.save(tmp_path / "reward.zip")
    name = f"{__name__}:MyActivation"
    with pytest.raises(ValueError, match="custom_objects") as error:
        LearnedReward.load(tmp_path / "reward.zip")
    assert name in str(error.value)
    loaded = LearnedReward.load(tmp_path / "reward.zip", custom_objects={name: MyActivation})
    batch = batch_of(BOX, DISCRETE)
    assert np.array_equal(loaded(*batch), reward(*batch))


def test_bad_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="does not exist"):
        LearnedReward.load(tmp_path / "missing.zip")
    model = make()
    model.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"LearnedReward\(IQLearn.load\(path\)\)"):
        LearnedReward.load(tmp_path / "model.zip")
    LearnedReward(model).save(tmp_path / "reward.zip")
    rewrite(tmp_path / "reward.zip", version=99)
    with pytest.raises(ValueError, match="has format 99"):
        LearnedReward.load(tmp_path / "reward.zip")


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_vec_normalize(action_space, tmp_path):
    """Observations are raw: the statistics are part of the reward."""
    venv = VecNormalize(DummyVecEnv([lambda: RandomEnv(BOX, action_space)]))
    model = make(action_space=action_space, env=venv)
    venv.obs_rms.update(np.random.default_rng(0).normal(3, 5, (1000, 3)))
    obs, acts, next_obs, terminated = batch_of(BOX, action_space)
    reward = LearnedReward(model, vec_normalize=venv)
    normalized = model.predict_reward(venv.normalize_obs(obs), acts, venv.normalize_obs(next_obs), terminated)
    assert reward(obs, acts, next_obs, terminated) == pytest.approx(normalized, abs=1e-5)
    reward.save(tmp_path / "reward.zip")
    venv.obs_rms.update(np.random.default_rng(1).normal(-3, 5, (1000, 3)))
    assert np.array_equal(
        LearnedReward.load(tmp_path / "reward.zip")(obs, acts, next_obs, terminated), reward(obs, acts, next_obs, terminated)
    )
    model.save(tmp_path / "model.zip")
    with pytest.raises(ValueError, match=r"`vec_normalize` is None, but .* pass vec_normalize=VecNormalize.load"):
        LearnedReward(IQLearn.load(tmp_path / "model.zip"))


def test_bad_models():
    env = RandomEnv(BOX, DISCRETE)
    images = RandomEnv(spaces.Box(0, 255, (1, 36, 36), np.uint8), DISCRETE)
    for policy, space in (("MlpPolicy", env), ("CnnPolicy", images)):
        untrained = IQLearn(policy, space, random_trajectories(space), offline=True, **SMALL)
        with pytest.raises(ValueError, match=r"`model` has not learned.*call model.learn"):
            LearnedReward(untrained)
    with pytest.raises(ValueError, match="`form` is 'value': choose one of bellman, advantage, bounded"):
        LearnedReward(make(), form="value")
    with pytest.raises(TypeError, match=r"`model` is a str, no IQLearn: a saved one is IQLearn.load\(path\)"):
        LearnedReward("model.zip")
    with pytest.raises(TypeError, match=r"`vec_normalize` is a str: a saved one is VecNormalize.load\(path, venv\)"):
        LearnedReward(make(), vec_normalize="vec_normalize.pkl")
    other = VecNormalize(DummyVecEnv([lambda: RandomEnv(spaces.Box(-1.0, 1.0, (4,)), DISCRETE)]))
    model = make(env=VecNormalize(DummyVecEnv([lambda: RandomEnv(BOX, DISCRETE)])))
    with pytest.raises(ValueError, match=r"`vec_normalize` has statistics of shape \(4,\), but the model's"):
        LearnedReward(model, vec_normalize=other)


def test_bad_batches():
    reward, (obs, acts, next_obs, terminated) = LearnedReward(make()), batch_of(BOX, DISCRETE)
    with pytest.raises(ValueError, match=r"`obs` is a single observation: .* obs\[None\]"):
        reward(obs[0], acts[0], next_obs[0], False)
    with pytest.raises(ValueError, match=r"`next_obs` is a single observation"):
        reward(obs, acts, next_obs[0], terminated)
    with pytest.raises(ValueError, match=r"`actions` is a single action"):
        reward.predict_q(obs, acts[0])
    with pytest.raises(ValueError, match=r"`obs` has shape \(10, 4\), but the reward's observation space is Box"):
        reward(np.zeros((10, 4)), acts, next_obs, terminated)
    with pytest.raises(ValueError, match=r"`obs` is a dictionary"):
        reward.predict_value({"a": obs})
    with pytest.raises(ValueError, match=r"`actions` holds 3, which is not in Discrete\(3\)"):
        reward(obs, np.full(10, 3), next_obs, terminated)
    with pytest.raises(ValueError, match=r"`actions` holds 0.5, which is not in Discrete\(3\)"):
        reward(obs, np.full(10, 0.5), next_obs, terminated)
    with pytest.raises(ValueError, match=r"different numbers of rows: `obs` 10, `actions` 10, `next_obs` 10, `terminated` 9"):
        reward(obs, acts, next_obs, terminated[:9])
    with pytest.raises(ValueError, match=r"`terminated` is .*: give a batch of booleans"):
        reward(obs, acts, next_obs, np.full(10, 0.5))
    with pytest.raises(ValueError, match=r"`next_obs` holds NaN or infinity in row 4"):
        reward(obs, acts, np.where(np.arange(10)[:, None] == 4, np.nan, next_obs), terminated)
    with pytest.raises(ValueError, match="`obs` is an empty batch: give at least one transition"):
        reward(obs[:0], acts[:0], next_obs[:0], terminated[:0])
    with pytest.raises(ValueError, match=r"`obs` has dtype <U1, .*: give numbers"):
        reward.predict_value(np.full((10, 3), "a"))
    with pytest.raises(ValueError, match=r"`actions` has dtype <U1, .*: give numbers"):
        reward.predict_q(obs, np.full(10, "a"))


@pytest.mark.parametrize(
    ("space", "wrong"),
    [(spaces.Discrete(5), 5), (spaces.Discrete(5), -1), (spaces.MultiDiscrete([5, 2]), 2), (spaces.MultiBinary(2), 0.5)],
)
def test_codes_that_a_discrete_space_does_not_have(space, wrong):
    """Alone and in a dictionary: PyTorch has no message for them, and cuts fractions off."""
    obs = np.full((4, *(space.shape or ())), wrong)
    with pytest.raises(ValueError, match=rf"`obs` holds {wrong}, which is not in .*: give the environment's own observations"):
        LearnedReward(make("MlpPolicy", space)).predict_value(obs)
    reward = LearnedReward(make("MultiInputPolicy", spaces.Dict({"a": BOX, "b": space})))
    with pytest.raises(ValueError, match=rf"`obs\['b'\]` holds {wrong}, which is not in"):
        reward.predict_value({"a": np.zeros((4, 3)), "b": obs})


def test_bad_dictionaries():
    space = spaces.Dict({"a": BOX, "b": BOX})
    reward = LearnedReward(make("MultiInputPolicy", space))
    obs = batch_of(space, DISCRETE)[0]
    with pytest.raises(ValueError, match=r"`obs` has the keys \['a'\], but the reward's observation space has \['a', 'b'\]"):
        reward.predict_value({"a": obs["a"]})
    with pytest.raises(ValueError, match=r"`obs\['b'\]` has shape"):
        reward.predict_value({"a": obs["a"], "b": obs["b"][:, :2]})


def test_a_reward_is_no_model(tmp_path):
    LearnedReward(make()).save(tmp_path / "reward")
    for path in (tmp_path / "reward", tmp_path / "reward.zip", str(tmp_path / "reward")):
        with pytest.raises(ValueError, match=r"is a saved reward and no model: use .*LearnedReward\.load"):
            IQLearn.load(path)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_bounded_form(action_space, tmp_path):
    """1 for acting like the expert, and what the action costs, in units of what a random one costs."""
    model = make(action_space=action_space)
    batch = batch_of(BOX, action_space)
    bounded = LearnedReward(model, form="bounded")
    advantages, rewards = bounded.with_form("advantage")(*batch), bounded(*batch)
    within = (np.abs(rewards - 1) < 0.99) & (np.abs(rewards - 1) > 0.1)  # beyond the clip, or of a few digits, it tells less
    unit = (advantages[within] / (rewards[within] - 1)).mean()
    assert unit > 0 and rewards == pytest.approx(1 + np.clip(advantages / unit, -1, 1), abs=1e-3)
    bounded.save(tmp_path / "reward.zip")
    loaded = LearnedReward.load(tmp_path / "reward.zip", device="cpu")
    assert np.array_equal(loaded.with_tail(*batch), bounded.with_tail(*batch))


@pytest.mark.slow
@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
def test_every_space_has_a_bounded_form(policy, observation_space, action_space):
    bounded = LearnedReward(make(policy, observation_space, action_space), form="bounded")
    tail = bounded.with_tail(*batch_of(observation_space, action_space))
    for values, most in ((tail.rewards, 2), (tail.absorbing, 1)):
        assert np.isfinite(values).all() and values.min() >= 0 and values.max() <= most


@pytest.mark.parametrize("named", [False, True])
def test_ends_like_the_experts_own(named):
    """An end pays for ever what acting like the expert pays, and less the less it is like the demonstrations' ends."""
    space = spaces.Dict({"a": BOX, "b": BOX}) if named else BOX
    env = RandomEnv(space, DISCRETE)
    trajectories = random_trajectories(env, n_episodes=4)
    policy = "MultiInputPolicy" if named else "MlpPolicy"
    bounded = LearnedReward(IQLearn(policy, env, trajectories, offline=True, **SMALL).learn(5), form="bounded")

    def vectors(obs):
        return np.concatenate([obs["a"], obs["b"]], axis=1) if named else obs

    ends = np.stack([vectors(trajectory.obs)[-1] for trajectory in trajectories])
    scale = np.concatenate([vectors(trajectory.obs)[:-1] for trajectory in trajectories]).std(axis=0)
    std = np.sqrt((4 * ends.var(axis=0) + scale**2) / 5)
    # standard deviations from the mean of the ends
    offsets = np.array([0.0, 1.9, 4.0, -10.0])
    points = (ends.mean(axis=0) + offsets[:, None] * std).astype(np.float32)
    next_obs = {"a": points[:, :3], "b": points[:, 3:]} if named else points
    batch = rows(batch_of(space, DISCRETE)[0], slice(4)), np.zeros(4, int), next_obs
    assert bounded.with_tail(*batch, np.ones(4)).absorbing == pytest.approx([1, 1, 0.25, 0.04], abs=1e-3)
    # there is no end where the episode goes on
    assert bounded.with_tail(*batch, np.array([0, 1, 0, 1])).absorbing == pytest.approx([0, 1, 0, 0.04], abs=1e-3)


def test_ends_where_the_expert_never_ends():
    """Nothing is worse: an end pays nothing any more, whatever V says of it."""
    env = RandomEnv(BOX, DISCRETE)
    trajectories = [replace(trajectory, terminated=False, truncated=True) for trajectory in random_trajectories(env)]
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, **SMALL).learn(5)
    model.terminal_v = 1e3
    obs, acts, next_obs, _ = batch_of(BOX, DISCRETE)
    assert (LearnedReward(model, form="bounded").with_tail(obs, acts, next_obs, np.ones(10)).absorbing == 0).all()


def test_ends_that_are_no_vectors():
    """There an end that is worth less than typical states is the worst, one that is worth more is as good as the expert."""
    space = spaces.Discrete(5)
    model = make(observation_space=space)
    obs, acts, next_obs, _ = batch_of(space, DISCRETE)
    for terminal_v, absorbing in ((-1e3, 0.0), (1e3, 1.0)):
        model.terminal_v = terminal_v
        tail = LearnedReward(model, form="bounded").with_tail(obs, acts, next_obs, np.ones(10))
        assert (tail.absorbing == absorbing).all()


def test_the_experts_own_ends_are_not_bad():
    """A typical state of the demonstrations is a real one, and no better than where they end."""
    env = RandomEnv(spaces.Discrete(5), DISCRETE)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL).learn(20)
    assert model.terminal_v is None
    ends = model.demonstrations.at(model.demonstrations.ends)
    assert len(ends.dones) == 3 and ends.dones.all()
    reward = LearnedReward(model, form="bounded")
    obs, acts = ends.observations.numpy(), ends.actions.numpy()
    absorbing = reward.with_tail(obs, acts, ends.next_observations.numpy(), np.ones(len(acts))).absorbing
    assert absorbing.max() == 1
    assert reward.predict_q(obs, acts).mean() >= reward._parts.typical.value - 1e-5


@pytest.mark.parametrize(
    "observation_space", [BOX, spaces.Discrete(5), spaces.Dict({"a": BOX, "b": BOX})], ids=["box", "codes", "dict"]
)
@pytest.mark.parametrize("normalizes", [False, True])
def test_ends_that_subsampling_left_out(observation_space, normalizes):
    """How an episode ended stays known: an end like the expert's own is as good as with every transition."""
    if normalizes and isinstance(observation_space, spaces.Discrete):
        pytest.skip("VecNormalize does not normalise codes")
    env = DummyVecEnv([lambda: RandomEnv(observation_space, DISCRETE)])
    env = VecNormalize(env) if normalizes else env
    policy = "MultiInputPolicy" if isinstance(observation_space, spaces.Dict) else "MlpPolicy"
    trajectories = random_trajectories(RandomEnv(observation_space, DISCRETE))
    demonstrations = load_demonstrations(trajectories, subsample_freq=4)  # of ten steps, the last is not one
    model = IQLearn(policy, env, demonstrations, **SMALL).learn(20)
    assert len(model.demonstrations.ends) == 0 and model.demonstrations.terminates
    reward = LearnedReward(model, form="bounded")
    before, terminal = (stack_obs([rows(t.obs, i) for t in trajectories]) for i in (-2, -1))
    acts, _ = reward.predict(before, deterministic=True)
    absorbing = reward.with_tail(before, acts, terminal, np.ones(3)).absorbing
    if observation_space == spaces.Discrete(5):
        assert absorbing.max() == 1
    else:
        assert reward._parts.ends is not None and absorbing == pytest.approx(1.0)
