"""Opens the training and test images of an evaluation, and refuses those that its tasks cannot use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from ssl_jax import tasks
from ssl_jax.config.schema import EvaluateDataConfig
from ssl_jax.data import host, sources, transforms
from ssl_jax.data.reader import Source


def open_splits(
  data: EvaluateDataConfig, size: int, wanted: Mapping[str, Mapping], given: Any = None
) -> tuple[Source, Source]:
  """Opens `data.train_split` and `data.test_split`, or what stands for them (`sources.open_split`).

  Cached images that differ in size are stored as squares.

  Args:
    data: options that are "" or 0 are filled in already.
    size: side of stored squares, and of synthetic images, in pixels.
    wanted: the tasks, as in `EvaluateConfig.tasks`.
    given: images that a program passes, see `sources.open_split`.
  Raises: ValueError for splits that do not exist; if a task needs classes that the images do not have; or if
    the test images were chosen from the training images without being held back.
  """
  train, test = (_open(data, split, size, given) for split in (data.train_split, data.test_split))
  _check_held_back(data, train, test)
  _check_labels(wanted, train, test)
  cached = _cached if data.cache else lambda source, *_: source
  return cached(train, data, size), cached(test, data, size)


def _open(data: EvaluateDataConfig, split: str, size: int, given: Any) -> Source:
  where = dict(data_dir=data.data_dir, given=given)
  source = sources.open_split(data.name, split=split, image_size=size, **where)
  if jax.process_index() == 0:
    print(f"{data.name} {split}: {source.summary()}", flush=True)
  return source


def _cached(source: Source, data: EvaluateDataConfig, size: int) -> Source:
  if source.native_shape is None and source.fields == ("image", "label"):
    pixels = transforms.resize_center_crop(size, interpolation=data.interpolation)
    return sources.cached(source, transform=host.one_image(pixels, source))
  return sources.cached(source)


def _check_held_back(data: EvaluateDataConfig, train: Source, test: Source) -> None:
  if not test.note:
    return
  trained = {train.name(i) for i in range(len(train))}
  both = sum(test.name(i) in trained for i in range(len(test)))
  if both:
    raise ValueError(
      f"{both} of the {len(test)} test images are also training images: {data.data_dir} has no split "
      f"{data.test_split!r}, and config.data.train_split={data.train_split!r} holds nothing back; use a "
      "config.data.test_split that the network was not trained on"
    )


def _check_labels(wanted: Mapping[str, Mapping], train: Source, test: Source) -> None:
  for name, options in wanted.items():
    kind = options.get("task", name)
    needed = {"train": train, "test": test} if kind in tasks.LEARN_CLASSES else {"test": test}
    for split, source in needed.items() if kind in tasks.NEED_CLASSES else ():
      if not source.num_classes:
        raise ValueError(
          f"task {name!r} needs the class of every image, but the {split} images have none; put them into a "
          "folder for each class, or leave out the task. `ssl-jax embed` writes the features of any images"
        )
