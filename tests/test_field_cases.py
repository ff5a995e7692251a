"""What users of imitation learning reported in public: recordings and layouts as they are found, with the right values."""

import json
import warnings

import gymnasium as gym
import numpy as np
import pandas as pd
import pytest
from gymnasium import spaces
from stable_baselines3 import DQN
from stable_baselines3.common.env_util import make_vec_env

from sb3_iq import IQLearn, load_demonstrations
from sb3_iq.demonstrations.endings import STARTS_AT_RESET, TIME_LIMIT, flag_of_info, info_at, true_observation
from tests.utils import BOX, DISCRETE, SMALL, WIDE_BOX, RandomEnv, random_trajectories

NUMPY_BOOL = (
    '{"py/reduce": [{"py/function": "numpy._core.multiarray.scalar"}, {"py/tuple": [{"py/reduce": [{"py/type": '
    '"numpy.dtype"}, {"py/tuple": ["b1", false, true]}]}, {"py/b64": "%s"}]}]}'
)


def episodes(n=4, length=10, seed=0):
    """:return: flat transitions of episodes of random walks"""
    rng = np.random.default_rng(seed)
    obs = np.cumsum(rng.normal(size=(n, length + 1, 3)) * 0.1, axis=1) + 10 * rng.normal(size=(n, 1, 3))
    done = np.zeros((n, length), bool)
    done[:, -1] = True
    flat = {"obs": obs[:, :-1], "next_obs": obs[:, 1:], "acts": rng.normal(size=(n, length, 2)), "dones": done}
    flat |= {"rews": rng.normal(size=(n, length))}
    return {name: array.reshape(n * length, *array.shape[2:]) for name, array in flat.items()}, obs


def same_step(flat):
    """:return: the same, as a vectorised environment records it that resets itself in the step that ends an episode"""
    next_obs = flat["next_obs"].copy()
    ends = np.flatnonzero(flat["dones"])
    next_obs[ends[:-1]] = flat["obs"][ends[:-1] + 1]
    next_obs[ends[-1]] += 100.0
    return flat | {"next_obs": next_obs}


@pytest.mark.parametrize(
    ("value", "flag"),
    [
        (True, True),
        (np.bool_(False), False),
        (np.array(True), True),
        (np.array([False]), False),
        (1, True),
        (0.0, False),
        ("True", True),
        (json.loads(NUMPY_BOOL % "AQ=="), True),
        (json.loads(NUMPY_BOOL % "AA=="), False),
        (None, None),
    ],
)
def test_how_an_episode_ended(value, flag):
    assert flag_of_info(TIME_LIMIT, {TIME_LIMIT: value}) is flag
    assert flag_of_info(TIME_LIMIT, {"final_info": {TIME_LIMIT: value}}) is flag
    if not isinstance(value, (np.ndarray, np.bool_)):
        assert flag_of_info(TIME_LIMIT, json.dumps({TIME_LIMIT: value})) is flag


@pytest.mark.parametrize(
    "value", [2, "soon", {"py/reduce": [{"py/function": "posix.system"}, {"py/tuple": ["true"]}]}, [1, 0]]
)
def test_an_ending_that_cannot_be_read_is_told(value):
    for info in ({TIME_LIMIT: value}, json.dumps({TIME_LIMIT: value})):
        with pytest.warns(UserWarning, match="the infos hold TimeLimit.truncated, but its value .* is not a bool"):
            assert flag_of_info(TIME_LIMIT, info) is None
    assert flag_of_info(STARTS_AT_RESET, "{broken") is None


def test_infos_in_columns():
    infos = {TIME_LIMIT: np.array([False, True]), "final_obs": [None, [1.0]], "other": [1, 2]}
    assert flag_of_info(TIME_LIMIT, info_at(-1, infos, 2)) is True
    assert true_observation(info_at(1, infos, 2)) == [1.0]
    assert info_at(0, infos, 3) == {}


