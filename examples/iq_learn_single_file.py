# The paper: https://arxiv.org/abs/2106.12142 - the library version of this file: sb3_iq/iq_learn/iq_learn.py
"""
IQ-Learn in one file: CartPole-v1, offline, with nothing but torch, numpy and gymnasium.

Inverse soft-Q learning (Garg et al., NeurIPS 2021) learns *one* function, Q, from demonstrations. The policy and the reward
that explains the expert are both read off from it. Equation numbers are the paper's.

1.  **Maximum-entropy RL.** For a reward r and a temperature alpha, the optimal soft-Q function fixes everything else::

        V(s)    = alpha log sum_a exp(Q(s, a) / alpha)                 the soft maximum over the actions
        pi(a|s) = exp((Q(s, a) - V(s)) / alpha)                        a softmax: hence alpha log pi = Q - V
        r(s, a) = Q(s, a) - gamma E_s'[V(s')]                          the soft Bellman equation, solved for r

    The last line is the key: it reads the Bellman equation backwards. For a fixed policy it is a bijection between rewards and
    Q functions (the *inverse soft Bellman operator*), so a search over rewards can be a search over Q.

2.  **Inverse RL.** Max-entropy inverse RL looks for the reward under which the expert does better than every other policy,
    with a penalty psi that keeps rewards from growing without bound: a saddle point, max over r, min over pi. Rewritten in Q
    (Eq. 5), the inner minimum is known in closed form, pi = softmax(Q / alpha), and the adversarial game becomes a single
    concave maximisation (Eq. 9)::

        max_Q  E_expert[ phi( Q(s, a) - gamma V(s') ) ] - (1 - gamma) E_s0[ V(s0) ]

    phi(r) comes from the penalty, and decides which divergence between expert and policy is minimised. Here it is the
    chi-squared one, phi(r) = r - c r^2: rewards may be anything, but large ones are expensive.

3.  **Offline.** The start states s0 can be exchanged for the expert's own states: for every state distribution that a policy
    really visits, E[V(s) - gamma V(s')] telescopes along the episodes to (1 - gamma) E[V(s0)]. With that, -gamma V(s') cancels
    and what is left needs no environment (Eq. 12)::

        min_Q  -E_expert[ Q(s, a) - V(s) ]  +  c E_expert[ (Q(s, a) - gamma (1 - d) V(s'))^2 ]

    The first term is -alpha E[log pi(a|s)]: behavioural cloning. The second keeps the recovered reward small, which makes
    the values agree *along the expert's trajectories*: it knows which state follows which, and a plain classifier doesn't.

**Terminated and truncated.** d = 1 says that the episode *ended* in s' (the pole fell): the value of what follows is 0. An
episode that was *cut* at CartPole's limit of 500 steps goes on as far as the values are concerned: d = 0, and V(s') counts.
The expert below never drops the pole, so all its episodes are cut, and no d is 1: reading Gymnasium's `truncated` as an
end would teach Q that the 500th step of a perfect balance is worth nothing.

**The expert** is not a neural network: a linear-quadratic regulator, solved from the linearised equations of CartPole, whose
force is rounded to the two that the environment offers. It balances until the limit, from every start. That is an easy expert
to imitate (its decision is a half-space of the four state variables), which keeps this example short and fast.

Run: python iq_learn_single_file.py --seed 0
"""

import argparse
import time
from dataclasses import dataclass

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.nn import functional as F


@dataclass
class Args:
    """Typical values; the defaults solve CartPole-v1 in a few seconds."""

    seed: int = 0
    """seed of the demonstrations, of the network and of the batches"""
    n_demos: int = 10
    """number of expert episodes (500 transitions each)"""
    n_steps: int = 3_000
    """number of gradient steps"""
    batch_size: int = 64
    learning_rate: float = 5e-4
    gamma: float = 0.99
    """discount factor"""
    alpha: float = 0.05
    """temperature: high = a more random policy, low = a nearly deterministic one"""
    c: float = 0.5
    """coefficient of the chi-squared penalty on the recovered reward"""
    n_eval_episodes: int = 20


# ------------------------------------------------------------------------------------------------- the expert


