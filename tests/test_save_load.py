"""Saving, loading and going on, as SB3's users know it."""

import json
import zipfile

import gymnasium as gym
import numpy as np
import pytest
import stable_baselines3
import torch as th
from stable_baselines3.common.env_util import make_vec_env

from sb3_iq import IQLearn, load_demonstrations
from tests.utils import BOX, COMBINATIONS, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

SMALL = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu")


def parameters(model):
    return th.cat([parameter.detach().flatten() for parameter in model.policy.parameters()])


@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
def test_save_load_predict(tmp_path, policy, observation_space, action_space):
    env = RandomEnv(observation_space, action_space)
    kwargs = {} if policy == "MlpPolicy" else dict(policy_kwargs=dict(net_arch=[16]))
    model = IQLearn(policy, env, random_trajectories(env), ent_coef="auto_0.1", **kwargs, **SMALL).learn(20)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model.zip", device="cpu")
    assert type(loaded.policy) is type(model.policy)
    assert th.equal(parameters(model), parameters(loaded))
    assert loaded.log_ent_coef.item() == model.log_ent_coef.item()
    obs = model.get_env().reset()
    assert np.array_equal(model.predict(obs, deterministic=True)[0], loaded.predict(obs, deterministic=True)[0])
    for attribute in ("gamma", "batch_size", "penalty_coef", "settings", "terminal_v", "n_envs", "expert_content_hash"):
        assert getattr(loaded, attribute) == getattr(model, attribute)


@pytest.mark.skipif(
    stable_baselines3.__version__.startswith("2.2."),
    reason="BasePolicy.load of Stable-Baselines3 2.2 cannot read its own files with torch 2.6 and newer (weights_only)",
)
@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
def test_policy_by_itself(tmp_path, policy, observation_space, action_space):
    """Trained, so that the averaged actor, the scales and the temperature are others than at first."""
    env = RandomEnv(observation_space, action_space)
    kwargs = {} if policy == "MlpPolicy" else dict(policy_kwargs=dict(net_arch=[16]))
    model = IQLearn(policy, env, random_trajectories(env), offline=True, ent_coef="auto_0.1", **kwargs, **SMALL).learn(5)
    model.policy.save(tmp_path / "policy")
    alone = type(model.policy).load(tmp_path / "policy")
    obs = model.get_env().reset()
    assert np.array_equal(alone.predict(obs, deterministic=True)[0], model.predict(obs, deterministic=True)[0])
    assert alone.ent_coef.item() == model.policy.ent_coef.item()


def test_demonstrations_are_not_in_the_zip(tmp_path):
    demonstrations = load_demonstrations("bundled:CartPole-v1", n_trajectories=2)
    narrow = dict(policy_kwargs=dict(net_arch=[64, 64]))
    model = IQLearn("MlpPolicy", "CartPole-v1", demonstrations, offline=True, **narrow, **SMALL).learn(2)
    model.save(tmp_path / "model")
    assert (tmp_path / "model.zip").stat().st_size < 150_000
    with zipfile.ZipFile(tmp_path / "model.zip") as archive:
        data = json.loads(archive.read("data"))
    assert data["expert_reference"] is None
    assert data["expert_n_transitions"] == 1000
    assert data["expert_content_hash"] == demonstrations.content_hash
    assert "expert_buffer" not in data
    loaded = IQLearn.load(tmp_path / "model")
    with pytest.raises(ValueError, match="`expert_data` is None: there is nothing to imitate"):
        loaded.learn(2)
    loaded = IQLearn.load(tmp_path / "model", expert_data=demonstrations)
    assert loaded.learn(2).expert_buffer.size() == 1000


def test_learning_online_takes_an_environment(tmp_path):
    IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", **SMALL).save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model")
    loaded.predict(np.zeros(4, dtype=np.float32))
    with pytest.raises(ValueError, match=r"`env` is None, and offline=False: give load\(..., env=...\) the environment"):
        loaded.learn(2)


def test_reference_is_read_again_when_learning_goes_on(tmp_path):
    model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=True, **SMALL).learn(2)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model")
    assert loaded.expert_buffer is None
    loaded.learn(2)
    assert loaded.expert_content_hash == model.expert_content_hash
    loaded = IQLearn.load(tmp_path / "model", custom_objects={"expert_content_hash": "other"})
    with pytest.warns(UserWarning, match="are not those that the model was saved with"):
        loaded.learn(2)


