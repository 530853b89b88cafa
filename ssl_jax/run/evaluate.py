"""Evaluates a representation: restores a backbone, runs tasks, and writes a table, JSON files and plots."""

from __future__ import annotations

import dataclasses
import functools
import json
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import numpy as np
import rich.console
import rich.table
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssl_jax import augment, parallel, tasks
from ssl_jax.config.checked import options_of
from ssl_jax.config.schema import EvaluateConfig, EvaluateDataConfig, TrainConfig, check
from ssl_jax.core import Augment
from ssl_jax.data import classes, host, pipeline, python_data, sources, transforms
from ssl_jax.data.elements import Transform, host_batch
from ssl_jax.data.image_sizes import image_sizes
from ssl_jax.data.reader import Source
from ssl_jax.log.console import Progress
from ssl_jax.log.waiting import waiting
from ssl_jax.metrics import confusion_matrix
from ssl_jax.run.assembly import host_transform
from ssl_jax.run.evaluation_splits import open_splits
from ssl_jax.run.precise_norm import precise_norm
from ssl_jax.run.provenance import provenance
from ssl_jax.run.restore import Restored, restore
from ssl_jax.tasks import features
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.colour_baselines import colour_histogram, colour_statistics
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.tasks.pixel_baseline import strongest_pixels
from ssl_jax.tasks.task import NEVER_TRAINED, Result, TaskData, TestRecords
from ssl_jax.view import knn_atlas
from ssl_jax.view.confusion import plot_confusion
from ssl_jax.view.errors import bars_of, plot_bars, plot_errors
from ssl_jax.view.neighbours import plot_neighbours


def evaluate(
  config: EvaluateConfig | ConfigDict, workdir: str | pathlib.Path, *, source: Any = None, step: int = 0
) -> dict:
  """Runs every task of `config` on the run's backbone and on the baselines in `config.baselines`.

  Writes `workdir/evaluations/step<N>/<task>-<backbone>.json`, plots and, for a k-NN search, an atlas (.npz);
  prints a table.

  Args:
    source: the images in the place of `config.data.name`: a mapping of split names to objects with
      `len(data)` and `data[i]`, such as {"train": ..., "test": ...}; see `data/python_data.py`.
    step: which checkpoint; 0: the last.
  Returns: {backbone: {task: scalars}}.
  Raises: ValueError for a wrong config, data or checkpoint, before any image is encoded.
  """
  config = check(EvaluateConfig, config)
  jobs = {name: tasks.make(**{"task": name, **options}) for name, options in config.tasks.items()}
  mesh = parallel.make_mesh()
  parallel.check_batch(config.batch_size, mesh)
  with waiting(f"restoring the network of {workdir}"):
    run = restore(workdir, mesh, step=step, weights=config.weights)
  if config.precise_batches:
    run = run._replace(backbone=precise_norm(run, mesh, config.precise_batches, source))
  data = task_data(config, run.config, mesh, source)
  folder = pathlib.Path(workdir) / "evaluations" / f"step{run.step}"
  folder.mkdir(parents=True, exist_ok=True)
  table, notes = {}, []
  for backbone in _backbones(config, run, data, mesh):
    extract = features.remembered()
    for name, task in jobs.items():
      file = f"{name}-{backbone.name.replace(' ', '_')}"
      options = {}
      if task.resumes:
        options["partial_results"] = PartialResults(folder / "unfinished" / f"{file}.npz")
      with Progress(f"{name}, {backbone.name}") as progress:
        key = jax.random.key(config.seed)
        watched = functools.partial(extract, watch=lambda n, tell=progress: tell(n, 0, "images encoded"))
        result = task.run(backbone, data, mesh, key, extract=watched, progress=progress, **options)
      table.setdefault(backbone.name, {})[name] = dict(result.scalars)
      result = result._replace(class_names=result.class_names or data.class_names)
      if names := result.protocol.get(NEVER_TRAINED):
        notes.append(f"{name}: test classes without a training image: {classes.listed(names)}")
      seen = _atlas(result, data)
      if jax.process_index() == 0:
        notes += _write(folder, file, result, seen, config, mesh)
  if jax.process_index() == 0:
    _print(table, folder, notes)
  return table


