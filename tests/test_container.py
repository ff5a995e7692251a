"""Demonstrations as a container: what a user does with a set of episodes before learning from it."""

import sys
from contextlib import nullcontext
from inspect import signature
from pathlib import Path

import datasets
import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from sb3_iq.demonstrations import Demonstrations, Trajectory, load_demonstrations
from sb3_iq.demonstrations.__main__ import main
from sb3_iq.demonstrations.report import VALUE_OF_ENDS
from tests.utils import BOX, DICT, DISCRETE, WIDE_BOX, RandomEnv, random_trajectories

CARTPOLE = "bundled:CartPole-v1"


def episode(number: int, length: int = 4, **flags) -> Trajectory:
    """Return an episode that is told from others by its numbers."""
    arrays = (np.full((length + 1, 2), number, np.float32), np.arange(length) % 2, np.full(length, float(number)))
    return Trajectory(*arrays, **({"terminated": True, "truncated": False} | flags))


def demos(n: int = 5, **kwargs) -> Demonstrations:
    return Demonstrations(tuple(episode(number) for number in range(n)), **kwargs)


def numbers(demonstrations: Demonstrations) -> list[int]:
    return [int(np.asarray(trajectory.obs)[0, 0]) for trajectory in demonstrations]


@st.composite
def some_demonstrations(draw: st.DrawFn) -> Demonstrations:
    """Draw episodes of any lengths, dtypes and ends, with arrays or dictionaries of them, whose numbers are all distinct."""
    as_dict, with_rewards = draw(st.booleans()), draw(st.booleans())
    dtype = draw(st.sampled_from([np.float32, np.float64, np.uint8, np.int64]))
    shape = draw(st.sampled_from([(), (3,), (2, 4, 3)]))
    trajectories = []
    for number in range(draw(st.integers(1, 6))):
        n = draw(st.integers(1, 5))
        rng = np.random.default_rng(number)
        obs = rng.integers(0, 200, (n + 1, *shape)).astype(dtype)
        acts = rng.normal(size=(n, 2)).astype(np.float32) if draw(st.booleans()) else rng.integers(0, 3, n)
        terminated, truncated = draw(st.sampled_from([(True, False), (False, True), (False, False)]))
        trajectories.append(
            Trajectory(
                {"a b": obs, "goal.x": rng.normal(size=(n + 1, 1))} if as_dict else obs,
                acts,
                rng.normal(size=n) if with_rewards else None,
                terminated,
                truncated,
                draw(st.booleans()),
                "assumed" if terminated and draw(st.booleans()) else "info",
            )
        )
    if len({np.asarray(trajectory.acts).ndim for trajectory in trajectories}) > 1:
        trajectories = trajectories[:1]
    return Demonstrations(tuple(trajectories), draw(st.integers(1, 3)), max_episode_steps=draw(st.sampled_from([None, 100])))


def test_it_is_short_to_print():
    text = "bundled:CartPole-v1: 10 episodes, 5000 transitions, return 500.0 +/- 0.0, 0 terminated, 10 truncated, 0 open"
    assert repr(load_demonstrations(CARTPOLE)) == f"<Demonstrations {text}>"


def test_an_episode_is_short_to_print():
    assert repr(episode(2)) == "<Trajectory 4 steps, terminated, return 8.0, obs (5, 2) float32, acts (4,) int64>"
    with_dict = Trajectory({"x": np.zeros((2, 1)), "y": np.zeros((2, 3))}, np.zeros((1, 2)), None, False, True)
    assert repr(with_dict) == (
        "<Trajectory 1 steps, truncated, no rewards, obs['x'] (2, 1) float64, obs['y'] (2, 3) float64, acts (1, 2) float64>"
    )


def test_choosing_episodes():
    all_five = demos()
    assert len(all_five) == 5 and list(all_five) == list(all_five.trajectories)
    assert all_five[0] is all_five.trajectories[0] and all_five[np.int64(-1)] is all_five.trajectories[4]
    for index, expected in (
        (slice(1, 4), [1, 2, 3]),
        (slice(None, None, -2), [4, 2, 0]),
        ([3, -5], [3, 0]),
        ((2,), [2]),
        (np.array([True, False, False, True, False]), [0, 3]),
        ([False, True, False, False, False], [1]),
    ):
        assert numbers(all_five[index]) == expected
    kept = Demonstrations(tuple(all_five), 3, "name", {"env_id": "x"}, 9, DICT, DISCRETE)[1:]
    assert (kept.subsample_freq, kept.reference, kept.max_episode_steps) == (3, "name", 9)
    assert (kept.observation_space, kept.action_space) == (DICT, DISCRETE)


