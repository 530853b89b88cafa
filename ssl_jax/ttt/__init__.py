"""Test-time training: a network goes on learning, without labels, on the very image that it must adapt.

adapt: the inner loop on one image. run: many images, each from the trained weights, or streams that carry them along.
"""

from ssl_jax.ttt.batched import Program, adapt, check_images, compile_adapt, initial_params, online, standard
from ssl_jax.ttt.inner_loop import Adapt, AdaptResult, AdaptState, make_adapt, merge_params, select_params

__all__ = [
  "Adapt",
  "AdaptResult",
  "AdaptState",
  "Program",
  "initial_params",
  "check_images",
  "compile_adapt",
  "adapt",
  "make_adapt",
  "online",
  "merge_params",
  "standard",
  "select_params",
]
