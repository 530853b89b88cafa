"""Sliding windows over a video: which of the latest frames each step of test-time training learns from.

A sample holds the frame that is to be predicted, "image" and "image_size"; the distinct frames that its steps
learn from, "frames" uint8[U, H, W, 3] and "frames_size" i32[U, 2]; and "rows" i32[steps, copies], which of
these each row of a step's batch is. The frames are chosen on the host, so that the memory on the device does
not grow with the window.

Source: Wang et al. 2023, section 4 and released code (detectron2's TrainingSampler).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ssl_jax.core import Batch
from ssl_jax.ttt.inner_loop import Sample


class Drawn(NamedTuple):
  """Which frames the steps of the adaptation to one frame learn from."""

  frames: np.ndarray  # i64[U]: distinct numbers of frames, ascending
  rows: np.ndarray  # i32[steps, copies]: positions in `frames`


def window_of(number: int, size: int) -> range:
  """The frames of the window that ends with frame `number`: the latest `size`, or all so far if it is 0."""
  return range(max(number + 1 - size, 0) if size else 0, number + 1)


def draw_frames(rng: np.random.Generator, window: range, *, steps: int, copies: int) -> Drawn:
  """Draws the rows of all steps as concatenated permutations of the window, one after another.

  With 16 frames and 32 copies, each frame occurs exactly twice in a step. The last frame of the window is in
  the first permutation of a step only by chance if the window has more frames than a step has copies.

  Returns: at most steps * copies distinct frames.
  """
  count, needed = len(window), steps * copies
  permutations = [rng.permutation(count) for _ in range(-(-needed // count))]
  order = np.concatenate(permutations)[:needed] if needed else np.zeros(0, np.int64)
  used, places = np.unique(order, return_inverse=True)
  return Drawn(np.asarray(window)[used], places.astype(np.int32).reshape(steps, copies))


def draw_rows(sample: Sample, step, copies: int) -> Batch:
  """The batch of a step: rows of the sample's frames."""
  rows = sample["rows"][step]
  return {"image": sample["frames"][rows], "image_size": sample["frames_size"][rows]}


def bound(size: float, *, noise: float, drift: float, smoothness: float = 1.0) -> float:
  """The bound of the excess error of learning on the latest `size` frames, times twice the convexity.

  Args:
    noise: standard deviation of the difference between the gradients of the two tasks.
    drift: largest distance of neighbouring frames.
    smoothness: of the main loss in the frame.
  Source: Wang et al. 2023, section 6: size^2 smoothness^2 drift^2 + noise^2 / size.
  """
  return (size * smoothness * drift) ** 2 + noise**2 / size


def best_size(noise: float, drift: float, *, smoothness: float = 1.0) -> float:
  """The window with the least `bound`: (noise^2 / (2 smoothness^2 drift^2))^(1/3).

  The paper leaves out the 2, which the derivative of its bound has.
  """
  return (noise**2 / (2 * smoothness**2 * drift**2)) ** (1 / 3)
