"""The one-file version of IQ-Learn: what it promises in its docstring."""

import ast
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

EXAMPLE = Path(__file__).parents[1] / "examples" / "iq_learn_single_file.py"


@pytest.fixture(scope="module")
def example():
    spec = importlib.util.spec_from_file_location("iq_learn_single_file", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_one_sitting():
    assert len(EXAMPLE.read_text().splitlines()) <= 250


def test_imports_only_torch_numpy_gymnasium():
    imported = set()
    for node in ast.walk(ast.parse(EXAMPLE.read_text())):
        if isinstance(node, ast.Import):
            imported |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.module is not None and node.level == 0, "no relative import: the file stands alone"
            imported.add(node.module.split(".")[0])
    assert imported - set(sys.stdlib_module_names) == {"torch", "numpy", "gymnasium"}


def test_demonstrations(example):
    args = example.Args(n_demos=3)
    data, returns = example.collect_demonstrations(args)
    assert returns == [500.0] * 3
    assert all(len(column) == 1500 for column in data.values())
    # Cut at the time limit: not one terminal transition
    assert data["terminated"].sum() == 0
    # The next observation is the observation of the next row, also at a cut: there it is the last one, not a reset
    inside = torch.arange(1499) % 500 != 499
    assert torch.equal(data["next_obs"][:-1][inside], data["obs"][1:][inside])
    assert not torch.isclose(data["next_obs"][499], data["obs"][500]).all()


def test_loss_by_hand(example):
    """Two actions, one state: every term of Eq. 12 in numbers."""
    alpha, gamma, c = 0.5, 0.9, 0.25
    q_net = example.SoftQNetwork(4, 2, alpha)
    with torch.no_grad():
        for parameter in q_net.parameters():
            parameter.zero_()
        q_net.net[-1].bias.copy_(torch.tensor([1.0, 2.0]))
    value = alpha * np.log(np.exp(1.0 / alpha) + np.exp(2.0 / alpha))
    obs = torch.zeros(2, 4)
    batch = {"obs": obs, "actions": torch.tensor([[0], [1]]), "next_obs": obs, "terminated": torch.tensor([[0.0], [1.0]])}
    rewards = np.array([1.0 - gamma * value, 2.0])  # after the terminal transition there is no value
    expected = -np.mean([1.0 - value, 2.0 - value]) + c * np.mean(rewards**2)
    assert example.iq_loss(q_net, batch, gamma, c).item() == pytest.approx(expected, rel=1e-5)
    np.testing.assert_allclose(example.recovered_reward(q_net, batch, gamma).detach().numpy()[:, 0], rewards, rtol=1e-5)
    # Q - V = alpha log pi, on which the identity with behavioural cloning rests
    log_policy = alpha * torch.log(q_net.policy(obs)[:, 1])
    np.testing.assert_allclose(log_policy.detach().numpy(), 2.0 - value, rtol=1e-5)


@pytest.mark.slow
def test_learns(example, capsys):
    returns = example.main(example.Args(seed=0, n_steps=2_000))
    assert len(returns) == 20
    assert returns.mean() >= 475, returns
    assert "recovered reward" in capsys.readouterr().out
