"""The objective against hand-computed cases and the identities of the paper."""

import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3.common.utils import set_random_seed

from sb3_iq.iq_learn import SoftQPolicy
from sb3_iq.iq_learn.divergences import DIVERGENCES
from sb3_iq.iq_learn.objective import Objective, SoftValues, iq_loss, soft_bellman_reward
from tests.utils import Rows

GAMMA, COEF = 0.9, 0.5


def loss_of(values, terminated, n_expert, reward_prior=0.0, **form):
    """:return: the loss and its parts"""
    objective = Objective(**{"gamma": GAMMA, "penalty_coef": COEF, **form})
    return iq_loss(values, Rows(terminated, n_expert, reward_prior), objective)


def random_values(n_critics=1, n=6, n_values=6, seed=0):
    generator = th.Generator().manual_seed(seed)
    shapes = [(n_critics, n), (n,), (n_values,)]
    return SoftValues(*(th.randn(shape, generator=generator, dtype=th.float64).requires_grad_() for shape in shapes))


def test_reward_bootstraps_unless_terminated():
    q, next_v = th.tensor([1.0, 1.0]), th.tensor([2.0, 2.0])
    rewards = soft_bellman_reward(q, next_v, th.tensor([0.0, 1.0]), GAMMA)
    assert th.allclose(rewards, th.tensor([1 - 0.9 * 2, 1.0]))


def test_hand_computed_loss():
    # one expert and one policy transition: r_E = 3 - 0.9 * 1 = 2.1 and, terminated, r_P = 1
    values = SoftValues(q=th.tensor([[3.0, 1.0]]).double(), next_v=th.tensor([1.0, 5.0]), v=th.tensor([2.0, 0.5]))
    terminated = th.tensor([0.0, 1.0])
    loss, info = loss_of(values, terminated, 1, occupancy_term="policy_mix", penalty="mixture")
    # -r_E + mean of V - gamma V' over both + c / 2 (r_E^2 + r_P^2)
    expected = -2.1 + ((2.0 - 0.9) + 0.5) / 2 + 0.25 * (2.1**2 + 1.0)
    assert loss.item() == pytest.approx(expected, abs=1e-6)
    assert info["expert_reward"].item() == pytest.approx(2.1, abs=1e-6)
    assert info["policy_reward"].item() == pytest.approx(1.0)

    loss, _ = loss_of(values, terminated, 1, occupancy_term="policy_mix", penalty="mixture", mixture_weight=0.1)
    assert loss.item() == pytest.approx(expected - 0.25 * 0.9 * 1.0, abs=1e-6)

    values = values._replace(v=th.tensor([2.0]))
    loss, _ = loss_of(values, terminated, 1, occupancy_term="expert", penalty="expert")
    assert loss.item() == pytest.approx(-2.1 + 0.5 * 2.1**2 + 2.0 - 0.9, abs=1e-6)

    loss, _ = loss_of(values, terminated, 1, occupancy_term="start_states", penalty="expert")
    assert loss.item() == pytest.approx(-2.1 + 0.5 * 2.1**2 + 0.1 * 2.0, abs=1e-6)


@pytest.mark.parametrize("name", sorted(DIVERGENCES))
@pytest.mark.parametrize("penalty", ["expert", "mixture"])
def test_a_prior_moves_the_maximiser_and_nothing_else(name, penalty):
    """-J(Q + r_0) with the prior r_0 is -J(Q) without, up to the linear term of the policy's rewards."""
    values = random_values(2)
    priors = th.tensor([1.5, 1.5, 0.4, 0.3, 0.2, 0.1], dtype=th.float64)
    zeros = th.zeros(6, dtype=th.float64)
    form = dict(divergence=name, occupancy_term="policy", penalty=penalty)
    form |= dict(critic_bound="tanh", gradient_penalty=1.0)  # some divergences ask for one of them
    loss, info = loss_of(values, zeros, 2, **form)
    shifted, shifted_info = loss_of(values._replace(q=values.q + priors), zeros, 2, priors, **form)
    assert (shifted - loss).item() == pytest.approx(priors[2:].mean().item())
    assert shifted_info["penalty_term"].item() == pytest.approx(info["penalty_term"].item())
    gradients = [th.autograd.grad(one, values.q)[0] for one in (loss, shifted)]
    assert th.allclose(*gradients)


