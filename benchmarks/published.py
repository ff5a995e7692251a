"""The published runs of :mod:`run`: its suites."""

import itertools
import json
import shlex
from dataclasses import dataclass, field
from typing import Any

N_EVAL_EPISODES = 20
ABLATIONS: list[dict[str, Any]] = [
    {},
    {"policy_kwargs": {"normalize_obs": False}},
    {"reward_prior": 0.0, "penalty_coef": 0.5},
    {"bc_coef": 0.0},
    {"policy_kwargs": {"actor_tau": 1.0}},
    {"objective_kwargs": {"occupancy_term": "expert_states"}},
    {"objective_kwargs": {"critic_bound": "none"}},
    {"policy_kwargs": {"layer_norm": False}},
    {"learning_rate": 5e-4, "actor_learning_rate": 3e-4},
    {"gamma": 0.99},
    {"train_freq": 1},
]


@dataclass(frozen=True)
class Run:
    """One training run; ``settings`` are arguments of IQLearn that differ from its defaults (none in most published runs)."""

    env: str
    demos: str
    n_trajectories: int
    timesteps: int
    seed: int
    algo: str = "iq"
    offline: bool = False
    subsample_freq: int = 1
    eval_freq: int = 5_000
    # So many other episodes of the same expert: at each evaluation the measures of HeldOutCallback stand beside the return
    held_out: int = 0
    n_eval_episodes: int = N_EVAL_EPISODES
    settings: dict[str, Any] = field(default_factory=dict)

    def command(self, suite: str) -> str:
        """The command that repeats this run alone."""
        words = ["python", "benchmarks/run.py", "--suite", suite, "--algo", self.algo, "--env", self.env]
        words += ["--demos", self.demos, "--n-trajectories", str(self.n_trajectories), "--timesteps", str(self.timesteps)]
        words += ["--seed", str(self.seed), "--subsample-freq", str(self.subsample_freq), "--eval-freq", str(self.eval_freq)]
        words += ["--offline"] if self.offline else []
        words += ["--held-out", str(self.held_out)] if self.held_out else []
        words += ["--n-eval-episodes", str(self.n_eval_episodes)] if self.n_eval_episodes != N_EVAL_EPISODES else []
        words += ["--settings", json.dumps(self.settings)] if self.settings else []
        return 'SB3_IQ_DEMOS="$SB3_IQ_DEMOS" OMP_NUM_THREADS=1 ' + shlex.join(words)