@pytest.mark.parametrize(
    ("index", "error", "message"),
    [
        (5, IndexError, "no episode 5: there are 5"),
        ([0, 7], IndexError, "no episode 7"),
        ("0", TypeError, "index '0': expected the number of an episode"),
        (1.0, TypeError, "index 1.0"),
        ([0.5], TypeError, "expected the number"),
        ([True, False], TypeError, "one bool for each of 5 episodes"),
        (None, TypeError, "index None"),
        (slice(5, None), ValueError, "leaves none of 5 episodes"),
        ([], ValueError, "leaves none of 5 episodes"),
    ],
)
def test_wrong_indices(index, error, message):
    with pytest.raises(error, match=message):
        demos()[index]


def test_filter_and_subsample():
    assert numbers(demos().filter(lambda e: e.rews.sum() >= 12)) == [3, 4]
    assert numbers(demos().filter(lambda e: e.obs.sum())) == [1, 2, 3, 4]  # what is true will do
    with pytest.raises(ValueError, match="leaves none of 5 episodes"):
        demos().filter(lambda e: False)
    with pytest.raises(TypeError, match="function='x': expected a function"):
        demos().filter("x")
    assert demos().subsample(3).subsample(2).subsample_freq == 6
    assert demos().subsample(3).n_transitions == 10
    with pytest.raises(ValueError, match="freq=0"):
        demos().subsample(0)


def test_joining():
    both = demos(2) + demos(3)
    assert numbers(both) == [0, 1, 0, 1, 2]
    loaded = load_demonstrations(CARTPOLE)
    joined = loaded[:2] + loaded[5:]
    assert (len(joined), joined.reference, joined.max_episode_steps) == (7, CARTPOLE, 500)
    assert joined.content_hash == loaded[[0, 1, 5, 6, 7, 8, 9]].content_hash
    # An environment's limit may still be needed for one of them
    assert (demos() + demos(max_episode_steps=4)).max_episode_steps is None
    assert (demos() + demos(observation_space=DICT)).observation_space == DICT
    for kwargs, message in (
        ({"subsample_freq": 2}, "subsample_freq=1 and 2 can't be joined. Subsample the sum"),
        ({"max_episode_steps": 7}, "max_episode_steps=9 and 7"),
        ({"action_space": WIDE_BOX}, "action_space=.*of one environment"),
    ):
        with pytest.raises(ValueError, match=message):
            demos(max_episode_steps=9, action_space=DISCRETE) + demos(**kwargs)
    with pytest.raises(TypeError):
        demos() + "more"


@pytest.mark.slow
@given(n=st.integers(2, 40), fraction=st.floats(0.001, 0.999), seed=st.none() | st.integers(0, 100))
def test_a_split_is_a_partition(n, fraction, seed):
    training, held_out = demos(n).split(fraction, seed=seed)
    assert sorted(numbers(training) + numbers(held_out)) == list(range(n))
    assert numbers(training) == sorted(numbers(training)) and numbers(held_out) == sorted(numbers(held_out))
    assert len(held_out) == min(max(1, round(fraction * n)), n - 1)
    again = demos(n).split(fraction, seed=seed)
    assert [part.content_hash for part in again] == [training.content_hash, held_out.content_hash]


def test_splits():
    training, held_out = demos(10).split()
    assert (numbers(training), numbers(held_out)) == ([0, 1, 2, 3, 4, 5, 6, 7], [8, 9])
    assert {tuple(numbers(demos(10).split(0.2, seed=seed)[1])) for seed in range(10)} != {(8, 9)}
    for arguments, message in (
        ((0,), "fraction=0: expected a number between 0 and 1"),
        ((1.0,), "fraction=1.0"),
        ((-0.1,), "fraction=-0.1"),
        ((0.2, -1), "seed=-1"),
    ):
        with pytest.raises(ValueError, match=message):
            demos().split(*arguments)
    with pytest.raises(TypeError, match="fraction='a'"):
        demos().split("a")
    with pytest.raises(ValueError, match="one episode can't be split"):
        demos(1).split()


@pytest.mark.slow
@given(demonstrations=some_demonstrations(), suffix=st.sampled_from(["", ".parquet"]))
def test_what_is_saved_is_read_back(tmp_path_factory, demonstrations, suffix):
    path = tmp_path_factory.mktemp("saved") / f"set{suffix}"
    demonstrations.save(path, {"note": "by a test"})
    loaded = load_demonstrations(path)
    assert loaded.content_hash == demonstrations.content_hash
    assert (loaded.subsample_freq, loaded.max_episode_steps) == (
        demonstrations.subsample_freq,
        demonstrations.max_episode_steps,
    )
    assert loaded.card is not None and loaded.card["note"] == "by a test"
    for ours, theirs in zip(demonstrations, loaded, strict=True):
        assert (ours.ending, ours.starts_at_reset) == (theirs.ending, theirs.starts_at_reset)
        ours_obs, theirs_obs = ([e.obs] if not isinstance(e.obs, dict) else list(e.obs.values()) for e in (ours, theirs))
        assert [array.dtype for array in ours_obs] == [array.dtype for array in theirs_obs]
        assert ours.acts.dtype == theirs.acts.dtype
    if not suffix:  # and memory-mapped
        assert load_demonstrations(path, max_memory_gb=0).content_hash == demonstrations.content_hash


