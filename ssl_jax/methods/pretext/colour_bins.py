"""Colours as classes: the bins of the ab plane and their frequencies, the encoding of a colour into its
nearest bins, and the colour of a distribution over bins.

Source: Zhang, Isola, Efros 2016, section 2, and released code.
"""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STEP = 10  # spacing of the grid, in units of a and b
# For each a from -90 to 100: the smallest and the largest b of the released table, which has 313 bins.
_RANGES = (
  (50, 90),
  (20, 90),
  (0, 90),
  (-20, 90),
  (-30, 100),
  (-40, 100),
  (-50, 100),
  (-50, 100),
  (-60, 100),
  (-70, 100),
  (-80, 90),
  (-80, 90),
  (-90, 90),
  (-100, 90),
  (-100, 80),
  (-110, 80),
  (-110, 80),
  (-110, 70),
  (-110, 70),
  (-90, 0),
)
TABLE = np.array(
  [
    (a, b)
    for a, (low, high) in zip(range(-90, 101, STEP), _RANGES, strict=True)
    for b in range(low, high + 1, STEP)
  ],
  np.int32,
)
_LEAST = TABLE.min(0) // STEP
_CELLS = TABLE.max(0) // STEP - _LEAST + 1


class Bins(NamedTuple):
  """The colours that a network distinguishes."""

  centres: np.ndarray  # f32[Q, 2]: a and b
  prior: np.ndarray  # f32[Q]: fraction of the pixels in each bin, sums to 1
  # i32[cells, C]: the bins that can be among the nearest of a colour in each cell of the grid, padded with Q
  candidates: np.ndarray
  neighbours: int  # number of bins into which a colour is encoded


def make_bins(prior: tuple[float, ...] = (), *, neighbours: int = 5) -> Bins:
  """Returns the bins of TABLE that occur in the data.

  Args:
    prior: fraction of the pixels in each bin of TABLE, scaled to a sum of 1; bins with 0 are left out. ():
      all 313 bins, equally frequent.
    neighbours: number of bins into which a colour is encoded; 5 in the paper, 10 in the released network.
  Raises: ValueError for a prior that is not a distribution over the 313 bins, or for neighbours < 1.
  """
  fractions = np.asarray(prior or np.ones(len(TABLE)), np.float64)
  valid = fractions.shape == (len(TABLE),) and np.isfinite(fractions).all() and (fractions >= 0).all()
  if not valid or not fractions.sum() > 0:
    raise ValueError(
      f"config.method.prior must be {len(TABLE)} fractions of pixels, none negative and not all 0, but it has"
      f" {len(fractions)} numbers such as {fractions[:3].tolist()}; create it with"
      " `ssl-jax prepare colour_prior`"
    )
  if neighbours < 1:
    raise ValueError(
      f"config.method.neighbours is {neighbours}; use 5 (paper), 10 (released code) or another"
      " positive number"
    )
  centres = TABLE[fractions > 0].astype(np.float32)
  neighbours = min(neighbours, len(centres))
  kept = (fractions[fractions > 0] / fractions.sum()).astype(np.float32)
  return Bins(centres, kept, _candidates(centres, neighbours), neighbours)


def _candidates(centres: np.ndarray, neighbours: int) -> np.ndarray:
  """i32[cells, C]: for each cell, the bins that can be among the nearest ones of its colours, padded with Q.

  If the n-th nearest bin of the centre of a cell is at distance d, the n nearest bins of any colour in the
  cell lie within d + 10 sqrt 2 of that centre. The reason: the colour is at most 5 sqrt 2 away from the
  centre, so its own n-th nearest bin is at most d + 5 sqrt 2 away from the colour.
  """
  middles = (np.indices(_CELLS).reshape(2, -1).T + _LEAST) * STEP
  distance = np.linalg.norm(middles[:, None] - centres[None], axis=-1)
  reach = np.sort(distance, axis=1)[:, neighbours - 1 : neighbours] + STEP * np.sqrt(2) + 1e-3
  width = int((distance <= reach).sum(1).max())
  # the bins within reach first, in the order of the table
  order = np.argsort(distance > reach, axis=1, kind="stable")[:, :width]
  return np.where(np.take_along_axis(distance <= reach, order, 1), order, len(centres)).astype(np.int32)


def _cell(ab: jax.Array) -> jax.Array:
  """i32[...]: the cell of the grid that contains each colour f32[..., 2]."""
  place = jnp.clip(jnp.round(ab / STEP).astype(jnp.int32) - _like(ab, _LEAST), 0, _like(ab, _CELLS - 1))
  return place[..., 0] * int(_CELLS[1]) + place[..., 1]


