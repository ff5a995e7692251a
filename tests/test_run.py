"""Every kind of space and setting runs, online and offline, and leaves finite numbers."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.vec_env import SubprocVecEnv

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.iq_learn import DivergenceError, SACPolicy, SoftQPolicy
from tests.utils import BOX, COMBINATIONS, DISCRETE, WIDE_BOX, NoStepEnv, RandomEnv, random_trajectories

CARTPOLE_OBS = spaces.Box(-np.inf, np.inf, (4,), np.float32)
SMALL = dict(batch_size=16, learning_starts=10, buffer_size=200, seed=0, device="cpu")


def make(policy, observation_space, action_space, env_class=RandomEnv, **kwargs):
    env = env_class(observation_space, action_space)
    demonstrations = random_trajectories(env)
    if policy != "MlpPolicy":
        kwargs["policy_kwargs"] = dict(net_arch=[16])
    return IQLearn(policy, env, demonstrations, **{**SMALL, **kwargs})


def assert_finite(model):
    assert all(th.isfinite(parameter).all() for parameter in model.policy.parameters())


@pytest.mark.parametrize("policy, observation_space, action_space", COMBINATIONS)
@pytest.mark.parametrize("offline", [False, True])
def test_all_spaces(policy, observation_space, action_space, offline):
    model = make(policy, observation_space, action_space, NoStepEnv if offline else RandomEnv, offline=offline)
    before = {name: parameter.clone() for name, parameter in model.policy.named_parameters()}
    assert model.learn(20) is model
    assert model.num_timesteps == 20
    # Online after ten random steps, with Box actions after each second one
    assert model._n_updates == (20 if offline else 10 if isinstance(action_space, spaces.Discrete) else 5)
    assert_finite(model)
    learned = [name for name, parameter in model.policy.named_parameters() if not th.equal(parameter, before[name])]
    assert len(learned) == len(before)
    obs = model.get_env().reset()
    for deterministic in (True, False):
        action, _ = model.predict(obs, deterministic=deterministic)
        assert model.action_space.contains(action[0])


def test_is_an_sb3_algorithm_with_its_keyword_order():
    import inspect

    from stable_baselines3 import SAC

    assert issubclass(IQLearn, OffPolicyAlgorithm)
    ours = list(inspect.signature(IQLearn.__init__).parameters)
    sac = [name for name in inspect.signature(SAC.__init__).parameters if name in ours]
    assert ours[:4] == ["self", "policy", "env", "expert_data"]
    assert [name for name in ours if name in sac] == sac
    for method in ("collect_rollouts", "predict", "save_replay_buffer", "load_replay_buffer"):
        assert getattr(IQLearn, method) is getattr(OffPolicyAlgorithm, method)


def test_docstring_names_every_argument():
    import inspect

    for name in inspect.signature(IQLearn.__init__).parameters:
        assert name == "self" or f":param {name}:" in IQLearn.__doc__


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("occupancy_term", ["policy_mix", "expert", "start_states", "expert_bounded"])
@pytest.mark.parametrize("penalty", ["expert", "mixture"])
@pytest.mark.parametrize("use_target", [False, True])
def test_objectives(action_space, occupancy_term, penalty, use_target):
    model = make("MlpPolicy", BOX, action_space, occupancy_term=occupancy_term, penalty=penalty, use_target=use_target)
    model.learn(14)
    assert_finite(model)
    target = model.q_net_target if action_space is DISCRETE else model.critic_target
    online = model.q_net if action_space is DISCRETE else model.critic
    pairs = zip(target.parameters(), online.parameters(), strict=True)
    assert all(th.equal(a, b) for a, b in pairs) is False
    model.offline = True
    if occupancy_term == "policy_mix" or penalty == "mixture":
        with pytest.raises(ValueError, match=r"offline there are no transitions of the policy"):
            model.learn(2)
    else:
        model.learn(2)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("ent_coef", ["auto", "auto_0.1", 0.2])
@pytest.mark.parametrize("offline", [False, True])
def test_ent_coef(action_space, ent_coef, offline):
    model = make("MlpPolicy", BOX, action_space, ent_coef=ent_coef, offline=offline).learn(30)
    assert_finite(model)
    if isinstance(ent_coef, str):
        assert model.log_ent_coef.exp().item() != pytest.approx(1.0 if ent_coef == "auto" else 0.1, abs=1e-6)
    if action_space is DISCRETE:
        assert 0 < model.policy.ent_coef.item() < 2


@pytest.mark.parametrize(
    "kwargs",
    [
        dict(n_critics=2),
        dict(layer_norm=False),
        dict(share_features_extractor=True),
        dict(net_arch=dict(pi=[8], qf=[16, 16])),
        dict(activation_fn=th.nn.Tanh, optimizer_class=th.optim.RMSprop),
    ],
)
def test_policy_kwargs(kwargs):
    assert_finite(make("MlpPolicy", BOX, WIDE_BOX, policy_kwargs=kwargs).learn(14))


@pytest.mark.parametrize("kwargs", [dict(use_sde=True), dict(use_sde=True, use_sde_at_warmup=True, sde_sample_freq=2)])
def test_sde(kwargs):
    assert_finite(make("MlpPolicy", BOX, WIDE_BOX, **kwargs).learn(16))


def test_sb3_options():
    noise = NormalActionNoise(np.zeros(2), 0.1 * np.ones(2))
    options = dict(train_freq=(1, "episode"), gradient_steps=-1, action_noise=noise, learning_rate=lambda left: 1e-3 * left)
    model = make("MlpPolicy", BOX, WIDE_BOX, actor_learning_rate=lambda left: 1e-4 * left, **options).learn(40)
    assert model._n_updates == 30
    assert model.actor.optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * model.critic.optimizer.param_groups[0]["lr"])
    assert_finite(
        make(
            "MlpPolicy", BOX, DISCRETE, optimize_memory_usage=True, replay_buffer_kwargs=dict(handle_timeout_termination=False)
        ).learn(30)
    )


@pytest.mark.parametrize("env_id, demos_id", [("CartPole-v1", "bundled:CartPole-v1")])
@pytest.mark.parametrize("n_envs", [1, 3])
def test_vectorised(env_id, demos_id, n_envs):
    model = IQLearn("MlpPolicy", make_vec_env(env_id, n_envs=n_envs, seed=0), demos_id, **SMALL)
    model.learn(36)
    assert model.replay_buffer.n_envs == n_envs
    assert_finite(model)


def test_worker_processes():
    def make_env():
        return gym.wrappers.TimeLimit(RandomEnv(BOX, DISCRETE), max_episode_steps=50)

    env = SubprocVecEnv([make_env] * 2, start_method="fork")
    model = IQLearn("MlpPolicy", env, random_trajectories(RandomEnv(BOX, DISCRETE)), **SMALL).learn(20)
    assert model._env_spec.max_episode_steps == 50
    assert_finite(model)
    env.close()


def test_same_seed_same_run():
    def run(offline):
        model = IQLearn("MlpPolicy", "CartPole-v1", "bundled:CartPole-v1", offline=offline, **{**SMALL, "seed": 3}).learn(60)
        return th.cat([parameter.flatten() for parameter in model.policy.parameters()])

    for offline in (False, True):
        assert th.equal(run(offline), run(offline))


def test_softmax_and_argmax():
    model = make("MlpPolicy", BOX, DISCRETE, ent_coef=0.5)
    obs = np.tile(BOX.sample(), (4000, 1))
    with th.no_grad():
        q_values = model.q_net(th.as_tensor(obs[:1]))
    probabilities = th.softmax(q_values / 0.5, dim=1)[0].numpy()
    actions, _ = model.predict(obs, deterministic=False)
    assert np.bincount(actions, minlength=3) / 4000 == pytest.approx(probabilities, abs=0.03)
    actions, _ = model.predict(obs, deterministic=True)
    assert (actions == int(q_values.argmax())).all()
    value = model.policy.state_value(th.as_tensor(obs[:1]), th.tensor(0.5))
    assert value.item() == pytest.approx(0.5 * np.log(np.exp(q_values.numpy() / 0.5).sum()), rel=1e-5)


def test_actions_on_the_bounds_stay_finite():
    env = RandomEnv(BOX, WIDE_BOX)
    trajectories = random_trajectories(env)
    for trajectory in trajectories:
        trajectory.acts[:] = np.where(trajectory.acts > 0.5, WIDE_BOX.high, WIDE_BOX.low)
    assert_finite(IQLearn("MlpPolicy", env, trajectories, **SMALL).learn(40))
    model = IQLearn("MlpPolicy", env, trajectories, offline=True, **SMALL).learn(40)
    batch = model.expert_buffer.all()
    assert batch.actions.abs().max() == 1
    assert th.isfinite(
        model.actor.action_dist.proba_distribution(*model.actor.get_action_dist_params(batch.observations)[:2]).log_prob(
            batch.actions
        )
    ).all()


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_divergence_stops_before_a_step(action_space):
    model = make("MlpPolicy", BOX, action_space, offline=True)
    model.learn(2)
    network = model.q_net if action_space is DISCRETE else model.critic
    with th.no_grad():
        list(network.parameters())[-1].fill_(1e30)
    before = [parameter.clone() for parameter in model.policy.parameters()]
    with pytest.raises(DivergenceError, match="diverged at gradient step 2"):
        model.learn(2, reset_num_timesteps=False)
    assert all(th.equal(a, b) for a, b in zip(before, model.policy.parameters(), strict=True))


@pytest.mark.parametrize(
    "kwargs, message",
    [
        (dict(n_steps=3), "`n_steps` is 3"),
        (dict(occupancy_term="v0"), "`occupancy_term` is 'v0': choose one of policy_mix"),
        (dict(penalty="both"), "`penalty` is 'both'"),
        (dict(divergence="kl"), "`divergence` is 'kl'"),
        (dict(penalty_coef=0.0), "`penalty_coef` is 0.0"),
        (dict(gamma=1.0), "`gamma` is 1.0"),
        (dict(ent_coef=0.0), "`ent_coef` is '0.0'"),
        (dict(ent_coef="auto_x"), "`ent_coef` is 'auto_x'"),
        (dict(offline=True, occupancy_term="policy_mix"), "`occupancy_term` is 'policy_mix': offline"),
        (dict(offline=True, penalty="mixture"), "`penalty` is 'mixture': offline"),
    ],
)
def test_refused_settings(kwargs, message):
    with pytest.raises(ValueError, match=message):
        make("MlpPolicy", BOX, DISCRETE, **kwargs)


def test_refused_buffers_policies_and_environments():
    from stable_baselines3 import HerReplayBuffer
    from stable_baselines3.sac.policies import SACPolicy as PlainSACPolicy

    with pytest.raises(ValueError, match="`replay_buffer_class` is HerReplayBuffer"):
        make("MlpPolicy", BOX, DISCRETE, replay_buffer_class=HerReplayBuffer)
    with pytest.raises(ValueError, match="`policy` is 'LstmPolicy': choose one of MlpPolicy, CnnPolicy, MultiInputPolicy"):
        make("LstmPolicy", BOX, DISCRETE)
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        IQLearn("MlpPolicy", RandomEnv(spaces.Dict({"a": BOX}), DISCRETE))
    for policy, action_space in ((PlainSACPolicy, WIDE_BOX), (SACPolicy, DISCRETE), (SoftQPolicy, WIDE_BOX)):
        with pytest.raises(ValueError, match="or a class derived from"):
            make(policy, BOX, action_space)
    with pytest.raises(ValueError, match="`env` is None: give `observation_space` and `action_space`"):
        IQLearn("MlpPolicy", None, "bundled:CartPole-v1", offline=True)
    with pytest.raises(ValueError, match="only offline=True learns without an environment"):
        IQLearn("MlpPolicy", None, "bundled:CartPole-v1", observation_space=BOX, action_space=DISCRETE)
    with pytest.raises(ValueError, match="only for env=None"):
        IQLearn("MlpPolicy", "CartPole-v1", observation_space=BOX, action_space=DISCRETE)
    with pytest.raises(ValueError, match="`expert_data` is None"):
        IQLearn("MlpPolicy", "CartPole-v1").learn(10)


def test_policy_classes_by_action_space():
    assert type(make(SoftQPolicy, BOX, DISCRETE).policy) is SoftQPolicy
    model = make(SACPolicy, BOX, WIDE_BOX)
    assert type(model.policy) is SACPolicy
    assert model.actor is model.policy.actor
    assert model.critic_target is model.policy.critic_target


def test_time_limit_of_the_environment_tells_truncated_from_terminated():
    episode = dict(acts=np.zeros(500, dtype=int), rews=np.ones(500), terminal=True)
    episode["obs"] = np.zeros((501, 4), dtype=np.float32)
    assert load_demonstrations(episode).trajectories[0].terminated
    model = IQLearn("MlpPolicy", "CartPole-v1", episode, offline=True)
    assert model.expert_buffer.all().dones.sum() == 0
    model = IQLearn("MlpPolicy", gym.make("CartPole-v1", max_episode_steps=600), episode, offline=True)
    assert model.expert_buffer.all().dones.sum() == 1
    # a wrapper around an environment that is not registered
    env = gym.wrappers.TimeLimit(RandomEnv(CARTPOLE_OBS, spaces.Discrete(2)), max_episode_steps=500)
    assert IQLearn("MlpPolicy", env, episode, offline=True).expert_buffer.all().dones.sum() == 0


def test_prints_the_settings_in_force(capsys):
    make("MlpPolicy", BOX, DISCRETE, offline=True, verbose=1).learn(1)
    assert "occupancy_term=expert, penalty=expert" in capsys.readouterr().out
