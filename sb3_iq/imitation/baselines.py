"""imitation's own GAIL, AIRL, SQIL and BC, for :mod:`sb3_iq.compare`, with the settings of ``baselines.yml``."""

import inspect
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from imitation.algorithms.adversarial.airl import AIRL
from imitation.algorithms.adversarial.common import AdversarialTrainer
from imitation.algorithms.adversarial.gail import GAIL
from imitation.algorithms.bc import BC
from imitation.algorithms.sqil import SQIL
from imitation.data.types import Transitions
from imitation.policies.base import NormalizeFeaturesExtractor
from imitation.rewards.reward_nets import BasicRewardNet, BasicShapedRewardNet, NormalizedRewardNet, RewardNet
from imitation.util.logger import HierarchicalLogger, configure
from imitation.util.networks import RunningNorm
from stable_baselines3 import DQN, PPO, SAC
from stable_baselines3.common.policies import ActorCriticPolicy
from stable_baselines3.common.torch_layers import NatureCNN
from stable_baselines3.common.utils import set_random_seed
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq.compare.baselines.networks import expert_buffer, learner_class
from sb3_iq.compare.baselines.task import Task, Train, UnsuitedError
from sb3_iq.compare.environment import policy_name
from sb3_iq.compare.evaluation import EvaluationCallback, Evaluations
from sb3_iq.observations import integer_pixels

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
    trainers = (KINDS[name].trainer, AdversarialTrainer) if name in KINDS else (BC,)
    for section, classes in {"trainer": trainers, "ppo": (PPO,), "sac": (SAC,), "dqn": (DQN,)}.items():
        if section in SECTIONS[name]:
            _check_section(f"{name}: {section}", given[section], *classes)
    env = task.venv()
    if isinstance(env.observation_space, spaces.Dict):
        raise UnsuitedError(f"algos: {name} takes no dictionaries as observations. Leave it out")
    if name == "imitation/sqil":
        learner_class(env.action_space)
    transitions(task, env)
    env.close()


def _check_section(name: str, settings: Any, *classes: type) -> None:
    """Refuse what every run would fail with, as an argument of these classes that there is none of."""
    if not isinstance(settings, Mapping):
        raise ValueError(f"algos: {name} is {settings!r}: expected settings. Start from a copy of this package's file")
    known = {key for cls in classes for key in inspect.signature(cls.__init__).parameters}  # type: ignore[misc]
    unknown = [key for key in settings if key not in known - {"self", "kwargs"}]
    if unknown:
        raise ValueError(f"algos: {name}: {', '.join(map(repr, unknown))}: {classes[0].__name__} has no such argument")


def transitions(task: Task, env: VecEnv) -> Transitions:
    """
    :param task: with the demonstrations
    :param env: of the environment
    :return: the transitions that the other algorithms learn from, for imitation: actions in the environment's units, and
        ``dones`` that are True at a time limit as well
    :raises ValueError: if the demonstrations do not fit the environment
    """
    # Subsampled, and images as the environment has them: channels first
    rows: Any = expert_buffer(task, env).all()
    obs, next_obs = (
        part.numpy().reshape(-1, *(env.observation_space.shape or ())) for part in (rows.observations, rows.next_observations)
    )
    episodes, freq, space = task.demonstrations.trajectories, task.demonstrations.subsample_freq, env.action_space
    acts = np.concatenate([np.asarray(episode.acts)[::freq] for episode in episodes])
    acts = acts.reshape(-1, *(space.shape or ())).astype(space.dtype)
    if isinstance(space, spaces.Box):
        acts = np.clip(acts, space.low, space.high)
    lasts = [np.arange(0, len(episode), freq) == len(episode) - 1 for episode in episodes]
    ended = [last & (episode.terminated or episode.truncated) for last, episode in zip(lasts, episodes, strict=True)]
    return Transitions(obs, acts, np.array([{}] * len(acts)), next_obs, np.concatenate(ended))


def policy_kwargs(settings: Mapping[str, Any], observation_space: spaces.Space) -> dict[str, Any]:
    """
    :param settings: of an algorithm
    :param observation_space: of the environment
    :return: what its policy is made of
    """
    kwargs: dict[str, Any] = {"net_arch": list(settings["net_arch"]), "normalize_images": integer_pixels(observation_space)}
    if policy_name(observation_space) == "CnnPolicy":
        kwargs["features_extractor_class"] = NatureCNN
    elif settings.get("running_norm"):
        kwargs |= {
            "features_extractor_class": NormalizeFeaturesExtractor,
            "features_extractor_kwargs": {"normalize_class": RunningNorm},
        }
    return kwargs