def suites() -> dict[str, list[Run]]:
    """The published runs: the constructor's defaults, but where a setting is what is compared."""
    seeds, algos = range(3), ("iq", "bc")
    # Those of the continuous default, which was tuned on 0, 1, 2, 10 and 11: its demonstrations chose no setting. Two chose a
    # part of the reference policy: Ant-v5 4, and Hopper-v5 3
    fresh = range(3, 6)
    control = ("Hopper-v5", "Walker2d-v5", "Ant-v5", "HalfCheetah-v5")
    discrete = ("CartPole-v1", "Acrobot-v1", "LunarLander-v3")
    offline = [("LunarLander-v3", 3), ("Acrobot-v1", 1), ("CartPole-v1", 10), ("MountainCar-v0", 10)]
    return {
        "offline-discrete": [
            Run(env, f"demos:{env}", n, 5_000, seed, algo, offline=True, eval_freq=1_000)
            for algo, (env, n), seed in itertools.product(algos, offline, seeds)
        ],
        "cartpole-online": [Run("CartPole-v1", "bundled:CartPole-v1", 10, 20_000, seed, eval_freq=2_000) for seed in seeds],
        # LunarLander-v3 is in the comparison
        "online-discrete": [Run("Acrobot-v1", "demos:Acrobot-v1", 10, 15_000, seed, eval_freq=1_500) for seed in seeds],
        "online-discrete-few": [
            Run(env, f"demos:{env}", 1, 15_000, seed, eval_freq=1_500)
            for env, seed in itertools.product(("CartPole-v1", "Acrobot-v1", "MountainCar-v0"), seeds)
        ],
        "subsampled-online": [
            Run("CartPole-v1", "demos:CartPole-v1", 1, 15_000, seed, subsample_freq=20, eval_freq=1_500) for seed in seeds
        ],
        "pendulum": [Run("Pendulum-v1", "demos:Pendulum-v1", 5, 20_000, seed, eval_freq=1_000) for seed in seeds],
        "mujoco": [
            *(Run(env, f"demos:{env}", 1, 200_000, 0) for env in control),
            *(Run("Hopper-v5", "demos:Hopper-v5", 1, 200_000, seed) for seed in (1, 2)),
            *(Run(env, f"demos:{env}", 1, 200_000, 0, settings={"preset": "paper"}) for env in control),
        ],
        # Today's default of continuous actions: a demonstration of its own for each seed, and what others of the expert tell
        "continuous": [
            Run(env, f"demos:{env}", 1, 200_000, seed, eval_freq=10_000, held_out=5)
            for seed, env in itertools.product(fresh, control)
        ],
        "online-continuous": [
            Run(env, f"demos:{env}", n, steps, seed, eval_freq=eval_freq)
            for env, n, steps, eval_freq in (
                ("LunarLanderContinuous-v3", 3, 15_000, 1_500),
                ("Pendulum-v1", 5, 20_000, 1_000),
            )
            for seed in seeds
        ],
        # With the terms of IQ-Learn a million times smaller than their penalty: soft actor-critic on the prior reward,
        # with cloning
        "continuous-prior": [
            Run(env, f"demos:{env}", 1, 200_000, 3, eval_freq=10_000, settings={"penalty_coef": 1e6})
            for env in ("Walker2d-v5", "HalfCheetah-v5", "Ant-v5", "Hopper-v5")
        ],
        # What "continuous" begins with where its reference policy is good: until that is judged, the policy is a copy of it
        "continuous-start": [
            Run(env, f"demos:{env}", 1, 2_000, seed, eval_freq=2_000)
            for env, seed in itertools.product(("Hopper-v5", "Ant-v5"), fresh)
        ],
        # Clones of the same demonstrations as "continuous"
        "continuous-bc": [
            Run(env, f"demos:{env}", 1, 10_000, seed, algo, algo == "bc", eval_freq=1_000)
            for algo, env, seed in itertools.product(("bc", "sb3/bc"), control, fresh)
        ],
        # The default without each of its ingredients, beside the default itself. Not terminal_value: where no demonstration
        # ends, a terminal state is worth 0 either way
        "ablation": [
            Run(env, f"demos:{env}", 1, 60_000, 0, settings=settings)
            for settings in ABLATIONS
            for env in ("Hopper-v5", "Walker2d-v5")
        ],
        "offline-demos": [
            Run(env, f"demos:{env}", n, 5_000, seed, algo, offline=True, eval_freq=1_000)
            for algo, env, n, seed in itertools.product(algos, discrete, (1, 3, 10), range(5))
        ],
        # One demonstration of which every 20th transition is seen: 25 of them, another episode for each seed
        "subsampled": [
            Run("CartPole-v1", "demos:CartPole-v1", 1, 5_000, seed, algo, offline=True, subsample_freq=20, eval_freq=1_000)
            for algo, seed in itertools.product(algos, range(10))
        ],
        "offline-continuous": [
            Run(env, f"demos:{env}", n, steps, seed, algo, True, eval_freq=eval_freq)
            for env, n, steps, eval_freq in (
                ("Hopper-v5", 1, 5_000, 5_000),
                ("HalfCheetah-v5", 10, 5_000, 5_000),
                ("LunarLanderContinuous-v3", 10, 10_000, 1_000),
                ("BipedalWalker-v3", 5, 15_000, 2_500),
            )
            for algo, seed in itertools.product(algos, seeds)
        ],
        # Offline, from the scripted players of examples/experts: dictionaries of vectors, and frames
        "robots": [
            Run(env, f"demos:{env}", 50, 5_000, seed, algo, True, eval_freq=5_000, n_eval_episodes=100)
            for env, seed, algo in itertools.product(("FetchReach-v4", "FetchPush-v4", "FetchPickAndPlace-v4"), seeds, algos)
        ],
        "robots-online": [
            Run(env, f"demos:{env}", 50, steps, seed, eval_freq=steps // 5, n_eval_episodes=100)
            for seed, (env, steps) in itertools.product(
                seeds, (("FetchReach-v4", 5_000), ("FetchPush-v4", 50_000), ("FetchPickAndPlace-v4", 50_000))
            )
        ],
        "frames": [
            Run("CartPoleFrames-v0", "demos:CartPoleFrames-v0", 10, 4_000, seed, algo, True, eval_freq=2_000)
            for seed, algo in itertools.product(seeds, algos)
        ],
        # Ten minutes and more for each run on a core. CarRacing-v3 is of today's stack
        "games": [
            *(
                Run("PongFrames-v0", "demos:PongFrames-v0", n, 2_000, seed, algo, True, eval_freq=1_000)
                for n, seed, algo in itertools.product((20, 10, 5), seeds, algos)
            ),
            *(
                Run("CarRacing-v3", "demos:CarRacing-v3", n, 2_000, seed, algo, True, eval_freq=2_000, n_eval_episodes=10)
                for n, seed, algo in itertools.product((20, 10), seeds, algos)
            ),
        ],
        # What demonstrations that are held out tell, beside the true return, at 20 checkpoints of a run
        "held-out": [
            Run("LunarLander-v3", "demos:LunarLander-v3", n, steps, seed, offline=offline, eval_freq=steps // 20, held_out=5)
            for (steps, offline), n, seed in itertools.product(((15_000, False), (5_000, True)), (1, 10), seeds)
        ],
    }
