"""A window on an environment that a person plays, on the machinery of ``gymnasium.utils.play``."""

import copy
import sys
from typing import Any

import gymnasium as gym
import numpy as np
import pygame
from gymnasium.utils.play import PlayableGame, display_arr

from sb3_iq.demonstrations import Trajectory
from sb3_iq.demonstrations.recorder import play
from sb3_iq.key_maps import KeyMap

_DEFAULT_FPS = 30


class Dropped(Exception):
    """The running episode is not wanted."""


class Ended(Exception):
    """The player has had enough."""


class Game(PlayableGame):
    """
    :param env: the environment, with the render mode ``rgb_array``
    :param keys: which key is which action
    :param fps: steps a second; None: as many as the environment says
    :param zoom: enlarge the picture by this factor
    :raises pygame.error: if there is no display
    :raises ValueError: if there is no key of this name
    """

    def __init__(self, env: gym.Env, keys: KeyMap, fps: int | None = None, zoom: float = 1.0) -> None:
        pygame.display.init()
        env.reset()
        self.keys = keys
        self.fps = fps or int(env.metadata.get("render_fps") or _DEFAULT_FPS)
        codes = {_key_code(name): name for combination in keys.actions for name in combination.split("+")}
        super().__init__(env, dict.fromkeys([(code,) for code in codes], 0), zoom)
        self.names = codes
        self.down: list[str] = []
        self.tapped: list[str] = []  # since the last step, and perhaps up again
        self.decision: int | None = None
        self.clock = pygame.time.Clock()

    def process_event(self, event: Any) -> None:
        if event.type == pygame.KEYDOWN and event.key in self.names:
            name = self.names[event.key]
            self.down = [*(other for other in self.down if other != name), name]
            self.tapped.append(name)
        elif event.type == pygame.KEYUP and event.key in self.names:
            self.down = [other for other in self.down if other != self.names[event.key]]
        elif event.type == pygame.WINDOWFOCUSLOST:
            self.down = []
        elif event.type == pygame.KEYDOWN and event.key in (pygame.K_RETURN, pygame.K_KP_ENTER, pygame.K_BACKSPACE):
            self.decision = pygame.K_BACKSPACE if event.key == pygame.K_BACKSPACE else pygame.K_RETURN
        else:
            super().process_event(event)

    def tick(self, caption: str) -> None:
        """
        Draw, wait for the next frame, and take what the player has pressed.

        :param caption: the title of the window
        :raises Ended: if the player has closed it
        """
        rendered = self.env.render()
        picture = np.asarray(rendered[-1] if isinstance(rendered, list) else rendered)
        display_arr(self.screen, picture, video_size=self.video_size, transpose=True)
        pygame.display.set_caption(caption)
        pygame.display.flip()
        self.clock.tick(self.fps)
        for event in pygame.event.get():
            self.process_event(event)
        if not self.running:
            raise Ended

    def action(self, caption: str) -> Any:
        """
        :param caption: the title of the window
        :return: the action of the keys that are down
        :raises Dropped: if the player drops the episode
        """
        while True:
            self.tick(caption)
            if self.decision == pygame.K_BACKSPACE:
                raise Dropped
            self.decision = None  # Return means nothing before the end
            down = [*self.down, *(name for name in self.tapped if name not in self.down)]
            self.tapped = []
            action = self.keys.action(down)
            if action is not None:
                return copy.deepcopy(action)

    def wait_for_key(self, caption: str) -> None:
        """Wait for the first key of an episode, which also counts for its first action."""
        self.down, self.tapped, self.decision = [], [], None
        while not self.tapped:
            self.tick(caption)

    def keeps(self, caption: str) -> bool:
        """
        :param caption: the title of the window
        :return: whether the player keeps the episode
        """
        self.decision = None
        while self.decision is None:
            self.tick(caption)
        return self.decision == pygame.K_RETURN

    def close(self) -> None:
        """Close the window and the environment."""
        self.env.close()
        pygame.quit()


def _key_code(name: str) -> int:
    try:
        return pygame.key.key_code(name)
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def play_episodes(game: Game, seed: int, n_episodes: int | None) -> tuple[dict[int, Trajectory], int]:
    """
    :param game: the window
    :param seed: episode k is reset with ``seed + k``
    :param n_episodes: end when so many are kept; None: at Escape
    :return: the episodes that were kept, by their seeds, and the number of those that were started
    """
    kept: dict[int, Trajectory] = {}
    n_attempts = 0
    try:
        while n_episodes is None or len(kept) < n_episodes:
            name = f"Episode {n_attempts + 1}, {len(kept)} kept"
            n_attempts += 1
            try:
                episode = _play(game, seed + n_attempts - 1, name)
            except Dropped:
                print(f"{name}: dropped", file=sys.stderr)
                continue
            told = f"{len(episode)} steps, return {0.0 if episode.rews is None else episode.rews.sum():.1f}"
            keeps = game.keeps(f"{name}: {told}. Return keeps it, Backspace drops it")
            if keeps:
                kept[seed + n_attempts - 1] = episode
            print(f"{name}: {told}, {'kept' if keeps else 'dropped'}", file=sys.stderr)
    except Ended:
        print(f"{len(kept)} episodes kept", file=sys.stderr)
    return kept, n_attempts


def _play(game: Game, seed: int, name: str) -> Trajectory:
    started = False

    def predict(obs: Any) -> Any:
        nonlocal started
        if not started:
            game.wait_for_key(f"{name}: a key starts it")
            started = True
        return game.action(name)

    return play(predict, game.env, seed)
