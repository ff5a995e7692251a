"""The Hugging Face hub through RL Zoo: everything but the network is the real library."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

from sb3_iq import IQLearn, hub, load_demonstrations, zoo

pytestmark = [pytest.mark.slow, pytest.mark.both_stacks]
ARGUMENTS = ["--algo", "iq", "--env", "CartPole-v1", "-f", "logs/"]


class Hub:
    """Stands for the network: what is uploaded is kept in a folder, from which it is downloaded."""

    def __init__(self, folder):
        self.folder = folder

    def create_repo(self, *_, repo_id, **__):
        self.repo_id = repo_id
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, *_, repo_id, folder_path, **__):
        assert repo_id == self.repo_id
        shutil.copytree(folder_path, self.folder)

    def snapshot_download(self, *_, local_dir, **__):
        Path(local_dir).mkdir(parents=True)

    def hf_hub_download(self, repo_id, filename, **_):
        from huggingface_hub.utils import EntryNotFoundError

        if repo_id == self.repo_id and (self.folder / filename).exists():
            return str(self.folder / filename)
        raise EntryNotFoundError.__new__(EntryNotFoundError)  # whose arguments differ between versions


@pytest.fixture
def online(monkeypatch, tmp_path):
    """A folder with the hub in it: what the libraries send to the network goes there."""
    pytest.importorskip("rl_zoo3", reason='RL Zoo is not installed: pip install ".[zoo]"', exc_type=ImportError)
    import huggingface_hub
    import huggingface_sb3

    online = Hub(tmp_path / "online")
    for name in ("create_repo", "upload_folder", "snapshot_download"):
        monkeypatch.setattr(huggingface_hub.HfApi, name, getattr(online, name))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", online.hf_hub_download)
    if hasattr(huggingface_hub, "Repository"):  # RL Zoo 2.2 works by git

        class Repository:
            def __init__(self, local_dir, clone_from):
                online.snapshot_download(local_dir=local_dir)
                self.local_dir = local_dir

            def git_pull(self, rebase):
                pass

            def lfs_track(self, patterns):
                pass

            def push_to_hub(self, commit_message):
                online.upload_folder(repo_id=online.repo_id, folder_path=self.local_dir)

        monkeypatch.setattr(huggingface_hub, "Repository", Repository)
    # What the commands repair is repaired anew by each
    module = sys.modules["huggingface_sb3.push_to_hub"]
    monkeypatch.setattr(module, "_evaluate_agent", module._evaluate_agent)
    monkeypatch.setattr(sys.modules["huggingface_hub.repocard"], "metadata_save", huggingface_hub.repocard.metadata_save)
    monkeypatch.setattr(huggingface_sb3, "load_from_hub", huggingface_sb3.load_from_hub)
    monkeypatch.setenv("TRUST_REMOTE_CODE", "True")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return online


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["sb3_iq.zoo", *arguments])
    zoo.main()


def train(monkeypatch, *parameters):
    options = ["-n", "60", "--eval-freq", "-1", "--device", "cpu", "--seed", "0"]
    run(monkeypatch, "train", *ARGUMENTS, *options, "-params", "offline:True", *parameters)


def push(monkeypatch):
    run(monkeypatch, "push_to_hub", *ARGUMENTS, "-orga", "me", "--no-render", "--device", "cpu")


def front_matter(card):
    return yaml.safe_load(card.split("---")[1])


def test_push_and_load(monkeypatch, online, tmp_path):
    train(monkeypatch)
    push(monkeypatch)
    names = {path.name for path in online.folder.iterdir()}
    assert {"iq-CartPole-v1.zip", "README.md", "config.yml", "args.yml", "env_kwargs.yml", "results.json"} <= names

    card = (online.folder / "README.md").read_text()
    demonstrations = load_demonstrations("bundled:CartPole-v1")
    assert "`bundled:CartPole-v1`: 10 episodes, 5000 transitions, mean return 500.00" in card
    assert demonstrations.content_hash in card
    assert "| training | 60 gradient steps, without the environment; 60 updates; preset `default` |" in card
    assert "10 episodes, deterministic actions" in card
    assert 'pip install ".[zoo]"' in card and "pip install rl_zoo3" not in card
    assert "python -m sb3_iq.zoo load_from_hub --algo iq --env CartPole-v1 -orga me -f logs/" in card
    assert "python -m sb3_iq.zoo push_to_hub" in card and "python -m rl_zoo3" not in card
    data = front_matter(card)
    assert {"stable-baselines3", "CartPole-v1", *hub.TAGS} <= set(data["tags"])
    assert data["model-index"][0]["name"] == "IQLearn"
    mean, random = (float(card.split(before)[1].split()[0]) for before in ("| return | ", "random actions "))
    score = float(card.split("| **normalised score** | **")[1].split("*")[0])
    assert score == pytest.approx((mean - random) / (500 - random), abs=2e-3)
    assert 10 < random < 40

    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "load_from_hub", *ARGUMENTS, "-orga", "me")
    loaded = IQLearn.load("logs/iq/CartPole-v1_1/CartPole-v1.zip", device="cpu")
    pushed = IQLearn.load(online.folder / "iq-CartPole-v1.zip", device="cpu")
    obs = np.random.default_rng(0).normal(size=(9, 4)).astype(np.float32)
    assert np.array_equal(loaded.predict(obs, deterministic=True)[0], pushed.predict(obs, deterministic=True)[0])
    run(monkeypatch, "enjoy", *ARGUMENTS, "--no-render", "-n", "20", "--device", "cpu")


def test_statistics_of_vec_normalize_and_unknown_demonstrations(monkeypatch, online, tmp_path):
    shutil.copytree(Path(zoo.__file__).parent / "demonstrations" / "bundled" / "CartPole-v1", "mine")
    train(monkeypatch, "normalize:True", "expert_data:'mine'")
    shutil.rmtree("mine")
    push(monkeypatch)
    card = (online.folder / "README.md").read_text()
    assert "`mine`: 5000 transitions |" in card
    assert "| **normalised score** | unknown: the demonstrations, or their returns, were not at hand |" in card
    monkeypatch.chdir(tmp_path)
    run(monkeypatch, "load_from_hub", *ARGUMENTS, "-orga", "me")
    assert Path("logs/iq/CartPole-v1_1/CartPole-v1/vecnormalize.pkl").exists()


def test_the_card_of_another_algorithm_stays(monkeypatch, online):
    arguments = ["--algo", "dqn", *ARGUMENTS[2:]]
    run(monkeypatch, "train", *arguments, "-n", "50", "--eval-freq", "-1", "--device", "cpu", "-params", "buffer_size:100")
    run(monkeypatch, "push_to_hub", *arguments, "-orga", "me", "--no-render", "--device", "cpu")
    card = (online.folder / "README.md").read_text()
    assert "pip install rl_zoo3" in card and "Imitation" not in card and "sb3_iq" not in card