def test_reward_of_a_prior():
    """With one state and gamma 0, r = Q, the maximiser is r_0 + (e - p) / (c (e + p)) at the occupancies e and p."""
    expert, policy, priors = th.tensor([8, 2]), th.tensor([5, 5]), th.tensor([2.0, 0.5], dtype=th.float64)
    q_values = th.zeros(2, dtype=th.float64, requires_grad=True)
    optimizer = th.optim.SGD([q_values], lr=0.5)
    rows = th.cat([th.arange(2).repeat_interleave(counts) for counts in (expert, policy)])
    zeros = th.zeros(20, dtype=th.float64)
    for _ in range(500):
        values = SoftValues(q_values[rows][None], zeros, zeros[:0])
        loss, _ = loss_of(values, zeros, 10, priors[rows], gamma=0.0, occupancy_term="policy")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    expected = priors + (expert - policy) / (COEF * (expert + policy))
    assert q_values.tolist() == pytest.approx(expected.tolist(), abs=1e-6)


@pytest.mark.parametrize("weight", [0.1, 1.0, 3.0])
def test_reward_of_a_weighted_mixture(weight):
    """With one state and gamma 0, r = Q, the maximiser is (e - p) / (c (e + w p)) at the occupancies e and p of an action."""
    n, expert, policy = 10, th.tensor([8, 2]), th.tensor([5, 5])
    q_values = th.zeros(2, dtype=th.float64, requires_grad=True)
    optimizer = th.optim.SGD([q_values], lr=1.0)
    rows = th.cat([th.arange(2).repeat_interleave(counts) for counts in (expert, policy)])
    zeros = th.zeros(2 * n, dtype=th.float64)
    for _ in range(150):
        values = SoftValues(q_values[rows][None], zeros, zeros[:0])
        loss, _ = loss_of(values, zeros, n, gamma=0.0, occupancy_term="policy", mixture_weight=weight)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert th.allclose(q_values.detach(), ((expert - policy) / (COEF * (expert + weight * policy))).double(), atol=1e-6)


@pytest.mark.parametrize("occupancy_term", ["policy_mix", "expert", "start_states"])
@pytest.mark.parametrize("penalty", ["expert", "mixture"])
def test_gradients_of_the_logged_loss(occupancy_term, penalty):
    """The gradients are those of the loss that is logged: finite differences agree."""
    values = random_values(n_critics=2, n_values=6 if occupancy_term == "policy_mix" else 3)
    terminated = th.tensor([0.0, 0, 1, 0, 1, 0], dtype=th.float64)

    def loss(q, next_v, v):
        return loss_of(SoftValues(q, next_v, v), terminated, 3, occupancy_term=occupancy_term, penalty=penalty)[0]

    assert th.autograd.gradcheck(loss, tuple(values[:3]))


def test_loss_is_the_mean_over_critics():
    values = random_values(n_critics=2)
    terminated = th.zeros(6, dtype=th.float64)
    losses = [loss_of(values._replace(q=values.q[[k]]), terminated, 3)[0] for k in range(2)]
    assert th.allclose(loss_of(values, terminated, 3)[0], (losses[0] + losses[1]) / 2)


@pytest.mark.parametrize("name", DIVERGENCES)
def test_phi_prime_is_the_derivative(name):
    row = DIVERGENCES[name]
    r = th.linspace(-3, 3, 50, dtype=th.float64, requires_grad=True)
    (derivative,) = th.autograd.grad(row.phi(r, COEF).sum(), r)
    assert th.allclose(derivative, row.phi_prime(r.detach(), COEF))


