"""The term of behavioural cloning."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces

from sb3_iq import IQLearn, SpacesEnv
from sb3_iq.iq_learn import updates
from sb3_iq.iq_learn.networks import input_norm
from tests.utils import BOX, DISCRETE, IMAGE, WIDE_BOX, RandomEnv, make_model


def make(observation_space=BOX, action_space=DISCRETE, policy="MlpPolicy", **kwargs):
    return make_model(policy, observation_space, action_space, **{"policy_kwargs": dict(net_arch=[16]), **kwargs})


@pytest.mark.slow
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX])
@pytest.mark.parametrize("offline", [False, True])
def test_cloning_term(action_space, offline):
    options = dict(learning_rate=3e-3, actor_learning_rate=3e-3)
    options["objective_kwargs"] = dict(occupancy_term="expert" if offline else "start_states")
    errors = []
    for bc_coef in (0.0, 10.0):
        model = make(BOX, action_space, bc_coef=bc_coef, offline=offline, **options).learn(200, log_interval=None)
        expert = model.expert_buffer.all()
        errors.append(model.policy.cloning_loss(expert.observations, expert.actions).item())
        assert ("train/bc_loss" in model.logger.name_to_value) == (bc_coef != 0.0)
    assert errors[1] < errors[0]


def test_cloning_term_follows_its_schedule(monkeypatch):
    found = []
    monkeypatch.setattr(updates, "add_cloning", lambda loss, info, _, bc_coef: found.append(bc_coef) or (loss, info))
    for bc_coef, expected in ((0.2, [0.2, 0.2]), (lambda progress: progress**2, [0.25, 0.0])):
        model = make(bc_coef=bc_coef, offline=True).learn(1)
        found.clear()
        for model._current_progress_remaining in (0.5, 0.0):
            model.train(1, 4)
        assert found == expected


@pytest.mark.parametrize("action_space, expected", [(DISCRETE, [0.1, 0.0]), (WIDE_BOX, [10.0, 10.0])])
def test_cloning_term_of_the_default(action_space, expected):
    """Offline, the objective of discrete actions has the log-likelihood already; without actions there is none."""
    model = make(BOX, action_space)
    found = [model.settings.bc_coef]
    model.offline = True
    found.append(model.learn(1).settings.bc_coef)
    assert found == expected
    assert make(BOX, action_space, expert_actions="policy").settings.bc_coef == 0.0
    assert make(BOX, action_space, preset="paper").settings.bc_coef == 0.0


@pytest.mark.parametrize("offline", [False, True])
def test_rate_of_the_actor_is_that_of_today(offline):
    """Not that of the mode which the model was made in."""
    model = make(BOX, WIDE_BOX, offline=offline)
    found = {}
    for mode in (offline, not offline):
        if not mode:
            model.set_env(RandomEnv(BOX, WIDE_BOX))
        model.learn(40, offline=mode)
        found[mode] = model.actor.optimizer.param_groups[0]["lr"] / 0.2
    assert found == pytest.approx({False: 1e-4, True: 1e-3}, rel=0.2)


@pytest.mark.parametrize("offline", [False, True])
def test_the_actor_follows_q_where_it_is_not_cloned(offline):
    """Online that is on the policy's rows alone: in the expert's states nothing corrects what Q says of other actions."""
    model = make(BOX, WIDE_BOX, offline=offline).learn(20)
    policy, alpha = model.policy, model.policy.ent_coef
    batch = model.sampler.sample(8, 20, model._actions_of_expert)
    actions, log_prob, means = policy.action_log_prob(batch.obs)
    losses = alpha * log_prob - policy.aggregate(policy.q_values(batch.obs, actions))
    cloning = policy.squared_error(means[: batch.n_expert], batch.expert_actions)
    assert (batch.n_expert == len(losses)) == offline
    for bc_coef, expected in ((0.0, losses), (2.0, losses if offline else losses[batch.n_expert :])):
        loss, _ = updates.actor_loss(policy, batch, actions, log_prob, means, alpha, bc_coef)
        assert loss.item() == pytest.approx((expected.mean() + bc_coef * cloning).item(), rel=1e-4, abs=1e-5)


def test_input_norm():
    """A group for each input: the weights by which it enters the first layer, whatever networks there are."""
    for net_arch in ([16], []):
        actor = make(action_space=WIDE_BOX, policy_kwargs=dict(net_arch=net_arch)).policy.actor
        first = actor.latent_pi[0] if net_arch else actor.mu
        expected = sum(first.weight[:, i].square().sum().sqrt() for i in range(BOX.shape[0]))
        assert input_norm(actor).item() == pytest.approx(expected.item())
    actor = make(action_space=WIDE_BOX, use_sde=True, policy_kwargs=dict(net_arch=[])).policy.actor
    assert input_norm(actor).item() > 0
    with th.no_grad():
        actor.mu[0].weight.zero_()
    input_norm(actor).backward()
    assert (actor.mu[0].weight.grad == 0).all()  # and not NaN


@pytest.mark.parametrize(
    "observation_space, action_space, offline, expected",
    [(BOX, WIDE_BOX, True, 1e-2), (BOX, WIDE_BOX, False, 0.0), (BOX, DISCRETE, True, 0.0), (IMAGE, WIDE_BOX, True, 0.0)],
    ids=["offline", "online", "discrete", "images"],
)
def test_where_inputs_are_left_out(observation_space, action_space, offline, expected):
    policy = "CnnPolicy" if observation_space is IMAGE else "MlpPolicy"
    model = make_model(policy, observation_space, action_space, offline=offline)
    assert model.settings.input_lasso == expected
    if action_space is WIDE_BOX:
        assert make_model(policy, observation_space, action_space, offline=offline, preset="paper").settings.input_lasso == 0


@pytest.mark.slow
@pytest.mark.parametrize("bc_coef, left_out", [(1.0, True), (0.0, False)])
def test_numbers_that_actions_do_not_depend_on_are_left_out(bc_coef, left_out):
    """From few transitions a network that reads all of them learns these by heart. Without cloning nothing is left out."""
    rng = np.random.default_rng(0)
    space = spaces.Box(-np.inf, np.inf, (21,), np.float32)
    obs = rng.normal(size=(201, 21)).astype(np.float32)
    arrays = dict(obs=obs[:-1], acts=np.tanh(obs[:-1, :1]), next_obs=obs[1:])
    arrays |= dict(terminated=np.zeros(200, dtype=bool), truncated=np.arange(200) == 199)
    env = SpacesEnv(space, spaces.Box(-1.0, 1.0, (1,)))
    model = IQLearn("MlpPolicy", env, arrays, offline=True, bc_coef=bc_coef, seed=0, device="cpu").learn(1_000)
    columns = model.actor.latent_pi[0].weight.norm(dim=0)
    assert (columns[0] > 5 * columns[1:].mean()).item() == left_out