def _like(ab: jax.Array, pair: np.ndarray) -> jax.Array:
  return jnp.asarray(pair, jnp.int32).reshape((1,) * (ab.ndim - 1) + (2,))


def encode_colours(ab: jax.Array, bins: Bins, *, sigma: float = 5.0) -> tuple[jax.Array, jax.Array]:
  """Returns (i32[..., K], f32[..., K]): the K nearest bins of each colour, nearest first, and their weights.

  The weights are exp(-d^2 / 2 sigma^2), normalised to a sum of 1 over the K bins. Of equally distant bins the
  one that is earlier in the table is used.

  Args:
    ab: f32[..., 2], the colours.
    sigma: deviation in ab.
  """
  found = jnp.asarray(bins.candidates)[_cell(ab)]  # [..., C]
  centres = jnp.asarray(np.concatenate([bins.centres, np.full((1, 2), 1e4, np.float32)]))
  square = jnp.square(centres[found] - ab[..., None, :]).sum(-1)
  least, which = jax.lax.top_k(-square, bins.neighbours)
  return jnp.take_along_axis(found, which, axis=-1), jax.nn.softmax(least / (2 * sigma**2), axis=-1)


def cross_entropy(logits: jax.Array, which: jax.Array, weight: jax.Array) -> jax.Array:
  """f32[...], in nats: -sum_k weight_k log softmax(logits)[which_k].

  Args:
    logits: f32[..., Q].
    which, weight: i32[..., K] and f32[..., K], as returned by `encode_colours`.
  """
  every = jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))
  # The sum over K is written out: one pass over the logits without gather and scatter, and without an array
  # of shape [..., K, Q].
  target = sum(
    jnp.where(which[..., k, None] == every, weight[..., k, None], 0.0) for k in range(which.shape[-1])
  )
  return jax.nn.logsumexp(logits, axis=-1) - (target * logits).sum(-1)


def class_weights(bins: Bins, *, uniform: float = 0.5, smoothing: float = 5.0) -> np.ndarray:
  """f32[Q]: 1 / ((1 - uniform) p + uniform / Q), scaled to an expectation of 1 under p, the smoothed prior.

  Args:
    uniform: lambda in the paper, in [0, 1]; with 1 every weight is 1.
    smoothing: deviation in ab of the Gaussian that smooths p; 0: p is not smoothed.
  """
  p = bins.prior.astype(np.float64)
  if smoothing:
    square = np.square(bins.centres[:, None] - bins.centres[None]).sum(-1)
    p = np.exp(-square / (2 * smoothing**2)) @ p
    p /= p.sum()
  weights = 1 / ((1 - uniform) * p + uniform / len(p))
  return (weights / (p @ weights)).astype(np.float32)


def annealed_mean(logits: jax.Array, bins: Bins, *, temperature: float = 0.38) -> jax.Array:
  """f32[..., 2]: the mean colour of softmax(logits / temperature).

  Temperature 1 gives the mean of the distribution, a temperature near 0 its mode.
  """
  return jnp.einsum(
    "...q,qc->...c",
    jax.nn.softmax(logits / temperature),
    jnp.asarray(bins.centres),
    precision=jax.lax.Precision.HIGHEST,
  )


def count_colours(ab: jax.Array) -> jax.Array:
  """i32[313]: for each bin of TABLE, the number of colours f32[..., 2] whose nearest bin it is.

  The nearest bin is found by rounding, because every bin that an sRGB colour rounds to is in the table.
  """
  at = np.full(int(_CELLS.prod()), len(TABLE), np.int32)
  cells = TABLE // STEP - _LEAST
  at[cells[:, 0] * _CELLS[1] + cells[:, 1]] = np.arange(len(TABLE))
  return jnp.bincount(jnp.asarray(at)[_cell(ab)].ravel(), length=len(TABLE) + 1)[: len(TABLE)]


def read_prior(path: str | pathlib.Path) -> tuple[float, ...]:
  """Reads the prior that `ssl-jax prepare colour_prior` wrote to `path`; "" gives (), the uniform prior.

  Raises: ValueError if the file does not exist or does not hold a colour prior.
  """
  if not path:
    return ()
  try:
    return tuple(map(float, json.loads(pathlib.Path(path).read_text())["colour_prior"]))
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path} holds no colour prior ({type(error).__name__}: {error}); create it with "
      f"ssl-jax prepare colour_prior --config=RECIPE --output={path}"
    ) from error