def _atlas(result: Result, data: TaskData) -> knn_atlas.KnnAtlas:
  """Makes the atlas of a k-NN search, {} for other results. All processes must call it."""
  if "neighbours" not in result.predictions:
    return {}
  asked = data.train if result.protocol.get("leave_one_out") else data.test
  return knn_atlas.make_atlas(result.predictions, data.train, asked, data.class_names)


def task_data(config: EvaluateConfig, trained: TrainConfig, mesh: Mesh, given: Any = None) -> TaskData:
  """Opens the splits that `config` names; images are resized and centre-cropped, but not augmented.

  Args:
    trained: the config of the training run, for the options of `config.data` that are "" or 0.
    given: images that a program passes, see `evaluate`; None: those of `config.data`.
  """
  data = _with_defaults(config.data if given is None else python_data.as_given(config.data), trained)
  resize = round(data.size / data.crop_ratio)
  train, test = open_splits(data, resize, config.tasks, given)
  test = sources.shuffled(test) if data.shuffle else test

  def square(source: Source, size: int) -> Transform:
    pixels = transforms.resize_center_crop(size, resize, interpolation=data.interpolation)
    return host.one_image(pixels, source)

  def train_steps(batch_size: int, start: int, stop: int, seed: int) -> Iterator:
    return pipeline.train_batches(
      train,
      batch_size=batch_size,
      seed=seed,
      start=start,
      stop=stop,
      transform=square(train, resize),
      workers=data.workers,
      positions=parallel.local_rows(mesh, batch_size),
      max_bad_fraction=data.max_bad_fraction,
    )

  read = functools.partial(
    pipeline.eval_batches,
    batch_size=config.batch_size,
    workers=data.workers,
    positions=parallel.local_rows(mesh, config.batch_size),
    max_bad_fraction=data.max_bad_fraction,
  )
  return TaskData(
    records=_test_records(config, data, test, mesh)._replace(
      trained=functools.partial(_trained_transform, trained, data)
    ),
    train=functools.partial(read, train, transform=square(train, data.size)),
    test=functools.partial(read, test, transform=square(test, data.size)),
    num_classes=train.num_classes,
    class_names=tuple(train.class_names),
    train_steps=train_steps,
    train_size=len(train),
    test_size=len(test),
    test_sorted_size=test.sorted_size(),
    max_bad_fraction=data.max_bad_fraction,
    augment=live_augment(config, data.size),
    protocol=_protocol(config, data, resize, train),
  )


def _test_records(config: EvaluateConfig, data: EvaluateDataConfig, test: Source, mesh: Mesh) -> TestRecords:
  """Makes the access to the records of the test split for tasks that choose the host transform themselves."""

  def batches(transform: Transform) -> Iterator[dict[str, np.ndarray]]:
    return pipeline.eval_batches(
      test,
      batch_size=config.batch_size,
      transform=transform,
      workers=data.workers,
      positions=parallel.local_rows(mesh, config.batch_size),
      max_bad_fraction=data.max_bad_fraction,
    )

  def read(transform: Transform, indices: Sequence[int]) -> dict[str, np.ndarray]:
    return host_batch(transform, test.__getitems__(list(indices)))

  sizes = functools.cache(functools.partial(image_sizes, test))
  return TestRecords(
    batches,
    read,
    test.__getitem__,
    sizes,
    test.fields,
    test.mask_classes,
    data.interpolation,
    test.clip_names,
    test.things,
  )


def _trained_transform(trained: TrainConfig, data: EvaluateDataConfig) -> Transform:
  """The host transform of a training run for square canvases of the size of the evaluation."""
  sizes = dict.fromkeys(("height", "width"), 0)
  options = {name: sizes.get(name, value) for name, value in trained.host.items()}
  delivered = dataclasses.replace(
    trained.data, size=data.size, interpolation=data.interpolation, crop="device"
  )
  return host_transform(dataclasses.replace(trained, data=delivered, host=options))


def _protocol(config: EvaluateConfig, data: EvaluateDataConfig, resize: int, train: Source) -> dict:
  """What the results depend on in the data: part of the protocol of every task."""
  return {
    "data": data.name,
    "train_split": data.train_split,
    "test_split": data.test_split,
    "order_of_cuts": train.order,
    **({"splits": train.note} if train.note else {}),
    "shuffled": data.shuffle,
    "resize": resize,
    "interpolation": data.interpolation,
    "crop": data.size,
    "live_augment": {**dict(config.augment), "size": data.size, "views": 1},
  }


