"""Weighted k-nearest-neighbour classification of frozen features, without training or tuning.

Source: Wu et al. 2018 (Instance Discrimination), section 3.4; k and temperature as there and in DINO.
"""

from __future__ import annotations

import functools
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from ssl_jax.parallel import placement
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.features import Features
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.task import Result, Task, TaskData, check_labels, never_trained, rank_of_label, silent

CHUNK_BYTES = 256 << 20  # upper limit for the similarities on one device, and for a chunk of the bank
VOTE_ROWS = 4096  # number of queries whose votes are counted at once on the host


class Settings(NamedTuple):
  """The options of the task, see `make`."""

  k: int
  also: tuple[int, ...]
  temperature: float
  layer: str
  grid: int
  leave_one_out: bool

  @property
  def ks(self) -> tuple[int, ...]:
    """All numbers of neighbours, `k` first."""
    return (self.k, *(other for other in self.also if other != self.k))


class Neighbours(NamedTuple):
  """The most similar bank rows of each query, best first; ties go to the earlier row."""

  similarity: np.ndarray  # f32[Q, K], cosine
  index: np.ndarray  # i32[Q, K], rows of the bank


def make(
  *,
  k: int = 20,
  also: tuple[int, ...] = (10, 100, 200),
  temperature: float = 0.07,
  layer: str = "",
  grid: int = 1,
  leave_one_out: bool = False,
) -> Task:
  """k-NN classification of the test images among the training images, with one evaluation view per image.

  Args:
    k: number of neighbours for the main results `top1` and `top5` (DINO 20, InstDisc 200). It is fixed in
      advance; the best k is never chosen.
    also: further values of k from the same search, reported as `top1_k10`, ...; those above the number of
      training images are left out.
    temperature: a neighbour of similarity s votes with the weight exp(s / temperature); inf: all neighbours
      have the same weight.
    layer, grid: as in `features.extract`.
    leave_one_out: classify every training image among all others, for data without labelled test images.
  Raises: ValueError for k < 1 or temperature <= 0; in `run`, if there are fewer than k training images.
  """
  settings = Settings(k, also, temperature, layer, grid, leave_one_out)
  if min(settings.ks) < 1:
    raise ValueError(f"k={min(settings.ks)} neighbours; use 1 or more")
  if not temperature > 0:
    raise ValueError(f"temperature={temperature} must be above 0 (0.07 in the papers)")
  return Task("knn", functools.partial(_run, settings))


def _run(
  settings: Settings,
  backbone: Backbone,
  data: TaskData,
  mesh: Mesh,
  key: jax.Array,
  *,
  extract=extract_features,
  progress=silent,
) -> Result:
  """Finds the neighbours of all queries in the bank and counts their votes; `key` is not used."""
  k, also, temperature, layer, grid, leave_one_out = settings
  bank = extract(backbone, data.train, mesh, layer=layer, grid=grid)
  rows = len(bank.x) - leave_one_out
  also = tuple(other for other in also if other <= rows)
  settings = settings._replace(also=also)
  queries = bank if leave_one_out else extract(backbone, data.test, mesh, layer=layer, grid=grid)
  check_labels(bank.y, data.num_classes, "training")
  check_labels(queries.y, data.num_classes, "test")
  found = nearest(queries.x, bank.x, k=max(settings.ks), mesh=mesh, exclude_self=leave_one_out)
  scalars, predictions = _scores(found, queries, bank, settings.ks, temperature, data.num_classes)
  protocol = {
    **data.protocol,
    **backbone.protocol,
    **never_trained(bank.y, queries.y, data.class_names),
    "task": "knn",
    "k": k,
    "also": list(also),
    "temperature": float(temperature),
    "vote": "exp(similarity / temperature)",
    "similarity": "cosine of l2-normalised features",
    "backbone_mode": "evaluation",
    "layer": layer or "encode",
    "grid": grid,
    "bank_rows": len(bank.x),
    "query_rows": len(queries.x),
    "dimensions": bank.x.shape[1],
    "leave_one_out": leave_one_out,
  }
  return Result(scalars, protocol, predictions)


