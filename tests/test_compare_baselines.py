"""The baselines of a comparison: what they learn from, and that each learns in the budget that it is given."""

import copy
import tempfile
from dataclasses import replace

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from gymnasium import spaces
from stable_baselines3 import DQN, SAC
from stable_baselines3.common.buffers import ReplayBuffer

from sb3_iq import ExpertBuffer, load_demonstrations
from sb3_iq.compare import driver, execution
from sb3_iq.compare.algorithms import Algorithm
from sb3_iq.compare.baselines import bc, gail, iq, iq_bc, networks, sqil
from sb3_iq.compare.baselines.discriminator import Discriminator, DiscriminatorSettings
from sb3_iq.compare.baselines.task import Task, UnsuitedError, settings_of
from sb3_iq.compare.comparison import Run
from sb3_iq.compare.environment import Environment, policy_name
from sb3_iq.compare.evaluation import Evaluations, random_return
from sb3_iq.compare.settings import read
from sb3_iq.demonstrations import Demonstrations
from tests.utils import BOX, DICT, IMAGE, WIDE_BOX, RandomEnv, random_trajectories

TASK = Task(Environment("CartPole-v1"), load_demonstrations("bundled:CartPole-v1", n_trajectories=2), timesteps=80, seed=0)


def pendulum_task() -> Task:
    environment = Environment("Pendulum-v1")
    trajectories = tuple(random_trajectories(environment.make(), n_episodes=2, length=30))
    return Task(environment, Demonstrations(trajectories), timesteps=40, seed=0)


def buffer_of(task: Task) -> ExpertBuffer:
    return networks.expert_buffer(task, task.venv())


def evaluations(task: Task, frequency: int = 20) -> Evaluations:
    return Evaluations(task.environment, n_episodes=2, frequency=frequency, on_point=lambda point: None)


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("train", [sqil.train, gail.train], ids=["sqil", "gail"])
@pytest.mark.parametrize("task", [TASK, pendulum_task()], ids=["DQN", "SAC"])
def test_online_baselines(train, task):
    found = []
    for _ in range(2):
        done = evaluations(task)
        train(task, {"batch_size": 16}, done)
        found.append([point["mean"] for point in done.points])
    assert found[0] == found[1]  # repeatable
    assert [point["step"] for point in done.points] == list(range(20, task.timesteps + 1, 20))
    assert done.env_steps == task.timesteps and 0 < done.gradient_steps < task.timesteps


@pytest.mark.parametrize("task", [TASK, pendulum_task()], ids=["discrete", "continuous"])
def test_cloning(task):
    done = evaluations(task)
    bc.train(task, dict(min_steps=20, max_steps=40, check_every=20, batch_size=16), done)
    assert (len(done.points), done.points[0]["step"], done.env_steps) == (1, 0, 0)
    assert 20 <= done.gradient_steps <= 40


@pytest.mark.slow
def test_clone_of_enough_demonstrations_is_no_straw_man():
    """With half of the least number of gradient steps."""
    task = replace(TASK, demonstrations=load_demonstrations("bundled:CartPole-v1"))
    done = Evaluations(task.environment, n_episodes=20, frequency=1, on_point=lambda point: None)
    bc.train(task, dict(min_steps=1_000, max_steps=2_000), done)
    assert done.points[0]["mean"] >= 490


def test_cloning_stops_when_held_out_data_gets_no_better(monkeypatch):
    losses = iter([3.0, 1.0, 2.0, 2.0, 2.0, 0.0])
    settings = bc.BCSettings(check_every=1, patience=3, min_steps=1, max_steps=100)
    cloning = bc.Cloning(TASK, TASK.venv(), settings, buffer_of(TASK))
    steps = []
    monkeypatch.setattr(cloning, "train", lambda n, look: next(steps.append(i) for i in range(1, n + 1) if not look(i)))
    monkeypatch.setattr(cloning, "loss", lambda batch: th.tensor(next(losses)))
    assert bc.converge(cloning, buffer_of(TASK), settings) == 2


