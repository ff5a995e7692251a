"""
A day of a user with an environment of their own and no reward: record, look, split, train, choose, go on, record again, read
the reward, play. Only what the public API and the commands offer, on observations, actions and infos that are none of ours.
"""

import importlib.util
import json
import sys

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from stable_baselines3.common.callbacks import CheckpointCallback, EvalCallback
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import DummyVecEnv, SubprocVecEnv, VecNormalize

from sb3_iq import HeldOutCallback, IQLearn, load_demonstrations
from sb3_iq.demonstrations import record
from sb3_iq.demonstrations.__main__ import main as demonstrations_command
from sb3_iq.record import main as record_command
from sb3_iq.rewards import LearnedReward, LearnedRewardVecEnv
from sb3_iq.rewards.__main__ import main as rewards_command

DRONE, PACKAGES = "Drone-v0", ["--env", "Drone-v0", "--gym-packages", __name__]
SMALL = dict(batch_size=32, buffer_size=500, policy_kwargs=dict(net_arch=[32, 32]), seed=0, device="cpu")


class NotOurs:
    """Something in an info."""


class Drone(gym.Env):
    """
    Fly to the origin. Dict observations of float64 without bounds, a matrix and an integer among them, in the same arrays each
    time; lopsided actions. An episode is never terminated, but cut off by a clock of its own, which no spec tells.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 500}  # noqa: RUF012
    observation_space = spaces.Dict(
        where=spaces.Box(-np.inf, np.inf, (2, 2), np.float64),
        battery=spaces.Box(0.0, np.inf, (1,), np.float64),
        gear=spaces.Discrete(3),
    )
    action_space = spaces.Box(np.array([-2.0, -0.5]), np.array([1.0, 0.5]), dtype=np.float64)

    def __init__(self, render_mode=None):
        self.render_mode, self.where, self.battery = render_mode, np.zeros((2, 2)), np.zeros(1)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.where[:] = self.np_random.uniform([[-1, -1], [-0.1, -0.1]], [[1, 1], [0.1, 0.1]])
        self.battery[:] = self.np_random.integers(12, 25)
        return self._obs(), {"final_obs": None, "TimeLimit.truncated": "no", 3: NotOurs()}

    def step(self, action):
        self.battery -= 1
        self.where[1] = 0.8 * self.where[1] + 0.1 * action
        self.where[0] += self.where[1]
        return (
            self._obs(),
            0.0,
            False,
            bool(self.battery[0] <= 0),
            {"array": np.ones(3), ("a", 1): NotOurs(), "more": {"x": []}},
        )

    def _obs(self):
        return {"where": self.where, "battery": self.battery, "gear": int(self.battery[0] % 3)}

    def render(self):
        return np.arange(32 * 32 * 3, dtype=np.uint8).reshape(32, 32, 3)


gym.register(DRONE, entry_point=f"{__name__}:Drone", disable_env_checker=True)


def expert(obs):
    return np.clip(-1.2 * obs["where"][0] - 3.0 * obs["where"][1], [-2.0, -0.5], [1.0, 0.5])


def rows_of_own_loop(n_episodes):
    """:return: arrays as a user's own loop stores them, one row a step"""
    keys = [*Drone.observation_space.spaces]
    rows = {name: [] for name in (*keys, *(f"next_{key}" for key in keys), "acts", "rews", "truncated")}
    env = gym.make(DRONE)
    for seed in range(n_episodes):
        obs, truncated = env.reset(seed=seed)[0], False
        while not truncated:
            for key, value in obs.items():
                rows[key].append(np.copy(value))
            rows["acts"].append(expert(obs))
            obs, reward, _, truncated, _ = env.step(rows["acts"][-1])
            rows["rews"].append(reward)
            for key, value in obs.items():
                rows[f"next_{key}"].append(np.copy(value))
            rows["truncated"].append(truncated)
    arrays = {name: np.array(values) for name, values in rows.items()}
    obs, next_obs = {key: arrays.pop(key) for key in keys}, {key: arrays.pop(f"next_{key}") for key in keys}
    return {"obs": obs, "next_obs": next_obs, "terminated": np.zeros(len(arrays["acts"]), bool), **arrays}


