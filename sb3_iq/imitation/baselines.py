"""imitation's own GAIL, AIRL, SQIL and BC, for :mod:`sb3_iq.compare`, with the settings of ``baselines.yml``."""

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium import spaces
from imitation.algorithms.adversarial.airl import AIRL
from imitation.algorithms.adversarial.common import AdversarialTrainer
from imitation.algorithms.adversarial.gail import GAIL
from imitation.algorithms.bc import BC
from imitation.algorithms.sqil import SQIL
from imitation.data.types import TrajectoryWithRew
from imitation.policies.base import NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet, BasicShapedRewardNet, NormalizedRewardNet, RewardNet
from imitation.util import logger
from imitation.util.networks import RunningNorm
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq.compare.baselines.task import Task, Train
from sb3_iq.compare.evaluation import EvaluationCallback, Evaluations
from sb3_iq.demonstrations import Demonstrations

SECTIONS = {
    "imitation/gail": ("n_envs", "allow_variable_horizon", "running_norm", "normalize_rewards", "trainer", "ppo", "net_arch"),
    "imitation/sqil": ("sac", "dqn", "net_arch"),
    "imitation/bc": ("running_norm", "trainer", "learning_rate", "n_batches", "net_arch"),
}
SECTIONS["imitation/airl"] = SECTIONS["imitation/gail"]


@dataclass(frozen=True)
class Kind:
    """
    :param trainer: of imitation
    :param reward_net: of imitation
    """

    trainer: type[AdversarialTrainer]
    reward_net: type[RewardNet]


KINDS = {"imitation/gail": Kind(GAIL, BasicRewardNet), "imitation/airl": Kind(AIRL, BasicShapedRewardNet)}


def check(name: str, task: Task, given: Mapping[str, Any]) -> None:
    """
    :param name: of an algorithm
    :param task: what to imitate
    :param given: all its settings
    :raises ValueError: if they, or the spaces, do not fit
    """
    for key in given:
        if key not in SECTIONS[name]:
            raise ValueError(f"algos: {name} has no setting {key!r}. It has {', '.join(SECTIONS[name])}, budget and timesteps")
    missing = [key for key in SECTIONS[name] if key not in given]
    if missing:
        raise ValueError(f"the file of baselines lacks {', '.join(missing)} of {name}. Start from a copy of this package's")
    env = task.venv()
    if isinstance(env.observation_space, spaces.Dict):
        raise ValueError(f"algos: {name} takes no dictionaries as observations. Leave it out")
    env.close()


def trajectories(demonstrations: Demonstrations, action_space: spaces.Space) -> list[TrajectoryWithRew]:
    """
    :param demonstrations: episodes
    :param action_space: of the environment
    :return: the same for imitation, whose ``terminal`` is True at a time limit as well
    """
    found = []
    for episode in demonstrations.trajectories:
        acts = np.asarray(episode.acts, dtype=action_space.dtype)
        if isinstance(action_space, spaces.Box):
            acts = np.clip(acts.reshape(-1, *action_space.shape), action_space.low, action_space.high)
        found.append(
            TrajectoryWithRew(
                obs=np.asarray(episode.obs),
                acts=acts,
                infos=None,
                terminal=episode.terminated or episode.truncated,
                rews=np.zeros(len(episode)) if episode.rews is None else np.asarray(episode.rews, dtype=np.float64),
            )
        )
    return found


def policy_kwargs(settings: Mapping[str, Any]) -> dict[str, Any]:
    """
    :param settings: of an algorithm
    :return: what its policy is made of
    """
    kwargs: dict[str, Any] = {"net_arch": list(settings["net_arch"])}
    if settings.get("running_norm"):
        kwargs |= {
            "features_extractor_class": NormalizeFeaturesExtractor,
            "features_extractor_kwargs": {"normalize_class": RunningNorm},
        }
    return kwargs