def train_adversarial(
    name: str, task: Task, given: Mapping[str, Any], evaluations: Evaluations, quiet: HierarchicalLogger
) -> None:
    """
    GAIL or AIRL on PPO.

    :param name: of the algorithm
    :param task: what to imitate
    :param given: all its settings
    :param evaluations: what to add to
    :param quiet: what it logs to
    """
    kind, env = KINDS[name], _seeded_env(task, given["n_envs"])
    demonstrations = transitions(task, env)
    kwargs = policy_kwargs(given, env.observation_space)
    learner = PPO(ActorCriticPolicy, env, policy_kwargs=kwargs, seed=task.seed, device="cpu", **given["ppo"])
    norm = {"normalize_input_layer": RunningNorm} if given["running_norm"] else {}
    net = kind.reward_net(env.observation_space, env.action_space, **norm)  # type: ignore[arg-type]
    if given["normalize_rewards"]:
        net = NormalizedRewardNet(net, RunningNorm)
    settings = dict(given["trainer"])
    # What imitation refuses: batches larger than the demonstrations
    settings["demo_batch_size"] = min(settings.get("demo_batch_size", 1024), len(demonstrations))
    trainer = kind.trainer(
        demonstrations=demonstrations,
        venv=env,
        gen_algo=learner,
        reward_net=net,
        log_dir=quiet.get_dir(),
        custom_logger=quiet,
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


def train_sqil(task: Task, given: Mapping[str, Any], evaluations: Evaluations, quiet: HierarchicalLogger) -> None:
    """
    :param task: what to imitate
    :param given: all its settings
    :param evaluations: what to add to
    :param quiet: what it logs to
    """
    env = _seeded_env(task, 1)
    cls, settings = (SAC, given["sac"]) if isinstance(env.action_space, spaces.Box) else (DQN, given["dqn"])
    # A short run is to learn, too
    first = min(settings.get("learning_starts", 100), task.timesteps // 4)
    trainer = SQIL(
        venv=env,
        demonstrations=transitions(task, env),
        policy=policy_name(env.observation_space),
        rl_algo_class=cls,  # type: ignore[arg-type]
        rl_kwargs={
            "policy_kwargs": policy_kwargs(given, env.observation_space),
            "buffer_size": task.timesteps,
            "seed": task.seed,
            "device": "cpu",
            **settings,
            "learning_starts": first,
        },
        custom_logger=quiet,
    )
    trainer.train(total_timesteps=task.timesteps, callback=EvaluationCallback(evaluations))
    model = trainer.rl_algo
    evaluations.env_steps, evaluations.gradient_steps = model.num_timesteps, model._n_updates
    evaluations.finish(trainer.policy, model.num_timesteps)
    env.close()


def train_bc(task: Task, given: Mapping[str, Any], evaluations: Evaluations, quiet: HierarchicalLogger) -> None:
    """
    :param task: what to imitate
    :param given: all its settings
    :param evaluations: what to add to
    :param quiet: what it logs to
    """
    env = _seeded_env(task, 1)
    policy = ActorCriticPolicy(
        env.observation_space,
        env.action_space,
        lr_schedule=lambda _: 0.0,  # BC has an optimizer of its own
        **policy_kwargs(given, env.observation_space),
    )
    demonstrations = transitions(task, env)
    settings = dict(given["trainer"])
    settings["batch_size"] = min(settings.get("batch_size", 64), len(demonstrations))
    trainer = BC(
        observation_space=env.observation_space,
        action_space=env.action_space,
        rng=np.random.default_rng(task.seed),
        policy=policy,
        demonstrations=demonstrations,
        optimizer_kwargs={"lr": given["learning_rate"]},
        device="cpu",
        custom_logger=quiet,
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


def _quietly(train: Callable[..., None]) -> Train:
    """:return: the same, given a logger that writes nothing, in a folder that goes with the run"""

    def run(task: Task, given: Mapping[str, Any], evaluations: Evaluations) -> None:
        with tempfile.TemporaryDirectory(prefix="sb3-iq-") as folder:
            train(task, given, evaluations, configure(folder, format_strs=[]))

    return run


BASELINES: dict[str, Train] = {
    **{name: _quietly(partial(train_adversarial, name)) for name in KINDS},
    "imitation/sqil": _quietly(train_sqil),
    "imitation/bc": _quietly(train_bc),
}
