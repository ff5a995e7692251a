import io
import pathlib
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy, ContinuousCritic
from stable_baselines3.common.type_aliases import GymEnv, MaybeCallback, Schedule
from stable_baselines3.common.utils import get_parameters_by_name
from stable_baselines3.common.vec_env import VecEnv
from stable_baselines3.dqn.policies import QNetwork
from stable_baselines3.sac.policies import Actor

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn import arguments, batches, cloning, diagnostics, environment, losses, replay, rng, statistics
from sb3_iq.iq_learn.batches import ExpertActions
from sb3_iq.iq_learn.divergences import DivergenceName
from sb3_iq.iq_learn.inverse_dynamics import InverseDynamics
from sb3_iq.iq_learn.objective import (
    CriticBound,
    ExpertTarget,
    OccupancyTerm,
    Penalty,
    TerminalValue,
    soft_bellman_reward,
)
from sb3_iq.iq_learn.optimization import parameters_of, polyak_update, without_gradient
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy
from sb3_iq.iq_learn.presets import Preset, settings_for
from sb3_iq.iq_learn.reward_prior import RewardPrior, preset_coefficient, reward_prior_of

SelfIQLearn = TypeVar("SelfIQLearn", bound="IQLearn")
# Gradient steps between two looks at how well the policy fits
UPDATE_INTERVAL = 100


