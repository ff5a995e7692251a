"""The policies: which is for which action space, how critics are aggregated, and the actor's moving average."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from sb3_contrib.common.recurrent.policies import RecurrentActorCriticPolicy
from stable_baselines3.common.torch_layers import BaseFeaturesExtractor, NatureCNN
from stable_baselines3.sac.policies import SACPolicy as PlainSACPolicy
from torch import nn

from sb3_iq import IQLearn
from sb3_iq.iq_learn import SACPolicy, SoftQPolicy, reward_priors
from sb3_iq.rewards import LearnedReward
from tests.utils import BOX, DISCRETE, IMAGE, SMALL, WIDE_BOX, RandomEnv, assert_finite, make_model, random_trajectories


class BatchNormExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=3)
        self.batch_norm = nn.BatchNorm1d(3)

    def forward(self, observations):
        return self.batch_norm(observations)


class LinearExtractor(BaseFeaturesExtractor):
    def __init__(self, observation_space):
        super().__init__(observation_space, features_dim=4)
        self.linear = nn.Linear(observation_space.shape[0], 4)

    def forward(self, observations):
        return self.linear(observations).relu()


def test_policy_classes_by_action_space():
    assert type(make_model(SoftQPolicy, BOX, DISCRETE).policy) is SoftQPolicy
    model = make_model(SACPolicy, BOX, WIDE_BOX)
    assert type(model.policy) is SACPolicy
    assert model.actor is model.policy.actor
    assert model.critic_target is model.policy.critic_target


def test_refused_policies():
    with pytest.raises(ValueError, match="`policy` is 'LstmPolicy': choose one of MlpPolicy, CnnPolicy, MultiInputPolicy"):
        make_model("LstmPolicy", BOX, DISCRETE)
    with pytest.raises(ValueError, match="MultiInputPolicy"):
        IQLearn("MlpPolicy", RandomEnv(spaces.Dict({"a": BOX}), DISCRETE))
    with pytest.raises(ValueError, match=r"'MultiInputPolicy', which is for Dict observations, .* Box\(.*use 'MlpPolicy'"):
        IQLearn("MultiInputPolicy", RandomEnv(BOX, DISCRETE))
    plain = ((PlainSACPolicy, WIDE_BOX), (RecurrentActorCriticPolicy, DISCRETE))
    for policy, action_space in (*plain, (SACPolicy, DISCRETE), (SoftQPolicy, WIDE_BOX)):
        with pytest.raises(ValueError, match="or a class derived from"):
            make_model(policy, BOX, action_space)


def test_critics():
    for aggregation in ("min", "mean"):
        model = make_model(
            "MlpPolicy", BOX, WIDE_BOX, policy_kwargs=dict(net_arch=[8], n_critics=3, critic_aggregation=aggregation)
        ).learn(20)
        obs, actions = th.rand(5, 3), th.rand(5, 2)
        q_values = model.policy.q_values(obs, actions)
        assert q_values.shape == (3, 5)
        expected = q_values.min(dim=0).values if aggregation == "min" else q_values.mean(dim=0)
        assert th.equal(model.policy.aggregate(q_values), expected)
    with pytest.raises(ValueError, match="`critic_aggregation` is 'max'"):
        make_model("MlpPolicy", BOX, WIDE_BOX, policy_kwargs=dict(critic_aggregation="max"))


@pytest.mark.parametrize("actions", [DISCRETE, WIDE_BOX])
def test_the_average_forgets_where_it_began(actions):
    """Of the n-th actor's weight w_n = n the average is that of about the last quarter, until its horizon is 1 / tau."""
    policy = make_model("MlpPolicy", BOX, actions, offline=True, policy_kwargs=dict(actor_tau=0.01)).policy
    if isinstance(policy, SoftQPolicy):
        weight, averaged = policy.q_net.q_net[0].weight.data, policy.averaged_q_net.q_net[0].weight
    else:
        weight, averaged = policy.actor.mu.weight.data, policy.averaged_actor.mu.weight
    for n in range(2001):
        weight.fill_(n)
        policy.average_actor(n)
        if n == 100:
            # Weights of (m + 1) (m + 2) (m + 3): the mean is 0.8 n
            assert averaged.mean().item() == pytest.approx(80, abs=1)
    assert averaged.mean().item() == pytest.approx(2000 - 99, abs=1)


