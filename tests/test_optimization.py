"""What makes a gradient step fast, and must not change what it computes."""

import pytest
import torch as th
from stable_baselines3.common import utils
from torch.utils.flop_counter import FlopCounterMode

from sb3_iq import IQLearn
from sb3_iq.iq_learn.optimization import InPlaceReLU, parameters_of, polyak_update, without_gradient
from tests.utils import BOX, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories


def make(action_space, **kwargs):
    env = RandomEnv(BOX, action_space)
    return IQLearn("MlpPolicy", env, random_trajectories(env), offline=True, seed=0, device="cpu", **kwargs)


@pytest.mark.parametrize("tau", [0.005, 0.7, 1.0])
def test_polyak_update_is_that_of_sb3(tau):
    sources, targets = th.randn(3, 4, 5), [[*th.randn(3, 4, 5)], []]
    targets[1] = [target.clone() for target in targets[0]]
    polyak_update(sources, targets[0], tau)
    utils.polyak_update(sources, targets[1], tau)
    assert all(th.allclose(mine, other, atol=1e-6) for mine, other in zip(*targets, strict=True))
    polyak_update([], [], tau)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
def test_defaults_give_way_to_what_the_user_chooses(tmp_path, action_space):
    def optimizer_and_activations(model):
        _, _, optimizer = model.policy.critic_networks()
        activations = {type(module) for module in model.policy.modules() if isinstance(module, (th.nn.ReLU, th.nn.Tanh))}
        return type(optimizer), optimizer.param_groups[0].get("fused"), activations

    adam, rmsprop = th.optim.Adam, th.optim.RMSprop
    model = make(action_space)
    assert optimizer_and_activations(model) == (adam, True, {InPlaceReLU})
    chosen = dict(optimizer_kwargs=dict(weight_decay=0.1), activation_fn=th.nn.ReLU)
    assert optimizer_and_activations(make(action_space, policy_kwargs=chosen)) == (adam, None, {th.nn.ReLU})
    chosen = dict(optimizer_class=rmsprop, activation_fn=th.nn.Tanh)
    assert optimizer_and_activations(make(action_space, policy_kwargs=chosen)) == (rmsprop, None, {th.nn.Tanh})
    # A model saved with another optimizer's step goes on with it, and its parameters fit
    old = make(action_space, policy_kwargs=dict(optimizer_kwargs={}, activation_fn=th.nn.ReLU)).learn(3)
    model.set_parameters(old.get_parameters())
    model.learn(3)


def test_same_results_as_with_the_defaults_of_sb3():
    plain = dict(optimizer_kwargs={}, activation_fn=th.nn.ReLU)
    for action_space in (DISCRETE, WIDE_BOX):
        models = [make(action_space, policy_kwargs=kwargs).learn(20) for kwargs in ({}, plain)]
        parameters = [th.cat([p.detach().flatten() for p in model.policy.parameters()]) for model in models]
        assert th.allclose(*parameters, atol=1e-5)


def test_no_gradient_of_the_critic_in_the_actor_step():
    """Nor through targets: the matrix products of a gradient step are those that it takes, and no more."""
    model = make(WIDE_BOX, policy_kwargs=dict(net_arch=[16], n_critics=1)).learn(1)
    with FlopCounterMode(display=False) as counter:
        model.train(1, 8)
    # Rows: 8 of (s, a), as many of s' and of V's states, here the expert's. One hidden layer of 16 units
    actor, critic = 2 * (3 * 16 + 16 * 4), 2 * (5 * 16 + 16)  # for each row, forward
    to_inputs_of_heads, to_inputs_of_critic = 2 * 16 * 4, 2 * (5 * 16 + 16)
    forward = 8 * actor + 16 * actor + 8 * critic + 16 * critic + 8 * critic
    backward_critic = 16 * (critic + 2 * 16)
    backward_actor = 8 * to_inputs_of_critic + 8 * (actor + to_inputs_of_heads)
    # Cloning takes the means that the actor's step has computed
    assert counter.get_total_flops() == forward + backward_critic + backward_actor


def test_without_gradient_leaves_frozen_parameters_frozen():
    parameters = [th.nn.Parameter(th.ones(2)), th.nn.Parameter(th.ones(2), requires_grad=False)]
    optimizer = th.optim.Adam(parameters)
    with pytest.raises(RuntimeError, match="inside"), without_gradient(parameters_of(optimizer)):
        assert not any(parameter.requires_grad for parameter in parameters)
        raise RuntimeError("inside")
    assert [parameter.requires_grad for parameter in parameters] == [True, False]
