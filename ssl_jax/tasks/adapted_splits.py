"""Adaptation to the images of corrupted splits, in order; partial results survive an interruption."""

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

SAVE_EVERY = 60  # seconds between two saves of the partial results
FETCH_EVERY = 64  # samples of a stream between two transfers of results to the host


class Work(NamedTuple):
  """The compiled adaptation, its weights, and the splits to which it is applied."""

  program: ttt.Program
  weights: Weights
  trainable: Any  # the initial values of the trainable parameters
  key: jax.Array
  splits: list[CorruptedSplit]
  mesh: Mesh


class Segment(NamedTuple):
  """One corrupted batch of a split. Every process holds all of it."""

  samples: dict[str, np.ndarray]  # {"image": uint8[N, H, W, 3]}
  labels: np.ndarray  # i32[N]
  index: np.ndarray  # i32[N]: positions in the split


class AdaptedRows:
  """The results so far, by split and field, and the current parameters of the streams. All of it is saved in
  the partial results.
  """

  def __init__(self, kept: PartialResults, identity: dict):
    self._kept, self._identity, self._saved = kept, identity, time.monotonic()
    self._parts = {name: [array] for name, array in kept.load(identity).items()}
    self._clock, self.seconds, self.timed = None, 0.0, 0
    streams = sorted(name for name in self._parts if name.startswith("stream/"))
    self.stream: list[np.ndarray] = [self._parts.pop(name)[0] for name in streams]

  def done(self, split: CorruptedSplit) -> int:
    """Returns the number of images of the split that have a result."""
    return sum(map(len, self._parts.get(f"{_name(split)}/label", ())))

  def count(self) -> int:
    """Returns the number of images that have a result, over all splits."""
    labels = [parts for name, parts in self._parts.items() if name.endswith("/label")]
    return sum(len(part) for parts in labels for part in parts)

  def add(self, split: CorruptedSplit, labels: np.ndarray, result: ttt.AdaptResult) -> float:
    """Adds results (host arrays). Returns their mean loss at the last step, or 0 if there are no steps."""
    for field, rows in {"label": labels, **result._asdict()}.items():
      self._parts.setdefault(f"{_name(split)}/{field}", []).append(rows)
    return float(result.losses[:, -1].mean()) if result.losses.shape[1] else 0.0

  def lap(self, images: int) -> None:
    """Counts `images` results since the last lap. The first lap includes compilation and is not timed."""
    now = time.perf_counter()
    if self._clock is not None:
      self.seconds, self.timed = self.seconds + now - self._clock, self.timed + images
    self._clock = now

  def pause(self) -> None:
    """Excludes the time until the next lap, because it is not spent on adaptation."""
    self._clock = None

  def of(self, split: CorruptedSplit) -> dict[str, np.ndarray]:
    """Returns the labels and all results of a split, by field."""
    fields = ("label", *ttt.AdaptResult._fields)
    return {field: np.concatenate(self._parts[f"{_name(split)}/{field}"]) for field in fields}

  def save(self, *, now: bool) -> None:
    """Saves the results if `now` is True or the last save was more than SAVE_EVERY seconds ago."""
    if now or time.monotonic() - self._saved > SAVE_EVERY:
      arrays = {name: np.concatenate(parts) for name, parts in self._parts.items()}
      streams = {f"stream/{i:05}": leaf for i, leaf in enumerate(self.stream)}
      self._kept.save(self._identity, arrays | streams)
      self._saved = time.monotonic()


def adapt_each(work: Work, rows: AdaptedRows) -> Iterator[float]:
  """Adapts to every image, starting from the trained weights each time, split by split.

  Yields the mean loss of the images that were just processed.
  """
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
  """Adapts along each split as a stream. Program.size streams run at once.

  Yields the mean loss of the images that were just processed.
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
  """Returns the initial parameters of `size` streams: the saved ones if resumed, else the trained ones."""
  if resumed:
    return jax.tree.unflatten(jax.tree.structure(work.trainable), rows.stream)
  return jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * size), work.trainable)


def _adapt_part(work: Work, trainable, samples, index, part: slice):
  """Adapts to the samples at positions `part` of all streams.

  Returns: (the results as host arrays [streams, N, ...], the trainable parameters after the last sample).
  """
  placed = jax.tree.map(
    lambda leaf: placement.spread(leaf, work.mesh) if isinstance(leaf, np.ndarray) else leaf, trainable
  )
  mine, found = {name: leaf[part] for name, leaf in samples.items()}, []
  for result, adapted in ttt.online(work.program, work.weights, placed, work.key, mine, index[part]):
    found.append(result)
    trainable = adapted
  results = jax.tree.map(lambda *leaves: np.stack([placement.fetch(leaf) for leaf in leaves], 1), *found)
  return results, trainable


def segments_of(split: CorruptedSplit, mesh: Mesh) -> Iterator[Segment]:
  """Yields the corrupted images of a split batch by batch, in order."""
  for batch in split.batches():
    if jax.process_count() == 1 and "valid" in batch and not np.any(batch["valid"]):
      return
    found = extract_features(split.backbone, lambda batch=batch: iter([batch]), mesh)
    images = np.round(found.x * 255).astype(np.uint8).reshape(-1, *batch["image"].shape[1:])
    yield Segment({"image": images}, found.y, found.index)


def image_at(split: CorruptedSplit, index: int, mesh: Mesh) -> Segment:
  """Returns the image of a split with this index. Raises ValueError if the split ends before it."""
  for segment in segments_of(split, mesh):
    if index in segment.index:
      row = slice(place := int(np.flatnonzero(segment.index == index)[0]), place + 1)
      samples = {name: leaf[row] for name, leaf in segment.samples.items()}
      return Segment(samples, segment.labels[row], segment.index[row])
  raise ValueError(f"--index={index}: the test split ends before this image; use a smaller index")


def pixels_of(params, model_state, images: jax.Array) -> jax.Array:
  """Returns the images themselves, flattened: the encoder of a split whose images are adapted to."""
  return images.reshape(len(images), -1)


def _name(split: CorruptedSplit) -> str:
  return f"{split.name}/{split.severity}"
