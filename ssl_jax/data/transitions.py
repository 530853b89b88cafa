"""The host transform of transitions, which `ssl-jax prepare trajectories` writes."""

from __future__ import annotations

import dataclasses

import numpy as np

from ssl_jax.data import decode
from ssl_jax.data.elements import Elements, Record, ShapeDtype
from ssl_jax.data.fit import Fit, Frame, make_fit


@dataclasses.dataclass(frozen=True)
class Transition:
  """See `transition`."""

  fitting: Fit
  frames: int
  actions: int
  random: bool = False

  @property
  def elements(self) -> Elements:
    """The frames of both observations, and the two actions."""
    action = ShapeDtype((self.actions,), np.float32)
    return {
      "clip": ShapeDtype((self.frames + 1, *self.fitting.canvas, 3), np.uint8),
      "action": action,
      "expert_action": action,
    }

  def __call__(self, rng: np.random.Generator | None, record: Record) -> dict[str, np.ndarray]:
    opened = [decode.open_image(frame) for frame in record["frames"]]
    if len(opened) != self.frames + 1:
      raise ValueError(
        f"a record has {len(opened)} frames, but config.host.frames is {self.frames}; use {len(opened) - 1}"
      )
    if record["action"].shape != (self.actions,):
      count = record["action"].size
      raise ValueError(
        f"an action of a record has {count} numbers, but config.host.actions is {self.actions}; use {count}"
      )
    place = self.fitting.place(*opened[0].size)
    return {
      "clip": np.stack([self.fitting.image(frame, place) for frame in opened]),
      "action": record["action"],
      "expert_action": record["expert_action"],
    }


def transition(frame: Frame, *, frames: int = 3, actions: int = 1) -> Transition:
  """Makes the transform for a transition: what was seen, what was done, what was seen then.

  Elements: "clip" uint8[frames + 1, size, size, 3], of which the first `frames` are the observation before
    the action and the last `frames` the one after it; "action" f32[actions] in [-1, 1], what was done;
    "expert_action" f32[actions] in [-1, 1], what the expert would have done.

  Args:
    frames: of an observation, 3 as published.
    actions: numbers of an action: 1 for cartpole, 6 for walker, 2 for ball in cup and finger.
  Raises: ValueError for values out of range. The transform raises ValueError for a record of another number
    of frames or actions.
  """
  for name, value in (("frames", frames), ("actions", actions)):
    if value < 1:
      raise ValueError(f"config.host.{name} is {value}; use a positive number, such as 3 frames and 1 action")
  return Transition(make_fit(frame, "crop", "transition", 0, 0), frames, actions)