@pytest.mark.parametrize("kind", ["structures", "text", "numpy"])
def test_endings_are_the_same_in_memory_and_from_disk(tmp_path, kind):
    import datasets

    infos = {
        "structures": [{TIME_LIMIT: step == 19} for step in range(20)],
        "text": [json.dumps({TIME_LIMIT: step == 19}) for step in range(20)],
        "numpy": ["{}"] * 19 + ['{"TimeLimit.truncated": ' + NUMPY_BOOL % "AQ==" + "}"],
    }[kind]
    rows = [dict(obs=np.zeros((21, 4)).tolist(), acts=[0] * 20, infos=infos, terminal=True)]
    table = datasets.Dataset.from_list(rows)
    table.save_to_disk(str(tmp_path / "set"))
    table.to_parquet(str(tmp_path / "set.parquet"))
    for source in (rows, table, tmp_path / "set", tmp_path / "set.parquet"):
        trajectory = load_demonstrations(source)[0]
        assert (trajectory.terminated, trajectory.truncated, trajectory.ending) == (False, True, "info")


def test_one_episode_whose_end_is_unknown_is_told():
    data = dict(obs=np.zeros((6, 3)), acts=np.zeros(5, int), terminal=True)
    env = RandomEnv(BOX, DISCRETE)
    for source in ([data], [data, data]):
        with pytest.warns(UserWarning, match="end after 5 steps, the maximum length, and no time limit is known"):
            IQLearn("MlpPolicy", env, source, offline=True, **SMALL)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        IQLearn("MlpPolicy", env, [data | {"terminated": True}], offline=True, **SMALL)
        IQLearn("MlpPolicy", env, load_demonstrations([data], max_episode_steps=9), offline=True, **SMALL)


def test_true_last_observations_come_from_the_infos():
    env = make_vec_env("Pendulum-v1", seed=0)
    env.action_space.seed(0)
    rows = {name: [] for name in ("obs", "acts", "next_obs", "dones", "infos")}
    obs = env.reset()
    for _ in range(401):
        action = np.array([env.action_space.sample()])
        next_obs, _, dones, infos = env.step(action)
        for column, value in zip(rows.values(), (obs[0], action[0], next_obs[0], dones[0], infos[0]), strict=True):
            column.append(value)
        obs = next_obs
    demonstrations = load_demonstrations({k: x if k == "infos" else np.array(x) for k, x in rows.items()})
    assert [len(trajectory) for trajectory in demonstrations] == [200, 200, 1]
    assert [trajectory.truncated for trajectory in demonstrations] == [True, True, False]
    for number in (0, 1):
        true = rows["infos"][200 * number + 199]["terminal_observation"]
        np.testing.assert_array_equal(demonstrations[number].obs[-1], true)


def test_resets_in_the_same_step_are_left_out():
    flat, obs = episodes()
    with pytest.warns(UserWarning, match=r"4 of 40 rows \(10.0 %\) are left out: their next_obs is the first observation"):
        demonstrations = load_demonstrations(same_step(flat))
    assert [len(trajectory) for trajectory in demonstrations] == [9] * 4
    for trajectory, true in zip(demonstrations, obs, strict=True):
        np.testing.assert_array_equal(trajectory.obs, true[:-1])
        assert trajectory.ending == "open" and trajectory.starts_at_reset


@pytest.mark.parametrize("with_rewards", [True, False])
def test_steps_that_only_reset_are_left_out(with_rewards):
    """Gymnasium's vector environments reset in the step after the one that ends an episode."""
    flat, obs = episodes()
    rows = {name: [] for name in flat}
    for episode in range(4):
        piece = {name: array[10 * episode : 10 * episode + 10] for name, array in flat.items()}
        for name, array in piece.items():
            rows[name] += list(array)
        if episode < 3:
            reset = dict(obs=obs[episode, -1], next_obs=obs[episode + 1, 0], acts=np.zeros(2), dones=False, rews=0.0)
            for name, value in reset.items():
                rows[name].append(value)
    arrays = {name: np.array(column) for name, column in rows.items() if with_rewards or name != "rews"}
    with pytest.warns(UserWarning, match=r"3 of 43 rows \(7.0 %\) are left out: after the end of an episode"):
        demonstrations = load_demonstrations(arrays)
    expected = load_demonstrations({name: flat[name] for name in arrays})
    assert demonstrations.content_hash == expected.content_hash
    assert all(trajectory.terminated for trajectory in demonstrations)


