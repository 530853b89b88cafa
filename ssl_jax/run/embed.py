"""Writes the features that a trained network computes for the images of a folder or data set."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax import parallel
from ssl_jax.data import host, pipeline, sources, transforms
from ssl_jax.data.folder import FolderReader
from ssl_jax.data.reader import Source
from ssl_jax.log.console import Progress
from ssl_jax.run.feature_files import Embedded, check_path, read_features, read_protocol, write_features
from ssl_jax.run.new_images import NewImages, open_new_images
from ssl_jax.run.provenance import provenance
from ssl_jax.run.restore import restore
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks import features
from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.view.similar import plot_similar

PART = 16  # batches between two saves
SHOWN = 23  # most similar images in a picture
TILE = 160  # side of a photo in a picture, pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Work:
  """What is encoded, and how."""

  backbone: Backbone
  images: NewImages
  mesh: Mesh
  layer: str
  grid: int
  batch_size: int
  workers: int

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


def embed(
  workdir: str | pathlib.Path,
  data_dir: str = "",
  *,
  output: str | pathlib.Path = "",
  name: str = "",
  split: str = "",
  step: int = 0,
  weights: str = "params",
  layer: str = "",
  grid: int = 1,
  size: int = 0,
  crop_ratio: float = 1.0,
  batch_size: int = 128,
  workers: int = 0,
  like: str | pathlib.Path = "",
) -> Embedded:
  """Encodes every image of a folder or data set once, in order, with the network of a run.

  Work that was interrupted continues where it stopped; if `output` is complete, it is read. Images that
  cannot be decoded are named in warnings and have no row.

  Args:
    workdir, step, weights: the run, see `restore`.
    data_dir, name, split, size, crop_ratio: the images, see `new_images.open_new_images`.
    output: a file .npz, .csv or .parquet, see `feature_files.write_features`; a .json beside it gets the
      protocol. "": none is written.
    layer, grid: which features, see `features.extract`.
    batch_size: it is rounded up to a multiple of the number of devices.
    workers: number of processes that decode; 0: threads.
    like: an image; the most similar images by the cosine of their features, up to 23, are drawn in a picture
      beside `output`, and printed. The file itself is left out.
  Returns: the features of the images, on every process.
  Raises: ValueError for a wrong option, run or folder, before any image is encoded; Stopped on Ctrl-C or
    SIGTERM, after the rows so far are saved.
  """
  path = pathlib.Path(output).expanduser() if output else None
  if path is not None:
    check_path(path)
  if like and path is None:
    raise ValueError(f"--like={like} draws a picture beside --output, and it is empty; name a file")
  if like and not os.path.isfile(os.path.expanduser(like)):
    raise ValueError(f"--like={like} is not a file; name an image")
  if batch_size < 1:
    raise ValueError(f"--batch_size={batch_size}: use a positive number")
  mesh = parallel.make_mesh()
  run = restore(workdir, mesh, step=step, weights=weights)
  images = open_new_images(
    run.config, data_dir=data_dir, name=name, split=split, size=size, crop_ratio=crop_ratio
  )
  features.feature_function(run.backbone, layer=layer, grid=grid)  # refuses layers of networks without any
  work = _Work(
    backbone=run.backbone,
    images=images,
    mesh=mesh,
    layer=layer,
    grid=grid,
    batch_size=-(-batch_size // mesh.size) * mesh.size,
    workers=workers,
  )
  found = _found(work, path)
  if like and path is not None:
    _show_similar(work, found, pathlib.Path(like).expanduser(), path)
  return found


def _found(work: _Work, path: pathlib.Path | None) -> Embedded:
  """Reads the features of a complete file; otherwise encodes the images and writes them."""
  images, main = work.images, jax.process_index() == 0
  identity = {
    **dict(work.backbone.protocol),
    **images.identity(),
    "layer": work.layer,
    "grid": work.grid,
    "weights_digest": digest(work.backbone),
  }
  if path is not None and read_protocol(path).get("identity") == identity:
    if main:
      print(f"{path} is complete")
    return read_features(path)
  if main:
    print(f"{images.protocol['data']} {images.protocol['split']}: {images.source.summary()}", flush=True)
  rows = _encode(work, identity, path)
  labels = np.ravel(rows.y)
  class_names = tuple(images.source.class_names) if (labels >= 0).any() else ()
  names = np.array([images.names[i] for i in rows.index], np.str_)
  found = Embedded(names, rows.x.reshape(len(names), -1), labels, class_names)
  if main and len(names) < len(images.names):
    print(
      f"{len(images.names) - len(names)} of {len(images.names)} images cannot be decoded; they have no row"
    )
  if path is not None and main:
    write_features(path, found, {**provenance(work.mesh), "identity": identity})
    print(f"wrote {path}: {len(names)} x {found.features.shape[1]}")
  if path is not None:
    for part in _parts(path):
      part.clear()
  return found


def _encode(work: _Work, identity: dict[str, Any], path: pathlib.Path | None) -> features.Features:
  """Encodes the images part by part; the parts that an earlier call has saved are read."""
  kept, done = _kept_parts(identity, path)
  source, total = work.images.source, len(work.images.names)
  rest = dataclasses.replace(source, reader=sources.Reordered(source.reader, np.arange(done, total)))
  first, began, waiting = done, time.monotonic(), []

  def save() -> None:
    rows = features.Features(*(np.concatenate(leaves) for leaves in zip(*waiting, strict=True)))
    part = PartialResults(None if path is None else _part_path(path, len(kept)))
    part.save(identity, {**rows._asdict(), "done": np.array(done)})
    kept.append(rows)
    waiting.clear()

  with Stop() as stop, Progress("embed") as progress:
    progress(done, total, "reading and compiling")
    for rows in work.encoded(rest) if len(rest) else ():
      waiting.append(rows._replace(index=rows.index + first))
      done = min(done + work.batch_size, total)
      progress(done, total, f"{(done - first) / (time.monotonic() - began):.1f} images/s")
      stopped = stop.poll()
      if stopped or len(waiting) == PART or done == total:
        save()
      if stopped and done < total:
        raise Stopped(
          f"stopped by {stopped} after {done} of {total} images; run the same command again to resume"
        )
  return features.in_order(*(np.concatenate(leaves) for leaves in zip(*kept, strict=True)))


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


def _show_similar(work: _Work, found: Embedded, like: pathlib.Path, path: pathlib.Path) -> None:
  """Draws the image `like` and those whose features have the greatest cosine with its own."""
  single = Source(FolderReader(str(like.parent), (like.name,), np.array([-1], np.int32)), 0, (), None)
  query = features.in_order(*next(work.encoded(single))).x.reshape(-1)
  near, cosines = most_similar(query, found.features, SHOWN + 1)
  source = work.images.source
  place = {name: i for i, name in enumerate(work.images.names)}
  numbers = [place[str(found.names[row])] for row in near]
  other = np.array([not _is_file(source.name(number), like) for number in numbers])
  rows = np.flatnonzero(other)[:SHOWN]
  if not len(rows) or jax.process_index():
    return
  transform = _for_display(work)
  shown = [transform(None, source[numbers[row]])["image"] for row in rows]
  picture = path.with_name(f"{path.stem}-like-{like.stem}.png")
  names = [str(found.names[near[row]]) for row in rows]
  plot_similar(
    picture,
    transform(None, single[0])["image"],
    np.stack(shown),
    names=[like.name, *names],
    similarity=cosines[rows],
    title=f"{work.backbone.name}, {work.layer or 'output of the encoder'}",
  )
  for name, cosine in zip(names, cosines[rows]):
    print(f"{cosine:.3f}  {name}")
  print(f"wrote {picture}")


def _for_display(work: _Work) -> Callable[..., dict[str, np.ndarray]]:
  """The transform of records for pictures: photos are shown larger than the network sees them."""
  if work.images.source.native_shape is not None:
    return work.images.transform
  size = max(TILE, work.images.protocol["crop"])
  return host.one_image(transforms.resize_center_crop(size), work.images.source)


def _is_file(name: str, path: pathlib.Path) -> bool:
  return os.path.exists(name) and os.path.samefile(name, path)


def most_similar(query: np.ndarray, found: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """The rows of f32[N, D] with the greatest cosine with a vector f32[D]: (i64[count], f32[count])."""
  length = np.linalg.norm(found, axis=1) * np.linalg.norm(query)
  cosines = found @ query / np.maximum(length, 1e-12)
  rows = np.argsort(-cosines, kind="stable")[:count]
  return rows, cosines[rows]
