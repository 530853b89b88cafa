"""Test-time training: a network adapts, without labels, to the sample that it must predict.

inner_loop: the adaptation to one sample. window: a sample that is the latest frame of a video with those
before it. episode: the adaptation along what a policy does. objectives: what can be learned without a task of
the network's own. batched: the adaptation to many samples, each from the trained weights, or along streams in
which every sample starts from the parameters that the previous one left.
"""

from ssl_jax.ttt.batched import (
  Program,
  adapt,
  check_images,
  compile_adapt,
  images_at_once,
  initial_params,
  online,
  standard,
)
from ssl_jax.ttt.episode import Episode, make_episode
from ssl_jax.ttt.inner_loop import (
  ALWAYS,
  Adapt,
  AdaptResult,
  AdaptState,
  Draw,
  make_adapt,
  merge_params,
  select_params,
)
from ssl_jax.ttt.objectives import Objective, check_objective, with_objective

__all__ = [
  "ALWAYS",
  "Adapt",
  "AdaptResult",
  "AdaptState",
  "Draw",
  "Episode",
  "Objective",
  "Program",
  "adapt",
  "check_images",
  "check_objective",
  "compile_adapt",
  "images_at_once",
  "initial_params",
  "make_adapt",
  "make_episode",
  "merge_params",
  "online",
  "select_params",
  "standard",
  "with_objective",
]