def _with_defaults(data: EvaluateDataConfig, trained: TrainConfig) -> EvaluateDataConfig:
  """Replaces the options of `data` that are "" or 0 by those of the training run."""
  name = data.name or trained.data.name
  return dataclasses.replace(
    data,
    name=name,
    data_dir=data.data_dir or (trained.data.data_dir if name == trained.data.name else ""),
    train_split=data.train_split or trained.data.split,
    size=data.size or trained.augment["size"],
  )


def live_augment(config: EvaluateConfig, size: int) -> Augment:
  """Makes the augmentation of `config.augment` for one view of `size` pixels per side."""
  return augment.make(config.augment["name"], **{**options_of(config.augment), "size": size, "views": 1})


def _backbones(config: EvaluateConfig, run: Restored, data: TaskData, mesh: Mesh) -> list[Backbone]:
  made = {
    "pixels": lambda: strongest_pixels(data, mesh),
    "untrained": run.untrained,
    "colour_histogram": colour_histogram,
    "colour_statistics": lambda: colour_statistics(data.train),
  }
  return [made[name]() for name in config.baselines] + [run.backbone]


def _write(
  folder: pathlib.Path, name: str, result: Result, seen: knn_atlas.KnnAtlas, config: EvaluateConfig, mesh
) -> list[str]:
  """Writes the scalars and the whole protocol as JSON, the atlas of a k-NN search, and the plots.

  Returns: what is wrong with plots that could not be drawn; the results do not depend on them.
  """
  protocol = {
    **result.protocol,
    "evaluation_batch_size": config.batch_size,
    "seed": config.seed,
    **provenance(mesh),
  }
  (folder / f"{name}.json").write_text(
    json.dumps({"scalars": result.scalars, "protocol": protocol}, indent=1)
  )
  if seen:
    np.savez_compressed(folder / f"{name}.npz", **seen)  # pyright: ignore[reportArgumentType]
  try:
    _plot(folder, name, result, seen)
  except Exception as error:
    return [f"{name}: a plot could not be drawn: {type(error).__name__}: {str(error)[:200]}"]
  return []


def _plot(folder: pathlib.Path, name: str, result: Result, seen: knn_atlas.KnnAtlas) -> None:
  """Draws the task's own picture, or what the result allows: errors, the confusion matrix, neighbours."""
  if result.plot:
    result.plot(folder / name, name)
    return
  if "error_without" in result.protocol:
    _plot_gain(folder / f"{name}.png", result.protocol, title=name)
  elif "error" in result.protocol:
    plot_errors(folder / f"{name}.png", result.protocol["error"], title=f"{name}: error, %")
  found, class_names = result.predictions, result.class_names
  if not found:
    return
  count = max(len(class_names), 1 + int(max(found["label"].max(), found["prediction"].max())))
  matrix = confusion_matrix(found["label"], found["prediction"], count)
  plot_confusion(folder / f"{name}.png", matrix, class_names=class_names, title=name)
  if seen:
    plot_neighbours(
      folder / f"{name}-neighbours.png",
      seen["query_image"],
      seen["label"][: len(seen["query_image"])],
      seen["neighbour_image"],
      seen["neighbour_label"],
      similarity=seen["similarity"],
      class_names=class_names,
      title=name,
    )


def _plot_gain(path: pathlib.Path, protocol: dict, title: str) -> None:
  """Plots the errors with and without learning on the test images."""
  found = {
    name: bars_of(protocol[field], protocol["standard_error"])
    for name, field in (("without", "error_without"), (protocol["mode"], "error"))
  }
  plot_bars(path, found, title=title)


def _print(table: dict, folder: pathlib.Path, notes: list[str]) -> None:
  headlines = {name: next(iter(scalars)) for name, scalars in next(iter(table.values())).items()}
  drawn = rich.table.Table("%", *table)
  for name, headline in headlines.items():
    drawn.add_row(
      f"{name}, {headline.replace('top1', 'top-1')}",
      *(f"{100 * row[name][headline]:.1f}" for row in table.values()),
    )
  console = rich.console.Console(soft_wrap=True)
  console.print(drawn)
  for note in dict.fromkeys(notes):
    console.print(note, markup=False)
  console.print(f"results with their protocol and plots: {folder}", markup=False)