def test_good_recordings_are_left_alone():
    flat, _ = episodes()
    constant = flat | {"obs": np.zeros((40, 1)), "next_obs": np.zeros((40, 1))}
    # A grid: one of the terminal states is where the next episode starts
    grid = flat | {"obs": np.tile(np.arange(10), 4), "next_obs": np.tile(np.arange(1, 11), 4)}
    grid["next_obs"][9] = 0
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for arrays in (flat, constant, grid):
            assert [len(trajectory) for trajectory in load_demonstrations(arrays)] == [10] * 4


@pytest.mark.parametrize("n_episodes", [2, 12])
def test_resets_on_a_small_grid(n_episodes):
    """One episode may end where the next one starts by chance, many do not; observations are those of CliffWalking's kind."""
    rng = np.random.default_rng(0)
    obs = np.zeros((n_episodes, 21), int)
    for t in range(20):
        obs[:, t + 1] = np.clip(obs[:, t] + rng.choice([-1, 1], size=n_episodes), 0, 8)
    flat = {"obs": obs[:, :-1].reshape(-1), "next_obs": obs[:, 1:].reshape(-1).copy(), "acts": np.zeros(20 * n_episodes, int)}
    flat["dones"] = np.arange(20 * n_episodes) % 20 == 19
    flat["next_obs"][19::20] = 0
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        lengths = [len(trajectory) for trajectory in load_demonstrations(flat)]
    dropped = any("are left out" in str(warning.message) for warning in told)
    assert dropped == (n_episodes == 12)
    assert (lengths == [20] * n_episodes) != dropped


@pytest.mark.parametrize("resets", [False, True])
def test_environments_in_turn_are_taken_apart(resets):
    flat, _ = episodes(n=6)
    flat = same_step(flat) if resets else flat
    turn = np.arange(60).reshape(3, 20).T.reshape(-1)  # three environments with two episodes each
    with pytest.warns(UserWarning, match="those of 3 environments in turn"):
        demonstrations = load_demonstrations({name: array[turn] for name, array in flat.items()})
    if resets:  # those of the next environment are not seen
        assert [len(trajectory) for trajectory in demonstrations] == [9] * 6
    else:
        assert demonstrations.content_hash == load_demonstrations(flat).content_hash
    stacked = {name: array.reshape(3, 20, *array.shape[1:]).swapaxes(0, 1) for name, array in flat.items()}
    with pytest.warns(UserWarning, match="those of 3 environments in turn"):
        again = load_demonstrations(stacked)
    assert again.content_hash == demonstrations.content_hash


def test_shuffled_rows_are_put_in_order():
    flat, _ = episodes()
    order = np.random.default_rng(0).permutation(40)
    shuffled = {name: array[order] for name, array in flat.items()}
    with pytest.warns(UserWarning, match=r"% of the rows are not continued by the next one: they are shuffled, and put back"):
        demonstrations = load_demonstrations(shuffled)
    assert sorted(map(len, demonstrations)) == [10] * 4
    expected = {trajectory.acts.tobytes() for trajectory in load_demonstrations(flat)}
    assert {trajectory.acts.tobytes() for trajectory in demonstrations} == expected
    assert all(trajectory.terminated and trajectory.starts_at_reset for trajectory in demonstrations)
    # Where each second row is gone, nothing tells the order
    with pytest.warns(UserWarning, match="as if they were shuffled or left out"):
        pieces = load_demonstrations({name: array[::2] for name, array in flat.items()})
    assert len(pieces) == 20 and not any(trajectory.starts_at_reset for trajectory in pieces)