def mean_distance(predict):
    """:return: how far a policy is from the origin: what the user wants, and nobody is told"""
    episodes = record(predict, gym.make(DRONE), 8, seed=500)
    return float(np.mean([np.linalg.norm(episode.obs["where"][5:, 0], axis=1).mean() for episode in episodes]))


def acts_of(model, normalize=None):
    def predict(obs):
        batch = {key: np.asarray(value)[None] for key, value in obs.items()}
        return model.predict(batch if normalize is None else normalize.normalize_obs(batch), deterministic=True)[0][0]

    return predict


def command(main, monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["command", *map(str, words)])
    return main()


@pytest.mark.slow
@pytest.mark.both_stacks
def test_a_users_day(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)

    # Record, by a loop of one's own or by ours, and look
    demonstrations = load_demonstrations(rows_of_own_loop(10))
    recorded = load_demonstrations(record(expert, gym.make(DRONE), 10))
    assert demonstrations.content_hash == recorded.content_hash
    assert all(episode.truncated for episode in demonstrations) and len({len(e) for e in demonstrations}) > 1
    demonstrations.filter(lambda episode: len(episode) > 12).save("demos.parquet")
    split = ["--split", "0.2", "--seed", "0", "--save", "mine", "--plot", "plots/demos.png"]
    assert command(demonstrations_command, monkeypatch, "demos.parquet", *PACKAGES, *split) == 0
    out = capsys.readouterr().out
    assert "truncated (the data tell), time limit unknown" in out and "IQLearn         accepts this data" in out
    training, held_out = load_demonstrations("mine-train"), load_demonstrations("mine-held-out")
    assert (training + held_out).n_transitions == load_demonstrations("demos.parquet").n_transitions

    # Train, and choose without a reward
    callback = HeldOutCallback(held_out, eval_freq=80, best_model_save_path="best", log_path="best", verbose=0)
    model = IQLearn("MultiInputPolicy", DRONE, training, offline=True, **SMALL).learn(240, callback)
    errors = [evaluation["action_error"] for evaluation in callback.evaluations]
    assert callback.best_by == "action_error" and callback.best["action_error"] == min(errors) < 0.15
    assert np.load("best/held_out.npz")["timesteps"].tolist() == [80, 160, 240]
    best = IQLearn.load("best/best_model", device="cpu")
    by_chance = spaces.Box(Drone.action_space.low, Drone.action_space.high, dtype=np.float64, seed=0)
    at_random, of_best = mean_distance(lambda obs: by_chance.sample()), mean_distance(acts_of(best))
    assert mean_distance(expert) < of_best < 0.6 * at_random

    # Save, load and go on: offline, then online, normalised; from a checkpoint on in two processes, in pieces
    model.save("model")
    model = IQLearn.load("model", expert_data=training, device="cpu")
    assert model.learn(10, reset_num_timesteps=False).num_timesteps == 250
    with_statistics = VecNormalize(make_vec_env(DRONE, 2, seed=0), norm_obs_keys=["where", "battery"])
    online = IQLearn("MultiInputPolicy", with_statistics, training, learning_starts=20, **SMALL)
    callbacks = [
        HeldOutCallback(held_out, DRONE, eval_freq=20, n_eval_episodes=2, verbose=0),
        EvalCallback(VecNormalize(make_vec_env(DRONE, 1), norm_obs_keys=["where", "battery"]), eval_freq=20, verbose=0),
        CheckpointCallback(20, "checkpoints", save_replay_buffer=True, save_vecnormalize=True),
    ]
    online.learn(40, callbacks)
    assert {"occupancy_distance", "reward_gap", "log_likelihood"} < callbacks[0].evaluations[-1].keys()
    with_statistics.save("statistics.pkl")
    processes = SubprocVecEnv([lambda: gym.make(DRONE)] * 2, start_method="fork")
    resumed = IQLearn.load(
        "checkpoints/rl_model_40_steps",
        env=VecNormalize.load("checkpoints/rl_model_vecnormalize_40_steps.pkl", processes),
        expert_data="mine-train",
    )
    resumed.load_replay_buffer("checkpoints/rl_model_replay_buffer_40_steps.pkl")
    for _ in range(2):
        resumed.learn(20, reset_num_timesteps=False)
    assert resumed.num_timesteps == 80 and resumed.replay_buffer.size() == 39  # SB3 saves before it stores a checkpoint's step
    processes.close()
    online.save("online")

    # Record the chosen policy: its episodes replay
    words = ["--algo", "iq", "--model", "best/best_model.zip", *PACKAGES, "--n-episodes", "2", "--seed", "7"]
    assert command(record_command, monkeypatch, *words, "--out", "again") == 0
    assert "-params \"expert_data:'again'\" \"policy:'MultiInputPolicy'\"" in capsys.readouterr().out
    again = load_demonstrations("again", env_id=DRONE)
    assert json.loads((tmp_path / "again" / "card.json").read_text())["seeds"] == [7, 8]
    assert again.content_hash == load_demonstrations(record(acts_of(best), gym.make(DRONE), 2, seed=7)).content_hash

    # The recovered reward: nothing ends here, so that all rewards are those of single steps, at a reset too
    LearnedReward(model).save("reward.zip")
    reward = LearnedReward.load("reward.zip", device="cpu")
    for n_envs in (1, 4):
        venv = LearnedRewardVecEnv(DummyVecEnv([lambda: gym.make(DRONE)] * n_envs), reward)
        venv.seed(0)
        obs, n_resets = venv.reset(), 0
        for _ in range(26):
            actions = np.tile([[0.3, -0.1]], (n_envs, 1))
            before = {key: values.copy() for key, values in obs.items()}
            obs, rewards, dones, infos = venv.step(actions)
            true_next = {key: values.copy() for key, values in obs.items()}
            for index in np.flatnonzero(dones):
                n_resets += 1
                for key, values in infos[index]["terminal_observation"].items():
                    true_next[key][index] = values
            expected = reward(before, actions, true_next, np.zeros(n_envs, bool))
            np.testing.assert_allclose(rewards, expected, rtol=1e-5, atol=1e-5)
        assert n_resets >= n_envs
    words = ["--model", "online", "--vecnormalize", "statistics.pkl", "--demos", "mine-train", *PACKAGES, "--n-episodes", "10"]
    assert command(rewards_command, monkeypatch, *words, "--out", "report") == 0
    assert (
        json.loads((tmp_path / "report" / "report.json").read_text())["per_episode"]["pearson"]["value"] is None
    )  # no reward

    if importlib.util.find_spec("pygame") is not None:
        play_by_keys(monkeypatch, capsys)


def play_by_keys(monkeypatch, capsys):
    """One episode, which is kept: the user's own keys for actions that have none."""
    import pygame

    from sb3_iq.play import main

    monkeypatch.setenv("SDL_VIDEODRIVER", "dummy")

    def events():
        title = pygame.display.get_caption()[0]
        key = pygame.K_a if "a key starts it" in title else pygame.K_RETURN if "Return keeps it" in title else None
        return [] if key is None else [pygame.event.Event(pygame.KEYDOWN, key=key)]

    monkeypatch.setattr(pygame.event, "get", events)
    words = ["--keys", "a:[-1.5,0.25]", "d:[1,0]", "--noop", "[0,0]", "--n-episodes", "1", "--out", "played"]
    assert command(main, monkeypatch, *PACKAGES, *words) == 0
    assert "1 of 1 episodes, played by the keys, in played" in capsys.readouterr().out
    (episode,) = load_demonstrations("played")
    assert episode.truncated and (episode.acts == [-1.5, 0.25]).all() and episode.obs["where"].dtype == np.float64
