"""The algorithm, in the text and order of SB3's SAC: what differs is IQ-Learn."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.policies import BasePolicy, ContinuousCritic
from stable_baselines3.common.type_aliases import GymEnv, Schedule
from stable_baselines3.common.utils import get_parameters_by_name
from stable_baselines3.dqn.policies import QNetwork
from stable_baselines3.sac.policies import Actor

from sb3_iq.demonstrations import Demonstrations, ExpertBuffer
from sb3_iq.iq_learn import diagnostics, migration, replay, settings, spaces_env, updates
from sb3_iq.iq_learn.guided_algorithm import GuidedAlgorithm
from sb3_iq.iq_learn.inverse_dynamics import InverseDynamics
from sb3_iq.iq_learn.networks import fingerprint, input_norm
from sb3_iq.iq_learn.optimization import parameters_of, polyak_update, scheduled, set_learning_rate, without_gradient
from sb3_iq.iq_learn.policies import POLICIES, SACPolicy, SoftQPolicy, policy_class, policy_kwargs_for, to_tensors
from sb3_iq.iq_learn.presets import Preset
from sb3_iq.iq_learn.sampling import Sampler
from sb3_iq.iq_learn.terminal_value import terminal_value
from sb3_iq.observations import Samples

SelfIQLearn = TypeVar("SelfIQLearn", bound="IQLearn")


class IQLearn(GuidedAlgorithm):
    """
    Inverse soft-Q learning (IQ-Learn, https://arxiv.org/abs/2106.12142): imitation from demonstrations with one Q-function,
    which stands for the policy, softmax(Q / alpha), and for the reward, r = Q - gamma V'.

    Discrete actions are learned by a soft Q-network, continuous ones by SAC's actor and critics. The reward of the environment
    is never used. ``preset`` sets what is left out (:mod:`.presets`); the default has a prior reward (:mod:`.reward_priors`).

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, MultiInputPolicy), or a class derived from
        :class:`~sb3_iq.iq_learn.SoftQPolicy` (discrete) or :class:`~sb3_iq.iq_learn.SACPolicy` (continuous actions)
    :param env: The environment to learn from (if registered in Gym, can be str). Offline only its spaces count, as those of a
        :class:`~sb3_iq.SpacesEnv`; ``None`` takes those that the demonstrations carry, if they do
    :param expert_data: The demonstrations: what :func:`~sb3_iq.load_demonstrations` takes or returns; never saved
    :param learning_rate: learning rate of the Q-function, typically 1e-4 to 1e-3, or a function of the progress remaining
    :param buffer_size: size of the replay buffer, typically 1e5 to 1e6; allocated when learning online begins
    :param learning_starts: how many environment steps are taken before learning starts, typically 1000: at random or, where
        continuous actions are cloned, by a clone (:mod:`.reference_policy`)
    :param batch_size: number of the policy's transitions for each gradient update, and of the expert's: of these, with
        continuous actions, the default draws a quarter as many online. Typically 128 to 256
    :param tau: the soft update coefficient of the target network ("Polyak update", between 0 and 1), typically 0.005 to 0.02
    :param gamma: the discount factor, typically 0.99
    :param train_freq: Update the model every ``train_freq`` steps, or a tuple like ``(2, "episode")``
    :param gradient_steps: How many gradient steps to do after each rollout, ``-1``: as many as environment steps
    :param action_noise: the action noise type (None by default, and hardly ever needed: the policy is stochastic)
    :param replay_buffer_class: Replay buffer class to use; those of n-step returns or relabelled goals are refused
    :param replay_buffer_kwargs: Keyword arguments to pass to the replay buffer on creation
    :param optimize_memory_usage: Enable a memory efficient variant of the replay buffer (False by default)
    :param ent_coef: the temperature alpha, typically 0.001 to 0.1; ``"auto"`` to learn it, ``"auto_0.1"`` from 0.1 on
    :param target_update_interval: gradient steps between two updates of the target network, typically 1
    :param target_entropy: target entropy of ``ent_coef="auto"``: by default minus the number of dimensions, or log(n) / 10
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE, continuous actions; False by default)
    :param sde_sample_freq: Sample a new noise matrix every n steps when using gSDE (-1: at the beginning of the rollout)
    :param use_sde_at_warmup: Whether to use gSDE instead of uniform sampling during the warm up phase (False by default)
    :param stats_window_size: number of episodes that the logged rollout statistics are averaged over (100 by default)
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, e.g. ``dict(net_arch=[256, 256])``
    :param verbose: Verbosity level: 0 for no output, 1 for info messages, 2 for debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) of the networks; ``"auto"``: the GPU if possible
    :param offline: Learn from the demonstrations alone (False by default): ``learn(n)`` takes n gradient steps and no
        environment step. May be changed between calls of ``learn``
    :param preset: the settings of what is left out: the ``"default"`` of this project, the published configuration
        (``"paper"``), or that of LS-IQ (``"ls-iq"``, https://arxiv.org/abs/2303.00599)
    :param penalty_coef: coefficient c of the penalty c r^2: rewards are at most 1/c from the prior, typically 0.5 to 32
    :param reward_prior: coefficient of the reward that the penalty draws to online, 0 or 1, see :mod:`.reward_priors`
    :param bc_coef: coefficient of a term of behavioural cloning in the policy's loss, typically 0 to 10, or a function: the
        squared error of continuous actions, also to those of the reference policy, or the negative log-likelihood of discrete
        ones
    :param actor_learning_rate: learning rate of the actor (continuous actions), typically 3e-5 to 1e-3, or a function
    :param expert_actions: ``"given"``; or for state-only demonstrations, drawn from the ``"policy"`` (section 5.4), or told
        from s and s' by a model of the ``"inverse_dynamics"``, learned from the replay buffer
    :param objective_kwargs: which form of the objective is maximised, by the names of
        :class:`~sb3_iq.iq_learn.objective.Objective`: ``divergence``, ``occupancy_term``, ``penalty``, ``mixture_weight``,
        ``terminal_value``, ``critic_bound``, ``expert_target``, ``use_target``, ``gradient_penalty``
    :param compile: compile the losses and their gradients by ``torch.compile`` (False by default), which takes a C++ compiler
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ValueError: if an argument or the demonstrations do not fit, with the reason
    :raises TypeError: if ``expert_data`` is of a type that is not read
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}  # chosen by the action space, see policies.POLICIES
    policy: SoftQPolicy | SACPolicy
    # Discrete actions
    q_net: QNetwork
    q_net_target: QNetwork
    # Continuous actions
    actor: Actor | None  # type: ignore[assignment]
    critic: ContinuousCritic
    critic_target: ContinuousCritic

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: GymEnv | str | None,
        expert_data: Any = None,
        learning_rate: float | Schedule | None = None,
        buffer_size: int = 1_000_000,  # 1e6
        learning_starts: int = 1_000,
        batch_size: int | None = None,
        tau: float | None = None,
        gamma: float | None = None,
        train_freq: int | tuple[int, str] | None = None,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        ent_coef: str | float | None = None,
        target_update_interval: int = 1,
        target_entropy: str | float = "auto",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        offline: bool = False,
        preset: Preset = "default",
        penalty_coef: float | None = None,
        reward_prior: float | None = None,
        bc_coef: float | Schedule | None = None,
        actor_learning_rate: float | Schedule | None = None,
        expert_actions: settings.ExpertActions = "given",
        objective_kwargs: dict[str, Any] | None = None,
        compile: bool = False,
        _init_setup_model: bool = True,
    ):
        replay.check_replay_buffer_class(replay_buffer_class)
        arguments = locals()
        chosen = {name: arguments[name] for name in settings.ARGUMENTS}
        env_spec = spaces_env.EnvSpec(None, None)
        if _init_setup_model:  # else a saved model is being loaded, which brings all of this
            env, env_spec = spaces_env.make_env(env, offline, verbose, expert_data)
            env_spaces = env.observation_space, env.action_space
            context = settings.Context(preset, *env_spaces, env_spec.env_id, offline, expert_actions)
            resolved = settings.resolve(context, chosen, objective_kwargs)
            chosen = {name: getattr(resolved, name) for name in settings.ARGUMENTS}
            policy = policy_class(policy, *env_spaces, action_noise, policy_kwargs)
            chosen["policy_kwargs"] = policy_kwargs_for(policy, chosen["policy_kwargs"], policy_kwargs)

        super().__init__(
            policy,
            env,
            chosen["learning_rate"],
            env_spec,
            offline,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=chosen["batch_size"],
            tau=chosen["tau"],
            gamma=chosen["gamma"],
            train_freq=chosen["train_freq"],
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            policy_kwargs=chosen["policy_kwargs"],
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            use_sde_at_warmup=use_sde_at_warmup,
            sde_support=getattr(policy, "continuous", True),
            supported_action_spaces=tuple(POLICIES),
        )

        self.target_entropy = target_entropy
        self.ent_coef = chosen["ent_coef"]
        self.target_update_interval = target_update_interval
        self.preset = preset
        self.penalty_coef = chosen["penalty_coef"]
        self.reward_prior = chosen["reward_prior"]
        self.bc_coef = bc_coef
        self.actor_learning_rate = actor_learning_rate  # the preset's differs online and offline
        self.expert_actions = expert_actions
        self.objective_kwargs = objective_kwargs
        self.compile = compile

        self.terminal_v: float | None = 0.0
        self.inverse_dynamics: InverseDynamics | None = None
        self.alarms = diagnostics.Alarms()
        self.training_log = diagnostics.TrainingLog()

        if _init_setup_model:
            settings.check_compiler(compile)
            self._setup_model()
            if not offline:
                self._make_replay_buffer(self.n_envs)  # its arguments are checked here, not in learn()
            if expert_data is not None:
                self.set_expert_data(expert_data)

    def _setup_model(self) -> None:
        migration.migrate(self.__dict__)
        self._resolve_settings()
        policy_kwargs = self.policy_kwargs
        if self.objective.critic_bound == "tanh":
            self.policy_kwargs = {**policy_kwargs, "q_bound": self.settings.q_bound}
        super()._setup_model()
        self.policy_kwargs = policy_kwargs
        self._create_aliases()
        if self.expert_actions == "inverse_dynamics":
            self.inverse_dynamics = InverseDynamics(self.policy, self.lr_schedule(1)).to(self.device)
        critic, critic_target, _ = self.policy.critic_networks()
        self._untouched = self._untouched or fingerprint(critic)  # of a loaded model, it is in the zip
        self._make_reference()
        self._critic_parameters = list(critic.parameters()), list(critic_target.parameters())
        # Running mean and running var
        self.batch_norm_stats = get_parameters_by_name(critic, ["running_"])
        self.batch_norm_stats_target = get_parameters_by_name(critic_target, ["running_"])
        # Target entropy is used when learning the entropy coefficient; an unexpected string is an error here
        default = self.policy.default_target_entropy
        self.target_entropy = default if self.target_entropy == "auto" else float(self.target_entropy)
        self._setup_temperature()

    def _setup_temperature(self) -> None:
        self.policy.set_ent_coef(settings.initial_ent_coef(self.ent_coef))
        learned = str(self.ent_coef).startswith("auto")
        # Note: we optimize the log of the entropy coeff which is slightly different from the paper
        # as discussed in https://github.com/rail-berkeley/softlearning/issues/37
        log_ent_coef = self.policy.log_ent_coef.requires_grad_(learned)
        self.log_ent_coef: th.Tensor | None = log_ent_coef if learned else None
        self.ent_coef_optimizer = th.optim.Adam([log_ent_coef], lr=self.lr_schedule(1)) if learned else None

    @property
    def ent_coef_tensor(self) -> th.Tensor:
        """The temperature, by its name in SAC."""
        return self.policy.ent_coef

    def _resolve_settings(self) -> None:
        """Find out what is in force: from what the user gave, online or offline."""
        given = {name: getattr(self, name) for name in settings.ARGUMENTS}
        given |= settings.where_solution_fails(self._context(), given) if self.solution_fails and not self.offline else {}
        self.settings = settings.resolve(self._context(), given, self.objective_kwargs)
        self.objective = self.settings.objective

    def _context(self) -> settings.Context:
        # The environment's specification is a list in a saved model
        known = self.observation_space, self.action_space, self._env_spec[0]
        return settings.Context(self.preset, *known, self.offline, self.expert_actions)

    def _create_aliases(self) -> None:
        if isinstance(self.policy, SoftQPolicy):
            self.q_net = self.policy.q_net
            self.q_net_target = self.policy.q_net_target
            self.actor = None
        else:
            self.actor = self.policy.actor
            self.critic = self.policy.critic
            self.critic_target = self.policy.critic_target

    def _setup_imitation(self, expert_buffer: ExpertBuffer) -> None:
        self._resolve_settings()
        settings.check_compiler(self.compile)
        env = self._obs_normalize_env
        if not self.policy.normalizer.fitted:
            self.policy.normalizer.fit(expert_buffer.all(env, at_most=2_000).observations)
        self.terminal_v = terminal_value(self.objective, self.offline, expert_buffer.terminates)
        self.objective = replace(self.objective, terminal_v=self.terminal_v)
        buffer = None if self.offline else self.replay_buffer
        self.sampler = Sampler(expert_buffer, buffer, env, self.settings, self.policy.random_shift)
        if self.verbose >= 1:
            print(settings.describe(self.settings, self._context(), expert_buffer.description))
        self._make_prior()
        self._begin_with_reference()

    def _fit_actions(self, demonstrations: Demonstrations) -> None:
        # Once they have learned, the networks know their range of actions; stored ones are scaled by it, too
        stores = self._replay_buffer is not None and self._replay_buffer.size() > 0
        if self._reads_actions and not stores and self._is_untouched(self.policy.critic_networks()[0]):
            self.policy.fit_actions(demonstrations)

    @property
    def _action_range(self) -> spaces.Space:
        return self.policy.action_range

    def _actions_of_expert(self, expert: Samples, of_policy: Sequence[Samples]) -> th.Tensor:
        """Return the actions that count as the expert's."""
        if self.expert_actions == "policy":
            return self.policy.sample_actions(expert.observations)
        return expert.actions if self.inverse_dynamics is None else self.inverse_dynamics.actions_of(expert, of_policy)

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        assert self.sampler is not None  # made by learn()
        self._judge_solution()
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        critic_optimizer = self.policy.critic_networks()[2]
        # Update optimizers learning rate
        optimizers = [critic_optimizer]
        if self.ent_coef_optimizer is not None:
            optimizers += [self.ent_coef_optimizer]

        # Update learning rate according to lr schedule
        self._update_learning_rate(optimizers)
        progress = self._current_progress_remaining
        if self.actor is not None:
            set_learning_rate(self.actor.optimizer, self.settings.actor_learning_rate, progress)
        bc_coef = scheduled(self.settings.bc_coef, progress)
        functions, objective = updates.functions(self.compile), self.objective
        reference = self._judge_reference()

        for n_updates in range(self._n_updates, self._n_updates + gradient_steps):
            # Sample the expert buffer and, online, as much from the replay buffer: the expert's rows come first
            batch = self.sampler.sample(batch_size, self.num_timesteps // self.n_envs, self._actions_of_expert)

            # We need to sample because `log_std` may have changed between two gradient steps
            if self.use_sde:
                self.actor.reset_noise()  # type: ignore[union-attr]

            # Action by the current actor for the sampled state
            if self.actor is not None or self.ent_coef_optimizer is not None:
                actions_pi, log_prob, mean_actions = functions.action_log_prob(self.policy, batch.obs)

            info: dict[str, th.Tensor] = {}
            ent_coef = self.policy.ent_coef
            # Optimize entropy coefficient, also called entropy temperature or alpha in the paper
            if self.ent_coef_optimizer is not None and self.log_ent_coef is not None:
                ent_coef_loss = updates.ent_coef_loss(self.log_ent_coef, log_prob, float(self.target_entropy))
                info["ent_coef_loss"] = ent_coef_loss.detach()
                diagnostics.minimize(ent_coef_loss, info, self.ent_coef_optimizer, n_updates)

            # Optimize the critic: -J(Q) of Eq. 9 (discrete) or Eq. 10 (continuous)
            critic_loss, critic_info = functions.critic_loss(self.policy, batch, ent_coef, objective, bc_coef)
            info |= critic_info
            critic_loss = updates.add_gradient_penalty(critic_loss, info, self.policy, batch, objective, self.settings.q_bound)
            info["critic_grad_norm"] = diagnostics.minimize(critic_loss, info, critic_optimizer, n_updates)

            # Optimize the actor: SAC's step on Q (Eq. 10)
            if isinstance(self.policy, SACPolicy) and not self._actor_waits(n_updates):
                optimizer = self.policy.actor.optimizer
                with without_gradient(parameters_of(critic_optimizer)):
                    actor_step = (actions_pi, log_prob, mean_actions, ent_coef, bc_coef)
                    actor_loss, actor_info = functions.actor_loss(self.policy, batch, *actor_step)
                info |= actor_info
                if self.settings.input_lasso > 0:
                    actor_loss = actor_loss + bc_coef * self.settings.input_lasso * input_norm(self.policy.actor)
                if reference is not None:
                    reference_loss = reference.loss(batch, mean_actions, self.sampler.expert_level)
                    info["reference_loss"] = reference_loss.detach()
                    actor_loss = actor_loss + bc_coef * reference_loss
                info["actor_grad_norm"] = diagnostics.minimize(actor_loss, info, optimizer, n_updates)
            if not self._actor_waits(n_updates):
                self.policy.average_actor(n_updates)

            # Update target networks
            if objective.use_target and n_updates % self.target_update_interval == 0:
                polyak_update(*self._critic_parameters, self.tau)
                # Copy running stats, see GH issue #996
                polyak_update(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)

            self._n_updates += 1
            self.training_log.note({**info, "ent_coef": ent_coef})
            if n_updates % diagnostics.UPDATE_INTERVAL == 0:
                self.training_log.fit = diagnostics.fit(self.policy, batch, cloned=self.expert_actions == "given")
                self._record_means()
                if self.sampler.prior_is_outdated(n_updates):
                    self._make_prior()

    def _record_means(self) -> None:
        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        means = self.training_log.record(self.logger, self._n_updates, self.verbose)
        # What values can amount to in theory, with the entropy's bonus
        bonus = float(self.policy.ent_coef) * self.policy.max_entropy / (1 - self.gamma)
        bound = self.settings.q_bound + bonus if self.objective.row.bounded else float("inf")
        self.alarms.check(means, bound, self._n_updates)

    def predict_reward(
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        actions: np.ndarray,
        next_obs: np.ndarray | dict[str, np.ndarray],
        terminated: np.ndarray,
    ) -> np.ndarray:
        """
        The recovered reward r = Q(s, a) - gamma V(s') (Eq. 11), where V of a terminal state is what ``terminal_value`` says.
        It is deterministic: for Box actions, V(s') is a mean over fixed draws of the policy's noise. A model that has not
        learned warns.

        :param obs: observations as given to ``predict``, shape (batch, \\*obs_shape), or a dictionary of such
        :param actions: actions in the environment's units, shape (batch, \\*action_shape)
        :param next_obs: next observations, shape of ``obs``
        :param terminated: whether the episode ended in a terminal state (a time limit is none), shape (batch,)
        :return: rewards, shape (batch,)
        :raises ValueError: if the shapes do not fit, or observations look raw and should be normalised (``VecNormalize``)
        """
        self._check_normalized(obs=obs, next_obs=next_obs)
        self._warn_if_untrained(self.policy.critic_networks()[0])
        self.policy.set_training_mode(False)
        transitions = to_tensors(self.policy, obs, actions, next_obs, terminated)
        return updates.recovered_reward(self.policy, *transitions, self.gamma, self.terminal_v).cpu().numpy()

    @classmethod
    def load(  # type: ignore[override]
        cls: type[SelfIQLearn], path: Any, *args: Any, preset: Preset | None = None, **kwargs: Any
    ) -> SelfIQLearn:
        ent_coef = kwargs.pop("ent_coef", None)
        model = super().load(path, *args, **kwargs)
        settings.check_preset(model.preset, preset)
        if ent_coef is not None:
            # It prevails over the one in the saved policy, but a learned one goes on to be learned
            goes_on = model.ent_coef_optimizer is not None and str(ent_coef).startswith("auto")
            model.ent_coef = ent_coef
            model._resolve_settings()
            if not goes_on:
                model._setup_temperature()
        return model

    def _excluded_save_params(self) -> list[str]:
        networks = ["q_net", "q_net_target", "actor", "critic", "critic_target", "log_ent_coef"]
        made_again = ["settings", "objective", "training_log", "_critic_parameters"]
        return [*super()._excluded_save_params(), *networks, "inverse_dynamics", *made_again]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts = ["policy", *(["policy.optimizer"] if self.actor is None else ["actor.optimizer", "critic.optimizer"])]
        if self.inverse_dynamics is not None:
            state_dicts += ["inverse_dynamics", "inverse_dynamics.optimizer"]
        if self.ent_coef_optimizer is not None:
            state_dicts += ["ent_coef_optimizer"]
        return [*state_dicts, *super()._get_torch_save_params()[0]], []