N = 60
END = np.arange(N) % 30 == 29
RNG = np.random.default_rng(0)
OBS, ACTS, REWS = RNG.normal(size=(N, 3)), RNG.normal(size=(N, 2)), np.ones(N)
PATH = dict(observations=OBS[:30], actions=ACTS[:30], rewards=REWS[:30])
LAYOUTS = {
    "D4RL": (dict(observations=OBS, actions=ACTS, rewards=REWS, terminals=np.zeros(N, bool), timeouts=END), [29, 29]),
    "SB2": (dict(obs=OBS, actions=ACTS, rewards=REWS, episode_returns=np.ones(2), episode_starts=np.roll(END, 1)), [29, 29]),
    "paths": ([PATH, PATH], [29, 29]),
    "paths with next": ([PATH | {"next_observations": OBS[1:31], "terminals": END[:30]}], [30]),
    "singular": ([dict(observation=OBS[:30], action=ACTS[:30], next_observation=OBS[1:31], terminal=END[:30])], [30]),
    "robomimic": (
        [dict(obs={"p": OBS[:30]}, next_obs={"p": OBS[1:31]}, actions=ACTS[:30], dones=END[:30].astype(int))],
        [30],
    ),
    "baselines": (
        dict(obs=OBS.reshape(2, 30, 3), acs=ACTS.reshape(2, 30, 2), ep_rets=np.ones(2), rews=REWS.reshape(2, 30)),
        [29] * 2,
    ),
    "flags of one episode": (dict(obs=OBS[:31], acts=ACTS[:30], terminals=END[:30]), [30]),
}


@pytest.mark.parametrize("name", LAYOUTS)
@pytest.mark.filterwarnings("ignore:Expert data.*lack the next observation")
def test_layouts_of_others(tmp_path, name):
    source, lengths = LAYOUTS[name]
    demonstrations = load_demonstrations(source)
    assert [len(trajectory) for trajectory in demonstrations] == lengths
    obs = demonstrations[0].obs["p"] if isinstance(demonstrations[0].obs, dict) else demonstrations[0].obs
    np.testing.assert_array_equal(obs, OBS[: lengths[0] + 1])
    np.testing.assert_array_equal(demonstrations[0].acts, ACTS[: lengths[0]])
    assert demonstrations[0].ending == ("open" if lengths[0] == 29 else demonstrations[0].ending)
    if isinstance(source, dict):
        np.savez(tmp_path / "data.npz", **source)
        assert load_demonstrations(tmp_path / "data.npz").content_hash == demonstrations.content_hash
        with np.load(tmp_path / "data.npz") as opened:
            assert load_demonstrations(opened).content_hash == demonstrations.content_hash


def test_what_lacks_the_next_observation_is_told():
    with pytest.warns(UserWarning, match=r"2 of 60 rows \(3.3 %\) are left out: they are the last of an episode"):
        load_demonstrations(LAYOUTS["D4RL"][0])
    with pytest.raises(ValueError, match="no transition is left"):
        load_demonstrations(dict(obs=OBS, acts=ACTS, dones=np.ones(N, bool)))


@pytest.mark.filterwarnings("ignore:Expert data.*lack the next observation")
def test_hdf5(tmp_path):
    path = tmp_path / "data.hdf5"
    path.write_bytes(b"\x89HDF\r\n\x1a\n")
    try:
        import h5py
    except ImportError:
        with pytest.raises(ImportError, match="pip install h5py"):
            load_demonstrations(path)
        return
    with pytest.raises(ValueError, match="cannot be read as an HDF5 file"):
        load_demonstrations(path)
    with h5py.File(path, "w") as file:
        for key, array in LAYOUTS["D4RL"][0].items():
            file[key] = array
        file["infos/qpos"], file["metadata/algorithm"] = OBS, "SAC"
    assert load_demonstrations(path).content_hash == load_demonstrations(LAYOUTS["D4RL"][0]).content_hash
    with h5py.File(path, "w") as file:
        for demo in range(11):
            group = file.create_group(f"data/demo_{demo}")
            group["obs/p"], group["next_obs/p"] = OBS[:30] + demo, OBS[1:31] + demo
            group["actions"], group["dones"] = ACTS[:30], END[:30].astype(int)
    chosen = load_demonstrations(path, n_trajectories=3)
    assert [float(trajectory.obs["p"][0, 0] - OBS[0, 0]) for trajectory in chosen] == pytest.approx([0, 1, 2])