def lqr_gain(env: gym.Env) -> np.ndarray:
    """
    The gain K of the controller force = -K s that balances CartPole at the least quadratic cost.

    Near the upright position sin(x) = x and cos(x) = 1, and the equations of motion of the cart (position x) and
    of the pole (angle th, positive to the right) become linear in the state (x, x', th, th') and in the force.

    :param env: CartPole, which knows its own masses and lengths
    :return: four numbers, one for each state variable
    """
    cart = env.unwrapped
    gravity, length, mass = cart.gravity, cart.length, cart.total_mass  # type: ignore[attr-defined]
    pole = cart.polemass_length / mass  # type: ignore[attr-defined]
    inertia = length * (4.0 / 3.0 - cart.masspole / mass)  # type: ignore[attr-defined]
    # th'' = (gravity th - force / mass) / inertia,  x'' = force / mass - pole th''
    drift = np.zeros((4, 4))
    drift[0, 1] = drift[2, 3] = 1.0
    drift[3, 2], drift[1, 2] = gravity / inertia, -pole * gravity / inertia
    push = np.array([[0.0], [1.0 / mass + pole / (mass * inertia)], [0.0], [-1.0 / (mass * inertia)]])
    a, b = np.eye(4) + cart.tau * drift, cart.tau * push  # type: ignore[attr-defined]
    cost_state, cost_force = np.diag([1.0, 0.1, 10.0, 0.1]), np.array([[0.01]])
    value = cost_state
    for _ in range(1_000):  # the Riccati equation, iterated until it stands still
        gain = np.linalg.solve(cost_force + b.T @ value @ b, b.T @ value @ a)
        value = cost_state + a.T @ value @ (a - b @ gain)
    return gain[0]


def collect_demonstrations(args: Args) -> tuple[dict[str, torch.Tensor], list[float]]:
    """
    Let the expert play.

    :return: transitions (obs, actions, next_obs, terminated), and the return of each episode
    """
    env = gym.make("CartPole-v1")
    gain = lqr_gain(env)
    rows: list[tuple] = []
    returns = []
    for episode in range(args.n_demos):
        obs, _ = env.reset(seed=10_000 + 1_000 * args.seed + episode)
        total, over = 0.0, False
        while not over:
            action = int(-gain @ obs > 0)  # CartPole has a push to the left and a push to the right: only the sign is left
            next_obs, reward, terminated, truncated, _ = env.step(action)
            rows.append((obs, action, next_obs, terminated))  # never `terminated or truncated`: see the top of this file
            obs, total, over = next_obs, total + float(reward), terminated or truncated
        returns.append(total)
    obs_, actions, next_obs_, terminated_ = (np.array(column) for column in zip(*rows, strict=True))
    data = {
        "obs": torch.as_tensor(obs_),
        "actions": torch.as_tensor(actions).reshape(-1, 1),
        "next_obs": torch.as_tensor(next_obs_),
        "terminated": torch.as_tensor(terminated_, dtype=torch.float32).reshape(-1, 1),
    }
    return data, returns


# -------------------------------------------------------------------------------------------------- IQ-Learn


class SoftQNetwork(nn.Module):
    """Q(s, .): one number for each action; the value, the policy and the reward follow from it."""

    def __init__(self, obs_dim: int, n_actions: int, alpha: float):
        super().__init__()
        self.alpha = alpha
        self.net = nn.Sequential(nn.Linear(obs_dim, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, n_actions))

    def forward(self, obs: torch.Tensor) -> torch.Tensor:
        return self.net(obs)

    def value(self, obs: torch.Tensor) -> torch.Tensor:
        """V(s) = alpha log sum_a exp(Q(s, a) / alpha), shape (batch, 1)"""
        return self.alpha * torch.logsumexp(self(obs) / self.alpha, dim=1, keepdim=True)

    def policy(self, obs: torch.Tensor) -> torch.Tensor:
        """pi(.|s) = softmax(Q(s, .) / alpha), shape (batch, n_actions)"""
        return F.softmax(self(obs) / self.alpha, dim=1)


def recovered_reward(q_net: SoftQNetwork, batch: dict[str, torch.Tensor], gamma: float) -> torch.Tensor:
    """Eq. 11: r = Q(s, a) - gamma V(s'), with no V(s') after a terminal transition; shape (batch, 1)"""
    q_values = q_net(batch["obs"]).gather(1, batch["actions"])
    return q_values - gamma * (1.0 - batch["terminated"]) * q_net.value(batch["next_obs"])