def test_predicts_where_the_data_is_not(tmp_path, monkeypatch):
    from sb3_iq.demonstrations.saving import save_trajectories

    save_trajectories(load_demonstrations("bundled:CartPole-v1", n_trajectories=1).trajectories, tmp_path / "mine")
    monkeypatch.chdir(tmp_path)
    IQLearn("MlpPolicy", "CartPole-v1", "mine", offline=True, **SMALL).learn(2).save("model")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    loaded = IQLearn.load("../model", env=gym.make("CartPole-v1"))
    loaded.predict(np.zeros(4, dtype=np.float32))
    with pytest.raises((ValueError, FileNotFoundError), match="mine"):
        loaded.learn(2)


@pytest.mark.slow
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("ent_coef", [0.1, "auto_0.1"])
def test_resume_offline_is_exact(tmp_path, action_space, ent_coef):
    env = RandomEnv(BOX, action_space)
    trajectories = random_trajectories(env)

    def make():
        return IQLearn("MlpPolicy", env, trajectories, offline=True, ent_coef=ent_coef, **SMALL)

    whole = make().learn(40)
    interrupted = make()
    interrupted.learn(40, callback=lambda *_: interrupted.num_timesteps < 20)
    interrupted.save(tmp_path / "half")
    th.manual_seed(123)  # whatever happens in between
    np.random.seed(123)
    resumed = IQLearn.load(tmp_path / "half", expert_data=trajectories, device="cpu").learn(20, reset_num_timesteps=False)
    assert resumed.num_timesteps == 40
    assert th.equal(parameters(whole), parameters(resumed))


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_resume_online_is_exact(tmp_path, action_space):
    """With the replay buffer and the same environment object."""

    def make():
        env = RandomEnv(BOX, action_space)
        return IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL)

    whole = make().learn(35).learn(35, reset_num_timesteps=False)
    half = make().learn(35)
    half.save(tmp_path / "half")
    half.save_replay_buffer(tmp_path / "replay")
    th.manual_seed(123)
    np.random.seed(123)
    trajectories = random_trajectories(RandomEnv(BOX, action_space))
    resumed = IQLearn.load(tmp_path / "half", env=half.get_env(), device="cpu", force_reset=False, expert_data=trajectories)
    resumed.load_replay_buffer(tmp_path / "replay")
    resumed.learn(35, reset_num_timesteps=False)
    assert th.equal(parameters(whole), parameters(resumed))


@pytest.mark.parametrize("reset_num_timesteps", [True, False])
def test_a_new_seed_is_another_run(tmp_path, reset_num_timesteps):
    """Its expert batches are others, too; without one the generators that were saved go on."""
    env = RandomEnv(BOX, WIDE_BOX)
    IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL, offline=True).learn(3).save(tmp_path / "model")

    def go_on(**kwargs):
        model = IQLearn.load(tmp_path / "model", expert_data=random_trajectories(env), device="cpu", **kwargs)
        return parameters(model.learn(5, reset_num_timesteps=reset_num_timesteps)), model.expert_buffer.draw(20).tolist()

    (one, drawn), (same, drawn_again), (other, others_draws) = (go_on(seed=seed) for seed in (1, 1, 2))
    assert th.equal(one, same) and drawn == drawn_again
    assert not th.equal(one, other) and drawn != others_draws
    assert go_on()[1] == go_on()[1] != drawn


def test_load_with_other_arguments_and_environments(tmp_path):
    env = make_vec_env("CartPole-v1", n_envs=2)
    model = IQLearn("MlpPolicy", env, "bundled:CartPole-v1", **SMALL).learn(20)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model", env=make_vec_env("CartPole-v1", n_envs=3), learning_rate=1e-5, ent_coef=0.5)
    assert loaded.learn(30).replay_buffer.n_envs == 3
    assert loaded.q_net is loaded.policy.q_net
    assert loaded.policy.optimizer.param_groups[0]["lr"] == 1e-5
    assert loaded.policy.ent_coef.item() == 0.5
    parameters_of_model = loaded.get_parameters()
    assert set(parameters_of_model) == {"policy", "policy.optimizer"}
    model.set_parameters(parameters_of_model)
    assert th.equal(parameters(model), parameters(loaded))


