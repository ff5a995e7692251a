"""An imitation algorithm that is told something before it learns: a prior of rewards, and a policy to begin with."""

from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.noise import ActionNoise
from stable_baselines3.common.save_util import load_from_zip_file

from sb3_iq.iq_learn import migration
from sb3_iq.iq_learn.imitation_algorithm import ImitationAlgorithm
from sb3_iq.iq_learn.policies import SACPolicy, SoftQPolicy
from sb3_iq.iq_learn.reference_policy import ENOUGH, EPISODES, ReferencePolicy, share_of_demonstrations
from sb3_iq.iq_learn.replay import newest_rows
from sb3_iq.iq_learn.reward_priors import OFFLINE_ENT_COEF, PriorInputs, RewardPrior, SolutionPrior, prior_class
from sb3_iq.iq_learn.sampling import Sampler
from sb3_iq.iq_learn.settings import Settings
from sb3_iq.observations import has_distance


class GuidedAlgorithm(ImitationAlgorithm):
    """
    What the demonstrations tell before anything is learned online: :mod:`.reward_priors` and :mod:`.reference_policy`.

    :param args: arguments of :class:`~sb3_iq.iq_learn.imitation_algorithm.ImitationAlgorithm`
    :param kwargs: more of them
    """

    policy: SoftQPolicy | SACPolicy
    settings: Settings
    ent_coef_optimizer: th.optim.Adam | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.sampler: Sampler | None = None
        self.reference: ReferencePolicy | None = None
        self._made_prior: tuple[PriorInputs | None, Any] = None, None
        # Whether the policy that the offline solution makes fails, None as long as that is not known
        self.solution_fails: bool | None = None

    @property
    def prior(self) -> RewardPrior | None:
        """The prior of rewards, None where there is none, and offline."""
        return None if self.sampler is None else self.sampler.prior

    def _make_prior(self) -> None:
        kind = prior_class(self.observation_space, self.action_space, self._reads_actions)
        if self.sampler is None or self.offline or self.settings.reward_prior == 0 or kind is None:
            return
        ent_coef = float(self.policy.ent_coef) if self.ent_coef_optimizer is None else OFFLINE_ENT_COEF
        sampler, seed = self.sampler, self.seed or 0
        numbers = self.settings.reward_prior, self.gamma, ent_coef, self.batch_size, seed, self.verbose
        inputs = PriorInputs(
            sampler.expert_buffer, sampler.env, self.policy, self._reads_actions, *numbers, policy_kwargs=self.policy_kwargs
        )
        # It is dear, and nothing but the statistics of VecNormalize changes it
        if sampler.env is not None or inputs != self._made_prior[0]:
            self._made_prior = inputs, kind(inputs)
        sampler.set_prior(self._made_prior[1])
        self._start_trained(self._made_prior[1].start, self.policy.critic_networks()[0])

    def _judge_solution(self) -> None:
        """
        Where the first episodes of a policy that began with the offline solution end long before any demonstration does, give
        the solution up: its reward would hold the policy to it. It is not judged where it is made anew with the statistics of
        VecNormalize.
        """
        sampler, buffer = self.sampler, self.replay_buffer
        if self.solution_fails is not None or self.offline or sampler is None or buffer is None:
            return
        if not isinstance(sampler.prior, SolutionPrior) or sampler.expert_buffer.terminates or sampler.statistics_change:
            return
        rows = newest_rows(buffer, buffer.size())
        if buffer.dones[rows].sum() < EPISODES and len(rows) * buffer.n_envs < EPISODES * sampler.expert_buffer.mean_length:
            return
        alive = share_of_demonstrations(buffer, rows, sampler)[1]
        self.solution_fails = bool(alive < ENOUGH)
        if self.solution_fails:
            if self.verbose >= 1:
                steps = f"{100 * alive:.0f} % of the demonstrations' steps"
                print(f"The policy's first episodes have {steps}: the reward of the offline solution is given up.")
            self._setup_imitation(sampler.expert_buffer)

    def _make_reference(self) -> None:
        if isinstance(self.policy, SACPolicy) and has_distance(self.observation_space):
            self.reference = ReferencePolicy(self.policy)

    def set_expert_data(self, expert_data: Any) -> None:
        before = self.expert_content_hash
        super().set_expert_data(expert_data)
        if before not in (None, self.expert_content_hash):
            self.solution_fails = None
            if self.reference is not None:
                self.reference.forget()

    def _begin_with_reference(self) -> None:
        """Where online training begins, and demonstrations are cloned, begin with the policy that there is, or a clone."""
        if self.reference is None:
            return
        if self.offline:
            self.reference.forget()  # nor does it play or hold in the gradient steps to come
            return
        assert isinstance(self.policy, SACPolicy)  # of these alone there is a reference
        begins = self.replay_buffer is not None and self.replay_buffer.size() == 0 and not self.reference.is_set
        if self.settings.clones and begins and self.sampler is not None and self.prior is not None:
            demonstrations = self.sampler.expert_buffer, self.sampler.env
            self.reference.begin(self.policy, self._n_updates, *demonstrations, seed=self.seed or 0, verbose=self.verbose)

    @property
    def _playing_reference(self) -> ReferencePolicy | None:
        """The reference policy while it is still to be judged by what it plays."""
        return self.reference if self.reference is not None and self.reference.plays else None

    def _judge_reference(self) -> ReferencePolicy | None:
        """Return the reference policy where it holds the policy, after a look at what both have played."""
        reference = self.reference
        if reference is None or self.offline or self.replay_buffer is None or self.sampler is None:
            return None
        assert isinstance(self.policy, SACPolicy)
        if reference.plays:
            reference.judge(self.policy, self.replay_buffer, self.sampler, self.verbose)
        elif self.prior is not None:
            reference.follow(self.replay_buffer, self.sampler, self.num_timesteps)
        return reference if reference.holds else None

    def _critic_warms_up(self, n_updates: int) -> bool:
        # While the reference plays, the critic learns what it is worth
        return self._playing_reference is not None or super()._critic_warms_up(n_updates)

    def _sample_action(
        self, learning_starts: int, action_noise: ActionNoise | None = None, n_envs: int = 1
    ) -> tuple[np.ndarray, np.ndarray]:
        reference = self._playing_reference
        if reference is not None:
            scaled_action = reference.act(self._last_obs)  # type: ignore[arg-type]
            if action_noise is not None:
                scaled_action = np.clip(scaled_action + action_noise(), -1, 1)
            return self.policy.unscale_action(scaled_action), scaled_action
        return super()._sample_action(learning_starts, action_noise, n_envs)

    def set_parameters(self, load_path_or_dict: Any, exact_match: bool = True, device: th.device | str = "auto") -> None:
        parameters = load_path_or_dict
        if not isinstance(parameters, dict):
            _, parameters, _ = load_from_zip_file(load_path_or_dict, device=device, load_data=False)
        super().set_parameters(migration.migrate_parameters(parameters, self.policy, self.reference), exact_match, device)

    def _excluded_save_params(self) -> list[str]:
        return [*super()._excluded_save_params(), "sampler", "reference", "_made_prior"]

    def _get_torch_save_params(self) -> tuple[list[str], list[str]]:
        return ["reference"] if self.reference is not None else [], []
