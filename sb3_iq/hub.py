"""
What ``python -m sb3_iq.zoo push_to_hub`` and ``load_from_hub`` add to RL Zoo's commands: a model card that says what was
imitated and how well, and repairs where RL Zoo and the libraries of the Hugging Face hub have grown apart.
"""

import functools
import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq.demonstrations import Demonstrations
from sb3_iq.demonstrations.errors import RELEASED, install_command
from sb3_iq.demonstrations.expert_data import read_expert_data
from sb3_iq.iq_learn import IQLearn

TAGS = ("imitation-learning", "inverse-reinforcement-learning", "iq-learn")
# What RL Zoo's card tells to type, and what has to be typed for this algorithm
COMMANDS = {
    "pip install rl_zoo3": install_command("zoo") + ("" if RELEASED else "  # in a clone of the sb3-iq repository"),
    "python -m rl_zoo3.load_from_hub": "TRUST_REMOTE_CODE=True python -m sb3_iq.zoo load_from_hub",
    "python -m rl_zoo3.push_to_hub": "python -m sb3_iq.zoo push_to_hub",
    "python -m rl_zoo3.": "python -m sb3_iq.zoo ",
}


@dataclass(frozen=True)
class Evaluation:
    """
    How well a model does.

    :param mean_return: mean return of its episodes
    :param std_return: their standard deviation
    :param random_return: mean return of uniformly random actions
    :param n_episodes: the number of episodes of each
    :param deterministic: whether the model's actions were deterministic
    """

    mean_return: float
    std_return: float
    random_return: float
    n_episodes: int
    deterministic: bool

    def normalized_score(self, expert_return: float | None) -> float | None:
        """
        :param expert_return: mean return of the demonstrations, if it is known
        :return: 0 as good as random actions, 1 as good as the demonstrations; None where these can't be told apart
        """
        if expert_return is None or expert_return == self.random_return:
            return None
        return (self.mean_return - self.random_return) / (expert_return - self.random_return)


def evaluate_random(env: VecEnv, n_episodes: int) -> float:
    """
    :param env: a vectorised environment
    :param n_episodes: how many episodes
    :return: the mean return of uniformly random actions
    """
    env.action_space.seed(0)

    class Random:
        def predict(self, *_: Any, **__: Any) -> tuple[np.ndarray, None]:
            return np.array([env.action_space.sample() for _ in range(env.num_envs)]), None

    return float(np.mean(evaluate_policy(Random(), env, n_episodes)[0]))


def read_demonstrations(model: IQLearn) -> Demonstrations | None:
    """
    :param model: a loaded model
    :return: what it has imitated, None where that can't be read or has changed
    """
    try:
        demonstrations = read_expert_data(model.expert_reference, *model._env_spec)
    except (ValueError, TypeError, OSError, ImportError):
        return None
    return demonstrations if demonstrations.content_hash == model.expert_content_hash else None


def card_section(model: IQLearn, evaluation: Evaluation) -> str:
    """
    :param model: a trained model
    :param evaluation: how well it does
    :return: what it has imitated, how, and its normalised score, as a section of a model card
    """
    demonstrations = read_demonstrations(model)
    known = "an object in Python" if model.expert_reference is None else f"`{model.expert_reference}`"
    of_expert = f"{model.expert_n_transitions} transitions"
    expert_return = None
    if demonstrations is not None:
        of_expert = f"{len(demonstrations)} episodes, {of_expert}"
        if demonstrations.episode_returns is not None:
            expert_return = float(demonstrations.episode_returns.mean())
            of_expert += f", mean return {expert_return:.2f}"
    score = evaluation.normalized_score(expert_return)
    steps = "gradient steps, without the environment" if model.offline else "environment steps; the reward was never used"
    actions = "deterministic" if evaluation.deterministic else "stochastic"
    returns = f"{evaluation.mean_return:.2f} +/- {evaluation.std_return:.2f}, random actions {evaluation.random_return:.2f}"
    unknown = "unknown: the demonstrations, or their returns, were not at hand" if expert_return is None else "undefined"
    return f"""
## Imitation

This agent has learned from demonstrations, by IQ-Learn ([sb3-iq](https://arxiv.org/abs/2106.12142) for Stable-Baselines3).

| | |
|---|---|
| demonstrations | {known}: {of_expert} |
| SHA-256 of their content | `{model.expert_content_hash}` |
| training | {model.num_timesteps} {steps}; {model._n_updates} updates; preset `{model.preset}` |
| evaluation | {evaluation.n_episodes} episodes, {actions} actions |
| return | {returns} |
| **normalised score** | {unknown if score is None else f"**{score:.3f}** (0: random actions, 1: the demonstrations)"} |
"""


def complete_card(path: Path, metadata: dict[str, Any], model: IQLearn, evaluation: Evaluation) -> dict[str, Any]:
    """
    Say in a model card of RL Zoo what only this algorithm has.

    :param path: the card, changed in place
    :param metadata: RL Zoo's metadata of it
    :param model: the model
    :param evaluation: how well it does
    :return: the metadata, with this algorithm's tags
    """
    text = path.read_text(encoding="utf-8")
    for theirs, ours in COMMANDS.items():
        text = text.replace(theirs, ours)
    head, usage, rest = text.partition("\n## Usage")
    path.write_text(head + card_section(model, evaluation) + usage + rest, encoding="utf-8")
    return {**metadata, "tags": [*metadata["tags"], *TAGS]}


def prepare_push() -> None:
    """Let RL Zoo's ``push_to_hub`` start, and write a card of this project's for ``iq``. Those of other algorithms stay."""
    library: Any = importlib.import_module("huggingface_sb3.push_to_hub")
    repocard: Any = importlib.import_module("huggingface_hub.repocard")
    if not hasattr(library, "generate_metadata"):  # renamed, and with another result, while RL Zoo still calls it
        library.generate_metadata = lambda *args: library._generate_metadata(*args).to_dict()
    evaluate, save, evaluated = library._evaluate_agent, repocard.metadata_save, []

    @functools.wraps(evaluate)
    def evaluate_both(model: Any, eval_env: VecEnv, n_eval_episodes: int, is_deterministic: bool, path: Path) -> Any:
        result = evaluate(model, eval_env, n_eval_episodes, is_deterministic, path)
        if isinstance(model, IQLearn):
            mean, std = result
            random_return = evaluate_random(eval_env, n_eval_episodes)
            evaluated.append((model, Evaluation(mean, std, random_return, n_eval_episodes, is_deterministic)))
        return result

    @functools.wraps(save)
    def save_completed(path: Path, metadata: dict[str, Any]) -> None:
        save(path, complete_card(Path(path), metadata, *evaluated.pop()) if evaluated else metadata)

    library._evaluate_agent, repocard.metadata_save = evaluate_both, save_completed


def prepare_load() -> None:
    """Let RL Zoo's ``load_from_hub`` go on where there are no statistics of ``VecNormalize``."""
    library: Any = importlib.import_module("huggingface_sb3")
    from huggingface_hub.utils import EntryNotFoundError
    from requests.exceptions import HTTPError

    load = library.load_from_hub

    @functools.wraps(load)
    def load_or_known_error(*args: Any, **kwargs: Any) -> str:
        try:
            return load(*args, **kwargs)
        except EntryNotFoundError as error:  # since huggingface_hub 1.0 of another library than RL Zoo expects
            raise HTTPError(str(error)) from error

    library.load_from_hub = load_or_known_error
