"""
The algorithm ``iq`` for RL Zoo: ``rl_zoo3 train --algo iq --env CartPole-v1``.

Start-up files of this package call :func:`on_import` when ``rl_zoo3`` is imported, so that its own commands know ``iq``. Where
Python does not process them (``python -S``, ``pip install --target``, an uninstalled checkout), ``python -m sb3_iq.zoo
train --algo iq ...`` does the same, as does :func:`register` in a program.
"""

import argparse
import functools
import importlib
import inspect
import os
import runpy
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from sb3_iq import hub
from sb3_iq.demonstrations.errors import how_to_install
from sb3_iq.demonstrations.shared import SharedDemonstrations
from sb3_iq.iq_learn import IQLearn, NonFiniteLossError

if TYPE_CHECKING:
    import optuna

ALGO = "iq"
_MODULES = ("rl_zoo3.utils", "rl_zoo3.hyperparams_opt", "rl_zoo3.exp_manager")
_PLOTS = ("plot_train", "all_plots", "plot_from_file")
_REPAIRS = {"push_to_hub": hub.prepare_push, "load_from_hub": hub.prepare_load}
_COMMANDS = ("train", "enjoy", "record_video", "record_training", "benchmark", *_REPAIRS, *_PLOTS)

# Search space 1. Studies store the names and the ranges: a change of either needs a new study, so count up
NET_ARCHS = {"small": [64, 64], "medium": [256, 256], "big": [400, 300]}


def sample_iq_params(
    trial: "optuna.Trial", n_actions: int | None, n_envs: int, additional_args: dict[str, Any]
) -> dict[str, Any]:
    """
    Sampler for IQLearn hyperparameters.

    :param trial: an Optuna trial
    :param n_actions: the number of dimensions of a Box, None or 0 for discrete actions
    :param n_envs: number of environments
    :param additional_args: what RL Zoo knows besides; only for the replay buffer of HER, which IQLearn refuses
    :return: keyword arguments of IQLearn
    """
    one_minus_gamma = trial.suggest_float("one_minus_gamma", 0.003, 0.1, log=True)
    # From 2**5=32 to 2**9=512: so many transitions of the expert, and online as many of the policy
    batch_size_pow = trial.suggest_int("batch_size_pow", 5, 9)
    trial.suggest_float("learning_rate", 3e-5, 2e-3, log=True)
    trial.suggest_float("tau", 0.001, 0.08, log=True)
    trial.suggest_float("ent_coef", 0.001, 0.3, log=True)
    # Rewards are at most 1 / penalty_coef from the prior; the presets have 0.5 to 16
    trial.suggest_float("penalty_coef", 0.1, 64.0, log=True)
    trial.suggest_categorical("net_arch", list(NET_ARCHS))
    if n_actions:
        trial.suggest_float("actor_learning_rate", 1e-5, 1e-3, log=True)

    # Display true values
    trial.set_user_attr("gamma", 1 - one_minus_gamma)
    trial.set_user_attr("batch_size", 2**batch_size_pow)
    return convert_iq_params(trial.params)


def convert_iq_params(sampled_params: dict[str, Any]) -> dict[str, Any]:
    """
    From what a study stores of a trial to what it was trained with (``--trial-id``).

    :param sampled_params: the parameters of a trial of :func:`sample_iq_params`
    :return: keyword arguments of IQLearn
    """
    hyperparams = dict(sampled_params)
    hyperparams["gamma"] = 1 - hyperparams.pop("one_minus_gamma")
    hyperparams["batch_size"] = 2 ** hyperparams.pop("batch_size_pow")
    hyperparams["policy_kwargs"] = {"net_arch": list(NET_ARCHS[hyperparams.pop("net_arch")])}
    return hyperparams


def default_config() -> Path:
    """
    :return: the hyperparameters that come with this package
    """
    package = Path(__file__).parent
    # In a checkout, and hence in an editable install, the folder is beside the package. Not by importlib.resources, which does
    # not find it there
    folder = package / "hyperparams" if (package / "hyperparams").is_dir() else package.parent / "hyperparams"
    return folder / f"{ALGO}.yml"


