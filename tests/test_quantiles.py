"""Why there are no quantile critics: sb3-contrib's would learn nothing by this objective that a single output does not."""

import torch as th
from gymnasium import spaces
from sb3_contrib.tqc.policies import TQCPolicy

from sb3_iq.iq_learn.objective import Objective, SoftValues, iq_loss
from tests.utils import Rows


def test_the_spread_of_quantiles_is_never_learned():
    """Q is the mean of the quantiles, so that every quantile has the same gradient, and only their common mean moves."""
    th.manual_seed(0)
    n, n_quantiles = 64, 25
    policy = TQCPolicy(spaces.Box(-1, 1, (4,)), spaces.Box(-1, 1, (2,)), lambda _: 1e-3, net_arch=[32], n_critics=1)
    obs, actions, next_v, terminated = th.randn(n, 4), th.rand(n, 2), th.randn(n), (th.rand(n) < 0.2).float()
    quantiles = policy.critic(obs, actions).squeeze(1).detach().requires_grad_()
    assert quantiles.shape == (n, n_quantiles)

    def loss():
        values = SoftValues(quantiles.mean(dim=1)[None], next_v, next_v)
        return iq_loss(values, Rows(terminated, n // 2), Objective(gamma=0.9))[0]

    start = quantiles.detach() - quantiles.detach().mean(dim=1, keepdim=True)
    optimizer = th.optim.SGD([quantiles], lr=50.0)
    losses = []
    for _ in range(100):
        optimizer.zero_grad()
        losses.append(loss())
        losses[-1].backward()
        assert th.allclose(quantiles.grad, quantiles.grad[:, :1].expand_as(quantiles))
        optimizer.step()
    assert losses[-1] < losses[0] - 0.1
    spread = quantiles.detach() - quantiles.detach().mean(dim=1, keepdim=True)
    assert th.allclose(spread, start, atol=1e-4)