def test_discrete_actions_are_predicted_by_the_average_and_drawn_from_the_network():
    model = make_model("MlpPolicy", BOX, DISCRETE, offline=True, policy_kwargs=dict(actor_tau=0.01)).learn(20)
    policy, obs = model.policy, BOX.sample()
    assert not th.equal(policy.averaged_q_net.q_net[0].weight, policy.q_net.q_net[0].weight)
    with th.no_grad():
        for network, action, other in ((policy.averaged_q_net, 0, 1), (policy.q_net, 1, 0)):
            network.q_net[-1].weight.zero_()
            network.q_net[-1].bias.zero_()
            network.q_net[-1].bias[action] = 100.0
            assert not network.q_net[-1].bias[other]
    assert model.predict(obs, deterministic=True)[0] == 0 and model.predict(obs, deterministic=False)[0] == 1


def test_only_images_are_averaged_over_by_default():
    assert make_model("MlpPolicy", BOX, DISCRETE, offline=True).policy.averaged_q_net is None
    assert make_model("CnnPolicy", IMAGE, DISCRETE, offline=True).policy.actor_tau == 1e-3
    assert make_model("CnnPolicy", IMAGE, DISCRETE, offline=True, preset="paper").policy.averaged_q_net is None


def test_a_policy_from_before_the_average_predicts_as_it_did():
    model = make_model("CnnPolicy", IMAGE, DISCRETE, offline=True)
    state = {name: values for name, values in model.policy.state_dict().items() if not name.startswith("averaged_q_net.")}
    for values in model.policy.averaged_q_net.parameters():
        values.data.fill_(1.0)
    model.policy.load_state_dict(state)
    pairs = zip(model.policy.q_net.parameters(), model.policy.averaged_q_net.parameters(), strict=True)
    assert all(th.equal(values, averaged) for values, averaged in pairs)


def test_averaged_actor_has_the_statistics_of_batch_norm():
    kwargs = dict(features_extractor_class=BatchNormExtractor, actor_tau=1.0)
    model = make_model("MlpPolicy", BOX, WIDE_BOX, offline=True, policy_kwargs=kwargs).learn(30)
    model.policy.set_training_mode(False)
    obs = th.as_tensor(np.random.default_rng(0).normal(50, 1, size=(8, 3)), dtype=th.float32)
    assert th.equal(model.policy.averaged_actor(obs, deterministic=True), model.actor(obs, deterministic=True))
    (batch_norm,) = (module for module in model.policy.averaged_actor.modules() if isinstance(module, nn.BatchNorm1d))
    assert batch_norm.num_batches_tracked > 0


def test_averaged_actor_has_the_statistics_on_another_device_too():
    """Where its buffers are other objects than those that it was made with, as a cast makes them on a machine without one."""
    kwargs = dict(features_extractor_class=BatchNormExtractor, actor_tau=1.0)
    policy = make_model("MlpPolicy", BOX, WIDE_BOX, offline=True, policy_kwargs=kwargs).policy.double().float()
    batch_norms = [module for module in policy.actor.modules() if isinstance(module, nn.BatchNorm1d)]
    batch_norms += [module for module in policy.averaged_actor.modules() if isinstance(module, nn.BatchNorm1d)]
    batch_norms[0].running_mean.fill_(3.0)
    policy.average_actor(0)
    assert [batch_norm.running_mean.tolist() for batch_norm in batch_norms] == [[3.0] * 3] * 2


@pytest.mark.parametrize("bound", ["none", "tanh"])
def test_a_derived_policy_may_fix_arguments_or_have_its_own(bound, monkeypatch):
    """The prior's network is made as SB3 made the policy's."""
    monkeypatch.setattr(reward_priors, "OFFLINE_STEPS", 2)

    class Fixed(SoftQPolicy):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs, net_arch=[8, 8])

    class Own(SoftQPolicy):
        def __init__(self, *args, width=8, **kwargs):
            super().__init__(*args, **{**kwargs, "net_arch": [width]})

    for policy, policy_kwargs in ((Fixed, {}), (Own, dict(width=12))):
        env = RandomEnv(BOX, DISCRETE)
        options = dict(policy_kwargs=policy_kwargs, objective_kwargs=dict(critic_bound=bound))
        model = IQLearn(policy, env, random_trajectories(env), **SMALL, **options).learn(14)
        mine, solution = model.policy.q_net, model.prior.policy.q_net
        assert [values.shape for values in mine.parameters()] == [values.shape for values in solution.parameters()]
        assert str(mine) == str(solution)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_targets_have_the_statistics_of_batch_norm(action_space):
    """They are copied after each step, also where the parameters stay; what is only logged does not change them."""
    kwargs = dict(features_extractor_class=BatchNormExtractor)
    model = make_model("MlpPolicy", BOX, action_space, offline=True, tau=1e-9, policy_kwargs=kwargs).learn(1)
    network, target, _ = model.policy.critic_networks()
    statistics, of_target = (module.features_extractor.batch_norm for module in (network, target))
    assert statistics.num_batches_tracked > 0
    assert th.equal(statistics.running_mean, of_target.running_mean)
    assert th.equal(statistics.running_var, of_target.running_var)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("reward_prior", [0.0, None])