def test_chi2_reward_and_divergence_on_a_finite_space():
    """max_r E_expert[phi(r)] - E_policy[r] is at r* and equals chi^2 / (4 c)."""
    rng = np.random.default_rng(0)
    expert, policy = (th.as_tensor(rng.dirichlet(np.ones(7))) for _ in range(2))
    row = DIVERGENCES["chi2"]
    r = th.zeros(7, dtype=th.float64, requires_grad=True)
    optimizer = th.optim.LBFGS([r], max_iter=200, tolerance_grad=1e-12, tolerance_change=1e-15)

    def closure():
        optimizer.zero_grad()
        loss = -((expert * row.phi(r, COEF)).sum() - (policy * r).sum())
        loss.backward()
        return loss

    optimizer.step(closure)
    chi2 = ((policy - expert) ** 2 / expert).sum()
    assert th.allclose(r.detach(), row.optimal_reward(policy / expert, COEF), atol=1e-6)
    assert -closure().item() == pytest.approx(chi2.item() / (4 * COEF), abs=1e-6)


def test_offline_is_likelihood_and_td_penalty():
    """
    Eq. 12: with softmax(Q / alpha), Q - V = alpha log pi, hence the offline chi-squared objective is exactly
    -alpha log-likelihood of the expert's actions + c (Q - gamma V')^2.
    """
    set_random_seed(0)
    observation_space, action_space = spaces.Box(-1, 1, (4,)), spaces.Discrete(3)
    policy = SoftQPolicy(observation_space, action_space, lambda _: 1e-3).double()
    alpha, n = th.tensor(0.3, dtype=th.float64), 32
    obs, next_obs = th.randn(2, n, 4, dtype=th.float64)
    actions, terminated = th.randint(3, (n, 1)), (th.rand(n) < 0.2).double()
    log_likelihood = th.log_softmax(policy.q_net.q_net(obs) / alpha, dim=1).gather(1, actions).mean()
    q = policy.q_net.q_net(obs).gather(1, actions).squeeze(1)
    next_v = alpha * th.logsumexp(policy.q_net.q_net(next_obs) / alpha, dim=1)
    td = ((q - GAMMA * (1 - terminated) * next_v) ** 2).mean()
    v = alpha * th.logsumexp(policy.q_net.q_net(obs) / alpha, dim=1)
    loss, _ = loss_of(SoftValues(q[None], next_v, v), terminated, n, occupancy_term="expert", penalty="expert")
    assert loss.item() == pytest.approx((-alpha * log_likelihood + COEF * td).item(), rel=1e-12)


def test_occupancy_terms_agree_over_whole_episodes():
    """Telescoping: over a discounted episode that ends in a terminal state, V(s) - gamma V(s') sums to V(s0)."""
    v = th.randn(10, dtype=th.float64)
    next_v = th.cat([v[1:], th.randn(1, dtype=th.float64)])
    terminated = th.zeros(10, dtype=th.float64)
    terminated[-1] = 1
    discount = GAMMA ** th.arange(10, dtype=th.float64)
    telescoped = (discount * (v - GAMMA * (1 - terminated) * next_v)).sum()
    assert telescoped.item() == pytest.approx(v[0].item())


def test_the_mixture_of_occupancies_is_one_by_halves():
    """However few transitions of the expert there are, as with the default's share for continuous actions."""
    for n_expert, n_policy in ((3, 3), (2, 8), (6, 1)):
        n = n_expert + n_policy
        v = th.zeros(n, requires_grad=True)
        values = SoftValues(th.zeros(2, n), th.zeros(n), v)
        loss = iq_loss(values, Rows(th.zeros(n), n_expert), Objective(occupancy_term="policy_mix"))[0]
        (weights,) = th.autograd.grad(loss, v)
        assert weights[:n_expert].tolist() == pytest.approx([0.5 / n_expert] * n_expert)
        assert weights[n_expert:].tolist() == pytest.approx([0.5 / n_policy] * n_policy)


def test_prior_rewards_are_told_where_there_are_any():
    values = SoftValues(q=th.zeros(1, 5), next_v=th.zeros(5), v=th.zeros(5))
    info = loss_of(values, th.zeros(5), 2, th.tensor([0.5, 0.7, 0.1, 0.2, 0.3]))[1]
    assert float(info["expert_prior"]) == pytest.approx(0.6) and float(info["policy_prior"]) == pytest.approx(0.2)
    assert not {"expert_prior", "policy_prior"} & set(loss_of(values, th.zeros(5), 2)[1])
