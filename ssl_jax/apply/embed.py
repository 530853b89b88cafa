"""Writes the features that a trained network computes for the images of a folder or data set."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from ssl_jax import parallel
from ssl_jax.apply.encoding import Encoding, clear_parts, encode_images
from ssl_jax.apply.feature_files import Embedded, check_path, read_features, read_protocol, write_features
from ssl_jax.apply.new_images import open_new_images
from ssl_jax.data import host, transforms
from ssl_jax.data.folder import FolderReader
from ssl_jax.data.reader import Source
from ssl_jax.log.waiting import waiting
from ssl_jax.run.provenance import provenance
from ssl_jax.run.restore import restore
from ssl_jax.tasks import features
from ssl_jax.tasks.backbone import digest
from ssl_jax.view.similar import plot_similar

SHOWN = 23  # most similar images in a picture
TILE = 160  # side of a photo in a picture, pixels


def embed(
  workdir: str | pathlib.Path,
  data_dir: str = "",
  *,
  source: Any = None,
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
    data_dir, source, name, split, size, crop_ratio: the images, see `new_images.open_new_images`.
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
  with waiting(f"restoring the network of {workdir}"):
    run = restore(workdir, mesh, step=step, weights=weights)
  images = open_new_images(
    run.config, data_dir=data_dir, source=source, name=name, split=split, size=size, crop_ratio=crop_ratio
  )
  features.feature_function(run.backbone, layer=layer, grid=grid)  # refuses layers of networks without any
  work = Encoding(
    backbone=run.backbone,
    images=images,
    mesh=mesh,
    layer=layer,
    grid=grid,
    batch_size=parallel.fill_devices(batch_size, mesh),
    workers=workers,
  )
  found = _found(work, path)
  if like and path is not None:
    _show_similar(work, found, pathlib.Path(like).expanduser(), path)
  return found


def _found(work: Encoding, path: pathlib.Path | None) -> Embedded:
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
  rows = encode_images(work, identity, path, name="embed").rows
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
    clear_parts(path)
  return found


def _show_similar(work: Encoding, found: Embedded, like: pathlib.Path, path: pathlib.Path) -> None:
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


def _for_display(work: Encoding) -> Callable[..., dict[str, np.ndarray]]:
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