def test_environment_steps_leave_the_statistics_of_batch_norm_alone(action_space, reward_prior):
    """They are those of the start, with discrete actions that of the offline solution, if there is one."""
    kwargs = dict(features_extractor_class=BatchNormExtractor)
    model = make_model(
        "MlpPolicy", BOX, action_space, gradient_steps=0, learning_starts=4, reward_prior=reward_prior, policy_kwargs=kwargs
    )
    batch_norms = [network.features_extractor.batch_norm for network in model.policy.critic_networks()[:2]]
    before = [{name: values.clone() for name, values in batch_norm.state_dict().items()} for batch_norm in batch_norms]
    model.learn(30)
    if action_space is DISCRETE and reward_prior is None:
        before = [network.features_extractor.batch_norm.state_dict() for network in model.prior.policy.critic_networks()[:2]]
    for batch_norm, expected in zip(batch_norms, before, strict=True):
        assert all(th.equal(values, expected[name]) for name, values in batch_norm.state_dict().items())


@pytest.mark.parametrize("actions", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("actor_tau", [0.0, 1.5])
def test_refused_moving_average(actor_tau, actions):
    with pytest.raises(ValueError, match=f"`actor_tau` is {actor_tau}"):
        make_model("MlpPolicy", BOX, actions, policy_kwargs=dict(actor_tau=actor_tau))


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_optimizers_know_what_they_step_alone(action_space):
    """SB3 2.2 gave DQN's optimizer the target network too, and SB3 2.9 cannot go on with that."""
    env = RandomEnv(BOX, action_space)
    critic, _, optimizer = IQLearn("MlpPolicy", env, random_trajectories(env), **SMALL).policy.critic_networks()
    assert [id(p) for group in optimizer.param_groups for p in group["params"]] == [id(p) for p in critic.parameters()]


@pytest.mark.parametrize("policy, observation_space", [("MlpPolicy", BOX), ("CnnPolicy", IMAGE)])
@pytest.mark.parametrize("offline", [True, False])
def test_a_shared_extractor_is_learned_by_the_critics(policy, observation_space, offline):
    class Extractor(NatureCNN if policy == "CnnPolicy" else LinearExtractor):
        pass

    kwargs = dict(share_features_extractor=True, features_extractor_class=Extractor, net_arch=[8])
    # Of the actor's loss alone nothing reaches the extractor, of the critics' what it takes
    for learning_rate, changes in ((0.0, False), (1e-3, True)):
        rates = dict(learning_rate=learning_rate, actor_learning_rate=1e-3)
        model = make_model(policy, observation_space, WIDE_BOX, offline=offline, policy_kwargs=kwargs, **rates)
        extractor = model.actor.features_extractor
        assert type(extractor) is Extractor and extractor is model.critic.features_extractor
        before = [parameter.clone() for parameter in extractor.parameters()]
        actor = model.actor.mu.weight.clone()
        model.learn(14)
        assert all(th.equal(*pair) is not changes for pair in zip(before, extractor.parameters(), strict=True))
        assert not th.equal(actor, model.actor.mu.weight)
    target, averaged = model.critic_target.features_extractor, model.policy.averaged_actor.features_extractor
    assert len({id(module) for module in (extractor, target, averaged)}) == 3
    for own, shared, start in zip(averaged.parameters(), extractor.parameters(), before, strict=True):
        assert not th.equal(own, start) and (own - shared).abs().max() <= (shared - start).abs().max()


def test_a_shared_extractor_is_saved_and_goes_on_learning(tmp_path):
    env = RandomEnv(BOX, WIDE_BOX)
    kwargs = dict(share_features_extractor=True, features_extractor_class=LinearExtractor)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, policy_kwargs=kwargs, **SMALL).learn(10)
    model.save(tmp_path / "model")
    model.learn(10, reset_num_timesteps=False)
    loaded = IQLearn.load(tmp_path / "model", expert_data=random_trajectories(env), device="cpu")
    assert loaded.actor.features_extractor is loaded.critic.features_extractor
    loaded.learn(10, reset_num_timesteps=False)
    assert all(th.equal(*pair) for pair in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True))


