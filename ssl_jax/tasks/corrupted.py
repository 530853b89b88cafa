"""Corrupted test images: computed on the fly or read from the published files."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Sequence
from typing import Literal, NamedTuple, cast

import jax
import numpy as np
from jax.sharding import Mesh

from ssl_jax import corrupt, parallel
from ssl_jax.abilities import Classifier
from ssl_jax.augment.compose import for_each
from ssl_jax.augment.image_digest import key_of
from ssl_jax.config.checked import nearest
from ssl_jax.core import Weights
from ssl_jax.data import classes, host, pipeline, sources, transforms
from ssl_jax.data.elements import Record
from ssl_jax.data.reader import Source
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.task import Batches, TaskData, check_choice

SEVERITIES = (1, 2, 3, 4, 5)
SMALL = 64  # images with a side below this many pixels use the parameters for CIFAR
CLEAN = "clean"  # the name of the uncorrupted images, which have severity 0


class Corruptions(NamedTuple):
  """The corruptions, their severities and parameters, and the number of images; see `choose_corruptions`."""

  names: tuple[str, ...]
  severities: tuple[int, ...]
  table: str
  textures: str
  released: str
  examples: int


class CorruptedSplit(NamedTuple):
  """One corruption at one severity: the batches to read, and the backbone that gets them corrupted."""

  name: str
  severity: int
  backbone: Backbone
  batches: Batches


def choose_corruptions(
  task: str,
  *,
  corruptions: tuple[str, ...],
  severities: tuple[int, ...],
  table: str,
  textures: str,
  released: str,
  examples: int,
  clean: bool = False,
) -> Corruptions:
  """Checks the options that the tasks on corrupted images share.

  Args:
    task: the name of the task, for error messages.
    corruptions: names; (): the fifteen of the benchmark.
    severities: some of 1 to 5.
    table: "imagenet" or "cifar", see corrupt.make; "": "cifar" for images below 64 pixels, else "imagenet".
    textures: a folder of frost textures; "": procedural frost.
    released: a folder with the .npy files of CIFAR-10-C (including labels.npy) or with the images of
      ImageNet-C (CORRUPTION/SEVERITY/CLASS/); "": the corruptions are computed on the fly.
    examples: number of test images, see `first_of`; 0: all.
    clean: whether "clean" is a valid name; with corruptions=() it then comes first.
  Raises: ValueError for an unknown name, a severity outside 1 to 5, or a negative number of examples.
  """
  known = (*corrupt.known(), *((CLEAN,) if clean else ()))
  names = tuple(corruptions) or (*((CLEAN,) if clean else ()), *corrupt.CORRUPTIONS)
  for name in names:
    if name not in known:
      raise ValueError(
        f"config.tasks.{task}.corruptions: no corruption is called {name!r}{nearest(name, known)}"
      )
  if not severities or set(severities) - set(SEVERITIES):
    raise ValueError(f"config.tasks.{task}.severities is {severities}; use some of 1 to 5")
  if table:
    check_choice("table", table, ("imagenet", "cifar"))
  if examples < 0:
    raise ValueError(f"config.tasks.{task}.examples is {examples}; use 0 for all, or a positive number")
  return Corruptions(names, tuple(severities), table, textures, released, examples)


def corrupted_splits(
  chosen: Corruptions, backbone: Backbone, read, data: TaskData, mesh: Mesh, key: jax.Array
) -> tuple[Corruptions, list[CorruptedSplit]]:
  """Returns (the choice with its table filled in, a split for every corruption at every severity).

  The corruption of an image is a function of its pixels and the key, so the results do not depend on batches,
  devices or order. All severities of one corruption share one compiled program.

  Args:
    read: the function that the backbones of the splits apply to the corrupted images; same arguments as
      `encode`.
  Raises: ValueError that names the missing files if released files are requested but incomplete; before
    anything is read.
  """
  first = next(iter(data.test()))["image"]  # the rows of a batch that this process reads
  chosen = chosen._replace(table=chosen.table or ("cifar" if first.shape[1] < SMALL else "imagenet"))
  harmed = [name for name in chosen.names if name != CLEAN]
  files = _released(chosen, harmed, data, first.shape, mesh) if chosen.released else {}
  plain, found = _with_classifier(backbone, read), []
  test = first_of(data.test, chosen.examples, data.test_sorted_size)
  for name in chosen.names:
    for severity in chosen.severities if name != CLEAN else (0,):
      if name == CLEAN:
        found.append(CorruptedSplit(name, 0, plain, test))
      elif chosen.released:
        found.append(CorruptedSplit(name, severity, plain, files[name, severity]))
      else:
        found.append(
          CorruptedSplit(name, severity, _corrupted(backbone, read, name, severity, key, chosen), test)
        )
  return chosen, found


def origin(chosen: Corruptions) -> str:
  """Returns the source of the corrupted images, for a protocol."""
  if chosen.released:
    return f"released files in {chosen.released}"
  frost = "of " + chosen.textures if chosen.textures else "procedural"
  return f"made on the fly, parameters of {chosen.table}, frost {frost}: not the released files"


def _corrupted(
  backbone: Backbone, read, name: str, severity: int, key: jax.Array, chosen: Corruptions
) -> Backbone:
  table, kind = cast(Literal["imagenet", "cifar"], chosen.table), str(jax.random.key_impl(key))
  see = _seen(read, name, table, chosen.textures, kind)
  state = {
    "network": backbone.weights.model_state,
    "severity": np.int32(severity),
    "key": np.asarray(jax.random.key_data(key)),
  }
  return _with_classifier(backbone, see)._replace(weights=Weights(backbone.weights.params, state))


def _with_classifier(backbone: Backbone, read) -> Backbone:
  """Returns the backbone with `read` as its encoder and as its classifier."""
  method = backbone.method._replace(
    encode=read, abilities={**backbone.method.abilities, Classifier: Classifier(read)}
  )
  return backbone._replace(method=method)


@functools.lru_cache(maxsize=None)  # equal arguments give the same function, so all severities compile once
def _seen(read, name: str, table: Literal["imagenet", "cifar"], textures: str, kind: str):
  """Returns `read` after a corruption, whose draws use a key of the implementation `kind`."""
  function = corrupt.make(name, table=table, textures=textures)

  def encode(params, model_state, images):
    key = jax.random.wrap_key_data(model_state["key"], impl=kind)
    one = lambda image: function(key_of(key, image), image, model_state["severity"])
    return read(params, model_state["network"], for_each(one, images))

  return encode


def first_of(batches: Batches, examples: int, sorted_size: int = 0) -> Batches:
  """Returns the same batches, in which only `examples` images of the split are valid; 0: all.

  These are the first images or, in a split of `sorted_size` images that are sorted by class, images at equal
  distances, so that every class is represented in proportion.
  """
  if not examples:
    return batches

  @functools.wraps(batches)
  def first():
    read = 0
    for batch in batches():
      index = np.asarray(batch.get("index", np.arange(read, read + len(batch["image"]))))
      place = index.astype(np.int64)
      chosen = place * examples % sorted_size < examples if sorted_size else place < examples
      mask = np.asarray(batch.get("valid", np.ones(len(index), bool))) & chosen
      if read and not sorted_size and jax.process_count() == 1 and not mask.any():
        return
      read += len(index)
      yield {**batch, "index": index, "valid": mask}

  return first


def _released(
  chosen: Corruptions, names, data: TaskData, batch: tuple[int, ...], mesh: Mesh
) -> dict[tuple[str, int], Batches]:
  """Returns the batches of the published files by corruption and severity.

  The classes of image folders get their numbers among `data.class_names`, by name: a set may lack some.

  Args:
    batch: the shape of the images that this process reads of a batch.
  Raises: ValueError that names missing files, or classes that are not in `data.class_names`, before anything
    is read.
  """
  folder, severities = chosen.released, chosen.severities
  root = pathlib.Path(folder)
  arrays = (root / "labels.npy").is_file()
  wanted = (
    [root / f"{name}.npy" for name in names]
    if arrays
    else [root / name / str(s) for name in names for s in severities]
  )
  missing = [str(path) for path in wanted if not path.exists()]
  if missing:
    raise ValueError(
      f"released: {folder} lacks {len(missing)} of {len(wanted)} files or folders, such as "
      f"{', '.join(missing[:3])}; it must hold labels.npy and CORRUPTION.npy (CIFAR-10-C) or "
      "CORRUPTION/SEVERITY/CLASS/ (ImageNet-C). Complete it, or name only the available ones in corruptions"
    )
  batch_size = batch[0] * jax.process_count()
  read = functools.partial(
    pipeline.eval_batches,
    batch_size=batch_size,
    transform=host.ImageAndLabel(transforms.resize_center_crop(batch[1])),
    positions=parallel.local_rows(mesh, batch_size),
    max_bad_fraction=data.max_bad_fraction,
  )

  def source(name: str, severity: int) -> Source:
    if arrays:
      return _rows(root, name, severity)
    data_dir = str(root / name / str(severity))
    images = sources.make("folder", data_dir=data_dir)
    if not data.class_names:
      return images
    return classes.renumbered(
      images, data.class_names, what=f"the images in {data_dir}", owner="the test data"
    )

  found = {}
  for name in names:
    for s in severities:
      opened = source(name, s)
      found[name, s] = first_of(functools.partial(read, opened), chosen.examples, opened.sorted_size())
  return found


def _rows(root: pathlib.Path, name: str, severity: int) -> Source:
  """Returns one severity of a file in the format of CIFAR-10-C, uint8[5 N, 32, 32, 3].

  Raises: ValueError if the number of labels does not fit the number of images.
  """
  path = root / f"{name}.npy"
  images, labels = np.load(path, mmap_mode="r"), np.load(root / "labels.npy")
  if len(images) != len(labels) or len(labels) % len(SEVERITIES):
    raise ValueError(
      f"{path} holds {len(images)} images and labels.npy {len(labels)}; both must hold five times as many as "
      "the test set: download them again"
    )
  count = len(labels) // len(SEVERITIES)
  mine = slice((severity - 1) * count, severity * count)
  return Source(_Rows(f"{path}, severity {severity}", images[mine], labels[mine]), 0, (), images.shape[1:])


@dataclasses.dataclass(frozen=True, eq=False)
class _Rows:
  """A Reader for arrays."""

  origin: str
  images: np.ndarray
  labels: np.ndarray

  def __len__(self) -> int:
    return len(self.images)

  def read(self, indices: Sequence[int]) -> list[Record]:
    return [{"image": np.asarray(self.images[i]), "label": int(self.labels[i])} for i in indices]

  def name(self, index: int) -> str:
    return f"{self.origin}, row {index}"
