"""Distances on the surface of the body: along it, from files of DensePose's authors, or in its charts."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from ssl_jax.data.body_parts import PARTS


class Surface(NamedTuple):
  """Points on the surface of the body."""

  part: np.ndarray  # i32[p], 1 to 24
  uv: np.ndarray  # f32[p, 2] in [0, 1]


# (true, predicted) -> f64[p], the distances of p pairs of points, infinite where they are not known
Distance = Callable[[Surface, Surface], np.ndarray]


def chart_distance(true: Surface, predicted: Surface) -> np.ndarray:
  """The distance in (U, V), infinite between points of different parts.

  It needs no file, and its numbers do not compare with geodesic ones: a part is about as large as its kappa
  suggests, not 1 wide.
  """
  apart = np.linalg.norm(np.asarray(true.uv, np.float64) - predicted.uv, axis=-1)
  return np.where(true.part == predicted.part, apart, np.inf)


def read_geodesic(folder: str) -> Distance:
  """Reads the body's surface and the distances along it.

  The folder holds arrays as numpy.save writes them, which are made from three files of DensePose's authors:
  - part.npy i[V] (1 to 24), u.npy and v.npy f[V]: the points of the charts, of SMPL_subdiv.mat
    ("Part_ID_subdiv", "U_subdiv", "V_subdiv");
  - vertex.npy i[V]: which vertex of the body each is, from 0 to M - 1, of SMPL_SUBDIV_TRANSFORM.mat ("index",
    which counts from 1: subtract 1);
  - distances.npy f[M, M], or f[M (M - 1) / 2], the lower triangle row by row, d(i, j) with i > j at
    i (i - 1) / 2 + j, as in Pdist_matrix.pkl ("Pdist_matrix"); metres. It is mapped, not read.

  Returns: the distance between the vertices whose U and V are nearest to the points, in their parts.
  Raises: ValueError for files that are missing or do not fit together, naming them.
  """
  names = ("part", "u", "v", "vertex", "distances")
  paths = {name: pathlib.Path(folder) / f"{name}.npy" for name in names}
  missing = [path.name for path in paths.values() if not path.is_file()]
  if missing:
    raise ValueError(f"the folder {folder!r} of the geodesic distances lacks {', '.join(missing)}")
  part, u, v, vertex = (np.load(paths[name]).ravel() for name in names[:4])
  distances = np.load(paths["distances"], mmap_mode="r").squeeze()
  vertices = int(vertex.max()) + 1 if len(vertex) else 0
  lengths = {len(part), len(u), len(v), len(vertex)}
  if len(lengths) > 1 or set(np.unique(part)) != set(range(1, PARTS + 1)) or vertex.min() < 0:
    raise ValueError(
      f"{folder}: part, u, v and vertex have {len(part)}, {len(u)}, {len(v)} and {len(vertex)} numbers; they "
      f"need as many each, parts from 1 to {PARTS} that all occur, and vertices from 0 on"
    )
  square = distances.ndim == 2
  held = distances.shape[0] if square else round((1 + (1 + 8 * distances.size) ** 0.5) / 2)
  if (distances.size != (held**2 if square else held * (held - 1) // 2)) or held < vertices:
    raise ValueError(
      f"{paths['distances']} has the shape {distances.shape}, but there are {vertices} vertices; use all "
      "pairs, or the lower triangle"
    )
  uv = np.stack([u, v], 1).astype(np.float64)
  return _Geodesic(
    {i: (uv[part == i], vertex[part == i].astype(np.int64)) for i in range(1, PARTS + 1)}, distances
  )


class _Geodesic(NamedTuple):
  charts: dict[int, tuple[np.ndarray, np.ndarray]]  # of each part: (U and V f64[n, 2], vertices i64[n])
  distances: np.ndarray

  def __call__(self, true: Surface, predicted: Surface) -> np.ndarray:
    one, other = self._vertices(true), self._vertices(predicted)
    low, high = np.minimum(one, other), np.maximum(one, other)
    if self.distances.ndim == 2:
      return np.asarray(self.distances[high, low], np.float64)
    found = self.distances[np.where(low < high, high * (high - 1) // 2 + low, 0)]
    return np.where(low < high, found, 0.0).astype(np.float64)

  def _vertices(self, points: Surface) -> np.ndarray:
    found = np.zeros(len(points.part), np.int64)
    for part in np.unique(points.part):
      own = points.part == part
      uv, vertex = self.charts[int(part)]
      apart = np.square(points.uv[own][:, None].astype(np.float64) - uv[None]).sum(-1)
      found[own] = vertex[apart.argmin(1)]
    return found
