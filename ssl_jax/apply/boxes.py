"""What a detector says of images or frames: boxes with classes and scores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jax.sharding import Mesh
from PIL import Image

from ssl_jax.abilities import ObjectDetector
from ssl_jax.apply.pictures import Pictures
from ssl_jax.data import pipeline
from ssl_jax.data.elements import Transform
from ssl_jax.data.reader import Source
from ssl_jax.tasks.backbone import Backbone
from ssl_jax.tasks.detected_batches import detect_each, detecting
from ssl_jax.view.detection import LEAST_SCORE, draw_boxes

PICTURE = ".jpg"
FIELDS = 6  # numbers of a detection: x1, y1, x2, y2, score, class


def detect_images(
  backbone: Backbone,
  source: Source,
  transform: Transform,
  mesh: Mesh,
  pictures: Pictures,
  first: int,
  *,
  batch_size: int,
  workers: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
  """Yields (number of an image, {"boxes": its detections as bytes, see `unpack`}), in order.

  Each image is also drawn with the detections whose score is at least LEAST_SCORE.

  Args:
    source: the records from number `first` on.
  """
  detector = backbone.method.abilities[ObjectDetector]
  detect = detecting(backbone, detector, (0, 0), mesh)
  with pipeline.eval_batches(
    source, batch_size=batch_size, transform=transform, workers=workers, max_bad_fraction=1.0
  ) as batches:
    for found in detect_each(detect, batches):
      for row, index in enumerate(found.index.tolist()):
        one = found.detections(row)
        table = np.concatenate([one.boxes, one.scores[:, None], one.classes[:, None]], 1, dtype=np.float32)
        made = transform(None, source[index])
        height, width = made["image_size"]
        shown = one.scores >= LEAST_SCORE
        drawn = draw_boxes(
          made["image"][:height, :width],
          one.boxes[shown] * np.float32(height / made["full_size"][0]),
          one.classes[shown],
        )
        Image.fromarray(drawn).save(pictures.path(first + index, PICTURE), quality=90)
        yield first + index, {"boxes": table.tobytes()}


def unpack(row: bytes) -> np.ndarray:
  """f32[n, FIELDS]: the detections of an image."""
  return np.frombuffer(row, np.float32).reshape(-1, FIELDS)
