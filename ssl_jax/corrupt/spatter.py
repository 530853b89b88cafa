"""Drops of water or mud on an image f32[H, W, 3] in [0, 1]."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from ssl_jax.corrupt.linear import pick, smooth
from ssl_jax.corrupt.tables import PARAMETERS

WATER, MUD = (175 / 255, 238 / 255, 238 / 255), (63 / 255, 42 / 255, 20 / 255)
FAR = 20  # pixels; distances to an edge are clipped to this value
WEAK, STRONG = 50, 150  # Canny's two thresholds on the gradient, in grey levels
GROWTH = 16  # pixels over which a strong edge is followed along weak ones
_SHINE = np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]], np.float32)


def spatter(key, image, severity, *, table):
  """Adds drops of water (severities 1 to 3) or mud (4 and 5). Random: a statistical twin.

  Edges of drops are followed over at most 16 pixels and distances to them are Euclidean, where OpenCV follows
  edges to their end and uses a chamfer distance.
  """
  rows = PARAMETERS["spatter"][table]
  mean, deviation, _, threshold, amount, muddy = pick(rows, severity)
  noise = mean + deviation * jax.random.normal(key, (*image.shape[:2], 1))
  liquid = smooth(noise, [row[2] for row in rows], severity)
  drops = jnp.where(liquid < threshold, 0.0, liquid)[..., 0]
  mask = smooth(jnp.where(drops[..., None] > threshold, 1.0, 0.0), [row[4] for row in rows], severity)
  mask = jnp.where(mask < 0.8, 0.0, mask)
  mud = image * (1 - mask) + mask * jnp.array(MUD)[None, None]
  glow = _glow(jnp.floor(jnp.clip(drops, 0, 1) * 255))
  shine = glow / jnp.maximum(glow.max(), 1e-6) * amount
  water = image + jnp.clip(shine[..., None] * jnp.array(WATER)[None, None], 0, 1)
  return jnp.where(muddy > 0, mud, water)


def _glow(liquid: jax.Array) -> jax.Array:
  """Returns the brightness of the reflections on the drops, f32[H, W].

  It embosses the equalised distance to the edges of the drops.

  Args:
    liquid: f32[H, W], whole grey levels from 0 to 255.
  """
  distance = jnp.floor(_boxed(jnp.minimum(_distance(_edges(liquid)), FAR)))
  shine = jnp.clip(_filtered(_equalised(distance), _SHINE), 0, 255)
  return liquid * _boxed(shine)


def _edges(levels: jax.Array) -> jax.Array:
  """Returns Canny's edges, bool[H, W]: strong ridges of the Sobel gradient and connected weak ones."""
  smooth = np.array([[1, 2, 1]], np.float32)
  slope = np.array([[-1, 0, 1]], np.float32)
  across, down = _filtered(levels, smooth.T @ slope), _filtered(levels, slope.T @ smooth)
  strength = jnp.abs(across) + jnp.abs(down)
  steep, flat = jnp.abs(down) > 2.414 * jnp.abs(across), jnp.abs(down) < 0.414 * jnp.abs(across)
  same = across * down > 0
  shifted = lambda dy, dx: _shift(strength, dy, dx)
  ahead = jnp.where(
    flat, shifted(0, 1), jnp.where(steep, shifted(1, 0), jnp.where(same, shifted(1, 1), shifted(1, -1)))
  )
  behind = jnp.where(
    flat, shifted(0, -1), jnp.where(steep, shifted(-1, 0), jnp.where(same, shifted(-1, -1), shifted(-1, 1)))
  )
  # Of two equal pixels along a horizontal or vertical gradient, OpenCV keeps the first.
  ridge = (strength > behind) & ((strength > ahead) | ((flat | steep) & (strength == ahead)))
  weak, found = ridge & (strength > WEAK), ridge & (strength > STRONG)
  grown = lambda _, found: (
    weak & (lax.reduce_window(found.astype(jnp.float32), 0.0, lax.max, (3, 3), (1, 1), "SAME") > 0)
  )
  return lax.fori_loop(0, GROWTH, grown, found)


def _distance(edges: jax.Array) -> jax.Array:
  """Returns the Euclidean distance to the nearest edge, f32[H, W]; it is exact up to FAR pixels."""
  square = jnp.where(edges, 0.0, 1e6)
  for axis in (0, 1):
    padded = jnp.pad(square, [(FAR, FAR) if axis == side else (0, 0) for side in (0, 1)], constant_values=1e6)
    nearer = lambda k, found, padded=padded, axis=axis: jnp.minimum(
      found,
      lax.dynamic_slice_in_dim(padded, k, found.shape[axis], axis) + jnp.square(k.astype(jnp.float32) - FAR),
    )
    square = lax.fori_loop(0, 2 * FAR + 1, nearer, square)
  return jnp.sqrt(square)


def _equalised(levels: jax.Array) -> jax.Array:
  """Equalises the histogram of grey levels from 0 to 255, as OpenCV's equalizeHist does."""
  count = jnp.bincount(levels.astype(jnp.int32).ravel(), length=256).astype(jnp.float32)
  first = count[jnp.argmax(count > 0)]
  scale = 255 / jnp.maximum(levels.size - first, 1)
  table = jnp.round((jnp.cumsum(count) - first) * scale)
  return jnp.clip(table, 0, 255)[levels.astype(jnp.int32)]


def _boxed(levels: jax.Array) -> jax.Array:
  """Averages over windows of 3 x 3 pixels."""
  return _filtered(levels, np.full((3, 3), 1 / 9, np.float32))


def _filtered(levels: jax.Array, kernel: np.ndarray) -> jax.Array:
  """Correlates [H, W] with a kernel [3, 3]; the border is mirrored without repeating the edge pixel."""
  height, width = levels.shape
  padded = jnp.pad(levels, 1, mode="reflect")
  return sum(  # pyright: ignore[reportReturnType]  # at least one term
    float(kernel[i, j]) * padded[i : i + height, j : j + width]
    for i in range(3)
    for j in range(3)
    if kernel[i, j]
  )


def _shift(plane: jax.Array, down: int, across: int, *, fill: float = 0.0) -> jax.Array:
  """Returns plane[y + down, x + across] for each pixel (y, x) of [H, W], and `fill` outside the plane."""
  reach = max(abs(down), abs(across))
  height, width = plane.shape
  padded = jnp.pad(plane, reach, constant_values=fill)
  return padded[reach + down : reach + down + height, reach + across : reach + across + width]
