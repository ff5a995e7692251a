"""
The policy that online training begins with and is held to, as far as it is good: a clone of the demonstrations, or what
training offline has made.

It plays the first episodes, in place of random actions. What these earn of the prior reward, beside the demonstrations, tells
how good it is, without the reward of the environment: a clone that falls or strays earns little. The policy is held to it in
states that are like the demonstrations', the more, the more it earned. A clone that fails holds nothing back, nor does any
where the policy's own episodes earn more than the demonstrations.
"""

import time

import numpy as np
import torch as th
from stable_baselines3.common.buffers import ReplayBuffer
from stable_baselines3.common.vec_env import VecNormalize
from stable_baselines3.sac.policies import Actor
from torch import nn

from sb3_iq.demonstrations import ExpertBuffer
from sb3_iq.iq_learn.batches import Batch
from sb3_iq.iq_learn.diagnostics import minimize
from sb3_iq.iq_learn.optimization import polyak_update, set_learning_rate, share_of_latest
from sb3_iq.iq_learn.presets import LinearDecay
from sb3_iq.iq_learn.replay import newest_rows, prior_rewards_at
from sb3_iq.iq_learn.sac_policy import SACPolicy
from sb3_iq.iq_learn.sampling import Sampler
from sb3_iq.observations import take_rows

CLONING_STEPS = 4_000
CLONING_BATCH = 256
CLONING_RATE = LinearDecay(1e-3)
# From one demonstration a clone learns every action by heart. Small weights, and their average over the last steps, make it
# fall less often (Ant-v5, Hopper-v5)
CLONING_DECAY = 1.0
CLONING_AVERAGE = 2e-3
# It is judged by so many episodes
EPISODES = 5
# One that earns less of the demonstrations' rewards than this is given up at once
ENOUGH = 0.4
# So is one that falls: where no demonstration ends in a terminal state, its episodes have less than this of their steps. What
# is held to it falls with it (Hopper-v5)
ALIVE = 0.9
# Nothing holds a policy whose episodes earn so much more than the demonstrations: there the prior tells it what to do. A
# policy between its own values and a reference's actions would do neither (Hopper-v5: it falls where each alone does not)
MORE = 0.1
# Steps of the environments between two looks at these episodes
EVERY = 1_000
# A clone plays before it is known whether the policy starts from it
UNSET, CLONE_PLAYS, PLAYS, JUDGED = range(4)


