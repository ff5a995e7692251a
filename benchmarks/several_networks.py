"""
How much the return of offline training depends on the initial network: several networks learn from the same demonstrations.

    SB3_IQ_DEMOS=... python benchmarks/several_networks.py --env LunarLander-v3 --seeds 2 3 11 14 0 10

For each choice of demonstrations it prints the return of each network (20 episodes of the deterministic policy, the last
parameters), and that of the mean of their Q-values, each without its mean over the actions. Discrete actions only.
"""

import argparse
import json
from typing import Any

import numpy as np
import torch as th
from published import N_EVAL_EPISODES

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.compare.environment import Environment
from sb3_iq.compare.evaluation import returns_of


class Mean:
    """
    :param models: offline models of the same demonstrations
    """

    def __init__(self, models: list[Any]) -> None:
        self.models, self.policy, self.observation_space = models, models[0].policy, models[0].observation_space

    def predict(self, obs: Any, *args: Any, **kwargs: Any) -> tuple[np.ndarray, None]:
        """:return: the actions of the highest mean of the Q-values, and None"""
        with th.no_grad():
            q_values = th.stack([model.q_net(model.policy.obs_to_tensor(obs)[0]) for model in self.models])
        return (q_values - q_values.mean(dim=2, keepdim=True)).mean(dim=0).argmax(dim=1).numpy(), None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--env", default="LunarLander-v3")
    parser.add_argument("--n-trajectories", type=int, default=1)
    parser.add_argument("--seeds", type=int, nargs="+", default=[2, 3, 11, 14, 0, 10], help="of the choice of demonstrations")
    parser.add_argument("--networks", type=int, default=5)
    parser.add_argument("--policy-kwargs", type=json.loads, default={}, metavar="JSON", help='e.g. {"net_arch": [64, 64]}')
    parser.add_argument("--timesteps", type=int, default=6_000, help="gradient steps")
    args = parser.parse_args()
    th.set_num_threads(1)
    environment = Environment(args.env)
    settings: dict[str, Any] = {"offline": True, "device": "cpu", "policy_kwargs": args.policy_kwargs}
    for seed in args.seeds:
        expert = load_demonstrations(f"demos:{args.env}", args.n_trajectories, seed=seed)
        models = [
            IQLearn("MlpPolicy", args.env, expert, seed=seed + 100 * k, **settings).learn(args.timesteps)
            for k in range(args.networks)
        ]
        each = [round(float(returns_of(model, environment, N_EVAL_EPISODES).mean())) for model in models]
        together = round(float(returns_of(Mean(models), environment, N_EVAL_EPISODES).mean()))
        print(f"seed {seed}: {each}, mean {np.mean(each):.0f}; of their mean {together}", flush=True)


if __name__ == "__main__":
    main()