def on_import(name: str, module: ModuleType) -> None:
    """
    Complete a module of RL Zoo; a second time changes nothing.

    :param name: the module's name
    :param module: the module, just imported
    """
    if name == "rl_zoo3.utils":
        # In place: other modules import the dictionary itself
        module.ALGOS.setdefault(ALGO, IQLearn)
    elif name == "rl_zoo3.hyperparams_opt":
        module.HYPERPARAMS_SAMPLER.setdefault(ALGO, sample_iq_params)
        if hasattr(module, "HYPERPARAMS_CONVERTER"):  # not in RL Zoo 2.2
            module.HYPERPARAMS_CONVERTER.setdefault(ALGO, convert_iq_params)
    elif name == "rl_zoo3.exp_manager":
        _complete_experiment_manager(module.ExperimentManager)


def _complete_experiment_manager(manager_class: type) -> None:
    """Our hyperparameters where RL Zoo has none, and trials that know the kind of actions and share the demonstrations."""
    manager: Any = manager_class
    init, preprocess, objective = manager.__init__, manager._preprocess_action_noise, manager.objective
    if hasattr(init, "_completed_by_sb3_iq"):
        return

    @functools.wraps(init)
    def init_with_config(self: Any, *args: Any, **kwargs: Any) -> None:
        init(self, *args, **kwargs)
        if self.algo != ALGO:
            return
        given = inspect.signature(init).bind(self, *args, **kwargs).arguments.get("config")
        if not given and not os.path.isfile(self.config):
            self.config = str(default_config())
        self._expert_data = SharedDemonstrations()

    @functools.wraps(preprocess)
    def preprocess_and_count_actions(self: Any, hyperparams: Any, saved_hyperparams: Any, env: VecEnv) -> Any:
        # The search space depends on it, and RL Zoo 2.2 only counts where there is action noise
        if self.algo == ALGO and isinstance(env.action_space, spaces.Box):
            self.n_actions = int(np.prod(env.action_space.shape))
        return preprocess(self, hyperparams, saved_hyperparams, env)

    @functools.wraps(objective)
    def objective_with_shared_data(self: Any, trial: "optuna.Trial") -> float:
        if self.algo != ALGO:
            return objective(self, trial)
        if self.max_total_trials is not None and _is_surplus(trial, self.max_total_trials):
            # The one exception that RL Zoo catches: the trial counts as failed, and this worker ends as if told to stop
            raise KeyboardInterrupt(f"{self.max_total_trials} trials are done or running")
        try:
            # Every trial builds a model: the demonstrations are read by the first, also if trials run in threads
            with self._expert_data.in_use():
                return objective(self, trial)
        except NonFiniteLossError as error:
            # RL Zoo prunes what it takes for the NaNs of bad hyperparameters, a ValueError; any other error ends the study
            from optuna.exceptions import TrialPruned

            print(error)
            raise TrialPruned() from error

    init_with_config._completed_by_sb3_iq = True  # type: ignore[attr-defined]
    manager.__init__, manager.objective = init_with_config, objective_with_shared_data
    manager._preprocess_action_noise = preprocess_and_count_actions


def _is_surplus(trial: "optuna.Trial", max_total_trials: int) -> bool:
    """Whether there are enough trials without this one: RL Zoo counts, then starts one, and so may two workers at once."""
    from optuna.trial import TrialState

    counted = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)  # as RL Zoo counts
    earlier = [other for other in trial.study.get_trials(deepcopy=False, states=counted) if other.number < trial.number]
    return len(earlier) >= max_total_trials


def register() -> None:
    """
    Make RL Zoo know ``iq`` in this process.

    :raises ImportError: if ``rl_zoo3`` can't be imported
    """
    for name in _MODULES:
        on_import(name, importlib.import_module(name))


def main() -> None:
    """Run a command of RL Zoo that knows ``iq``: ``python -m sb3_iq.zoo train --algo iq --env CartPole-v1``."""
    parser = argparse.ArgumentParser(prog="python -m sb3_iq.zoo", description=main.__doc__)
    parser.add_argument("command", choices=_COMMANDS)
    command = parser.parse_args(sys.argv[1:2]).command
    try:
        register()
    except ImportError as error:
        sys.exit(f"RL Zoo can't be imported ({error}). {how_to_install('zoo')}")
    del sys.argv[1]
    if command in _REPAIRS:
        _REPAIRS[command]()
    if command in _PLOTS:
        # Imported by their package already, so that runpy would warn
        sys.argv[0] = command
        getattr(importlib.import_module("rl_zoo3.plots"), command)()
    else:
        runpy.run_module(f"rl_zoo3.{command}", run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