class ReferencePolicy(nn.Module):
    """
    A frozen copy of an actor, and what its episodes earn. Both are saved with a model.

    :param policy: the policy whose actor it is a copy of
    """

    stage: th.Tensor
    share: th.Tensor
    share_of_policy: th.Tensor
    looked_at: th.Tensor

    def __init__(self, policy: SACPolicy) -> None:
        super().__init__()
        # The parameters are overwritten: no random numbers of the run are drawn for them
        with th.random.fork_rng([policy.device] if policy.device.type == "cuda" else []):
            self.actor: Actor = policy.make_actor()
        self._copy(policy.actor)
        # Numbers for the host, which would have to wait for an accelerator
        self.register_buffer("stage", th.tensor(UNSET))
        self.register_buffer("share", th.tensor(0.0))
        self.register_buffer("share_of_policy", th.tensor(0.0))
        self.register_buffer("looked_at", th.tensor(0))
        self._n_episodes = -1

    def _copy(self, actor: Actor) -> None:
        self.actor.load_state_dict(actor.state_dict())
        self.actor.requires_grad_(False)
        self.actor.set_training_mode(False)

    @property
    def plays(self) -> bool:
        """Whether it is still to be judged, and acts in the policy's place."""
        return int(self.stage) in (CLONE_PLAYS, PLAYS)

    @property
    def is_set(self) -> bool:
        """Whether online training has begun with it."""
        return int(self.stage) != UNSET

    def forget(self) -> None:
        """The policy becomes another one, without the environment."""
        self.stage.fill_(UNSET)
        self.share.fill_(0.0)
        self.share_of_policy.fill_(0.0)

    def begin(
        self, policy: SACPolicy, n_updates: int, expert_buffer: ExpertBuffer, env: VecNormalize | None, seed: int, verbose: int
    ) -> None:
        """
        Take the policy as it is or, where nobody has trained it or set its actor, a clone.

        :param policy: the policy
        :param n_updates: the number of gradient steps so far
        :param expert_buffer: the demonstrations
        :param env: the ``VecNormalize`` whose statistics observations are normalised with, if there is one
        :param seed: seed of the batches
        :param verbose: from 1 on, it is said what takes time
        """
        made = zip(policy.actor.state_dict().values(), self.actor.state_dict().values(), strict=True)
        if n_updates == 0 and all(th.equal(now, before) for now, before in made):
            self._clone(policy, expert_buffer, env, seed, verbose)
            self.stage.fill_(CLONE_PLAYS)
        else:
            self._copy(policy.averaged_actor if n_updates > 0 else policy.actor)
            self.stage.fill_(PLAYS)
        self._n_episodes = -1

    def _clone(
        self, policy: SACPolicy, expert_buffer: ExpertBuffer, env: VecNormalize | None, seed: int, verbose: int
    ) -> None:
        """Learn the demonstrations' actions. It draws no random numbers of the run."""
        learned = [values for name, values in self.actor.named_parameters() if "log_std" not in name]
        for parameter in learned:
            parameter.requires_grad_(True)
        averaged = [parameter.detach().clone() for parameter in learned]
        optimizer = th.optim.AdamW(learned, weight_decay=CLONING_DECAY)
        rng, started = np.random.default_rng(seed), time.perf_counter()
        for step in range(CLONING_STEPS):
            set_learning_rate(optimizer, CLONING_RATE, 1 - step / CLONING_STEPS)
            expert = expert_buffer.sample(CLONING_BATCH, env, rng)
            loss = policy.squared_error(self.actor(expert.observations, deterministic=True), expert.actions)
            minimize(loss, {"cloning_loss": loss.detach()}, optimizer, step)
            polyak_update(learned, averaged, share_of_latest(CLONING_AVERAGE, step))
        self.actor.requires_grad_(False)
        polyak_update(averaged, learned, 1.0)
        if verbose >= 1:
            print(f"Cloned the demonstrations for a reference policy: {time.perf_counter() - started:.0f} s.", flush=True)

    def act(self, obs: np.ndarray | dict[str, np.ndarray]) -> np.ndarray:
        """
        :param obs: observations as policies take them, shape (n_envs, \\*obs_shape)
        :return: its deterministic actions, scaled to [-1, 1], shape (n_envs, \\*action_shape)
        """
        with th.no_grad():
            actions = self.actor(self.actor.obs_to_tensor(obs)[0], deterministic=True)
        return actions.cpu().numpy().reshape(-1, *self.actor.action_space.shape)  # type: ignore[misc]

    def judge(self, policy: SACPolicy, buffer: ReplayBuffer, sampler: Sampler, verbose: int) -> None:
        """
        Look at what it earned so far, whenever an episode has ended, until that is enough to go by. Where a clone does not
        fail at once, the policy starts from it.

        :param policy: the policy
        :param buffer: the replay buffer, in which nobody else has played
        :param sampler: for the prior, and the demonstrations' rewards by it
        :param verbose: from 1 on, the result is said
        """
        rows, length = newest_rows(buffer, buffer.size()), sampler.expert_buffer.mean_length
        n_episodes = int(buffer.dones[rows].sum())
        # Episodes can be longer than the demonstrations, or than the buffer
        played = len(rows) >= length and len(rows) * buffer.n_envs >= EPISODES * length
        enough = n_episodes >= EPISODES or played or buffer.full
        if n_episodes == self._n_episodes and not enough:
            return
        self._n_episodes = n_episodes
        share, alive = share_of_demonstrations(buffer, rows, sampler)
        falls = alive < ALIVE and not sampler.expert_buffer.terminates
        self.share.fill_(0.0 if falls else share)
        self.share_of_policy.fill_(share)
        if int(self.stage) == CLONE_PLAYS and self.is_good:
            for actor in (policy.actor, policy.averaged_actor):
                actor.load_state_dict(self.actor.state_dict())
            self.stage.fill_(PLAYS)
        if enough or not self.is_good:
            self.stage.fill_(JUDGED)
            if verbose >= 1:
                earned = f"{100 * share:.0f} % of the demonstrations' prior reward{' and falls' if falls else ''}"
                held = "begins with it and is held to it" if self.holds else "begins with it"
                print(f"The reference policy earned {earned}: {f'the policy {held}' if self.is_good else 'it is given up'}.")

    def follow(self, buffer: ReplayBuffer, sampler: Sampler, n_steps: int) -> None:
        """
        Look at what the policy's newest episodes earn, every so many steps.

        :param buffer: the replay buffer
        :param sampler: for the prior, and the demonstrations' rewards by it
        :param n_steps: the number of steps in the environments so far
        """
        if self.is_good and not 0 <= n_steps - int(self.looked_at) < EVERY:
            self.looked_at.fill_(n_steps)
            n_rows = round(EPISODES * sampler.expert_buffer.mean_length / buffer.n_envs)
            rows = newest_rows(buffer, max(1, n_rows))
            self.share_of_policy.fill_(share_of_demonstrations(buffer, rows, sampler)[0])

    @property
    def is_good(self) -> bool:
        """Whether it earned enough for the policy to begin with it."""
        return float(self.share) >= ENOUGH

    @property
    def weight(self) -> th.Tensor:
        """How much the policy is held to it, from 0 to 1."""
        return self.share.clamp(max=1.0).square() * ((1 + MORE - self.share_of_policy) / MORE).clamp(0.0, 1.0)

    @property
    def holds(self) -> bool:
        """Whether the policy is held to it."""
        return self.is_good and float(self.weight) > 0

    def loss(self, batch: Batch, mean_actions: th.Tensor, expert_level: th.Tensor) -> th.Tensor:
        """
        :param batch: transitions of the expert and the policy, with their prior rewards
        :param mean_actions: the actor's deterministic actions, shape (batch, action_dim)
        :param expert_level: the mean prior reward of the demonstrations, a scalar
        :return: the squared distance to the reference's actions in the policy's states, a scalar: times :attr:`weight`, and
            weighted by the square of what each transition earns of the demonstrations' rewards, at most 1
        """
        assert isinstance(batch.reward_prior, th.Tensor)
        with th.no_grad():
            actions = self.actor(take_rows(batch.obs, slice(batch.n_expert, None)), deterministic=True)
        alike = (batch.reward_prior[batch.n_expert :] / expert_level).clamp(0.0, 1.0)
        error = (mean_actions[batch.n_expert :] - actions).square().sum(dim=1)
        return self.weight.to(error.device) * (alike.square() * error).mean()