def test_dict_observations_have_a_column_for_each_key(tmp_path):
    demonstrations = load_demonstrations(random_trajectories(RandomEnv(DICT, DISCRETE)))
    demonstrations.save(tmp_path / "set")
    table = datasets.load_from_disk(str(tmp_path / "set"))
    assert table.column_names == ["obs.image", "obs.vector", "acts", "infos", "terminal", "rews"]
    assert np.shape(table[0]["obs.image"]) == (11, 36, 36, 3)
    for source in (table, table.select([2, 0]), str(tmp_path / "set")):
        loaded = load_demonstrations(source)
        assert loaded[-1].obs["vector"].dtype == np.float32 and loaded[-1].obs["image"].dtype == np.uint8
    assert load_demonstrations(table).content_hash == demonstrations.content_hash
    table.remove_columns(["obs.vector", "obs.image"]).save_to_disk(str(tmp_path / "none"))
    with pytest.raises(ValueError, match=r"columns \['obs'\] are missing.*obs.KEY for each key"):
        load_demonstrations(tmp_path / "none")


def test_nothing_is_written_over(tmp_path):
    (tmp_path / "set").mkdir()
    demos().save(tmp_path / "set")
    for path in (tmp_path / "set", tmp_path / "set" / "state.json"):
        with pytest.raises(ValueError, match="there is something already"):
            demos().save(path)
    with pytest.raises(ValueError, match="cannot be written"):
        demos().save(tmp_path / "set" / "state.json" / "below")
    with pytest.raises(ValueError, match="only some episodes have rewards"):
        (demos() + load_demonstrations([{"obs": np.zeros((3, 2)), "acts": np.zeros(2, int)}])).save(tmp_path / "other")


def test_the_card_tells_of_what_is_saved(tmp_path):
    load_demonstrations(CARTPOLE)[:2].save(tmp_path / "two.parquet")
    card = load_demonstrations(tmp_path / "two.parquet").card
    assert card == {
        "env_id": "CartPole-v1",
        "max_episode_steps": 500,
        "subsample_freq": 1,
        "n_episodes": 2,
        "n_transitions": 1000,
    }
    demos().save(tmp_path / "five.parquet")  # beside it, with a card of its own
    assert load_demonstrations(tmp_path / "five.parquet").card != card
    (tmp_path / "five.card.json").write_text('{"subsample_freq": "x"}')
    with pytest.raises(ValueError, match=r"subsample_freq is 'x' in card\.json"):
        load_demonstrations(tmp_path / "five.parquet")


@pytest.mark.parametrize("as_dict", [False, True])
def test_to_imitation(as_dict):
    types = pytest.importorskip("imitation.data.types", reason="imitation is not installed")
    obs = {"x": np.zeros((4, 2)), "y": np.ones((4, 1))} if as_dict else np.zeros((4, 2))
    ends = [(True, False), (False, True), (False, False)]
    demonstrations = load_demonstrations([Trajectory(obs, np.arange(3), np.ones(3), *end) for end in ends])
    converted = demonstrations.to_imitation()
    assert all(isinstance(trajectory, types.TrajectoryWithRew) for trajectory in converted)
    assert [trajectory.terminal for trajectory in converted] == [True, True, False]
    assert load_demonstrations(converted).content_hash == demonstrations.content_hash
    bare = Demonstrations((Trajectory(obs, np.arange(3), None, True, False),)).to_imitation()
    assert type(bare[0]) is types.Trajectory
    with pytest.raises(ValueError, match="subsample_freq=2, but imitation's trajectories hold every step"):
        demonstrations.subsample(2).to_imitation()


