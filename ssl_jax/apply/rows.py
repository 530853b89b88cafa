"""Predicts images by a network that stays as it is; the rows so far survive a stop."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ssl_jax.apply.new_images import NewImages
from ssl_jax.data import sources
from ssl_jax.data.reader import Source
from ssl_jax.log.console import Progress
from ssl_jax.run.stop import Stop, Stopped
from ssl_jax.tasks.partial_results import PartialResults
from ssl_jax.tasks.stream_rows import FrameRows

UNFINISHED = "unfinished.npz"

# (source, number of its first image) -> (number of an image, its row), in order
Predict = Callable[[Source, int], Iterator[tuple[int, dict[str, Any]]]]


def predict_each(
  images: NewImages, predict: Predict, identity: dict[str, Any], folder: pathlib.Path
) -> tuple[dict[str, np.ndarray], float]:
  """Returns (the rows of all images that can be decoded, with their "index"; the milliseconds of an image).

  Raises: ValueError if no image can be decoded; Stopped on a stop request, after the rows are saved.
  """
  kept = PartialResults(folder / UNFINISHED)
  rows, total = FrameRows(kept, identity), len(images.names)
  done = int(rows.arrays()["index"][-1]) + 1 if rows.count() else 0
  source = images.source
  rest = dataclasses.replace(source, reader=sources.Reordered(source.reader, np.arange(done, total)))
  first = None
  with Stop() as stop, Progress("predict") as progress:
    progress(done, total, "reading and compiling")
    for index, row in predict(rest, done) if done < total else ():
      rows.add({"video": 0, "index": index, **row})
      first = first or (time.monotonic(), index)
      stopped = stop.poll()
      rows.save(now=bool(stopped))
      progress(index + 1, total, f"{rows.count()} images")
      if stopped and index + 1 < total:
        raise Stopped(
          f"stopped by {stopped} after {index + 1} of {total} images; run the same command again to resume"
        )
  if not rows.count():
    raise ValueError(f"none of the {total} images can be decoded, such as {source.name(0)}")
  kept.clear()
  since, before = first or (time.monotonic(), total - 1)
  return rows.arrays(), 1000 * (time.monotonic() - since) / max(total - 1 - before, 1)
