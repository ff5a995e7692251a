"""
IQ-Learn beside GAIL, AIRL and behavioural cloning of the `imitation` library: the same demonstrations object, the same
environments, the same number of environment steps, the same evaluation. GAIL and AIRL as in imitation's tutorials,
but with shorter rounds, without which they learn nothing in so few steps.

    pip install "sb3-iq[imitation]"
    python examples/compare_with_gail.py                  # some ten minutes
    python examples/compare_with_gail.py --steps 4096     # a try
"""

import argparse
import tempfile

import numpy as np
import seals  # noqa: F401  (registers its environments)
from imitation.algorithms.adversarial.airl import AIRL
from imitation.algorithms.adversarial.gail import GAIL
from imitation.algorithms.bc import BC
from imitation.data import serialize
from imitation.rewards.reward_nets import BasicRewardNet, BasicShapedRewardNet
from imitation.util import logger
from imitation.util.networks import RunningNorm
from imitation.util.util import make_vec_env
from stable_baselines3 import PPO
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.ppo import MlpPolicy

from sb3_iq import IQLearn
from sb3_iq.demonstrations.reference import BUNDLED

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--env", default="seals/CartPole-v0", help="CartPole-v1, but each episode lasts 500 steps")
parser.add_argument("--demos", default=str(BUNDLED / "CartPole-v1"), help="a folder that imitation reads")
parser.add_argument(
    "--steps", type=int, default=163_840, help="environment steps of each algorithm (behavioural cloning: none)"
)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()

rollouts = serialize.load(args.demos)
venv = make_vec_env(args.env, rng=np.random.default_rng(args.seed), n_envs=8)
spaces = venv.observation_space, venv.action_space
quiet = logger.configure(tempfile.mkdtemp(), format_strs=[])
adversarial = dict(demonstrations=rollouts, venv=venv, custom_logger=quiet, gen_replay_buffer_capacity=2048)
# An episode whose length tells how good it was would tell GAIL and AIRL too much: environments of seals have fixed lengths
adversarial["allow_variable_horizon"] = not args.env.startswith("seals/")
ppo = dict(n_steps=256, batch_size=64, ent_coef=0.0, gamma=0.95, n_epochs=5, seed=args.seed)


def train_iq():
    return IQLearn("MlpPolicy", venv, rollouts, seed=args.seed).learn(args.steps).policy


def train_gail():
    learner, net = PPO(MlpPolicy, venv, learning_rate=4e-4, **ppo), BasicRewardNet(*spaces, normalize_input_layer=RunningNorm)
    gail = GAIL(demo_batch_size=1024, n_disc_updates_per_round=8, gen_algo=learner, reward_net=net, **adversarial)
    gail.train(args.steps)
    return gail.policy


def train_airl():
    learner = PPO(MlpPolicy, venv, learning_rate=5e-4, clip_range=0.1, vf_coef=0.1, **ppo)
    net = BasicShapedRewardNet(*spaces, normalize_input_layer=RunningNorm)
    airl = AIRL(demo_batch_size=2048, n_disc_updates_per_round=16, gen_algo=learner, reward_net=net, **adversarial)
    airl.train(args.steps)
    return airl.policy


def train_bc():
    rng = np.random.default_rng(args.seed)
    bc = BC(observation_space=spaces[0], action_space=spaces[1], demonstrations=rollouts, rng=rng, custom_logger=quiet)
    bc.train(n_epochs=2, progress_bar=False)
    return bc.policy


rows = []
for name, train in {"IQ-Learn": train_iq, "GAIL": train_gail, "AIRL": train_airl, "BC": train_bc}.items():
    set_random_seed(args.seed)
    venv.seed(args.seed)
    mean, std = evaluate_policy(train(), venv, n_eval_episodes=20, deterministic=True)
    rows.append(f"{name:10}{0 if name == 'BC' else args.steps:>10}{mean:>10.1f} +- {std:.1f}")
expert = np.mean([sum(trajectory.rews) for trajectory in rollouts])
print(f"{'':10}{'env steps':>10}{'return':>10}   ({args.env}, {len(rollouts)} demonstrations, expert {expert:.1f})")
print("\n".join(rows))
