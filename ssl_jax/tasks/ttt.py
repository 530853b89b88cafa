"""Test-time training under corruption: the error of a network that learns on each test image before it judges it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from ssl_jax import optim, ttt
from ssl_jax.augment.crops import to_float
from ssl_jax.core import Weights
from ssl_jax.parallel import placement
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks.backbone import Backbone, digest
from ssl_jax.tasks.classification import check_classifier, classify
from ssl_jax.tasks.corrupted import CLEAN, CorruptedSplit, choose_corruptions, corrupted_splits, origin
from ssl_jax.tasks.features import extract as extract_features
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.tasks.task import Result, Task, TaskData, check_choice, silent
from ssl_jax.ttt.batched import images_at_once
from ssl_jax.ttt.inner_loop import ALWAYS

SAVE_EVERY = 60  # seconds
FETCH_EVERY = 64  # images of a stream between two looks at the answers


def make(
  *,
  mode: Literal["standard", "online"] = "standard",
  steps: int = 10,
  copies: int = 32,
  learning_rate: float = 0.001,
  optimizer: Literal["sgd", "nesterov", "adamw"] = "sgd",
  momentum: float = 0.0,
  weight_decay: float = 0.0,
  moves: tuple[str, ...] = (),
  threshold: float = ALWAYS,
  micro_batches: int = 1,
  together: int = 0,
  curve: bool = False,
  corruptions: tuple[str, ...] = (),
  severities: tuple[int, ...] = (5,),
  table: str = "",
  textures: str = "",
  released: str = "",
  examples: int = 0,
) -> Task:
  """Errors after adapting, with standard errors, beside those of the same images without; and what adapting costs.

  Standard: each image begins with the trained weights. Online: the images of one corruption and severity are a stream in the order
  of the split; each is judged after learning on it, and the next begins with the weights it left. Either way an image whose
  learning diverges is judged without it, and counted. A run that is stopped goes on where it was.

  Args:
    mode: "standard" or "online". steps: 10 standard, 1 online in the paper.
    copies: augmented copies of the image in each step, under config.augment, which should be that of training.
    learning_rate, optimizer, momentum, weight_decay: constant rate; the optimiser starts afresh with each image.
    moves: which parameters move, by the beginning of their path or a pattern ("encoder/*/kernel"); (): what the method says.
    threshold: adapt only to images on whose plain form the network's certainty of the task is below it; above 1: to all.
    micro_batches: parts of the copies, to save memory. together: images (streams) at once on a device; 0: as many as suit the
      platform and the network. Neither changes the answers.
    curve: record the error after every step as well.
    corruptions, table, textures, released, examples: see corrupted.choose_corruptions. () is "clean" and the fifteen. severities: 1 to 5.
  Raises: ValueError for bad options; in `run`, if the network has nothing to learn on a test image.
  Source: Sun et al. 2020; Gandelsman et al. 2022.
  """
  check_choice("mode", mode, ("standard", "online"))
  if learning_rate <= 0:
    raise ValueError(
      f"config.tasks.ttt.learning_rate is {learning_rate}; use a positive one, or steps=0 to learn nothing"
    )
  if together < 0:
    raise ValueError(
      f"config.tasks.ttt.together is {together}; use 0 for the default, or how many images at once"
    )
  chosen = choose_corruptions(
    "ttt",
    corruptions=corruptions,
    severities=severities,
    table=table,
    textures=textures,
    released=released,
    examples=examples,
    clean=True,
  )
  rule = make_rule(optimizer, learning_rate=learning_rate, momentum=momentum, weight_decay=weight_decay)
  settings = dict(
    mode=mode,
    steps=steps,
    copies=copies,
    learning_rate=learning_rate,
    optimizer=optimizer,
    momentum=momentum,
    weight_decay=weight_decay,
    threshold=threshold,
    micro_batches=micro_batches,
  )

  def run(
    backbone: Backbone,
    data: TaskData,
    mesh: Mesh,
    key: jax.Array,
    *,
    extract=extract_features,
    progress=silent,
    shelf: PartialResults = PartialResults(),
  ) -> Result:
    check_classifier(backbone, "ttt")
    adaptable = backbone.adaptable
    if adaptable is None:
      raise ValueError(
        f"task 'ttt' needs a network with a task to learn on a test image, which {backbone.protocol.get('backbone')!r} "
        "has not; train one with method 'joint' or 'mae_probe'"
      )
    augment = data.augment or (lambda key, batch: {"image": to_float(batch["image"])})
    learn = ttt.make_adapt(
      adaptable,
      augment,
      rule,
      steps=steps,
      copies=copies,
      micro_batches=micro_batches,
      threshold=threshold,
      curve=curve,
    )
    weights, moving = ttt.initial_params(backbone, moves)
    exact, found = corrupted_splits(chosen, backbone, pixels_of, data, key)
    many = together or images_at_once(learn, moving)
    many = min(many, -(-len(found) // mesh.size)) if mode == "online" else many
    program = ttt.compile_adapt(learn, mesh, together=many, carried=mode == "online")
    work = _Work(program, *placement.replicate((weights, moving, key), mesh), found, mesh)
    protocol = {
      **data.protocol,
      **backbone.protocol,
      **settings,
      "task": "ttt",
      "moves": list(moves or adaptable.moves),
      "severities": list(severities),
      "corruption_data": origin(exact),
      "backbone_mode": "evaluation",
    }
    rows = _Rows(
      shelf,
      {
        **protocol,
        "weights": digest(backbone),
        "cells": [cell[:2] for cell in found],
        "examples": examples,
        "together": many * mesh.size if mode == "online" else 0,
        "seed": np.asarray(jax.random.key_data(key)).tolist(),
        "curve": curve,
      },
    )
    total = len(found) * min(examples or data.test_size, data.test_size or examples)
    with Stop() as stop:
      for loss in (_online if mode == "online" else _standard)(work, rows):
        progress(rows.count(), total, loss)
        stopped = stop.poll()
        rows.save(now=bool(stopped))
        if stopped:
          raise Stopped(
            f"stopped by {stopped} after {rows.count()} of {total} answers; the same command goes on"
          )
    _, plain = corrupted_splits(chosen, backbone, backbone.predict, data, key)
    trained = [
      classify(cell.backbone, cell.batches, data.num_classes, mesh, extract).x.argmax(1) for cell in plain
    ]
    shelf.clear()
    scalars, details = _report(rows, found, trained)
    ledger = {
      "milliseconds_a_sample": 1000 * rows.seconds / max(rows.timed, 1),
      "samples_at_once": program.size,
      "passes_a_sample": {"forward_and_backward": steps * copies, "forward": 2 + (steps - 1) * curve},
      "bytes_a_device": program.memory(),
    }
    return Result(scalars, {**protocol, **details, "ledger": ledger})

  return Task("ttt", run, resumes=True)


def make_rule(
  name: str, *, learning_rate: float, momentum: float, weight_decay: float
) -> optax.GradientTransformation:
  """The optimiser of an image: a constant rate."""
  return optim.make_optimizer(
    total_steps=1,
    steps_per_epoch=1,
    batch_size=1,
    name=name,
    schedule="constant",
    learning_rate=learning_rate,
    momentum=momentum,
    weight_decay=weight_decay,
  ).transform


class _Work(NamedTuple):
  """What is adapted to what."""

  program: ttt.Program
  weights: Weights
  moving: Any
  key: jax.Array
  cells: list[CorruptedSplit]
  mesh: Mesh


class _Rows:
  """Answers so far, by cell and field, and where a stream stands; all of it goes on the shelf."""

  def __init__(self, shelf: PartialResults, identity: dict):
    self._shelf, self._identity, self._saved = shelf, identity, time.monotonic()
    self._parts = {name: [array] for name, array in shelf.load(identity).items()}
    self._clock, self.seconds, self.timed = None, 0.0, 0
    self.stream: list[np.ndarray] = [
      self._parts.pop(name)[0] for name in sorted(self._parts) if name.startswith("stream/")
    ]

  def done(self, cell: CorruptedSplit) -> int:
    """How many images of the cell are answered."""
    return sum(map(len, self._parts.get(f"{_name(cell)}/label", ())))

  def count(self) -> int:
    return sum(len(part) for name, parts in self._parts.items() if name.endswith("/label") for part in parts)

  def add(self, cell: CorruptedSplit, labels: np.ndarray, answer: ttt.AdaptResult) -> float:
    """Notes answers on the host; returns their mean loss at the last step, or 0 without one."""
    for field, rows in {"label": labels, **answer._asdict()}.items():
      self._parts.setdefault(f"{_name(cell)}/{field}", []).append(rows)
    return float(answer.losses[:, -1].mean()) if answer.losses.shape[1] else 0.0

  def lap(self, images: int) -> None:
    """So many images were answered since the last lap; the first, which compiles, is not timed."""
    now = time.perf_counter()
    if self._clock is not None:
      self.seconds, self.timed = self.seconds + now - self._clock, self.timed + images
    self._clock = now

  def pause(self) -> None:
    """What comes until the next lap is not adapting."""
    self._clock = None

  def of(self, cell: CorruptedSplit) -> dict[str, np.ndarray]:
    return {
      field: np.concatenate(self._parts[f"{_name(cell)}/{field}"])
      for field in ("label", *ttt.AdaptResult._fields)
    }

  def save(self, *, now: bool) -> None:
    """If asked to, or if the last time is long ago."""
    if now or time.monotonic() - self._saved > SAVE_EVERY:
      arrays = {name: np.concatenate(parts) for name, parts in self._parts.items()}
      self._shelf.save(
        self._identity, arrays | {f"stream/{i:05}": leaf for i, leaf in enumerate(self.stream)}
      )
      self._saved = time.monotonic()


class Segment(NamedTuple):
  """A batch of the split, corrupted, whole on every process."""

  images: np.ndarray  # u8[N, H, W, 3]
  labels: np.ndarray
  index: np.ndarray


def _standard(work: _Work, rows: _Rows) -> Iterator[float]:
  """CorruptedSplit by cell; yields the loss of the images just answered."""
  for cell in work.cells:
    seen, done = 0, rows.done(cell)
    for segment in segments_of(cell, work.mesh):
      first = min(max(done - seen, 0), len(segment.labels))
      rows.pause()
      for last, answer in ttt.standard(*work[:4], segment.images, segment.index, start=first):
        rows.lap(last - first)
        yield rows.add(cell, segment.labels[first:last], answer)
        first = last
      seen += len(segment.labels)


def _online(work: _Work, rows: _Rows) -> Iterator[float]:
  """As many streams side by side as the program takes, then the next ones."""
  size, fields = work.program.size, ttt.AdaptResult._fields
  for group in (work.cells[i : i + size] for i in range(0, len(work.cells), size)):
    seen, done = 0, rows.done(group[0])
    moving = (
      _resumed(rows, work)
      if done
      else jax.tree.map(lambda leaf: np.stack([np.asarray(leaf)] * size), work.moving)
    )
    for segments in zip(*(segments_of(cell, work.mesh) for cell in group)):
      padded = [*segments, *[segments[-1]] * (size - len(group))]
      images, index = np.stack([segment.images for segment in padded], 1), segments[0].index
      rows.pause()
      for first in range(max(done - seen, 0), len(index), FETCH_EVERY):
        part, answers = slice(first, first + FETCH_EVERY), []
        for answer, moving in ttt.online(
          work.program, work.weights, _placed(moving, work.mesh), work.key, images[part], index[part]
        ):
          answers.append(answer)
        host = [
          np.stack([placement.fetch(getattr(answer, field)) for answer in answers], 1) for field in fields
        ]  # [S, N, ...]
        rows.lap(len(answers) * size)
        loss = [
          rows.add(cell, segment.labels[part], ttt.AdaptResult(*(leaf[i] for leaf in host)))
          for i, (cell, segment) in enumerate(zip(group, segments))
        ]
        rows.stream = [placement.fetch(leaf) for leaf in jax.tree.leaves(moving)]
        yield float(np.mean(loss))
      seen += len(index)


def _resumed(rows: _Rows, work: _Work):
  return jax.tree.unflatten(jax.tree.structure(work.moving), rows.stream)


def _placed(moving, mesh: Mesh):
  """Streams on their devices; those that are there already stay."""
  return jax.tree.map(
    lambda leaf: placement.spread(leaf, mesh) if isinstance(leaf, np.ndarray) else leaf, moving
  )


def segments_of(cell: CorruptedSplit, mesh: Mesh) -> Iterator[Segment]:
  """The cell's images batch by batch, in the order of the split."""
  for batch in cell.batches():
    if jax.process_count() == 1 and "mask" in batch and not np.any(batch["mask"]):
      return
    found = extract_features(cell.backbone, lambda batch=batch: iter([batch]), mesh)
    side = batch["image"].shape[1:]
    yield Segment(np.round(found.x * 255).astype(np.uint8).reshape(-1, *side), found.y, found.index)