def test_a_shared_extractor_that_the_actor_learned_goes_on_with_the_critics(tmp_path):
    """Earlier versions had it in the actor's optimizer, as SB3 has."""
    env = RandomEnv(BOX, WIDE_BOX)
    kwargs = dict(share_features_extractor=True, features_extractor_class=LinearExtractor)
    model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, policy_kwargs=kwargs, **SMALL)
    actor, critic = model.actor, model.critic
    actor.optimizer = th.optim.Adam(actor.parameters())
    own = [parameter for name, parameter in critic.named_parameters() if not name.startswith("features_extractor.")]
    critic.optimizer = th.optim.Adam(own)
    model.learn(3)
    model.save(tmp_path / "model")
    loaded = IQLearn.load(tmp_path / "model", expert_data=random_trajectories(env), device="cpu")
    assert all(th.equal(*pair) for pair in zip(model.policy.parameters(), loaded.policy.parameters(), strict=True))
    for before, now, parameter in (
        (actor.optimizer.state[actor.mu.weight], loaded.actor.optimizer.state, loaded.actor.mu.weight),
        (critic.optimizer.state[own[-1]], loaded.critic.optimizer.state, [*loaded.critic.parameters()][-1]),
    ):
        assert th.equal(before["exp_avg"], now[parameter]["exp_avg"])
    extractor = [parameter.clone() for parameter in loaded.critic.features_extractor.parameters()]
    loaded.learn(3, reset_num_timesteps=False)
    assert not any(th.equal(*pair) for pair in zip(extractor, loaded.critic.features_extractor.parameters(), strict=True))


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("ent_coefs", [(0.3, 0.02), ("auto_0.3", "auto_0.02")])
def test_the_temperature_is_part_of_the_policy(tmp_path, action_space, ent_coefs):
    """Whatever brings over the networks brings it along: equal networks give equal rewards."""
    env = RandomEnv(BOX, action_space)
    one, other = (
        IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, ent_coef=ent_coef, **SMALL).learn(3)
        for ent_coef in ent_coefs
    )
    rng = np.random.default_rng(0)
    obs, next_obs = rng.uniform(-1, 1, (2, 20, 3)).astype(np.float32)
    actions = np.stack([env.action_space.sample() for _ in range(20)])
    transitions = (obs, actions, next_obs, np.zeros(20, bool))
    expected = one.predict_reward(*transitions)
    assert np.abs(other.predict_reward(*transitions) - expected).max() > 0.01
    one.save(tmp_path / "model")
    for brought in (one.get_parameters(), {"policy": one.policy.state_dict()}, tmp_path / "model"):
        model = IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, ent_coef=ent_coefs[1], **SMALL)
        model.set_parameters(brought, exact_match=not isinstance(brought, dict) or len(brought) > 1)
        np.testing.assert_array_equal(model.predict_reward(*transitions), expected)
        np.testing.assert_array_equal(LearnedReward(model)(*transitions), LearnedReward(one)(*transitions))
        assert model.policy.ent_coef.item() == one.policy.ent_coef.item()
        if isinstance(ent_coefs[0], str):
            before = model.policy.ent_coef.item()
            model.learn(1)
            assert before != model.policy.ent_coef.item() == pytest.approx(before, rel=0.05)
        model.save(tmp_path / "again")
        assert IQLearn.load(tmp_path / "again").policy.ent_coef.item() == model.policy.ent_coef.item()


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX, spaces.MultiDiscrete([3, 2])])
def test_parameters_can_be_reckoned_with(action_space):
    """As evolution strategies and averages of agents do."""
    one, other = (make_model("MlpPolicy", BOX, action_space, offline=True, seed=seed).learn(5) for seed in (0, 1))
    pairs = one.get_parameters()["policy"], other.get_parameters()["policy"]
    assert all(values.dtype.is_floating_point for values in pairs[0].values())
    mean = {name: 0.5 * values + 0.5 * pairs[1][name] for name, values in pairs[0].items()}
    one.set_parameters({"policy": mean}, exact_match=False)
    assert_finite(one)
    one.predict(np.zeros((2, 3), np.float32))
