"""Baselines that know an image's colours and nothing else."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.core import PyTree, Weights
from ssl_jax.tasks.backbone import Backbone, encoder_only
from ssl_jax.tasks.task import Batches

BINS = 8  # of each channel
_LEAST = 1e-3  # standard deviation of a number over the training images, at least


def colour_histogram() -> Backbone:
  """The square roots of the fractions of an image's pixels in 8 x 8 x 8 bins of RGB, f32[B, 512].

  They have unit norm, and their cosine is the Bhattacharyya coefficient of two histograms.
  """
  protocol = {"backbone": "colour histogram", "bins": f"{BINS}x{BINS}x{BINS} of RGB", "scaled": "square root"}
  return Backbone(Weights({}, {}), _HISTOGRAM, protocol)


def colour_statistics(batches: Batches) -> Backbone:
  """The means and standard deviations of R, G and B over an image, f32[B, 6].

  Each of the six numbers is standardised by its mean and standard deviation over the images of `batches`,
  those of the training: otherwise all cosines would be nearly 1.

  Raises: ValueError if there are no valid images (checked with one process only).
  """
  from jax.experimental import multihost_utils

  total, squares, count = np.zeros(6), np.zeros(6), 0
  for batch in batches():
    images = batch["image"][batch["valid"]] if "valid" in batch else batch["image"]
    found = np.asarray(_statistics_of(jnp.asarray(images, jnp.float32) / 255), np.float64)
    total, squares, count = total + found.sum(0), squares + np.square(found).sum(0), count + len(found)
  if jax.process_count() > 1:
    own = np.asarray([*total, *squares, count], np.float32)
    whole = multihost_utils.process_allgather(own).sum(0, dtype=np.float64)
    total, squares, count = whole[:6], whole[6:12], whole[12]
  elif not count:
    raise ValueError("there are no images to compute statistics of colours from: the split is empty")
  mean = total / count
  spread = np.maximum(np.sqrt(np.maximum(squares / count - np.square(mean), 0)), _LEAST)
  state = {"mean": mean.astype(np.float32), "spread": spread.astype(np.float32)}
  protocol = {
    "backbone": "colour statistics",
    "numbers": "mean and standard deviation of R, G, B",
    "scaled": "standardised over the training set",
  }
  return Backbone(Weights({}, state), _STATISTICS, protocol)


def _histogram(params: PyTree, model_state: PyTree, images: jax.Array) -> jax.Array:
  levels = jnp.clip((images * BINS).astype(jnp.int32), 0, BINS - 1).reshape(len(images), -1, 3)
  places = (levels[..., 0] * BINS + levels[..., 1]) * BINS + levels[..., 2]
  counts = jax.vmap(lambda row: jnp.zeros(BINS**3, jnp.float32).at[row].add(1.0))(places)
  return jnp.sqrt(counts / places.shape[1])


def _standardised(params: PyTree, model_state: PyTree, images: jax.Array) -> jax.Array:
  return (_statistics_of(images) - model_state["mean"][None]) / model_state["spread"][None]


def _statistics_of(images: jax.Array) -> jax.Array:
  """f32[B, 6] of f32[B, H, W, 3]."""
  return jnp.concatenate([images.mean((1, 2)), images.std((1, 2))], 1)


_HISTOGRAM = encoder_only(_histogram)
_STATISTICS = encoder_only(_standardised)