def nearest(
  queries: np.ndarray,
  bank: np.ndarray,
  *,
  k: int,
  mesh: Mesh,
  exclude_self: bool = False,
  chunk_rows: int = 0,
) -> Neighbours:
  """Returns the k bank rows with the highest cosine similarity for every query; the search is exact.

  The queries are sharded over the devices and stay there. The bank is sent once, in chunks: every device
  compares a chunk with its own queries while the next chunk is transferred. The device memory does not depend
  on the size of the bank.

  Args:
    queries: f32[Q, D], on the host, finite, of any norm (a zero vector is similar to no row).
    bank: f32[N, D], on the host, under the same conditions.
    exclude_self: query i is bank row i, and must not be its own neighbour.
    chunk_rows: number of bank rows per chunk; 0: as many as CHUNK_BYTES allows.
  Raises: ValueError if the widths differ or the bank holds fewer than k (other) rows.
  """
  if queries.shape[1] != bank.shape[1]:
    raise ValueError(
      f"queries have {queries.shape[1]} dimensions, the bank has {bank.shape[1]}; use one network for both"
    )
  most = len(bank) - exclude_self
  if k > most:
    others = "other rows" if exclude_self else "rows"
    raise ValueError(f"k={k} neighbours are more than the bank's {most} {others}; use k<={most}")
  count, devices = len(queries), mesh.size
  padded = np.pad(queries, [(0, -count % devices), (0, 0)]) if count % devices else queries
  chunk_rows = min(len(bank), chunk_rows or _chunk_rows(len(padded) // devices, bank.shape[1]))
  rows = placement.spread(np.arange(len(padded), dtype=np.int32), mesh)
  unit, best = _start(placement.spread(padded, mesh), k=k)
  for start in range(0, len(bank), chunk_rows):
    chunk = bank[start : start + chunk_rows]
    valid = len(chunk)
    if valid < chunk_rows:
      chunk = np.pad(chunk, [(0, chunk_rows - valid), (0, 0)])
    before = best
    best = _merge(
      best,
      unit,
      rows,
      placement.replicate(chunk, mesh),
      np.int32(start),
      np.int32(valid),
      exclude_self=exclude_self,
    )
    before[0].block_until_ready()  # at most one chunk is queued on the devices
  return Neighbours(*(placement.fetch(part)[:count] for part in best))


def vote(
  neighbours: Neighbours, labels: np.ndarray, *, k: int, temperature: float, num_classes: int
) -> np.ndarray:
  """Sums exp(similarity / temperature) over those of the k nearest rows of a query that belong to each class.

  It is computed as exp((s - s_max) / temperature), so that a small temperature does not overflow.

  Args:
    labels: i32[N], the labels of the bank.
  Returns: f64[Q, num_classes], scaled so that the nearest neighbour has the weight 1. A class without a
    neighbour gets -inf, so it is never among the top five.
  """
  similarity, index = neighbours.similarity[:, :k].astype(np.float64), neighbours.index[:, :k]
  weights = np.exp((similarity - similarity[:, :1]) / temperature)
  cells = (np.arange(len(index))[:, None] * num_classes + labels[index]).ravel()
  size = len(index) * num_classes
  votes = np.bincount(cells, weights.ravel(), minlength=size)
  seen = np.bincount(cells, minlength=size) > 0
  return np.where(seen, votes, -np.inf).reshape(len(index), num_classes)


def _scores(found: Neighbours, queries: Features, bank: Features, ks, temperature: float, num_classes: int):
  scalars, headline = {}, None
  for k in ks:
    ranks, choices = [], []
    for start in range(0, len(queries.x), VOTE_ROWS):
      block = slice(start, start + VOTE_ROWS)
      some = Neighbours(found.similarity[block], found.index[block])
      votes = vote(some, bank.y, k=k, temperature=temperature, num_classes=num_classes)
      ranks.append(rank_of_label(votes, queries.y[block]))
      choices.append(votes.argmax(axis=1))
    ranks, headline = np.concatenate(ranks), np.concatenate(choices) if headline is None else headline
    suffix = "" if k == ks[0] else f"_k{k}"
    scalars |= {f"top1{suffix}": float((ranks < 1).mean()), f"top5{suffix}": float((ranks < 5).mean())}
  predictions = {
    "label": queries.y,
    "prediction": cast(np.ndarray, headline).astype(np.int32),
    "index": queries.index,
    "features": queries.x,
    "neighbours": bank.index[found.index],
    "neighbour_labels": bank.y[found.index],
    "similarity": found.similarity,
  }
  return scalars, predictions


def _chunk_rows(queries: int, width: int) -> int:
  """Returns the number of rows that keeps f32[queries, rows] and f32[rows, width] below CHUNK_BYTES; at least
  256.
  """
  return max(256, CHUNK_BYTES // (4 * max(queries, width, 1)))


def _unit(x: jax.Array) -> jax.Array:
  """Returns the rows of x scaled to unit norm; a zero row stays zero."""
  return x / jnp.maximum(jnp.linalg.norm(x, axis=1, keepdims=True), 1e-12)


@functools.partial(jax.jit, static_argnames="k")
def _start(queries: jax.Array, *, k: int):
  """Returns (the queries with unit norm, the initial neighbours: similarity -inf and row 0, each [Q, k])."""
  # Computed from the queries so that it has the same sharding.
  nothing = jnp.broadcast_to(queries[:, :1] * 0, (len(queries), k))
  return _unit(queries), (nothing - jnp.inf, nothing.astype(jnp.int32))


@functools.partial(jax.jit, static_argnames="exclude_self")
def _merge(best, unit, rows, chunk, start, valid, *, exclude_self: bool):
  """Returns the best neighbours so far, updated with the first `valid` rows of a chunk, which begins at bank
  row `start`.
  """
  # Full precision, because a TPU or GPU would otherwise round to 8 or 10 bits and swap neighbours.
  similarity = jnp.einsum("qd,nd->qn", unit, _unit(chunk), precision=jax.lax.Precision.HIGHEST)
  column = jnp.arange(len(chunk), dtype=jnp.int32)[None, :]
  allowed = column < valid
  if exclude_self:
    allowed = allowed & (column + start != rows[:, None])
  similarity = jnp.where(allowed, similarity, -jnp.inf)
  k = best[0].shape[1]
  values, columns = jax.lax.top_k(similarity, min(k, len(chunk)))
  values = jnp.concatenate([best[0], values], axis=1)  # earlier rows win ties, as in a search without chunks
  indices = jnp.concatenate([best[1], columns + start], axis=1)
  values, places = jax.lax.top_k(values, k)
  return values, jnp.take_along_axis(indices, places, axis=1)