@pytest.fixture
def saved(tmp_path):
    """A model saved with settings of its own."""
    env = RandomEnv(BOX, DISCRETE)
    form = dict(critic_bound="tanh", divergence="jensen_shannon")
    model = IQLearn("MlpPolicy", env, random_trajectories(env), objective_kwargs=form, gamma=0.9, **SMALL).learn(12)
    path = tmp_path / "saved" / "model"
    path.parent.mkdir()
    model.save(path)
    return path


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("saved", ["auto_0.1", 0.2])
@pytest.mark.parametrize("given", ["auto_0.3", 0.4])
def test_load_with_another_temperature(tmp_path, action_space, saved, given):
    """Fixed or learned from now on; one that is learned goes on from where it was."""
    env = RandomEnv(BOX, action_space)
    trajectories = random_trajectories(env)
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, ent_coef=saved, **SMALL).learn(5)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model", ent_coef=given, expert_data=trajectories, device="cpu")
    found = loaded.policy.ent_coef.item()
    both_learned = isinstance(saved, str) and isinstance(given, str)
    expected = model.policy.ent_coef.item() if both_learned else 0.3 if isinstance(given, str) else given
    assert found == pytest.approx(expected, rel=1e-6)
    assert loaded.ent_coef == loaded.settings.ent_coef == given
    loaded.learn(3)
    assert (loaded.policy.ent_coef.item() == found) is not isinstance(given, str)
    loaded.save(tmp_path / "again")
    again = IQLearn.load(tmp_path / "again", device="cpu")
    assert again.policy.ent_coef.item() == loaded.policy.ent_coef.item() and again.ent_coef == given


@pytest.mark.slow
@pytest.mark.both_stacks
def test_load_with_settings(saved):
    demonstrations = random_trajectories(RandomEnv(BOX, DISCRETE))
    model = IQLearn.load(saved, penalty_coef=1.0, env=RandomEnv(BOX, DISCRETE), expert_data=demonstrations)
    assert model.penalty_coef == model.settings.penalty_coef == model.objective.penalty_coef == 1.0
    assert model.objective.divergence == "jensen_shannon"
    model.learn(12)
    assert model.objective.penalty_coef == 1.0


def test_load_refuses_unknown_names(saved):
    with pytest.raises(ValueError, match="`unknown` is no argument of IQLearn: choose from env, expert_data, learning_rate"):
        IQLearn.load(saved, unknown=1)
    with pytest.raises(ValueError, match="`divergence` is no argument of IQLearn"):
        IQLearn.load(saved, divergence="chi2")
    with pytest.raises(ValueError, match="`objective_kwargs` has the key 'unknown'"):
        IQLearn.load(saved, objective_kwargs=dict(unknown=1))
    with pytest.raises(ValueError, match="`penalty_coef` is -1"):
        IQLearn.load(saved, penalty_coef=-1.0)


class Subclass(IQLearn):
    """As users write them: what it does not know itself, it passes on."""

    def __init__(self, policy, env, *args, note="", **kwargs):
        super().__init__(policy, env, *args, **kwargs)
        self.note = note


def test_load_knows_the_arguments_that_a_subclass_passes_on(saved):
    model = Subclass.load(saved, env=RandomEnv(BOX, DISCRETE), train_freq=3, note="mine")
    assert model.train_freq.frequency == 3 and model.note == "mine"
    with pytest.raises(ValueError, match="`unknown` is no argument of Subclass: choose from env, note, expert_data, learning"):
        Subclass.load(saved, unknown=1)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_parameters_of_which_some_are_missing_are_refused(action_space):
    env = RandomEnv(BOX, action_space)
    model = IQLearn("MlpPolicy", env, **SMALL)
    complete = model.get_parameters()["policy"]
    names = [name for name in complete if name != "log_ent_coef"]  # which parameters of earlier versions lack
    for name in (names[0], names[-1]):
        state = {key: value for key, value in complete.items() if key != name}
        with pytest.raises(RuntimeError, match=f'Missing key.*"{name}"'):
            model.set_parameters({"policy": state}, exact_match=False)
            model.policy.load_state_dict(state)


def test_load_refuses_another_preset(saved):
    with pytest.raises(ValueError, match="`preset` is 'paper', and the model was made with 'default'"):
        IQLearn.load(saved, preset="paper")
    assert IQLearn.load(saved, preset="default").preset == "default"


def test_the_bound_of_tanh_does_not_outlive_it(saved):
    model = IQLearn.load(saved)
    assert model.policy.q_bound == pytest.approx((1 + 1 / 32) / (1 - 0.9))
    assert "q_bound" not in model.policy_kwargs
    clipped = IQLearn.load(saved, objective_kwargs=dict(critic_bound="clip"))
    assert clipped.objective.critic_bound == "clip" and clipped.policy.q_bound is None
    assert "q_bound" not in clipped.policy_kwargs
    obs = np.zeros((1, 3), dtype=np.float32)
    with th.no_grad():
        clipped.q_net.q_net[-1].bias.fill_(1e6)
        assert clipped.q_net(th.as_tensor(obs)).min() > 1e5
