"""Learning to count: the counts in a small copy of an image equal the summed counts in its four quarters."""

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
  """Minimises |c(x small) - sum of c(quarters of x)|^2 + max(0, margin - |c(y small) - sum of c(quarters of
  x)|^2), where y is another image.

  The counts c are non-negative: the output of a linear layer and a ReLU. All five pieces have the same size
  and share the network and the BatchNorm statistics.

  Args:
    encoder: the image network.
    data: `batch_size` must be even, because y is the neighbour of x in the batch, on the same device.
    counts: number of outputs, each of which counts one kind of content.
    margin: M in the paper, in squared counts summed over all outputs.
    grey: probability that an image and its pieces are converted to grey, so that colour statistics alone
      cannot solve the task.
  Metrics: `accuracy`: the fraction of images whose summed quarters are closer to x than to y, 0.5 by chance;
    `count`: the mean of the summed counts of a small copy. In evaluation y is the neighbour of x in the
    split, so batches must be even; the last image of an odd split is compared with an empty image.
  Raises: ValueError for an odd batch or values out of range; when traced, for images of odd size.
  Source: Noroozi, Pirsiavash, Favaro 2017, eq. 4.
  """
  if data.batch_size // data.parts % 2:
    of_a_part = f" divided by config.accumulate {data.parts}" if data.parts > 1 else ""
    raise ValueError(
      f"config.batch_size {data.batch_size}{of_a_part} is odd, but method 'counting' pairs images; use an "
      "even number"
    )
  if margin <= 0 or counts < 1:
    raise ValueError(
      f"config.method: margin {margin} and counts {counts} must be positive; the paper uses 10 and 1000"
    )

  def score(found: jax.Array, answers: jax.Array) -> pretext_template.Scores:
    return counting_scores(found[:, 0], found[:, 1:].sum(1), margin)

  return pretext_template.make_pretext_method(
    encoder, network(heads.Counts(counts)), lambda key, images: make_task(key, images, grey), score
  )


def make_task(key: jax.Array, images: jax.Array, grey: float) -> PretextExamples:
  """Makes five pieces of each image f32[B, S, S, 3]: a copy of half the size and the four quarters,
  f32[B, 5, S / 2, S / 2, 3].

  The downsampling filter of each image is drawn from REDUCTIONS, so that no trace of one filter distinguishes
  copies from quarters.
  Raises: ValueError if S is odd.
  """
  side = images.shape[1]
  if side % 2:
    raise ValueError(
      f"method 'counting' cuts images into quarters; config.augment.size {side} is odd, use an even size"
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
  """Returns the loss and the metrics, each f32[B].

  Args:
    small: f32[B, D], the counts of the small copies.
    parts: f32[B, D], the counts of the quarters, summed over the four quarters.
    margin: see `make`.
  """
  distance = jnp.square(small - parts).sum(-1)
  other = jnp.square(mix.partner(small) - parts).sum(-1)
  return {
    "loss": distance + jnp.maximum(margin - other, 0),
    "accuracy": distance < other,
    "count": small.sum(-1),
  }
