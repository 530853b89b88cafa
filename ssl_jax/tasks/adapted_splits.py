"""Adaptation to the images of corrupted splits, in order, with results that survive a stop."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax import ttt
from ssl_jax.core import Weights
from ssl_jax.parallel import placement
from ssl_jax.tasks.corrupted import CorruptedSplit
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.partial_results import PartialResults

SAVE_EVERY = 60  # seconds
FETCH_EVERY = 64  # samples of a stream between two transfers of results to the host


class Work(NamedTuple):
  """What is adapted to what."""

  program: ttt.Program
  weights: Weights
  trainable: Any  # the trainable parameters to begin with
  key: jax.Array
  splits: list[CorruptedSplit]
  mesh: Mesh


class Segment(NamedTuple):
  """A corrupted batch of a split, whole on every process."""

  samples: dict[str, np.ndarray]  # {"image": uint8[N, H, W, 3]}
  labels: np.ndarray  # i32[N]
  index: np.ndarray  # i32[N]: places in the split


class AdaptedRows:
  """The results so far, by split and field, and where a stream stands; all of it is kept in the partial
  results.
  """

  def __init__(self, kept: PartialResults, identity: dict):
    self._kept, self._identity, self._saved = kept, identity, time.monotonic()
    self._parts = {name: [array] for name, array in kept.load(identity).items()}
    self._clock, self.seconds, self.timed = None, 0.0, 0
    streams = sorted(name for name in self._parts if name.startswith("stream/"))
    self.stream: list[np.ndarray] = [self._parts.pop(name)[0] for name in streams]

  def done(self, split: CorruptedSplit) -> int:
    """How many images of the split have a result."""
    return sum(map(len, self._parts.get(f"{_name(split)}/label", ())))

  def count(self) -> int:
    """How many images have a result, over all splits."""
    labels = [parts for name, parts in self._parts.items() if name.endswith("/label")]
    return sum(len(part) for parts in labels for part in parts)

  def add(self, split: CorruptedSplit, labels: np.ndarray, result: ttt.AdaptResult) -> float:
    """Adds results that lie on the host; returns their mean loss at the last step, 0 without a step."""
    for field, rows in {"label": labels, **result._asdict()}.items():
      self._parts.setdefault(f"{_name(split)}/{field}", []).append(rows)
    return float(result.losses[:, -1].mean()) if result.losses.shape[1] else 0.0

  def lap(self, images: int) -> None:
    """So many images got a result since the last lap; the first lap compiles and is not timed."""
    now = time.perf_counter()
    if self._clock is not None:
      self.seconds, self.timed = self.seconds + now - self._clock, self.timed + images
    self._clock = now

  def pause(self) -> None:
    """The time until the next lap is not spent on adaptation."""
    self._clock = None

  def of(self, split: CorruptedSplit) -> dict[str, np.ndarray]:
    """All results of a split by field, and its labels."""
    fields = ("label", *ttt.AdaptResult._fields)
    return {field: np.concatenate(self._parts[f"{_name(split)}/{field}"]) for field in fields}

  def save(self, *, now: bool) -> None:
    """Saves if asked to, or if the last save is longer ago than SAVE_EVERY."""
    if now or time.monotonic() - self._saved > SAVE_EVERY:
      arrays = {name: np.concatenate(parts) for name, parts in self._parts.items()}
      streams = {f"stream/{i:05}": leaf for i, leaf in enumerate(self.stream)}
      self._kept.save(self._identity, arrays | streams)
      self._saved = time.monotonic()


def adapt_each(work: Work, rows: AdaptedRows) -> Iterator[float]:
  """Adapts to every image from the trained weights, split by split; yields the loss of the images just done."""
  for split in work.splits:
    seen, done = 0, rows.done(split)
    for segment in segments_of(split, work.mesh):
      first = min(max(done - seen, 0), len(segment.labels))
      rows.pause()
      for last, result in ttt.standard(*work[:4], segment.samples, segment.index, start=first):
        rows.lap(last - first)
        yield rows.add(split, segment.labels[first:last], result)
        first = last
      seen += len(segment.labels)


def adapt_streams(work: Work, rows: AdaptedRows) -> Iterator[float]:
  """Adapts along each split as a stream, as many at once as the program takes; yields the mean loss of their
  last images.
  """
  size = work.program.size
  for group in (work.splits[i : i + size] for i in range(0, len(work.splits), size)):
    seen, done = 0, rows.done(group[0])
    trainable = _first_params(work, rows, size, resumed=bool(done))
    for segments in zip(*(segments_of(split, work.mesh) for split in group)):
      padded = [*segments, *[segments[-1]] * (size - len(group))]
      stacked = jax.tree.map(lambda *leaves: np.stack(leaves, 1), *(segment.samples for segment in padded))
      index = segments[0].index
      rows.pause()
      for first in range(max(done - seen, 0), len(index), FETCH_EVERY):
        part = slice(first, first + FETCH_EVERY)
        results, trainable = _adapt_part(work, trainable, stacked, index, part)
        rows.lap(len(index[part]) * size)
        losses = [
          rows.add(split, segment.labels[part], jax.tree.map(lambda leaf, i=i: leaf[i], results))
          for i, (split, segment) in enumerate(zip(group, segments))
        ]
        rows.stream = [placement.fetch(leaf) for leaf in jax.tree.leaves(trainable)]
        yield float(np.mean(losses))
      seen += len(index)


def _first_params(work: Work, rows: AdaptedRows, size: int, *, resumed: bool):
  """The trainable parameters of `size` streams: those that were kept, or the trained ones for each."""
  if resumed:
    return jax.tree.unflatten(jax.tree.structure(work.trainable), rows.stream)
  return jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * size), work.trainable)


def _adapt_part(work: Work, trainable, samples, index, part: slice):
  """(Results of these places of all streams on the host, [streams, N, ...]; the parameters after them)."""
  placed = jax.tree.map(
    lambda leaf: placement.spread(leaf, work.mesh) if isinstance(leaf, np.ndarray) else leaf, trainable
  )
  mine, found = {name: leaf[part] for name, leaf in samples.items()}, []
  for result, trainable in ttt.online(work.program, work.weights, placed, work.key, mine, index[part]):
    found.append(result)
  return jax.tree.map(
    lambda *leaves: np.stack([placement.fetch(leaf) for leaf in leaves], 1), *found
  ), trainable


def segments_of(split: CorruptedSplit, mesh: Mesh) -> Iterator[Segment]:
  """The corrupted images of a split batch by batch, in order."""
  for batch in split.batches():
    if jax.process_count() == 1 and "valid" in batch and not np.any(batch["valid"]):
      return
    found = extract_features(split.backbone, lambda batch=batch: iter([batch]), mesh)
    images = np.round(found.x * 255).astype(np.uint8).reshape(-1, *batch["image"].shape[1:])
    yield Segment({"image": images}, found.y, found.index)


def image_at(split: CorruptedSplit, index: int, mesh: Mesh) -> Segment:
  """The one image of a split with this number. Raises ValueError if there is none."""
  for segment in segments_of(split, mesh):
    if index in segment.index:
      row = slice(place := int(np.flatnonzero(segment.index == index)[0]), place + 1)
      samples = {name: leaf[row] for name, leaf in segment.samples.items()}
      return Segment(samples, segment.labels[row], segment.index[row])
  raise ValueError(f"--index={index}: the test split ends before it")


def pixels_of(params, model_state, images: jax.Array) -> jax.Array:
  """The images themselves, flat: how the backbone of a split reads them for adaptation."""
  return images.reshape(len(images), -1)


def _name(split: CorruptedSplit) -> str:
  return f"{split.name}/{split.severity}"
