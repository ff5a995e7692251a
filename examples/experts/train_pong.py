"""
Train the player of Pong: SB3's DQN on the numbers of the console's memory, which begins with games of the scripted planner.

    pip install ale-py
    python examples/experts/train_pong.py --out examples/experts/pong_player.pt

It took 41 minutes on a core shared with other work. What is written is the network of the best evaluation, which ``pong.py``
plays with.
"""

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch as th
from pong_memory import NET_ARCH, PLAYER, PongNumbers
from pong_planner import PongPlanner
from stable_baselines3 import DQN
from stable_baselines3.common.callbacks import EvalCallback
from stable_baselines3.common.logger import configure
from stable_baselines3.common.monitor import Monitor

from sb3_iq.demonstrations.recorder import play

SLIP = 0.03  # of the hand: what the player learns to recover from
TEACHER_GAMES = 14
TEACHER_ROUNDS = 8  # of so many gradient steps on the teacher's games
STEPS_PER_ROUND = 2_000
BATCH_SIZE = 128


def watch_the_teacher(model: DQN, seed: int) -> None:
    """
    Fill the replay buffer with the planner's games.

    :param model: the learner
    :param seed: of the first game
    """
    assert model.replay_buffer is not None
    env = PongNumbers()
    teacher = PongPlanner(env, SLIP)
    for game in range(seed, seed + TEACHER_GAMES):
        teacher.reset(game)
        episode = play(teacher, env, game)
        obs, actions, rewards = (np.asarray(values)[:, None] for values in (episode.obs, episode.acts, episode.rews))
        rows = zip(obs[:-1], obs[1:], actions[:, None], rewards, strict=True)
        for step, row in enumerate(rows, start=1):
            last = step == len(episode)
            model.replay_buffer.add(*row, np.array([last]), [{"TimeLimit.truncated": last and episode.truncated}])
        print(f"teacher, seed {game}: {rewards.sum():.0f} points", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=PLAYER, metavar="FILE", help="the weights to write (default beside this)")
    parser.add_argument("--timesteps", type=int, default=250_000, metavar="N", help="steps of practice (default 250000)")
    parser.add_argument("--seed", type=int, default=0, help="of network and practice (default 0)")
    args = parser.parse_args()
    model = DQN(
        "MlpPolicy",
        Monitor(PongNumbers(SLIP)),
        learning_rate=lambda left: 3e-4 * max(left, 0.1),
        buffer_size=300_000,
        learning_starts=0,
        batch_size=BATCH_SIZE,
        n_steps=4,
        target_update_interval=STEPS_PER_ROUND,
        exploration_initial_eps=0.02,
        exploration_final_eps=0.02,
        policy_kwargs=dict(net_arch=NET_ARCH),
        seed=args.seed,
    )
    watch_the_teacher(model, args.seed)
    model.set_logger(configure(None, []))
    for _ in range(TEACHER_ROUNDS):
        model.train(STEPS_PER_ROUND, BATCH_SIZE)
        model.q_net_target.load_state_dict(model.q_net.state_dict())
    with tempfile.TemporaryDirectory() as folder:
        best = EvalCallback(
            Monitor(PongNumbers(SLIP)), None, n_eval_episodes=10, eval_freq=25_000, best_model_save_path=folder
        )
        model.learn(args.timesteps, callback=best)
        player = DQN.load(Path(folder) / "best_model.zip", device="cpu")
    th.save(player.q_net.q_net.state_dict(), args.out)
    print(f"{args.out}: {best.best_mean_reward:.1f} points in the best evaluation")


if __name__ == "__main__":
    main()