class IQLearn(OffPolicyAlgorithm):
    """
    Inverse soft-Q learning (IQ-Learn): imitation from demonstrations with one Q-function,
    which stands for the policy, softmax(Q / alpha), and for the reward, r = Q - gamma V'.
    Paper: https://arxiv.org/abs/2106.12142

    Discrete actions are learned by a soft Q-network, Box actions by SAC's actor and critics. The reward of the environment is
    never used. An argument left at ``None`` is set by ``preset``, for the kind of action space, see
    :mod:`sb3_iq.iq_learn.presets`.

    :param policy: The policy model to use (MlpPolicy, CnnPolicy, MultiInputPolicy), or a class derived from
        :class:`~sb3_iq.iq_learn.SoftQPolicy` (discrete) or :class:`~sb3_iq.iq_learn.SACPolicy` (Box)
    :param env: The environment to learn from (if registered in Gym, can be str). Offline it is only asked for its spaces, and
        may be ``None`` if these are given
    :param expert_data: The demonstrations: whatever :func:`~sb3_iq.load_demonstrations` takes or returns.
        It is read at once and never saved with the model
    :param learning_rate: learning rate for the Q-function's Adam optimizer, typically 1e-4 to 1e-3;
        it can be a function of the current progress remaining (from 1 to 0)
    :param buffer_size: size of the replay buffer, typically 1e5 to 1e6; allocated when learning online begins
    :param learning_starts: how many environment steps are taken at random before learning starts, typically 1000
    :param batch_size: number of expert transitions, and online as many of the policy, for each gradient update, typically 256
    :param expert_batch_size: number of expert transitions online, if it is another one. What they weigh in the critic's loss
        stays the same
    :param keep_solution: online, with discrete actions, the prior reward is the one that the network stood for when it
        began to learn online (:class:`~sb3_iq.iq_learn.reward_prior.SolutionPrior`), for a model that was trained offline
    :param tau: the soft update coefficient of the target network ("Polyak update", between 0 and 1), typically 0.005
    :param gamma: the discount factor, typically 0.97 to 0.99
    :param train_freq: Update the model every ``train_freq`` steps. Alternatively pass a tuple of frequency and unit
        like ``(5, "step")`` or ``(2, "episode")``. Typically 1 or 2
    :param gradient_steps: How many gradient steps to do after each rollout (see ``train_freq``), typically 1.
        Set to ``-1`` means to do as many gradient steps as steps done in the environment during the rollout
    :param action_noise: the action noise type (None by default, and hardly ever needed: the policy is stochastic)
    :param replay_buffer_class: Replay buffer class to use. If ``None``, it will be automatically selected.
        Buffers of n-step returns or relabelled goals are refused
    :param replay_buffer_kwargs: Keyword arguments to pass to the replay buffer on creation
    :param optimize_memory_usage: Enable a memory efficient variant of the replay buffer (False by default)
    :param n_steps: only 1: r = Q - gamma V' is a one-step relation
    :param ent_coef: the temperature alpha, typically 0.01 to 0.1; ``"auto"`` to learn it
        (and ``"auto_0.1"`` for using 0.1 as initial value)
    :param target_update_interval: update the target network every ``target_update_interval`` gradient steps, typically 1
    :param target_entropy: target entropy when learning ``ent_coef`` (``ent_coef = 'auto'``): by default minus the dimension of
        a Box, a tenth of the largest entropy for discrete actions
    :param use_sde: Whether to use generalized State Dependent Exploration (gSDE, Box actions; False by default)
    :param sde_sample_freq: Sample a new noise matrix every n steps when using gSDE
        Default: -1 (only sample at the beginning of the rollout)
    :param use_sde_at_warmup: Whether to use gSDE instead of uniform sampling during the warm up phase (False by default)
    :param stats_window_size: Window size for the rollout logging, specifying the number of episodes to average
        the reported success rate, mean episode length, and mean reward over (100 by default)
    :param tensorboard_log: the log location for tensorboard (if None, no logging)
    :param policy_kwargs: additional arguments to be passed to the policy on creation, e.g. ``dict(net_arch=[256, 256])``
    :param verbose: Verbosity level: 0 for no output, 1 for info messages (such as device or wrappers used), 2 for
        debug messages
    :param seed: Seed for the pseudo random generators
    :param device: Device (cpu, cuda, ...) on which the code should be run.
        Setting it to auto, the code will be run on the GPU if possible.
    :param offline: Learn from the demonstrations alone (False by default): ``learn(n)`` takes n gradient steps and no
        environment step. May be changed between calls of ``learn``
    :param preset: the settings for arguments that are left at ``None``: the ``"default"`` of this project, the published
        configuration (``"paper"``), or that of LS-IQ (``"ls-iq"``, https://arxiv.org/abs/2303.00599)
    :param divergence: the statistical divergence between expert and policy, a row of
        :data:`~sb3_iq.iq_learn.divergences.DIVERGENCES`. ``"total_variation"`` needs ``critic_bound="tanh"``,
        ``"wasserstein"`` a ``gradient_penalty``
    :param occupancy_term: over which states the term (1 - gamma) E[V(s0)] = E_mu[V(s) - gamma V(s')] of the objective
        runs: the expert's and the policy's (``"policy_mix"``), the expert's (``"expert"``), the policy's with the actions it
        took (``"policy"``, E[Q(s, a) - gamma V(s')]), or as it stands, over initial states of both (``"start_states"``), or as
        if all of the expert's states were initial ones (``"expert_states"``), or ``"expert"`` within a bound
        (``"expert_bounded"``, see :func:`~sb3_iq.iq_learn.objective.iq_loss`)
    :param penalty: whose rewards are penalised: the ``"expert"``'s (the paper's chi-squared divergence)
        or those of the ``"mixture"`` of expert and policy (bounded; the stable choice online)
    :param penalty_coef: the coefficient c of the penalty c r^2: rewards are at most 1/c from the prior. Typically 0.5
        without one, 32 with
    :param mixture_weight: weight of the policy's penalty in that of the ``"mixture"``. What the policy has done is penalised,
        what it has not tried isn't: 1 explores, 0.1 stays with what is rewarded
    :param reward_prior: size of the reward that the penalty draws to instead of 0, high where a transition is like the
        demonstrations: by distance with Box actions (:class:`~sb3_iq.iq_learn.reward_prior.DistancePrior`), the
        log-likelihood of a clone with discrete ones (:class:`~sb3_iq.iq_learn.reward_prior.ClonePrior`; by distance too where
        the expert's actions are not read). Typically 0 or 1. It has no part in offline training
    :param terminal_value: the value of terminal states: ``"zero"`` as in RL, which favours or shuns early ends according to
        the sign of rewards, or ``"absorbing"``: as if the last transition repeated for ever, see
        :func:`~sb3_iq.iq_learn.objective.absorbing_reward`
    :param critic_bound: ``"clip"`` clips V(s') to the bound of values, (r_0 + 1/c) / (1 - gamma) with the largest size r_0
        of the prior, ``"tanh"`` lets no Q exceed it
    :param expert_target: ``"bootstrap"``, or ``"fixed"``: the expert's Q-values are drawn to that bound
    :param use_target: whether V(s') is that of the target network, or of the Q-function itself with its gradient
    :param gradient_penalty: coefficient of a penalty of a Q that changes by more than its bound between a transition of the
        expert and the next nearest one (see the page on the method). Typically 0 or 1, 10 with ``"wasserstein"``
    :param obs_noise: standard deviation of noise on the observations of a batch, in units of the demonstrations' standard
        deviation; typically 0 to 0.3. Vectors only; images and one-hot codes stay as they are
    :param expert_actions: ``"given"``; or for demonstrations of states alone, whose actions are then never read, drawn from
        the ``"policy"`` at the expert's states (section 5.4), or told from s and s' by a model of the ``"inverse_dynamics"``,
        learned from the replay buffer
    :param replay_window: draw from so many of the newest transitions of the replay buffer; all by default
    :param policy_delay: gradient steps of the Q-function for each step of the actor (Box actions), typically 1
    :param pretrain_steps: steps of behavioural cloning before anything else is learned, typically 0 or some thousands
    :param offline_steps: gradient steps of offline training with which learning online begins, typically 0 or some thousands
    :param bc_coef: coefficient of a term of behavioural cloning in the policy's loss, typically 0 to 10: the squared error of
        Box actions, or the negative log-likelihood of discrete ones; it can be a function of the current progress remaining.
        None: what the preset has for learning online or offline
    :param actor_learning_rate: learning rate of the actor (Box actions), typically 3e-5 to 3e-4, or a function of the
        current progress remaining
    :param actor_tau: coefficient of the moving average of the actor (Box actions) which deterministic predictions are made by,
        typically 2e-4 (before 4 / ``actor_tau`` updates it is the average of about the last quarter); 1 for the actor itself
    :param compile: compile the losses and their gradients by ``torch.compile`` (False by default), which takes a C++ compiler
    :param observation_space: observation space, only if ``env`` is None and ``expert_data`` doesn't carry it
    :param action_space: action space, only if ``env`` is None and ``expert_data`` doesn't carry it
    :param _init_setup_model: Whether or not to build the network at the creation of the instance
    :raises ValueError: if an argument or the demonstrations do not fit, with the reason
    :raises TypeError: if ``expert_data`` is of a type that is not read
    """

    policy_aliases: ClassVar[dict[str, type[BasePolicy]]] = {}  # chosen by the action space, see arguments.policy_class
    policy: SoftQPolicy | SACPolicy
    # Discrete actions
    q_net: QNetwork
    q_net_target: QNetwork
    # Box actions
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
        expert_batch_size: int | None = None,
        keep_solution: bool = False,
        tau: float = 0.005,
        gamma: float | None = None,
        train_freq: int | tuple[int, str] | None = None,
        gradient_steps: int = 1,
        action_noise: ActionNoise | None = None,
        replay_buffer_class: type[ReplayBuffer] | None = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
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
        divergence: DivergenceName = "chi2",
        occupancy_term: OccupancyTerm | None = None,
        penalty: Penalty | None = None,
        penalty_coef: float | None = None,
        mixture_weight: float | None = None,
        reward_prior: float | None = None,
        terminal_value: TerminalValue | None = None,
        critic_bound: CriticBound | None = None,
        expert_target: ExpertTarget | None = None,
        use_target: bool | None = None,
        gradient_penalty: float | None = None,
        obs_noise: float | None = None,
        expert_actions: ExpertActions = "given",
        replay_window: int | None = None,
        actor_learning_rate: float | Schedule | None = None,
        actor_tau: float | None = None,
        policy_delay: int = 1,
        pretrain_steps: int = 0,
        offline_steps: int = 0,
        bc_coef: float | Schedule | None = None,
        compile: bool = False,
        observation_space: spaces.Space | None = None,
        action_space: spaces.Space | None = None,
        _init_setup_model: bool = True,
    ):
        arguments.check_one_step(n_steps, replay_buffer_class)
        self.offline = offline
        self._env_spec = environment.EnvSpec(None, None)
        vec_env: VecEnv | None = None
        if _init_setup_model:
            vec_env, self._env_spec = environment.make_env(env, observation_space, action_space, offline, verbose, expert_data)
            action_space = vec_env.action_space
        settings = settings_for(preset, vec_env, self._env_spec.env_id)

        super().__init__(
            arguments.policy_class(policy, vec_env),
            vec_env if _init_setup_model else env,  # type: ignore[arg-type]
            learning_rate if learning_rate is not None else settings.learning_rate,
            buffer_size=buffer_size,
            learning_starts=learning_starts,
            batch_size=batch_size if batch_size is not None else settings.batch_size,
            tau=tau,
            gamma=gamma if gamma is not None else settings.gamma,
            train_freq=train_freq if train_freq is not None else settings.train_freq,
            gradient_steps=gradient_steps,
            action_noise=action_noise,
            replay_buffer_class=replay_buffer_class,
            replay_buffer_kwargs=replay_buffer_kwargs,
            optimize_memory_usage=optimize_memory_usage,
            policy_kwargs={**settings.policy_kwargs, **(policy_kwargs or {})},
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            device=device,
            seed=seed,
            use_sde=use_sde,
            sde_sample_freq=sde_sample_freq,
            use_sde_at_warmup=use_sde_at_warmup,
            sde_support=isinstance(action_space, spaces.Box),
            supported_action_spaces=(spaces.Box, spaces.Discrete),
            support_multi_env=True,
        )

        self.expert_batch_size = expert_batch_size
        self.keep_solution = keep_solution
        self.target_entropy = target_entropy
        self.log_ent_coef = None  # type: th.Tensor | None
        self.ent_coef = ent_coef if ent_coef is not None else settings.ent_coef
        self.target_update_interval = target_update_interval
        self.ent_coef_optimizer: th.optim.Adam | None = None
        self.preset = preset
        self.divergence = divergence
        self.occupancy_term = occupancy_term
        self.penalty = penalty
        self.penalty_coef = penalty_coef if penalty_coef is not None else settings.penalty_coef
        self.mixture_weight = mixture_weight if mixture_weight is not None else settings.mixture_weight
        self.terminal_value = terminal_value if terminal_value is not None else settings.terminal_value
        self.critic_bound = critic_bound if critic_bound is not None else settings.critic_bound
        self.expert_target = expert_target
        self.use_target = use_target if use_target is not None else settings.use_target
        self.obs_noise = obs_noise if obs_noise is not None else settings.obs_noise
        self.gradient_penalty = gradient_penalty if gradient_penalty is not None else settings.gradient_penalty
        self.expert_actions = expert_actions
        self.reward_prior = reward_prior if reward_prior is not None else preset_coefficient(self, settings.reward_prior)
        self.replay_window = replay_window
        self.actor_learning_rate = actor_learning_rate if actor_learning_rate is not None else settings.actor_learning_rate
        self.actor_tau = actor_tau if actor_tau is not None else settings.actor_tau
        self.policy_delay = policy_delay
        self.pretrain_steps = pretrain_steps
        self.offline_steps = offline_steps
        self.bc_coef = bc_coef
        # V of terminal states; None: the last transition repeats for ever
        self.terminal_v: float | None = 0.0
        self.prior: RewardPrior | None = None
        self.inverse_dynamics: InverseDynamics | None = None
        self.alarms = diagnostics.Alarms()
        self._fit: dict[str, float] = {}
        self.compile = compile

        self.expert_buffer: ExpertBuffer | None = None
        # What identifies the demonstrations in a saved model
        self.expert_reference: str | None = None
        self.expert_n_transitions = 0
        self.expert_content_hash: str | None = None
        # Expert batches have a generator of their own, saved with the model
        self.expert_rng = np.random.default_rng(seed)
        self._rng_states: dict[str, Any] | None = None
        # Statistics of VecNormalize are not in the zip, but that they are needed is
        self._normalizes_obs = False
        self._statistics_warmed_up = False

        if _init_setup_model:
            arguments.check_settings(self)
            self._setup_model()
            if not offline:
                replay.make_replay_buffer(self, buffer_size=self.n_envs)  # its arguments are checked here, not in learn()
            if expert_data is not None:
                self.set_expert_data(expert_data)

    def _setup_model(self) -> None:
        # The replay buffer is allocated by the first online learn(), see _setup_learn; a loaded model's generators are kept
        replay_buffer, self.replay_buffer = self.replay_buffer, replay.NOT_ALLOCATED
        expert_rng, rng_states = self.expert_rng, self._rng_states
        if self.critic_bound == "tanh":
            self.policy_kwargs["q_bound"] = arguments.value_bound_of(self)
        super()._setup_model()
        self.replay_buffer, self.expert_rng, self._rng_states = replay_buffer, expert_rng, rng_states
        self._create_aliases()
        if self.expert_actions == "inverse_dynamics":
            self.inverse_dynamics = InverseDynamics(self.policy, self.lr_schedule(1)).to(self.device)
        critic, critic_target, _ = self.policy.critic_networks()
        # Running mean and running var
        self.batch_norm_stats = get_parameters_by_name(critic, ["running_"])
        self.batch_norm_stats_target = get_parameters_by_name(critic_target, ["running_"])
        # Target entropy is used when learning the entropy coefficient; an unexpected string is an error here
        self.target_entropy = float(
            arguments.auto_target_entropy(self.action_space) if self.target_entropy == "auto" else self.target_entropy
        )
        init_value = arguments.initial_ent_coef(self.ent_coef)
        if isinstance(self.ent_coef, str) and self.ent_coef.startswith("auto"):
            # Note: we optimize the log of the entropy coeff which is slightly different from the SAC paper
            # as discussed in https://github.com/rail-berkeley/softlearning/issues/37
            self.log_ent_coef = th.log(th.ones(1, device=self.device) * init_value).requires_grad_(True)
            self.ent_coef_optimizer = th.optim.Adam([self.log_ent_coef], lr=self.lr_schedule(1))
        else:
            self.ent_coef_tensor = th.tensor(init_value, device=self.device)
        if isinstance(self.policy, SoftQPolicy):
            self.policy.ent_coef.fill_(init_value)

    def _create_aliases(self) -> None:
        if isinstance(self.policy, SoftQPolicy):
            self.q_net = self.policy.q_net
            self.q_net_target = self.policy.q_net_target
            self.actor = None
        else:
            self.actor = self.policy.actor
            self.critic = self.policy.critic
            self.critic_target = self.policy.critic_target

    def set_expert_data(self, expert_data: Any) -> None:
        """
        Read demonstrations, check them against the spaces, and imitate them from now on.

        :param expert_data: whatever :func:`~sb3_iq.load_demonstrations` takes or returns
        :raises ValueError: if they cannot be read or do not fit the spaces, with the reason
        """
        demonstrations = arguments.read_expert_data(expert_data, *self._env_spec)
        self.expert_buffer = ExpertBuffer(
            demonstrations, self.observation_space, self.action_space, device=self.device, rng=self.expert_rng
        )
        # A reference is only kept where it brings back the same data: a selection made by the caller is not in it
        self.expert_reference = str(expert_data) if isinstance(expert_data, (str, pathlib.Path)) else None
        self.expert_n_transitions = demonstrations.n_transitions
        self.expert_content_hash = demonstrations.content_hash

    def train(self, gradient_steps: int, batch_size: int = 256) -> None:
        # Switch to train mode (this affects batch norm / dropout)
        self.policy.set_training_mode(True)
        critic, critic_target, critic_optimizer = self.policy.critic_networks()
        # Update learning rates according to their schedules
        self._update_learning_rate([critic_optimizer] + [o for o in [self.ent_coef_optimizer] if o is not None])
        if self.actor is not None:
            arguments.update_learning_rate(self.actor.optimizer, self.actor_learning_rate, self._current_progress_remaining)

        terms = arguments.objective_terms(self)
        objective = (self.gamma, self.divergence, terms.occupancy_term, terms.penalty, self.penalty_coef)
        functions = losses.functions(self.compile)
        bc_coef = cloning.coefficient(self)
        infos: list[dict[str, th.Tensor]] = []

        for n_updates in range(self._n_updates, self._n_updates + gradient_steps):
            # Sample the expert buffer and, online, as much from the replay buffer: expert rows come first
            batch = batches.sample(self, batch_size, terms.occupancy_term)

            # We need to sample because `log_std` may have changed between two gradient steps
            if self.use_sde:
                self.actor.reset_noise()  # type: ignore[union-attr]

            if isinstance(self.policy, SACPolicy):
                # Action by the current actor for the sampled state
                actions_pi, log_prob = functions.action_log_prob(self.policy, batch.obs)
            elif self.ent_coef_optimizer is not None:
                log_prob = self.policy.expected_log_prob(batch.obs)
            # Entropy coefficient, also called entropy temperature or alpha
            ent_coef = self._ent_coef()

            # Optimize the critic: -J(Q) of Eq. 9 (discrete) or Eq. 10 (continuous)
            bounds = (self.terminal_v, self.critic_bound, terms.expert_target, self.mixture_weight, batch.reward_prior)
            critic_loss, info = functions.critic_loss(self.policy, batch, ent_coef, self.use_target, *objective, *bounds)
            if self.gradient_penalty > 0:
                gradient_penalty = losses.gradient_penalty(self.policy, batch, arguments.value_bound_of(self))
                critic_loss = critic_loss + self.gradient_penalty * gradient_penalty
                info["gradient_penalty"] = gradient_penalty.detach()
            if self.actor is None and bc_coef > 0:
                bc_loss = self.policy.cloning_loss(batch.expert_obs, batch.expert_actions)
                critic_loss = critic_loss + bc_coef * bc_loss
                info["bc_loss"] = bc_loss.detach()
            critic_optimizer.zero_grad()
            critic_loss.backward()
            info["critic_grad_norm"] = diagnostics.check_finite(info, critic_optimizer, n_updates)
            critic_optimizer.step()

            # Optimize the entropy coefficient
            if self.ent_coef_optimizer is not None:
                info["ent_coef_loss"] = self._update_ent_coef(log_prob.detach())

            # Optimize the actor: SAC's step on Q (Eq. 10)
            if isinstance(self.policy, SACPolicy) and n_updates % self.policy_delay == 0:
                actor_optimizer = self.policy.actor.optimizer
                with without_gradient(parameters_of(critic_optimizer)):
                    actor_loss, actor_info = functions.actor_loss(self.policy, batch.obs, actions_pi, log_prob, ent_coef)
                if bc_coef > 0:
                    bc_loss = self.policy.cloning_loss(batch.expert_obs, batch.expert_actions)
                    actor_loss = actor_loss + bc_coef * bc_loss
                    actor_info["bc_loss"] = bc_loss.detach()
                actor_optimizer.zero_grad()
                actor_loss.backward()
                actor_info["actor_grad_norm"] = diagnostics.check_finite(actor_info, actor_optimizer, n_updates)
                actor_optimizer.step()
                self.policy.average_actor(self.actor_tau, n_updates // self.policy_delay)
                info |= actor_info

            # Update target networks
            if self.use_target and n_updates % self.target_update_interval == 0:
                polyak_update(critic.parameters(), critic_target.parameters(), self.tau)
                # Copy running stats, see SB3's GH issue #996
                polyak_update(self.batch_norm_stats, self.batch_norm_stats_target, 1.0)

            if n_updates % UPDATE_INTERVAL == 0:
                self._fit = diagnostics.fit(self.policy, batch, cloned=self.expert_actions == "given")
                rounds = n_updates // UPDATE_INTERVAL
                # The statistics of VecNormalize have changed, each time less
                if self._vec_normalize_env is not None and rounds > 0 and rounds & (rounds - 1) == 0:
                    self.prior = reward_prior_of(self)
            infos.append({**info, "ent_coef": ent_coef.squeeze()})

        self._n_updates += gradient_steps

        self.logger.record("train/n_updates", self._n_updates, exclude="tensorboard")
        means = diagnostics.record_means(self.logger, infos, self._fit)
        self.alarms.check(means, arguments.q_bound(self), self._n_updates)

    def _ent_coef(self) -> th.Tensor:
        return self.ent_coef_tensor if self.log_ent_coef is None else th.exp(self.log_ent_coef.detach())

    def _update_ent_coef(self, log_prob: th.Tensor) -> th.Tensor:
        """A step of the temperature towards the target entropy."""
        assert self.log_ent_coef is not None and self.ent_coef_optimizer is not None
        ent_coef_loss = -(self.log_ent_coef * (log_prob + float(self.target_entropy))).mean()
        self.ent_coef_optimizer.zero_grad()
        ent_coef_loss.backward()
        self.ent_coef_optimizer.step()
        if isinstance(self.policy, SoftQPolicy):
            self.policy.ent_coef.copy_(self._ent_coef().squeeze())
        return ent_coef_loss.detach()

    def set_random_seed(self, seed: int | None = None) -> None:
        """
        Set the seed of all random generators (python, numpy, pytorch, gym, action_space), and of the expert batches.

        :param seed: the seed; with None nothing changes
        """
        super().set_random_seed(seed)
        if seed is not None:
            self.expert_rng = np.random.default_rng(seed)
            self._rng_states = None
            if self.expert_buffer is not None:
                self.expert_buffer.rng = self.expert_rng

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        # A policy that has learned something, offline or by cloning, plays from the first step on
        trained = self._n_updates > 0 or self.pretrain_steps > 0
        return super()._sample_action(0 if trained else learning_starts, action_noise, n_envs)

    def _setup_learn(
        self,
        total_timesteps: int,
        callback: MaybeCallback = None,
        reset_num_timesteps: bool = True,
        tb_log_name: str = "run",
        progress_bar: bool = False,
    ) -> tuple[int, BaseCallback]:
        if self.expert_buffer is None:
            arguments.read_expert_data_again(self)
        arguments.check_settings(self)
        arguments.check_callback(callback, self.offline)
        statistics.check_vec_normalize(self)
        if self.offline:
            if not environment.is_spaces_env(self.env):
                self.set_env(environment.make_spaces_env(self.observation_space, self.action_space, self.env))
        elif self.env is None or environment.is_spaces_env(self.env):
            raise ValueError("`env` is only a pair of spaces, and offline=False: give the model an environment by set_env().")
        elif self.replay_buffer is None:
            self.replay_buffer = replay.make_replay_buffer(self)
        statistics.warm_up_statistics(self)
        statistics.fit_normalizer(self)
        if self._n_updates == 0 and self.pretrain_steps > 0:
            cloning.pretrain(self, self.pretrain_steps)
        if self.verbose >= 1:
            print(arguments.describe(self))
        timesteps_and_callback = super()._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        if not self.offline and self._n_updates == 0 and self.offline_steps > 0:
            self.offline = True
            self._setup_objective()
            while self._n_updates < self.offline_steps:
                self.train(min(UPDATE_INTERVAL, self.offline_steps - self._n_updates), self.batch_size)
            self.offline = False
        self._setup_objective()
        if self._rng_states is not None and not reset_num_timesteps:
            rng.set_rng_states(self._rng_states, self.device)
        self._rng_states = None
        return timesteps_and_callback

    def _setup_objective(self) -> None:
        """What the objective takes from the demonstrations, for learning online or offline."""
        self.terminal_v = replay.terminal_value(self, arguments.objective_terms(self))
        self.prior = reward_prior_of(self)

    def learn(
        self: SelfIQLearn,
        total_timesteps: int = 20_000,
        callback: MaybeCallback = None,
        log_interval: int = 4,
        tb_log_name: str = "IQLearn",
        reset_num_timesteps: bool = True,
        progress_bar: bool = False,
    ) -> SelfIQLearn:
        """
        Return a trained model.

        :param total_timesteps: The number of environment steps to train on; offline, the number of gradient steps
        :param callback: callback(s) called at every step with state of the algorithm; offline, at every gradient step
        :param log_interval: the number of episodes before logging; offline, hundreds of gradient steps
        :param tb_log_name: the name of the run for TensorBoard logging
        :param reset_num_timesteps: whether or not to reset the current timestep number (used in logging)
        :param progress_bar: Display a progress bar using tqdm and rich.
        :return: the trained model
        :raises ValueError: if there are no demonstrations, or no environment and ``offline`` is False
        :raises DivergenceError: if a loss is not finite; no optimiser has stepped on it
        """
        if not self.offline:
            return super().learn(total_timesteps, callback, log_interval, tb_log_name, reset_num_timesteps, progress_bar)

        total_timesteps, callback = self._setup_learn(
            total_timesteps, callback, reset_num_timesteps, tb_log_name, progress_bar
        )
        callback.on_training_start(locals(), globals())
        while self.num_timesteps < total_timesteps:
            self._update_current_progress_remaining(self.num_timesteps, total_timesteps)
            self.train(gradient_steps=1, batch_size=self.batch_size)
            self.num_timesteps += 1
            callback.update_locals(locals())
            if not callback.on_step():
                break
            if log_interval is not None and self.num_timesteps % (100 * log_interval) == 0:
                diagnostics.dump_logs(self)
        if log_interval is not None and self.num_timesteps % (100 * log_interval) != 0:
            diagnostics.dump_logs(self)
        callback.on_training_end()
        return self

    def predict_reward(
        self,
        obs: np.ndarray | dict[str, np.ndarray],
        actions: np.ndarray,
        next_obs: np.ndarray | dict[str, np.ndarray],
        terminated: np.ndarray,
    ) -> np.ndarray:
        """
        The recovered reward r = Q(s, a) - gamma V(s') (Eq. 11), where V of a terminal state is what ``terminal_value`` says.
        It is deterministic: for Box actions, V(s') is a mean over fixed draws of the policy's noise.

        :param obs: observations as given to ``predict``, shape (batch, \\*obs_shape), or a dictionary of such
        :param actions: actions in the environment's units, shape (batch, \\*action_shape)
        :param next_obs: next observations, shape of ``obs``
        :param terminated: whether the episode ended in a terminal state (a time limit is none), shape (batch,)
        :return: rewards, shape (batch,)
        :raises ValueError: if the shapes do not fit
        """
        self.policy.set_training_mode(False)
        obs_tensor, vectorized = self.policy.obs_to_tensor(obs)
        next_obs_tensor, _ = self.policy.obs_to_tensor(next_obs)
        if not vectorized:
            raise ValueError("`obs` is a single observation: give a batch, shape (batch, *obs_shape).")
        q_actions, dones = arguments.reward_arguments(self, obs_tensor, actions, next_obs_tensor, terminated)
        with th.no_grad():
            q_values = self.policy.aggregate(self.policy.q_values(obs_tensor, q_actions))
            next_v = self.policy.expected_state_value(next_obs_tensor, self._ent_coef())
            rewards = soft_bellman_reward(q_values, next_v, dones, self.gamma, self.terminal_v)
        return rewards.cpu().numpy()

    def set_env(self, env: GymEnv, force_reset: bool = True) -> None:
        env = self._wrap_env(env, self.verbose)
        previous = self.n_envs, self.observation_space
        if self.replay_buffer is not None and self.replay_buffer.size() == 0:
            self.replay_buffer = None
        # Only stored transitions tie an environment to the number of the previous ones
        tied = self.replay_buffer is not None and not environment.is_spaces_env(env)
        self.n_envs = self.replay_buffer.n_envs if tied else env.num_envs  # type: ignore[union-attr]
        if environment.same_but_for_infinity(self.observation_space, env.observation_space):
            self.observation_space = env.observation_space
        try:
            super().set_env(env, force_reset)
        except (AssertionError, ValueError):
            self.n_envs, self.observation_space = previous
            raise
        if not environment.is_spaces_env(env):
            env_id, max_episode_steps = environment.env_spec(env)
            self._env_spec = environment.EnvSpec(env_id or self._env_spec[0], max_episode_steps or self._env_spec[1])

    def save(self, path: str | pathlib.Path | io.BufferedIOBase, exclude: Any = None, include: Any = None) -> None:
        # For learn(reset_num_timesteps=False) after load() to go on as if there had been no interruption
        self._rng_states = rng.get_rng_states(self.device)
        super().save(path, exclude, include)
        self._rng_states = None

    @classmethod
    def load(  # type: ignore[override]
        cls: type[SelfIQLearn],
        path: str | pathlib.Path | io.BufferedIOBase,
        env: GymEnv | None = None,
        device: th.device | str = "auto",
        custom_objects: dict[str, Any] | None = None,
        print_system_info: bool = False,
        force_reset: bool = True,
        expert_data: Any = None,
        **kwargs: Any,
    ) -> SelfIQLearn:
        """
        Load the model from a zip-file, see SB3's ``BaseAlgorithm.load`` for the other parameters.

        :param expert_data: the demonstrations to go on with. Without them the model predicts, and learns on if they came from
            a name or path (``bundled:CartPole-v1``) that can still be read
        :return: new model instance with loaded parameters
        """
        model = super().load(path, None, device, custom_objects, print_system_info, force_reset, **kwargs)
        if env is not None:
            model.set_env(env, force_reset)
            if model.env is not None and model.seed is not None:
                model.env.seed(model.seed)
        elif model.offline:
            model.set_env(environment.make_spaces_env(model.observation_space, model.action_space), force_reset)
        if isinstance(model.policy, SoftQPolicy) and model.ent_coef_optimizer is None:
            # A temperature given to load() prevails over the one in the saved policy
            model.policy.ent_coef.copy_(model.ent_coef_tensor)
        if expert_data is not None:
            model.set_expert_data(expert_data)
        return model

    def _excluded_save_params(self) -> list[str]:
        return [
            *super()._excluded_save_params(),
            *[
                "q_net",
                "q_net_target",
                "actor",
                "critic",
                "critic_target",
                "expert_buffer",
                "ent_coef_tensor",
                "inverse_dynamics",
                "prior",
            ],
        ]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        state_dicts = ["policy"]
        state_dicts += ["policy.optimizer"] if self.actor is None else ["actor.optimizer", "critic.optimizer"]
        if self.inverse_dynamics is not None:
            state_dicts += ["inverse_dynamics", "inverse_dynamics.optimizer"]
        if self.ent_coef_optimizer is None:
            return state_dicts, []
        return [*state_dicts, "ent_coef_optimizer"], ["log_ent_coef"]