def train_adversarial(name: str, task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    GAIL or AIRL on PPO.

    :param name: of the algorithm
    :param task: what to imitate
    :param given: all its settings
    :param evaluations: what to add to
    """
    kind, env = KINDS[name], _seeded_env(task, given["n_envs"])
    demonstrations = trajectories(task.demonstrations, env.action_space)
    learner = PPO(ActorCriticPolicy, env, policy_kwargs=policy_kwargs(given), seed=task.seed, device="cpu", **given["ppo"])
    norm = {"normalize_input_layer": RunningNorm} if given["running_norm"] else {}
    net = kind.reward_net(env.observation_space, env.action_space, **norm)  # type: ignore[arg-type]
    if given["normalize_rewards"]:
        net = NormalizedRewardNet(net, RunningNorm)
    settings = dict(given["trainer"])
    # What imitation refuses: batches larger than the demonstrations
    n_transitions = sum(len(episode) for episode in demonstrations)
    settings["demo_batch_size"] = min(settings["demo_batch_size"], n_transitions)
    trainer = kind.trainer(
        demonstrations=demonstrations,
        venv=env,
        gen_algo=learner,
        reward_net=net,
        log_dir=tempfile.mkdtemp(),
        custom_logger=_quiet(),
        allow_variable_horizon=given["allow_variable_horizon"],
        **settings,
    )

    def on_round(_: int) -> None:
        if evaluations.is_due(learner.num_timesteps):
            evaluations(trainer.policy, learner.num_timesteps)

    n_rounds = -(-task.timesteps // trainer.gen_train_timesteps)  # whole ones, not less than the budget
    trainer.train(n_rounds * trainer.gen_train_timesteps, on_round)
    evaluations.env_steps, evaluations.gradient_steps = learner.num_timesteps, learner._n_updates
    evaluations.finish(trainer.policy, learner.num_timesteps)
    env.close()


def train_sqil(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    :param task: what to imitate
    :param given: all its settings
    :param evaluations: what to add to
    """
    env = _seeded_env(task, 1)
    cls, settings = (SAC, given["sac"]) if isinstance(env.action_space, spaces.Box) else (DQN, given["dqn"])
    trainer = SQIL(
        venv=env,
        demonstrations=trajectories(task.demonstrations, env.action_space),
        policy="MlpPolicy",
        rl_algo_class=cls,  # type: ignore[arg-type]
        rl_kwargs={
            "policy_kwargs": {"net_arch": list(given["net_arch"])},
            "buffer_size": task.timesteps,
            "seed": task.seed,
            "device": "cpu",
            **settings,
        },
        custom_logger=_quiet(),
    )
    trainer.train(total_timesteps=task.timesteps, callback=EvaluationCallback(evaluations))
    model = trainer.rl_algo
    evaluations.env_steps, evaluations.gradient_steps = model.num_timesteps, model._n_updates
    evaluations.finish(trainer.policy, model.num_timesteps)
    env.close()


def train_bc(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
    """
    :param task: what to imitate
    :param given: all its settings
    :param evaluations: what to add to
    """
    env = _seeded_env(task, 1)
    policy = ActorCriticPolicy(
        env.observation_space,
        env.action_space,
        lr_schedule=lambda _: 0.0,  # BC has an optimizer of its own
        **policy_kwargs(given),
    )
    demonstrations = trajectories(task.demonstrations, env.action_space)
    settings = dict(given["trainer"])
    settings["batch_size"] = min(settings["batch_size"], sum(len(episode) for episode in demonstrations))
    trainer = BC(
        observation_space=env.observation_space,
        action_space=env.action_space,
        rng=np.random.default_rng(task.seed),
        policy=policy,
        demonstrations=demonstrations,
        optimizer_kwargs={"lr": given["learning_rate"]},
        device="cpu",
        custom_logger=_quiet(),
        **settings,
    )
    trainer.train(n_batches=given["n_batches"], progress_bar=False)
    evaluations.gradient_steps = given["n_batches"]
    evaluations.finish(trainer.policy, 0)
    env.close()


def _seeded_env(task: Task, n_envs: int) -> VecEnv:
    set_random_seed(task.seed)
    env = task.venv(n_envs)
    env.seed(task.seed)
    env.action_space.seed(task.seed)
    return env


def _quiet() -> logger.HierarchicalLogger:
    return logger.configure(tempfile.mkdtemp(), format_strs=[])


def _adversarial(name: str) -> Train:
    return lambda task, given, evaluations: train_adversarial(name, task, given, evaluations)


BASELINES: dict[str, Callable[..., None]] = {
    **{name: _adversarial(name) for name in KINDS},
    "imitation/sqil": train_sqil,
    "imitation/bc": train_bc,
}