def test_object_arrays(tmp_path):
    data = [dict(obs=np.zeros((11, 3)), acts=np.zeros(10, int), terminal=True) for _ in range(2)]
    array = np.array(data, dtype=object)
    assert load_demonstrations(array).content_hash == load_demonstrations(data).content_hash
    np.save(tmp_path / "data.npy", array, allow_pickle=True)
    loaded = load_demonstrations(tmp_path / "data.npy", allow_pickle=True)
    assert loaded.content_hash == load_demonstrations(data).content_hash
    rows = np.empty(11, dtype=object)
    rows[:] = list(np.ones((11, 3)))
    assert load_demonstrations([data[0] | {"obs": rows}])[0].obs.shape == (11, 3)


def test_rewards_that_are_never_read():
    data = dict(obs=np.zeros((4, 3)), acts=np.zeros(3, int), terminated=True)
    assert load_demonstrations([data | {"rews": np.ones((3, 1))}])[0].rews.shape == (3,)
    with pytest.warns(UserWarning, match="rewards that hold NaN or infinity are dropped"):
        assert load_demonstrations([data | {"rews": np.array([1, np.nan, 1])}])[0].rews is None


def test_one_hot_actions_are_told_apart():
    data = [dict(obs=np.zeros((4, 3)), acts=np.eye(3), terminated=True)]
    with pytest.raises(ValueError, match=r"are one-hot.*Give the number of the action, acts.argmax\(axis=1\)"):
        IQLearn("MlpPolicy", RandomEnv(BOX, DISCRETE), data, **SMALL)


@pytest.mark.parametrize("action_space", [DISCRETE, WIDE_BOX, spaces.MultiDiscrete([3, 2])])
def test_state_only_data(tmp_path, action_space):
    """Actions that are never read need not be there, nor be numbers; what is learned is the same."""
    env = RandomEnv(BOX, action_space)
    whole = load_demonstrations(random_trajectories(env))
    states = load_demonstrations([dict(obs=trajectory.obs, terminated=True) for trajectory in whole])
    nans = [dict(obs=trajectory.obs, acts=np.full((10, 2), np.nan), terminated=True) for trajectory in whole]
    assert states[0].acts is None and len(states[0]) == 10 and "no acts" in repr(states[0])
    assert load_demonstrations(nans).content_hash == states.content_hash != whole.content_hash
    states.save(tmp_path / "set")
    assert load_demonstrations(tmp_path / "set").content_hash == states.content_hash
    for how in ("policy", "inverse_dynamics"):
        models = [
            IQLearn("MlpPolicy", env, data, expert_actions=how, **SMALL).learn(14)
            for data in (whole, states, tmp_path / "set")
        ]
        first, *others = ([parameter.sum().item() for parameter in model.policy.parameters()] for model in models)
        assert all(other == first for other in others)
    with pytest.raises(ValueError, match=r"there are no actions.*Use expert_actions='inverse_dynamics' or 'policy'"):
        IQLearn("MlpPolicy", env, states, **SMALL)


def test_state_only_transitions_and_report(capsys, tmp_path):
    from sb3_iq.demonstrations.__main__ import main

    flat, _ = episodes()
    del flat["acts"]
    demonstrations = load_demonstrations(flat)
    assert [len(trajectory) for trajectory in demonstrations] == [10] * 4
    demonstrations.save(tmp_path / "set")
    assert main([str(tmp_path / "set")]) == 0
    assert "none in 4 of 4 episodes" in capsys.readouterr().out


def test_spaces_of_a_pickled_replay_buffer(tmp_path):
    model = DQN("MlpPolicy", "CartPole-v1", learning_starts=10, buffer_size=200, device="cpu").learn(100)
    model.save_replay_buffer(tmp_path / "buffer")
    loaded = load_demonstrations(tmp_path / "buffer.pkl", allow_pickle=True)
    assert loaded.observation_space == model.observation_space
    assert IQLearn("MlpPolicy", None, loaded, offline=True, **SMALL).action_space == model.action_space


