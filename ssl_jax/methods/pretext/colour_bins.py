"""Colours as classes: bins of the ab plane, how often each occurs, a colour as a few bins and a distribution
as a colour.

Source: Zhang, Isola, Efros 2016, section 2, and released code.
"""

from __future__ import annotations

import json
import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

STEP = 10  # of the grid, in units of a and b
# For each a from -90 to 100 the least and the greatest b of the released table: 313 bins.
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
  """The colours that a network tells apart."""

  centres: np.ndarray  # f32[Q, 2]: a, b
  prior: np.ndarray  # f32[Q]: share of pixels, sums to 1
  candidates: (
    np.ndarray
  )  # i32[cells, C]: bins that can be among the nearest of a colour in a cell of the grid; Q: none
  neighbours: int  # into how many bins a colour is encoded


def bins(prior: tuple[float, ...] = (), *, neighbours: int = 5) -> Bins:
  """The bins of the table that occur.

  Args:
    prior: share of pixels of each bin of TABLE; bins of share 0 are left out. (): all 313, equally frequent.
    neighbours: 5 in the paper, 10 in the released network.
  Raises: ValueError for a prior that is none.
  """
  share = np.asarray(prior or np.ones(len(TABLE)), np.float64)
  if share.shape != (len(TABLE),) or not np.isfinite(share).all() or (share < 0).any() or not share.sum() > 0:
    raise ValueError(
      f"config.method.prior takes {len(TABLE)} shares of pixels, none negative, not {len(share)} numbers such as "
      f"{share[:3].tolist()}; make them with `ssl-jax prepare colour_prior`"
    )
  if neighbours < 1:
    raise ValueError(
      f"config.method.neighbours is {neighbours}; use 5 (paper), 10 (released code) or another positive number"
    )
  centres = TABLE[share > 0].astype(np.float32)
  neighbours = min(neighbours, len(centres))
  return Bins(
    centres, (share[share > 0] / share.sum()).astype(np.float32), _candidates(centres, neighbours), neighbours
  )


def _candidates(centres: np.ndarray, neighbours: int) -> np.ndarray:
  """i32[cells, C]: with a middle's n-th nearest bin at d, those of any colour in its cell lie within d + 10
  sqrt 2 of that middle:

  a colour is at most 5 sqrt 2 away from it, so its own n-th nearest is at most d + 5 sqrt 2 from the colour.
  """
  middles = (np.indices(_CELLS).reshape(2, -1).T + _LEAST) * STEP
  distance = np.linalg.norm(middles[:, None] - centres[None], axis=-1)
  reach = np.sort(distance, axis=1)[:, neighbours - 1 : neighbours] + STEP * np.sqrt(2) + 1e-3
  width = int((distance <= reach).sum(1).max())
  order = np.argsort(distance > reach, axis=1, kind="stable")[
    :, :width
  ]  # near ones first, in the order of the table
  return np.where(np.take_along_axis(distance <= reach, order, 1), order, len(centres)).astype(np.int32)


def _cell(ab: jax.Array) -> jax.Array:
  """i32[...]: the cell of the grid in which a colour f32[..., 2] lies."""
  place = jnp.clip(jnp.round(ab / STEP).astype(jnp.int32) - _like(ab, _LEAST), 0, _like(ab, _CELLS - 1))
  return place[..., 0] * int(_CELLS[1]) + place[..., 1]


def _like(ab: jax.Array, pair: np.ndarray) -> jax.Array:
  return jnp.asarray(pair, jnp.int32).reshape((1,) * (ab.ndim - 1) + (2,))


def encode(ab: jax.Array, bins: Bins, *, sigma: float = 5.0) -> tuple[jax.Array, jax.Array]:
  """(i32[..., K], f32[..., K]): the K nearest bins of colours f32[..., 2], nearest first, and weights that
  sum to 1.

  Weights are exp(-d^2 / 2 sigma^2), normalised over the K. Of bins equally far the earlier one in the table
  counts.
  """
  found = jnp.asarray(bins.candidates)[_cell(ab)]  # [..., C]
  centres = jnp.asarray(np.concatenate([bins.centres, np.full((1, 2), 1e4, np.float32)]))
  square = jnp.square(centres[found] - ab[..., None, :]).sum(-1)
  least, which = jax.lax.top_k(-square, bins.neighbours)
  return jnp.take_along_axis(found, which, axis=-1), jax.nn.softmax(least / (2 * sigma**2), axis=-1)


def cross_entropy(logits: jax.Array, which: jax.Array, weight: jax.Array) -> jax.Array:
  """f32[...] nats: -sum_k weight_k log softmax(logits)[which_k]; logits f32[..., Q], the others as `encode`
  gives them.
  """
  every = jnp.arange(logits.shape[-1]).reshape((1,) * (logits.ndim - 1) + (-1,))
  # Written out over K: one pass over the logits that gathers and scatters nothing, and never holds [..., K,
  # Q].
  target = sum(
    jnp.where(which[..., k, None] == every, weight[..., k, None], 0.0) for k in range(which.shape[-1])
  )
  return jax.nn.logsumexp(logits, axis=-1) - (target * logits).sum(-1)


def class_weights(bins: Bins, *, uniform: float = 0.5, smoothing: float = 5.0) -> np.ndarray:
  """f32[Q]: 1 / ((1 - uniform) p + uniform / Q), scaled to an expectation of 1 under p, the smoothed prior.

  Args:
    uniform: lambda, in [0, 1]; at 1 every weight is 1. smoothing: deviation in ab of the Gaussian that
      smooths p; 0: none.
  """
  p = bins.prior.astype(np.float64)
  if smoothing:
    square = np.square(bins.centres[:, None] - bins.centres[None]).sum(-1)
    p = np.exp(-square / (2 * smoothing**2)) @ p
    p /= p.sum()
  weights = 1 / ((1 - uniform) * p + uniform / len(p))
  return (weights / (p @ weights)).astype(np.float32)


def annealed_mean(logits: jax.Array, bins: Bins, *, temperature: float = 0.38) -> jax.Array:
  """f32[..., 2]: the mean colour of softmax(logits / temperature); 1 is the mean, near 0 the mode."""
  return jnp.einsum(
    "...q,qc->...c",
    jax.nn.softmax(logits / temperature),
    jnp.asarray(bins.centres),
    precision=jax.lax.Precision.HIGHEST,
  )


def count(ab: jax.Array) -> jax.Array:
  """i32[313]: how many of the colours f32[..., 2] have each bin of TABLE as their nearest.

  Rounding finds it: every bin that a colour of sRGB rounds to is in the table.
  """
  at = np.full(int(_CELLS.prod()), len(TABLE), np.int32)
  cells = TABLE // STEP - _LEAST
  at[cells[:, 0] * _CELLS[1] + cells[:, 1]] = np.arange(len(TABLE))
  return jnp.bincount(jnp.asarray(at)[_cell(ab)].ravel(), length=len(TABLE) + 1)[: len(TABLE)]


def read_prior(path: str | pathlib.Path) -> tuple[float, ...]:
  """The shares that `ssl-jax prepare colour_prior` wrote into `path`; (), equal shares, for "".

  Raises: ValueError if there is no such file, or it holds something else.
  """
  if not path:
    return ()
  try:
    return tuple(map(float, json.loads(pathlib.Path(path).read_text())["colour_prior"]))
  except (OSError, KeyError, TypeError, ValueError) as error:
    raise ValueError(
      f"{path} holds no colour prior ({type(error).__name__}: {error}); make one: "
      f"ssl-jax prepare colour_prior --config=RECIPE --output={path}"
    ) from error
