"""One environment: an action in [-1, 1] in, a picture, the reward and the expert's action out."""

from __future__ import annotations

import copy
from typing import Any, NamedTuple

import numpy as np

from ssl_jax.config.checked import nearest
from ssl_jax.config.named_functions import import_function
from ssl_jax.control import experts, worlds
from ssl_jax.control.camera import Camera
from ssl_jax.control.simulator import Simulator, load_simulator

LENGTH = 1000  # control steps of an episode of DeepMind Control, each with a reward in [0, 1]
# control steps for which an action is held [Hansen et al. 2021]
REPEATS = {
  "cartpole/swingup": 8,
  "walker/walk": 4,
  "walker/stand": 4,
  "ball_in_cup/catch": 4,
  "finger/spin": 2,
}


class Setup(NamedTuple):
  """What an environment is; see `run.prepare.record_trajectories`."""

  environment: str = "cartpole/swingup"
  size: int = 100
  repeat: int = 0
  expert: str = ""
  videos: str = ""  # folder of clips for the world "video"
  camera: int = 0

  @property
  def held(self) -> int:
    """The control steps for which an action is held."""
    return self.repeat or REPEATS.get(self.environment, 4)

  @property
  def steps(self) -> int:
    """The greatest number of actions in an episode."""
    return -(-LENGTH // self.held)

  def check(self) -> Setup:
    """Returns itself. Raises ValueError for values out of range."""
    if self.size < 1 or self.repeat < 0 or self.camera < 0:
      raise ValueError(
        f"an environment has size={self.size}, repeat={self.repeat} and camera={self.camera}; use a positive "
        "size, and 0 or more for the others"
      )
    if self.environment.count("/") + self.environment.count(":") != 1:
      raise ValueError(
        f"environment={self.environment!r}; use DOMAIN/TASK of DeepMind Control, such as one of "
        f"{', '.join(REPEATS)}, or MODULE:FUNCTION"
      )
    return self


class Moment(NamedTuple):
  """What an environment tells at a moment."""

  frame: np.ndarray  # uint8[size, size, 3]
  reward: float  # the sum since the moment before
  expert: np.ndarray  # f32[A] in [-1, 1]: what the expert would do now; NaN without an expert
  last: bool  # the episode is over
  state: np.ndarray  # f64[n]: positions and velocities


class Environment:
  """An environment of `dm_control` or like it, seen by a camera. `close` frees what it holds."""

  def __init__(self, setup: Setup):
    """
    Raises: ImportError if the simulator is not installed or cannot render; ValueError for an environment that
      does not exist.
    """
    setup.check()
    simulator = load_simulator()
    self.setup, self._inner = setup, _load(simulator, setup.environment)
    spec = self._inner.action_spec()
    self._low, self._high = (np.broadcast_to(end, spec.shape) for end in (spec.minimum, spec.maximum))
    self.actions = int(spec.shape[0])
    make_expert = experts.find_expert(setup.expert, setup.environment)
    self._expert = make_expert(self._inner, setup.held) if make_expert else None
    self._inner.task.random.seed(0)
    self._inner.reset()
    model = copy.deepcopy(self._inner.physics.model.ptr)
    self._camera = Camera(simulator, model, setup.size, setup.camera)
    self._looks = worlds.Looks(self._camera, worlds.find_clips(setup.videos))
    self._moment = 0

  def reset(self, seed: int, world: str = "train") -> Moment:
    """Begins an episode. The seed determines the first state and, with the world, the looks."""
    self._looks.change(world, seed)
    self._inner.task.random.seed(seed)
    self._moment = 0
    self._inner.reset()
    return self._tell(0.0, False)

  def step(self, action: np.ndarray) -> Moment:
    """Holds an action f[A] in [-1, 1], clipped, for some control steps."""
    share = (np.clip(np.asarray(action, np.float64), -1, 1) + 1) / 2
    action, reward = self._low + share * (self._high - self._low), 0.0
    self._moment += 1
    for _ in range(self.setup.held):
      step = self._inner.step(action)
      reward += float(step.reward or 0)
      if step.last():
        break
    return self._tell(reward, step.last() or self._moment >= self.setup.steps)

  def close(self) -> None:
    """Frees the renderer."""
    self._camera.close()
    self._inner.close()

  def _tell(self, reward: float, last: bool) -> Moment:
    physics = self._inner.physics
    expert = np.full(self.actions, np.nan, np.float32)
    if self._expert is not None:
      share = (np.asarray(self._expert(physics)) - self._low) / (self._high - self._low)
      expert = (2 * share - 1).clip(-1, 1).astype(np.float32)
    frame = self._looks.show(physics.data.ptr, self._moment)
    return Moment(frame, reward, expert, bool(last), np.array(physics.get_state()))


def _load(simulator: Simulator, name: str) -> Any:
  """Loads DOMAIN/TASK of DeepMind Control, or calls MODULE:FUNCTION for an environment like them."""
  if ":" in name:
    return import_function(name, "environment")()
  domain, _, task = name.partition("/")
  known = ["/".join(pair) for pair in simulator.suite.ALL_TASKS]
  if name not in known:
    raise ValueError(f"environment={name!r}: DeepMind Control has none of this name{nearest(name, known)}")
  return simulator.suite.load(domain, task, task_kwargs={"random": 0})
