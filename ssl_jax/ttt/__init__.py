"""Test-time training: a network goes on learning, without labels, on the very sample that it must predict.

inner_loop: adaptation to one sample. batched: many samples, each from the trained weights, or streams that
  carry the parameters along.
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
from ssl_jax.ttt.inner_loop import (
  ALWAYS,
  Adapt,
  AdaptResult,
  AdaptState,
  make_adapt,
  merge_params,
  select_params,
)

__all__ = [
  "ALWAYS",
  "Adapt",
  "AdaptResult",
  "AdaptState",
  "Program",
  "adapt",
  "check_images",
  "compile_adapt",
  "images_at_once",
  "initial_params",
  "make_adapt",
  "merge_params",
  "online",
  "select_params",
  "standard",
]