@pytest.mark.parametrize(("name", "cure"), [("demos.json", "Read it by json.load"), ("demos.csv", "Pass a dictionary")])
def test_one_cure_for_files_of_another_kind(tmp_path, name, cure):
    (tmp_path / name).write_text("[[1.0]]")
    with pytest.raises(ValueError, match=cure):
        load_demonstrations(tmp_path / name)


def test_ids_with_a_module(tmp_path, monkeypatch, capsys):
    from sb3_iq.demonstrations.__main__ import main
    from sb3_iq.record import main as record

    (tmp_path / "lab_of_field_cases.py").write_text(
        "import gymnasium\n"
        "gymnasium.register('FieldCase-v0', 'gymnasium.envs.classic_control:CartPoleEnv', max_episode_steps=20)"
    )
    monkeypatch.syspath_prepend(tmp_path)
    env_id = "lab_of_field_cases:FieldCase-v0"
    model = IQLearn("MlpPolicy", env_id, "bundled:CartPole-v1", offline=True, **SMALL)
    model.save(tmp_path / "agent")
    arguments = ["--algo", "iq", "--env", env_id, "--model", str(tmp_path / "agent.zip"), "--n-episodes", "1"]
    assert record([*arguments, "--out", str(tmp_path / "FieldCase-v0")]) == 0
    assert "--env FieldCase-v0" in (text := capsys.readouterr().out) and "--gym-packages lab_of_field_cases" in text
    monkeypatch.setenv("SB3_IQ_DEMOS", str(tmp_path))
    assert main(["demos:", "--env", env_id]) == 0
    assert main(["demos:", "--env", "FieldCase-v0", "--gym-packages", "lab_of_field_cases"]) == 0
    assert gym.spec("FieldCase-v0").max_episode_steps == 20


@pytest.mark.parametrize("form", ["flags", "flags of each step", "beside terminal"])
def test_both_ends_as_columns_on_disk(tmp_path, form):
    import datasets

    ends = [(True, False), (False, True), (False, False), (True, True)]
    rows = []
    for terminated, truncated in ends:
        row = dict(obs=np.zeros((21, 4)).tolist(), acts=[0] * 20, terminated=terminated, truncated=truncated)
        if form == "flags of each step":
            row |= {name: [False] * 19 + [row[name]] for name in ("terminated", "truncated")}
        if form == "beside terminal":
            row |= dict(terminal=terminated or truncated, infos=[json.dumps({TIME_LIMIT: truncated})] * 20)
        rows.append(row)
    table = datasets.Dataset.from_list(rows)
    table.save_to_disk(str(tmp_path / "set"))
    table.to_parquet(str(tmp_path / "set.parquet"))
    for source in (rows, table, tmp_path / "set", tmp_path / "set.parquet"):
        read = load_demonstrations(source, max_episode_steps=20)
        # A terminal state at the time limit is terminated only
        assert [(t.terminated, t.truncated) for t in read] == [*ends[:3], (True, False)]
        assert {t.ending for t in read} == {"info", "open"}


def test_ends_as_columns_that_are_no_flags(tmp_path):
    import datasets

    for value, message in ((1, "'terminated' is 'int64', expected one bool"), (None, "terminated is null")):
        flags = [value, True if value is None else value]
        rows = [dict(obs=np.zeros((3, 4)).tolist(), acts=[0] * 2, terminated=flag) for flag in flags]
        table = datasets.Dataset.from_list(rows)
        with pytest.raises(ValueError, match=message):
            load_demonstrations(table)


def test_a_folder_of_lerobot_is_refused_with_the_cure(tmp_path):
    import datasets

    frames = dict(action=[[0.0]] * 3, episode_index=[0] * 3) | {"observation.state": [[0.0, 1.0]] * 3}
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v2.0"}')
    (tmp_path / "data" / "chunk-000").mkdir(parents=True)
    for episode in range(2):
        path = tmp_path / "data" / "chunk-000" / f"episode_{episode:06d}.parquet"
        datasets.Dataset.from_dict(frames).to_parquet(str(path))
    with pytest.raises(
        ValueError, match=r"this is a LeRobot data set.*Pass a list with dict\(obs=states, acts=actions\[:-1\]"
    ):
        load_demonstrations(tmp_path)


