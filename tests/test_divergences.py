"""The table of divergences on small random MDPs, where occupancies are exact."""

import numpy as np
import pytest
import torch as th

from sb3_iq.iq_learn.divergences import DIVERGENCES, MAX_SLOPE

GAMMA, COEF = 0.9, 0.7
F_DIVERGENCES = [name for name, row in DIVERGENCES.items() if row.generator is not None]


def random_mdp(seed, n_states=4, n_actions=3):
    """
    :return: transitions (S, A, S'), the start distribution (S,), two policies (S, A), all random
    """
    rng = np.random.default_rng(seed)
    transitions = rng.dirichlet(np.ones(n_states), size=(n_states, n_actions))
    start = rng.dirichlet(np.ones(n_states))
    expert, policy = rng.dirichlet(2 * np.ones(n_actions), size=(2, n_states))
    return tuple(th.as_tensor(array) for array in (transitions, start, expert, policy))


def occupancy(transitions, start, policy):
    """The discounted occupancy rho(s, a), which sums to 1."""
    step = th.einsum("sa,sat->st", policy, transitions)
    states = th.linalg.solve(th.eye(len(start), dtype=th.float64) - GAMMA * step.T, (1 - GAMMA) * start)
    return states[:, None] * policy


def maximise(objective, start):
    """:return: the maximiser and the maximum of a concave function, by Newton steps on the guarded, damped problem"""
    x = start.clone().requires_grad_()
    optimizer = th.optim.LBFGS([x], max_iter=2_000, tolerance_grad=1e-13, tolerance_change=0, line_search_fn="strong_wolfe")

    def closure():
        optimizer.zero_grad()
        loss = -objective(x)
        loss.backward()
        return loss

    for _ in range(10):
        optimizer.step(closure)
    return x.detach(), -closure().item()


def first_term(name, rewards, weights):
    """E_expert[phi(r)] with exact weights instead of a batch; for Donsker and Varadhan, -log E_expert[exp(-r)]."""
    if name == "donsker_varadhan":
        return -th.logsumexp(th.log(weights) - rewards, dim=0)
    return (weights * DIVERGENCES[name].phi(rewards, COEF)).sum()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("name", [name for name in F_DIVERGENCES if name != "total_variation"])
def test_maximum_over_q_is_the_divergence(name, seed):
    """
    max_Q E_expert[phi(T Q)] - (1 - gamma) E_{s0}[V(s0)] (Eq. 5), over the Q-function of an MDP and for a fixed policy, is the
    divergence of the occupancies, and the reward T Q at the maximum is the table's.
    """
    transitions, start, expert_policy, policy = random_mdp(seed)
    expert, visited = (occupancy(transitions, start, pi) for pi in (expert_policy, policy))
    ratio = visited / expert
    assert ratio.max() < MAX_SLOPE
    alpha = 0.1

    def value(q):
        return (policy * (q - alpha * th.log(policy))).sum(dim=1)

    def reward(q):
        return q - GAMMA * transitions @ value(q)

    def objective(q):
        return first_term(name, reward(q).flatten(), expert.flatten()) - (1 - GAMMA) * (start * value(q)).sum()

    q, maximum = maximise(objective, th.ones_like(expert))
    # E_policy[r] is (1 - gamma) E[V(s0)] without the entropy that V counts
    entropy = -(visited * th.log(policy)).sum()
    row = DIVERGENCES[name]
    assert maximum + alpha * entropy.item() == pytest.approx((expert * row.generator(ratio, COEF)).sum().item(), abs=1e-6)
    found, expected = reward(q), row.optimal_reward(ratio, COEF)
    if name == "donsker_varadhan":  # defined up to a constant
        found, expected = found - found.mean(), expected - expected.mean()
    assert th.allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize("name", F_DIVERGENCES)
def test_optimal_reward_and_divergence(name):
    """max_r E_expert[phi(r)] - E_policy[r], reward by reward: at r* stands the divergence, and no other reward does better."""
    rng = np.random.default_rng(0)
    expert, policy = (th.as_tensor(rng.dirichlet(np.ones(8))) for _ in range(2))
    row = DIVERGENCES[name]
    ratio = policy / expert
    best = row.optimal_reward(ratio, COEF)

    def objective(r):
        return first_term(name, r, expert) - (policy * r).sum()

    assert objective(best).item() == pytest.approx((expert * row.generator(ratio, COEF)).sum().item(), abs=1e-12)
    for scale in (1e-3, 0.1, 10.0):
        for _ in range(20):
            assert objective(best + scale * th.as_tensor(rng.normal(size=8))) <= objective(best) + 1e-12


@pytest.mark.parametrize("name", DIVERGENCES)
def test_phi_is_concave_and_phi_prime_its_derivative(name):
    row = DIVERGENCES[name]
    r = th.linspace(-20, 20, 4001, dtype=th.float64, requires_grad=True)
    (derivative,) = th.autograd.grad(row.phi(r, COEF).sum(), r)
    assert th.allclose(derivative, row.phi_prime(r.detach(), COEF), atol=1e-12)
    assert (derivative.diff() <= 1e-12).all()
    if name not in ("chi2", "total_variation"):  # of bounded slope by themselves, and not increasing everywhere
        assert (derivative >= 0).all() and (derivative <= MAX_SLOPE + 1e-9).all()


@pytest.mark.parametrize("dtype", [th.float32, th.float64])
@pytest.mark.parametrize("name", DIVERGENCES)
def test_finite_for_any_reward(name, dtype):
    row = DIVERGENCES[name]
    r = th.linspace(-1e3, 1e3, 20_001, dtype=dtype, requires_grad=True)
    value = row.expectation(row.phi(r, COEF))
    (gradient,) = th.autograd.grad(value, r)
    assert th.isfinite(row.phi(r, COEF)).all() and th.isfinite(value)
    assert th.isfinite(gradient).all() and th.isfinite(row.phi_prime(r.detach(), COEF)).all()


def test_guard_saturates_at_the_ratio_it_is_exact_up_to():
    """A pair the policy visits more than MAX_SLOPE times as often as the expert pulls its reward down without end."""
    for name in ("reverse_kl", "forward_kl", "jensen_shannon", "squared_hellinger"):
        row = DIVERGENCES[name]
        exact = row.optimal_reward(th.tensor(0.999 * MAX_SLOPE, dtype=th.float64), COEF)
        assert row.phi_prime(exact, COEF).item() == pytest.approx(0.999 * MAX_SLOPE)
        assert row.phi_prime(exact - 1, COEF).item() == pytest.approx(MAX_SLOPE)