@pytest.mark.filterwarnings("ignore::UserWarning:minari")
@pytest.mark.parametrize("observation_space", [BOX, DICT, spaces.Discrete(5)], ids=["box", "dict", "codes"])
@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX], ids=["discrete", "continuous"])
def test_to_minari_and_back(tmp_path, monkeypatch, observation_space, action_space):
    minari = pytest.importorskip("minari", reason="the minari extra is not installed")
    pytest.importorskip("h5py", reason="the minari extra is not installed")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    env = RandomEnv(observation_space, action_space)
    demonstrations = load_demonstrations(random_trajectories(env))
    with pytest.raises(ValueError, match="env=None: the demonstrations don't carry their spaces"):
        demonstrations.to_minari("my/random-v0")
    exact = observation_space is not DICT or "jpeg_encoding" in signature(minari.create_dataset_from_buffers).parameters
    known = Demonstrations(demonstrations.trajectories, observation_space=observation_space, action_space=action_space)
    with nullcontext() if exact else pytest.warns(UserWarning, match="stores images as JPEG, which changes them"):
        dataset = known.to_minari("my/random-v0", description="random")
    assert isinstance(dataset, minari.MinariDataset)
    for source in (dataset, "minari:my/random-v0"):
        loaded = load_demonstrations(source)
        assert (loaded.content_hash == demonstrations.content_hash) == exact
        assert (loaded.observation_space, loaded.action_space) == (observation_space, action_space)
    assert len(load_demonstrations(dataset.filter_episodes(lambda e: e.id > 0))) == 2
    with pytest.raises(ValueError, match=r"Minari refuses the data \(.*exist"):
        loaded.to_minari("my/random-v0")
    with pytest.raises(ValueError, match="episode 0 has no rewards"):
        load_demonstrations([{"obs": t.obs, "acts": t.acts} for t in demonstrations]).to_minari("my/b-v0", env)


def test_without_the_packages(monkeypatch):
    for module in ("imitation.data", "minari", "matplotlib.figure"):
        monkeypatch.setitem(sys.modules, module, None)
    for convert, extra in (
        (demos().to_imitation, "imitation"),
        (lambda: demos().to_minari("a-v0"), "minari"),
        (demos().plot, "demo"),
    ):
        with pytest.raises(ImportError, match=rf'in a clone .* pip install "\.\[{extra}\]"'):
            convert()


@pytest.mark.slow
@pytest.mark.parametrize("acts", [np.zeros(4, int), np.zeros((4, 3)), np.zeros((4, 40))], ids=["discrete", "few", "many"])
def test_plot(tmp_path, acts):
    pytest.importorskip("matplotlib", reason="the demo extra is not installed")
    mixed = [
        Trajectory(np.zeros((5, 2)), acts, np.ones(4), True, False),
        Trajectory(np.zeros((5, 2)), acts, None, False, True),
    ]
    figure = load_demonstrations(mixed).plot(tmp_path / "plots" / "plot.png")  # makes the folder, as save does
    assert (tmp_path / "plots" / "plot.png").stat().st_size > 5000
    assert [axes.get_xlabel() for axes in figure.axes][:3] == ["length (steps)", "return", "end"]


@pytest.mark.slow
@pytest.mark.both_stacks
def test_the_command_splits_saves_and_plots(tmp_path, capsys):
    assert main([CARTPOLE, "--split", "0.3", "--seed", "0", "--save", str(tmp_path / "set")]) == 0
    training, held_out = (load_demonstrations(tmp_path / f"set-{name}") for name in ("train", "held-out"))
    expected = load_demonstrations(CARTPOLE).split(0.3, seed=0)
    assert [part.content_hash for part in expected] == [training.content_hash, held_out.content_hash]
    assert "held-out        bundled:CartPole-v1: 3 episodes" in capsys.readouterr().out
    assert main([CARTPOLE, "--save", str(tmp_path / "all.parquet"), "--plot", str(tmp_path / "plot.png")]) == 0
    assert load_demonstrations(tmp_path / "all.parquet").content_hash == load_demonstrations(CARTPOLE).content_hash
    assert (tmp_path / "plot.png").exists()
    capsys.readouterr()
    assert main([CARTPOLE, "--save", str(tmp_path / "all.parquet")]) == 2
    assert "there is something already" in capsys.readouterr().err
    (tmp_path / "a_file").touch()
    for image in ("plot.nothing", "a_file/plot.png"):
        assert main([CARTPOLE, "--plot", str(tmp_path / image)]) == 2
        error = capsys.readouterr().err
        assert f"{image}': cannot be written (" in error and "Give a path like demos.png" in error
    for wrong, message in ((["--split", "2"], "--split 2: expected a number"), (["--seed", "1"], "for --split only")):
        with pytest.raises(SystemExit):
            main([CARTPOLE, *wrong])
        assert message in capsys.readouterr().err


def test_the_value_of_ends_has_one_source():
    """What the report, the recorder and the guide say of terminal states."""
    guide = (Path(__file__).parent.parent / "docs" / "guide" / "expert_data.md").read_text(encoding="utf-8")
    assert VALUE_OF_ENDS in " ".join(guide.split())


def test_the_module_of_the_command_can_be_called():
    """``sb3_iq.record`` is a function and a module: importing the module must not take the function away."""
    import sb3_iq.record

    assert len(sb3_iq.record(lambda obs: 0, gym.make("CartPole-v1"), 2)) == 2  # type: ignore[operator]
