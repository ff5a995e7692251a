"""RL Zoo's own commands with the algorithm ``iq``: its list of tests, and that nobody else notices us."""

import os
import subprocess
import sys
import sysconfig
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize

from sb3_iq import IQLearn, ResumeCheckpointCallback
from sb3_iq.demonstrations import expert_data
from sb3_iq.iq_learn import NonFiniteLossError

pytestmark = [pytest.mark.slow, pytest.mark.both_stacks]

ROOT = Path(__file__).parents[1]
SHORT = ["--eval-freq", "-1", "--device", "cpu", "--seed", "0"]


@pytest.fixture(scope="module", autouse=True)
def _rl_zoo3():
    pytest.importorskip("rl_zoo3.cli", reason='RL Zoo is not installed: pip install ".[zoo]"', exc_type=ImportError)
    if "_sb3_iq_zoo" not in sys.modules:
        pytest.skip("the start-up files are not active: pip install -e . (or unset SB3_IQ_ZOO)")


@pytest.fixture
def zoo(monkeypatch, tmp_path):
    """Runs a command of RL Zoo in this process, which spares the imports; in an empty folder."""
    from rl_zoo3.cli import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "Agg")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["rl_zoo3", *map(str, arguments)])
        main()

    return run


def shell(*command, cwd, code=0, **variables):
    """Run a command of this environment as a user would, and return what it prints."""
    environ = {name: value for name, value in os.environ.items() if name not in ("DISPLAY", "PYTHONPATH", "SB3_IQ_ZOO")}
    executable = Path(sys.executable).parent / command[0]
    result = subprocess.run(
        [str(executable), *map(str, command[1:])], cwd=cwd, env=environ | variables, capture_output=True, text=True
    )
    output = result.stdout + result.stderr
    assert result.returncode == code, output[-3000:]
    return output


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A folder in which `rl_zoo3 train` has run."""
    folder = tmp_path_factory.mktemp("zoo")
    command = ["rl_zoo3", "train", "--algo", "iq", "--env", "CartPole-v1", "-n", 300, "--seed", 0, "--save-replay-buffer"]
    command += ["--eval-freq", 100, "--eval-episodes", 1, "--save-freq", 150]
    command += ["-params", "learning_starts:100", "reward_prior:0.0"]
    shell(*command, cwd=folder)
    return folder


def test_train_saves_what_the_zoo_saves(trained):
    run = trained / "logs" / "iq" / "CartPole-v1_1"
    names = {path.name for path in run.iterdir()}
    assert {"CartPole-v1.zip", "best_model.zip", "evaluations.npz", "replay_buffer.pkl", "rl_model_150_steps.zip"} <= names
    config = dict(yaml.unsafe_load((run / "CartPole-v1" / "config.yml").read_text()))
    packaged = yaml.safe_load((ROOT / "hyperparams" / "iq.yml").read_text())["CartPole-v1"]
    assert config == packaged | {"learning_starts": 100, "reward_prior": 0.0}
    model = IQLearn.load(run / "CartPole-v1.zip")
    assert model.num_timesteps == 300
    assert model.expert_reference == "bundled:CartPole-v1"


def test_enjoy(trained):
    command = ["rl_zoo3", "enjoy", "--algo", "iq", "--env", "CartPole-v1", "-f", "logs/", "--no-render", "-n", 100]
    assert "Loading logs/iq/CartPole-v1_1/CartPole-v1.zip" in shell(*command, cwd=trained)


def test_fallback_without_start_up_files(trained):
    # -S: no start-up file is processed, as in an environment made with --target
    path = os.pathsep.join([str(ROOT), sysconfig.get_paths()["purelib"]])
    command = ["python", "-S", "-m", "sb3_iq.zoo", "enjoy", "--algo", "iq", "--env", "CartPole-v1", "-f", "logs", "-n", 100]
    assert "CartPole-v1.zip" in shell(*command, "--no-render", cwd=trained, PYTHONPATH=path)


@pytest.mark.parametrize("agent", ["CartPole-v1.zip", "rl_model_150_steps.zip"])
def test_continue(zoo, trained, agent, monkeypatch):
    """A new training from the networks of an agent, and from the replay buffer beside it."""
    path = trained / "logs" / "iq" / "CartPole-v1_1" / agent
    begun = []

    def note(self, *args, **kwargs):
        begun.append((self.replay_buffer.size(), self.replay_buffer.observations[:300].copy()))
        return learn(self, *args, **kwargs)

    learn = IQLearn.learn
    monkeypatch.setattr(IQLearn, "learn", note)
    arguments = ["--algo", "iq", "--env", "CartPole-v1", "-n", 150, *SHORT, "--save-replay-buffer"]
    zoo("train", *arguments, "-i", path)
    before, after = IQLearn.load(path), IQLearn.load("logs/iq/CartPole-v1_1/CartPole-v1.zip")
    # As with SB3's algorithms, learning_starts (100) counts anew
    assert (after.num_timesteps, after._n_updates) == (150, before._n_updates + 50)
    ((size, observations),) = begun
    after.load_replay_buffer("logs/iq/CartPole-v1_1/replay_buffer.pkl")
    assert (size, after.replay_buffer.size()) == (300, 450)
    assert np.array_equal(after.replay_buffer.observations[:300], observations) and observations.any()
    # and once more from what has been saved there
    zoo("train", *arguments, "-i", "logs/iq/CartPole-v1_1/CartPole-v1.zip")
    assert begun[1][0] == 450
    assert IQLearn.load("logs/iq/CartPole-v1_2/CartPole-v1.zip")._n_updates == before._n_updates + 100


def test_continue_normalised_with_other_parameters(zoo):
    arguments = ["--algo", "iq", "--env", "CartPole-v1", "-n", 150, *SHORT, "--save-replay-buffer"]
    arguments += ["-params", "learning_starts:50", "buffer_size:1000", "normalize:dict(norm_obs=True,norm_reward=False)"]
    zoo("train", *arguments, "learning_rate:1e-3")
    zoo("train", *arguments, "learning_rate:2e-3", "-i", "logs/iq/CartPole-v1_1/CartPole-v1.zip")
    first, second = (IQLearn.load(f"logs/iq/CartPole-v1_{n}/CartPole-v1.zip") for n in (1, 2))
    assert (first.lr_schedule(1), second.lr_schedule(1)) == (1e-3, 2e-3)
    assert second._n_updates > first._n_updates
    counts = [statistics_of(n).obs_rms.count for n in (1, 2)]
    assert counts[1] > counts[0] + 150 > 5_000


def statistics_of(run):
    path = f"logs/iq/CartPole-v1_{run}/CartPole-v1/vecnormalize.pkl"
    return VecNormalize.load(path, make_vec_env("CartPole-v1"))


def test_a_killed_run_goes_on_by_the_same_command(zoo, tmp_path, monkeypatch):
    callback = "callback:{'sb3_iq.ResumeCheckpointCallback': dict(save_freq=50, save_path='run')}"
    command = ["train", "--algo", "iq", "--env", "CartPole-v1", "-n", 100_000, *SHORT]
    parameters = ["-params", "learning_starts:50", "reward_prior:0.0", callback]
    words = [Path(sys.executable).parent / "rl_zoo3", *command, *parameters]
    with subprocess.Popen(list(map(str, words)), cwd=tmp_path, stdout=subprocess.DEVNULL) as process:
        while not list(tmp_path.glob("run/checkpoint_*")):
            assert process.poll() is None
            time.sleep(0.01)
        process.kill()
    reached = ResumeCheckpointCallback(50, "run").checkpoint()
    steps = int(reached.name.split("_")[1])
    begun, collect = [], IQLearn.collect_rollouts

    def note(self, *args, **kwargs):
        begun.append(self.num_timesteps)
        return collect(self, *args, **kwargs)

    monkeypatch.setattr(IQLearn, "collect_rollouts", note)
    command[command.index(100_000)] = steps + 60
    zoo(*command, *parameters)
    assert begun[0] == steps
    assert IQLearn.load("logs/iq/CartPole-v1_2/CartPole-v1.zip").num_timesteps == steps + 60


def test_custom_yaml_normalised_in_processes(zoo, tmp_path):
    hyperparams = {"policy": "MlpPolicy", "n_timesteps": 200, "n_envs": 2, "normalize": True, "learning_starts": 50}
    hyperparams |= {"expert_data": "bundled:CartPole-v1?n_trajectories=3", "policy_kwargs": "dict(net_arch=[32])"}
    (tmp_path / "my.yml").write_text(yaml.dump({"CartPole-v1": hyperparams}))
    arguments = ["--algo", "iq", "--env", "CartPole-v1"]
    zoo("train", *arguments, "-conf", "my.yml", "--vec-env", "subproc", "--device", "cpu", "--eval-freq", 100)
    model = IQLearn.load("logs/iq/CartPole-v1_1/CartPole-v1.zip")
    assert model.n_envs == 2
    assert model.expert_n_transitions == 1500
    assert Path("logs/iq/CartPole-v1_1/CartPole-v1/vecnormalize.pkl").exists()
    zoo("enjoy", *arguments, "-f", "logs", "--no-render", "-n", 50)


def test_offline(zoo):
    arguments = ["--algo", "iq", "--env", "CartPole-v1"]
    zoo("train", *arguments, "-n", 50, "--eval-freq", 25, "--device", "cpu", "-params", "offline:True")
    model = IQLearn.load("logs/iq/CartPole-v1_1/CartPole-v1.zip")
    assert (model._n_updates, model.replay_buffer) == (50, None)
    assert np.load("logs/iq/CartPole-v1_1/evaluations.npz")["timesteps"].tolist() == [25, 50]


def test_weights_and_biases(tmp_path):
    """What ``--track`` sends, without a network: it stays on this machine."""
    for package in ("wandb", "tensorboard"):
        pytest.importorskip(package, reason=f"{package} is not installed")
    command = ["python", "-m", "sb3_iq.zoo", "train", "--algo", "iq", "--env", "CartPole-v1", "-n", 100, "--eval-freq", -1]
    offline = {"WANDB_MODE": "offline", "WANDB_SILENT": "true", "PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    shell(*command, "--track", "-params", "offline:True", cwd=tmp_path, **offline)
    (run,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    sent = run.read_bytes()
    # As the page of RL Zoo says: the keys of the logs, and the hyperparameters within the configuration
    for text in ("train/critic_loss", "train/expert_reward", "saved_hyperparams", "bundled:CartPole-v1"):
        assert text.encode() in sent, text
    assert len(list(tmp_path.glob("runs/CartPole-v1__iq__*/CartPole-v1/IQLearn_1/events.*"))) == 1


def test_default_hyperparameters(zoo):
    from rl_zoo3 import hyperparams_opt

    if not hasattr(hyperparams_opt, "HYPERPARAMS_CONVERTER"):
        pytest.skip("this RL Zoo reads no default section")
    reference = "expert_data:'bundled:CartPole-v1'"
    zoo("train", "--algo", "iq", "--env", "CartPole-v0", "-n", 50, *SHORT, "-params", reference, "learning_starts:20")
    assert Path("logs/iq/CartPole-v0_1/CartPole-v0.zip").exists()


@pytest.mark.parametrize(
    "value, message", [("'nowhere.npz'", "no such file"), ("'demos:'", "SB3_IQ_DEMOS is not set.*sb3_iq.record")]
)
def test_no_demonstrations(zoo, monkeypatch, value, message):
    monkeypatch.delenv("SB3_IQ_DEMOS", raising=False)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        zoo("train", "--algo", "iq", "--env", "CartPole-v1", "-n", 50, *SHORT, "-params", f"expert_data:{value}")


def count_reads(monkeypatch):
    load, reads = expert_data.load_demonstrations, []

    def counted(*args, **kwargs):
        reads.append(args)
        return load(*args, **kwargs)

    monkeypatch.setattr(expert_data, "load_demonstrations", counted)
    return reads


def test_optimisation_reads_once_and_retrains_what_was_tuned(zoo, monkeypatch):
    import optuna
    from rl_zoo3 import hyperparams_opt

    reads, settings, init = count_reads(monkeypatch), [], IQLearn.__init__

    def remember(self, **kwargs):
        settings.append({key: value for key, value in kwargs.items() if key not in ("env", "seed", "verbose")})
        init(self, **kwargs)

    monkeypatch.setattr(IQLearn, "__init__", remember)
    search = ["train", "--algo", "iq", "--env", "CartPole-v1", "-n", 100, "--storage", "sqlite:///study.db"]
    search += ["--study-name", "s", "--device", "cpu", "-params", "learning_starts:50"]
    zoo(*search, "-optimize", "--n-trials", 3, "--n-evaluations", 1, "--sampler", "random", "--pruner", "none")
    assert len(settings) == 3
    assert len(reads) == 1
    trials = optuna.load_study(study_name="s", storage="sqlite:///study.db").trials
    assert [trial.state for trial in trials] == [optuna.trial.TrialState.COMPLETE] * 3
    if not hasattr(hyperparams_opt, "HYPERPARAMS_CONVERTER"):
        return
    zoo(*search, "--trial-id", 1, "--eval-freq", -1)
    tuned, again = settings[1], settings[3]
    assert again.pop("learning_rate")(1.0) == tuned.pop("learning_rate")  # a constant schedule
    assert again == tuned


def test_optimisation_in_threads_prunes_what_is_not_finite(zoo, monkeypatch):
    import optuna

    reads, train, models = count_reads(monkeypatch), IQLearn.train, []

    def first_model_diverges(self, *args, **kwargs):
        models.append(self)
        if models[0] is self:
            raise NonFiniteLossError("the first one")
        train(self, *args, **kwargs)

    monkeypatch.setattr(IQLearn, "train", first_model_diverges)
    arguments = ["--algo", "iq", "--env", "Pendulum-v1", "-n", 60, "--storage", "sqlite:///study.db", "--study-name", "s"]
    np.savez("demos.npz", **pendulum_transitions())
    parameters = ["learning_starts:50", "expert_data:'demos.npz'"]
    zoo("train", *arguments, "-optimize", "--n-trials", 3, "--n-jobs", 2, "--n-evaluations", 1, "-params", *parameters)
    trials = optuna.load_study(study_name="s", storage="sqlite:///study.db").trials
    assert sorted(trial.state.name for trial in trials) == ["COMPLETE", "COMPLETE", "PRUNED"]
    assert all("actor_learning_rate" in trial.params for trial in trials)
    assert len(reads) == 1


def pendulum_transitions(n=20):
    generator = np.random.default_rng(0)
    obs = generator.uniform(-1, 1, size=(n + 1, 3)).astype(np.float32)
    acts = generator.uniform(-2, 2, size=(n, 1)).astype(np.float32)
    return {"obs": obs[:-1], "next_obs": obs[1:], "acts": acts, "dones": np.arange(n) == n - 1}


def test_opt_out(tmp_path):
    command = ["rl_zoo3", "train", "--algo", "iq", "--env", "CartPole-v1", "-n", 50]
    assert "invalid choice: 'iq'" in shell(*command, cwd=tmp_path, code=2, SB3_IQ_ZOO="0")


def test_other_algorithms_train_where_this_package_is_broken(tmp_path):
    (tmp_path / "sb3_iq").mkdir()
    (tmp_path / "sb3_iq" / "__init__.py").write_text("raise RuntimeError('broken')")
    command = ["rl_zoo3", "train", "--algo", "ppo", "--env", "CartPole-v1", "-n", 50, "--device", "cpu"]
    output = shell(*command, cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "--algo iq is not available: RuntimeError: broken" in output
    assert (tmp_path / "logs" / "ppo" / "CartPole-v1_1" / "CartPole-v1.zip").exists()


def test_start_up_imports_nothing(tmp_path):
    code = "import sys; print(sys.meta_path[0].__module__); print(*sys.modules)"
    first, modules = shell("python", "-c", code, cwd=tmp_path).splitlines()
    assert first == "_sb3_iq_zoo"
    assert not {"sb3_iq", "rl_zoo3", "stable_baselines3", "torch", "numpy"} & set(modules.split())


def test_importing_other_packages_leaves_this_one_alone(tmp_path):
    code = "import stable_baselines3, sys; print([name for name in sys.modules if name.startswith(('sb3_iq', 'rl_zoo3'))])"
    assert shell("python", "-c", code, cwd=tmp_path).splitlines()[-1] == "[]"


def test_a_new_process_knows_the_algorithm(tmp_path):
    # Not through a command of the zoo, and not forked from this process
    code = "import rl_zoo3.utils as u, rl_zoo3.exp_manager as e; print(u.ALGOS['iq'].__name__, e.ALGOS is u.ALGOS)"
    assert shell("python", "-c", code, cwd=tmp_path).splitlines()[-1] == "IQLearn True"
