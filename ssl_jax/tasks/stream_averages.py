"""The predictions of streams that are averaged over copies of a frame and over time, as compiled programs."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax.core import Key, Weights
from ssl_jax.ttt import averages
from ssl_jax.ttt.batched import OnRows

# (trainable, logits [S, H, W, C], samples, positions i32[S], state) -> (what takes the logits' place, state);
# the state is that of the streams, f32[S, H, W, C], and None before the first frame
Average = Callable[[Any, jax.Array, dict[str, jax.Array], jax.Array, Any], tuple[jax.Array, Any]]


class Averages(NamedTuple):
  """What the predictions after learning are averaged over; see `ttt_video.make`."""

  vote: int = 0  # augmented copies of the frame
  smoothing: float = 0.0  # weight of the frames before

  def check(self, task: str) -> Averages:
    """Returns itself. Raises ValueError for values out of range."""
    if self.vote < 0:
      raise ValueError(f"config.tasks.{task}.vote is {self.vote}; use 0 for no vote, or a number of copies")
    if not 0 <= self.smoothing < 1:
      raise ValueError(
        f"config.tasks.{task}.smoothing is {self.smoothing}; use the weight of the frames before, in [0, 1)"
      )
    return self


def compile_averages(
  chosen: Averages, predict: Callable[..., jax.Array], weights: Weights, key: Key, mesh: Mesh
) -> Average | None:
  """Returns the averages as programs, compiled at the first frame; None if nothing is averaged.

  Args:
    predict: of the ability Adaptable.
    weights, key: replicated on the mesh.
  """
  if not (chosen.vote or chosen.smoothing):
    return None
  begin = OnRows(averages.first_ballots, (True,), mesh=mesh)
  add = functools.partial(averages.add_ballots, predict)
  add = OnRows(add, (False, True, False, True, True, False, True), mesh=mesh)
  normalise = OnRows(averages.shares if chosen.vote else jax.nn.softmax, (True,), mesh=mesh)
  smooth = OnRows(functools.partial(averages.smooth, chosen.smoothing), (True, True), mesh=mesh)

  def average(trainable, logits, samples, positions, state):
    if chosen.vote:
      frames = {name: samples[name] for name in ("image", "image_size")}
      logits = begin(logits)
      for number in range(chosen.vote):
        logits = add(weights, trainable, key, frames, positions, np.int32(number), logits)
    if chosen.smoothing:
      found = normalise(logits)
      logits = state = found if state is None else smooth(state, found)
    return logits, state

  return average