def test_learners_stay_where_the_demonstrations_are(monkeypatch):
    """On a machine with a GPU, where SB3 would go there by itself."""
    monkeypatch.setattr(th.cuda, "is_available", lambda: True)
    env = TASK.venv()
    for cls in (DQN, SAC):
        task = TASK if cls is DQN else pendulum_task()
        env = task.venv()
        assert networks.make_learner(cls, env, networks.expert_buffer(task, env), task).device == th.device("cpu")
    assert iq.make(TASK, {}, TASK.venv()).device == th.device("cpu")


def test_held_out_episodes_are_others():
    run = Run(Algorithm("iq"), 3, seed=1, timesteps=10, held_out=4)
    demonstrations = load_demonstrations("bundled:CartPole-v1")
    chosen = execution.choose(run, demonstrations)
    held_out = execution.choose_held_out(run, demonstrations, chosen)
    assert (len(chosen), len(held_out)) == (3, 4)
    starts = [tuple(episode.obs[0]) for episode in (*chosen, *held_out)]
    assert len(set(starts)) == 7
    assert execution.choose_held_out(replace(run, held_out=0), demonstrations, chosen) is None


def test_held_out_episodes_of_dictionaries_are_others():
    space = spaces.Dict({"a": BOX, "b": spaces.Discrete(2)})
    episodes = random_trajectories(RandomEnv(space, spaces.Discrete(2)), n_episodes=2)
    again = replace(episodes[0], obs=copy.deepcopy(episodes[0].obs))  # the same states a second time
    demonstrations = Demonstrations((*episodes, again))
    (held_out,) = execution.choose_held_out(Run(Algorithm("iq"), 1, 0, 10, held_out=2), demonstrations, demonstrations[:1])
    assert held_out is episodes[1]


def test_split():
    rng = np.random.default_rng(0)
    ten = replace(TASK.demonstrations, trajectories=TASK.demonstrations.trajectories * 5)
    seen, held_out = bc.split(ten, 0.2, rng)
    assert (len(seen.trajectories), len(held_out.trajectories)) == (8, 2)
    one = replace(TASK.demonstrations, trajectories=TASK.demonstrations.trajectories[:1])
    seen, held_out = bc.split(one, 0.2, rng)
    assert seen.n_transitions + held_out.n_transitions == one.n_transitions == 5 * held_out.n_transitions
    assert not any(episode.terminated for episode in (*seen.trajectories, *held_out.trajectories))
    (short,) = random_trajectories(TASK.environment.make(), n_episodes=1, length=1)
    assert bc.split(Demonstrations((short,)), 0.2, rng)[0].n_transitions == 1


def test_sqil_batches():
    """Half of a batch is the expert's, with reward 1, actions scaled like the agent's, and time limits that are no ends."""
    task = pendulum_task()
    expert = buffer_of(task)
    env = task.venv()
    buffer = sqil.sqil_buffer(env.observation_space)(100, env.observation_space, env.action_space, "cpu", expert=expert)
    for _ in range(5):
        buffer.add(np.zeros((1, 3)), np.zeros((1, 3)), np.zeros((1, 1)), np.full(1, 7.0), np.zeros(1), [{}])
    batch = buffer.sample(9)
    assert batch.rewards.flatten().tolist() == [0.0] * 5 + [1.0] * 4
    assert batch.actions.abs().max() <= 1
    assert isinstance(buffer, ReplayBuffer)


def test_rewards_of_terminal_transitions():
    """Those of the absorbing state that follows are a geometric series."""
    expert = buffer_of(TASK)
    net = Discriminator(th.as_tensor(expert.all().observations), spaces.Discrete(2), DiscriminatorSettings())
    batch = expert.sample(8)
    ended = batch._replace(dones=th.ones_like(batch.dones))
    difference = net.rewards(ended, 0.9) - net.rewards(batch, 0.9)
    with th.no_grad():
        absorbing = net.net(net._absorbing(net.inputs(batch)))
    th.testing.assert_close(difference, (9 * absorbing).expand(8, 1))


