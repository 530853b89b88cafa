"""Plays episodes with a policy that learns on the way, several side by side."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from ssl_jax import ttt
from ssl_jax.control.frame_stack import FrameStack
from ssl_jax.control.workers import Environments
from ssl_jax.parallel import placement
from ssl_jax.ttt.batched import OnRows

FROZEN, ADAPTED, SHUFFLED = "frozen", "adapted", "shuffled"
ARMS = (FROZEN, ADAPTED, SHUFFLED)
FIRST_SEED = 1_000_000_000  # no recorded trajectory begins with a seed from here on
EPISODES = 10_000  # seeds of one seed of an evaluation
FILMED = 2  # every second frame of the first episode of a world is kept


class Cell(NamedTuple):
  """One episode of an evaluation."""

  world: str
  arm: str
  number: int


class Played(NamedTuple):
  """What happened in an episode of T actions."""

  reward: float
  actions: np.ndarray  # f32[T, A]
  trained: np.ndarray  # f32[T, A]: what the trained network would have done, in the same states
  expert: np.ndarray  # f32[T, A], NaN without an expert
  losses: np.ndarray  # f32[T - 1]: of the task; () if nothing was learned
  diverged: bool
  seconds: float  # of learning and acting, without the environment
  film: np.ndarray  # uint8[n, S, S, 3]: some frames, of the first episode; otherwise n is 0


class Programs(NamedTuple):
  """The compiled functions of `ttt.Episode` for `size` episodes at once, and their first arguments."""

  begin: Callable[..., Any]
  respond: Callable[..., Any]
  act: Callable[..., Any]
  given: tuple[Any, Any, Any]  # (weights, trainable, key) on the devices
  size: int
  actions: int  # numbers of an action
  mesh: Mesh

  @classmethod
  def compiled(
    cls, episode: ttt.Episode, given: tuple[Any, Any, Any], mesh: Mesh, together: int, actions: int
  ) -> Programs:
    """Compiles for `together` episodes on each device, each with its own weights."""
    begin = OnRows(episode.begin, (False, False, False, True, True), mesh=mesh)
    respond = OnRows(episode.respond, (False, True, True, True), mesh=mesh)
    act = OnRows(episode.act, (False, True), mesh=mesh)
    return cls(begin, respond, act, given, together * mesh.size, actions, mesh)

  def memory(self) -> int:
    """Bytes on one device."""
    return max(part.memory() for part in (self.begin, self.respond, self.act))


def start_of(seed: int, number: int) -> int:
  """The seed of the first state and the looks of an episode, the same for all arms and worlds."""
  return FIRST_SEED + (seed % 100_000) * EPISODES + number


def play(
  programs: Programs, environments: Environments, cells: Sequence[Cell], seed: int, frames: int
) -> list[Played]:
  """Plays episodes of one world and arm.

  Args:
    cells: at most as many as the programs take; if fewer, the last one is played several times.
    frames: that the policy sees.
  """
  learner = _Learner(programs, cells, seed)
  moments = environments.reset([start_of(seed, cell.number) for cell in cells], [c.world for c in cells])
  stacks = [FrameStack(moment.frame, frames) for moment in moments]
  logs = [_Log(cell) for cell in cells]
  while not all(moment.last for moment in moments):
    actions, trained = learner.next(np.stack([stack.clip for stack in stacks]))
    for log, moment, *row in zip(logs, moments, actions, trained):
      log.add(moment, *row)
    after = environments.step(actions)
    moments = [old if old.last else new for old, new in zip(moments, after)]
    for stack, log, moment in zip(stacks, logs, moments):
      stack.add(moment.frame)
      log.reward(moment)
  return [log.played(*learner.told(i)) for i, log in enumerate(logs)]


class _Learner:
  """Acts, and learns before every action but the first."""

  def __init__(self, programs: Programs, cells: Sequence[Cell], seed: int):
    self._programs, self._arm = programs, cells[0].arm
    filled = [*cells, *[cells[-1]] * (programs.size - len(cells))]
    self._count, self._numbers = len(cells), np.array([cell.number for cell in filled], np.int32)
    self._rngs = [np.random.default_rng([start_of(seed, cell.number), 1]) for cell in filled]
    self._state: Any = None
    self._done: list[np.ndarray] = []  # actions f32[size, A] so far
    self._losses: list[np.ndarray] = []
    self._diverged = np.zeros(programs.size, bool)
    self._seconds = 0.0

  def next(self, clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(The actions f32[n, A] for clips [n, frames + 1, S, S, 3], those of the trained network)."""
    programs, moment = self._programs, len(self._done)
    sample = {"clip": self._fill(clips), "action": self._past(moment)}
    begun = time.perf_counter()
    place = lambda leaf: placement.spread(leaf, programs.mesh)
    weights, trainable, key = programs.given
    placed = {name: place(leaf) for name, leaf in sample.items()}
    if self._arm == FROZEN:
      actions = trained = placement.fetch(programs.act(weights, {"clip": placed["clip"]}))
    else:
      if self._state is None:
        self._state, found = programs.begin(weights, trainable, key, placed, place(self._numbers))
      else:
        number = place(np.full(programs.size, moment - 1, np.int32))
        self._state, found = programs.respond(weights, self._state, placed, number)
        self._losses.append(placement.fetch(found.loss))
        self._diverged |= placement.fetch(found.diverged)
      actions, trained = placement.fetch(found.action), placement.fetch(found.trained)
    if moment > 1:  # the first two compile
      self._seconds += time.perf_counter() - begun
    self._done.append(actions)
    return actions[: self._count], trained[: self._count]

  def told(self, place: int) -> tuple[np.ndarray, bool, float]:
    """(The losses f32[T - 1], whether it diverged, seconds of an action) of an episode."""
    losses = np.array([row[place] for row in self._losses], np.float32)
    seconds = self._seconds / max(len(self._done) - 2, 1)
    return losses, bool(self._diverged[place]), seconds / self._count

  def _past(self, moment: int) -> np.ndarray:
    """f32[size, A]: the latest actions; if they are shuffled, any of those so far; zeros at the beginning."""
    if not moment:
      return np.zeros((self._programs.size, self._programs.actions), np.float32)
    if self._arm != SHUFFLED:
      return self._done[-1]
    chosen = [rng.integers(moment) for rng in self._rngs]
    return np.stack([self._done[number][row] for row, number in enumerate(chosen)])

  def _fill(self, rows: np.ndarray) -> np.ndarray:
    return np.concatenate([rows, np.repeat(rows[-1:], self._programs.size - len(rows), 0)])


class _Log:
  """What happens in one episode."""

  def __init__(self, cell: Cell):
    self._filmed, self._over, self._total = cell.number == 0, False, 0.0
    self._rows: list[tuple[np.ndarray, ...]] = []
    self._film: list[np.ndarray] = []

  def add(self, moment, action: np.ndarray, trained: np.ndarray) -> None:
    """Notes what is done at a moment."""
    self._over = moment.last
    if self._over:
      return
    if self._filmed and len(self._rows) % FILMED == 0:
      self._film.append(moment.frame)
    self._rows.append((action, trained, moment.expert))

  def reward(self, moment) -> None:
    """Adds the reward of the action, unless the episode was over."""
    self._total += 0.0 if self._over else moment.reward

  def played(self, losses: np.ndarray, diverged: bool, seconds: float) -> Played:
    """The whole episode."""
    actions, trained, expert = (np.stack(values) for values in zip(*self._rows))
    shape = (0, 1, 1, 3)
    film = np.stack(self._film) if self._film else np.zeros(shape, np.uint8)
    return Played(self._total, actions, trained, expert, losses, diverged, seconds, film)
