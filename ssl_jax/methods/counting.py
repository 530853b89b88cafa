"""Learning to count: what is counted in a small copy of an image is counted in its four quarters together."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from ssl_jax.abilities import PretextExamples
from ssl_jax.augment import mix, resample
from ssl_jax.core import DataSpec, Method
from ssl_jax.methods.pretext import pretext_template, tile_grid
from ssl_jax.models import Network, heads, network

ABILITIES = pretext_template.ABILITIES
REDUCTIONS = ("nearest", "bilinear", "bicubic", "lanczos")
PIECES = ("whole, half size", "upper left", "upper right", "lower left", "lower right")


def make(
  encoder: Network, data: DataSpec, *, counts: int = 1000, margin: float = 10.0, grey: float = 0.67
) -> Method:
  """|c(x small) - sum of c(quarters of x)|^2 + max(0, margin - |c(y small) - sum of c(quarters of x)|^2), y
  another image.

  Counts c are non-negative: a linear layer and ReLU. All five pieces have one size and share network and
  BatchNorm.

  Args:
    encoder: the image network. data: `batch_size` must be even: y is x's neighbour in the batch, which lies
      on its device.
    counts: how many numbers are counted. margin: M, in squared counts summed over all of them.
    grey: probability that an image and its pieces are grey, so that colour statistics alone do not solve it.
  Metrics: `accuracy`: x's quarters add up to x rather than to y, 0.5 by chance; `count`: mean sum of counts
    of a small copy.
  Raises: ValueError for an odd batch or values out of range; when traced, for images of odd size.
  Source: Noroozi, Pirsiavash, Favaro 2017, eq. 4.
  """
  if data.batch_size % 2:
    raise ValueError(
      f"config.batch_size {data.batch_size} is odd, but method 'counting' pairs images; use an even one"
    )
  if margin <= 0 or counts < 1:
    raise ValueError(
      f"config.method: margin {margin} and counts {counts} must be positive; published are 10 and 1000"
    )

  def score(found: jax.Array, answers: jax.Array) -> pretext_template.Scores:
    return counting_scores(found[:, 0], found[:, 1:].sum(1), margin)

  return pretext_template.make_pretext_method(
    encoder, network(heads.Counts(counts)), lambda key, images: make_task(key, images, grey), score
  )


def make_task(key: jax.Array, images: jax.Array, grey: float) -> PretextExamples:
  """A copy of half the size and the four quarters of each image f32[B, S, S, 3]: pieces [B, 5, S / 2, S / 2,
  3].

  How an image is reduced is drawn from REDUCTIONS, so that no trace of it tells copies from quarters.
  """
  side = images.shape[1]
  if side % 2:
    raise ValueError(
      f"method 'counting' cuts images into quarters; config.augment.size {side} is odd, use an even one"
    )
  grey_key, reduce_key = jax.random.split(key)
  images = tile_grid.random_grey(grey_key, images, grey)
  bank = jnp.asarray(np.stack([resample.matrix(side, side // 2, method) for method in REDUCTIONS]))
  small = tile_grid.apply_both(
    bank[jax.random.randint(reduce_key, (len(images),), 0, len(REDUCTIONS))], images
  )
  rows = jnp.split(images, 2, axis=1)
  quarters = [quarter for row in rows for quarter in jnp.split(row, 2, axis=2)]
  return PretextExamples(
    jnp.stack([jnp.clip(small, 0, 1), *quarters], 1), jnp.zeros((len(images), 1), jnp.int32), PIECES
  )


def counting_scores(small: jax.Array, parts: jax.Array, margin: float) -> pretext_template.Scores:
  """Loss and metrics, f32[B]; `small`, `parts`: counts of the small copies and the summed ones of the
  quarters, f32[B, D].
  """
  distance = jnp.square(small - parts).sum(-1)
  other = jnp.square(mix.partner(small) - parts).sum(-1)
  return {
    "loss": distance + jnp.maximum(margin - other, 0),
    "accuracy": distance < other,
    "count": small.sum(-1),
  }