def test_discriminator_learns():
    th.manual_seed(0)
    expert = buffer_of(TASK)
    settings = DiscriminatorSettings(discriminator_learning_rate=1e-2, input_dropout=0.0, dropout=0.0)
    net = Discriminator(th.as_tensor(expert.all().observations), spaces.Discrete(2), settings)
    for _ in range(100):
        other = expert.sample(64)
        net.update(expert.sample(64), other._replace(observations=other.observations + 1.0))
    batch = expert.sample(256)
    assert net.rewards(batch, 0.9).mean() > net.rewards(batch._replace(observations=batch.observations + 1.0), 0.9).mean() + 1


@pytest.mark.parametrize(
    ("cls", "given", "message"),
    [
        (bc.BCSettings, {"lr": 1.0}, "algos: x has no setting 'lr'. It has learning_rate"),
        (bc.BCSettings, {"max_steps": 10}, "max_steps=10: expected an integer at least 2000"),
        (sqil.SQILSettings, {"gamma": 2.0}, "gamma=2.0: expected a number between 0 and 1"),
        (gail.GAILSettings, {"dropout": -1.0}, "dropout=-1.0: expected a number of at least 0"),
        (gail.GAILSettings, {"mixup_alpha": 0.0}, "mixup_alpha=0.0: expected a number of at least"),
    ],
)
def test_wrong_settings(cls, given, message):
    with pytest.raises(ValueError, match=message):
        settings_of(cls, "x", given)


def test_spaces():
    assert [policy_name(space) for space in (BOX, IMAGE, DICT)] == ["MlpPolicy", "CnnPolicy", "MultiInputPolicy"]
    small, floats = spaces.Box(0, 255, (3, 40, 35), np.uint8), spaces.Box(0.0, 1.0, (3, 40, 36), np.float32)
    assert [policy_name(space) for space in (small, floats, spaces.Discrete(2))] == ["MlpPolicy", "CnnPolicy", "MlpPolicy"]
    last, unbounded = spaces.Box(0.0, 1.0, (40, 36, 3), np.float32), spaces.Box(-np.inf, np.inf, (3, 40, 40))
    assert [policy_name(space) for space in (last, unbounded)] == ["MlpPolicy"] * 2
    assert networks.learner_class(spaces.Discrete(2)) is DQN and networks.learner_class(BOX) is SAC
    with pytest.raises(ValueError, match="MultiBinary, but the baselines learn by SAC or DQN"):
        networks.learner_class(spaces.MultiBinary(2))


def task_of(monkeypatch, space: spaces.Space, action_space: spaces.Space, **changes) -> Task:
    monkeypatch.setattr(Environment, "make", lambda self: RandomEnv(space, action_space))
    trajectories = tuple(random_trajectories(RandomEnv(space, action_space), n_episodes=2))
    return Task(Environment("any"), Demonstrations(trajectories, **changes), timesteps=12, seed=0)


SMALL_IMAGE = spaces.Box(0, 255, (12, 10, 3), np.uint8)
FLOATS = spaces.Box(0.0, 1.0, (3, 40, 36), np.float32)


@pytest.mark.parametrize("space", [IMAGE, SMALL_IMAGE, FLOATS, DICT], ids=["images", "small images", "floats", "dictionaries"])
def test_other_observations(monkeypatch, space):
    """SQIL and cloning take them, the discriminator refuses."""
    task = task_of(monkeypatch, space, spaces.Discrete(2))
    done = evaluations(task)
    sqil.train(task, {"batch_size": 4}, done)
    assert done.env_steps == 12
    bc.train(task, dict(min_steps=2, max_steps=2, check_every=1, batch_size=4), evaluations(task))
    with pytest.raises(ValueError, match="algos: sb3/gail: its discriminator only takes vectors"):
        gail.check(task, {})


