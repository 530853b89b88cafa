"""Encodes many images part by part, so that work that was interrupted continues where it stopped."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.apply.new_images import NewImages
from ssl_jax.data import pipeline, sources
from ssl_jax.data.reader import Source
from ssl_jax.log.console import Progress
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks import features
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.partial_results import PartialResults

PART = 16  # batches between two saves


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoding:
  """What is encoded, and how."""

  backbone: Backbone
  images: NewImages
  mesh: Mesh
  layer: str = ""
  grid: int = 1
  batch_size: int = 128  # a multiple of the number of devices
  workers: int = 0

  def encoded(self, source: Source) -> Iterator[features.Features]:
    """The features of the records of a source, batch after batch."""
    with pipeline.eval_batches(
      source,
      batch_size=self.batch_size,
      transform=self.images.transform,
      workers=self.workers,
      positions=parallel.local_rows(self.mesh, self.batch_size),
      max_bad_fraction=1.0,  # each is named in a warning, and has no row
    ) as batches:
      yield from features.encoded(self.backbone, batches, self.mesh, layer=self.layer, grid=self.grid)


class Encoded(NamedTuple):
  """The features of all images that could be decoded."""

  rows: features.Features
  milliseconds: float  # of an image, without the first batch of this call; 0 if there was no other


def encode_images(
  work: Encoding, identity: dict[str, Any], path: pathlib.Path | None, *, name: str
) -> Encoded:
  """Encodes the images part by part; the parts that an earlier call has saved are read.

  Args:
    identity: what the saved parts depend on.
    path: of the output, beside which the parts are saved until `clear_parts`; None: nothing is saved.
    name: of the work, for its progress.
  Raises: ValueError if no image can be decoded or features are not finite; Stopped on a stop request, after
    the rows so far are saved.
  """
  kept, done = _kept_parts(identity, path)
  source, total = work.images.source, len(work.images.names)
  rest = dataclasses.replace(source, reader=sources.Reordered(source.reader, np.arange(done, total)))
  first, began, waiting, steady = done, time.monotonic(), [], None

  def save() -> None:
    rows = features.Features(*(np.concatenate(leaves) for leaves in zip(*waiting, strict=True)))
    part = PartialResults(None if path is None else _part_path(path, len(kept)))
    part.save(identity, {**rows._asdict(), "done": np.array(done)})
    kept.append(rows)
    waiting.clear()

  with Stop() as stop, Progress(name) as progress:
    progress(done, total, "reading and compiling")
    for rows in work.encoded(rest) if len(rest) else ():
      waiting.append(rows._replace(index=rows.index + first))
      done = min(done + work.batch_size, total)
      steady = steady or (time.monotonic(), done)
      progress(done, total, f"{(done - first) / (time.monotonic() - began):.1f} images/s")
      stopped = stop.poll()
      if stopped or len(waiting) == PART or done == total:
        save()
      if stopped and done < total:
        raise Stopped(
          f"stopped by {stopped} after {done} of {total} images; run the same command again to resume"
        )
  since, before = steady or (time.monotonic(), total)
  milliseconds = 1000 * (time.monotonic() - since) / max(total - before, 1)
  return Encoded(
    features.in_order(*(np.concatenate(leaves) for leaves in zip(*kept, strict=True))), milliseconds
  )


def clear_parts(path: pathlib.Path) -> None:
  """Deletes the parts that were saved beside an output."""
  for part in _parts(path):
    part.clear()


def _kept_parts(identity: dict[str, Any], path: pathlib.Path | None) -> tuple[list[features.Features], int]:
  """Returns the parts that were saved for the same images and network, and the number of images they hold."""
  kept, done = [], 0
  for part in _parts(path) if path is not None else ():
    stored = part.load(identity)
    if not stored:
      break
    done = int(stored.pop("done"))
    kept.append(features.Features(**stored))
  return kept, done


def _part_path(path: pathlib.Path, number: int) -> pathlib.Path:
  return path.with_name(f"{path.name}.part{number:05}.npz")


def _parts(path: pathlib.Path) -> Iterator[PartialResults]:
  """The parts that lie beside an output, in order."""
  number = 0
  while _part_path(path, number).exists():
    yield PartialResults(_part_path(path, number))
    number += 1
