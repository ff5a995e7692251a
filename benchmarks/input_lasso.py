"""
What a group lasso on the inputs does for a clone: a plain network of two layers of 256, the mean of its weights over the last
steps, with and without the lasso. One line of ``results/input-lasso.jsonl`` for each run.

    export SB3_IQ_DEMOS=... OMP_NUM_THREADS=1
    python benchmarks/input_lasso.py --env Hopper-v5 --n-demos 1 --seeds 0 10 11
    python benchmarks/input_lasso.py --env FetchPush-v4 --n-demos 50 --networks 0 1 2 --n-eval-episodes 100

Runs that already have a line are skipped.
"""

import argparse
import itertools
import shlex
import sys
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from published import N_EVAL_EPISODES
from run import RESULTS, environment_of, git_commit
from torch import nn

from sb3_iq import load_demonstrations
from sb3_iq.compare.evaluation import play_with_success
from sb3_iq.compare.results import append_line, read_lines

PATH = RESULTS / "input-lasso.jsonl"
STEPS, BATCH, RATE, AVERAGE = 4_000, 256, 1e-3, 2e-3


def vectors(obs: Any) -> np.ndarray:
    """
    :param obs: observations, or a dictionary of such
    :return: those of a dictionary in the order of its keys, shape (n, n_numbers). In their own precision, unlike
        :func:`sb3_iq.rewards.ends.vectors`: in another one, the same command has another return
    """
    return np.concatenate([obs[key] for key in sorted(obs)], axis=1) if isinstance(obs, dict) else np.asarray(obs)


class Clone(nn.Module):
    """
    :param obs: observations of the demonstrations, shape (n, n_numbers)
    :param space: the space of actions
    """

    def __init__(self, obs: np.ndarray, space: spaces.Box) -> None:
        super().__init__()
        self.mean, self.std, self.space = obs.mean(axis=0), obs.std(axis=0) + 1e-3, space
        sizes = obs.shape[1], 256, 256, space.shape[0]
        self.net = nn.Sequential(nn.Linear(*sizes[:2]), nn.ReLU(), nn.Linear(*sizes[1:3]), nn.ReLU(), nn.Linear(*sizes[2:]))

    def forward(self, obs: np.ndarray) -> th.Tensor:
        """:return: actions scaled to [-1, 1], shape (batch, action_dim)"""
        return th.tanh(self.net(th.as_tensor((obs - self.mean) / self.std, dtype=th.float32)))

    def predict(self, obs: Any, **_: Any) -> tuple[np.ndarray, None]:
        """:return: actions in the environment's units"""
        with th.no_grad():
            scaled = (self(vectors(obs)).numpy() + 1) / 2
        return self.space.low + scaled * (self.space.high - self.space.low), None


def clone(env_id: str, n_demos: int, seed: int, lasso: float, network_seed: int, n_episodes: int) -> dict[str, Any]:
    """
    :param env_id: the environment, whose observations are vectors, or dictionaries of vectors
    :param n_demos: the number of demonstrations
    :param seed: the seed of their choice
    :param lasso: coefficient of the lasso
    :param network_seed: the seed of the network and its batches
    :param n_episodes: how many to play
    :return: the clone's mean and worst return, and where the environment tells it the share of successes
    """
    th.manual_seed(network_seed)
    environment = environment_of(env_id)
    space: Any = environment.make().action_space
    demonstrations = load_demonstrations(f"demos:{env_id}", n_trajectories=n_demos, seed=seed)
    obs = np.concatenate([vectors(episode.obs)[:-1] for episode in demonstrations])
    acts = np.concatenate([episode.acts for episode in demonstrations])
    targets = th.as_tensor(2 * (acts - space.low) / (space.high - space.low) - 1, dtype=th.float32)
    network = Clone(obs, space)
    averaged = [parameter.detach().clone() for parameter in network.parameters()]
    optimizer = th.optim.AdamW(network.parameters(), lr=RATE, weight_decay=0.01)
    first: Any = network.net[0]
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * (1 - step / STEPS)
        rows = th.randint(len(obs), (BATCH,))
        error = (network(obs[rows.numpy()]) - targets[rows]).square().sum(dim=1).mean()
        optimizer.zero_grad()
        (error + lasso * first.weight.norm(dim=0).sum()).backward()
        optimizer.step()
        for mean, parameter in zip(averaged, network.parameters(), strict=True):
            mean.lerp_(parameter.detach(), max(AVERAGE, 1 / (step + 1)))
    for mean, parameter in zip(averaged, network.parameters(), strict=True):
        parameter.data.copy_(mean)
    env = environment.vectorized(n_episodes)
    returns, success_rate = play_with_success(network, env, n_episodes)
    env.close()
    found = {"return": round(float(returns.mean()), 1), "worst": round(float(returns.min()), 1)}
    return found if success_rate is None else {**found, "success_rate": success_rate}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", required=True)
    parser.add_argument("--n-demos", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--networks", type=int, nargs="+", default=[0], metavar="SEED")
    parser.add_argument("--lasso", type=float, nargs="+", default=[0.0, 0.003])
    parser.add_argument("--n-eval-episodes", type=int, default=N_EVAL_EPISODES)
    args = parser.parse_args()
    th.set_num_threads(1)
    command = shlex.join(["python", "benchmarks/input_lasso.py", *sys.argv[1:]])
    for seed, network, lasso in itertools.product(args.seeds, args.networks, args.lasso):
        key = {"env": args.env, "n_demos": args.n_demos, "seed": seed, "lasso": lasso, "network": network}
        if any(all({"network": 0, **line}[name] == value for name, value in key.items()) for line in read_lines(PATH)):
            continue
        found = clone(args.env, args.n_demos, seed, lasso, network, args.n_eval_episodes)
        line = {**key, **found, "commit": git_commit(), "command": command}
        append_line(PATH, line)
        print(line, flush=True)


if __name__ == "__main__":
    main()