@pytest.mark.parametrize("action_space", [spaces.MultiDiscrete([2, 3]), spaces.MultiBinary(2)])
def test_clone_of_actions_of_several_parts(monkeypatch, action_space):
    task = task_of(monkeypatch, BOX, action_space)
    iq_bc.check(task, {})
    done = evaluations(task)
    iq_bc.train(task, {"batch_size": 4}, done)
    assert done.gradient_steps == 12


@pytest.mark.parametrize("space", [BOX, IMAGE], ids=["vectors", "images"])
def test_clone_of_continuous_actions(monkeypatch, space):
    """It minimises the squared error, of features that it learns itself, and predicts by an average, as IQ-Learn does."""
    task, found = replace(task_of(monkeypatch, space, WIDE_BOX), timesteps=40), []
    clone = iq_bc.clone

    def watched(model, n_steps, callback):
        rows = model.expert_buffer.all(at_most=256)
        parts = (*model.actor.features_extractor.parameters(), *model.actor.mu.parameters(), *model.actor.log_std.parameters())
        before = [parameter.detach().clone() for parameter in parts]
        errors = [model.policy.cloning_loss(rows.observations, rows.actions)]
        clone(model, n_steps, callback)
        errors.append(model.policy.cloning_loss(rows.observations, rows.actions))
        found.extend([model.actor, model.policy.averaged_actor, *errors])
        moved = [not th.equal(now, then) for now, then in zip(parts, before, strict=True)]
        assert moved == [True] * (len(moved) - 2) + [False] * 2

    monkeypatch.setattr(iq_bc, "clone", watched)
    iq_bc.train(task, {"batch_size": 32, "learning_rate": 1e-3}, evaluations(task))
    actor, averaged, error_before, error_after = found
    assert error_after < error_before
    assert not th.equal(actor.mu.weight, averaged.mu.weight)


def test_arguments_of_the_cloned_policy():
    task = pendulum_task()
    iq_bc.check(task, {"policy_kwargs": None})
    with pytest.raises(ValueError, match="algos: iq: 'int' object is not a mapping"):
        iq_bc.check(task, {"policy_kwargs": 3})
    with pytest.raises(ValueError, match=r"algos: iq: .*n_critic"):
        iq_bc.check(task, {"policy_kwargs": {"n_critic": 2}})


def test_replay_buffer_is_as_large_as_the_budget():
    assert iq.make(TASK, {}, TASK.venv()).buffer_size == TASK.timesteps + 1
    assert iq.make(TASK, {"buffer_size": 50}, TASK.venv()).buffer_size == 50
    assert iq.make(replace(TASK, timesteps=10_000_000), {}, TASK.venv()).buffer_size == 1_000_000


