"""Test-time training: a network goes on learning, without labels, on the very image that it must judge.

adapt: the inner loop on one image. run: many images, each from the trained weights, or streams that carry them along.
"""

from ssl_jax.ttt.batched import Program, beginning, check_images, compile_adapt, judge, online, standard
from ssl_jax.ttt.inner_loop import Adapt, Answer, Lesson, make_adapt, put, take

__all__ = [
  "Adapt",
  "Answer",
  "Lesson",
  "Program",
  "beginning",
  "check_images",
  "compile_adapt",
  "judge",
  "make_adapt",
  "online",
  "put",
  "standard",
  "take",
]
