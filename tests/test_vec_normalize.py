"""VecNormalize: its statistics start from the demonstrations, and a model that was trained with it is not used without."""

import copy
import warnings
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.vec_env import DummyVecEnv, VecMonitor, VecNormalize

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.iq_learn import reward_priors
from sb3_iq.iq_learn.obs_statistics import ObsStatistics
from sb3_iq.iq_learn.reward_priors import SolutionPrior
from sb3_iq.rewards import LearnedReward
from tests.utils import BOX, DISCRETE, SMALL, RandomEnv, random_trajectories


def vec_normalize(outside=lambda env: env, **kwargs):
    return outside(VecNormalize(DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"))]), **kwargs))


@pytest.mark.parametrize("offline", [True, False])
def test_vec_normalize(offline):
    """Demonstrations are kept raw and normalised with the environment's statistics, which they warm up once."""

    def make_env():
        return VecNormalize(DummyVecEnv([lambda: Monitor(gym.make("CartPole-v1"))]))

    env = make_env()
    model = IQLearn("MlpPolicy", env, "bundled:CartPole-v1", offline=offline, **{**SMALL, "buffer_size": 100})
    raw = model.expert_buffer.all().observations
    model.learn(20)
    assert env.obs_rms.count >= 5000
    if offline:
        assert env.obs_rms.mean == pytest.approx(raw.double().mean(dim=0).numpy(), abs=1e-3)
    count = env.obs_rms.count
    normalised = model.expert_buffer.all(env=model.get_vec_normalize_env()).observations
    assert normalised.std(dim=0).numpy() == pytest.approx(np.ones(4), abs=0.1)
    assert th.equal(raw, model.expert_buffer.all().observations)
    model.learn(10)
    assert env.obs_rms.count <= count + 12
    eval_env = make_env()
    eval_env.training = False
    model.learn(10, EvalCallback(eval_env, eval_freq=5, n_eval_episodes=1, verbose=0))
    assert eval_env.obs_rms.mean == pytest.approx(env.obs_rms.mean)


def test_a_model_of_normalised_observations_does_not_go_on_without_them(tmp_path):
    env = vec_normalize()
    IQLearn("MlpPolicy", env, "bundled:CartPole-v1", offline=True, **SMALL).learn(5).save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model")
    with pytest.raises(ValueError, match="normalised by VecNormalize"):
        loaded.learn(5)
    IQLearn.load(tmp_path / "model", env=env).learn(5)


def test_statistics_are_warmed_up_once_and_never_if_frozen():
    trajectories = random_trajectories(RandomEnv(spaces.Box(-1, 1, (4,), np.float32), spaces.Discrete(2)))
    env = vec_normalize()
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, **SMALL)
    counts = [model.learn(2).get_vec_normalize_env().obs_rms.count for _ in range(3)]
    assert counts == pytest.approx([30, 30, 30], abs=1e-3)
    frozen = vec_normalize(training=False)
    IQLearn("MlpPolicy", frozen, trajectories, offline=True, **SMALL).learn(2)
    assert frozen.obs_rms.count < 1


@pytest.mark.parametrize("settings, n_priors", [({}, 3), (dict(norm_obs=False), 1), (dict(training=False), 1)])
def test_a_prior_follows_only_statistics_that_change(settings, n_priors, monkeypatch):
    """At the start and after 100 and 200 gradient steps, but not where only rewards are normalised, or nothing is learned."""
    monkeypatch.setattr(reward_priors, "OFFLINE_STEPS", 2)
    made, make = [], SolutionPrior.__init__
    monkeypatch.setattr(SolutionPrior, "__init__", lambda self, inputs: (made.append(inputs), make(self, inputs))[1])
    model = IQLearn("MlpPolicy", vec_normalize(**settings), "bundled:CartPole-v1", **SMALL).learn(220)
    assert model._n_updates > 200 and len(made) == n_priors


def test_wrappers_around_vec_normalize_offline(tmp_path):
    """EvalCallback finds the statistics, CheckpointCallback saves the user's own wrapper."""
    env, eval_env = vec_normalize(VecMonitor), vec_normalize(VecMonitor, training=False)
    model = IQLearn("MlpPolicy", env, "bundled:CartPole-v1", offline=True, **SMALL)
    checkpoint = CheckpointCallback(5, str(tmp_path), save_vecnormalize=True, save_replay_buffer=True)
    model.learn(10, [EvalCallback(eval_env, eval_freq=5, n_eval_episodes=1, verbose=0), checkpoint])
    assert eval_env.obs_rms.mean == pytest.approx(env.obs_rms.mean)
    saved = VecNormalize.load(next(tmp_path.glob("*vecnormalize*")), DummyVecEnv([lambda: gym.make("CartPole-v1")]))
    assert saved.training and saved.norm_reward
    assert saved.obs_rms.mean == pytest.approx(env.obs_rms.mean)


def test_the_networks_own_statistics():
    env = VecNormalize(DummyVecEnv([lambda: RandomEnv(BOX, DISCRETE)]), norm_reward=False)
    model = IQLearn(
        "MlpPolicy", env, random_trajectories(RandomEnv(BOX, DISCRETE)), policy_kwargs=dict(net_arch=[8]), **SMALL
    ).learn(20)
    (part,) = model.policy.normalizer.parts.values()
    # The statistics of what VecNormalize makes of the demonstrations, from which it has its own
    assert part.mean.abs().max() < 0.2 and (part.std - 1).abs().max() < 0.2


@pytest.mark.parametrize("offline", [True, False])
def test_copies_have_statistics_and_need_an_environment(offline):
    """SB3 copies a VecNormalize without the environment, as it pickles it."""

    def make_venv():
        return DummyVecEnv([lambda: RandomEnv(BOX, DISCRETE)])

    trajectories = random_trajectories(RandomEnv(BOX, DISCRETE))
    model = IQLearn("MlpPolicy", VecNormalize(make_venv()), trajectories, reward_prior=0.0, **SMALL)
    model.learn(20, offline=offline)
    twin = copy.deepcopy(model)
    obs = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    assert np.array_equal(twin.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    if offline:
        twin.learn(20, offline=True, reset_num_timesteps=False)
    with pytest.raises(ValueError, match=r"copy of a VecNormalize.*set_venv\(venv\), or the model another by set_env\(\)"):
        twin.learn(20, offline=False)
    if offline:
        twin.set_env(VecNormalize(make_venv()))
    else:
        twin.get_vec_normalize_env().set_venv(make_venv())
    twin.learn(20, offline=False, reset_num_timesteps=False)
    assert (model.num_timesteps, twin.num_timesteps) == (20, 60 if offline else 40)


def test_normalising_before_stacking_is_refused_with_the_cure():
    from stable_baselines3.common.vec_env import VecFrameStack

    env = RandomEnv(BOX, DISCRETE)
    stacked = RandomEnv(spaces.Box(-1.0, 1.0, (6,), np.float32), DISCRETE)
    for offline in (True, False):
        venv = VecFrameStack(VecNormalize(DummyVecEnv([lambda: env])), 2)
        model = IQLearn("MlpPolicy", venv, random_trajectories(stacked), offline=offline)
        with pytest.raises(ValueError, match="normalise after stacking"):
            model.learn(5)


@pytest.fixture(scope="module")
def normalised(tmp_path_factory):
    """:return: a model that was trained in VecNormalize, the path of it, and transitions as they are and normalised"""
    env, path = vec_normalize(), tmp_path_factory.mktemp("normalised") / "model"
    demonstrations = load_demonstrations("bundled:CartPole-v1", n_trajectories=3)
    model = IQLearn("MlpPolicy", env, demonstrations, offline=True, **SMALL).learn(20)
    model.save(path)
    obs, acts = demonstrations[0].obs, demonstrations[0].acts
    scaled = env.normalize_obs(obs)
    ends = np.zeros(len(acts), bool)
    return model, path, (obs[:-1], acts, obs[1:], ends), (scaled[:-1], acts, scaled[1:], ends)


@pytest.mark.parametrize("loaded", [False, True])
def test_rewards_of_raw_observations_are_refused(normalised, loaded):
    model, path, raw, scaled = normalised
    if loaded:
        model = IQLearn.load(path, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        expected = model.predict_reward(*scaled)
    with pytest.raises(ValueError, match=r"`obs` looks raw, and .* give env.normalize_obs\(obs\), or take sb3_iq.rewards"):
        model.predict_reward(*raw)
    with pytest.raises(ValueError, match="`next_obs` looks raw"):
        model.predict_reward(scaled[0], raw[1], raw[2], raw[3])
    # One that no normalised observation can be tells as much as many
    with pytest.raises(ValueError, match="`obs` looks raw"):
        model.predict_reward(np.full((1, 4), 11.0, np.float32), raw[1][:1], scaled[2][:1], raw[3][:1])
    if not loaded:
        reward = LearnedReward(model)
        with warnings.catch_warnings():
            warnings.simplefilter("error", UserWarning)
            assert reward(*raw) == pytest.approx(expected, abs=1e-4)
        for function in (lambda: reward(*scaled), lambda: reward.predict_value(scaled[0])):
            with pytest.warns(UserWarning, match="looks as if VecNormalize had normalised it"):
                function()


@pytest.mark.parametrize("loaded", [False, True])
def test_predictions_from_raw_observations_are_told_once(normalised, loaded):
    _, path, raw, scaled = normalised
    model = IQLearn.load(path, env=vec_normalize() if loaded else None, custom_objects={"offline": True}, device="cpu")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for obs in scaled[0][:200]:
            model.predict(obs)
        model.predict(np.zeros((100, 4), np.float32))
    model = IQLearn.load(path, device="cpu")
    with pytest.warns(UserWarning, match="those that predict.. gets look as if they had not been") as found:
        for obs in raw[0][:200]:
            model.predict(obs)
    assert len(found) == 1


def test_without_vec_normalize_nothing_is_told():
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL).learn(3)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        obs = np.random.default_rng(0).normal(0, 100, (100, 4)).astype(np.float32)
        model.predict(obs)
        model.predict_reward(obs, np.zeros(100, int), obs, np.zeros(100, bool))


@pytest.mark.parametrize("scale", [0.1, 10.0])
def test_evidence_of_normalisation(scale):
    rng = np.random.default_rng(0)
    obs = {"a": rng.normal(3.0, scale, (100, 2)), "b": rng.normal(0.0, 1.0, (100, 4))}
    rms = {key: np.stack([values.mean(axis=0), values.var(axis=0)]) for key, values in obs.items()}
    moments = ({key: values[row] for key, values in rms.items()} for row in range(2))
    statistics = ObsStatistics(*moments, clip=50.0, epsilon=1e-8)
    assert statistics.evidence(obs) > 0.5 and statistics.evidence(statistics(obs)) < -0.5
    few = {key: values[:10] for key, values in obs.items()}
    same = {key: np.repeat(values[:1], 100, axis=0) for key, values in obs.items()}
    assert statistics.evidence(few) == statistics.evidence(same) == 0


class FarFromZero(RandomEnv):
    """The first number is about 1000."""

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return self.far(obs), info

    def step(self, action):
        obs, *rest = super().step(action)
        return (self.far(obs), *rest)

    def far(self, obs):
        return {key: self.far(part) for key, part in obs.items()} if isinstance(obs, dict) else obs + FAR


FAR = np.array([1000, 0, 0], np.float32)
UNBOUNDED = spaces.Box(-np.inf, np.inf, (3,), np.float32)


def demonstrations(far, as_dict=False):
    """:return: demonstrations of that environment, or of one that isn't far from zero"""
    shown = random_trajectories(RandomEnv(UNBOUNDED, DISCRETE))
    obs = [each.obs + FAR if far else each.obs for each in shown]
    return [replace(each, obs={"x": part} if as_dict else part) for each, part in zip(shown, obs, strict=True)]


@pytest.mark.parametrize("as_dict", [False, True])
@pytest.mark.parametrize("normalises", [False, True])
@pytest.mark.parametrize("far", [False, True])
def test_an_environment_that_begins_far_from_the_demonstrations_is_told(as_dict, normalises, far, recwarn):
    """As where they are normalised already, or in other units."""
    env = DummyVecEnv([lambda: FarFromZero(spaces.Dict(x=UNBOUNDED) if as_dict else UNBOUNDED, DISCRETE)])
    policy = "MultiInputPolicy" if as_dict else "MlpPolicy"
    data = demonstrations(far, as_dict)
    IQLearn(policy, VecNormalize(env) if normalises else env, data, reward_prior=0.0, **SMALL).learn(2)
    told = [str(each.message) for each in recwarn.list if "where the demonstrations never are" in str(each.message)]
    assert len(told) == (not far)
    if told:
        assert "in column 0 of its observation" in told[0] and "in VecNormalize give raw ones" in told[0]


def test_an_environment_that_normalises_by_itself_is_told():
    """Gymnasium's wrapper normalises by statistics that nobody knows, and the demonstrations are raw."""
    env = gym.wrappers.NormalizeObservation(FarFromZero(UNBOUNDED, DISCRETE))
    model = IQLearn("MlpPolicy", env, demonstrations(far=True), reward_prior=0.0, **SMALL)
    with pytest.warns(UserWarning, match="instead of gymnasium's NormalizeObservation use VecNormalize"):
        model.learn(2)