def iq_loss(q_net: SoftQNetwork, batch: dict[str, torch.Tensor], gamma: float, c: float) -> torch.Tensor:
    """Eq. 12: -E[Q(s, a) - V(s)] + c E[r^2]; no target network: the gradient runs through both values"""
    advantage = q_net(batch["obs"]).gather(1, batch["actions"]) - q_net.value(batch["obs"])  # = alpha log pi(a|s)
    return -advantage.mean() + c * recovered_reward(q_net, batch, gamma).pow(2).mean()


def train(data: dict[str, torch.Tensor], args: Args) -> SoftQNetwork:
    """Gradient steps on expert batches: there is no environment in here."""
    torch.manual_seed(args.seed)
    rng = np.random.default_rng(args.seed)
    q_net = SoftQNetwork(data["obs"].shape[1], 2, args.alpha)
    optimizer = torch.optim.Adam(q_net.parameters(), lr=args.learning_rate)
    for step in range(1, args.n_steps + 1):
        rows = torch.as_tensor(rng.integers(len(data["obs"]), size=args.batch_size))
        loss = iq_loss(q_net, {name: column[rows] for name, column in data.items()}, args.gamma, args.c)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % max(args.n_steps // 5, 1) == 0:
            print(f"step {step:5d}  loss {loss.item():8.4f}")
    return q_net


def evaluate(q_net: SoftQNetwork, args: Args) -> np.ndarray:
    """Returns of the deterministic policy argmax_a Q(s, a), on starts that the expert never saw."""
    env = gym.make("CartPole-v1")
    returns = []
    for episode in range(args.n_eval_episodes):
        obs, _ = env.reset(seed=20_000 + 1_000 * args.seed + episode)
        total, over = 0.0, False
        while not over:
            with torch.no_grad():
                action = int(q_net(torch.as_tensor(obs).unsqueeze(0)).argmax())
            obs, reward, terminated, truncated, _ = env.step(action)
            total, over = total + float(reward), terminated or truncated
        returns.append(total)
    return np.array(returns)


def print_rewards(q_net: SoftQNetwork, gamma: float) -> None:
    """The recovered reward of both actions in a few states; s' and d come from CartPole's own equations."""
    states = {"upright": (0.0, 0.0, 0.0, 0.0), "falls slowly": (0.0, 0.0, 0.05, 0.5), "almost lost": (0.0, 0.0, 0.2, 1.5)}
    env = gym.make("CartPole-v1").unwrapped
    print("recovered reward r = Q(s, a) - gamma (1 - d) V(s'), the pole leaning to the right:")
    for name, state in states.items():
        for action, push in enumerate(("left", "right")):
            env.reset(seed=0)
            env.state = np.array(state)  # type: ignore[attr-defined]
            next_obs, _, terminated, _, _ = env.step(action)
            batch = {"obs": torch.tensor([state]), "actions": torch.tensor([[action]])}
            batch |= {"next_obs": torch.as_tensor(next_obs).unsqueeze(0), "terminated": torch.tensor([[float(terminated)]])}
            with torch.no_grad():
                reward = recovered_reward(q_net, batch, gamma).item()
            remark = "  (the pole falls, so d = 1; far from all data)" if terminated else ""
            print(f"  {name:12s}  push {push:5s}  r = {reward:7.3f}{remark}")


def main(args: Args) -> np.ndarray:
    start = time.perf_counter()
    data, expert_returns = collect_demonstrations(args)
    print(f"expert: {args.n_demos} episodes, mean return {np.mean(expert_returns):.1f}, {len(data['obs'])} transitions")
    q_net = train(data, args)
    returns = evaluate(q_net, args)
    print(f"learned: {returns.mean():.1f} +- {returns.std():.1f}, min {returns.min():.0f}, {len(returns)} episodes")

    print_rewards(q_net, args.gamma)
    print(f"total time: {time.perf_counter() - start:.1f} s")
    return returns


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="IQ-Learn on CartPole-v1, offline")
    for name, default in vars(Args()).items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(default), default=default)
    torch.set_num_threads(1)  # for networks this small, threads cost more than they bring
    main(Args(**vars(parser.parse_args())))
