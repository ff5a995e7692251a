"""A run that was killed goes on where it was."""

import json
import os
import re
import shutil
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.save_util import load_from_zip_file, recursive_setattr
from stable_baselines3.common.vec_env import VecEnv, VecNormalize

from sb3_iq.iq_learn import IQLearn, rng
from sb3_iq.iq_learn.vec_normalize import take_over_statistics

# What a run has counted; all else is either in the networks' parameters or what the script says
_COUNTED = ("num_timesteps", "_episode_num", "_n_updates", "ep_info_buffer", "ep_success_buffer")
_NAME = re.compile(r"checkpoint_(\d+)_steps")


class ResumeCheckpointCallback(BaseCallback):
    """
    Callback for runs that may be killed: it saves all that a run needs to go on, and goes on. The same script, started again,
    continues from the last checkpoint, up to the ``total_timesteps`` of its ``learn``::

        model = IQLearn("MlpPolicy", env, "demos:", seed=0)
        model.learn(1_000_000, callback=ResumeCheckpointCallback(save_freq=10_000, save_path="run/"))

    A checkpoint is one folder, ``checkpoint_10000_steps``, with the model and its optimisers, the counters, the states of the
    random generators (``model.zip``, ``run.json``), the replay buffer (``replay_buffer.pkl``) and the statistics of
    ``VecNormalize`` (``vecnormalize.pkl``). It gets its name in one step, when it is complete, and the one before is removed
    afterwards, so that there is a complete one whenever a run is killed. It loses ``save_freq`` steps and a rollout at most.

    The environment begins a new episode where a run goes on, for its state can't be saved. Offline, where there is none, the
    run ends with exactly the parameters of one that was not interrupted. Other callbacks start anew: ``EvalCallback`` forgets
    the best mean reward, and overwrites ``best_model.zip`` by the first evaluation. The settings are those of the script, so
    that ``learning_rate`` and the like may be changed between two runs.

    .. warning::
      Each ``learn`` needs a folder of its own. Only use a folder that you trust: SB3's files hold pickles, which can run code.

    :param save_freq: number of time steps between two checkpoints; online they are taken between two rollouts. Offline, the
        number of gradient steps
    :param save_path: the folder of the run, made if there is none
    :param verbose: Verbosity level: 0 for no output, 1 for saying when a checkpoint is saved, and when a run goes on
    :raises TypeError: if ``save_freq`` is not an integer, or the model is not an ``IQLearn``
    :raises ValueError: if ``save_freq`` is less than 1, or, by ``learn``, if what is in the folder is of another run
    """

    model: IQLearn

    def __init__(self, save_freq: int, save_path: str | os.PathLike[str], verbose: int = 0) -> None:
        super().__init__(verbose)
        if isinstance(save_freq, bool) or not isinstance(save_freq, int):
            raise TypeError(f"`save_freq` is {save_freq!r:.80}: give the number of steps between two checkpoints, an integer.")
        if save_freq < 1:
            raise ValueError(f"`save_freq` is {save_freq}: give 1 or more steps.")
        self.save_freq = save_freq
        self.save_path = Path(save_path)
        self._saved_at = self._start = 0

    def checkpoint(self) -> Path | None:
        """
        :return: the folder of the last complete checkpoint, None if there is none yet
        """
        found = self._checkpoints()
        return found[max(found)] if found else None

    def _checkpoints(self) -> dict[int, Path]:
        named = ((_NAME.fullmatch(path.name), path) for path in self.save_path.glob("checkpoint_*"))
        return {int(match[1]): path for match, path in named if match}

    def _init_callback(self) -> None:
        if not isinstance(self.model, IQLearn):
            raise TypeError(f"the model is of {type(self.model).__name__}: ResumeCheckpointCallback is for IQLearn only.")

    def _on_training_start(self) -> None:
        self._start = self.model._num_timesteps_at_start
        found = self.checkpoint()
        if found is not None:
            self._restore(found)
        self._saved_at = self.num_timesteps = self.model.num_timesteps

    def _on_rollout_start(self) -> None:
        # The last step is in the replay buffer now, and learned from
        self._save_if_due()

    def _on_step(self) -> bool:
        if self.model.offline:
            self._save_if_due()
        return True

    def _on_training_end(self) -> None:
        if self.model.num_timesteps > self._saved_at:
            self._save()

    def _save_if_due(self) -> None:
        if self.model.num_timesteps - self._saved_at >= self.save_freq:
            self._save()

    def _save(self) -> None:
        model, writing = self.model, self.save_path / ".writing"
        shutil.rmtree(writing, ignore_errors=True)
        writing.mkdir(parents=True)
        model.save(writing / "model.zip")
        if model.replay_buffer is not None:
            model.save_replay_buffer(writing / "replay_buffer.pkl")
        vec_normalize = model.get_vec_normalize_env()
        if vec_normalize is not None:
            vec_normalize.save(str(writing / "vecnormalize.pkl"))
        generators = [generator.bit_generator.state for generator in _np_randoms(model.env)]
        run = {"num_timesteps_at_start": self._start, "env_generators": generators}
        (writing / "run.json").write_text(json.dumps(run))
        for path in writing.iterdir():
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        complete = self.save_path / f"checkpoint_{model.num_timesteps}_steps"
        writing.rename(complete)
        self._saved_at = model.num_timesteps
        self._remove_all_but(complete)
        if self.verbose >= 1:
            print(f"Saved the run to {complete}")

    def _remove_all_but(self, complete: Path) -> None:
        removing = self.save_path / ".removing"
        shutil.rmtree(removing, ignore_errors=True)
        for path in self._checkpoints().values():
            if path != complete:
                # What is half removed must not have the name of a checkpoint
                shutil.rmtree(path.rename(removing))

    def _restore(self, checkpoint: Path) -> None:
        model, run = self.model, json.loads((checkpoint / "run.json").read_text())
        data, parameters, variables = load_from_zip_file(checkpoint / "model.zip", device=model.device)
        assert data is not None
        vec_normalize, statistics = model.get_vec_normalize_env(), checkpoint / "vecnormalize.pkl"
        what = {
            "demonstrations": (data["expert_content_hash"], model.expert_content_hash),
            "number of environments": (data["n_envs"], model.n_envs),
            "use of VecNormalize": (statistics.exists(), vec_normalize is not None),
            "number of steps when `learn` began": (run["num_timesteps_at_start"], self._start),
        }
        for name, (saved, now) in what.items():
            if saved != now:
                raise ValueError(self._of_another_run(checkpoint, f"its {name} is {saved}, and not {now}"))
        try:
            model.set_parameters(parameters, device=model.device)
        except (RuntimeError, ValueError, KeyError) as error:
            what_differs = " ".join(str(error).split())[:200]
            raise ValueError(self._of_another_run(checkpoint, f"its parameters do not fit ({what_differs})")) from error
        for name, variable in (variables or {}).items():
            recursive_setattr(model, f"{name}.data", variable.data)
        for name in _COUNTED:
            setattr(model, name, data[name])
        model._num_timesteps_at_start = model.num_timesteps  # what the number of steps per second is reckoned from
        model._update_current_progress_remaining(model.num_timesteps, model._total_timesteps)
        if (checkpoint / "replay_buffer.pkl").exists():
            model.load_replay_buffer(checkpoint / "replay_buffer.pkl")
        if vec_normalize is not None:
            take_over_statistics(vec_normalize, VecNormalize.load(str(statistics), vec_normalize.venv))
        self._restore_generators(data, run["env_generators"])
        if self.verbose >= 1:
            print(f"Going on from {checkpoint}")
        if model.num_timesteps >= model._total_timesteps:
            warnings.warn(
                f"{checkpoint} is of a run that has taken {model.num_timesteps} of {model._total_timesteps} steps: nothing is "
                "left to learn. Raise `total_timesteps` to go on, or give a run that begins anew another `save_path`.",
                stacklevel=2,
            )

    def _restore_generators(self, data: dict[str, Any], env_generators: list[dict[str, Any]]) -> None:
        """Begin an episode, and go on with the random numbers that would have come."""
        model = self.model
        assert model.env is not None
        for index, (generator, state) in enumerate(zip(_np_randoms(model.env), env_generators, strict=False)):
            generator.bit_generator.state = state
            model.env.set_attr("np_random", generator, indices=index)
        model._last_obs = model.env.reset()  # type: ignore[assignment]
        if model._vec_normalize_env is not None:
            model._last_original_obs = model._vec_normalize_env.get_original_obs()
        model._setup_imitation(model.demonstrations)
        model.action_space.np_random.bit_generator.state = data["action_space"].np_random.bit_generator.state
        model.expert_rng.bit_generator.state = data["expert_rng"].bit_generator.state
        rng.set_rng_states(data["_rng_states"], model.device)

    def _of_another_run(self, checkpoint: Path, reason: str) -> str:
        return (
            f"`save_path` holds {checkpoint}, from which this run can't go on: {reason}. Set up the model as it was, or give "
            "each `learn` a folder of its own."
        )


def _np_randoms(env: VecEnv | None) -> list[np.random.Generator]:
    """Return the random generators of the environments, where they can be reached and are of gymnasium's kind."""
    with suppress(AttributeError, NotImplementedError):
        generators = env.get_attr("np_random")  # type: ignore[union-attr]
        if all(isinstance(getattr(generator, "bit_generator", None), np.random.PCG64) for generator in generators):
            return list(generators)
    return []