@pytest.mark.parametrize("where", [(3, 1), (0, 0)])
def test_where_demonstrations_are_not_finite(where):
    data = [dict(obs=np.zeros((6, 3)), acts=np.zeros(5, int), terminated=True) for _ in range(3)]
    data[2]["obs"] = data[2]["obs"].copy()
    data[2]["obs"][where] = np.nan
    with pytest.raises(ValueError, match=f"(?s)episode 2.*obs holds nan at step {where[0]}, column {where[1]}:"):
        load_demonstrations(data)


@pytest.mark.parametrize("key", ["", "a"])
def test_an_environment_that_gives_nan_is_told(key):
    class Broken(RandomEnv):
        def step(self, action):
            obs, *rest = super().step(action)
            if self.step_count == 7:
                (obs[key] if key else obs)[1] = np.nan
            return obs, *rest

    space = spaces.Dict({"a": BOX}) if key else BOX
    trajectories = random_trajectories(RandomEnv(space, DISCRETE))
    model = IQLearn("MultiInputPolicy" if key else "MlpPolicy", Broken(space, DISCRETE), trajectories, **SMALL)
    with pytest.raises(ValueError, match=r"`env` gave an observation.* with nan in environment 0, column 1:.*VecCheckNan"):
        model.learn(50)


def test_actions_as_replay_buffers_hold_them_are_told():
    def data(acts):
        return [dict(obs=np.zeros((len(acts) + 1, 3)), acts=np.asarray(acts, np.float32)[:, None], terminated=True)]

    def make(acts, bound):
        box = spaces.Box(-bound, bound, (1,), np.float32)
        IQLearn("MlpPolicy", RandomEnv(BOX, box), data(acts), offline=True, **SMALL)

    scaled = [-1.0, 0.3, 0.99, -0.2]
    with pytest.warns(UserWarning, match=r"all actions are between -1 and 1.*give policy.unscale_action\(actions\)"):
        make(scaled, 2.0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        # In the environment's own units, some of which are far wider than what the expert does
        for acts, bound in ((scaled, 1.0), (scaled, 100.0), ([-2.0, 0.3], 2.0), ([-0.5, 0.4], 2.0), ([-1.4, 0.1], 2.0)):
            make(acts, bound)


@pytest.mark.parametrize(
    "words", [["False", "True"], [" false", "TRUE "], [b"0", b"1"], np.array(["False", "True"]), [False, "1"]]
)
@pytest.mark.parametrize("name", ["dones", "terminated", "truncated"])
def test_ends_as_words_in_columns(words, name):
    """One reader of how an episode ended: what is read in infos is read in columns."""
    obs = np.arange(22, dtype=np.float32).reshape(11, 2)
    flags = [words[0]] * 9 + [words[1]]
    (trajectory,) = load_demonstrations(
        dict(obs=obs[:10], next_obs=obs[1:], acts=np.zeros(10, int), **{name: flags})
    ).trajectories
    assert (trajectory.terminated, trajectory.truncated) == (name != "truncated", name == "truncated")


@pytest.mark.parametrize("word", ["no", None, "F", 2])
def test_ends_that_are_no_flags_are_refused(word):
    obs = np.arange(22, dtype=np.float32).reshape(11, 2)
    with pytest.raises(ValueError, match=r"dones holds .*expected"):
        load_demonstrations(dict(obs=obs[:10], next_obs=obs[1:], acts=np.zeros(10, int), dones=[word] * 9 + ["True"]))


def test_a_data_frame_of_arrays():
    obs = np.arange(22, dtype=np.float32).reshape(11, 2)
    columns = dict(obs=list(obs[:10]), next_obs=list(obs[1:]), acts=[0] * 10, dones=[False] * 9 + [True])
    (trajectory,) = load_demonstrations(pd.DataFrame(columns)).trajectories
    assert np.array_equal(trajectory.obs, obs)