def image_at(cell: CorruptedSplit, index: int, mesh: Mesh) -> Segment:
  """The one image numbered `index` of a cell."""
  for segment in segments_of(cell, mesh):
    if index in segment.index:
      place = int(np.flatnonzero(segment.index == index)[0])
      return Segment(*(field[place : place + 1] for field in segment))
  raise ValueError(f"--index={index}: the test split ends before it")


def pixels_of(params, model_state, images: jax.Array) -> jax.Array:
  """What a cell's backbone reads: the images themselves, flat."""
  return images.reshape(len(images), -1)


def _name(cell: CorruptedSplit) -> str:
  return f"{cell.name}/{cell.severity}"


def _report(
  rows: _Rows, found: list[CorruptedSplit], trained: list[np.ndarray]
) -> tuple[dict[str, float], dict[str, Any]]:
  """(Scalars, what the protocol says of every cell): means over cells are those without the clean one."""
  answers = {cell[:2]: rows.of(cell) for cell in found}
  wrong = {cell: a["logits"].argmax(1) != a["label"] for cell, a in answers.items()}
  before = {cell: guess != a["label"] for guess, (cell, a) in zip(trained, answers.items())}
  harmed = [cell for cell in answers if cell[0] != CLEAN] or list(answers)
  mean, plain = (np.mean([table[cell] for cell in harmed], 0) for table in (wrong, before))
  scalars = {
    "error": float(mean.mean()),
    "error_without": float(plain.mean()),
    "gain": float((plain - mean).mean()),
    "diverged": float(np.mean([answers[cell]["diverged"] for cell in harmed])),
    "adapted": float(np.mean([answers[cell]["adapted"] for cell in harmed])),
  }
  scalars |= {
    name: float(np.mean([w.mean() for cell, w in wrong.items() if cell[0] == name]))
    for name in dict.fromkeys(cell[0] for cell in answers)
  }
  return scalars, {
    "error": _by_name(wrong, np.mean),
    "error_without": _by_name(before, np.mean),
    "standard_error": _by_name(wrong, _spread),
    "gain_standard_error": _by_name(
      {cell: before[cell].astype(float) - wrong[cell] for cell in wrong}, _spread
    ),
    "mean": {"standard_error": _spread(mean), "gain_standard_error": _spread(plain - mean)},
    "diverged": _by_name({cell: a["diverged"] for cell, a in answers.items()}, np.sum),
    "curve": _by_name(
      {cell: a["curve"].argmax(-1) != a["label"][:, None] for cell, a in answers.items()},
      lambda rows: np.mean(rows, 0).tolist(),
    ),
    "losses": _by_name(
      {cell: a["losses"] for cell, a in answers.items()}, lambda rows: np.mean(rows, 0).tolist()
    ),
    "test_rows": len(mean),
  }


def _by_name(table: dict, reduce) -> dict[str, dict[str, Any]]:
  found = {}
  for (name, severity), values in table.items():
    value = reduce(values)
    found.setdefault(name, {})[str(severity)] = value if isinstance(value, list) else float(value)
  return found


def _spread(values: np.ndarray) -> float:
  """The standard error of the mean of the values, one an image."""
  return float(np.std(values, ddof=1) / np.sqrt(len(values))) if len(values) > 1 else 0.0