@pytest.mark.both_stacks
@pytest.mark.parametrize("space", [BOX, IMAGE, spaces.Discrete(4)], ids=["vectors", "images", "discrete"])
@pytest.mark.parametrize("action_space", [spaces.Discrete(2), WIDE_BOX], ids=["discrete actions", "continuous actions"])
def test_imitation_learns_from_the_same_transitions(monkeypatch, space, action_space):
    """Subsampled ones, and images as the environment has them."""
    pytest.importorskip("imitation")
    from sb3_iq.imitation.baselines import transitions

    task = task_of(monkeypatch, space, action_space, subsample_freq=3)
    env = task.venv()
    ours, theirs = buffer_of(task).all(), transitions(task, env)
    assert len(theirs) == task.demonstrations.n_transitions == 8
    for obs, same in ((theirs.obs, ours.observations), (theirs.next_obs, ours.next_observations)):
        assert obs.shape[1:] == env.observation_space.shape
        assert np.array_equal(obs.reshape(8, -1), same.reshape(8, -1))
    assert theirs.dones.tolist() == ours.dones.flatten().bool().tolist() == [False, False, False, True] * 2
    scaled = (
        env.action_space.low + (ours.actions.numpy() + 1) / 2 * (env.action_space.high - env.action_space.low)
        if (action_space is WIDE_BOX)
        else ours.actions.flatten().numpy()
    )
    np.testing.assert_allclose(theirs.acts, scaled, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
@pytest.mark.both_stacks
@pytest.mark.parametrize("space", [IMAGE, FLOATS], ids=["images", "floats"])
@pytest.mark.parametrize("name", ["gail", "airl", "sqil", "bc"])
def test_images_by_imitation(monkeypatch, tmp_path, name, space):
    pytest.importorskip("imitation")
    from sb3_iq.imitation.baselines import BASELINES, SECTIONS, check

    task = task_of(monkeypatch, space, spaces.Discrete(2))
    given = {**read().of(f"imitation/{name}", "any"), "n_envs": 2, "n_batches": 3}
    given["ppo"] = dict(n_steps=8, batch_size=8, n_epochs=1)
    given = {key: value for key, value in given.items() if key in SECTIONS[f"imitation/{name}"]}
    check(f"imitation/{name}", task, given)
    done, folder = evaluations(task), tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    BASELINES[f"imitation/{name}"](task, given, done)
    assert done.points and not list(folder.glob("sb3-iq-*"))


@pytest.mark.both_stacks
def test_what_imitation_cannot_serve(monkeypatch):
    pytest.importorskip("imitation")
    from sb3_iq.imitation.baselines import check

    task = task_of(monkeypatch, BOX, spaces.MultiDiscrete([2, 3]))
    settings = {name: read().of(f"imitation/{name}", "any") for name in ("sqil", "bc")}
    for given in settings.values():
        given.pop("budget", None)
    check("imitation/bc", task, settings["bc"])
    with pytest.raises(UnsuitedError, match="MultiDiscrete, but the baselines learn by SAC or DQN"):
        check("imitation/sqil", task, settings["sqil"])
    with pytest.raises(UnsuitedError, match="takes no dictionaries"):
        check("imitation/bc", task_of(monkeypatch, DICT, spaces.Discrete(2)), settings["bc"])


@pytest.mark.parametrize("module", [bc, sqil, gail])
def test_baselines_need_actions(module):
    episodes = tuple(replace(episode, acts=None) for episode in TASK.demonstrations)
    with pytest.raises(ValueError, match=r"without actions .* compare IQ-Learn alone: iq:expert_actions=policy"):
        module.check(replace(TASK, demonstrations=Demonstrations(episodes)), {})


class Simulator(RandomEnv):
    """One that is still open has a port, a window or a licence, which runs need."""

    n_open = 0

    def __init__(self) -> None:
        super().__init__(BOX, WIDE_BOX)
        Simulator.n_open += 1

    def close(self) -> None:
        Simulator.n_open -= 1


gym.register("Simulator-v0", lambda **_: Simulator())


def test_environments_are_closed(tmp_path, monkeypatch):
    """Those of the checks before the first run, and those of a run."""
    n_open = []
    monkeypatch.setattr(driver, "_dispatcher", lambda *_: lambda runs, *rest: iter(n_open.append(Simulator.n_open) or ()))
    demos = random_trajectories(RandomEnv(BOX, WIDE_BOX))
    driver.compare("Simulator-v0", demos, ["iq", "iq/bc", "bc", "sqil", "gail"], [1], 1, 40, tmp_path, expert_return=99.0)
    assert n_open == [0]
    task = Task(Environment("Simulator-v0"), Demonstrations(tuple(demos)), timesteps=2, seed=0)
    iq.train(task, {"offline": True}, evaluations(task))
    iq_bc.train(task, {}, evaluations(task))
    assert Simulator.n_open == 0


def test_random_return():
    assert random_return(TASK.environment, 5) == random_return(TASK.environment, 5)