def share_of_demonstrations(buffer: ReplayBuffer, rows: np.ndarray, sampler: Sampler) -> tuple[float, float]:
    """
    :param buffer: a replay buffer
    :param rows: rows in it, in the order of time
    :param sampler: for the prior, and the demonstrations' rewards by it
    :return: what a step there earns of what a step of the demonstrations does, from 0 on, where the steps by which an episode
        that ended in a terminal state is shorter than the demonstrations earn nothing; and the share of steps that are not
        among these. Episodes that began earlier do not count, where others did not
    """
    assert sampler.prior is not None
    rewards = prior_rewards_at(buffer, rows, sampler.prior, sampler.env)
    length, earned, n_steps, n_missing = sampler.expert_buffer.mean_length, 0.0, 0, 0.0
    is_first = rows[0] == (buffer.pos if buffer.full else 0)
    for env in range(buffer.n_envs):
        ends = np.flatnonzero(buffer.dones[rows, env])
        begins = not buffer.full if is_first else buffer.dones[rows[0] - 1, env] > 0
        start = 0 if begins or len(ends) == 0 or ends[0] == len(rows) - 1 else ends[0] + 1
        ends = ends[ends >= start]
        lengths = np.diff(ends, prepend=start - 1)
        terminated = buffer.timeouts[rows[ends], env] == 0
        earned += float(rewards[start:, env].sum())
        n_steps += len(rows) - start
        n_missing += np.maximum(0.0, length - lengths[terminated]).sum()
    of_expert, alive = float(sampler.expert_level), n_steps / (n_steps + n_missing)
    return (max(alive * earned / n_steps / of_expert, 0.0) if of_expert > 0 else 0.0), alive
